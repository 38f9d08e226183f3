"""Files of Keras 3 itself: what it writes comes in with its outputs, and what is written here, it opens."""

import functools
import importlib.util
import os

import numpy as np
import pytest

from cylstm import Dense, Model, exchange

os.environ.setdefault("KERAS_BACKEND", "torch" if importlib.util.find_spec("torch") else "jax")  # which compiles first
os.environ.setdefault("JAX_ENABLE_X64", "1")
keras = pytest.importorskip("keras", minversion="3.5", reason="Keras's files are held against Keras, where it is")
layers = keras.layers
pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # Keras's own, and what is left out, which test_exchange_keras.py holds

B, T, I, V = 4, 9, 3, 11
ENDINGS = (".keras", ".h5", ".weights.h5")


def sequential(*parts, dtype="float32", ids=False):
    return keras.Sequential([keras.Input((None,) if ids else (None, I), dtype="int32" if ids else dtype), *parts])


def functional(*parts, ids=False):
    first = x = keras.Input((None,) if ids else (T, I), dtype="int32" if ids else "float32")
    for part in parts:
        x = part(x)
    return keras.Model(first, x)


def cells(gates, other):
    """Two LSTM layers, one of them in both directions, with these activations."""
    options = {"recurrent_activation": gates, "activation": other}
    return sequential(layers.Bidirectional(layers.LSTM(5, return_sequences=True, **options)),
                      layers.Bidirectional(layers.LSTM(5, **options)), layers.Dense(2))  # fmt: skip


CELLS = [("hard_sigmoid", "relu"), ("sigmoid", "softsign"), ("relu6", "elu"), ("sigmoid", "selu"),
         ("softsign", "softplus"), ("hard_sigmoid", "leaky_relu"), ("tanh", "linear"),
         ("sigmoid", "relu6")]  # fmt: skip
if hasattr(keras.activations, "hard_tanh"):  # in later ones
    CELLS.append(("hard_tanh", "hard_tanh"))
BUILT = {
    "features": lambda: sequential(layers.LSTM(5, return_sequences=True), layers.Dense(2)),
    "ids": lambda: sequential(
        layers.Embedding(V, 4), layers.SpatialDropout1D(0.1), layers.LSTM(5, return_sequences=True, dropout=0.1),
        layers.Dropout(0.2), layers.LSTM(5, return_sequences=True, recurrent_dropout=0.1),
        layers.TimeDistributed(layers.Dense(V, activation="softmax", kernel_regularizer="l2")), ids=True),
    "both ways": lambda: sequential(
        layers.Dense(6, activation="tanh"), layers.Bidirectional(layers.LSTM(5, return_sequences=True)),
        layers.Bidirectional(layers.LSTM(5)), layers.Dense(7, "relu"), layers.Dropout(0.3), layers.Dense(6),
        layers.ELU(), layers.Dense(1, "sigmoid")),
    "backwards": lambda: sequential(layers.LSTM(5, go_backwards=True), layers.Dense(2)),
    "no bias": lambda: sequential(layers.LSTM(5, use_bias=False), layers.Dense(2, use_bias=False)),
    "functional": lambda: functional(layers.LSTM(5, return_sequences=True), layers.LSTM(5), layers.Dense(3),
                                     layers.Activation("softmax")),
    "float64": lambda: sequential(layers.LSTM(5, return_sequences=True, dtype="float64"),
                                  layers.Dense(2, dtype="float64"), dtype="float64"),
    "activations": lambda: sequential(
        layers.LSTM(5),
        *(layers.Dense(5, activation=name) for name in ("elu", "softplus", "softsign", "silu", "sigmoid")),
        layers.Dense(5), layers.LeakyReLU(negative_slope=0.01), layers.Dense(5), layers.ReLU(), layers.Dense(2)),
    "more activations": lambda: sequential(
        layers.LSTM(5),
        *(layers.Dense(5, activation=name) for name in ("selu", "exponential", "relu6", "hard_sigmoid", "leaky_relu")),
        layers.Dense(5), layers.LeakyReLU(negative_slope=0.3), layers.Dense(5), layers.ELU(alpha=0.4),
        layers.Dense(5), layers.ReLU(max_value=6), layers.Dense(5), layers.ReLU(negative_slope=0.2), layers.Dense(2)),
    **{f"cells of {gates} and {other}": functools.partial(cells, gates, other) for gates, other in CELLS},
}  # fmt: skip


def shaken(model, seed=1):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.uniform(-0.5, 0.5, weight.shape))
    return model


def inputs(name):
    rng = np.random.default_rng(2)
    x = rng.integers(0, V, (B, T)) if "ids" in name else rng.standard_normal((B, T, I)).astype(np.float32)
    return x.astype(np.float64) if name == "float64" else x


