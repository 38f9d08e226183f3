"""What a caller of the layer can get wrong: each is named, before anything is touched."""

import numpy as np
import pytest

from cylstm import LSTM, State

SHAPE = dict(input_size=5, hidden_size=19, num_layers=2)
same = np.testing.assert_array_equal

GOOD = np.random.default_rng(3).standard_normal((4, 6, 5))
BAD_CALLS = {
    "rank": (dict(x=GOOD[0, 0]), ValueError, r"x: expected \(B, T, 5\) or \(T, 5\), got \(5,\)"),
    "width": (dict(x=GOOD[:, :, :4]), ValueError, r"x: expected \(B, T, 5\) or \(T, 5\), got \(4, 6, 4\)"),
    "complex": (dict(x=GOOD * 1j), TypeError, "x: expected floating-point numbers, got complex128"),
    "text": (dict(x=np.array([["a"] * 5])), TypeError, "x: expected floating-point numbers"),
    "boolean": (dict(x=GOOD > 0), TypeError, "x: expected floating-point numbers, got bool"),
    "ragged list": (dict(x=[[0.5], [0.5, 1.5]]), (TypeError, ValueError), "."),
    "empty": (dict(x=GOOD[:0]), ValueError, r"x: expected at least one row and one step, got \(0, 6, 5\)"),
    "no steps": (dict(x=GOOD[:, :0]), ValueError, r"x: expected at least one row and one step, got \(4, 0, 5\)"),
    "id too large": (dict(x=np.array([[0, 5]])), ValueError, r"x\[0, 1\]: expected ids in 0..4, got 5"),
    "id negative": (dict(x=np.array([[0, -1]])), ValueError, r"x\[0, 1\]: expected ids in 0..4, got -1"),
    "id beyond int64": (dict(x=np.array([[0, 2**64 - 6]], "u8")), ValueError, r"expected ids .* 18446744073709551610$"),
    "id beyond int64, swapped": (dict(x=np.array([[2**63, 0]], ">u8")), ValueError, r"got 9223372036854775808$"),
    "ids of rank 3": (dict(x=np.full((2, 3, 5), 1)), ValueError, r"x: expected ids \(B, T\) or \(T,\), or features in"),
    "masked": (dict(x=np.ma.array(GOOD, mask=GOOD > 0)), TypeError, "x: expected an array without a mask"),
    "length -1": (dict(lengths=[6, 0, -1, 2]), ValueError, r"lengths\[2\]: expected a length in 0..6, got -1"),
    "length beyond T": (dict(lengths=[6, 7, 1, 2]), ValueError, r"lengths\[1\]: expected a length in 0..6, got 7"),
    "too few lengths": (dict(lengths=[6, 3]), ValueError, r"lengths: expected \(4,\), got \(2,\)"),
    "float lengths": (dict(lengths=[6.0, 3.0, 1.0, 2.0]), TypeError, "lengths: expected integers, got float64"),
    "resets shape": (dict(resets=np.zeros((6, 4), bool)), ValueError, r"resets: expected \(4, 6\), got \(6, 4\)"),
    "resets dtype": (dict(resets=np.zeros((4, 6))), TypeError, "resets: expected booleans, got float64"),
    "state batch": (dict(state=State(np.ones((2, 3, 19)), np.ones((2, 3, 19)))), ValueError,
                    r"state.h: expected \(2, 4, 19\), got \(2, 3, 19\)"),
    "state not a pair": (dict(state=np.ones((2, 4, 19))[0, 0]), TypeError, r"state: expected a State\(h, c\)"),
    "state c": (dict(state=State(np.ones((2, 4, 19)), np.ones((2, 19)))), ValueError, r"state.c: expected"),
    "state integer": (dict(state=State(np.ones((2, 4, 19), int), np.ones((2, 4, 19)))), TypeError, r"state.h: exp"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CALLS)
@pytest.mark.parametrize("method", ["__call__", "forward"])
def test_bad_input_is_named(case, method):
    arguments, error, message = BAD_CALLS[case]
    with pytest.raises(error, match=message):
        getattr(LSTM(**SHAPE, seed=1), method)(**{"x": GOOD, **arguments})


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (dict(input_size=0, hidden_size=3), ValueError, "input_size: expected an integer >= 1, got 0"),
    (dict(input_size=3, hidden_size=2.5), TypeError, "hidden_size: expected an integer, got float 2.5"),
    (dict(input_size=3, hidden_size=True), TypeError, "hidden_size: expected an integer"),
    (dict(input_size=3, hidden_size=2, num_layers=-1), ValueError, "num_layers: expected an integer >= 1"),
    (dict(input_size=3, hidden_size=2**40), ValueError, "input_size, hidden_size: expected less than"),
    (dict(input_size=3, hidden_size=2, dropout=1.0), ValueError, r"dropout: expected a number in \[0, 1\), got 1"),
    (dict(input_size=3, hidden_size=2, dtype="float16"), ValueError, "dtype: expected 'float32' or 'float64', got"),
    (dict(input_size=3, hidden_size=2, dtype="reals"), TypeError, "dtype: expected 'float32' or 'float64'"),
    (dict(input_size=3, hidden_size=2, forget_bias=np.nan), ValueError, "forget_bias: expected a number"),
])  # fmt: skip
def test_bad_sizes_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        LSTM(**arguments)


