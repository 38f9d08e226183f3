"""Variants of the cell: peepholes, coupled gate, clip, and all at once, against the oracle and by themselves."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from against_oracle import agrees
from gradcheck import check_gradients

from cylstm import LSTM, Model, set_num_threads

VARIANTS = {
    "peepholes": dict(peepholes=True),
    "coupled": dict(coupled=True),
    "clip": dict(cell_clip=0.4),
    "peepholes, clip": dict(peepholes=True, cell_clip=0.5),
    "all": dict(peepholes=True, coupled=True, cell_clip=0.3),
}
SIZES = [(1, 1, 3, 5), (7, 1, 8, 33), (1, 6, 2, 16), (9, 3, 5, 17), (12, 17, 20, 64), (5, 40, 11, 7), (20, 33, 70, 50)]


def made(sizes, L, D, dtype, variant, rng):
    """A layer with weights of some size everywhere."""
    I, H = sizes
    layer = LSTM(I, H, L, bidirectional=D == 2, dtype=dtype, seed=rng, **variant)
    for name, values in layer.parameters.items():
        values[...] += 0.3 * rng.standard_normal(values.shape)
        assert (name.startswith("peephole") and "peepholes" in variant) or not name.startswith("peephole")
    return layer


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_the_oracle(isa, dtype, close, variant, ids):
    rng = np.random.default_rng(20271)
    for n, (T, B, I, H) in enumerate(SIZES):
        layer = made((I, H), 1 + n % 3, 1 + n % 2, dtype, VARIANTS[variant], rng)
        lengths = rng.integers(1, T + 1, B) if n % 3 else None
        resets = rng.random((B, T)) < 0.2 if n % 4 else None
        agrees(layer, close, rng, B, T, ids=ids, lengths=lengths, resets=resets)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_by_differences(variant):
    """The compiled layer itself, in float64, past the oracle."""
    rng = np.random.default_rng(20272)
    layer = made((4, 5), 2, 2, "float64", VARIANTS[variant], rng)
    x, lengths = rng.standard_normal((3, 6, 4)), np.array([6, 2, 4])
    h0, c0, dh, dc = rng.standard_normal((4, 4, 3, 5))
    dy = rng.standard_normal((3, 6, 10))

    def loss():
        y, (h, c) = layer(x, (h0, c0), lengths=lengths)
        return (dy * y).sum() + (dh * h).sum() + (dc * c).sum()

    _, _, tape = layer.forward(x, (h0, c0), lengths=lengths)
    dx, (dh0, dc0), gradients = layer.backward(tape, dy, (dh, dc))
    weights = {name: layer.parameters[name] for name in layer.parameters}
    check_gradients(
        loss, {"x": x, "h0": h0, "c0": c0, **weights}, {"x": dx, "h0": dh0, "c0": dc0, **gradients}
    )  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_give_the_bits_of_the_whole_and_threads_those_of_one(isa, dtype, variant):
    rng = np.random.default_rng(20273)
    for B, H in ((1, 70), (13, 151)):
        layer = made((19, H), 2, 1, dtype, VARIANTS[variant], rng)
        x = rng.standard_normal((B, 5, 19)).astype(dtype)
        try:
            found = []
            for threads in (1, 2, 7):
                set_num_threads(threads)
                y, state, tape = layer.forward(x)
                found.append([y, *state, layer.backward(tape, y).parameters.flat])
        finally:
            set_num_threads(2)
        for other in found[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))
        state = None
        for t in range(5):
            y_t, state = layer.step(x[:, t], state)
            assert np.array_equal(y_t, found[0][0][:, t])


# Outputs of LSTMHelper, the reference behind the onnx package's node tests (1.23.2, backend/test/case/node/lstm.py): of
# its test of peepholes, and with the weights below.
ONNX_NODE = [0.3750691, 0.68013094]
ONNX_OUTPUTS = [
    [[-0.023016509445780573, -0.04727377199293781, 0.5399636425884192],
     [0.20796718730850716, -0.0658989256892817, -0.04987762548508031]],
    [[-0.03779858861969871, 0.25873773175368053, 0.09455095618161048],
     [0.25820258648154504, -0.026325365460657155, 0.31929279743416394]],
    [[0.06787457328286652, 0.5260945519241275, -0.021035184870201125],
     [-0.038843165795659586, 0.018425946918366205, 0.4444749690100894]],
]  # fmt: skip


def test_the_numbers_of_onnx(isa):
    layer = LSTM(4, 3, peepholes=True, dtype="float64", seed=0)
    for name, values in layer.parameters.items():
        values[...] = 0 if name == "bias_l0" else 0.1
    y, _ = layer(np.array([[[1.0, 2, 3, 4]], [[5, 6, 7, 8]]]))
    np.testing.assert_allclose(y[:, 0], np.repeat(ONNX_NODE, 3).reshape(2, 3), rtol=1e-7)

    def waves(*shape):
        return np.sin(1.0 + np.arange(np.prod(shape))).reshape(shape)

    scales = dict(weight_ih_l0=1, weight_hh_l0=0.7, bias_l0=0.3, peephole_l0=0.9)
    for name, values in layer.parameters.items():
        values[...] = scales[name] * waves(*values.shape)
    x = np.cos(np.arange(24)).reshape(3, 2, 4)
    y, _ = layer(x.swapaxes(0, 1), (-0.5 * waves(1, 2, 3), 0.5 * waves(1, 2, 3)))
    np.testing.assert_allclose(y.swapaxes(0, 1), ONNX_OUTPUTS, rtol=1e-13)


def test_a_coupled_cell_needs_no_forget_gate(isa, dtype):
    """f's own weights count for nothing, whatever they are, and have no gradient."""
    rng = np.random.default_rng(20274)
    layer = made((5, 9), 1, 1, dtype, VARIANTS["all"], rng)
    x = rng.standard_normal((4, 6, 5)).astype(dtype)
    before = layer(x)[0]
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_l0"):
        layer.parameters[name][9:18] = rng.choice([np.nan, np.inf, -1e30, 7], layer.parameters[name][9:18].shape)
    layer.parameters["peephole_l0"][1] = np.nan
    assert np.array_equal(layer(x)[0], before)
    assert np.array_equal(layer.forward(x)[0], before)


