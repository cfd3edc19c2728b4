"""Ctrl-C and SIGTERM: what they do, said when they come, and restored after libraries that take them."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glioflow.progress import Say


def interrupt_on_sigterm() -> None:
    """Make SIGTERM act as Ctrl-C if nothing handles it; by default it would end the process at once.

    Does nothing outside the main thread, where Python does not allow setting a handler.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)


def interrupt(number: int, frame: Any) -> None:
    """Act as Ctrl-C: Tune and Train shut down cleanly at the first one."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:  # such as in a shell's background job
        raise KeyboardInterrupt


@contextmanager
def restoring_interrupts() -> Iterator[None]:
    """Restore the handler of Ctrl-C after a block; those of Train and Tune would stay and swallow it later."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def announcing_interrupts(say: Say, text: str) -> Iterator[None]:
    """Say something at the first Ctrl-C within a block, then act as before; Ray's tasks take seconds to end."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return

    def announce(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, handler)
        say(text)
        handler(number, frame)

    signal.signal(signal.SIGINT, announce)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
