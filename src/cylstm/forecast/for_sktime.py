"""`LSTMForecaster` as a forecaster of sktime (the extra "sktime"): `cylstm.forecast.for_sktime.SktimeLSTM`."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pandas as pd
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from cylstm.forecast.forecaster import LSTMForecaster
from cylstm.forecast.paths import at_scores

__all__ = ["SktimeLSTM"]


class SktimeLSTM(BaseForecaster):
    """Forecasts by LSTMs that learn what to put right in the forecast "as a season ago".

    All parameters as for `cylstm.LSTMForecaster`, whose horizon is the largest step of the `fh` that `fit` gets. X are
    covariates that are known ahead, by the names of their columns: what is not given for a step is missing. `update`
    goes on from the state that is kept, over rows behind those that are known, and learns nothing. Rows that are left
    out, there and in `fit`, are missing.
    Quantiles other than `quantiles` are read off straight lines between these against those of a normal distribution.

    Examples
    --------
    >>> from cylstm.forecast.for_sktime import SktimeLSTM
    >>> from sktime.datasets import load_airline
    >>> forecaster = SktimeLSTM(members=1, epochs=2)
    >>> forecaster = forecaster.fit(load_airline(), fh=[1, 2, 12])
    >>> len(forecaster.predict())
    3
    """

    _tags = {  # noqa: RUF012 (sktime's way)
        "authors": ["The cylstm developers"],
        "maintainers": ["The cylstm developers"],
        "y_inner_mtype": "pd.Series",
        "X_inner_mtype": "pd.DataFrame",
        "capability:multivariate": False,
        "capability:exogenous": True,
        "capability:insample": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:missing_values": True,
        "capability:categorical_in_X": False,
        "capability:random_state": False,
        "capability:update": True,
        "requires-fh-in-fit": True,
        "X-y-must-have-same-index": False,
        "tests:vm": False,
    }

    def __init__(self, season=None, quantiles=(0.05, 0.25, 0.5, 0.75, 0.95), strategy="direct", lags=None, log=None,
                 hidden_size=32, num_layers=1, dropout=0.0, members=5, epochs=200, patience=20, batch_size=32, lr=5e-3,
                 seed=0):  # fmt: skip
        self.season, self.quantiles, self.strategy, self.lags, self.log = season, quantiles, strategy, lags, log
        self.hidden_size, self.num_layers, self.dropout, self.members = hidden_size, num_layers, dropout, members
        self.epochs, self.patience, self.batch_size, self.lr, self.seed = epochs, patience, batch_size, lr, seed
        super().__init__()

    def _fit(self, y, X, fh):
        horizon = int(max(fh.to_relative(self.cutoff)))
        self.forecaster_ = LSTMForecaster(horizon, **self.get_params())
        self._known_until, self._name = self.cutoff, y.name
        self._columns = None if X is None else list(X.columns)
        index = y.index
        steps = self._steps(index)
        if (np.diff(steps) > 1).any():
            index = self._index(np.arange(steps[0], 1))
        future = None if X is None else self._covariates(X, index)
        self.forecaster_.fit(y.reindex(index).to_numpy(np.float64), future=future)
        return self

    def _update(self, y, X=None, update_params=True):
        steps = self._steps(y.index)
        count = int(steps.max(initial=0))
        if count < 1:
            return self
        index = self._index(np.arange(1, count + 1))
        rows = y.reindex(index).to_numpy(np.float64)
        self.forecaster_.update(rows, future=self._future(X, index))
        self._known_until = self.cutoff
        return self

    def _predict(self, fh, X):
        steps = self._ahead(fh)
        index = self._index(np.arange(1, steps.max() + 1))
        found = self.forecaster_.forecast(len(index), future=self._future(X, index))
        return pd.Series(found[steps - 1], self._index(steps), name=self._name)

    def _predict_quantiles(self, fh, X, alpha):
        steps = self._ahead(fh)
        index = self._index(np.arange(1, steps.max() + 1))
        found = self.forecaster_.foretold(len(index), [self._rows(self._future(X, index), len(index))])[0][steps - 1]
        columns = pd.MultiIndex.from_product([self._get_varnames(), alpha])
        levels, table = self.forecaster_.levels, np.empty((len(steps), len(alpha)))
        for n, q in enumerate(alpha):
            if len(levels) < 2 and q not in levels:
                raise ValueError(f"alpha: expected one of {levels}, the quantiles that were learnt, got {q:g}")
            table[:, n] = found[:, levels.index(q)] if q in levels else \
                at_scores(found, levels, np.full(len(found), NormalDist().inv_cdf(q)))  # fmt: skip
        return pd.DataFrame(table, self._index(steps), columns)

    def _ahead(self, fh) -> np.ndarray:
        return np.asarray(fh.to_relative(self._known_until).to_numpy(), np.int64)

    def _steps(self, index) -> np.ndarray:
        """How far behind what is known."""
        return np.asarray(
            ForecastingHorizon(index, is_relative=False).to_relative(self._known_until).to_numpy(), np.int64
        )

    def _index(self, steps):
        return ForecastingHorizon(steps, is_relative=True).to_absolute_index(self._known_until)

    def _future(self, X, index):
        """Covariates of these rows, (n, C), NaN where not given; None without."""
        if not self.forecaster_.layout_.C:
            return None
        return np.full((len(index), self.forecaster_.layout_.C), np.nan) if X is None else self._covariates(X, index)

    def _covariates(self, X, index):
        return X.reindex(index)[self._columns].to_numpy(np.float64)

    @staticmethod
    def _rows(array, n):
        return np.zeros((n, 0)) if array is None else array

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Small ones, for sktime's tests."""
        small = {"hidden_size": 4, "members": 1, "epochs": 1}
        return [small, {**small, "strategy": "recursive", "season": 2, "quantiles": (0.1, 0.9), "log": False}]
