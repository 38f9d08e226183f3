"""What comes in, one step at a time: dicts or sequences of numbers become rows, and rows are scaled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cylstm.checks import describe
from cylstm.labels import KINDS, plain

__all__ = ["Features", "Running", "as_given", "label", "number"]

MOST = float(np.finfo(np.float32).max)


def number(name: str, value) -> float:
    """A number as a float, NaN for None. Raises TypeError, or ValueError for one that float32 does not hold."""
    if value is None:
        return math.nan
    try:
        if isinstance(value, (str, bytes)) or getattr(value, "ndim", 0):
            raise TypeError
        found = float(value)
    except OverflowError:
        found = math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {describe(value)}") from None
    if abs(found) > MOST:
        raise ValueError(f"{name}: expected a finite number that float32 holds, got {found:g}")
    return found


def label(name: str, value):
    """A class's label as Python's own. Raises TypeError for what is no string, finite number or boolean."""
    found = plain(value)
    if not isinstance(found, KINDS) or (isinstance(found, float) and not math.isfinite(found)):
        raise TypeError(f"{name}: expected a string, a finite number or a boolean, got {describe(value)}")
    return found


def is_sequence(x) -> bool:
    """Whether x has numbers in an order: lists, tuples, arrays of one axis."""
    return not isinstance(x, (str, bytes)) and (isinstance(x, Sequence) or np.ndim(x) == 1)


def as_given(x):
    """A pandas Series as the dict that its index makes of it, unless that only counts its numbers; others as they are.
    Raises ValueError for names that occur twice."""
    if not (hasattr(x, "index") and hasattr(x, "to_dict") and np.ndim(x) == 1):
        return x
    names, values = list(x.index), np.asarray(x, object)
    if names == list(range(len(names))):
        return values
    if len(set(names)) < len(names):
        raise ValueError(f"x: expected each feature once, got {describe(names)}")
    return dict(zip(names, values, strict=True))


class Features:
    """Which features there are: those of the first x. A dict's are sorted, so that its order means nothing.

    Raises TypeError or ValueError for what is no dict and no sequence, and for none at all.
    """

    def __init__(self, x):
        self.names = tuple(sorted(x, key=str)) if isinstance(x, Mapping) else None
        if self.names is None and not is_sequence(x):
            raise TypeError(f"x: expected a dict or a sequence of numbers, got {describe(x)}")
        self.count = len(x)
        if not self.count:
            raise ValueError(f"x: expected at least one feature, got {describe(x)}")
        self.known = frozenset(self.names or ())

    def row(self, x) -> np.ndarray:
        """x as (I,) float64, NaN where there is no number. Raises TypeError or ValueError, naming the feature."""
        if isinstance(x, Mapping) != (self.names is not None):
            expected = "a sequence" if self.names is None else "a dict"
            raise TypeError(f"x: expected {expected}, as the first was, got {describe(x)}")
        if self.names is None:
            if not is_sequence(x):
                raise TypeError(f"x: expected a sequence of {self.count} numbers, got {describe(x)}")
            if len(x) != self.count:
                raise ValueError(f"x: expected {self.count} numbers, as the first had, got {len(x)}")
            return np.array([number(f"x[{n}]", value) for n, value in enumerate(x)])
        for name in x:
            if name not in self.known:
                raise ValueError(f"x: expected features of the first, {', '.join(map(repr, self.names))}, got {name!r}")
        return np.array([number(f"x[{name!r}]", x.get(name)) for name in self.names])


class Running(NamedTuple):
    """Mean and variance so far of each of I numbers, over the steps that have it (Welford 1962).

    n, mean, squares: (I,) float64; squares is the sum of (x - mean)².
    """

    n: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def nothing(cls, I) -> Running:
        """Of no step yet."""
        return cls(np.zeros(I), np.zeros(I), np.zeros(I))

    def after(self, x) -> Running:
        """That of one more step, x (I,) with NaN for what is missing."""
        there = ~np.isnan(x)
        n = self.n + there
        before = np.where(there, x - self.mean, 0.0)
        mean = self.mean + before / np.maximum(n, 1.0)
        return Running(n, mean, self.squares + before * np.where(there, x - mean, 0.0))

    @property
    def deviation(self) -> np.ndarray:
        """(I,), 0 for what was always the same."""
        return np.sqrt(self.squares / np.maximum(self.n, 1.0))

    @property
    def unit(self) -> np.ndarray:
        """(I,), what numbers are divided by: the deviation, 1 where that is 0."""
        deviation = self.deviation
        return np.where(deviation > 0, deviation, 1.0)

    def scaled(self, x) -> np.ndarray:
        """x (..., I) with mean 0 and variance 1; what is missing is the mean, 0. No x that `after` has seen is further
        from 0 than sqrt(n)."""
        return np.where(np.isnan(x), 0.0, (x - self.mean) / self.unit)

    def unscaled(self, z) -> np.ndarray:
        """The numbers (..., I) that scaled ones stand for."""
        return self.mean + self.deviation * z
