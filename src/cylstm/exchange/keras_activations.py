"""Keras's activations and ours, both ways: keras.activations of Keras 2 and 3, and the layers that are activations."""

from __future__ import annotations

import numpy as np

from cylstm.activations import CELL, as_activation, name_of
from cylstm.exchange.network import short

__all__ = [
    "LAYERS_OF_ACTIVATIONS", "LAYERS_OF_CELLS", "NAMES", "OF_CELLS", "activation_of_layer", "keras_name", "named",
    "written_as",
]  # fmt: skip

# Keras's names -> ours; of these two the formula goes by the version. gelu is the one by erf, which we do not have.
ALIKE = ("linear", "relu", "tanh", "sigmoid", "elu", "softplus", "softsign", "silu", "selu", "exponential", "relu6",
         "hard_tanh", "softmax")  # fmt: skip
NAMES = {name: name for name in ALIKE} | {"swish": "silu", "leaky_relu": ("leaky_relu", 0.2), "hard_sigmoid": None}
HARD_SIGMOID = {2: "hard_sigmoid", 3: ("hard_sigmoid", 1 / 6, 0.5)}


def named(name, major):
    """Ours for one of NAMES in Keras 2 or 3."""
    return HARD_SIGMOID[major] if name == "hard_sigmoid" else NAMES[name]


# --- layers that are activations --------------------------------------------------------------------------------------


def number(options, *names, usual):
    """The number that a layer has, under any of its names."""
    found = [plain(options.take(name)) for name in names if name in options.left] or [usual]
    if len(found) > 1 and found[0] != found[1]:
        options.refuse(f"one of {' and '.join(names)}", f"{found[0]} and {found[1]}")
    return found[0]


def plain(value):
    """A number as it was meant; of an array of one, which some versions write, the number."""
    if isinstance(value, dict):
        value = value.get("config", value)
        value = value.get("value") if isinstance(value, dict) else value
    right = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30
    return short(value) if right else value


def relu(options):
    slope, threshold = number(options, "negative_slope", usual=0.0), number(options, "threshold", usual=0.0)
    most = number(options, "max_value", usual=None)
    if threshold != 0 or (most is not None and (most != 6 or slope != 0)):
        options.refuse("ReLU with threshold 0 and no max_value, or one of 6 alone", f"threshold {threshold}, "
                       f"max_value {most}, negative_slope {slope}")  # fmt: skip
    return "relu6" if most is not None else ("leaky_relu", slope) if slope else "relu"


def softmax(options):
    axis = options.take("axis", -1)
    if axis != -1:
        options.refuse("Softmax with axis -1", axis)
    return "softmax"


LAYERS_OF_ACTIVATIONS = {
    "ReLU": relu,
    "LeakyReLU": lambda options: ("leaky_relu", number(options, "negative_slope", "alpha", usual=0.3)),
    "ELU": lambda options: ("elu", number(options, "alpha", usual=1.0)),
    "ThresholdedReLU": lambda options: ("thresholded_relu", number(options, "theta", usual=1.0)),
    "Softmax": softmax,
}


def activation_of_layer(options):
    """Ours for a layer that is one. Raises ValueError."""
    found = LAYERS_OF_ACTIVATIONS[options.class_name](options)
    options.done()
    if found == "softmax":
        return found
    try:
        return as_activation(options.name, found)
    except TypeError as error:
        raise ValueError(str(error)) from None


# What a cell may have of both.
OF_CELLS = tuple(name for name in NAMES if name_of(named(name, 3)) in CELL)
LAYERS_OF_CELLS = tuple(name for name in LAYERS_OF_ACTIVATIONS if name != "Softmax")


# --- out --------------------------------------------------------------------------------------------------------------


def keras_name(ours):
    """The name that an activation has in Keras 3, or None."""
    return next((name for name in NAMES if same(named(name, 3), ours)), None)


def same(one, other) -> bool:
    """Whether two activations are one, with numbers as float32 has them."""
    if name_of(one) != name_of(other) or isinstance(one, str) != isinstance(other, str):
        return False
    return isinstance(one, str) or np.array_equal(np.float32(one[1:]), np.float32(other[1:]))


def written_as(ours):
    """(the name for a Dense layer, the class and options of a layer behind it or None). Raises ValueError."""
    base, *numbers = (ours,) if isinstance(ours, str) else ours
    if base == "leaky_relu":
        return "linear", ("LeakyReLU", {"negative_slope": numbers[0] if numbers else 0.01})
    if base == "elu" and numbers:
        return "linear", ("ELU", {"alpha": numbers[0]})
    name = keras_name(ours)
    if name is None:
        told = ", ".join(NAMES)
        raise ValueError(f"expected an activation that Keras has, {told}, LeakyReLU or ELU, got {ours!r}")
    return name, None
