"""Metrics while training: of which data and weights they are, and what watches them."""

import json
import math

import numpy as np
import pytest
from tasks import V, make, sequences

from cylstm import Adam, History, Model, ReduceOnPlateau, StopTraining, tensor_files


def noisy(rng, rows):
    """Rows whose targets are, in part, drawn at random: no model learns those."""
    x, y = sequences(rng, [8] * rows)
    return np.stack(x), np.where(rng.random((rows, 8)) < 0.4, rng.integers(0, V, (rows, 8)), np.stack(y))


def test_metrics_are_of_the_validation_data_after_each_epoch(rng):
    (x, y), (u, v) = noisy(rng, 20), noisy(rng, 9)
    weights, found = rng.random((9, 8)), []
    options = dict(metrics=["f1", "top_2"], sample_weight=weights)

    def look(event):
        if event.kind == "epoch":
            found.append(event.model.evaluate(u, v, **options))

    validation = dict(x=u, y=v, sample_weight=weights)
    history = make().fit(x, y, validation=validation, metrics=options["metrics"], epochs=3, callbacks=[look],
                         progress=False)  # fmt: skip
    assert history.metrics == {name: [one[name] for one in found] for name in ("f1", "top_2")}
    assert history.validation_loss == [one["loss"] for one in found] and len(set(history.metrics["f1"])) == 3


@pytest.mark.parametrize("tbptt", [None, 3])
def test_without_validation_they_are_of_the_training_data(rng, tbptt):
    x, y = noisy(rng, 20)
    found, options = [], dict(sample_weight=rng.random(20), class_weight={1: 4, 3: 0.2}, ignore=2)

    def look(event):
        if event.kind == "epoch":
            found.append(event.model.evaluate(x, y, **options, metrics=["recall"])["recall"])

    history = make().fit(x, y, **options, metrics=["recall"], epochs=2, batch_size=6, tbptt=tbptt, callbacks=[look],
                         progress=False)  # fmt: skip
    assert history.metrics == {"recall": found} and history.validation_loss == []


def test_metrics_change_no_bit_of_the_weights(rng):
    x, y = noisy(rng, 20)
    with_them, without = (make(dropout=0.3, num_layers=2) for _ in range(2))
    options = dict(epochs=3, batch_size=6, progress=False)
    expected = without.fit(x, y, **options)
    history = with_them.fit(x, y, **options, metrics=["f1", ("own", lambda targets, outputs: outputs.mean())])
    assert history.train_loss == expected.train_loss
    np.testing.assert_array_equal(with_them.parameters.flat, without.parameters.flat)


