"""ONNX files of cells with other activations and a clip of the gates: the operator's own numbers, and ours back."""

import os

import numpy as np
import pytest
from onnx_graphs import B, H, I, T, lstm, model, node, numbers, sigmoid, weights

import cylstm
from cylstm import exchange
from cylstm.exchange import onnx
from cylstm.exchange.onnx_file import FLOAT, read_file

X = numbers(T, B, I)


def hard_sigmoid(alpha, beta):
    return lambda z: np.clip(alpha * z + beta, 0, 1)


def elu(alpha):
    return lambda z: np.where(z > 0, z, alpha * (np.exp(z) - 1))


# The node's attributes, ours, and the formulas. Numbers go, in their order, to those that take one.
CELLS = {
    "in their order": (
        dict(activations=["HardSigmoid", "LeakyRelu", "Softsign"], activation_alpha=[0.3, 0.2], activation_beta=[0.4]),
        (("hard_sigmoid", 0.3, 0.4), ("leaky_relu", 0.2), "softsign"),
        (hard_sigmoid(0.3, 0.4), lambda z: np.where(z > 0, z, 0.2 * z), lambda z: z / (1 + abs(z)))),
    "usual numbers": (
        dict(activations=["hardsigmoid", "ELU", "ThresholdedRelu"]),
        ("hard_sigmoid", "elu", "thresholded_relu"),
        (hard_sigmoid(0.2, 0.5), elu(1), lambda z: np.where(z > 1, z, 0))),
    "two numbers each": (
        dict(activations=["Sigmoid", "ScaledTanh", "Affine"], activation_alpha=[1.5, 0.5],
             activation_beta=[0.75, -0.25]),
        ("sigmoid", ("scaled_tanh", 1.5, 0.75), ("affine", 0.5, -0.25)),
        (sigmoid, lambda z: 1.5 * np.tanh(0.75 * z), lambda z: 0.5 * z - 0.25)),
    "some of the usual numbers": (
        dict(activations=["Sigmoid", "Elu", "LeakyRelu"], activation_alpha=[0.5]),
        ("sigmoid", ("elu", 0.5), "leaky_relu"), (sigmoid, elu(0.5), lambda z: np.where(z > 0, z, 0.01 * z))),
    "numbers for none": (
        dict(activations=["Sigmoid", "Relu", "Softplus"], activation_alpha=[0.5, 0.25, 3.0]),
        ("sigmoid", "relu", "softplus"), (sigmoid, lambda z: np.maximum(z, 0), lambda z: np.log1p(np.exp(z)))),
    "the plain ones": (dict(activations=["Sigmoid", "Tanh", "Tanh"]), None, (sigmoid, np.tanh, np.tanh)),
}  # fmt: skip


def of_both(attributes):
    """The same for two directions."""
    return {name: 2 * several for name, several in attributes.items()}


@pytest.mark.parametrize("clip", [None, 0.6])
@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("name", CELLS)
def test_a_node_gives_the_operators_numbers(name, D, clip, tmp_path):
    attributes, activations, functions = CELLS[name]
    attributes = of_both(attributes) | {"direction": "bidirectional"} if D == 2 else attributes
    if name == "some of the usual numbers" and D == 2:
        attributes |= {"activation_alpha": [0.5, 0.01, 0.5]}
    more = {} if clip is None else {"clip": clip}
    given = weights(D, names="WRBP")
    nodes = [node("LSTM", "x W R B - - - P", "y", hidden_size=H, **attributes, **more)]
    path = tmp_path / "graph.onnx"
    path.write_bytes(model(nodes, given, inputs=[("x", FLOAT, ("time", "batch", I))]))
    ours = exchange.load(path)
    assert (ours.cell.activations, ours.cell.gate_clip) == (activations, clip)
    Y, h, c = lstm(X, **given, functions=functions, clip=np.inf if clip is None else clip)
    y, state = ours(X.swapaxes(0, 1))
    for got, expected in ((y, Y.transpose(2, 0, 1, 3).reshape(B, T, -1)), (state.h, h), (state.c, c)):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)


def test_every_gate_is_clipped():
    """So that the test above holds where each gate is cut in some step."""
    given = weights(names="WRBP")
    sums = X @ given["W"][0].T + given["B"][0].reshape(2, -1).sum(0)
    assert all((abs(gate) > 0.6).any() and (abs(gate) < 0.6).any() for gate in np.split(sums, 4, axis=-1))


OURS = [(("hard_sigmoid", 0.3, 0.4), ("leaky_relu", 0.2), "softsign"), ("hard_sigmoid", "linear", "thresholded_relu"),
        ("sigmoid", ("elu", 0.3), ("affine", 0.5, -0.1)), ("sigmoid", "softplus", ("scaled_tanh", 1.7, 0.6)),
        (("scaled_tanh", 0.9, 0.6), "relu", "tanh")]  # fmt: skip


def test_a_bound_that_float32_has_not_is_refused(tmp_path):
    for bound in (1e-50, 3.5e38, 1e300):
        far = cylstm.LSTM(3, 5, gate_clip=bound, dtype="float64")
        with pytest.raises(ValueError, match=r"x.onnx: LSTM layer 0: expected a gate_clip that float32 has, got \d"):
            exchange.save(far, tmp_path / "x.onnx", clip=True, dtype="float64")


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("activations", OURS)
def test_cells_come_back(activations, bidirectional, tmp_path):
    path = tmp_path / "cell.onnx"
    ours = cylstm.LSTM(3, 5, 2, bidirectional=bidirectional, activations=activations, gate_clip=1.3, seed=2)
    with pytest.raises(ValueError, match=r"gate_clip: expected None in layer 0 without clip=True, as .*, got 1.3"):
        exchange.save(ours, path)
    assert not os.path.exists(path)
    exchange.save(ours, path, clip=True)
    again = exchange.load(path)
    assert (again.cell.activations, again.cell.gate_clip) == (activations, 1.3)
    x = numbers(B, T, 3)
    assert np.array_equal(again(x)[0], ours(x)[0])


def test_all_numbers_are_written_and_plain_ones_are_not(tmp_path):
    path = tmp_path / "cell.onnx"
    exchange.save(cylstm.LSTM(3, 5, bidirectional=True, activations=("hard_sigmoid", "elu", "tanh"), seed=2), path)
    (found,) = onnx.read_nodes(path)
    assert found.activations == ("HardSigmoid", "Elu", "Tanh") * 2 and found.clip is None
    assert found.activation_alpha == pytest.approx((0.2, 1) * 2) and found.activation_beta == (0.5, 0.5)
    exchange.save(cylstm.LSTM(3, 5, activations=("sigmoid", "tanh", "tanh"), seed=2), path, clip=True)
    (written,) = [one for one in read_file(path).nodes if one.op == "LSTM"]
    assert set(written.attributes) == {"hidden_size"}


@pytest.mark.parametrize("name", ["selu", "exponential", "relu6", "hard_tanh"])
def test_what_the_operator_has_not_is_refused_by_name(name, tmp_path):
    with pytest.raises(ValueError, match=f"activations: expected those that ONNX's LSTM has, linear, .*, got '{name}'"):
        exchange.save(cylstm.LSTM(3, 5, activations=("sigmoid", name, "tanh"), seed=2), tmp_path / "cell.onnx")
    assert not list(tmp_path.iterdir())
