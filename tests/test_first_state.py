"""A first state that is learnt: where rows and whatever stands behind a reset begin, and its gradients."""

import copy
import pickle

import numpy as np
import pytest
from against_oracle import agrees
from gradcheck import check_gradients

from cylstm import LSTM, Adam, Model, State, data, exchange, set_num_threads
from cylstm._core import kernels

SIZES = [(1, 1, 3, 5), (6, 3, 5, 17), (5, 12, 20, 33), (9, 8, 5, 70), (4, 40, 30, 64)]
VARIANTS = {"plain": {}, "peepholes": dict(peepholes=True, cell_clip=0.6)}


def made(I, H, L=1, D=1, dtype="float64", seed=3, **variant):
    """A layer with numbers of some size in its first state."""
    rng = np.random.default_rng(seed)
    layer = LSTM(I, H, L, bidirectional=D == 2, dtype=dtype, seed=rng, first_state=True, **variant)
    for values in layer.parameters.values():
        values[...] += 0.4 * rng.standard_normal(values.shape)
    return layer


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_the_oracle(isa, dtype, close, variant, given):
    rng = np.random.default_rng(20281)
    for n, (T, B, I, H) in enumerate(SIZES):
        layer = made(I, H, 1 + n % 3, 1 + (n + 1) % 2, dtype, seed=n, **VARIANTS[variant])
        lengths = rng.integers(0, T + 1, B) if n % 3 else None
        resets = rng.random((B, T)) < 0.3 if n != 2 else None
        agrees(layer, close, rng, B, T, given=given, lengths=lengths, resets=resets)


@pytest.mark.parametrize("given", [False, True])
def test_gradients_by_differences(given):
    """The compiled layer itself, past the oracle: a row of no steps, and resets at both ends of rows, among them."""
    layer, rng = made(4, 5, 2, 2, peepholes=True), np.random.default_rng(20282)
    x, lengths = rng.standard_normal((4, 6, 4)), np.array([6, 2, 0, 4])
    resets = np.zeros((4, 6), bool)
    resets[[0, 0, 1, 2, 3], [0, 3, 1, 0, 3]] = True
    state, dstate = (State(*rng.standard_normal((2, 4, 4, 5))) for _ in range(2))
    dy, start = rng.standard_normal((4, 6, 10)), state if given else None

    def loss():
        y, (h, c) = layer(x, start, lengths=lengths, resets=resets)
        return (dy * y).sum() + (dstate.h * h).sum() + (dstate.c * c).sum()

    _, _, tape = layer.forward(x, start, lengths=lengths, resets=resets)
    dx, (dh, dc), gradients = layer.backward(tape, dy, dstate)
    arrays, found = {"x": x, **layer.parameters}, {"x": dx, **gradients}
    if given:
        arrays, found = {**arrays, "h": state.h, "c": state.c}, {**found, "h": dh, "c": dc}
    check_gradients(loss, arrays, found)


@pytest.mark.parametrize("D", [1, 2])
def test_whatever_begins_begins_there(isa, dtype, D):
    """Pieces between resets, each alone, and steps, give the bits of the whole."""
    layer, rng = made(7, 20, 2, 1, dtype), np.random.default_rng(20283)
    x = rng.standard_normal((3, 9, 7)).astype(dtype)
    begun = layer.initial_state(3)
    assert np.array_equal(layer(x)[0], layer(x, begun)[0])
    both = made(7, 20, 1, D, dtype)
    resets = np.zeros((3, 9), bool)
    resets[:, 4] = True
    pieces = np.concatenate([both(x[:, :4])[0], both(x[:, 4:])[0]], axis=1)
    assert np.array_equal(both(x, resets=resets)[0], pieces)
    whole, state = layer(x)[0], None
    for t in range(9):
        y_t, state = layer.step(x[:, t], state)
        assert np.array_equal(y_t, whole[:, t])


