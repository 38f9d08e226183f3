"""A network as every format is read into and written from: layers with their weights, whatever they were called there.

Orders are ours: gates i, f, g, o, weights (outputs, inputs), one bias per gate. A format's module turns its file into a
`Network` or one into a file; models.py has the one way between networks and models.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass, field, fields
from itertools import islice

import numpy as np

from cylstm.activations import ACTIVATIONS, as_activation, as_cell
from cylstm.cell import MERGES
from cylstm.checks import describe, flag, real_in

__all__ = [
    "TURNED", "WEIGHTS", "Dense", "Direction", "Embedding", "Network", "Recurrent", "expect_alike", "expect_network",
    "expect_plain", "naming", "numbered", "parted", "short", "shown", "tell_left_out", "tell_turned", "transposed",
    "unsaid",
]  # fmt: skip


# What a direction has, and what a layer's parameters call it.
WEIGHTS = {"weight_ih": "weight_ih", "weight_hh": "weight_hh", "bias": "bias", "peephole": "peephole", "h0": "h0",
           "c0": "c0", "projection": "weight_hr"}  # fmt: skip


# Notes on how an ONNX graph differs from its network, and what is told where something else is made of that.
TURNED = {"time_major": "rows come first, (B, T, I), where the file that was read has steps",
          "log": "outputs are probabilities, where the file that was read has their logarithms"}  # fmt: skip


@dataclass(frozen=True)
class Embedding:
    """Rows of weight (V, E) for ids."""

    weight: np.ndarray

    def __post_init__(self):
        promote(self)
        expect("embedding", self.weight, (None, None))

    @property
    def width(self) -> int:
        return self.weight.shape[1]


@dataclass(frozen=True)
class Dense:
    """f(h weight' + bias): weight (O, F), bias (O,) or None. activation: as `cylstm.Dense` has them, or "softmax"."""

    weight: np.ndarray
    bias: np.ndarray | None = None
    activation: str | tuple = "linear"
    dropout: float = 0.0

    def __post_init__(self):
        promote(self)
        O, _ = expect("dense layer's weight", self.weight, (None, None))
        if self.bias is not None:
            expect("dense layer's bias", self.bias, (O,))
        if self.activation != "softmax":
            settle(self, activation=as_activation("dense layer's activation", self.activation))
        settle(self, dropout=real_in("dense layer's dropout", self.dropout, 0, 1, open_high=True))

    @property
    def width(self) -> int:
        return self.weight.shape[0]


@dataclass(frozen=True)
class Direction:
    """One direction's weight_ih (4H, I), weight_hh (4H, H), bias (4H,) or None, peephole (3, H) of i, f, o or None, the
    state h0, c0 (H,) that its sequences begin with, None for zeros, and a projection (P, H) of h or None: weight_hh is
    (4H, P) with one, h0 (P,), and P are its outputs."""

    weight_ih: np.ndarray
    weight_hh: np.ndarray
    bias: np.ndarray | None = None
    peephole: np.ndarray | None = None
    h0: np.ndarray | None = None
    c0: np.ndarray | None = None
    projection: np.ndarray | None = None

    def __post_init__(self):
        promote(self)
        G, Y = expect("weight_hh", self.weight_hh, (None, None))
        H = Y if self.projection is None else expect("projection", self.projection, (Y, None))[1]
        if G != 4 * H or (self.projection is not None and Y >= H):
            told = "(4*H, H)" if self.projection is None else f"(4*H, P), P < H, beside a projection ({Y}, {H})"
            raise ValueError(f"weight_hh: expected {told}, got {self.weight_hh.shape}")
        expect("weight_ih", self.weight_ih, (G, None))
        for name, shape in (("bias", (G,)), ("peephole", (3, H)), ("h0", (Y,)), ("c0", (H,))):
            if getattr(self, name) is not None:
                expect(name, getattr(self, name), shape)


@dataclass(frozen=True)
class Recurrent:
    """One LSTM layer, in one direction or both, whose outputs are merged as `merge` says. coupled, cell_clip,
    activations, gate_clip, merge: as in `LSTM`. dropout: of its outputs. last: only the final state goes on, not each
    step's. reverse: the only direction runs from the end of each row to its start. residual: the outputs of the layer
    before it, without their dropout, are added to its own."""

    directions: tuple[Direction, ...]
    coupled: bool = False
    cell_clip: float | None = None
    dropout: float = 0.0
    last: bool = False
    activations: tuple | None = None
    gate_clip: float | None = None
    reverse: bool = False
    merge: str = "concat"
    residual: bool = False

    def __post_init__(self):
        if not isinstance(self.directions, (tuple, list)) or not all(isinstance(w, Direction) for w in self.directions):
            raise TypeError(f"LSTM layer: expected a tuple of Directions, got {describe(self.directions)}")
        settle(
            self,
            directions=tuple(self.directions),
            activations=as_cell("LSTM layer's activations", self.activations),
            dropout=real_in("LSTM layer's dropout", self.dropout, 0, 1, open_high=True),
        )
        for name in ("cell_clip", "gate_clip"):
            clip = getattr(self, name)
            if clip is not None:
                settle(self, **{name: real_in(f"LSTM layer's {name}", clip, 0, open_low=True)})
        for name in ("coupled", "last", "reverse", "residual"):
            flag(f"LSTM layer's {name}", getattr(self, name))
        if self.merge not in MERGES or (self.merge != "concat" and len(self.directions) == 1):
            raise ValueError(f"LSTM layer: expected a merge of two directions, {', '.join(MERGES)}, got {self.merge!r}")
        if self.reverse and len(self.directions) == 2:
            raise ValueError("LSTM layer: expected both directions or a reverse one alone, got reverse and two")
        shapes = {(one.weight_ih.shape, one.weight_hh.shape) for one in self.directions}
        if len(self.directions) not in (1, 2) or len(shapes) != 1:
            raise ValueError(f"LSTM layer: expected one direction, or two of the same sizes, got {shapes}")
        inputs = self.directions[0].weight_ih.shape[1]
        if self.residual and inputs != self.width:
            raise ValueError(f"LSTM layer: expected {self.width} inputs to be added to outputs, got {inputs}")

    @property
    def width(self) -> int:
        return (len(self.directions) if self.merge == "concat" else 1) * self.directions[0].weight_hh.shape[1]

    @property
    def hidden_size(self) -> int:
        return self.directions[0].weight_hh.shape[0] // 4

    @property
    def proj_size(self) -> int:
        """P of a projection, or 0."""
        return 0 if self.directions[0].projection is None else len(self.directions[0].projection)


@dataclass(frozen=True)
class Network:
    """Layers in their order, and what a file says beside them: `notes`, such as "loss", "labels" and "vocabulary" (as
    JSON) of a model, or a sample rate. It and its layers raise TypeError or ValueError as they are made; arrays of
    float16 become float32."""

    layers: tuple
    notes: dict = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.notes, dict):
            raise TypeError(f"notes: expected a dict, got {describe(self.notes)}")
        if "dropout" in self.notes:  # files and warnings have this word for what layers say themselves
            raise ValueError(f"notes: expected no dropout, which layers have, got {describe(self.notes['dropout'])}")
        if not isinstance(self.layers, (tuple, list)):
            raise TypeError(f"layers: expected a tuple of layers, got {describe(self.layers)}")
        if not self.layers:
            raise ValueError("network: expected layers, got none")
        settle(self, layers=tuple(self.layers))
        width = None
        for n, layer in enumerate(self.layers):
            if isinstance(layer, Embedding):
                if n:
                    raise ValueError(f"layer {n}: expected an embedding first of all layers, got one behind others")
            elif isinstance(layer, (Dense, Recurrent)):
                inputs = (layer.directions[0].weight_ih if isinstance(layer, Recurrent) else layer.weight).shape[1]
                if width is not None and inputs != width:
                    raise ValueError(
                        f"layer {n}: expected {width} inputs, as many as the layer before it gives, got {inputs}"
                    )
            else:
                raise TypeError(f"layer {n}: expected an Embedding, Dense or Recurrent, got {describe(layer)}")
            width = layer.width
        for n, layer in enumerate([one for one in self.layers if isinstance(one, Recurrent)][:-1]):
            if layer.last:
                told = "the outputs of all steps for the layer behind it, got the last ones"
                raise ValueError(f"LSTM layer {n}: expected {told}")

    @property
    def dtype(self) -> np.dtype:
        """float64 where any weight is, else float32."""
        found = {array.dtype for layer in self.layers for array in arrays_of(layer)}
        return np.dtype(np.float64 if np.dtype(np.float64) in found else np.float32)


