"""Losses of one's own: `Model.forward` gives outputs and a tape, `Model.backward` makes gradients of theirs."""

import numpy as np
import pytest

from cylstm import LSTM, Model, State

V, E, H, O, B, T = 5, 4, 7, 3, 4, 6
VARIANTS = {
    "features": {},
    "ids": {"ids": True},
    "embedding": {"ids": True, "embedding_size": E},
    "last": {"output": "last"},
    "both directions": {"output": "last", "bidirectional": True, "num_layers": 2},
    "no bias": {"head_bias": False, "bidirectional": True},
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    return dict(VARIANTS[request.param])


def made(variant, **options):
    ids = variant.pop("ids", False)
    return Model(V, H, O, loss="mse", dtype="float64", seed=1, **variant, **options), ids


def some_data(rng, model, ids):
    x = rng.integers(0, V, (B, T)) if ids else rng.standard_normal((B, T, V))
    return x, rng.standard_normal((B, O) if model.output == "last" else (B, T, O))


def agree(got, expected, names=None):
    for name in names or expected:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-9, atol=1e-12 * scale, err_msg=name)


@pytest.mark.parametrize("lengths", [None, [6, 1, 0, 4]])
def test_a_loss_that_the_package_knows_too(isa, rng, variant, lengths):
    model, ids = made(variant)
    x, y = some_data(rng, model, ids)
    resets = rng.random((B, T)) < 0.2
    start = State(*rng.standard_normal((2, *model.initial_state(B).h.shape)))
    options = dict(lengths=lengths, resets=resets)
    expected = model.loss_and_gradients(x, y, state=start, **options)
    outputs, final, tape = model.forward(x, start, **options)
    plain, plain_final = model(x, start, **options)
    np.testing.assert_array_equal(outputs, plain)
    np.testing.assert_array_equal(np.stack(final), np.stack(plain_final))
    real = np.arange(T) < np.array(lengths or [T] * B)[:, None]
    tokens = B if model.output == "last" else real.sum()
    d_outputs = 2 * (outputs - y) / (tokens * O)
    if model.output == "sequence":
        d_outputs[~real] = np.nan  # which nobody may look at
    found = model.backward(tape, d_outputs)
    agree(found.parameters, expected.gradients)
    assert (found.x is None) == ids


def test_gradients_of_inputs_and_states_are_differences(rng, variant):
    """Of a loss that neither is a mean nor knows of tokens: sin(outputs), and the product of the final states."""
    model, ids = made(variant, peepholes=True)
    x, _ = some_data(rng, model, ids)
    start = State(*rng.standard_normal((2, *model.initial_state(B).h.shape)))
    lengths = np.array([6, 2, 5, 3])

    def loss(x, start):
        outputs, final = model(x, start, lengths=lengths)
        past = np.arange(T) >= lengths[:, None]
        if model.output == "sequence":
            outputs = np.where(past[..., None], 0, outputs)
        return np.sin(outputs).sum() + (final.h * final.c).sum()

    outputs, final, tape = model.forward(x, start, lengths=lengths)
    found = model.backward(tape, np.cos(outputs), State(final.c, final.h))
    step = 1e-6
    pairs = [(values, found.parameters[name]) for name, values in model.parameters.items()]
    pairs += list(zip(start, found.state, strict=True)) + ([] if ids else [(x, found.x)])
    for values, gradient in pairs:
        for place in zip(*np.unravel_index(rng.integers(0, values.size, 6), values.shape), strict=True):
            kept = values[place]
            values[place] = kept + step
            above = loss(x, start)
            values[place] = kept - step
            below = loss(x, start)
            values[place] = kept
            assert gradient[place] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-7)


def test_one_sequence_without_a_batch(rng):
    for output in ("sequence", "last"):
        model, _ = made({"output": output})
        x = rng.standard_normal((T, V))
        outputs, _, tape = model.forward(x)
        np.testing.assert_array_equal(outputs, model(x)[0])
        d_outputs = rng.standard_normal(outputs.shape)
        found = model.backward(tape, d_outputs)
        batch = model.backward(model.forward(x[None])[2], d_outputs[None])
        np.testing.assert_array_equal(found.x, batch.x[0])
        np.testing.assert_array_equal(found.parameters.flat, batch.parameters.flat)


def test_dropout_is_that_of_loss_and_gradients(rng):
    model, twin = (Model(V, H, O, num_layers=2, dropout=0.5, loss="mse", dtype="float64", seed=1) for _ in range(2))
    x, y = some_data(rng, model, False)
    expected = twin.loss_and_gradients(x, y)
    outputs, _, tape = model.forward(x)
    assert np.abs(outputs - model(x)[0]).max() > 1e-3
    agree(model.backward(tape, 2 * (outputs - y) / y.size).parameters, expected.gradients)


def test_gradients_go_into_what_is_given_and_the_products_asked_for_only(rng):
    model, _ = made({})
    x, y = some_data(rng, model, False)
    out = model.loss_and_gradients(x, y).gradients
    found = model.backward(model.forward(x)[2], y, out=out, input_gradient=False)
    assert found.parameters is out and found.x is None
    np.testing.assert_array_equal(out.flat, model.backward(model.forward(x)[2], y).parameters.flat)


def test_what_goes_wrong_is_named(rng):
    model, _ = made({})
    x, y = some_data(rng, model, False)
    _, final, tape = model.forward(x)
    other = made({})[0].forward(x)[2]
    layer = LSTM(V, H, dtype="float64", seed=1).forward(x)[2]
    for arguments, error, message in [
        ((other, y), TypeError, "tape: expected a tape of this model's forward, got ModelTape"),
        ((layer, y), TypeError, "tape: expected a tape of this model's forward, got Tape"),
        ((tape, y[:, 1:]), ValueError, r"d_outputs: expected \(4, 6, 3\), got \(4, 5, 3\)"),
        ((tape, y > 0), TypeError, "d_outputs: expected floating-point numbers, got bool"),
        ((tape, y, State(final.h[:, 1:], final.c)), ValueError, r"d_state.h: expected \(1, 4, 7\), got \(1, 3, 7\)"),
    ]:
        with pytest.raises(error, match=message):
            model.backward(*arguments)
    model.backward(tape, y)
    with pytest.raises(ValueError, match="tape: expected a tape that no backward call has used, got one that was"):
        model.backward(tape, y)
    for name in ("head.weight", "lstm.weight_hh_l0"):
        _, _, tape = model.forward(x)
        out = model.loss_and_gradients(x, y).gradients
        before = out.flat.copy()
        model.parameters[name][0, 0] += 1
        with pytest.raises(
            ValueError, match="tape: expected the weights that forward saw, but they have changed since"
        ):
            model.backward(tape, y, out=out)
        np.testing.assert_array_equal(out.flat, before)
    for wrong, message in [(x[0, 0], r"x: expected \(B, T, 5\) or \(T, 5\), got \(5,\)"), (x[None], "x: expected")]:
        with pytest.raises(ValueError, match=message):
            model.forward(wrong)
    with pytest.raises(ValueError, match=r"x: expected \(B, T\) or \(T,\), got \(2, 3, 4\)"):
        model.forward(np.zeros((2, 3, 4), int))
