"""Data that comes piece by piece: a shuffle buffer, and rows gathered into batches, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count, islice

import numpy as np

from cylstm.checks import describe, plain_array, positive_int

__all__ = ["Batched", "Shuffled", "can_be_opened", "one_shot", "opened", "size_of", "tell_epoch"]

PARTS = ("x", "y", "lengths", "mask", "resets", "sample_weight")  # of a row, those that are more than one by its tuple


def can_be_opened(source) -> bool:
    """Whether `opened` takes it."""
    return is_iterable(source) or callable(source)


def is_iterable(source) -> bool:
    """By its type alone: to ask a PyTorch DataLoader for an iterator starts its workers."""
    return any(hasattr(type(source), name) for name in ("__iter__", "__getitem__"))


def opened(source, name: str) -> Iterator:
    """A new iterator of an iterable, or of what a function without arguments returns. Raises TypeError."""
    if is_iterable(source):
        return iter(source)
    if not callable(source):
        raise TypeError(f"{name}: expected an iterable or a function that returns one, got {describe(source)}")
    found = source()
    if not is_iterable(found):
        raise TypeError(f"{name}: expected a function that returns an iterator, got one that returns {describe(found)}")
    return iter(found)


def one_shot(source) -> str | None:
    """The type of an iterator that it comes from, which nobody can go through a second time; None where there is
    none."""
    if isinstance(source, Rearranged):
        return one_shot(source.source)
    return type(source).__name__ if isinstance(source, Iterator) else None


def size_of(source) -> int | None:
    """How many items there are, where len() says it."""
    try:
        return len(source)
    except (NotImplementedError, TypeError):
        return None


def tell_epoch(source, epoch: int) -> None:
    """What has `set_epoch` is told: PyTorch's samplers and Hugging Face's data sets shuffle by it, too."""
    if callable(getattr(source, "set_epoch", None)):
        source.set_epoch(epoch)


class Rearranged:
    """What can be gone through as often as its source can."""

    def __init__(self, name, source):
        if not can_be_opened(source):
            raise TypeError(f"{name}: expected an iterable or a function that returns one, got {describe(source)}")
        self.source = source

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next, from 0; `fit` says it before each."""
        tell_epoch(self.source, epoch)


class Shuffled(Rearranged):
    """Items in a random order, by a buffer: each that comes takes the place of one that is drawn from those in it and
    goes, as tf.data and WebDataset do it.

    items : an iterable of rows, batches or anything else, or a function without arguments that returns a new one.
    size : int >= 1, of the buffer. The order is any order with the same probability only if all items fit into it:
        what is sorted by classes, or comes from few sources one after the other, needs a large one.
    seed : int >= 0. The order is that of (seed, epoch), of which `set_epoch` says the second: `fit` calls it.

    The buffer holds copies of arrays, so that an item that is a view keeps no more than itself in memory, and its
    source may write to it again. `len` is that of items, where they have one. Raises TypeError or ValueError, naming
    the argument.
    """

    def __init__(self, items, size, *, seed=0):
        super().__init__("items", items)
        self.size, self.seed, self.epoch = positive_int("size", size), positive_int("seed", seed, 0), 0

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator:
        return self._drawn(np.random.default_rng([self.seed, self.epoch]))

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next, from 0; `fit` says it before each."""
        super().set_epoch(epoch)
        self.epoch = positive_int("epoch", epoch, 0)

    def _drawn(self, rng):
        buffer = []
        for item in copies(self.source, "items"):
            if len(buffer) < self.size:
                buffer.append(item)
            else:
                n = rng.integers(self.size)
                buffer[n], item = item, buffer[n]
                yield item
        rng.shuffle(buffer)
        yield from buffer


class Batched(Rearranged):
    """Rows gathered into batches, as `fit` and `evaluate` take them; the last one may be smaller.

    rows : an iterable of (x, y), (x, y, length), or dicts of x, y and length-wise parts (mask, sample_weight, ...) of
        one row each, x (T,) ids or (T, I); or a function without arguments that returns a new one.
    batch_size : int >= 1.

    Parts of one shape become an array, others, of rows of different lengths, a list of arrays. `len` is there where
    rows have one. Raises TypeError or ValueError, naming the argument and the row.
    """

    def __init__(self, rows, batch_size):
        super().__init__("rows", rows)
        self.batch_size = positive_int("batch_size", batch_size)

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def __iter__(self) -> Iterator:
        rows = copies(self.source, "rows")
        for first in count(step=self.batch_size):
            batch = list(islice(rows, self.batch_size))
            if not batch:
                return
            yield gathered(batch, first)


def copies(source, name) -> Iterator:
    """Its items, whose arrays, of any library's, are NumPy's and nobody else's."""
    return (copied(item, f"{name}[{n}]") for n, item in enumerate(opened(source, name)))


def copied(item, name):
    if isinstance(item, Mapping):
        return {key: copied(part, name) for key, part in item.items()}
    if isinstance(item, (list, tuple)):
        parts = [copied(part, name) for part in item]
        return parts if isinstance(item, list) else tuple(parts)
    is_array = hasattr(item, "__array__") or hasattr(item, "__dlpack__")
    return np.array(plain_array(name, item)) if is_array else item


def gathered(rows, first):
    """A batch of rows, the first of which is number `first`. Raises TypeError or ValueError."""
    names = names_of(rows[0], first)
    for n, row in enumerate(rows[1:], first + 1):
        if names_of(row, n) != names:
            raise ValueError(f"rows[{n}]: expected {', '.join(map(str, names))}, as in rows[{first}], "
                             f"got {', '.join(map(str, names_of(row, n)))}")  # fmt: skip
    keys = names if isinstance(rows[0], Mapping) else range(len(names))
    columns = [side_by_side([row[key] for row in rows], name, first) for key, name in zip(keys, names, strict=True)]
    return dict(zip(names, columns, strict=True)) if isinstance(rows[0], Mapping) else tuple(columns)


def names_of(row, n) -> tuple:
    """What the parts of a row are called."""
    if isinstance(row, Mapping) and {"x", "y"} <= set(row) <= set(PARTS):
        return tuple(sorted(row))
    if isinstance(row, (list, tuple)) and len(row) in (2, 3):
        return PARTS[: len(row)]
    raise ValueError(f"rows[{n}]: expected (x, y), (x, y, length) or a dict of x, y and {', '.join(PARTS[2:])}, "
                     f"got {describe(row)}")  # fmt: skip


def side_by_side(values, name, first):
    """One array of values of one shape, or a list of arrays."""
    arrays = [plain_array(f"rows[{n}] {name}", value) for n, value in enumerate(values, first)]
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays
