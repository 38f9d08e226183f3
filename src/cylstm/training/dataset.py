"""Data as a model takes them: checked once, cut into batches or chunks of steps, never copied as a whole."""

from __future__ import annotations

import numpy as np

from cylstm._core.ragged import Plan
from cylstm.batches import one_row_each
from cylstm.checks import check_finite, check_lengths, check_range, describe, described_with_way, plain_array
from cylstm.sequences import batches_by_length, one_type, pad, ragged_rows

__all__ = ["Dataset"]

HASHED_AT_ONCE = 1 << 20  # elements: a memory map is not copied as a whole


class Dataset:
    """Inputs and targets of one model.

    x, y : arrays (B, T, ...) with optional lengths, lists of B arrays of different lengths, or one unbatched sequence.
        Anything that slices into NumPy arrays will do, a memory map too. For output="last", y has one entry per row, or
        what makes O numbers of it: (B, horizon, F) as `data.windows` gives.

    Raises TypeError or ValueError, naming the argument, for whatever the model cannot take, ids out of range and
    numbers that are not finite included.
    """

    def __init__(self, model, x, y, lengths=None, names=("x", "y")):
        self.model, self.names = model, names
        self.last = model.output == "last"
        rows = ragged_rows(x)
        self.ragged, self.unbatched = rows is not None, False
        if self.ragged:
            if lengths is not None:
                raise ValueError("lengths: expected none with a list of sequences, which have their own")
            if not self.last and not isinstance(y, (list, tuple)):
                raise TypeError(f"{names[1]}: expected a list of arrays, as {names[0]} is one, got {describe(y)}")
            self.x, self.y = rows, y
            for n, row in enumerate(self.x):
                self._check_input(f"{names[0]}[{n}]", row, batch=False)
            if len({row.dtype for row in self.x}) > 1:
                self.x = one_type(names[0], self.x)
            self.lengths = np.array([len(row) for row in self.x])
        else:
            self.x, self.y = plain_array(names[0], x), plain_array(names[1], y)
            self.unbatched = self.x.ndim == self._input_rank() - 1
            if self.unbatched:
                self._check_input(names[0], self.x, batch=False)
                self.x, self.y = self.x[None], self.y[None]
            self.lengths = None
            if lengths is not None and self.x.ndim > 1:
                self.lengths = check_lengths(lengths, *self.x.shape[:2])
            self._check_input(names[0], self.x, batch=True)
        self._check_targets()

    def __len__(self) -> int:
        return len(self.x)

    @property
    def steps(self) -> int:
        """T of the arrays; the longest sequence of a list."""
        return int(self.lengths.max()) if self.ragged else self.x.shape[1]

    @property
    def tokens(self) -> int:
        """What losses are averaged over: all real steps, or all rows for output="last"."""
        if self.last:
            return len(self)
        return len(self) * self.steps if self.lengths is None else int(self.lengths.sum())

    def _input_rank(self):
        ids = self.model.embedding_size is not None or self.x.dtype.kind in "iu"
        return 2 if ids else 3

    def _check_input(self, name, x, batch):
        model = self.model
        if not x.size:
            raise ValueError(f"{name}: expected at least one row, step and feature, got {x.shape}")
        ids = x.dtype.kind in "iu"
        shape = ("B",) * batch + ("T",) + (() if ids else (model.input_size,))
        if model.embedding_size is not None and not ids:
            raise TypeError(f"{name}: expected integer ids for a model with an embedding, got {describe(x)}")
        if not ids and x.dtype.kind != "f":
            raise TypeError(f"{name}: expected floating-point numbers or integer ids, got {described_with_way(x)}")
        if x.ndim != len(shape) or (not ids and x.shape[-1] != model.input_size):
            shown = f"({', '.join(map(str, shape))})"
            if self.unbatched:
                shown = f"(B, {shown[1:]} or {shown}"
            shown += " (integers are ids)" * ids
            raise ValueError(f"{name}: expected {shown}, got {x.shape}")
        if ids:
            real = x if not batch or self.lengths is None else x[np.arange(x.shape[1]) < self.lengths[:, None]]
            check_range(name, real, model.input_size)
        elif batch:
            check_finite(name, x, model.dtype, self.lengths)
        else:
            check_finite(name, x, model.dtype)

    def _check_targets(self):
        name, model = self.names[1], self.model
        if np.ndim(self.y) == 0 if not self.ragged else not hasattr(self.y, "__len__"):
            raise TypeError(f"{name}: expected an array or a list of arrays, got {describe(self.y)}")
        if len(self.y) != len(self.x):
            raise ValueError(f"{name}: expected {len(self.x)} rows, as many as {self.names[0]}, got {len(self.y)}")
        width = model.loss.width(model.output_size)
        rows = [self.y] if not self.ragged or self.last else self.y
        rows = [plain_array(f"{name}[{n}]" if len(rows) > 1 else name, row) for n, row in enumerate(rows)]
        for n, row in enumerate(rows):
            label = f"{name}[{n}]" if len(rows) > 1 else name
            model.loss.check_kind(label, row)
            steps = () if self.last else (len(self.x[n]),) if self.ragged else (self.steps,)
            rank = () if self.ragged and not self.last else (len(self.x),)
            if self.last:
                row = one_row_each(row, width)
            if row.shape != (*rank, *steps, *width):
                first = int(self.unbatched)
                raise ValueError(f"{label}: expected {(*rank, *steps, *width)[first:]}, got {row.shape[first:]}")
            if self.unbatched and self.lengths is None:
                check_finite(label, row[0], model.dtype)
            else:
                check_finite(label, row, model.dtype, None if self.last or self.ragged else self.lengths)
            if not self.last and not self.ragged and self.lengths is not None:
                row = row[np.arange(self.steps) < self.lengths[:, None]]  # what stands past the ends is ignored
            model.loss.check_values(label, row, model.output_size)
        if self.ragged and not self.last:
            self.y = rows if len({row.dtype for row in rows}) == 1 else one_type(name, rows)
        else:
            self.y = rows[0]

    def take(self, rows):
        """x, y of some rows (an index array), cut after the longest, and a Plan of their lengths: None where all are
        equal."""
        if self.lengths is None:
            return self.x[rows], self.y[rows], None
        lengths = self.lengths[rows]
        shortest, longest = int(lengths.min()), int(lengths.max())
        if not self.ragged:
            x, y = self.x[rows, :longest], self.y[rows] if self.last else self.y[rows, :longest]
        elif shortest == longest:
            x = np.stack([self.x[n] for n in rows])
            y = self.y[rows] if self.last else np.stack([self.y[n] for n in rows])
        else:
            x = pad([self.x[n] for n in rows])[0]
            y = self.y[rows] if self.last else pad([self.y[n] for n in rows])[0]
        return x, y, None if shortest == longest else Plan(*x.shape[:2], lengths)

    def chunk(self, start, stop):
        """x, y of all rows, steps start..stop-1."""
        return self.x[:, start:stop], self.y[:, start:stop]

    def fingerprint(self) -> str:
        """A number that differs for different data (BLAKE2b, 128 bits, in hexadecimal)."""
        import hashlib  # 8 ms: `import cylstm` has 15

        digest = hashlib.blake2b(digest_size=16)
        for rows in (self.x, self.y, [] if self.lengths is None else [self.lengths]):
            for row in rows:
                for start in range(0, max(1, row.size), HASHED_AT_ONCE):
                    digest.update(np.ascontiguousarray(row.reshape(-1)[start : start + HASHED_AT_ONCE]))
        return digest.hexdigest()

    def batches(self, batch_size, rng=None) -> list[np.ndarray]:
        """Index arrays that hold each row once, similar lengths together. rng: a seed, or None for no shuffling."""
        if self.lengths is not None:
            return batches_by_length(self.lengths, batch_size, rng)
        order = np.arange(len(self)) if rng is None else np.random.default_rng(rng).permutation(len(self))
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
