"""Optimisers against the oracle (and through its trace against PyTorch), learning rates, settings."""

import copy
import pickle

import numpy as np
import pytest

from cylstm import (
    LSTM,
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    Head,
    Model,
    ReduceOnPlateau,
    StepDecay,
    oracle,
    training,
)
from cylstm.parameters import Parameters

ORACLE = {
    "sgd": (SGD(0.05, weight_decay=0.02), lambda p, g, s, t: oracle.sgd(p, g, s["m"], lr=0.05, weight_decay=0.02)),
    "momentum": (SGD(0.05, momentum=0.9), lambda p, g, s, t: oracle.sgd(p, g, s["m"], lr=0.05, momentum=0.9)),
    "nesterov": (SGD(0.05, momentum=0.9, nesterov=True),
                 lambda p, g, s, t: oracle.sgd(p, g, s["m"], lr=0.05, momentum=0.9, nesterov=True)),
    "adam": (Adam(0.05, betas=(0.8, 0.95), weight_decay=0.1),
             lambda p, g, s, t: oracle.adam(p, g, s["m"], s["v"], t, lr=0.05, betas=(0.8, 0.95), weight_decay=0.1)),
    "adamw": (AdamW(0.05, weight_decay=0.1),
              lambda p, g, s, t: oracle.adamw(p, g, s["m"], s["v"], t, lr=0.05, weight_decay=0.1)),
}  # fmt: skip


def parameters(values):
    """Of one buffer."""
    made = Parameters({"a": (2,), "b": (len(values) - 2,)}, "float64")
    made.flat = values
    return made


@pytest.mark.parametrize("name", ORACLE)
def test_updates_are_the_oracles(isa, rng, name):
    optimizer, update = ORACLE[name]
    p = parameters(rng.standard_normal(37))
    expected, slots = {"p": p.flat.copy()}, {kind: {"p": np.zeros(37)} for kind in "mv"}
    for t in range(1, 6):
        g = parameters(rng.standard_normal(37))
        optimizer.update(p, g, scale=0.5)
        update(expected, {"p": 0.5 * g.flat}, slots, t)
    assert optimizer.moments(p).updates == 5
    np.testing.assert_allclose(p.flat, expected["p"], rtol=1e-12)


def test_an_optimizer_remembers_each_of_its_parameters_and_a_copy_of_it_none(rng):
    optimizer = Adam(0.1)
    first, second, third = (parameters([2.0, 2.0, 2.0]) for _ in range(3))
    gradients = [parameters(values) for values in ([1.0, -2.0, 3.0], [0.5, 0.1, -1.0])]
    for p in (first, second):
        for g in gradients:
            optimizer.update(p, g)
    np.testing.assert_array_equal(first.flat, second.flat)
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert repr(other) == repr(optimizer) and other.moments(first).updates == 0
        third.flat = [2.0, 2.0, 2.0]
        for g in gradients:
            other.update(third, g)
        np.testing.assert_array_equal(first.flat, third.flat)
    del second, p
    assert len(optimizer._moments) == 1


def test_an_update_is_seen_by_the_next_call_and_by_files(rng, tmp_path):
    """With nobody telling anything, in whichever way gradients come in."""
    model, adam = Model(3, 5, 2, loss="mse", seed=1), Adam(0.01)
    x, y = rng.standard_normal((4, 6, 3)), rng.standard_normal((4, 6, 2))
    losses = [model.evaluate(x, y)["loss"]]
    for _ in range(3):
        adam.update(model.parameters, model.loss_and_gradients(x, y).gradients)
        losses.append(model.evaluate(x, y)["loss"])
    assert losses == sorted(losses, reverse=True) and len(set(losses)) == 4
    model.save(tmp_path / "m")
    assert Model.load(tmp_path / "m").evaluate(x, y)["loss"] == losses[-1]


