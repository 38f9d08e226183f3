"""Learning from a stream one step at a time: `predict_one`, then `learn_one`, as in river, with LSTMs."""

from cylstm.online.detector import AnomalyDetector
from cylstm.online.estimators import OnlineClassifier, OnlineRegressor

__all__ = ["AnomalyDetector", "OnlineClassifier", "OnlineRegressor"]
