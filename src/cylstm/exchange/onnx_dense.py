"""What stands behind a dense layer in an ONNX graph: its bias and its activation, a formula of any number of nodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cylstm.exchange.network import Dense
from cylstm.exchange.onnx_formulas import Formula
from cylstm.exchange.onnx_functions import FUNCTIONS
from cylstm.exchange.onnx_values import Refused, Stream, merged_feature

__all__ = ["OPERATORS", "in_floats", "settled"]


def elementwise(run, node, values):
    """A dense layer's bias, or a step of its activation."""
    _, expected = FUNCTIONS[node.op]
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
    single = all(constant.size == 1 and constant.ndim <= len(first.axes) for constant in constants)
    if not single or len(streams) + len(constants) != len(values):
        raise Refused("expected one number beside a dense layer's outputs, got several")
    inputs = [value.formula if isinstance(value, Stream) else float(value.reshape(())) for value in values]
    return replace(first, formula=Formula.of(node, inputs))


def in_floats(node, stream):
    """A stream behind a Cast to floats, of which only true and false become others."""
    formula = stream.formula
    return stream if formula is None or not formula.truth else replace(stream, formula=formula.as_number(node))


def check_behind_dense(stream):
    """Refused unless a dense layer without activation gave this."""
    layer = stream.last
    if not isinstance(layer, Dense) or layer.activation != "linear":
        told = (
            "nothing" if layer is None else type(layer).__name__ if not isinstance(layer, Dense) else layer.activation
        )
        raise Refused(f"expected a dense layer before it, got {told}")


def with_bias(node, values, array):
    """The layer with its bias; None where the array is none."""
    stream = next(value for value in values if isinstance(value, Stream))
    layer = stream.last
    plain = isinstance(layer, Dense) and layer.bias is None and layer.activation == "linear" and stream.formula is None
    subtracted = node.op == "Sub"
    if not plain or (subtracted and values[0] is array) or array.dtype.kind != "f":
        return None
    shape, rank = array.shape, len(stream.axes)
    if (
        len(shape) > rank
        or node.attributes.get("axis", -1) not in (-1, rank - len(shape))  # of opset 6: where it is laid beside
        or array.size != layer.width
        or (shape and shape[-1] != layer.width)
        or not merged_feature(stream)
    ):
        return None
    bias = array.reshape(-1)
    return stream.with_layer(replace(layer, bias=-bias if subtracted else bias))


def settled(stream) -> Stream:
    """A stream as a next layer takes it: all steps or the last one, both directions, with its activation."""
    if not isinstance(stream, Stream):
        raise Refused("expected outputs of a layer, got something else")
    if stream.cut is not None:
        raise Refused(f"expected the input {stream.source} as a whole, got a part of it")
    if stream.whole:
        raise Refused(f"expected the numbers of the input {stream.source} as they are, got what a Cast makes whole")
    if stream.kind == "c":
        raise Refused("expected a layer's outputs, got the state of its cells")
    if stream.part is not None:
        raise Refused("expected both directions of a layer, got one of them")
    if stream.formula is not None:
        stream = replace(stream, layers=replace(stream.layers, formula=stream.formula), formula=None)
    if stream.kind == "h" or stream.step is not None:
        check_final(stream)
        stream = replace(stream, final=True, kind="y", step=None)
    return stream


def check_final(stream) -> None:
    """Refused unless a step of an LSTM's outputs, or its state, is what it ends with."""
    layer = stream.recurrent
    if layer is None:
        raise Refused("expected a step of an LSTM's outputs, got one of the input")
    if stream.kind == "y" and (stream.step != -1 or len(layer.directions) == 2 or layer.reverse):
        raise Refused("expected a layer's final state, got one step of its outputs, which in a direction that begins "
                      "at the end has seen that step alone")  # fmt: skip
    if stream.kind == "y" and stream.ragged:
        raise Refused("expected a layer's final state beside sequence_lens, got its outputs of the last step of all")


# --- operators --------------------------------------------------------------------------------------------------------


def softmax(run, node, values):
    """Softmax or LogSoftmax of all outputs, behind everything else."""
    stream = values[0]
    check_behind_dense(stream)
    rank = len(stream.axes)
    axis = node.attributes.get("axis", -1 if run.opset >= 13 else 1)
    if stream.formula is not None or not merged_feature(stream) or axis not in (-1, rank - 1):
        raise Refused(f"expected it over a dense layer's outputs, the last axis, got axis {axis} of {rank}")
    layer = replace(stream.last, activation="softmax")
    return replace(stream.with_layer(layer), log=node.op == "LogSoftmax")


def clip(run, node, values):
    """Within bounds, which are inputs or, in older files, attributes; none where they are left out."""
    given = dict(zip(("min", "max"), (*values[1:], None, None), strict=False))
    low, high = (given[name] if given[name] is not None else np.array(node.attributes.get(name, usual))
                 for name, usual in (("min", -np.inf), ("max", np.inf)))  # fmt: skip
    return elementwise(run, replace(node, attributes={}), [*values[:1], low, high])


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
    weight = times(weight, given["alpha"])
    if bias is not None:
        row = isinstance(bias, np.ndarray) and bias.ndim < 3 and bias.size == (1, *bias.shape)[-1]
        if not row or bias.size not in (1, weight.shape[1]):
            got = bias.shape if isinstance(bias, np.ndarray) else "something else"
            raise Refused(f"expected a bias of {weight.shape[1]} numbers in the file, the same for all rows, got {got}")
        bias = np.broadcast_to(bias.reshape(-1), weight.shape[1:])
        bias = times(bias, given["beta"])
    return run.dense(stream, weight, bias)


def times(array, number) -> np.ndarray:
    """array * number, in float32 at least."""
    return array if number == 1 else array.astype(np.promote_types(array.dtype, np.float32)) * number


OPERATORS = {**dict.fromkeys(FUNCTIONS, elementwise), "Softmax": softmax, "LogSoftmax": softmax,
             "Clip": clip, "MatMul": matmul, "Gemm": gemm}  # fmt: skip
