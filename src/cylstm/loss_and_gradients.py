"""The loss of a batch with all its gradients, and the loss of a data set: what `fit` and `evaluate` are made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cylstm import losses
from cylstm._core import head
from cylstm._core.gradients import embedding_gradient
from cylstm.batches import at_once, batch_of, of_tokens, to_steps
from cylstm.parameters import Parameters
from cylstm.state import State

__all__ = ["Result", "evaluate", "learn"]


class Result(NamedTuple):
    """What `loss_and_gradients` returns: the mean loss per token, gradients by name, the final state, counts."""

    loss: float
    gradients: Parameters
    state: State
    tokens: int
    hits: int


def learn(model, batch, state=None, gradients=None) -> Result:
    """`Model.loss_and_gradients` of a `Batch`, whose arrays were checked."""
    if gradients is None:
        gradients = Parameters(model.parameters.layout, model.dtype)
    features, embeds = batch.x, model.embedding_size is not None
    if embeds:
        ids = model.ids_of(batch.x, "x", batch.plan)
        features = model.parameters.raw("embedding.weight")[ids]
    outputs, final, tape = model.lstm.forward(features, state, lengths=batch.plan)
    h = of_tokens(model, outputs, final, batch.real)
    dh = np.empty_like(h)
    total, weight, hits = head_loss(model, h, batch.targets, 1 / len(h), dh, gradients)
    dy, dstate = to_steps(model, dh, outputs.shape, batch.real)
    dx = model.lstm.backward(tape, dy, dstate, out=gradients.child("lstm."), input_gradient=embeds).x
    if embeds:
        table = gradients.raw("embedding.weight")
        embedding_gradient(table, ids.ravel(), np.ascontiguousarray(dx.reshape(-1, model.embedding_size)))
    gradients.touch()
    return Result(losses.mean(total, weight), gradients, final, len(h), int(hits))


def head_loss(model, h, targets, scale=0.0, dh=None, gradients=None):
    """Sums of a loss over h (N, D*H), as `_core.head.loss` gives them; with `dh`, `scale` times its gradients too."""
    bias = dweight = dbias = None
    if model.head_bias:
        bias = model.parameters.raw("head.bias")
    if gradients is not None:
        dweight = gradients.raw("head.weight")
        dbias = gradients.raw("head.bias") if model.head_bias else None
    weight = model.parameters.raw("head.weight")
    return head.loss(model.loss, h, weight, bias, targets, spare=model.spare, scale=scale, dh=dh, dweight=dweight,
                     dbias=dbias)  # fmt: skip


def evaluate(model, dataset, batch_size=256) -> dict[str, float]:
    """`Model.evaluate` of a `Dataset`."""
    sums, tokens = (0.0, 0.0, 0.0), 0
    for rows in dataset.batches(batch_size):
        # Without lengths the rows are neighbours: a slice is a view, so a memory map is never copied as a whole.
        x, y, plan = dataset.take(rows if dataset.lengths is not None else slice(rows[0], rows[-1] + 1))
        whole = model.bidirectional or model.output == "last" or plan is not None
        steps = x.shape[1] if whole else at_once(len(rows))
        state = None
        for start in range(0, x.shape[1], steps):
            part = slice(start, start + steps)
            batch = batch_of(model, x[:, part], y if model.output == "last" else y[:, part], plan)
            outputs, state = model.lstm(model.embed(batch.x, plan=plan), state, lengths=plan)
            h = of_tokens(model, outputs, state, batch.real)
            sums = [so_far + more for so_far, more in zip(sums, head_loss(model, h, batch.targets), strict=True)]
            tokens += len(h)
    return {**model.loss.metrics(*sums, model.output_size), "tokens": tokens}
