"""Parameters: named views on one flat buffer, and the knowledge of whether someone may have changed them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import numpy as np

from cylstm._core.memory import aligned_empty, same_bytes
from cylstm.checks import describe
from cylstm.locks import Lock

__all__ = ["Parameters", "check_gradients", "laid_out"]


class _Lease:
    """What the views handed out hang on: numpy keeps it alive exactly as long as any view, or view of a view, lives."""

    def __init__(self, flat):
        self.flat = flat
        self.__array_interface__ = flat.__array_interface__


class _Tracker:
    """How often the values of one buffer changed; shared by all Parameters on that buffer."""

    __slots__ = ("before", "changes", "flat", "lease", "lock", "watched")

    def __init__(self, flat):
        self.flat = flat
        self.changes = 0
        self.lease = None
        self.lock = Lock()  # of lease, before and changes
        self.before = None  # the values as they were last, while somebody may write through a view and somebody watches
        self.watched = False  # gradients are not, so that looking at them costs no copy

    def views(self) -> np.ndarray:
        """The whole buffer, hung on a lease."""
        with self.lock.held:
            lease = self.lease() if self.lease is not None else None
            if lease is None:
                self._look()
                self.before = self.flat.copy() if self.watched else None
                lease = _Lease(self.flat)
                self.lease = weakref.ref(lease)
            return np.asarray(lease)

    def watch(self) -> None:
        """From now on somebody asks for the number of changes."""
        with self.lock.held:
            self._look()
            self.watched = True

    def current(self) -> int:
        """The number of changes, the ones made through views included."""
        with self.lock.held:
            self.watched = True
            return self._look()

    def _look(self) -> int:
        lease, before = self.lease, self.before  # a signal's handler may look as well, and drop them
        if lease is not None:
            alive = lease() is not None  # asked first: who writes last, and lets go, is seen
            if before is None:  # nobody knows what the values were
                self.changes += 1
                self.before = self.flat.copy() if alive and self.watched else None
            elif not same_bytes(self.flat, before):
                self.changes += 1
                before[:] = self.flat
            if not alive and self.lease is lease:
                self.lease = self.before = None
        return self.changes


class Parameters(Mapping):
    """A mapping from names to writable views, in a fixed order, on one flat buffer.

    layout: name -> shape.

    Weights are packed for the kernels once per update, so a layer has to know when they change. A view that was handed
    out, `flat` or a part of it too, can be written to at any time, by anything; while one is alive, `version()`
    compares all values with what they were: slower, never stale. Only what writes to a bare address, past all views,
    has to say so by `touch()`.
    """

    def __init__(self, layout: dict[str, tuple[int, ...]], dtype):
        flat = aligned_empty(sum(math.prod(shape) for shape in layout.values()), dtype)
        self._place(layout, flat, _Tracker(flat), 0)

    def _place(self, layout, flat, tracker, offset):
        self._layout = dict(layout)
        self.in_order = tuple(self._layout.items())  # of dicts, no order is compared
        self._flat = flat
        self._tracker = tracker
        self._offset = offset  # of this part in the tracked buffer
        self._children = {}
        self._raw = {}
        self._starts = {}
        for name, shape in self.layout.items():
            self._starts[name] = offset
            offset += math.prod(shape)
        self._end = offset

    @property
    def layout(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, in the order of the buffer."""
        return self._layout

    @property
    def flat(self) -> np.ndarray:
        """All values (N,), in the order of the layout: a writable view. What is assigned is copied into it."""
        return self._tracker.views()[self._offset : self._end]

    @flat.setter
    def flat(self, values):
        self._flat[...] = values  # the view itself, after `flat *= 2`, changes nothing
        self.touch()

    def child(self, prefix: str) -> Parameters:
        """The parameters whose names begin with `prefix`, without it, on the same memory. They must be neighbours.

        Raises KeyError where there are none.
        """
        if prefix in self._children:
            return self._children[prefix]
        names = [name for name in self.layout if name.startswith(prefix)]
        if not names:
            raise KeyError(prefix)
        layout = {name[len(prefix) :]: self.layout[name] for name in names}
        size = sum(math.prod(shape) for shape in layout.values())
        start = self._starts[names[0]] - self._offset
        part = Parameters.__new__(Parameters)
        part._place(layout, self._flat[start : start + size], self._tracker, self._starts[names[0]])
        self._children[prefix] = part
        return part

    @property
    def size(self) -> int:
        """The number of all elements."""
        return self._flat.size

    @property
    def nbytes(self) -> int:
        """Size of the buffer in bytes."""
        return self._flat.nbytes

    @property
    def dtype(self) -> np.dtype:
        """The one dtype of all parameters."""
        return self._flat.dtype

    def matching(self, argument: str, patterns) -> list[str]:
        """The names that a name or a pattern (`fnmatch`) fits, or one of several. Raises TypeError, or ValueError where
        one fits none."""
        several = [patterns] if isinstance(patterns, str) else patterns
        several = list(several) if isinstance(several, Iterable) else [several]
        if not all(isinstance(pattern, str) for pattern in several):
            raise TypeError(f"{argument}: expected names or patterns of parameters, got {describe(patterns)}")
        for pattern in several:
            if not any(fnmatchcase(name, pattern) for name in self.layout):
                raise ValueError(f"{argument}: expected names or patterns of {', '.join(self.layout)}, got {pattern!r}")
        return [name for name in self.layout if any(fnmatchcase(name, pattern) for pattern in several)]

    def touch(self) -> None:
        """Say that values changed: for the package itself, and for whoever writes to a bare address."""
        with self._tracker.lock.held:
            self._tracker.changes += 1

    def watch(self) -> None:
        """For who is going to ask for `version` again and again: looking through a view then counts as no change."""
        self._tracker.watch()

    def version(self) -> int:
        """How often the values changed, through a view or by `touch`."""
        tracker = self._tracker
        return tracker.changes if tracker.lease is None else tracker.current()

    def raw(self, name: str | None = None) -> np.ndarray:
        """A view that is not tracked, of one parameter or of all: for the package itself, which calls `touch` after
        writing."""
        if name is None:
            return self._flat
        if name not in self._raw:
            start = self._starts[name] - self._offset
            shape = self.layout[name]
            self._raw[name] = self._flat[start : start + math.prod(shape)].reshape(shape)
        return self._raw[name]

    def bytes_of(self, name: str) -> int:
        """Those that one parameter takes."""
        return self.raw(name).nbytes

    def operand(self, name: str) -> np.ndarray:
        """A matrix as the head's products take it: itself, not tracked."""
        return self.raw(name)

    def rows(self, name: str, ids) -> np.ndarray:
        """Copies of the rows of a matrix by their numbers (...), (..., columns)."""
        return self.raw(name)[ids]

    def __getitem__(self, name: str) -> np.ndarray:
        shape, start = self.layout[name], self._starts[name]
        return self._tracker.views()[start : start + math.prod(shape)].reshape(shape)

    __eq__, __hash__ = object.__eq__, object.__hash__  # which parameters they are, not what they hold

    def __iter__(self):
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def __reduce__(self):
        return _rebuilt, (self.layout, self._flat.copy())

    def __repr__(self) -> str:
        inside = ", ".join(f"{name} {shape}" for name, shape in self.layout.items())
        return f"Parameters({inside}; {self.dtype})"


def laid_out(layout: dict[str, tuple[int, ...]], dtype, given=None):
    """New Parameters or, where some are given, those. Raises ValueError where they are of another layout or type."""
    if given is None:
        return Parameters(layout, dtype)
    if given.in_order != tuple(layout.items()) or given.dtype != dtype:
        raise ValueError(f"parameters: expected {layout} in {dtype}, got {given!r}")
    return given


def check_gradients(given, parameters: Parameters, name: str = "out") -> None:
    """TypeError or ValueError unless `given` are gradients of these parameters, in memory of their own."""
    if not isinstance(given, Parameters):
        raise TypeError(f"{name}: expected Parameters, got {describe(given)}")
    if np.may_share_memory(given.raw(), parameters.raw()):
        raise ValueError(f"{name}: expected memory of its own, got that of the parameters")
    if given.in_order != parameters.in_order or given.dtype != parameters.dtype:
        raise ValueError(f"{name}: expected {parameters!r}, got {given!r}")


def _rebuilt(layout, flat):
    """A copy (copy, pickle) of Parameters, on memory of its own even where the original was a part of something."""
    parameters = Parameters(layout, flat.dtype)
    parameters.raw()[:] = flat
    return parameters
