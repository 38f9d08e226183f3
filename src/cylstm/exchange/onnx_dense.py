"""What stands behind a dense layer in an ONNX graph: its bias and its activation, in however many nodes it is written.

The nodes are run on probes, z = -1e5..1e5, one after the other: the activation is the one of `cylstm.Dense` that gives
the same numbers. So it does not matter how a file spells softplus or GELU.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cylstm.dense_oracle import ACTIVATIONS as KNOWN
from cylstm.dense_oracle import sigmoid
from cylstm.exchange.network import Dense
from cylstm.exchange.onnx_values import Refused, Stream, merged_feature

__all__ = ["OPERATORS", "elementwise", "settled", "with_bias"]

FAR = np.geomspace(1e-4, 1e5, 28)
PROBES = np.concatenate([-FAR[::-1], np.linspace(-9, 9, 109), FAR])
NEAR = np.abs(PROBES) <= 9  # where no formula overflows
CLOSE = 2e-6  # of the largest rounding of float32 constants


def gelu(z, approximate="none"):
    if approximate == "tanh":
        return KNOWN["gelu_tanh"](z)[0]
    return z * (1 + np.array([math.erf(one / math.sqrt(2)) for one in z])) / 2


def softplus(z):
    return np.logaddexp(0, z)


# Of one array, with attributes; of two.
UNARY = {
    "Relu": lambda z: np.maximum(z, 0),
    "LeakyRelu": lambda z, alpha=0.01: np.where(z > 0, z, alpha * z),
    "Tanh": np.tanh,
    "Sigmoid": sigmoid,
    "Elu": lambda z, alpha=1.0: np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))),
    "Softplus": softplus,
    "Softsign": lambda z: z / (1 + np.abs(z)),
    "Gelu": gelu,
    "Swish": lambda z, alpha=1.0: z * sigmoid(alpha * z),
    "HardSigmoid": lambda z, alpha=0.2, beta=0.5: np.clip(alpha * z + beta, 0, 1),
    "Mish": lambda z: z * np.tanh(softplus(z)),
    "Abs": np.abs,
    "Exp": np.exp,
    "Log": np.log,
    "Neg": np.negative,
    "Reciprocal": np.reciprocal,
}
BINARY = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power, "Max": np.maximum,
          "Min": np.minimum, "Greater": np.greater, "Less": np.less}  # fmt: skip
# Each with its number of inputs.
FUNCTIONS = {**{name: (of, 1) for name, of in UNARY.items()}, **{name: (of, 2) for name, of in BINARY.items()},
             "Where": (np.where, 3)}  # fmt: skip


def elementwise(run, node, values):
    """A dense layer's bias, or a step of its activation."""
    function, expected = FUNCTIONS[node.op]
    if len(values) != expected:
        raise Refused(f"expected {expected} numbers to combine, got {len(values)}")
    streams = [value for value in values if isinstance(value, Stream)]
    if not streams:
        raise Refused("expected outputs of a layer, got something else")
    constants = [value for value in values if isinstance(value, np.ndarray)]
    if node.op in ("Add", "Sub") and len(constants) == 1 and (found := with_bias(node, values, *constants)) is not None:
        return found
    first = streams[0]
    check_behind_dense(first)
    if any((one.layers is not first.layers, one.axes, one.step) != (False, first.axes, first.step) for one in streams):
        raise Refused("expected outputs of the same dense layer, got those of different layers")
    if any(constant.size != 1 for constant in constants) or len(streams) + len(constants) != len(values):
        raise Refused("expected one number beside a dense layer's outputs, got several")
    with np.errstate(all="ignore"):
        probes = [probe_of(value) for value in values]
        probe = function(*probes, **node.attributes)
    return replace(first, probe=probe, last_node=str(node))


def probe_of(value):
    """What stands at this place of a formula: numbers for all probes, or one."""
    if isinstance(value, Stream):
        return PROBES if value.probe is None else value.probe
    return float(value.reshape(()))


def check_behind_dense(stream):
    """Refused unless a dense layer without activation gave this."""
    layer = stream.layers[-1] if stream.layers else None
    if not isinstance(layer, Dense) or layer.activation != "linear":
        told = (
            "nothing" if layer is None else type(layer).__name__ if not isinstance(layer, Dense) else layer.activation
        )
        raise Refused(f"expected a dense layer before it, got {told}")


