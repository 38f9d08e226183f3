"""Many models go on after a break, and from files; one of them alone; and what they refuse."""

import _thread
import json
import threading

import numpy as np
import pytest
from panels import B, I, N, T, data_of, expect_same, pair, part

import cylstm
from cylstm import SGD, Adam, Model, Models, ReduceOnPlateau
from cylstm.tensor_files import open_tensors, write_tensors


def test_an_optimiser_goes_on_where_each_model_stopped():
    models, alone = pair(loss="cross_entropy", output="last", sizes=(I, 12, 2))
    x, y = data_of(alone[0])
    options = dict(validation=data_of(alone[0], seed=5), batch_size=4, progress=False)
    ours, theirs = Adam(0.05), [Adam(0.05) for _ in alone]
    for patience in (1, None):
        history = models.fit(x, y, epochs=5, optimizer=ours, patience=patience, **options)
        histories = [one.fit(x[n], y[n], epochs=5, optimizer=theirs[n], patience=patience,
                             **{**options, "validation": part(options["validation"], n, True)})
                     for n, one in enumerate(alone)]  # fmt: skip
        expect_same(models, alone, history, histories)


def test_a_checkpoint_goes_on_to_the_same_bits(tmp_path):
    x, y = data_of(Model(I, 8, 2, output="last"))
    options = dict(validation=data_of(Model(I, 8, 2, output="last"), seed=5), batch_size=4, patience=2, progress=False)
    whole, broken, resumed = (Models(I, 8, 2, output="last", seeds=range(N)) for _ in range(3))
    make = lambda: Adam(ReduceOnPlateau(0.05, patience=1))  # noqa: E731
    history = whole.fit(x, y, epochs=6, optimizer=make(), **options)
    broken.fit(x, y, epochs=3, optimizer=make(), checkpoint=tmp_path / "run", **options)
    found = resumed.fit(x, y, epochs=6, optimizer=make(), resume=tmp_path / "run", **options)
    assert np.array_equal(whole.flat, resumed.flat)
    for one, other in zip(history, found, strict=True):
        assert {**one.to_dict(), "seconds": 0} == {**other.to_dict(), "seconds": 0}
    with pytest.raises(ValueError, match=r"resume: expected the same as in .*batch_size=4"):
        resumed.fit(x, y, optimizer=make(), resume=tmp_path / "run", **{**options, "batch_size": 5})
    with pytest.raises(ValueError, match="expected a cylstm models' checkpoint"):
        resumed.fit(x, y, resume=saved(whole, tmp_path), **options)


def saved(models, folder):
    models.save(folder / "models.safetensors")
    return folder / "models.safetensors"


def test_files(tmp_path):
    models = Models(I, 8, 2, seeds=range(N), loss={"name": "quantiles", "quantiles": [0.1, 0.9]}, num_layers=2)
    x, y = data_of(models[0])
    models.fit(x, y, epochs=2, progress=False, seed=range(N))
    loaded = Models.load(saved(models, tmp_path))
    assert np.array_equal(models.flat, loaded.flat) and models.config == loaded.config and len(loaded) == N
    assert loaded.trained.history[1] == models.trained.history[1]
    one = loaded[1]
    one.save(tmp_path / "one.safetensors")
    again = Model.load(tmp_path / "one.safetensors")
    assert again.trained.options["seed"] == 1 and again.trained.history.train_loss == one.trained.history.train_loss
    with pytest.raises(ValueError, match="expected cylstm models, got a model"):
        Models.load(tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match="expected a cylstm model, got models"):
        Model.load(tmp_path / "models.safetensors")


def test_one_of_them_is_a_copy_and_comes_back():
    models = Models(I, 8, 2, seeds=range(N), loss="mse")
    x, y = data_of(models[0])
    before = models.flat.copy()
    one = models[-1]
    one.fit(x[0], y[0], epochs=1, progress=False)
    assert np.array_equal(models.flat, before)
    models[3] = one
    assert np.array_equal(models.flat[3], one.parameters.raw()) and np.array_equal(models.flat[:3], before[:3])
    made = Models.of([models[3], models[0]])
    assert np.array_equal(made.flat, models.flat[[3, 0]])
    assert [model.config for model in made] == [models.config] * 2
    with pytest.raises(IndexError, match=r"expected a number in -4\.\.3, got 4"):
        models[4]
    with pytest.raises(ValueError, match=r"models\[1\]: expected a Model with hidden_size=8, got 9"):
        Models.of([models[0], Model(I, 9, 2)])


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config, error, text", [
    (dict(num_layers=2, dropout=0.5), ValueError, "dropout: expected 0 for many models, .* got 0.5"),
    (dict(zoneout=(0.1, 0.0)), ValueError, "zoneout: expected 0 for many models"),
    (dict(weight_drop=0.2), ValueError, "weight_drop: expected 0 for many models"),
    (dict(embedding_size=4), ValueError, "embedding_size: expected none for many models"),
    (dict(before=[4]), ValueError, "before: expected none for many models"),
    (dict(after=[4]), ValueError, "after: expected none for many models"),
    (dict(loss="ctc"), ValueError, "loss: expected one of steps or rows"),
    (dict(output="last", bidirectional=True, merge="sum"), ValueError, "output: expected 'sequence'"),
    (dict(output="last", num_layers=2, residual=True), ValueError, "output: expected 'sequence'"),
    (dict(seed=1), TypeError, "seed: expected seeds, one for each"),
    (dict(colour=1), TypeError, "colour: expected an argument"),
])  # fmt: skip
def test_configurations_that_are_refused(config, error, text):
    with pytest.raises(error, match=text):
        Models(I, 8, 2, seeds=range(2), **config)


