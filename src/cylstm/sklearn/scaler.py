"""`SequenceScaler`: `cylstm.scaling.Scaler` as a step of a pipeline."""

from __future__ import annotations

from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from cylstm.scaling import Scaler
from cylstm.sklearn.rows import all_or_nothing, as_sequences

__all__ = ["SequenceScaler"]


class SequenceScaler(TransformerMixin, BaseEstimator):
    """(x - center) / scale for each feature, over all steps of all sequences.

    Parameters
    ----------
    kind : "standard", "robust" or "min-max"
        As for `cylstm.scaling.Scaler`: NaN is left out of the statistics, and stays NaN; a feature without a spread has
        scale 1.

    Notes
    -----
    X is (N, T, F), a list of arrays (T_n, F), or (N, F), whose rows are sequences of F steps with one feature: of these
    all numbers have one center and one scale. (What has a scale for each column is `sklearn.preprocessing`'s.)

    Attributes
    ----------
    center_, scale_ : arrays (F,), float64
        (1,) for X (N, F).
    n_features_in_ : int
        F. `feature_names_in_` is there where X was a data frame, or a list with some.
    """

    def __init__(self, kind="standard"):
        self.kind = kind

    def fit(self, X, y=None):
        """Take the statistics of X; y is ignored. Returns itself. Raises TypeError or ValueError."""
        with all_or_nothing(self):
            scaler = Scaler(self.kind).fit(as_sequences(self, X, None, reset=True, allow_nan=True))
            self.center_, self.scale_ = scaler.center, scaler.scale
        return self

    def transform(self, X):
        """X scaled, of its shape: a list of arrays for a list. Floating types stay, integers become float64."""
        return self._of(X, "transform")

    def inverse_transform(self, X):
        """The way back."""
        return self._of(X, "inverse")

    def _of(self, X, way):
        check_is_fitted(self, "center_")
        x = as_sequences(self, X, None, reset=False, allow_nan=True)
        found = getattr(Scaler(self.kind, center=self.center_, scale=self.scale_), way)(x)
        return found[..., 0] if self._table else found

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "float16"]
        return tags
