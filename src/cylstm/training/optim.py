"""Optimisers. Each is one pass over flat buffers (cext/optim.h).

An optimiser object holds settings only; what it remembers between updates lives in a `Moments`, which belongs to one
training run and goes into its checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cylstm._core import updates
from cylstm.checks import describe, real_in
from cylstm.parameters import aligned_empty
from cylstm.training.schedule import as_schedule

__all__ = ["SGD", "Adam", "AdamW"]


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

    def start(self, values: np.ndarray) -> Moments:
        """Empty moments for a flat parameter buffer."""
        buffers = {}
        for name in self.buffer_names:
            buffers[name] = aligned_empty(values.size, values.dtype)
            buffers[name][:] = 0
        return Moments(0, buffers)

    def update(self, values, gradient, moments: Moments, lr: float, scale: float = 1.0) -> None:
        """One update of `values` in place by the gradient scale * gradient. Raises ValueError for unequal sizes."""
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

    def update(self, values, gradient, moments, lr, scale=1.0):
        m = moments.buffers.get("m")
        updates.sgd(values, gradient, m, lr, self.momentum, self.nesterov, self.weight_decay, scale)
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

    def update(self, values, gradient, moments, lr, scale=1.0):
        m, v, number = moments.buffers.get("m"), moments.buffers.get("v"), moments.updates + 1
        updates.adam(
            values, gradient, m, v, number, lr, *self.betas, self.eps, self.weight_decay, self.decoupled, scale
        )
        moments.updates = number


class AdamW(Adam):
    """Adam with weight decay apart from the moments (Loshchilov & Hutter 2019), torch.optim.AdamW's formulas."""

    decoupled = True

    def __init__(self, lr=1e-3, *, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(lr, betas=betas, eps=eps, weight_decay=weight_decay)
