"""Batches of a model: what goes in, which of its outputs a loss counts, and many rows a few at a time.

Tokens are what a loss is averaged over: the real steps of all rows or, for output="last", the rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cylstm._core.ragged import Plan, planned
from cylstm.checks import check_finite, check_lengths, check_resets, check_state, plain_array
from cylstm.sequences import batches_by_length, pad
from cylstm.state import State

__all__ = [
    "Batch",
    "at_once",
    "batch_of",
    "checked_batch",
    "in_batches",
    "last_of",
    "of_tokens",
    "one_row_each",
    "to_steps",
]

AT_ONCE = 65536  # steps: bounds the memory of evaluate() and of model(x), beside what that returns


def at_once(size: int) -> int:
    """How many rows of so many steps each, or steps of so many rows, to compute at a time."""
    return max(1, AT_ONCE // size)


class Batch(NamedTuple):
    """Inputs and targets that were checked."""

    x: np.ndarray  # ids (B, T) or features (B, T, I)
    targets: np.ndarray  # (N,) or (N, O), of the N tokens
    real: np.ndarray | None  # (B, T) where these are; None for everywhere
    plan: Plan | None  # of lengths and resets


def checked_batch(model, x, y, lengths, resets) -> Batch:
    """The arguments of `Model.loss_and_gradients`. Raises TypeError or ValueError, naming the argument."""
    x = plain_array("x", x)  # once: what it is converted from may answer otherwise the next time
    if x.dtype.kind not in "iuf":
        raise TypeError(f"x: expected floating-point numbers or integer ids, got {x.dtype} {x.shape}")
    if x.ndim != (2 if x.dtype.kind in "iu" else 3):
        raise ValueError(f"x: expected a batch, ids (B, T) or features (B, T, {model.input_size}), got {x.shape}")
    last, width = model.output == "last", model.loss.width(model.output_size)
    y = plain_array("y", y)
    model.loss.check_kind("y", y)
    if last:
        y = one_row_each(y, width)
    expected = (*x.shape[: 1 if last else 2], *width)
    if y.shape != expected:
        raise ValueError(f"y: expected {expected}, got {y.shape}")
    plan = planned(*x.shape[:2], lengths, resets)
    ends = None if plan is None else plan.lengths
    check_finite("y", y, model.dtype, None if last else ends)
    check_finite("x", x, model.dtype, ends)
    return batch_of(model, x, y, plan)


def batch_of(model, x, y, plan=None) -> Batch:
    """The same of arrays that were checked."""
    width, real = model.loss.width(model.output_size), None
    if model.output == "last":
        y = one_row_each(y, width)
    elif plan is not None and plan.lengths is not None:
        real = ~plan.past_ends()
    y = y.reshape(-1, *width) if real is None else y[real]
    return Batch(x, model.loss.converted("y", y, model.output_size, model.dtype), real, plan)


def one_row_each(y, width) -> np.ndarray:
    """Targets of output="last": (B, horizon, F) with as many numbers a row as `width`, the shape of a target, has as
    (B, *width), a view where one can be; others as they are."""
    several = width and y.ndim > 2 and math.prod(y.shape[1:]) == math.prod(width)
    return y.reshape(len(y), *width) if several else y


def last_of(model, state):
    """The last layer's final h, both directions side by side: (B, D*H)."""
    return np.concatenate(list(state.h[-model.lstm.num_directions :]), axis=1)


def of_tokens(model, outputs, final, real):
    """h (N, D*H) of the N tokens, from outputs (B, T, D*H) or, for output="last", from the final state."""
    if model.output == "last":
        return last_of(model, final)
    return outputs.reshape(-1, outputs.shape[-1]) if real is None else outputs[real]


def to_steps(model, dh, shape, real):
    """The way back: dh (N, D*H) of the tokens -> dy (B, T, D*H) = shape, and dstate."""
    if model.output == "last":
        state = model.initial_state(shape[0])
        D, H = model.lstm.num_directions, model.hidden_size
        for d in range(D):
            state.h[len(state.h) - D + d] = dh[:, d * H : (d + 1) * H]
        return np.zeros(shape, model.dtype), state
    if real is None:
        return dh.reshape(shape), None
    dy = np.zeros(shape, model.dtype)
    dy[real] = dh
    return dy, None


def in_batches(model, x, state, lengths, resets):
    """`model(x)` of an array (B, T, ...) or of a list of sequences: as many rows at a time, which know nothing of each
    other, as have AT_ONCE steps."""
    ragged, last = isinstance(x, list), model.output == "last"
    B, T = (len(x), max(map(len, x))) if ragged else x.shape[:2]
    lengths = None if lengths is None else check_lengths(lengths, B, T)
    resets = None if resets is None else check_resets(resets, B, T, True)
    final = model.initial_state(B)
    state = None if state is None else State(*check_state("state", state, final.h.shape, model.dtype))
    together = at_once(T)
    if ragged:
        outputs = np.empty((B, model.output_size), model.dtype) if last else [None] * B
        batches = batches_by_length([len(row) for row in x], together)
    else:
        outputs = np.empty((B, model.output_size) if last else (B, T, model.output_size), model.dtype)
        count = -(-B // together)  # batches, as even as they can be
        batches = [slice(B * n // count, B * (n + 1) // count) for n in range(count)]
    for rows in batches:
        start = None if state is None else State(state.h[:, rows], state.c[:, rows])
        part, ends = pad([x[n] for n in rows]) if ragged else (x[rows], None if lengths is None else lengths[rows])
        cuts = None if resets is None else resets[rows, : part.shape[1]]
        plan = None if ends is None and cuts is None else Plan(*part.shape[:2], ends, cuts)
        found, (final.h[:, rows], final.c[:, rows]) = model.at_once(part, start, plan)
        if ragged and not last:
            for n, row, end in zip(rows, found, ends, strict=True):
                outputs[n] = row[:end]
        else:
            outputs[rows] = found
    return outputs, final
