"""The LSTM in plain NumPy, written to be read: what every compiled number in this package is checked against.

float64 throughout. The equation stands above each line.

Notation. T steps, B rows, I inputs, H hidden units, L layers, D directions, V classes. Weights as in PyTorch, with one
bias: weight_ih (4H, I) = W, weight_hh (4H, H) = R, bias (4H,) = b; gates in the order i, f, g, o. Public arrays are
batch-first, (B, T, I); one direction of one layer is time-major, and in cell_oracle.py, here is what a stack of them
makes.

Sources: Hochreiter & Schmidhuber 1997; the forget gate: Gers, Schmidhuber & Cummins 2000; backpropagation through time:
Werbos 1990, Graves 2012 chapter 4 (there with peepholes).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cylstm.between_oracle import HIGHWAY, carried, carried_backward, merged, of_directions, stacked
from cylstm.cell_oracle import Variant, run_backward, run_forward, sequence, step
from cylstm.ctc_oracle import ctc_loss
from cylstm.dense_oracle import sigmoid
from cylstm.loss_oracle import (
    binary_cross_entropy,
    gaussian,
    huber,
    mae,
    mse,
    quantiles,
    softmax_cross_entropy,
)
from cylstm.norm_oracle import Norm
from cylstm.optim_oracle import adam, adamw, clip_by_global_norm, sgd

__all__ = [
    "adam", "adamw", "backward", "binary_cross_entropy", "clip_by_global_norm", "ctc_loss", "forward", "gaussian",
    "huber", "mae", "mse", "quantiles", "sequence", "sgd", "sigmoid", "softmax_cross_entropy", "step",
]  # fmt: skip

NORMS = "norm_ih", "norm_hh", "norm_c"  # the parameters of layer norms


class Tape(NamedTuple):
    """What backward needs: a Record per layer and direction, the dropout masks, the weights, the number of directions,
    the cell: the fields of Variant that no parameter has, and which layer norm; whether the caller gave the initial
    state, and whether the only direction is the reverse one; the masks of the inputs and of weight_hh; how directions
    are merged, and whether layers add what goes into them."""

    runs: list
    masks: list | None
    params: dict
    directions: int
    cell: tuple
    given: bool
    reverse: bool
    input_mask: np.ndarray | None = None
    weight_masks: np.ndarray | None = None
    merge: str = "concat"
    residual: bool = False


def suffixes(layer, directions):
    """The endings of the parameter names of one layer: "l0", "l0_reverse"."""
    return [f"l{layer}", f"l{layer}_reverse"][:directions]


def variant_of(params, suffix, cell):
    """The Variant of one layer and direction."""
    *cell, layer_norm = cell
    first = params.get(f"h0_{suffix}", 0.0), params.get(f"c0_{suffix}", 0.0)
    norm = None
    if layer_norm is not None:
        kind, eps = (layer_norm, 1e-5) if isinstance(layer_norm, str) else layer_norm
        norm = Norm(kind == "torchscript", eps, *(params[f"{name}_{suffix}"] for name in NORMS))
    return Variant(params.get(f"peephole_{suffix}"), *cell, first, params.get(f"weight_hr_{suffix}"), norm)


def alive_and_keep(B, T, lengths, resets):
    """lengths (B,), resets (B, T) -> alive (T, B, 1), and keep (T, B, 1) of the forward and the reverse direction."""
    lengths = np.full(B, T) if lengths is None else np.asarray(lengths)
    alive = np.arange(T)[:, None] < lengths
    cut = np.zeros((T, B), bool) if resets is None else np.asarray(resets, bool).T & alive
    # A reset at t stands between t-1 and t: before step t going forward, before step t-1 going back.
    cut_reverse = np.concatenate([cut[1:], np.zeros((1, B), bool)])
    return alive[..., None] * 1.0, 1.0 - cut[..., None], 1.0 - cut_reverse[..., None]


def forward(x, params, state=None, *, num_layers=1, bidirectional=False, lengths=None, resets=None, dropout_masks=None,
            coupled=False, cell_clip=None, activations=None, gate_clip=None, proj_clip=None, reverse=False,
            input_mask=None, recurrent_masks=None, weight_masks=None, layer_norm=None, zoneout_masks=(1.0, 1.0),
            merge="concat", residual=False, update_masks=None):  # fmt: skip
    """x (B, T, I), state a pair of (L*D, B, H) or None for the first state -> y (B, T, D*H), (hn, cn), tape.

    lengths (B,): y is 0 past a row's end; its final state is the one at its own end, where the reverse one begins.
    resets (B, T): where true, nothing flows between steps t-1 and t, in either direction; at step 0 the forward
    direction's initial state is discarded, past a row's end it means nothing.
    dropout_masks: L-1 arrays (B, T, D*H), which multiply the outputs of all layers but the last; or (B, 1, D*H), the
    same at all steps. input_mask (B, I) multiplies x, recurrent_masks (L*D, B, H), or for each gate (L*D, 4, B, H),
    what R is multiplied by, update_masks (L*D, B, H) g where c gets it, and weight_masks (L*D, 4H, H) weight_hh, which
    is not written to. zoneout_masks: the shares of what is new in c and in h after each step, of L*D layers and
    directions, (L*D, B, T, H) each; or a number, the same everywhere.
    coupled, cell_clip, activations, gate_clip, proj_clip: see Variant; peepholes where params has "peephole_l0". The
    first state is zeros or, where params has them, "h0_l0", "c0_l0" and so on. reverse: the only direction is the
    reverse one. A projection where params has "weight_hr_l0" (P, H): h, y, their masks and what stands between layers
    have P in the place of H then. layer_norm: "ba" or "torchscript", or a pair of it and eps; with NORMS in params.
    merge: what "concat" makes (B, T, D*H), "sum", "mean" or "product" make (B, T, H) of both directions. residual:
    layers, but the first, add the undropped outputs of the layer below to their own. Where params has
    "highway_weight_l1" and so on, a layer's outputs are mixed with what goes into it. Layers may have different H:
    states are as wide as the widest then, and 0 where others end.
    """
    x = np.asarray(x, np.float64)
    B, T, _ = x.shape
    D = 1 + bidirectional
    alive, keep, keep_reverse = alive_and_keep(B, T, lengths, resets)
    # where, not a product: what stands past a row's end is ignored, whatever it is, NaN included
    cell = coupled, cell_clip, activations, gate_clip, proj_clip, layer_norm
    below = None  # y of the layer below, before its dropout
    runs, layer_input = [], np.where(alive, x.swapaxes(0, 1), 0) * (1.0 if input_mask is None else input_mask)
    for layer in range(num_layers):
        outputs = []
        for direction, suffix in enumerate(suffixes(layer, D)):
            n = layer * D + direction
            W, R = params[f"weight_ih_{suffix}"], params[f"weight_hh_{suffix}"]
            if weight_masks is not None:
                # M R in the place of R, by elements (Wan et al. 2013; Merity, Keskar & Socher 2018)
                R = weight_masks[n] * R
            b = params.get(f"bias_{suffix}", 0.0)
            variant = variant_of(params, suffix, cell)
            h0, c0 = variant.first if state is None else (state[0][n][:, : R.shape[1]], state[1][n][:, : len(R) // 4])
            mask, kept = (1.0 if masks is None else masks[n] for masks in (recurrent_masks, update_masks))
            # the reverse direction is the forward one on a reversed clock
            clock = slice(None, None, -1 if direction or reverse else 1)
            reached = keep_reverse if direction or reverse else keep
            zone = [m if np.isscalar(m) else m[n].swapaxes(0, 1)[clock] * 1.0 for m in zoneout_masks]
            run = run_forward(layer_input[clock], h0, c0, W, R, b, alive[clock], reached[clock], variant, mask, zone,
                              kept)  # fmt: skip
            runs.append(run)
            h = (run.alive * run.h[1:])[clock]
            if f"highway_weight_{suffix}" in params:
                h = carried(h, layer_input, direction, *(params[f"highway_{part}_{suffix}"] for part in HIGHWAY))
            outputs.append(h)
        y = merged(outputs, merge)
        if residual and layer > 0:
            # y_l = LSTM_l(M y_{l-1}) + y_{l-1} (Wu et al. 2016)
            y = y + below
        layer_input = below = y
        if dropout_masks is not None and layer < num_layers - 1:
            layer_input = layer_input * dropout_masks[layer].swapaxes(0, 1)
    final = stacked([run.h[-1] for run in runs]), stacked([run.c[-1] for run in runs])
    tape = Tape(runs, dropout_masks, params, D, cell, state is not None, reverse, input_mask, weight_masks,
                merge, residual)  # fmt: skip
    return layer_input.swapaxes(0, 1), final, tape


def backward(tape, dy, dstate=None):
    """dy (B, T, D*H), dstate a pair of (L*D, B, H) or None -> dx (B, T, I), (dh0, dc0), gradients by parameter name."""
    runs, masks, params, D, cell, given, reverse, input_mask, weight_masks, merge, residual = tape
    dh0, dc0, dparams = [None] * len(runs), [None] * len(runs), {}
    dhn, dcn = ([0 * getattr(run, part)[0] for run in runs] for part in "hc") if dstate is None else dstate
    dlayer = np.asarray(dy, np.float64).swapaxes(0, 1)
    for layer in reversed(range(len(runs) // D)):
        dinput, outputs = 0.0, []
        for direction, run in enumerate(runs[layer * D : (layer + 1) * D]):
            outputs.append((run.alive * run.h[1:])[:: -1 if direction or reverse else 1])
        dparts = of_directions(dlayer, outputs, merge)
        for direction, suffix in enumerate(suffixes(layer, D)):
            n = layer * D + direction
            clock = slice(None, None, -1 if direction or reverse else 1)
            # as in forward, what stands past a row's end is ignored
            dy_run, dcarried = np.where(runs[n].alive, dparts[direction][clock], 0), 0.0
            if f"highway_weight_{suffix}" in params:
                weights = [params[f"highway_{part}_{suffix}"] for part in HIGHWAY]
                dy_run, dcarried, *dweights = carried_backward(
                    dy_run[clock], outputs[direction], runs[n].x[clock], direction, *weights
                )
                dy_run = dy_run[clock]
                dparams.update({f"highway_{part}_{suffix}": d for part, d in zip(HIGHWAY, dweights, strict=True)})
            W, R = params[f"weight_ih_{suffix}"], params[f"weight_hh_{suffix}"]
            R = R if weight_masks is None else weight_masks[n] * R
            variant = variant_of(params, suffix, cell)
            dstate_n = dhn[n][:, : R.shape[1]], dcn[n][:, : len(R) // 4]
            slopes = run_backward(runs[n], dy_run, *dstate_n, W, R, variant)
            dx, dh0[n], dc0[n], dW, dR, db, dP, dR_p, dfirst, dnorm = slopes
            # R = M weight_hh
            dR = dR if weight_masks is None else weight_masks[n] * dR
            dparams[f"weight_ih_{suffix}"], dparams[f"weight_hh_{suffix}"] = dW, dR
            if f"bias_{suffix}" in params:
                dparams[f"bias_{suffix}"] = db
            if variant.P is not None:
                dparams[f"peephole_{suffix}"] = dP
            if variant.R_p is not None:
                dparams[f"weight_hr_{suffix}"] = dR_p
            if variant.norm is not None:
                dparams.update({f"{name}_{suffix}": d for name, d in zip(NORMS, dnorm, strict=True)})
            if f"h0_{suffix}" in params:
                # rows begin with it as well, each of them, unless the caller gave them another state
                for name, first, begun in (("h0", dfirst[0], dh0[n]), ("c0", dfirst[1], dc0[n])):
                    dparams[f"{name}_{suffix}"] = first + (0 if given else begun.sum(axis=0))
            dinput = dinput + dx[clock] + dcarried
        dabove, dlayer = dlayer, dinput
        if masks is not None and layer > 0:
            dlayer = dlayer * masks[layer - 1].swapaxes(0, 1)
        if residual and layer > 0:
            # y_l = LSTM_l(M y_{l-1}) + y_{l-1}
            dlayer = dlayer + dabove
    dlayer = dlayer if input_mask is None else dlayer * input_mask
    return dlayer.swapaxes(0, 1), (stacked(dh0), stacked(dc0)), {name: dparams[name] for name in params}
