"""What happens while training: what callbacks are told, what ends it, and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import NamedTuple

from cylstm.training.history import History

__all__ = ["Event", "NonFiniteLoss", "StopTraining", "deferred_interrupt"]


TOGETHER = 0.5  # seconds


class NonFiniteLoss(ArithmeticError):
    """The loss, or the norm of its gradients, became NaN or infinite: the weights are those before that update. Or, at
    the end of training, the weights themselves are no longer all numbers."""


class StopTraining(Exception):
    """Raised by a callback to end training after the current update or epoch, as if the epochs were over."""


class Event(NamedTuple):
    """What a callback is told: kind "update" or "epoch", where training stands, and the update's or epoch's loss."""

    kind: str
    model: object
    epoch: int  # from 0
    update: int  # so far, over all epochs
    loss: float
    history: History


@contextlib.contextmanager
def deferred_interrupt(may_raise=lambda: False):
    """Ctrl-C sets the event instead of raising in the middle of an update; a second one raises at once, but not one
    that came with the first: mpiexec passes Ctrl-C on to ranks that may have it from the terminal, too.

    may_raise : a function that says whether the first one may raise, too, which is where an update cannot be torn.
    """
    event, first = threading.Event(), 0.0
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield event
        return

    def handler(number, frame):
        nonlocal first
        if not event.is_set():
            first = time.monotonic()
        elif time.monotonic() - first > TOGETHER:
            raise KeyboardInterrupt
        event.set()
        if may_raise():
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handler)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
