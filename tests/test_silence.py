"""What once gave wrong numbers, or did nothing, without a word."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest

from cylstm import LSTM, Model, State, data, tensor_files

# --- dropout, ids, and what a model returns ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda **options: LSTM(3, 4, **options), lambda **options: Model(3, 4, 5, **options)])
def test_dropout_of_one_layer_is_refused(make):
    message = r"dropout: expected 0 with one layer, whose outputs are the last ones, got 0\.9"
    with pytest.raises(ValueError, match=message):
        make(dropout=0.9)
    one = make()
    with pytest.raises(ValueError, match=message):
        one.dropout = 0.9
    one.dropout = 0
    assert one.dropout == 0 and make(dropout=0.9, num_layers=2).dropout == 0.9


def test_files_with_dropout_of_one_layer_load(tmp_path, rng):
    """As they were written when nothing refused it; a run goes on from such a checkpoint, too."""
    model, x = Model(3, 4, 5, seed=1), rng.standard_normal((4, 6, 3))
    header = {**model.header(), "config": {**model.config, "dropout": 0.9}}
    tensor_files.write_tensors(tmp_path / "m", "model", header, dict(model.parameters))
    loaded = Model.load(tmp_path / "m")
    assert loaded.dropout == 0 and np.array_equal(loaded.predict(x), model.predict(x))
    y = rng.integers(0, 5, (4, 6))
    model.fit(x, y, epochs=1, checkpoint=tmp_path / "c", progress=False)
    with tensor_files.open_tensors(tmp_path / "c", "checkpoint") as file:
        tensors = {name: file.read(name, shape, np.dtype("f4")) for name, shape in file.shapes.items()}
        header = {**file.header, "config": {**file.header["config"], "dropout": 0.9}}
    tensor_files.write_tensors(tmp_path / "old", "checkpoint", header, tensors)
    assert Model.from_checkpoint(tmp_path / "old").dropout == 0
    resumed, whole = Model(3, 4, 5, seed=1), Model(3, 4, 5, seed=1)
    resumed.fit(x, y, epochs=2, resume=tmp_path / "old", progress=False)
    whole.fit(x, y, epochs=2, progress=False)
    assert np.array_equal(resumed.parameters.flat, whole.parameters.flat)


def copies(model):
    return [model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]


def test_ids_go_into_a_model_and_never_into_the_layer_behind_its_embedding(rng):
    ids = rng.integers(0, 9, (2, 5))
    message = (
        r"expected what the model makes of its inputs, 64 floating-point numbers each \(ids go into the model itself\)"
    )
    for model in copies(Model(75, 8, 75, embedding_size=64)):
        for layer in copies(model.lstm):
            for call in (layer, layer.forward):
                with pytest.raises(TypeError, match=f"x: {message}, got int64"):
                    call(ids)
            with pytest.raises(TypeError, match=f"x_t: {message}, got int64"):
                layer.step(ids[:, 0], None)
        model(ids), model.step(ids[:, 0], None), model.loss_and_gradients(ids, ids)
    for model in copies(Model(75, 8, 75)):
        assert np.array_equal(model.lstm(ids)[0], model.lstm(data.one_hot(ids, 75))[0])


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("output", ["sequence", "last"])
def test_a_model_returns_outputs_and_state_as_a_layer_does(rng, rows, output):
    model, x = Model(3, 4, 5, num_layers=2, output=output, seed=1), rng.standard_normal((rows, 6, 3)).astype("f4")
    y, state = model(x)
    assert len(y) == rows and isinstance(state, State) and state.h.shape == state.c.shape == (2, rows, 4)
    assert np.array_equal(state.h, model.lstm(x)[1].h)
    first, state = model(x[:, :4])
    rest, state = model(x[:, 4:], state)
    whole, final = model(x)
    together = np.concatenate([first, rest], 1) if output == "sequence" else rest
    assert np.array_equal(together, whole) and np.array_equal(state.c, final.c)
    ragged, state = model([x[0], x[0, :2]])
    assert len(ragged) == 2 and np.array_equal(state.h[:, [1]], model(x[:1, :2])[1].h)


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"output": "last"}, {"output": "last", "bidirectional": True}])
@pytest.mark.parametrize("features", [True, False])
def test_batches_of_rows_give_what_all_of_them_give(rng, monkeypatch, features, options):
    model = Model(5, 7, 3, num_layers=2, embedding_size=None if features else 4, seed=1, dtype="float64", **options)
    x = rng.standard_normal((23, 6, 5)) if features else rng.integers(0, 5, (23, 6))
    layers = 2 * model.lstm.num_directions
    state = State(*rng.standard_normal((2, layers, 23, 7)))
    lengths, resets = rng.integers(1, 7, 23), rng.random((23, 6)) < 0.3
    calls = [dict(), dict(state=state), dict(lengths=lengths), dict(state=state, lengths=lengths, resets=resets)]
    whole = [model(x, **given) for given in calls]
    predicted = model.predict(x, lengths=lengths)
    monkeypatch.setattr("cylstm.batches.AT_ONCE", 30)
    for given, (expected, final) in zip(calls, whole, strict=True):
        got, state = model(x, **given)
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(np.stack(state), np.stack(final), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(model.predict(x, lengths=lengths), predicted)
    longer = State(*rng.standard_normal((2, layers, 24, 7)))
    with pytest.raises(ValueError, match=rf"state.h: expected \({layers}, 23, 7\), got \({layers}, 24, 7\)"):
        model(x, longer)
    with pytest.raises(ValueError, match=r"lengths\[0\]: expected a length in 0\.\.6, got 7"):
        model(x, lengths=np.full(23, 7))
    with pytest.raises(ValueError, match=r"resets: expected \(23, 6\), got \(24, 6\)"):
        model(x, resets=np.zeros((24, 6), bool))
    rows = [row[:length] for row, length in zip(x, lengths, strict=True)]
    ragged, final = model(rows, calls[3]["state"], resets=calls[3]["resets"][:, : lengths.max()])
    expected, whole_final = whole[3]
    np.testing.assert_allclose(np.stack(final), np.stack(whole_final), rtol=1e-12, atol=1e-15)
    for n, (row, length) in enumerate(zip(ragged, lengths, strict=True)):
        np.testing.assert_allclose(row, expected[n, :length] if not options else expected[n], rtol=1e-12, atol=1e-15)
    empty, _ = model([*rows[:20], x[20, :0], *rows[21:]])
    assert len(empty) == 23 and not np.any(empty[20] if not options else empty[20] - model.parameters["head.bias"])
    with pytest.raises(ValueError, match=r"sequences\[20\]: expected"):
        model([*rows[:20], x[20, 0, ...], *rows[21:]] if features else [*rows[:20], x[20][None], *rows[21:]])
    if features:
        with pytest.raises(ValueError, match=r"x: expected \(B, T, 5\) or \(T, 5\), got \(23, 6, 4\)"):
            model(x[:, :, :4])


@pytest.mark.parametrize("method", ["predict", "__call__", "predict_proba"])
def test_predicting_takes_memory_for_what_it_returns(rng, method):
    """The windows of one series are a view; all steps of all of them are not."""
    x, _ = data.windows(rng.standard_normal(20_100).astype("f4"), 100)
    model = Model(1, 32, 2, output="last", loss="binary_cross_entropy", seed=1)
    call = getattr(model, method)
    call(x[:1000])
    tracemalloc.start()
    try:
        call(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6 < x.size * 32 * 4 / 5


# --- numbers that are not finite --------------------------------------------------------------------------------------


def batch(rng):
    return rng.standard_normal((8, 5, 3)), rng.standard_normal((8, 5, 2))


METHODS = {
    "fit": lambda model, x, y, **options: model.fit(x, y, epochs=1, batch_size=1, progress=False, **options),
    "evaluate": lambda model, x, y, **options: model.evaluate(x, y, **options),
    "loss_and_gradients": lambda model, x, y, **options: model.loss_and_gradients(x, y, **options),
    "validation": lambda model, x, y, **options: model.fit(
        *batch(np.random.default_rng(1)), validation=(x, y, options.get("lengths")), epochs=1, progress=False
    ),
}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("method", METHODS)
def test_the_first_number_that_is_not_finite_is_named_before_anything_changes(rng, method, name, value):
    x, y = batch(rng)
    {"x": x, "y": y}[name][6, 3, 1] = {"x": x, "y": y}[name][7, 0, 0] = value
    model = Model(3, 4, 2, loss="mse", seed=1)
    before = model.parameters.flat.copy()
    expected = "a finite number" if not np.isfinite(value) else "a number that float32 holds"
    prefix = "validation " if method == "validation" else ""
    with pytest.raises(ValueError, match=rf"^{prefix}{name}\[6, 3, 1\]: expected {expected}, got "):
        METHODS[method](model, x, y)
    assert np.array_equal(model.parameters.flat, before)
    lengths = np.array([5, 5, 5, 5, 5, 5, 3, 5])
    {"x": x, "y": y}[name][7, 0, 0] = 0.5  # what is left stands past the end of its row
    if value != 1e300:  # of which NumPy warns
        METHODS[method](model, x, y, lengths=lengths)


def test_positions_in_lists_in_one_sequence_and_in_targets_of_rows(rng):
    x, y = batch(rng)
    model, last = Model(3, 4, 2, loss="mse", seed=1), Model(3, 4, 2, loss="mse", output="last", seed=1)
    wrong_x, wrong_y = x.copy(), y.copy()
    wrong_x[2, 4, 1], wrong_y[2, 4, 1] = np.nan, np.inf
    for method in ("fit", "evaluate"):
        call = METHODS[method]
        with pytest.raises(ValueError, match=r"^x\[2\]\[4, 1\]: expected a finite number, got nan"):
            call(model, list(wrong_x), list(y))
        with pytest.raises(ValueError, match=r"^y\[2\]\[4, 1\]: expected a finite number, got inf"):
            call(model, list(x), list(wrong_y))
        with pytest.raises(ValueError, match=r"^x\[4, 1\]: expected a finite number, got nan"):
            call(model, wrong_x[2], y[2])
        with pytest.raises(ValueError, match=r"^y\[4, 1\]: expected a finite number, got inf"):
            call(model, x[2], wrong_y[2])
        with pytest.raises(ValueError, match=r"^y\[2, 1\]: expected a finite number, got inf"):
            call(last, x, wrong_y[:, 4])
    binary = Model(3, 4, 2, loss="binary_cross_entropy", seed=1)
    for method in ("fit", "evaluate", "loss_and_gradients"):
        with pytest.raises(ValueError, match=r"^y\[2, 4, 1\]: expected a finite number, got inf"):
            METHODS[method](binary, x, np.where(np.isfinite(wrong_y), 0.5, wrong_y))


def test_half_precision_is_compared_as_it_is(rng):
    x, y = (array.astype("f2") for array in batch(rng))
    model = Model(3, 4, 2, loss="mse", seed=1)
    model.fit(x, y, epochs=1, progress=False)
    y[1, 2, 0] = np.inf
    with pytest.raises(ValueError, match=r"^y\[1, 2, 0\]: expected a finite number, got inf"):
        model.fit(x, y, epochs=1, progress=False)


# --- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [1, 2])
@pytest.mark.parametrize("horizon", [1, 3])
def test_windows_go_into_a_model_of_as_many_outputs(rng, horizon, features):
    series = rng.standard_normal((60, features))
    x, y = data.windows(series, 8, horizon)
    options = dict(output="last", loss="mse", seed=1)
    model, plain = (Model(features, 6, horizon * features, **options) for _ in range(2))
    flat = y.reshape(len(y), -1)
    assert model.evaluate(x, y) == plain.evaluate(x, flat)
    assert model.loss_and_gradients(x, y).loss == plain.loss_and_gradients(x, flat).loss
    model.fit(x, y, validation=(x, y), epochs=2, batch_size=8, progress=False)
    plain.fit(x, flat, validation=(x, flat), epochs=2, batch_size=8, progress=False)
    assert np.array_equal(model.parameters.flat, plain.parameters.flat)
    assert model.predict(x).shape == flat.shape
    wrong = Model(features, 6, horizon * features + 1, **options)
    for method in ("fit", "evaluate", "loss_and_gradients"):
        with pytest.raises(ValueError, match=r"y: expected \("):
            METHODS[method](wrong, x, y)
    classes = Model(features, 6, horizon * features, output="last", seed=1)
    with pytest.raises((TypeError, ValueError), match="y: expected"):
        classes.fit(x, np.zeros(y.shape, int), progress=False)
