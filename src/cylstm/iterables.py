"""Data that comes piece by piece: a shuffle buffer, and rows gathered into batches, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count, islice
from sys import maxsize

import numpy as np

from cylstm.checks import describe, plain_array, positive_int

__all__ = ["Batched", "Shuffled", "can_be_opened", "one_shot", "opened", "size_of", "tell_epoch"]

PARTS = ("x", "y", "lengths", "mask", "resets", "sample_weight")  # of a row, those that are more than one by its tuple


def can_be_opened(source) -> bool:
    """Whether `opened` takes it."""
    return is_iterable(source) or callable(source)


def is_iterable(source) -> bool:
    """By its type alone, but for arrays (): to ask a PyTorch DataLoader for an iterator starts its workers."""
    return getattr(source, "ndim", None) != 0 and any(
        hasattr(type(source), name) for name in ("__iter__", "__getitem__")
    )


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
        one row each, x (T,) ids or (T, I); y and sample_weight may be dicts by head. Or a function without arguments
        that returns a new one.
    batch_size : int >= 1.

    Parts of one shape become an array, others, of rows of different lengths, a list of arrays, but `resets` an array
    with False behind their ends; labels of different kinds stay what they are, in an array of objects. `len` is there
    where rows have one. Raises TypeError or ValueError, naming the argument and the row.
    """

    def __init__(self, rows, batch_size):
        super().__init__("rows", rows)
        self.batch_size = positive_int("batch_size", batch_size)
        if self.batch_size > maxsize:
            raise ValueError(f"batch_size: expected an integer in 1..{maxsize}, got {describe(batch_size)}")

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
    return (copy_of(item, f"{name}[{n}]") for n, item in enumerate(opened(source, name)))


def copy_of(item, name):
    """The same with arrays of its own. Raises TypeError or ValueError."""
    try:
        return copied(item, name)
    except RecursionError:
        raise ValueError(f"{name}: expected lists within lists, but none within itself, got {describe(item)}") from None


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
    names, keyed = names_of(rows[0], first), isinstance(rows[0], Mapping)
    for n, row in enumerate(rows[1:], first + 1):
        found = names_of(row, n)
        if isinstance(row, Mapping) != keyed:
            raise TypeError(f"rows[{n}]: expected a {'dict' if keyed else 'tuple'}, as in rows[{first}], "
                            f"got {describe(row)}")  # fmt: skip
        if found != names:
            raise ValueError(f"rows[{n}]: expected {', '.join(map(str, names))}, as in rows[{first}], "
                             f"got {', '.join(map(str, found))}")  # fmt: skip
    keys = names if keyed else range(len(names))
    columns = [side_by_side([row[key] for row in rows], name, first) for key, name in zip(keys, names, strict=True)]
    return dict(zip(names, columns, strict=True)) if keyed else tuple(columns)


def names_of(row, n) -> tuple:
    """What the parts of a row are called."""
    if isinstance(row, Mapping) and {"x", "y"} <= set(row) <= set(PARTS):
        return tuple(sorted(row))
    if isinstance(row, (list, tuple)) and len(row) in (2, 3):
        return PARTS[: len(row)]
    raise ValueError(f"rows[{n}]: expected (x, y), (x, y, length) or a dict of x, y and {', '.join(PARTS[2:])}, "
                     f"got {describe(row)}")  # fmt: skip


def side_by_side(values, name, first):
    """What `fit` takes for one part of all rows: an array or a list of arrays, or a dict of those by head."""
    if name in ("y", "sample_weight") and any(isinstance(value, Mapping) for value in values):
        return by_head(values, name, first)
    arrays = [array_of(f"rows[{n}] {name}", value) for n, value in enumerate(values, first)]
    if name == "x":
        expect_one_kind(arrays, first)
    same_shape = len({array.shape for array in arrays}) == 1
    if name == "resets" and not same_shape:
        return filled(arrays, first)
    if not same_shape:
        return arrays
    return np.stack(arrays if numbers_or_same([array.dtype for array in arrays]) else list(map(objects, arrays)))


def by_head(values, name, first) -> dict:
    """A part that rows have for each head."""
    for n, value in enumerate(values, first):
        if not isinstance(value, Mapping) or (n > first and set(value) != set(values[0])):
            expected = ", ".join(map(str, values[0])) if isinstance(values[0], Mapping) else "as in the other rows"
            got = ", ".join(map(str, value)) if isinstance(value, Mapping) else describe(value)
            raise ValueError(f"rows[{n}] {name}: expected a dict by head, {expected}, got {got}")
    return {head: side_by_side([value[head] for value in values], f"{name}[{head!r}]", first) for head in values[0]}


def array_of(name, value) -> np.ndarray:
    """One row's part; a list of strings and of others keeps them."""
    array = plain_array(name, value)
    if array.dtype.kind not in "US" or not isinstance(value, (list, tuple)):
        return array
    kept = np.array(value, object)
    return array if len(set(map(type, kept.flat))) == 1 else kept


def objects(array) -> np.ndarray:
    return array.astype(object)


def numbers_or_same(dtypes) -> bool:
    """Whether an array of one type holds them all as they are."""
    kinds = {dtype.kind for dtype in dtypes}
    if kinds == {"i", "u"}:
        return np.result_type(*dtypes).kind != "f"  # as it is of int64 and uint64
    return len(kinds) == 1 or kinds <= set("biuf")


def expect_one_kind(arrays, first) -> None:
    """TypeError for an x without the axis of steps, or for ids among features; [] is of either kind."""
    known, kind = first, arrays[0]
    for n, array in enumerate(arrays, first):
        if not array.ndim:
            raise TypeError(f"rows[{n}] x: expected (T,) ids or (T, I) features, got {describe(array)}")
        if not kind.size:
            known, kind = n, array
        if array.size and (array.dtype.kind in "iu") != (kind.dtype.kind in "iu"):
            expected = "features, no ids" if array.dtype.kind in "iu" else "ids"
            raise TypeError(f"rows[{n}] x: expected {expected}, as in rows[{known}], got {describe(array)}")


def filled(rows, first) -> np.ndarray:
    """Resets (T_b,) of rows as (B, longest), False behind their ends."""
    for n, row in enumerate(rows, first):
        if row.ndim != 1 or row.dtype != bool:
            raise TypeError(f"rows[{n}] resets: expected booleans (T,), got {describe(row)}")
    resets = np.zeros((len(rows), max(map(len, rows))), bool)
    for target, row in zip(resets, rows, strict=True):
        target[: len(row)] = row
    return resets
