"""Activations by name: of dense layers, and of a cell's gates, input and output. Their equations, to be read, are in
dense_oracle.py; cext/functions.h computes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache
from numbers import Real
from typing import NamedTuple

from cylstm.checks import describe

__all__ = ["ACTIVATIONS", "CELL", "PLAIN", "are_bounded", "as_activation", "as_cell", "name_of", "numbers_of",
           "renamed"]  # fmt: skip

# Kinds in the order of cext/kernels.h.
KINDS = (
    "relu", "leaky_relu", "tanh", "sigmoid", "elu", "softplus", "softsign", "gelu_tanh", "silu", "bounded",
    "thresholded_relu", "exponential",
)  # fmt: skip


class Numbers(NamedTuple):
    """What cext/kernels.h's cylstm_activation has."""

    kind: int
    alpha: float = 1.0
    beta: float = 1.0
    low: float = -math.inf
    high: float = math.inf


def of(kind: str, *numbers: float) -> Numbers:
    return Numbers(KINDS.index(kind), *numbers)


class Number(NamedTuple):
    """What an activation may be given: least..LARGEST, `usual` without, None where there is no such number."""

    usual: float | None
    least: float


class Activation(NamedTuple):
    """One of ACTIVATIONS. given: its Numbers by name. numbers: from those. bounded: whether all values are within 6.
    of_value: whether its slope follows from its value, as cells ask: it rises, or stays, all the way."""

    given: dict
    numbers: Callable
    bounded: bool = False
    of_value: bool = True


LEAST, LARGEST = 1e-6, 1e6  # of a number given, where it may not be 0, and of any
SELU = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017

ACTIVATIONS = {
    "linear": Activation({}, lambda: of("bounded", 1.0, 0.0)),
    "relu": Activation({}, lambda: of("relu")),
    "leaky_relu": Activation({"alpha": Number(0.01, 0)}, lambda alpha: of("leaky_relu", alpha)),
    "tanh": Activation({}, lambda: of("tanh"), bounded=True),
    "sigmoid": Activation({}, lambda: of("sigmoid"), bounded=True),
    "elu": Activation({"alpha": Number(1.0, 0)}, lambda alpha: of("elu", alpha)),
    "softplus": Activation({}, lambda: of("softplus")),
    "softsign": Activation({}, lambda: of("softsign"), bounded=True),
    "gelu_tanh": Activation({}, lambda: of("gelu_tanh"), of_value=False),
    "silu": Activation({}, lambda: of("silu"), of_value=False),
    "affine": Activation({"alpha": Number(None, LEAST), "beta": Number(None, -LARGEST)},
                         lambda alpha, beta: of("bounded", alpha, beta)),
    "exponential": Activation({}, lambda: of("exponential")),
    "hard_sigmoid": Activation({"alpha": Number(0.2, LEAST), "beta": Number(0.5, -LARGEST)},
                               lambda alpha, beta: of("bounded", alpha, beta, 0.0, 1.0), bounded=True),
    "hard_tanh": Activation({}, lambda: of("bounded", 1.0, 0.0, -1.0, 1.0), bounded=True),
    "relu6": Activation({}, lambda: of("bounded", 1.0, 0.0, 0.0, 6.0), bounded=True),
    "scaled_tanh": Activation({"alpha": Number(None, LEAST), "beta": Number(None, LEAST)},
                              lambda alpha, beta: of("tanh", alpha, beta)),
    "selu": Activation({}, lambda: of("elu", *SELU)),
    "thresholded_relu": Activation({"alpha": Number(1.0, 0)}, lambda alpha: of("thresholded_relu", alpha)),
}  # fmt: skip

# With these numbers an activation is another one, which has none.
PLAINLY = {
    ("affine", 1.0, 0.0): "linear", ("leaky_relu", 1.0): "linear", ("leaky_relu", 0.0): "relu", ("elu", 0.0): "relu",
    ("thresholded_relu", 0.0): "relu", ("scaled_tanh", 1.0, 1.0): "tanh",
}  # fmt: skip

