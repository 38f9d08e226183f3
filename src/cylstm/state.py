"""What goes in and out of the layer: its state and its gradients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cylstm.parameters import Parameters

__all__ = ["Gradients", "LearntState", "State"]


class State(NamedTuple):
    """What an LSTM carries from one step to the next; h and c travel together so that they cannot be swapped.

    h, c: arrays (L*D, B, H), with a projection h (L*D, B, P): layer by layer and, within a layer, forward then reverse
    (PyTorch's order). Of layers of different widths, as wide as the widest: 0 beyond the others' numbers.
    """

    h: np.ndarray
    c: np.ndarray

    def copy(self) -> State:
        """A state with arrays of its own."""
        return type(self)(self.h.copy(), self.c.copy())

    def reset(self, rows=slice(None), to=None) -> State:
        """Let some rows of the batch (all by default) begin anew, in place: an index, a slice, a mask or a list.

        to : the State to begin with, of one row for all or of as many rows: `lstm.initial_state()`. None for zeros; of
            a layer with `first_state`, whose rows begin otherwise, ValueError then, as for other shapes.
        """
        if to is None:
            self.h[:, rows] = 0
            self.c[:, rows] = 0
            return self
        places = np.atleast_1d(np.arange(self.h.shape[1])[rows])
        for name, own, first in (("h", self.h, to.h), ("c", self.c, to.c)):
            layers, _, H = own.shape
            if first.shape not in ((layers, 1, H), (layers, len(places), H)):
                raise ValueError(f"to.{name}: expected ({layers}, {len(places)}, {H}) or one row, got {first.shape}")
        for own, first in ((self.h, to.h), (self.c, to.c)):
            own[:, places] = first
        return self


class LearntState(State):
    """A State of a layer whose first state is learnt: a plain one but for `reset`, which has to be told of it."""

    __slots__ = ()

    def reset(self, rows=slice(None), to=None) -> State:
        """As State.reset; ValueError without `to`."""
        if to is None:
            raise ValueError("to: expected what rows of this layer begin with, its initial_state(), got None")
        return super().reset(rows, to)


class Gradients(NamedTuple):
    """d loss / d each of: x (the input's shape, None where ids went in), the initial state, the parameters by name."""

    x: np.ndarray | None
    state: State
    parameters: Parameters
