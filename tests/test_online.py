"""Learning from a stream: what is learnt is truncated BPTT, predictions change nothing, what is wrong is named."""

import copy
import math
import pickle

import numpy as np
import pytest
from learners import KINDS, SMALL, H, I, answer, learn, made, stream_of

import cylstm
from cylstm import SGD, NonFiniteLoss
from cylstm.online import AnomalyDetector, OnlineClassifier, OnlineRegressor


@pytest.fixture
def stream(rng):
    return stream_of(rng)


@pytest.mark.parametrize("window, every", [(6, 2), (5, 5), (4, 1), (7, 3), (30, 4)])
def test_it_is_truncated_bptt(stream, window, every):
    """Beside the same by hand: forward and backward over the last steps, errors of those since the last pass."""
    optimizer = cylstm.SGD(lr=0.5)
    learner = OnlineRegressor(H, window=window, every=every, optimizer=optimizer, clip_norm=None, seed=4)
    model = cylstm.Model(I, H, 1, loss="mse", seed=4)
    state, rows, states = model.initial_state(1), [], []
    for t, (x, y) in enumerate(stream):
        seen = np.array([[one["a"], one["b"]] for one, _ in stream[: t + 1]])
        known = np.array([one for _, one in stream[: t + 1]])
        deviation = seen.std(0) if t else np.ones(I)
        rows.append(((seen[-1] - seen.mean(0)) / deviation).astype("f4"))
        states.append(state)
        if t:
            output = model.step(rows[-1], state)[0]
            before = known[:-1]
            assert learner.predict_one(x) == pytest.approx(before.mean() + before.std() * output[0], rel=1e-5)
        state = model.step(rows[-1], state)[1]
        learner.learn_one(x, y)
        if (t + 1) % every:
            continue
        first = max(0, t + 1 - window)
        outputs, _, tape = model.forward(np.stack(rows[first:])[None], states[first])
        targets = ((known - known.mean()) / (known.std() or 1))[first:]
        slopes = 2 * (outputs[0, :, 0] - targets) / every
        slopes[:-every] = 0
        gradients = model.backward(tape, slopes.astype("f4")[None, :, None]).parameters
        optimizer.update(model.parameters, gradients)
        np.testing.assert_allclose(learner.model.parameters.flat, model.parameters.flat, rtol=1e-4, atol=1e-6)


@KINDS
def test_predictions_change_nothing(stream, kind):
    asked, silent = made(kind), made(kind)
    for x, y in stream:
        answer(asked, {"a": 1e6})
        answer(asked, x)
        learn(asked, x, y)
        learn(silent, x, y)
    np.testing.assert_array_equal(asked.model.parameters.flat, silent.model.parameters.flat)
    np.testing.assert_array_equal(np.stack(asked.state), np.stack(silent.state))
    assert answer(asked, stream[0][0]) == answer(silent, stream[0][0])


@KINDS
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_a_copy_goes_on_as_the_original_does(stream, kind, copied):
    one = made(kind)
    assert repr(copied(one)) == repr(one)
    for x, y in stream[:21]:
        learn(one, x, y)
    other = copied(one)
    for x, y in stream[21:]:
        assert answer(one, x) == answer(other, x)
        learn(one, x, y)
        learn(other, x, y)
    np.testing.assert_array_equal(one.model.parameters.flat, other.model.parameters.flat)
    before = answer(other, stream[0][0])
    for x, y in stream:
        learn(one, x, y)
    assert answer(other, stream[0][0]) == before


@KINDS
def test_dicts_in_any_order_and_sequences_are_the_same(stream, kind):
    learners = made(kind), made(kind), made(kind), made(kind)
    for x, y in stream:
        forms = x, dict(sorted(x.items())), [x["a"], x["b"]], np.array([x["a"], x["b"]])
        answers = [repr(answer(learner, form)) for learner, form in zip(learners, forms, strict=True)]
        assert len(set(answers)) == 1
        for learner, form in zip(learners, forms, strict=True):
            learn(learner, form, y)
    flats = [learner.model.parameters.flat for learner in learners]
    for flat in flats[1:]:
        np.testing.assert_array_equal(flat, flats[0])