@pytest.mark.parametrize("size", [(33, 40), (9, 151), (2, 300)])
def test_threads_give_the_bits_of_one(dtype, size):
    """By rows and by units of a layer, ragged and cut."""
    B, H = size
    layer, rng = made(19, H, 2, 2, dtype), np.random.default_rng(20284)
    x, lengths = rng.standard_normal((B, 14, 19)).astype(dtype), rng.integers(0, 15, B)
    resets, found = rng.random((B, 14)) < 0.3, []
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            y, state, tape = layer.forward(x, lengths=lengths, resets=resets)
            found.append([y, *state, layer.backward(tape, y, state).parameters.flat])
    finally:
        set_num_threads(2)
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_rows_without_steps_end_where_they_begin(dtype):
    layer = made(3, 11, 2, 2, dtype)
    _, state, tape = layer.forward(np.full((2, 4, 3), np.nan), lengths=[0, 0])
    begun = layer.initial_state(2)
    for n, name in enumerate(("l0", "l0_reverse", "l1", "l1_reverse")):
        for part, values in (("h", begun.h), ("c", begun.c)):
            assert np.array_equal(values[n], np.tile(layer.parameters[f"{part}0_{name}"], (2, 1)))
    assert np.array_equal(state.h, begun.h) and np.array_equal(state.c, begun.c)
    dstate = State(*np.random.default_rng(1).standard_normal((2, 4, 2, 11)).astype(dtype))
    gradients = layer.backward(tape, np.zeros((2, 4, 22)), dstate).parameters
    assert np.array_equal(gradients["h0_l1"], dstate.h[2].sum(axis=0))
    assert np.array_equal(gradients["c0_l0_reverse"], dstate.c[1].sum(axis=0))
    begun.h[...] = 7
    assert layer.initial_state(1).h.max() < 7  # a copy


@pytest.mark.parametrize("value", [1e30, 1e-30, np.inf, np.nan])
def test_tiles_are_given_nothing_that_they_do_not_hold(value):
    layer, found = made(40, 64, dtype="float32"), []
    layer.parameters["h0_l0"][...] = 0
    layer.parameters["h0_l0"][:3] = value
    x = np.random.default_rng(5).standard_normal((40, 3, 40)).astype("float32")
    resets = np.zeros((40, 3), bool)
    resets[:, 2] = True
    before = kernels.instruction_set()
    try:
        for isa in (kernels.available()[-1], [name for name in kernels.available() if name != "amx"][-1]):
            kernels.use(isa)
            state = State(*np.ones((2, 1, 40, 64), "float32"))
            found.append([layer(x)[0], layer(x, layer.initial_state(40))[0], layer(x, state, resets=resets)[0]])
    finally:
        kernels.use(before)
    for ours, theirs in zip(*found, strict=True):
        assert np.array_equal(ours, theirs, equal_nan=True)


# --- states -----------------------------------------------------------------------------------------------------------


def test_rows_of_a_stream_begin_anew():
    layer, rng = made(3, 5, 2), np.random.default_rng(20285)
    _, state = layer(rng.standard_normal((4, 6, 3)))
    kept, begun = state.copy(), layer.initial_state(4)
    state.reset([1, 3], layer.initial_state())
    for part in ("h", "c"):
        now, first = getattr(state, part), getattr(begun, part)
        assert np.array_equal(now[:, [1, 3]], first[:, [1, 3]])
        assert np.array_equal(now[:, [0, 2]], getattr(kept, part)[:, [0, 2]])
    state.reset(2, begun.reset(to=layer.initial_state()).copy().reset(0, layer.initial_state()).__class__(
        *(part[:, :1] for part in begun)))  # fmt: skip
    assert np.array_equal(state.h[:, 2], begun.h[:, 2])
    mask = np.array([True, False, False, False])
    assert np.array_equal(state.reset(mask, kept.__class__(*(part[:, 1:2] for part in kept))).c[:, 0], kept.c[:, 1])


def test_zeros_in_its_place_are_refused_by_name():
    layer = made(3, 5)
    x = np.ones((2, 4, 3))
    _, given = layer.step(x[:, 0], None)
    states = [layer(x)[1], layer.forward(x)[1], given, layer.initial_state(2), given.copy(), copy.deepcopy(given),
              pickle.loads(pickle.dumps(given))]  # fmt: skip
    for state in states:
        with pytest.raises(ValueError, match=r"to: expected what rows of this layer begin with, its initial_state"):
            state.reset([0])
    with pytest.raises(ValueError, match=r"to.h: expected \(1, 1, 5\) or one row, got \(1, 3, 5\)"):
        given.reset([0], layer.initial_state(3))
    plain = LSTM(3, 5).initial_state(2)
    plain.h[...] = 1
    assert not plain.reset().h.any()


# --- models, files ----------------------------------------------------------------------------------------------------


def series(rng, B=24, T=9):
    x = rng.standard_normal((B, T, 4))
    return x, np.cumsum(x[..., :2], axis=1) + 3  # what comes before the first step counts


