"""Data as a model takes them: checked once, cut into batches or chunks of steps without being copied as a whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cylstm._core.ragged import Plan
from cylstm.batches import Part, batch_of, one_row_each
from cylstm.checks import (
    check_finite,
    check_lengths,
    check_mask,
    check_range,
    check_resets,
    check_state,
    describe,
    described_with_way,
    plain_array,
)
from cylstm.counting import Counting, check_token_weights
from cylstm.sequences import batches_by_length, check_masks, kept_resets, one_type, padded, ragged_rows
from cylstm.state import State

__all__ = ["Dataset"]

HASHED_AT_ONCE = 1 << 20  # elements: a memory map is not copied as a whole


class Dataset:
    """Inputs and targets of one model, and which of them count.

    x, y : arrays (B, T, ...) with optional lengths, lists of B arrays of different lengths, or one unbatched sequence.
        Anything that slices into NumPy arrays will do, a memory map too. For output="last", y has one entry per row, or
        what makes O numbers of it: (B, horizon, F) as `data.windows` gives.
    mask : booleans (B, T), or a list of arrays (T_b,): steps where it is false are left out, as if rows were shorter.
    resets : (B, T), T of the longest for a list. state : of the first step of each row.
    sample_weight : (B,) or, of steps, (B, T) or a list of arrays (T_b,). class_weight, ignore, missing: as for `fit`.

    Raises TypeError or ValueError, naming the argument, for whatever the model cannot take, ids out of range and
    numbers that are not finite included.
    """

    def __init__(self, model, x, y, lengths=None, *, mask=None, resets=None, state=None, sample_weight=None,
                 class_weight=None, ignore=None, missing="error", prefix=""):  # fmt: skip
        """prefix : before the names of arguments in errors."""
        self.model, self.prefix = model, prefix
        self.names = prefix + "x", prefix + "y"
        self.last = model.output == "last" or model.loss.of_rows  # one target to a row
        self.counting = Counting.checked(model.loss, ignore, missing)
        self.lengths = self.mask = None
        rows = ragged_rows(x)
        self.ragged, self.unbatched = rows is not None, False
        if self.ragged:
            self._take_list(rows, y, lengths, mask)
        else:
            self._take_array(x, y, lengths, mask)
        self._check_targets()
        self.counting = self.counting.weighing(model.loss, model.output_size, class_weight, self._rows_of_targets())
        self.weights = None if sample_weight is None else self._checked_weights(sample_weight)
        batched = not self.unbatched
        self.resets = None if resets is None else self._named(check_resets, resets, len(self), self.steps, batched)
        self.state = None
        if state is not None:
            shape = model.initial_state(len(self)).h.shape
            self.state = State(*check_state(prefix + "state", state, shape, model.dtype))
            for part in ("h", "c"):
                check_finite(f"{prefix}state.{part}", getattr(self.state, part), model.dtype)
        self._expect_something_to_count()

    def __len__(self) -> int:
        return len(self.x)

    @property
    def steps(self) -> int:
        """T of the arrays; the longest sequence of a list."""
        return max(map(len, self.x)) if self.ragged else self.x.shape[1]

    @property
    def tokens(self) -> int:
        """All real steps, or all rows for output="last"."""
        if self.last:
            return len(self)
        return len(self) * self.steps if self.lengths is None else int(self.lengths.sum())

    # --- checks ---------------------------------------------------------------------------------------------------

    def _take_list(self, rows, y, lengths, mask):
        name = self.names[0]
        if lengths is not None:
            raise ValueError("lengths: expected none with a list of sequences, which have their own")
        if not self.last and not isinstance(y, (list, tuple)):
            raise TypeError(f"{self.names[1]}: expected a list of arrays, as {name} is one, got {describe(y)}")
        self.x = rows = one_type(name, rows)
        self.y = y
        if mask is not None:
            self.mask = self._named(check_masks, mask, rows)
        for n, row in enumerate(rows):
            self._check_input(f"{name}[{n}]", row, self._real(n))
        self.lengths = np.array([len(row) for row in rows] if self.mask is None else [row.sum() for row in self.mask])

    def _take_array(self, x, y, lengths, mask):
        name = self.names[0]
        self.x, self.y = plain_array(name, x), y if self.model.loss.of_rows else plain_array(self.names[1], y)
        self.unbatched = self.x.ndim == self._input_rank() - 1
        if self.unbatched:
            mask = None if mask is None else check_mask(self.prefix + "mask", mask, self.x.shape[:1])[None]
            self.x, self.y = self.x[None], [self.y] if self.model.loss.of_rows else self.y[None]
        if self.x.ndim > 1:
            if lengths is not None:
                self.lengths = self._named(check_lengths, lengths, *self.x.shape[:2])
            if mask is not None:
                mask = check_mask(self.prefix + "mask", mask, self.x.shape[:2])
                mask = mask if self.lengths is None else mask & self._real()
                self.lengths = mask.sum(axis=1)
                if (mask[:, 1:] > mask[:, :-1]).any():  # otherwise it says no more than lengths do
                    self.mask = mask
        self._check_input(name, self.x, self._real())

    def _named(self, check, *given):
        """A check whose errors begin with the name of an argument."""
        try:
            return check(*given)
        except (TypeError, ValueError) as error:
            raise type(error)(self.prefix + str(error)) from None

    def _real(self, n=None):
        """Which steps of all rows (B, T), or of row n of a list, are real; None for all."""
        if self.mask is not None:
            return self.mask if n is None else self.mask[n]
        return None if self.lengths is None or self.ragged else np.arange(self.x.shape[1]) < self.lengths[:, None]

    def _input_rank(self):
        ids = self.model.embedding_size is not None or self.x.dtype.kind in "iu"
        return 2 if ids else 3

    def _check_input(self, name, x, real):
        """x : all rows or, of a list, one."""
        model, ids = self.model, x.dtype.kind in "iu"
        shape = ("B",) * (not self.ragged) + ("T",) + (() if ids else (model.input_size,))
        given = x.shape[1:] if self.unbatched else x.shape
        if not x.size and not (self.ragged and x.shape == (0, *shape[1:])):
            raise ValueError(f"{name}: expected at least one row, step and feature, got {given}")
        if model.embedding_size is not None and not ids:
            raise TypeError(f"{name}: expected integer ids for a model with an embedding, got {describe(x)}")
        if not ids and x.dtype.kind != "f":
            raise TypeError(f"{name}: expected floating-point numbers or integer ids, got {described_with_way(x)}")
        if x.ndim != len(shape) or (not ids and x.shape[-1] != model.input_size):
            shown = f"({', '.join(map(str, shape))})"
            if self.unbatched:
                shown = f"{shown} or ({', '.join(map(str, shape[1:]))})"
            shown += " (integers are ids)" * ids
            raise ValueError(f"{name}: expected {shown}, got {given}")
        if ids:
            check_range(name, x if real is None else x[real], model.input_size)
        else:
            self._check_finite(name, x, real)

    def _check_finite(self, name, array, real, missing=False):
        """array : all rows or, of a list, one."""
        if self.unbatched:
            array, real = array[0], None if real is None else real[0]
        check_finite(name, array, self.model.dtype, real, missing)

    def _check_targets(self):
        name = self.names[1]
        if self.model.loss.of_rows:
            self._check_labels(name)
            return
        if np.ndim(self.y) == 0 if not self.ragged else not hasattr(self.y, "__len__"):
            raise TypeError(f"{name}: expected an array or a list of arrays, got {describe(self.y)}")
        if len(self.y) != len(self.x):
            raise ValueError(f"{name}: expected {len(self.x)} rows, as many as {self.names[0]}, got {len(self.y)}")
        if self.ragged and not self.last:
            rows = [plain_array(f"{name}[{n}]", row) for n, row in enumerate(self.y)]
            if self.model.loss.of_classes:
                rows = [
                    row.astype(np.int64) if row.shape == (0,) else row for row in rows
                ]  # an empty list is of floats
            for n, row in enumerate(rows):
                self._check_target(f"{name}[{n}]", row, (len(self.x[n]),), self._real(n))
            self.y = rows if len({row.dtype for row in rows}) == 1 else one_type(name, rows)
            return
        self.y = plain_array(name, self.y)
        shape = (len(self.x),) if self.last else self.x.shape[:2]
        self._check_target(name, self.y, shape, None if self.last else self._real())

    def _check_labels(self, name):
        """Targets that are a sequence of labels for each row: (B,) of arrays."""
        loss, given = self.model.loss, self.y
        if not hasattr(given, "__len__"):
            raise TypeError(f"{name}: expected the labels of {len(self.x)} rows, got {describe(given)}")
        if len(given) != len(self.x):
            raise ValueError(f"{name}: expected the labels of {len(self.x)} rows, as many as {self.names[0]}, "
                             f"got {len(given)}")  # fmt: skip
        self.y = np.empty(len(given), object)
        lengths = np.full(len(given), self.x.shape[1]) if self.lengths is None else self.lengths
        for n, row in enumerate(given):
            label = name if self.unbatched else f"{name}[{n}]"
            row = plain_array(label, row)
            loss.check_kind(label, row)
            if row.ndim != 1:
                raise ValueError(f"{label}: expected labels (L,), got {row.shape}")
            row = row.astype(np.int64)
            loss.check_values(label, row, self.model.output_size)
            needed = max(1, len(row) + int((row[1:] == row[:-1]).sum()))
            if lengths[n] < (1 if loss.zero_infinity else needed):
                raise ValueError(f"{label}: expected labels for which {lengths[n]} steps will do, got {len(row)} that "
                                 f"take {needed}")  # fmt: skip
            self.y[n] = row

    def _check_target(self, name, y, shape, real):
        """y : all rows or, of a list, one, of this shape before what one target has."""
        loss, width = self.model.loss, self.model.loss.width(self.model.output_size)
        loss.check_kind(name, y)
        if self.last:
            y = one_row_each(y, width)
        if y.shape != (*shape, *width):
            first = int(self.unbatched)
            raise ValueError(f"{name}: expected {(*shape, *width)[first:]}, got {y.shape[first:]}")
        self._check_finite(name, y, real, self.counting.missing)
        y = y if real is None else y[real]
        y = y if self.counting.ignore is None else y[y != self.counting.ignore]
        loss.check_values(name, y, self.model.output_size)

    def _checked_weights(self, given):
        """(B,), (B, T), or a list of arrays (T_b,)."""
        name = self.prefix + "sample_weight"
        if self.last:
            return check_token_weights(name, given, (len(self),))
        if self.unbatched:
            return check_token_weights(
                name, given, self.x.shape[1:2], None if self.lengths is None else self._real()[0]
            )[None]
        if not self.ragged:
            return check_token_weights(name, given, self.x.shape[:2], self._real())
        rows = ragged_rows(given)
        if rows is None:
            rows = plain_array(name, given)
            if rows.ndim < 2:
                return check_token_weights(name, rows, (len(self),))
        if len(rows) != len(self):
            raise ValueError(f"{name}: expected {len(self)} rows, as many as {self.names[0]}, got {len(rows)}")
        return [
            check_token_weights(f"{name}[{n}]", row, (len(self.x[n]),), self._real(n)) for n, row in enumerate(rows)
        ]

    def _rows_of_targets(self) -> Iterator[np.ndarray]:
        """The targets of the real steps, row by row."""
        real = None if self.last or self.ragged else self._real()
        for n, row in enumerate(self.y):
            keep = real[n] if real is not None else None if self.last or not self.ragged else self._real(n)
            yield row if keep is None else row[keep]

    def _expect_something_to_count(self):
        if self.weights is None and self.counting.everything:
            if not self.tokens:
                raise ValueError(f"{self.names[0]}: expected at least one step that counts, got none")
        elif not any(batch_of(self.model, self.part([n]), self.counting).weight > 0 for n in range(len(self))):
            raise ValueError(f"{self.names[1]}: expected at least one target that counts, got none")

    # --- batches --------------------------------------------------------------------------------------------------

    def longest(self, rows) -> int:
        """How many steps `part` can cut these rows into."""
        if self.ragged:
            return max(1, *(len(self.x[n]) for n in rows))
        return self.steps if self.lengths is None or self.mask is not None else max(1, int(self.lengths[rows].max()))

    def part(self, rows, start=0, stop=None) -> Part:
        """Some rows, an index array or a slice, and of those the steps start..stop-1, cut after the longest."""
        stop = self.steps if stop is None else min(stop, self.steps)
        state = None if self.state is None else State(self.state.h[:, rows], self.state.c[:, rows])
        if self.ragged or self.mask is not None:
            return self._gathered(np.arange(len(self))[rows], start, stop)._replace(state=state)
        lengths, longest = None, stop - start
        if self.lengths is not None:
            lengths = np.clip(self.lengths[rows] - start, 0, stop - start)
            longest = max(1, int(lengths.max()))
        steps = slice(start, start + longest)
        x, y = self.x[rows, steps], self.y[rows] if self.last else self.y[rows, steps]
        weights, resets = self.weights, None if self.resets is None else self.resets[rows, steps]
        if weights is not None:
            weights = weights[rows] if weights.ndim == 1 else weights[rows, steps]
        return Part(x, y, weights, plan_of(x, lengths, resets), state)

    def _gathered(self, rows, start, stop):
        """The real steps of each row, one behind the other."""
        kept = [np.arange(len(self.x[n])) if self.mask is None else np.flatnonzero(self.mask[n]) for n in rows]
        chosen = [places[np.searchsorted(places, start) : np.searchsorted(places, stop)] for places in kept]
        pairs = list(zip(rows, chosen, strict=True))
        x, lengths = padded([self.x[n][places] for n, places in pairs])
        y = self.y[rows] if self.last else padded([self.y[n][places] for n, places in pairs])[0]
        weights, resets = self.weights, None
        if isinstance(weights, list) or (weights is not None and weights.ndim > 1):
            weights, _ = padded([weights[n][places] for n, places in pairs])
        elif weights is not None:
            weights = weights[rows]
        if self.resets is not None:
            whole = zip(rows, kept, strict=True)
            resets, _ = padded([kept_resets(self.resets[n], places)[(places >= start) & (places < stop)]
                                for n, places in whole])  # fmt: skip
        return Part(x, y, weights, plan_of(x, lengths, resets), None)

    def fingerprint(self) -> str:
        """A number that differs for different data (BLAKE2b, 128 bits, in hexadecimal)."""
        import hashlib  # 8 ms: `import cylstm` has 15

        digest = hashlib.blake2b(digest_size=16)

        def take(rows):
            for row in rows:
                for start in range(0, max(1, row.size), HASHED_AT_ONCE):
                    digest.update(np.ascontiguousarray(row.reshape(-1)[start : start + HASHED_AT_ONCE]))

        for rows in (self.x, self.y, [] if self.lengths is None else [self.lengths]):
            take(rows)
        counting, parts = self.counting, {"mask": self.mask, "weights": self.weights, "resets": self.resets}
        parts |= {"state": self.state, "class_weight": counting.class_weight}
        for name, part in parts.items():
            if part is not None:  # what is not there leaves no trace: so it was before there was any of it
                rows = part if isinstance(part, (list, tuple)) else [part]
                digest.update(f"{name} {[(str(row.dtype), row.shape) for row in rows]}".encode())
                take(rows)
        if counting.ignore is not None or counting.missing:
            digest.update(f"ignore {counting.ignore} missing {counting.missing}".encode())
        return digest.hexdigest()

    def batches(self, batch_size, rng=None) -> list[np.ndarray]:
        """Index arrays that hold each row once, similar lengths together. rng: a seed, or None for no shuffling."""
        if self.lengths is not None:
            return batches_by_length(self.lengths, batch_size, rng)
        order = np.arange(len(self)) if rng is None else np.random.default_rng(rng).permutation(len(self))
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def plan_of(x, lengths, resets) -> Plan | None:
    """The Plan of what was checked; None where every row is whole and nothing is cut."""
    if lengths is not None and lengths.min() == x.shape[1]:
        lengths = None
    return None if lengths is None and resets is None else Plan(*x.shape[:2], lengths, resets)
