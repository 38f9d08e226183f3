"""Connectionist temporal classification: a loss for labels that nobody has aligned with the steps, and its decoders.

Graves, Fernández, Gomez & Schmidhuber 2006. A step's logits (V,) say which of V classes it is; one class is the blank,
none of the labels. An alignment gives each step a class; merging its runs of equal classes, then dropping its blanks,
leaves labels. Their probability is the sum of the probabilities of all alignments that leave them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cylstm._core import ctc as core
from cylstm._core import ctc_beam
from cylstm.checks import as_float_array, describe, plain_array, positive_int
from cylstm.sequences import is_array

__all__ = ["Labelling", "ctc_beam_search", "ctc_greedy", "ctc_loss"]


class Labelling(NamedTuple):
    """What a row says: n labels, and where each of them is.

    labels : (n,) int64.
    start : (n,) int64, the first step of each label.
    end : (n,) int64, the step behind its last one: a label's steps are start..end-1.
    score : the logarithm of a probability; its decoder says of which.
    """

    labels: np.ndarray
    start: np.ndarray
    end: np.ndarray
    score: float


def ctc_loss(
    logits, targets, *, input_lengths=None, target_lengths=None, blank=0, zero_infinity=False, gradients=False, out=None
):
    """-log p(labels | logits) of each row, (B,) in float64, and on demand their gradients. Means are the caller's.

    logits : (B, T, V), any numbers, not probabilities; or a list of B arrays (T_b, V). float32 and float64 are computed
        in their precision, other floating types in the next larger one of these.
    targets : a list of the labels of each row, of any lengths, 0 included; or (B, L) integers, padded with anything
        where there are target_lengths. Labels are in 0..V-1, and none is the blank.
    input_lengths : (B,) in 1..T, how many steps of each row count; None: all. Other steps may hold anything.
    target_lengths : (B,) in 0..L, of an array of targets; None: all L.
    blank : the class that stands for no label.
    zero_infinity : give 0 in place of infinity.
    gradients : return the pair of losses and of d losses[b] / d logits[b], in the shape and form of logits, 0 past a
        row's end.
    out : where those go, an array like logits, or logits itself: the gradients then take their place. Large ones are
        written sooner to memory that is there already.

    A row that is too short, input length < labels + equal neighbours among them, has the loss infinity and the gradient
    0; so has one whose every alignment meets a logit of -infinity. Where a row's logits are NaN or infinity, its loss
    and gradient are NaN. The gradient goes through the softmax: the probabilities less the shares that alignments with
    the labels have of each class (Graves et al. 2006, equation 16). Raises TypeError or ValueError that names the
    argument and the place.
    """
    rows = as_rows(logits, input_lengths, "input_lengths")
    V = rows.flat.shape[1]
    blank = as_blank(blank, V)
    labels, ends = as_labels(targets, target_lengths, len(rows.starts), V, blank)
    gradient = None
    if out is not None:
        gradient = rows.checked_out(out)
    elif gradients:  # of a list in the place of its copy
        gradient = rows.flat if rows.shape is None else np.zeros_like(rows.flat)
    losses = core.loss(rows.flat, rows.starts, rows.lengths, labels, ends, blank, gradient)
    if zero_infinity:
        losses[losses == np.inf] = 0
    if gradient is None:
        return losses
    if out is not None:
        for row, steps in zip(out, rows.lengths, strict=True):
            row[steps:] = 0
        return losses, out
    return losses, rows.as_given(gradient)


def ctc_greedy(logits, *, lengths=None, blank=0) -> list[Labelling]:
    """The labels of the most probable alignment of each row, which is the most probable class of each step, merged.

    logits, lengths : as logits and input_lengths of `ctc_loss`.

    The score is the logarithm of that one alignment's probability; other labels may be more probable, having more
    alignments (`ctc_beam_search`). Raises TypeError or ValueError, also for logits that are NaN or infinity.
    """
    rows = as_rows(logits, lengths, "lengths")
    *arrays, counts, scores = core.best_path(rows.flat, rows.starts, rows.lengths, as_blank(blank, rows.flat.shape[1]))
    rows.check_numbers(np.isnan(scores))
    found = []
    for start, count, score in zip(rows.starts.tolist(), counts.tolist(), scores.tolist(), strict=True):
        found.append(Labelling(*(array[start : start + count].copy() for array in arrays), score))
    return found


def ctc_beam_search(logits, *, lengths=None, blank=0, width=16, best=None) -> list:
    """The most probable labels of each row by prefix beam search (Hannun, Maas, Jurafsky & Ng 2014).

    logits, lengths : as logits and input_lengths of `ctc_loss`.
    width : how many prefixes each step keeps. Where that is all there are, the result is exact.
    best : None for one `Labelling` of each row; a number, at most `width`, for a list of so many, or as many as there
        are, the most probable first.

    The score is log p(labels | logits), of those alignments that the beam kept: with a wide beam all of them, and then
    -ctc_loss. start and end are those of the most probable alignment of the labels. Raises TypeError or ValueError,
    also for logits that are NaN or infinity.
    """
    rows = as_rows(logits, lengths, "lengths")
    blank, width = as_blank(blank, rows.flat.shape[1]), positive_int("width", width)
    wanted = 1 if best is None else positive_int("best", best)
    if wanted > width:
        raise ValueError(f"best: expected at most the width {width}, got {wanted}")
    longest = int(rows.lengths.max())
    if width * longest >= ctc_beam.MOST_PREFIXES:
        raise ValueError(f"width: expected 1..{ctc_beam.MOST_PREFIXES // longest} for {longest} steps, got {width}")
    labels, sizes, scores = ctc_beam.search(rows.flat, rows.starts, rows.lengths, blank, width, wanted)
    rows.check_numbers(sizes[:, 0] < 0)
    row, place = np.nonzero(sizes >= 0)
    sizes = sizes[row, place]
    found = [labels[b, n, :size] for b, n, size in zip(row, place, sizes, strict=True)]
    ends = np.cumsum([0, *sizes])
    labels = np.concatenate(found)
    first, last = core.align(rows.flat, rows.starts[row], rows.lengths[row], labels, ends, blank)
    results = [[] for _ in rows.starts]
    for n, (b, score) in enumerate(zip(row, scores[row, place].tolist(), strict=True)):
        part = slice(ends[n], ends[n + 1])
        results[b].append(Labelling(labels[part], first[part], last[part], score))
    return [of_row[0] for of_row in results] if best is None else results


# --- what users give, checked -----------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """Logits of all rows as the core takes them."""

    flat: np.ndarray  # (N, V)
    starts: np.ndarray  # (B,) int64
    lengths: np.ndarray  # (B,) int64
    shape: tuple[int, ...] | None  # of the array that came; None for a list

    def as_given(self, flat):
        """An array like `flat` in the form that came."""
        return np.split(flat, self.starts[1:]) if self.shape is None else flat.reshape(self.shape)

    def checked_out(self, out):
        """`out`, an array of the caller's like what came, as (N, V). Raises TypeError or ValueError."""
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out: expected an array, got {describe(out)}")
        if out.shape != self.shape or out.dtype != self.flat.dtype:
            raise ValueError(f"out: expected {self.flat.dtype} {self.shape or '(B, T, V)'}, got {describe(out)}")
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError("out: expected an array that is C-contiguous and writeable, got another")
        if np.may_share_memory(out, self.flat) and out.ctypes.data != self.flat.ctypes.data:
            raise ValueError("out: expected logits itself or memory apart from it, got a part of it")
        return out.reshape(self.flat.shape)

    def check_numbers(self, wrong) -> None:
        """ValueError that names the first number which is none, in the first row that is marked (B,)."""
        if not wrong.any():
            return
        b = int(wrong.argmax())
        row = self.flat[self.starts[b] : self.starts[b] + self.lengths[b]]
        bad = np.isnan(row) | (row == np.inf)
        expected = "a number"
        if not bad.any():  # a step of -infinity alone
            bad, expected = np.isneginf(row).all(axis=1, keepdims=True), "a number at one class at least"
        t, v = np.unravel_index(bad.argmax(), bad.shape)
        where = f"{b}][{t}, {v}" if self.shape is None else f"{b}, {t}, {v}"
        raise ValueError(f"logits[{where}]: expected {expected}, got {row[t, v]:g}")


