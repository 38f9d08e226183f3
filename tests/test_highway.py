"""Layers whose outputs are mixed with what goes into them: against the oracle, by hand, and models of them."""

import copy
import pickle

import numpy as np
import pytest
from against_oracle import agrees, gradients_are_differences, same, steps_and_generates, with_some_weights

from cylstm import LSTM, Model, exchange, set_num_threads
from cylstm.oracle import sigmoid

CASES = {
    "one way": {}, "both": dict(bidirectional=True), "reverse": dict(reverse=True),
    "projection": dict(proj_size=4, bidirectional=True, first_state=True),
    "norms": dict(layer_norm="ba", zoneout=(0.3, 0.2)), "drops": dict(dropout=0.4, weight_drop=0.2),
    "rows": dict(dropout=0.3, dropout_per="sequence", recurrent_dropout=0.2, bidirectional=True),
    "gates": dict(recurrent_dropout=0.2, recurrent_dropout_per="gate", bidirectional=True, first_state=True),
}  # fmt: skip
SIZES = [(1, 1, 3, 5), (9, 3, 5, 17), (4, 17, 20, 40), (5, 18, 11, 7), (6, 70, 4, 33)]  # T, B, I, H


def made(I, H, L, dtype, rng, **options):
    return with_some_weights(LSTM(I, H, L, highway=True, dtype=dtype, seed=rng, **options), rng)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_oracle(isa, dtype, close, case):
    rng = np.random.default_rng(20311)
    set_num_threads(1)
    for n, (T, B, I, H) in enumerate(SIZES):
        layer = made(I, H, 2 + n % 2, dtype, rng, **CASES[case])
        lengths = rng.integers(0, T + 1, B) if n % 3 else None
        resets = rng.random((B, T)) < 0.2 if n % 4 else None
        agrees(layer, close, rng, B, T, ids=n % 2 == 0, given=n % 2 == 0, lengths=lengths, resets=resets)


@pytest.mark.parametrize("case", CASES)
def test_gradients_by_differences(case):
    rng = np.random.default_rng(20312)
    layer = made(4, 5, 3, "float64", rng, **CASES[case])
    x, lengths = rng.standard_normal((3, 6, 4)), np.array([6, 2, 4])
    resets = np.zeros((3, 6), bool)
    resets[[0, 0, 2], [2, 5, 1]] = True
    gradients_are_differences(layer, x, rng, lengths=lengths, resets=resets)


