"""Data as a model takes them: checked once, cut into batches or chunks of steps without being copied as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from cylstm._core.ragged import Plan
from cylstm.batches import Part, batch_of
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
from cylstm.inputs import tail
from cylstm.maps import Rows, contents_of, in_pieces, region
from cylstm.sequences import Ends, batches_by_length, check_masks, kept_resets, one_type, padded, ragged_rows
from cylstm.state import State
from cylstm.training.targets import Targets, options_by_head

__all__ = ["Dataset", "batches_of"]


class Dataset:
    """Inputs and targets of one model, and which of them count.

    x, y : arrays (B, T, ...) with optional lengths, lists of B arrays of different lengths, or one unbatched sequence.
        Anything that slices into NumPy arrays will do, a memory map too, of which no more than some MB are looked at
        at once. For output="last", y has one entry per row, or
        what makes O numbers of it: (B, horizon, F) as `data.windows` gives. For several heads y is a dict of them.
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
        self.lengths = self.mask = None
        rows = ragged_rows(x)
        self.ragged, self.unbatched = rows is not None, False
        if self.ragged:
            self._take_list(rows, lengths, mask)
        else:
            self._take_array(x, lengths, mask)
        self.targets = self._targets(y, sample_weight, class_weight, ignore, missing)
        batched = not self.unbatched
        self.resets = None if resets is None else self._named(check_resets, resets, len(self), self.steps, batched)
        self.state = None
        if state is not None:
            like = model.initial_state(len(self))
            self.state = State(*check_state(prefix + "state", state, like, model.dtype))
            for part in ("h", "c"):
                check_finite(f"{prefix}state.{part}", getattr(self.state, part), model.dtype)
        self.rows = Rows([self.x, *(targets.y for targets in self.targets.values())])
        self._expect_something_to_count()

    def __len__(self) -> int:
        return len(self.x)

    @property
    def steps(self) -> int:
        """T of the arrays; the longest sequence of a list."""
        return max(map(len, self.x)) if self.ragged else self.x.shape[1]

    @property
    def tokens(self) -> int:
        """All real steps, or all rows where no head looks at steps."""
        if "tokens" not in self.model.kinds:
            return len(self)
        return len(self) * self.steps if self.lengths is None else int(self.lengths.sum())

    # --- checks ---------------------------------------------------------------------------------------------------

    def _take_list(self, rows, lengths, mask):
        name = self.names[0]
        if lengths is not None:
            raise ValueError("lengths: expected none with a list of sequences, which have their own")
        self.x = rows = one_type(name, rows)
        if mask is not None:
            self.mask = self._named(check_masks, mask, rows)
        for n, row in enumerate(rows):
            self._check_input(f"{name}[{n}]", row, self.real(n))
        self.lengths = np.array([len(row) for row in rows] if self.mask is None else [row.sum() for row in self.mask])

    def _take_array(self, x, lengths, mask):
        name = self.names[0]
        self.x = plain_array(name, x)
        self.unbatched = self.x.ndim == self._input_rank() - 1
        if self.unbatched:
            mask = None if mask is None else check_mask(self.prefix + "mask", mask, self.x.shape[:1])[None]
            self.x = self.x[None]
        if self.x.ndim > 1:
            if lengths is not None:
                self.lengths = self._named(check_lengths, lengths, *self.x.shape[:2])
            if mask is not None:
                mask = check_mask(self.prefix + "mask", mask, self.x.shape[:2])
                mask = mask if self.lengths is None else mask & self.real()[:]
                self.lengths = mask.sum(axis=1)
                if (mask[:, 1:] > mask[:, :-1]).any():  # otherwise it says no more than lengths do
                    self.mask = mask
        self._check_input(name, self.x, self.real())

    def _targets(self, y, sample_weight, class_weight, ignore, missing) -> dict[str, Targets]:
        """Those of each head."""
        heads, name, targets = self.model.heads, self.names[1], {}
        several = "" not in heads
        if several and (not isinstance(y, Mapping) or set(y) != set(heads)):
            shown = f"a dict of {', '.join(map(str, y))}" if isinstance(y, Mapping) else describe(y)
            raise TypeError(f"{name}: expected a dict of targets for {', '.join(heads)}, got {shown}")
        options = options_by_head(heads, self.prefix, missing, sample_weight=sample_weight, class_weight=class_weight,
                                  ignore=ignore)  # fmt: skip
        for key, head in heads.items():
            where = f"[{key!r}]" * several
            targets[key] = Targets(self, head, name + where, y[key] if several else y, **options[key],
                                   weight_name=f"{self.prefix}sample_weight{where}")  # fmt: skip
        return targets

    def _named(self, check, *given):
        """A check whose errors begin with the name of an argument."""
        try:
            return check(*given)
        except (TypeError, ValueError) as error:
            raise type(error)(self.prefix + str(error)) from None

    def real(self, n=None) -> np.ndarray | Ends | None:
        """Which steps of all rows (B, T), or of row n of a list, are real; None for all."""
        if self.mask is not None:
            return self.mask if n is None else self.mask[n]
        return None if self.lengths is None or self.ragged else Ends(self.lengths, self.x.shape[1])

    def _input_rank(self):
        return 2 + len(tail(self.model, self.x, self.names[0]))

    def _check_input(self, name, x, real):
        """x : all rows or, of a list, one."""
        model, ids = self.model, not tail(self.model, x, name)
        shape = ("B",) * (not self.ragged) + ("T",) + (() if ids else (model.input_size,))
        given = x.shape[1:] if self.unbatched else x.shape
        if not x.size and not (self.ragged and x.shape == (0, *shape[1:])):
            raise ValueError(f"{name}: expected at least one row, step and feature, got {given}")
        if model.embedding_size is not None and x.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected integer ids for a model with an embedding, got {describe(x)}")
        if not ids and x.dtype.kind not in "iuf":
            raise TypeError(f"{name}: expected floating-point numbers or integer ids, got {described_with_way(x)}")
        if x.ndim != len(shape) or (not ids and x.shape[-1] != model.input_size):
            shown = f"({', '.join(map(str, shape))})"
            if self.unbatched:
                shown = f"{shown} or ({', '.join(map(str, shape[1:]))})"
            shown += " (integers are ids)" * ids
            raise ValueError(f"{name}: expected {shown}, got {given}")
        if ids:
            if self.unbatched:
                x, real = x[0], None if real is None else real[0]
            known = contents_of(x)
            if known is not None and known.size <= model.input_size:
                return  # and whoever takes a batch looks at its ids again
            for piece in in_pieces(x):
                check_range(name, x[piece], model.input_size, None if real is None else real[piece], piece)
            return
        if model.inputs is not None:
            one = slice(None) if not self.unbatched else 0
            model.inputs.check_ids(name, x[one], None if real is None else real[one])
        self._check_finite(name, x, real)

    def _check_finite(self, name, array, real):
        """array : all rows or, of a list, one."""
        if self.unbatched:
            array, real = array[0], None if real is None else real[0]
        check_finite(name, array, self.model.dtype, real, way="mask= skips steps")

    def _expect_something_to_count(self):
        if all(targets.weights is None and targets.counting.everything for targets in self.targets.values()):
            if not self.tokens:
                raise ValueError(f"{self.names[0]}: expected at least one step that counts, got none")
            return
        wanting = set(self.targets)
        for n in range(len(self)):
            batch = batch_of(self.model, self.part([n]))
            wanting -= {name for name, tokens in batch.heads.items() if tokens.weight > 0}
            if not wanting:
                return
        name = self.targets[min(wanting)].name
        raise ValueError(f"{name}: expected at least one target that counts, got none")

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
        x, resets = self.rows.take(self.x, rows, steps), None if self.resets is None else self.resets[rows, steps]
        targets = {name: targets.part(self.rows, rows, steps) for name, targets in self.targets.items()}
        return Part(x, targets, plan_of(x, lengths, resets), state)

    def _gathered(self, rows, start, stop):
        """The real steps of each row, one behind the other."""
        kept = [np.arange(len(self.x[n])) if self.mask is None else np.flatnonzero(self.mask[n]) for n in rows]
        chosen = [places[np.searchsorted(places, start) : np.searchsorted(places, stop)] for places in kept]
        x, lengths = padded([self.rows.steps(self.x[n], places) for n, places in zip(rows, chosen, strict=True)])
        resets = None
        if self.resets is not None:
            whole = zip(rows, kept, strict=True)
            resets, _ = padded([kept_resets(self.resets[n], places)[(places >= start) & (places < stop)]
                                for n, places in whole])  # fmt: skip
        targets = {name: targets.gathered(self.rows, rows, chosen) for name, targets in self.targets.items()}
        return Part(x, targets, plan_of(x, lengths, resets), None)

    def fingerprint(self) -> str:
        """A number that differs for different data (BLAKE2b, 128 bits, in hexadecimal)."""
        import hashlib  # 8 ms: `import cylstm` has 15

        digest = hashlib.blake2b(digest_size=16)

        def take(rows):
            for row in rows if listed(rows) else [rows]:
                for piece in in_pieces(row):
                    digest.update(np.ascontiguousarray(row[piece]))

        def take_large(rows):
            """Of what lies in a file of ids, whose own number is known, that and the place will do."""
            place = region(rows)
            take(rows) if place is None else digest.update(place.encode())

        take_large(self.x)
        for targets in self.targets.values():
            take_large(targets.y)
        take([] if self.lengths is None else self.lengths)

        def name(part_name, part):
            if part is not None:  # what is not there leaves no trace: so it was before there was any of it
                rows = list(part) if isinstance(part, (list, tuple)) else [part]
                digest.update(f"{part_name} {[(str(row.dtype), row.shape) for row in rows]}".encode())
                take(rows)

        name("mask", self.mask)
        for head, targets in self.targets.items():
            name(f"weights{head}", targets.weights)
        for part_name in ("resets", "state"):
            name(part_name, getattr(self, part_name))
        for head, counting in ((head, targets.counting) for head, targets in self.targets.items()):
            name(f"class_weight{head}", counting.class_weight)
            if counting.ignore is not None or counting.missing:
                digest.update(f"ignore{head} {counting.ignore} missing {counting.missing}".encode())
        return digest.hexdigest()

    def pieces(self, batch_size) -> Iterator[tuple[Dataset, np.ndarray]]:
        """Itself with each of its batches."""
        return ((self, rows) for rows in self.batches(batch_size))

    def batches(self, batch_size, rng=None) -> list[np.ndarray]:
        """Index arrays that hold each row once, similar lengths together. rng: a seed, or None for no shuffling."""
        return batches_of(len(self), self.lengths, batch_size, rng)


def batches_of(rows, lengths, batch_size, rng=None) -> list[np.ndarray]:
    """`Dataset.batches` of so many rows, of these lengths where they have some."""
    if lengths is not None:
        return batches_by_length(lengths, batch_size, rng)
    order = np.arange(rows) if rng is None else np.random.default_rng(rng).permutation(rows)
    return [order[start : start + batch_size] for start in range(0, rows, batch_size)]


def listed(rows) -> bool:
    """Whether they come one by one: a list, or the labels of each row."""
    return isinstance(rows, list) or rows.dtype == object


def plan_of(x, lengths, resets) -> Plan | None:
    """The Plan of what was checked; None where every row is whole and nothing is cut."""
    if lengths is not None and lengths.min() == x.shape[1]:
        lengths = None
    return None if lengths is None and resets is None else Plan(*x.shape[:2], lengths, resets)
