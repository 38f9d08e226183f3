"""A network as every format is read into and written from: layers with their weights, whatever they were called there.

Orders are ours: gates i, f, g, o, weights (outputs, inputs), one bias per gate. A format's module turns its file into a
`Network` or one into a file; `model_of` and `network_of` are the one way between networks and models.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass, field, fields

import numpy as np

from cylstm import dense
from cylstm.activations import ACTIVATIONS
from cylstm.cell import SUFFIXES
from cylstm.checks import describe
from cylstm.init import LATER
from cylstm.lstm import LSTM
from cylstm.model import Model
from cylstm.text.vocabulary import Vocabulary

__all__ = [
    "Dense", "Direction", "Embedding", "Network", "Recurrent", "expect_plain", "model_of", "naming", "network_of",
    "numbered",
    "parted", "short",
]  # fmt: skip

# The loss of a model whose outputs go through this, and back.
LOSSES = {"linear": "mse", "softmax": "cross_entropy", "sigmoid": "binary_cross_entropy"}
# What a direction has, and what a layer's parameters call it.
WEIGHTS = {"weight_ih": "weight_ih", "weight_hh": "weight_hh", "bias": "bias", "peephole": "peephole", "h0": "h0",
           "c0": "c0", "projection": "weight_hr"}  # fmt: skip
FINAL = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}


@dataclass(frozen=True)
class Embedding:
    """Rows of weight (V, E) for ids."""

    weight: np.ndarray

    def __post_init__(self):
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


def expect(name, array, shape) -> tuple[int, ...]:
    """The shape of an array of real numbers. Raises ValueError where it is another one than expected; None: any."""
    if not isinstance(array, np.ndarray) or array.dtype not in (np.float16, np.float32, np.float64):
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


def expect_plain(format: str, recurrent, known=()) -> None:
    """ValueError for what LSTM layers have that a format cannot say.

    That is each field that is not as it is by default. known : those that the format has; "directions" for both of
    them. Sizes, biases and dropout, which is of training only, are left to the caller.
    """
    for n, layer in enumerate(recurrent):
        if len(layer.directions) != 1 and "directions" not in known:
            raise ValueError(f"LSTM layer {n}: expected one direction, as {format} has, got both")
        for part in (layer, *layer.directions):
            for one in fields(part):
                value = getattr(part, one.name)
                if one.name in ("directions", "weight_ih", "weight_hh", "bias", "dropout", *known):
                    continue
                absent = one.name in ("peephole", "h0", "c0") and value is not None and not value.any()
                if not absent and (isinstance(value, np.ndarray) or value != one.default):
                    raise ValueError(f"LSTM layer {n}: expected no {one.name}, which {format} has not, "
                                     f"got {describe(value)}")  # fmt: skip


def arrays_of(layer):
    """All weights of one layer."""
    for part in layer.directions if isinstance(layer, Recurrent) else (layer,):
        values = (getattr(part, one.name) for one in fields(part))
        yield from (value for value in values if isinstance(value, np.ndarray))


# --- to a model -------------------------------------------------------------------------------------------------------


def model_of(network: Network) -> Model | LSTM:
    """The model that computes what a network does, or the layer where it has LSTM layers alone.

    Its loss follows from what stands last: softmax is "cross_entropy", sigmoid "binary_cross_entropy", nothing "mse";
    `predict_proba` gives what comes out of the first two. Raises ValueError for what no model has, by its name.
    """
    table, before, recurrent, after = parted(network)
    first = recurrent[0]
    for n, layer in enumerate(recurrent):
        check_like_the_first(n, layer, first, last=n == len(recurrent) - 1)
    options = {"num_layers": len(recurrent), "bidirectional": len(first.directions) == 2, "coupled": first.coupled,
               "cell_clip": first.cell_clip, "activations": first.activations, "gate_clip": first.gate_clip,
               "peepholes": first.directions[0].peephole is not None, "reverse": first.reverse,
               "first_state": any(map(begins_with_numbers, recurrent)), "proj_size": first.proj_size,
               "dropout": dropout_of(recurrent, after), "dtype": network.dtype}  # fmt: skip
    if not (table or before or after):
        bias = any(one.bias is not None for layer in recurrent for one in layer.directions)
        lstm = LSTM(first.directions[0].weight_ih.shape[1], first.hidden_size, bias=bias, seed=LATER, **options)
        fill_layers(lstm.parameters, recurrent, "")
        return lstm
    if not after:
        raise ValueError("network: expected a dense layer behind the LSTM, a model's head, got none")
    *behind, head = after
    if head.activation not in LOSSES:
        raise ValueError(f"last layer: expected no activation, softmax or sigmoid, got {head.activation}")
    inputs = (
        table.weight.shape[0] if table else (before[0].weight if before else first.directions[0].weight_ih).shape[1]
    )
    model = Model(inputs, first.hidden_size, head.width, output="last" if recurrent[-1].last else "sequence",
                  embedding_size=table.width if table else None, head_bias=head.bias is not None,
                  loss=LOSSES[head.activation], before=as_dense(before), after=as_dense(behind), seed=LATER,
                  **described(network.notes, head.activation), **options)  # fmt: skip
    values = model.parameters
    if table:
        values.raw("embedding.weight")[...] = table.weight
    for name, layers in (("before", before), ("after", behind)):
        for n, layer in enumerate(layers):
            fill_dense(values, f"{name}.{n}", layer)
    fill_dense(values, "head", head)
    fill_layers(values, recurrent, "lstm.")
    values.touch()
    return model


def described(notes, activation):
    """A model's labels and vocabulary from notes, which may come from a stranger. Raises ValueError."""
    labels, vocabulary = notes.get("labels"), notes.get("vocabulary")
    if labels is not None and (not isinstance(labels, list) or activation == "linear"):
        raise ValueError(f"labels: expected a list of them, for outputs that are classes, got {describe(labels)}")
    if any(not isinstance(label, (str, int, float)) for label in labels or ()):
        raise ValueError(f"labels: expected strings, numbers or booleans, got {describe(labels)}")
    if vocabulary is not None and not isinstance(vocabulary, str):
        raise ValueError(f"vocabulary: expected JSON, got {describe(vocabulary)}")
    return {"labels": labels, "vocabulary": None if vocabulary is None else Vocabulary.from_json(vocabulary)}


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


