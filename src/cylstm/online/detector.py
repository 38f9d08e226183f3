"""How strange a step of a stream is, by how badly it was forecast."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

import numpy as np

from cylstm.checks import positive_int
from cylstm.model import Model
from cylstm.online.base import Online

__all__ = ["AnomalyDetector"]


class AnomalyDetector(Online):
    """How strange each x of a stream is: the error of forecasting it from those before, among earlier errors.

    Parameters
    ----------
    memory : int
        How many of the last errors a new one is compared with.
    hidden_size, num_layers, window, every, optimizer, clip_norm, seed
        As for `OnlineRegressor`; so is all that is said there of x, and of copies.

    Notes
    -----
    The score is k / (n + 1) where k of the last n errors were smaller: one minus the p-value of conformal prediction
    (Vovk, Gammerman & Shafer 2005). While the errors of a stream are alike, at most a share of about a of the scores
    exceeds 1 - a, whatever the errors' distribution; 0.99 takes at least 99 errors before it.
    """

    def __init__(self, memory=1000, hidden_size=32, num_layers=1, window=32, every=8, optimizer=None, clip_norm=5.0,
                 seed=None):  # fmt: skip
        super().__init__(hidden_size, num_layers, window, every, optimizer, clip_norm, seed)
        self.memory = positive_int("memory", memory)
        self.errors, self.ordered = deque(), []  # the last ones as they came, and sorted
        self.forecast = None  # of the next x, (I,)

    def score_one(self, x) -> float:
        """How strange this x would be as the next, in [0, 1); 0.0 where there is no forecast or nothing to compare it
        with. Nothing changes. Raises TypeError or ValueError, naming the feature."""
        error = self.error_one(x)
        return 0.0 if math.isnan(error) else bisect_left(self.ordered, error) / (len(self.ordered) + 1)

    def error_one(self, x) -> float:
        """The root mean square over the features of this x of how far each is from its forecast, in deviations of it so
        far, x included; NaN for a sequence's first step, and where no feature is known. Nothing changes.

        Raises TypeError or ValueError, naming the feature.
        """
        return self._error(self._read(x)[1])

    def learn_one(self, x) -> None:
        """Learn that this x came, and forecast the next.

        Raises TypeError or ValueError, naming the feature, before anything changes; NonFiniteLoss where learning has
        diverged.
        """
        features, x = self._read(x)
        error = self._error(x)
        if not math.isnan(error):
            self.errors.append(error)
            insort(self.ordered, error)
            if len(self.errors) > self.memory:
                del self.ordered[bisect_left(self.ordered, self.errors.popleft())]
        if self.steps:
            self._settle(None if np.isnan(x).all() else x)
        self.forecast = self._move(features, x)

    def reset(self) -> None:
        super().reset()
        self.forecast = None

    reset.__doc__ = Online.reset.__doc__

    def _error(self, x) -> float:
        if self.forecast is None:
            return math.nan
        there = ~np.isnan(x) & (self.running.n > 0)
        if not there.any():
            return math.nan
        off = (x - self.running.unscaled(self.expect_finite(self.forecast))) / self.running.after(x).unit
        return math.sqrt(np.mean(off[there] ** 2))

    def _made(self, I):
        return Model(I, self.hidden_size, I, num_layers=self.num_layers, loss="mse", seed=self.seed)

    def _targets(self, given):
        """Scaled, with NaN for what is missing, which does not count."""
        missing = np.full(self.features.count, math.nan)
        rows = np.stack([missing if target is None else target for target in given])
        running = self.running.after(rows[-1])  # which is in no mean yet: no number is beyond sqrt(n) deviations then
        return (rows - running.mean) / running.unit
