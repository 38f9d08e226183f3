"""ONNX graphs as other systems write them: the operator's own numbers, and what is refused, by the node's name."""

import numpy as np
import pytest
from onnx_graphs import B, H, I, T, dense, lstm, model, node, numbers, side_by_side, sigmoid, weights

from cylstm import exchange
from cylstm.exchange import onnx
from cylstm.exchange.onnx_file import FLOAT, INT64

X = numbers(T, B, I)
ROWS = X.swapaxes(0, 1)
W2, B2 = dense(6, H)
BOTH, _ = dense(6, 2 * H)


@pytest.fixture
def load(tmp_path):
    """A model from a graph."""

    def load(*args, **options):
        path = tmp_path / "graph.onnx"
        path.write_bytes(model(*args, **options))
        return exchange.load(path)

    return load


@pytest.fixture
def read(tmp_path):
    """A network from a graph."""

    def read(*args, output=None, **options):
        path = tmp_path / "graph.onnx"
        path.write_bytes(model(*args, **options))
        return onnx.read(path, output=output)

    return read


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)


# x (B, T, I), the LSTM, and what is left of it in "h"
BEFORE = [node("Transpose", "x", "steps", perm=[1, 0, 2])]
HEAD = [node("MatMul", "h W2", "z"), node("Add", "z B2", "y")]
ONE = [*BEFORE, node("LSTM", "steps W R B", "Y Yh Yc", hidden_size=H), node("Squeeze", "Y one", "s")]
TWO = [*BEFORE, node("LSTM", "steps W R B", "Y Yh Yc", hidden_size=H, direction="bidirectional")]
PLACES = {name: np.array(value) for name, value in
          dict(zero=[0], one=[1], two=[2], last=[-1], end=[2**63 - 1], minus=-1, nothing=0, first=1, H=[H], HH=[2 * H],
               both=[0, -1], joined=[0, 0, -1], three=[B, 1, -1]).items()}  # fmt: skip


def tensors(D=1, **more):
    return {**weights(D), **PLACES, "W2": W2 if D == 1 else BOTH, "B2": B2, **more}


TURNED = node("Transpose", "Y", "turned", perm=[2, 0, 1, 3])
FINAL = node("Transpose", "Yh", "turned", perm=[1, 0, 2])
# How outputs of all steps become "h", of one direction and of both.
SEQUENCES = {
    1: {
        "Squeeze and Transpose": [node("Transpose", "s", "h", perm=[1, 0, 2])],
        "Transpose and Reshape": [TURNED, node("Reshape", "turned joined", "h")],
        "Slice of all": [node("Slice", "s zero end zero", "all"), node("Transpose", "all", "h", perm=[1, 0, 2])],
        "Dropout": [node("Dropout", "s", "kept"), node("Identity", "kept", "same"), node("Cast", "same", "cast", to=1),
                    node("Transpose", "cast", "h", perm=[1, 0, 2])],
    },
    2: {
        "Transpose and Reshape": [TURNED, node("Reshape", "turned joined", "h")],
        "Split and Concat": [node("Split", "Y", "Y0 Y1", axis=1), node("Squeeze", "Y0 one", "s0"),
                             node("Squeeze", "Y1 one", "s1"), node("Concat", "s0 s1", "side", axis=-1),
                             node("Transpose", "side", "h", perm=[1, 0, 2])],
        "a shape that is computed": [
            TURNED, node("Shape", "turned", "sizes"),
            node("Slice", "sizes zero two zero", "outer"), node("Slice", "sizes two end zero", "inner"),
            node("Gather", "inner nothing", "D"), node("Gather", "inner first", "units"),
            node("Mul", "D units", "wide"),
            node("Unsqueeze", "wide zero", "width"), node("Concat", "outer width", "shape", axis=0),
            node("Reshape", "turned shape", "h")],
    },
}  # fmt: skip
FINALS = {
    1: {
        "Squeeze of Y_h": [node("Squeeze", "Yh zero", "h")],
        "Gather of the last step": [node("Gather", "s minus", "h", axis=0)],
        "Slice of the last step": [node("Slice", "s last end zero", "cut"), node("Squeeze", "cut zero", "h")],
        "Gather of Y_h": [node("Gather", "Yh nothing", "h", axis=0)],
        "a step of Y": [TURNED, node("Reshape", "turned joined", "all"),
                        node("Gather", "all minus", "h", axis=1)],
    },
    2: {
        "Transpose and Reshape of Y_h": [FINAL, node("Reshape", "turned both", "h")],
        "Flatten of Y_h": [FINAL, node("Flatten", "turned", "h", axis=1)],
        "both rows of Y_h": [node("Gather", "Yh nothing", "h0", axis=0), node("Gather", "Yh minus", "h1", axis=0),
                             node("Concat", "h0 h1", "h", axis=1)],
        "the last step and the first": [
            TURNED, node("Reshape", "turned joined", "all"),
            node("Gather", "all minus", "at_last", axis=1), node("Gather", "all nothing", "at_first", axis=1),
            node("Slice", "at_last zero H one", "h0"), node("Slice", "at_first H end one", "h1"),
            node("Concat", "h0 h1", "h", axis=-1)],
    },
}  # fmt: skip