def test_the_equation_written_out(dtype):
    """Layer by layer, each the plain one, and its outputs mixed with what goes in."""
    rng = np.random.default_rng(20313)
    layer = made(6, 11, 3, dtype, rng, bidirectional=True)
    x, lengths = rng.standard_normal((5, 8, 6)).astype(dtype), [8, 0, 3, 5, 1]
    y, final = layer(x, lengths=lengths)
    below = x
    for n in range(3):
        one = LSTM(below.shape[2], 11, bidirectional=True, dtype=dtype)
        for name, values in one.parameters.items():
            values[...] = layer.parameters[name.replace("_l0", f"_l{n}")]
        h, state = one(below, lengths=lengths)
        if n:
            for d, ending in enumerate((f"_l{n}", f"_l{n}_reverse")):
                own, weight = slice(11 * d, 11 * d + 11), layer.parameters[f"highway_weight{ending}"].astype(float)
                t = sigmoid(below.astype(float) @ weight.T + layer.parameters[f"highway_bias{ending}"])
                h[..., own] = t * h[..., own] + (1 - t) * below[..., own]
        assert np.allclose(final.h[2 * n : 2 * n + 2], state.h, atol=1e-6)
        below = np.where(np.arange(8)[:, None] < np.array(lengths)[:, None, None], h, 0).astype(dtype)
    np.testing.assert_allclose(y, below, atol=1e-6 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("case", CASES)
def test_threads_give_the_bits_of_one_and_steps_those_of_the_whole(isa, dtype, case):
    rng = np.random.default_rng(20314)
    for B, H in ((20, 60), (5, 150)):  # shared out by rows; by units
        layer = made(19, H, 3, dtype, rng, **CASES[case])
        x = rng.standard_normal((B, 5, 19)).astype(dtype)
        options = dict(lengths=rng.integers(1, 6, B), resets=rng.random((B, 5)) < 0.2)
        drawn, found = layer.rng.bit_generator.state, []
        for threads in (1, 3, 8):
            set_num_threads(threads)
            layer.rng.bit_generator.state = drawn
            y, state, tape = layer.forward(x, **options)
            given = layer.backward(tape, y, state)
            found.append([y, *state, given.x, *given.state, given.parameters.flat])
        assert all(same(found[0], other) for other in found[1:])
        if layer.causal:
            y, final = layer(x)
            state = own = layer.initial_state(B)
            for t in range(5):
                y_t, state = layer.step(x[:, t], state)
                other, own = layer.step(x[:, t], own, out=own)
                assert np.array_equal(y_t, y[:, t]) and np.array_equal(other, y[:, t])
            assert same(state, final) and same(own, final)


def test_gates_begin_at_what_mostly_carries():
    layer = LSTM(3, 8, 3, highway=True, bidirectional=True, seed=1)
    names = [name for name in layer.parameters if name.startswith("highway")]
    assert names == [f"highway_{part}_l{n}{way}" for n in (1, 2) for way in ("", "_reverse")
                     for part in ("weight", "bias")]  # fmt: skip
    assert all((layer.parameters[name] == -1).all() for name in names if "bias" in name)
    assert layer.parameters["highway_weight_l1"].shape == (8, 16)


def test_numbers_that_are_not_finite_stay_in_their_rows(dtype):
    rng = np.random.default_rng(20315)
    layer = made(3, 21, 3, dtype, rng)
    x = rng.standard_normal((5, 6, 3)).astype(dtype)
    clean, *_ = layer.forward(x, lengths=[6, 6, 4, 6, 6])
    x[3, 4, 1], x[2, 4:] = np.nan, np.nan
    y, _, tape = layer.forward(x, lengths=[6, 6, 4, 6, 6])
    rest = [0, 1, 2, 4]
    assert np.array_equal(y[rest], clean[rest]) and np.isnan(y[3, 4:]).all() and not y[2, 4:].any()
    dy = np.zeros_like(y)
    dy[rest], dy[2, 4:] = 1, np.inf
    assert np.isfinite(layer.backward(tape, dy).x[rest]).all()


# --- models, files, arguments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
def test_models_train_are_kept_and_go_on(bidirectional, tmp_path):
    rng = np.random.default_rng(20316)
    x, y = rng.standard_normal((12, 7, 4)).astype("float32"), rng.standard_normal((12, 7, 2))
    options = dict(num_layers=3, bidirectional=bidirectional, highway=True, loss="mse", dropout=0.2)
    whole, half = (Model(4, 8, 2, seed=3, **options) for _ in range(2))
    history = whole.fit(x, y, epochs=6, batch_size=5, progress=False)
    assert history.train_loss[-1] < history.train_loss[0]
    half.fit(x, y, epochs=2, batch_size=5, checkpoint=tmp_path / "run", progress=False)
    half = Model(4, 8, 2, seed=4, **options)
    half.fit(x, y, epochs=6, batch_size=5, resume=tmp_path / "run", progress=False)
    assert np.array_equal(whole.parameters.flat, half.parameters.flat)
    whole.save(tmp_path / "model.safetensors")
    for other in (Model.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole)):
        assert other.config == whole.config and np.array_equal(other(x)[0], whole(x)[0])
    assert "highway" in str(whole.summary()) and "highway=True" in repr(whole)
    twin = LSTM(4, 8, 3, bidirectional=bidirectional, highway=True)
    twin.load_state_dict(whole.lstm.state_dict())
    assert np.array_equal(twin(x)[0], whole.lstm(x)[0]) and "highway" not in repr(LSTM(4, 6, 2))


def test_a_model_steps_and_generates():
    rng = np.random.default_rng(20317)
    steps_and_generates(Model(9, 14, 9, num_layers=3, highway=True, seed=5), rng.integers(0, 9, (3, 8)))


@pytest.mark.parametrize("options, message", [
    (dict(), "highway: expected False with one layer, which has none below it, got True"),
    (dict(num_layers=2, residual=True),
     "highway: expected False with residual=True, which adds the same inputs, got True"),
    (dict(num_layers=2, bidirectional=True, merge="sum"), "merge: expected 'concat' with highway=True, got 'sum'"),
    (dict(hidden_size=(4, 2)), "highway: expected False for layers of different widths, (4, 2), got True"),
])  # fmt: skip
def test_what_is_refused(options, message):
    options = {"hidden_size": 4, "highway": True, **options}
    for make in (lambda: LSTM(3, **options), lambda: Model(3, output_size=2, **options)):
        with pytest.raises(ValueError) as error:
            make()
        assert str(error.value) == message


def test_what_looks_at_the_final_state_is_refused():
    """Which has the layers' own h, and not what comes out of them."""
    with pytest.raises(
        ValueError, match=r"^output: expected 'sequence' with highway=True, whose outputs .*, got 'last'$"
    ):
        Model(3, 4, 2, num_layers=2, highway=True, output="last")
    with pytest.raises(ValueError, match=r"^highway: expected False, since networks have none, got True$"):
        exchange.network_of(LSTM(3, 4, 2, highway=True))
