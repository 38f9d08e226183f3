"""Other packages' Cython and C code: tests/downstream is built against the installed cylstm."""

import importlib
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cylstm
from cylstm import LSTM, oracle
from cylstm._core import kernels
from cylstm.calls import Call

COMPILER = shutil.which(os.environ.get("CC", "cc"))


@pytest.fixture(scope="session")
def streams(tmp_path_factory):
    """The module of the sample package."""
    if COMPILER is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("downstream")
    shutil.copytree(Path(__file__).parent / "downstream", folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index",
               "--target", str(folder / "site"), str(folder / "source")]  # fmt: skip
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    sys.path.insert(0, str(folder / "site"))
    try:
        yield importlib.import_module("downstream.streams")
    finally:
        sys.path.remove(str(folder / "site"))


def expect_same(got, expected, bound=1e-11):
    np.testing.assert_allclose(got, expected, rtol=0, atol=bound * np.abs(expected).max())


@pytest.mark.parametrize("B, T, I, H, P, L, D, ragged", [(5, 7, 3, 11, 0, 2, 2, True), (37, 9, 18, 65, 0, 2, 1, False),
                                                         (1, 23, 6, 17, 0, 1, 1, False), (6, 7, 3, 19, 5, 2, 2, True),
                                                         (9, 8, 5, 20, 17, 2, 1, False)])  # fmt: skip
def test_cython_calls_give_the_oracles_numbers(streams, isa, rng, B, T, I, H, P, L, D, ragged):
    layer, Y = LSTM(I, H, L, bidirectional=D == 2, proj_size=P, dtype="float64", seed=1), P or H
    lengths = rng.integers(1, T + 1, B) if ragged else None
    resets = rng.random((B, T)) < 0.2 if ragged else None
    x, dy = rng.standard_normal((B, T, I)), rng.standard_normal((B, T, D * Y))
    h0, c0, dhn, dcn = (rng.standard_normal((L * D, B, width)) for width in (Y, H, Y, H))
    call = Call(layer, B, T, lengths=lengths, resets=resets, training=True)
    for _ in range(2):  # memory used again must not show
        got = streams.train(call, x, h0, c0, dy, dhn, dcn)
    y, (hn, cn), tape = oracle.forward(
        x, dict(layer.parameters), (h0, c0), num_layers=L, bidirectional=D == 2, lengths=lengths, resets=resets
    )
    dx, (dh0, dc0), dparameters = oracle.backward(tape, dy, (dhn, dcn))
    dflat = np.concatenate([dparameters[name].ravel() for name in layer.parameters])
    for name, expected in dict(y=y, hn=hn, cn=cn, dx=dx, dh0=dh0, dc0=dc0, dflat=dflat).items():
        expect_same(got[name], expected)


@pytest.mark.parametrize("given", [True, False])
def test_a_first_state(streams, rng, given):
    """Where no state is given, and at resets."""
    layer = LSTM(3, 11, 2, dtype="float64", first_state=True, seed=1)
    x, dy = rng.standard_normal((5, 7, 3)), rng.standard_normal((5, 7, 11))
    for values in layer.parameters.values():
        values[...] += 0.3 * rng.standard_normal(values.shape)
    resets = rng.random((5, 7)) < 0.3
    h0, c0, dhn, dcn = rng.standard_normal((4, 2, 5, 11))
    y, final, tape = layer.forward(x, (h0, c0) if given else None, resets=resets)
    expected = layer.backward(tape, dy, (dhn, dcn))
    got = streams.train(Call(layer, 5, 7, resets=resets, training=True), x, h0, c0, dy, dhn, dcn, given)
    assert np.array_equal(got["y"], y) and np.array_equal(got["hn"], final.h)
    assert np.array_equal(got["dflat"], expected.parameters.flat) and np.array_equal(got["dh0"], expected.state.h)


BETWEEN = {
    "merged": dict(hidden_size=11, num_layers=2, bidirectional=True, merge="product"),
    "residual": dict(hidden_size=9, num_layers=3, residual=True),
    "highway": dict(hidden_size=9, num_layers=3, highway=True, bidirectional=True),
    "widths": dict(hidden_size=(5, 17, 3), bidirectional=True),
    "norms": dict(hidden_size=(5, 17, 3), bidirectional=True, layer_norm="torchscript"),
}


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("name", BETWEEN)
def test_what_lies_between_layers(streams, rng, name, ragged):
    """The bits of the layer's own calls."""
    layer = LSTM(3, dtype="float64", seed=1, **BETWEEN[name])
    x, dy = rng.standard_normal((5, 7, 3)), rng.standard_normal((5, 7, layer.output_size))
    shape = layer.num_layers * layer.num_directions, 5, layer.hidden_size
    h0, c0, dhn, dcn = rng.standard_normal((4, *shape))
    options = dict(lengths=[7, 0, 3, 5, 7], resets=rng.random((5, 7)) < 0.3) if ragged else {}
    y, final, tape = layer.forward(x, (h0, c0), **options)
    expected = layer.backward(tape, dy, (dhn, dcn))
    got = streams.train(Call(layer, 5, 7, training=True, **options), x, h0, c0, dy, dhn, dcn)
    expected = dict(y=y, hn=final.h, cn=final.c, dx=expected.x, dh0=expected.state.h, dc0=expected.state.c,
                    dflat=expected.parameters.flat)  # fmt: skip
    assert all(np.array_equal(got[name], values) for name, values in expected.items())


