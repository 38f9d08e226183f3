"""Intervals that adapt: what comes is held against what was to be expected of it, and each quantile moves with that.

A flight is a run of the models ahead from a row that is over. It goes a step further with every row that comes, and
what it says of that row is what the forecast from its origin says, with the covariates that have come meanwhile. Where
a value lies beyond a quantile, on the side away from the median, the quantile moves away from there, else a little
back: with alpha, the share that is to lie beyond,

    widening <- widening + RATE * (beyond - alpha),

and the quantile's distance from the median is exp(widening) times what `learnt` found. In the long run the share
beyond is alpha, whatever comes (adaptive conformal inference: Gibbs & Candès 2021; as a tracked quantile: Angelopoulos,
Candès & Tibshirani 2023, who take 0.1 of the scores' size as the rate, as here 0.1 of the distance).

A flight begins at every row; for more than MOST steps at every second, third, ..., and then as many steps beside each
other share a widening, so that each has something to learn from every row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cylstm.forecast.learning import mixed, stretched
from cylstm.state import State

__all__ = ["Flights", "sizes", "started"]

MOST = 24  # flights of a series
RATE = 0.15
FARTHEST = 4.0  # a widening, at most: by a factor of 55


@dataclass(frozen=True)
class Flights:
    """The flights of N series, G of each (`sizes`), the one that began last first.

    states : of each model, of N * G rows, series by series. aloft (N, G): which there are. widening (N, G, levels).
    """

    states: list[State]
    aloft: np.ndarray
    widening: np.ndarray

    def factors(self, layout, n: int) -> np.ndarray:
        """(N, n, levels), by which the quantiles' distances from the median are multiplied, of n steps ahead."""
        return np.exp(np.repeat(self.widening, sizes(layout.horizon)[0], axis=1)[:, :n])

    def over(self, forecaster, histories, rows) -> Flights:
        """One step further, over a row that has come. histories : with that row; rows : its index in each, None in
        those that have none."""
        (N, G), layout, levels = self.aloft.shape, forecaster.layout_, forecaster.levels
        x, target, scored = np.zeros((N, G, layout.width)), np.zeros((N, G, 1)), np.zeros((N, G, 1), bool)
        drift, mix = np.zeros((N, G)), np.zeros((N, G, 2))
        for n, (series, row) in enumerate(zip(histories, rows, strict=True)):
            if row is not None:
                origins = origins_of(layout.horizon, series.start + row) - series.start
                far = row - origins
                there = self.aloft[n] & (far <= layout.horizon)
                base = np.where(there, layout.base(origins, far), 0)
                x[n] = layout.ahead(series, series.y, np.full(G, row), base, far / layout.horizon, series.future)
                target[n, :, 0] = (series.y[row] - series.y[base]) / series.scale
                drift[n] = (series.y[np.where(there, origins, 0)] - series.y[base]) / series.scale
                mix[n] = forecaster.mix_[np.where(there, far, 1) - 1]
                scored[n, :, 0] = there & series.known[row]
        x, moves = x.astype(np.float32).reshape(N * G, -1), np.repeat([row is not None for row in rows], G)
        outputs, states = zip(*(model.step(x, state) for model, state in
                                zip(forecaster.models_, self.states, strict=True)), strict=True)  # fmt: skip
        states = [State(*(np.where(moves[:, None], new, old) for new, old in zip(both, before, strict=True)))
                  for both, before in zip(states, self.states, strict=True)]  # fmt: skip
        mean = np.mean([np.sort(each, axis=-1) for each in outputs], axis=0).reshape(N, G, -1)
        stretch, level = forecaster.stretch_ * np.exp(self.widening), np.array(levels)
        bounds = stretched(mixed(mean, drift, mix, levels), stretch, levels)
        beyond = np.sign(level - 0.5) * (target - bounds) > 0
        change = np.where(scored & (level != 0.5), RATE * (beyond - np.minimum(level, 1 - level)), 0)
        return replace(self, states=states, widening=np.clip(self.widening + change, -FARTHEST, FARTHEST))

    def begun(self, states, layout, histories, rows) -> Flights:
        """With one that begins at a row that is over, where one does. states : of the models behind it; histories,
        rows : as for `over`."""
        N, G = self.aloft.shape
        begins = np.array([row is not None and (series.start + row) % sizes(layout.horizon)[0] == 0
                           for series, row in zip(histories, rows, strict=True)])  # fmt: skip

        def shifted(flying, last):
            """(L, N * G, H) with (L, N, H) in front of each series'."""
            flying = flying.reshape(len(flying), N, G, -1)
            moved = np.concatenate([last[:, :, None], flying[:, :, :-1]], axis=2)
            return np.where(begins[:, None, None], moved, flying).reshape(len(flying), N * G, -1)

        moved = np.concatenate([np.ones((N, 1), bool), self.aloft[:, :-1]], axis=1)
        return replace(self, aloft=np.where(begins[:, None], moved, self.aloft),
                       states=[State(*map(shifted, flying, last))
                               for flying, last in zip(self.states, states, strict=True)])  # fmt: skip


def sizes(horizon: int) -> tuple[int, int]:
    """After how many rows the next flight begins, and how many a series has."""
    apart = -(-horizon // MOST)
    return apart, -(-horizon // apart)


def origins_of(horizon: int, row: int) -> np.ndarray:
    """(G,) rows at which the flights began that row number `row`, counted from a series' beginning, comes to."""
    apart, count = sizes(horizon)
    return row - 1 - (row - 1) % apart - apart * np.arange(count)


def started(models, layout, histories, lags: int, levels) -> Flights:
    """Those from the last rows of what was learnt, up to its end, with no widening yet."""
    states, aloft = [[] for _ in models], []
    for series in histories:
        T, origins = len(series), origins_of(layout.horizon, len(series))
        aloft.append(origins >= max(layout.season, int(np.argmax(series.known))))  # as windows of training begin
        none = np.zeros((1, layout.width), np.float32)
        x = [flight(layout, series, origin, min(T - 1, origin + layout.horizon), lags) if there else none
             for origin, there in zip(origins, aloft[-1], strict=True)]  # fmt: skip
        for model, found in zip(models, states, strict=True):
            found.append(model(x)[1])
    widening = np.zeros((len(histories), len(aloft[0]), len(levels)))
    return Flights([State(*(np.concatenate(parts, axis=1) for parts in zip(*each, strict=True))) for each in states],
                   np.array(aloft), widening)  # fmt: skip


def flight(layout, series, origin, end, lags) -> np.ndarray:
    """(steps, I): what the models see up to an origin, and from there on ahead up to a row `end`."""
    context, ahead = np.arange(max(layout.season, origin + 1 - lags), origin + 1), np.arange(1, end - origin + 1)
    return np.concatenate([
        layout.after(series, series.y, context),
        layout.ahead(series, series.y, origin + ahead, layout.base(origin, ahead), ahead / layout.horizon,
                     series.future)]).astype(np.float32)  # fmt: skip