def test_what_an_update_is_given_is_checked(rng):
    model, adam = Model(3, 5, 2, loss="mse", seed=1), Adam(Cosine(0.1, epochs=3))
    other = Model(3, 6, 2, loss="mse", seed=1)
    good, before = Parameters(model.parameters.layout, model.dtype), model.parameters.flat.copy()
    good.flat = 1.0
    for arguments, error, message in [
        ((model.parameters.flat, good), TypeError, "parameters: expected Parameters, got float32"),
        ((model.parameters, good.flat), TypeError, "gradients: expected Parameters, got float32"),
        (
            (model.parameters, model.parameters),
            ValueError,
            "gradients: expected memory of its own, got that of the par",
        ),
        ((model.parameters, other.parameters), ValueError, r"gradients: expected Parameters\(lstm.weight_ih_l0"),
        (
            (model.parameters, good),
            TypeError,
            r"lr: expected a number, of the optimiser's Cosine\(rate=0.1, .*got None",
        ),
    ]:
        with pytest.raises(error, match=message):
            adam.update(*arguments)
    with pytest.raises(ValueError, match=r"lr: expected a number in \[0, inf\), got -1"):
        adam.update(model.parameters, good, lr=-1)
    np.testing.assert_array_equal(model.parameters.flat, before)
    adam.update(model.parameters, good, lr=0.25)
    np.testing.assert_allclose(model.parameters.flat, before - 0.25, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", [0.01, Cosine(0.02, epochs=4, warmup=1), ReduceOnPlateau(0.5, patience=1)])
@pytest.mark.parametrize("tbptt", [None, 3])
def test_four_epochs_one_by_one_are_one_fit_of_four(rng, schedule, tbptt):
    x, y = rng.standard_normal((12, 6, 3)), rng.standard_normal((12, 6, 2))
    options = dict(batch_size=5, tbptt=tbptt, seed=3, progress=False)
    whole, parts = (Model(3, 5, 2, num_layers=2, dropout=0.3, loss="mse", seed=1) for _ in range(2))
    expected = whole.fit(x, y, epochs=4, optimizer=Adam(schedule), **options)
    optimizer, events = Adam(schedule), []
    histories = [parts.fit(x, y, epochs=1, optimizer=optimizer, callbacks=[events.append], **options) for _ in range(4)]
    np.testing.assert_array_equal(parts.parameters.flat, whole.parameters.flat)
    for name in ("train_loss", "learning_rate", "updates"):
        assert [getattr(history, name)[0] for history in histories] == getattr(expected, name)
    assert [event.epoch for event in events if event.kind == "epoch"] == [0, 1, 2, 3]
    parts.fit(x, y, epochs=1, optimizer=Adam(schedule), callbacks=[events.append], **options)
    assert events[-1].epoch == 0


def test_learning_rates():
    assert Constant(0.3).at(7.5, 2) == 0.3
    assert [StepDecay(1.0, every=2, factor=0.5).at(e, 0) for e in (0, 1.9, 2, 3.5, 4)] == [1, 1, 0.5, 0.5, 0.25]
    cosine = Cosine(1.0, epochs=10, minimum=0.2, warmup=2)
    assert cosine.at(1, 0) == pytest.approx(0.5) and cosine.at(2, 0) == pytest.approx(1.0) and cosine.at(0, 0) > 0
    assert cosine.at(6, 0) == pytest.approx(0.6)
    assert cosine.at(10, 0) == pytest.approx(0.2) and cosine.at(50, 0) == pytest.approx(0.2)
    plateau = ReduceOnPlateau(1.0, factor=0.1, minimum=0.05)
    assert [plateau.at(3, n) for n in range(3)] == [1, 0.1, 0.05]


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: Adam(0), ValueError, r"lr: expected a number in \(0, inf\), got 0"),
    (lambda: Adam("fast"), TypeError, "lr: expected a number, got str 'fast'"),
    (lambda: Adam(betas=0.9), ValueError, "betas: expected two numbers"),
    (lambda: Adam(betas=(0.9, 1.0)), ValueError, r"betas\[1\]: expected a number in \[0, 1\), got 1"),
    (lambda: Adam(eps=0), ValueError, "eps: expected"),
    (lambda: SGD(momentum=1.0), ValueError, "momentum: expected"),
    (lambda: SGD(nesterov=True), ValueError, "nesterov: expected a momentum > 0"),
    (lambda: AdamW(weight_decay=-1), ValueError, "weight_decay: expected"),
    (lambda: StepDecay(0.1, every=0), ValueError, "every: expected an integer >= 1"),
    (lambda: Cosine(0.1, epochs=3, warmup=3), ValueError, "warmup: expected"),
    (lambda: ReduceOnPlateau(0.1, factor=1.0), ValueError, "factor: expected"),
    (lambda: Constant(float("nan")), ValueError, "rate: expected"),
])  # fmt: skip
def test_bad_settings_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def model_and_data(rng, **options):
    x, y = rng.standard_normal((12, 6, 3)), rng.standard_normal((12, 6, 2))
    return Model(3, 5, 2, loss="mse", dtype="float64", seed=1, **options), x, y


