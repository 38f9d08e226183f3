"""Projections, h = R_p (o tanh(c)): the layer against the oracle and by itself, and models."""

import copy
import pickle

import numpy as np
import pytest
from against_oracle import agrees, gradients_are_differences, steps_and_generates
from gradcheck import check_gradients

from cylstm import LSTM, Model, State, oracle, set_num_threads

# T, B, I, H, P: vectors that are full and not, more units than h is wide by little and by much.
SIZES = [
    (1, 1, 3, 5, 1), (7, 1, 8, 33, 32), (1, 6, 2, 16, 15), (9, 3, 5, 17, 4), (12, 17, 20, 64, 33), (5, 40, 11, 7, 6),
    (20, 33, 70, 50, 13), (6, 9, 5, 151, 70), (4, 2, 3, 150, 149),
]  # fmt: skip
VARIANTS = {"plain": {}, "all": dict(peepholes=True, coupled=True, cell_clip=0.3)}


@pytest.fixture(autouse=True)
def one_thread(threads_as_they_were):
    """A projection meets twice a step, and waits long where others compute; tests of threads say how many they want."""
    set_num_threads(1)


def made(sizes, L, D, dtype, rng, **variant):
    """A layer with weights of some size everywhere."""
    I, H, P = sizes
    layer = LSTM(I, H, L, bidirectional=D == 2, proj_size=P, dtype=dtype, seed=rng, **variant)
    for values in layer.parameters.values():
        values[...] += 0.5 / np.sqrt(values.shape[-1]) * rng.standard_normal(values.shape)
    return layer


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("ids", [False, True])
def test_agrees_with_the_oracle(isa, dtype, close, ids, variant):
    rng = np.random.default_rng(20281)
    for n, (T, B, *sizes) in enumerate(SIZES):
        layer = made(sizes, 1 + n % 3, 1 + n % 2, dtype, rng, **VARIANTS[variant])
        lengths = rng.integers(0, T + 1, B) if n % 3 else None
        resets = rng.random((B, T)) < 0.2 if n % 4 else None
        agrees(layer, close, rng, B, T, ids=ids, lengths=lengths, resets=resets)


def test_gradients_by_differences():
    rng = np.random.default_rng(20282)
    layer = made((4, 6, 3), 2, 2, "float64", rng)
    x, lengths = rng.standard_normal((3, 6, 4)), np.array([6, 2, 4])
    resets = np.zeros((3, 6), bool)
    resets[[0, 0, 2], [2, 5, 1]] = True
    gradients_are_differences(layer, x, rng, lengths=lengths, resets=resets)


DROPS = dict(recurrent_dropout=0.3, weight_drop=0.2, input_dropout=0.25)
TOGETHER = {  # with what else a layer may have
    "drops": DROPS,
    "first state": dict(first_state=True),
    "drops, first state, reverse": dict(first_state=True, reverse=True, **DROPS),
    "all": dict(first_state=True, peepholes=True, cell_clip=0.6, gate_clip=1.5, dropout=0.4, dropout_per="sequence",
                activations=("hard_sigmoid", "softsign", "relu"), **DROPS),
}  # fmt: skip


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("variant", TOGETHER)
def test_together_with_masks_and_first_states(isa, dtype, close, variant, given):
    rng, variant = np.random.default_rng(20291), TOGETHER[variant]
    for n, (T, B, *sizes) in enumerate(SIZES[1:]):  # a state of one number may be small beside what it is a sum of
        L, D = 1 + n % 3, 1 if variant.get("reverse") else 1 + n % 2
        of_layers = {name: value for name, value in variant.items() if L > 1 or not name.startswith("dropout")}
        layer = made(sizes, L, D, dtype, rng, **of_layers)
        lengths = rng.integers(0, T + 1, B) if n % 3 else None
        resets = rng.random((B, T)) < 0.25 if n % 4 else None
        agrees(layer, close, rng, B, T, given=given, lengths=lengths, resets=resets)


