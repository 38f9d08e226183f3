"""Sequences and series as the arrays that a model takes: views wherever they can be, so that a memory map stays one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cylstm.checks import as_generator, as_ids, check_mask, describe, plain_array, positive_int, real_in

__all__ = [
    "Ends",
    "as_sequences",
    "batches_by_length",
    "next_token",
    "one_hot",
    "one_type",
    "pad",
    "ragged_rows",
    "split",
    "streams",
    "windows",
]


def one_hot(ids, size: int, dtype="float32") -> np.ndarray:
    """Ids of any shape as rows with a single 1: (...,) -> (..., size).

    A model takes ids as they are and never needs this; it is here for other tools and for reading.
    Raises TypeError for non-integers, ValueError for ids outside 0..size-1.
    """
    ids = as_ids("ids", ids, positive_int("size", size))
    rows = np.zeros((*ids.shape, size), dtype)
    np.put_along_axis(rows, ids[..., None], 1, axis=-1)
    return rows


def split(data, fractions=(0.9, 0.05, 0.05), *, seed=None) -> tuple:
    """Parts of `data`, one for each fraction (training, validation and test by default), together all of it.

    data : an array, split along its first axis into views, or a list of sequences.
    seed : None keeps the order, as a text or a series needs it; an integer shuffles first, as independent sequences
        want it (the same seed and length give the same order, so that inputs and targets can be split one after the
        other).

    Raises ValueError for fractions that are negative or do not add up to 1, and for a part that would be empty.
    """
    if not hasattr(data, "__len__") or getattr(data, "ndim", 1) == 0:
        raise TypeError(f"data: expected an array or a list of sequences, got {describe(data)}")
    if not isinstance(fractions, Iterable):
        raise TypeError(f"fractions: expected one number for each part, got {describe(fractions)}")
    fractions = [real_in("fractions", fraction, 0, 1) for fraction in fractions]
    if abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions: expected a sum of 1, got {sum(fractions):g}")
    ends = np.rint(np.cumsum(fractions) * len(data)).astype(int).tolist()
    bounds = list(zip([0, *ends[:-1]], ends, strict=True))
    for fraction, (start, end) in zip(fractions, bounds, strict=True):
        if fraction and start == end:
            raise ValueError(f"data: expected enough elements for a part of {fraction:g}, got {len(data)} in all")
    if seed is None:
        return tuple(data[start:end] for start, end in bounds)
    order = as_generator("seed", seed).permutation(len(data))
    if isinstance(data, np.ndarray):
        return tuple(data[order[start:end]] for start, end in bounds)
    return tuple([data[i] for i in order[start:end]] for start, end in bounds)


def next_token(ids) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and their targets, the next tokens: (..., N) -> x (..., N-1), y (..., N-1) with y[..., t] = x[..., t+1].

    Both are views. Raises ValueError for fewer than 2 tokens (one step and its target).
    """
    ids = np.asanyarray(ids)
    if ids.ndim == 0 or ids.shape[-1] < 2:
        raise ValueError(f"ids: expected at least 2 tokens (one step and its target), got {describe(ids)}")
    return ids[..., :-1], ids[..., 1:]


def streams(ids, count: int) -> tuple[np.ndarray, np.ndarray]:
    """One long text as `count` parallel streams: ids (N,) -> x (count, T), y (count, T), with T = (N-1) // count.

    Stream s holds the tokens from s*T on, y is one token further. Both are views; at most count-1 tokens at the end are
    in no stream. Raises ValueError for a text with fewer than count+1 tokens, TypeError for a count that is no integer.
    """
    ids = np.asanyarray(ids)
    count = positive_int("count", count)
    if ids.ndim != 1 or len(ids) <= count:
        raise ValueError(f"ids: expected (N,) with N > {count}, one step and target per stream, got {describe(ids)}")
    steps = (len(ids) - 1) // count
    used = count * steps
    return ids[:used].reshape(count, steps), ids[1 : used + 1].reshape(count, steps)


