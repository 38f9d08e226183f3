"""Merged directions and residual layers: against the oracle, by hand, and models of them."""

import copy
import pickle

import numpy as np
import pytest
from against_oracle import agrees, gradients_are_differences, random_state, steps_and_generates, with_some_weights
from gradcheck import check_gradients

from cylstm import LSTM, Dense, Model, set_num_threads

MERGES = ["sum", "mean", "product"]
CASES = {  # merge, residual, D
    "sum": ("sum", False, 2), "mean": ("mean", False, 2), "product": ("product", False, 2),
    "residual": ("concat", True, 1), "residual, both": ("concat", True, 2),
    "residual, mean": ("mean", True, 2), "residual, product": ("product", True, 2),
}  # fmt: skip
DROPS = [{}, dict(dropout=0.4), dict(dropout=0.3, dropout_per="sequence")]
SIZES = [(1, 1, 3, 5, 0), (9, 3, 5, 17, 4), (4, 17, 20, 40, 0), (5, 18, 11, 7, 6), (6, 9, 4, 33, 0)]  # T, B, I, H, P


def made(sizes, L, case, dtype, rng, **more):
    (I, H), (merge, residual, D) = sizes, CASES[case]
    layer = LSTM(I, H, L, bidirectional=D == 2, merge=merge, residual=residual, dtype=dtype, seed=rng, **more)
    return with_some_weights(layer, rng)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_oracle(isa, dtype, close, case):
    rng = np.random.default_rng(20301)
    set_num_threads(1)
    for n, (T, B, I, H, P) in enumerate(SIZES):
        layer = made((I, H), 2 + n % 2, case, dtype, rng, proj_size=P, first_state=n % 2 == 1, **DROPS[n % 3])
        lengths = rng.integers(0, T + 1, B) if n % 3 else None
        resets = rng.random((B, T)) < 0.2 if n % 4 else None
        agrees(layer, close, rng, B, T, ids=n % 2 == 0, given=n % 2 == 0, lengths=lengths, resets=resets)


@pytest.mark.parametrize("merge", MERGES)
def test_one_merged_layer_agrees_with_the_oracle(isa, dtype, close, merge):
    rng = np.random.default_rng(20302)
    for T, B, I, H in ((6, 5, 3, 9), (1, 20, 4, 18)):
        layer = made((I, H), 1, merge, dtype, rng, reverse=False)
        agrees(layer, close, rng, B, T, lengths=rng.integers(0, T + 1, B))


@pytest.mark.parametrize("case", CASES)
def test_gradients_by_differences(case):
    rng = np.random.default_rng(20303)
    layer = made((4, 5), 3 if CASES[case][1] else 2, case, "float64", rng)
    x, lengths = rng.standard_normal((3, 6, 4)), np.array([6, 2, 4])
    resets = np.zeros((3, 6), bool)
    resets[[0, 0, 2], [2, 5, 1]] = True
    gradients_are_differences(layer, x, rng, lengths=lengths, resets=resets)


def side_by_side(layer, n, I):
    """Layer n alone, plain, with its weights."""
    D = layer.num_directions
    one = LSTM(I, layer.hidden_size, bidirectional=D == 2, dtype=layer.dtype)
    for name, values in one.parameters.items():
        values[...] = layer.parameters[name.replace("_l0", f"_l{n}")]
    return one


HOW = {"concat": lambda f, r: np.concatenate([f, r], 2), "sum": np.add, "mean": lambda f, r: (f + r) / 2,
       "product": np.multiply}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_layers_one_by_one_give_the_bits_of_the_stack(isa, dtype, case):
    rng, (merge, residual, D) = np.random.default_rng(20304), CASES[case]
    layer = made((6, 11), 3, case, dtype, rng)
    x, lengths = rng.standard_normal((5, 8, 6)).astype(dtype), [8, 0, 3, 5, 1]
    y, final = layer(x, lengths=lengths)
    below = x
    for n in range(3):
        outputs, state = side_by_side(layer, n, below.shape[2])(below, lengths=lengths)
        if D == 2:
            outputs = HOW[merge](outputs[..., :11], outputs[..., 11:])
        below = outputs + below if residual and n else outputs
        assert np.array_equal(final.h[n * D : (n + 1) * D], state.h)
        assert np.array_equal(final.c[n * D : (n + 1) * D], state.c)
    assert np.array_equal(y, below) and y.shape == (5, 8, layer.output_size)
    assert layer.output_size == (22 if D == 2 and merge == "concat" else 11)