class Script:
    """A function that gives these numbers one after the other, whatever the model does."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def __call__(self, targets, outputs):
        return self.numbers.pop(0)


@pytest.mark.parametrize(("better", "best"), [("max", 1), ("min", 3)])
def test_patience_watches_a_metric_and_goes_back_to_its_best(rng, better, best):
    x, y = noisy(rng, 10)
    numbers = [0.5, 0.9, math.inf, math.nan, 0.9] if better == "max" else [0.5, 0.9, math.nan, -0.1, 0.0, -math.inf, 5]
    kept = []

    def keep(event):
        if event.kind == "epoch":
            kept.append(event.model.parameters.flat.copy())

    model = make()
    history = model.fit(x, y, metrics=[("own", Script(*numbers))], monitor=("own", better), patience=3, epochs=9,
                        callbacks=[keep], progress=False)  # fmt: skip
    assert history.best_epoch == best and len(history) == best + 4
    np.testing.assert_array_equal(model.parameters.flat, kept[best])
    assert history.train_loss == sorted(history.train_loss, reverse=True)  # which would not have stopped


def test_accuracy_can_be_watched(rng):
    (x, y), (u, v) = noisy(rng, 20), noisy(rng, 12)
    history = make().fit(x, y, validation=(u, v), monitor="accuracy", patience=4, epochs=60, optimizer=Adam(0.02),
                         progress=False)  # fmt: skip
    best = history.validation_accuracy.index(max(history.validation_accuracy))
    assert history.best_epoch == best and len(history) == best + 5 < 60


def test_a_plateau_is_one_of_what_is_watched(rng):
    x, y = noisy(rng, 10)
    options = dict(epochs=6, progress=False, monitor=("own", "max"))
    numbers = [0.1, 0.2, 0.2, 0.2, 0.3, 0.1, 0.1, 0.1]
    optimizer, model = Adam(ReduceOnPlateau(0.01, patience=2)), make()
    history = model.fit(x, y, optimizer=optimizer, metrics=[("own", Script(*numbers))], **options)
    assert history.learning_rate == [0.01] * 4 + [0.005] * 2
    # The next run of the same optimiser goes on counting; one that watches something else begins anew.
    history = model.fit(x, y, optimizer=optimizer, metrics=[("own", Script(*numbers[6:]))], **options | {"epochs": 2})
    assert history.learning_rate == [0.005, 0.0025]
    history = model.fit(x, y, optimizer=optimizer, epochs=3, progress=False)
    assert history.learning_rate == [0.0025] * 3


def run(model, data, path=None, epochs=12, stop=None, **options):
    x, y, u, v = data

    def stopping(event):
        if event.epoch == stop:
            raise StopTraining

    options = {"metrics": ["f1"], "monitor": "f1", "patience": 12, "optimizer": Adam(0.02)} | options
    return model.fit(x, y, validation=(u, v), epochs=epochs, checkpoint=path, callbacks=[stopping], progress=False,
                     **options)  # fmt: skip


def test_a_resumed_run_watches_on(tmp_path, rng):
    data, path = (*noisy(rng, 20), *noisy(rng, 12)), tmp_path / "c"
    whole, broken, resumed = make(), make(), make()
    expected = run(whole, data, epochs=90)
    assert expected.best_epoch > 3 and len(expected) < 90
    run(broken, data, path, epochs=90, stop=expected.best_epoch + 2)
    history = run(resumed, data, resume=path, epochs=90)
    assert history.metrics == expected.metrics and history.best_epoch == expected.best_epoch
    np.testing.assert_array_equal(resumed.parameters.flat, whole.parameters.flat)


def test_another_monitor_is_another_run(tmp_path, rng):
    data, path = (*noisy(rng, 10), *noisy(rng, 8)), tmp_path / "c"
    run(make(), data, path, epochs=2)
    with pytest.raises(ValueError, match=r"resume: expected the same run .* with monitor=f1 max, got loss min"):
        run(make(), data, resume=path, monitor="loss")
    with pytest.raises(ValueError, match="with monitor=f1 max, got f1 min"):
        run(make(), data, resume=path, monitor=("f1", "min"))
    history = run(make(), data, resume=path, metrics=["f1", "recall"], epochs=3)  # more to look at changes nothing
    assert history.metrics["recall"][:2] == [None, None] and history.metrics["recall"][2] > 0


def test_checkpoints_from_before_there_were_metrics_go_on(tmp_path, rng):
    data, path = (*noisy(rng, 10), *noisy(rng, 8)), tmp_path / "c"
    plain = dict(metrics=(), monitor="loss")
    whole, broken, resumed = make(), make(), make()
    expected = run(whole, data, **plain)
    run(broken, data, path, epochs=5, **plain)
    with tensor_files.open_tensors(path, "checkpoint") as file:
        header, tensors = file.header, {name: file.get(name) for name in file.shapes}
    header["options"].pop("monitor")
    assert set(header["history"]) == set(vars(History())) - {"metrics", "watched"}
    tensor_files.write_tensors(path, "checkpoint", header, tensors)
    history = run(resumed, data, resume=path, **plain)
    assert history.validation_loss == expected.validation_loss
    np.testing.assert_array_equal(resumed.parameters.flat, whole.parameters.flat)


def test_a_metric_that_is_no_number_is_kept_as_nothing(tmp_path, rng):
    """JSON has no NaN; readers in other languages stop at it."""
    x, y = noisy(rng, 10)
    history = make().fit(x, y, metrics=[("own", Script(0.5, math.nan, math.inf))], epochs=3, checkpoint=tmp_path / "c",
                         progress=False)  # fmt: skip
    assert history.to_dict()["own"] == [0.5, None, None]
    with tensor_files.open_tensors(tmp_path / "c", "checkpoint") as file:
        assert file.header["history"]["own"] == [0.5, None, None]
    history.save(tmp_path / "h.json")
    text = (tmp_path / "h.json").read_text()
    assert json.loads(text, parse_constant=None) and "NaN" not in text and "Infinity" not in text


def test_the_bar_says_them(rng, capsys):
    x, y = noisy(rng, 10)
    history = make().fit(x, y, validation=(x, y), metrics=["top_2"], epochs=1)
    assert f"top_2 {history.metrics['top_2'][0]:.4g}" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "error", "message"), [
    (dict(monitor="f1"), ValueError, "monitor: expected one of 'loss', 'accuracy', got 'f1'"),
    (dict(monitor="f1", metrics=["recall"]), ValueError, "one of 'loss', 'accuracy', 'recall', got 'f1'"),
    (dict(monitor="own", metrics=[("own", Script(1))]), ValueError,
     r"monitor: expected \('own', 'max'\) or \('own', 'min'\), got 'own'"),
    (dict(monitor=("loss", "up")), ValueError, r"monitor: expected \('loss', 'max'\) or"),
    (dict(monitor=None), TypeError, r"monitor: expected a name or \(name, 'max' or 'min'\), got NoneType None"),
])  # fmt: skip
def test_what_cannot_be_watched_is_refused(rng, options, error, message):
    x, y = noisy(rng, 4)
    model = make()
    before = model.parameters.flat.copy()
    with pytest.raises(error, match=message):
        model.fit(x, y, progress=False, **options)
    np.testing.assert_array_equal(model.parameters.flat, before)
    with pytest.raises(ValueError, match="monitor: expected one of 'loss', got 'accuracy'"):
        Model(3, 4, 1, loss="mse").fit(rng.standard_normal((2, 5, 3)), np.ones((2, 5, 1)), monitor="accuracy")
