"""`LSTMForecaster` on arrays: what it learns, what may not matter to it, how it goes on, and its files."""

import copy
import pickle

import numpy as np
import pytest

import cylstm
from cylstm import LSTMForecaster, tensor_files
from cylstm.forecast.features import Layout

NAN = np.nan
SMALL = dict(hidden_size=8, members=2, epochs=6, season=6, log=False)


def waves(rng, T=70, season=6, noise=0.2):
    return 3 + np.sin(2 * np.pi * np.arange(T) / season) + noise * rng.standard_normal(T)


def small(horizon=4, **options):
    return LSTMForecaster(horizon, **{**SMALL, **options})


def test_twelve_months_are_foretold_without_being_told_anything(rng):
    months = np.arange(162)
    sales = np.exp(months / 100 + 0.3 * np.sin(months * np.pi / 6) + 0.05 * rng.standard_normal(162))
    forecaster = LSTMForecaster(horizon=12, members=3).fit(sales[:150])
    assert forecaster.season_ == 12 and forecaster.log_ and len(forecaster.histories_) == 3
    error = np.abs(forecaster.forecast() - sales[150:]).mean()
    assert error < 0.7 * np.abs(sales[138:150] - sales[150:]).mean()
    bounds = forecaster.forecast_quantiles()
    assert (
        bounds.shape == (12, 5) and (np.diff(bounds) > 0).all() and np.array_equal(bounds[:, 2], forecaster.forecast())
    )
    assert ((bounds[:, 0] < sales[150:]) & (sales[150:] < bounds[:, -1])).mean() > 0.6
    report = forecaster.evaluate(sales[150:])
    assert report.scores["lines"] == 78 and report.scores["mae"] < report.scores["seasonal_naive_mae"]


@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_a_unit_and_a_level_do_not_matter(rng, strategy):
    y = waves(rng)
    y[[12, 40]] = NAN
    one, other = (small(strategy=strategy).fit(each).forecast_quantiles() for each in (y, 1000 + 32 * y))
    assert other == pytest.approx(1000 + 32 * one, rel=1e-4)


def test_logarithms_make_shares(rng):
    y = waves(rng)
    one, other = (small(log=True).fit(each).forecast_quantiles() for each in (y, 50 * y))
    assert other == pytest.approx(50 * one, rel=1e-3) and (one > 0).all()
    assert small(log=False).fit(np.log(y)).forecast_quantiles() == pytest.approx(np.log(one), rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"strategy": "recursive"}, {"num_layers": 2, "season": 1}])
def test_it_goes_on_row_by_row_as_over_all_rows(rng, options):
    y = waves(rng, 90)
    y[[75, 80]] = NAN
    weather = rng.standard_normal((94, 2))
    whole = small(**options).fit(y[:70], future=weather[:70])
    steps = whole.copy()
    before = whole.forecast_quantiles(future=weather[70:74])
    for t in range(70, 90):
        steps.update(y[t : t + 1], future=weather[t : t + 1])
    assert np.array_equal(before, whole.forecast_quantiles(future=weather[70:74]))  # a copy goes its own way
    whole.update(y[70:90], future=weather[70:90])
    found = whole.forecast_quantiles(future=weather[90:])
    assert np.array_equal(found, steps.forecast_quantiles(future=weather[90:])) and not np.array_equal(found, before)


def test_what_is_kept_is_enough(rng, monkeypatch):
    y = waves(rng, 120)
    kept = small().fit(y[:70])
    for t in range(70, 120, 10):
        kept.update(y[t : t + 10])
    found = kept.forecast_quantiles()
    monkeypatch.setattr(Layout, "reach", 1000)
    whole = small().fit(y[:70]).update(y[70:])
    assert len(whole.series_[0]) == 120 and len(kept.series_[0]) == 34
    assert found == pytest.approx(whole.forecast_quantiles(), rel=1e-12)