def with_bias(node, values, array):
    """The layer with its bias; None where the array is none."""
    stream = next(value for value in values if isinstance(value, Stream))
    layer = stream.layers[-1] if stream.layers else None
    plain = isinstance(layer, Dense) and layer.bias is None and layer.activation == "linear" and stream.probe is None
    subtracted = node.op == "Sub"
    if not plain or (subtracted and values[0] is array) or array.dtype.kind != "f":
        return None
    shape = array.shape
    if array.size != layer.width or (shape and shape[-1] != layer.width) or not merged_feature(stream):
        return None
    bias = array.reshape(-1)
    return replace(stream, layers=(*stream.layers[:-1], replace(layer, bias=-bias if subtracted else bias)))


def name_of(stream) -> str:
    """The activation that gives a stream's probes. Raises Refused for none."""
    for name, function in KNOWN.items():
        with np.errstate(all="ignore"):
            expected = function(PROBES)[0]
        counted = NEAR | np.isfinite(stream.probe)
        if np.allclose(stream.probe[counted], expected[counted], rtol=CLOSE, atol=1e-9):
            return name
    raise Refused(f"{stream.last_node}: expected one of the activations {', '.join(KNOWN)}, got another")


def settled(stream) -> Stream:
    """A stream as a next layer takes it: all steps or the last one, both directions, the activation by its name."""
    if not isinstance(stream, Stream):
        raise Refused("expected outputs of a layer, got something else")
    if stream.cut:
        raise Refused(f"expected the input {stream.source} as a whole, got a part of it")
    if stream.kind == "c":
        raise Refused("expected a layer's outputs, got the state of its cells")
    if stream.part is not None:
        raise Refused("expected both directions of a layer, got one of them")
    if stream.probe is not None:
        layer = replace(stream.layers[-1], activation=name_of(stream))
        stream = replace(stream, layers=(*stream.layers[:-1], layer), probe=None)
    if stream.kind == "h" or stream.step is not None:
        stream = replace(stream, layers=with_last(stream), kind="y", step=None)
    return stream


def with_last(stream) -> tuple:
    """The layers, the last LSTM of which gives its final state alone."""
    places = [n for n, layer in enumerate(stream.layers) if hasattr(layer, "directions")]
    if not places:
        raise Refused("expected a step of an LSTM's outputs, got one of the input")
    layer = stream.layers[places[-1]]
    if stream.kind == "y" and (stream.step != -1 or len(layer.directions) == 2):
        raise Refused("expected a layer's final state, got one step of its outputs, which in a direction that begins "
                      "at the end has seen that step alone")  # fmt: skip
    if stream.kind == "y" and stream.ragged:
        raise Refused("expected a layer's final state beside sequence_lens, got its outputs of the last step of all")
    return (*stream.layers[: places[-1]], replace(layer, last=True), *stream.layers[places[-1] + 1 :])


# --- operators --------------------------------------------------------------------------------------------------------


def softmax(run, node, values):
    """Softmax or LogSoftmax of all outputs, behind everything else."""
    stream = values[0]
    check_behind_dense(stream)
    rank = len(stream.axes)
    axis = node.attributes.get("axis", -1 if run.opset >= 13 else 1)
    if stream.probe is not None or not merged_feature(stream) or axis not in (-1, rank - 1):
        raise Refused(f"expected it over a dense layer's outputs, the last axis, got axis {axis} of {rank}")
    layer = replace(stream.layers[-1], activation="softmax")
    return replace(stream, layers=(*stream.layers[:-1], layer), log=node.op == "LogSoftmax")


def matmul(run, node, values):
    return run.dense(values[0], values[1])


def gemm(run, node, values):
    """alpha A B + beta C, B as transB says."""
    stream, weight, bias = (*values, None)[:3]
    given = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, **node.attributes}
    if given["transA"] or not isinstance(weight, np.ndarray) or weight.ndim != 2:
        raise Refused("expected outputs of a layer times weights in the file, got something else")
    run.spend(weight.nbytes)
    weight = weight.T if given["transB"] else weight
    if given["alpha"] != 1:
        weight = weight * weight.dtype.type(given["alpha"])
    if bias is not None:
        if not isinstance(bias, np.ndarray) or bias.size not in (1, weight.shape[1]):
            raise Refused(f"expected a bias of {weight.shape[1]} numbers in the file, got something else")
        bias = np.broadcast_to(bias.reshape(-1), weight.shape[1:])
        bias = bias * bias.dtype.type(given["beta"]) if given["beta"] != 1 else bias
    return run.dense(stream, weight, bias)


OPERATORS = {**dict.fromkeys(FUNCTIONS, elementwise), "Softmax": softmax, "LogSoftmax": softmax,
             "MatMul": matmul, "Gemm": gemm}  # fmt: skip
