"""Numbers that are not finite, huge or tiny: every instruction set gives what the others give and what the oracle does,
for one row and for many. Tiles of AMX, which cannot hold them, leave them to the other kernels."""

import numpy as np
import pytest

from cylstm import LSTM, Model, losses, oracle
from cylstm._core import head, kernels

I, H, T, B = 40, 24, 5, 20  # enough of each for tiles

# name -> one feature of one row, or every feature there is (of the given size)
FEATURES = {
    "infinite": np.inf,
    "minus infinite": -np.inf,
    "1e38": 1e38,
    "the largest": np.finfo("f4").max,
    "rounds to infinity": np.float32(3.395e38),
    "1e20": 1e20,
    "subnormal": 1e-40,
    "1e-38": 1.2e-38,
    "1e-30": 1e-30,
}


NORMS = None, "ba", ("torchscript", 1e-12)  # beside whose eps gradients are divided by 1e-6 at most


def layer_of(norm=None):
    return LSTM(I, H, 2, seed=1, layer_norm=norm)


def arrays(rng):
    x, dy = (rng.standard_normal((B, T, n)).astype("f4") for n in (I, H))
    state, dstate = (tuple(rng.standard_normal((2, 2, B, H)).astype("f4")) for _ in range(2))
    return x, state, dy, dstate


def everything(layer, x, state, dy, dstate, **options):
    """Outputs, states and all gradients by name."""
    y, final, tape = layer.forward(x, state, **options)
    gradients = layer.backward(tape, dy, dstate)
    return {"y": y, "h": final.h, "c": final.c, "dx": gradients.x, "dh0": gradients.state.h,
            "dc0": gradients.state.c, **gradients.parameters}  # fmt: skip


def expected_of(layer, x, state, dy, dstate):
    parameters = {name: values.astype(float) for name, values in layer.parameters.items()}
    state, norm = tuple(s.astype(float) for s in state), layer.cell.layer_norm
    y, final, tape = oracle.forward(x.astype(float), parameters, state, num_layers=2, layer_norm=norm)
    dx, (dh, dc), dparameters = oracle.backward(tape, dy.astype(float), tuple(d.astype(float) for d in dstate))
    return {"y": y, "h": final[0], "c": final[1], "dx": dx, "dh0": dh, "dc0": dc, **dparameters}


def on_another_set(layer, call):
    """What the widest instruction set without tiles gives."""
    before = kernels.instruction_set()
    kernels.use([name for name in kernels.available() if name != "amx"][-1])
    try:
        return call()
    finally:
        kernels.use(before)


def same_but_for_rounding(got, expected, what=""):
    """The same places are finite, and there the numbers agree, relative to the largest."""
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(got), finite, what)
    scale = np.abs(expected[finite]).max(initial=0)
    np.testing.assert_allclose(got[finite], expected[finite], rtol=0, atol=2e-5 * scale + 2e-42, err_msg=what)


@pytest.mark.parametrize("feature", FEATURES)
def test_one_feature_of_one_row(isa, rng, feature):
    """Saturated gates, not NaN; the row alone gives the same, and nothing reaches other rows."""
    layer, (x, *_) = layer_of(), arrays(rng)
    clean, _ = layer(x)
    x[3, 2, 7] = FEATURES[feature]
    y, (h, c) = layer(x)
    alone, _ = layer(x[3])
    assert np.isfinite(y).all() and np.isfinite(h).all() and np.isfinite(c).all()
    same_but_for_rounding(y[3], alone)
    same_but_for_rounding(np.delete(y, 3, 0), np.delete(clean, 3, 0))
    same_but_for_rounding(layer.forward(x)[0], y)
    parameters = {name: values.astype(float) for name, values in layer.parameters.items()}
    bounded = np.clip(x.astype(float), -1e300, 1e300)
    same_but_for_rounding(y, oracle.forward(bounded, parameters, num_layers=2)[0])


