"""Locks that a forked child finds open, whoever held them: that thread is not there any more."""

from __future__ import annotations

import os
import threading
import weakref

__all__ = ["Claim", "Lock"]


class Lock:
    """`with lock.held:` guards what must be whole at every moment, since nobody finishes it after a fork.

    What `with` gets is the interpreter's own lock, not this object: between its being taken and the block no handler
    of a signal can raise, as it could between the lines of an __enter__ in Python. A handler that comes in the middle
    of the block and takes the lock again, on the same thread, gets it: the block has to bear that.
    """

    __slots__ = ("__weakref__", "held")

    def __init__(self):
        self.open()
        _all.add(self)

    def open(self) -> None:
        self.held = threading.RLock()


class Claim:
    """Something that one at a time has, and for which nobody waits."""

    __slots__ = ("__weakref__", "_lock", "_who")

    def __init__(self):
        self._lock = Lock()
        self.open()
        _all.add(self)

    def open(self) -> None:
        self._who = None

    def take(self, who: object) -> bool:
        """Whether `who` has it now. To be called inside of `try`, with `give_back` in its `finally`."""
        with self._lock.held:
            if self._who is None:
                self._who = who
            return self._who is who

    def give_back(self, who: object) -> None:
        """Nothing where somebody else has it."""
        if self._who is who:
            self._who = None


_all: weakref.WeakSet[Lock | Claim] = weakref.WeakSet()


def _open_all():
    for lock in list(_all):
        lock.open()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_all)