def test_known_covariates_are_used(rng):
    price = rng.choice([0.0, 1.0], 204)
    y = 10 - 4 * price + 0.2 * rng.standard_normal(204)
    options = dict(season=1, epochs=40, hidden_size=16, members=2)
    without = small(**options).fit(y[:200])
    forecaster = small(**options).fit(y[:200], future=price[:200])
    error = np.abs(forecaster.forecast(future=price[200:]) - y[200:]).mean()
    assert error < 1 < np.abs(without.forecast() - y[200:]).max()
    other = forecaster.forecast(future=1 - price[200:])
    assert ((other - forecaster.forecast(future=price[200:])) * (1 - 2 * (1 - price[200:])) > 2).all()
    gaps = np.where(np.arange(4) == 2, NAN, price[200:])
    assert np.isfinite(forecaster.forecast(future=gaps)).all()


def test_past_covariates_are_used(rng):
    ahead = rng.standard_normal(300)
    y = np.zeros(300)
    y[1:] = 3 * ahead[:-1]
    options = dict(season=1, epochs=40, hidden_size=16)
    forecaster = small(1, **options).fit(y[:200], past=ahead[:200])
    report = forecaster.evaluate(y[200:], past=ahead[200:])
    assert report.scores["mae"] < 0.4 * small(1, **options).fit(y[:200]).evaluate(y[200:]).scores["mae"]


def test_static_features_tell_series_apart(rng):
    slopes = np.tile([-1.0, 1.0], 6)
    series = [slope * np.arange(40.0) + 0.1 * rng.standard_normal(40) for slope in slopes]
    forecaster = small(season=1, epochs=30).fit(series, static=slopes[:, None])
    for found, y, slope in zip(forecaster.forecast(), series, slopes, strict=True):
        assert np.abs(found - y[-1] - slope * np.arange(1, 5)).max() < 1


def test_series_of_many_forms_are_the_same_series(rng):
    y = waves(rng, 71)
    short = 5 * y[11:]
    listed = small().fit([y, short])
    found = listed.forecast()
    assert [each.shape for each in found] == [(4,), (4,)]
    named = small().fit({"one": y, "other": short}).forecast_quantiles()
    assert list(named) == ["one", "other"] and named["other"].shape == (4, 5)
    assert np.array_equal(named["one"][:, 2], found[0])
    columns = small().fit(np.stack([y, 5 * y], axis=1))
    assert columns.forecast().shape == (4, 2) and columns.forecast_quantiles().shape == (4, 2, 5)
    assert np.array_equal(small().fit([y, 5 * y]).forecast()[1], columns.forecast()[:, 1])
    assert np.array_equal(small().fit(y.tolist()).forecast(), small().fit(y).forecast())
    listed.update([y[:3], []])
    later = listed.forecast()
    assert not np.array_equal(later[0], found[0]) and later[1] == pytest.approx(found[1], rel=1e-12)


def test_gaps_are_no_numbers(rng):
    y = waves(rng)
    y[rng.random(70) < 0.3] = NAN
    forecaster = small().fit(y)
    assert np.isfinite(forecaster.forecast_quantiles()).all()
    before = forecaster.forecast()
    forecaster.update([NAN, NAN])
    assert np.isfinite(forecaster.forecast()).all() and not np.array_equal(before, forecaster.forecast())
    assert np.isfinite(small().fit([y, np.where(np.arange(70) < 30, NAN, y)]).forecast()).all()


@pytest.mark.parametrize("quantiles", [(0.5,), (0.9,), (0.1, 0.8)])
@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_quantiles_are_those_that_were_asked_for(rng, quantiles, strategy):
    forecaster = small(quantiles=quantiles, strategy=strategy).fit(waves(rng))
    found = forecaster.forecast_quantiles()
    assert found.shape == (4, len(quantiles)) and (np.diff(found) >= 0).all()
    median = forecaster.forecast()
    for n, q in enumerate(quantiles):
        assert (found[:, n] >= median).all() if q >= 0.5 else (found[:, n] <= median).all()


@pytest.mark.parametrize("log", [False, True])
def test_a_recursive_forecast_goes_on_as_if_what_it_said_had_come(rng, log):
    y, price = waves(rng, 90), rng.standard_normal(100)
    forecaster = small(1, strategy="recursive", quantiles=(0.5,), members=1, log=log).fit(y, future=price[:90])
    found, one = forecaster.forecast(9, future=price[90:99]), forecaster.copy()
    for t in range(9):
        said = one.forecast(future=price[90 + t : 91 + t])
        assert said == pytest.approx(found[t : t + 1], rel=1e-6)
        one.update(said, future=price[90 + t : 91 + t])


