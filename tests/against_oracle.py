"""A layer of whatever variant, held against the oracle: outputs, final state and every gradient."""

import collections
import hashlib
import pickle

import numpy as np
from gradcheck import check_gradients

from cylstm import State, oracle


def with_some_weights(layer, rng, size=0.5):
    """The layer, none of whose parameters is 0 any more or the same as others."""
    for values in layer.parameters.values():
        values[...] += size / np.sqrt(values.shape[-1]) * rng.standard_normal(values.shape)
    return layer


def oracle_options(layer, **more):
    """What the oracle is told of a layer beside its parameters."""
    cell = layer.cell
    told = ("coupled", "cell_clip", "activations", "gate_clip", "proj_clip", "reverse", "layer_norm", "merge",
            "residual")  # fmt: skip
    return dict(num_layers=layer.num_layers, bidirectional=layer.bidirectional,
                **{name: getattr(cell, name) for name in told}, **more)  # fmt: skip


def masks_of(tape):
    """What was dropped, as the oracle takes it."""
    masks = dict(dropout_masks=tape.masks, input_mask=tape.input_mask, recurrent_masks=tape.recurrent_masks,
                 weight_masks=tape.weight_masks, update_masks=tape.update_masks)  # fmt: skip
    if tape.zoneout_masks is not None:
        masks["zoneout_masks"] = [1.0 if new is None else new for new in tape.zoneout_masks]
    return {name: values for name, values in masks.items() if values is not None}


def exact(state):
    return tuple(part.astype(float) for part in state)


def random_state(layer, B, rng):
    """h (L*D, B, Y) and c (L*D, B, H)."""
    n, widths = layer.num_layers * layer.num_directions, (layer.h_size, layer.hidden_size)
    return State(*(rng.standard_normal((n, B, width)).astype(layer.dtype) for width in widths))


def of_every_step(states, record, D):
    """h and c after each step, ours and the oracle's, in the order of time."""
    found = {}
    for n, run in enumerate(record.runs):
        clock = slice(None, None, -1 if n % D or record.reverse else 1)
        for name, got, theirs in zip("hc", states, (run.h, run.c), strict=True):
            expected = (run.alive * theirs[1:])[clock].swapaxes(0, 1)
            found[f"{name} of every step, {n}"] = got[n, ..., : expected.shape[2]], expected
            assert not got[n, ..., expected.shape[2] :].any()
    return found


RECENT = collections.OrderedDict()


def answered(x, parameters, start, dy, dfinal, **options):
    """The oracle's outputs, final state, record, dx, gradients of the initial state and of the parameters, nobody's to
    change. Those of the last calls are kept: the same question comes once for each instruction set."""
    question = hashlib.sha256(pickle.dumps((x, parameters, start, dy, dfinal, options))).digest()
    if question not in RECENT:
        y, final, record = oracle.forward(x, parameters, start, **options)
        RECENT[question] = y, final, record, *oracle.backward(record, dy, dfinal)
        if len(RECENT) > 24:  # more than one test asks
            RECENT.popitem(last=False)
    return RECENT[question]


