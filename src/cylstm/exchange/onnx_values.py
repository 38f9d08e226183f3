"""What the names in an ONNX graph stand for while it is read: known arrays, and the outputs of layers, axis by axis.

An axis of a layer's output is a group of atoms: steps, rows, directions, units. `Transpose` moves axes, `Reshape` joins
and parts groups without ever moving an atom, so that it can be said of every later place which numbers stand there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import NamedTuple

import numpy as np

from cylstm.exchange.network import Recurrent

__all__ = [
    "LONGEST", "MOST_AXES", "MOST_LAYERS", "PART", "Atom", "Filled", "Layers", "Outside", "Pile", "Refused", "Size",
    "Stream", "Unknown", "bare", "items_of", "merged_feature", "part_of", "pile_of", "reshaped", "sizes_of",
]  # fmt: skip


MOST_NAMES = 16  # of sizes in one product
LONGEST = 500  # characters of an error
MOST_AXES = 64  # as in NumPy
PART = "a part of "  # with which the name of an axis begins where an input was cut
MOST_LAYERS = 500  # one behind the other


class Refused(ValueError):
    """What a graph does that no network here says."""


class Unknown:
    """What came of a node that could not be read, and why: an error only where something is made of it."""

    def __init__(self, reason: str):
        self.reason = reason[:LONGEST]  # one may tell another


class Size:
    """A whole number times the sizes of axes that may be any: 3 * batch."""

    def __init__(self, number: int, names=()):
        self.number, self.names = number, tuple(sorted(names))
        if len(self.names) > MOST_NAMES or not -(2**63) <= number < 2**63:
            raise Refused("expected a size that an int64 can hold, got a larger one")

    def __mul__(self, other):
        if isinstance(other, Size):
            return Size(self.number * other.number, self.names + other.names)
        return Size(self.number * int(other), self.names)

    __rmul__ = __mul__

    def __floordiv__(self, other):
        other = other if isinstance(other, Size) else Size(int(other))
        names = list(self.names)
        for name in other.names:
            if name not in names:
                raise Refused(f"expected a whole quotient, got {self} by {other}")
            names.remove(name)
        if not other.number or self.number % other.number:
            raise Refused(f"expected a whole quotient, got {self} by {other}")
        found = Size(self.number // other.number, names)
        return found if names else found.number

    __truediv__ = __floordiv__

    def __rfloordiv__(self, other):
        return Size(int(other)) // self

    def __eq__(self, other):
        if isinstance(other, Size):
            return (self.number, self.names) == (other.number, other.names)
        return not self.names and self.number == other

    def __hash__(self):
        return hash((self.number, self.names)) if self.names else hash(self.number)

    def __str__(self) -> str:
        return "*".join(map(str, (*([self.number] if self.number != 1 or not self.names else []), *self.names)))

    __repr__ = __str__


class Atom(NamedTuple):
    """One indivisible axis."""

    name: str
    size: int | Size


@dataclass(frozen=True)
class Filled:
    """An array that is repeated along some axes until it has this shape; None for one that nobody asks for."""

    array: np.ndarray
    shape: tuple | None = None

    def __post_init__(self):
        if self.shape is not None and len(self.shape) > MOST_AXES:
            raise Refused(f"expected at most {MOST_AXES} axes, got {len(self.shape)}")


class Outside(NamedTuple):
    """What an LSTM node takes from outside, beside its X: the inputs of the graph, or pieces of them, that are its
    first state of D rows and its lengths; None for others."""

    node: str
    D: int
    initial_h: Stream | None
    initial_c: Stream | None
    sequence_lens: Stream | None


@dataclass(frozen=True, eq=False)
class Layers:
    """Layers one behind the other: the last one, and those before it, which all values of a graph share.

    final : whether the last one takes the final state of the LSTM before it, and not all steps
    outside : what it takes from outside, if it is an LSTM
    formula : its activation, if it is a dense layer that has one
    """

    last: object
    before: Layers | None = None
    length: int = 1
    final: bool = False
    outside: Outside | None = None
    formula: object = None

    def links(self) -> list[Layers]:
        """Those that end with each of the layers, the first one first."""
        found, link = [], self
        while link is not None:
            found.append(link)
            link = link.before
        return found[::-1]


@dataclass(frozen=True)
class Stream:
    """An input of the graph with the layers that it went through. `axes` are groups of atoms.

    feature : atoms that hold one step's numbers, None for an input as it came
    time, batch : groups of atoms, known behind the first LSTM
    kind : "y", or "h" or "c" for a final state
    directions : atoms of the last LSTM's directions and units, whose half `part` (0 or 1) this is, if it is one
    step : the one step of all that is left, 0 or -1
    formula : what the nodes since the last dense layer make of its outputs, None for nothing
    cut : of an input that is not whole, the name of the axis that it was cut along, its start and end; "" for several
    whole : of an input, whether a Cast has made whole numbers of it, as ids and lengths are
    log : whether its numbers are the logarithms of those that the layers give
    recurrent : the last LSTM
    ragged : whether the last LSTM's rows have lengths
    final : whether its steps are the final state alone
    unread : why what went into the first layer could not be read
    """

    source: str
    axes: tuple
    layers: Layers | None = None
    feature: tuple | None = None
    time: tuple | None = None
    batch: tuple | None = None
    kind: str = "y"
    directions: tuple = ()
    part: int | None = None
    step: int | None = None
    formula: object = None
    cut: tuple | None = None
    whole: bool = False
    log: bool = False
    recurrent: Recurrent | None = field(default=None, compare=False)
    ragged: bool = False
    final: bool = False
    unread: str = ""

    def behind(self, layer, outside=None, **changes) -> Stream:
        """What a layer makes of it. Raises Refused."""
        length = self.depth + 1
        if length > MOST_LAYERS:
            raise Refused(f"expected at most {MOST_LAYERS} layers one behind the other, got more")
        if self.log:
            raise Refused("expected LogSoftmax behind all layers, got one before a layer")
        return replace(self, layers=Layers(layer, self.layers, length, self.final, outside), final=False, **changes)

    def with_layer(self, layer) -> Stream:
        """The same with another last layer."""
        return replace(self, layers=replace(self.layers, last=layer))

    @property
    def last(self):
        """The last layer, or None."""
        return None if self.layers is None else self.layers.last

    @property
    def depth(self) -> int:
        """How many layers there are."""
        return 0 if self.layers is None else self.layers.length

    @property
    def shape(self) -> list:
        """Sizes of the axes."""
        return [size_of(group) for group in self.axes]

    def with_axes(self, axes) -> Stream:
        """The same numbers in another order."""
        if len(axes) > MOST_AXES:
            raise Refused(f"expected at most {MOST_AXES} axes, got {len(axes)}")
        return replace(self, axes=tuple(tuple(group) for group in axes))


@dataclass(frozen=True)
class Pile:
    """Final states of one direction each, one behind the other along axis 0."""

    items: tuple

    @property
    def shape(self) -> list:
        return [len(self.items), *self.items[0].shape]


# --- sizes and groups -------------------------------------------------------------------------------------------------


def size_of(group):
    """The size of an axis."""
    return prod((atom.size for atom in group), start=1)


def sizes_of(shape) -> np.ndarray:
    """A shape as a graph sees it: whole numbers, or objects where some may be any."""
    if all(isinstance(size, (int, np.integer)) for size in shape):
        return np.array(shape, np.int64)
    found = np.empty(len(shape), object)
    found[:] = shape
    return found


def bare(group) -> tuple:
    """A group without atoms of size 1, of which nothing can be told."""
    return tuple(atom for atom in group if atom.size != 1)


def merged_feature(stream) -> bool:
    """Whether the last axis holds one step's numbers, in their order, and no other axis any of them."""
    if not stream.axes:
        return False
    if stream.feature is None:
        return len(bare(stream.axes[-1])) <= 1
    return bare(stream.axes[-1]) == bare(stream.feature)