@pytest.mark.parametrize("given", [False, True])
def test_the_oracles_gradients_by_differences(given):
    """Of everything at once, each of its masks with some zeros; for some numbers of each array: all are made alike."""
    rng = np.random.default_rng(20292)
    options = dict(bidirectional=True, activations=("sigmoid", "softsign", "softplus"), gate_clip=2.0)
    layout = LSTM.layout(4, 5, 2, bidirectional=True, proj_size=3, first_state=True, peepholes=True)
    parameters = {name: 0.6 * rng.standard_normal(shape) for name, shape in layout.items()}
    options |= dict(num_layers=2, lengths=[6, 2, 4], resets=rng.random((3, 6)) < 0.3)
    for name, shape in dict(recurrent_masks=(4, 3, 3), weight_masks=(4, 20, 3), input_mask=(3, 4)).items():
        options[name] = 1.5 * (rng.permutation(np.arange(np.prod(shape)) % 3) > 0).reshape(shape)
    x, dy, state = rng.standard_normal((3, 6, 4)), rng.standard_normal((3, 6, 6)), None
    h, c, dh, dc = (rng.standard_normal((4, 3, width)) for width in (3, 5, 3, 5))
    if given:
        state = h, c

    def loss():
        y, (hn, cn), _ = oracle.forward(x, parameters, state, **options)
        return (dy * y).sum() + (dh * hn).sum() + (dc * cn).sum()

    _, _, tape = oracle.forward(x, parameters, state, **options)
    dx, (dh0, dc0), gradients = oracle.backward(tape, dy, (dh, dc))
    found = {"x": dx, **gradients} | ({"h": dh0, "c": dc0} if given else {})
    check_gradients(loss, {"x": x, **parameters} | ({"h": h, "c": c} if given else {}), found)


@pytest.mark.parametrize("variant", ["drops", "drops, first state, reverse", "all"])
def test_masks_and_first_states_give_the_bits_of_one_thread(isa, dtype, variant):
    rng, variant = np.random.default_rng(20293), TOGETHER[variant]
    # alone; shared out by rows; by units
    for B, H, P in ((1, 70, 20), (40, 60, 59), (5, 301, 130), (7, 1201, 3)):
        layer = made((19, H, P), 2, 1 if variant.get("reverse") else 2, dtype, rng, **variant)
        x = rng.standard_normal((B, 5, 19)).astype(dtype)
        options, drawn = dict(lengths=rng.integers(1, 6, B), resets=rng.random((B, 5)) < 0.3), layer.rng.bit_generator
        begin, found = drawn.state, []
        try:
            for threads in (1, 2, 3, 7):
                set_num_threads(threads)
                drawn.state = begin
                y, state, tape = layer.forward(x, **options)
                given = layer.backward(tape, y, state)
                found.append([y, *state, given.x, *given.state, given.parameters.flat])
        finally:
            set_num_threads(2)
        for other in found[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_run_with_masks_and_a_first_state_goes_on_to_the_same_bits(reverse, tmp_path):
    rng = np.random.default_rng(20294)
    x, y = rng.standard_normal((12, 7, 4)).astype("float32"), rng.standard_normal((12, 7, 2))
    options = dict(num_layers=2, proj_size=3, loss="mse", first_state=True, reverse=reverse, dropout=0.2, **DROPS)
    whole, half = (Model(4, 8, 2, seed=3, **options) for _ in range(2))
    whole.fit(x, y, epochs=4, batch_size=5, progress=False)
    half.fit(x, y, epochs=2, batch_size=5, checkpoint=tmp_path / "run", progress=False)
    half = Model(4, 8, 2, seed=4, **options)
    half.fit(x, y, epochs=4, batch_size=5, resume=tmp_path / "run", progress=False)
    assert np.array_equal(whole.parameters.flat, half.parameters.flat)
    first = whole.initial_state(2)
    assert first.h.shape == (2, 2, 3) and first.c.shape == (2, 2, 8)
    assert np.array_equal(first.h[1, 1], whole.parameters["lstm.h0_l1"]) and first.c[1].any()


@pytest.mark.parametrize("ragged", [False, True])
def test_steps_give_the_bits_of_the_whole_and_threads_those_of_one(isa, dtype, ragged):
    rng = np.random.default_rng(20283)
    # alone; shared out by rows; by units, also where h is too narrow for all members to have a part of it
    for B, H, P in ((1, 70, 20), (13, 151, 16), (40, 60, 59), (5, 301, 130), (7, 1201, 3)):
        layer = made((19, H, P), 2, 1 + ragged, dtype, rng)
        x = rng.standard_normal((B, 5, 19)).astype(dtype)
        options = {}
        if ragged:
            options = dict(lengths=rng.integers(1, 6, B), resets=rng.random((B, 5)) < 0.2)
        try:
            found = []
            for threads in (1, 2, 3, 7):
                set_num_threads(threads)
                y, state, tape = layer.forward(x, **options)
                given = layer.backward(tape, y, state)
                found.append([y, *state, given.x, *given.state, given.parameters.flat])
        finally:
            set_num_threads(2)
        for other in found[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))
        for b in range(0 if ragged else min(B, 3)):  # a row alone, step by step
            state = layer.initial_state(1)
            for t in range(5):
                y_t, state = layer.step(x[b, t], state, out=state)
                assert y_t.shape == (P,) and np.array_equal(y_t, found[0][0][b, t])


