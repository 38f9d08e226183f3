"""Dense layers of a model, before its LSTM and after it: f(W h + b), with dropout, forward and backward.

Products are those of the linear head, which threads and tiles serve; activations are a pass over what they leave. The
same equations, written to be read, are in dense_oracle.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import numpy as np

from cylstm._core import head
from cylstm._core.updates import activate, activate_backward
from cylstm.activations import as_activation, name_of
from cylstm.checks import describe, flag, positive_int, real_in
from cylstm.drops import mask
from cylstm.losses import GivenGradient

__all__ = ["Dense", "Stack", "as_layers", "layout", "width_of"]

# About z on one side and about 0 on the other: half of the variance gets through.
ONE_SIDED = frozenset(
    ("relu", "leaky_relu", "elu", "softplus", "gelu_tanh", "silu", "relu6", "selu", "thresholded_relu", "exponential")
)


@dataclass(frozen=True)
class Dense:
    """A dense layer for `Model(before=[...], after=[...])`: h (N, F) -> f(h weight' + bias), (N, size).

    size : int >= 1. bias : bool.
    activation : a name, or a tuple of a name and its numbers: "linear", "relu", "leaky_relu" (alpha 0.01), "tanh",
        "sigmoid", "elu" (alpha 1), "softplus", "softsign", "gelu_tanh" (GELU by its tanh: Hendrycks & Gimpel 2016),
        "silu", "hard_tanh", "relu6", "selu", "exponential", all by PyTorch's formulas; and by ONNX's "hard_sigmoid"
        (alpha 0.2, beta 0.5; PyTorch's and Keras 3's is ("hard_sigmoid", 1 / 6, 0.5)), "thresholded_relu" (alpha 1),
        ("affine", alpha, beta) and ("scaled_tanh", alpha, beta).
    dropout : float in [0, 1), the share of the outputs that training sets to 0; the others are scaled by 1/(1-p)
        (Srivastava et al. 2014).

    Initial weights are uniform in +-sqrt(6/F) before an activation that lets about half of its inputs through ("relu"
    and its like; He et al. 2015), in +-sqrt(3/F) before the others (LeCun et al. 1998); biases are 0.
    Raises TypeError or ValueError, naming the argument.
    """

    size: int
    activation: str | tuple = "relu"
    dropout: float = 0.0
    bias: bool = True

    def __post_init__(self):
        checked = {
            "size": positive_int("size", self.size),
            "activation": as_activation("activation", self.activation),
            "dropout": real_in("dropout", self.dropout, 0, 1, open_high=True),
            "bias": flag("bias", self.bias),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def config(self) -> dict:
        """The arguments that make it, for JSON."""
        return asdict(self)


def as_layers(name: str, given) -> tuple[Dense, ...]:
    """Dense layers from a list of them, of sizes or of `config`s; none from None. Raises TypeError or ValueError."""
    if given is None:
        return ()
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes, dict)):
        raise TypeError(f"{name}: expected a list of Dense layers, got {describe(given)}")
    return tuple(_as_layer(f"{name}[{n}]", layer) for n, layer in enumerate(given))


def _as_layer(name, given):
    if isinstance(given, Dense):
        return given
    known = [field.name for field in fields(Dense)]
    if isinstance(given, dict) and not ("size" in given and set(given) <= set(known)):
        raise TypeError(f"{name}: expected a dict of {', '.join(known)}, got one of {', '.join(map(str, given))}")
    try:
        return Dense(**given) if isinstance(given, dict) else Dense(given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}.{error}") from None


def layout(name: str, layers, width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of layers behind features of this width."""
    shapes = {}
    for n, layer in enumerate(layers):
        shapes[f"{name}.{n}.weight"] = (layer.size, width)
        if layer.bias:
            shapes[f"{name}.{n}.bias"] = (layer.size,)
        width = layer.size
    return shapes


def width_of(layers, width: int) -> int:
    """What comes out of layers behind features of this width."""
    return layers[-1].size if layers else width


class Stack:
    """Dense layers one behind the other: "before" or "after", whose weights are among a model's parameters."""

    def __init__(self, name: str, layers, parameters):
        self.layers, self.parameters = layers, parameters
        self.weights = [f"{name}.{n}.weight" for n in range(len(layers))]
        self.biases = [f"{name}.{n}.bias" if layer.bias else None for n, layer in enumerate(layers)]
        self.spare = []  # memory of the products' gradients
        self.lstm = None  # that of the model, which says whether products are of rounded numbers

    def initialise(self, rng) -> None:
        """Draw the weights, in the order of the layers."""
        for layer, weight, bias in zip(self.layers, self.weights, self.biases, strict=True):
            values = self.parameters.raw(weight)
            bound = math.sqrt((6 if name_of(layer.activation) in ONE_SIDED else 3) / values.shape[1])
            values[:] = rng.uniform(-bound, bound, values.shape)
            if bias is not None:
                self.parameters.raw(bias)[:] = 0

    def __call__(self, h) -> np.ndarray:
        """Outputs (N, size) of h (N, F), a contiguous array of the parameters' type; nothing is dropped."""
        for n, layer in enumerate(self.layers):
            h = self._product(n, h)
            if layer.activation != "linear":
                activate(layer.activation, h.reshape(-1), h.reshape(-1))
        return h

    def forward(self, h, rng, counted=None) -> tuple[np.ndarray, list]:
        """The same with dropout, whose masks come from rng, and with what `backward` needs.

        counted : (N,) booleans: masks are drawn for these rows alone, so that other rows, which only fill an array up,
            decide nothing; those are 0 where something is dropped. None for all.
        """
        tape = []
        for n, layer in enumerate(self.layers):
            z = y = self._product(n, h)
            if layer.activation != "linear":
                y = np.empty_like(z)
                activate(layer.activation, z.reshape(-1), y.reshape(-1))
            dropped = None
            if layer.dropout:
                dropped = self._mask(layer, len(h), rng, counted)
                y = y * dropped
            tape.append((h, z, dropped))
            h = y
        return h, tape

    def backward(self, tape, dy, gradients) -> np.ndarray:
        """d loss / d h from dy = d loss / d outputs (N, size), which is overwritten; the weights' into `gradients`."""
        for n in reversed(range(len(self.layers))):
            activation, (h, z, dropped) = self.layers[n].activation, tape[n]
            if dropped is not None:
                dy *= dropped
            if activation != "linear":
                activate_backward(activation, z.reshape(-1), dy.reshape(-1))
            dy = self._product_gradients(n, h, dy, gradients)
        return dy

    def _product(self, n, h):
        bias = self.biases[n]
        weight = self.parameters.operand(self.weights[n])
        return head.linear(h, weight, None if bias is None else self.parameters.raw(bias), self.lstm.rounded)

    def _product_gradients(self, n, h, dz, gradients):
        """dh = dz weight, dweight = dz' h and dbias, the sums of dz: the head's, of a loss whose gradient is given."""
        bias = self.biases[n]
        dweight, dbias = gradients.raw(self.weights[n]), None if bias is None else gradients.raw(bias)
        dh = np.empty_like(h)
        if not len(h):  # rows of length 0 alone
            dweight[...] = 0
            if dbias is not None:
                dbias[...] = 0
            return dh
        weight = self.parameters.raw(self.weights[n])
        head.loss(GivenGradient(), h, weight, None, dz, spare=self.spare, scale=1.0, dh=dh, dweight=dweight,
                  dbias=dbias, rounded=self.lstm.rounded)  # fmt: skip
        return dh

    def _mask(self, layer, rows, rng, counted):
        """(rows, size): 1/(1-p) where an output is kept, else 0."""
        dtype = self.parameters.dtype
        drawn = rows if counted is None else int(counted.sum())
        scaled = mask(rng, (drawn, layer.size), layer.dropout, dtype)
        if counted is None:
            return scaled
        of_all = np.zeros((rows, layer.size), dtype)
        of_all[counted] = scaled
        return of_all
