"""Labels: targets and predictions that are called what a user calls them, in losses, files and copies."""

import pickle

import numpy as np
import pytest

from cylstm import Adam, Head, Model

I, H, B, T = 3, 6, 8, 5
WORDS = ["rain", "sun", "snow", "hail"]
KINDS = {"strings": WORDS, "integers": [7, -3, 40, 2], "numbers": [0.5, 2.0, -1.25, 9.0], "mixed": ["a", 3, 0.5, "bb"]}


@pytest.fixture(params=KINDS)
def labels(request):
    return KINDS[request.param]


def named(labels, ids):
    kind = None if len({type(label) for label in labels}) == 1 else object
    return np.array(labels, kind)[ids]


@pytest.mark.parametrize("output", ["sequence", "last"])
@pytest.mark.parametrize("horizon", [None, 2])
def test_labels_stand_for_classes(rng, labels, output, horizon):
    plain, model = (Model(I, H, 4, output=output, horizon=horizon, dtype="float64", seed=1, labels=given)
                    for given in (None, labels))  # fmt: skip
    x = rng.standard_normal((B, T, I))
    ids = rng.integers(0, 4, (B, *[T] * (output == "sequence"), *[2] * (horizon is not None)))
    y = named(labels, ids)
    for call in ("evaluate", "loss_and_gradients"):
        expected, found = (getattr(one, call)(x, given) for one, given in ((plain, ids), (model, y)))
        assert (expected == found) if call == "evaluate" else (expected.loss == found.loss)
    for one, given in ((plain, ids), (model, y.tolist())):
        one.fit(x, given, epochs=3, validation=(x, given), optimizer=Adam(0.02), progress=False)
    np.testing.assert_array_equal(plain.parameters.flat, model.parameters.flat)
    found = model.predict(x)
    assert found.dtype == y.dtype and found.shape == y.shape
    np.testing.assert_array_equal(found, named(labels, plain.predict(x)))


def test_rows_of_several_lengths(rng):
    model = Model(I, H, 4, dtype="float64", seed=1, labels=WORDS)
    plain = Model(I, H, 4, dtype="float64", seed=1)
    x, ids = rng.standard_normal((B, T, I)), rng.integers(0, 4, (B, T))
    lengths = np.array([5, 3, 1, 0, 2, 5, 4, 1])
    y = named(WORDS, ids).astype(object)
    y[np.arange(T) >= lengths[:, None]] = None  # nobody looks there
    expected = plain.evaluate(x, ids, lengths=lengths)
    assert model.evaluate(x, y, lengths=lengths) == expected
    rows = [row[:n] for row, n in zip(x, lengths, strict=True)]
    lists = [row[:n].tolist() for row, n in zip(y, lengths, strict=True)]
    assert model.evaluate(rows, lists)["loss"] == pytest.approx(expected["loss"], rel=1e-12)
    for found, row in zip(model.predict(rows), plain.predict(rows), strict=True):
        assert found.tolist() == [WORDS[n] for n in row]
    assert model.evaluate(x[0], y[0]) == plain.evaluate(x[0], ids[0])


def test_a_label_is_ignored_and_others_weighed(rng):
    model = Model(I, H, 4, dtype="float64", seed=1, labels=WORDS)
    plain = Model(I, H, 4, dtype="float64", seed=1)
    x, ids = rng.standard_normal((B, T, I)), rng.integers(0, 4, (B, T))
    expected = plain.evaluate(x, ids, ignore=2, class_weight={0: 3.0})
    assert model.evaluate(x, named(WORDS, ids), ignore="snow", class_weight={"rain": 3.0}) == expected
    y = named(WORDS, ids).astype(object)
    y[ids == 2] = "?"  # none of the labels
    assert model.evaluate(x, y, ignore="?", class_weight={"rain": 3.0}) == expected
    balanced = plain.evaluate(x, ids, ignore=2, class_weight="balanced")
    assert model.evaluate(x, y, ignore="?", class_weight="balanced") == balanced
    with pytest.raises(ValueError, match=r"class_weight: expected labels of 'rain', .*, got str 'fog'"):
        model.evaluate(x, y, ignore="?", class_weight={"fog": 2.0})


