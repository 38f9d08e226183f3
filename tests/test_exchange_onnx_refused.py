"""ONNX graphs that no network here says: refused by the node's name."""

import numpy as np
import pytest
from onnx_graphs import B, H, I, T, dense, model, node, numbers
from test_exchange_onnx_graphs import BEFORE, FINALS, HEAD, ONE, START, TURNED, TWO, tensors

from cylstm.exchange import onnx
from cylstm.exchange.onnx_file import FLOAT, INT32


@pytest.fixture
def read(tmp_path):
    """A network from a graph."""

    def read(*args, **options):
        path = tmp_path / "graph.onnx"
        path.write_bytes(model(*args, **options))
        return onnx.read(path)

    return read


STEP = [TURNED, node("Reshape", "turned joined", "all"), node("Gather", "all minus", "h", axis=1), *HEAD]
STARTED = [node("LSTM", "steps W R B", "Y0 Yh0 Yc0", hidden_size=H)]


def lstm_with(inputs="steps W R B", **attributes):
    """A whole graph with one LSTM node."""
    return [*BEFORE, node("LSTM", inputs, "Y Yh Yc", **attributes), *FINALS[1]["Squeeze of Y_h"], *HEAD]


REFUSED = {
    "a direction": (lstm_with(direction="sideways"), r"lstm of Y \(LSTM\): expected a direction forward, reverse or b"),
    "an activation of nobody": (lstm_with(activations=["Sigmoid", "Mish", "Tanh"]),
                                r"lstm of Y \(LSTM\): expected activations of Relu, Tanh, .*, got Mish"),
    "two activations": (lstm_with(activations=["Sigmoid", "Tanh"]), r"of Y \(LSTM\): expected 3 activations, with li"),
    "activations that are a number": (lstm_with(activations=3), r"of Y \(LSTM\): expected 3 activations, with lists"),
    "no beta": (lstm_with(activations=["Affine", "Tanh", "Tanh"], activation_alpha=[0.5]),
                r"of Y \(LSTM\): activations.0.: expected \('affine', alpha, beta\), got"),
    "a falling one": (lstm_with(activations=["Sigmoid", "LeakyRelu", "Tanh"], activation_alpha=[-0.5]),
                      r"of Y \(LSTM\): activations.1.: expected the alpha of 'leaky_relu' in 0..1e.06, got -0.5"),
    "one alpha for each": (lstm_with(activations=["HardSigmoid", "Tanh", "Tanh"], activation_alpha=[0.25, 1.0, 1.0]),
                           r"of Y \(LSTM\): expected a number for each activation that has an alpha, got 2 more"),
    "an alpha of text": (lstm_with(activations=["Elu", "Tanh", "Tanh"], activation_alpha=["a"]),
                         r"of Y \(LSTM\): activations.0.: expected a number for the alpha of 'elu', got str 'a'"),
    "a clip": (lstm_with(clip=-2.5), r"lstm of Y \(LSTM\): expected a clip > 0, or none, got float -2.5"),
    "a clip of none": (lstm_with(clip=float("nan")), r"lstm of Y \(LSTM\): expected a clip > 0, or none, got float n"),
    "an attribute": (lstm_with(proj=3), r"lstm of Y \(LSTM\): expected the attributes of an LSTM, got proj"),
    "another type": (lstm_with(hidden_size="4"), r"lstm of Y \(LSTM\): expected R of 4 hidden units"),
    "hidden units": (lstm_with(hidden_size=H + 1), "expected R of 5 hidden units, its hidden_size, got 4"),
    "no weights": (lstm_with("steps W - B"), "expected R, its weights, in the file, got nothing"),
    "weights from outside": (lstm_with("steps x R B"), "expected W, its weights, in the file, got 'x', which is not i"),
    "shapes": (lstm_with("steps R R B"), r"lstm of Y \(LSTM\): expected X .*|expected 4 numbers in each step of X, go"),
    "lengths": (lstm_with("steps W R B two"), "expected sequence_lens that are an input, or all steps, got others"),
    "a state of nodes": ([*BEFORE, *STARTED, *lstm_with("steps W R B - Yh0")[1:]],
                         r"lstm of Y \(LSTM\): expected initial_h from outside, or in the file, got what other nodes "),
    "rows that differ": (lstm_with("steps W R B - rows"), "expected initial_h .1, B, 4., the same for all rows, got o"),
    "another operator": ([*START, node("Conv", "h W2", "z"), *HEAD[1:]],
                         r"conv of z \(Conv\): expected an operator that a model here has, got another"),
    "of others": ([*START, node("MatMul", "h W2", "z", domain="com.them"), *HEAD[1:]],
                  r"matmul of z \(com.them.MatMul\): expected an operator of ONNX itself, got one of com.them"),
    "a name of nobody": ([*START, node("MatMul", "nobody W2", "z"), *HEAD[1:]], "nobody: expected the output of a nod"),
    "an activation": ([*START, node("MatMul", "h W2", "z"), node("Mish", "z", "a"), node("MatMul", "a W3", "y")],
                      r"graph.onnx: output y: node mish of a \(Mish\): expected one of the activations linear, relu"),
    "nearly one": ([*START, node("MatMul", "h W2", "z"), node("Mul", "z nearly", "a"), node("Sigmoid", "a", "y")],
                   r"sigmoid of y \(Sigmoid\): expected one of the activations"),
    "a slope": ([*START, node("MatMul", "h W2", "z"), node("LeakyRelu", "z", "y", alpha=-0.25)], "one of the activati"),
    "a clipped relu": ([*START, node("MatMul", "h W2", "z"), node("Relu", "z", "a"), node("Min", "a large", "y")],
                       r"min of y \(Min\): expected one of the activations"),
    "bounds that differ": ([*START, node("MatMul", "h W2", "z"), node("Clip", "z B2 large", "y")], "one number beside"),
    "formulas without end": ([*START, node("MatMul", "h W2", "z0"), *(
        node("LeakyRelu", f"z{n}", f"z{n + 1}", alpha=n / 64) for n in range(65)), node("Relu", "z65", "y")],
        "expected at most 64 operators in an activation, got more"),
    "no dense layer": ([*START, node("Relu", "h", "y")], "expected a dense layer before it, got Recurrent"),
    "two biases": ([*START, *HEAD[:1], node("Add", "z B2", "b"), node("Add", "b B2", "y")], "expected one number besi"),
    "a residual": ([*START, node("MatMul", "h W3_", "z"), node("Add", "z h", "y")],
                   r"add of y \(Add\): expected outputs of the same dense layer"),
    "softmax over steps": ([*START, *HEAD, node("Softmax", "y", "p", axis=1)], "expected it over a dense layer's outp"),
    "softmax in between": ([*START, node("MatMul", "h W2", "z"), node("Softmax", "z", "a", axis=-1),
                            node("Relu", "a", "y")],
                           "expected a dense layer before it, got softmax"),
    "a step in the middle": ([*ONE, node("Gather", "s two", "g", axis=0), node("Squeeze", "g zero", "h"), *HEAD],
                             "expected the last step, or all, got 2..3"),
    "the first step": ([*ONE, node("Gather", "s nothing", "h", axis=0), *HEAD], "expected a layer's final state, got "),
    "a step that is a quotient": ([*ONE, node("Div", "minus pair", "p"), node("Gather", "s p", "h", axis=0), *HEAD],
                                  "expected a layer's final state, got one step"),  # -1 / 2 is 0
    "a quotient by 0": ([*ONE, node("Div", "minus nothing", "place"), node("Gather", "s place", "h", axis=0), *HEAD],
                        r"div of place \(Div\): expected what it takes, got divide by zero"),
    "axes that are mixed": ([*ONE, node("Reshape", "s three", "h"), *HEAD], "expected axes to be joined or parted as "),
    "features that are steps": ([*ONE, node("Transpose", "s", "h", perm=[2, 1, 0]), *HEAD], "along the last axis, got"),
    "cells": ([*ONE, node("Squeeze", "Yc zero", "h"), *HEAD], "expected a layer's outputs, got the state of its cells"),
    "a piece of the input": ([node("Slice", "x zero two two", "cut"), node("Transpose", "cut", "steps", perm=[1, 0, 2]),
                              *lstm_with()[1:]], "expected the input x as a whole, got a part of it"),
    "nothing": ([node("Identity", "x", "y")], "output y: expected outputs of layers, got something else"),
    "much memory": ([node("Constant", "-", "k0", value=np.ones(4096, "f4")), *(
        node("Concat", f"k{n} " * 16, f"k{n + 1}", axis=0) for n in range(9)), *START, node("MatMul", "h k9", "y")],
        r"concat of k\d \(Concat\): expected constants of about the file's size, got more"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_network_says_is_refused_by_the_node(name, read):
    nodes, message = REFUSED[name]
    outputs = ["p"] if name == "softmax over steps" else ["y"]
    given = tensors(
        W3=dense(2, 6)[0],
        W3_=dense(H, H)[0],
        rows=numbers(1, B, H),
        pair=np.array(2),
        large=np.array(7.0, "f4"),
        nearly=np.array(1.0001, "f4"),
    )
    with pytest.raises(ValueError, match=message) as error:
        read(nodes, given, outputs=outputs)
    assert "graph.onnx: " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("place", ["minus", "nothing"])
def test_one_step_of_two_directions_is_no_final_state(place, read):
    """The reverse direction has seen that step alone: what `y[:, -1]` gives in PyTorch."""
    nodes = [*TWO, TURNED, node("Reshape", "turned joined", "all"), node("Gather", f"all {place}", "h", axis=1), *HEAD]
    with pytest.raises(
        ValueError, match=r"matmul of z \(MatMul\): expected a layer's final state, got one step of its"
    ):
        read(nodes, tensors(2))


def test_the_last_step_of_all_is_no_final_state_where_rows_have_lengths(read):
    inputs = [("x", FLOAT, ("batch", "time", I)), ("n", INT32, ("batch",))]
    nodes = [*BEFORE, node("LSTM", "steps W R B n", "Y Yh Yc"), node("Squeeze", "Y one", "s")]
    with pytest.raises(ValueError, match="expected a layer's final state beside sequence_lens, got its outputs of the"):
        read([*nodes, *FINALS[1]["Gather of the last step"], *HEAD], tensors(), inputs=inputs)
    network = read([*nodes, *FINALS[1]["Squeeze of Y_h"], *HEAD], tensors(), inputs=inputs)
    assert network.layers[0].last


HALVES = [node("Split", "Y", "Y0 Y1", axis=1), node("Squeeze", "Y0 one", "s0"), node("Squeeze", "Y1 one", "s1")]
AT = [node("Gather", f"s{d} {place}", f"{place}{d}", axis=0) for d in (0, 1) for place in ("minus", "nothing")]
ROWS_OF_BOTH = [node("Split", "Yh", "h0 h1", axis=0), node("Concat", "h1 h0", "swapped", axis=0),
                node("Transpose", "swapped", "turned", perm=[1, 0, 2]),
                                                             node("Reshape", "turned both", "h")]  # fmt: skip
OF_BOTH = {
    "other activations": ([*BEFORE, node("LSTM", "steps W R B", "Y Yh Yc", direction="bidirectional",
                          activations=["Sigmoid", "Tanh", "Tanh", "Sigmoid", "Tanh", "Relu"]), TURNED,
                          node("Reshape", "turned joined", "h"), *HEAD],
                          r"of Y \(LSTM\): expected the same activations in both directions, got Sigmoid, Tanh, "),
    "the reverse first": ([*HALVES, node("Concat", "s1 s0", "h", axis=-1), *HEAD],
                          "expected the outputs of both directi"),
    "one twice": ([*HALVES, node("Concat", "s0 s0", "h", axis=-1), *HEAD], "expected the outputs of both directions"),
    "one alone": ([*HALVES, node("MatMul", "s0 V", "z"), *HEAD[1:]],
                  "expected both directions of a layer, got one of them"),
    "above each other": ([*HALVES, node("Concat", "s0 s1", "h", axis=1), *HEAD],
                         "expected directions side by side, got"),
    "the ends that began": ([*HALVES, *AT, node("Concat", "nothing0 minus1", "h", axis=-1), *HEAD],
                            "expected the last step forward and the first one backward, or all, got others"),
    "ends on one side": ([*HALVES, *AT, node("Concat", "minus0 minus1", "h", axis=-1), *HEAD],
                         "expected the last step f"),
    "final states, swapped": ([*ROWS_OF_BOTH, *HEAD], "expected|got something else"),
    "units between directions": ([node("Transpose", "Y", "turned", perm=[2, 0, 3, 1]), node("Reshape", "turned joined",
                                 "h"),
                                  *HEAD], "expected one step's numbers along the last axis"),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_BOTH)
def test_directions_that_are_put_together_otherwise(name, read):
    nodes, message = OF_BOTH[name]
    with pytest.raises(ValueError, match=message):
        read([*TWO, *nodes], tensors(2, V=dense(6, H)[0]))


FIXED = [("x", FLOAT, (B, T, I))]
OF_FIXED = {
    "several steps": ([*ONE, node("Slice", "s two end zero", "cut"),
                       node("Transpose", "cut", "h", perm=[1, 0, 2]), *HEAD],
                      "expected the last step, or all, got 2..5"),
    "less than there is": ([node("Reshape", "x less", "steps"), *ONE[1:], *START[-1:], *HEAD],
                           "expected as many numbers as"),
    "rows for steps": ([*ONE, node("Transpose", "s", "swapped", perm=[1, 0, 2]), node("LSTM", "swapped V S B", "Z"),
                        node("Squeeze", "Z one", "h"), *HEAD], "expected steps and rows as the LSTM before it has"),
    "softmax of old, over steps and outputs": ([*START, *HEAD, node("Softmax", "y", "p")],
                                               "the last axis, got axis 1 of 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_FIXED)
def test_graphs_of_fixed_sizes_and_old_ones(name, read):
    nodes, message = OF_FIXED[name]
    given = tensors(less=np.array([B, T]), V=numbers(1, 4 * H, H), S=numbers(1, 4 * H, H, seed=3))
    if name.startswith("softmax"):
        nodes = [one for one in nodes if one != ONE[-1]]
        nodes.insert(2, node("Squeeze", "Y", "s", axes=[1]))
    with pytest.raises(ValueError, match=message):
        read(nodes, given, inputs=FIXED, outputs=["p" if name.startswith("softmax") else "y"],
             opset=9 if name.startswith("softmax") else 14)  # fmt: skip
