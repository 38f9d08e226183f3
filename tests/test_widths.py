"""Layers of different widths, hidden_size=(96, 48): against the oracle and plain layers one by one, and models."""

import copy
import pickle

import numpy as np
import pytest
from against_oracle import agrees, gradients_are_differences, random_state, with_some_weights
from gradcheck import check_gradients
from keras_by_hand import archive, arrays, by_layers, dense, lstm, sequential

from cylstm import LSTM, Model, State, exchange, set_num_threads

SIZES = [(5, 9, 3), (30, 7), (7, 33), (17, 4, 20)]  # narrower and wider, in full vectors and not
CASES = {
    "plain": {},
    "both": dict(bidirectional=True),
    "reverse, dropout": dict(reverse=True, dropout=0.4),
    "product, locked": dict(bidirectional=True, merge="product", dropout=0.3, dropout_per="sequence"),
    "drops": dict(bidirectional=True, dropout=0.2, recurrent_dropout=0.3, weight_drop=0.3, input_dropout=0.2),
    "variants": dict(first_state=True, peepholes=True, cell_clip=0.8),
    "projected": dict(proj_size=2, residual=True, dropout=0.3),
}


def made(I, sizes, dtype, rng, **options):
    return with_some_weights(LSTM(I, sizes, dtype=dtype, seed=rng, **options), rng)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_oracle(isa, dtype, close, case):
    """Random states have numbers beyond a narrower layer's width, which the oracle never sees."""
    rng = np.random.default_rng(20321)
    set_num_threads(1)
    for n, sizes in enumerate(SIZES):
        layer = made(4, sizes, dtype, rng, **CASES[case])
        for T, B in ((6, 5), (4, 17)):
            lengths, resets = rng.integers(0, T + 1, B), rng.random((B, T)) < 0.3
            agrees(layer, close, rng, B, T, lengths=lengths, resets=resets)
            agrees(layer, close, rng, B, T, given=False, ids=n % 2 == 0 and not layer.input_dropout)


def test_gradients_by_differences():
    rng = np.random.default_rng(20322)
    layer = made(4, (5, 2, 3), "float64", rng, bidirectional=True)
    x, lengths = rng.standard_normal((3, 5, 4)), np.array([5, 2, 4])
    gradients_are_differences(layer, x, rng, lengths=lengths)


def test_layers_one_by_one_give_the_bits_of_the_stack(isa, dtype):
    rng = np.random.default_rng(20323)
    for sizes in SIZES:
        layer = made(6, sizes, dtype, rng)
        x, lengths = rng.standard_normal((5, 8, 6)).astype(dtype), [8, 0, 3, 5, 1]
        start = random_state(layer, 5, rng)
        y, final = layer(x, start, lengths=lengths)
        for n, H in enumerate(sizes):
            one = LSTM(x.shape[2], H, dtype=dtype)
            for name, values in one.parameters.items():
                values[...] = layer.parameters[name.replace("_l0", f"_l{n}")]
            x, state = one(x, State(*(part[n : n + 1, :, :H] for part in start)), lengths=lengths)
            for whole, part in zip(final, state, strict=True):
                assert np.array_equal(whole[n, :, :H], part[0]) and not whole[n, :, H:].any()
        assert np.array_equal(y, x) and layer.output_size == sizes[-1]
        assert layer.hidden_sizes == sizes and layer.hidden_size == max(sizes) and layer.num_layers == len(sizes)


@pytest.mark.parametrize("case", ["plain", "drops", "projected"])
def test_threads_give_the_bits_of_one_and_steps_those_of_the_whole(isa, dtype, case):
    rng = np.random.default_rng(20324)
    # shared out by rows, which lie elsewhere in each layer; by units, of which the narrow layer has few
    for B, sizes in ((20, (60, 24, 40)), (24, (24, 60, 8, 40, 16)), (5, (150, 40, 170))):
        layer = made(19, sizes, dtype, rng, **CASES[case])
        x = rng.standard_normal((B, 5, 19)).astype(dtype)
        options = dict(lengths=rng.integers(1, 6, B), resets=rng.random((B, 5)) < 0.2)
        drawn, found = layer.rng.bit_generator.state, []
        for threads in (1, 3):
            set_num_threads(threads)
            layer.rng.bit_generator.state = drawn
            y, state, tape = layer.forward(x, **options)
            given = layer.backward(tape, y, state)
            found.append([y, *state, given.x, *given.state, given.parameters.flat])
        assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
        if layer.num_directions == 1:
            y, final = layer(x)
            state = own = layer.initial_state(B)
            for t in range(5):
                y_t, state = layer.step(x[:, t], state)
                other, own = layer.step(x[:, t], own, out=own)
                assert np.array_equal(y_t, y[:, t]) and np.array_equal(other, y[:, t])
            assert np.array_equal(state.h, final.h) and np.array_equal(own.c, final.c)


