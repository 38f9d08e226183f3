"""LSTMs as a forecasting model of darts (the extra "darts"): `cylstm.forecast.for_darts.DartsLSTM`."""

from __future__ import annotations

import numpy as np
from darts.models import SKLearnModel
from darts.utils.likelihood_models.sklearn import MultiQuantileRegression
from sklearn.base import clone

from cylstm import losses
from cylstm.checks import describe
from cylstm.scaling import Scaler
from cylstm.sklearn import LSTMRegressor

__all__ = ["DartsLSTM"]


class DartsLSTM(SKLearnModel):
    """Forecasts of darts' series by an `LSTMRegressor`, which sees the lags as steps in the order of time.

    darts' own `SKLearnModel` hands a regressor one row of numbers for each forecast: all components at the first lag,
    at the second, ..., then covariates likewise, then static ones. Here they are sequences (N, T, F): T are all lags
    that occur, sorted; the features of a step are the components of series, past and future covariates at that lag,
    each scaled to mean 0 and standard deviation 1 over what it was trained on. What has no number at a step (the series
    itself at the lags 0, 1, ... of future covariates) is 0 there, and one more feature says 1 where it has one; static
    covariates are features of every step. One LSTM gives all steps of a chunk, of all components, at once.

    Parameters
    ----------
    lags, lags_past_covariates, lags_future_covariates, output_chunk_length, output_chunk_shift, add_encoders,
    use_static_covariates, random_state
        As for darts' `SKLearnModel`.
    model : LSTMRegressor, optional
        With output="last"; by default LSTMRegressor(random_state=random_state). It is copied and stays as it is. Its
        own random_state says what it learns: beside a model that is given, the one above is for darts' draws alone.
    quantiles : list of floats, optional
        Symmetric, 0.5 among them, which are learnt by the pinball loss in the place of the model's "mse": darts draws
        `num_samples` from them, or gives them themselves by `predict_likelihood_parameters=True`.

    Raises TypeError or ValueError for another model; numbers that are missing in a series are errors of `fit` and
    `predict`.

    Examples
    --------
    >>> from cylstm.sklearn import LSTMRegressor
    >>> from cylstm.forecast.for_darts import DartsLSTM
    >>> from darts.datasets import AirPassengersDataset
    >>> model = DartsLSTM(lags=24, output_chunk_length=6, model=LSTMRegressor(16, epochs=2, random_state=0))
    >>> len(model.fit(AirPassengersDataset().load()).predict(12))
    12
    """

    def __init__(self, lags=None, lags_past_covariates=None, lags_future_covariates=None, output_chunk_length=1,
                 output_chunk_shift=0, add_encoders=None, model=None, use_static_covariates=True, quantiles=None,
                 random_state=None):  # fmt: skip
        model = LSTMRegressor(random_state=random_state) if model is None else model
        if not isinstance(model, LSTMRegressor):
            raise TypeError(f"model: expected a cylstm.sklearn.LSTMRegressor, got {describe(model)}")
        if model.output != "last":
            raise ValueError(f"model: expected output='last', got {model.output!r}")
        model = clone(model)  # several may be made with the same one
        if quantiles is not None:
            if losses.as_loss(model.loss).name != "mse":
                raise ValueError(
                    f"model: expected loss='mse' beside quantiles, which have their own, got {model.loss!r}"
                )
            self._likelihood = MultiQuantileRegression(output_chunk_length, quantiles)
            model = QuantileLSTM(**{**model.get_params(), "loss": losses.Quantiles(self._likelihood.quantiles)})
        super().__init__(lags, lags_past_covariates, lags_future_covariates, output_chunk_length, output_chunk_shift,
                         add_encoders, model, use_static_covariates=use_static_covariates,
                         random_state=random_state)  # fmt: skip

    def _format_samples(self, samples, labels=None):
        """darts' hook between its table and the regressor; labels are there in `fit` alone."""
        steps, components = self._places()
        lagged, static = samples[:, : len(steps)], samples[:, len(steps) :]
        T, C = steps.max() + 1, components.max() + 1
        there = np.zeros((T, C), bool)
        there[steps, components] = True
        x = np.full((len(samples), T, C), np.nan)
        x[:, steps, components] = lagged
        x = np.concatenate([x, np.broadcast_to(static[:, None], (len(x), T, static.shape[1]))], axis=2)
        if labels is not None:
            self.feature_scaler_ = Scaler().fit(x)
        x = self.feature_scaler_.transform(x)
        x[:, :, :C][:, ~there] = 0
        known = np.unique(there[:, ~there.all(axis=0)], axis=1)
        return np.concatenate([x, np.broadcast_to(known, (len(x), *known.shape))], axis=2), labels

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """The step and the component of each of darts' columns that has a lag: these are sorted by lag, then by
        component, of the series, then of past and of future covariates."""
        columns, before = [], 0
        for kind in ("target", "past", "future"):
            if kind not in self.lags:
                continue
            width = self.input_dim[kind]
            each = self.component_lags[kind].values() if kind in self.component_lags else [self.lags[kind]] * width
            columns += sorted((lag, before + n) for n, lags in enumerate(each) for lag in lags)
            before += width
        lags, components = np.array(columns).T
        return np.searchsorted(np.unique(lags), lags), components


class QuantileLSTM(LSTMRegressor):
    """Quantiles of what y is, as darts reads them: (N, Q) of targets (N,), (Q, N, O) of targets (N, O)."""

    _losses = (losses.Quantiles,)

    def _outputs(self):
        return len(self.target_scaler_.center) * len(self.loss.quantiles)

    def _found(self, numbers):
        outputs = len(self.target_scaler_.center)
        of_each = np.sort(numbers.astype(np.float64).reshape(len(numbers), outputs, -1))  # (N, O, Q), none crossed
        found = self.target_scaler_.inverse(np.moveaxis(of_each, 2, 0))
        return found[..., 0].T if self._flat else found
