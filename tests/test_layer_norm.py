"""Layer norms: against the oracle, against the equations written out, alone, and in files."""

import copy

import numpy as np
import pytest
from against_oracle import agrees, layer_norm_written_out, same
from gradcheck import check_gradients

from cylstm import LSTM, Model, oracle, set_num_threads
from cylstm.exchange.models import network_of

KINDS = ["ba", ("torchscript", 1e-3)]
# T, B, I, H: vectors that are full and not. Of few units, little but signs is left, and gradients are rounding.
SIZES = [(7, 5, 3, 19), (5, 1, 4, 8), (6, 3, 2, 7), (4, 33, 5, 24), (9, 2, 70, 35), (3, 70, 3, 17)]
TOGETHER = dict(coupled=True, cell_clip=0.6, gate_clip=0.9, first_state=True, proj_size=7,
                activations=("hard_sigmoid", "softsign", ("scaled_tanh", 0.9, 0.7)))  # fmt: skip


def made(I, H, L, D, dtype, kind, rng, **variant):
    layer = LSTM(I, H, L, bidirectional=D == 2, dtype=dtype, seed=3, layer_norm=kind, **variant)
    for values in layer.parameters.values():
        values[...] += 0.3 * rng.standard_normal(values.shape)
    return layer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("H", [1, 2, 21])
