"""What many models and their optimisers remember: after Ctrl-C, refusals, copies, and models that are put in."""

import _thread
import contextlib
import copy
import math
import pickle
import threading

import numpy as np
import pytest
from panels import I, N, data_of, expect_same, pair

import cylstm
from cylstm import SGD, Adam, Model, Models, ReduceOnPlateau
from cylstm.many import files
from cylstm.many import run as runs


def moments(optimizer):
    return next(iter(optimizer._moments.values()))


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_what_ctrl_c_ends_is_counted():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3000, 4, I)), rng.standard_normal((3000, 4, 2))
    models, optimizer, over = Models(I, 8, 2, seeds=[0], loss="mse"), Adam(0.01), threading.Event()

    def interrupt():
        for _ in range(60_000):  # if nothing is counted in a minute, it is wrong
            if (optimizer._moments and moments(optimizer).updates[0]) or over.wait(0.001):
                break
        if not over.wait(0.01):
            _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            models.fit(x, y, epochs=10**6, batch_size=1, shuffle=False, optimizer=optimizer, progress=False)
    finally:
        over.set()
        thread.join()
    done = int(moments(optimizer).updates[0])
    epochs = models.trained.history.epochs
    rest = done - epochs * len(x)  # of an epoch that was not over, or not counted yet
    assert done and int(moments(optimizer).epochs[0]) == epochs and 0 <= rest <= len(x)
    alone, own = Model(I, 8, 2, seed=0, loss="mse"), Adam(0.01)
    if epochs:
        alone.fit(x, y, epochs=epochs, batch_size=1, shuffle=False, optimizer=own, progress=False)
    if rest:
        alone.fit(x[:rest], y[:rest], epochs=1, batch_size=1, shuffle=False, optimizer=own, progress=False)
    assert np.array_equal(models.flat[0], alone.parameters.raw())


@pytest.mark.parametrize("when", ["begin", "add", "watch", "remember", "save_run"])
def test_ctrl_c_does_not_tear_the_end_of_an_epoch(monkeypatch, tmp_path, when):
    """A signal that comes between the lines of what follows an epoch's updates waits for its end."""
    owner = {"begin": cylstm.training.progress.Progress, "add": runs.Histories, "save_run": files}.get(when, runs.Run)
    before, calls = getattr(owner, when), []

    def interrupted(*args, **options):
        calls.append(1)
        found = before(*args, **options)
        if len(calls) == 2:
            _thread.interrupt_main()
        return found

    models, optimizer = Models(I, 8, 2, seeds=range(N), loss="mse"), Adam(0.01)
    x, y = data_of(models[0])
    monkeypatch.setattr(owner, when, interrupted)
    with pytest.raises(KeyboardInterrupt):
        models.fit(x, y, epochs=5, optimizer=optimizer, checkpoint=tmp_path / "run", progress=False)
    monkeypatch.undo()
    known = moments(optimizer)
    assert models.trained.history.epochs == 2 and (known.epochs == 2).all()
    assert (known.updates == models.trained.history.updates[:, -1]).all()
    again, whole = (Models(I, 8, 2, seeds=range(N), loss="mse") for _ in range(2))
    again.fit(x, y, epochs=5, optimizer=Adam(0.01), resume=tmp_path / "run", progress=False)
    whole.fit(x, y, epochs=5, optimizer=Adam(0.01), progress=False)
    assert np.array_equal(again.flat, whole.flat)


def test_ctrl_c_in_a_long_validation_raises_at_once(monkeypatch):
    models, optimizer = Models(I, 8, 2, seeds=range(N), loss="mse"), Adam(0.01)
    x, y = data_of(models[0])
    monkeypatch.setattr(runs, "walk", lambda *args, **options: (_thread.interrupt_main(), [0] * 10)[1])
    with pytest.raises(KeyboardInterrupt):
        models.fit(x, y, validation=(x, y), optimizer=optimizer, progress=False)
    assert models.trained.history.epochs == 0 and (moments(optimizer).epochs == 0).all()
    assert (moments(optimizer).updates == 1).all()


