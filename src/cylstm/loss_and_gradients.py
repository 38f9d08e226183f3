"""The loss of a batch with all its gradients, and the loss of a data set: what `fit` and `evaluate` are made of."""

from __future__ import annotations

import math
from functools import partial, reduce
from typing import NamedTuple

import numpy as np

from cylstm import losses, metrics
from cylstm._core import head as head_kernel
from cylstm.batches import at_once, batch_of, of_kind, to_steps
from cylstm.ctc import ctc_loss
from cylstm.heads import head_outputs, parameter_names
from cylstm.parameters import Parameters
from cylstm.state import State

__all__ = ["Result", "Sums", "evaluate", "learn", "learn_with_state", "loss_of", "means_of", "sums_of"]


class Sums(NamedTuple):
    """Of one head, over what counts: weight * loss, the weights, those of hits, and how many tokens."""

    total: float = 0.0
    weight: float = 0.0
    hits: float = 0.0
    tokens: int = 0

    def plus(self, other: Sums) -> Sums:
        """Of both together."""
        total, weight, hits, tokens = other
        return Sums(self.total + total, self.weight + weight, self.hits + hits, self.tokens + tokens)


class Result(NamedTuple):
    """What `loss_and_gradients` returns: the mean loss of what counts, gradients by name, the final state; how many
    tokens counted, the sum of their weights and of those of hits, and the same by head. Where nothing counts, the loss
    is NaN and gradients are 0."""

    loss: float
    gradients: Parameters
    state: State
    tokens: int
    hits: float
    weight: float
    heads: dict[str, Sums]


def learn(model, batch, gradients=None, state=None, over=None) -> Result:
    """`Model.loss_and_gradients` of a `Batch`. state: instead of the batch's. over : by head, the weight that gradients
    are a mean over, where the batch is a part of that; its own otherwise."""
    return learn_with_state(model, batch, gradients, state, over)[0]


def learn_with_state(model, batch, gradients=None, state=None, over=None) -> tuple[Result, State]:
    """`learn`, and the gradients by the state that rows begin with."""
    if gradients is None:
        gradients = Parameters(model.parameters.layout, model.dtype)
    features, taken = features_of(model, batch.x, batch.plan)
    state = batch.state if state is None else state
    outputs, final, tape = model.lstm.forward(features, state, lengths=batch.plan)
    slopes, sums, passed = {}, {}, {}
    for kind, names in model.kinds.items():
        h = of_kind(model, kind, outputs, final, batch.real)
        if model.behind is not None:
            h, passed[kind] = model.behind.forward(h, model.rng, counted_of(kind, batch.plan))
        for name in names:
            dh = np.empty_like(h)
            sums[name] = batch_loss(model, name, h, batch, dh, gradients, over)
            slopes[kind] = slopes[kind] + dh if kind in slopes else dh
    from_behind(model, passed, slopes, gradients)
    way_back = to_steps(model, slopes, outputs.shape, batch.real, final)
    _, dstate = layer_gradients(model, tape, *way_back, taken, gradients, False)
    all_sums = reduce(Sums.plus, sums.values())
    result = Result(loss_of(model, sums), gradients, final, all_sums.tokens, all_sums.hits, all_sums.weight, sums)
    return result, dstate


def loss_of(model, sums) -> float:
    """The loss of a model: the mean of its head or, of several of which something counts, their weighted sum."""
    counted = {name: found for name, found in sums.items() if found.weight}
    if not counted:
        return math.nan
    return sum(model.heads[name].weight * losses.mean(found.total, found.weight) for name, found in counted.items())


def means_of(model, sums) -> dict[str, float]:
    """Numbers by name: "loss", what else there is to say, and "tokens"; of several heads also "NAME.loss" and so on."""
    found = {}
    for name, of_head in sums.items():
        head, prefix = model.heads[name], f"{name}." if name else ""
        means = head.loss.metrics(of_head.total, of_head.weight, of_head.hits, head.output_size)
        found.update({prefix + key: value for key, value in {**means, "tokens": of_head.tokens}.items()})
    return found if "" in sums else {"loss": loss_of(model, sums), **found}


def features_of(model, x, plan):
    """What the layer gets, and what is kept of how it came about: None where x goes in as it is."""
    return (x, None) if model.inputs is None else model.inputs.forward(x, plan, model.rng)


def counted_of(kind, plan):
    """Of heads that get all steps: where those are real, as `Stack.forward` takes it."""
    return ~plan.past_ends().ravel() if kind == "steps" and plan is not None and plan.lengths is not None else None


def from_behind(model, passed, slopes, gradients) -> None:
    """Gradients by what comes out of the dense layers behind the LSTM become those by what goes in, in place, by kinds
    of heads; those of the layers' weights, into `gradients`, are sums over the kinds."""
    total = None
    for kind, kept in passed.items():
        slopes[kind] = model.behind.backward(kept, slopes[kind], gradients)
        part = gradients.child("after.").raw()
        total = part.copy() if total is None else total + part
    if len(passed) > 1:
        gradients.child("after.").raw()[:] = total


def layer_gradients(model, tape, dy, dstate, taken, gradients, input_gradient):
    """The gradients of the layer and of what stands before it, into `gradients`; returns those by x and the state."""
    dx, dstate, _ = model.lstm.backward(tape, dy, dstate, out=gradients.child("lstm."),
                                        input_gradient=taken is not None or input_gradient)  # fmt: skip
    if taken is not None:
        dx = model.inputs.backward(taken, dx, gradients, input_gradient)
    gradients.touch()
    return dx, dstate