@pytest.mark.parametrize("case", CASES)
def test_threads_give_the_bits_of_one_and_steps_those_of_the_whole(isa, dtype, case):
    rng, D = np.random.default_rng(20305), CASES[case][2]
    for B, H in ((20, 60), (5, 150)):  # shared out by rows; by units
        layer = made((19, H), 3, case, dtype, rng, dropout=0.3)
        x = rng.standard_normal((B, 5, 19)).astype(dtype)
        options = dict(lengths=rng.integers(1, 6, B), resets=rng.random((B, 5)) < 0.2)
        drawn, found = layer.rng.bit_generator.state, []
        for threads in (1, 3):
            set_num_threads(threads)
            layer.rng.bit_generator.state = drawn
            y, state, tape = layer.forward(x, **options)
            given = layer.backward(tape, y, state)
            found.append([y, *state, given.x, *given.state, given.parameters.flat])
        for other in found[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))
        if D == 1:
            y, final = layer(x)
            state = own = layer.initial_state(B)
            for t in range(5):
                y_t, state = layer.step(x[:, t], state)
                other, own = layer.step(x[:, t], own, out=own)
                assert np.array_equal(y_t, y[:, t]) and np.array_equal(other, y[:, t])
                assert not np.array_equal(own.h[-1], y_t)
            assert np.array_equal(state.h, final.h) and np.array_equal(own.c, final.c)
            row, _ = layer.step(x[0, 0], None)
            assert row.shape == y[0, 0].shape and np.allclose(row, y[0, 0], atol=1e-5)  # tiles have several rows


@pytest.mark.parametrize("case", CASES)
def test_numbers_that_are_not_finite_stay_in_their_rows(dtype, case):
    rng = np.random.default_rng(20306)
    layer = made((3, 21), 2, case, dtype, rng)
    x = rng.standard_normal((5, 6, 3)).astype(dtype)
    clean, *_ = layer.forward(x, lengths=[6, 6, 4, 6, 6])
    x[3, 4, 1], x[2, 4:] = np.nan, np.nan
    y, _, tape = layer.forward(x, lengths=[6, 6, 4, 6, 6])
    rest = [0, 1, 2, 4]
    assert np.array_equal(y[rest], clean[rest]) and np.isnan(y[3, 4:]).all() and not y[2, 4:].any()
    dy = np.zeros_like(y)
    dy[rest], dy[2, 4:] = 1, np.inf
    assert np.isfinite(layer.backward(tape, dy).x[rest]).all()


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_the_last_outputs_are_those_of_the_last_steps(dtype, case):
    rng, (merge, residual, D) = np.random.default_rng(20307), CASES[case]
    options = dict(num_layers=3, bidirectional=D == 2, merge=merge, residual=residual, loss="mse", dtype=dtype)
    steps, last = (Model(4, 7, 2, seed=2, output=output, **options) for output in ("sequence", "last"))
    x, lengths = rng.standard_normal((5, 6, 4)).astype(dtype), np.array([6, 3, 1, 5, 2])
    if D == 1:
        np.testing.assert_array_equal(last(x, lengths=lengths)[0],
                                      steps(x, lengths=lengths)[0][np.arange(5), lengths - 1])  # fmt: skip
    _, final = last.lstm(x, lengths=lengths)
    layers = final.h.astype(float).reshape(3, D, 5, 7)
    parts = [HOW[merge](h[:1], h[1:])[0] if D == 2 else h[0] for h in layers]
    expected = (sum(parts) if residual else parts[-1]) @ last.parameters["head.weight"].T.astype(float)
    np.testing.assert_allclose(last(x, lengths=lengths)[0], expected + last.parameters["head.bias"], rtol=2e-5)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_models_gradients_by_differences(case, own):
    """Of its last outputs, by the package's loss and by one's own, whose caller writes over the final state."""
    rng, (merge, residual, D) = np.random.default_rng(20308), CASES[case]
    model = Model(6, 4, 3, embedding_size=3, num_layers=2, output="last", dtype="float64", seed=2,
                  after=[Dense(4, "tanh")], bidirectional=D == 2, merge=merge, residual=residual)  # fmt: skip
    x, y, slopes = rng.integers(0, 6, (3, 5)), rng.integers(0, 3, 3), rng.standard_normal((3, 3))
    state = random_state(model.lstm, 3, rng)
    options = dict(lengths=[5, 0, 3], state=state)
    if own:
        _, final, tape = model.forward(x, **options)
        final.reset()
        found = dict(model.backward(tape, slopes).parameters)
    else:
        found = dict(model.loss_and_gradients(x, y, **options).gradients)

    def loss():
        return (slopes * model(x, **options)[0]).sum() if own else model.loss_and_gradients(x, y, **options).loss

    check_gradients(loss, {name: model.parameters[name] for name in model.parameters}, found)