@pytest.mark.parametrize("name", ["residual", "highway"])
def test_a_stream_whose_outputs_are_no_state_is_refused(streams, rng, name):
    call = Call(LSTM(3, 21, 2, dtype="float64", **{name: True}), 4, 1)
    with pytest.raises(
        ValueError, match=f"step: expected a layer whose outputs are its state's h, got one with {name}$"
    ):
        streams.stream(call, rng.standard_normal((2, 4, 3)), *np.zeros((2, 2, 4, 21)))


@pytest.mark.parametrize("zoneout", [(0.0, 0.0), (0.4, 0.3)])
def test_what_is_not_wanted_is_left_out(streams, rng, zoneout):
    layer, x = LSTM(3, 21, 2, zoneout=zoneout, seed=1), rng.standard_normal((6, 5, 3)).astype("f4")
    expected, _ = layer(x)
    assert np.array_equal(streams.outputs(Call(layer, 6, 5), x, 21), expected)


@pytest.mark.parametrize("options", [{}, dict(zoneout=(0.4, 0.3)), dict(layer_norm="ba", zoneout=(0.4, 0.3))])
def test_a_stream_gives_the_bits_of_a_sequence(streams, rng, options):
    layer, x = LSTM(3, 21, 2, dtype="float64", seed=1, **options), rng.standard_normal((30, 4, 3))
    h, c = rng.standard_normal((2, 2, 4, 21))
    expected, final = layer(x.swapaxes(0, 1), (h, c))
    y = streams.stream(Call(layer, 4, 1), x, h, c)
    assert np.array_equal(y.swapaxes(0, 1), expected)
    assert np.array_equal(h, final.h) and np.array_equal(c, final.c)


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_a_long_call_of_another_thread_needs_no_gil(streams, rng):
    """In a child: a thread that asked for the GIL would wait for ever."""
    layer, x = LSTM(8, 200, seed=1), rng.standard_normal((1, 60_000, 8)).astype("f4")
    expected = layer(x)[0]

    def compute():
        assert np.array_equal(streams.outputs_of_a_thread(Call(layer, *x.shape[:2]), x, 200), expected)

    child = multiprocessing.get_context("fork").Process(target=compute, daemon=True)
    child.start()
    child.join(120)
    child.kill()
    assert child.exitcode == 0


def test_weights_are_those_of_the_last_refresh(streams, rng):
    layer, x = LSTM(3, 21, seed=1), rng.standard_normal((6, 5, 3)).astype("f4")
    before, call = layer(x)[0], Call(layer, 6, 5)
    layer.parameters["weight_hh_l0"][...] *= 0.5
    after = layer(x)[0]
    assert np.array_equal(streams.outputs(call, x, 21), before)
    call.refresh()
    assert np.array_equal(streams.outputs(call, x, 21), after) and not np.array_equal(before, after)


@pytest.mark.parametrize("training", [False, True])
def test_calls_that_are_given_what_is_not_finite(streams, isa, rng, training):
    """They give the layer's bits: without tiles, for this one call."""
    layer, x = LSTM(40, 24, 2, seed=1), rng.standard_normal((20, 5, 40)).astype("f4")
    call, broken = Call(layer, 20, 5, training=training), x.copy()
    broken[3, 2, 7] = np.inf
    for given in (x, broken, x, broken):
        y = streams.outputs(call, given, 24)
        assert np.array_equal(y, layer(given)[0]) and np.isfinite(y).all()
    layer.parameters["weight_ih_l1"][:] *= np.float32(1e20)
    call.refresh()
    for given in (x, broken):
        assert np.array_equal(streams.outputs(call, given, 24), layer(given)[0])


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
def test_calls_of_layers_in_fewer_bits(streams, isa, rng, precision):
    small, x = LSTM(40, 24, 2, seed=1).astype(precision), rng.standard_normal((20, 5, 40)).astype("f4")
    call = Call(small, 20, 5)
    for _ in range(2):
        np.testing.assert_array_equal(streams.outputs(call, x, 24), small(x)[0])
    h0 = rng.uniform(-1, 1, (2, 20, 24)).astype("f4")
    np.testing.assert_array_equal(streams.outputs(call, x, 24, h0), small(x, (h0, np.zeros_like(h0)))[0])
    h0[1, 3, 7] = -1.5
    if precision == "int8":
        with pytest.raises(ValueError, match=r"h0: expected numbers within -1\.\.1, which int8 has"):
            streams.outputs(call, x, 24, h0)
    with pytest.raises(ValueError, match="layer: expected parameters in float32 or float64, which have gradients"):
        Call(small, 20, 5, training=True)