@pytest.mark.parametrize(
    "optimizer", [lambda: SGD(0.1, momentum=0.5, weight_decay=0.1), lambda: Adam(weight_decay=0.1)]
)
def test_what_is_not_trainable_stays_and_has_no_part_in_the_norm(rng, optimizer):
    model, x, y = model_and_data(rng)
    before = {name: values.copy() for name, values in model.parameters.items()}
    chosen = ["head.bias", "lstm.weight_?h_l0"]
    model.fit(x, y, epochs=2, optimizer=optimizer(), clip_norm=0.01, trainable=chosen, progress=False)
    moved = [name for name, values in model.parameters.items() if not np.array_equal(values, before[name])]
    assert moved == ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "head.bias"]
    model, _, _ = model_and_data(rng)
    found = model.loss_and_gradients(x, y).gradients
    norm = np.sqrt(sum((found[name] ** 2).sum() for name in moved))
    model.fit(x, y, epochs=1, batch_size=12, shuffle=False, optimizer=SGD(1.0), clip_norm=norm / 2, trainable=chosen,
              progress=False)  # fmt: skip
    for name in moved:
        np.testing.assert_allclose(model.parameters[name], before[name] - found[name] / 2, rtol=1e-4, atol=1e-6)


def test_weight_decay_by_pattern(rng):
    """The first pattern that fits counts; on flat buffers in several pieces, as on each parameter alone."""
    optimizer = AdamW(0.1, weight_decay={"lstm.bias*": 0, "lstm.*": 0.3, "head.weight": 0.1})
    model, x, y = model_and_data(rng)
    gradients = model.loss_and_gradients(x, y).gradients
    expected = {name: {"p": values.copy()} for name, values in model.parameters.items()}
    slots = [{name: {"p": np.zeros_like(values["p"])} for name, values in expected.items()} for _ in range(2)]
    for t in (1, 2, 3):
        optimizer.update(model.parameters, gradients)
        for name, values in expected.items():
            decay = 0.0 if "bias" in name else 0.3 if name.startswith("lstm") else 0.1
            m, v = (slot[name] for slot in slots)
            oracle.adamw(values, {"p": gradients[name]}, m, v, t, lr=0.1, weight_decay=decay)
    for name, values in expected.items():
        decayed = values["p"]
        np.testing.assert_allclose(model.parameters[name], decayed, rtol=1e-9, atol=1e-12, err_msg=name)
    assert "weight_decay={'lstm.bias*': 0.0, 'lstm.*': 0.3, 'head.weight': 0.1}" in repr(optimizer)