def agrees(layer, close, rng, B, T, *, ids=False, given=True, **options):
    """AssertionError unless it computes what the oracle does of random inputs and gradients.

    close : the fixture. given : whether the initial state is. options : lengths, resets. Where nothing is dropped, a
    call without a tape has to give the same bits.
    """
    I, L, D = layer.input_size, layer.num_layers, layer.num_directions
    what = f"{B=} {T=} {I=} H={layer.hidden_size} P={layer.h_size} {L=} {D=} {ids=} {given=}"
    x = rng.integers(0, I, (B, T)) if ids else rng.standard_normal((B, T, I)).astype(layer.dtype)
    dy = rng.standard_normal((B, T, layer.output_size)).astype(layer.dtype)
    start, dfinal = (random_state(layer, B, rng) for _ in range(2))
    state = start if given else None
    y, final, tape = layer.forward(x, state, **options)
    masks, states = masks_of(tape), (tape.h, tape.c)
    if not masks:
        other, other_final = layer(x, state, **options)
        assert all(np.array_equal(a, b) for a, b in zip((other, *other_final), (y, *final), strict=True)), what
    got = layer.backward(tape, dy, dfinal)
    parameters = {name: values.astype(float) for name, values in layer.parameters.items()}
    wanted_y, wanted_final, record, dx, dstart, wanted = answered(
        np.eye(I)[x] if ids else x.astype(float), parameters, exact(start) if given else None, dy.astype(float),
        exact(dfinal), **oracle_options(layer), **options, **masks)  # fmt: skip
    assert got.parameters.keys() == wanted.keys()
    found = {"y": (y, wanted_y), "h": (final.h, wanted_final[0]), "c": (final.c, wanted_final[1]),
             "dh0": (got.state.h, dstart[0]), "dc0": (got.state.c, dstart[1]),
             **of_every_step(states, record, D),
             **{f"d {name}": (values, wanted[name]) for name, values in got.parameters.items()}}  # fmt: skip
    if not ids:
        found["dx"] = got.x, dx
    for name, (values, expected) in found.items():
        close(values, expected, f"{name}, {what}")


def gradients_are_differences(layer, x, rng, *, given=True, **options):
    """AssertionError unless backward gives the differences of the layer's own outputs, past the oracle. x (B, T, I);
    options as in agrees(). Where something is dropped, each call drops the same."""
    begun, start, dfinal = layer.rng.bit_generator.state, *(random_state(layer, len(x), rng) for _ in range(2))
    dy = rng.standard_normal((*x.shape[:2], layer.output_size))

    def forward():
        layer.rng.bit_generator.state = begun
        return layer.forward(x, start if given else None, **options)

    def loss():
        y, final, _ = forward()
        return (dy * y).sum() + sum((d * part).sum() for d, part in zip(dfinal, final, strict=True))

    got = layer.backward(forward()[2], dy, dfinal)
    arrays, found = {name: layer.parameters[name] for name in layer.parameters}, dict(got.parameters)
    if given:
        arrays, found = arrays | {"h0": start.h, "c0": start.c}, found | {"h0": got.state.h, "c0": got.state.c}
    check_gradients(loss, arrays | {"x": x}, found | {"x": got.x})


def steps_and_generates(model, ids):
    """AssertionError unless steps of a model of tokens, ids (B, T), give what it gives of all of them."""
    outputs, final = model(ids)
    state = model.initial_state(len(ids))
    for t in range(ids.shape[1]):
        y, state = model.step(ids[:, t], state, out=state)
        np.testing.assert_allclose(y, outputs[:, t], rtol=2e-5, atol=1e-6)
    assert same(state, final)
    assert len(list(model.generate(ids[0], 12, seed=1))) == 12


def same(got, expected):
    """Whether all of these arrays are equal."""
    return all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def layer_norm_written_out(x, parameters, carried, eps):
    """h of one layer, by the equations of Ba, Kiros & Hinton (2016) and of LayerNormLSTMCell, gate by gate."""

    def norm(z):
        return (z - z.mean()) / np.sqrt(z.var() + eps)

    p = {name[:-3]: values.astype(float) for name, values in parameters.items()}
    h = c = np.zeros(p["norm_c"].shape[1])
    outputs = []
    for x_t in x:
        z = p["norm_ih"] * norm(p["weight_ih"] @ x_t) + p["norm_hh"] * norm(p["weight_hh"] @ h) + p["bias"]
        z_i, z_f, z_g, z_o = np.split(z, 4)
        c = c / (1 + np.exp(-z_f)) + np.tanh(z_g) / (1 + np.exp(-z_i))
        seen = p["norm_c"][0] * norm(c) + p["norm_c"][1]
        c = seen if carried else c
        h = np.tanh(seen) / (1 + np.exp(-z_o))
        outputs.append(h)
    return np.array(outputs)
