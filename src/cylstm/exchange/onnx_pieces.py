"""ONNX operators that take outputs of layers apart and put them together: steps, directions, final states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cylstm.exchange.onnx_shapes import as_array, axis_in, axis_of, is_known, numbers_of, stream_of
from cylstm.exchange.onnx_values import (
    MOST_LAYERS,
    PART,
    Atom,
    Filled,
    Pile,
    Refused,
    Size,
    Stream,
    bare,
    items_of,
    part_of,
    pile_of,
)

__all__ = ["OPERATORS"]


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
    found = piece(run, value, axis, places[0], places[0] + 1 or None)
    return found if index_shape else without(found, axis)


def without(value, axis):
    """A value less an axis of one place."""
    if isinstance(value, Pile):
        return value.items[0]
    return value.with_axes([group for n, group in enumerate(value.axes) if n != axis])


def piece(run, value, axis, start, end):
    """The places start..end of one axis of a stream or a pile; ends count as in Python."""
    items = items_of(value) if axis == 0 else None
    if items is not None:
        found = items[start:end]
        if not found:
            raise Refused(f"expected final states in 0..{len(items) - 1}, got {start}..{end}")
        run.spend(8 * len(found))
        return pile_of(found) if len(found) < len(items) else value
    stream = stream_of(value)
    group, size = stream.axes[axis], stream.shape[axis]
    if isinstance(size, int):
        start, end, _ = slice(start, end).indices(size)
    if start == 0 and (end is None or end == size or (not isinstance(size, int) and isinstance(end, int)
                                                       and end >= 2**31 - 1)):  # fmt: skip
        return stream
    if not stream.layers:
        return cut_input(stream, axis, start, end)
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


def cut_input(stream, axis, start, end) -> Stream:
    """A part of an input of the graph."""
    name = stream.axes[axis][0].name if stream.cut is None and len(stream.axes[axis]) == 1 else ""
    ends = isinstance(end, int) and start >= 0
    size = 1 if one_long(start, end) else end - start if ends else Size(1, [f"{PART}{stream.source}"])
    group = (Atom(f"{PART}{name or stream.source}", size),)
    return replace(stream, cut=(name, start, end)).with_axes([*stream.axes[:axis], group, *stream.axes[axis + 1 :]])


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
        axis = axis_in(axis, len(value.shape))
        if is_known(value):
            value = value[(slice(None),) * axis + (slice(start, end),)]
        else:
            value = piece(run, value, axis, start, None if isinstance(end, int) and end >= 2**31 - 1 else end)
    return value


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
    return tuple(piece(run, value, axis, *place) for place in pieces)


def concat(run, node, values):
    """Of shapes; of the two directions of a layer; of the final states of layers."""
    if all(isinstance(value, Filled) and value.array.size == 1 for value in values):
        numbers = {value.array.item() for value in values}
        if len(numbers) > 1:
            raise Refused(f"expected one number in all of it, got {sorted(numbers)}")
        return Filled(values[0].array)
    axis = axis_of(node, len(values[0].shape))
    if is_known(*values):
        run.spend(sum(value.nbytes for value in values))
        return np.concatenate(values, axis=axis)
    if axis == 0 and (items := states_of(values)) is not None:
        run.spend(8 * len(items))
        return pile_of(items)
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


def states_of(values) -> list | None:
    """The final states that these are, one behind the other along axis 0; None where one is something else."""
    found = []
    for value in values:
        items = items_of(value)
        if items is None:
            return None
        found += items
        if len(found) > 2 * MOST_LAYERS:
            raise Refused(f"expected the final states of at most {MOST_LAYERS} layers, got more")
    return found


OPERATORS = {"Concat": concat, "Gather": gather, "Slice": slices, "Split": split}
