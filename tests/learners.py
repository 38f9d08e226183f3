"""Learners of each kind, and what is asked of all of them alike: for test_online.py and test_online_refusals.py."""

import pytest

from cylstm.online import AnomalyDetector, OnlineClassifier, OnlineRegressor

I, H = 2, 3
SMALL = dict(hidden_size=H, window=6, every=2, seed=4)
KINDS = pytest.mark.parametrize("kind", ["number", "label", "score"])


def stream_of(rng):
    """40 steps of ({"b": ..., "a": ...}, y)."""
    return [({"b": float(b), "a": float(a)}, float(y)) for a, b, y in rng.normal([2, -30, 500], [1, 9, 70], (40, 3))]


def made(kind):
    return {"number": OnlineRegressor, "label": OnlineClassifier, "score": AnomalyDetector}[kind](**SMALL)


def learn(learner, x, y):
    if isinstance(learner, AnomalyDetector):
        learner.learn_one(x)
    else:
        learner.learn_one(x, y > 500 if isinstance(learner, OnlineClassifier) else y)


def answer(learner, x):
    if isinstance(learner, AnomalyDetector):
        return learner.score_one(x), learner.error_one(x)
    return learner.predict_one(x)