def test_masks_are_those_of_each_layer():
    layer = LSTM(4, (5, 9, 3), dropout=0.5, recurrent_dropout=0.5, weight_drop=0.5, bidirectional=True, seed=1)
    x = np.random.default_rng(1).standard_normal((6, 7, 4)).astype("f4")
    for per, steps in (("step", 7), ("sequence", 1)):
        layer.dropout_per = per
        _, _, tape = layer.forward(x, lengths=[7, 3, 5, 1, 7, 2])
        assert [mask.shape for mask in tape.masks] == [(6, steps, 10), (6, steps, 18)]
        assert [mask.shape for mask in tape.recurrent_masks] == [(6, H) for H in (5, 5, 9, 9, 3, 3)]
        assert [mask.shape for mask in tape.weight_masks] == [(4 * H, H) for H in (5, 5, 9, 9, 3, 3)]
        for mask in (*tape.masks, *tape.recurrent_masks, *tape.weight_masks):
            assert set(np.unique(mask)) == {0, 2}
        gradients = layer.backward(tape, np.ones((6, 7, 6), "f4")).parameters
        assert not gradients["weight_hh_l1_reverse"][tape.weight_masks[3] == 0].any()


def test_a_first_state_is_as_wide_as_its_layer():
    rng = np.random.default_rng(2)
    layer = made(3, (4, 7), "float64", rng, first_state=True)
    state = layer.initial_state(2)
    assert state.h.shape == (2, 2, 7) and not state.h[0, :, 4:].any() and not state.c[0, :, 4:].any()
    for part, name in zip(state, "hc", strict=True):
        assert np.array_equal(part[0, 1, :4], layer.parameters[f"{name}0_l0"])
        assert np.array_equal(part[1, 1], layer.parameters[f"{name}0_l1"])


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["sequence", "last"])
@pytest.mark.parametrize("options", [{}, dict(bidirectional=True), dict(bidirectional=True, merge="mean")])
def test_models_train_are_kept_and_go_on(options, output, tmp_path):
    rng = np.random.default_rng(20325)
    x = rng.standard_normal((12, 7, 4)).astype("float32")
    y = rng.standard_normal((12, 2) if output == "last" else (12, 7, 2))
    options = dict(loss="mse", dropout=0.2, output=output, **options)
    whole, half = (Model(4, (9, 6), 2, seed=3, **options) for _ in range(2))
    assert whole.hidden_size == (9, 6) and whole.num_layers == 2
    history = whole.fit(x, y, epochs=6, batch_size=5, progress=False)
    assert history.train_loss[-1] < history.train_loss[0]
    half.fit(x, y, epochs=2, batch_size=5, checkpoint=tmp_path / "run", progress=False)
    half = Model(4, [9, 6], 2, seed=4, num_layers=2, **options)
    half.fit(x, y, epochs=6, batch_size=5, resume=tmp_path / "run", progress=False)
    assert np.array_equal(whole.parameters.flat, half.parameters.flat)
    whole.save(tmp_path / "model.safetensors")
    others = Model.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole)
    for other in (*others, exchange.model_of(exchange.network_of(whole))):
        assert other.config == whole.config and np.array_equal(other(x)[0], whole(x)[0])
    D = 2 if whole.bidirectional else 1
    first, second = (f"(B, T, {H * (1 if whole.merge == 'mean' else D)})" for H in (9, 6))
    assert (
        first in whole.summary() and second in whole.summary() and f"state h and c ({2 * D}, B, 9)" in whole.summary()
    )


@pytest.mark.parametrize("merge", ["concat", "product"])
def test_a_models_gradients_by_differences(merge):
    rng = np.random.default_rng(20326)
    model = Model(6, (3, 5, 2), 3, embedding_size=4, output="last", dtype="float64", seed=2, bidirectional=True,
                  merge=merge)  # fmt: skip
    x, y = rng.integers(0, 6, (3, 5)), rng.integers(0, 3, 3)
    options = dict(lengths=[5, 2, 3], state=random_state(model.lstm, 3, rng))
    found = model.loss_and_gradients(x, y, **options)
    weights = {name: model.parameters[name] for name in model.parameters}
    check_gradients(lambda: model.loss_and_gradients(x, y, **options).loss, weights, dict(found.gradients))