def settle(part, **values) -> None:
    """Fields of a part that is being made."""
    for name, value in values.items():
        object.__setattr__(part, name, value)


def promote(part) -> None:
    """Arrays of float16 become float32, exactly, as a part of a network is made: no format or model has that type."""
    for one in fields(part):
        value = getattr(part, one.name)
        if isinstance(value, np.ndarray) and value.dtype == np.float16:
            settle(part, **{one.name: value.astype(np.float32)})


def expect(name, array, shape) -> tuple[int, ...]:
    """The shape of an array of real numbers. Raises ValueError where it is another one than expected; None: any."""
    if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name}: expected an array of real numbers, got {describe(array)}")
    if (
        array.ndim != len(shape)
        or not array.size
        or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True))
    ):
        told = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}: expected shape ({told}), got {array.shape}")
    return array.shape


def short(number) -> float:
    """A number of a file as it was meant: where it is one of float32, in the fewest digits that say which."""
    with np.errstate(over="ignore"):
        rounded = np.float32(number)
    return float(str(rounded)) if abs(float(rounded) - number) <= 1e-12 * abs(number) else float(number)


def numbered(activation) -> tuple[str, dict]:
    """The name of an activation, and its numbers by theirs."""
    name, *numbers = (activation,) if isinstance(activation, str) else activation
    given = ACTIVATIONS[name].given if name in ACTIVATIONS else {}
    numbers = numbers or [number.usual for number in given.values()]
    return name, {place: float(number) for place, number in zip(given, numbers, strict=True)}


