"""What learns along a stream: a model with its state, the last steps, and a pass back over them now and then."""

from __future__ import annotations

import copy
import inspect
import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from cylstm._core import updates
from cylstm.cell import hidden_sizes
from cylstm.checks import as_generator, describe, positive_int, real_in
from cylstm.online.features import Features, Running, as_given
from cylstm.state import State
from cylstm.training.events import NonFiniteLoss
from cylstm.training.optim import Adam, Optimizer
from cylstm.training.schedule import Constant

__all__ = ["Online"]


@dataclass(slots=True)
class Step:
    """What is kept of one step: what went in (I,), the state before it, what the output was to be, None for nothing,
    and whether that has been learnt from."""

    x: np.ndarray
    state: State
    target: object = None
    learnt: bool = False


class Online:
    """Base of all; `Parameters` of `OnlineRegressor` are those that all have.

    Truncated BPTT with a window, BPTT(h; h') of Williams & Peng 1990: after every h' = `every` steps the errors of
    these are passed back over the last h = `window` steps, from the state that stood before them. Each error counts
    once; states are not computed anew when weights change.
    """

    def __init__(self, hidden_size, num_layers, window, every, optimizer, clip_norm, seed):
        hidden_sizes(hidden_size, num_layers)
        self.hidden_size, self.num_layers = hidden_size, num_layers
        self.window, self.every = positive_int("window", window), positive_int("every", every)
        if self.every > self.window:
            raise ValueError(f"every: expected at most window={self.window} steps, got {self.every}")
        self.optimizer = Adam(lr=1e-2) if optimizer is None else optimizer
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(f"optimizer: expected SGD, Adam or AdamW, got {describe(optimizer)}")
        if type(self.optimizer.lr) is not Constant:
            raise ValueError(f"optimizer: expected a number as its lr, since a stream has no epochs, "
                             f"got {self.optimizer.lr!r}")  # fmt: skip
        self.clip_norm = None if clip_norm is None else real_in("clip_norm", clip_norm, 0, open_low=True)
        as_generator("seed", seed)
        self.seed = seed
        self.features = self.model = self.state = None  # made when the first x tells how many features there are
        self.running = None  # of x
        self.steps = deque(maxlen=self.window)
        self.waiting = 0  # steps since the last pass

    def reset(self) -> None:
        """Begin a new sequence: learn from what has not been learnt from yet, then forget the last steps and start from
        the model's initial state. Weights, means and variances stay."""
        self._learn()
        self.steps.clear()
        self.state = None if self.model is None else self.model.initial_state(1)

    # --- for the classes that make something of it -------------------------------------------------------------------

    def _made(self, I):
        """The model for I features."""
        raise NotImplementedError

    def _targets(self, given) -> np.ndarray:
        """What `loss_and_gradients` takes (T, ...) from T targets, None where there is none."""
        raise NotImplementedError

    def _read(self, x) -> tuple[Features, np.ndarray]:
        """The features, and x as their numbers (I,). Raises TypeError or ValueError. Nothing changes."""
        x = as_given(x)
        features = Features(x) if self.features is None else self.features
        return features, features.row(x)

    def _output(self, x) -> np.ndarray:
        """The model's outputs (O,) at a next step with the numbers x (I,), float64; the state stays as it is."""
        row = self.running.after(x).scaled(x).astype(self.model.dtype)
        return self.expect_finite(self.model.step(row, self.state)[0].astype(np.float64))

    @staticmethod
    def expect_finite(outputs) -> np.ndarray:
        """NonFiniteLoss for those of a model that has learnt itself out of all numbers."""
        if not np.isfinite(outputs).all():
            raise NonFiniteLoss("outputs: expected finite numbers, got others, since learning has diverged")
        return outputs

    def _move(self, features, x) -> np.ndarray:
        """Take a step with the numbers x (I,): its outputs (O,), float64."""
        if self.model is None:
            self.model, self.running = self._made(features.count), Running.nothing(features.count)
            self.features, self.state = features, self.model.initial_state(1)
        self.running = self.running.after(x)
        row = self.running.scaled(x).astype(self.model.dtype)
        self.steps.append(Step(row, self.state))
        outputs, self.state = self.model.step(row, self.state)
        return outputs.astype(np.float64)

    def _settle(self, target) -> None:
        """Say what the last step's output was to be, None for nothing; learn when it is time to."""
        self.steps[-1].target = target
        self.waiting += 1
        if self.waiting == self.every:
            self._learn()

    def _learn(self) -> None:
        """One pass back over the window, and one update. Raises NonFiniteLoss."""
        self.waiting = 0
        counted = np.array([step.target is not None and not step.learnt for step in self.steps], np.float64)
        if not counted.any():
            return
        x = np.stack([step.x for step in self.steps])
        y = self._targets([step.target for step in self.steps])
        missing = {"missing": "skip"} if y.dtype.kind == "f" else {}  # numbers may be NaN, classes never are
        found = self.model.loss_and_gradients(
            x[None], y[None], state=self.steps[0].state, sample_weight=counted[None], **missing)  # fmt: skip
        parameters = self.model.parameters
        norm = math.sqrt(updates.sum_squares(found.gradients.raw()))
        if not (math.isfinite(found.loss) and math.isfinite(norm)):
            raise NonFiniteLoss(f"loss: expected it and its gradients' norm to be finite, got {found.loss:g}, {norm:g}")
        scale = 1.0 if self.clip_norm is None else min(1.0, self.clip_norm / (norm + 1e-6))  # as `fit` has it
        self.optimizer.update(parameters, found.gradients, scale=scale)
        if not math.isfinite(updates.sum_squares(parameters.raw())):
            raise NonFiniteLoss("weights: expected finite numbers, got others")
        for step in self.steps:
            step.learnt = step.learnt or step.target is not None

    # --- copies ------------------------------------------------------------------------------------------------------

    def __getstate__(self):
        """With the optimiser's moments, which it does not copy itself: a copy goes on as the original does."""
        moments = None if self.model is None else self.optimizer.moments(self.model.parameters)
        return {**vars(self), "moments": moments}

    def __setstate__(self, state):
        moments = state.pop("moments")
        vars(self).update(state)
        if moments is not None:
            own = self.optimizer.moments(self.model.parameters)
            own.updates = moments.updates
            for name, buffer in moments.buffers.items():
                own.buffers[name][:] = buffer

    def __copy__(self):
        return copy.deepcopy(self)  # nothing that learns is shared

    def __repr__(self) -> str:
        names = inspect.signature(type(self).__init__).parameters
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in names if n != 'self')})"