@pytest.mark.parametrize(("D", "name"), [(D, name) for D in SEQUENCES for name in SEQUENCES[D]])
def test_outputs_of_all_steps(D, name, load):
    given = tensors(D)
    ours = load([*(ONE if D == 1 else TWO), *SEQUENCES[D][name], *HEAD], given)
    Y, _, _ = lstm(X, **{name: given[name] for name in "WRB"})
    close(ours(ROWS)[0], side_by_side(Y) @ given["W2"] + B2)
    assert ours.output == "sequence"


@pytest.mark.parametrize(("D", "name"), [(D, name) for D in FINALS for name in FINALS[D]])
def test_final_states(D, name, load):
    given = tensors(D)
    ours = load([*(ONE if D == 1 else TWO), *FINALS[D][name], *HEAD], given)
    _, final, _ = lstm(X, **{name: given[name] for name in "WRB"})
    close(ours(ROWS)[0], final.transpose(1, 0, 2).reshape(B, -1) @ given["W2"] + B2)
    assert ours.output == "last"


def test_the_operator_with_all_that_a_layer_has(load):
    given = {**weights(2, names="WRBP", seed=11), "h0": numbers(2, 1, H), "c0": numbers(2, 1, H, seed=4)}
    first = {name: np.repeat(given[name], B, axis=1) for name in ("h0", "c0")}
    nodes = [node("LSTM", "x W R B - h c P", "Y", hidden_size=H, direction="bidirectional", input_forget=1)]
    inputs = [(name, FLOAT, shape) for name, shape in
              (("x", ("time", "batch", I)), ("h", (2, "batch", H)), ("c", (2, "batch", H)))]  # fmt: skip
    ours = load(nodes, given, inputs=inputs, outputs=["Y"])
    peeping = {name: given[name] for name in "WRBP"}
    Y, h, c = lstm(X, **peeping, h=first["h0"], c=first["c0"], coupled=True)
    y, state = ours(ROWS, (first["h0"], first["c0"]))
    close(y, side_by_side(Y))
    close(state.h, h)
    close(state.c, c)


def test_layout_1_and_its_first_state_in_the_file(read):
    given = {**weights(2), "h": np.repeat(numbers(1, 2, H), B, axis=0), "c": np.zeros((B, 2, H), "f4")}
    network = read([node("LSTM", "x W R B - h c", "y", hidden_size=H, direction="bidirectional", layout=1)], given)
    forward, backward = network.layers[0].directions
    assert np.array_equal([forward.h0, backward.h0], given["h"][0]) and forward.c0 is None and network.notes == {}


def test_steps_first_is_noted(read):
    nodes = [node("LSTM", "x W R B", "y", hidden_size=H)]
    assert read(nodes, tensors(), inputs=[("x", FLOAT, ("time", "batch", I))]).notes == {"time_major": True}


