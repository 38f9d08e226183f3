"""ONNX operators that move numbers and change none: on known arrays (weights, shapes) and on outputs of layers."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from cylstm.exchange.onnx_dense import in_floats
from cylstm.exchange.onnx_file import BFLOAT16, DOUBLE, FLOAT, INT32, INT64, TYPES, Tensor
from cylstm.exchange.onnx_values import (
    Filled,
    Pile,
    Refused,
    Size,
    Stream,
    items_of,
    reshaped,
    sizes_of,
)

__all__ = ["ON_ARRAYS", "OPERATORS", "as_array", "axis_in", "axis_of", "is_known", "numbers_of", "stream_of"]

FLOATS = (FLOAT, DOUBLE)  # of types that numbers may be cast to
WHOLE = (INT32, INT64)  # that ids and lengths may be cast to


def is_known(*values) -> bool:
    """Whether these are arrays."""
    return all(isinstance(value, np.ndarray) for value in values)


def as_array(found) -> np.ndarray:
    """What NumPy makes a scalar of, as an array again."""
    if isinstance(found, Size):
        alone = np.empty((), object)
        alone[()] = found
        return alone
    return np.asarray(found)


def numbers_of(value) -> list:
    """The whole numbers of a known array. Raises Refused."""
    if not is_known(value) or value.dtype.kind not in "iuO":
        raise Refused("expected whole numbers that the file says, got others")
    return value.reshape(-1).tolist()


def axis_of(node, rank) -> int:
    """The attribute `axis`, from 0 on."""
    return axis_in(node.attributes.get("axis", 0), rank)


def axis_in(axis, rank) -> int:
    """An axis from 0 on. Raises Refused for one that is not there."""
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise Refused(f"expected an axis in {-rank}..{rank - 1}, got {axis}")
    return axis % rank


def axes_of(node, values, rank) -> list[int] | None:
    """Axes as an attribute (before opset 13) or an input, from 0 on; None where there are none."""
    axes = node.attributes.get("axes")
    if axes is None and len(values) > 1 and values[1] is not None:
        axes = numbers_of(values[1])
    if axes is None:
        return None
    return sorted(axis_in(axis, rank) for axis in axes)


def same(run, node, values):
    """Identity, and Dropout, which does nothing unless it trains."""
    training = values[2] if len(values) > 2 else None
    if training is not None and (not is_known(training) or training.any()):
        raise Refused("expected dropout that only trains, got training_mode")
    return values[0]


def cast(run, node, values):
    """Numbers of another type: those of the file are rounded; an input, and what layers make of it, stays as it is."""
    value, to = values[0], node.attributes.get("to")
    if is_known(value):
        run.spend(8 * value.size)
        return cast_array(value, to)
    if isinstance(value, Filled):
        return Filled(cast_array(value.array, to), value.shape)
    if to in FLOATS:
        return in_floats(node, value) if isinstance(value, Stream) else value
    if isinstance(value, Stream) and not value.layers and to in WHOLE:
        return replace(value, whole=True)
    raise Refused(f"expected numbers that stay in floating point of 32 or 64 bits, or ids and lengths of such whole "
                  f"numbers, got type {to}")  # fmt: skip


def cast_array(array, to) -> np.ndarray:
    """A known array in another type; sizes that may be any stay as they are."""
    if to not in TYPES or (array.dtype == object and to not in FLOATS + WHOLE):
        raise Refused(f"expected a type of numbers that can hold these, got {to}")
    if array.dtype == object:
        return array
    with np.errstate(over="ignore", invalid="raise"):
        return bfloat16(array.astype(np.float32)) if to == BFLOAT16 else array.astype(TYPES[to])


def bfloat16(array) -> np.ndarray:
    """float32 rounded to what bfloat16 has, ties to even."""
    bits = array.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(array), array, rounded.view(np.float32))


def constant(run, node, values):
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, value in node.attributes.items():
        if isinstance(value, Tensor):
            return run.loaded(value)
        if name in kinds and value is not None:
            return np.array(value, kinds[name])
    raise Refused("expected numbers, got another value")


def shape_of(run, node, values):
    value = values[0]
    shape = list(value.shape) if not isinstance(value, Filled) else value.shape
    if shape is None:
        raise Refused("expected something whose shape is known")
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return sizes_of(list(shape)[start:end])


def constant_of_shape(run, node, values):
    value = node.attributes.get("value")
    array = value.array() if isinstance(value, Tensor) else np.zeros(1, np.float32)
    if array.size != 1:
        raise Refused(f"expected one number, got {array.size}")
    return Filled(array, tuple(values[0].reshape(-1).tolist()))


def expand(run, node, values):
    """Repeated along axes of size 1; a learned first state is, for each row."""
    array, shape = values[0], tuple(values[1].reshape(-1).tolist())
    if isinstance(array, Filled) and array.array.size == 1:
        return Filled(array.array, shape)
    if not is_known(array):
        raise Refused("expected an array of the file, got another")
    return Filled(array, shape)


def tile(run, node, values):
    """One number, again and again: lengths that are all steps, for each row."""
    value = values[0].array if isinstance(values[0], Filled) else values[0]
    if not is_known(value) or value.size != 1:
        raise Refused("expected one number to repeat, got several")
    return Filled(value.reshape(1))


def transpose(run, node, values):
    value = values[0]
    perm = node.attributes.get("perm")
    if is_known(value):
        return value.transpose(perm)
    if isinstance(value, Filled) and value.array.size == 1:
        return Filled(value.array)
    axes = stream_of(value).axes
    perm = list(reversed(range(len(axes)))) if perm is None else perm
    if sorted(perm) != list(range(len(axes))):
        raise Refused(f"expected an order of {len(axes)} axes, got {perm}")
    return value.with_axes([axes[n] for n in perm])


def stream_of(value) -> Stream:
    """A layer's outputs, or an input of the graph. Raises Refused for anything else."""
    if not isinstance(value, Stream):
        raise Refused("expected outputs of a layer, got something else")
    return value