def test_cells_stay_within_their_bounds_and_nan_shows(isa, dtype):
    rng = np.random.default_rng(20275)
    layer = LSTM(6, 20, 2, cell_clip=0.25, dtype=dtype, seed=rng)
    x = 50 * rng.standard_normal((5, 30, 6)).astype(dtype)
    _, (_, c) = layer(x)
    assert np.abs(c).max() == np.array(0.25, dtype)
    x[2, 3, 1] = np.nan
    y, (_, c) = layer(x)
    assert np.isnan(y[2, 3:]).all() and np.isnan(c[:, 2]).all() and np.isfinite(np.delete(y, 2, 0)).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_models_train_and_keep_their_variant(variant, tmp_path, rng):
    x, y = rng.standard_normal((20, 9, 4)), rng.standard_normal((20, 9, 2))
    model = Model(4, 12, 2, loss="mse", seed=1, **VARIANTS[variant])
    history = model.fit(x, y, epochs=6, batch_size=5, progress=False)
    assert history.train_loss[-1] < history.train_loss[0]
    model.save(tmp_path / "model.safetensors")
    for other in (Model.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert other.config == model.config
        assert np.array_equal(other(x)[0], model(x)[0])
    assert not np.array_equal(model(x)[0], Model(4, 12, 2, loss="mse", seed=1)(x)[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_layers_are_copied_with_their_variant(variant, rng):
    layer = made((4, 6), 2, 2, "float64", VARIANTS[variant], rng)
    x = rng.standard_normal((3, 5, 4))
    other = LSTM(4, 6, 2, bidirectional=True, dtype="float64", **VARIANTS[variant])
    other.load_state_dict(layer.state_dict())
    for twin in (other, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert twin.cell == layer.cell
        assert repr(twin) == repr(layer)
        assert np.array_equal(twin(x)[0], layer(x)[0])
    for name, value in VARIANTS[variant].items():
        assert f"{name}={value}" in repr(layer)


def test_weights_of_a_seed_are_those_of_the_plain_cell():
    plain = LSTM(5, 7, 2, bidirectional=True, seed=3).parameters
    for variant in VARIANTS.values():
        others = LSTM(5, 7, 2, bidirectional=True, seed=3, **variant).parameters
        assert all(np.array_equal(plain[name], others[name]) for name in plain)
        assert all(not values.any() for name, values in others.items() if name not in plain)


@pytest.mark.parametrize("clip", [0, -1.0, np.inf, np.nan, 1e-320, 1e39])
def test_bounds_that_are_none_are_refused(clip):
    with pytest.raises(ValueError, match="cell_clip: expected a number in"):
        LSTM(3, 4, cell_clip=clip)
    with pytest.raises(TypeError, match="cell_clip: expected a number, got str"):
        Model(3, 4, 5, cell_clip="1")


def test_flags_are_those_of_the_kernels():
    """Each on its own changes what the layer computes, and no two do the same."""
    rng = np.random.default_rng(20276)
    x, found = rng.standard_normal((2, 8, 3)), []
    for peepholes, coupled, clip in itertools.product((False, True), (False, True), (None, 0.2)):
        layer = LSTM(3, 5, peepholes=peepholes, coupled=coupled, cell_clip=clip, dtype="float64", seed=1)
        if peepholes:
            layer.parameters["peephole_l0"][...] = 0.5
        found.append(layer(x)[0].tobytes())
    assert len(set(found)) == 8


@pytest.mark.parametrize("D, reverse", [(1, False), (2, False), (1, True)])
@pytest.mark.parametrize("given", [False, True])
def test_all_variants_together_are_the_oracles(isa, dtype, close, D, reverse, given):
    """What each has in the states that a step begins with, masks, a first state and resets, meets in one place."""
    rng = np.random.default_rng(20277)
    for T, B, I, H, L in ((7, 5, 3, 9, 2), (4, 20, 4, 17, 2), (6, 3, 2, 33, 1)):
        several = dict(dropout=0.2, dropout_per="sequence") if L > 1 else {}
        cell = dict(peepholes=True, cell_clip=1.0, activations=("sigmoid", "softsign", "tanh"), gate_clip=2.0,
                    first_state=True, recurrent_dropout=0.4, weight_drop=0.3, input_dropout=0.3,
                    reverse=reverse)  # fmt: skip
        layer = made((I, H), L, D, dtype, {**cell, **several}, rng)
        lengths, resets = rng.integers(0, T + 1, B), rng.random((B, T)) < 0.3
        lengths[0] = T
        agrees(layer, close, rng, B, T, given=given, lengths=lengths, resets=resets)