def as_rows(logits, lengths, name: str) -> Rows:
    """Logits (B, T, V), or a list of B arrays (T_b, V), and their lengths."""
    if isinstance(logits, (list, tuple)) and len(logits) and all(map(is_array, logits)):
        return rows_of_list(logits, lengths, name)
    array = plain_array("logits", logits)
    dtype = real_type("logits", array)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"logits: expected (B, T, V) with a row, a step and a class at least, got {describe(array)}")
    B, T, V = array.shape
    flat = np.ascontiguousarray(array, dtype).reshape(B * T, V)
    steps = np.full(B, T, np.int64) if lengths is None else as_counts(name, lengths, B, 1, T)
    return Rows(flat, np.arange(B, dtype=np.int64) * T, steps, array.shape)


def rows_of_list(logits, lengths, name) -> Rows:
    """Of a list, behind each other in a new array."""
    if lengths is not None:
        raise ValueError(f"{name}: expected None beside a list of logits, which has them, got {describe(lengths)}")
    rows = [plain_array(f"logits[{b}]", row) for b, row in enumerate(logits)]
    V = rows[0].shape[-1]
    for b, row in enumerate(rows):
        if row.ndim != 2 or 0 in row.shape or row.shape[1] != V:
            raise ValueError(f"logits[{b}]: expected (T >= 1, V{f' = {V}' if b else ''}), got {describe(row)}")
    dtype = np.result_type(*(real_type(f"logits[{b}]", row) for b, row in enumerate(rows)))
    steps = np.array([len(row) for row in rows], np.int64)
    return Rows(np.concatenate(rows, dtype=dtype), np.cumsum(steps) - steps, steps, None)