def batch_loss(model, name, h, batch, dh=None, gradients=None, over=None) -> Sums:
    """The Sums of one head over a batch; with `dh`, the gradients of its part of the mean, too.

    h : (N, F) of what the head looks at. over : as for `learn`.
    """
    head, tokens = model.heads[name], batch.heads[name]
    weight = tokens.weight if over is None else over[name]
    scale = head.weight * tokens.unit / weight if weight else 0.0
    if not head.loss.of_rows:
        total, _, hits = head_loss(model, name, head.loss, h, tokens.targets, tokens.weights, scale, dh, gradients)
        return Sums(total * tokens.unit, tokens.weight, hits * tokens.unit, tokens.count)
    B, T = batch.x.shape[:2]
    logits = head_outputs(model, name, h).reshape(B, T, -1)
    lengths = None if batch.plan is None else batch.plan.lengths
    options = dict(input_lengths=lengths, blank=head.loss.blank, zero_infinity=head.loss.zero_infinity)
    weights = np.ones(B) if tokens.weights is None else tokens.weights.astype(np.float64)
    if dh is None:
        found = ctc_loss(logits, tokens.targets, **options)
    else:
        found, slopes = ctc_loss(logits, tokens.targets, **options, gradients=True, out=logits)
        slopes *= (weights * scale).astype(model.dtype)[:, None, None]
        given_loss(model, name, h, slopes.reshape(B * T, -1), dh, gradients)
    return Sums(float((weights * found).sum()) * tokens.unit, tokens.weight, 0.0, tokens.count)


def given_loss(model, name, h, slopes, dh, gradients) -> None:
    """The gradients of a head from those by its outputs, slopes (N, groups * O)."""
    head_loss(model, name, losses.GivenGradient(), h, slopes, None, 1.0, dh, gradients)


def head_loss(model, name, loss, h, targets, weights, scale=0.0, dh=None, gradients=None):
    """Sums of a loss over h (N, F), as `_core.head.loss` gives them; with `dh`, `scale` times its gradients too."""
    bias = dweight = dbias = None
    head, (weight_name, bias_name) = model.heads[name], parameter_names(name, model.tied)
    if head.bias:
        bias = model.parameters.raw(bias_name)
    if gradients is not None:
        dweight = gradients.raw(weight_name)
        dbias = gradients.raw(bias_name) if head.bias else None
    if not len(h):  # rows of length 0 alone
        for array in (dweight, dbias):
            if array is not None:
                array[...] = 0
        return 0.0, 0.0, 0.0
    groups = head.groups if loss.reads_outputs else 1
    return head_kernel.loss(loss, h, model.parameters.raw(weight_name), bias, targets, weights=weights, groups=groups,
                            spare=model.spare, scale=scale, dh=dh, dweight=dweight, dbias=dbias,
                            rounded=model.lstm.rounded)  # fmt: skip


def evaluate(model, dataset, batch_size=256, wanted=None, ranks=None) -> dict[str, float]:
    """`Model.evaluate` of a `Dataset` or a `Stream`. wanted : metrics, as `metrics.of_heads` gives them. ranks : takes
    of the batches those that are its, and has the sums of all; with no metrics."""
    measured = metrics.begin(wanted or {})
    sums = sums_of(model, dataset, batch_size, measured, ranks)
    if not all(found.weight for found in sums.values()):  # a Dataset has seen to it
        raise ValueError(f"{dataset.name}: expected at least one target that counts, got none")
    return {**means_of(model, sums), **metrics.values(wanted or {}, measured)}


def sums_of(model, dataset, batch_size, measured=(), ranks=None) -> dict[str, Sums]:
    """The Sums of each head, of which `evaluate` makes means. measured : metrics that have begun, by head."""
    sums, by_batch, seen = dict.fromkeys(model.heads, Sums()), {}, []
    whole = not model.lstm.causal or set(model.kinds) != {"tokens"}
    for number, (one, rows) in enumerate(dataset.pieces(batch_size)):
        if ranks is not None and ranks.size > 1:
            if one is not dataset:  # it comes from each rank's own iterable
                seen.append((one.fingerprint(), rows.tolist()))
            if number % ranks.size != ranks.rank:
                continue
        found = by_batch[number] = []
        longest = one.longest(rows)
        steps = longest if whole else at_once(len(rows))
        if one.lengths is None:  # the rows are neighbours: a slice is a view, so a memory map is never copied whole
            rows = slice(rows[0], rows[-1] + 1)
        state = None
        for start in range(0, longest, steps):
            batch = batch_of(model, one.part(rows, start, start + steps))
            state = batch.state if start == 0 else state
            outputs, state = model.lstm(model.embed(batch.x, plan=batch.plan), state, lengths=batch.plan)
            for kind, names in model.kinds.items():
                h = model.seen_by_head(of_kind(model, kind, outputs, state, batch.real))
                for name in names:
                    found.append((name, batch_loss(model, name, h, batch)))
                    if name in measured:
                        tokens, make = batch.heads[name], partial(head_outputs, model, name)
                        ends = None if batch.plan is None else batch.plan.lengths
                        metrics.add_batch(measured[name], make, h, tokens.targets, tokens.weights, tokens.unit, ends)
    for _, found in sorted((by_batch if ranks is None else ranks.merged(by_batch, seen)).items()):
        for name, of_head in found:
            sums[name] = sums[name].plus(of_head)
    return sums
