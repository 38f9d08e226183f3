"""What goes on inside a layer, step by step: `LSTM.trace`. The equations are those of oracle.py, and no others."""

from __future__ import annotations

import numpy as np

from cylstm import oracle
from cylstm.checks import check_lengths, check_resets, check_state, plain_array
from cylstm.small_parameters import SmallParameters

__all__ = ["Trace", "trace"]

PARTS = "i", "f", "g", "o", "c", "h"
TOLD = ("coupled", "cell_clip", "activations", "gate_clip", "proj_clip", "reverse", "layer_norm", "merge",
        "residual")  # fmt: skip


class Trace(dict):
    """Arrays by name, as `LSTM.trace` says, and `y` and `state`: what the layer gave."""

    def __init__(self, y, state, arrays):
        super().__init__(arrays)
        self.y, self.state = y, state


def trace(lstm, x, state=None, *, lengths=None, resets=None) -> Trace:
    """`LSTM.trace`."""
    if isinstance(lstm.parameters, SmallParameters) or lstm.rounded:
        raise ValueError(f"trace: expected a layer that multiplies in float32 or float64, got one in {lstm.precision}; "
                         "astype('float32') of it can be traced")  # fmt: skip
    y, final = lstm(x, state, lengths=lengths, resets=resets)  # which says what is wrong with any of them
    x = plain_array("x", x)
    ids = x.dtype.kind in "iu"
    batched = x.ndim == 3 - ids
    x = x if batched else x[None]
    B, T = x.shape[:2]
    parameters = {name: lstm.parameters.raw(name).astype(np.float64) for name in lstm.parameters}
    ends = None if lengths is None else check_lengths(lengths, B, T)
    if ids:  # past a row's end there may be anything
        x, parameters = one_hot(x if ends is None else np.where(np.arange(T) < ends[:, None], x, 0), parameters)
    state = None if state is None else check_state("state", state, lstm.initial_state(B), lstm.dtype)
    resets = None if resets is None else check_resets(resets, B, T, batched)
    old_c, old_h = lstm.zoneout
    with np.errstate(over="ignore", invalid="ignore"):  # nor is it a number in the kernels
        _, _, tape = oracle.forward(
            x, parameters, state, num_layers=lstm.num_layers, bidirectional=lstm.bidirectional, lengths=ends,
            resets=resets, zoneout_masks=(1 - old_c, 1 - old_h),
            **{name: getattr(lstm.cell, name) for name in TOLD})  # fmt: skip
        return Trace(y, final, arrays_of(tape, lstm, batched))


def arrays_of(tape, lstm, batched) -> dict[str, np.ndarray]:
    """By name, of what the oracle kept."""
    arrays, D = {}, lstm.num_directions
    for n, run in enumerate(tape.runs):
        suffix = oracle.suffixes(n // D, D)[n % D]
        clock = slice(None, None, -1 if n % D or tape.reverse else 1)
        for part in PARTS:
            values = getattr(run, part)
            values = values if part in "ifgo" else values[1:]  # slot 0 is what the row began with
            values = np.where(run.alive, values, 0)[clock].swapaxes(0, 1).astype(lstm.dtype)
            arrays[f"{part}_{suffix}"] = values if batched else values[0]
    return arrays


def one_hot(ids, parameters):
    """Ids as rows that choose among those columns of the first layer's weights that any of them stands for."""
    known, places = np.unique(ids, return_inverse=True)
    parameters = {name: values[:, known] if name.startswith("weight_ih_l0") else values
                  for name, values in parameters.items()}  # fmt: skip
    return np.eye(len(known))[places.reshape(ids.shape)], parameters