def outputs(ours, x, **options):
    """What Keras's last layer gives."""
    if ours.loss.name in ("cross_entropy", "binary_cross_entropy"):
        return ours.predict_proba(x, **options)
    return ours(x, **options)[0]


@functools.cache
def built(name):
    """A model and its outputs."""
    model = shaken(BUILT[name]())
    return model, model.predict(inputs(name), verbose=0)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", BUILT)
def test_what_keras_writes_comes_in_with_its_outputs(name, ending, tmp_path):
    (theirs, expected), path = built(name), tmp_path / f"m{ending}"
    (theirs.save_weights if "weights" in ending else theirs.save)(path)
    options = {"config": theirs.to_json(), "version": 3} if "weights" in ending else {}  # which to_json does not say
    ours = exchange.load(path, **options)
    x = inputs(name)
    assert ours.dtype == ("float64" if name == "float64" else "float32")
    np.testing.assert_allclose(outputs(ours, x).reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", [sequential, functional])
def test_masked_ids_are_rows_of_different_lengths(build, tmp_path):
    theirs = shaken(build(layers.Embedding(V, 4, mask_zero=True), layers.Bidirectional(layers.LSTM(5)),
                          layers.Dense(3, "softmax"), ids=True))  # fmt: skip
    theirs.save(tmp_path / "m.keras")
    x, lengths = np.random.default_rng(3).integers(1, V, (B, T)), np.array([9, 1, 4, 7])
    x[np.arange(T) >= lengths[:, None]] = 0
    ours = exchange.load(tmp_path / "m.keras")
    np.testing.assert_allclose(ours.predict_proba(x, lengths=lengths), theirs.predict(x, verbose=0), atol=1e-5)


OURS = {
    "features": dict(input_size=I, hidden_size=5, output_size=2, loss="mse"),
    "ids": dict(input_size=V, hidden_size=5, output_size=V, embedding_size=4, num_layers=2, dropout=0.25),
    "both ways": dict(input_size=I, hidden_size=5, output_size=1, loss="binary_cross_entropy", output="last",
                      bidirectional=True, num_layers=2, before=[Dense(6, "tanh", bias=False)],
                      after=[Dense(4, "leaky_relu", dropout=0.5), Dense(4, "silu")], head_bias=False),
    "backwards": dict(input_size=I, hidden_size=5, output_size=2, loss="mse", reverse=True, output="last"),
    "float64": dict(input_size=I, hidden_size=5, output_size=2, loss="mse", dtype="float64"),
    "activations": dict(input_size=I, hidden_size=5, output_size=2, loss="mse", bidirectional=True,
                        activations=(("hard_sigmoid", 1 / 6, 0.5), ("leaky_relu", 0.2), ("leaky_relu", 0.2)),
                        after=[Dense(4, name) for name in ("selu", "relu6", ("elu", 0.5), ("leaky_relu", 0.3),
                                                           ("hard_sigmoid", 1 / 6, 0.5), "exponential")]),
}  # fmt: skip


def own_model(name):
    model = Model(**OURS[name], seed=2)
    model.parameters.flat = np.random.default_rng(1).uniform(-0.7, 0.7, model.parameters.size)
    return model


@pytest.mark.parametrize("name", OURS)
def test_keras_opens_what_is_written_and_writes_the_same_again(name, tmp_path):
    ours, x = own_model(name), inputs(name)
    exchange.save(ours, tmp_path / "m.keras")
    theirs = keras.models.load_model(tmp_path / "m.keras")
    found = theirs.predict(x, verbose=0)
    np.testing.assert_allclose(found.reshape(outputs(ours, x).shape), outputs(ours, x), rtol=1e-5, atol=1e-5)
    for ending in ENDINGS[:2]:
        theirs.save(tmp_path / f"again{ending}")
        again = exchange.load(tmp_path / f"again{ending}")
        assert again.config == ours.config
        assert np.array_equal(again.parameters.flat, ours.parameters.flat)


@pytest.mark.parametrize("name", OURS)
def test_keras_loads_weights_that_are_written(name, tmp_path):
    ours = own_model(name)
    exchange.save(ours, tmp_path / "m.keras")
    exchange.save(ours, tmp_path / "m.weights.h5")
    expected = keras.models.load_model(tmp_path / "m.keras")
    theirs = shaken(keras.models.load_model(tmp_path / "m.keras"))
    theirs.load_weights(tmp_path / "m.weights.h5")
    for one, other in zip(theirs.weights, expected.weights, strict=True):
        assert np.array_equal(one.numpy(), other.numpy())
