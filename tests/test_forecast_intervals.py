"""How much a forecaster believes its models, and how its intervals go after what comes."""

from dataclasses import replace

import numpy as np
import pytest

from cylstm import LSTMForecaster, tensor_files
from cylstm.forecast import flights
from cylstm.forecast.learning import mixed, mixture

NAN = np.nan
SMALL = dict(hidden_size=8, members=2, epochs=5, season=6, log=False)
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def small(horizon=3, **options):
    return LSTMForecaster(horizon, **{**SMALL, **options})


def waves(rng, T=90, noise=0.2):
    return 3 + np.sin(2 * np.pi * np.arange(T) / 6) + noise * rng.standard_normal(T)


def without_widening(forecaster, **covariates):
    """Quantiles as they would be if no row had come."""
    plain = forecaster.copy()
    plain.flights_ = replace(plain.flights_, widening=np.zeros_like(plain.flights_.widening))
    return plain.forecast_quantiles(**covariates)


@pytest.mark.parametrize("horizon, apart, options", [
    (3, 1, {}), (3, 1, {"quantiles": (0.3, 0.9)}), (50, 3, {"num_layers": 2}), (1, 1, {"strategy": "recursive"}),
])  # fmt: skip
def test_quantiles_move_as_their_forecasts_of_then_say(rng, horizon, apart, options):
    """A row is held against the forecasts from the rows before, which had the covariates that came later."""
    series, rows = [waves(rng, 100 + horizon, noise=0.5), 7 * waves(rng, 90 + horizon, noise=2)], [80, 73]
    series[0][85] = NAN
    weather = [rng.standard_normal(len(y) + horizon) for y in series]
    first = [weather[n][:count] for n, count in enumerate(rows)]
    forecaster = small(horizon, **options).fit([y[:count] for y, count in zip(series, rows, strict=True)], future=first)
    recursive, levels = forecaster.strategy == "recursive", forecaster.levels
    steps, seen = -(-horizon // apart), 0
    assert forecaster.flights_.widening.shape == (2, steps, len(levels)) and not forecaster.flights_.widening.any()
    said = [{}, {}]
    for i in range(17 if apart == 1 else 9):
        if not recursive:
            ahead = [c[row : row + horizon] for c, row in zip(weather, rows, strict=True)]
            found = forecaster.copy()
            found.quantiles = levels
            for n, bounds in enumerate(without_widening(found, future=ahead)):
                said[n][rows[n] - 1] = bounds
        before = forecaster.flights_.widening
        takes = (1, 1 if i < 8 else 0)  # the second one ends
        pieces = [slice(row, row + count) for row, count in zip(rows, takes, strict=True)]
        forecaster.update([y[piece] for y, piece in zip(series, pieces, strict=True)],
                          future=[c[piece] for c, piece in zip(weather, pieces, strict=True)])  # fmt: skip
        moved = forecaster.flights_.widening - before
        for n in (0, 1):
            value = series[n][rows[n]]
            assert moved[n].any() == (takes[n] == 1 and not np.isnan(value))
            assert not moved[n][:, levels.index(0.5)].any()
            for step in range(1, horizon + 1):
                bounds = said[n].get(rows[n] - step)
                if bounds is None or (rows[n] - step) % apart or not takes[n] or np.isnan(value):
                    continue
                median, factor = bounds[step - 1, levels.index(0.5)], np.exp(before[n, (step - 1) // apart])
                quantiles = np.sort(median + factor * (bounds[step - 1] - median))
                for k, level in enumerate(levels):
                    beyond = value > quantiles[k] if level > 0.5 else value < quantiles[k]
                    expected = flights.RATE * (beyond - min(level, 1 - level)) if level != 0.5 else 0
                    assert moved[n, (step - 1) // apart, k] == pytest.approx(expected)
                    seen += 1
            rows[n] += takes[n]
    assert recursive or seen > 100


def test_intervals_come_back_to_their_share_when_a_series_changes(rng, monkeypatch):
    y = waves(rng, 600)
    y[200:] += rng.standard_normal(400)  # five times as wide as before
    forecaster = small(2).fit(y[:200])

    def coverage():
        table = forecaster.evaluate(y[200:]).table
        inside = (table["q0.05"] <= table["actual"]) & (table["actual"] <= table["q0.95"])
        bounds = np.stack([table[f"q{q}"] for q in LEVELS])
        assert (np.diff(bounds, axis=0) >= 0).all() and np.array_equal(bounds[2], table["forecast"])
        return inside[len(inside) // 4 :].mean(), np.mean(table["actual"] < table["q0.25"])

    found, quarter = coverage()
    assert 0.87 < found < 0.93 and 0.2 < quarter < 0.3
    monkeypatch.setattr(flights, "RATE", 0.0)
    assert coverage()[0] < 0.6


def test_before_any_row_comes_nothing_has_moved(rng):
    forecaster = small().fit(waves(rng))
    assert np.array_equal(forecaster.forecast_quantiles(), without_widening(forecaster))
    forecaster.update([NAN, NAN, NAN])
    assert not forecaster.flights_.widening.any()
    forecaster.update([30.0])
    assert (forecaster.flights_.widening[0, :, 3:] > 0).all() and (forecaster.flights_.widening[0, :, :2] < 0).all()
    found, plain = forecaster.forecast_quantiles(), without_widening(forecaster)
    assert np.array_equal(found[:, 2], plain[:, 2])
    assert (found[:, 4] > plain[:, 4]).all() and (found[:, 0] > plain[:, 0]).all()


def test_it_has_an_end(rng):
    forecaster = small(1, members=1).fit(waves(rng))
    forecaster.update(1e9 * 2.0 ** np.arange(40))
    assert forecaster.flights_.widening[0, 0].max() == flights.FARTHEST


def test_learning_anew_takes_over_how_wide_intervals_were(rng):
    y = waves(rng)
    y[60:] += 2 * rng.standard_normal(30)
    found = small().backtest(y, start=60 / 90, refit=10).table
    old = small().fit(y[:60]).update(y[60:70])
    fresh, new = small().fit(y[:70]), small().fit(y[:70], after=old)
    assert np.array_equal(found["q0.05"][found["origin"] == 69], new.forecast_quantiles()[:, 0])
    assert np.array_equal(fresh.forecast(), new.forecast())
    assert (fresh.forecast_quantiles()[:, 0] != new.forecast_quantiles()[:, 0]).all()
    assert np.array_equal(old.fit(y[:70], after=old).forecast_quantiles(), new.forecast_quantiles())
    for wrong, message in [
        (small(), "that was fitted"), (3, "that was fitted, got int 3"),
        (small(2).fit(y), "with the horizon 3, got one with 2"),
        (small(quantiles=(0.1, 0.9)).fit(y), "with the quantiles"),
        (small().fit({"a": y}), r"with the series \(None,\), got one with \('a',\)"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"after: expected .*{message}"):
            small().fit(y, after=wrong)


def test_a_file_has_how_wide_intervals_have_become(rng, tmp_path):
    y = waves(rng)
    forecaster = small().fit([y[:60], y[:50]]).update([y[60:75], y[50:52]])
    forecaster.save(tmp_path / "f")
    loaded = LSTMForecaster.load(tmp_path / "f")
    assert forecaster.flights_.widening.any()
    for each in (forecaster, loaded):
        each.update([y[75:80], y[52:57]])
    for one, other in zip(forecaster.forecast_quantiles(), loaded.forecast_quantiles(), strict=True):
        assert np.array_equal(one, other)
    with tensor_files.open_tensors(tmp_path / "f", "forecaster") as file:
        header, tensors = file.header, {name: file.get(name) for name in file.shapes}
    series = {name: value[-3:] for name, value in tensors.items() if name.startswith("series.0.")}
    for wrong, message in [
        ({"widening": np.full_like(tensors["widening"], NAN)}, "widening: expected numbers from -4.0 to 4.0"),
        ({"widening": np.full_like(tensors["widening"], 5)}, "widening: expected numbers from -4.0 to 4.0"),
        ({"mix": np.full_like(tensors["mix"], 2)}, "mix: expected numbers from 0 to 1"),
        ({**series, "series.0.static": tensors["series.0.static"]}, "series.0.y: expected as many rows as"),
    ]:  # fmt: skip
        tensor_files.write_tensors(tmp_path / "f", "forecaster", header, {**tensors, **wrong})
        with pytest.raises(ValueError, match=f"damaged.*{message}"):
            LSTMForecaster.load(tmp_path / "f")


def test_models_are_mixed_as_held_out_targets_say(rng):
    """Steps: the model is right; it is twice too far; it says nothing of use; the last value is best; unseen."""
    N = 2000
    y, drift, noise = rng.standard_normal((N, 5)), rng.standard_normal((N, 5)), rng.standard_normal((N, 5))
    median = np.stack([y[:, 0], 2 * y[:, 1], noise[:, 2], noise[:, 3], y[:, 4]], axis=1)
    y[:, 3] = drift[:, 3]
    y[:, 4] = NAN
    outputs = median[..., None] + np.array([1.0, 0.0, -1.0])  # not in rising order
    scores = [(part[0], part[1][..., None], part[2])
              for part in zip(*(np.array_split(each, 2) for each in (outputs, y, drift)), strict=True)]  # fmt: skip
    found = mixture(scores, (0.1, 0.5, 0.9))
    assert found[:4] == pytest.approx(np.array([[1, 0], [0.5, 0], [0, 0], [0, 1]]), abs=0.101)
    assert found[4].sum() <= 1 and found[4, 0] > 0.2
    moved = mixed(outputs, drift, found, (0.1, 0.5, 0.9))
    assert moved[:, 3, 1] == pytest.approx(found[3, 0] * median[:, 3] + found[3, 1] * drift[:, 3])
    assert np.diff(moved) == pytest.approx(np.ones((N, 5, 2)))


@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_what_cannot_be_foretold_has_a_naive_forecast(rng, strategy):
    """A random walk that is taken for one with a season: what the models learn by heart is let go, the last value is
    best."""
    y = rng.standard_normal(200).cumsum()
    forecaster = small(1, strategy=strategy, quantiles=(0.5,), epochs=20).fit(y[:150])
    report = forecaster.evaluate(y[150:]).scores
    assert forecaster.mix_[0, 1] > 0 and report["mae"] < 0.7 * report["seasonal_naive_mae"]
    assert report["mae"] < 1.2 * report["naive_mae"]