@KINDS
def test_what_is_missing_counts_as_its_mean(stream, kind):
    learners = made(kind), made(kind), made(kind)
    for n, (x, y) in enumerate(stream):
        forms = [dict(x, b=None), dict(x, b=math.nan), {"a": x["a"]}] if n % 3 == 1 else [x] * 3
        for learner, form in zip(learners, forms, strict=True):
            learn(learner, form, y)
    for learner in learners:
        there = [x["b"] for n, (x, _) in enumerate(stream) if n % 3 != 1]
        assert learner.running.mean[1] == pytest.approx(np.mean(there))
        assert learner.running.deviation[1] == pytest.approx(np.std(there))
        assert answer(learner, {"a": 1.0}) == answer(learners[0], {"a": 1.0, "b": None})
    if kind == "number":
        mean = learners[0].running.mean[1]
        assert learners[0].predict_one({"a": 1.0}) == pytest.approx(learners[0].predict_one({"a": 1.0, "b": mean}))


@KINDS
def test_resets_begin_a_new_sequence(stream, kind):
    """And learn first from what has not been learnt from: sequences shorter than `every` teach something, too."""
    options = {**SMALL, "window": 50, "every": 50}
    learner, whole = type(made(kind))(**options), type(made(kind))(**options)
    learner.reset()
    for x, y in stream[:5]:
        learn(learner, x, y)
        learn(whole, x, y)
    before = learner.model.parameters.flat.copy()
    learner.reset()
    assert not np.array_equal(before, learner.model.parameters.flat)
    np.testing.assert_array_equal(before, whole.model.parameters.flat)
    assert not np.stack(learner.state).any() and not learner.steps
    after = learner.model.parameters.flat.copy()
    learner.reset()
    np.testing.assert_array_equal(after, learner.model.parameters.flat)
    if kind == "score":
        assert learner.score_one(stream[0][0]) == 0.0 and math.isnan(learner.error_one(stream[0][0]))
    for x, y in stream:
        learn(learner, x, y)
    assert len(learner.steps) == 40


def test_a_sequence_is_learnt(rng):
    """y is what x was three steps ago, on another scale: a memory is needed, and scaling."""
    learner = OnlineRegressor(16, window=12, every=4, seed=1)
    x = rng.standard_normal(3000)
    errors = []
    for t in range(3, len(x)):
        y = 1e5 + 1e3 * x[t - 3]
        errors.append(learner.predict_one([x[t]]) - y)
        learner.learn_one([x[t]], y)
    assert np.sqrt(np.mean(np.square(errors[-300:]))) < 300  # 1000 for the mean


def test_labels_are_learnt_as_they_come(rng):
    """The label is the sign of the last x but one, by a name that comes late."""
    learner = OnlineClassifier(3, 8, window=8, every=4, seed=1)
    x, hits = rng.standard_normal(2500), []
    assert learner.predict_one([0.0]) is None and learner.predict_proba_one([0.0]) == {}
    for t in range(1, len(x)):
        y = "up" if x[t - 1] > 0 else "down" if t < 800 else "low"
        shares = learner.predict_proba_one([x[t]])
        if t > 1:
            assert math.isclose(sum(shares.values()), 1) and learner.predict_one([x[t]]) == max(shares, key=shares.get)
        hits.append(learner.predict_one([x[t]]) == y)
        learner.learn_one([x[t]], y)
    assert set(shares) == {"up", "down", "low"}
    assert np.mean(hits[-300:]) > 0.9 and np.mean(hits[500:799]) > 0.9