def reshaped(axes, target) -> tuple:
    """Groups of the same atoms in the same order, of sizes as in `target`, where one may be -1."""
    atoms = [atom for group in axes for atom in group]
    if -1 in target:
        known = prod((size for size in target if size != -1), start=1)
        if list(target).count(-1) > 1 or known == 0:
            raise Refused(f"expected one size to be found, got {list(target)}")
        rest = size_of(atoms)
        rest = rest // known if isinstance(rest, Size) or isinstance(known, Size) else exact(rest, known)
        target = [rest if size == -1 else size for size in target]
    groups, at = [], 0
    for size in target:
        group, got = [], 1
        while at < len(atoms) and (got != size or (size == 1 and not group and atoms[at].size == 1)):
            group.append(atoms[at])
            got, at = got * atoms[at].size, at + 1
        if got != size:
            raise Refused(f"expected axes to be joined or parted as they are, got {list(target)} from "
                          f"{[size_of(group) for group in axes]}")  # fmt: skip
        groups.append(tuple(group))
    if bare(atoms[at:]):
        raise Refused(f"expected as many numbers as before, got {list(target)} from "
                      f"{[size_of(group) for group in axes]}")  # fmt: skip
    return tuple(groups)


def exact(total, known) -> int:
    """total / known."""
    if total % known:
        raise Refused(f"expected a whole quotient, got {total} by {known}")
    return total // known


# --- final states -----------------------------------------------------------------------------------------------------


def pile_of(items):
    """States of one direction each as the value that they are: of one layer's, its own state."""
    first = items[0]
    alike = all(one.layers is first.layers and one.kind == first.kind and one.axes == first.axes for one in items)
    if alike and first.directions and [one.part for one in items] == [0, 1]:
        direction, units = first.directions
        return replace(first, axes=((direction,), *first.axes), feature=(direction, units), part=None)
    if len(items) == 1:
        return first.with_axes(((), *first.axes))
    return Pile(tuple(items))


def items_of(value):
    """The states of one direction each, along axis 0 of a value; None where that is another axis."""
    if isinstance(value, Pile):
        return list(value.items)
    if not isinstance(value, Stream) or value.kind == "y" or not value.axes:
        return None
    inner = value.axes[1:]
    if not bare(value.axes[0]) and (value.part is not None or len(value.last.directions) == 1):
        return [value.with_axes(inner)]
    if value.part is None and value.directions and value.axes[0] == value.directions[:1]:
        return [part_of(value.with_axes(inner), part) for part in (0, 1)]
    return None


def part_of(stream, part) -> Stream:
    """One direction's half of a layer's outputs or state."""
    if stream.part is not None or not isinstance(stream.last, Recurrent):
        raise Refused("expected to take a layer's outputs apart once, got again")
    return replace(stream, feature=stream.directions[1:], part=part)
