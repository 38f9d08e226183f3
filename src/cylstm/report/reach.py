"""How far back a model learns: the gradient of the loss at one step, by what the layers held so many steps before."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np

from cylstm.batches import Part, PartTargets, batch_of
from cylstm.loss_and_gradients import learn_with_state
from cylstm.report.sample import LARGE
from cylstm.sequences import padded
from cylstm.state import State
from cylstm.training.dataset import plan_of

__all__ = ["Reach", "reach_of"]

ENDS, ENDS_OF_LARGE = 6, 2  # steps whose loss is looked at, at most
FARTHEST = 256
ENOUGH = 0.01  # of the gradient one step before: less counts as nothing


class Reach(NamedTuple):
    """lags (K,): how many steps before; norms by layer, of the gradients by c and by h (K, 2), means over `ends` steps;
    horizon: the first lag at which all of them together are below ENOUGH of those one step before, None for none."""

    lags: np.ndarray
    norms: dict[str, np.ndarray]
    ends: int
    horizon: float | None


def reach_of(sample) -> Reach | str:
    """The Reach, or in words why there is none."""
    model, part = sample.inner, sample.part
    if part is None:
        return "There are no targets, or their steps were cut off: no loss, and no gradient."
    if model.lstm.cell.reverse or any(head.loss.of_rows for head in model.heads.values()):
        return "It is for models that run forward, with a loss of single steps."
    per_row, ends = any(head.per_row for head in model.heads.values()), []
    most = ENDS if model.parameters.size <= LARGE else ENDS_OF_LARGE
    for row, length in enumerate(sample.lengths[:most].tolist()):
        wanted = [length - 1] if per_row else np.linspace(length / 2, length - 1, -(-most // len(sample.x))).astype(int)
        ends.extend((row, int(end)) for end in wanted if end > 0)
    ends = sorted(set(ends))[:most]
    if not ends:
        return "The rows are too short."
    shortest = min(end for _, end in ends)
    lags = np.unique(np.geomspace(1, min(shortest, FARTHEST), 18).round().astype(int))
    cuts = [(row, end, int(lag)) for row, end in ends for lag in lags]
    quiet = copy.deepcopy(model)  # its generator, which masks of dropout are drawn from, is not the caller's
    batch = batch_of(quiet, cut_rows(sample, cuts))
    _, d = learn_with_state(quiet, batch, over=dict.fromkeys(quiet.heads, 1.0))
    D, found = model.lstm.num_directions, {}
    for n, layer in enumerate(sample.layers):
        if n % D == 0:
            norms = [np.linalg.norm(values[n].astype(np.float64), axis=1) for values in (d.c, d.h)]
            found[layer] = np.stack(norms, axis=1).reshape(len(ends), len(lags), 2)
    counted = sum(norms[:, 0].sum(axis=1) for norms in found.values()) > 0  # a target may be missing, or ignored
    if not counted.any():
        return "No target counts at the steps that were chosen."
    found = {layer: norms[counted].mean(axis=0) for layer, norms in found.items()}
    total = np.sqrt(sum((norms**2).sum(axis=1) for norms in found.values()))
    below = np.flatnonzero(total < ENOUGH * total[0])
    return Reach(lags, found, int(counted.sum()), float(lags[below[0]]) if len(below) else None)


def cut_rows(sample, cuts) -> Part:
    """Rows of the `lag` steps up to and with `end`, which begin with what the layers held before; of their targets the
    last step's alone counts."""
    steps = [(row, slice(end - lag + 1, end + 1)) for row, end, lag in cuts]
    x, lengths = padded([sample.x[place] for place in steps])
    last = np.zeros(x.shape[:2])
    last[np.arange(len(x)), lengths - 1] = 1
    targets = {}
    for name, head in sample.model.heads.items():
        y, _, counting = sample.part.targets[name]
        if head.per_row:
            targets[name] = PartTargets(y[[row for row, _ in steps]], None, counting)
        else:
            targets[name] = PartTargets(padded([y[place] for place in steps])[0], last, counting)
    return Part(x, targets, plan_of(x, lengths, None), states_before(sample, cuts))


def states_before(sample, cuts) -> State:
    """What the layers held before the first step of each row; a layer's reverse direction begins at the row's end."""
    state, D = sample.inner.initial_state(len(cuts)), sample.inner.lstm.num_directions
    for n, layer in enumerate(sample.layers):
        for part, kept in zip("hc", state, strict=True):
            values = sample.trace[f"{part}_{layer}"]
            for row, (b, end, lag) in enumerate(cuts):
                if n % D == 0 and end >= lag:
                    kept[n, row, : values.shape[2]] = values[b, end - lag]
    return state