def test_recursive_forecasts_know_no_end_and_grow_wide(rng):
    walk = rng.standard_normal(150).cumsum()
    forecaster = small(1, strategy="recursive", season=1, epochs=20).fit(walk)
    found = forecaster.forecast_quantiles(40)
    width = found[:, -1] - found[:, 0]
    assert found.shape == (40, 5) and 3 < width[24:].mean() / width[0] < 12  # 5.7 for a random walk
    assert np.array_equal(found, forecaster.forecast_quantiles(40))


@pytest.mark.parametrize("options", [{}, {"strategy": "recursive"}, {"num_layers": 2, "quantiles": (0.9,)}])
def test_a_file_has_all_of_it(rng, tmp_path, options):
    y, weather, wind = waves(rng, 80), rng.standard_normal((84, 2)), rng.standard_normal((80, 1))
    past = "strategy" not in options
    forecaster = small(**options).fit([y[:70], y[:60]], past=[wind[:70], wind[:60]] if past else None,
                                      future=[weather[:70], weather[:60]], static=[[1.0], [3.0]])  # fmt: skip
    forecaster.save(tmp_path / "f")
    loaded = LSTMForecaster.load(tmp_path / "f")
    assert repr(loaded) == repr(forecaster)
    found = []
    for each in (loaded, copy.deepcopy(forecaster), pickle.loads(pickle.dumps(forecaster)), forecaster):
        each.update([y[70:], []], past=[wind[70:], wind[:0]] if past else None, future=[weather[70:80], weather[:0]])
        found.append(each.forecast_quantiles(future=[weather[80:], weather[60:64]]))
    for each in found[:-1]:
        assert all(map(np.array_equal, each, found[-1]))


def test_a_file_that_is_another_is_refused(rng, tmp_path):
    forecaster = small(members=1).fit(waves(rng))
    path = tmp_path / "f"
    cylstm.Model(3, 4, 2).save(path)
    with pytest.raises(ValueError, match="expected a cylstm forecaster, got a model"):
        LSTMForecaster.load(path)
    forecaster.save(path)
    with pytest.raises(ValueError, match="expected a cylstm model, got a forecaster"):
        cylstm.Model.load(path)
    with tensor_files.open_tensors(path, "forecaster") as file:
        header, tensors = file.header, {name: file.get(name) for name in file.shapes}
    for name in list(tensors):
        for change in ("left out", "longer"):
            damaged = {key: np.concatenate([value, value[:1]]) if key == name and value.size else value
                       for key, value in tensors.items() if key != name or change == "longer"}  # fmt: skip
            if all(map(np.array_equal, damaged.values(), tensors.values())):
                continue  # of nothing, longer
            tensor_files.write_tensors(path, "forecaster", header, damaged)
            with pytest.raises(ValueError, match=r"f: expected|expected a tensor"):
                LSTMForecaster.load(path)
    for key in ("options", "layout", "log", "members", "series", "panel"):
        tensor_files.write_tensors(path, "forecaster", {**header, key: None}, tensors)
        with pytest.raises(ValueError, match="damaged"):
            LSTMForecaster.load(path)
    for wrong in (
        *(dict(kind="dates"), dict(library="frames"), dict(last=1.5), dict(step=0), dict(name=3)),
        *(dict(kind="column", last="2020-13-01"), dict(kind="column", last="9999-12-31", step="9e7s")),
    ):
        panel = {**header["panel"], "indices": [{**header["panel"]["indices"][0], **wrong}]}
        tensor_files.write_tensors(path, "forecaster", {**header, "panel": panel}, tensors)
        with pytest.raises(ValueError, match="damaged"):
            LSTMForecaster.load(path)


@pytest.mark.parametrize("T, season, lags", [(12, 1, None), (60, 12, 96)])
def test_more_lags_than_rows_will_do(rng, T, season, lags):
    forecaster = small(1, season=season, lags=lags, members=1).fit(waves(rng, T))
    assert np.isfinite(forecaster.forecast_quantiles()).all()


