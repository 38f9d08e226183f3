"""Losses: which targets each takes, the kernel that computes it, and what its outputs and its sums say.

Every token has outputs (O,), a target and a weight, 1 where there are none. Kernels give sums over tokens; means are
made of those by `mean`, nowhere else. A new loss is an object here, with its name in `by_name`, a ROW_LOSS in
cext/kernels.def and a body in cext/loss.h.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np

from cylstm.checks import as_ids, check_range, describe, flag, positive_int, real_in, refuse

__all__ = [
    "CTC",
    "AbsoluteError",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Gaussian",
    "Huber",
    "Loss",
    "Quantiles",
    "SquaredError",
    "as_loss",
    "by_name",
    "mean",
]


def mean(total: float, weight: float) -> float:
    """The mean over tokens, from the sums of w * loss and of w."""
    return total / weight


@dataclass(frozen=True)
class Loss:
    """What all losses have in common, as it is for one of numbers: a target (O,) to outputs (O,).

    The fields of a subclass are its parameters: files hold them, and the kernel gets them as doubles.
    """

    name: ClassVar[str]  # in files, and of Model(loss=...)
    kernel: ClassVar[str]  # its ROW_LOSS
    # Rows that the kernel gets at a time. Sums of pieces are added in order, so this number decides the last bits.
    piece: ClassVar[int] = 16
    of_classes: ClassVar[bool] = False  # whether targets are class ids, and outputs their logits
    reads_outputs: ClassVar[bool] = True
    of_rows: ClassVar[bool] = False  # whether a row has one loss, of all its steps, and a token is a row
    says: ClassVar[str] = "numbers"  # what metrics find in targets and outputs: see `metric_sums.Sums.takes`

    @property
    def parameters(self) -> tuple[float, ...]:
        """What the kernel gets."""
        return tuple(vars(self).values())

    @property
    def config(self) -> str | dict:
        """What files hold, for `as_loss`: the name or, where there are parameters, a dict of name and those."""
        if not self.parameters:
            return self.name
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return {"name": self.name, **plain}

    def width(self, outputs: int) -> tuple[int, ...]:
        """The shape of one token's target beside so many outputs."""
        return (outputs,)

    def check_kind(self, name: str, y) -> None:
        """TypeError unless an array is of a kind that targets can be."""
        if y.dtype.kind not in "fiub":
            raise TypeError(f"{name}: expected numbers, got {describe(y)}")

    def check_values(self, name: str, y, outputs: int, counted=None, piece=()) -> None:
        """ValueError, naming the place, unless targets, (..., *width(outputs)) and finite, are in range. counted : of
        their shape, where they are looked at; piece : slices of the whole, which say where they begin."""

    def class_count(self, outputs: int) -> int:
        """How many classes `classes` tells apart. TypeError for a loss of numbers."""
        raise TypeError(f"class_weight: expected None with loss={self.name!r}, whose targets are numbers")

    def classes(self, targets) -> np.ndarray:
        """The class (N,) of each target (N, *width)."""
        raise NotImplementedError

    def converted(self, name: str, y, outputs: int, dtype) -> np.ndarray:
        """Targets (N, *width(outputs)) as the kernel takes them, checked: contiguous int64 or `dtype`."""
        self.check_values(name, y, outputs)
        return np.ascontiguousarray(y, dtype)

    def decide(self, outputs) -> np.ndarray:
        """Predictions, from outputs (..., O)."""
        return outputs

    def numbers(self, outputs) -> np.ndarray:
        """The numbers (..., F) that outputs (..., O) foretell, beside targets (..., F), of a loss that says "numbers".
        TypeError where they foretell none."""
        return self.decide(outputs)

    probabilities = None  # of outputs (..., O), where a loss has any

    def metrics(self, total: float, weight: float, hits: float, outputs: int) -> dict[str, float]:
        """Means by name, from the kernel's sums: "loss" and what else there is to say."""
        return {"loss": mean(total, weight)}


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """-log softmax(outputs)[class]. Targets are classes, integers in 0..O-1.

    smoothing : in [0, 1), the share of each target that goes to all classes equally (Szegedy et al. 2016), as PyTorch's
        label_smoothing without class weights. The perplexity is then that of the smoothed targets.
    """

    name, kernel, of_classes, says = "cross_entropy", "softmax_cross_entropy", True, "classes"
    smoothing: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "smoothing", real_in("smoothing", self.smoothing, 0, 1, open_high=True))

    @property
    def parameters(self):
        return (self.smoothing,) if self.smoothing else ()

    def width(self, outputs):
        return ()

    def check_kind(self, name, y):
        if y.dtype.kind not in "iu":
            hint = " (labels= gives classes other names)" if y.dtype.kind in "USO" else ""
            raise TypeError(f"{name}: expected integer classes, got {describe(y)}{hint}")

    def check_values(self, name, y, outputs, counted=None, piece=()):
        check_range(name, y, outputs, counted, piece)

    def class_count(self, outputs):
        return outputs

    def classes(self, targets):
        return targets

    def converted(self, name, y, outputs, dtype):
        return as_ids(name, y, outputs)

    def decide(self, outputs):
        return outputs.argmax(axis=-1)

    def probabilities(self, outputs):
        e = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def metrics(self, total, weight, hits, outputs):
        found = super().metrics(total, weight, hits, outputs)
        return {**found, "perplexity": float(np.exp(min(found["loss"], 700))), "accuracy": mean(hits, weight)}