@pytest.mark.parametrize("seeds", [3, "abc", [], None, np.array(3), {1, 2}, {1: 2}])
def test_seeds_that_are_none(seeds):
    with pytest.raises((TypeError, ValueError), match="seeds: expected"):
        Models(I, 8, 2, seeds=seeds)


def test_several_heads_are_refused():
    with pytest.raises(ValueError, match="output_size: expected one head"):
        Models(I, 8, {"a": 2, "b": 1}, seeds=range(2))


@pytest.mark.parametrize("options, text", [
    (dict(callbacks=[print]), "callbacks: expected"), (dict(accumulate=2), "accumulate: expected 1"),
    (dict(metrics=["f1"]), "metrics: expected"), (dict(mask=np.ones((B, T), bool)), "mask: expected None"),
    (dict(tbptt=2), "tbptt: expected None"), (dict(missing="skip"), "missing: expected 'error'"),
    (dict(sample_weight=np.ones(B)), "sample_weight: expected None"), (dict(colour=1), "colour: expected an argument"),
    (dict(optimizer="adam"), "optimizer: expected"), (dict(seed=[1, 2]), "seed: expected one, or 4, got 2"),
    (dict(x=np.zeros((3, B, T, I))), r"x: expected \(B, T, I\), or N = 4 of that|x: expected"),
    (dict(lengths=np.full(B, T + 1)), "lengths"), (dict(epochs=0), "epochs: expected"),
    (dict(y=np.zeros((N, B, T, 3))), "model 0: y: expected"),
    (dict(checkpoint=cylstm.Checkpoint("run", updates=3)), "checkpoint: expected one after each epoch"),
    (dict(checkpoint=cylstm.Checkpoint("run", seconds=3)), "checkpoint: expected one after .* every 3 seconds"),
    (dict(accumulate=True), "accumulate: expected 1"), (dict(precision="bfloat16"), "precision: expected None"),
    (dict(parts=1), "parts: expected None"), (dict(seed={1, 2, 3, 4}), "seed: expected an integer"),
    (dict(seed=dict.fromkeys(range(4))), "seed: expected an integer"), (dict(seed="abcd"), "seed: expected an integer"),
    (dict(y=np.zeros((B, T))), r"y: expected \(B, T, 2\), with all these axes, for all models, or N = 4"),
])  # fmt: skip
def test_options_that_are_refused(options, text):
    models = Models(I, 8, 2, seeds=range(N), loss="mse")
    x, y = data_of(models[0])
    before = models.flat.copy()
    with pytest.raises((TypeError, ValueError), match=text):
        models.fit(**{"x": x, "y": y, "progress": False, **options})
    assert np.array_equal(models.flat, before)


def test_options_that_say_what_is_so_anyway():
    models, alone = pair(loss="mse")
    x, y = data_of(alone[0])
    options = dict(epochs=1, progress=False, precision=None, callbacks=[], metrics=[], accumulate=1, parts=None)
    models.fit(x, y, seed=np.array(5), checkpoint=None, **options)
    for n, one in enumerate(alone):
        one.fit(x[n], y[n], seed=5, **options)
        assert np.array_equal(models.flat[n], one.parameters.raw())


@pytest.mark.parametrize("config, shape", [
    (dict(loss="mse", output="last"), (B, 2, 1)), (dict(loss="mse", horizon=3, sizes=(I, 8, 1)), (B, T, 3)),
    (dict(loss="binary_cross_entropy", labels=[0, 1], sizes=(I, 8, 1)), (B, T)),
])  # fmt: skip
def test_forms_of_targets_that_one_model_alone_takes(config, shape):
    models, alone = pair(**config)
    x, y = data_of(alone[0], stacked=False)
    alone[0].fit(x, y.reshape(shape), epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"y: expected \(B, .*\), with all these axes, for all models"):
        models.fit(x, y.reshape(shape), progress=False)


