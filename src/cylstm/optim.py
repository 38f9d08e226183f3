"""Optimisers and learning rates. An optimiser is one pass over flat buffers (cext/optim_body.h).

An optimiser object holds settings only; what it remembers between updates lives in a `Moments`, which belongs to one
training run and goes into its checkpoints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from cylstm import _ops
from cylstm.checks import describe, positive_int, real_in
from cylstm.params import aligned_empty

__all__ = ["SGD", "Adam", "AdamW", "Constant", "Cosine", "ReduceOnPlateau", "StepDecay"]


# --- learning rates ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant:
    """The same rate throughout."""

    rate: float

    def __post_init__(self):
        self._keep(rate=real_in("rate", self.rate, 0, open_low=True))

    def _keep(self, **numbers):
        """What was checked, as Python's own numbers: files hold them."""
        for name, number in numbers.items():
            object.__setattr__(self, name, number)

    def at(self, progress: float, plateaus: int) -> float:
        """The rate at `progress` epochs (a fraction within one), after `plateaus` plateaus."""
        return self.rate


@dataclass(frozen=True)
class StepDecay(Constant):
    """rate * factor^(epochs // every)."""

    every: int = 1
    factor: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        factor = real_in("factor", self.factor, 0, 1, open_low=True)
        self._keep(every=positive_int("every", self.every), factor=factor)

    def at(self, progress, plateaus):
        return self.rate * self.factor ** (int(progress) // self.every)


@dataclass(frozen=True)
class Cosine(Constant):
    """From rate to minimum along half a cosine over `epochs` (Loshchilov & Hutter 2017), after a linear warm-up.

    epochs, warmup : in epochs, fractions too; `epochs` is what `fit` is given, from then on the rate is the minimum.
    """

    epochs: float
    minimum: float = 0.0
    warmup: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        self._keep(epochs=real_in("epochs", self.epochs, 0, open_low=True))
        self._keep(minimum=real_in("minimum", self.minimum, 0, self.rate))
        self._keep(warmup=real_in("warmup", self.warmup, 0, self.epochs, open_high=True))

    def at(self, progress, plateaus):
        if progress < self.warmup:
            return self.rate * max(progress, 1e-3 * self.warmup) / self.warmup
        share = min(1.0, (progress - self.warmup) / (self.epochs - self.warmup))
        return self.minimum + (self.rate - self.minimum) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class ReduceOnPlateau(Constant):
    """rate * factor^plateaus: a plateau is `patience` epochs in a row without a lower validation loss
    (training loss, where there is no validation)."""

    factor: float = 0.5
    patience: int = 2
    minimum: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        self._keep(factor=real_in("factor", self.factor, 0, 1, open_low=True, open_high=True))
        self._keep(patience=positive_int("patience", self.patience))
        self._keep(minimum=real_in("minimum", self.minimum, 0, self.rate))

    def at(self, progress, plateaus):
        return max(self.minimum, self.rate * self.factor**plateaus)


def as_schedule(lr) -> Constant:
    """A number becomes a constant rate; a schedule stays what it is."""
    return lr if isinstance(lr, Constant) else Constant(real_in("lr", lr, 0, open_low=True))


# --- optimisers -------------------------------------------------------------------------------------------------------


@dataclass
class Moments:
    """What an optimiser remembers: the number of updates, and flat buffers the size of the parameters."""

    updates: int = 0
    buffers: dict[str, np.ndarray] = field(default_factory=dict)


class Optimizer:
    """Base of all: a learning rate (a number or a schedule) and weight decay."""

    buffer_names: tuple[str, ...] = ()

    def __init__(self, lr, weight_decay):
        self.lr = lr
        self.weight_decay = real_in("weight_decay", weight_decay, 0)

    def __setattr__(self, name, value):
        super().__setattr__(name, as_schedule(value) if name == "lr" else value)

    def start(self, flat: np.ndarray) -> Moments:
        """Empty moments for a flat parameter buffer."""
        buffers = {}
        for name in self.buffer_names:
            buffers[name] = aligned_empty(flat.size, flat.dtype)
            buffers[name][:] = 0
        return Moments(0, buffers)

    def update(self, flat, gradient, moments: Moments, lr: float, scale: float = 1.0) -> None:
        """One update of `flat` in place by the gradient scale * gradient. Raises ValueError for unequal sizes."""
        raise NotImplementedError

    def __repr__(self):
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


class SGD(Optimizer):
    """Stochastic gradient descent, torch.optim.SGD's formulas: m = momentum m + g, p -= lr m, or Nesterov's.

    lr : number > 0 or a schedule. momentum : [0, 1). weight_decay >= 0 is added to the gradient.
    """

    def __init__(self, lr=0.1, *, momentum=0.0, nesterov=False, weight_decay=0.0):
        super().__init__(lr, weight_decay)
        self.momentum = real_in("momentum", momentum, 0, 1, open_high=True)
        self.nesterov = bool(nesterov)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: expected a momentum > 0 with it, got 0")
        self.buffer_names = ("m",) if self.momentum else ()

    def update(self, flat, gradient, moments, lr, scale=1.0):
        m = moments.buffers.get("m")
        _ops.sgd(flat, gradient, m, lr, self.momentum, self.nesterov, self.weight_decay, scale)
        moments.updates += 1


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), torch.optim.Adam's formulas, with bias correction.

    lr : number > 0 or a schedule. betas : two numbers in [0, 1). eps > 0. weight_decay >= 0 is added to the gradient.
    """

    buffer_names = ("m", "v")
    decoupled = False

    def __init__(self, lr=1e-3, *, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(lr, weight_decay)
        try:
            beta1, beta2 = betas
        except (TypeError, ValueError):
            raise ValueError(f"betas: expected two numbers, got {describe(betas)}") from None
        self.betas = (
            real_in("betas[0]", beta1, 0, 1, open_high=True),
            real_in("betas[1]", beta2, 0, 1, open_high=True),
        )
        self.eps = real_in("eps", eps, 0, open_low=True)

    def update(self, flat, gradient, moments, lr, scale=1.0):
        m, v, number = moments.buffers.get("m"), moments.buffers.get("v"), moments.updates + 1
        _ops.adam(flat, gradient, m, v, number, lr, *self.betas, self.eps, self.weight_decay, self.decoupled, scale)
        moments.updates = number


class AdamW(Adam):
    """Adam with weight decay apart from the moments (Loshchilov & Hutter 2019), torch.optim.AdamW's formulas."""

    decoupled = True

    def __init__(self, lr=1e-3, *, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(lr, betas=betas, eps=eps, weight_decay=weight_decay)
