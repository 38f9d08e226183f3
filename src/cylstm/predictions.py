"""A model's outputs, and what they say: classes, labels, numbers, probabilities."""

from __future__ import annotations

from math import prod

import numpy as np

from cylstm._core.ragged import planned
from cylstm.batches import at_once, in_batches, input_rows, input_sizes, of_masked
from cylstm.checks import check_lengths, check_mask, check_resets, plain_array
from cylstm.ctc import ctc_greedy
from cylstm.inputs import tail as tail_of
from cylstm.sequences import check_masks, ragged_rows
from cylstm.state import State

__all__ = ["outputs_of", "predict", "probabilities"]


def outputs_of(model, x, state=None, lengths=None, mask=None, resets=None) -> tuple[dict, State]:
    """`model(x)`, with outputs by head."""
    rows = ragged_rows(x)
    if rows is not None and lengths is not None:
        raise ValueError("lengths: expected none with a list of sequences, which have their own")
    if mask is not None:
        return of_masked(model, x if rows is None else input_rows(model, rows), state, lengths, mask, resets)
    if rows is not None:
        return in_batches(model, input_rows(model, rows), state, None, resets)
    x = plain_array("x", x)
    tail = tail_of(model, x)
    shape, batched = x.shape[: x.ndim - len(tail)], x.ndim == 2 + len(tail)
    if len(shape) in (1, 2) and x.shape[len(shape) :] == tail and x.size and prod(shape) > at_once(1):
        if batched:
            return in_batches(model, x, state, lengths, resets)
        resets = None if resets is None else check_resets(resets, 1, len(x), False)
        if model.inputs is not None and lengths is None:
            model.inputs.check_ids("x", x)  # it names the place without a row
        outputs, final = in_batches(model, x[None], state, lengths, resets)
        return {name: values[0] for name, values in outputs.items()}, final
    plan = None
    if len(shape) in (1, 2):
        plan = planned(*(shape if batched else (1, *shape)), lengths, resets, batched)
    return model.at_once(x, state, plan)


def predict(model, x, lengths, mask) -> dict:
    """`Model.predict`, by head."""
    outputs, _ = outputs_of(model, x, lengths=lengths, mask=mask)
    found = {}
    for name, head in model.heads.items():
        given = outputs[name]
        if head.loss.of_rows:
            found[name] = labels_of(model, head, x, given, lengths, mask)
        else:
            found[name] = [head.decide(row) for row in given] if isinstance(given, list) else head.decide(given)
    return found


def probabilities(model, x, lengths, mask) -> dict:
    """`Model.predict_proba`, of the heads that have any."""
    having = {name: head.loss.probabilities for name, head in model.heads.items() if head.loss.probabilities}
    if not having:
        given = ", ".join(repr(head.loss.name) for head in model.heads.values())
        raise ValueError(f"predict_proba: expected a model with probabilities, got one with loss={given}")
    outputs, _ = outputs_of(model, x, lengths=lengths, mask=mask)
    found = {}
    for name, of in having.items():
        given = outputs[name]
        found[name] = [of(row) for row in given] if isinstance(given, list) else of(given)
    return found


def labels_of(model, head, x, outputs, lengths, mask) -> list[np.ndarray] | np.ndarray:
    """The labels that a loss of whole rows finds in outputs (B, T, O), (T, O) or a list; of one sequence alone, its."""
    batched = True
    if ragged_rows(x) is not None:
        real = [np.ones(len(row), bool) for row in outputs] if mask is None else check_masks(mask, outputs)
    else:
        batched, B, T = input_sizes(model, plain_array("x", x))
        real = np.ones((B, T), bool) if mask is None else check_mask("mask", mask, (B, T) if batched else (T,))
        real, outputs = real.reshape(B, T), outputs.reshape(B, T, -1)
        if lengths is not None:
            real = real & (np.arange(T) < check_lengths(lengths, B, T)[:, None])
    rows = [row[keep] for row, keep in zip(outputs, real, strict=True)]
    labels = [np.zeros(0, np.int64) for _ in rows]
    some = [n for n, row in enumerate(rows) if len(row)]
    if some:
        for n, found in zip(some, ctc_greedy([rows[n] for n in some], blank=head.loss.blank), strict=True):
            labels[n] = found.labels
    if head.labels is not None:
        labels = [head.names.of(row) for row in labels]
    return labels if batched else labels[0]