def squeeze(run, node, values):
    value = values[0]
    if isinstance(value, Filled) and value.array.size == 1:
        return Filled(value.array)
    if isinstance(value, Pile):
        items = items_of(value)
        if axes_of(node, values, len(value.shape)) == [0] and len(items) == 1:
            return items[0]
        raise Refused("expected final states of one layer, got several")
    shape = list(value.shape)
    axes = axes_of(node, values, len(shape))
    axes = [n for n, size in enumerate(shape) if size == 1] if axes is None else axes
    if any(shape[n] != 1 for n in axes):
        raise Refused(f"expected axes of size 1, got {axes} of {shape}")
    kept = [n for n in range(len(shape)) if n not in axes]
    if is_known(value):
        return value.reshape([shape[n] for n in kept])
    return value.with_axes([value.axes[n] for n in kept])


def unsqueeze(run, node, values):
    value = values[0]
    if isinstance(value, Filled) and value.array.size == 1:
        return Filled(value.array)
    added = node.attributes.get("axes") or numbers_of(values[1])
    rank = len(value.shape) + len(set(added))
    axes = axes_of(node, values, rank)
    if len(set(axes)) != len(added):
        raise Refused(f"expected different axes, got {added}")
    rest = iter(value.shape if is_known(value) else stream_of(value).axes)
    if is_known(value):
        return value.reshape([1 if n in axes else next(rest) for n in range(rank)])
    return value.with_axes([() if n in axes else next(rest) for n in range(rank)])


def reshape(run, node, values):
    value = values[0]
    if isinstance(value, Filled) and value.array.size == 1:
        return Filled(value.array)
    target = node.attributes["shape"] if "shape" in node.attributes else numbers_of(values[1])
    shape = list(value.shape)
    if not node.attributes.get("allowzero", 0):
        target = [shape[n] if isinstance(size, int) and size == 0 else size for n, size in enumerate(target)]
    if is_known(value):
        run.spend(value.nbytes)
        return value.reshape(target)
    if any(isinstance(size, int) and size < -1 for size in target):
        raise Refused(f"expected sizes, got {target}")
    return value.with_axes(reshaped(stream_of(value).axes, target))


def flatten(run, node, values):
    axes = stream_of(values[0]).axes
    at = node.attributes.get("axis", 1)
    at = at + len(axes) if at < 0 else at
    joined = [tuple(atom for group in part for atom in group) for part in (axes[:at], axes[at:])]
    return values[0].with_axes(joined)


# --- numbers ----------------------------------------------------------------------------------------------------------


def arithmetic(of):
    """An operator on sizes."""

    def operator(run, node, values):
        run.spend(8 * prod(np.broadcast_shapes(*(value.shape for value in values))))
        with np.errstate(over="ignore", invalid="ignore"):
            return as_array(of(*values))

    return operator


def divided(one, other):
    """Of whole numbers a whole quotient, rounded towards 0; by 0 there is none."""
    with np.errstate(divide="raise"):
        if one.dtype == object or other.dtype == object:
            return one // other
        if one.dtype.kind in "iu" and other.dtype.kind in "iu":
            return one // other + ((one % other != 0) & ((one < 0) != (other < 0)))
    return one / other


# Operators on known arrays alone; what the others here take, they look at themselves.
ON_ARRAYS = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": divided, "Equal": np.equal,
             "Where": np.where}  # fmt: skip
ON_ARRAYS = {name: arithmetic(of) for name, of in ON_ARRAYS.items()}

OPERATORS = {
    "Cast": cast, "Constant": constant, "ConstantOfShape": constant_of_shape, "Dropout": same, "Expand": expand,
    "Flatten": flatten, "Identity": same, "Reshape": reshape, "Shape": shape_of, "Squeeze": squeeze, "Tile": tile,
    "Transpose": transpose, "Unsqueeze": unsqueeze,
}  # fmt: skip
