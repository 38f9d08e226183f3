"""A reverse direction alone: the forward one on a reversed clock, with outputs in the order of time."""

import copy
import pickle

import numpy as np
import pytest
from against_oracle import agrees
from gradcheck import check_gradients

from cylstm import LSTM, Model, exchange, oracle, set_num_threads
from cylstm.calls import Call

SIZES = [(6, 3, 5, 17, 1), (9, 8, 5, 70, 2), (4, 40, 30, 64, 3), (1, 7, 4, 9, 2)]


def made(I, H, L=1, dtype="float64", seed=4, **variant):
    layer = LSTM(I, H, L, dtype=dtype, seed=seed, reverse=True, **variant)
    rng = np.random.default_rng(seed)
    for values in layer.parameters.values():
        values[...] += 0.3 * rng.standard_normal(values.shape)
    return layer


def turned(x, lengths):
    """Rows (B, T, ...) from their ends to their starts."""
    x = x.copy()
    for row, length in zip(x, lengths, strict=True):
        row[:length] = row[:length][::-1].copy()
    return x


@pytest.mark.parametrize("ragged", [False, True])
def test_is_the_forward_one_on_a_reversed_clock(isa, dtype, ragged):
    """To the bit, in all that comes out."""
    rng = np.random.default_rng(20291)
    for n, (T, B, I, H, L) in enumerate(SIZES):
        layer = made(I, H, L, dtype, seed=n, peepholes=n % 2 == 0)
        forward = LSTM(I, H, L, dtype=dtype, peepholes=n % 2 == 0)
        assert forward.parameters.keys() == layer.parameters.keys()
        forward.parameters.flat = layer.parameters.flat
        lengths = rng.integers(0, T + 1, B) if ragged else np.full(B, T)
        given = lengths if ragged else None
        x, dy = rng.standard_normal((B, T, I)).astype(dtype), rng.standard_normal((B, T, H)).astype(dtype)
        start, end = rng.standard_normal((2, 2, L, B, H)).astype(dtype)
        y, state, tape = layer.forward(x, start, lengths=given)
        expected, final, other = forward.forward(turned(x, lengths), start, lengths=given)
        assert np.array_equal(y, turned(expected, lengths))
        assert np.array_equal(layer(x, start, lengths=given)[0], y)
        assert np.array_equal(state, final)
        got = layer.backward(tape, dy, end)
        wanted = forward.backward(other, turned(dy, lengths), end)
        assert np.array_equal(got.x, turned(wanted.x, lengths)) and np.array_equal(got.state, wanted.state)
        scale = np.abs(wanted.parameters.flat).max()  # sums over steps, in the opposite order
        bound = 1e-5 if dtype == "float32" else 1e-13
        np.testing.assert_allclose(got.parameters.flat, wanted.parameters.flat, rtol=0, atol=bound * scale)


@pytest.mark.parametrize("first_state", [False, True])
def test_agrees_with_the_oracle_where_rows_are_cut(isa, dtype, close, first_state):
    rng = np.random.default_rng(20292)
    layer = made(6, 19, 2, dtype, first_state=first_state)
    lengths, resets = rng.integers(1, 9, 11), rng.random((11, 8)) < 0.3
    agrees(layer, close, rng, 11, 8, given=not first_state, lengths=lengths, resets=resets)


def test_gradients_by_differences():
    layer, rng = made(4, 5, 2, first_state=True), np.random.default_rng(20293)
    x, lengths, dy = rng.standard_normal((3, 6, 4)), np.array([6, 2, 4]), rng.standard_normal((3, 6, 5))
    resets = rng.random((3, 6)) < 0.3
    _, _, tape = layer.forward(x, lengths=lengths, resets=resets)
    dx, _, gradients = layer.backward(tape, dy)
    check_gradients(lambda: (dy * layer(x, lengths=lengths, resets=resets)[0]).sum(),
                    {"x": x, **layer.parameters}, {"x": dx, **gradients})  # fmt: skip


def test_dropout_between_layers_is_of_steps_in_their_order():
    layer, rng = made(4, 9, 2, dropout=0.5), np.random.default_rng(20294)
    x = rng.standard_normal((3, 7, 4))
    y, _, tape = layer.forward(x)
    parameters = dict(layer.parameters)
    expected = oracle.forward(x, parameters, num_layers=2, reverse=True, dropout_masks=tape.masks)[0]
    np.testing.assert_allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize("size", [(33, 40), (3, 200)])
def test_threads_give_the_bits_of_one(size):
    B, H = size
    layer, rng = made(19, H, 2, "float32"), np.random.default_rng(20295)
    x, lengths, found = rng.standard_normal((B, 14, 19)).astype("f4"), rng.integers(0, 15, B), []
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            y, state, tape = layer.forward(x, lengths=lengths)
            found.append([y, *state, layer.backward(tape, y, state).parameters.flat])
    finally:
        set_num_threads(2)
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("output", ["sequence", "last"])
def test_models_train_and_keep_it(output, tmp_path, rng):
    x = rng.standard_normal((20, 9, 4))
    y = np.cumsum(x[:, ::-1, :2], axis=1)[:, ::-1]  # of what comes later
    y = y[:, 0] if output == "last" else y
    model = Model(4, 12, 2, loss="mse", seed=1, reverse=True, output=output)
    history = model.fit(x, y, epochs=6, batch_size=5, progress=False)
    assert history.train_loss[-1] < history.train_loss[0]
    model.save(tmp_path / "model.safetensors")
    for other in (Model.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model),
                  exchange.model_of(exchange.network_of(model))):  # fmt: skip
        assert other.config == model.config and other.reverse
        assert np.array_equal(other(x)[0], model(x)[0])
    if output == "last":
        h = model.lstm(x)[0][:, 0]  # the last step that it takes is the first one
        expected = h @ model.parameters["head.weight"].T + model.parameters["head.bias"]
        np.testing.assert_allclose(model(x)[0], expected, atol=1e-6)


def test_a_long_row_goes_in_at_once(monkeypatch, rng):
    """What cuts long rows into pieces leaves alone those that begin at their ends."""
    x, y = rng.standard_normal((2, 40, 4)), rng.standard_normal((2, 40, 2))
    model = Model(4, 6, 2, loss="mse", seed=1, reverse=True)
    outputs, loss = model(x)[0], model.evaluate(x, y)["loss"]
    monkeypatch.setattr("cylstm.batches.AT_ONCE", 16)
    np.testing.assert_allclose(model(x)[0], outputs, atol=1e-6)
    np.testing.assert_allclose(model.evaluate(x, y)["loss"], loss, rtol=1e-6)


def test_what_needs_a_forward_direction_is_refused_by_name(rng):
    x, y = rng.standard_normal((3, 8, 4)), rng.standard_normal((3, 8, 2))
    with pytest.raises(ValueError, match="reverse: expected False for a bidirectional layer"):
        LSTM(4, 5, bidirectional=True, reverse=True)
    with pytest.raises(ValueError, match="step: expected a layer of one direction, forward, got a reverse one"):
        made(4, 5).step(x[:, 0], None)
    with pytest.raises(ValueError, match="tbptt: expected a model of one direction, forward, with"):
        Model(4, 5, 2, loss="mse", reverse=True).fit(x, y, tbptt=4, progress=False)
    with pytest.raises(ValueError, match="generate: expected a model of one direction, forward, with"):
        Model(7, 5, 7, reverse=True).generate([1], 3)
    assert not made(4, 5).causal and not LSTM(4, 5, bidirectional=True).causal and LSTM(4, 5).causal
    assert Call(made(4, 5), 3, 8).steps == 8
