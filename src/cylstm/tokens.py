"""Tokens: what a loss is averaged over. The real steps of all rows or, for output="last", the rows."""

from __future__ import annotations

import numpy as np

from cylstm.batches import one_row_each
from cylstm.checks import check_finite, check_lengths, plain_array

__all__ = ["last_of", "of_tokens", "targets_of", "to_steps"]


def targets_of(model, x, y, lengths):
    """Targets (N,) or (N, O) of the N tokens, and where these are: a mask (B, T), or None for everywhere.

    x : an array, ids (B, T) or features (B, T, I); y, lengths as for `Model.loss_and_gradients`. Raises TypeError or
    ValueError, naming the argument.
    """
    shape, dtype = x.shape, x.dtype
    if dtype.kind not in "iuf":
        raise TypeError(f"x: expected floating-point numbers or integer ids, got {dtype} {shape}")
    if len(shape) != (2 if dtype.kind in "iu" else 3):
        raise ValueError(f"x: expected a batch, ids (B, T) or features (B, T, {model.input_size}), got {shape}")
    real = None
    rows = shape[:1] if model.output == "last" else shape[:2]
    y, width = plain_array("y", y), model.loss.width(model.output_size)
    model.loss.check_kind("y", y)
    if model.output == "last":
        y = one_row_each(y, width)
    if y.shape != (*rows, *width):
        raise ValueError(f"y: expected {(*rows, *width)}, got {y.shape}")
    ends = None
    if lengths is not None and model.output == "sequence":
        ends = check_lengths(lengths, *shape[:2])
        real = np.arange(shape[1]) < ends[:, None]
    check_finite("y", y, model.dtype, ends)
    y = y.reshape(-1, *width) if real is None else y[real]
    return model.loss.converted("y", y, model.output_size, model.dtype), real


def last_of(model, state):
    """The last layer's final h, both directions side by side: (B, D*H)."""
    return np.concatenate(list(state.h[-model.lstm.num_directions :]), axis=1)


def of_tokens(model, outputs, final, real):
    """h (N, D*H) of the N tokens, from outputs (B, T, D*H) or, for output="last", from the final state."""
    if model.output == "last":
        return last_of(model, final)
    return outputs.reshape(-1, outputs.shape[-1]) if real is None else outputs[real]


def to_steps(model, dh, shape, real):
    """The way back: dh (N, D*H) of the tokens -> dy (B, T, D*H) = shape, and dstate."""
    if model.output == "last":
        state = model.initial_state(shape[0])
        D, H = model.lstm.num_directions, model.hidden_size
        for d in range(D):
            state.h[len(state.h) - D + d] = dh[:, d * H : (d + 1) * H]
        return np.zeros(shape, model.dtype), state
    if real is None:
        return dh.reshape(shape), None
    dy = np.zeros(shape, model.dtype)
    dy[real] = dh
    return dy, None
