"""`Model.forward` and `Model.backward`: outputs with a tape, and gradients of a loss that the package does not know."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cylstm._core.ragged import planned
from cylstm.batches import input_sizes, of_kind, to_steps
from cylstm.between import looks_back
from cylstm.checks import as_float_array, check_lengths, check_mask, check_resets, check_state, describe, plain_array
from cylstm.heads import head_outputs
from cylstm.loss_and_gradients import counted_of, features_of, from_behind, given_loss, layer_gradients
from cylstm.parameters import Parameters, check_gradients
from cylstm.sequences import kept_resets, padded
from cylstm.state import Gradients, State

__all__ = ["ModelTape", "backward", "forward"]


class ModelTape:
    """What `Model.forward` keeps for `Model.backward`, which may use it once."""

    __slots__ = ("batched", "final", "h", "layer", "model", "packed", "passed", "places", "precision", "real", "sizes",
                 "taken", "version")  # fmt: skip

    def __init__(self, model, layer, batched, sizes, places, packed, real, taken, h, passed, final):
        self.model, self.layer, self.version = model, layer, model.parameters.version()
        self.precision = model.precision
        self.batched, self.sizes, self.places = batched, sizes, places  # (B, T) of x, and which of them are steps
        # What the layer got: (B, T', O) of its outputs, and which of B, T' are steps. None for all.
        self.packed, self.real = packed, real
        self.taken, self.passed = taken, passed  # of what stands before the layer, and behind it by kind of head
        self.h = h  # (N, F) by kind of head, as the heads see it
        self.final = final  # the layer's final state, or None where nothing asks for it

    def shape(self, head) -> tuple[int, ...]:
        """Of a head's outputs."""
        B, T = self.sizes
        return (B,) * self.batched + (T,) * (head.output == "sequence") + head.tail


def forward(model, x, state, lengths, mask, resets) -> tuple[dict, State, ModelTape]:
    """`Model.forward`, with outputs by head."""
    x = plain_array("x", x)
    batched, B, T = input_sizes(model, x)
    places = None
    if mask is not None:
        places, x, lengths, resets = without_masked(model, x, lengths, mask, resets)
    in_rows = batched or mask is not None
    plan = planned(B, x.shape[1] if in_rows else T, lengths, resets, in_rows)
    features, taken = features_of(model, x, plan)
    y, final, tape = model.lstm.forward(features, state, lengths=plan)
    real = None if plan is None or plan.lengths is None else ~plan.past_ends()
    y = y.reshape(B, -1, y.shape[-1])
    h, passed = {}, {}
    for kind in model.kinds:
        h[kind] = of_kind(model, kind, y, final, real)
        if model.behind is not None:
            h[kind], passed[kind] = model.behind.forward(h[kind], model.rng, counted_of(kind, plan))
    places = real if mask is None else places
    tape = ModelTape(model, tape, batched, (B, T), places, y.shape, real, taken, h, passed,
                    final.copy() if looks_back(model.lstm) else None)  # fmt: skip
    outputs = {}
    for name, head in model.heads.items():
        found = head_outputs(model, name, h[head.kind])
        if places is not None and head.output == "sequence":
            if head.kind == "steps" and real is not None:
                found = found.reshape(*y.shape[:2], -1)[real]
            whole = np.zeros((B, T, found.shape[1]), model.dtype)
            whole[places] = found
            found = whole
        outputs[name] = found.reshape(tape.shape(head))
    return outputs, final, tape


def without_masked(model, x, lengths, mask, resets):
    """Which steps (B, T) of x a mask leaves, those behind each other (B, T', ...), their lengths and resets."""
    batched, B, T = input_sizes(model, x)
    places = check_mask("mask", mask, (B, T) if batched else (T,)).reshape(B, T)
    if lengths is not None:
        places = places & (np.arange(T) < check_lengths(lengths, B, T)[:, None])
    x = x.reshape(B, T, *x.shape[1 + batched :])
    if model.inputs is not None:
        model.inputs.check_all(x, places, batched)
    kept = [np.flatnonzero(row) for row in places]
    x, lengths = padded([row[steps] for row, steps in zip(x, kept, strict=True)])
    if resets is not None:
        cuts = zip(check_resets(resets, B, T, batched), kept, strict=True)
        resets, _ = padded([kept_resets(row, steps) for row, steps in cuts])
    return places, x, lengths, resets


def backward(model, tape, d_outputs, d_state, out, input_gradient) -> Gradients:
    """`Model.backward`, with d_outputs by head."""
    if not isinstance(tape, ModelTape) or tape.model is not model:
        raise TypeError(f"tape: expected a tape of this model's forward, got {describe(tape)}")
    if not isinstance(d_outputs, Mapping) or set(d_outputs) != set(model.heads):
        raise TypeError(f"d_outputs: expected a dict by head, of {', '.join(model.heads)}, got {describe(d_outputs)}")
    slopes = {name: slopes_of(tape, name, head, d_outputs[name]) for name, head in model.heads.items()}
    if out is not None:
        check_gradients(out, model.parameters)
    if d_state is not None:
        like = model.initial_state(tape.sizes[0])
        d_state = State(*check_state("d_state", d_state, like, model.dtype))
    if tape.version != model.parameters.version():
        raise ValueError("tape: expected the weights that forward saw, but they have changed since")
    if tape.precision != model.precision:
        raise ValueError(f"tape: expected the precision that forward had, {tape.precision!r}, got {model.precision!r}")
    h, tape.h = tape.h, None
    if h is None:
        raise ValueError("tape: expected a tape that no backward call has used, got one that was")
    gradients = Parameters(model.parameters.layout, model.dtype) if out is None else out
    d_h = {}
    for kind, names in model.kinds.items():
        for name in names:
            dh = np.empty_like(h[kind])
            given_loss(model, name, h[kind], slopes[name], dh, gradients)
            d_h[kind] = d_h[kind] + dh if kind in d_h else dh
    from_behind(model, tape.passed, d_h, gradients)
    dy, d_last = to_steps(model, d_h, tape.packed, tape.real, tape.final)
    if d_last is not None and d_state is not None:
        d_state = State(d_last.h + d_state.h, d_state.c)
    masked = tape.places is not tape.real
    dy = dy if tape.batched or masked else dy[0]
    dx, dstate = layer_gradients(model, tape.layer, dy, d_state or d_last, tape.taken, gradients, input_gradient)
    if masked and dx is not None:
        whole = np.zeros((*tape.sizes, dx.shape[-1]), model.dtype)
        whole[tape.places] = dx.reshape(-1, dx.shape[-1]) if tape.real is None else dx[tape.real]
        dx = whole if tape.batched else whole[0]
    return Gradients(dx, dstate, gradients)


def slopes_of(tape, name, head, given) -> np.ndarray:
    """Gradients by the outputs of a head, checked: (N, groups * O) of what it looks at."""
    argument = f"d_outputs[{name!r}]" if name else "d_outputs"
    given = as_float_array(argument, given, tape.model.dtype)
    if given.shape != tape.shape(head):
        raise ValueError(f"{argument}: expected {tape.shape(head)}, got {given.shape}")
    count = head.groups * head.output_size
    if tape.places is None or head.output == "last":
        return np.ascontiguousarray(given.reshape(-1, count))
    given = given.reshape(*tape.sizes, count)[tape.places]
    if head.kind == "tokens":
        return np.ascontiguousarray(given)
    if tape.real is None:
        return np.ascontiguousarray(given)
    slopes = np.zeros((*tape.packed[:2], count), given.dtype)
    slopes[tape.real] = given
    return slopes.reshape(-1, count)
