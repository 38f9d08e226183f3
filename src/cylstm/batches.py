"""Batches of a model: what goes in, which of its outputs a loss counts, and many rows a few at a time.

Tokens are what a loss is averaged over: the real steps of all rows or, for output="last", the rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cylstm._core.ragged import Plan
from cylstm.checks import check_lengths, check_mask, check_resets, check_state, plain_array
from cylstm.counting import EVERY
from cylstm.ctc import ctc_greedy
from cylstm.sequences import as_sequences, batches_by_length, check_masks, kept_resets, one_type, padded, ragged_rows
from cylstm.state import State

__all__ = [
    "Batch",
    "Part",
    "at_once",
    "batch_of",
    "in_batches",
    "input_rows",
    "input_sizes",
    "labels_of",
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
    targets: np.ndarray | list  # (N,) or (N, O), of the N tokens; or the labels of each row
    weights: np.ndarray | None  # (N,) over `unit`, of the model's type; None for 1 everywhere
    unit: float  # the largest weight: a type that holds little holds all of them over it
    weight: float  # the sum of what counts
    tokens: int  # how many count
    real: np.ndarray | None  # (B, T) where the tokens are; None for everywhere
    plan: Plan | None
    state: State | None


def batch_of(model, part, counting=EVERY) -> Batch:
    """The Batch of a Part."""
    loss, real = model.loss, None
    x, y, weights, plan, state = part
    weights = None if weights is None else weights.astype(np.float64)
    if loss.of_rows:
        targets, shares = list(y), weights
    else:
        width = loss.width(model.output_size)
        if model.output == "last":
            y = one_row_each(y, width)
        elif plan is not None and plan.lengths is not None:
            real = ~plan.past_ends()
        y = y.reshape(-1, *width) if real is None else y[real]
        if weights is not None:
            if model.output != "last" and weights.ndim == 1:
                weights = np.broadcast_to(weights[:, None], x.shape[:2])
            weights = weights.reshape(-1) if real is None else weights[real]
        y, weights, shares = counting.applied(loss, y, weights)
        targets = loss.converted("y", y, model.output_size, model.dtype)
    total, tokens = (len(y), len(y)) if shares is None else (shares.sum(), np.count_nonzero(shares))
    unit = 1.0 if weights is None else float(weights.max(initial=0)) or 1.0
    weights = None if weights is None else (weights / unit).astype(model.dtype)
    return Batch(x, targets, weights, unit, float(total), int(tokens), real, plan, state)


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


def input_sizes(model, x) -> tuple[bool, int, int]:
    """Of one array: whether it is a batch, B and T. Raises ValueError for what is no input of the model."""
    tail = () if model.embedding_size is not None or x.dtype.kind in "iu" else (model.input_size,)
    rank = 1 + len(tail)
    if x.ndim not in (rank, rank + 1) or x.shape[x.ndim - len(tail) :] != tail:
        shown = "".join(f", {size}" for size in tail)
        raise ValueError(f"x: expected (B, T{shown}) or (T{shown or ','}), got {x.shape}")
    B, T = x.shape[:2] if x.ndim > rank else (1, x.shape[0])
    if B == 0 or T == 0:
        raise ValueError(f"x: expected at least one row and one step, got {x.shape}")
    return x.ndim > rank, B, T


def input_rows(model, rows) -> list[np.ndarray]:
    """Sequences of a list, of one type, each of them an input of the model without the axis B."""
    rows = one_type("x", as_sequences(rows))
    tail = () if model.embedding_size is not None or rows[0].dtype.kind in "iu" else (model.input_size,)
    for n, row in enumerate(rows):
        if row.shape[1:] != tail:
            raise ValueError(f"x[{n}]: expected (T{''.join(f', {size}' for size in tail) or ','}), got {row.shape}")
    return rows


def in_batches(model, x, state, lengths, resets, kept=None):
    """`model(x)` of an array (B, T, ...) or of a list of sequences: as many rows at a time, which know nothing of each
    other, as have AT_ONCE steps. kept: of each row, the steps that are not left out; the outputs then are a list."""
    ragged, last = isinstance(x, list) or kept is not None, model.output == "last"
    B, T = (len(x), max(1, *map(len, x))) if isinstance(x, list) else x.shape[:2]
    lengths = None if lengths is None else check_lengths(lengths, B, T)
    resets = None if resets is None else check_resets(resets, B, T, True)
    final = model.initial_state(B)
    state = None if state is None else State(*check_state("state", state, final.h.shape, model.dtype))
    rows_at_once = at_once(T)
    if ragged:
        outputs = np.empty((B, model.output_size), model.dtype) if last else [None] * B
        batches = batches_by_length(list(map(len, x if kept is None else kept)), rows_at_once)
    else:
        outputs = np.empty((B, model.output_size) if last else (B, T, model.output_size), model.dtype)
        count = -(-B // rows_at_once)  # batches, as even as they can be
        batches = [slice(B * n // count, B * (n + 1) // count) for n in range(count)]
    for rows in batches:
        start = None if state is None else State(state.h[:, rows], state.c[:, rows])
        cuts = None if resets is None else resets[rows]
        if not ragged:
            part, ends = x[rows], None if lengths is None else lengths[rows]
        else:
            part, ends = padded([x[n] if kept is None else x[n][kept[n]] for n in rows])
            if kept is not None and cuts is not None:
                cuts, _ = padded([kept_resets(resets[n], kept[n]) for n in rows])
            cuts = None if cuts is None else cuts[:, : part.shape[1]]
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
    if isinstance(x, list):
        batched, mask = True, check_masks(mask, x)
    else:
        x = plain_array("x", x)
        batched, B, T = input_sizes(model, x)
        mask = check_mask("mask", mask, (B, T) if batched else (T,)).reshape(B, T)
        resets = None if resets is None else check_resets(resets, B, T, batched)
        x = x.reshape(B, T, *x.shape[1 + batched :])
        if lengths is not None:
            mask = mask & (np.arange(T) < check_lengths(lengths, B, T)[:, None])
    kept = [np.flatnonzero(row) for row in mask]
    outputs, final = in_batches(model, x, state, None, resets, kept)
    if model.output == "last":
        return (outputs if batched else outputs[0]), final
    whole = [np.zeros((len(row), model.output_size), model.dtype) for row in x]
    for target, places, row in zip(whole, kept, outputs, strict=True):
        target[places] = row
    return (whole if isinstance(x, list) else np.stack(whole) if batched else whole[0]), final


def labels_of(model, x, lengths, mask) -> list[np.ndarray] | np.ndarray:
    """`Model.predict` of a loss of labels: of one sequence alone, its labels."""
    rows = ragged_rows(x)
    if rows is None:
        x = plain_array("x", x)
        batched, B, T = input_sizes(model, x)
        mask = np.ones((B, T), bool) if mask is None else check_mask("mask", mask, (B, T) if batched else (T,))
        mask, x = mask.reshape(B, T), x.reshape(B, T, *x.shape[1 + batched :])
        if lengths is not None:
            mask = mask & (np.arange(T) < check_lengths(lengths, B, T)[:, None])
        rows = list(x)
    else:
        batched, rows = True, input_rows(model, rows)
        mask = [np.ones(len(row), bool) for row in rows] if mask is None else check_masks(mask, rows)
    rows = [row[keep] for row, keep in zip(rows, mask, strict=True)]
    labels = [np.zeros(0, np.int64) for _ in rows]
    some = [n for n, row in enumerate(rows) if len(row)]
    if some:
        outputs, _ = model([rows[n] for n in some])
        for n, found in zip(some, ctc_greedy(outputs, blank=model.loss.blank), strict=True):
            labels[n] = found.labels
    return labels if batched else labels[0]
