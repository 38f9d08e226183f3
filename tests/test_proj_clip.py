"""h behind a projection within bounds, h = clip(R_p (o tanh(c))): the layer against the oracle and by itself."""

import copy
import pickle

import numpy as np
import pytest
from against_oracle import agrees, gradients_are_differences, same

from cylstm import LSTM, Model, exchange, set_num_threads
from cylstm.oracle import sigmoid

# T, B, I, H, P
SIZES = [(1, 1, 3, 5, 2), (7, 2, 8, 33, 32), (9, 3, 5, 17, 4), (5, 40, 11, 9, 6), (6, 20, 7, 50, 13)]
WITH = {
    "plain": {},
    "cells": dict(peepholes=True, coupled=True, cell_clip=0.5, first_state=True),
    "masks": dict(recurrent_dropout=0.3, weight_drop=0.2, zoneout=(0.4, 0.3), first_state=True),
    "zoned h": dict(zoneout=(0, 0.5), reverse=True, activations=("sigmoid", "softsign", "relu")),
}


@pytest.fixture(autouse=True)
def one_thread(threads_as_they_were):
    """As in test_projection.py; a test of threads says how many it wants."""
    set_num_threads(1)


def made(sizes, L, D, dtype, rng, **options):
    """A layer about a third of whose h reach the bounds."""
    I, H, P = sizes
    layer = LSTM(I, H, L, bidirectional=D == 2, proj_size=P, proj_clip=0.2, dtype=dtype, seed=rng, **options)
    for values in layer.parameters.values():
        values[...] += 0.8 / np.sqrt(values.shape[-1]) * rng.standard_normal(values.shape)
    return layer


@pytest.mark.parametrize("options", WITH)
def test_agrees_with_the_oracle(isa, dtype, close, options):
    rng, options, cut = np.random.default_rng(20311), WITH[options], 0
    for n, (T, B, *sizes) in enumerate(SIZES):
        layer = made(sizes, 1 + n % 3, 1 if options.get("reverse") else 1 + n % 2, dtype, rng, **options)
        lengths, resets = rng.integers(0, T + 1, B) if n % 3 else None, rng.random((B, T)) < 0.2 if n % 4 else None
        agrees(layer, close, rng, B, T, ids=n == 2, given=n % 2 > 0, lengths=lengths, resets=resets)
        y = layer(rng.standard_normal((B, T, sizes[0])))[0]
        cut += (abs(y) == np.dtype(dtype).type(0.2)).mean() / len(SIZES)
    assert options.get("zoneout") or 0.2 < cut < 0.8


