"""Batches of a model: what goes in, which of its outputs a loss counts, and many rows a few at a time.

Tokens are what a loss is averaged over: the real steps of all rows or, for output="last", the rows; with a horizon,
each of its targets.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cylstm._core.ragged import Plan
from cylstm.between import last_gradients, last_outputs
from cylstm.checks import check_lengths, check_mask, check_resets, check_state, plain_array
from cylstm.counting import Counting
from cylstm.heads import head_outputs
from cylstm.inputs import tail as tail_of
from cylstm.sequences import as_sequences, batches_by_length, check_masks, kept_resets, one_type, padded
from cylstm.state import State

__all__ = [
    "Batch",
    "Part",
    "PartTargets",
    "at_once",
    "batch_of",
    "in_batches",
    "in_steps",
    "input_rows",
    "input_sizes",
    "of_kind",
    "of_masked",
    "one_row_each",
    "step_outputs",
    "to_steps",
]

AT_ONCE = 65536  # steps: bounds the memory of evaluate() and of model(x), beside what that returns


def at_once(size: int) -> int:
    """How many rows of so many steps each, or steps of so many rows, to compute at a time."""
    return max(1, AT_ONCE // size)


class Part(NamedTuple):
    """Rows of a data set, whose arrays were checked."""

    x: np.ndarray  # ids (B, T) or features (B, T, I)
    targets: dict[str, PartTargets]  # of each head
    plan: Plan | None  # of lengths and resets
    state: State | None  # before the first step


class PartTargets(NamedTuple):
    """What one head is to meet in them, and what it counts with."""

    y: np.ndarray  # (B, T, ...) or, where a row has one target, (B, ...)
    weights: np.ndarray | None  # (B,), (B, T) or, of a horizon, (B, k) or (B, T, k)
    counting: Counting


class Batch(NamedTuple):
    """Inputs, and the targets and weights of the tokens of each head as its loss takes them."""

    x: np.ndarray  # ids (B, T) or features (B, T, I)
    heads: dict[str, Tokens]
    real: np.ndarray | None  # (B, T) where the steps of rows are; None for everywhere
    plan: Plan | None
    state: State | None

    @property
    def weight(self) -> float:
        """The sum of what counts."""
        return sum(tokens.weight for tokens in self.heads.values())


class Tokens(NamedTuple):
    """What one head's loss takes of a batch."""

    targets: np.ndarray | list  # (N,) or (N, O), of the N tokens; or the labels of each row
    weights: np.ndarray | None  # (N,) over `unit`, of the model's type; None for 1 everywhere
    unit: float  # the largest weight: a type that holds little holds all of them over it
    weight: float  # the sum of what counts
    count: int  # how many count


def batch_of(model, part) -> Batch:
    """The Batch of a Part."""
    plan, real = part.plan, None
    if plan is not None and plan.lengths is not None and "tokens" in model.kinds:
        real = ~plan.past_ends()
    heads = {
        name: tokens_of(head, *part.targets[name], real, part.x.shape[:2], model.dtype)
        for name, head in model.heads.items()
    }
    return Batch(part.x, heads, real, plan, part.state)


def tokens_of(head, y, weights, counting, real, shape, dtype) -> Tokens:
    """The Tokens of one head's part of a batch of (B, T) = shape."""
    loss, width = head.loss, head.loss.width(head.output_size)
    weights = None if weights is None else weights.astype(np.float64)
    if loss.of_rows:
        targets, shares, count = list(y), weights, len(y)
    else:
        if head.per_row:
            y, real = one_row_each(y, head), None
        y = (y if real is None else y[real]).reshape(-1, *width)
        if weights is not None:
            whole = (shape[0], *shape[1:] * (not head.per_row), *[head.groups] * (head.horizon is not None))
            weights = np.broadcast_to(weights.reshape(weights.shape + (1,) * (len(whole) - weights.ndim)), whole)
            weights = (weights if real is None else weights[real]).reshape(-1)
        y, weights, shares = counting.applied(loss, y, weights)
        targets, count = loss.converted("counted y", y, head.output_size, dtype), len(y)
    total = count if shares is None else shares.sum()
    count = count if shares is None else np.count_nonzero(shares)
    unit = 1.0 if weights is None else float(weights.max(initial=0)) or 1.0
    weights = None if weights is None else (weights / unit).astype(dtype)
    return Tokens(targets, weights, unit, float(total), int(count))


def one_row_each(y, head) -> np.ndarray:
    """Targets (B, steps, F) of a head that has one for each row, without a horizon, as (B, *width), a view where one
    can be, if they have as many numbers a row; others as they are."""
    width = head.width
    several = width and head.horizon is None and y.ndim > 2 and math.prod(y.shape[1:]) == math.prod(width)
    return y.reshape(len(y), *width) if several else y


def of_kind(model, kind, outputs, final, real):
    """h (N, O) that heads of a kind look at, from outputs (B, T, O) and the final state."""
    if kind == "last":
        return last_outputs(model.lstm, final)
    if real is None or kind == "steps":
        return outputs.reshape(-1, outputs.shape[-1])
    return outputs[real]


def to_steps(model, slopes, shape, real, final):
    """The way back: dh (N, O) by kinds -> dy (B, T, O) = shape, and dstate, or None. final: the final state."""
    dy = dstate = None
    for kind, dh in slopes.items():
        if kind == "last":
            dstate = last_gradients(model.lstm, final, dh)
            continue
        if real is None or kind == "steps":
            of_steps = dh.reshape(shape)
        else:
            of_steps = np.zeros(shape, model.dtype)
            of_steps[real] = dh
        dy = of_steps if dy is None else dy + of_steps
    return np.zeros(shape, model.dtype) if dy is None else dy, dstate