def check_like_the_first(n, layer, first, last):
    """ValueError where the layers of a stack differ in what one `LSTM` has only once."""
    alike = {"hidden units": lambda one: one.hidden_size, "directions": lambda one: len(one.directions),
             "coupled gates": lambda one: one.coupled, "a clip of cells": lambda one: one.cell_clip,
             "activations": lambda one: one.activations, "a clip of gates": lambda one: one.gate_clip,
             "a reverse direction alone": lambda one: one.reverse, "a projection": lambda one: one.proj_size,
             "peepholes": lambda one: [way.peephole is not None for way in one.directions]}  # fmt: skip
    for what, of in alike.items():
        if of(layer) != of(first):
            raise ValueError(f"LSTM layer {n}: expected {what} as in the first one, {of(first)}, got {of(layer)}")
    if layer.last and not last:
        raise ValueError(
            f"LSTM layer {n}: expected the outputs of all steps for the layer behind it, got the last ones"
        )


def begins_with_numbers(layer):
    """Whether sequences begin with another state than zeros."""
    return any(state is not None and state.any() for one in layer.directions for state in (one.h0, one.c0))


def dropout_of(recurrent, after) -> float:
    """The one dropout between all LSTM layers; where a network has others, which a model cannot, a warning says so."""
    between = {layer.dropout for layer in recurrent[:-1]}
    if len(between) > 1 or any(layer.dropout for layer in (recurrent[-1], *after[-1:])):
        places = {f"LSTM layer {n}": layer.dropout for n, layer in enumerate(recurrent)}
        places["the last dense layer"] = after[-1].dropout if after else 0.0
        shares = ", ".join(f"{share:g} behind {place}" for place, share in places.items() if share)
        warnings.warn("network: expected one dropout between all LSTM layers, and none behind the last one or the last "
                      f"dense layer, got {shares}: others are left out", stacklevel=5)  # fmt: skip
    return between.pop() if len(between) == 1 else 0.0