def test_one_layer_by_hand():
    rng = np.random.default_rng(20312)
    layer = made((3, 6, 4), 1, 1, "float64", rng)
    W, R, b, R_p = layer.parameters.values()
    x, h, c, outputs = rng.standard_normal((2, 7, 3)), np.zeros((2, 4)), np.zeros((2, 6)), []
    for t in range(7):
        i, f, g, o = np.split(x[:, t] @ W.T + h @ R.T + b, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = np.minimum(np.maximum((sigmoid(o) * np.tanh(c)) @ R_p.T, -0.2), 0.2)
        outputs.append(h)
    y, final = layer(x)
    np.testing.assert_allclose(y, np.stack(outputs, 1), rtol=1e-12)
    np.testing.assert_allclose(final.h[0], h, rtol=1e-12)
    assert 0.1 < (abs(y) == 0.2).mean() < 0.9


@pytest.mark.parametrize("options", ["plain", "masks"])
def test_gradients_by_differences(options):
    rng = np.random.default_rng(2)  # no h within a step of its bounds
    layer = made((4, 6, 3), 1, 2, "float64", rng, **WITH[options])
    x, lengths, resets = rng.standard_normal((3, 5, 4)), np.array([5, 2, 4]), rng.random((3, 5)) < 0.2
    assert (abs(layer.forward(x, lengths=lengths, resets=resets)[0]) == 0.2).sum() > 10
    gradients_are_differences(layer, x, rng, given=False, lengths=lengths, resets=resets)


@pytest.mark.parametrize("B, I, H, P", [(1, 3, 70, 20), (40, 19, 60, 59), (5, 19, 301, 130)])
def test_same_bits_for_any_number_of_threads(dtype, B, I, H, P):
    rng = np.random.default_rng(20314)
    layer = made((I, H, P), 2, 1, dtype, rng, first_state=True)
    x, resets, found = rng.standard_normal((B, 4, I)).astype(dtype), rng.random((B, 4)) < 0.3, []
    for threads in (1, 2, 7):
        set_num_threads(threads)
        y, state, tape = layer.forward(x, resets=resets)
        gradients = layer.backward(tape, y, state)
        found.append([y, *state, gradients.x, *gradients.state, gradients.parameters.flat])
    assert same(found[1], found[0]) and same(found[2], found[0])


def test_steps_give_the_bits_of_the_whole(isa, dtype):
    rng = np.random.default_rng(20317)
    for B, I, H, P in ((1, 3, 70, 20), (20, 19, 60, 59)):
        layer = made((I, H, P), 2, 1, dtype, rng, first_state=True)
        x = rng.standard_normal((B, 5, I)).astype(dtype)
        whole, final = layer(x)
        state = None
        for t in range(5):
            y, state = layer.step(x[:, t], state)
            assert same(y, whole[:, t])
        assert same([*state], [*final])


def test_what_is_no_number_stays_so(isa, dtype):
    layer = made((3, 9, 4), 1, 1, dtype, np.random.default_rng(20315))
    x = np.random.default_rng(1).standard_normal((2, 5, 3))
    x[0, 2, 1] = np.nan
    y = layer(x)[0]
    assert np.isnan(y[0, 2:]).all() and not np.isnan(y[0, :2]).any() and not np.isnan(y[1]).any()


def test_wide_bounds_give_the_plain_bits(isa, dtype):
    rng = np.random.default_rng(20316)
    bounded, plain = (LSTM(5, 33, 2, proj_size=7, proj_clip=clip, dtype=dtype, seed=3) for clip in (1e6, None))
    x = rng.standard_normal((9, 6, 5))
    (y, _, tape), (expected, _, plain_tape) = bounded.forward(x), plain.forward(x)
    assert same(y, expected)
    assert same(bounded.backward(tape, y).parameters.flat, plain.backward(plain_tape, y).parameters.flat)


def test_models_train_and_keep_it(tmp_path, rng):
    x = rng.standard_normal((40, 9, 4))
    y = np.cumsum(x[..., :3], axis=1) / 3
    options = dict(loss="mse", num_layers=2, proj_size=5, proj_clip=0.3, seed=1)
    whole, broken, resumed = (Model(4, 12, 3, **options) for _ in range(3))
    history = whole.fit(x, y, epochs=6, batch_size=5, progress=False)
    assert history.train_loss[-1] < history.train_loss[0]
    broken.fit(x, y, epochs=2, batch_size=5, progress=False, checkpoint=tmp_path / "c")
    resumed.fit(x, y, epochs=6, batch_size=5, progress=False, resume=tmp_path / "c")
    assert same(resumed.parameters.flat, whole.parameters.flat)
    whole.save(tmp_path / "model.safetensors")
    for other in (Model.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole)):
        assert other.config == whole.config and other.config["proj_clip"] == other.proj_clip == 0.3
        assert same(other(x)[0], whole(x)[0]) and "proj_clip=0.3" in repr(other.lstm)
    assert "proj_clip 0.3" in whole.summary()


@pytest.mark.parametrize("make", [lambda **more: LSTM(3, 4, **more), lambda **more: Model(3, 4, 5, **more)])
def test_what_means_nothing_is_refused(make):
    for clip in (0, -1.0, np.inf, np.nan, 1e-320, 1e39):
        with pytest.raises(ValueError, match=r"^proj_clip: expected a number in"):
            make(proj_size=2, proj_clip=clip)
    with pytest.raises(TypeError, match=r"^proj_clip: expected a number, got str"):
        make(proj_size=2, proj_clip="1")
    with pytest.raises(ValueError, match=r"^proj_clip: expected None without proj_size, got 3"):
        make(proj_clip=3)
    with pytest.raises(ValueError, match=r"^proj_clip: expected None, since networks have none, got 0\.5"):
        exchange.network_of(make(proj_size=2, proj_clip=0.5))