def test_a_stack_with_ids_and_zeros_that_are_computed(load):
    """The shape of a state of zeros, from that of the input, as PyTorch's exporter writes it."""
    table, first, second = numbers(9, I), weights(), weights(I=H, seed=6)
    given = {**tensors(table=table), **{f"{name}2_": second[name] for name in "WRB"}}
    zeros = [node("Shape", "x", "sizes"), node("Gather", "sizes nothing", "rows", axis=0),
             node("Unsqueeze", "rows zero", "row_size"), node("Constant", "-", "layers", value=np.array([2])),
             node("Concat", "layers row_size H", "state_shape", axis=0),
             node("ConstantOfShape", "state_shape", "zeros", value=np.zeros(1, "f4")),
             node("Slice", "zeros zero one zero", "zeros0"), node("Slice", "zeros one two zero", "zeros1")]  # fmt: skip
    nodes = [node("Gather", "table x", "e"), *zeros, node("Transpose", "e", "steps", perm=[1, 0, 2]),
             node("LSTM", "steps W R B - zeros0 zeros0", "Y0 Yh0 Yc0", hidden_size=H), node("Squeeze", "Y0 one", "s0"),
             node("LSTM", "s0 W2_ R2_ B2_ - zeros1 zeros1", "Y Yh Yc", hidden_size=H), node("Squeeze", "Y one", "s"),
             node("Concat", "Yh0 Yh", "hn", axis=0), *SEQUENCES[1]["Squeeze and Transpose"], *HEAD]  # fmt: skip
    ours = load(nodes, given, inputs=[("x", INT64, ("batch", "time"))], outputs=["y", "hn"])
    ids = np.array([[1, 8, 3, 3, 0], [2, 7, 5, 1, 4]])
    Y, _, _ = lstm(table[ids].swapaxes(0, 1), **first)
    Y, _, _ = lstm(Y[:, 0], **second)
    close(ours(ids)[0], side_by_side(Y) @ W2 + B2)
    top = [node("Gather", "hn minus", "h", axis=0), *HEAD]  # PyTorch's h_n[-1]
    ours = load([*nodes[:-3], *top], given, inputs=[("x", INT64, ("batch", "time"))])
    close(ours(ids)[0], Y[-1, 0] @ W2 + B2)


def test_lengths_that_are_all_steps_and_zeros_as_tensorflow_writes_them(load):
    sizes = [node("Shape", "steps", "sizes"), node("Cast", "sizes", "real", to=FLOAT),
             node("Slice", "real one two zero", "rows"), node("Slice", "real zero one zero", "all"),
             node("Cast", "rows", "repeats", to=INT64), node("Tile", "all repeats", "lens"),
             node("Cast", "lens", "lengths", to=6)]  # fmt: skip
    zeros = [node("Concat", "repeats H", "shape", axis=0),
             node("ConstantOfShape", "shape", "plane"), node("Unsqueeze", "plane zero", "f"),
             node("Concat", "f f", "zeros", axis=0)]  # fmt: skip
    lstms = [node("LSTM", "steps W R B lengths zeros zeros", "Y Yh", direction="bidirectional", hidden_size=H)]
    nodes = [*BEFORE, *sizes, *zeros, *lstms, *SEQUENCES[2]["Split and Concat"], *HEAD]
    given = tensors(2)
    Y, _, _ = lstm(X, **{name: given[name] for name in "WRB"})
    close(load(nodes, given)(ROWS)[0], side_by_side(Y) @ given["W2"] + B2)


def test_layout_1(load):
    given = tensors(2)
    nodes = [node("LSTM", "x W R B", "Y Yh Yc", hidden_size=H, direction="bidirectional", layout=1),
             node("Reshape", "Y joined", "h"), *HEAD]  # fmt: skip
    Y, final, _ = lstm(X, **{name: given[name] for name in "WRB"})
    close(load(nodes, given)(ROWS)[0], side_by_side(Y) @ given["W2"] + B2)
    nodes = [*nodes[:1], node("Reshape", "Yh both", "h"), *HEAD]
    close(load(nodes, given)(ROWS)[0], final.transpose(1, 0, 2).reshape(B, -1) @ given["W2"] + B2)


# --- dense layers -----------------------------------------------------------------------------------------------------