def pad(sequences: Sequence, dtype=None) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of different lengths as one array: B arrays (T_b, ...) -> x (B, T, ...) padded with 0, lengths (B,).

    Raises ValueError for no sequences, and ones that differ in more than their length.
    """
    arrays = as_sequences(sequences)
    return padded(arrays, np.result_type(*arrays) if dtype is None else dtype)


def padded(arrays, dtype=None) -> tuple[np.ndarray, np.ndarray]:
    """`pad` of arrays that were checked; one step at least."""
    lengths = np.array([len(array) for array in arrays])
    first = arrays[0]
    x = np.zeros((len(arrays), max(1, lengths.max()), *first.shape[1:]), first.dtype if dtype is None else dtype)
    for row, array in zip(x, arrays, strict=True):
        row[: len(array)] = array
    return x, lengths


def check_masks(mask, rows) -> list[np.ndarray]:
    """A mask (T_b,) for each row of a list. Raises TypeError or ValueError."""
    if not isinstance(mask, (list, tuple)) or len(mask) != len(rows):
        raise TypeError(f"mask: expected a list of {len(rows)} arrays, as x is one, got {describe(mask)}")
    given = [np.zeros(0, bool) if isinstance(row, (list, tuple)) and not row else row for row in mask]
    return [
        check_mask(f"mask[{n}]", keep, row.shape[:1]) for n, (keep, row) in enumerate(zip(given, rows, strict=True))
    ]


def kept_resets(resets, kept) -> np.ndarray:
    """Resets (T,) of the steps `kept`: one of a step that is left out comes with the next that is not."""
    return np.diff(np.cumsum(resets)[kept], prepend=0) > 0


def as_sequences(sequences) -> list[np.ndarray]:
    """Arrays (T_b, ...) that differ in nothing but their length. Raises as `pad` does."""
    if not isinstance(sequences, Iterable):
        raise TypeError(f"sequences: expected a list of arrays, got {describe(sequences)}")
    arrays = [plain_array(f"sequences[{b}]", sequence) for b, sequence in enumerate(sequences)]
    if not arrays:
        raise ValueError("sequences: expected at least one sequence, got none")
    tail = arrays[0].shape[1:]
    for b, array in enumerate(arrays):
        if array.ndim == 0 or array.shape[1:] != tail:
            raise ValueError(f"sequences[{b}]: expected ({', '.join(['T', *map(str, tail)])}), got {describe(array)}")
    return arrays


def batches_by_length(lengths, batch_size: int, rng=None) -> list[np.ndarray]:
    """Batches of sequences of similar length, so that little is padded: a list of index arrays, each index once.

    lengths : (N,) integers >= 0. Each batch is ordered by falling length; all but one have `batch_size` elements.
    rng : a seed or numpy Generator draws which of the equally long sequences come together, and the order of the
        batches; None leaves both as they are, the longest first.
    """
    lengths = np.asarray(lengths)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or lengths.min(initial=0) < 0:
        raise ValueError(f"lengths: expected (N,) integers >= 0, got {describe(lengths)}")
    batch_size = positive_int("batch_size", batch_size)
    generator = None if rng is None else as_generator("rng", rng)
    order = np.arange(len(lengths)) if generator is None else generator.permutation(len(lengths))
    order = order[np.argsort(-lengths[order].astype(np.int64), kind="stable")]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if generator is not None:
        generator.shuffle(batches)
    return batches


def windows(series, width: int, horizon: int = 1, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a series and what follows each: (N,) or (N, F) -> x (M, width, F), y (M, horizon, F), read-only views.

    Window m begins at step m*stride; y[m] are the `horizon` steps after it. F is 1 for a series (N,). They train a
    `Model(F, H, F, output="last", horizon=horizon)`, whose predictions have the shape of y, or one with horizon * F
    outputs and no horizon.
    Raises ValueError for a series shorter than width + horizon, TypeError for sizes that are not integers.
    """
    series = plain_array("series", series)
    width, horizon = positive_int("width", width), positive_int("horizon", horizon)
    stride = positive_int("stride", stride)
    if series.ndim not in (1, 2) or len(series) < width + horizon:
        raise ValueError(f"series: expected (N,) or (N, F) with N >= {width + horizon}, got {describe(series)}")
    table = series if series.ndim == 2 else series[:, None]
    both = np.lib.stride_tricks.sliding_window_view(table, width + horizon, axis=0)[::stride].swapaxes(1, 2)
    return both[:, :width], both[:, width:]


class Ends:
    """Which steps (B, T) come before the ends of their rows; of each piece that is asked for, an array."""

    ndim = 2

    def __init__(self, lengths, steps: int):
        self.lengths, self.steps = lengths, np.arange(steps)

    def __getitem__(self, piece) -> np.ndarray:
        """piece : of the rows, and perhaps of the steps: slices, index arrays or integers."""
        rows, *steps = piece if isinstance(piece, tuple) else (piece,)
        return self.steps[tuple(steps)] < self.lengths[rows][..., None]


def ragged_rows(x) -> list[np.ndarray] | None:
    """The sequences of a list of arrays, or of lists of unequal length; None for what is one array."""
    if (
        not isinstance(x, (list, tuple))
        or not len(x)
        or not all(isinstance(row, (list, tuple)) or is_array(row) for row in x)
    ):
        return None
    if all(map(is_array, x)) or len({len(row) for row in x}) > 1:
        return [plain_array(f"x[{n}]", row) for n, row in enumerate(x)]
    return None


def is_array(value) -> bool:
    """Whether it is an array of any library's, with at least one axis."""
    return hasattr(value, "__array__") and getattr(value, "ndim", 1) > 0


def one_type(name, rows) -> list[np.ndarray]:
    """Rows of ids, or of numbers, of several types as int64 or as the largest floating type among them; an empty list
    among ids is of ids, though NumPy makes an array of numbers of it."""
    if any(row.dtype.kind in "iu" for row in rows):
        rows = [row.astype(np.int64) if row.shape == (0,) else row for row in rows]
    if len({row.dtype for row in rows}) == 1:
        return rows
    if len({row.dtype.kind in "iu" for row in rows}) > 1:
        raise TypeError(f"{name}: expected rows of one kind, got integers in some and floating-point numbers in others")
    dtype = np.int64 if rows[0].dtype.kind in "iu" else np.result_type(*rows)
    return [np.asarray(row, dtype) for row in rows]