def test_dropout_masks_are_as_wide_as_outputs(close, dtype):
    rng = np.random.default_rng(20284)
    layer = made((4, 9, 5), 3, 2, dtype, rng)
    parameters = {name: values.astype(float) for name, values in layer.parameters.items()}
    layer.dropout = 0.4
    x = rng.standard_normal((6, 7, 4)).astype(dtype)
    y, _, tape = layer.forward(x)
    assert [mask.shape for mask in tape.masks] == [(6, 7, 10)] * 2
    masks = [mask.astype(float) for mask in tape.masks]
    wanted, _, oracle_tape = oracle.forward(x, parameters, num_layers=3, bidirectional=True, dropout_masks=masks)
    close(y, wanted)
    dx, _, gradients = oracle.backward(oracle_tape, y)
    got = layer.backward(tape, y)
    close(got.x, dx)
    for name, values in got.parameters.items():
        close(values, gradients[name], name)


def test_infinite_and_missing_numbers_stay_in_their_rows(isa, dtype):
    rng = np.random.default_rng(20285)
    layer = made((3, 21, 5), 2, 1, dtype, rng)
    x = rng.standard_normal((5, 6, 3)).astype(dtype)
    clean, *_ = layer.forward(x)
    x[1, 2, 0], x[3, 4, 1] = np.inf, np.nan
    y, _, tape = layer.forward(x)
    assert np.array_equal(y[[0, 2, 4]], clean[[0, 2, 4]])
    assert np.isnan(y[3, 4:]).all() and np.isfinite(y[1]).all()
    dy = np.zeros_like(y)
    dy[[0, 2, 4]] = 1
    dx = layer.backward(tape, dy).x
    assert np.isfinite(dx[[0, 2, 4]]).all()


