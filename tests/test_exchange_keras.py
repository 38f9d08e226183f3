"""Keras's files: what is in them, in each of their layouts, becomes models with Keras's outputs; back to the bit."""

import json
import sys
import warnings
import zipfile

import h5py
import numpy as np
import pytest
from keras_by_hand import (
    TRACE,
    archive,
    arrays,
    as_keras_wrote,
    by_layers,
    call,
    dense,
    layer,
    lstm,
    old,
    sequential,
    weights,
)

import cylstm
from cylstm import exchange
from cylstm.exchange.network import Network

WRITTEN = [(f"keras{major} {name}", ending)
           for major in (2, 3) for name in ("classifier", "masked") for ending in (".keras", ".h5")]  # fmt: skip


@pytest.fixture
def silent():
    """Nothing is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("which, ending", WRITTEN)
def test_what_keras_wrote_has_its_outputs(which, ending, tmp_path):
    path = as_keras_wrote(which, ending, tmp_path / f"m{ending}")
    x, expected = TRACE[f"{which} x"], TRACE[f"{which} outputs"]
    if "masked" in which:
        with pytest.warns(UserWarning, match=rf"m{ending}: masks \(.*mask_zero of embedding.*\) are yours to give"):
            model = exchange.load(path)
        found = model.predict_proba(x, lengths=TRACE[f"{which} lengths"])
        np.testing.assert_allclose(model.predict_proba(x, mask=x != 0), found, rtol=0, atol=1e-6)
    else:
        model = exchange.load(path)
        assert model.dropout == 0.25 and [one.dropout for one in model.after] == [0.5]
        found = model.predict_proba(x)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-6)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def by_hand(x, kernel, recurrent, bias):
    """Keras's LSTMCell: z = x K + h R + b, of the order i, f, c, o; the outputs of all steps."""
    (B, T, _), H = x.shape, len(recurrent)
    h = c = np.zeros((B, H))
    outputs = []
    for t in range(T):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, 1)


X = np.random.default_rng(8).standard_normal((3, 5, 2))
STACK = arrays(lstm=(2, 4), lstm_1=(4, 4), dense=(4, 3))


def expected_of(content):
    y = X
    groups = by_layers(content)
    for name in groups:
        one = groups[name]
        y = by_hand(y, *one) if name.startswith("lstm") else y @ one[0] + one[1]
    return y


def stack(*names):
    """Its configuration, whose names are not those of the groups."""
    first, second, last = names
    return sequential(lstm(4, first), lstm(4, second), dense(3, last))


