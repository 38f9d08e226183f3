"""Layers and models in another precision: `LSTM.astype` and `Model.astype`."""

from __future__ import annotations

import copy

import numpy as np

from cylstm.activations import name_of
from cylstm.checks import one_of
from cylstm.small_parameters import PRECISIONS, SmallParameters, as_float32

WITHIN_1 = frozenset(("tanh", "sigmoid", "softsign", "hard_sigmoid", "hard_tanh"))  # by whatever numbers

__all__ = [
    "check_int8", "converted", "expect_gradients", "fill", "given_of", "kept_of", "precision_of",
    "precision_option", "rounds",
]  # fmt: skip


def precision_of(one) -> str:
    """Of a layer or a model: "float32" or "float64", or one of PRECISIONS."""
    return "bfloat16" if one.rounded else getattr(one.parameters, "precision", str(one.parameters.dtype))


def precision_option(lstm) -> dict:
    """Among the arguments that make such a layer, or a model of it."""
    return {"precision": "bfloat16"} if lstm.rounded else {}


def rounds(parameters, precision) -> bool:
    """Whether a layer or a model of these parameters rounds what it multiplies, as this precision says; None for no
    more than the parameters say. Raises ValueError."""
    own = getattr(parameters, "precision", str(parameters.dtype))
    possible = (own, "bfloat16") if own == "float32" else (own,)
    precision = own if precision is None else one_of("precision", precision, possible)
    return precision == "bfloat16" and own == "float32"


def expect_gradients(parameters, name: str) -> None:
    """ValueError for parameters that have none."""
    if isinstance(parameters, SmallParameters):
        raise ValueError(f"{name}: expected parameters in float32 or float64, which have gradients, got some in "
                         f"{parameters.precision}, which run and no more")  # fmt: skip


def kept_of(parameters):
    """What a copy of a layer or a model needs of its parameters: themselves where they cannot change, or all values."""
    return parameters if isinstance(parameters, SmallParameters) else parameters.raw().copy()


def given_of(kept):
    """What the copy is made with: these parameters or, where it makes its own, None."""
    return kept if isinstance(kept, SmallParameters) else None


def fill(parameters, kept) -> None:
    """Take over the values, where it has made its own."""
    if parameters is not kept:
        parameters.raw()[:] = kept
        parameters.touch()


def converted(one, make, precision):
    """A layer or a model as it is now, in this precision. make(dtype, parameters): another of its kind; parameters is
    None where it makes them itself. Raises TypeError or ValueError."""
    precision = str(one_of("precision", precision, ("float32", "float64", *PRECISIONS)))
    small = precision in PRECISIONS
    parameters = SmallParameters.of(one.parameters, precision) if small else None
    made = make("float32" if small else precision, parameters)
    if not small and made.dtype == np.float32:
        for name in one.parameters:
            as_float32(name, one.parameters.raw(name))
    fill(made.parameters, one.parameters.raw() if not small else parameters)
    made.rng = copy.deepcopy(one.rng)
    return made


def check_int8(lstm) -> None:
    """ValueError for a layer whose h is not within -1..1."""
    of_gates, _, of_c = lstm.cell.all_activations
    if lstm.cell.proj_size or not {name_of(of_gates), name_of(of_c)} <= WITHIN_1:
        got = "a projection" if lstm.cell.proj_size else f"activations {lstm.cell.all_activations}"
        raise ValueError(f"precision: expected a layer whose h stays within -1..1 for int8, got one with {got}")
    for name in lstm.parameters.layout:
        if name.startswith("h0"):
            most = np.abs(lstm.parameters.raw(name)).max()
            if not most <= 1:
                raise ValueError(f"{name}: expected numbers within -1..1 for int8, got {most:g}")