def test_bad_gradients_and_steps_are_named(rng):
    layer = LSTM(**SHAPE, seed=1)
    y, _, tape = layer.forward(GOOD)
    with pytest.raises(ValueError, match=r"dy: expected \(4, 6, 19\), got \(4, 5, 19\)"):
        layer.backward(tape, y[:, 1:])
    with pytest.raises(ValueError, match=r"dstate.h: expected \(2, 4, 19\), got \(1, 4, 19\)"):
        layer.backward(tape, y, State(np.ones((1, 4, 19)), np.ones((2, 4, 19))))
    with pytest.raises(ValueError, match="out: expected Parameters"):
        layer.backward(tape, y, out=LSTM(5, 19).parameters)
    with pytest.raises(TypeError, match="out: expected Parameters, got dict"):
        layer.backward(tape, y, out={})
    with pytest.raises(ValueError, match="out: expected memory of its own"):
        layer.backward(tape, y, out=layer.parameters)
    with pytest.raises(TypeError, match=r"out: expected a State\(h, c\), got int 5"):
        layer.step(GOOD[:, 0], None, out=5)
    buffer = layer.initial_state(4).h
    with pytest.raises(ValueError, match="out: expected two arrays, got h and c in the same memory"):
        layer.step(GOOD[:, 0], None, out=State(buffer, buffer))
    layer.backward(tape, y)  # what was refused has not spent the tape
    with pytest.raises(ValueError, match=r"x_t: expected \(B, 5\) or \(5,\), got \(4, 6, 5\)"):
        layer.step(GOOD, layer.initial_state(4))
    with pytest.raises(ValueError, match="step: expected a layer of one direction"):
        LSTM(**SHAPE, bidirectional=True).step(GOOD[:, 0], None)
    with pytest.raises(ValueError, match=r"out.c: expected a writable, contiguous float32 \(2, 4, 19\), got float64"):
        layer.step(GOOD[:, 0], None, out=State(layer.initial_state(4).h, np.ones((2, 4, 19))))


def test_numbers_that_are_not_finite_pass_through(isa, dtype):
    layer = LSTM(**SHAPE, dtype=dtype, seed=1)
    x = GOOD.copy()
    x[1, 3, 2] = np.nan
    y, _ = layer(x)
    assert np.isnan(y[1, 3:]).all()
    assert np.isfinite(y[1, :3]).all() and np.isfinite(y[[0, 2, 3]]).all()


def test_a_subclass_that_forgot_init_is_told_so(rng):
    class Forgetful(LSTM):
        def __init__(self):
            pass

    layer = Forgetful()
    for call in (layer.initial_state, lambda: layer(np.ones((2, 3, 5))), lambda: layer.step(np.ones(5), None)):
        with pytest.raises(RuntimeError, match=r"Forgetful: expected LSTM\.__init__ to have run"):
            call()
