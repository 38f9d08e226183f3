"""ONNX operators that move numbers and change none: on known arrays (weights, shapes) and on outputs of layers."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from cylstm.exchange.onnx_file import DOUBLE, FLOAT, TYPES, Tensor
from cylstm.exchange.onnx_values import (
    Filled,
    Pile,
    Refused,
    Size,
    Stream,
    bare,
    items_of,
    part_of,
    pile_of,
    reshaped,
    sizes_of,
)

__all__ = ["ON_ARRAYS", "OPERATORS", "axis_of", "is_known", "numbers_of"]

FLOATS = (FLOAT, DOUBLE)  # of types that a layer's outputs may be cast to


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


def axis_of(node, rank, usual=0) -> int:
    """The attribute `axis`, from 0 on."""
    axis = node.attributes.get("axis", usual)
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
    if any(not -rank <= axis < rank for axis in axes):
        raise Refused(f"expected axes in {-rank}..{rank - 1}, got {axes}")
    return sorted(axis % rank for axis in axes)


def same(run, node, values):
    """Identity, and Dropout, which does nothing unless it trains."""
    training = values[2] if len(values) > 2 else None
    if training is not None and (not is_known(training) or training.any()):
        raise Refused("expected dropout that only trains, got training_mode")
    return values[0]


def cast(run, node, values):
    value, to = values[0], node.attributes.get("to")
    if is_known(value):
        if to not in TYPES:
            raise Refused(f"expected a type of numbers, got {to}")
        run.spend(8 * value.size)
        return value if value.dtype == object else value.astype(TYPES[to])
    raw = isinstance(value, Stream) and not value.layers
    if not raw and to not in FLOATS:
        raise Refused(f"expected numbers that stay in floating point, got type {to}")
    return value


def constant(run, node, values):
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, value in node.attributes.items():
        if isinstance(value, Tensor):
            return value.array()
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


# --- pieces -----------------------------------------------------------------------------------------------------------


def gather(run, node, values):
    """One place of an axis: of a shape, a step, a direction, a final state; or rows of a table for ids."""
    value, index = values
    if isinstance(index, Stream):
        return run.embedding(node, value, index)
    axis = axis_of(node, len(value.shape))
    if is_known(value):
        run.spend(index.size * value.nbytes // max(1, value.shape[axis]))
        return as_array(np.take(value, index.astype(np.int64), axis=axis))
    index_shape, places = index.shape, numbers_of(index)
    if len(places) != 1:
        raise Refused(f"expected one place, got {len(places)}")
    found = piece(value, axis, places[0], places[0] + 1 or None)
    if found is not None and index_shape:
        return found
    return None if found is None else without(found, axis)


def without(value, axis):
    """A value less an axis of one place."""
    if isinstance(value, Pile):
        return value.items[0]
    return value.with_axes([group for n, group in enumerate(value.axes) if n != axis])


def piece(value, axis, start, end):
    """The places start..end of one axis of a stream or a pile; ends count as in Python."""
    items = items_of(value) if axis == 0 else None
    if items is not None:
        found = items[start:end]
        if not found:
            raise Refused(f"expected final states in 0..{len(items) - 1}, got {start}..{end}")
        return pile_of(found) if len(found) < len(items) else value
    stream = stream_of(value)
    group, size = stream.axes[axis], stream.shape[axis]
    if isinstance(size, int):
        start, end, _ = slice(start, end).indices(size)
    if start == 0 and (end is None or end == size or (not isinstance(size, int) and isinstance(end, int)
                                                       and end >= 2**31 - 1)):  # fmt: skip
        return stream
    if not stream.layers:
        return replace(stream, cut=True).with_axes(
            [*stream.axes[:axis], (), *stream.axes[axis + 1 :]] if one_long(start, end) else stream.axes
        )
    if group == stream.time and bare(group):
        return step_of(stream, axis, start, end, size)
    if group == stream.directions[:1] and bare(group) and end == start + 1:
        return part_of(stream.with_axes([*stream.axes[:axis], (), *stream.axes[axis + 1 :]]), start)
    if group == stream.directions and bare(group[:1]):
        H = stream.directions[1].size
        if (start, end) in ((0, H), (H, 2 * H)):
            halved = [*stream.axes[:axis], group[1:], *stream.axes[axis + 1 :]]
            return part_of(stream.with_axes(halved), start // H)
    raise Refused(f"expected the last step, a direction, or all of an axis, got {start}..{end} of axis {axis}")


def one_long(start, end) -> bool:
    """Whether a piece has one place."""
    return end == start + 1 if isinstance(end, int) else end is None and start == -1


def step_of(stream, axis, start, end, size) -> Stream:
    """The first or last step alone."""
    last = (start == -1 and (end is None or end >= 2**31 - 1)) or (
        isinstance(size, int) and start == size - 1 and end == size
    )
    if stream.step is not None or not (last or (start == 0 and end == 1)):
        raise Refused(f"expected the last step, or all, got {start}..{end}")
    axes = [*stream.axes[:axis], (), *stream.axes[axis + 1 :]]
    return replace(stream, step=-1 if last else 0).with_axes(axes)


def slices(run, node, values):
    """Slice: of a shape, a state, steps, directions."""
    value, *given = values
    if "starts" in node.attributes:
        starts, ends = node.attributes["starts"], node.attributes["ends"]
        axes, steps = node.attributes.get("axes"), None
    else:
        starts, ends, axes, steps = [None if one is None else numbers_of(one) for one in (*given, None, None)[:4]]
    axes = list(range(len(starts))) if axes is None else axes
    if any(step != 1 for step in steps or []):
        raise Refused(f"expected steps of 1, got {steps}")
    if isinstance(value, Filled) and value.array.size == 1:
        return Filled(value.array)
    for start, end, axis in zip(starts, ends, axes, strict=True):
        axis = axis_of_rank(axis, len(value.shape))
        if is_known(value):
            value = value[(slice(None),) * axis + (slice(start, end),)]
        else:
            value = piece(value, axis, start, None if isinstance(end, int) and end >= 2**31 - 1 else end)
    return value


def axis_of_rank(axis, rank) -> int:
    """An axis from 0 on."""
    if not -rank <= axis < rank:
        raise Refused(f"expected an axis in {-rank}..{rank - 1}, got {axis}")
    return axis % rank


def split(run, node, values):
    """As many pieces as the node has outputs."""
    value, n = values[0], len(node.outputs)
    axis = axis_of(node, len(value.shape))
    size = value.shape[axis]
    sizes = node.attributes.get("split")
    if sizes is None and len(values) > 1 and values[1] is not None:
        sizes = numbers_of(values[1])
    if sizes is None:
        if not isinstance(size, (int, np.integer)) or size % n:
            raise Refused(f"expected an axis that {n} outputs share, got size {size}")
        sizes = [int(size) // n] * n
    ends = np.cumsum(sizes).tolist()
    pieces = [(end - one, end) for one, end in zip(sizes, ends, strict=True)]
    if is_known(value):
        return tuple(value[(slice(None),) * axis + (slice(*place),)] for place in pieces)
    return tuple(piece(value, axis, *place) for place in pieces)


def concat(run, node, values):
    """Of shapes; of the two directions of a layer; of the final states of layers."""
    axis = axis_of(node, len(values[0].shape))
    if is_known(*values):
        run.spend(sum(value.nbytes for value in values))
        return np.concatenate(values, axis=axis)
    if axis == 0:
        items = [items_of(value) for value in values]
        if all(one is not None for one in items):
            return pile_of([item for several in items for item in several])
    streams = [stream_of(value) for value in values]
    first = streams[0]
    whole = [one.part for one in streams] == [0, 1] and streams[1].layers is first.layers
    if not whole or streams[1].axes != first.axes or first.kind != streams[1].kind:
        raise Refused("expected the outputs of both directions of one layer, forward first, got others")
    if bare(first.axes[axis]) != bare(first.feature):
        raise Refused(f"expected directions side by side, got them along axis {axis}")
    steps = [one.step for one in streams]
    kind = "h" if steps == [-1, 0] else first.kind
    if steps not in ([None, None], [-1, 0]) or (kind != first.kind and first.ragged):
        raise Refused("expected the last step forward and the first one backward, or all, got others")
    axes = [*first.axes[:axis], first.directions, *first.axes[axis + 1 :]]
    return replace(first, part=None, step=None, kind=kind, feature=first.directions).with_axes(axes)


def arithmetic(of):
    """An operator on sizes."""

    def operator(run, node, values):
        run.spend(8 * prod(np.broadcast_shapes(*(value.shape for value in values))))
        return as_array(of(*values))

    return operator


def divided(one, other):
    """Of whole numbers a whole quotient."""
    if one.dtype.kind in "iuO" and other.dtype.kind in "iuO":
        return one // other
    return one / other


# Operators on known arrays alone; what the others here take, they look at themselves.
ON_ARRAYS = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": divided, "Equal": np.equal,
             "Where": np.where}  # fmt: skip
ON_ARRAYS = {name: arithmetic(of) for name, of in ON_ARRAYS.items()}

OPERATORS = {
    "Cast": cast, "Concat": concat, "Constant": constant, "ConstantOfShape": constant_of_shape, "Dropout": same,
    "Expand": expand, "Flatten": flatten, "Gather": gather, "Identity": same, "Reshape": reshape, "Shape": shape_of,
    "Slice": slices, "Split": split, "Squeeze": squeeze, "Transpose": transpose, "Unsqueeze": unsqueeze,
}  # fmt: skip
