"""Dense layers before and after the LSTM: a model's losses and gradients are those of NumPy, and of differences."""

import copy
import pickle

import numpy as np
import pytest
from by_numpy import ByNumpy, masks_of
from gradcheck import check_gradients, gradient_error

from cylstm import Dense, Model, dense_oracle, num_threads, set_num_threads
from cylstm.activations import ACTIVATIONS
from cylstm.ctc import ctc_loss
from cylstm.data import windows

I, H, O, B, T = 3, 5, 4, 4, 6
LENGTHS = np.array([6, 1, 4, 3])
BEFORE, AFTER = [Dense(7, "gelu_tanh"), Dense(4, "tanh", bias=False)], [Dense(6, "silu"), 3]
VARIANTS = {
    "before": dict(before=BEFORE),
    "after": dict(after=AFTER),
    "both ways": dict(before=[5], after=AFTER, bidirectional=True, num_layers=2),
    "last": dict(before=BEFORE, after=[Dense(6, "elu")], output="last", bidirectional=True),
    "ids": dict(ids=True, embedding_size=3, before=BEFORE, after=[Dense(4, "softplus")]),
    "no bias": dict(after=[Dense(6, "linear", bias=False)], head_bias=False),
    "columns": dict(embeddings={1: (9, 2)}, before=BEFORE, after=AFTER),
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    return dict(VARIANTS[request.param])


def made(variant, **options):
    """A model, with weights of dense layers that its biases do not leave at 0."""
    variant.pop("ids", None)
    model = Model(I, H, O, loss="mse", **{"dtype": "float64", "seed": 1, **variant, **options})
    rng = np.random.default_rng(5)
    for name, values in model.parameters.items():
        if name.endswith("bias"):
            values[...] = 0.3 * rng.standard_normal(values.shape)
    return model


def some_data(rng, model, dtype=np.float64):
    x = rng.standard_normal((B, T, I)).astype(dtype)
    for column, (V, _) in model.embeddings.items():
        x[..., column] = rng.integers(0, V, (B, T))
    if model.embedding_size is not None:
        x = rng.integers(0, I, (B, T))
    return x, rng.standard_normal((B, O) if model.output == "last" else (B, T, O)).astype(dtype)


def rows_of(x, y, lengths):
    rows = [row[:end] for row, end in zip(x, lengths, strict=True)]
    return rows, [row[None] if row.ndim == 1 else row[:end] for row, end in zip(y, lengths, strict=True)]


def agree(got, expected, rtol=1e-9):
    for name in expected:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(got[name], expected[name], rtol=rtol, atol=rtol * scale, err_msg=name)


@pytest.mark.parametrize("given_as", ["whole", "lengths", "list", "mask"])
def test_losses_and_gradients_are_numpys(isa, rng, variant, given_as):
    """What stands past a row's end, or is masked, is not looked at."""
    model = made(variant)
    x, y = some_data(rng, model)
    lengths = np.full(B, T) if given_as == "whole" else LENGTHS
    rows, targets = rows_of(x, y, lengths)
    loss, gradients, _ = ByNumpy(model).loss_and_gradients(rows, targets)
    options, real, nothing = {}, np.arange(T) < lengths[:, None], 77 if x.ndim == 2 else np.nan
    if given_as == "list":
        x = rows
        y = y if model.output == "last" else targets
    elif given_as != "whole":
        x, y = x.copy(), y.copy()
        x[~real] = nothing
        if model.output != "last":
            y[~real] = np.nan
        options = dict(lengths=lengths)
    if given_as == "mask":
        spread = np.full_like(x, nothing)
        places = np.flip(real, axis=1)
        spread[places] = x[real]
        if model.output != "last":
            y[places], y[~places] = y[real].copy(), np.nan
        x, options = spread, dict(mask=places)
    found = model.loss_and_gradients(x, y, **options)
    assert found.loss == pytest.approx(loss, rel=1e-11)
    agree(found.gradients, gradients)
    assert model.evaluate(x, y, batch_size=3, **options)["loss"] == pytest.approx(loss, rel=1e-11)


@pytest.mark.parametrize("lengths", [None, [6, 1, 0, 4]])
def test_single_precision_is_double_precision_rounded(isa, rng, variant, lengths):
    double, single = made(dict(variant)), made(dict(variant), dtype="float32")
    single.parameters.flat = double.parameters.flat
    x, y = some_data(rng, double, np.float32)
    expected = double.loss_and_gradients(x, y, lengths=lengths)
    found = single.loss_and_gradients(x, y, lengths=lengths)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    agree(found.gradients, {name: values.astype(float) for name, values in expected.gradients.items()}, rtol=2e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(rng, activation):
    numbers = {"affine": (0.7, 0.2), "scaled_tanh": (1.7, 0.6), "leaky_relu": (0.3,)}
    if activation in numbers:
        activation = (activation, *numbers[activation])
    model = made(dict(before=[Dense(5, activation)], after=[Dense(6, activation), Dense(4, activation)]))
    x, y = some_data(rng, model)
    loss, gradients, slopes = ByNumpy(model).loss_and_gradients(list(x), list(y))
    found = model.loss_and_gradients(x, y)
    assert found.loss == pytest.approx(loss, rel=1e-11)
    agree(found.gradients, gradients)
    outputs, _, tape = model.forward(x)
    by_x = model.backward(tape, 2 * (outputs - y) / y.size)
    agree(by_x.parameters, gradients)
    np.testing.assert_allclose(by_x.x, slopes, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "elu", "softplus", "softsign", "gelu_tanh", "silu"])
def test_the_oracle_is_differences(rng, activation):
    arrays = {"h": rng.standard_normal((5, 3)), "W": rng.standard_normal((4, 3)), "b": rng.standard_normal(4)}
    mask, dy = (rng.random((5, 4)) > 0.3) / 0.7, rng.standard_normal((5, 4))

    def loss():
        return (dy * dense_oracle.dense(*arrays.values(), activation, mask)).sum()

    found = dense_oracle.dense_backward(*arrays.values(), activation, dy, mask)
    check_gradients(loss, arrays, dict(zip(arrays, found, strict=True)))


def test_gradients_are_differences(rng):
    """Of every weight, through all there is, and of numbers in x."""
    model = Model(I, 3, 2, loss="mse", dtype="float64", seed=1, embeddings={1: (4, 2)}, bidirectional=True,
                  before=[Dense(4, "gelu_tanh"), Dense(3, "softsign")], after=[Dense(4, "silu")])  # fmt: skip
    x, _ = some_data(rng, model)
    x, y, lengths = x[:3, :4], rng.standard_normal((3, 4, 2)), np.array([4, 1, 3])
    found = model.loss_and_gradients(x, y, lengths=lengths)

    def loss():
        return model.evaluate(x, y, lengths=lengths)["loss"]

    for name, values in model.parameters.items():
        assert gradient_error(loss, values, found.gradients[name].copy()) < 5e-6, name
    outputs, _, tape = model.forward(x, lengths=lengths)
    real = (np.arange(4) < lengths[:, None])[..., None]
    by_x = model.backward(tape, 2 * np.where(real, outputs - y, 0) / (2 * lengths.sum())).x
    assert not by_x[..., 1].any() and not by_x[~real[..., 0]].any()
    for column in (0, 2):
        part = np.ascontiguousarray(x[..., column])

        def moved(part=part, column=column):
            x[..., column] = part
            return loss()

        assert gradient_error(moved, part, by_x[..., column].copy()) < 5e-6
        moved()  # back to what it was


@pytest.mark.parametrize("lengths", [None, LENGTHS, [6, 1, 0, 4]])
def test_forward_and_backward_are_the_same_as_loss_and_gradients(isa, rng, variant, lengths):
    model = made(variant)
    x, y = some_data(rng, model)
    options = dict(lengths=lengths, resets=rng.random((B, T)) < 0.2)
    expected = model.loss_and_gradients(x, y, **options)
    outputs, final, tape = model.forward(x, **options)
    if model.output == "sequence":
        past = np.arange(T) >= np.array([T] * B if lengths is None else lengths)[:, None]
        assert not outputs[past].any()
        d_outputs = np.where(past[..., None], np.nan, 2 * (outputs - y) / (O * (~past).sum()))
    else:
        d_outputs = 2 * (outputs - y) / y.size
    plain, plain_final = model(x, **options)
    np.testing.assert_allclose(outputs, plain, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.stack(final), np.stack(plain_final), rtol=1e-12, atol=1e-12)
    if model.embedding_size is None:
        x[...] = np.nan  # the tape has what it needs
    agree(model.backward(tape, d_outputs).parameters, expected.gradients)


def test_where_no_step_is_real_nothing_has_a_gradient(rng, variant):
    model = made(variant)
    x, y = some_data(rng, model)
    out = model.loss_and_gradients(x, y).gradients
    out.flat = np.full(out.size, np.nan)
    outputs, _, tape = model.forward(x, lengths=[0] * B)
    np.testing.assert_array_equal(outputs, model(x, lengths=[0] * B)[0])
    found = model.backward(tape, y, out=out).parameters
    for name, values in found.items():
        if model.output == "sequence" or name.startswith(("before", "embedding", "lstm")):
            assert not values.any(), name
    assert np.isfinite(found.flat).all()


def test_steps_are_the_whole(rng, variant):
    model = made(variant)
    x, _ = some_data(rng, model)
    if model.bidirectional or model.output == "last":
        with pytest.raises(ValueError, match="step: expected a layer of one direction"):
            made({**variant, "bidirectional": True}).step(x[:, 0], None)
        return
    whole, final = model(x)
    state, alone = model.initial_state(B), model.initial_state(1)
    for t in range(T):
        y, state = model.step(x[:, t], state, out=state)
        np.testing.assert_allclose(y, whole[:, t], rtol=1e-12, atol=1e-12)
        one, alone = model.step(x[2, t], alone)
        np.testing.assert_allclose(one, whole[2, t], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.stack(state), np.stack(final), rtol=1e-12, atol=1e-12)
    row, _ = model(x[2])
    np.testing.assert_allclose(row, whole[2], rtol=1e-12, atol=1e-12)
    for found, expected in zip(model([row[:end] for row, end in zip(x, LENGTHS, strict=True)])[0], whole, strict=True):
        np.testing.assert_allclose(found, expected[: len(found)], rtol=1e-12, atol=1e-12)


def test_a_sequence_alone_and_nan_where_it_came_in(rng):
    model = made(dict(before=BEFORE, after=AFTER))
    x, _ = some_data(rng, model)
    np.testing.assert_allclose(model.forward(x[1])[0], model(x)[0][1], rtol=1e-12)
    assert model.forward(x[1])[0].shape == (T, O)
    x[1, 2, 0] = np.nan
    outputs, _ = model(x)
    assert np.isnan(outputs[1, 2:]).all() and np.isfinite(np.delete(outputs, 1, axis=0)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_are_the_same_for_any_number_of_threads(isa, rng, dtype):
    model = Model(40, 24, 9, loss="mse", dtype=dtype, seed=1, embeddings={3: (50, 30)},
                  before=[Dense(300, "gelu_tanh"), 70],
                  after=[Dense(200, "softplus"), Dense(65, "tanh", bias=False)])  # fmt: skip
    x, y = rng.standard_normal((20, 50, 40)), rng.standard_normal((20, 50, 9))
    x[..., 3] = rng.integers(0, 50, (20, 50))
    before, found = num_threads(), []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            found.append(model.loss_and_gradients(x, y).gradients.flat.copy())
    finally:
        set_num_threads(before)
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


# --- dropout ----------------------------------------------------------------------------------------------------------

DROPPED = dict(before=[Dense(7, "tanh", 0.4), Dense(4, "gelu_tanh", 0.2)], after=[Dense(6, "linear", 0.5)])


@pytest.mark.parametrize("options", [{}, {"output": "last"}, {"embedding_size": 4}, {"embeddings": {0: (5, 2)}}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_masks_are_drawn_for_real_steps_alone(options, dtype):
    """By the model's generator: first those before the LSTM, then those after it; however wide the padding is."""
    found, drawn = [], np.dtype(dtype).type
    for padding in (0, 3):
        model = made(DROPPED, dtype=dtype, **options)
        x, y = some_data(np.random.default_rng(1), model, dtype)
        x = np.concatenate([x, np.full((B, padding, *x.shape[2:]), 2 if x.ndim == 2 else np.nan, x.dtype)], axis=1)
        if model.output == "sequence":
            y = np.concatenate([y, np.full((B, padding, O), np.nan, dtype)], axis=1)
        draws = copy.deepcopy(model.rng)
        found.append(model.loss_and_gradients(x, y, lengths=LENGTHS))
        before = masks_of(model.before, LENGTHS.sum(), draws, drawn)
        after = masks_of(model.after, B if model.output == "last" else LENGTHS.sum(), draws, drawn)
        assert draws.bit_generator.state == model.rng.bit_generator.state
        loss, gradients, _ = ByNumpy(model).loss_and_gradients(*rows_of(x, y, LENGTHS), before, after)
        assert found[-1].loss == pytest.approx(loss, rel={"float32": 1e-5, "float64": 1e-11}[dtype])
        agree(found[-1].gradients, gradients, {"float32": 3e-5, "float64": 1e-9}[dtype])
    np.testing.assert_array_equal(found[0].gradients.flat, found[1].gradients.flat)


def test_a_loss_of_labels_draws_for_real_steps_alone(rng):
    """As `forward` does, whose outputs a loss of one's own gets."""
    model = Model(I, H, O, loss="ctc", dtype="float64", seed=1, after=[Dense(6, "tanh", 0.5)])
    twin, draws = copy.deepcopy(model), copy.deepcopy(model.rng)
    x, labels = rng.standard_normal((B, T, I)), [[1, 2], [3], [1], []]
    found = model.loss_and_gradients(x, labels, lengths=LENGTHS)
    masks_of(model.after, LENGTHS.sum(), draws)
    assert draws.bit_generator.state == model.rng.bit_generator.state
    outputs, _, tape = twin.forward(x, lengths=LENGTHS)
    losses, slopes = ctc_loss(outputs, labels, input_lengths=LENGTHS, gradients=True)
    assert found.loss == pytest.approx(losses.mean(), rel=1e-12)
    agree(twin.backward(tape, slopes / B).parameters, found.gradients)


def test_nothing_is_dropped_but_in_training(rng):
    model, plain = (
        made(DROPPED),
        made(dict(before=[Dense(7, "tanh"), Dense(4, "gelu_tanh")], after=[Dense(6, "linear")])),
    )
    x, y = some_data(rng, model)
    before = copy.deepcopy(model.rng.bit_generator.state)
    np.testing.assert_array_equal(model(x)[0], plain(x)[0])
    np.testing.assert_array_equal(model.predict(x), plain.predict(x))
    np.testing.assert_array_equal(model.step(x[:, 0], None)[0], plain.step(x[:, 0], None)[0])
    assert model.evaluate(x, y) == plain.evaluate(x, y)
    assert model.rng.bit_generator.state == before
    assert np.abs(model.forward(x)[0] - plain(x)[0]).max() > 0.1
    twin = pickle.loads(pickle.dumps(model))
    outputs, _, tape = model.forward(x)
    expected = twin.loss_and_gradients(x, y)
    agree(model.backward(tape, 2 * (outputs - y) / y.size).parameters, expected.gradients)


def test_it_learns(rng):
    """A product of two inputs, which no linear layer before or after a tanh of small weights would find so soon."""
    series = rng.standard_normal((400, 2)).astype("float32")
    x, _ = windows(series, 6)
    y = (x[:, -1, 0] * x[:, -1, 1])[:, None]
    model = Model(2, 12, 1, output="last", loss="mse", seed=1, before=[16], after=[Dense(16, "elu", 0.05)])
    history = model.fit(x, y, epochs=40, progress=False, validation=(x[:50], y[:50]))
    assert history.validation_loss[-1] < 0.2 * history.validation_loss[0]
