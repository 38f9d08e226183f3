"""Data of many models: arrays that all of them share, or that are stacked along a first axis, checked and as the core
takes them."""

from __future__ import annotations

import hashlib

import numpy as np

from cylstm.checks import check_lengths, describe, plain_array
from cylstm.inputs import tail
from cylstm.sequences import ragged_rows
from cylstm.training.dataset import Dataset, batches_of

__all__ = ["Stacked", "same"]


class Stacked:
    """Inputs of N models and, but to run, their targets.

    model : one of them. x : (B, T, I) or ids (B, T), shared, or (N, B, T, I) or (N, B, T). y : as a model of its own
    takes it, shared, or with N before. lengths : (B,) or (N, B).

    After it `x` (N or 1, B, T, ...), `y` (N or 1, B, ..., as the loss takes it) and `lengths` (N or 1, B) or None are
    contiguous and of the model's type.

    Raises TypeError or ValueError as `Dataset` does, with the number of the model where its data is at fault.
    """

    def __init__(self, model, count, x, y=None, lengths=None, *, prefix=""):
        self.model, self.count, self.prefix = model, count, prefix
        self.head = model.heads[""]
        x = self._array("x", x)
        rank = 2 + len(tail(model, x, prefix + "x"))
        x = self._stacked("x", x, rank, "(B, T, I)" if rank == 3 else "(B, T)")
        self.has_ids = rank == 2
        self.rows, self.steps = x.shape[1:3]
        if lengths is not None:
            lengths = self._stacked("lengths", self._array("lengths", lengths), 1, "(B,)")
        if y is not None:
            y = self._array("y", y)
            per_row = self.head.per_row
            rank = (1 if per_row else 2) + len(self.head.width)
            shown = ", ".join(["B", *["T"] * (not per_row), *map(str, self.head.width)])
            y = self._stacked("y", y, rank, f"({shown}), with all these axes")
        self._check(x, y, lengths)
        # What else than floats may be the caller's own memory would be read unchecked, if another thread wrote to it.
        self.x = np.ascontiguousarray(x, np.int64 if self.has_ids else model.dtype)
        self.lengths = None if lengths is None else np.ascontiguousarray(lengths, np.int64)

    def _array(self, name, given):
        if ragged_rows(given) is not None:
            raise TypeError(f"{self.prefix}{name}: expected one array for many models, with lengths where rows differ, "
                            f"got {describe(given)}")  # fmt: skip
        if name == "y" and self.head.labels is not None and isinstance(given, (list, tuple)):
            return np.array(given, object)  # each label stays what it is
        array = plain_array(self.prefix + name, given)
        return array.copy() if array.dtype.kind in "iu" else array  # ids and lengths: before they are checked

    def _stacked(self, name, array, rank, shown):
        """With an axis of N, or 1 where it is shared."""
        if array.ndim == rank:
            return array[None]
        if array.ndim != rank + 1 or len(array) != self.count:
            raise ValueError(
                f"{self.prefix}{name}: expected {shown}, for all models, or N = {self.count} of that, got {array.shape}"
            )
        return array

    # --- checks ---------------------------------------------------------------------------------------------------

    def _check(self, x, y, lengths):
        """By a Dataset of all rows of all models, or of each model; makes `y` what the loss takes."""
        parts = [part for part in (x, y, lengths) if part is not None]
        most = max(map(len, parts))
        try:
            if lengths is not None:
                check_lengths(lengths.reshape(-1), lengths.size, self.steps)
            if len(x) == most:
                found = self._dataset(*(None if part is None else flattened(part, most) for part in (x, y, lengths)))
            elif y is None or len(y) == 1:  # lengths alone are stacked: one of them looks at what counts for any model
                found = self._dataset(x[0], None if y is None else y[0], lengths.max(axis=0))
            else:  # shared inputs are not to be repeated
                found = np.concatenate([self._checked(n, x, y, lengths) for n in range(self.count)])
        except (TypeError, ValueError):
            for n in range(self.count):
                self._checked(n, x, y, lengths)  # says which
            raise
        if lengths is not None and not self.head.per_row and (lengths.sum(axis=1) == 0).any():
            for n in range(self.count):
                self._checked(n, x, y, lengths)
        if y is None:
            self.y = None
            return
        y = found.reshape(-1, self.rows, *found.shape[1:])
        if lengths is not None and not self.head.per_row:  # 0 past the end, which for a shared y is the last one
            ends = lengths if len(y) >= len(lengths) else lengths.max(axis=0)[None]
            real = np.arange(self.steps) < ends[..., None]
            y = np.where(real.reshape(*real.shape, *[1] * (y.ndim - 3)), y, y.dtype.type(0))
        self.y = self._converted(y)

    def _dataset(self, x, y, lengths):
        """The targets, checked; without any, those of a head that has none to check, and then inputs may be no numbers,
        as for `Model.__call__`."""
        given = np.zeros((*x.shape[: 1 if self.head.per_row else 2], *self.head.width), np.int64) if y is None else y
        if y is None and self.head.labels is not None:
            given = np.full(given.shape, self.head.labels[0], object)
        if y is None and x.dtype.kind == "f":
            x = np.broadcast_to(x.dtype.type(0), x.shape)
        dataset = Dataset(self.model, x, given, lengths, prefix=self.prefix)
        return dataset.targets[""].y

    def _checked(self, n, x, y, lengths):
        try:
            parts = [None if part is None else part[n if len(part) > 1 else 0] for part in (x, y, lengths)]
            return self._dataset(*parts)
        except (TypeError, ValueError) as error:
            raise type(error)(f"model {n}: {error}") from None

    def _converted(self, y):
        """y (N or 1, B, ...) as the kernel takes it."""
        loss, O = self.head.loss, self.head.output_size
        flat = loss.converted(f"{self.prefix}y", y.reshape(-1, *loss.width(O)), O, self.model.dtype)
        return np.ascontiguousarray(flat).reshape(y.shape)

    def of(self, n) -> tuple:
        """x, y and lengths of one model."""
        parts = self.x, self.y, self.lengths
        return tuple(None if part is None else part[n if len(part) > 1 else 0] for part in parts)

    # --- batches --------------------------------------------------------------------------------------------------

    def sizes(self, batch_size) -> tuple[int, ...]:
        """How many rows batches may have."""
        whole, rest = min(batch_size, self.rows), self.rows % batch_size
        return (whole,) if rest in (0, whole) else (whole, rest)

    def orders(self, batch_size, chosen, seeds=None, epochs=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of some models, in an epoch each, by their seeds (None for no shuffling): orders (K, B) of the rows, where
        their batches begin (K, U + 1), and which of them each has."""
        alike = self.lengths is None or len(self.lengths) == 1
        if alike and (seeds is None or (same(seeds) and same(epochs))):
            order, starts = self._order(0, None if seeds is None else (seeds[0], int(epochs[0])), batch_size)
            return order[None], starts[None], np.zeros(len(chosen), np.int64)
        numbers, orders, starts, which = {}, [], [], []
        for row, n in enumerate(chosen.tolist()):
            key = (0 if alike else n, None if seeds is None else (seeds[row], int(epochs[row])))
            if key not in numbers:
                numbers[key] = len(orders)
                order, start = self._order(*key, batch_size)
                orders.append(order)
                starts.append(start)
            which.append(numbers[key])
        return np.array(orders), np.array(starts), np.array(which, np.int64)

    def _order(self, row, rng, batch_size):
        batches = batches_of(self.rows, None if self.lengths is None else self.lengths[row], batch_size, rng)
        return np.concatenate(batches).astype(np.int64, copy=False), np.cumsum([0, *map(len, batches)], dtype=np.int64)

    def fingerprint(self) -> str:
        """A number that differs for different data (BLAKE2b, 128 bits, in hexadecimal)."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.x, self.y, self.lengths):
            digest.update(f"{None if part is None else (str(part.dtype), part.shape)}".encode())
            if part is not None:
                digest.update(part.reshape(-1).view(np.uint8))
        return digest.hexdigest()


def flattened(part, count):
    """(N or 1, B, ...) -> (N * B, ...)."""
    whole = part if len(part) == count else np.broadcast_to(part, (count, *part.shape[1:]))
    return whole.reshape(-1, *part.shape[2:])


def same(numbers) -> bool:
    """Whether all of an array's are."""
    return bool((numbers == numbers[0]).all())
