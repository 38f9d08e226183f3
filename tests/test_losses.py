"""The losses as objects: the table of names, what files hold of them, targets, metrics, a model that is given one."""

import copy
import dataclasses
import pickle
from typing import ClassVar

import numpy as np
import pytest

from cylstm import Adam, Cosine, Model, losses
from cylstm.losses import (
    CTC,
    AbsoluteError,
    BinaryCrossEntropy,
    CrossEntropy,
    Gaussian,
    Huber,
    Loss,
    Quantiles,
    SquaredError,
)

V, H, O = 5, 4, 6


@dataclasses.dataclass(frozen=True)
class Scaled(SquaredError):
    """A loss with a parameter, which its kernel has no use for."""

    name: ClassVar[str] = "scaled"
    by: float = 2.0


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(losses.by_name, "scaled", Scaled())


def test_a_name_stands_for_an_object():
    for name, loss in losses.by_name.items():
        assert losses.as_loss(name) == loss == losses.as_loss(loss.config) and losses.as_loss(loss) is loss
        assert loss.name == name and (loss.config == name) == (not loss.parameters)
    kinds = [CrossEntropy, SquaredError, AbsoluteError, Huber, Quantiles, Gaussian, BinaryCrossEntropy, CTC]
    assert [type(loss) for loss in losses.by_name.values()] == kinds


def test_a_loss_with_parameters_is_held_with_them(registered):
    loss = Scaled(by=3.0)
    assert loss.config == {"name": "scaled", "by": 3.0} and loss.parameters == (3.0,)
    assert losses.as_loss(loss.config) == loss != losses.as_loss("scaled")
    assert SquaredError().parameters == ()


@pytest.mark.parametrize("given", ["hinge", None, 3, [], {}, {"name": "hinge"}, {"name": ["mse"]}, SquaredError])
def test_what_is_no_loss_is_named(given):
    with pytest.raises(ValueError, match=r"^loss: expected one of 'cross_entropy', 'mse', .*, or a Loss, got "):
        Model(V, H, O, loss=given)
    with pytest.raises(TypeError, match="loss: expected for 'mse' no parameters, got str 'by'"):
        losses.as_loss({"name": "mse", "by": 1})


@pytest.mark.parametrize("name", losses.by_name)
def test_a_model_takes_the_object_for_the_name(rng, name):
    named, given = (Model(V, H, O, loss=loss, seed=1) for loss in (name, losses.by_name[name]))
    assert (
        given.loss is losses.by_name[name]
        and given.config == named.config
        and losses.as_loss(given.config["loss"]).name == name
    )
    assert repr(given) == repr(named)
    x = rng.integers(0, V, (2, 6))
    y = rng.integers(0, O, (2, 6)) if given.loss.of_classes else rng.random((2, 6, *given.loss.width(O)))
    y = [[1, 2], [3]] if given.loss.of_rows else y
    assert given.evaluate(x, y) == named.evaluate(x, y)
    for model in (given, named):
        model.fit(x, y, epochs=1, progress=False)
    np.testing.assert_array_equal(given.parameters.flat, named.parameters.flat)