def test_the_equations_layer_norm_written_out(isa, dtype, close, kind, H):
    rng = np.random.default_rng(1)
    layer = made(3, H, 1, 1, dtype, kind, rng)
    x = rng.standard_normal((1, 30, 3)).astype(dtype)
    carried, eps = layer.cell.norm
    close(layer(x)[0][0], layer_norm_written_out(x[0].astype(float), layer.parameters, carried, eps), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", [{}, dict(cell_clip=0.4, coupled=True)])
def test_the_oracles_gradients_by_differences(kind, variant):
    rng = np.random.default_rng(2)
    layer = made(4, 3, 2, 2, "float64", kind, rng, **variant)
    params = {name: values.copy() for name, values in layer.parameters.items()}
    options = dict(num_layers=2, bidirectional=True, layer_norm=layer.cell.layer_norm, lengths=[4, 2],
                   resets=np.array([[0, 0, 1, 0], [1, 0, 0, 0]]), **variant)  # fmt: skip
    x, state, dy = rng.standard_normal((2, 4, 4)), rng.standard_normal((2, 4, 2, 3)), rng.standard_normal((2, 4, 6))
    dstate = rng.standard_normal((2, 4, 2, 3))

    def loss():
        y, final, _ = oracle.forward(x, params, state, **options)
        return (dy * y).sum() + sum((d * part).sum() for d, part in zip(dstate, final, strict=True))

    dx, by_state, gradients = oracle.backward(oracle.forward(x, params, state, **options)[2], dy, dstate)
    arrays = dict(x=x, h0=state[0], c0=state[1], **params)
    check_gradients(loss, arrays, dict(x=dx, h0=by_state[0], c0=by_state[1], **gradients))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("T, B, I, H", SIZES)
def test_agrees_with_the_oracle(isa, dtype, close, kind, T, B, I, H):
    rng = np.random.default_rng(B)
    layer = made(I, H, 2, 2, dtype, kind, rng)
    agrees(layer, close, rng, B, T)
    lengths = rng.integers(0, T + 1, B)
    agrees(layer, close, rng, B, T, given=False, lengths=lengths, resets=rng.random((B, T)) < 0.3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_together_with_other_variants(isa, dtype, close, kind, reverse):
    rng = np.random.default_rng(4)
    layer = made(6, 19, 2, 1 if reverse else 2, dtype, kind, rng, reverse=reverse, **TOGETHER)
    layer.recurrent_dropout, layer.input_dropout, layer.weight_drop, layer.zoneout = 0.3, 0.2, 0.25, (0.3, 0.2)
    layer.update_dropout = 0.3
    agrees(layer, close, rng, 5, 6, given=False, lengths=[6, 2, 0, 5, 6], resets=rng.random((5, 6)) < 0.3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("merge", ["concat", "product"])
def test_in_layers_of_widths_of_their_own(isa, dtype, close, kind, merge):
    rng = np.random.default_rng(12)
    layer = made(3, (19, 8, 35), 3, 2, dtype, kind, rng, merge=merge, first_state=True)
    layer.recurrent_dropout, layer.dropout, layer.weight_drop, layer.zoneout = 0.3, 0.2, 0.25, (0.2, 0.4)
    layer.update_dropout = 0.3
    agrees(layer, close, rng, 5, 4, given=False, lengths=[4, 2, 0, 3, 4], resets=rng.random((5, 4)) < 0.3)


@pytest.mark.parametrize("bias", [True, False])
def test_ids_are_one_hot_rows(isa, dtype, close, bias):
    rng = np.random.default_rng(5)
    agrees(made(11, 13, 2, 2, dtype, "ba", rng, bias=bias), close, rng, 4, 5, ids=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [67, (67, 35)])
def test_steps_and_threads_give_the_same_bits(isa, dtype, kind, sizes):
    rng = np.random.default_rng(6)
    layer = made(6, sizes, 2, 1, dtype, kind, rng)
    x, dy = (rng.standard_normal((64, 20, width)).astype(dtype) for width in (6, layer.output_size))
    lengths = rng.integers(1, 21, 64)

    def everything():
        parts = []
        for options in ({}, dict(lengths=lengths)):
            y, state, tape = layer.forward(x, **options)
            gradients = layer.backward(tape, dy)
            parts += [y, *state, gradients.x, *gradients.parameters.values()]
        return [part.tobytes() for part in parts]

    set_num_threads(1)
    one = everything()
    set_num_threads(2)
    assert everything() == one
    y, state = layer(x), None
    stepped = []
    for t in range(20):
        h, state = layer.step(x[:, t], state)
        stepped.append(h)
    assert np.array_equal(np.stack(stepped, axis=1), y[0]) and all(map(np.array_equal, state, y[1]))
    alone = layer(x[37:38])
    if isa == "amx" and dtype == "float32":  # tiles have several rows
        np.testing.assert_allclose(alone[0][0], y[0][37], atol=1e-5)
    else:
        assert np.array_equal(alone[0][0], y[0][37])


def test_everything_at_once_gives_the_bits_of_one_thread(isa, dtype):
    """Members that share out rows are in layers of other widths, and in the same memory, at a time."""
    rng = np.random.default_rng(13)
    layer = made(4, (67, 19, 40), 3, 2, dtype, "torchscript", rng, first_state=True, gate_clip=2.0)
    layer.recurrent_dropout, layer.update_dropout, layer.zoneout = 0.3, 0.25, (0.2, 0.4)
    x, dy = (rng.standard_normal((61, 12, width)).astype(dtype) for width in (4, layer.output_size))
    options, found = dict(lengths=rng.integers(0, 13, 61), resets=rng.random((61, 12)) < 0.2), []
    for threads in (1, 2, 5, 16):
        set_num_threads(threads)
        layer.rng = np.random.default_rng(3)
        y, state, tape = layer.forward(x, **options)
        gradients = layer.backward(tape, dy)
        found.append([y, *state, gradients.x, *gradients.state, gradients.parameters.flat, *layer(x, **options)[1]])
    assert all(same(other, found[0]) for other in found[1:])


def test_a_row_that_is_none_spoils_no_other(isa, dtype):
    rng = np.random.default_rng(7)
    layer = made(3, 11, 1, 1, dtype, "ba", rng)
    x, dy = rng.standard_normal((4, 5, 3)).astype(dtype), rng.standard_normal((4, 5, 11)).astype(dtype)
    spoilt = x.copy()
    spoilt[2, 1] = np.nan, np.inf, 1
    good = [0, 1, 3]
    (y, _, tape), (other, _, other_tape) = layer.forward(x), layer.forward(spoilt)
    assert np.array_equal(y[good], other[good]) and np.isnan(other[2, 1:]).all()
    assert np.array_equal(layer.backward(tape, dy).x[good], layer.backward(other_tape, dy).x[good])


def test_sums_of_large_numbers_keep_their_digits(isa, dtype, close):
    """Variance as mean(z^2) - mean(z)^2 would lose them."""
    rng = np.random.default_rng(8)
    layer = made(4, 19, 1, 1, dtype, "ba", rng)
    values = layer.parameters["weight_ih_l0"]
    values[...] = values + 500  # all of a row's z are alike but for little
    x = rng.standard_normal((2, 6, 4)).astype(dtype)
    y, _, _ = oracle.forward(
        x.astype(float), {n: v.astype(float) for n, v in layer.parameters.items()}, layer_norm="ba"
    )
    np.testing.assert_allclose(layer(x)[0], y, atol=1e-3 if dtype == "float32" else 1e-11)


@pytest.mark.parametrize("given, error, message", [
    ("batch", ValueError, "layer_norm: expected one of 'ba', 'torchscript', a pair of it and eps, or None, got str"),
    (True, ValueError, "layer_norm: expected one of"),
    (("ba", 0), ValueError, r"layer_norm\[1\]: expected"),
    (("ba", 1e-5, 3), ValueError, "layer_norm: expected one of"),
    (("ba", float("nan")), ValueError, r"layer_norm\[1\]: expected"),
    (("ba", "x"), TypeError, r"layer_norm\[1\]: expected"),
    ((), ValueError, "layer_norm: expected one of"),
    ([[]], ValueError, "layer_norm: expected one of"),
    ([{}], ValueError, "layer_norm: expected one of"),
    ((np.arange(2),), ValueError, "layer_norm: expected one of"),
])  # fmt: skip
def test_what_is_none_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        LSTM(3, 4, layer_norm=given)


def test_peepholes_are_refused():
    with pytest.raises(ValueError, match="layer_norm: expected None for a cell with peepholes, got 'ba'"):
        LSTM(3, 4, layer_norm="ba", peepholes=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_them_learns_and_comes_back(tmp_path, kind):
    rng = np.random.default_rng(9)
    model = Model(3, 12, 2, num_layers=2, layer_norm=kind, seed=1, loss="mse", output="last")
    x = rng.standard_normal((64, 8, 3)).astype("float32")
    y = np.stack([x[:, :, 0].sum(axis=1), x[:, -1, 1]], axis=1)
    before = model.evaluate(x, y)["loss"]
    model.fit(x, y, epochs=100, seed=2)
    assert model.evaluate(x, y)["loss"] < 0.5 * before
    model.save(tmp_path / "m.safetensors")
    other = Model.load(tmp_path / "m.safetensors")
    assert other.lstm.cell.layer_norm == kind and np.array_equal(other(x)[0], model(x)[0])
    assert np.array_equal(copy.deepcopy(model.lstm)(x)[0], model.lstm(x)[0])
    assert f"layer_norm={kind!r}" in repr(model.lstm)


def test_what_begins_is_as_it_was_drawn_without():
    plain, normed = LSTM(3, 5, 2, seed=1), LSTM(3, 5, 2, seed=1, layer_norm="ba")
    assert all(np.array_equal(values, normed.parameters[name]) for name, values in plain.parameters.items())
    assert (normed.parameters["norm_ih_l0"] == 1).all() and (normed.parameters["norm_c_l1"] == [[1], [0]]).all()
    assert LSTM(3, 5, layer_norm=("ba", 1e-5)).options["layer_norm"] == "ba"


def test_states_of_torchscripts_are_normalised(isa, dtype):
    """Where gain and shift are 1 and 0, c has mean 0 and variance 1; of Ba's it has not."""
    rng = np.random.default_rng(10)
    x = rng.standard_normal((3, 6, 4)).astype(dtype)
    for kind, normed in (("torchscript", True), ("ba", False)):
        c = LSTM(4, 50, layer_norm=kind, dtype=dtype, seed=2)(x)[1].c[0]
        assert (abs(c.mean(axis=1)) < 1e-5).all() == normed and (abs(c.var(axis=1) - 1) < 1e-2).all() == normed


def test_no_network_has_them():
    with pytest.raises(ValueError, match="layer_norm: expected None, since networks have none, got 'ba'"):
        network_of(Model(3, 8, 2, loss="mse", layer_norm="ba", seed=0))
