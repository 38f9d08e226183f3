"""Many models at once: the bits of each model's own `fit`, for any number of threads; what they refuse; their files."""

import numpy as np
import pytest

import cylstm
from cylstm import SGD, Adam, AdamW, Cosine, Model, Models, ReduceOnPlateau, StepDecay

N, B, T, I = 4, 11, 6, 3


@pytest.fixture(autouse=True, params=[1, 3])
def threads(request):
    before = cylstm.num_threads()
    cylstm.set_num_threads(request.param)
    yield request.param
    cylstm.set_num_threads(before)


def data_of(model, seed=0, steps=T, rows=B, stacked=True, ids=False):
    """x and y for a model, of N models where they are stacked."""
    rng, many = np.random.default_rng(seed), (N,) * stacked
    head = model.heads[""]
    x = rng.integers(0, I, (*many, rows, steps)) if ids else rng.standard_normal((*many, rows, steps, I))
    shape = (*many, rows, *[steps] * (not head.per_row), *head.width)
    y = rng.integers(0, 2, shape) if head.loss.says != "numbers" else rng.standard_normal(shape)
    return x, y


def pair(seeds=range(N), sizes=(I, 8, 2), **config):
    """Models, and each of them alone."""
    return Models(*sizes, seeds=seeds, **config), [Model(*sizes, seed=seed, **config) for seed in seeds]


def part(value, n, stacked):
    """What is model n's."""
    if isinstance(value, tuple):
        return tuple(part(one, n, stacked) for one in value)
    return value[n] if stacked else value


def expect_same(models, alone, history, histories):
    for n, one in enumerate(alone):
        assert np.array_equal(models.flat[n], one.parameters.raw()), n
        ours, theirs = history[n].to_dict(), histories[n].to_dict()
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}, n


def fitted_alike(models, alone, x, y, *, lengths=None, validation=None, stacked=True, make=lambda: None, **options):
    """Fit both; returns the histories."""
    options = {"epochs": 3, "batch_size": 4, "progress": False, **options}
    seeds = options.pop("seed", 0)
    history = models.fit(x, y, lengths=lengths, validation=validation, optimizer=make(), seed=seeds, **options)
    histories = []
    for n, one in enumerate(alone):
        own = {name: None if value is None else part(value, n, stacked)
               for name, value in (("lengths", lengths), ("validation", validation))}  # fmt: skip
        histories.append(one.fit(part(x, n, stacked), part(y, n, stacked), optimizer=make(), **own, **options,
                                 seed=seeds if isinstance(seeds, int) else seeds[n]))  # fmt: skip
    expect_same(models, alone, history, histories)
    return history


# --- the same bits ----------------------------------------------------------------------------------------------------