LAYOUTS = {
    "of layers": lambda path: archive(path, stack("b", "a", "head"), STACK),
    "of Keras 2.13": lambda path: archive(
        path, stack("lstm_7", "lstm_9", "x"), {name.replace("layers", "_layer_checkpoint_dependencies")
                                              .replace("lstm_1", "lstm_10").replace("lstm/", "lstm_9/"): array
                                              for name, array in STACK.items()}, "2.13.1"),
    "compressed": lambda path: archive(path, stack("b", "a", "head"), STACK, compression=zipfile.ZIP_DEFLATED),
    "old": lambda path: old(path, stack("lstm", "lstm_1", "dense"), {"drop": [], **by_layers(STACK)}),
    "old, in pieces": lambda path: old(path, stack("lstm", "lstm_1", "dense"), by_layers(STACK), pieces=True),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_has_its_weights_in_their_order(name, tmp_path, silent):
    path = LAYOUTS[name](tmp_path / "m.any")
    model = exchange.load(path, format="keras")
    np.testing.assert_allclose(model(X.astype("f4"))[0], expected_of(STACK), rtol=0, atol=1e-6)


ALONE = {
    "layers": lambda path: path.write_bytes(weights(STACK)),
    "old": lambda path: old(path, None, {"drop": [], **by_layers(STACK)}, top=""),
}


@pytest.mark.parametrize("form", [None, "text", "dict"])
@pytest.mark.parametrize("name", ALONE)
def test_weights_alone(name, form, tmp_path):
    path = tmp_path / "m.weights.h5"
    ALONE[name](path)
    if form is None:
        with pytest.warns(UserWarning, match=r"weights alone: LSTM layers are taken to have tanh and sigmoid.*config="):
            model = exchange.load(path)
    else:
        config = stack("b", "a", "head")
        model = exchange.load(path, config=json.dumps(config) if form == "text" else config)
    np.testing.assert_allclose(model(X.astype("f4"))[0], expected_of(STACK), rtol=0, atol=1e-6)


def test_many_layers_of_a_class_are_in_the_order_of_their_numbers(tmp_path, silent):
    content = arrays(lstm=(2, 4), **{f"dense{f'_{n}' if n else ''}": (4, 4) for n in range(12)})
    path = archive(tmp_path / "m.keras", sequential(lstm(4), *(dense(4, f"d{n}") for n in range(12))), content)
    np.testing.assert_allclose(exchange.load(path)(X.astype("f4"))[0], expected_of(content), rtol=0, atol=1e-5)


def test_cudnns_kernels_are_what_their_memory_is(tmp_path, silent):
    """cuDNN's W is (H, I) of each gate, in that memory order; Keras's array has the shape (I, 4H), R likewise."""
    I, H = 2, 3
    rng = np.random.default_rng(6)
    W, R, b = rng.uniform(-1, 1, (4, H, I)), rng.uniform(-1, 1, (4, H, H)), rng.uniform(-1, 1, (2, 4 * H))
    kernel = np.hstack([gate.reshape(I, H) for gate in W])
    recurrent = np.hstack([gate.reshape(H, H) for gate in R])
    config = sequential(layer("CuDNNLSTM", name="lstm", units=H, return_sequences=True))
    path = old(tmp_path / "m.h5", config, {"lstm": [kernel, recurrent, b.reshape(-1)]}, "2.3.1")
    y = exchange.load(path)(X)[0]
    wanted = by_hand(X, np.hstack(list(W.swapaxes(1, 2))), np.hstack(list(R.swapaxes(1, 2))), b.sum(0))
    np.testing.assert_allclose(y, wanted, rtol=1e-12)


def test_cudnns_biases_in_float16_are_added_in_float32(tmp_path, silent):
    shapes = ((2, 12), (3, 12), (24,))
    several = [np.random.default_rng(n).uniform(-1, 1, shape).astype("f2") for n, shape in enumerate(shapes)]
    config = sequential(layer("CuDNNLSTM", name="lstm", units=3, return_sequences=True))
    bias = exchange.read(old(tmp_path / "m.h5", config, {"lstm": several}, "2.3.1")).layers[0].directions[0].bias
    halves = several[2].astype("f4").reshape(2, -1)
    assert np.array_equal(bias, halves[0] + halves[1]) and (bias != bias.astype("f2")).any()


def functional(*extra, calls=None):
    names = ["ids", "embedding", "lstm", "dense"]
    parts = [layer("InputLayer", name="ids", batch_shape=[None, None], dtype="int32"),
             layer("Embedding", name="embedding", input_dim=7, output_dim=2), lstm(4), dense(3)]  # fmt: skip
    calls = calls or [
        call(name, *before) for name, before in zip(names, [(), *((one,) for one in names)], strict=False)
    ]
    config = sequential(
        *(part | one for part, one in zip([*parts, *extra], calls, strict=True)), class_name="Functional"
    )
    config["config"] |= {"input_layers": ["ids", 0, 0], "output_layers": [["dense", 0, 0]]}
    return config


def test_a_functional_model_in_any_order_of_its_layers(tmp_path, silent):
    content = arrays(embedding=(7, 2), lstm=(2, 4), dense=(4, 3))
    config = functional()
    config["config"]["layers"].reverse()
    model = exchange.load(archive(tmp_path / "m.keras", config, content))
    ids = np.array([[1, 6, 0, 2]])
    x = content["layers/embedding/vars/0"][ids]
    groups = by_layers(content)
    wanted = by_hand(x, *groups["lstm"]) @ groups["dense"][0] + groups["dense"][1]
    np.testing.assert_allclose(model(ids)[0], wanted, rtol=0, atol=1e-6)


MODELS = {
    "plain": dict(input_size=3, hidden_size=5, output_size=2, loss="mse"),
    "deep, both ways": dict(input_size=3, hidden_size=4, output_size=6, num_layers=3, bidirectional=True, dropout=0.25),
    "ids": dict(input_size=7, hidden_size=5, output_size=7, embedding_size=4, dtype="float64"),
    "dense layers": dict(input_size=3, hidden_size=5, output_size=1, loss="binary_cross_entropy", output="last",
                         before=[cylstm.Dense(6, "tanh", bias=False)], head_bias=False,
                         after=[cylstm.Dense(4, "leaky_relu", dropout=0.5), cylstm.Dense(4, "silu")]),
    "labels": dict(input_size=3, hidden_size=5, output_size=2, labels=["no", "yes"], output="last"),
    "backwards": dict(input_size=3, hidden_size=5, output_size=2, loss="mse", reverse=True, output="last"),
}  # fmt: skip


def random_model(name):
    model = cylstm.Model(**MODELS[name], seed=2)
    model.parameters.flat = np.random.default_rng(1).uniform(-0.6, 0.6, model.parameters.size)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back_to_the_bit(name, tmp_path, silent):
    model = random_model(name)
    exchange.save(model, tmp_path / "m.keras")
    again = exchange.load(tmp_path / "m.keras")
    configs = [{key: value for key, value in one.config.items() if key != "labels"} for one in (again, model)]
    assert configs[0] == configs[1]
    assert np.array_equal(again.parameters.flat, model.parameters.flat)
    assert exchange.read(tmp_path / "m.keras").notes == exchange.network_of(model).notes


def test_a_reverse_direction_that_gives_all_outputs_is_refused(tmp_path):
    model = cylstm.Model(3, 5, 2, loss="mse", reverse=True)
    with pytest.raises(ValueError, match=r"layer 0: expected the last output alone of a reverse direction"):
        exchange.save(model, tmp_path / "m.keras")


def test_weights_alone_say_nothing_of_a_direction(tmp_path):
    exchange.save(cylstm.Model(3, 5, 2, loss="mse", reverse=True, output="last"), tmp_path / "m.weights.h5")
    with pytest.warns(UserWarning, match="taken to have tanh and sigmoid, to run forward and to hand on all steps"):
        exchange.load(tmp_path / "m.weights.h5")


def test_what_an_onnx_file_had_otherwise_is_told(tmp_path):
    network = exchange.network_of(random_model("labels"))
    turned = Network(network.layers, {**network.notes, "log": True, "time_major": True, "rate": 2})
    with pytest.warns(UserWarning) as told:
        exchange.write(turned, tmp_path / "m.keras")
    assert [str(one.message).split(": ", 1)[1] for one in told] == [
        "rows come first, (B, T, I), where the file that was read has steps (time_major)",
        "outputs are probabilities, where the file that was read has their logarithms (log)"]  # fmt: skip
    assert exchange.read(tmp_path / "m.keras").notes == {**network.notes, "rate": 2}  # nothing is turned in this file


def test_an_archive_says_nothing_of_how_its_numbers_are(tmp_path, silent):
    """Whoever wrote so into it: its outputs are what its last layer gives, rows first."""
    network = exchange.network_of(random_model("labels"))
    exchange.write(network, tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["metadata.json"])
    metadata["cylstm"]["notes"] |= {"log": True, "time_major": "no"}
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name, content in (members | {"metadata.json": json.dumps(metadata)}).items():
            archive.writestr(name, content)
    assert exchange.read(tmp_path / "m.keras").notes == network.notes
    exchange.load(tmp_path / "m.keras")  # silent


def test_a_layer_there_and_back(tmp_path, silent):
    lstm = cylstm.LSTM(3, 5, 2, bidirectional=True, bias=False, dropout=0.5, seed=1)
    exchange.save(lstm, tmp_path / "m.keras")
    again = exchange.load(tmp_path / "m.keras")
    assert isinstance(again, cylstm.LSTM) and again.options == lstm.options
    assert np.array_equal(again.parameters.flat, lstm.parameters.flat)


@pytest.mark.parametrize("name", MODELS)
def test_weights_there_and_back(name, tmp_path):
    model = random_model(name)
    exchange.save(model, tmp_path / "m.keras")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        exchange.save(model, tmp_path / "m.weights.h5")
    assert [str(one.message).split(": ", 1)[1] for one in told] == (
        ["left out, as weights alone are kept: labels"] if name == "labels" else []
    )
    config = zipfile.ZipFile(tmp_path / "m.keras").read("config.json").decode()
    again = exchange.load(tmp_path / "m.weights.h5", config=config)
    assert np.array_equal(again.parameters.flat, model.parameters.flat)


def test_each_object_has_its_group_as_older_versions_ask(tmp_path):
    exchange.save(random_model("deep, both ways"), tmp_path / "m.weights.h5")
    with h5py.File(tmp_path / "m.weights.h5") as root:
        for place in ("", "layers/dropout/", "layers/bidirectional_2/", "layers/bidirectional/backward_layer/",
                      "layers/bidirectional/forward_layer/cell/"):  # fmt: skip
            assert isinstance(root[f"{place}vars"], h5py.Group)


def test_a_file_of_one_model_is_one(tmp_path):
    for n in range(2):
        exchange.save(random_model("ids"), tmp_path / f"{n}.keras")
    assert (tmp_path / "0.keras").read_bytes() == (tmp_path / "1.keras").read_bytes()


def test_without_h5py_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    for call_of in (lambda: exchange.load(tmp_path / "m.keras"),
                    lambda: exchange.save(random_model("plain"), tmp_path / "m.keras")):  # fmt: skip
        with pytest.raises(ImportError, match=r"expected h5py \(pip install 'cylstm\[keras\]'\)"):
            call_of()
