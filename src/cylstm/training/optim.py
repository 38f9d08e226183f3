"""Optimisers. Each is one pass over flat buffers (cext/optim.h).

An optimiser object has settings, and remembers for each set of parameters that it has updated how far it is with them:
a `Moments`, which goes into the checkpoints of a training run. So a second `fit` with the same object goes on.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from cylstm._core import updates
from cylstm._core.memory import aligned_empty
from cylstm.checks import describe, flag, real_in
from cylstm.parameters import Parameters, check_gradients
from cylstm.training.schedule import Constant, as_schedule

__all__ = ["SGD", "Adam", "AdamW"]


@dataclass
class Moments:
    """What an optimiser remembers of one set of parameters: the number of updates, flat buffers of their size, and, of
    training runs, epochs that are over and what a schedule that waits for plateaus has seen."""

    updates: int = 0
    buffers: dict[str, np.ndarray] = field(default_factory=dict)
    epochs: int = 0
    measure: str | None = None  # what is watched, of training or of validation
    lowest: float = math.inf
    since_plateau: int = 0
    plateaus: int = 0


class Optimizer:
    """Base of all: a learning rate (a number or a schedule) and weight decay: a number >= 0, or a dict from patterns of
    parameters' names to numbers, of which the first that fits counts, and 0 where none does."""

    buffer_names: tuple[str, ...] = ()

    def __init__(self, lr, weight_decay):
        self.lr = lr
        self.weight_decay = as_decay(weight_decay)
        self._moments = weakref.WeakKeyDictionary()  # of Parameters

    def __setattr__(self, name, value):
        super().__setattr__(name, as_schedule(value) if name == "lr" else value)

    def __getstate__(self):
        """A copy begins anew: what it would remember is of parameters that are not copied with it."""
        return {**vars(self), "_moments": None}

    def __setstate__(self, settings):
        vars(self).update(settings, _moments=weakref.WeakKeyDictionary())

    def moments(self, parameters: Parameters) -> Moments:
        """How far it is with these parameters: 0 updates, and buffers of zeros, the first time."""
        if parameters not in self._moments:
            values, buffers = parameters.raw(), {}
            for name in self.buffer_names:
                buffers[name] = aligned_empty(values.size, values.dtype)
                buffers[name][:] = 0
            self._moments[parameters] = Moments(0, buffers)
        return self._moments[parameters]

    def update(self, parameters: Parameters, gradients: Parameters, *, lr=None, scale=1.0, trainable=None) -> None:
        """One update of a layer's or a model's `parameters` in place, by the gradient scale * gradients.

        lr : number >= 0; None takes the optimiser's own, which must be one number then: schedules count epochs.
        trainable : a name or a pattern ("lstm.*"), or several; others stay as they are. None for all.
        Raises TypeError or ValueError, naming the argument, before anything is changed.
        """
        if not isinstance(parameters, Parameters):
            raise TypeError(f"parameters: expected Parameters, got {describe(parameters)}")
        check_gradients(gradients, parameters, "gradients")
        if lr is None:
            if type(self.lr) is not Constant:
                raise TypeError(f"lr: expected a number, of the optimiser's {self.lr!r}, got None")
            lr = self.lr.rate
        lr, scale = real_in("lr", lr, 0), real_in("scale", scale, -math.inf)
        moments, values, gradient = self.moments(parameters), parameters.raw(), gradients.raw()
        number = moments.updates + 1
        for name in self.buffer_names:
            buffer = moments.buffers.get(name)
            if buffer is None or buffer.size != values.size:
                raise ValueError(f"gradient, moments: expected {values.size} numbers each, for this optimizer")
        for (start, stop), decay in self._pieces(parameters, trainable):
            buffers = {name: moments.buffers[name][start:stop] for name in self.buffer_names}
            self._apply(values[start:stop], gradient[start:stop], buffers, number, lr, scale, decay)
        moments.updates = number
        parameters.touch()

    def _pieces(self, parameters, trainable):
        """Neighbours of the same weight decay, as (start, stop) of the flat buffer, and their decay."""
        if trainable is None and not isinstance(self.weight_decay, dict):
            return [((0, parameters.size), self.weight_decay)]
        chosen = set(parameters if trainable is None else parameters.matching("trainable", trainable))
        pieces, at = [], 0
        for name, shape in parameters.layout.items():
            start, at = at, at + math.prod(shape)
            if name not in chosen:
                continue
            decay = self.decay_of(name)
            if pieces and pieces[-1][0][1] == start and pieces[-1][1] == decay:
                start = pieces.pop()[0][0]
            pieces.append(((start, at), decay))
        return pieces

    def decay_of(self, name: str) -> float:
        """The weight decay of one parameter."""
        if not isinstance(self.weight_decay, dict):
            return self.weight_decay
        return next((decay for pattern, decay in self.weight_decay.items() if fnmatchcase(name, pattern)), 0.0)

    def _apply(self, values, gradient, buffers, number: int, lr: float, scale: float, decay: float) -> None:
        """Update number `number`, from 1, of flat arrays."""
        raise NotImplementedError

    def __repr__(self):
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if name[0] != "_")
        return f"{type(self).__name__}({settings})"


def as_decay(given) -> float | dict[str, float]:
    """A number >= 0, or a dict from patterns to such. Raises TypeError or ValueError."""
    if not isinstance(given, Mapping):
        return real_in("weight_decay", given, 0)
    for pattern in given:
        if not isinstance(pattern, str):
            raise TypeError(f"weight_decay: expected patterns of parameters' names, got {describe(pattern)}")
    return {pattern: real_in(f"weight_decay[{pattern!r}]", decay, 0) for pattern, decay in given.items()}


class SGD(Optimizer):
    """Stochastic gradient descent, torch.optim.SGD's formulas: m = momentum m + g, p -= lr m, or Nesterov's.

    lr : number > 0 or a schedule. momentum : [0, 1). weight_decay >= 0 is added to the gradient.
    """

    def __init__(self, lr=0.1, *, momentum=0.0, nesterov=False, weight_decay=0.0):
        super().__init__(lr, weight_decay)
        self.momentum = real_in("momentum", momentum, 0, 1, open_high=True)
        self.nesterov = flag("nesterov", nesterov)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: expected a momentum > 0 with it, got 0")
        self.buffer_names = ("m",) if self.momentum else ()

    def _apply(self, values, gradient, buffers, number, lr, scale, decay):
        updates.sgd(values, gradient, buffers.get("m"), lr, self.momentum, self.nesterov, decay, scale)


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

    def _apply(self, values, gradient, buffers, number, lr, scale, decay):
        m, v = buffers.get("m"), buffers.get("v")
        updates.adam(values, gradient, m, v, number, lr, *self.betas, self.eps, decay, self.decoupled, scale)


class AdamW(Adam):
    """Adam with weight decay apart from the moments (Loshchilov & Hutter 2019), torch.optim.AdamW's formulas."""

    decoupled = True

    def __init__(self, lr=1e-3, *, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(lr, betas=betas, eps=eps, weight_decay=weight_decay)
