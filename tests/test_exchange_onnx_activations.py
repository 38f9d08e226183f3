"""Activations in ONNX graphs, node by node: known by the numbers that they give everywhere, or refused."""

import numpy as np
import pytest
from onnx_graphs import H, I, dense, model, node, weights

from cylstm.exchange import onnx
from cylstm.exchange.onnx_file import FLOAT

START = [node("LSTM", "x W R B", "Y Yh"), node("Squeeze", "Yh first", "h"), node("MatMul", "h W2", "z")]
NUMBERS = {"nil": 0, "one": 1, "low": 0.1234, "high": 0.1236, "c": 0.3512, "tiny": 0.01, "much": 1e9, "steep": 1e5,
           "all": 3.4e38, "least": -3.4e38, "minus": -1, "fifth": 0.2, "five": 5, "k": 0.044715,
           "root": np.sqrt(2 / np.pi), "half": 0.5, "bottom": -1e7, "six": 6, "three": 3, "wee": 1e-9}  # fmt: skip
GIVEN = {**weights(), "first": np.array([0]), "W2": dense(3, H)[0], "W3": dense(2, 3)[0],
         **{name: np.array(number, "f4") for name, number in NUMBERS.items()}}  # fmt: skip


@pytest.fixture
def read(tmp_path):
    """The activation of a dense layer that is the last one, or has another behind it."""

    def read(nodes, last=True):
        path = tmp_path / "graph.onnx"
        nodes = [*START, *nodes, node("Identity", "a", "y") if last else node("MatMul", "a W3", "y")]
        path.write_bytes(model(nodes, GIVEN, inputs=[("x", FLOAT, ("time", "batch", I))]))
        return onnx.read(path).layers[1].activation

    return read


def steps(text):
    """Nodes as "a = Op b c; ..." says."""
    parts = [one.split(" = ") for one in text.split("; ")]
    made = [(inputs.split(), output) for output, inputs in parts]
    return [
        node(op, " ".join(given), output, **({"to": FLOAT} if op == "Cast" else {})) for (op, *given), output in made
    ]


BUMP = "d = Sub z c; "
OTHERS = {
    "a narrow bump": BUMP + "e = Abs d; f = Sub tiny e; g = Relu f; r = Relu z; a = Add r g",
    "a narrow parabola": BUMP + "s = Mul d steep; e = Mul s s; f = Sub tiny e; g = Max f nil; a = Add z g",
    "a narrow bell": BUMP + "s = Mul d steep; e = Mul s s; f = Neg e; g = Exp f; t = Tanh z; a = Add t g",
    "a narrow window": "u = Greater z low; v = Less z high; r = Sigmoid z; i = Where v nil r; a = Where u i r",
    "a window of numbers": "u = Greater z low; n = Cast u; v = Less z high; m = Cast v; w = Mul n m; r = Relu z;"
                           " a = Add r w",
    "a spike by Clip": BUMP + "s = Mul d steep; f = Clip s minus one; g = Abs f; a = Mul z g",
    "a far bound": "r = Relu z; a = Min r much",
    "a far bound below": "a = Max z bottom",
    "a far clip": "a = Clip z minus much",
    "another far below": "e = Elu z; g = Less z bottom; a = Where g e z",
    "a pole": BUMP + "i = Reciprocal d; j = Mul wee i; a = Add z j",
    "a quotient by 0": "a = Div z nil",
    "a step": "g = Greater z nil; a = Cast g",
    "hard swish": "p = Add z three; q = Clip p nil six; r = Div q six; a = Mul z r",
    "gelu": "a = Gelu z",
}  # fmt: skip
ALIKE = {
    "softplus": "n = Abs z; m = Neg n; e = Exp m; f = Add one e; g = Log f; r = Relu z; a = Add r g",
    "relu": "g = Greater z nil; n = Cast g; a = Mul z n",
    "elu": "e = Exp z; f = Sub e one; g = Greater z nil; a = Where g z f",
    "silu": "s = Sigmoid z; a = Mul s z",
    "linear": "r = Clip z least all; a = Mul r one",
    "hard_tanh": "u = Max z minus; a = Min u one",
    "relu6": "a = Clip z nil six",
    "gelu_tanh": "s = Mul z z; q = Mul s z; k3 = Mul q k; r = Add z k3; t = Mul r root; u = Tanh t; v = Add u one;"
                 " w = Mul v z; a = Mul w half",
    ("leaky_relu", 0.2): "g = Less z nil; m = Mul z fifth; a = Where g m z",
    ("thresholded_relu", 0.2): "p = Greater z fifth; n = Cast p; a = Mul n z",
    "tanh": "n = Add z z; e = Sigmoid n; f = Add e e; a = Sub f one",
    ("hard_sigmoid", 0.2, 0.5): "m = Mul z fifth; p = Add m half; r = Relu p; a = Min r one",
}  # fmt: skip


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("name", OTHERS)
def test_what_differs_from_an_activation_anywhere_is_refused(name, last, read):
    with pytest.raises(ValueError, match=r"output y: node \w+ of a \(\w+\): expected one of the activations linear, "):
        read(steps(OTHERS[name]), last)


@pytest.mark.parametrize("name", ALIKE)
def test_activations_in_nodes_of_other_kinds(name, read):
    found = read(steps(ALIKE[name]))
    assert found == (name if name != ("hard_sigmoid", 0.2, 0.5) else "hard_sigmoid")


def test_of_two_thresholds_the_larger_one(read):
    nodes = [node("ThresholdedRelu", "z", "b", alpha=0.68), node("ThresholdedRelu", "b", "a", alpha=0.7)]
    assert read(nodes) == ("thresholded_relu", 0.7)
    assert read([node("ThresholdedRelu", "z", "a", alpha=0.003)]) == ("thresholded_relu", 0.003)


TRUE = {
    "an output": ("a = Greater z nil", r"output y: node greater of a \(Greater\): expected numbers, got what is true"),
    "a sum": ("g = Greater z nil; a = Add g z", r"node add of a \(Add\): expected numbers, and what is true or fa"),
    "a condition of numbers": ("r = Relu z; a = Where r z nil", r"node where of a \(Where\): expected numbers, and"),
    "numbers of a condition": ("g = Less z nil; a = Where g z g", r"node where of a \(Where\): expected numbers, and"),
    "a known condition": ("a = Where one z nil", r"node where of a \(Where\): expected numbers, and what is true"),
}  # fmt: skip


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("name", TRUE)
def test_what_is_true_or_false_is_no_number(name, last, read):
    text, message = TRUE[name]
    with pytest.raises(ValueError, match=message):
        read(steps(text), last)


@pytest.mark.parametrize(("op", "attributes"), [("LeakyRelu", {"alpha": "text"}), ("Elu", {"alpha": [0.5, 0.25]}),
                         ("Relu", {"alpha": 0.5}), ("Gelu", {"approximate": "cubic"})])  # fmt: skip
def test_attributes_that_an_operator_has_not(op, attributes, read):
    with pytest.raises(
        ValueError, match=rf"node {op.lower()} of a \({op}\): expected (numbers as attributes|what it ta)"
    ):
        read([node(op, "z", "a", **attributes)])
