"""ONNX's activations and ours: operators on single numbers, and those of LSTM nodes by their names."""

from __future__ import annotations

import math

import numpy as np

from cylstm.activations import ACTIVATIONS, PLAIN, as_cell
from cylstm.dense_oracle import ACTIVATIONS as FORMULAS
from cylstm.dense_oracle import bounded, elu, sigmoid
from cylstm.exchange.network import numbered, short

__all__ = ["FUNCTIONS", "attributes_of", "cell_of"]

SELU = 1.67326319217681884765625, 1.05070102214813232421875

# --- operators on single numbers --------------------------------------------------------------------------------------


def gelu(z, approximate="none"):
    if approximate == "tanh":
        return FORMULAS["gelu_tanh"](z)[0]
    return z * (1 + np.array([math.erf(one / math.sqrt(2)) for one in z])) / 2


def softplus(z):
    return np.logaddexp(0, z)


# Of one array, with attributes; of two.
UNARY = {
    "Relu": lambda z: np.maximum(z, 0),
    "LeakyRelu": lambda z, alpha=0.01: np.where(z > 0, z, alpha * z),
    "ThresholdedRelu": lambda z, alpha=1.0: np.where(z > alpha, z, 0),
    "Tanh": np.tanh,
    "Sigmoid": sigmoid,
    "Elu": lambda z, alpha=1.0: elu(z, alpha)[0],
    "Selu": lambda z, alpha=SELU[0], gamma=SELU[1]: elu(z, alpha, gamma)[0],
    "Softplus": softplus,
    "Softsign": lambda z: z / (1 + np.abs(z)),
    "Gelu": gelu,
    "Swish": lambda z, alpha=1.0: z * sigmoid(alpha * z),
    "HardSigmoid": lambda z, alpha=0.2, beta=0.5: bounded(z, alpha, beta, 0, 1)[0],
    "Mish": lambda z: z * np.tanh(softplus(z)),
    "Abs": np.abs,
    "Exp": np.exp,
    "Log": np.log,
    "Neg": np.negative,
    "Reciprocal": np.reciprocal,
}
BINARY = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power, "Max": np.maximum,
          "Min": np.minimum, "Greater": np.greater, "Less": np.less}  # fmt: skip
# Each with its number of inputs.
FUNCTIONS = {**{name: (of, 1) for name, of in UNARY.items()}, **{name: (of, 2) for name, of in BINARY.items()},
             "Where": (np.where, 3), "Clip": (np.clip, 3)}  # fmt: skip


# --- LSTM nodes -------------------------------------------------------------------------------------------------------

# Of the operator's text; upper and lower case are one. Those with an alpha or a beta have them here as there.
OF_CELLS = ("Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu",
            "Softsign", "Softplus")  # fmt: skip
OURS = {name.replace("_", ""): name for name in ACTIVATIONS}
SPELLED = {OURS[name.lower()]: name for name in OF_CELLS}


def cell_of(names, alphas, betas, D):
    """A node's activations as `Recurrent` has them: of gates, input and output, the same in all directions; alphas and
    betas go, in their order, to the functions that take one. Raises ValueError."""
    if not all(isinstance(several, tuple) for several in (names, alphas, betas)) or len(names) not in (0, 3 * D):
        raise ValueError(f"expected {3 * D} activations, with lists of alpha and beta, got {names!r:.80}")
    left, taken, found = {"alpha": list(alphas), "beta": list(betas)}, set(), []
    for name in map(str, names):
        ours = OURS.get(name.lower())
        if ours not in SPELLED:
            raise ValueError(f"expected activations of {', '.join(OF_CELLS)}, got {name:.40}")
        numbers = []
        for place, number in ACTIVATIONS[ours].given.items():
            taken.add(place)
            numbers.append(left[place].pop(0) if left[place] else number.usual)
        found.append((ours, *(short(number) if isinstance(number, float) else number for number in numbers)))
    for place in taken:
        if left[place]:
            raise ValueError(f"expected a number for each activation that has an {place}, got {len(left[place])} more")
    try:
        ways = [as_cell("activations", found[3 * d : 3 * d + 3]) for d in range(D)] if found else [None]
    except TypeError as error:
        raise ValueError(str(error)) from None
    if len({*ways}) > 1:
        raise ValueError(f"expected the same activations in both directions, got {', '.join(map(str, names))}")
    return ways[0]


def attributes_of(activations, D) -> dict:
    """An LSTM node's attributes for the activations of `Recurrent`; none for the plain ones. Raises ValueError."""
    if activations in (None, PLAIN):
        return {}
    told = {"activations": [], "activation_alpha": [], "activation_beta": []}
    for one in D * tuple(activations):
        name, numbers = numbered(("affine", 1.0, 0.0) if one == "linear" else one)
        if name not in SPELLED:
            known = ", ".join(("linear", *SPELLED))
            raise ValueError(f"activations: expected those that ONNX's LSTM has, {known}, got {name!r}")
        told["activations"].append(SPELLED[name])
        for place, number in numbers.items():
            told[f"activation_{place}"].append(number)
    return {name: several for name, several in told.items() if several}