@pytest.mark.parametrize("options", [{}, {"tbptt": 2}, {"ragged": True}])
def test_accumulated_batches_are_one_large_one(rng, options):
    """By what counts in each, which differs."""
    model, x, y = model_and_data(rng)
    weights, options = rng.exponential(1e40, (12, 6)), dict(options)
    weights[:4] = 0
    if options.pop("ragged", False):
        options["lengths"] = rng.integers(0, 7, 12)
    tbptt = options.pop("tbptt", None)
    loss = model.loss_and_gradients(x, y, sample_weight=weights, **options)
    before, events = model.parameters.flat.copy(), []
    model.fit(x, y, sample_weight=weights, batch_size=4, accumulate=3, tbptt=tbptt, epochs=1, clip_norm=None,
              shuffle=False, optimizer=SGD(0.5), progress=False, callbacks=[events.append], **options)  # fmt: skip
    assert [event.kind for event in events] == ["update", "epoch"]
    assert events[0].loss == pytest.approx(loss.loss, rel=1e-12)
    if tbptt is None:
        np.testing.assert_allclose(before - model.parameters.flat, 0.5 * loss.gradients.flat, rtol=1e-9, atol=1e-14)


def test_an_accumulating_run_goes_on_to_the_same_bits(rng, tmp_path):
    options = dict(batch_size=2, accumulate=4, trainable="lstm.*", progress=False, seed=2)
    (whole, x, y), broken, other = model_and_data(rng), model_and_data(rng)[0], model_and_data(rng)[0]
    whole.fit(x, y, epochs=3, **options)

    def stop(event):
        if event.update == 3:
            raise training.StopTraining

    broken.fit(x, y, epochs=3, checkpoint=tmp_path / "c", callbacks=[stop], **options)
    for changed in ({"accumulate": 1}, {"trainable": None}):
        with pytest.raises(ValueError, match=rf"resume: expected the same run as in .* with {next(iter(changed))}="):
            other.fit(x, y, epochs=3, resume=tmp_path / "c", **{**options, **changed})
    other.fit(x, y, epochs=3, resume=tmp_path / "c", **options)
    np.testing.assert_array_equal(other.parameters.flat, whole.parameters.flat)


@pytest.mark.parametrize(("options", "error", "message"), [
    (dict(trainable="encoder.*"), ValueError, "trainable: expected names or patterns of lstm.*, got 'enc"),
    (dict(trainable=3), TypeError, "trainable: expected names or patterns of parameters, got int 3"),
    (dict(accumulate=0), ValueError, "accumulate: expected an integer >= 1, got 0"),
])  # fmt: skip
def test_what_is_not_trained_is_checked(rng, options, error, message):
    model, x, y = model_and_data(rng)
    with pytest.raises(error, match=message):
        model.fit(x, y, progress=False, **options)
    with pytest.raises(ValueError, match=r"weight_decay\['head.\*'\]: expected a number in \[0, inf\), got -1"):
        AdamW(weight_decay={"head.*": -1})
    with pytest.raises(TypeError, match="weight_decay: expected patterns of parameters' names, got int 3"):
        AdamW(weight_decay={3: 1})


def test_a_second_fit_that_was_broken_off_goes_on_where_it_was(rng, tmp_path):
    """With the same call again; and the optimiser it is resumed with goes on from there, too."""
    (whole, x, y), models = model_and_data(rng), [model_and_data(rng)[0] for _ in range(2)]
    options = dict(epochs=2, batch_size=5, seed=3, progress=False)
    optimizer = Adam(Cosine(0.02, epochs=6))
    for _ in range(3):
        whole.fit(x, y, optimizer=optimizer, **options)

    def stop(event):
        if event.update == 8:
            raise training.StopTraining

    first = Adam(Cosine(0.02, epochs=6))
    models[0].fit(x, y, optimizer=first, **options)
    models[0].fit(x, y, optimizer=first, checkpoint=tmp_path / "c", callbacks=[stop], **options)
    second = Adam(Cosine(0.02, epochs=6))
    history = models[1].fit(x, y, optimizer=second, resume=tmp_path / "c", **options)
    assert history.updates == [9, 12]
    models[1].fit(x, y, optimizer=second, **options)
    np.testing.assert_array_equal(models[1].parameters.flat, whole.parameters.flat)


