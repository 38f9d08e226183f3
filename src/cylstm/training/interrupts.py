"""Ctrl-C while training."""

from __future__ import annotations

import contextlib
import signal
import threading

__all__ = ["deferred_interrupt"]


@contextlib.contextmanager
def deferred_interrupt():
    """Ctrl-C sets the event instead of raising in the middle of an update; a second one raises at once."""
    event = threading.Event()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield event
        return

    def handler(number, frame):
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    signal.signal(signal.SIGINT, handler)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
