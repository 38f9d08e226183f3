"""What online learners are not given: it is named, and changes nothing."""

import math
import pickle

import numpy as np
import pytest
from learners import KINDS, SMALL, answer, learn, made, stream_of

import cylstm
from cylstm.online import AnomalyDetector, OnlineClassifier, OnlineRegressor


@pytest.fixture
def stream(rng):
    return stream_of(rng)


@pytest.mark.parametrize("x, error, message", [
    ({"a": 1.0, "c": 2.0}, ValueError, "x: expected features of the first, 'a', 'b', got 'c'"),
    ({"a": "1"}, TypeError, r"x\['a'\]: expected a number, got str '1'"),
    ({"a": math.inf}, ValueError, r"x\['a'\]: expected a finite number that float32 holds, got inf"),
    ({"a": 1, "b": -1e39}, ValueError, r"x\['b'\]: expected a finite number that float32 holds, got -1e\+39"),
    ({"a": 10**400}, ValueError, r"x\['a'\]: expected a finite number that float32 holds, got inf"),
    ({"a": np.array([1.0])}, TypeError, r"x\['a'\]: expected a number, got float64 \(1,\)"),
    ({"a": 1j}, TypeError, r"x\['a'\]: expected a number, got complex"),
    ([1.0, 2.0], TypeError, "x: expected a dict, as the first was, got list"),
    (None, TypeError, "x: expected a dict, as the first was, got NoneType"),
])  # fmt: skip
@KINDS
def test_what_is_wrong_in_x_is_named_and_changes_nothing(stream, kind, x, error, message):
    learner = made(kind)
    for one, y in stream[:9]:
        learn(learner, one, y)
    before = pickle.dumps(learner)
    for call in (learn, lambda learner, x, y: answer(learner, x)):
        with pytest.raises(error, match=message):
            call(learner, x, 500.0)
    assert pickle.dumps(learner) == before


@pytest.mark.parametrize("first, x, error, message", [
    ([1.0], [1.0, 2.0], ValueError, "x: expected 1 numbers, as the first had, got 2"),
    ([1.0], {"a": 1.0}, TypeError, "x: expected a sequence, as the first was, got dict"),
    ([1.0], "1", TypeError, "x: expected a sequence of 1 numbers, got str '1'"),
    (None, {}, ValueError, "x: expected at least one feature, got dict {}"),
    (None, "12", TypeError, "x: expected a dict or a sequence of numbers, got str '12'"),
    (None, 3.0, TypeError, "x: expected a dict or a sequence of numbers, got float 3.0"),
    (None, {1.0, 2.0}, TypeError, "x: expected a dict or a sequence of numbers, got set"),
    (None, np.ones((2, 2)), TypeError, r"x: expected a dict or a sequence of numbers, got float64 \(2, 2\)"),
])  # fmt: skip
def test_what_is_no_x_is_named(first, x, error, message):
    learner = OnlineRegressor(**SMALL)
    if first:
        learner.learn_one(first, 1.0)
    for call in (learner.predict_one, lambda x: learner.learn_one(x, 1.0)):
        with pytest.raises(error, match=message):
            call(x)


@pytest.mark.parametrize("kind, y, error, message", [
    ("number", "1", TypeError, "y: expected a number, got str '1'"),
    ("number", math.nan, ValueError, "y: expected a number, or None where it is not known, got nan"),
    ("number", math.inf, ValueError, "y: expected a finite number that float32 holds, got inf"),
    ("label", math.nan, TypeError, "y: expected a string, a finite number or a boolean, got float nan"),
    ("label", [1], TypeError, r"y: expected a string, a finite number or a boolean, got list \[1\]"),
])  # fmt: skip
def test_what_is_wrong_in_y_is_named_and_changes_nothing(kind, y, error, message):
    learner = made(kind)
    before = pickle.dumps(learner)
    with pytest.raises(error, match=message):
        learner.learn_one([1.0], y)
    assert pickle.dumps(learner) == before


@pytest.mark.parametrize("options, error, message", [
    (dict(window=4, every=5), ValueError, "every: expected at most window=4 steps, got 5"),
    (dict(window=0), ValueError, "window: expected an integer >= 1, got 0"),
    (dict(every=2.0), TypeError, "every: expected an integer, got float 2.0"),
    (dict(hidden_size=0), ValueError, "hidden_size: expected an integer >= 1, got 0"),
    (dict(num_layers=0), ValueError, "num_layers: expected an integer >= 1, got 0"),
    (dict(optimizer="adam"), TypeError, "optimizer: expected SGD, Adam or AdamW, got str 'adam'"),
    (dict(optimizer=cylstm.SGD(lr=cylstm.StepDecay(0.1))), ValueError, "optimizer: expected a number as its lr"),
    (dict(clip_norm=0), ValueError, "clip_norm: expected a number in"),
    (dict(seed=-1), ValueError, "seed: expected None, integers >= 0"),
])  # fmt: skip
@pytest.mark.parametrize("kind", [OnlineRegressor, OnlineClassifier, AnomalyDetector])
def test_wrong_options_are_named_at_once(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(**options)


@pytest.mark.parametrize("make, error, message", [
    (lambda: OnlineClassifier(1), ValueError, "classes: expected an integer >= 2, got 1"),
    (lambda: OnlineClassifier(["a"]), ValueError, "classes: expected at least two labels, all different"),
    (lambda: OnlineClassifier([1, True]), ValueError, "classes: expected at least two labels, all different"),
    (lambda: OnlineClassifier(["a", None]), TypeError, r"classes\[1\]: expected a string, a finite number"),
    (lambda: OnlineClassifier("ab"), TypeError, "classes: expected an integer, got str 'ab'"),
    (lambda: AnomalyDetector(0), ValueError, "memory: expected an integer >= 1, got 0"),
])  # fmt: skip
def test_wrong_options_of_one_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
