"""The outputs of the last steps, from the final state: of both directions, merged, with what the layers below add."""

from __future__ import annotations

import numpy as np

from cylstm.state import State

__all__ = ["last_gradients", "last_outputs", "looks_back"]


def last_outputs(lstm, state):
    """(B, O): what the last layer gives at each row's last step or, of a reverse direction, at its first one. A row of
    no steps gives what its initial state stands for."""
    layers = state.h.reshape(lstm.num_layers, lstm.num_directions, -1, lstm.h_size)[..., : width_of(lstm)]
    if not lstm.cell.residual:
        return merged(lstm, layers[-1])
    # y_1 = h_1, y_l = h_l + y_{l-1}, as the core adds them
    y = merged(lstm, layers[0])
    for h in layers[1:]:
        y = merged(lstm, h) + y
    return y


def width_of(lstm) -> int:
    """How many numbers of the state's h belong to the last layer. With residuals all layers have as many."""
    return lstm.cell.width(lstm.hidden_sizes[-1])


def merged(lstm, h):
    """h (D, B, Y) of a layer's directions -> (B, O)."""
    how = lstm.cell.merge
    if how == "concat":
        return np.concatenate(list(h), axis=1)
    if how == "product":
        return h[0] * h[1]
    return h[0] + h[1] if how == "sum" else (h[0] + h[1]) / 2


def looks_back(lstm) -> bool:
    """Whether `last_gradients` needs the final state itself."""
    return lstm.cell.merge == "product"


def last_gradients(lstm, state, dy):
    """d loss / d `last_outputs`, (B, O) -> the State of gradients by the final state, which is `state`."""
    L, D, Y, (B, _), how = lstm.num_layers, lstm.num_directions, width_of(lstm), dy.shape, lstm.cell.merge
    dstate = State(*(np.zeros((L * D, B, width), lstm.dtype) for width in (lstm.h_size, lstm.hidden_size)))
    for n in range(0 if lstm.cell.residual else (L - 1) * D, L * D):
        d = n % D
        if how == "concat":
            dstate.h[n, :, :Y] = dy[:, d * Y : (d + 1) * Y]
        elif how == "product":
            dstate.h[n, :, :Y] = dy * state.h[n + 1 - 2 * d, :, :Y]
        else:
            dstate.h[n, :, :Y] = dy if how == "sum" else dy / 2
    return dstate