@pytest.mark.parametrize("axis", [False, True])
def test_two_labels_of_one_output(rng, axis):
    model = Model(I, H, 1, loss="binary_cross_entropy", output="last", labels=["no", "yes"], dtype="float64", seed=1)
    plain = Model(I, H, 1, loss="binary_cross_entropy", output="last", dtype="float64", seed=1)
    x, ids = rng.standard_normal((B, T, I)), rng.integers(0, 2, (B, 1))
    y = np.array(["no", "yes"])[ids if axis else ids[:, 0]]
    assert model.evaluate(x, y, class_weight={"yes": 2.5}) == plain.evaluate(x, ids, class_weight={1: 2.5})
    assert model.predict(x).tolist() == np.array(["no", "yes"])[plain.predict(x)].tolist()


def test_labels_of_whole_rows(rng):
    model, plain = (
        Model(I, H, 4, loss="ctc", dtype="float64", seed=1, labels=labels) for labels in (list(".abc"), None)
    )
    x = rng.standard_normal((3, T, I)) * 5
    assert model.evaluate(x, [list("ab"), list("c"), []]) == plain.evaluate(x, [[1, 2], [3], []])
    for found, row in zip(model.predict(x), plain.predict(x), strict=True):
        assert "".join(found) == "".join(".abc"[n] for n in row)


def test_of_several_heads_each_has_its_own(rng, tmp_path):
    model = Model(I, H, {"sky": Head(4, labels=WORDS), "wet": Head(2, labels=(True, False), output="last")}, seed=1)
    x = rng.standard_normal((B, T, I))
    y = {"sky": np.array(WORDS)[rng.integers(0, 4, (B, T))], "wet": rng.random(B) < 0.5}
    model.fit(x, y, epochs=1, progress=False, ignore={"sky": "sun"})
    model.save(tmp_path / "m.safetensors")
    for other in (Model.load(tmp_path / "m.safetensors"), pickle.loads(pickle.dumps(model))):
        found = other.predict(x)
        assert set(found["sky"].ravel()) <= set(WORDS) and found["wet"].dtype == bool
        assert other.heads == model.heads


def test_files_give_them_back(labels, tmp_path):
    model = Model(I, H, 4, labels=labels, seed=1)
    model.save(tmp_path / "m.safetensors")
    found = Model.load(tmp_path / "m.safetensors").labels
    assert found == tuple(labels) and list(map(type, found)) == list(map(type, labels))


@pytest.mark.parametrize("given, error, message", [
    ("abcd", TypeError, "labels: expected a list of 4 labels, got str 'abcd'"),
    (["a", "b"], ValueError, r"labels: expected 4 different labels, one for each class, got list \['a', 'b'\]"),
    (["a", "b", "c", "a"], ValueError, "labels: expected 4 different labels"),
    ([1, True, 2, 3], ValueError, "labels: expected 4 different labels"),
    (["a", "b", None, "c"], TypeError, "labels: expected strings, finite numbers or booleans, got NoneType None"),
    ([1.0, 2.0, float("nan"), 3.0], TypeError, "labels: expected strings, finite numbers or booleans, got float nan"),
])  # fmt: skip
def test_what_are_no_labels_is_named(given, error, message):
    with pytest.raises(error, match=message):
        Model(I, H, 4, labels=given)
    with pytest.raises(TypeError, match="labels: expected None with loss='mse' of 4 outputs, which are no classes"):
        Model(I, H, 4, labels=WORDS, loss="mse")
    with pytest.raises(TypeError, match="labels: expected None with loss='binary_cross_entropy' of 4 outputs"):
        Model(I, H, 4, labels=WORDS, loss="binary_cross_entropy")


@pytest.mark.parametrize("form", ["array", "list"])
def test_a_target_that_is_none_of_them_is_named(rng, form):
    model = Model(I, H, 4, labels=WORDS, seed=1)
    x, y = rng.standard_normal((B, T, I)), np.array(WORDS, object)[rng.integers(0, 4, (B, T))]
    y[3, 2] = "fog"
    where = r"y\[3, 2\]"
    if form == "list":
        x, y, where = list(x), list(y), r"y\[3\]\[2\]"
    before = model.parameters.flat.copy()
    for call in (model.fit, model.evaluate, model.loss_and_gradients):
        with pytest.raises(ValueError, match=f"{where}: expected one of 'rain', 'sun', 'snow', 'hail', got str 'fog'"):
            call(x, y)
    np.testing.assert_array_equal(model.parameters.flat, before)
    with pytest.raises(ValueError, match=r"y\[0, 0\]: expected one of 'rain', .* got int 0"):
        model.evaluate(x if form == "array" else np.stack(x), np.zeros((B, T), int))
