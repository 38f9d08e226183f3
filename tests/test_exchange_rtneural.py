"""RTNeural's JSON, of both kinds."""

import contextlib
import json

import numpy as np
import pytest
from lstm_by_hand import lstm_layer, sigmoid

import cylstm
from cylstm import exchange


def keras_file(rng):
    """Two LSTM layers between dense ones, as RTNeural's exporter writes a Keras model."""

    def numbers(*shape):
        return rng.uniform(-0.8, 0.8, shape).astype("f4").tolist()

    layers = [
        {"type": "time-distributed-dense", "activation": "elu", "shape": [None, None, 4], "weights": [numbers(3, 4),
                                                                                                     numbers(4)]},
        {"type": "lstm", "activation": "tanh", "shape": [None, None, 5],
         "weights": [numbers(4, 20), numbers(5, 20), numbers(20)]},
        {"type": "lstm", "activation": "", "shape": [None, 5], "weights": [numbers(5, 20), numbers(5, 20)]},
        {"type": "dense", "shape": [None, None, 6], "weights": [numbers(5, 6)]},
        {"type": "activation", "activation": "relu", "shape": [None, None, 6], "weights": []},
        {"type": "dense", "activation": "sigmoid", "shape": [None, None, 1], "weights": [numbers(6, 1), numbers(1)]},
    ]  # fmt: skip
    return {"in_shape": [None, None, 3], "layers": layers}


