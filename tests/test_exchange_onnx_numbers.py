"""Numbers of ONNX files that a reader may get wrong in silence: types, broadcasting, logarithms."""

import struct

import numpy as np
import pytest
from onnx_graphs import B, H, I, T, dense, lstm, model, node, numbers, weights
from test_exchange import arrays, lstm_layer

from cylstm import exchange
from cylstm.exchange import onnx
from cylstm.exchange.network import Dense, Network
from cylstm.exchange.onnx_file import BFLOAT16, FLOAT, read_file
from cylstm.exchange.onnx_notes import KEY
from cylstm.exchange.protobuf import encoded

X = numbers(T, B, I)
STEPS = [("x", FLOAT, ("time", "batch", I))]
START = [node("LSTM", "x W R B", "Y Yh"), node("Squeeze", "Yh one", "h")]
GIVEN = {**weights(), "one": np.array([0]), "W2": dense(3, H)[0]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "graph.onnx"


@pytest.fixture
def read(path):
    """A network from a graph."""

    def read(nodes, opset=14, after=b"", **more):
        path.write_bytes(model(nodes, {**GIVEN, **more}, inputs=STEPS, opset=opset) + after)
        return onnx.read(path)

    return read


# --- types ------------------------------------------------------------------------------------------------------------


def test_constants_are_rounded_to_bfloat16_to_nearest_even(read):
    """Of bits 0x3F80_8000 (a tie, to even), 0x3F81_8000 (a tie, up), a little beside them, negative ones, overflow."""
    bits = [0x3F808000, 0x3F818000, 0x3F808001, 0x3F817FFF, 0xBF818000, 0x7F7FFFFF, 0xFF800000, 0x00000001, 0x3EAAAAAB]
    expected = [0x3F800000, 0x3F820000, 0x3F810000, 0x3F810000, 0xBF820000, 0x7F800000, 0xFF800000, 0, 0x3EAB0000]
    given, rounded = (np.array([struct.unpack("<f", struct.pack("<I", one))[0] for one in several], "f4")
                      for several in (bits, expected))  # fmt: skip
    nodes = [*START, node("Cast", "b", "rounded", to=BFLOAT16), node("Cast", "rounded", "bias", to=FLOAT),
             node("MatMul", "h V", "z"), node("Add", "z bias", "y")]  # fmt: skip
    network = read(nodes, b=given, V=dense(len(bits), H)[0])
    assert network.layers[-1].bias.tobytes() == rounded.tobytes()


def test_constants_that_no_whole_number_holds_are_refused(read):
    nodes = [*START, node("Cast", "b", "whole", to=6), node("Cast", "whole", "bias", to=FLOAT),
             node("MatMul", "h W2", "z"), node("Add", "z bias", "y")]  # fmt: skip
    assert np.array_equal(read(nodes, b=np.array([1.75, -2.5, 3e9 - 3e9], "f4")).layers[-1].bias, [1, -2, 0])
    with pytest.raises(ValueError, match=r"node cast of whole \(Cast\): expected what it takes, got invalid value"):
        read(nodes, b=np.array([1.75, -2.5, 3e9], "f4"))


def test_halves_of_a_bias_in_float16_are_added_in_float32(read):
    half = weights(dtype="f2")
    network = read([node("LSTM", "x W R B", "y")], **half)
    i, o, f, g = np.split(half["B"][0].astype("f4").reshape(2, -1).sum(0), 4)
    found = network.layers[0].directions[0].bias
    assert found.dtype == np.float32 and np.array_equal(found, np.concatenate([i, f, g, o]))


def test_gemm_in_float16_is_scaled_in_float32(read):
    V, bias = dense(3, H)[0].astype("f2"), dense(3, H)[1].astype("f2")
    layer = read([*START, node("Gemm", "h V bias", "y", alpha=0.3, beta=0.7)], V=V, bias=bias).layers[-1]
    assert np.array_equal(layer.weight, (V.astype("f4") * np.float32(0.3)).T)
    assert np.array_equal(layer.bias, bias.astype("f4") * np.float32(0.7))


# --- broadcasting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1,), (), (1, 1)])
def test_gemms_bias_is_the_same_for_all_rows(shape, read, path):
    bias = numbers(*shape, seed=5)
    read([*START, node("Gemm", "h W2 bias", "y")], bias=bias)
    _, final, _ = lstm(X, **weights())
    np.testing.assert_allclose(exchange.load(path)(X.swapaxes(0, 1))[0], final[0] @ GIVEN["W2"] + bias, rtol=2e-5,
                               atol=2e-6)  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 1), (2, 1), (3, 3), (1, 1, 3), (2,)])
