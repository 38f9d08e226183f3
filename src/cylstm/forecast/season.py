"""What a series says of itself before a model sees it: the length of its season, and whether it grows by shares."""

from __future__ import annotations

import numpy as np

__all__ = ["find_season", "grows_by_shares"]

LONGEST = 400  # steps of a season that is looked for: a year of days fits in
BLOCKS = 8  # at least, of which the level and the spread are compared


def find_season(y) -> int:
    """The m for which "as m steps ago" tells the most, or 1. y : (T,), NaN in gaps.

    The spread of y[t] - y[t-m] is held against the mean spread over all shorter distances: their ratio is about 1 for
    noise, above 1 for a random walk, below for a season. A trend, which shifts a difference and does not spread it,
    does not matter. At least three seasons have to be there.
    """
    longest = min(len(y) // 3, LONGEST)
    spreads = np.array([spread(y[m:] - y[:-m]) for m in range(1, longest + 1)])
    shorter = np.cumsum(spreads) / np.arange(1, longest + 1)
    ratio = np.ones(longest)
    np.divide(spreads, shorter, out=ratio, where=(shorter > 0) & np.isfinite(shorter))
    if longest < 2 or not ratio.min() < 0.8:
        return 1
    # Its multiples tell about as much, and so do its neighbours: take the best about the first.
    first = int(np.argmax(ratio <= ratio.min() + 0.3 * (1 - ratio.min())))
    return 1 + first + int(np.argmin(ratio[first : first + 1 + (first + 1) // 2]))


def spread(differences) -> float:
    """The standard deviation of what is known; infinite where hardly anything is."""
    known = differences[~np.isnan(differences)]
    return float(known.std()) if len(known) > 1 else np.inf


def grows_by_shares(y) -> bool:
    """Whether the spread of (T,) positive numbers grows with their level, so that their logarithm is more even.

    The slope of log(spread) against log(level) over blocks of steps is 0 for what varies by amounts and 1 for what
    varies by shares (the choice between the two ends of Box & Cox 1964).
    """
    known = y[~np.isnan(y)]
    size = max(8, len(known) // 16)
    count = len(known) // size
    if count < BLOCKS or not known.min() > 0:
        return False
    blocks = known[-count * size :].reshape(count, size)
    level, spreads = blocks.mean(axis=1), np.diff(blocks, axis=1).std(axis=1)
    if level.max() < 1.5 * level.min() or not spreads.min() > 0:
        return False
    return bool(np.polyfit(np.log(level), np.log(spreads), 1)[0] > 0.5)