@pytest.mark.parametrize("output", ["sequence", "last"])
def test_models_train_and_keep_their_projection(output, tmp_path):
    rng = np.random.default_rng(20286)
    x = rng.standard_normal((20, 9, 4)).astype("float32")
    y = rng.standard_normal((20, 2) if output == "last" else (20, 9, 2))
    model = Model(4, 12, 2, loss="mse", output=output, num_layers=2, bidirectional=True, seed=1, proj_size=5)
    assert model.parameters["head.weight"].shape == (2, 10) and model.proj_size == 5
    assert model.parameters["lstm.weight_hr_l1_reverse"].shape == (5, 12)
    assert "h (4, B, 5) and c (4, B, 12)" in str(model.summary()) and "proj_size 5" in str(model.summary())
    history = model.fit(x, y, epochs=6, batch_size=5, progress=False)
    assert history.train_loss[-1] < history.train_loss[0]
    model.save(tmp_path / "model.safetensors")
    for other in (Model.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert other.config == model.config
        assert np.array_equal(other(x)[0], model(x)[0])


def test_a_models_gradients_by_differences():
    """Embedding, projected layers, a dense layer behind, and a head; with a state, and one of each step's kind."""
    rng = np.random.default_rng(20287)
    model = Model(
        6, 5, 3, embedding_size=4, num_layers=2, after=[4], proj_size=3, output="last", dtype="float64", seed=2
    )
    x, y = rng.integers(0, 6, (3, 5)), rng.integers(0, 3, 3)
    state = State(rng.standard_normal((2, 3, 3)), rng.standard_normal((2, 3, 5)))
    found = model.loss_and_gradients(x, y, lengths=[5, 2, 3], state=state)
    weights = {name: model.parameters[name] for name in model.parameters}

    def loss():
        return model.loss_and_gradients(x, y, lengths=[5, 2, 3], state=state).loss

    check_gradients(loss, weights, dict(found.gradients))


def test_a_stream_goes_on_from_its_checkpoint(tmp_path):
    """Truncated backpropagation keeps states of both widths."""
    rng = np.random.default_rng(20288)
    x, y = rng.integers(0, 7, (4, 30)), rng.integers(0, 7, (4, 30))
    options = dict(batch_size=4, tbptt=10, progress=False)
    whole, half = (Model(7, 8, 7, num_layers=2, proj_size=3, seed=3) for _ in range(2))
    whole.fit(x, y, epochs=3, **options)
    half.fit(x, y, epochs=1, checkpoint=tmp_path / "run", **options)
    half = Model(7, 8, 7, num_layers=2, proj_size=3, seed=4)
    half.fit(x, y, epochs=3, resume=tmp_path / "run", **options)
    assert np.array_equal(whole.parameters.flat, half.parameters.flat)


def test_a_model_steps_and_generates():
    rng = np.random.default_rng(20289)
    model = Model(9, 14, 9, num_layers=2, proj_size=6, seed=5)
    state = model.initial_state(3)
    assert state.h.shape == (2, 3, 6) and state.c.shape == (2, 3, 14)
    steps_and_generates(model, rng.integers(0, 9, (3, 8)))


def test_layers_are_copied_with_their_projection():
    rng = np.random.default_rng(20290)
    layer = made((4, 6, 2), 2, 2, "float64", rng)
    x = rng.standard_normal((3, 5, 4))
    weights = layer.state_dict()
    assert list(weights)[:5] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hr_l0"]
    assert weights["weight_hr_l1_reverse"].shape == (2, 6) and weights["weight_ih_l1"].shape == (24, 4)
    other = LSTM(4, 6, 2, bidirectional=True, proj_size=2, dtype="float64")
    other.load_state_dict(weights)
    for twin in (other, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert repr(twin) == repr(layer) and "proj_size=2" in repr(layer)
        assert np.array_equal(twin(x)[0], layer(x)[0])
    assert layer.output_size == 4


def test_states_of_one_width_are_refused():
    layer = LSTM(3, 6, 2, proj_size=2, seed=0)
    x, wide = np.ones((4, 5, 3), "float32"), np.ones((2, 4, 6), "float32")
    with pytest.raises(ValueError, match=r"state.h: expected \(2, 4, 2\), got \(2, 4, 6\)"):
        layer(x, (wide, wide))
    with pytest.raises(ValueError, match=r"state.c: expected \(2, 4, 6\), got \(2, 4, 2\)"):
        layer(x, (wide[..., :2], wide[..., :2]))
    with pytest.raises(ValueError, match=r"out.h: expected a writable, contiguous float32 \(2, 4, 2\)"):
        layer.step(x[:, 0], None, out=(wide, wide))
    shared = np.zeros(2 * 4 * 6 + 4, "float32")
    with pytest.raises(ValueError, match="out: expected two arrays"):
        layer.step(x[:, 0], None, out=(shared[:16].reshape(2, 4, 2), shared[4:52].reshape(2, 4, 6)))
    state = layer.initial_state(4)
    inside = state.c.ravel()[:16].reshape(2, 4, 2)
    with pytest.raises(ValueError, match="out: expected the memory of `state` or other memory"):
        layer.step(x[:, 0], state, out=(inside, np.zeros_like(state.c)))
    with pytest.raises(ValueError, match=r"dy: expected \(4, 5, 2\), got \(4, 5, 6\)"):
        layer.backward(layer.forward(x)[2], np.ones((4, 5, 6)))
    with pytest.raises(ValueError, match=r"state.h: expected \(2, 4, 2\), got \(2, 4, 6\)"):
        Model(3, 6, 2, num_layers=2, proj_size=2, loss="mse").evaluate(x, np.ones((4, 5, 2)), state=(wide, wide))


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [(-1, ValueError, "an integer >= 0, got -1"), (6, ValueError, "less than hidden_size, 6, got 6"),
     (7, ValueError, "less than hidden_size, 6, got 7"), (2.0, TypeError, "an integer, got"),
     (True, TypeError, "an integer, got"), ("2", TypeError, "an integer, got")],
)  # fmt: skip
def test_sizes_that_are_none_are_refused(value, error, text):
    for make in (lambda: LSTM(3, 6, proj_size=value), lambda: Model(3, 6, 2, proj_size=value)):
        with pytest.raises(error, match=f"proj_size: expected {text}"):
            make()
    assert LSTM(3, 6, proj_size=0, seed=1).parameters.keys() == LSTM(3, 6, seed=1).parameters.keys()