@pytest.mark.parametrize("options", [{}, dict(output="last", bidirectional=True), dict(before=[6], num_layers=2)])
def test_models_learn_it(options, tmp_path, rng):
    x, y = series(rng)
    y = y[:, -1] if "output" in options else y
    model = Model(4, 12, 2, loss="mse", seed=1, first_state=True, **options)
    history = model.fit(x, y, epochs=4, batch_size=6, progress=False, optimizer=Adam(1e-2))
    assert history.train_loss[-1] < history.train_loss[0]
    learnt = {name: values for name, values in model.parameters.items() if ".h0_" in name or ".c0_" in name}
    assert len(learnt) == 2 * model.num_layers * (1 + model.bidirectional)
    assert all(values.all() for values in learnt.values())
    model.save(tmp_path / "model.safetensors")
    for other in (Model.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model),
                  exchange.model_of(exchange.network_of(model))):  # fmt: skip
        assert other.config == model.config
        assert np.array_equal(other(x)[0], model(x)[0])
        assert np.array_equal(other.initial_state(2).c, model.initial_state(2).c)
    assert "first_state" in model.summary() and "first_state=True" in repr(model.lstm)


@pytest.mark.parametrize("output", ["sequence", "last"])
def test_the_gradients_of_a_model(output, rng):
    model = Model(4, 5, 2, loss="mse", num_layers=2, bidirectional=True, output=output, first_state=True, seed=1,
                  dtype="float64")  # fmt: skip
    model.parameters.flat += 0.3 * rng.standard_normal(model.parameters.size)
    x, y = series(rng, 3, 5)
    options = dict(lengths=[5, 1, 3], resets=rng.random((3, 5)) < 0.3)
    y = y[:, -1] if output == "last" else y
    gradients = model.loss_and_gradients(x, y, **options).gradients
    names = [name for name in gradients if "0_l" in name]
    check_gradients(lambda: model.evaluate(x, y, **options)["loss"], {name: model.parameters[name] for name in names},
                    {name: gradients[name] for name in names})  # fmt: skip


def test_windows_of_a_stream_begin_there_once(rng):
    """Truncated BPTT: the first window has the gradients of h0, later ones go on from the state before them."""
    x, y = series(rng, 3, 12)
    model = Model(4, 6, 2, loss="mse", seed=1, first_state=True)
    seen = []
    model.fit(x, y, epochs=1, tbptt=5, progress=False,
              on_gradients=lambda model, gradients: seen.append(gradients["lstm.h0_l0"].copy()))  # fmt: skip
    assert [bool(gradient.any()) for gradient in seen] == [True, False, False]


def test_a_run_goes_on_to_the_same_bits(tmp_path, rng):
    x, y = series(rng)
    options = dict(batch_size=6, progress=False, seed=2)
    whole, part = (Model(4, 12, 2, loss="mse", seed=1, first_state=True) for _ in range(2))
    whole.fit(x, y, epochs=4, **options)
    part.fit(x, y, epochs=2, checkpoint=tmp_path / "run", **options)
    resumed = Model.from_checkpoint(tmp_path / "run")
    resumed.fit(x, y, epochs=4, resume=tmp_path / "run", **options)
    assert np.array_equal(resumed.parameters.flat, whole.parameters.flat)


def test_a_text_goes_on_from_it():
    text = "from the first letter on, "
    vocabulary = data.Vocabulary.from_text(text)
    model = Model(len(vocabulary), 16, len(vocabulary), seed=1, first_state=True, vocabulary=vocabulary)
    model.parameters["lstm.c0_l0"][...] = np.linspace(-2, 2, 16)
    prompt = vocabulary.encode(text)
    plain = Model(len(vocabulary), 16, len(vocabulary), seed=1)
    expected, state = [], model.initial_state(1)
    for token in prompt:
        logits, state = model.step(token, state)
    for _ in range(8):
        expected.append(int(logits.argmax()))
        logits, state = model.step(expected[-1], state, out=(logits, state))
    assert list(model.generate(prompt, 8, top_k=1)) == expected
    assert not np.array_equal(model(prompt)[0], plain(prompt)[0])


def test_layers_are_copied_and_written_with_it():
    layer = made(4, 6, 2, 2)
    x = np.random.default_rng(3).standard_normal((3, 5, 4))
    weights = layer.state_dict()
    assert weights["h0_l1_reverse"].shape == (6,)
    other = LSTM(4, 6, 2, bidirectional=True, dtype="float64", first_state=True)
    assert not any(other.parameters[name].any() for name in other.parameters if "0_l" in name)
    other.load_state_dict(weights)
    twins = [other, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), exchange.model_of(
        exchange.network_of(layer))]  # fmt: skip
    for twin in twins:
        assert twin.cell == layer.cell and repr(twin) == repr(layer)
        assert np.array_equal(twin(x)[0], layer(x)[0])
    plain = LSTM(4, 6, 2, bidirectional=True, dtype="float64", seed=3).parameters
    same = LSTM(4, 6, 2, bidirectional=True, dtype="float64", seed=3, first_state=True)
    assert all(np.array_equal(plain[name], same.parameters[name]) for name in plain)
    assert np.array_equal(same(x)[0], LSTM(4, 6, 2, bidirectional=True, dtype="float64", seed=3)(x)[0])