# Those that a cell can have, and the plain cell's: of the gates i, f and o, of its input g, of its output h = o f(c).
CELL = tuple(name for name, activation in ACTIVATIONS.items() if activation.of_value)
PLAIN = "sigmoid", "tanh", "tanh"


def as_activation(argument: str, given, known: Iterable[str] = tuple(ACTIVATIONS)):
    """A name, or a tuple of a name and its numbers where those are not the usual ones, and make no other activation of
    it, whose name it is then: "linear" for ("affine", 1, 0). Raises TypeError or ValueError.

    given : a name, or a name and its numbers in the order of `Activation.given`: ("leaky_relu", 0.2).
    """
    parts = [given] if isinstance(given, str) else list(given) if isinstance(given, (tuple, list)) else []
    if not parts or not isinstance(parts[0], str):
        raise TypeError(f"{argument}: expected the name of an activation, or a tuple of it and its numbers, "
                        f"got {describe(given)}")  # fmt: skip
    name, *numbers = parts
    if name not in known:
        raise ValueError(f"{argument}: expected one of {', '.join(map(repr, known))}, got {name!r}")
    wanted = ACTIVATIONS[name].given
    if len(numbers) > len(wanted):
        raise ValueError(f"{argument}: expected {name!r} with {', '.join(wanted) or 'no numbers'}, got {given!r}")
    numbers += [number.usual for number in list(wanted.values())[len(numbers) :]]
    for (place, (_, least)), number in zip(wanted.items(), numbers, strict=True):
        if number is None:
            raise ValueError(f"{argument}: expected ({name!r}, {', '.join(wanted)}), got {given!r}")
        if isinstance(number, bool) or not isinstance(number, Real):
            raise TypeError(f"{argument}: expected a number for the {place} of {name!r}, got {describe(number)}")
        if not least <= number <= LARGEST:
            raise ValueError(f"{argument}: expected the {place} of {name!r} in {least:g}..{LARGEST:g}, got {number!r}")
    numbers = tuple(float(number) for number in numbers)
    if numbers == tuple(number.usual for number in wanted.values()):
        return name
    return PLAINLY.get((name, *numbers), (name, *numbers))


def renamed(value):
    """What an older file says of activations and layers, with those numbers that `as_activation` has a name for."""
    if isinstance(value, dict):
        return {name: renamed(one) for name, one in value.items()}
    if not isinstance(value, list):
        return value
    if value and isinstance(value[0], str) and all(isinstance(number, (int, float)) for number in value[1:]):
        return PLAINLY.get(tuple(value), value)
    return [renamed(one) for one in value]


def as_cell(argument: str, given):
    """The three activations of a cell: of its gates, its input and its output; None for the plain ones. Raises
    TypeError or ValueError."""
    if given is None:
        return None
    if isinstance(given, str) or not isinstance(given, Iterable) or len(given := list(given)) != 3:
        raise TypeError(f"{argument}: expected three activations, of the gates, of the cell's input and of its output, "
                        f"got {describe(given)}")  # fmt: skip
    three = tuple(as_activation(f"{argument}[{n}]", one, CELL) for n, one in enumerate(given))
    return None if three == PLAIN else three


def name_of(activation) -> str:
    """The name in what `as_activation` gives."""
    return activation if isinstance(activation, str) else activation[0]


@cache
def numbers_of(activation) -> Numbers:
    """What a kernel needs of an activation as `as_activation` gives it. Raises KeyError for an unknown name."""
    name, *given = (activation,) if isinstance(activation, str) else activation
    wanted = ACTIVATIONS[name]
    return wanted.numbers(*(given or (number.usual for number in wanted.given.values())))


def are_bounded(activations) -> bool:
    """Whether the values of all of these stay within some numbers, so that tiles hold what comes of them."""
    return all(ACTIVATIONS[name_of(one)].bounded for one in activations)
