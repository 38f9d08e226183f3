"""Weights: what was packed for the kernels is never stale, forms of it that share memory, initialization, names."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cylstm import LSTM, Adam, Model, Parameters
from cylstm._core import kernels, updates

SHAPE = dict(input_size=5, hidden_size=19, num_layers=2)
LARGE = dict(input_size=260, hidden_size=264, num_layers=2)  # more than the 1 MB from which on memory is shared


def same(a, b):
    np.testing.assert_array_equal(a, b)


def test_weights_written_through_a_view_are_never_stale(rng):
    layer = LSTM(**SHAPE, seed=1)
    x = rng.standard_normal((3, 6, 5))
    before, _ = layer(x)
    view = layer.parameters["weight_ih_l1"][3:9]
    same(layer(x)[0], before)
    view *= -1.5
    after, _ = layer(x)
    assert np.abs(after - before).max() > 1e-3
    view /= -1.5
    del view
    np.testing.assert_allclose(layer(x)[0], before, atol=1e-6)
    layer.parameters["bias_l0"][:] += 1
    assert np.abs(layer(x)[0] - before).max() > 1e-3


def test_weights_changed_through_a_view_are_noticed_by_backward(rng):
    layer = LSTM(**SHAPE, seed=1)
    x = rng.standard_normal((2, 4, 5))
    y, _, tape = layer.forward(x)
    norm = np.linalg.norm(layer.parameters["weight_hh_l0"])  # looking is no change
    layer.backward(tape, y)
    y, _, tape = layer.forward(x)
    layer.parameters["weight_hh_l0"][3, 4] += norm
    with pytest.raises(ValueError, match="weights that forward saw"):
        layer.backward(tape, y)


def through_an_update(flat, values):
    """values by an optimiser's kernel, which writes in C."""
    updates.sgd(flat, flat - values, None, 1.0, 0.0, False, 0.0, 1.0)


def through_dlpack(flat, values):
    np.from_dlpack(flat)[:] = values


def through_a_memoryview(flat, values):
    memoryview(flat)[:] = memoryview(np.ascontiguousarray(values))


WRITES = {
    "slice": lambda flat, values: flat.__setitem__(slice(None), values),
    "in place": lambda flat, values: flat.__iadd__(values - flat),
    "out": lambda flat, values: np.add(values, 0, out=flat),
    "copyto": lambda flat, values: np.copyto(flat, values),
    "reshaped": lambda flat, values: flat.reshape(1, -1)[0].view("u4").__setitem__(slice(None), values.view("u4")),
    "buffer": lambda flat, values: np.frombuffer(flat, flat.dtype).__setitem__(slice(None), values),
    "memoryview": through_a_memoryview,
    "dlpack": through_dlpack,
    "update": through_an_update,
}
PARTS = {
    "flat": lambda m: m.parameters.flat,
    "child": lambda m: m.parameters.child("lstm.").flat,
    "layer": lambda m: m.lstm.parameters.flat,
    "a slice": lambda m: m.parameters.flat[: m.lstm.parameters.size],
}


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("write", WRITES)
def test_whatever_writes_through_flat_is_noticed(rng, write, part, kept):
    """Without a word to the package, whether the view was held since before the last call or taken for this write."""
    model, x = Model(5, 19, 2, loss="mse", seed=1), rng.standard_normal((3, 6, 5)).astype("f4")
    held = PARTS[part](model) if kept else None
    model(x)
    for n in range(3):
        flat = held if kept else PARTS[part](model)
        values = (flat * np.float32(0.5 + 0.1 * n)).copy()
        WRITES[write](flat, values)
        np.testing.assert_allclose(flat, values, rtol=1e-5, atol=1e-7)
        del flat
        fresh = Model(5, 19, 2, loss="mse", seed=2)
        fresh.parameters.flat = model.parameters.flat
        same(model(x)[0], fresh(x)[0])
        y, _ = model.lstm.step(x[:, 0], None)
        same(y, fresh.lstm.step(x[:, 0], None)[0])


