"""Many models at once: the bits of each model's own `fit`, for any number of threads."""

import numpy as np
import pytest
from panels import B, I, N, T, data_of, fitted_alike, pair

import cylstm
from cylstm import SGD, Adam, AdamW, Cosine, Model, Models, ReduceOnPlateau, StepDecay


@pytest.fixture(autouse=True, params=[1, 3])
def threads(request):
    before = cylstm.num_threads()
    cylstm.set_num_threads(request.param)
    yield request.param
    cylstm.set_num_threads(before)


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


@pytest.mark.parametrize("size", [1e-14, 1e14])
def test_numbers_that_tiles_do_not_hold(size):
    """A model with such weights, one with such inputs and one with such gradients take other products than the rest."""
    sizes = (24, 40, 2)
    models, alone = pair(loss="mse", sizes=sizes)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((N, 40, T, 24)), rng.standard_normal((N, 40, T, 2))
    weights = alone[1].parameters.flat
    weights[:] *= np.float32(min(size, 1 / size))  # large ones have no finite gradients
    models.flat[1] = weights
    x[2] *= size
    y[3] = models(x)[3] + size
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
