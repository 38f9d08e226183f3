"""`LSTMForecaster`: from series to forecasts with intervals, and on, row by row."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace

import numpy as np

from cylstm.checks import describe, flag, one_of, positive_int, real_in
from cylstm.forecast import files
from cylstm.forecast.backtest import Report, backtest, evaluate
from cylstm.forecast.features import History, Layout, filled, last_known
from cylstm.forecast.flights import started
from cylstm.forecast.learning import Settings, learnt, mixed, stretched
from cylstm.forecast.panel import columns_of, covariates, expect_positive, read, read_table, static_features
from cylstm.forecast.paths import paths
from cylstm.forecast.season import find_season, grows_by_shares
from cylstm.losses import Quantiles
from cylstm.scaling import Scaler

__all__ = ["LSTMForecaster"]


class LSTMForecaster:
    """Forecasts of one or many series, as intervals, by LSTMs that learn what to put right in the forecast "as a season
    ago".

    Parameters
    ----------
    horizon : int >= 1
        How many steps ahead it is trained for.
    season : int >= 1 or None
        Steps of a season, 1 for none: 12 of months, 24 of hours. None finds it.
    quantiles : increasing numbers between 0 and 1
        What is foretold beside the median; from the lowest to the highest is the interval.
    strategy : "direct" or "recursive"
        "direct" is trained for every step of the horizon. "recursive" is trained for the next step and goes on from
        what it has foretold, in 500 random futures whose quantiles it gives: for any number of steps.
    lags : int >= 1 or None
        How many known steps a window of training begins with. None: two seasons, but 16 to 96.
    log : bool or None
        Whether to forecast logarithms, of series that vary by shares of their level. None finds out.
    hidden_size, num_layers
        As for `Model`. dropout : share of a step's inputs that training drops (`input_dropout`).
    members : int >= 1
        How many models are trained, whose mean is taken. Each is held away from another fifth of each series, where its
        training stops and where it shows how wide intervals have to be.
    epochs, patience, batch_size, lr, seed
        As for `Model.fit`, with `AdamW(lr)`.

    Series are arrays (T,), pandas or polars Series, with NaN where a value is missing; many of them are a list or a
    dict of such, or columns of an array (T, N) or of a data frame (of polars with a column of dates beside them).
    Forecasts come in the same form, with the index that goes on. Rows are one step apart.

    After `fit`, `season_` and `log_` are what was found, and `histories_` are the models' Histories.
    Raises TypeError or ValueError, naming the argument.
    """

    def __init__(self, horizon=12, *, season=None, quantiles=(0.05, 0.25, 0.5, 0.75, 0.95), strategy="direct",
                 lags=None, log=None, hidden_size=32, num_layers=1, dropout=0.0, members=5, epochs=200, patience=20,
                 batch_size=32, lr=5e-3, seed=0):  # fmt: skip
        self.horizon = positive_int("horizon", horizon)
        self.season = None if season is None else positive_int("season", season)
        self.quantiles = Quantiles(quantiles).quantiles
        self.strategy = one_of("strategy", strategy, ("direct", "recursive"))
        self.lags = None if lags is None else positive_int("lags", lags)
        self.log = None if log is None else flag("log", log)
        self.hidden_size = positive_int("hidden_size", hidden_size)
        self.num_layers = positive_int("num_layers", num_layers)
        self.dropout = real_in("dropout", dropout, 0, 1, open_high=True)
        self.members, self.epochs = positive_int("members", members), positive_int("epochs", epochs)
        self.patience, self.batch_size = positive_int("patience", patience), positive_int("batch_size", batch_size)
        self.lr, self.seed = real_in("lr", lr, 0, open_low=True), positive_int("seed", seed, 0)
        self.models_, self.columns_ = None, {}

    @property
    def options(self) -> dict:
        """The arguments that make such a forecaster, for JSON."""
        names = ("horizon", "season", "quantiles", "strategy", "lags", "log", "hidden_size", "num_layers", "dropout",
                 "members", "epochs", "patience", "batch_size", "lr", "seed")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def __repr__(self):
        return f"LSTMForecaster({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"

    @property
    def levels(self) -> tuple[float, ...]:
        """The quantiles that the models have: those that were asked for, and the median."""
        return tuple(sorted({*self.quantiles, 0.5}))

    # --- learning -------------------------------------------------------------------------------------------------

    def fit(self, series, *, past=None, future=None, static=None, after=None, progress=False) -> LSTMForecaster:
        """Learn from series, from the beginning. Returns itself.

        past : covariates (T, P), or (T,), known up to now only. future : (T, C), or (T,), that are known ahead:
            holidays, prices, what a weather service says. In the series' form: a list or dict of them; of columns the
            same for all. NaN where something is missing. A "recursive" forecaster has no past ones.
        static : (N, S), numbers of each of N series; of one (S,), of a dict a dict.
        after : a forecaster of the same series, with the same horizon, strategy and quantiles: what its updates have
            seen of how wide intervals have to be goes on here. It may be this one.
        progress : as for `Model.fit`.
        """
        panel, values = read("series", series)
        rows = [len(array) for array in values]
        read_past, read_future = covariates("past", past, panel, rows), covariates("future", future, panel, rows)
        if after is not None:
            self.expect_alike(after, panel)
            after = after.copy()
        self.learn(panel, values, read_past, read_future, static_features(static, panel), progress, after)
        self.columns_ = {name: first_columns(panel.parts(name, given)) for name, given in
                         (("past", past), ("future", future)) if given is not None}  # fmt: skip
        return self

    def expect_alike(self, after, panel) -> None:
        """ValueError for a forecaster whose intervals are not of the same series, steps and quantiles."""
        if not isinstance(after, LSTMForecaster) or after.models_ is None:
            raise ValueError(f"after: expected a forecaster that was fitted, got {describe(after)}")
        own, others = ({"series": names, "horizon": each.horizon, "strategy": each.strategy, "quantiles": each.levels}
                       for names, each in ((panel.names, self), (after.panel_.names, after)))  # fmt: skip
        for name, other in others.items():
            if own[name] != other:
                raise ValueError(f"after: expected a forecaster with the {name} {own[name]!r}, got one with {other!r}")

    def learn(self, panel, values, past, future, static, progress=False, after=None) -> LSTMForecaster:
        """`fit` of what was read."""
        if self.strategy == "recursive" and past[0].shape[1]:
            raise ValueError("past: expected None with strategy='recursive', which would have to foretell them, too, "
                             f"got {past[0].shape[1]}")  # fmt: skip
        for name, arrays in (("past", past), ("future", future)):
            empty = np.isnan(np.concatenate(arrays)).all(axis=0)
            if empty.any():
                raise ValueError(f"{name}: expected at least one number in each column, got none in {empty.argmax()}")
        self.models_ = None  # a failure leaves none behind that is half of one
        self.log_ = log_of(values) if self.log is None else self.log
        for n, array in enumerate(values):
            expect_positive(panel.label("series", n), array, self.log_)
        values = [np.log(array) if self.log_ else array for array in values]
        self.season_ = self.season or Counter(map(find_season, values)).most_common(1)[0][0]
        for n, array in enumerate(values):
            expect_enough(panel.label("series", n), array, self.season_)
        horizon = self.horizon if self.strategy == "direct" else 1
        layout = Layout(self.season_, horizon, past[0].shape[1], future[0].shape[1], static.shape[1])
        beside = {"past": past, "future": future, "static": [static]}
        self.scalers_ = {name: Scaler().fit(arrays) if arrays[0].shape[1] else None
                         for name, arrays in beside.items()}  # fmt: skip
        histories = [self._history(*each) for each in zip(values, past, future, static, strict=True)]
        lags = self.lags or min(max(2 * self.season_, 16), 96)
        settings = Settings(
            quantiles=self.levels, lags=lags, hidden_size=self.hidden_size, num_layers=self.num_layers,
            dropout=self.dropout, members=self.members, epochs=self.epochs, patience=self.patience,
            batch_size=self.batch_size, lr=self.lr, seed=self.seed)  # fmt: skip
        models, self.mix_, self.stretch_, self.histories_ = learnt(layout, histories, settings, progress)
        self.panel_, self.layout_ = panel, layout
        steps = [np.arange(max(self.season_, len(each) - lags), len(each)) for each in histories]
        contexts = [layout.after(each, each.y, some) for each, some in zip(histories, steps, strict=True)]
        self.states_ = [model(as_rows(contexts))[1] for model in models]
        self.series_ = [each.last(layout.reach) for each in histories]
        self.flights_ = started(models, layout, histories, lags, self.levels)
        if after is not None:
            self.flights_ = replace(self.flights_, widening=after.flights_.widening)
        self.models_ = models
        return self

    def _history(self, y, past, future, static) -> History:
        static = self.scaled("static", static[None])[0]
        past, future = self.scaled("past", past), self.scaled("future", future)
        unit, latest = unit_of(y, self.season_), last_known(y, np.nan)
        return History(filled(y, self.season_), ~np.isnan(y), past, future, static, unit, latest=latest)

    def scaled(self, name, array) -> np.ndarray:
        """Covariates in the units that the models see."""
        scaler = self.scalers_[name]
        return array if scaler is None or not len(array) else scaler.transform(array)

    # --- forecasts ------------------------------------------------------------------------------------------------

    def forecast(self, horizon=None, *, future=None):
        """The medians of the next steps: (n,) of each series, in the form of the series.

        horizon : n, by default the forecaster's own, which is also the most that "direct" can do.
        future : (n, C), or (n,), in the form that `fit` had, where it had some.
        """
        middle = self.levels.index(0.5)
        return self.panel_of().write([found[:, middle] for found in self._checked(horizon, future)])

    def forecast_quantiles(self, horizon=None, *, future=None):
        """The `quantiles` of the next steps: (n, Q) of each series, in rising order. Of pandas and polars data frames
        with a column for each quantile. Otherwise as `forecast`."""
        kept = [self.levels.index(q) for q in self.quantiles]
        found = [array[:, kept] for array in self._checked(horizon, future)]
        return self.panel_of().write(found, self.quantiles)

    def panel_of(self):
        """The form of the series. Raises ValueError before `fit`."""
        if self.models_ is None:
            raise ValueError("LSTMForecaster: expected one that was fitted, got one that was not")
        return self.panel_

    def _checked(self, horizon, future) -> list[np.ndarray]:
        self.panel_of()
        n = self.horizon if horizon is None else positive_int("horizon", horizon)
        if self.strategy == "direct" and n > self.horizon:
            raise ValueError(f"horizon: expected at most {self.horizon}, for which the forecaster was made "
                             f"(strategy='recursive' knows no end), got {n}")  # fmt: skip
        return self.foretold(n, self._covariates("future", future, [n] * len(self.series_)))

    def foretold(self, n: int, future) -> list[np.ndarray]:
        """(n, levels) of each series; future : covariates (n, C) of each."""
        future = [np.concatenate([series.future, self.scaled("future", ahead)])
                  for series, ahead in zip(self.series_, future, strict=True)]  # fmt: skip
        found = self._direct(n, future) if self.strategy == "direct" else \
            [paths(self, row, n, ahead) for row, ahead in enumerate(future)]  # fmt: skip
        found = [self.in_units(array) for array in found]
        for row, array in enumerate(found):
            if not np.isfinite(array).all():
                name = self.panel_.label("series", row)
                raise ArithmeticError(f"{name}: expected finite forecasts, got {array[~np.isfinite(array)][0]}")
        return found

    def in_units(self, array) -> np.ndarray:
        """Numbers of the series of what the models see: the way back from logarithms."""
        return np.exp(array) if self.log_ else array

    def _direct(self, n, future):
        layout, far = self.layout_, np.arange(1, n + 1)
        bases, drift, x = [], [], []
        for series, covariates_ahead in zip(self.series_, future, strict=True):
            last = len(series) - 1
            bases.append(layout.base(last, far))
            drift.append((series.y[last] - series.y[bases[-1]]) / series.scale)
            x.append(layout.ahead(series, series.y, last + far, bases[-1], far / layout.horizon, covariates_ahead))
        x = np.stack(x).astype(np.float32)
        outputs = np.mean([np.sort(model(x, state)[0], axis=-1) for model, state in
                           zip(self.models_, self.states_, strict=True)], axis=0)  # fmt: skip
        outputs = mixed(outputs, np.stack(drift), self.mix_[:n], self.levels)
        outputs = stretched(outputs, self.stretch_ * self.flights_.factors(layout, n), self.levels)
        return [series.y[base][:, None] + series.scale * rows
                for series, base, rows in zip(self.series_, bases, outputs, strict=True)]  # fmt: skip

    def update(self, new_rows, *, past=None, future=None) -> LSTMForecaster:
        """Rows that have come since: the models' states go on over them, step by step. Nothing is learnt but how wide
        intervals have to be of late: each series' quantiles move with the share of new values beyond them. Returns
        itself.

        new_rows : in the form of the series, of any number each; past, future: their covariates, in the same rows.
        """
        return self.go_on(*self.new(new_rows, past, future))

    def new(self, new_rows, past=None, future=None):
        """Rows (n,) behind each series, and their covariates. Raises TypeError or ValueError."""
        panel = self.panel_of()
        values = []
        for n, part in enumerate([new_rows] if panel.form in ("one", "columns") else panel.parts("new_rows", new_rows)):
            name = panel.label("new_rows", n)
            if not np.ndim(part):
                raise TypeError(f"{name}: expected rows (n,), got {describe(part)}")
            if len(part):
                given, columns = read_table(name, part, panel.indices[n])
                expected = panel.names if panel.form == "columns" else given.names[:1]
                if given.names != expected:
                    raise ValueError(f"{name}: expected the series {expected}, got {given.names}")
                values += columns
            else:
                values += [np.zeros(0)] * (len(panel.names) if panel.form == "columns" else 1)
        for n, array in enumerate(values):
            expect_positive(panel.label("new_rows", n), array, self.log_)
        rows = [len(array) for array in values]
        return values, self._covariates("past", past, rows), self._covariates("future", future, rows)

    def _covariates(self, name, given, rows):
        """Of rows behind the series."""
        width = {"past": self.layout_.P, "future": self.layout_.C}[name]
        return covariates(name, given, self.panel_, rows, width, self.columns_.get(name))

    def go_on(self, values, past, future) -> LSTMForecaster:
        """`update` of what was read."""
        rows = [len(array) for array in values]
        if not any(rows):
            return self
        values = [np.log(array) if self.log_ else array for array in values]
        longer = [series.extended(y, self.scaled("past", P), self.scaled("future", C), self.season_)
                  for series, y, P, C in zip(self.series_, values, past, future, strict=True)]  # fmt: skip
        x = as_rows([self.layout_.after(series, series.y, np.arange(len(series) - count, len(series)))
                     for series, count in zip(longer, rows, strict=True)])  # fmt: skip
        for i in range(max(rows)):
            row = [len(series) - count + i if i < count else None for series, count in zip(longer, rows, strict=True)]
            flights = self.flights_.over(self, longer, row)
            self.states_ = [model([steps[i : i + 1] for steps in x], state)[1]
                            for model, state in zip(self.models_, self.states_, strict=True)]  # fmt: skip
            self.flights_ = flights.begun(self.states_, self.layout_, longer, row)
        self.series_ = [series.last(self.layout_.reach) for series in longer]
        self.panel_ = self.panel_.ahead(rows)
        return self

    # --- how good they are ----------------------------------------------------------------------------------------

    def evaluate(self, new_rows, *, past=None, future=None, every=1) -> Report:
        """Forecasts held against rows that have come since: from where the forecaster stands, then from `every` rows
        further on, and so on to their end. It stays where it is; covariates as for `update`."""
        return evaluate(self, new_rows, past, future, positive_int("every", every))

    def backtest(self, series, *, past=None, future=None, static=None, start=0.7, every=1, refit=None,
                 season=None) -> Report:  # fmt: skip
        """What such a forecaster would have said: one that has learnt from the first part of each series forecasts from
        its end, goes `every` rows on, forecasts again. This one stays as it is, fitted or not.

        start : where the first forecast is made, as a share of each series. refit : after how many rows it learns anew,
            from all that is known then; None for never.
        season : of the seasonal-naive forecast beside it; by default that of the forecaster.
        """
        start, every = real_in("start", start, 0, 1, open_low=True, open_high=True), positive_int("every", every)
        refit = None if refit is None else positive_int("refit", refit)
        season = None if season is None else positive_int("season", season)
        return backtest(self, series, past, future, static, start, every, refit, season)

    def copy(self) -> LSTMForecaster:
        """One that goes its own way from here; weights, which `update` leaves alone, are shared."""
        return copy.copy(self)

    # --- files ----------------------------------------------------------------------------------------------------

    def save(self, path) -> None:
        """Write everything to a safetensors file, atomically: weights, scales, states, the end of each series and its
        index. Raises OSError, and ValueError before `fit`."""
        self.panel_of()
        files.save(self, path)

    @classmethod
    def load(cls, path) -> LSTMForecaster:
        """Read a forecaster written by `save`, which goes on where that one was; without `histories_`. Raises OSError,
        or ValueError for a file that is anything else."""
        return files.load(cls, path)


def first_columns(parts) -> tuple[str, ...] | None:
    """Those of the first frame."""
    return next(filter(None, map(columns_of, parts)), None)


def log_of(values) -> bool:
    """Whether most series grow by shares, and all can."""
    positive = all(np.nanmin(array, initial=np.inf) > 0 for array in values)
    return positive and 2 * sum(map(grows_by_shares, values)) > len(values)


def unit_of(y, season) -> float:
    """The root mean square of the changes over a season that are known; of a series without any, its spread."""
    changes = y[season:] - y[:-season]
    changes, spread = changes[~np.isnan(changes)], float(np.nanstd(y))
    unit = float(np.sqrt(np.mean(changes**2))) if len(changes) else 0.0
    return unit if unit > 1e-9 * spread else spread or 1.0


def as_rows(arrays) -> list[np.ndarray]:
    return [array.astype(np.float32) for array in arrays]


def expect_enough(name, y, season):
    """ValueError for a series of which nothing can be learnt."""
    known = int((~np.isnan(y)).sum())
    if len(y) < season + 2 or known < 2:
        behind = f" (two behind a season of {season})" if season > 1 else ""
        raise ValueError(f"{name}: expected at least {season + 2} rows{behind}, with two numbers, got {len(y)} with "
                         f"{known}")  # fmt: skip
