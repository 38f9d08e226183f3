"""An activation in however many ONNX nodes it is written: the one of `cylstm.Dense` that gives the same numbers.

A candidate is found from a few numbers z and then held against the formula at thousands, z = -1e30..1e30, and wherever
the formula may turn: where an operator's argument, or the difference of two, crosses 0 or comes near to it, beside such
places, and halfway between them. So it does not matter how a file spells softplus or GELU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cylstm.activations import ACTIVATIONS, as_activation
from cylstm.dense_oracle import activation
from cylstm.exchange.network import short
from cylstm.exchange.onnx_functions import FUNCTIONS
from cylstm.exchange.onnx_values import Refused

__all__ = ["Formula", "activation_of"]

FAR = np.geomspace(1e-4, 1e5, 28)
PROBES = np.concatenate([-FAR[::-1], np.linspace(-9, 9, 109), FAR])
FARTHEST = np.geomspace(1e-7, 1e30, 1500)
GRID = np.unique(np.concatenate([-FARTHEST, np.linspace(-12, 12, 4801), FARTHEST]))
NEAR = 9  # where no formula overflows
CLOSE, ROUNDING = 2e-6, 1e-7  # of values; of z, by float32 constants
BESIDE = 1e-5  # a place, more than rounding moves it
MOST_OPERATORS = 64  # in one formula
MOST_PLACES = 400  # where it turns
ROUNDS = 8  # of a search for one


@dataclass(frozen=True, eq=False)
class Formula:
    """An operator of a dense layer's outputs z. inputs: numbers, other formulas, and None for z itself; size: of all
    operators in it, each as often as it stands there."""

    node: str
    op: str
    inputs: tuple
    options: dict
    size: int = 1

    @classmethod
    @np.errstate(all="ignore")
    def of(cls, node, inputs) -> Formula:
        """The formula of a node that has an operator of FUNCTIONS. Raises Refused, or TypeError for its attributes."""
        function, _ = FUNCTIONS[node.op]
        given = node.attributes
        texts = node.op == "Gelu" and given.get("approximate", "none") in ("none", "tanh")
        if not texts and any(not isinstance(value, (int, float)) for value in given.values()):
            raise Refused(f"expected numbers as attributes, got {given}")
        truths = [isinstance(one, Formula) and one.truth for one in inputs]
        if truths != [node.op == "Where", *[False] * len(inputs)][: len(inputs)]:
            raise Refused("expected numbers, and what is true or false as a condition alone, got others")
        function(*[np.ones(1) if isinstance(one, (Formula, type(None))) else one for one in inputs], **given)
        size = 1 + sum(one.size for one in inputs if isinstance(one, Formula))
        if size > MOST_OPERATORS:
            raise Refused(f"expected at most {MOST_OPERATORS} operators in an activation, got more")
        return cls(str(node), node.op, tuple(inputs), given, size)

    @property
    def truth(self) -> bool:
        """Whether its values are true and false."""
        return self.op in ("Greater", "Less")

    def as_number(self, node) -> Formula:
        """1 and 0 for true and false."""
        return Formula(str(node), "Cast", (self,), {}, self.size + 1)

    def numbers(self) -> list[float]:
        """All that stand in it."""
        found = [float(one) for one in self.options.values() if isinstance(one, (int, float))]
        found += [1.0] if self.op == "ThresholdedRelu" and not self.options else []
        for one in self.inputs:
            found += one.numbers() if isinstance(one, Formula) else [] if one is None else [one]
        return found

    def at(self, z, turns=None):
        """Its values; `turns` is given what crosses 0 where an operator may turn."""
        given = [z if one is None else one.at(z, turns) if isinstance(one, Formula) else one for one in self.inputs]
        if turns is not None:
            turns += self.turning(given, z)
        if self.op == "Cast":
            return given[0].astype(np.float64)
        return FUNCTIONS[self.op][0](*given, **self.options)

    def turning(self, given, z) -> list[np.ndarray]:
        """Arguments, their differences among each other and to the operator's own numbers."""
        given = [np.broadcast_to(one, z.shape) for one in given if not is_truth(one)]
        own = [one for one in self.options.values() if isinstance(one, (int, float))]
        own += [1.0] if self.op == "ThresholdedRelu" else []
        if self.op == "HardSigmoid":
            alpha, beta = self.options.get("alpha", 0.2), self.options.get("beta", 0.5)
            return [alpha * given[0] + beta, alpha * given[0] + beta - 1]
        pairs = [one - other for n, one in enumerate(given) for other in given[:n]]
        return [*given, *pairs, *(one - number for one in given for number in own)]