CELLS = {
    "one layer": {},
    "wide": {"sizes": (I, 35, 2)},  # tiles, where there are some
    "two layers": {"num_layers": 2},
    "two widths": {"sizes": (I, (20, 9), 2), "num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "two layers of both": {"bidirectional": True, "num_layers": 2, "merge": "sum"},
    "float64": {"dtype": "float64"},
    "no bias": {"head_bias": False},
    "peepholes": {"peepholes": True, "coupled": True, "cell_clip": 0.5},
    "projection": {"proj_size": 4, "sizes": (I, 9, 2)},
    "layer norm": {"layer_norm": "ba"},
    "highway": {"highway": True, "num_layers": 2},
    "residual": {"residual": True, "num_layers": 2},
    "first state": {"first_state": True, "sizes": (I, 20, 2)},
    "reverse": {"reverse": True},
    "bfloat16": {"precision": "bfloat16", "sizes": (I, 32, 2)},
}


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_each_kind_of_lstm(name, ragged):
    models, alone = pair(**{"loss": "mse", **CELLS[name]})
    x, y = data_of(alone[0], rows=37 if name == "wide" else B)
    lengths = np.random.default_rng(1).integers(0, T + 1, x.shape[:2]) if ragged else None
    fitted_alike(models, alone, x, y, lengths=lengths, batch_size=16 if name == "wide" else 4)


HEADS = {
    "mse": {"loss": "mse"},
    "mse, last": {"loss": "mse", "output": "last"},
    "last of both": {"loss": "mse", "output": "last", "bidirectional": True, "num_layers": 2},
    "mae, horizon": {"loss": "mae", "horizon": 3, "output": "last"},
    "huber, horizon of steps": {"loss": "huber", "horizon": 2},
    "quantiles": {"loss": {"name": "quantiles", "quantiles": [0.1, 0.9]}},
    "gaussian": {"loss": "gaussian"},
    "classes": {"loss": "cross_entropy"},
    "classes, last": {"loss": "cross_entropy", "output": "last"},
    "many outputs": {"loss": "cross_entropy", "sizes": (I, 20, 40)},
    "bce": {"loss": "binary_cross_entropy"},
}


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_each_kind_of_head(name, ids, ragged):
    models, alone = pair(**HEADS[name])
    x, y = data_of(alone[0], ids=ids, rows=30)
    lengths = np.random.default_rng(1).integers(0, T + 1, x.shape[:2]) if ragged else None
    fitted_alike(models, alone, x, y, lengths=lengths, batch_size=13)
    for n, one in enumerate(alone):
        own = None if lengths is None else lengths[n]
        outputs = one(x[n], lengths=own)[0]
        assert np.array_equal(models(x, lengths=lengths)[n], outputs)
        assert np.array_equal(models.predict(x, lengths=lengths)[n], one.predict(x[n], lengths=own))
        alone_found = one.evaluate(x[n], y[n], lengths=own, batch_size=7)
        found = models.evaluate(x, y, lengths=lengths, batch_size=7)
        assert {name: values[n] for name, values in found.items()} == alone_found


OPTIMISERS = {
    "sgd": lambda: SGD(0.1),
    "momentum": lambda: SGD(0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda: SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: Adam(0.01, betas=(0.8, 0.95), eps=1e-6),
    "adamw": lambda: AdamW(0.01, weight_decay={"*weight*": 0.1}),
    "cosine": lambda: Adam(Cosine(0.02, epochs=3, warmup=0.5)),
    "steps": lambda: SGD(StepDecay(0.1, every=1, factor=0.5)),
    "plateau": lambda: SGD(ReduceOnPlateau(5.0, patience=1)),
}


@pytest.mark.parametrize("clip", [dict(clip_norm=None), dict(clip_norm=0.1), dict(clip_norm=0.05, clip_each=True)])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_each_optimiser_and_schedule(name, clip):
    models, alone = pair(loss="mse")
    fitted_alike(models, alone, *data_of(alone[0]), make=OPTIMISERS[name], epochs=4, **clip)


@pytest.mark.parametrize("options", [
    dict(shuffle=False), dict(seed=[3, 1, 4, 1]), dict(batch_size=1), dict(batch_size=B), dict(batch_size=100),
    dict(trainable="head.*"), dict(trainable=["lstm.bias*", "head.weight"], clip_norm=0.1),
])  # fmt: skip
def test_each_option(options):
    models, alone = pair(loss="mse")
    fitted_alike(models, alone, *data_of(alone[0]), **options)


@pytest.mark.parametrize("patience", [None, 1, 2])
def test_validation_and_patience_by_model(patience):
    models, alone = pair(loss="cross_entropy", output="last", sizes=(I, 12, 2))
    x, y = data_of(alone[0])
    validation = data_of(alone[0], seed=5)
    history = fitted_alike(models, alone, x, y, validation=validation, patience=patience, epochs=9,
                           make=lambda: Adam(0.05))  # fmt: skip
    had = [len(one) for one in history]
    assert (len(set(had)) > 1) == (patience is not None)
    assert np.isnan(history.train_loss[:, -1]).any() == (patience is not None)


def test_data_shared_by_all():
    models, alone = pair(loss="mse")
    x, y = data_of(alone[0], stacked=False)
    lengths = np.random.default_rng(1).integers(1, T + 1, len(x))
    fitted_alike(models, alone, x, y, lengths=lengths, validation=(x, y), stacked=False, seed=[5, 6, 7, 8])
    assert np.array_equal(models.predict(x)[2], alone[2].predict(x))
    assert models.evaluate(x, y)["loss"][2] == alone[2].evaluate(x, y)["loss"]


@pytest.mark.parametrize("shared", ["x", "y", "lengths"])
def test_some_of_it_shared(shared):
    models, alone = pair(loss="mse")
    x, y = data_of(alone[0])
    lengths = np.random.default_rng(1).integers(1, T + 1, x.shape[:2])
    given = {"x": x, "y": y, "lengths": lengths}
    given[shared] = given[shared][0]
    models.fit(**given, epochs=2, batch_size=4, progress=False)
    for n, one in enumerate(alone):
        own = {name: value if name == shared else value[n] for name, value in given.items()}
        one.fit(**own, epochs=2, batch_size=4, progress=False)
        assert np.array_equal(models.flat[n], one.parameters.raw())


def test_labels():
    config = dict(loss="cross_entropy", output="last", labels=["no", "yes"])
    models, alone = pair(**config)
    x, y = data_of(Model(I, 8, 2, loss="cross_entropy", output="last"))
    fitted_alike(models, alone, x, np.array(["no", "yes"])[y])
    assert models.predict(x)[1].tolist() == alone[1].predict(x[1]).tolist()


def test_what_stands_past_a_rows_end_is_ignored():
    models, again = Models(I, 8, 2, seeds=range(N)), Models(I, 8, 2, seeds=range(N))
    x, y = data_of(models[0])
    lengths = np.random.default_rng(1).integers(1, T + 1, x.shape[:2])
    past = np.arange(T) >= lengths[..., None]
    models.fit(x, y, lengths=lengths, epochs=2, progress=False)
    x, y = np.where(past[..., None], np.nan, x), np.where(past, 99, y)
    again.fit(x, y, lengths=lengths, epochs=2, progress=False)
    assert np.array_equal(models.flat, again.flat)


def test_numbers_that_tiles_do_not_hold():
    """Each model goes by its own numbers: one with huge weights, inputs or gradients does not change the others'."""
    models, alone = pair(loss="mae", sizes=(I, 40, 2))
    x, y = data_of(alone[0], rows=40)
    x[1, 0, 0, 0] = 1e-30
    for one in (models.flat[2], alone[2].parameters.flat):
        one[:] = one * 1e-18
    x[3] *= 1e30
    fitted_alike(models, alone, x, y, batch_size=20, epochs=2, make=lambda: SGD(1e-3))


@pytest.mark.parametrize("steps", [300, 70000])
def test_long_sequences(steps):
    """Those that a model of its own evaluates and runs in parts."""
    models, alone = pair(loss="mse", seeds=range(2), sizes=(I, 4, 2))
    x, y = data_of(alone[0], steps=steps, rows=300 if steps == 300 else 1, stacked=False)
    found = models.evaluate(x, y)
    for n, one in enumerate(alone):
        assert found["loss"][n] == one.evaluate(x, y)["loss"]
        assert np.array_equal(models(x)[n], one(x)[0])


# --- going on ---------------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match="resume: expected the same as in .*batch_size=4"):
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
    with pytest.raises(ValueError, match="expected a cylstm models, got a model"):
        Models.load(tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match="expected a cylstm model, got a models"):
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
    with pytest.raises(IndexError, match="expected a number in -4..3, got 4"):
        models[4]
    with pytest.raises(ValueError, match=r"models\[1\]: expected Model"):
        Models.of([models[0], Model(I, 9, 2)])


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config, error, text", [
    (dict(num_layers=2, dropout=0.5), ValueError, "dropout: expected nothing that training drops"),
    (dict(zoneout=(0.1, 0.0)), ValueError, "dropout: expected nothing that training drops"),
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


@pytest.mark.parametrize("seeds", [3, "abc", [], None])
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
])  # fmt: skip
def test_options_that_are_refused(options, text):
    models = Models(I, 8, 2, seeds=range(N), loss="mse")
    x, y = data_of(models[0])
    before = models.flat.copy()
    with pytest.raises((TypeError, ValueError), match=text):
        models.fit(**{"x": x, "y": y, "progress": False, **options})
    assert np.array_equal(models.flat, before)


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
    import _thread
    import threading

    models = Models(I, 8, 2, seeds=range(50), loss="mse")
    x, y = data_of(models[0], stacked=False, rows=200)
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        models.fit(x, y, epochs=100000, batch_size=1, progress=False)
    timer.join()
    models.fit(x, y, epochs=1, progress=False)


def test_progress_says_how_they_do(capsys):
    models = Models(I, 8, 2, seeds=range(N), loss="mse")
    x, y = data_of(models[0])
    models.fit(x, y, epochs=2, validation=(x, y))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("epoch 1/2: loss ") and ", validation " in lines[0]
