"""What the network sees of a series: differences from the season before, in units of the series' own spread.

A step at time i has a base, the last known value of the same place in a season: y[i-m] while i-m is known, else a
season earlier, and so on. What is foretold is (y[i] - base) / scale: a network that says 0 says the seasonal-naive
forecast, and learns what to put right in it. Every input is a difference, too, so that a level or a trend that training
has not seen changes nothing.

A step's numbers, in this order:
    what is known of it only afterwards, 0 ahead: (y[i] - mean) / scale, whether y[i] was there; past covariates, and
        whether each was there;
    what is known ahead: how far ahead it is (0 for a known step, k / horizon ahead), (base - mean) / scale, the sine
        and the cosine of its place in the season, future covariates, by how much they differ from those at the base,
        and whether each was there; static features.
mean is that of the base and of the values of whole seasons before it, as many as `seasons_back` and the series allow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["History", "Layout", "filled", "last_known"]


@dataclass(frozen=True)
class History:
    """One series up to now: all of it, or as much of its end as forecasts need.

    y (T,), logarithms where the forecaster takes them, without gaps: a missing value is that of the season before.
    known (T,), where it was there. past (T, P), future (T, C), static (S,): scaled covariates, NaN where missing.
    start : how many steps came before. scale : the unit of differences. latest : the last known value, which may be
        from before `y` begins.
    """

    y: np.ndarray
    known: np.ndarray
    past: np.ndarray
    future: np.ndarray
    static: np.ndarray
    scale: float = 1.0
    start: int = 0
    latest: float = np.nan

    def __len__(self):
        return len(self.y)

    def extended(self, y, past, future, season: int) -> History:
        """With new steps behind it. y (N,), NaN where missing."""
        return replace(
            self, y=filled(np.concatenate([self.y, y]), season, len(self)),
            known=np.concatenate([self.known, ~np.isnan(y)]), past=np.concatenate([self.past, past]),
            future=np.concatenate([self.future, future]), latest=last_known(y, self.latest))  # fmt: skip

    def last(self, steps: int) -> History:
        """Its last steps alone."""
        cut = max(0, len(self) - steps)
        parts = {name: getattr(self, name)[cut:] for name in ("y", "known", "past", "future")}
        return replace(self, **parts, start=self.start + cut)


def last_known(y, otherwise: float) -> float:
    """The last value that is there."""
    there = np.flatnonzero(~np.isnan(y))
    return float(y[there[-1]]) if len(there) else otherwise


def filled(y, season: int, first: int = 0) -> np.ndarray:
    """A copy without NaN, from step `first` on: each gets the value of a season before; in the first season, the last
    one before or, where there is none, the first one after."""
    y = np.array(y)
    if first == 0:
        head = y[: min(season, len(y))]
        places = np.flatnonzero(~np.isnan(head))
        if len(places):
            nearest = np.searchsorted(places, np.arange(len(head)), side="right") - 1
            head[:] = head[places[np.maximum(nearest, 0)]]
        else:
            head[:] = y[np.flatnonzero(~np.isnan(y))[0]]
    for i in np.flatnonzero(np.isnan(y)):
        y[i] = y[i - season]
    return y


@dataclass(frozen=True)
class Layout:
    """Which numbers a step has; its methods make them of a `History`.

    season : m >= 1. horizon : what "how far ahead" is a share of. P, C, S : past and future covariates, static
        features.
    """

    season: int
    horizon: int
    P: int = 0
    C: int = 0
    S: int = 0

    @property
    def seasons_back(self) -> int:
        """How many values the mean is over."""
        return 4 if self.season > 1 else 16

    @property
    def reach(self) -> int:
        """How many of the last steps forecasts, further steps and the flights of `flights.py` need."""
        return self.season * (self.seasons_back + 1) + self.horizon

    @property
    def width(self) -> int:
        """I, the numbers of a step."""
        return 2 + 2 * self.P + 2 + 2 * (self.season > 1) + 3 * self.C + self.S

    def base(self, last, ahead):
        """Indices of the values that steps `ahead` (1, 2, ...) of index `last` are compared with."""
        return last + ahead - self.season * -(-ahead // self.season)

    def about(self, y, base):
        """The mean that the values at indices `base` (...,) belong to; y (..., T)."""
        total, count = y[..., base].copy(), np.ones(base.shape)
        for j in range(1, self.seasons_back):
            there = base - j * self.season >= 0
            total += np.where(there, y[..., np.maximum(base - j * self.season, 0)], 0)
            count += there
        return total / count

    def ahead(self, history, y, steps, base, far, future) -> np.ndarray:
        """(..., I): steps as they are seen ahead. y (..., T); steps, base: indices; far: k / horizon, or 0;
        future: covariates (T', C) that reach as far as the steps."""
        shape = np.broadcast_shapes(y.shape[:-1] + base.shape, base.shape)
        x = np.zeros((*shape, self.width))
        at = 2 + 2 * self.P
        x[..., at] = far
        x[..., at + 1] = (y[..., base] - self.about(y, base)) / history.scale
        at += 2
        if self.season > 1:
            angle = 2 * np.pi * ((steps + history.start) % self.season) / self.season
            x[..., at], x[..., at + 1] = np.sin(angle), np.cos(angle)
            at += 2
        if self.C:
            now, before, C = future[steps], future[base], self.C
            x[..., at : at + C] = np.nan_to_num(now)
            x[..., at + C : at + 2 * C] = np.nan_to_num(now - before)
            x[..., at + 2 * C : at + 3 * C] = ~np.isnan(now)
            at += 3 * C
        x[..., at:] = history.static
        return x

    def after(self, history, y, steps, known=None) -> np.ndarray:
        """(..., I): steps as they are seen once they are over, from index `season` on. known (len(steps),): where y is;
        by default as the history has it."""
        base = steps - self.season
        x = self.ahead(history, y, steps, base, 0.0, history.future)
        known = history.known[steps] if known is None else known
        x[..., 0] = np.where(known, (y[..., steps] - self.about(y, base)) / history.scale, 0)
        x[..., 1] = known
        if self.P:
            past = history.past[steps]
            x[..., 2 : 2 + self.P] = np.nan_to_num(past)
            x[..., 2 + self.P : 2 + 2 * self.P] = ~np.isnan(past)
        return x
