"""Keras's files with other activations, of cells and of dense layers: each by the formula of the file's version."""

import zipfile

import h5py
import numpy as np
import pytest
from keras_by_hand import archive, arrays, by_layers, dense, layer, lstm, old, sequential, weights

import cylstm
from cylstm import exchange

X = np.random.default_rng(8).standard_normal((3, 5, 2))
CONTENT = arrays(lstm=(2, 4), dense=(4, 3), dense_1=(3, 2))

FORMULAS = {
    "linear": lambda z: z, "relu": lambda z: np.maximum(z, 0), "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "elu": lambda z: np.where(z > 0, z, np.exp(z) - 1), "softplus": lambda z: np.log(1 + np.exp(z)),
    "softsign": lambda z: z / (1 + abs(z)), "exponential": np.exp, "relu6": lambda z: np.clip(z, 0, 6),
    "selu": lambda z: 1.05070098 * np.where(z > 0, z, 1.67326324 * (np.exp(z) - 1)),
    "hard_tanh": lambda z: np.clip(z, -1, 1), "leaky_relu": lambda z: np.where(z > 0, z, 0.2 * z),
    "hard_sigmoid": lambda z: np.clip(z + 3, 0, 6) / 6,
}  # fmt: skip
OF_KERAS_2 = FORMULAS | {"hard_sigmoid": lambda z: np.clip(0.2 * z + 0.5, 0, 1)}


def by_hand(x, kernel, recurrent, bias, gate, other):
    """Keras's LSTMCell, as in test_exchange_keras.py."""
    h = c = np.zeros((len(x), len(recurrent)))
    outputs = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = gate(f) * c + gate(i) * other(g)
        h = gate(o) * other(c)
        outputs.append(h)
    return np.stack(outputs, 1)


def written(path, version, *layers):
    """A file of Keras 2 or 3."""
    if version == 3:
        return archive(path / "m.keras", sequential(*layers), CONTENT)
    return old(path / "m.h5", sequential(*layers), by_layers(CONTENT))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", FORMULAS)
def test_cells_and_dense_layers_have_the_versions_formula(name, version, tmp_path):
    formulas = FORMULAS if version == 3 else OF_KERAS_2
    function, groups = formulas[name], by_layers(CONTENT)
    W, b, V, d = *groups["dense"], *groups["dense_1"]
    in_cell = "softsign" if name == "exponential" else name  # which grows without end
    for gate, other in (("hard_sigmoid", in_cell), (in_cell, "tanh")):
        path = written(tmp_path, version, lstm(4, recurrent_activation=gate, activation=other),
                       dense(3, activation=name), dense(2, "dense_1"))  # fmt: skip
        expected = by_hand(X, *groups["lstm"], formulas[gate], formulas[other])
        expected = function(expected @ W + b) @ V + d
        scale = abs(expected).max()
        np.testing.assert_allclose(exchange.load(path)(X.astype("f4"))[0] / scale, expected / scale, rtol=0, atol=1e-6)


def test_both_directions(tmp_path):
    one = lstm(4, recurrent_activation="hard_sigmoid", activation="relu")
    content = {f"layers/bidirectional/{way}_layer/{name.removeprefix('layers/lstm/')}": array
               for way in ("forward", "backward") for name, array in arrays(lstm=(2, 4)).items()}  # fmt: skip
    path = archive(tmp_path / "m.keras", sequential(layer("Bidirectional", name="both", layer=one)), content)
    assert exchange.load(path).cell.activations == (("hard_sigmoid", 1 / 6, 0.5), "relu", "relu")


def without_version(path, kind, config):
    """A file that does not say by which version of Keras it was written, and what else reading it takes."""
    if kind == "archive":
        with zipfile.ZipFile(archive(path / "whole.keras", config, CONTENT)) as whole:
            parts = {name: whole.read(name) for name in whole.namelist() if name != "metadata.json"}
        with zipfile.ZipFile(path / "m.keras", "w") as less:
            for name, part in parts.items():
                less.writestr(name, part)
        return path / "m.keras", {}
    if kind == "weights":
        (path / "m.weights.h5").write_bytes(weights(CONTENT))
        return path / "m.weights.h5", {"config": config}
    old(path / "m.h5", None if kind == "old, of another config" else config, by_layers(CONTENT))
    with h5py.File(path / "m.h5", "r+") as root:
        if kind == "old":
            del root["model_weights"].attrs["keras_version"]
        else:  # those of a model that may be another version's
            root.move("model_weights", "x")
            for name in list(root["x"]):
                root.move(f"x/{name}", name)
            for name, value in root["x"].attrs.items():
                root.attrs[name] = value
            del root["x"]
    return path / "m.h5", {} if kind == "old" else {"config": config}