def is_truth(values) -> bool:
    """Whether these are true and false."""
    return isinstance(values, np.ndarray) and values.dtype == np.bool_


@np.errstate(all="ignore")
def activation_of(formula):
    """The activation of `cylstm.Dense` that a formula is. Raises Refused for none."""
    if formula.truth:
        raise Refused(f"{formula.node}: expected numbers, got what is true or false")
    probe = formula.at(PROBES)
    numbers = list(dict.fromkeys(formula.numbers()))
    places = None
    for name, *given in candidates(probe):
        try:
            one = as_activation("activation", (name, *(meant(float(number), numbers) for number in given)))
        except ValueError:
            continue
        if fits(one, probe, PROBES):
            places = places_of(formula) if places is None else places
            if fits(one, formula.at(places), places):
                return one
    # No value tells where between two probes a threshold is.
    for number in numbers:
        one = "thresholded_relu", short(number)
        if 0 < number < PROBES[-1] and fits(one, probe, PROBES):
            places = places_of(formula) if places is None else places
            if fits(one, formula.at(places), places):
                return as_activation("activation", one)
    raise Refused(f"{formula.node}: expected one of the activations {', '.join(ACTIVATIONS)}, got another")


def fits(one, values, z) -> bool:
    """Whether an activation gives these values, where they did not overflow, but for the rounding of numbers."""
    counted = (np.abs(z) <= NEAR) | np.isfinite(values)
    expected, slope = (array[counted] for array in activation(one, z)[:2])
    room = 1e-9 + CLOSE * np.abs(expected) + ROUNDING * np.abs(slope * z[counted])
    return bool((np.abs(values[counted] - expected) <= room).all())


def places_of(formula) -> np.ndarray:
    """GRID, and where between its numbers the formula may turn. Raises Refused for too many such places."""
    turns = []
    formula.at(GRID, turns)
    size = np.abs(np.array(turns))
    size[~np.isfinite(size)] = np.inf
    before, after = size[:, :-2], size[:, 2:]
    middle = size[:, 1:-1]
    lower = (before > middle * (1 + CLOSE)) & (after >= middle) | (after > middle * (1 + CLOSE)) & (before >= middle)
    which, where = np.nonzero(lower)
    if len(which) > MOST_PLACES:
        raise Refused(f"{formula.node}: expected an activation, got a formula that turns at {len(which)} places")
    found, width = GRID[where + 1], np.maximum(GRID[where + 2] - GRID[where + 1], GRID[where + 1] - GRID[where])
    steps = np.linspace(-1, 1, 17)
    for _ in range(ROUNDS if len(which) else 0):
        z = found[:, None] + width[:, None] * steps
        turns = []
        formula.at(z.reshape(-1), turns)
        size = np.abs(np.array(turns)[which, :].reshape(len(which), *z.shape)[np.arange(len(which)), np.arange(len(z))])
        best = np.argmin(np.where(np.isfinite(size), size, np.inf), axis=1)
        found, width = z[np.arange(len(z)), best], width / 8
    found = np.unique(found)
    beside = BESIDE * np.abs(found) + 1e-12
    apart = (np.abs(GRID[:, None] - found) >= beside).all(axis=1)
    return np.concatenate([GRID[apart], found - beside, found + beside, (found[1:] + found[:-1]) / 2])


def candidates(probe):
    """Activations, with the numbers that would give these values."""
    for name, one in ACTIVATIONS.items():
        if name != "thresholded_relu" and None not in [number.usual for number in one.given.values()]:
            yield (name,)
    low, zero, high = (int(np.argmin(abs(PROBES - z))) for z in (-9, 0, 9))
    yield "leaky_relu", probe[low] / PROBES[low]
    yield "elu", probe[low] / np.expm1(PROBES[low])
    slope = (probe[high] - probe[low]) / (PROBES[high] - PROBES[low])
    yield "affine", slope, probe[zero] - slope * PROBES[zero]
    inner = np.flatnonzero((probe > 0) & (probe < 1))
    if len(inner) > 1:
        first, last = inner[[0, -1]]
        slope = (probe[last] - probe[first]) / (PROBES[last] - PROBES[first])
        yield "hard_sigmoid", slope, probe[first] - slope * PROBES[first]
    share = probe / probe[-1]
    middle = int(np.argmin(abs(share - 0.5)))
    yield "scaled_tanh", probe[-1], np.arctanh(share[middle]) / PROBES[middle]


def meant(number, numbers) -> float:
    """The one of some numbers that another is but for rounding; itself where there is none."""
    return short(next((one for one in numbers if abs(one - number) <= 1e-9 * abs(number)), number))