def as_dense(layers):
    """Arguments of a model for dense layers with these weights."""
    return [dense.Dense(layer.width, layer.activation, layer.dropout, layer.bias is not None) for layer in layers]


def fill_dense(values, name, layer):
    """Weights of a dense layer or a head into a model's parameters."""
    values.raw(f"{name}.weight")[...] = layer.weight
    if layer.bias is not None:
        values.raw(f"{name}.bias")[...] = layer.bias


def fill_layers(values, recurrent, prefix):
    """Weights of all LSTM layers; a bias or first state that a layer lacks is 0."""
    for n, layer in enumerate(recurrent):
        for one, suffix in zip(layer.directions, SUFFIXES, strict=False):
            for part, name in WEIGHTS.items():
                full = f"{prefix}{name}_l{n}{suffix}"
                if full in values:
                    weight = getattr(one, part)
                    values.raw(full)[...] = 0 if weight is None else weight
    values.touch()


# --- from a model -----------------------------------------------------------------------------------------------------


def network_of(model: Model | LSTM, *, probabilities: bool = True) -> Network:
    """The network of a model or a layer, whose weights it copies. probabilities: what comes out is what `predict_proba`
    gives, for losses that have that, and not `model(x)`. Raises ValueError for what no network has, by its name."""
    if isinstance(model, LSTM):
        say_left_out(model)
        return Network(tuple(layers_of(model, last=False)))
    if not isinstance(model, Model):
        raise TypeError(f"model: expected a cylstm.Model or LSTM, got {describe(model)}")
    if model.only is None:
        raise ValueError(f"model: expected one head, got {len(model.heads)}: {', '.join(model.heads)}")
    if model.embeddings:
        raise ValueError(f"embeddings: expected none of columns, got those of {', '.join(map(str, model.embeddings))}")
    if model.horizon is not None:
        raise ValueError(f"horizon: expected None, got {model.horizon}")
    say_left_out(model.lstm, embedding_dropout=model.embedding_dropout)
    values = {name: model.parameters.raw(name).copy() for name in model.parameters}

    def dense_of(name, activation, dropout=0.0):
        return Dense(values[f"{name}.weight"], values.get(f"{name}.bias"), activation, dropout)

    before, after = (
        [dense_of(f"{name}.{n}", layer.activation, layer.dropout) for n, layer in enumerate(layers)]
        for name, layers in (("before", model.before), ("after", model.after))
    )
    table = [] if model.embedding_size is None else [Embedding(values["embedding.weight"])]
    final = FINAL.get(model.loss.name, "linear") if probabilities else "linear"
    notes = {"labels": list(model.labels)} if model.labels is not None else {}
    if model.vocabulary is not None:
        notes["vocabulary"] = model.vocabulary.to_json()
    recurrent = layers_of(model.lstm, last=model.output == "last")
    values.setdefault("head.weight", values.get("embedding.weight"))  # tied: each has a copy of the one table
    return Network((*table, *before, *recurrent, *after, dense_of("head", final)), notes)


def say_left_out(lstm, **shares):
    """Warns of what training drops and a network has no word for; it is nothing that the outputs know of."""
    names = [*lstm.drops.config, *(name for name, share in shares.items() if share)]
    if names:
        warnings.warn(f"{', '.join(names)}: of training alone, left out of the network", stacklevel=4)


def layers_of(lstm, last):
    """The layers of an LSTM, with copies of their weights."""

    def direction(ending):
        given = {part: f"{name}{ending}" for part, name in WEIGHTS.items()}
        return Direction(**{name: lstm.parameters.raw(full).copy() for name, full in given.items()
                            if full in lstm.parameters})  # fmt: skip

    L = lstm.num_layers
    return [
        Recurrent(
            tuple(direction(f"_l{n}{suffix}") for suffix in SUFFIXES[: lstm.num_directions]),
            lstm.cell.coupled, lstm.cell.cell_clip, lstm.dropout if n < L - 1 else 0.0, last and n == L - 1,
            lstm.cell.activations, lstm.cell.gate_clip, lstm.cell.reverse,
        )
        for n in range(L)
    ]  # fmt: skip