def test_sizes_may_be_integers_of_numpy(rng, tmp_path):
    forecaster = small(hidden_size=np.int64(4), num_layers=np.int32(1), members=1).fit(waves(rng))
    forecaster.save(tmp_path / "f")
    assert LSTMForecaster.load(tmp_path / "f").hidden_size == 4
    with pytest.raises(TypeError, match="hidden_size: expected an integer"):
        LSTMForecaster(hidden_size=4.0)


def test_what_is_wrong_is_said(rng):
    y = waves(rng)
    with pytest.raises(ValueError, match="horizon: expected an integer >= 1, got 0"):
        LSTMForecaster(0)
    with pytest.raises(ValueError, match="quantiles: expected increasing numbers"):
        LSTMForecaster(quantiles=(0.9, 0.1))
    with pytest.raises(ValueError, match="strategy: expected one of 'direct', 'recursive', got str 'both'"):
        LSTMForecaster(strategy="both")
    with pytest.raises(ValueError, match="LSTMForecaster: expected one that was fitted"):
        LSTMForecaster().forecast()
    for wrong, message in [
        (np.ones((3, 2, 2)), r"series: expected \(T,\), or \(T, N\)"), ("text", "series: expected"), ([], "series: "),
        ({}, "series: expected at least one"), (["a", "b"], r"series\[0\]: expected"),
        (np.array([1.0, np.inf] * 30), r"series\[1\]: expected a finite number, got inf"),
        (np.full(70, NAN), r"series: expected at least 8 rows .*, with two numbers, got 70 with 0"),
        (y[:7], r"series: expected at least 8 rows \(two behind a season of 6\), with two numbers, got 7"),
        (y[:9], "horizon: expected at most 2, which is as far ahead as .* got 4"),
        (np.where(np.arange(70) < 50, y, NAN), "series: expected values in each fifth"),
        ([y, np.ones((70, 2))], r"series\[1\]: expected one series"),
    ]:  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=message):
            small().fit(wrong)
    with pytest.raises(ValueError, match=r"series\[3\]: expected a number > 0, as logarithms are foretold .*, got -1"):
        small(log=True).fit(np.where(np.arange(70) == 3, -1, y))
    for argument, wrong, message in [
        ("future", np.ones(69), r"future: expected \(70, 1\), a row for each step, got float64 \(69, 1\)"),
        ("past", np.ones((2, 70)), r"past: expected \(70, 70\)"),
        ("static", np.ones((2, 1)), r"static: expected \(1, S\)"),
        ("static", [NAN], "static: expected numbers, got NaN"), ("future", np.full(70, NAN), "at least one number"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            small().fit(y, **{argument: wrong})
    with pytest.raises(ValueError, match="past: expected None with strategy='recursive'"):
        small(strategy="recursive").fit(y, past=y)
    forecaster = small(members=1, epochs=1, log=True).fit(y, future=y)
    for call, message in [
        (lambda: forecaster.forecast(5, future=np.ones(5)), r"horizon: expected at most 4, for which .* got 5"),
        (lambda: forecaster.forecast(), "future: expected the 1 covariates that `fit` had, got None"),
        (lambda: forecaster.forecast(future=np.ones(3)), r"future: expected \(4, 1\)"),
        (lambda: forecaster.update(1.0, future=[1.0]), r"new_rows: expected rows \(n,\), got float 1.0"),
        (lambda: forecaster.update([1.0, 0.0], future=[1.0, 1.0]), r"new_rows\[1\]: expected a number > 0"),
        (lambda: forecaster.update([1.0], past=[1.0], future=[1.0]), "past: expected None, as in `fit`"),
        (lambda: forecaster.update(np.ones((2, 2)), future=[1, 1]), "new_rows: expected"),
        (lambda: forecaster.evaluate([NAN], future=[1.0]), "new_rows: expected at least one number"),
        (lambda: forecaster.evaluate([], future=np.ones((0, 1))), "new_rows: expected at least one number"),
    ]:  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    many = small(members=1, epochs=1).fit([y, y])
    with pytest.raises(TypeError, match=r"new_rows: expected a list of 2, one of each series"):
        many.update(y[:2])