def test_labels_may_be_named_at_the_start():
    learner = OnlineClassifier(["a", "b", "c"], **SMALL)
    assert learner.predict_proba_one([1.0]) == {}
    learner.learn_one([1.0], None)
    shares = learner.predict_proba_one([1.0])
    assert list(shares) == ["a", "b", "c"] and min(shares.values()) > 0.1
    with pytest.raises(ValueError, match=r"y: expected one of list \['a', 'b', 'c'\], 3 classes, got 'd'"):
        learner.learn_one([1.0], "d")
    numbers = OnlineClassifier(4, **SMALL)
    for y in (np.int64(3), 3, 3.0, np.float32(5), np.True_, np.str_("3")):
        numbers.learn_one([1.0], y)
    assert list(map(repr, numbers.ids)) == ["3", "5.0", "True", "'3'"]


@pytest.mark.parametrize("kind", ["number", "label"])
def test_a_step_without_a_target_is_a_step(stream, kind):
    """It moves the state on, and does not count."""
    learner, all_known = made(kind), made(kind)
    for n, (x, y) in enumerate(stream):
        if n in (3, 8, 9):
            learner.learn_one(x, None)
        else:
            learn(learner, x, y)
        learn(all_known, x, y)
        if n == 2:
            np.testing.assert_array_equal(learner.model.parameters.flat, all_known.model.parameters.flat)
        if n == 7:
            kept = learner.model.parameters.flat.copy()
        if n == 9:  # 8 and 9 are a pass of nothing
            np.testing.assert_array_equal(learner.model.parameters.flat, kept)
    assert not np.array_equal(learner.model.parameters.flat, all_known.model.parameters.flat)
    if kind == "number":
        assert learner.running_y.n == 37


def test_the_first_predictions():
    learner = OnlineRegressor(**SMALL)
    assert learner.predict_one({"a": 1.0}) == 0.0
    learner.learn_one({"a": 1.0}, None)
    assert learner.predict_one({"a": 1.0}) == 0.0
    learner.learn_one({"a": 1.0}, 7)
    assert learner.predict_one({"a": 1e30}) == 7.0


def test_scores_are_ranks_among_the_last_errors(rng):
    learner = AnomalyDetector(memory=20, **SMALL)
    errors = []
    for n, x in enumerate(rng.standard_normal((60, I))):
        error, score = learner.error_one(x), learner.score_one(x)
        last = errors[-20:]
        assert math.isnan(error) == (n == 0)
        assert score == (0.0 if n == 0 else sum(one < error for one in last) / (len(last) + 1))
        errors += [] if n == 0 else [error]
        learner.learn_one(x)
    assert list(learner.errors) == errors[-20:] and learner.ordered == sorted(errors[-20:])


def test_what_breaks_the_pattern_is_an_anomaly(rng):
    """Each value is one that the stream has had: strange is the moment alone."""
    learner = AnomalyDetector(hidden_size=16, seed=1)
    wave = np.sin(2 * np.pi * np.arange(3000) / 20) + 0.05 * rng.standard_normal(3000)
    strange = set(range(1510, 3000, 100))
    scores = []
    for t, value in enumerate(wave):
        x = [wave[t - 7] if t in strange else value, 5.0]  # and a feature that never changes
        scores.append(learner.score_one(x))
        learner.learn_one(x)
    scores = np.array(scores)
    there = np.array([t in strange for t in range(3000)])
    assert np.median(scores[there]) > 0.97
    assert 0.3 < np.median(scores[1500:][~there[1500:]]) < 0.6
    assert learner.error_one([wave[0], 5.0 + 1e-3]) > learner.error_one([wave[0], 5.0])


def test_of_what_is_missing_no_error_counts():
    learner = AnomalyDetector(**SMALL)
    for x in ([1.0, None], [2.0, None], [None, None], [3.0, None]):
        assert learner.score_one([None, 4.0]) == 0.0 and math.isnan(learner.error_one([None, 4.0]))
        learner.learn_one(x)
    assert len(learner.errors) == 2
    assert math.isfinite(learner.error_one([2.0, 7.0])) and learner.error_one([2.0, 7.0]) == learner.error_one(
        [2.0, None]
    )


