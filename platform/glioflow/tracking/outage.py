"""Calls to a store that outlast its being away."""

import time
from collections.abc import Callable
from typing import TypeVar

from glioflow.cluster.logins import without_password
from glioflow.errors import RunFailed, UserError, first_line
from glioflow.tracking.addresses import answers

Result = TypeVar("Result")
_PAUSE_S = 1.0


class StoreAway(RunFailed):
    """The tracking store stayed away for longer than it was waited for: no fault of what asked it."""


def outlasting(uri: str, call: Callable[[], Result], *, patience_s: float) -> Result:
    """Return what `call` returns; where the store at `uri` is away meanwhile, call again once it answers.

    Args:
        uri: Address of the store.
        call: May be called several times. A `UserError` is the caller's; what fails twice in a row before a store that
            answers is not an outage, and is raised, too.
        patience_s: How long the store is waited for.

    Raises:
        StoreAway: If it is away for longer.
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