@pytest.mark.parametrize("kind", ["archive", "old", "weights", "old, of another config"])
def test_a_version_that_no_file_says_is_asked_for(kind, tmp_path):
    plain = sequential(lstm(4), dense(3), dense(2, "dense_1"))
    path, options = without_version(tmp_path, kind, plain)
    assert len(exchange.read(path, **options).layers) == 3  # where it does not matter
    config = sequential(lstm(4), dense(3, activation="hard_sigmoid"), dense(2, "dense_1"))
    path, options = without_version(tmp_path, kind, config)
    with pytest.raises(
        ValueError, match="dense: expected version= 2 or 3, as hard_sigmoid is another function in each"
    ):
        exchange.read(path, **options)
    for version, ours in ((2, "hard_sigmoid"), ("3", ("hard_sigmoid", 1 / 6, 0.5))):
        assert exchange.read(path, version=version, **options).layers[1].activation == ours
        if "config" in options:
            told = {"config": config | {"keras_version": f"{version}.4.1-tf"}}
            assert exchange.read(path, **told).layers[1].activation == ours


@pytest.mark.parametrize("version", ["4.0.0", "30.1", "1.2.2", "", 3])
def test_versions_that_nobody_knows_are_refused(version, tmp_path):
    path = archive(tmp_path / "m.keras", sequential(lstm(4), dense(3)), CONTENT, version)
    with pytest.raises(ValueError, match=r"m.keras: expected a file of Keras 2 or 3, got one of Keras"):
        exchange.read(path)


def test_a_version_beside_the_files_own_is_refused(tmp_path):
    path = written(tmp_path, 3, lstm(4), dense(3), dense(2, "dense_1"))
    assert len(exchange.read(path, version=3).layers) == 3
    with pytest.raises(ValueError, match=r"m.keras: version: expected None, or 3 as the file says, got 2"):
        exchange.read(path, version=2)
    for version in (4, "3.5", True):
        with pytest.raises(ValueError, match=r"^version: expected 2, 3 or None, got"):
            exchange.read(path, version=version)


BEHIND = [
    (layer("LeakyReLU", name="a", negative_slope=0.25), ("leaky_relu", 0.25)),
    (layer("LeakyReLU", name="a", alpha=0.30000001192092896), ("leaky_relu", 0.3)),
    (layer("LeakyReLU", name="a"), ("leaky_relu", 0.3)), (layer("LeakyReLU", name="a", alpha=0.01), "leaky_relu"),
    (layer("ELU", name="a", alpha=0.5), ("elu", 0.5)), (layer("ReLU", name="a", max_value=6.0), "relu6"),
    (layer("ReLU", name="a", negative_slope=0.125), ("leaky_relu", 0.125)),
    (layer("ThresholdedReLU", name="a", theta=0.75), ("thresholded_relu", 0.75)),
    (layer("ThresholdedReLU", name="a"), "thresholded_relu"),
]  # fmt: skip


@pytest.mark.parametrize("one, ours", BEHIND)
def test_layers_with_numbers_of_their_own(one, ours, tmp_path):
    network = exchange.read(written(tmp_path, 2, lstm(4), dense(3), one, dense(2, "dense_1")))
    assert network.layers[1].activation == ours
    network = exchange.read(written(tmp_path, 3, lstm(4), dense(3, activation=one), dense(2, "dense_1")))
    assert network.layers[1].activation == ours


OURS = [("sigmoid", "relu", "relu"), (("hard_sigmoid", 1 / 6, 0.5), "softsign", "softsign"),
        ("hard_tanh", "selu", "selu"), ("relu6", ("leaky_relu", 0.2), ("leaky_relu", 0.2)),
        ("softplus", "linear", "linear"), ("exponential", "elu", "elu")]  # fmt: skip
DENSE = ["selu", "exponential", "relu6", "hard_tanh", ("hard_sigmoid", 1 / 6, 0.5), ("leaky_relu", 0.3), ("elu", 0.25)]


@pytest.mark.parametrize("activations", OURS)
def test_there_and_back(activations, tmp_path):
    after = [cylstm.Dense(4, name, 0.125) for name in DENSE]
    model = cylstm.Model(3, 5, 2, loss="mse", activations=activations, bidirectional=True, after=after, seed=2)
    exchange.save(model, tmp_path / "m.keras")
    again = exchange.load(tmp_path / "m.keras")
    assert again.config == model.config and np.array_equal(again.parameters.flat, model.parameters.flat)


@pytest.mark.parametrize("activations, message", [
    (("sigmoid", "tanh", "relu"), "one activation of the cell's input and its output, as Keras has, got 'tanh' and"),
    (("hard_sigmoid", "tanh", "tanh"), "activations of linear, .* by Keras 3's formulas, got 'hard_sigmoid' and"),
    (("sigmoid", ("elu", 0.5), ("elu", 0.5)), "activations of linear, .* by Keras 3's formulas, got 'sigmoid' and"),
])  # fmt: skip
def test_cells_that_keras_has_not(activations, message, tmp_path):
    with pytest.raises(ValueError, match=f"m.keras: layer 0: expected {message}"):
        exchange.save(cylstm.LSTM(3, 5, activations=activations, seed=2), tmp_path / "m.keras")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["gelu_tanh", "thresholded_relu", "hard_sigmoid", ("affine", 0.5, 1.0)])
def test_dense_layers_that_keras_has_not(name, tmp_path):
    model = cylstm.Model(3, 5, 2, after=[cylstm.Dense(4, name)], seed=2)
    with pytest.raises(ValueError, match=r"m.keras: layer 1: expected an activation that Keras has, linear, .*, got"):
        exchange.save(model, tmp_path / "m.keras")
