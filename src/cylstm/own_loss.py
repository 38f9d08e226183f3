"""`Model.forward` and `Model.backward`: outputs with a tape, and gradients of a loss that the package does not know."""

from __future__ import annotations

import numpy as np

from cylstm._core.ragged import planned
from cylstm.batches import input_sizes, of_tokens, to_steps
from cylstm.checks import as_float_array, check_state, describe, plain_array
from cylstm.loss_and_gradients import features_of, head_loss, layer_gradients
from cylstm.losses import GivenGradient
from cylstm.parameters import Parameters, check_gradients
from cylstm.state import Gradients, State

__all__ = ["ModelTape", "backward", "forward"]


class ModelTape:
    """What `Model.forward` keeps for `Model.backward`, which may use it once."""

    __slots__ = ("batched", "h", "ids", "layer", "model", "outputs", "real", "sizes", "version")

    def __init__(self, model, layer, batched, sizes, outputs, ids, h, real):
        self.model, self.layer, self.version = model, layer, model.parameters.version()
        self.batched, self.sizes, self.outputs = batched, sizes, outputs  # (B, T), and the shape of the outputs
        self.ids, self.h, self.real = ids, h, real  # h (N, D*H) of the tokens; where they are, None for everywhere


def forward(model, x, state, lengths, resets) -> tuple[np.ndarray, State, ModelTape]:
    """`Model.forward`."""
    x = plain_array("x", x)
    batched, B, T = input_sizes(model, x)
    plan = planned(B, T, lengths, resets, batched)
    features, ids = features_of(model, x, plan)
    y, final, tape = model.lstm.forward(features, state, lengths=plan)
    last, shape = model.output == "last", (*y.shape[:-1], model.output_size)
    real = None if last or plan is None or plan.lengths is None else ~plan.past_ends()
    h = of_tokens(model, y.reshape(B, T, y.shape[-1]), final, real)
    outputs = found = model.head(h)
    if last:
        shape = (B, model.output_size) if batched else (model.output_size,)
    elif real is not None:
        outputs = np.zeros((B, T, model.output_size), model.dtype)
        outputs[real] = found
    return outputs.reshape(shape), final, ModelTape(model, tape, batched, (B, T), shape, ids, h, real)


def backward(model, tape, d_outputs, d_state, out, input_gradient) -> Gradients:
    """`Model.backward`."""
    if not isinstance(tape, ModelTape) or tape.model is not model:
        raise TypeError(f"tape: expected a tape of this model's forward, got {describe(tape)}")
    d_outputs, (B, T) = as_float_array("d_outputs", d_outputs, model.dtype), tape.sizes
    if d_outputs.shape != tape.outputs:
        raise ValueError(f"d_outputs: expected {tape.outputs}, got {d_outputs.shape}")
    if out is not None:
        check_gradients(out, model.parameters)
    if d_state is not None:
        d_state = State(*check_state("d_state", d_state, model.initial_state(B).h.shape, model.dtype))
    if tape.version != model.parameters.version():
        raise ValueError("tape: expected the weights that forward saw, but they have changed since")
    h, tape.h = tape.h, None
    if h is None:
        raise ValueError("tape: expected a tape that no backward call has used, got one that was")
    gradients = Parameters(model.parameters.layout, model.dtype) if out is None else out
    d_outputs = d_outputs.reshape(*((B,) if model.output == "last" else (B, T)), model.output_size)
    targets = d_outputs.reshape(-1, model.output_size) if tape.real is None else d_outputs[tape.real]
    dh = np.empty_like(h)
    head_loss(model, GivenGradient(), h, np.ascontiguousarray(targets), None, 1.0, dh, gradients)
    dy, d_last = to_steps(model, dh, (B, T, h.shape[1]), tape.real)
    if d_last is not None and d_state is not None:
        d_state = State(d_last.h + d_state.h, d_state.c)
    dy = dy if tape.batched else dy[0]
    dx, dstate = layer_gradients(model, tape.layer, dy, d_state or d_last, tape.ids, gradients, input_gradient)
    return Gradients(dx, dstate, gradients)