def test_gemms_bias_that_differs_between_rows_is_refused(shape, read):
    with pytest.raises(
        ValueError, match=r"node gemm of y \(Gemm\): expected a bias of 3 numbers in the file, the same"
    ):
        read([*START, node("Gemm", "h W2 bias", "y")], bias=numbers(*shape, seed=5))


@pytest.mark.parametrize("shape", [(3, 1), (1, 1, 3), (1, 1, 1), (2, 3)])
@pytest.mark.parametrize("op", ["Add", "Mul", "Sub"])
def test_numbers_that_make_other_axes_are_refused(op, shape, read):
    with pytest.raises(
        ValueError, match=rf"node {op.lower()} of y \({op}\): expected one number beside a dense layer's"
    ):
        read([*START, node("MatMul", "h W2", "z"), node(op, "z b", "y")], b=numbers(*shape, seed=5))


@pytest.mark.parametrize("axis", [0, 1])
def test_where_opset_6_lays_a_bias(axis, read):
    """Axis 0 of (3, 3) are rows."""
    nodes = [*START, node("MatMul", "h W2", "z"), node("Add", "z bias", "y", broadcast=1, axis=axis)]
    if axis == 1:
        assert np.array_equal(read(nodes, opset=6, bias=numbers(3)).layers[-1].bias, numbers(3))
    else:
        with pytest.raises(
            ValueError, match=r"node add of y \(Add\): expected one number beside a dense layer's outputs"
        ):
            read(nodes, opset=6, bias=numbers(3))


# --- logarithms of probabilities --------------------------------------------------------------------------------------


def test_logarithms_in_the_middle_are_refused(read):
    nodes = [*START, node("MatMul", "h W2", "z"), node("LogSoftmax", "z", "p", axis=-1), node("MatMul", "p W3", "y")]
    with pytest.raises(
        ValueError, match=r"matmul of y \(MatMul\): expected LogSoftmax behind all layers, got one befo"
    ):
        read(nodes, W3=dense(2, 3)[0])
    nodes[-2] = node("Softmax", "z", "p", axis=-1)
    assert [layer.activation for layer in read(nodes, W3=dense(2, 3)[0]).layers[1:]] == ["softmax", "linear"]


@pytest.mark.parametrize(("op", "notes"), [("Softmax", {}), ("LogSoftmax", {"log": True})])
def test_the_operator_decides_and_not_what_the_file_says_beside(op, notes, read, path):
    said = encoded((1, KEY), (2, '{"log": true, "time_major": true, "rate": 2}'))
    network = read([*START, node("MatMul", "h W2", "z"), node(op, "z", "y", axis=-1)], after=encoded((14, said)))
    assert network.notes == {"rate": 2, "time_major": True, **notes}
    inputs = [("x", FLOAT, ("batch", "time", I))]
    nodes = [node("LSTM", "x W R B", "Y Yh", layout=1), node("Squeeze", "Yh two", "h"), node("MatMul", "h W2", "y")]
    path.write_bytes(model(nodes, {**GIVEN, "two": np.array([1])}, inputs=inputs) + encoded((14, said)))
    assert onnx.read(path).notes == {"rate": 2}


def test_only_the_last_layer_is_written_with_logarithms(path):
    layers = (lstm_layer(), *(Dense(*arrays(shape), activation="softmax") for shape in ((3, 5), (2, 3))))
    exchange.write(Network(layers, {"log": True}), path)
    assert [one.op for one in read_file(path).nodes if "oftmax" in one.op] == ["Softmax", "LogSoftmax"]
    again = onnx.read(path)
    assert [layer.activation for layer in again.layers[1:]] == ["softmax"] * 2 and again.notes == {"log": True}


@pytest.mark.parametrize("layers", [(), (Dense(*arrays((2, 5)), activation="sigmoid"),)])
def test_logarithms_of_what_is_no_softmax_are_refused(layers, path):
    with pytest.raises(
        ValueError, match=r"notes: expected log of a network whose last layer is softmax, got (sigm|an LS)"
    ):
        exchange.write(Network((lstm_layer(), *layers), {"log": True}), path)
    assert not path.exists()