def test_training_calls_and_the_layers_own_do_not_disturb_each_other(streams, rng):
    """Large packed weights of the two passes may share memory, which a Call, in need of both, must not."""
    layer = LSTM(40, 200, dtype="float64", seed=1)
    x, dy = rng.standard_normal((3, 4, 40)), rng.standard_normal((3, 4, 200))
    zeros = np.zeros((4, 1, 3, 200))
    call = Call(layer, 3, 4, training=True)
    expected = streams.train(call, x, zeros[0], zeros[1], dy, zeros[2], zeros[3])
    y, _, tape = layer.forward(x)
    assert np.array_equal(layer.backward(tape, dy).parameters.flat, expected["dflat"])
    again = streams.train(call, x, zeros[0], zeros[1], dy, zeros[2], zeros[3])
    assert np.array_equal(y, expected["y"]) and all(np.array_equal(again[name], expected[name]) for name in again)


def test_backward_needs_a_forward_each_time(streams, rng):
    layer, dy = LSTM(3, 21, dtype="float64", seed=1), rng.standard_normal((6, 5, 21))
    call = Call(layer, 6, 5, training=True)
    with pytest.raises(RuntimeError, match="backward: expected a forward call with training=True before each, got no"):
        streams.parameter_gradients(call, dy)
    x, (h, c, dh, dc) = rng.standard_normal((6, 5, 3)), np.zeros((4, 1, 6, 21))
    streams.train(call, x, h, c, dy, dh, dc)
    with pytest.raises(RuntimeError, match="backward: expected a forward call"):
        streams.parameter_gradients(call, dy)


def test_a_call_of_the_other_type_is_refused(streams, rng):
    with pytest.raises(TypeError, match=r"layer: expected one of the call's type, got .*float64"):
        streams.outputs(Call(LSTM(3, 21, dtype="float64"), 6, 5), rng.standard_normal((6, 5, 3)).astype("f4"), 21)


@pytest.mark.parametrize("steps, D", [(2, 1), (1, 2)])
def test_a_stream_needs_one_step_and_one_direction(streams, rng, steps, D):
    call = Call(LSTM(3, 21, bidirectional=D == 2, dtype="float64"), 4, steps)
    with pytest.raises(ValueError, match=f"step: expected a call of one step and direction, got {steps} and {D}"):
        streams.stream(call, rng.standard_normal((2, 4, 3)), *np.zeros((2, D, 4, 21)))


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        (("lstm", 1, 1), {}, "layer: expected an LSTM, got str 'lstm'"),
        ((LSTM(2, 3), 0, 1), {}, "batch_size: expected an integer >= 1, got 0"),
        ((LSTM(2, 3), 1, 2.0), {}, "steps: expected an integer, got float"),
        ((LSTM(2, 3), 2**16, 2**16), {}, "batch_size, steps: expected at most"),
        ((LSTM(2, 3), 2, 4), {"lengths": [4, 5]}, r"lengths\[1\]: expected a length in 0..4, got 5"),
        ((LSTM(2, 3), 2, 4), {"resets": [True]}, r"resets: expected \(2, 4\), got \(1,\)"),
        (
            (LSTM(2, 3, 2, dropout=0.5), 2, 4),
            {"training": True},
            "layer: expected one without dropout, got dropout=0.5",
        ),
        ((LSTM.__new__(LSTM), 2, 4), {}, "layer: expected LSTM.__init__ to have run"),
    ],
)
def test_a_call_that_cannot_be_is_refused_when_it_is_made(arguments, options, message):
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        Call(*arguments, **options)


def test_c_code_takes_the_kernels_from_the_header(streams, isa, rng):
    x = 4 * rng.standard_normal(1001)
    expect_same(streams.sigmoid(isa.encode(), x), oracle.sigmoid(x), 1e-15)
    expect_same(streams.sigmoid(b"", x), oracle.sigmoid(x), 1e-15)
    with pytest.raises(ValueError, match="isa: expected an instruction set of this processor, got mmx"):
        streams.sigmoid(b"mmx", x)


def test_the_headers_are_installed():
    assert {"cylstm.h", "kernels.h", "kernels.def"} <= set(os.listdir(cylstm.get_include()))


def test_a_call_made_for_another_instruction_set_is_not_refreshed(streams, rng):
    names, before = kernels.available(), kernels.instruction_set()
    x = rng.standard_normal((6, 5, 3)).astype("f4")
    if len(names) < 2:
        pytest.skip("needs two instruction sets")
    try:
        kernels.use(names[0])
        call = Call(LSTM(3, 21, seed=1), 6, 5)
        expected = streams.outputs(call, x, 21)
        kernels.use(names[-1])
        with pytest.raises(ValueError, match="refresh: expected the instruction set that the call was made for"):
            call.refresh()
        with pytest.raises(RuntimeError, match="call: expected one that is made and refreshed"):
            streams.outputs(call, x, 21)
        kernels.use(names[0])
        call.refresh()
        assert np.array_equal(streams.outputs(call, x, 21), expected)
    finally:
        kernels.use(before)
