"""How the two directions of a layer give its outputs, in plain NumPy; see oracle.py."""

from __future__ import annotations

import numpy as np

__all__ = ["merged", "of_directions", "stacked"]


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
