"""The loss of a batch with all its gradients, and the loss of a data set: what `fit` and `evaluate` are made of."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cylstm import losses
from cylstm._core import head
from cylstm._core.gradients import embedding_gradient
from cylstm.batches import at_once, batch_of, of_tokens, to_steps
from cylstm.ctc import ctc_loss
from cylstm.parameters import Parameters
from cylstm.state import State

__all__ = ["Result", "evaluate", "learn"]


class Result(NamedTuple):
    """What `loss_and_gradients` returns: the mean loss of what counts, gradients by name, the final state; how many
    tokens counted, the sum of their weights and of those of hits. Where nothing counts, the loss is NaN and gradients
    are 0."""

    loss: float
    gradients: Parameters
    state: State
    tokens: int
    hits: float
    weight: float


def learn(model, batch, gradients=None, state=None) -> Result:
    """`Model.loss_and_gradients` of a `Batch`. state: instead of the batch's."""
    if gradients is None:
        gradients = Parameters(model.parameters.layout, model.dtype)
    features, ids = features_of(model, batch.x, batch.plan)
    state = batch.state if state is None else state
    outputs, final, tape = model.lstm.forward(features, state, lengths=batch.plan)
    h = of_tokens(model, outputs, final, batch.real)
    dh = np.empty_like(h)
    total, hits = batch_loss(model, h, batch, dh, gradients)
    layer_gradients(model, tape, *to_steps(model, dh, outputs.shape, batch.real), ids, gradients, False)
    loss = losses.mean(total, batch.weight) if batch.weight else math.nan
    return Result(loss, gradients, final, batch.tokens, hits, batch.weight)


def features_of(model, x, plan):
    """What the layer gets, and the ids that it comes from: None where features came in, or ids that it takes itself."""
    if model.embedding_size is None:
        return x, None
    ids = model.ids_of(x, "x", plan)
    return model.parameters.raw("embedding.weight")[ids], ids


def layer_gradients(model, tape, dy, dstate, ids, gradients, input_gradient):
    """The gradients of everything below the head, into `gradients`; returns those by the features and the state."""
    embeds = ids is not None
    dx, dstate, _ = model.lstm.backward(tape, dy, dstate, out=gradients.child("lstm."),
                                        input_gradient=embeds or input_gradient)  # fmt: skip
    if embeds:
        rows = np.ascontiguousarray(dx.reshape(-1, model.embedding_size))
        embedding_gradient(gradients.raw("embedding.weight"), ids.ravel(), rows)
        dx = None
    gradients.touch()
    return dx, dstate


def batch_loss(model, h, batch, dh=None, gradients=None) -> tuple[float, float]:
    """The sum of weight * loss over a batch, and that of weights of hits; with `dh`, the gradients of the mean, too.

    h : (N, D*H) of the tokens, or of all steps for a loss of rows.
    """
    loss, scale = model.loss, batch.unit / batch.weight if batch.weight else 0.0
    if not loss.of_rows:
        total, _, hits = head_loss(model, loss, h, batch.targets, batch.weights, scale, dh, gradients)
        return total * batch.unit, hits * batch.unit
    B, T = batch.x.shape[:2]
    logits = model.head(h).reshape(B, T, -1)
    lengths = None if batch.plan is None else batch.plan.lengths
    options = dict(input_lengths=lengths, blank=loss.blank, zero_infinity=loss.zero_infinity)
    weights = np.ones(B) if batch.weights is None else batch.weights.astype(np.float64)
    if dh is None:
        found = ctc_loss(logits, batch.targets, **options)
    else:
        found, slopes = ctc_loss(logits, batch.targets, **options, gradients=True, out=logits)
        slopes *= (weights * scale).astype(model.dtype)[:, None, None]
        head_loss(model, losses.GivenGradient(), h, slopes.reshape(B * T, -1), None, 1.0, dh, gradients)
    return float((weights * found).sum()) * batch.unit, 0.0


def head_loss(model, loss, h, targets, weights, scale=0.0, dh=None, gradients=None):
    """Sums of a loss over h (N, D*H), as `_core.head.loss` gives them; with `dh`, `scale` times its gradients too."""
    bias = dweight = dbias = None
    if model.head_bias:
        bias = model.parameters.raw("head.bias")
    if gradients is not None:
        dweight = gradients.raw("head.weight")
        dbias = gradients.raw("head.bias") if model.head_bias else None
    if not len(h):  # rows of length 0 alone
        for array in (dweight, dbias):
            if array is not None:
                array[...] = 0
        return 0.0, 0.0, 0.0
    return head.loss(loss, h, model.parameters.raw("head.weight"), bias, targets, weights=weights, spare=model.spare,
                     scale=scale, dh=dh, dweight=dweight, dbias=dbias)  # fmt: skip


def evaluate(model, dataset, batch_size=256) -> dict[str, float]:
    """`Model.evaluate` of a `Dataset`."""
    total = weight = hits = 0.0
    tokens = 0
    for rows in dataset.batches(batch_size):
        longest, whole = dataset.longest(rows), model.bidirectional or model.output == "last" or model.loss.of_rows
        steps = longest if whole else at_once(len(rows))
        if dataset.lengths is None:  # the rows are neighbours: a slice is a view, so a memory map is never copied whole
            rows = slice(rows[0], rows[-1] + 1)
        state = None
        for start in range(0, longest, steps):
            batch = batch_of(model, dataset.part(rows, start, start + steps), dataset.counting)
            state = batch.state if start == 0 else state
            outputs, state = model.lstm(model.embed(batch.x, plan=batch.plan), state, lengths=batch.plan)
            h = of_tokens(model, outputs, state, batch.real)
            of_batch = batch_loss(model, h, batch)
            total, weight, hits = total + of_batch[0], weight + batch.weight, hits + of_batch[1]
            tokens += batch.tokens
    return {**model.loss.metrics(total, weight, hits, model.output_size), "tokens": tokens}