GELU = [node("Pow", "z three_", "p"), node("Mul", "p small", "q"), node("Add", "z q", "r"), node("Mul", "r root", "t"),
        node("Tanh", "t", "u"), node("Add", "u one_", "v"), node("Mul", "z v", "w"),
        node("Mul", "w half", "a")]  # fmt: skip
SPELLED = {
    "softplus": [node("Exp", "z", "e"), node("Add", "e one_", "f"), node("Log", "f", "a")],
    "silu": [node("Neg", "z", "n"), node("Exp", "n", "e"), node("Add", "one_ e", "f"), node("Div", "z f", "a")],
    "gelu_tanh": GELU,
    "relu": [node("Max", "z nil", "a")],
    "leaky_relu": [node("LeakyRelu", "z", "a")],
    "elu": [node("Elu", "z", "a", alpha=1.0)],
    "softsign": [node("Abs", "z", "b"), node("Add", "b one_", "d"), node("Div", "z d", "a")],
    "sigmoid": [node("Mul", "z half", "b"), node("Tanh", "b", "d"), node("Add", "d one_", "e"),
                node("Mul", "e half", "a")],
    ("leaky_relu", 0.2): [node("Mul", "z fifth", "b"), node("Max", "z b", "a")],
    ("elu", 0.3): [node("Elu", "z", "a", alpha=0.3)],
    ("hard_sigmoid", 1 / 6, 0.5): [node("Add", "z three_", "b"), node("Clip", "b nil six", "d"),
                                        node("Div", "d six", "a")],
    "hard_sigmoid": [node("HardSigmoid", "z", "a")],
    ("thresholded_relu", 0.2): [node("Greater", "z fifth", "b"), node("Where", "b z nil", "a")],
    "thresholded_relu": [node("ThresholdedRelu", "z", "a")],
    "relu6": [node("Relu", "z", "b"), node("Min", "b six", "a")],
    "hard_tanh": [node("Clip", "z", "a", min=-1.0, max=1.0)],
    "selu": [node("Selu", "z", "a")],
    "exponential": [node("Exp", "z", "a")],
    ("affine", 0.2, -3.0): [node("Mul", "fifth z", "b"), node("Sub", "b three_", "a")],
    ("scaled_tanh", 3.0, 0.2): [node("Mul", "z fifth", "b"), node("Tanh", "b", "d"), node("Mul", "d three_", "a")],
}  # fmt: skip
SCALARS = {name: np.array(value, "f4") for name, value in
           dict(one_=1, half=0.5, nil=0, three_=3, six=6, fifth=0.2, small=0.044715,
                root=np.sqrt(2 / np.pi)).items()}  # fmt: skip
START = [*ONE, node("Transpose", "s", "h", perm=[1, 0, 2])]


@pytest.mark.parametrize("name", SPELLED)
def test_activations_however_they_are_spelled(name, read):
    nodes = [*START, node("MatMul", "h W2", "m"), node("Add", "B2 m", "z"), *SPELLED[name], node("MatMul", "a W3", "y")]
    W3, _ = dense(2, 6, seed=8)
    network = read(nodes, tensors(**SCALARS, W3=W3))
    found, *given = (network.layers[1].activation,) if isinstance(name, str) else network.layers[1].activation
    expected, *numbers = (name,) if isinstance(name, str) else name
    assert found == expected and given == pytest.approx(numbers, rel=1e-14)
    assert np.array_equal(network.layers[1].weight, W2.T) and np.array_equal(network.layers[1].bias, B2)
    assert network.layers[2].bias is None


def test_a_bias_that_is_taken_away(read):
    network = read([*START, node("MatMul", "h W2", "z"), node("Sub", "z B2", "y")], tensors())
    assert np.array_equal(network.layers[1].bias, -B2)
    with pytest.raises(ValueError, match=r"sub of y \(Sub\): expected one number beside a dense layer's outputs"):
        read([*START, node("MatMul", "h W2", "z"), node("Sub", "B2 z", "y")], tensors())


