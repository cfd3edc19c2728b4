"""Calls to a store that are repeated after an outage."""

import time
from collections.abc import Callable
from typing import TypeVar

from glioflow.cluster.logins import without_password
from glioflow.errors import RunFailed, UserError, first_line
from glioflow.tracking.addresses import answers

Result = TypeVar("Result")
_PAUSE_S = 1.0


class StoreAway(RunFailed):
    """The tracking store was unreachable for too long; not the caller's mistake."""


def outlasting(uri: str, call: Callable[[], Result], *, patience_s: float) -> Result:
    """Return the result of `call`; if the store at `uri` is unreachable, call again once it answers.

    Args:
        uri: Address of the store.
        call: May be called several times. A `UserError` is raised at once; a call that fails twice in a row while the
            store answers is no outage, and its error is raised too.
        patience_s: How long to wait for the store.

    Raises:
        StoreAway: If it is unreachable for longer.
    """
    deadline, there_before = time.monotonic() + patience_s, False
    while True:
        try:
            return call()
        except UserError:
            raise
        except Exception as error:
            there = answers(uri, patience_s=0)
            if there and there_before:
                raise
            there_before = there
            if there:
                time.sleep(_PAUSE_S)
            elif not answers(uri, patience_s=max(0.0, deadline - time.monotonic())):
                raise StoreAway(f"MLflow at {without_password(uri)} is away ({first_line(error)})") from error