def real_type(name, array):
    """The type that holds the floating-point numbers of an array; TypeError for other kinds."""
    as_float_array(name, array if array.dtype.kind != "f" else array.ravel()[:0], np.float64)
    return np.float32 if array.dtype.itemsize <= 4 else np.float64


def as_counts(name, given, B: int, low: int, high: int) -> np.ndarray:
    """B integers in low..high as int64: a copy, taken before it is checked."""
    counts = np.array(plain_array(name, given))
    if counts.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {describe(counts)}")
    if counts.shape != (B,):
        raise ValueError(f"{name}: expected ({B},), got {counts.shape}")
    wrong = (counts < low) | (counts > high)
    if wrong.any():
        raise ValueError(f"{name}[{wrong.argmax()}]: expected {low}..{high}, got {counts[wrong.argmax()]}")
    return counts.astype(np.int64)


def as_blank(blank, V: int) -> int:
    blank = positive_int("blank", blank, 0)
    if blank >= V:
        raise ValueError(f"blank: expected a class in 0..{V - 1}, got {describe(blank)}")
    return blank


def as_labels(targets, target_lengths, B: int, V: int, blank: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels of all rows behind each other, a copy, and (B + 1,) where each row's begin and the last one's end."""
    if target_lengths is not None:
        array = plain_array("targets", targets)
        if array.ndim != 2 or len(array) != B:
            raise ValueError(f"targets: expected ({B}, L) beside target_lengths, got {describe(array)}")
        sizes = as_counts("target_lengths", target_lengths, B, 0, array.shape[1])
        rows = [row[:size] for row, size in zip(array, sizes, strict=True)]
    else:
        if not is_array(targets) and not isinstance(targets, (list, tuple)):
            raise TypeError(f"targets: expected the labels of {B} rows, got {describe(targets)}")
        if len(targets) != B:
            raise ValueError(f"targets: expected the labels of {B} rows, got {len(targets)}")
        rows = [plain_array(f"targets[{b}]", row) for b, row in enumerate(targets)]
    for b, row in enumerate(rows):
        if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
            raise TypeError(f"targets[{b}]: expected integer labels (L,), got {describe(row)}")
    labels, ends = np.concatenate([row.astype(np.int64) for row in rows]), np.cumsum([0, *map(len, rows)])
    wrong = (labels < 0) | (labels >= V) | (labels == blank)
    if wrong.any():
        n = int(wrong.argmax())
        b = int(np.searchsorted(ends, n, "right")) - 1
        expected = f"a label in 0..{V - 1} other than the blank {blank}"
        raise ValueError(f"targets[{b}][{n - ends[b]}]: expected {expected}, got {labels[n]}")
    return labels, ends