class Doubled(Model):
    def __call__(self, x, *others, **options):
        outputs, state = super().__call__(x, *others, **options)
        return 2 * outputs, state


def test_derived_classes_are_refused():
    models, one = Models(I, 8, 2, seeds=range(2)), Doubled(I, 8, 2, seed=1)
    with pytest.raises(TypeError, match="models: expected several Model, of no class derived"):
        Models.of([one, one])
    with pytest.raises(TypeError, match=r"models\[1\]: expected a Model"):
        models[1] = one
    with pytest.raises(TypeError, match="one: expected a Model"):
        Models.like(one, 2)
    with pytest.raises(ValueError, match="count: expected an integer >= 1, got 0"):
        Models.like(models[0], 0)


def test_errors_name_the_model():
    models = Models(I, 8, 2, seeds=range(N), loss="mse")
    x, y = data_of(models[0])
    x[2, 5, 1, 0] = np.nan
    with pytest.raises(ValueError, match=r"model 2: x\[5, 1, 0\]: expected"):
        models.fit(x, y, progress=False)
    x[2, 5, 1, 0], y[3, 1, 2, 0] = 0, np.inf
    with pytest.raises(ValueError, match=r"model 3: validation y\[1, 2, 0\]: expected"):
        models.fit(x, np.zeros_like(y), validation=(x, y), progress=False)
    lengths = np.ones((N, B), int)
    lengths[1] = 0
    with pytest.raises(ValueError, match="model 1: x: expected at least one step that counts"):
        models.fit(x, np.zeros_like(y), lengths=lengths, progress=False)


def test_one_that_fails_stops_where_its_own_fit_does():
    models, alone = pair(loss="mse")
    x, y = data_of(alone[0])
    y[2] *= 1e30
    options = dict(epochs=3, batch_size=4, clip_norm=None, progress=False)
    with pytest.raises(cylstm.NonFiniteLoss, match=r"model 2: .* at update \d+") as error:
        models.fit(x, y, optimizer=SGD(0.01), **options)
    for n, one in enumerate(alone):
        if n == 2:
            with pytest.raises(cylstm.NonFiniteLoss) as alone_error:
                one.fit(x[n], y[n], optimizer=SGD(0.01), **options)
            assert str(error.value) == f"model 2: {alone_error.value}"
        else:
            one.fit(x[n], y[n], optimizer=SGD(0.01), **options)
        assert np.array_equal(models.flat[n], one.parameters.raw())
    history = models.trained.history
    assert not np.isnan(history.train_loss[[0, 1, 3]]).any() and np.isnan(history.train_loss[2]).all()


def test_ctrl_c_ends_it(monkeypatch):
    models = Models(I, 8, 2, seeds=range(50), loss="mse")
    x, y = data_of(models[0], stacked=False, rows=200)
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        models.fit(x, y, epochs=100000, batch_size=1, progress=False)
    timer.join()
    models.fit(x, y, epochs=1, progress=False)


def test_histories_of_many_epochs(tmp_path):
    models = Models(I, 8, 2, seeds=range(N), loss="mse")
    x, y = data_of(models[0])
    history = models.fit(x, y, epochs=30, progress=False)
    assert history.validation_loss.shape == history.train_loss.shape == (N, 30) and len(history[1]) == 30
    assert Models.load(saved(models, tmp_path)).trained.history[3] == history[3]


def test_progress_says_how_they_do(capsys):
    models = Models(I, 8, 2, seeds=range(N), loss="mse")
    x, y = data_of(models[0])
    models.fit(x, y, epochs=2, validation=(x, y))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("epoch 1/2: loss ") and ", validation " in lines[0]


# --- damaged files ----------------------------------------------------------------------------------------------------


def rewritten(path, kind, change):
    """The file, with what `change` does to its header and arrays."""
    with open_tensors(path, kind) as file:
        header, arrays = json.loads(json.dumps(file.header)), {name: file.get(name) for name in file.shapes}
    change(header, arrays)
    write_tensors(path, kind, header, arrays)


def put(name, make):
    def change(header, arrays):
        arrays[name] = np.ascontiguousarray(make(arrays[name]))

    return change