def test_a_loop_of_ones_own_trains_the_weights_that_it_saves(rng, tmp_path):
    model, adam = Model(3, 8, 1, loss="mse", seed=1), Adam(lr=1e-2)
    x, y = rng.standard_normal((4, 6, 3)), rng.standard_normal((4, 6, 1))
    expected = Model(3, 8, 1, loss="mse", seed=1)
    for _ in range(20):
        adam.update(model.parameters, model.loss_and_gradients(x, y).gradients)
    expected.fit(x, y, epochs=20, batch_size=4, shuffle=False, optimizer=adam, clip_norm=None, progress=False)
    same(model.parameters.flat, expected.parameters.flat)
    model.save(tmp_path / "m")
    assert Model.load(tmp_path / "m").evaluate(x, y) == model.evaluate(x, y)
    assert model.loss_and_gradients(x, y).loss == pytest.approx(model.evaluate(x, y)["loss"])


def test_looking_at_weights_packs_nothing_anew_and_at_gradients_copies_nothing(rng):
    layer = LSTM(5, 100, seed=1)
    x = rng.standard_normal((2, 4, 5))
    y, _, tape = layer.forward(x)
    version = layer.parameters.version()
    norms = [np.linalg.norm(layer.parameters.flat), np.linalg.norm(layer.parameters["bias_l0"])]
    gradients = layer.backward(tape, y).parameters
    assert layer.parameters.version() == version and all(norms)
    tracemalloc.start()
    try:
        for name in gradients:
            assert gradients.flat[-1] != gradients[name].flat[0]
        assert tracemalloc.get_traced_memory()[1] < gradients.nbytes / 2
    finally:
        tracemalloc.stop()


def test_views_taken_before_a_layer_was_made_of_them_count(rng):
    parameters = Parameters(LSTM.layout(5, 7), "float32")
    parameters.flat[:] = rng.standard_normal(parameters.size)
    early = parameters["weight_hh_l0"]
    layer, x = LSTM(5, 7, seed=1, parameters=parameters), rng.standard_normal((2, 3, 5))
    before = layer(x)[0]
    same(layer(x)[0], before)
    early *= 2
    assert np.abs(layer(x)[0] - before).max() > 1e-3


def test_switching_the_instruction_set_repacks(rng):
    layer = LSTM(**SHAPE, dtype="float64", seed=1)
    x = rng.standard_normal((3, 6, 5))
    before = kernels.instruction_set()
    results = []
    for name in kernels.available():
        kernels.use(name)
        results.append(layer(x)[0])
    kernels.use(before)
    for result in results:
        np.testing.assert_allclose(result, results[0], rtol=1e-12, atol=1e-14)


def test_weights_updated_while_another_thread_computes_are_the_old_or_the_new(rng):
    layer = LSTM(33, 65, 2, seed=1)
    x = rng.standard_normal((7, 60, 33)).astype("float32")
    first = layer.parameters.flat.copy()
    second = first * np.float32(1.5)
    expected = [layer(x)[0]]
    layer.parameters.raw()[:] = second
    layer.parameters.touch()
    expected.append(layer(x)[0])
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(lambda: layer(x)[0]) for _ in range(60)]
        for n in range(200):
            layer.parameters.raw()[:] = first if n % 2 else second  # as training does
            layer.parameters.touch()
            layer(x[:1, :2])
        for run in runs:
            assert any(np.array_equal(run.result(), y) for y in expected)


@pytest.fixture
def large(rng):
    """A layer with large weights, a call forward and one backward, and what they should give."""
    layer = LSTM(**LARGE, seed=1)
    x = rng.standard_normal((20, 3, 260)).astype("float32")
    dy = rng.standard_normal((20, 3, 264)).astype("float32")
    expected = LSTM(**LARGE, seed=1).forward(x)[0]
    return layer, x, dy, expected, gradient_of(layer, x, dy)


def gradient_of(layer, x, dy):
    twin = LSTM(**LARGE, seed=3)
    twin.load_state_dict(layer.state_dict())
    return twin.backward(twin.forward(x)[2], dy).parameters.flat