def test_missing_numbers_are_no_targets(rng):
    """Nothing is learnt of a feature that is not there; steps without any are none to learn from."""
    learner = AnomalyDetector(**{**SMALL, "optimizer": cylstm.SGD(lr=0.1)})
    learner.learn_one([1.0, 2.0])
    learner.learn_one([2.0, None])
    before = learner.model.parameters["head.weight"].copy(), learner.model.parameters["head.bias"].copy()
    for a in rng.standard_normal(10):
        learner.learn_one([a, None])
    for now, old in zip((learner.model.parameters[f"head.{name}"] for name in ("weight", "bias")), before, strict=True):
        assert np.array_equal(now[1], old[1]) and not np.array_equal(now[0], old[0])
    learner.learn_one([0.5, None])
    before = learner.model.parameters.flat.copy()
    for _ in range(10):
        learner.learn_one([None, None])
    np.testing.assert_array_equal(learner.model.parameters.flat, before)


def test_errors_are_in_deviations_that_count_x_itself():
    learner = AnomalyDetector(**SMALL)
    learner.learn_one([1.0])  # the mean is the forecast while nothing has varied
    assert learner.error_one([3.0]) == learner.error_one([-1e9]) == 2.0 and learner.error_one([1.0]) == 0.0


def test_learning_that_diverges_is_an_error(stream):
    learner = OnlineRegressor(**{**SMALL, "optimizer": cylstm.SGD(lr=1e38), "clip_norm": None})
    with pytest.raises(cylstm.NonFiniteLoss, match="expected"):
        for x, y in stream:
            learner.learn_one(x, y)


def test_no_number_is_too_large_or_too_steady():
    """What float32 holds is scaled in float64; what never changes has no scale."""
    learner = OnlineRegressor(**SMALL)
    for n in range(12):
        learner.learn_one([3e38 * (-1) ** n, 1e-45 * n, 7.0], 3e38 * (-1) ** n)
        assert math.isfinite(learner.predict_one([-3e38, 0.0, 1e30]))
    assert np.isfinite(np.stack([step.x for step in learner.steps])).all()


class Named(np.ndarray):
    """As a pandas Series: numbers with an index of names."""

    def __new__(cls, names, values):
        made = np.array(values, float).view(cls)
        made.index = names
        return made

    def to_dict(self):
        return dict(zip(self.index, self, strict=True))


def test_names_of_a_series_count_and_not_its_order():
    learner = OnlineRegressor(4, window=4, every=2, seed=0)
    for k in range(20):
        learner.learn_one(Named(["a", "b"], [k % 7, 100 + k % 3]), float(k % 7))
    expected = learner.predict_one({"a": 3.0, "b": 101.0})
    assert learner.predict_one(Named(["b", "a"], [101.0, 3.0])) == expected
    with pytest.raises(ValueError, match="x: expected each feature once"):
        learner.predict_one(Named(["a", "a"], [1.0, 2.0]))
    counted = OnlineRegressor(4, window=4, every=2, seed=0)
    counted.learn_one(Named([0, 1], [1.0, 2.0]), 1.0)
    assert counted.features.names is None


def test_what_has_diverged_gives_no_answer():
    learner = OnlineClassifier(["u", "v"], 4, window=4, every=2, seed=0, optimizer=SGD(1e38), clip_norm=None)
    raised = 0
    for k in range(8):
        try:
            learner.learn_one([float(k)], "uv"[k % 2])
        except NonFiniteLoss:
            raised += 1
    assert raised
    for ask in (learner.predict_one, learner.predict_proba_one):
        with pytest.raises(NonFiniteLoss, match="outputs: expected finite numbers"):
            ask([1.0])


def test_a_jump_by_many_orders_is_learnt_from():
    detector = AnomalyDetector(hidden_size=4, window=4, every=1, seed=0)
    for k in range(10):
        detector.learn_one([1e-10 * (k % 2)])
    detector.learn_one([1e30])
    assert detector.running.n.max() == 11