@pytest.mark.parametrize("change", [
    put("history.seconds", lambda a: np.zeros((2, 3))), put("history.seconds", lambda a: a * np.nan),
    put("history.updates", lambda a: a * np.inf), put("history.updates", lambda a: a + 0.5),
    put("history.train_loss", lambda a: a[:, :1]), put("history.train_loss", lambda a: a[0]),
    put("history.train_loss", lambda a: a.astype(np.int64)), lambda h, a: a.pop("history.gradient_norm"),
    put("first", lambda a: a - 3), put("first", lambda a: a + 2**62), put("epochs", lambda a: a - 1),
    put("updates", lambda a: a * 0 - 1), put("updates", lambda a: a - 5), put("updates", lambda a: a + 1),
    put("going", lambda a: ~a), put("plateaus", lambda a: a * 0 - 10**12), put("plateaus", lambda a: a + 9),
    put("since_plateau", lambda a: a - 9), put("waited", lambda a: a - 9), put("waited", lambda a: a + 9),
    put("best", lambda a: a * np.nan), put("lowest", lambda a: a * 0 - np.inf), put("best", lambda a: a[:1]),
    put("going", lambda a: a.astype(np.int64)), put("models", lambda a: a[:, 1:]),
    lambda h, a: h.update(failed={"x": "y"}), lambda h, a: h.update(failed={"9": "y"}),
    lambda h, a: h.update(failed={"1": 3}), lambda h, a: h.update(failed={"1": "y"}), lambda h, a: h.update(failed=[1]),
    lambda h, a: h.update(done=-1), lambda h, a: h.update(done=7), lambda h, a: h.update(done="2"),
    lambda h, a: h.update(elapsed=-1), lambda h, a: h.update(elapsed=None), lambda h, a: h.update(measure="other"),
    lambda h, a: h.pop("failed"), lambda h, a: h.update(options=None), lambda h, a: h.pop("config"),
])  # fmt: skip
def test_checkpoints_that_are_damaged(tmp_path, change):
    path, options = tmp_path / "run", dict(batch_size=4, patience=5, progress=False)
    models = Models(I, 8, 2, seeds=range(N), loss="mse")
    x, y = data_of(models[0])
    models.fit(x, y, epochs=2, optimizer=Adam(0.01), checkpoint=path, **options)
    rewritten(path, "models' checkpoint", change)
    other, optimizer = Models(I, 8, 2, seeds=range(N), loss="mse"), Adam(0.01)
    before = other.flat.copy()
    with pytest.raises(ValueError, match=f"{path}.*: expected|{path}: expected"):
        other.fit(x, y, epochs=3, optimizer=optimizer, resume=path, **options)
    assert np.array_equal(other.flat, before) and other.trained is None
    moments = next(iter(optimizer._moments.values()))
    assert not moments.updates.any() and not moments.buffers["m"].any()


@pytest.mark.parametrize("change", [
    lambda h, a: h["trained"]["options"].pop("seeds"), lambda h, a: h["trained"]["options"].update(seeds=3),
    lambda h, a: h["trained"]["options"].update(seeds=[1]),
    lambda h, a: h["trained"]["options"].update(seeds=["a"] * N),
    lambda h, a: h.update(trained=[]), lambda h, a: h.update(trained={}), lambda h, a: h.update(own=[]),
    lambda h, a: h.update(own={"9": None}), lambda h, a: h.update(own={"x": None}),
    lambda h, a: h.update(own={"1": {}}),
    put("history.updates", lambda a: a * np.inf), put("history.seconds", lambda a: np.zeros((2, 3))),
    put("history.updates", lambda a: a[:2]),
])  # fmt: skip
def test_files_that_are_damaged(tmp_path, change):
    models = Models(I, 8, 2, seeds=range(N), loss="mse")
    models.fit(*data_of(models[0]), epochs=2, progress=False)
    path = saved(models, tmp_path)
    rewritten(path, "models", change)
    with pytest.raises(ValueError, match=f"{path}: expected many models, got a file that is damaged"):
        Models.load(path)


def test_a_failure_is_kept_in_a_checkpoint(tmp_path):
    x, y = data_of(Model(I, 8, 2, loss="mse"))
    y[2] *= 1e30
    options = dict(batch_size=4, clip_norm=None, progress=False)
    models, resumed = (Models(I, 8, 2, seeds=range(N), loss="mse") for _ in range(2))
    with pytest.raises(cylstm.NonFiniteLoss) as first:
        models.fit(x, y, epochs=3, optimizer=SGD(0.01), checkpoint=tmp_path / "run", **options)
    with pytest.raises(cylstm.NonFiniteLoss) as second:
        resumed.fit(x, y, epochs=3, optimizer=SGD(0.01), resume=tmp_path / "run", **options)
    assert str(first.value) == str(second.value) and np.array_equal(models.flat, resumed.flat, equal_nan=True)