def written(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def by_hand(file, x):
    """What RTNeural computes, layer by layer."""
    dense, one, two, wide, _, head = ([np.array(part) for part in layer["weights"]] for layer in file["layers"])
    h = x @ dense[0] + dense[1]
    h = np.where(h > 0, h, np.exp(h) - 1)
    h = lstm_layer(h, one[0].T, one[1].T, one[2])
    h = lstm_layer(h, two[0].T, two[1].T, np.zeros(20))
    return sigmoid(np.maximum(h @ wide[0], 0) @ head[0] + head[1])


def test_a_file_is_a_model(rng, tmp_path):
    file, x = keras_file(rng), rng.standard_normal((9, 3)).astype("f4")
    model = exchange.load(written(tmp_path / "m.json", file))
    assert [layer.activation for layer in model.before + model.after] == ["elu", "relu"]
    np.testing.assert_allclose(model.predict_proba(x), by_hand(file, x), rtol=0, atol=1e-6)


def state_file(rng):
    shapes = {"lstm.weight_ih_l0": (20, 1), "lstm.weight_hh_l0": (20, 5), "lstm.bias_ih_l0": (20,),
              "lstm.bias_hh_l0": (20,), "dense.weight": (2, 5), "dense.bias": (2,)}  # fmt: skip
    return {name: rng.uniform(-0.8, 0.8, shape).astype("f4").tolist() for name, shape in shapes.items()}


def test_a_state_dict_in_lists_is_a_model(rng, tmp_path):
    file, x = state_file(rng), rng.standard_normal((9, 1)).astype("f4")
    model = exchange.load(written(tmp_path / "m.json", file), head="dense.")
    W, U, b1, b2, V, c = map(np.array, file.values())
    np.testing.assert_allclose(model(x)[0], lstm_layer(x, W, U, b1 + b2) @ V.T + c, rtol=0, atol=1e-6)


def test_other_layers_of_a_state_dict_have_any_axes(rng, tmp_path):
    file = state_file(rng) | {"conv.weight": rng.uniform(-1, 1, (2, 3, 4)).tolist(), "gain": 0.5}
    with pytest.warns(UserWarning, match="state dict: left out, as no option names it: conv.weight, gain$"):
        network = exchange.read(written(tmp_path / "m.json", file), head="dense.")
    assert network.notes == {"left_out": ["conv.weight", "gain"]}
    assert np.array_equal(network.layers[-1].weight, np.float32(file["dense.weight"]))
    with pytest.raises(
        ValueError, match=r"m.json: .*dense layer's weight: expected shape \(any, any\), got \(2, 3, 4\)"
    ):
        exchange.read(tmp_path / "m.json", head="conv.")


@pytest.mark.parametrize(
    "value", [[[[1.0], [2.0, 3.0]]], [[[1.0], 2.0]], [[[]]], [[[1.0, "2"]]], [[[[[[[[[1.0]]]]]]]]]]
)
def test_what_is_no_tensor_of_a_state_dict_is_refused(value, rng, tmp_path):
    path = written(tmp_path / "m.json", state_file(rng) | {"conv.weight": value})
    with pytest.raises(ValueError, match=r"m.json: conv.weight: expected (numbers in at most 8 axes|rows of numbers)"):
        exchange.read(path)


MODELS = {
    "plain": dict(output_size=2, loss="mse"),
    "dense layers": dict(output_size=1, loss="binary_cross_entropy", before=[cylstm.Dense(6, "tanh", bias=False)],
                         after=[cylstm.Dense(4)], head_bias=False),
    "deep": dict(output_size=4, num_layers=3, dtype="float64", before=[cylstm.Dense(6, "elu")]),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("state_dict", [True, False])
def test_a_model_comes_back_to_the_bit(name, state_dict, rng, tmp_path):
    model = cylstm.Model(3, 5, **MODELS[name])
    model.parameters.flat = rng.standard_normal(model.parameters.size)
    told = {"dense layers": "tanh of before.0, relu of after.0, sigmoid of head",
            "deep": "elu of before.0, softmax of head"}.get(name) if state_dict else None  # fmt: skip
    with (
        pytest.warns(UserWarning, match=f"m.json: left out, as RTNeural has no place for it: {told}$")
        if told
        else contextlib.nullcontext()
    ):
        exchange.save(model, tmp_path / "m.json", state_dict=state_dict)
    options = {"dtype": model.dtype.name}
    if state_dict:
        options |= {"head": "head.", "final": exchange.network_of(model).layers[-1].activation}
        options["before"] = {f"before.{n}.": layer.activation for n, layer in enumerate(model.before)}
        options["after"] = {f"after.{n}.": layer.activation for n, layer in enumerate(model.after)}
    again = exchange.load(tmp_path / "m.json", **options)
    assert again.config == model.config
    assert np.array_equal(again.parameters.flat, model.parameters.flat)


def test_layers_of_different_widths_come_back(rng, tmp_path):
    model = cylstm.Model(3, (5, 17, 3), 2, loss="mse", after=[cylstm.Dense(4)], seed=1)
    exchange.save(model, tmp_path / "m.json")
    again = exchange.load(tmp_path / "m.json")
    x = rng.standard_normal((2, 9, 3)).astype("f4")
    assert again.hidden_size == (5, 17, 3) and np.array_equal(again(x)[0], model(x)[0])
    with pytest.raises(ValueError, match=r"n.json: LSTM layer 1: expected hidden units as in the first one, 5, got 17"):
        exchange.save(model, tmp_path / "n.json", state_dict=True)


def test_the_file_is_what_rtneurals_loaders_ask_for(tmp_path):
    lstm = cylstm.LSTM(3, 5, bias=False, seed=1)
    exchange.save(lstm, tmp_path / "m.json")
    file = json.loads((tmp_path / "m.json").read_text())
    (layer,) = file["layers"]
    assert file["in_shape"] == [None, None, 3]
    assert (layer["type"], layer["activation"], layer["shape"]) == ("lstm", "tanh", [None, None, 5])
    kernel, recurrent, bias = layer["weights"]  # three: the loader asks for a bias
    assert np.array_equal(np.float32(kernel), lstm.parameters["weight_ih_l0"].T) and bias == [0] * 20
    assert np.array_equal(np.float32(recurrent), lstm.parameters["weight_hh_l0"].T)


def at(*place, value):
    """A change of the file at one place."""

    def change(file):
        part = file
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = value
        return file

    return change


LAYER = "layers", 1
WRONG = {
    "conv1d": (at(*LAYER, "type", value="conv1d"), r"layers\[1\]: type: expected lstm, dense, .*, got str 'conv1d'"),
    "gru": (at("layers", 2, "type", value="gru"), r"layers\[2\]: type: .* got str 'gru'"),
    "no type": (at(*LAYER, value={"shape": [1]}), r"layers\[1\]: layer: expected type, shape, got no type"),
    "relu": (at(*LAYER, "activation", value="relu"), r"layers\[1\]: activation: expected tanh in an LSTM, got"),
    "prelu": (at("layers", 5, "activation", value="prelu"), "activation: expected one of 'linear', 'tanh', "),
    "behind": (at("layers", 3, "activation", value="tanh"), "expected one dense layer without an activation before it"),
    "width": (at(*LAYER, "shape", value=[None, None, 6]), r"shape: expected 5, as weights have it, got 6"),
    "conv2d": (at("in_shape", value=[None, 3, 4, 1]), r"in_shape: expected \[null, null, width\], got list"),
    "inputs": (at("in_shape", value=[None, None, 2]), r"layers\[0\]: weights: expected 2 inputs, .*, got 3"),
    "kernels": (at(*LAYER, "weights", value=[[1.0]]), r"layers\[1\]: weights: expected 2 or 3 arrays, got 1"),
    "ragged": (at(*LAYER, "weights", 0, 1, value=[1.0]), r"weights\[0\]: expected rows of numbers, all of one length"),
    "text": (at(*LAYER, "weights", 2, 7, value="9"), r"weights\[2\]: expected a list of numbers, got list"),
    "NaN": (at(*LAYER, "weights", 2, 7, value=float("nan")), r"weights\[2\]: expected numbers that float32 holds"),
    "too much": (at(*LAYER, "weights", 2, 7, value=1e39), r"weights\[2\]: expected numbers that float32 holds"),
    "far too much": (at(*LAYER, "weights", 2, 7, value=10**999), r"weights\[2\]: expected numbers that float32 holds"),
    "an object": (at("layers", value={}), "layers: expected a list, got dict"),
    "a list": (lambda file: [file], r"expected a JSON object, got list"),
    "truncated": (lambda file: json.dumps(file)[:-9], "expected JSON, got some that is truncated or none at all"),
    "deep": (lambda file: "[" * 10**6, "expected JSON, got brackets within brackets without end"),
    "bytes": (lambda file: "\x00\x01", "expected JSON, got some that is truncated or none at all"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_by_name(name, rng, tmp_path):
    change, message = WRONG[name]
    with pytest.raises(ValueError, match=rf"^[^:]*m.json: .*{message}"):
        exchange.load(written(tmp_path / "m.json", change(keras_file(rng))))


def test_a_long_text_among_numbers_allocates_nothing(rng, tmp_path, traced):
    file = keras_file(rng)
    file["layers"][1]["weights"][2] = ["1" * 10**6, *range(10**4)]  # as an array of texts, 40 GB
    path = written(tmp_path / "m.json", file)

    def read():
        with pytest.raises(ValueError, match=r"weights\[2\]: expected a list of numbers"):
            exchange.load(path)

    assert traced(read) < 2e7


def test_options_of_a_state_dict_need_one(rng, tmp_path):
    path = written(tmp_path / "m.json", keras_file(rng))
    with pytest.raises(ValueError, match=r"m.json: expected a state dict for head, got a file that names its layers"):
        exchange.load(path, head="dense.")


@pytest.mark.parametrize("model, message", [
    (lambda: cylstm.Model(7, 5, 7, embedding_size=4), "embedding: expected none, which RTNeural has not, got one"),
    (lambda: cylstm.LSTM(3, 5, bidirectional=True), "LSTM layer 0: expected one direction, as RTNeural has, got both"),
    (lambda: cylstm.LSTM(3, 5, coupled=True), "LSTM layer 0: expected no coupled, which RTNeural has not"),
    (lambda: cylstm.Model(3, 5, 2, output="last"), "LSTM layer 0: expected no last, which RTNeural has not"),
    (lambda: cylstm.Model(3, 5, 2, after=[cylstm.Dense(4, "silu")]), "activation: expected one of 'tanh', 'relu', "),
])  # fmt: skip
def test_what_rtneural_has_not_is_not_written(model, message, tmp_path):
    with pytest.raises(ValueError, match=f"m.json: {message}"):
        exchange.save(model(), tmp_path / "m.json")
    assert not list(tmp_path.iterdir())


def test_numbers_that_json_has_not_are_not_written(tmp_path):
    lstm = cylstm.LSTM(3, 5)
    lstm.parameters["bias_l0"][3] = np.nan
    with pytest.raises(ValueError, match=r"m.json: expected finite numbers, as JSON has no others"):
        exchange.save(lstm, tmp_path / "m.json")
    assert not list(tmp_path.iterdir())
