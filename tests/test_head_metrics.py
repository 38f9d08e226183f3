"""Metrics of several heads and of horizons, in evaluate, in fit and in what it watches."""

import numpy as np
import pytest

from cylstm import Head, Model
from cylstm.training import BestOnly

I, H, B, T = 3, 5, 6, 9
HEADS = {
    "kind": Head(4, weight=0.7),
    "size": Head(2, loss="mse", weight=2.0, horizon=3),
    "end": Head(1, loss="mae", output="last"),
}
METRICS = {"kind": ["f1", "top_2"], "size": ["mae", "r2"]}


def some_data(rng):
    y = {"kind": rng.integers(0, 4, (B, T)), "size": rng.standard_normal((B, T, 3, 2)), "end": rng.random((B, 1))}
    return rng.standard_normal((B, T, I)), y


def made(**options):
    return Model(I, H, HEADS, dtype="float64", seed=1, **options)


def test_metrics_of_a_head_are_those_of_a_model_that_has_no_other(rng):
    model, (x, y) = made(), some_data(rng)
    lengths = np.array([9, 3, 2, 1, 6, 9])
    found = model.evaluate(x, y, lengths=lengths, metrics=METRICS, batch_size=4)
    for name, wanted in METRICS.items():
        head = HEADS[name]
        one = Model(I, H, head.output_size, loss=head.loss, horizon=head.horizon, dtype="float64")
        for other, values in one.parameters.items():
            values[...] = model.parameters[other.replace("head.", f"head.{name}.")]
        expected = one.evaluate(x, y[name], lengths=lengths, metrics=wanted)
        for key in ("loss", *wanted):
            assert found[f"{name}.{key}"] == pytest.approx(expected[key], rel=1e-12)
    real = np.arange(T) < lengths[:, None]
    apart = np.abs(model(x)[0]["size"] - y["size"])[real]
    assert found["size.mae"] == pytest.approx(apart.mean(), rel=1e-12)
    assert "end.mae" not in found and found["end.loss"] > 0


@pytest.mark.parametrize("validated", [True, False])
def test_a_history_has_them_and_one_is_watched(rng, validated):
    model, (x, y), seen = made(), some_data(rng), []
    held_out = some_data(rng) if validated else None
    evaluated = lambda event: seen.append(model.evaluate(*(held_out or (x, y)), metrics=METRICS))  # noqa: E731
    history = model.fit(x, y, epochs=3, validation=held_out, metrics=METRICS, monitor="kind.f1", progress=False,
                        callbacks=[lambda event: event.kind == "epoch" and evaluated(event)])  # fmt: skip
    for name in ("kind.f1", "kind.top_2", "size.mae", "size.r2"):
        assert history.metrics[name] == [found[name] for found in seen]
    assert history.watched == ("kind.f1", "max") and set(history.to_dict()) > set(history.metrics)
    own = {"kind.loss", "kind.accuracy", "size.loss", "end.loss"}
    assert own < set(history.metrics)
    if validated:
        assert all(history.metrics[name] == [found[name] for found in seen] for name in own)
    weights = {name: head.weight for name, head in HEADS.items()}
    total = [sum(weights[name] * history.metrics[f"{name}.loss"][n] for name in HEADS) for n in range(3)]
    assert total == pytest.approx(history.validation_loss or history.train_loss, rel=1e-12)
    model.fit(x, y, epochs=1, monitor="end.loss", patience=1, progress=False)


@pytest.mark.parametrize("given, error, message", [
    (["f1"], TypeError, r"metrics: expected a dict by head, of kind, size, end, got list"),
    (np.array([]), TypeError, r"metrics: expected a dict by head, of kind, size, end, got float64 \(0,\)$"),
    ({"no": ["f1"]}, ValueError, r"metrics: expected names of heads, kind, size, end, got str 'no'"),
    ({"size": ["f1"]}, TypeError, r"metrics: expected .* with loss='mse', got 'f1'"),
])  # fmt: skip
def test_what_does_not_fit_is_named(rng, given, error, message):
    x, y = some_data(rng)
    for call in (made().evaluate, made().fit):
        with pytest.raises(error, match=message):
            call(x, y, metrics=given)
    with pytest.raises(ValueError, match=r"monitor: expected one of 'loss', 'kind\.loss', 'kind\.accuracy', "):
        made().fit(x, y, monitor="f1")


@pytest.mark.parametrize("none", [[], (), {}])
def test_no_metrics_may_be_asked_for(rng, none):
    x, y = some_data(rng)
    assert "kind.f1" not in made().evaluate(x, y, metrics=none)


@pytest.mark.parametrize("name", ["kind.accuracy", "end.loss", "kind.f1", "kind.top_2"])
def test_the_best_model_by_a_name_of_one_head(rng, tmp_path, name):
    x, y = some_data(rng)
    best = BestOnly(tmp_path / "best", monitor=name)
    history = made().fit(x, y, epochs=3, metrics=METRICS, callbacks=[best], progress=False)
    entries = history.metrics[name]
    assert best.best == (min(entries) if name == "end.loss" else -max(entries))


def test_a_summary_tells_them_apart():
    text = made().summary()
    assert "kind (B, T, 4), weight 0.7" in text and "size (B, T, 3, 2), weight 2" in text and "end (B, 1)" in text
    assert "per row" in next(line for line in text.splitlines() if line.startswith("head.end"))