@contextlib.contextmanager
def naming(path):
    """What is wrong with a file's network is said with the file's name before it, once."""
    try:
        yield
    except ValueError as error:
        start = f"{path}: "
        raise ValueError(start + str(error).removeprefix(start)) from None


def tell_left_out(path, why: str, network, kept=(), others=()) -> None:
    """Warns of notes, of "dropout", and of others by their names, that a file has no place for, unless they are kept.
    Weights that were not read, `notes["left_out"]`, were told by who did not read them."""
    dropout = any(getattr(layer, "dropout", 0) for layer in network.layers)
    names = [*map(str, network.notes), *(["dropout"] if dropout else []), *others]
    names = [name for name in names if name not in ("left_out", *kept)]
    if names:
        warnings.warn(f"{path}: left out, {why}: {shown(names)}", stacklevel=4)


def tell_turned(name, notes, kept=()) -> None:
    """Warns of notes on how the file that a network was read from gives its numbers, where what is made of the network
    does otherwise. kept : the notes that it follows."""
    for note, told in TURNED.items():
        if notes.get(note) and note not in kept:
            warnings.warn(f"{name}: {told} ({note})", stacklevel=4)


def shown(names) -> str:
    """Some of several names, which may be a stranger's, in a line."""
    text = ", ".join(islice(names, 8))
    text = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text[:300])
    return text if len(names) <= 8 and len(text) < 300 else f"{text}, ..."


def unsaid(part, said):
    """(field, value) of what a part of a network has beside the fields that are said: each that is not as by default. A
    peephole or a first state of zeros is as none."""
    for one in fields(part):
        value = getattr(part, one.name)
        absent = one.name in ("peephole", "h0", "c0") and value is not None and not value.any()
        if one.name not in said and not absent and (isinstance(value, np.ndarray) or value != one.default):
            yield one, value


def expect_plain(format: str, recurrent, known=()) -> None:
    """ValueError for what LSTM layers have that a format cannot say.

    known : the fields that the format has; "directions" for both of them. Sizes, biases and dropout, which is of
    training only, are left to the caller.
    """
    said = {"directions", "weight_ih", "weight_hh", "bias", "dropout", *known}
    for n, layer in enumerate(recurrent):
        if len(layer.directions) != 1 and "directions" not in known:
            raise ValueError(f"LSTM layer {n}: expected one direction, as {format} has, got both")
        for part in (layer, *layer.directions):
            for one, value in unsaid(part, said):
                raise ValueError(
                    f"LSTM layer {n}: expected no {one.name}, which {format} has not, got {describe(value)}"
                )


def expect_alike(recurrent, widths=True) -> None:
    """ValueError where the layers of a stack differ in what one `LSTM`, ours or torch's, has only once; ours has widths
    of its own for each layer."""
    alike = {"hidden units": lambda one: one.hidden_size if widths else None,
             "directions": lambda one: len(one.directions),
             "coupled gates": lambda one: one.coupled, "a clip of cells": lambda one: one.cell_clip,
             "activations": lambda one: one.activations, "a clip of gates": lambda one: one.gate_clip,
             "a reverse direction alone": lambda one: one.reverse, "a projection": lambda one: one.proj_size,
             "a merge of directions": lambda one: one.merge}  # fmt: skip
    for n, layer in enumerate(recurrent):
        for what, of in alike.items():
            if of(layer) != of(recurrent[0]):
                told = f"{what} as in the first one, {of(recurrent[0])}"
                raise ValueError(f"LSTM layer {n}: expected {told}, got {of(layer)}")


def expect_network(network) -> None:
    if not isinstance(network, Network):
        raise TypeError(f"network: expected a Network (network_of(model) is one), got {describe(network)}")


def parted(network):
    """The layers of a network by their place in a model: embedding or None, dense layers, LSTM layers, dense layers.
    Raises TypeError for what is no network, ValueError for one without an LSTM or with several stacks of them."""
    expect_network(network)
    layers = list(network.layers)
    table = layers.pop(0) if layers and isinstance(layers[0], Embedding) else None
    places = [n for n, layer in enumerate(layers) if isinstance(layer, Recurrent)]
    if not places:
        raise ValueError("network: expected at least one LSTM layer, got none")
    if places != list(range(places[0], places[-1] + 1)):
        raise ValueError("network: expected LSTM layers one behind the other, got a dense layer between two of them")
    return table, layers[: places[0]], layers[places[0] : places[-1] + 1], layers[places[-1] + 1 :]


def transposed(array):
    """As it lies in memory, too."""
    return np.ascontiguousarray(array.T)


def arrays_of(layer):
    """All weights of one layer."""
    for part in layer.directions if isinstance(layer, Recurrent) else (layer,):
        values = (getattr(part, one.name) for one in fields(part))
        yield from (value for value in values if isinstance(value, np.ndarray))
