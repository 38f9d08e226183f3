"""What a model's outputs say: classes, labels, numbers, probabilities."""

from __future__ import annotations

import numpy as np

from cylstm.batches import input_sizes
from cylstm.checks import check_lengths, check_mask, plain_array
from cylstm.ctc import ctc_greedy
from cylstm.sequences import check_masks, ragged_rows

__all__ = ["predict", "probabilities"]


def predict(model, x, lengths, mask) -> dict:
    """`Model.predict`, by head."""
    outputs, _ = model.outputs(x, lengths=lengths, mask=mask)
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
    outputs, _ = model.outputs(x, lengths=lengths, mask=mask)
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
