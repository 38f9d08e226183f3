"""LSTMs as scikit-learn's estimators. Needs scikit-learn (pip install 'cylstm[sklearn]'); imported on request only.

from cylstm.sklearn import LSTMClassifier, LSTMRegressor, SequenceScaler
"""

try:
    import sklearn  # noqa: F401 (scikit-learn: imports are absolute)
    from sklearn.utils.validation import validate_data  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"cylstm.sklearn: expected scikit-learn >= 1.6 (pip install 'cylstm[sklearn]'), got: {error}"
    ) from None

from cylstm.sklearn.classifier import LSTMClassifier
from cylstm.sklearn.regressor import LSTMRegressor
from cylstm.sklearn.scaler import SequenceScaler

__all__ = ["LSTMClassifier", "LSTMRegressor", "SequenceScaler"]
