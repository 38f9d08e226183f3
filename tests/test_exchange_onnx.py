"""ONNX files that we wrote, and the bits that come back; files of others are in test_exchange_onnx_graphs.py."""

import os

import numpy as np
import pytest
from test_exchange import MODELS, arrays, lstm_layer, projected_layer, random_model

import cylstm
from cylstm import exchange
from cylstm.exchange import onnx
from cylstm.exchange.network import Dense, Direction, Embedding, Network, Recurrent, arrays_of
from cylstm.exchange.onnx_file import FLOAT, INT32, INT64, read_file

ACTIVATIONS = ["linear", "relu", "leaky_relu", "tanh", "sigmoid", "elu", "softplus", "softsign", "gelu_tanh", "silu"]
NUMBERED = ["selu", "exponential", "hard_sigmoid", ("hard_sigmoid", 0.3, 0.25), "relu6", "hard_tanh",
            "thresholded_relu", ("thresholded_relu", 0.3), ("leaky_relu", 0.2), ("elu", 0.7), ("affine", 0.3, -0.7),
            ("scaled_tanh", 1.7, 0.6)]  # fmt: skip
CANNOT = "variants", "a projection", "merged, residual"
CAN = {name: options for name, options in MODELS.items() if name not in CANNOT} | {
    "activations": dict(input_size=3, hidden_size=5, output_size=4, loss="mse",
                        before=[cylstm.Dense(3, name) for name in ACTIVATIONS + NUMBERED],
                        after=[cylstm.Dense(6, name, 0.125) for name in ACTIVATIONS + NUMBERED]),
    "final states of both": dict(input_size=7, hidden_size=5, output_size=2, embedding_size=3, num_layers=2,
                                 output="last", bidirectional=True, labels=["no", "yes"]),
    "peepholes": dict(input_size=3, hidden_size=5, output_size=2, loss="mse", peepholes=True, num_layers=2),
    "coupled": dict(input_size=3, hidden_size=5, output_size=2, loss="mse", peepholes=True, coupled=True),
    "one output": dict(input_size=1, hidden_size=1, output_size=1, loss="mse"),
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def written(model, path, **options):
    dtype = {} if model.dtype == np.float32 else {"dtype": "float64"}
    exchange.save(model, path, **options, **dtype)
    return exchange.load(path)


# A network with a first state of its own has no use for one that comes in; states of different widths are no one array.
WITHOUT = "a first state", "widths"
WITH_STATES = [(name, states) for name in CAN for states in (True, False) if not (states and name in WITHOUT)]


@pytest.mark.parametrize(("name", "states"), WITH_STATES)
def test_a_model_comes_back_to_the_bit(name, states, path, monkeypatch):
    monkeypatch.setitem(MODELS, name, CAN[name])
    model = random_model(name)
    model.parameters.flat[::7] = -0.0
    again = written(model, path, states=states)
    assert again.config == model.config
    assert again.parameters.flat.tobytes() == model.parameters.flat.tobytes()


@pytest.mark.parametrize("options", [{}, dict(bidirectional=True, num_layers=3), dict(bias=False, peepholes=True)])
def test_a_layer_comes_back_to_the_bit(options, path):
    lstm = cylstm.LSTM(3, 5, seed=4, **options)
    again = written(lstm, path)
    assert isinstance(again, cylstm.LSTM) and again.options == lstm.options
    assert np.array_equal(again.parameters.flat, lstm.parameters.flat)


@pytest.mark.parametrize("name", ["states", "lengths", "clip"])
@pytest.mark.parametrize("value", ["False", 0, None])
def test_options_are_true_or_false(name, value, path):
    with pytest.raises(TypeError, match=f"{name}: expected True or False, got "):
        exchange.save(cylstm.LSTM(3, 5, seed=4), path, **{name: value})
    assert not path.exists()


def test_a_first_state_of_its_own_comes_back(path):
    h, c, more = arrays((5,), (5,), (5,))
    weights = arrays((20, 3), (20, 5), (20,), seed=8)
    layers = (Recurrent((Direction(*weights, h0=h, c0=c), Direction(*weights[:2], h0=more))),)
    with pytest.raises(ValueError, match="LSTM layer 0: expected no first state of its own, or states=False, got one"):
        exchange.write(Network(layers), path)
    exchange.write(Network(layers), path, states=False)
    forward, backward = exchange.read(path).layers[0].directions
    assert np.array_equal(forward.h0, h) and np.array_equal(forward.c0, c) and np.array_equal(backward.h0, more)
    assert not backward.c0.any() and not backward.bias.any()


def test_layers_of_different_sizes_come_back(path):
    layers = lstm_layer(), Dense(*arrays((6, 5)), activation="tanh"), lstm_layer(6, 4), lstm_layer(4, 7)
    with pytest.raises(ValueError, match=r"LSTM layers: expected one size, .* states=False, got .* 1 x 4, 1 x 5,"):
        exchange.write(Network(layers), path)
    exchange.write(Network(layers), path, states=False)
    again = exchange.read(path)
    assert [type(layer).__name__ for layer in again.layers] == ["Recurrent", "Dense", "Recurrent", "Recurrent"]
    for one, other in zip(layers, again.layers, strict=True):
        assert all(map(np.array_equal, arrays_of(one), arrays_of(other)))


def test_notes_come_back(path):
    vocabulary = cylstm.Vocabulary.from_text("ab c")
    model = cylstm.Model(4, 5, 4, vocabulary=vocabulary, labels=["w", "x", "y", "z"], seed=1)
    network = exchange.network_of(model)
    assert set(network.notes) == {"labels", "vocabulary"}
    network.notes.update(rate=np.float32(0.5), log=True, time_major=True)
    with pytest.warns(
        UserWarning, match=r"model.onnx: rows come first, .*, where .* has steps \(time_major\)$"
    ) as told:
        exchange.write(network, path)
    assert len(told) == 1 and read_file(path).inputs[0].shape == ["batch", "time", 4]
    again = exchange.read(path)
    assert again.notes == {"labels": ["w", "x", "y", "z"], "vocabulary": vocabulary.to_json(), "rate": 0.5, "log": True}
    with pytest.warns(UserWarning, match=r"^network: outputs are probabilities, where .* their logarithms \(log\)$"):
        model = exchange.model_of(again)
    assert model.vocabulary == vocabulary and model.labels == ("w", "x", "y", "z")
    network.notes["rate"] = object()
    with pytest.raises(ValueError, match="notes: expected what JSON can say, got an object of object"):
        exchange.write(network, path)


def test_what_a_file_says_of_its_inputs(path):
    model = cylstm.Model(7, 5, 3, embedding_size=4, num_layers=2, bidirectional=True, output="last", seed=1)
    exchange.save(model, path, lengths=True)
    file = read_file(path)
    state = (FLOAT, [4, "batch", 5])
    assert [(one.name, (one.type, one.shape)) for one in file.inputs] == [
        ("x", (INT64, ["batch", "time"])), ("h0", state), ("c0", state), ("lengths", (INT32, ["batch"]))]  # fmt: skip
    assert [(one.name, (one.type, one.shape)) for one in file.outputs] == [
        ("y", (FLOAT, ["batch", 3])), ("hn", state), ("cn", state)]  # fmt: skip
    assert file.opset == 14 and not any("layout" in node.attributes for node in file.nodes)
    assert [node.inputs[4] for node in file.nodes if node.op == "LSTM"] == ["lengths"] * 2
    exchange.save(cylstm.Model(3, 5, 2, loss="mse", seed=1), path, states=False)
    file = read_file(path)
    assert [(one.name, one.shape) for one in file.inputs] == [("x", ["batch", "time", 3])]
    assert [(one.name, one.shape) for one in file.outputs] == [("y", ["batch", "time", 2])]
    assert [len(node.inputs) for node in file.nodes if node.op == "LSTM"] == [4]


def test_states_go_through_layer_by_layer(path):
    exchange.save(cylstm.LSTM(3, 5, 3, bidirectional=True, seed=1), path)
    file = read_file(path)
    made, nodes = {node.outputs[0]: node for node in file.nodes}, [node for node in file.nodes if node.op == "LSTM"]
    assert made["hn"].inputs == [node.outputs[1] for node in nodes] and made["hn"].attributes == {"axis": 0}
    assert made["cn"].inputs == [node.outputs[2] for node in nodes] and made["cn"].attributes == {"axis": 0}
    turned = [made[f"layer{n}.turned"].attributes["perm"] for n in range(3)]  # of Y (T, D, B, H)
    assert turned == [[0, 2, 1, 3], [0, 2, 1, 3], [2, 0, 1, 3]]
    for n, node in enumerate(nodes):
        for place, name in ((5, "h0"), (6, "c0")):
            source, *ends = made[node.inputs[place]].inputs
            assert source == name and [file.tensors[end].array().tolist() for end in ends] == [
                [2 * n],
                [2 * n + 2],
                [0],
            ]


def test_doubles_are_asked_for(path):
    model = random_model("ids")
    with pytest.raises(ValueError, match="dtype: expected a network in float32, or dtype='float32' to round it"):
        exchange.save(model, path)
    assert not os.path.exists(path)
    exchange.save(model, path, dtype="float32")
    assert np.array_equal(exchange.load(path).parameters.flat, model.parameters.flat.astype("f4"))
    with pytest.raises(ValueError, match="dtype: expected one of 'float32', 'float64'"):
        exchange.save(model, path, dtype="float16")


REFUSED = {
    "a clip": (lambda: (Recurrent(lstm_layer().directions, cell_clip=0.5),),
               "cell_clip: expected None in layer 0, as ONNX clips the sums of the gates alone, got 0.5"),
    "a projection": (lambda: (lstm_layer(), projected_layer(5)),
                     "projection: expected None in layer 1, as ONNX's LSTM has no projection .proj_size., got float32"),
    "last too soon": (lambda: (Recurrent(lstm_layer().directions, last=True), lstm_layer(5)),
                      "LSTM layer 0: expected the outputs of all steps"),
    "an activation": (lambda: (lstm_layer(), Dense(*arrays((2, 5)), activation="sine")),
                      "dense layer's activation: expected one of 'linear', .*, got 'sine'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_onnx_cannot_say_is_refused_by_name(name, path):
    layers, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        exchange.write(Network(layers()), path)
    assert not os.path.exists(path)


def test_nodes_are_the_stack_that_they_form(path):
    lstm = cylstm.LSTM(3, 5, 3, bidirectional=True, seed=4)
    exchange.save(lstm, path)
    nodes = onnx.read_nodes(path)
    assert [(node.direction, node.hidden_size, node.behind) for node in nodes] == [
        ("bidirectional", 5, None), ("bidirectional", 5, 0), ("bidirectional", 5, 1)]  # fmt: skip
    again = exchange.model_of(onnx.stack_of(nodes))
    assert np.array_equal(again.parameters.flat, lstm.parameters.flat)
    assert onnx.stack_of(nodes[1:]).layers[0].directions[0].weight_ih.shape == (20, 10)
    with pytest.raises(ValueError, match=r"expected a node behind layer0.Y, got one behind others"):
        onnx.stack_of([nodes[0], nodes[2]])


def test_an_embedding_keeps_its_table(path):
    table = arrays((9, 3))[0]
    exchange.write(Network((Embedding(table), lstm_layer())), path, states=False)
    assert np.array_equal(exchange.read(path).layers[0].weight, table)
