"""Forecasts held against what came, with the naive and the seasonal-naive forecast beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from cylstm.forecast.features import filled, last_known
from cylstm.forecast.panel import covariates, expect_positive, read, static_features

__all__ = ["Report", "backtest", "evaluate"]

RIVALS = ("naive", "seasonal_naive")
TOLERATED = 0.05  # by which the share inside an interval may be off before a report says so


@dataclass
class Report:
    """What came of forecasts.

    table : columns of equal length, as `pandas.DataFrame(report.table)` takes them, a line for each step of each
        forecast: "series" (its name), "origin" and "time" (labels of the last known row and of the one foretold: of the
        index or, without one, row numbers), "step" (how far ahead), "actual", "forecast", "q0.05", ..., "naive" (as the
        last known value) and "seasonal_naive" (as a season before). Lines without an actual value are left out.
    season : of the seasonal-naive forecast. quantiles : those of the table.
    """

    table: dict[str, np.ndarray]
    season: int
    quantiles: tuple[float, ...]

    @property
    def scores(self) -> dict[str, float]:
        """{"mae": mean absolute error, "rmse", "pinball": mean pinball loss over the quantiles, "coverage": share from
        the lowest to the highest quantile, and "interval": what it should be (of two quantiles and more); of either
        rival "naive_mae", "naive_rmse", "seasonal_naive_mae", "seasonal_naive_rmse", "lines": how many}."""
        return scores_of(self.table, self.quantiles)

    @property
    def by_series(self) -> dict[object, dict[str, float]]:
        """`scores` of each series."""
        names = self.table["series"]
        found = {}
        for name in dict.fromkeys(names.tolist()):
            here = np.fromiter((each == name for each in names), bool, len(names))
            found[name] = scores_of({key: column[here] for key, column in self.table.items()}, self.quantiles)
        return found

    @property
    def by_step(self) -> dict[int, dict[str, float]]:
        """`scores` of each number of steps ahead."""
        steps = self.table["step"]
        return {int(step): scores_of({key: column[steps == step] for key, column in self.table.items()}, self.quantiles)
                for step in np.unique(steps)}  # fmt: skip

    @property
    def verdict(self) -> str:
        """A sentence for each thing that a user has to know, the bad ones in capitals."""
        found, said = self.scores, []
        for rival in RIVALS:
            than, error = f"the {rival.replace('_', '-')} forecast", found[f"{rival}_mae"]
            times = f"{found['mae'] / error:.2f} times its mean absolute error" if error else "it has no error"
            said.append(f"better than {than}: {times}." if found["mae"] < error else f"NO BETTER than {than}: {times}.")
        for name, one in self.by_series.items():
            if len(self.by_series) > 1 and one["mae"] >= min(one[f"{rival}_mae"] for rival in RIVALS):
                said.append(f"NO BETTER than a naive forecast of {name}.")
        if "coverage" in found:
            off = found["coverage"] - found["interval"]
            share = f"intervals of {found['interval']:.0%} hold {found['coverage']:.0%}"
            said.append(f"{share}." if abs(off) <= TOLERATED else f"TOO {'WIDE' if off > 0 else 'NARROW'}: {share}.")
        return "\n".join(said)

    def __repr__(self):
        found = self.scores
        lines = [f"{'':16}{'mae':>10}{'rmse':>10}"]
        for name, prefix in (("forecast", ""), ("naive", "naive_"), (f"a season of {self.season}", "seasonal_naive_")):
            lines.append(f"{name:16}{found[prefix + 'mae']:>10.4g}{found[prefix + 'rmse']:>10.4g}")
        origins = len(set(zip(self.table["series"].tolist(), self.table["origin"].tolist(), strict=True)))
        lines.append(f"{found['lines']} values foretold, in {origins} forecasts")
        return "\n".join([*lines, self.verdict])


def scores_of(table, quantiles) -> dict[str, float]:
    """`Report.scores` of lines of a table."""
    actual = table["actual"]
    found = {}
    for prefix, name in (("", "forecast"), *((f"{rival}_", rival) for rival in RIVALS)):
        error = table[name] - actual
        found[f"{prefix}mae"] = float(np.mean(np.abs(error)))
        found[f"{prefix}rmse"] = float(np.sqrt(np.mean(error**2)))
    bounds = np.stack([table[column_of(q)] for q in quantiles], axis=1)
    below = actual[:, None] - bounds
    found["pinball"] = float(np.mean(np.maximum(np.array(quantiles) * below, (np.array(quantiles) - 1) * below)))
    if len(quantiles) > 1:
        inside = (bounds[:, 0] <= actual) & (actual <= bounds[:, -1])
        found["coverage"], found["interval"] = float(np.mean(inside)), quantiles[-1] - quantiles[0]
    found["lines"] = len(actual)
    return found


def column_of(quantile) -> str:
    return f"q{quantile!r}"


class Lines:
    """The lines of a table, as they come. season : of the seasonal-naive forecast."""

    def __init__(self, quantiles, season):
        self.quantiles, self.season, self.lines = quantiles, season, []

    def add(self, forecaster, known, latest, coming, future) -> None:
        """A forecast from where the forecaster stands. known, latest, coming : of each series the numbers up to there,
        the last one that is there, and those behind; future : covariates of the latter."""
        n = min(forecaster.horizon, max(map(len, coming)))
        found = forecaster.foretold(n, [with_gaps(rows[:n], n) for rows in future])
        for row, (before, last, actual, bounds) in enumerate(zip(known, latest, coming, found, strict=True)):
            actual = actual[:n]
            there, index = ~np.isnan(actual), forecaster.panel_.index(row)
            steps = np.arange(1, len(actual) + 1)
            m = min(self.season, len(before))
            seasonal = filled(before, m)[len(before) - 1 + steps - m * -(-steps // m)]
            columns = {
                "series": as_objects([forecaster.panel_.names[row]] * len(steps)),
                "origin": as_objects([index.last_label] * len(steps)), "time": as_objects(index.labels(len(steps))),
                "step": steps, "actual": actual,
                "forecast": bounds[: len(steps), forecaster.levels.index(0.5)],
                **{column_of(q): bounds[: len(steps), forecaster.levels.index(q)] for q in self.quantiles},
                "naive": np.full(len(steps), last),
                "seasonal_naive": seasonal}  # fmt: skip
            self.lines.append({name: column[there] for name, column in columns.items()})

    def report(self) -> Report:
        if not sum(len(line["step"]) for line in self.lines):
            raise ValueError("new_rows: expected at least one number to hold forecasts against, got none")
        table = {name: np.concatenate([line[name] for line in self.lines]) for name in self.lines[0]}
        return Report(table, self.season, self.quantiles)


def as_objects(values) -> np.ndarray:
    """(n,) of labels, of whatever type; integers stay integers."""
    if all(isinstance(value, (int, np.integer)) for value in values):
        return np.array(list(values), np.int64)
    found = np.empty(len(values), object)
    found[:] = list(values)
    return found


def with_gaps(rows, n) -> np.ndarray:
    """Covariates (n, C) of fewer rows: of a series that ends earlier."""
    return np.concatenate([rows, np.full((n - len(rows), rows.shape[1]), np.nan)])


def walk(lines, forecaster, known, latest, coming, past, future, every, refit=None, fitted=None) -> None:
    """Forecasts from where the forecaster stands, and from every `every` rows further on, until all series end.

    known, latest, coming : of each series; past, future : covariates of what is coming.
    fitted : (number of rows gone, the forecaster so far) -> the one to go on with, every `refit` rows.
    """
    fitted_at, longest = 0, max(map(len, coming))
    for gone in range(0, longest, every):
        if gone:
            piece = slice(gone - every, gone)
            new = ([rows[piece] for rows in arrays] for arrays in (coming, past, future))
            forecaster = forecaster.copy().go_on(*new)
            if refit and gone - fitted_at >= refit:
                forecaster, fitted_at = fitted(gone, forecaster), gone
        before = [np.concatenate(both) for both in zip(known, (rows[:gone] for rows in coming), strict=True)]
        last = [last_known(rows[:gone], value) for rows, value in zip(coming, latest, strict=True)]
        lines.add(forecaster, before, last, [rows[gone:] for rows in coming], [rows[gone:] for rows in future])


def evaluate(forecaster, new_rows, past, future, every) -> Report:
    """`LSTMForecaster.evaluate`."""
    forecaster.panel_of()
    coming, past, future = forecaster.new(new_rows, past, future)
    known = [forecaster.in_units(series.y) for series in forecaster.series_]
    latest = [float(forecaster.in_units(series.latest)) for series in forecaster.series_]
    lines = Lines(forecaster.quantiles, forecaster.season_)
    if any(map(len, coming)):
        walk(lines, forecaster, known, latest, coming, past, future, every)
    return lines.report()


def backtest(forecaster, series, past, future, static, start, every, refit, season) -> Report:
    """`LSTMForecaster.backtest`."""
    panel, values = read("series", series)
    rows = [len(array) for array in values]
    cuts = [round(start * count) for count in rows]
    past, future = covariates("past", past, panel, rows), covariates("future", future, panel, rows)
    static = static_features(static, panel)

    def fitted(gone=0, after=None, **found):
        ends = [min(cut + gone, count) for cut, count in zip(cuts, rows, strict=True)]
        shorter = [[array[:end] for array, end in zip(arrays, ends, strict=True)] for arrays in (values, past, future)]
        form = panel.ahead([end - count for end, count in zip(ends, rows, strict=True)])
        return type(forecaster)(**{**forecaster.options, **found}).learn(
            form, *shorter, static, after=after)  # fmt: skip

    first = fitted()
    for n, array in enumerate(values):
        expect_positive(panel.label("series", n), array, first.log_)
    again = partial(fitted, log=first.log_, season=first.season_)
    behind = ([array[cut:] for array, cut in zip(arrays, cuts, strict=True)] for arrays in (values, past, future))
    known = [array[:cut] for array, cut in zip(values, cuts, strict=True)]
    lines = Lines(forecaster.quantiles, season or first.season_)
    latest = [last_known(array, np.nan) for array in known]
    walk(lines, first, known, latest, *behind, every, refit, again)
    return lines.report()
