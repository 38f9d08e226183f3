"""Batches of a model: what goes in, which of its outputs a loss counts, and many rows a few at a time.

Tokens are what a loss is averaged over: the real steps of all rows or, for output="last", the rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cylstm._core.ragged import Plan
from cylstm.checks import check_lengths, check_mask, check_resets, check_state, describe, plain_array
from cylstm.counting import EVERY
from cylstm.sequences import batches_by_length, kept_resets, padded
from cylstm.state import State

__all__ = [
    "Batch",
    "Part",
    "at_once",
    "batch_of",
    "in_batches",
    "last_of",
    "of_masked",
    "of_tokens",
    "one_row_each",
    "to_steps",
]

AT_ONCE = 65536  # steps: bounds the memory of evaluate() and of model(x), beside what that returns


def at_once(size: int) -> int:
    """How many rows of so many steps each, or steps of so many rows, to compute at a time."""
    return max(1, AT_ONCE // size)


class Part(NamedTuple):
    """Rows of a data set, whose arrays were checked."""

    x: np.ndarray  # ids (B, T) or features (B, T, I)
    y: np.ndarray  # (B, T, ...) or, for output="last", (B, ...)
    weights: np.ndarray | None  # (B,) or (B, T)
    plan: Plan | None  # of lengths and resets
    state: State | None  # before the first step


class Batch(NamedTuple):
    """Inputs, and the targets and weights of their tokens as a loss takes them."""

    x: np.ndarray  # ids (B, T) or features (B, T, I)
    targets: np.ndarray  # (N,) or (N, O), of the N tokens
    weights: np.ndarray | None  # (N,), of the model's type; None for 1 everywhere
    weight: float  # the sum of what counts
    tokens: int  # how many count
    real: np.ndarray | None  # (B, T) where the tokens are; None for everywhere
    plan: Plan | None
    state: State | None


def batch_of(model, part, counting=EVERY) -> Batch:
    """The Batch of a Part."""
    loss, width, real = model.loss, model.loss.width(model.output_size), None
    x, y, weights, plan, state = part
    if model.output == "last":
        y = one_row_each(y, width)
    elif plan is not None and plan.lengths is not None:
        real = ~plan.past_ends()
    y = y.reshape(-1, *width) if real is None else y[real]
    if weights is not None:
        if model.output != "last" and weights.ndim == 1:
            weights = np.broadcast_to(weights[:, None], x.shape[:2])
        weights = (weights.reshape(-1) if real is None else weights[real]).astype(np.float64)
    y, weights, counted = counting.applied(loss, y, weights)
    weights = None if weights is None else weights.astype(model.dtype)
    total, tokens = (len(y), len(y)) if counted is None else (counted.sum(), np.count_nonzero(counted))
    targets = loss.converted("y", y, model.output_size, model.dtype)
    return Batch(x, targets, weights, float(total), int(tokens), real, plan, state)


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
    B, T = (len(x), max(1, *map(len, x))) if ragged else x.shape[:2]
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
        part, ends = padded([x[n] for n in rows]) if ragged else (x[rows], None if lengths is None else lengths[rows])
        cuts = None if resets is None else resets[rows, : part.shape[1]]
        plan = None if ends is None and cuts is None else Plan(*part.shape[:2], ends, cuts)
        found, (final.h[:, rows], final.c[:, rows]) = model.at_once(part, start, plan)
        if ragged and not last:
            for n, row, end in zip(rows, found, ends, strict=True):
                outputs[n] = row[:end]
        else:
            outputs[rows] = found
    return outputs, final


def of_masked(model, x, state, lengths, mask, resets):
    """`model(x, mask=mask)`: the steps where it is true behind each other, and what comes out in their places."""
    single = not isinstance(x, list)
    if single:
        x = plain_array("x", x)
        batched = x.ndim == (2 if x.dtype.kind in "iu" or model.embedding_size is not None else 3)
        x = x if batched else x[None]
        mask = check_mask("mask", mask, x.shape[:2] if batched else x.shape[1:2]).reshape(x.shape[:2])
        if lengths is not None:
            mask = mask & (np.arange(x.shape[1]) < check_lengths(lengths, *x.shape[:2])[:, None])
    else:
        if not isinstance(mask, (list, tuple)) or len(mask) != len(x):
            raise TypeError(f"mask: expected a list of {len(x)} arrays, as x is one, got {describe(mask)}")
        mask = [check_mask(f"mask[{n}]", given, x[n].shape[:1]) for n, given in enumerate(mask)]
    steps, kept = max(map(len, x)), [np.flatnonzero(row) for row in mask]
    rows = [row[places] for row, places in zip(x, kept, strict=True)]
    if resets is not None:
        given = check_resets(resets, len(x), steps, not single or batched)
        resets, _ = padded([kept_resets(row, places) for row, places in zip(given, kept, strict=True)])
    outputs, final = in_batches(model, rows, state, None, resets)
    if model.output == "last":
        return (outputs if not single or batched else outputs[0]), final
    whole = [np.zeros((len(row), model.output_size), model.dtype) for row in x]
    for target, places, row in zip(whole, kept, outputs, strict=True):
        target[places] = row
    return (whole if not single else np.stack(whole) if batched else whole[0]), final
