"""How the two directions of a layer give its outputs, and what these are mixed with, in plain NumPy; see oracle.py."""

from __future__ import annotations

import numpy as np

from cylstm.dense_oracle import sigmoid

__all__ = ["HIGHWAY", "carried", "carried_backward", "merged", "of_directions", "stacked"]

HIGHWAY = "weight", "bias"


def stacked(states):
    """States (B, H) of all layers and directions, H different or not, as one array: 0 beyond the narrower ones."""
    widest = max(state.shape[1] for state in states)
    return np.stack([np.pad(state, ((0, 0), (0, widest - state.shape[1]))) for state in states])


def merged(outputs, merge):
    """Those of each direction, (T, B, Y) in the order of time -> the layer's, (T, B, D*Y) or, merged, (T, B, Y)."""
    if merge == "concat":
        # y = (y_f, y_r)
        return np.concatenate(outputs, axis=2)
    y_f, y_r = outputs
    if merge == "product":
        # y = y_f y_r
        return y_f * y_r
    # y = y_f + y_r, or half of it
    return (y_f + y_r) / (2 if merge == "mean" else 1)


def of_directions(dy, outputs, merge):
    """dy, d loss / d the layer's outputs -> that by the outputs of each direction."""
    if merge == "concat":
        return np.split(dy, len(outputs), axis=2)
    y_f, y_r = outputs
    if merge == "product":
        # dy_f = dy y_r, dy_r = dy y_f
        return dy * y_r, dy * y_f
    # dy_f = dy_r = dy, or half of it
    half = dy / (2 if merge == "mean" else 1)
    return half, half


def carried(h, x, d, W, b):
    """Outputs (T, B, Y) of direction d, from its h and what goes into the layer, x (T, B, I), I being Y or 2 Y: its own
    share x_d (Srivastava, Greff & Schmidhuber 2015)."""
    # t = sigmoid(W x + b), y = t h + (1 - t) x_d
    t = sigmoid(x @ W.T + b)
    return t * h + (1 - t) * share(x, d, h)


def carried_backward(dy, h, x, d, W, b):
    """d loss / d h, / d x, / d W, / d b of carried()."""
    t = sigmoid(x @ W.T + b)
    # y = t h + (1 - t) x_d
    dz = dy * (h - share(x, d, h)) * t * (1 - t)
    dx = dz @ W
    share(dx, d, h)[...] += (1 - t) * dy
    return t * dy, dx, np.einsum("tbo,tbi->oi", dz, x), dz.sum(axis=(0, 1))


def share(x, d, h):
    """The columns of x, a view, that stand beside direction d's h."""
    return x[..., d * h.shape[2] : (d + 1) * h.shape[2]]
