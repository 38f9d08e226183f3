"""What goes in and out of the layer: its state and its gradients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cylstm.parameters import Parameters

__all__ = ["Gradients", "State"]


class State(NamedTuple):
    """What an LSTM carries from one step to the next; h and c travel together so that they cannot be swapped.

    h, c: arrays (L*D, B, H): layer by layer and, within a layer, forward then reverse (PyTorch's order).
    """

    h: np.ndarray
    c: np.ndarray

    def copy(self) -> State:
        """A state with arrays of its own."""
        return State(self.h.copy(), self.c.copy())

    def reset(self, rows=slice(None)) -> State:
        """Zero the state of some rows of the batch in place (all by default): an index, a slice, a mask or a list."""
        self.h[:, rows] = 0
        self.c[:, rows] = 0
        return self


class Gradients(NamedTuple):
    """d loss / d each of: x (the input's shape, None where ids went in), the initial state, the parameters by name."""

    x: np.ndarray | None
    state: State
    parameters: Parameters