# --- what optimisers remember -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_momentum_that_comes_later_is_refused(nesterov):
    optimizer, models = SGD(0.1), Models(I, 8, 2, seeds=range(N), loss="mse")
    x, y = data_of(models[0])
    models.fit(x, y, epochs=1, optimizer=optimizer, progress=False)
    before = models.flat.copy()
    optimizer.momentum, optimizer.nesterov = 0.9, nesterov
    with pytest.raises(ValueError, match=r"optimizer: expected the momentum that .*, got SGD\(.*momentum=0.9"):
        models.fit(x, y, epochs=1, optimizer=optimizer, progress=False)
    assert np.array_equal(before, models.flat)
    with pytest.raises(ValueError, match="optimizer: expected the momentum"):  # nor with others: it has no room for it
        Models(I, 8, 2, seeds=range(N), loss="mse").fit(x, y, optimizer=optimizer, progress=False)


def test_a_momentum_that_goes_is_as_for_one():
    models, alone = pair(loss="mse")
    x, y = data_of(models[0])
    for both in ([(models, SGD(0.1, momentum=0.9), x, y)], [(one, SGD(0.1, momentum=0.9), x[n], y[n])
                                                           for n, one in enumerate(alone)]):  # fmt: skip
        for model, optimizer, inputs, targets in both:
            model.fit(inputs, targets, epochs=2, optimizer=optimizer, progress=False)
            optimizer.momentum = 0.0
            model.fit(inputs, targets, epochs=2, optimizer=optimizer, progress=False)
    for n, one in enumerate(alone):
        assert np.array_equal(models.flat[n], one.parameters.raw())


def test_a_refused_fit_leaves_the_optimiser_as_it_was(tmp_path):
    models, alone = pair(loss="mse")
    x, y = data_of(models[0])
    rates = []
    for model, inputs, targets in ((models, x, y), *((one, x[n], y[n]) for n, one in enumerate(alone))):
        optimizer = SGD(ReduceOnPlateau(0.001, patience=2))
        options = dict(optimizer=optimizer, progress=False)
        model.fit(inputs, targets * 0.01, epochs=2, **options)
        with pytest.raises(OSError):
            model.fit(inputs, targets, epochs=4, validation=(inputs, targets), resume=tmp_path / "none", **options)
        history = model.fit(inputs, targets, epochs=6, **options)
        rates.append(np.array(history.learning_rate))
    assert np.array_equal(rates[0], rates[1:]) and len(set(rates[1].tolist())) > 1


def test_one_that_fails_in_its_first_epoch_leaves_what_its_schedule_has_seen():
    models, alone = pair(loss="mse", dtype="float64")
    x, y = data_of(models[0])
    bad = y.copy()
    bad[2] *= 1e200  # a validation loss that is no number
    ours, theirs = SGD(ReduceOnPlateau(0.01, patience=2)), [SGD(ReduceOnPlateau(0.01, patience=2)) for _ in alone]
    options = dict(epochs=4, batch_size=4, progress=False)
    models.fit(x, y * 0.01, optimizer=ours, **options)
    with pytest.raises(cylstm.NonFiniteLoss, match=r"model 2: validation loss: .* at update 15 \(epoch 5, batch 3\)"):
        models.fit(x, y, validation=(x, bad), optimizer=ours, **options)
    history = models.fit(x, y, optimizer=ours, **options)
    for n, one in enumerate(alone):
        one.fit(x[n], y[n] * 0.01, optimizer=theirs[n], **options)
        with pytest.raises(cylstm.NonFiniteLoss) if n == 2 else contextlib.nullcontext():
            one.fit(x[n], y[n], validation=(x[n], bad[n]), optimizer=theirs[n], **options)
        one.fit(x[n], y[n], optimizer=theirs[n], **options)
    expect_same(models, alone, history, [one.trained.history for one in alone])


