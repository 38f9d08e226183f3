"""Features of any unit as numbers around 0 and 1, which is what an LSTM learns from: one shift and scale of each."""

from __future__ import annotations

import numpy as np

from cylstm.checks import check_finite, describe, described_with_way, one_of, plain_array, refuse
from cylstm.sequences import ragged_rows

__all__ = ["KINDS", "Scaler", "center_and_scale"]


class Scaler:
    """(x - center) / scale, for each feature.

    kind : "standard", the mean and the standard deviation (over N); "robust", the median and the distance of the
        quartiles; "min-max", the minimum and the range, so that what it was fitted on lies in 0..1. They are
        scikit-learn's of StandardScaler, RobustScaler and MinMaxScaler.
    center, scale : (F,) of a scaler that was fitted before: `state()`. Raises TypeError or ValueError.

    NaN is left out of the statistics, and stays NaN. A feature without a spread (a constant one; for "robust", one
    whose quartiles are the same) has scale 1.

    After `fit`, `center` and `scale` are arrays (F,), float64; None before.
    """

    def __init__(self, kind="standard", *, center=None, scale=None):
        self.kind = one_of("kind", kind, tuple(KINDS))
        self.center = self.scale = None
        if (center is None) != (scale is None):
            raise ValueError("scale: expected both center and scale, or none, got one of them")
        if center is not None:
            self.center, self.scale = _numbers("center", center), _numbers("scale", scale)
            if self.scale.shape != self.center.shape:
                raise ValueError(f"scale: expected {self.center.shape}, as center is, got {self.scale.shape}")
            if not (self.scale > 0).all():
                raise ValueError(f"scale: expected numbers > 0, got {self.scale.min()}")

    def state(self) -> dict[str, np.ndarray]:
        """{"center": (F,), "scale": (F,)}, float64: `Scaler(kind, **state)` is this one. Raises ValueError before it
        was fitted."""
        self._expect_fitted()
        return {"center": self.center.copy(), "scale": self.scale.copy()}

    def fit(self, values) -> Scaler:
        """Take the statistics of numbers (..., F), as (N, T, F), or of a list of arrays (T_n, F). Returns itself.

        Raises TypeError or ValueError for what is no such thing, for an infinite number, and for a feature that has no
        number, or a spread that float64 does not hold.
        """
        rows, _ = _as_rows(values)
        table = np.concatenate([row.reshape(-1, row.shape[-1]) for row in rows])
        center, scale = np.empty((2, table.shape[1]))
        for f in range(table.shape[1]):
            numbers = table[:, f].astype(np.float64)
            numbers = numbers[~np.isnan(numbers)]
            if not numbers.size:
                raise ValueError(f"values: expected at least one number of feature {f}, got none")
            center[f], scale[f] = center_and_scale(f"values[..., {f}]", numbers, KINDS[self.kind])
        self.center, self.scale = center, scale
        return self

    def transform(self, values) -> np.ndarray | list[np.ndarray]:
        """Numbers (..., F), or a list of arrays (T_n, F), scaled: of the same shapes, in their floating type, integers
        in float64. Raises TypeError or ValueError, also for a number that is none of that type when scaled, and before
        it was fitted."""
        return self._of_each(values, lambda numbers: (numbers - self.center) / self.scale)

    def inverse(self, values) -> np.ndarray | list[np.ndarray]:
        """What `transform` makes these values of: the way back, with its shapes and types."""
        return self._of_each(values, lambda numbers: numbers * self.scale + self.center)

    def _of_each(self, values, function):
        self._expect_fitted()
        rows, listed = _as_rows(values, len(self.center))
        found = []
        for n, row in enumerate(rows):
            dtype = row.dtype if row.dtype.kind == "f" else np.float64
            with np.errstate(over="ignore"):
                found.append(function(row.astype(np.float64)).astype(dtype))
            name = f"values[{n}]" if listed else "values"
            refuse(name, row, np.isinf(found[-1]), f"a number that {np.dtype(dtype)} holds when scaled")
        return found if listed else found[0]

    def _expect_fitted(self):
        if self.center is None:
            raise ValueError("Scaler: expected a fitted one, got one without statistics")

    def __repr__(self) -> str:
        fitted = "" if self.center is None else f", center={self.center.tolist()}, scale={self.scale.tolist()}"
        return f"Scaler({self.kind!r}{fitted})"


def center_and_scale(name, numbers, measure) -> tuple[float, float]:
    """What finite numbers (N,) less the one, over the other, are around 0 and 1: measure(numbers), of numbers in a unit
    of its own, gives both; the scale is 1 where these have no spread. Raises ValueError."""
    if numbers.min() == numbers.max():
        return numbers[0], 1.0  # itself: the mean of equal numbers may be off by a rounding
    # Over a power of two near the largest: exact, and squares neither overflow nor vanish.
    unit = np.ldexp(1.0, np.frexp(np.abs(numbers).max())[1] - 1)
    center, spread = measure(numbers / unit)
    with np.errstate(over="ignore"):
        scale = spread * unit if spread else 1.0
    if not 0 < scale < np.inf:
        raise ValueError(f"{name}: expected a spread that float64 holds, got {numbers.min():g} to {numbers.max():g}")
    return center * unit, scale


def _as_rows(values, features=None) -> tuple[list[np.ndarray], bool]:
    """Arrays (..., F) of one F, and whether they came as a list."""
    rows = ragged_rows(values)
    listed = rows is not None
    rows = rows if listed else [plain_array("values", values)]
    for n, row in enumerate(rows):
        name = f"values[{n}]" if listed else "values"
        if row.dtype.kind not in "iuf":
            raise TypeError(f"{name}: expected numbers, got {described_with_way(row)}")
        if features is None and row.ndim > 1:
            features = row.shape[-1]
        if row.ndim < 2 or row.shape[-1] != features or not features:
            width = features or "F"
            expected = f"(T, {width})" if listed else f"(..., {width}) of at least two axes"
            raise ValueError(f"{name}: expected {expected}, got {describe(row)}")
        check_finite(name, row, np.float64, missing=True)
    return rows, listed


def _numbers(name, given) -> np.ndarray:
    """(F,) finite, float64."""
    array = plain_array(name, given)
    if array.dtype.kind not in "iuf" or array.ndim != 1 or not array.size:
        raise ValueError(f"{name}: expected numbers (F,), got {describe(array)}")
    check_finite(name, array, np.float64)
    return array.astype(np.float64)


def _quartiles(numbers):
    low, middle, high = np.quantile(numbers, (0.25, 0.5, 0.75))
    return middle, high - low


# Of numbers (N,): what is subtracted, and what the rest is divided by.
KINDS = {
    "standard": lambda numbers: (numbers.mean(), numbers.std()),
    "robust": _quartiles,
    "min-max": lambda numbers: (numbers.min(), np.ptp(numbers)),
}