def test_a_run_resumed_at_its_end_leaves_the_optimizer_there(rng, tmp_path):
    (whole, x, y), resumed = model_and_data(rng), model_and_data(rng)[0]
    options = dict(epochs=2, batch_size=5, progress=False)
    first, second, events = Adam(), Adam(), []
    whole.fit(x, y, optimizer=first, checkpoint=tmp_path / "c", **options)
    whole.fit(x, y, optimizer=first, **options)
    resumed.fit(x, y, optimizer=second, resume=tmp_path / "c", **options)
    resumed.fit(x, y, optimizer=second, callbacks=[events.append], **options)
    np.testing.assert_array_equal(resumed.parameters.flat, whole.parameters.flat)
    assert events[-1].epoch == 3


def test_another_measure_does_not_stop_or_slow_what_goes_on(rng):
    model, x, y = model_and_data(rng)
    far = dict(x=x, y=y + 100)  # a loss that training without validation never had
    optimizer = SGD(ReduceOnPlateau(0.01, patience=1))
    model.fit(x, y, epochs=2, optimizer=optimizer, progress=False)
    optimizer_2 = optimizer
    history = model.fit(x, y + 100, epochs=5, optimizer=optimizer_2, validation=far, patience=2, progress=False)
    assert len(history) == 5 and history.validation_loss == sorted(history.validation_loss, reverse=True)
    assert history.learning_rate == [0.01] * 5


def test_gradients_of_heads_in_another_order_are_refused(rng):
    """The names and shapes are the same, and each weight would get another's."""
    heads = {"a": Head(2, loss="mse"), "b": Head(2, loss="mae")}
    model, other = Model(3, 5, heads, seed=1), Model(3, 5, dict(reversed(heads.items())), seed=1)
    x, y = rng.standard_normal((4, 6, 3)), {name: rng.standard_normal((4, 6, 2)) for name in heads}
    gradients, before = other.loss_and_gradients(x, y).gradients, model.parameters.flat.copy()
    with pytest.raises(ValueError, match=r"^gradients: expected Parameters\(.*, got Parameters\("):
        SGD(0.1).update(model.parameters, gradients)
    with pytest.raises(ValueError, match=r"^out: expected Parameters\("):
        model.loss_and_gradients(x, y, out=gradients)
    np.testing.assert_array_equal(model.parameters.flat, before)
    layout = dict(reversed(LSTM.layout(3, 5).items()))
    with pytest.raises(ValueError, match=r"^parameters: expected {"):
        LSTM(3, 5, parameters=Parameters(layout, "float32"))


def test_a_schedule_may_end_at_zero(rng):
    model, x, y = model_and_data(rng)
    history = model.fit(x, y, epochs=4, optimizer=Adam(Cosine(0.01, epochs=2)), progress=False)
    assert history.learning_rate[-1] == 0


def test_what_is_added_to_gradients_is_taken_as_they_are(rng):
    """A penalty's slope is weight decay; of what is not trainable it changes nothing."""
    (model, x, y), other = model_and_data(rng), model_and_data(rng)[0]

    def penalty(given, gradients):
        assert given is model
        for name in gradients:
            gradients[name][...] += 0.3 * given.parameters[name]

    options = dict(epochs=2, batch_size=5, trainable="lstm.*", clip_norm=0.5, progress=False)
    model.fit(x, y, optimizer=SGD(0.1), on_gradients=penalty, **options)
    assert np.abs(model.parameters.flat - other.parameters.flat).max() > 1e-3
    np.testing.assert_array_equal(model.parameters["head.weight"], other.parameters["head.weight"])
    options["clip_norm"] = None
    (model, _, _), other = model_and_data(rng), model_and_data(rng)[0]
    model.fit(x, y, optimizer=SGD(0.1), on_gradients=penalty, **options)
    other.fit(x, y, optimizer=SGD(0.1, weight_decay=0.3), **options)
    np.testing.assert_allclose(model.parameters.flat, other.parameters.flat, rtol=1e-9, atol=1e-13)
    with pytest.raises(TypeError, match="on_gradients: expected a callable, got int 3"):
        model.fit(x, y, on_gradients=3)