@pytest.mark.parametrize("output", ["sequence", "last"])
@pytest.mark.parametrize("case", CASES)
def test_models_train_are_kept_and_go_on(case, output, tmp_path):
    rng, (merge, residual, D) = np.random.default_rng(20309), CASES[case]
    x = rng.standard_normal((12, 7, 4)).astype("float32")
    y = rng.standard_normal((12, 2) if output == "last" else (12, 7, 2))
    options = dict(num_layers=2, bidirectional=D == 2, merge=merge, residual=residual, loss="mse", dropout=0.2,
                   output=output)  # fmt: skip
    whole, half = (Model(4, 8, 2, seed=3, **options) for _ in range(2))
    assert whole.merge == merge and whole.residual == residual
    assert whole.parameters["head.weight"].shape == (2, 16 if D == 2 and merge == "concat" else 8)
    history = whole.fit(x, y, epochs=6, batch_size=5, progress=False)
    assert history.train_loss[-1] < history.train_loss[0]
    half.fit(x, y, epochs=2, batch_size=5, checkpoint=tmp_path / "run", progress=False)
    half = Model(4, 8, 2, seed=4, **options)
    half.fit(x, y, epochs=6, batch_size=5, resume=tmp_path / "run", progress=False)
    assert np.array_equal(whole.parameters.flat, half.parameters.flat)
    whole.save(tmp_path / "model.safetensors")
    for other in (Model.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole)):
        assert other.config == whole.config and np.array_equal(other(x)[0], whole(x)[0])
    told = str(whole.summary())
    assert (f"merge {merge}" in told) == (merge != "concat") and ("residual" in told) == residual


def test_a_residual_model_steps_and_generates():
    rng = np.random.default_rng(20310)
    model = Model(9, 14, 9, num_layers=3, residual=True, seed=5)
    steps_and_generates(model, rng.integers(0, 9, (3, 8)))


# --- arguments --------------------------------------------------------------------------------------------------------


def test_layers_are_copied_with_what_lies_between_them():
    layer = made((4, 6), 2, "residual, product", "float64", np.random.default_rng(20311))
    x = np.random.default_rng(1).standard_normal((3, 5, 4))
    other = LSTM(4, 6, 2, bidirectional=True, merge="product", residual=True, dtype="float64")
    other.load_state_dict(layer.state_dict())
    for twin in (other, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert repr(twin) == repr(layer) and "merge='product', residual=True" in repr(layer)
        assert np.array_equal(twin(x)[0], layer(x)[0])
    assert "merge" not in repr(LSTM(4, 6)) and "residual" not in repr(LSTM(4, 6))


@pytest.mark.parametrize("options, message", [
    (dict(merge="mean"), "merge: expected 'concat' without bidirectional=True, got 'mean'"),
    (dict(bidirectional=True, merge="ave"), "merge: expected one of 'concat', 'sum', 'mean', 'product', got str 'ave'"),
    (dict(residual=True), "residual: expected False with one layer, which has none below it, got True"),
])  # fmt: skip
def test_what_is_refused(options, message):
    for make in (lambda: LSTM(3, 4, **options), lambda: Model(3, 4, 2, **options)):
        with pytest.raises(ValueError) as error:
            make()
        assert str(error.value) == message
