"""Ctrl-C during a search: the first stops it in order and says so, the second ends it at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glioflow.progress import Say

# Tune's own handler says nothing that reaches a user, and takes ten seconds.
_NO_HANDLER = "TUNE_DISABLE_SIGINT_HANDLER"


@contextmanager
def stopping_at_interrupt(say: Say) -> Iterator[None]:
    """Let the first Ctrl-C stop the search that runs in this block, as SIGUSR1 does in Tune; restore what was before.

    Does nothing outside the main thread, where Python does not allow setting a handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, before_tune = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)

    pressed = False

    def stop(number: int, frame: Any) -> None:
        nonlocal pressed
        if pressed or signal.getsignal(signal.SIGUSR1) is before_tune:  # before Tune runs
            raise KeyboardInterrupt
        pressed = True
        say("stopping the trials; Ctrl-C ends them at once")
        os.kill(os.getpid(), signal.SIGUSR1)

    chosen = os.environ.get(_NO_HANDLER)
    os.environ.setdefault(_NO_HANDLER, "1")
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGUSR1, before_tune)
        if chosen is None:
            os.environ.pop(_NO_HANDLER, None)