@pytest.mark.parametrize("scale", [1e-42, 1.2e-38, 1e-36, 1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize("what", ["x", "state", "dy", "weights"])
def test_all_numbers_small_or_large(isa, rng, what, scale):
    """Subnormal parts of tiles would count as zero, and products that overflow for infinite."""
    layer, (x, state, dy, dstate) = layer_of(), arrays(rng)
    layer.parameters["bias_l0"][:] = layer.parameters["bias_l1"][:] = 0
    scale = np.float32(scale)
    if what == "x":
        x *= scale
    elif what == "state":
        state = state[0] * scale, state[1]
    elif what == "dy":
        dy, dstate = dy * scale, tuple(part * scale for part in dstate)
    else:
        layer.parameters["weight_ih_l0"][:] *= scale
    if what in ("x", "weights") and scale < 1:
        state = tuple(part * 0 for part in state)  # so that there is nothing beside which they vanish
    got, exact = everything(layer, x, state, dy, dstate), expected_of(layer, x, state, dy, dstate)
    for name in got:
        if scale < 1 or what == "dy" or name in ("y", "h", "c"):
            same_but_for_rounding(got[name], exact[name], name)
        else:  # gates closed to 2e-19, times large numbers
            assert np.isfinite(got[name]).all(), name


@pytest.mark.parametrize(("name", "scale"), [("h", 1e-38), ("c", 1e-38), ("dh", 1e-38), ("dc", 1e-38), ("dc", 1e30)])
def test_one_row_of_one_state(isa, rng, name, scale):
    """The last row's of the last layer; all else is zero, and would do for tiles."""
    layer, (x, state, dy, dstate) = layer_of(), arrays(rng)
    layer.parameters["bias_l0"][:] = layer.parameters["bias_l1"][:] = 0
    states = dict(h=state[0], c=state[1], dh=dstate[0], dc=dstate[1])
    row = states[name][-1, -1] * np.float32(scale)
    for array in (x, dy, *states.values()):
        array[...] = 0
    states[name][-1, -1] = row
    got, exact = everything(layer, x, state, dy, dstate), expected_of(layer, x, state, dy, dstate)
    for name in got:
        same_but_for_rounding(got[name], exact[name], name)


@pytest.mark.parametrize("norm", NORMS[1:])
@pytest.mark.parametrize("name", ["norm_ih_l0", "norm_hh_l1", "norm_c_l0", "x", "dy", None])
@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e9, 1e18])
def test_layer_norms_gains_small_or_large(isa, rng, name, scale, norm):
    """Gains multiply gradients, which deviations divide: tiles are for ordinary ones. What is large saturates gates."""
    layer, (x, state, dy, dstate) = layer_of(norm), arrays(rng)
    if name is not None:
        {"x": x, "dy": dy, **layer.parameters}[name][...] *= np.float32(scale)
    got, expected = everything(layer, x, state, dy, dstate), None
    expected = on_another_set(layer, lambda: everything(layer, x, state, dy, dstate))
    for name in got:
        same_but_for_rounding(got[name], expected[name], name)


def break_weight(layer):
    layer.parameters["weight_hh_l0"][5, 3] = np.inf


def large_weights(layer):
    layer.parameters["weight_ih_l1"][:] *= np.float32(1e30)


BREAKS = {
    "a NaN in x": lambda layer, x, state, dy, dstate: x.__setitem__((3, 2, 7), np.nan),
    "infinite x": lambda layer, x, state, dy, dstate: x.__setitem__((3, 2, 7), np.inf),
    "infinite h0": lambda layer, x, state, dy, dstate: state[0].__setitem__((1, 3, 2), -np.inf),
    "infinite c0": lambda layer, x, state, dy, dstate: state[1].__setitem__((0, 3, 2), np.inf),
    "infinite dy": lambda layer, x, state, dy, dstate: dy.__setitem__((3, 4, 7), np.inf),
    "the largest dy": lambda layer, x, state, dy, dstate: dy.__setitem__((3, 4, 7), 3.4e38),
    "infinite dh": lambda layer, x, state, dy, dstate: dstate[0].__setitem__((1, 3, 2), np.inf),
    "infinite dc": lambda layer, x, state, dy, dstate: dstate[1].__setitem__((1, 3, 2), np.inf),
    "infinite weights": lambda layer, *_: break_weight(layer),
    "large weights": lambda layer, *_: large_weights(layer),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("broken", BREAKS)
def test_what_is_not_finite_comes_out_where_it_does_elsewhere(isa, rng, broken, norm):
    """Outputs, states and all gradients are finite in the same places as with kernels that have no tiles, and agree
    there; rows that hold nothing of it are what they are without it."""
    layer, given = layer_of(norm), arrays(rng)
    clean = everything(layer, *given)
    BREAKS[broken](layer, *given)
    got = everything(layer, *given)
    expected = on_another_set(layer, lambda: everything(layer, *given))
    for name in got:
        same_but_for_rounding(got[name], expected[name], name)
    if "weights" not in broken:
        for name, axis in {"y": 0, "dx": 0, "h": 1, "c": 1, "dh0": 1, "dc0": 1}.items():
            same_but_for_rounding(np.delete(got[name], 3, axis), np.delete(clean[name], 3, axis), name)
    again = everything(layer, *arrays(rng))  # what the memory holds of it reaches no later call
    assert "weights" in broken or all(np.isfinite(values).all() for values in again.values())


def test_every_step_of_time_major_inputs_is_looked_at(isa, rng):
    layer, (x, state, dy, dstate) = layer_of(), arrays(rng)
    x[3, T - 1, 7] = np.inf
    expected = on_another_set(layer, lambda: everything(layer, x, state, dy, dstate))
    got = everything(layer, np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1), state, dy, dstate)
    for name in got:
        same_but_for_rounding(got[name], expected[name], name)


def test_what_stands_behind_a_state_decides_nothing(isa, rng):
    layer, (x, state, dy, dstate) = layer_of(), arrays(rng)

    def before_nan(array):
        memory = np.full((2, *array.shape), np.nan, "f4")
        memory[0] = array
        return memory[0]

    expected = everything(layer, x, state, dy, dstate)
    got = everything(layer, x, tuple(map(before_nan, state)), dy, tuple(map(before_nan, dstate)))
    assert not [name for name in expected if not np.array_equal(got[name], expected[name])]


