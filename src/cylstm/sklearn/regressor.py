"""`LSTMRegressor`: numbers for each sequence, or for each step."""

from __future__ import annotations

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array

from cylstm import losses
from cylstm.checks import check_finite, describe, refuse_masked
from cylstm.scaling import Scaler, center_and_scale
from cylstm.sklearn.base import BaseLSTM
from cylstm.sklearn.rows import as_steps, one_behind_the_other
from cylstm.training.optim import Adam

__all__ = ["LSTMRegressor"]


class LSTMRegressor(RegressorMixin, BaseLSTM):
    """Numbers of sequences: an LSTM, a linear layer, and a squared, absolute or Huber's error.

    The model is trained on targets with mean 0 and standard deviation 1, by those of the first data that it sees
    (`target_scaler_`), and predictions come back in the units of y: so `history_`, and Huber's delta, are in standard
    deviations.

    Parameters
    ----------
    loss : "mse", "mae", "huber" or a Loss
        As for `cylstm.Model`: squared, absolute or Huber's, `losses.Huber(delta)`.
    hidden_size, num_layers, bidirectional, dropout, output, epochs, batch_size, learning_rate, optimizer, clip_norm
        As for `LSTMClassifier`.
    early_stopping, validation_fraction, n_iter_no_change
        As there; sequences are kept without regard to their targets.
    warm_start, random_state, verbose, dtype, model_options
        As there.

    Attributes
    ----------
    model_, history_, n_iter_, n_features_in_, feature_names_in_
        As for `LSTMClassifier`.
    target_scaler_ : cylstm.scaling.Scaler
        Of the targets.
    """

    _losses = (losses.SquaredError, losses.AbsoluteError, losses.Huber)

    def __init__(self, hidden_size=64, *, num_layers=1, bidirectional=False, dropout=0.0, output="last", loss="mse",
                 epochs=50, batch_size=32, learning_rate=1e-2, optimizer=Adam, clip_norm=5.0, early_stopping=False,
                 validation_fraction=0.1, n_iter_no_change=10, warm_start=False, random_state=None, verbose=False,
                 dtype="float32", model_options=None):  # fmt: skip
        self._keep(locals())

    def partial_fit(self, X, y, sample_weight=None):
        """One epoch over some data, from where the model is; the first call makes it."""
        again = hasattr(self, "model_")
        return self._train(X, y, sample_weight, 1, again=again, known=again)

    def score(self, X, y, sample_weight=None) -> float:
        """R², averaged over outputs, of all sequences or, with output="sequence", of all steps. sample_weight : as for
        `fit`."""
        return self._score(r2_score, X, y, sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _targets(self, y, x, weights, known):
        """Scaled numbers: (N, O), or of steps (N, T, O) or a list of arrays (T_n, O)."""
        refuse_masked("y", y)
        if self.output == "last":
            numbers = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y", estimator=self)
            if len(numbers) != len(x):
                raise ValueError(f"y: expected {len(x)} rows, as many as X has sequences, got {len(numbers)}")
            numbers, flat = with_outputs("y", numbers, 1)
        elif isinstance(x, list):
            rows = [with_outputs(f"y[{n}]", row, 1) for n, row in enumerate(as_steps("y", y, x))]
            numbers, flat = [row for row, _ in rows], rows[0][1]
            if len({row.shape[1:] for row in numbers}) > 1 or len({bare for _, bare in rows}) > 1:
                raise ValueError("y: expected arrays (T_n,), or (T_n, O) of one O, got several kinds")
        else:
            numbers, flat = with_outputs("y", as_steps("y", y, x), 2)
        if not known:
            self.target_scaler_, self._flat = scaler_of(numbers, weights, self.output), flat
        outputs = len(self.target_scaler_.center)
        width = numbers[0].shape[-1]
        if width != outputs or flat != self._flat:
            before, now = (f"{size} outputs" + bare * ", without an axis" for size, bare in
                           ((outputs, self._flat), (width, flat)))  # fmt: skip
            raise ValueError(f"y: expected {before}, as before, got {now}")
        return self.target_scaler_.transform(numbers)

    def _outputs(self):
        return len(self.target_scaler_.center)

    def _found(self, numbers):
        listed = isinstance(numbers, list)
        found = self.target_scaler_.inverse(
            [row.astype(np.float64) for row in numbers] if listed else numbers.astype(np.float64)
        )
        if not self._flat:
            return found
        return [row[:, 0] for row in found] if listed else found[..., 0]


def with_outputs(name, y, ndim: int) -> tuple[np.ndarray, bool]:
    """Finite numbers with an axis of outputs behind `ndim` others, float64, and whether they came without."""
    if y.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected numbers, got {describe(y)}")
    check_finite(name, y, np.float64)
    flat = y.ndim == ndim
    y = y[..., None] if flat else y
    if y.ndim != ndim + 1 or not y.shape[-1]:
        raise ValueError(f"{name}: expected {ndim} axes, and perhaps one of outputs, got {describe(y)}")
    return y.astype(np.float64), flat


def scaler_of(numbers, weights, output) -> Scaler:
    """Mean and standard deviation of targets that count with weights: what has none of it changes nothing."""
    flat = numbers if output == "last" else one_behind_the_other(numbers)
    if weights is None:
        return Scaler().fit(flat)
    weights = np.asarray(weights if output == "last" else one_behind_the_other(weights), np.float64)
    if not (weights >= 0).all():
        raise ValueError(f"sample_weight: expected numbers >= 0, got {weights.min()}")
    check_finite("sample_weight", weights, np.float64)
    flat, weights = flat[weights > 0], weights[weights > 0] / weights.max()

    def measured(numbers):
        mean = np.average(numbers, weights=weights)
        return mean, np.sqrt(np.average((numbers - mean) ** 2, weights=weights))

    both = [center_and_scale(f"y[..., {n}]", numbers, measured) for n, numbers in enumerate(flat.T)]
    center, scale = np.transpose(both)
    return Scaler(center=center, scale=scale)
