"""Layers in fewer bits: what they give is what their rounded numbers give, step by step, whatever the batch, the
threads and the units; what they cannot do is refused."""

import copy
import pickle

import numpy as np
import pytest
from against_oracle import with_some_weights
from small_numbers import bfloat16, float16, int8_sums, int8_weights

from cylstm import LSTM, State, set_num_threads
from cylstm._core import kernels
from cylstm.small_parameters import PRECISIONS, SmallParameters

SHAPES = [(7, 20, 1), (33, 40, 3), (70, 65, 20), (130, 96, 35)]  # I, H, B


@pytest.fixture(params=PRECISIONS)
def precision(request):
    return request.param


def sums_of(precision, start, rows, weights, bound=None):
    """start + rows weights', as a precision has it, in float64 but for int8."""
    if precision == "int8":
        return int8_sums(start.astype("f4"), rows, weights, bound)
    rounded = float16 if precision == "float16" else bfloat16
    left = rows if precision == "float16" else bfloat16(rows)
    return start + left.astype(float) @ rounded(weights).astype(float).T


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def step_of(precision, layer, x, h, c):
    """One step of a plain layer in float64, from h and c in float32."""
    W, R, b = (layer.parameters[name] for name in ("weight_ih_l0", "weight_hh_l0", "bias_l0"))
    z = sums_of(precision, np.broadcast_to(b, (len(x), len(b))), x, W)
    i, f, g, o = np.split(sums_of(precision, z, h, R, 1.0).astype(float), 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


@pytest.mark.parametrize("shape", SHAPES)
def test_each_step_is_that_of_the_rounded_numbers(isa, precision, rng, shape):
    """From the layer's own state before it, so that nothing adds up: h of int8 jumps where 127 h is nearly a half."""
    I, H, B = shape
    layer = with_some_weights(LSTM(I, H, seed=1), rng)
    small = layer.astype(precision)
    x, state = rng.standard_normal((B, 6, I)).astype("f4") * 2, None
    for t in range(6):
        before = small.initial_state(B) if state is None else state
        y, state = small.step(x[:, t], state)
        h, c = step_of(precision, layer, x[:, t], before.h[0], before.c[0])
        np.testing.assert_allclose(y, h, rtol=0, atol=2e-6)
        np.testing.assert_allclose(state.c[0], c, rtol=0, atol=2e-6 * np.abs(c).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_and_calls_have_the_same_bits(isa, precision, rng, shape):
    I, H, B = shape
    small = LSTM(I, H, 2, seed=1).astype(precision)
    x = rng.standard_normal((B, 5, I)).astype("f4")
    y, final = small(x)
    state = None
    for t in range(5):
        y_t, state = small.step(x[:, t], state)
        np.testing.assert_array_equal(y_t, y[:, t])
    np.testing.assert_array_equal(state.h, final.h)


@pytest.mark.parametrize("H", [33, 48])
def test_a_row_has_the_same_bits_alone_and_in_a_batch(isa, precision, rng, H):
    small = LSTM(50, H, 2, seed=1, bidirectional=True).astype(precision)
    x, lengths = rng.standard_normal((24, 9, 50)).astype("f4"), rng.integers(1, 10, 24)
    y, _ = small(x, lengths=lengths)
    for row in (0, 13):
        np.testing.assert_array_equal(small(x[row, : lengths[row]])[0], y[row, : lengths[row]])


def test_int8_has_the_same_bits_by_any_unit(isa, rng):
    layer = LSTM(50, 48, 2, seed=1, bidirectional=True)
    x, all_units = rng.standard_normal((24, 9, 50)).astype("f4"), kernels.units()
    y, _ = layer.astype("int8")(x)
    try:
        for units in ((), *[(unit,) for unit in all_units]):
            kernels.use_units(units)
            small = layer.astype("int8")
            for rows in (slice(None), slice(5, 6), slice(3, 7)):
                np.testing.assert_array_equal(small(x[rows])[0], y[rows])
    finally:
        kernels.use_units(all_units)


@pytest.mark.parametrize("B", [1, 20])
def test_threads_do_not_change_bits(isa, precision, rng, B):
    small = LSTM(96, 200, 2, seed=1).astype(precision)
    x = rng.standard_normal((B, 12, 96)).astype("f4")
    found = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        found.append(small(x)[0])
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


VARIANTS = {
    "plain": {},
    "both directions": dict(bidirectional=True),
    "merged": dict(bidirectional=True, merge="sum", residual=False),
    "reverse": dict(reverse=True),
    "peepholes": dict(peepholes=True),
    "coupled and clipped": dict(coupled=True, cell_clip=0.7),
    "layer norm": dict(layer_norm="ba"),
    "first state": dict(first_state=True),
    "activations": dict(activations=("hard_sigmoid", "softsign", "tanh"), gate_clip=2.0),
    "residual": dict(residual=True),
    "highway": dict(highway=True),
    "zoneout": dict(zoneout=(0.3, 0.1)),
    "widths": dict(hidden_size=(40, 24)),
    "no bias": dict(bias=False),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_those_of_a_layer_of_the_rounded_weights(isa, precision, rng, name):
    """A float32 layer that has them, but for what x and h lose, which float16 keeps."""
    options = {"hidden_size": 40, **VARIANTS[name]}
    layer = with_some_weights(LSTM(30, num_layers=2, seed=1, **options), rng, 0.2)
    small = layer.astype(precision)
    rounded = copy.deepcopy(layer)
    for parameter, values in small.parameters.items():
        rounded.parameters[parameter][...] = values
    lengths, resets = rng.integers(1, 9, 9), rng.random((9, 8)) < 0.2
    for x in (rng.integers(0, 30, (9, 8)), rng.standard_normal((9, 8, 30)).astype("f4")):
        y, final = small(x, lengths=lengths, resets=resets)
        expected, state = rounded(x, lengths=lengths, resets=resets)
        bound = {"float16": 1e-6, "bfloat16": 5e-3, "int8": 2e-2}[precision] * np.abs(expected).max()
        for got, wanted in ((y, expected), (final.h, state.h)):  # norms of what is nearly constant lift single errors
            assert np.sqrt(np.square(got - wanted).mean()) <= bound


@pytest.mark.parametrize("small_name, parts", [("float16", 0.504), ("bfloat16", 0.504), ("int8", 0.263)])
def test_weights_are_rounded_once_and_kept_small(rng, small_name, parts):
    layer = LSTM(100, 128, seed=3)
    values = dict(layer.parameters)
    small = layer.astype(small_name)
    assert small.parameters.nbytes <= parts * layer.parameters.nbytes
    kept = small.parameters["weight_hh_l0"]
    if small_name == "int8":
        q, scales = int8_weights(values["weight_hh_l0"])
        np.testing.assert_array_equal(kept, q.astype("f4") * scales[:, None])
    else:
        rounded = {"float16": float16, "bfloat16": bfloat16}[small_name]
        np.testing.assert_array_equal(kept, rounded(values["weight_hh_l0"]))
    np.testing.assert_array_equal(small.parameters["bias_l0"], values["bias_l0"])
    assert not kept.flags.writeable
    layer.parameters["weight_hh_l0"][...] = 0  # a copy: it does not follow
    np.testing.assert_array_equal(small.parameters["weight_hh_l0"], kept)


def test_there_and_back(precision, rng):
    layer, x = LSTM(9, 24, 2, seed=3), rng.standard_normal((2, 4, 9)).astype("f4")
    small = layer.astype(precision)
    assert (small.precision, layer.precision, small.dtype) == (precision, "float32", np.float32)
    assert f"dtype='{precision}'" in repr(small)
    for one in (copy.deepcopy(small), pickle.loads(pickle.dumps(small)), small.astype(precision)):
        assert one.precision == precision
        np.testing.assert_array_equal(one(x)[0], small(x)[0])
    plain = small.astype("float32")
    assert plain.precision == "float32" and not isinstance(plain.parameters, SmallParameters)
    np.testing.assert_array_equal(plain.parameters.flat, small.parameters.flat)
    plain.forward(x)
    double = layer.astype("float64")
    assert double.precision == "float64"
    np.testing.assert_allclose(double(x.astype("f8"))[0], layer(x)[0], atol=1e-6)
    assert layer.astype("float32").parameters.raw() is not layer.parameters.raw()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_what_is_no_number_is_not_lost(isa, precision, rng):
    small, x = LSTM(20, 33, seed=1).astype(precision), rng.standard_normal((10, 4, 20)).astype("f4")
    clean, _ = small(x)
    x[3, 1, 5] = np.nan
    y, _ = small(x)
    assert np.isnan(y[3, 1:]).all() and np.isfinite(y[3, 0]).all()
    np.testing.assert_array_equal(np.delete(y, 3, 0), np.delete(clean, 3, 0))
    x[3, 1, 5] = np.inf
    assert np.isnan(small(x)[0][3, 1:]).all() or precision == "bfloat16"


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-6, 1e20, 1e37])
def test_features_of_any_size(isa, precision, rng, scale):
    """Of the largest, gates are open or closed; which, a sum near 0 says otherwise in int8 now and then."""
    layer, x = LSTM(20, 33, seed=1), (rng.standard_normal((9, 4, 20)) * scale).astype("f4")
    (expected, _), (y, _) = layer(x), layer.astype(precision)(x)
    assert (np.abs(y - expected) <= 0.05).mean() > (0.98 if precision == "int8" and scale > 1 else 0.9999)


REFUSED = {
    "forward": (lambda small, x: small.forward(x), "forward: expected parameters in float32 or float64, which have"),
    "state dict": (lambda small, x: small.load_state_dict(small.state_dict()), "load_state_dict: expected parameters"),
    "another name": (lambda small, x: small.astype("int4"), "precision: expected one of 'float32', 'float64'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_runs_alone_refuses(precision, rng, what):
    call, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        call(LSTM(4, 5, seed=1).astype(precision), np.zeros((1, 2, 4), "f4"))


def test_touching_what_cannot_change(precision):
    with pytest.raises(TypeError, match="parameters: expected float32 or float64, to be changed, got"):
        LSTM(4, 5, seed=1).astype(precision).parameters.touch()


@pytest.mark.parametrize("options, message", [
    (dict(proj_size=3), "precision: expected a layer whose h stays within -1..1 for int8, got one with a projection"),
    (dict(activations=("sigmoid", "tanh", "relu")), "for int8, got one with activations"),
    (dict(activations=("sigmoid", "tanh", "relu6")), "for int8, got one with activations"),
    (dict(activations=("relu6", "tanh", "tanh")), "for int8, got one with activations"),
])  # fmt: skip
def test_int8_needs_a_bounded_h(options, message):
    layer = LSTM(4, 5, seed=1, **options)
    with pytest.raises(ValueError, match=message):
        layer.astype("int8")
    assert layer.astype("bfloat16")(np.ones((2, 4), "f4"))[0].shape == (2, options.get("proj_size", 5))


def test_int8_takes_what_stays_within_1_whatever_g_is(rng):
    layer = LSTM(4, 5, activations=("hard_sigmoid", "relu", "softsign"), seed=1)
    x = rng.standard_normal((3, 6, 4)).astype("f4")
    np.testing.assert_allclose(layer.astype("int8")(x)[0], layer(x)[0], atol=0.05)


def test_a_row_that_is_no_number_goes_on_alone(isa, precision, rng):
    """From call to call, as in float32: the others have the bits that they have without it."""
    small, x = LSTM(20, 48, seed=1).astype(precision), rng.standard_normal((6, 8, 20)).astype("f4")
    expected, _ = small(x)
    x[2, 1, 3] = np.nan
    _, state = small(x[:, :4])
    y, _ = small(x[:, 4:], state)
    assert np.isnan(y[2]).all()
    np.testing.assert_array_equal(np.delete(y, 2, 0), np.delete(expected[:, 4:], 2, 0))


def test_subnormal_rows_keep_their_signs():
    layer = LSTM(4, 5, seed=1)
    for n in range(1, 400):
        layer.parameters["weight_ih_l0"][3] = np.float32(n * 1.4e-45)
        assert (layer.astype("int8").parameters["weight_ih_l0"][3] >= 0).all()


def test_numbers_beyond_float32(precision):
    layer = LSTM(4, 5, seed=1, dtype="float64")
    layer.parameters["bias_l0"][3] = 1e300
    for name in (precision, "float32"):
        with pytest.raises(ValueError, match=r"bias_l0: expected numbers that float32 holds, got 1e\+300"):
            layer.astype(name)


def test_no_layer_writes_into_parameters_that_it_is_given(precision):
    small = LSTM(4, 5, seed=1).astype(precision)
    before = small.parameters.flat.copy()
    with pytest.raises((TypeError, ValueError)):
        LSTM(4, 5, seed=3, forget_bias=7.0, parameters=small.parameters)
    np.testing.assert_array_equal(small.parameters.flat, before)


def test_int8_refuses_states_beyond_1(rng):
    layer = LSTM(4, 5, seed=1, first_state=True)
    small = layer.astype("int8")
    for wrong in (1.0001, -2.0, np.inf):
        state = State(np.full((1, 2, 5), 0.5, "f4"), np.full((1, 2, 5), 3.0, "f4"))
        small(np.ones((2, 3, 4), "f4"), state)
        state.h[0, 1, 3] = wrong
        with pytest.raises(ValueError, match=r"state.h: expected numbers within -1..1, which int8 has at steps of"):
            small(np.ones((2, 3, 4), "f4"), state)
        with pytest.raises(ValueError, match=r"state\.h"):
            small.step(np.ones((2, 4), "f4"), state)
    state.h[0, 1, 3] = np.nan  # bytes know none: it would count as a number
    with pytest.raises(ValueError, match=r"state\.h"):
        small(np.ones((2, 3, 4), "f4"), state)
    state.c[0, 1, 3] = np.nan  # which is what a row has that was not finite before
    assert np.isnan(small(np.ones((2, 3, 4), "f4"), state)[0][1, :, 3]).all()
    layer.parameters["h0_l0"][2] = 1.5
    with pytest.raises(ValueError, match=r"h0_l0: expected numbers within -1..1 for int8, got 1.5"):
        layer.astype("int8")


@pytest.mark.parametrize("value", [7e4, np.inf, np.nan])
def test_weights_that_a_precision_does_not_hold(precision, value):
    layer = LSTM(4, 5, seed=1)
    layer.parameters["weight_ih_l0"][3, 2] = value
    if value == 7e4 and precision != "float16":
        assert np.isfinite(layer.astype(precision).parameters["weight_ih_l0"]).all()
        return
    with pytest.raises(ValueError, match=f"weight_ih_l0: expected numbers within -.*, which {precision} holds, got"):
        layer.astype(precision)


def test_too_wide_for_int8():
    layer = LSTM(65537, 1, seed=1)
    with pytest.raises(ValueError, match="weight_ih_l0: expected at most 65536 columns for int8, got 65537"):
        layer.astype("int8")
    assert LSTM(65536, 1, seed=1).astype("int8")(np.ones((1, 65536), "f4"))[0].shape == (1, 1)


def test_another_instruction_set_packs_anew(precision, rng):
    small, x = LSTM(20, 30, seed=1).astype(precision), rng.standard_normal((2, 3, 20)).astype("f4")
    before, (expected, _) = kernels.instruction_set(), small(x)
    try:
        for name in kernels.available():
            kernels.use(name)
            np.testing.assert_allclose(small(x)[0], expected, atol=2e-2)
    finally:
        kernels.use(before)