def test_large_weights_serve_forward_after_backward_took_their_memory(isa, large):
    layer, x, dy, y, gradient = large
    for _ in range(3):
        again, _, tape = layer.forward(x)
        same(again, y)
        same(layer.backward(tape, dy).parameters.flat, gradient)
        same(layer(x)[0], y)
        np.testing.assert_allclose(layer(x[:1])[0], y[:1], atol=1e-5)  # one row: another form


def test_large_weights_stay_for_calls_and_tapes_that_still_need_them(large):
    layer, x, dy, y, gradient = large
    tapes = [layer.forward(x)[2] for _ in range(3)]
    for tape in tapes:
        same(layer.backward(tape, dy).parameters.flat, gradient)
        same(layer(x)[0], y)


def test_large_weights_updated_in_between(large):
    layer, x, dy, _, _ = large
    for n in range(3):
        layer.parameters.flat *= np.float32(1.01 + n)
        _, _, tape = layer.forward(x)
        same(layer.backward(tape, dy).parameters.flat, gradient_of(layer, x, dy))


def test_large_weights_are_not_taken_from_a_call_that_runs(large):
    layer, x, dy, _, gradient = large
    long = np.tile(x, (1, 100, 1))
    expected = layer(long)[0]
    with ThreadPoolExecutor(1) as pool:
        for _ in range(10):
            layer.parameters.touch()
            run = pool.submit(layer, long)
            while not run.running():
                pass
            same(layer.backward(layer.forward(x)[2], dy).parameters.flat, gradient)
            same(run.result()[0], expected)


def test_initial_weights():
    layer = LSTM(200, 64, 2, seed=1, forget_bias=1.5)
    W, R, b = (layer.parameters[name] for name in ("weight_ih_l0", "weight_hh_l1", "bias_l1"))
    assert W.std() == pytest.approx(1 / np.sqrt(200), rel=0.02)
    for gate in R.reshape(4, 64, 64):
        np.testing.assert_allclose(gate @ gate.T, np.eye(64), atol=1e-5)
    assert (b[64:128] == 1.5).all() and not b[:64].any() and not b[128:].any()
    same(LSTM(200, 64, 2, seed=1).parameters["weight_ih_l1"], layer.parameters["weight_ih_l1"])
    assert np.abs(LSTM(200, 64, 2, seed=2).parameters["weight_ih_l1"] - layer.parameters["weight_ih_l1"]).max() > 0.01
    assert "bias_l0" not in LSTM(3, 4, bias=False).parameters


def test_state_dict_has_torchs_names_and_goes_both_ways(rng):
    layer = LSTM(**SHAPE, bidirectional=True, seed=1)
    weights = layer.state_dict()
    assert list(weights)[:5] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_ih_l0_reverse"]
    assert weights["weight_ih_l1"].shape == (76, 38) and not weights["bias_hh_l1"].any()
    weights["bias_hh_l1"] = rng.standard_normal(76).astype("float32")
    weights["bias_ih_l1"] = rng.standard_normal(76).astype("float32")
    other = LSTM(**SHAPE, bidirectional=True, seed=2)
    other.load_state_dict(weights)
    same(other.parameters["bias_l1"], weights["bias_ih_l1"] + weights["bias_hh_l1"])
    same(other.parameters["weight_hh_l0_reverse"], layer.parameters["weight_hh_l0_reverse"])
    before = other.parameters.flat.copy()
    with pytest.raises(ValueError, match=r"weights: expected.*, got bias_hh_l0 missing; extra unknown"):
        other.load_state_dict({("extra" if name == "bias_hh_l0" else name): w for name, w in weights.items()})
    with pytest.raises(ValueError, match=r"weight_hh_l0: expected \(76, 19\), got \(76, 20\)"):
        other.load_state_dict({**weights, "weight_hh_l0": np.ones((76, 20), "float32")})
    same(other.parameters.flat, before)