def step_outputs(model, y, final, plan) -> dict[str, np.ndarray]:
    """Outputs of each head from y (B, T, O) or (T, O) and the final state; 0 past a row's end."""
    outputs, seen = {}, {}
    for name, head in model.heads.items():
        last = head.output == "last"
        if last not in seen:
            seen[last] = model.seen_by_head(last_outputs(model.lstm, final) if last else y.reshape(-1, y.shape[-1]))
        found = head_outputs(model, name, seen[last])
        if last:
            found = found.reshape(-1, *head.tail)
            outputs[name] = found if y.ndim == 3 else found[0]
            continue
        outputs[name] = found = found.reshape(*y.shape[:-1], *head.tail)
        if plan is not None and plan.lengths is not None:
            found[plan.past_ends().reshape(y.shape[:-1])] = 0
    return outputs


def input_sizes(model, x) -> tuple[bool, int, int]:
    """Of one array: whether it is a batch, B and T. Raises ValueError for what is no input of the model."""
    tail = tail_of(model, x)
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
    tail = tail_of(model, rows[0])
    for n, row in enumerate(rows):
        if row.shape[1:] != tail:
            raise ValueError(f"x[{n}]: expected (T{''.join(f', {size}' for size in tail) or ','}), got {row.shape}")
    return rows


def in_batches(model, x, state, lengths, resets, kept=None) -> tuple[dict, State]:
    """Outputs by head and the final state of an array (B, T, ...) or of a list of sequences: as many rows at a time,
    which know nothing of each other, as have AT_ONCE steps. kept: of each row, the steps that are not left out; outputs
    of steps then are lists."""
    ragged = isinstance(x, list) or kept is not None
    B, T = (len(x), max(1, *map(len, x))) if isinstance(x, list) else x.shape[:2]
    lengths = None if lengths is None else check_lengths(lengths, B, T)
    resets = None if resets is None else check_resets(resets, B, T, True)
    final = model.initial_state(B)
    state = None if state is None else State(*check_state("state", state, final, model.dtype))
    rows_at_once = at_once(T)
    if kept is None and model.inputs is not None:
        model.inputs.check_all(x, None if lengths is None else np.arange(T) < lengths[:, None])
    if ragged:
        batches = batches_by_length(list(map(len, x if kept is None else kept)), rows_at_once)
    else:
        count = -(-B // rows_at_once)  # batches, as even as they can be
        batches = [slice(B * n // count, B * (n + 1) // count) for n in range(count)]
    outputs = {name: empty_outputs(head, B, T, model.dtype, ragged) for name, head in model.heads.items()}
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
        found, (final.h[:, rows], final.c[:, rows]) = in_steps(model, part, start, ends, cuts)
        for name, of_head in found.items():
            if isinstance(outputs[name], list):
                for n, row, end in zip(rows, of_head, ends, strict=True):
                    outputs[name][n] = row[:end]
            else:
                outputs[name][rows] = of_head
    return outputs, final


def in_steps(model, x, state, lengths, resets) -> tuple[dict, State]:
    """Outputs by head and the final state of an array (B, T, ...), of whose steps as many go in at a time, where that
    can be, as AT_ONCE allows; lengths and resets were checked."""
    B, T = x.shape[:2]
    steps = at_once(B) if model.lstm.causal else T
    outputs = None
    for start in range(0, T, steps):
        part = x[:, start : start + steps]
        ends = None if lengths is None else np.clip(lengths - start, 0, part.shape[1])
        cuts = None if resets is None else resets[:, start : start + steps]
        plan = None if ends is None and cuts is None else Plan(*part.shape[:2], ends, cuts)
        found, state = model.at_once(part, state, plan)
        if steps >= T:
            return found, state
        outputs = outputs or {name: empty_outputs(head, B, T, model.dtype, False) for name, head in model.heads.items()}
        for name, of_head in found.items():
            outputs[name][:, *[slice(start, start + steps)] * (model.heads[name].output == "sequence")] = of_head
    return outputs, state


def empty_outputs(head, B, T, dtype, ragged) -> np.ndarray | list:
    """Room for the outputs of a head."""
    if head.output == "last":
        return np.empty((B, *head.tail), dtype)
    return [None] * B if ragged else np.empty((B, T, *head.tail), dtype)


def of_masked(model, x, state, lengths, mask, resets) -> tuple[dict, State]:
    """Outputs by head and the final state of `model(x, mask=mask)`: the steps where it is true behind each other, and
    what comes out in their places."""
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
    if model.inputs is not None:
        model.inputs.check_all(x, mask, batched)
    kept = [np.flatnonzero(row) for row in mask]
    outputs, final = in_batches(model, x, state, None, resets, kept)
    for name, head in model.heads.items():
        if head.output == "last":
            outputs[name] = outputs[name] if batched else outputs[name][0]
            continue
        whole = [np.zeros((len(row), *head.tail), model.dtype) for row in x]
        for target, places, row in zip(whole, kept, outputs[name], strict=True):
            target[places] = row
        outputs[name] = whole if isinstance(x, list) else np.stack(whole) if batched else whole[0]
    return outputs, final