def test_what_stands_past_a_rows_end_decides_nothing(isa, rng):
    """Not even which kernels a call takes: the bits are the same."""
    layer, (x, state, dy, dstate) = layer_of(), arrays(rng)
    lengths = rng.integers(1, T, B)
    expected = everything(layer, x, state, dy, dstate, lengths=lengths)
    past = np.arange(T) >= lengths[:, None]
    x[past], dy[past] = np.inf, np.nan
    got = everything(layer, x, state, dy, dstate, lengths=lengths)
    for name in got:
        np.testing.assert_array_equal(got[name], expected[name], name)
    time_major = np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
    np.testing.assert_array_equal(layer(time_major, state, lengths=lengths)[0], got["y"])


def test_layouts_of_what_is_not_finite(isa, rng):
    """Wherever the caller's rows lie, the number is found."""
    layer, (x, *_) = layer_of(), arrays(rng)
    for place in [(0, 0, 0), (B - 1, T - 1, I - 1), (7, 3, 17)]:
        given = x.copy()
        given[place] = np.inf
        expected, _ = layer(given)
        assert np.isfinite(expected).all()
        layouts = [np.ascontiguousarray(given.swapaxes(0, 1)).swapaxes(0, 1), np.repeat(given, 2, axis=0)[::2],
                   np.repeat(given, 2, axis=1)[:, ::2]]  # fmt: skip
        for layout in layouts:
            np.testing.assert_array_equal(layer(layout)[0], expected)
    x_t = x[:, 0].copy()
    x_t[B - 1, I - 1] = -np.inf
    assert (
        np.isfinite(layer.step(x_t, None)[0]).all()
        and np.isfinite(layer.step(np.repeat(x_t, 2, 0)[::2], None)[0]).all()
    )


def test_weights_that_become_ordinary_again_go_on_as_before(isa, rng):
    layer, (x, *_) = layer_of(), arrays(rng)
    expected = layer(x)[0]
    view = layer.parameters["weight_hh_l0"]
    kept = view[3, 3]
    for value in (np.inf, 1e35, kept):
        view[3, 3] = value
        y = layer(x)[0]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("broken", ["weight", "large weight", "target", "row"])
def test_the_head_and_its_loss(isa, rng, loss, broken):
    """As the layer: 64 rows and more of 16 features and outputs and more go by tiles."""
    model = Model(I, H, 30, loss=loss, seed=1)
    x = rng.standard_normal((B, T, I)).astype("f4")
    y = rng.integers(0, 30, (B, T)) if loss == "cross_entropy" else rng.standard_normal((B, T, 30)).astype("f4")
    clean, _ = model(x)
    if broken == "weight":
        model.parameters["head.weight"][4, 5] = np.inf
    elif broken == "large weight":
        model.parameters["head.weight"][4, 5] = 3.4e38
    elif broken == "row":
        x[3, 2, 1] = np.nan
    elif loss == "mse":
        y *= np.float32(1e30)
    results = [model, lambda x: on_another_set(model, lambda: model(x))]
    outputs, others = (call(x)[0] for call in results)
    same_but_for_rounding(outputs, others)
    if broken == "row":
        same_but_for_rounding(np.delete(outputs, 3, 0), np.delete(clean, 3, 0))
        assert np.isnan(outputs[3, 2:]).all() and np.isfinite(outputs[3, :2]).all()
        return
    got = model.loss_and_gradients(x, y)
    expected = on_another_set(model, lambda: model.loss_and_gradients(x, y))
    np.testing.assert_allclose(got.loss, expected.loss, rtol=1e-5)
    for name in got.gradients:
        same_but_for_rounding(got.gradients[name], expected.gradients[name], name)


@pytest.mark.parametrize("tiny", [slice(0, 300), slice(0, 128), slice(128, 256), slice(256, 300)])
def test_slopes_of_the_heads_outputs_whose_lower_parts_are_subnormal(isa, rng, tiny):
    """In all of the three chunks of rows, or in one of them, which alone must not go by tiles."""
    N, F, O = 300, 70, 2_203
    h, weight = rng.uniform(-0.9, 0.9, (N, F)).astype("f4"), 0.1 * rng.standard_normal((O, F)).astype("f4")
    slopes = rng.standard_normal((N, O)).astype("f4")
    slopes[tiny] *= np.float32(1e-36)
    dh, dweight, dbias = np.empty_like(h), np.empty_like(weight), np.empty(O, "f4")
    head.loss(losses.GivenGradient(), h, weight, None, slopes, scale=1.0, dh=dh, dweight=dweight, dbias=dbias)
    same_but_for_rounding(dh[tiny], slopes[tiny].astype(float) @ weight, "dh")
    same_but_for_rounding(dweight, slopes.T.astype(float) @ h, "dweight")
    same_but_for_rounding(dbias, slopes.sum(axis=0, dtype=float), "dbias")
