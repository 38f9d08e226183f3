"""The recursive strategy: random futures, each step drawn from the quantiles of the last."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np

from cylstm.forecast.learning import mixed, stretched
from cylstm.state import State

__all__ = ["at_scores", "paths"]

FUTURES = 500


def paths(forecaster, row: int, n: int, future) -> np.ndarray:
    """(n, levels): quantiles of FUTURES futures of series number `row`; with no quantile but the median, the one in
    which every step is the median of the next. Each future is of one model; future : covariates that reach so far."""
    layout, series, levels = forecaster.layout_, forecaster.series_[row], forecaster.levels
    rng = np.random.default_rng(forecaster.seed)
    shares = np.array_split(np.arange(FUTURES), len(forecaster.models_))
    longer, found = replace(series, future=future), []
    stretch = forecaster.stretch_ * forecaster.flights_.factors(layout, 1)[row, 0]
    for model, state, share in zip(forecaster.models_, forecaster.states_, shares, strict=True):
        count = len(share) if len(levels) > 1 else 1
        y = np.repeat(series.y[None], count, axis=0)
        state = State(*(np.repeat(part[:, row : row + 1], count, axis=1) for part in state))
        for _ in range(n):
            step = np.array([y.shape[1]])
            base = step - layout.season
            ahead = layout.ahead(series, y, step, base, 1.0, future)
            outputs = model(ahead.astype(np.float32), state)[0][:, 0]
            drift = (y[:, -1] - y[:, base[0]]) / series.scale
            outputs = stretched(mixed(outputs, drift, forecaster.mix_[0], levels), stretch, levels)
            y = np.concatenate([y, y[:, base] + series.scale * drawn(outputs, levels, rng)[:, None]], axis=1)
            over = layout.after(longer, y, step, known=True)
            _, state = model.step(over[:, 0].astype(np.float32), state)
        found.append(y[:, len(series) :])
    return np.quantile(np.concatenate(found), levels, axis=0).T


def drawn(outputs, levels, rng) -> np.ndarray:
    """(N,) numbers drawn from distributions with these quantiles (N, Q)."""
    return outputs[:, 0] if len(levels) == 1 else at_scores(outputs, levels, rng.standard_normal(len(outputs)))


def at_scores(outputs, levels, z) -> np.ndarray:
    """(N,): what distributions with these quantiles (N, Q), Q >= 2, have where a standard normal one has z (N,):
    straight lines between the quantiles, and on beyond the outermost ones."""
    places = np.array([NormalDist().inv_cdf(level) for level in levels])
    right = np.clip(np.searchsorted(places, z), 1, len(levels) - 1)
    rows = np.arange(len(outputs))
    low, high = outputs[rows, right - 1], outputs[rows, right]
    return low + (high - low) * (z - places[right - 1]) / (places[right] - places[right - 1])
