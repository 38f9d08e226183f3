"""A network as every format is read into and written from: layers with their weights, whatever they were called there.

Orders are ours: gates i, f, g, o, weights (outputs, inputs), one bias per gate. A format's module turns its file into a
`Network` or one into a file; models.py has the one way between networks and models.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, fields

import numpy as np

from cylstm.activations import ACTIVATIONS
from cylstm.checks import describe

__all__ = [
    "WEIGHTS", "Dense", "Direction", "Embedding", "Network", "Recurrent", "expect_plain", "naming", "numbered",
    "parted", "short", "unsaid",
]  # fmt: skip


# What a direction has, and what a layer's parameters call it.
WEIGHTS = {"weight_ih": "weight_ih", "weight_hh": "weight_hh", "bias": "bias", "peephole": "peephole", "h0": "h0",
           "c0": "c0", "projection": "weight_hr"}  # fmt: skip


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
    """One LSTM layer, in one direction or both, whose outputs are concatenated. coupled, cell_clip, activations,
    gate_clip: as in `LSTM`. dropout: of its outputs. last: only the final state goes on, not each step's. reverse: the
    only direction runs from the end of each row to its start."""

    directions: tuple[Direction, ...]
    coupled: bool = False
    cell_clip: float | None = None
    dropout: float = 0.0
    last: bool = False
    activations: tuple | None = None
    gate_clip: float | None = None
    reverse: bool = False

    def __post_init__(self):
        if self.reverse and len(self.directions) == 2:
            raise ValueError("LSTM layer: expected both directions or a reverse one alone, got reverse and two")
        shapes = {(one.weight_ih.shape, one.weight_hh.shape) for one in self.directions}
        if len(self.directions) not in (1, 2) or len(shapes) != 1:
            raise ValueError(f"LSTM layer: expected one direction, or two of the same sizes, got {shapes}")

    @property
    def width(self) -> int:
        return len(self.directions) * self.directions[0].weight_hh.shape[1]

    @property
    def hidden_size(self) -> int:
        return self.directions[0].weight_hh.shape[0] // 4

    @property
    def proj_size(self) -> int:
        """P of a projection, or 0."""
        return 0 if self.directions[0].projection is None else len(self.directions[0].projection)


@dataclass(frozen=True)
class Network:
    """Layers in their order, and what a file says beside them: `notes`, such as "labels" and "vocabulary" (as JSON) of
    a model, or a sample rate."""

    layers: tuple
    notes: dict = field(default_factory=dict)

    def __post_init__(self):
        width = None
        for n, layer in enumerate(self.layers):
            if isinstance(layer, Embedding):
                if n:
                    raise ValueError(f"layer {n}: expected an embedding first of all layers, got one behind others")
            else:
                inputs = (layer.directions[0].weight_ih if isinstance(layer, Recurrent) else layer.weight).shape[1]
                if width is not None and inputs != width:
                    raise ValueError(
                        f"layer {n}: expected {width} inputs, as many as the layer before it gives, got {inputs}"
                    )
            width = layer.width

    @property
    def dtype(self) -> np.dtype:
        """float64 where any weight is, else float32."""
        found = {array.dtype for layer in self.layers for array in arrays_of(layer)}
        return np.dtype(np.float64 if np.dtype(np.float64) in found else np.float32)


def promote(part) -> None:
    """Arrays of float16 become float32, exactly, as a part of a network is made: no format or model has that type."""
    for one in fields(part):
        value = getattr(part, one.name)
        if isinstance(value, np.ndarray) and value.dtype == np.float16:
            object.__setattr__(part, one.name, value.astype(np.float32))


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


def parted(network):
    """The layers of a network by their place in a model: embedding or None, dense layers, LSTM layers, dense layers."""
    layers = list(network.layers)
    table = layers.pop(0) if layers and isinstance(layers[0], Embedding) else None
    places = [n for n, layer in enumerate(layers) if isinstance(layer, Recurrent)]
    if not places:
        raise ValueError("network: expected at least one LSTM layer, got none")
    if places != list(range(places[0], places[-1] + 1)):
        raise ValueError("network: expected LSTM layers one behind the other, got a dense layer between two of them")
    return table, layers[: places[0]], layers[places[0] : places[-1] + 1], layers[places[-1] + 1 :]


def arrays_of(layer):
    """All weights of one layer."""
    for part in layer.directions if isinstance(layer, Recurrent) else (layer,):
        values = (getattr(part, one.name) for one in fields(part))
        yield from (value for value in values if isinstance(value, np.ndarray))