def test_gemm_with_its_attributes(load):
    nodes = [*ONE, *FINALS[1]["Squeeze of Y_h"],
             node("Gemm", "h V B2", "z", alpha=0.5, beta=0.25, transB=1),
             node("Softmax", "z", "y", axis=-1)]  # fmt: skip
    given = tensors(V=np.ascontiguousarray(W2.T))
    _, final, _ = lstm(X, **{name: given[name] for name in "WRB"})
    exps = np.exp(0.5 * final[0] @ W2 + 0.25 * B2)
    close(load(nodes, given).predict_proba(ROWS), exps / exps.sum(axis=1, keepdims=True))


def test_logarithms_of_probabilities_are_noted(read):
    network = read([*START, node("MatMul", "h W2", "z"), node("LogSoftmax", "z", "y")], tensors())
    assert network.layers[-1].activation == "softmax" and network.notes == {"log": True}


def test_probabilities_of_one_output(load):
    W1, _ = dense(1, H)
    nodes = [*ONE, *FINALS[1]["Squeeze of Y_h"], node("MatMul", "h W1", "z"), node("Sigmoid", "z", "p"),
             node("Squeeze", "p one", "y")]  # fmt: skip
    given = tensors(W1=W1)
    _, final, _ = lstm(X, **{name: given[name] for name in "WRB"})
    close(load(nodes, given).predict_proba(ROWS), sigmoid(final[0] @ W1))


def test_operators_of_old_opsets(load):
    nodes = [*BEFORE, node("LSTM", "steps W R B", "Y Yh", hidden_size=H), node("Slice", "Yh", "cut", starts=[0],
             ends=[1], axes=[0]), node("Squeeze", "cut", "h", axes=[0]), node("Gemm", "h W2 B2", "z"),
             node("Softmax", "z", "y")]  # fmt: skip
    given = tensors()
    _, final, _ = lstm(X, **{name: given[name] for name in "WRB"})
    exps = np.exp(final[0] @ W2 + B2)
    close(load(nodes, given, opset=9).predict_proba(ROWS), exps / exps.sum(axis=1, keepdims=True))


def test_an_output_is_chosen(read):
    nodes = [*START, *HEAD, node("Softmax", "y", "p", axis=-1)]
    assert read(nodes, tensors(), outputs=["y", "p"], output="p").layers[-1].activation == "softmax"
    assert read(nodes, tensors(), outputs=["y", "p"], output="y").layers[-1].activation == "linear"
    with pytest.raises(ValueError, match="output: expected the name of one output, as there are several: y, p"):
        read(nodes, tensors(), outputs=["y", "p"])
    with pytest.raises(ValueError, match="output: expected one of y, p, got 'q'"):
        read(nodes, tensors(), outputs=["y", "p"], output="q")


def test_nodes_within_what_cannot_be_read(tmp_path):
    path = tmp_path / "graph.onnx"
    nodes = [node("Conv", "x W2", "steps"), node("LSTM", "steps W R B", "Y Yh", hidden_size=H, clip=3.0,
             activations=["Sigmoid", "Tanh", "HardSigmoid"], activation_alpha=[0.25], activation_beta=[0.5]),
             node("Squeeze", "Y one", "s"), node("LSTM", "s V S B", "Z", direction="reverse"),
             node("Sort", "Z", "y")]  # fmt: skip
    second = weights(I=H)
    given = tensors(V=second["W"], S=second["R"])
    path.write_bytes(model(nodes, given))
    first, last = onnx.read_nodes(path)
    assert (first.name, first.clip, first.activations) == ("lstm of Y", 3, ("Sigmoid", "Tanh", "HardSigmoid"))
    assert (first.activation_alpha, first.activation_beta) == ((0.25,), (0.5,))
    assert (first.direction, first.layout, first.input_forget, first.P) == ("forward", 0, 0, None)
    assert np.array_equal(first.W, given["W"]) and np.array_equal(first.B, given["B"])
    assert (last.direction, last.hidden_size, last.W.shape) == ("reverse", None, (1, 4 * H, H))
    assert (first.behind, last.behind) == (None, 0)
    layer = first.recurrent()
    assert layer.activations == ("sigmoid", "tanh", ("hard_sigmoid", 0.25, 0.5)) and layer.gate_clip == 3
    with pytest.raises(ValueError, match=r"graph.onnx: node conv of steps \(Conv\): expected an operator that a model"):
        onnx.read(path)