def test_a_models_loss_goes_into_files_and_copies(tmp_path, registered):
    model = Model(V, H, O, loss=Scaled(by=4.0), seed=1)
    model.save(tmp_path / "m.safetensors")
    for other in (Model.load(tmp_path / "m.safetensors"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.loss == Scaled(by=4.0) and other.config == model.config
        np.testing.assert_array_equal(other.parameters.flat, model.parameters.flat)


def test_a_file_with_other_parameters_is_damaged(tmp_path, registered, monkeypatch):
    Model(V, H, O, loss=Scaled(), seed=1).save(tmp_path / "m.safetensors")
    monkeypatch.setitem(losses.by_name, "scaled", SquaredError())
    with pytest.raises(ValueError, match="expected the header of a cylstm model, got one that is damaged"):
        Model.load(tmp_path / "m.safetensors")


def test_a_copied_model_may_have_a_loss_that_has_no_name():
    assert copy.deepcopy(Model(V, H, O, loss=Scaled(by=4.0), seed=1)).loss == Scaled(by=4.0)


@pytest.mark.parametrize(("loss", "y", "error", "message"), [
    (CrossEntropy(), np.zeros(2), TypeError, r"y: expected integer classes, got float64 \(2,\)"),
    (CrossEntropy(), np.zeros(2, bool), TypeError, "y: expected integer classes, got bool"),
    (CrossEntropy(), np.array([0, O]), ValueError, r"y\[1\]: expected ids in 0..5, got 6"),
    (CrossEntropy(), np.array([-2, 9]), ValueError, r"y\[0\]: expected ids in 0..5, got -2"),
    (CrossEntropy(), np.array([0, 2**64 - 1], np.uint64), ValueError, r"y\[1\]: expected ids in 0..5, got 1844674"),
    (SquaredError(), np.zeros((2, O), complex), TypeError, "y: expected numbers, got complex128"),
    (BinaryCrossEntropy(), np.full((2, O), "1"), TypeError, "y: expected numbers, got <U1"),
    (BinaryCrossEntropy(), np.array([[0, 1, 1.5]]), ValueError, r"y\[0, 2\]: expected a target in \[0, 1\], got 1.5"),
])  # fmt: skip
def test_targets_that_a_loss_does_not_take_are_named(loss, y, error, message):
    with pytest.raises(error, match=message):
        loss.check_kind("y", y)
        loss.converted("y", y, O, np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_targets_become_what_kernels_take(dtype):
    classes = np.array([2, 0, 1], np.uint8)
    got = CrossEntropy().converted("y", classes, O, dtype)
    assert got.dtype == np.int64 and got.tolist() == [2, 0, 1]
    numbers = np.array([[1, 0], [0, 1], [1, 1]], bool).T
    for loss in (SquaredError(), BinaryCrossEntropy()):
        got = loss.converted("y", numbers, 3, dtype)
        assert got.dtype == dtype and got.flags.c_contiguous and got.tolist() == [[1, 0, 1], [0, 1, 1]]
        assert got.shape[1:] == loss.width(3)
    assert CrossEntropy().width(O) == ()


def test_metrics_are_means_by_weight():
    assert SquaredError().metrics(6.0, 4.0, 0.0, O) == {"loss": 1.5}
    assert BinaryCrossEntropy().metrics(6.0, 4.0, 18.0, O) == {"loss": 1.5, "accuracy": 0.75}
    found = CrossEntropy().metrics(6.0, 4.0, 1.0, O)
    assert found == {"loss": 1.5, "accuracy": 0.25, "perplexity": pytest.approx(np.exp(1.5))}
    assert np.isfinite(CrossEntropy().metrics(1e4, 1.0, 0.0, O)["perplexity"])


def test_decisions_and_probabilities():
    outputs = np.array([[1.0, -800.0, 1.5], [0.0, 800.0, -1.0]])
    np.testing.assert_array_equal(CrossEntropy().decide(outputs), [2, 1])
    np.testing.assert_array_equal(BinaryCrossEntropy().decide(outputs), [[1, 0, 1], [0, 1, 0]])
    means = Gaussian(floor=0.25).decide(np.array([[1.0, 0.0, 3.0, np.log(2.0)]]))
    np.testing.assert_array_equal(means, [[1, 3]])
    assert SquaredError().decide(outputs) is outputs and SquaredError().probabilities is None
    np.testing.assert_allclose(CrossEntropy().probabilities(outputs).sum(axis=1), 1)
    np.testing.assert_allclose(BinaryCrossEntropy().probabilities(outputs)[1], [0.5, 1, 1 / (1 + np.e)])


def test_only_classes_can_be_generated():
    for loss in losses.by_name.values():
        if not loss.of_classes:
            with pytest.raises(ValueError, match="generate: expected a model of one direction with cross_entropy"):
                Model(6, H, 6, loss=loss).generate([1], 3)


def test_the_base_is_a_loss_of_numbers():
    assert Loss().width(O) == (O,) and Loss().metrics(3.0, 2.0, 0.0, O) == {"loss": 1.5}


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: Huber(0), ValueError, r"delta: expected a number in \(0, inf\), got 0"),
    (lambda: Huber("1"), TypeError, "delta: expected a number, got str"),
    (lambda: Quantiles(0.5), TypeError, "quantiles: expected a list of numbers, got float"),
    (lambda: Quantiles([]), ValueError, "quantiles: expected increasing numbers, at least one"),
    (lambda: Quantiles([0.5, 0.1]), ValueError, "quantiles: expected increasing numbers"),
    (lambda: Quantiles([0.1, 1.0]), ValueError, r"quantiles: expected a number in \(0, 1\), got 1"),
    (lambda: Model(V, H, 4, loss="quantiles"), ValueError, "output_size: expected a multiple of 3, .*, got 4"),
    (lambda: Model(V, H, 4, loss={"name": "huber", "by": 3}), TypeError, "expected for 'huber' delta, got str 'by'"),
])  # fmt: skip
def test_bad_parameters_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_quantiles_are_learnt_and_kept(tmp_path):
    """Of noise: the quantiles of its distribution, in order, for two numbers at once."""
    rng = np.random.default_rng(1)
    x, noise = rng.standard_normal((200, 5, 1)), rng.exponential(1, (200, 5, 2)) * [1, 10]
    loss = Quantiles([0.25, 0.5, 0.9])
    model = Model(1, 2, 6, loss=loss, seed=1)
    model.fit(x, noise, epochs=40, optimizer=Adam(Cosine(0.1, epochs=40)), progress=False)
    below = (noise[..., None] < model(x)[0].reshape(200, 5, 2, 3)).mean(axis=(0, 1))
    np.testing.assert_allclose(below, [loss.quantiles] * 2, atol=0.04)
    model.save(tmp_path / "m")
    assert Model.load(tmp_path / "m").loss == loss and copy.deepcopy(model).loss == loss


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gaussian_says_how_sure_it_is(rng, dtype):
    """The deviation belongs to the density that is learnt, also where the variance is more than float32 holds."""
    model = Model(V, H, O, loss=Gaussian(floor=0.25), dtype=dtype, seed=1)
    x, y = rng.integers(0, V, (2, 6)), rng.standard_normal((2, 6, O // 2))
    outputs, _ = model(x)
    mean, deviation = model.predict(x), model.loss.deviation(outputs)
    assert mean.shape == deviation.shape == y.shape and deviation.dtype == dtype
    density = np.exp(-(((y - mean) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))
    assert model.evaluate(x, y)["loss"] == pytest.approx(-np.log(density).mean(), rel=1e-5)
    assert model.loss.deviation(np.array([[0.0, 100.0]], dtype))[0, 0] == pytest.approx(np.exp(50), rel=1e-4)


@pytest.mark.parametrize("loss", [CrossEntropy(), BinaryCrossEntropy(), CTC()])
def test_of_a_piece_the_place_in_the_whole_is_named(loss):
    whole = np.ones((20, 9), "float64" if loss.name == "binary_cross_entropy" else "int64")
    whole[13, 7] = 5
    piece = (slice(10, 20), slice(5, 9))
    with pytest.raises(ValueError, match=r"^y\[13, 7\]: expected .*, got 5"):
        loss.check_values("y", whole[piece], 4, None, piece)
    loss.check_values("y", whole[piece], 4, whole[piece] != 5, piece)