def test_a_stream_goes_on_from_its_checkpoint_and_a_model_generates(tmp_path):
    rng = np.random.default_rng(20327)
    x, y = rng.integers(0, 7, (4, 30)), rng.integers(0, 7, (4, 30))
    options = dict(batch_size=4, tbptt=10, progress=False)
    whole, half = (Model(7, (8, 5), 7, seed=3) for _ in range(2))
    whole.fit(x, y, epochs=3, **options)
    half.fit(x, y, epochs=1, checkpoint=tmp_path / "run", **options)
    half = Model(7, (8, 5), 7, seed=4)
    half.fit(x, y, epochs=3, resume=tmp_path / "run", **options)
    assert np.array_equal(whole.parameters.flat, half.parameters.flat)
    outputs, final = whole(x)
    state = whole.initial_state(4)
    for t in range(30):
        y_t, state = whole.step(x[:, t], state, out=state)
        np.testing.assert_allclose(y_t, outputs[:, t], rtol=2e-5, atol=1e-6)
    assert np.array_equal(state.h, final.h) and np.array_equal(state.c, final.c)
    assert len(list(whole.generate(x[0], 12, seed=1))) == 12


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_a_stack_of_keras(tmp_path):
    """LSTM(6, return_sequences=True), LSTM(4), Dense(3): by Keras's equations, and back to the same file."""
    content, x = arrays(lstm=(2, 6), lstm_1=(6, 4), dense=(4, 3)), np.random.default_rng(3).standard_normal((3, 5, 2))
    path = archive(tmp_path / "m.keras", sequential(lstm(6), lstm(4, "lstm_1", return_sequences=False), dense(3)),
                   content)  # fmt: skip
    model = exchange.load(path)
    assert model.hidden_size == (6, 4) and model.output == "last"
    groups, y = by_layers(content), x
    for name in ("lstm", "lstm_1"):
        kernel, recurrent, bias = groups[name]
        h = c = np.zeros((3, len(recurrent)))
        outputs = []
        for t in range(5):
            i, f, g, o = np.split(y[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        y = np.stack(outputs, 1)
    W, b = groups["dense"]
    np.testing.assert_allclose(model(x.astype("f4"))[0], y[:, -1] @ W + b, rtol=2e-5, atol=2e-6)
    exchange.save(model, tmp_path / "again.keras")
    again = exchange.load(tmp_path / "again.keras")
    assert again.config == model.config and np.array_equal(again.parameters.flat, model.parameters.flat)


# --- arguments --------------------------------------------------------------------------------------------------------


def test_layers_are_copied_with_their_widths():
    layer = made(4, (6, 3), "float64", np.random.default_rng(20328), bidirectional=True)
    x = np.random.default_rng(1).standard_normal((3, 5, 4))
    other = LSTM(4, [6, 3], 2, bidirectional=True, dtype="float64")
    other.load_state_dict(layer.state_dict())
    for twin in (other, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert repr(twin) == repr(layer) and "hidden_size=(6, 3), num_layers=2" in repr(layer)
        assert np.array_equal(twin(x)[0], layer(x)[0])
    assert layer.state_dict()["weight_ih_l1_reverse"].shape == (12, 12)
    assert repr(LSTM(4, (6, 6))) == repr(LSTM(4, 6, 2)) and Model(4, (6, 6), 2).hidden_size == 6
    assert LSTM.layout(4, (6, 3)) == LSTM(4, (6, 3)).parameters.layout


@pytest.mark.parametrize("options, message", [
    (dict(hidden_size=(4, 5), num_layers=3), "hidden_size: expected one, or one for each of 3 layers, got 2"),
    (dict(hidden_size=()), "hidden_size: expected one, or one for each layer, got 0"),
    (dict(hidden_size=(4, 0)), "hidden_size[1]: expected an integer >= 1, got 0"),
    (dict(hidden_size=(4, 2), proj_size=2), "proj_size: expected less than hidden_size, 2, got 2"),
    (dict(hidden_size=(4, 2), residual=True),
     "residual: expected False for layers of different widths, (4, 2), got True"),
    (dict(hidden_size=[1] * 10_001), "num_layers: expected at most 10000, got 10001"),
])  # fmt: skip
def test_what_is_refused(options, message):
    for make in (lambda: LSTM(3, **options), lambda: Model(3, output_size=2, **options)):
        with pytest.raises(ValueError) as error:
            make()
        assert str(error.value) == message