@dataclass(frozen=True)
class SquaredError(Loss):
    """The mean over outputs of (output - target)^2."""

    name, kernel = "mse", "squared_error"


@dataclass(frozen=True)
class AbsoluteError(Loss):
    """The mean over outputs of ``|output - target|``."""

    name, kernel = "mae", "absolute_error"


@dataclass(frozen=True)
class Huber(Loss):
    """The mean over outputs of ``e^2 / 2``, e = output - target, or where ``|e| > delta`` of
    ``delta (|e| - delta / 2)`` (Huber 1964)."""

    name, kernel = "huber", "huber"
    delta: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "delta", real_in("delta", self.delta, 0, open_low=True))


@dataclass(frozen=True)
class Quantiles(Loss):
    """Quantiles of each target t: the mean over outputs y of max(q (t - y), (q - 1) (t - y)) (Koenker & Bassett 1978).

    quantiles : increasing numbers q between 0 and 1, Q of them. A model has Q outputs for each number of a target:
        those of the first number, one for each quantile, then those of the second.
    """

    name, kernel, says = "quantiles", "pinball", "quantiles"
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)

    def __post_init__(self):
        if not isinstance(self.quantiles, Iterable) or isinstance(self.quantiles, str):
            raise TypeError(f"quantiles: expected a list of numbers, got {describe(self.quantiles)}")
        given = tuple(real_in("quantiles", q, 0, 1, open_low=True, open_high=True) for q in self.quantiles)
        if not given or any(later <= q for q, later in pairwise(given)):
            raise ValueError(f"quantiles: expected increasing numbers, at least one, got {describe(given)}")
        object.__setattr__(self, "quantiles", given)

    @property
    def parameters(self):
        return (len(self.quantiles), *self.quantiles)

    def width(self, outputs):
        if outputs % len(self.quantiles):
            several = f"a multiple of {len(self.quantiles)}, an output for each quantile"
            raise ValueError(f"output_size: expected {several}, got {outputs}")
        return (outputs // len(self.quantiles),)

    def numbers(self, outputs):
        """The medians."""
        if 0.5 not in self.quantiles:
            raise TypeError(f"quantiles: expected 0.5 among them, the median, got {self.quantiles}")
        return outputs[..., self.quantiles.index(0.5) :: len(self.quantiles)]

    def interval(self, outputs) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest quantile, (..., F) each. TypeError where there is but one."""
        if len(self.quantiles) < 2:
            raise TypeError(f"quantiles: expected at least two, got {self.quantiles}")
        return outputs[..., :: len(self.quantiles)], outputs[..., len(self.quantiles) - 1 :: len(self.quantiles)]


@dataclass(frozen=True)
class Gaussian(Loss):
    """The mean over numbers t of -log N(t; m, v), a normal distribution's density (Nix & Weigend 1994): its constant
    log(2 pi) / 2 is in it, as in PyTorch's GaussianNLLLoss with full=True.

    floor : > 0, added to each variance, so that none comes too close to 0: v = exp(output) + floor.

    A model has two outputs for each number of a target, its mean and then the logarithm of its variance.
    """

    name, kernel = "gaussian", "gaussian"
    floor: float = 1e-6

    def __post_init__(self):
        object.__setattr__(self, "floor", real_in("floor", self.floor, 0, open_low=True))

    def width(self, outputs):
        if outputs % 2:
            raise ValueError(f"output_size: expected an even number, a mean and a log-variance each, got {outputs}")
        return (outputs // 2,)

    def decide(self, outputs):
        return outputs[..., ::2]

    def deviation(self, outputs) -> np.ndarray:
        """The standard deviations, (..., O/2) from outputs (..., O), that belong to the means of `predict`."""
        return np.hypot(np.exp(outputs[..., 1::2] / 2), outputs.dtype.type(self.floor**0.5))  # sqrt(exp(s) + floor)


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """The mean over outputs, logits, of -t log p - (1 - t) log(1 - p), p = sigmoid(output). Targets t are in [0, 1]."""

    name, kernel, says = "binary_cross_entropy", "binary_cross_entropy", "binary"

    def check_values(self, name, y, outputs, counted=None, piece=()):
        wrong = (y < 0) | (y > 1)  # neither where a target is NaN, and missing
        refuse(name, y, wrong if counted is None else wrong & counted, "a target in [0, 1]", piece)

    def class_count(self, outputs):
        if outputs != 1:
            raise TypeError(f"class_weight: expected None with loss={self.name!r} of {outputs} outputs, whose targets "
                            "may be of several classes")  # fmt: skip
        return 2

    def classes(self, targets):
        return (targets[:, 0] > 0.5).astype(np.int64)

    def decide(self, outputs):
        return (outputs > 0).astype(np.int64)

    def probabilities(self, outputs):
        e = np.exp(-np.abs(outputs))
        return np.where(outputs >= 0, 1, e) / (1 + e)

    def metrics(self, total, weight, hits, outputs):
        return {**super().metrics(total, weight, hits, outputs), "accuracy": mean(hits, weight * outputs)}


@dataclass(frozen=True)
class CTC(Loss):
    """Connectionist temporal classification (Graves et al. 2006): -log of the probability of a row's labels, however
    they lie over its steps. A target is the labels of a row, integers in 0..O-1 without the blank, of any number; means
    are over rows. `ctc` has the loss alone, and the decoders.

    blank : the class that stands for no label.
    zero_infinity : let rows that are too short for their labels count with a loss of 0; otherwise they are refused.
    """

    name, kernel, of_rows, says = "ctc", "given_gradient", True, "labels"
    blank: int = 0
    zero_infinity: bool = False

    def __post_init__(self):
        object.__setattr__(self, "blank", positive_int("blank", self.blank, 0))
        object.__setattr__(self, "zero_infinity", flag("zero_infinity", self.zero_infinity))

    def width(self, outputs):
        if self.blank >= outputs:
            raise ValueError(f"blank: expected a class in 0..{outputs - 1}, got {describe(self.blank)}")
        return ()

    def check_kind(self, name, y):
        if y.size and y.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected integer labels, got {describe(y)}")

    def check_values(self, name, y, outputs, counted=None, piece=()):
        wrong = (y < 0) | (y >= outputs) | (y == self.blank)
        wrong = wrong if counted is None else wrong & counted
        refuse(name, y, wrong, f"a label in 0..{outputs - 1} other than the blank {self.blank}", piece)

    def probabilities(self, outputs):
        return CrossEntropy().probabilities(outputs)


@dataclass(frozen=True)
class GivenGradient(Loss):
    """What `Model.backward` makes gradients of: targets are those by the outputs, of somebody else's loss."""

    name, kernel, reads_outputs = "given", "given_gradient", False


by_name = {
    loss.name: loss
    for loss in (
        CrossEntropy(),
        SquaredError(),
        AbsoluteError(),
        Huber(),
        Quantiles(),
        Gaussian(),
        BinaryCrossEntropy(),
        CTC(),
    )
}


def as_loss(given) -> Loss:
    """A loss itself, or the one of a name or of a `config`. Raises ValueError for others, TypeError for parameters
    that it does not have."""
    if isinstance(given, Loss):
        return given
    parameters = dict(given) if isinstance(given, dict) else {"name": given}
    name = parameters.pop("name", None)
    if not isinstance(name, str) or name not in by_name:
        names = ", ".join(map(repr, by_name))
        raise ValueError(f"loss: expected one of {names}, or a Loss, got {describe(given)}")
    known = [field.name for field in fields(by_name[name])]
    unknown = next((parameter for parameter in parameters if parameter not in known), None)
    if unknown is not None:
        raise TypeError(f"loss: expected for {name!r} {', '.join(known) or 'no parameters'}, got {describe(unknown)}")
    return replace(by_name[name], **parameters)
