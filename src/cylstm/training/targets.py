"""The targets of one head: checked once, with their weights, and which of them count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from cylstm.batches import PartTargets, one_row_each
from cylstm.checks import check_finite, describe, plain_array
from cylstm.counting import Counting, check_token_weights
from cylstm.labels import MISSING, plain
from cylstm.maps import contents_of, in_pieces
from cylstm.sequences import one_type, padded, ragged_rows

__all__ = ["Targets", "counting_of", "options_by_head"]


class Targets:
    """What one head is to meet at the steps, or for the rows, of a `Dataset`.

    rows : the Dataset, whose inputs were checked. name : of the argument, in errors.
    y, sample_weight, class_weight, ignore, missing : as for `fit`; weights have the name `weight_name`.

    Raises TypeError or ValueError, naming the argument, for whatever the head cannot take.
    """

    def __init__(self, rows, head, name, y, *, sample_weight, weight_name, class_weight, ignore, missing):
        self.rows, self.head, self.name = rows, head, name
        self.listed = rows.ragged and not head.per_row  # a list of arrays (T_b, ...)
        self.counting = counting_of(head, None, ignore, missing)
        self.y = self._checked(y, None if ignore is None else plain(ignore))
        if class_weight is not None:
            self.counting = counting_of(head, class_weight, ignore, missing, self._of_rows())
        self.weights = None if sample_weight is None else self._checked_weights(weight_name, sample_weight)
        del self.rows  # which has these: a circle would keep a batch's memory until somebody collects it

    # --- checks ---------------------------------------------------------------------------------------------------

    def _checked(self, y, ignored):
        rows, head, name = self.rows, self.head, self.name
        if head.loss.of_rows:
            return self._checked_labels([y] if rows.unbatched else y)
        if self.listed:
            if not isinstance(y, (list, tuple)):
                raise TypeError(f"{name}: expected a list of arrays, as {rows.names[0]} is one, got {describe(y)}")
            self._expect_rows(y)
            y = [self._array(f"{name}[{n}]", row) for n, row in enumerate(y)]
            if head.loss.of_classes:
                y = [row.astype(np.int64) if row.shape == (0,) else row for row in y]  # an empty list is of floats
            y = [row.reshape(0, *head.width) if row.shape == (0,) else row for row in y]  # and has no other axes
            for n, row in enumerate(y):
                y[n] = self._checked_target(f"{name}[{n}]", row, (len(rows.x[n]),), rows.real(n), ignored)
            return y if len({row.dtype for row in y}) == 1 else one_type(name, y)
        given, y = y, self._array(name, y)
        if y.ndim == 0 and not (rows.unbatched and head.per_row):
            raise TypeError(f"{name}: expected an array or a list of arrays, got {describe(given)}")
        y = y[None] if rows.unbatched else y
        self._expect_rows(y)
        shape = (len(rows),) if head.per_row else rows.x.shape[:2]
        return self._checked_target(name, y, shape, None if head.per_row else rows.real(), ignored)

    def _array(self, name, y):
        """y as an array; of a list of labels each stays what it is."""
        if self.head.labels is not None and isinstance(y, (list, tuple)):
            return np.array(y, object)
        return plain_array(name, y)

    def _expect_rows(self, y):
        if len(y) != len(self.rows):
            several = f"{len(self.rows)} rows, as many as {self.rows.names[0]}"
            raise ValueError(f"{self.name}: expected {several}, got {len(y)}")

    def _checked_labels(self, given):
        """Targets that are a sequence of labels for each row: (B,) of arrays."""
        rows, loss, name = self.rows, self.head.loss, self.name
        if not hasattr(given, "__len__"):
            raise TypeError(f"{name}: expected the labels of {len(rows)} rows, got {describe(given)}")
        if len(given) != len(rows):
            several = f"{len(rows)} rows, as many as {rows.names[0]}"
            raise ValueError(f"{name}: expected the labels of {several}, got {len(given)}")
        y = np.empty(len(given), object)
        lengths = np.full(len(given), rows.x.shape[1]) if rows.lengths is None else rows.lengths
        for n, row in enumerate(given):
            label = name if rows.unbatched else f"{name}[{n}]"
            row = self._array(label, row)
            if row.ndim != 1:
                raise ValueError(f"{label}: expected labels (L,), got {row.shape}")
            row = row if self.head.labels is None else self.head.names.ids(label, row)
            loss.check_kind(label, row)
            row = row.astype(np.int64)
            loss.check_values(label, row, self.head.output_size)
            needed = max(1, len(row) + int((row[1:] == row[:-1]).sum()))
            if lengths[n] < (1 if loss.zero_infinity else needed):
                raise ValueError(f"{label}: expected labels for which {lengths[n]} steps will do, got {len(row)} that "
                                 f"take {needed}")  # fmt: skip
            y[n] = row
        return y

    def _checked_target(self, name, y, shape, real, ignored):
        """y : all rows or, of a list, one, of this shape before what one target has."""
        head, counting, unbatched = self.head, self.counting, self.rows.unbatched
        loss, width = head.loss, head.width
        classes = head.labels is not None and not loss.of_classes  # of 0 and 1, as numbers
        if head.labels is None:
            loss.check_kind(name, y)
        if head.per_row:
            y = one_row_each(y, head)
        # One number needs no axis where none else is meant: of labels, or of each step of a horizon.
        if (classes or head.horizon is not None) and width[-1:] == (1,) and y.shape == shape + width[:-1]:
            y = y[..., None]
        if y.shape != (*shape, *width):
            expected, got = (sizes[int(unbatched) :] for sizes in ((*shape, *width), y.shape))
            raise ValueError(f"{name}: expected {expected}, got {got}")
        if head.labels is not None:
            options = dict(ignore=ignored, missing=counting.missing)
            y = head.names.ids(name, y[0], None if real is None else real[0], **options)[None] if unbatched else \
                head.names.ids(name, y, real, **options)  # fmt: skip
            y = np.where(y == MISSING, np.nan, y) if counting.missing else y
        given = y[0] if unbatched else y  # errors name places of what was given
        check_finite(name, given, self.rows.model.dtype, real[0] if unbatched and real is not None else real,
                     counting.missing, "missing='skip' leaves targets out")  # fmt: skip
        if unbatched and real is not None:
            real = real[0]
        known = contents_of(given)
        if known is not None and known.size <= head.output_size and loss.of_classes:
            return y  # and whoever takes a batch looks at its ids again
        for piece in in_pieces(given):
            part = given[piece]
            loss.check_values(name, part, head.output_size, self._counted(part, real, piece), piece)
        return y

    def _counted(self, part, real, piece):
        """Which of some targets count, of their shape; None for all. real : of all rows or, of a list, of one."""
        counted = None
        if real is not None:
            real = real[piece[: real.ndim]]
            counted = np.broadcast_to(real.reshape(real.shape + (1,) * (part.ndim - real.ndim)), part.shape)
        if self.counting.ignore is None:
            return counted
        return part != self.counting.ignore if counted is None else counted & (part != self.counting.ignore)

    def _checked_weights(self, name, given):
        """(B,), (B, T), or a list of arrays (T_b,); with a horizon of k also (B, k), (B, T, k)."""
        rows, k = self.rows, (self.head.groups,) * (self.head.horizon is not None)
        if self.head.per_row:
            return check_token_weights(name, given, (len(rows), *k))
        if rows.unbatched:
            real = rows.real()
            shape = (rows.x.shape[1], *k)
            return check_token_weights(name, given, shape, None if real is None else real[0])[None]
        if not rows.ragged:
            return check_token_weights(name, given, (*rows.x.shape[:2], *k), rows.real())
        listed = ragged_rows(given)
        if listed is None:
            listed = plain_array(name, given)
            if listed.ndim < 2:
                return check_token_weights(name, listed, (len(rows),))
        if len(listed) != len(rows):
            raise ValueError(f"{name}: expected {len(rows)} rows, as many as {rows.names[0]}, got {len(listed)}")
        return [
            check_token_weights(f"{name}[{n}]", row, (len(rows.x[n]), *k), rows.real(n)) for n, row in enumerate(listed)
        ]

    def _of_rows(self) -> Iterator[np.ndarray]:
        """The targets that are there, row by row."""
        head, rows = self.head, self.rows
        real = None if head.per_row or rows.ragged else rows.real()
        for n, row in enumerate(self.y):
            keep = real[n] if real is not None else rows.real(n) if self.listed else None
            for piece in in_pieces(row) if row.ndim else ():
                yield row[piece] if keep is None else row[piece][keep[piece[:1]]]
            if not row.ndim:
                yield row

    # --- parts ----------------------------------------------------------------------------------------------------

    def part(self, reader, rows, steps) -> PartTargets:
        """Those of some rows, and of those of a slice of steps. reader : the Rows that reads them."""
        y, weights, per_row = self.y, self.weights, self.head.per_row
        if weights is not None:
            weights = weights[rows] if per_row or weights.ndim == 1 else weights[rows, steps]
        return PartTargets(reader.take(y, rows, None if per_row else steps), weights, self.counting)

    def gathered(self, reader, rows, chosen) -> PartTargets:
        """Those of some rows, and of those of the steps at these places, one behind the other."""
        y, weights, per_row = self.y, self.weights, self.head.per_row
        pairs = list(zip(rows, chosen, strict=True))
        if weights is not None:
            by_row = not isinstance(weights, list) and (per_row or weights.ndim == 1)
            weights = weights[rows] if by_row else padded([weights[n][places] for n, places in pairs])[0]
        y = reader.take(y, rows) if per_row else padded([reader.steps(y[n], places) for n, places in pairs])[0]
        return PartTargets(y, weights, self.counting)


def counting_of(head, class_weight, ignore, missing, targets=()) -> Counting:
    """What of the targets of a head counts. ignore, class_weight : of its labels, where it has some; targets : those
    that "balanced" goes by."""
    names = head.names
    if names is not None and ignore is not None and not isinstance(plain(ignore), (str, int, float)):
        raise TypeError(f"ignore: expected a label, a string or a number, got {describe(ignore)}")
    if names is not None and isinstance(class_weight, Mapping):
        for label in class_weight:
            if label not in names.index:
                raise ValueError(f"class_weight: expected labels of {names.shown()}, got {describe(label)}")
        class_weight = {names.index[label]: weight for label, weight in class_weight.items()}
    counting = Counting.checked(head.loss, ignore if names is None or ignore is None else -1, missing)
    return counting.weighing(head.loss, head.output_size, class_weight, targets)


def options_by_head(heads, prefix, missing, **options) -> dict[str, dict]:
    """Arguments of `fit`, and `missing`, as they are for each head: those of several come in dicts, but that
    sample_weight may be the same for all."""
    if "" in heads:
        return {"": {**options, "missing": missing}}
    if not any(map(of_numbers, heads.values())):
        Counting.checked(next(iter(heads.values())).loss, None, missing)  # for its error
    found = {name: {"missing": missing if of_numbers(head) else "error"} for name, head in heads.items()}
    for argument, given in options.items():
        if given is None or (argument == "sample_weight" and not isinstance(given, Mapping)):
            given = dict.fromkeys(heads, given)
        if not isinstance(given, Mapping) or not set(given) <= set(heads):
            raise TypeError(f"{prefix}{argument}: expected a dict by head, of {', '.join(heads)}, "
                            f"got {describe(given)}")  # fmt: skip
        for name in heads:
            found[name][argument] = given.get(name)
    return found


def of_numbers(head) -> bool:
    """Whether targets of a head can be NaN."""
    return not (head.loss.of_classes or head.loss.of_rows)