def test_one_that_is_put_in_begins_anew(tmp_path):
    optimizer, models = Adam(ReduceOnPlateau(0.05, patience=1)), Models(I, 8, 2, seeds=range(N), loss="mse")
    x, y = data_of(models[0])
    models.fit(x, y, epochs=2, optimizer=optimizer, progress=False)
    new, known = Model(I, 8, 2, seed=9, loss="mse"), Model(I, 8, 2, seed=8, loss="mse")
    known.fit(x[0], y[0], epochs=3, progress=False, seed=5)
    models[1], models[-2] = new, known
    models.save(tmp_path / "models")
    for made in (models, Models.load(tmp_path / "models"), pickle.loads(pickle.dumps(models))):
        assert made[1].trained is None and made[0].trained.options["seed"] == 0
        assert made[2].trained.options["seed"] == 5
        assert made[2].trained.history.train_loss == known.trained.history.train_loss
    made = Models.of([models[1], models[0], models[2]])
    assert [one.trained and one.trained.options["seed"] for one in made] == [None, 0, 5]
    history = models.fit(x, y, epochs=2, optimizer=optimizer, progress=False)
    new.fit(x[1], y[1], epochs=2, optimizer=Adam(ReduceOnPlateau(0.05, patience=1)), progress=False)
    assert np.array_equal(models.flat[1], new.parameters.raw())
    assert history[1].updates == new.trained.history.updates and models[1].trained.history == history[1]
    assert moments(optimizer).updates.tolist() == [4, 2, 2, 4]


# --- copies -----------------------------------------------------------------------------------------------------------


def test_none_is_put_in_while_they_are_trained(monkeypatch):
    models, _ = pair()
    x, y = data_of(models[0])
    before, other = models.flat.copy(), Model(I, 8, 2, seed=9)

    def until(self, epochs):
        models[1] = other

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match=r"models\[1\]: expected no training"):
        patched.setattr(runs.Run, "until", until)
        models.fit(x, y, progress=False)
    assert np.array_equal(models.flat, before)
    models[1] = other
    assert np.array_equal(models.flat[1], other.parameters.flat)


def test_one_of_another_kind_is_refused_by_what_differs():
    models, _ = pair()
    with pytest.raises(ValueError, match=r"^models\[2\]: expected a Model with hidden_size=8, got 9$"):
        models[2] = Model(I, 9, 2)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda models: pickle.loads(pickle.dumps(models))])
def test_a_copy_is_on_its_own(copied):
    models = Models(I, 32, 2, seeds=range(N), loss="mse", precision="bfloat16")
    x, y = data_of(models[0])
    models.fit(x, y, epochs=2, progress=False)
    made, before = copied(models), models.flat.copy()
    assert np.array_equal(made.flat, before) and made.config == models.config and made[0].precision == "bfloat16"
    assert made.trained.history[1] == models.trained.history[1] and made.stack is not models.stack
    history = made.fit(x, y, epochs=1, progress=False)
    assert np.array_equal(models.flat, before) and not np.array_equal(made.flat, before)
    assert models.trained.history.epochs == 2 and history.epochs == 1


# --- weights that are worth nothing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
def test_weights_that_are_too_large_are_said(tmp_path, kept):
    one = Model(I, 8, 2, seed=0, loss="mae", dtype="float64")
    one.parameters["head.bias"][:] = 1e160
    models = Models.of([Model(I, 8, 2, seed=3, loss="mae", dtype="float64"), one])
    x, y = data_of(one, stacked=False)
    options = dict(checkpoint=tmp_path / "run") if kept else {}
    with pytest.raises(cylstm.NonFiniteLoss) as alone:
        one.fit(x, y, epochs=2, progress=False, **options)
    with pytest.raises(cylstm.NonFiniteLoss) as found:
        models.fit(x, y, epochs=2, progress=False, **options)
    assert str(found.value) == f"model 1: {alone.value}" and "(the end of epoch " in str(found.value)
    assert math.isfinite(models.evaluate(x, y)["loss"][0])
