"""What a forecaster says of itself: scores by hand, naive forecasts beside it, and no look ahead."""

import numpy as np
import pytest

from cylstm import LSTMForecaster
from cylstm.forecast import Report

NAN = np.nan
SMALL = dict(hidden_size=8, members=2, epochs=5, season=6, log=False)


def waves(rng, T=80, season=6, noise=0.2):
    return 3 + np.sin(2 * np.pi * np.arange(T) / season) + noise * rng.standard_normal(T)


def report(forecast, actual=(0.0, 10.0, 20.0, 30.0), naive=4.0, seasonal=8.0, width=5.0):
    actual, forecast = np.array(actual), np.array(forecast, float)
    table = {"series": np.array(["a", "a", "b", "b"], object), "origin": np.arange(4), "time": np.arange(1, 5),
             "step": np.array([1, 2, 1, 2]), "actual": actual, "forecast": forecast, "q0.05": forecast - width,
             "q0.95": forecast + width, "naive": actual + naive, "seasonal_naive": actual - seasonal}  # fmt: skip
    return Report(table, 12, (0.05, 0.95))


def test_scores_by_hand():
    found = report([1, 12, 16, 38]).scores  # off by 1, 2, -4, 8; the last is outside
    assert found.pop("pinball") == pytest.approx(
        np.mean([[0.05 * 4, 0.05 * 6], [0.05 * 3, 0.05 * 7], [0.05 * 9, 0.05 * 1], [0.95 * 3, 0.05 * 13]]))  # fmt: skip
    assert found == pytest.approx(dict(mae=3.75, rmse=np.sqrt(85 / 4), naive_mae=4, naive_rmse=4, seasonal_naive_mae=8,
                                       seasonal_naive_rmse=8, coverage=0.75, interval=0.9, lines=4))  # fmt: skip
    assert report([1, 12, 16, 38]).by_series["b"]["mae"] == 6 and report([1, 12, 16, 38]).by_step[2]["mae"] == 5


def test_a_report_says_by_itself_what_is_bad():
    text = repr(report([1, 12, 16, 38]))
    assert "better than the naive forecast: 0.94 times its" in text and "4 values foretold, in 4 forecasts" in text
    assert "NO BETTER than a naive forecast of b." in text and "naive forecast of a" not in text
    assert "TOO NARROW: intervals of 90% hold 75%." in text
    bad = report([9, 19, 29, 39], width=20).verdict
    assert bad.count("NO BETTER") == 4 and "NO BETTER than the seasonal-naive forecast: 1.12 times" in bad
    assert "TOO WIDE: intervals of 90% hold 100%." in bad
    good = report([0, 11, 20, 31], width=np.array([9, 9, 9, 9])).verdict
    assert "NO" not in good


def test_a_rival_without_an_error_has_no_share(rng):
    text = report([1, 12, 16, 38], naive=0.0).verdict
    assert "NO BETTER than the naive forecast: it has no error." in text and "inf" not in text


def test_quantiles_have_a_column_each(rng):
    options = {**SMALL, "members": 1, "epochs": 1, "quantiles": (0.1, 0.9, 0.9000001)}
    table = LSTMForecaster(2, **options).backtest(waves(rng), every=9).table
    assert [name for name in table if name[0] == "q"] == ["q0.1", "q0.9", "q0.9000001"]


@pytest.mark.parametrize("log", [False, True])
def test_the_last_known_value_is_known_after_a_long_gap(rng, tmp_path, log):
    y = waves(rng)
    forecaster = LSTMForecaster(3, **{**SMALL, "log": log}).fit(y[:50]).update(np.full(40, NAN))
    forecaster.save(tmp_path / "f")
    for each in (forecaster, LSTMForecaster.load(tmp_path / "f")):
        table = each.evaluate([NAN, 2.0, 3.0]).table
        assert table["naive"][table["origin"] < 91] == pytest.approx(y[49])
        assert table["naive"][table["origin"] == 91] == pytest.approx(2)
        assert table["seasonal_naive"][:2] == pytest.approx([y[49], y[44]])


def test_naive_forecasts_are_those_of_each_origin(rng):
    y = waves(rng)
    y[[60, 62, 66, 71]] = NAN
    found = LSTMForecaster(8, **SMALL).backtest(y, start=0.75, every=3)
    table, lines = found.table, 0
    assert found.season == 6 and found.quantiles == (0.05, 0.25, 0.5, 0.75, 0.95)
    for origin in range(59, 79, 3):
        for step in range(1, 9):
            t = origin + step
            if t >= 80 or np.isnan(y[t]):
                continue
            assert (table["origin"][lines], table["time"][lines], table["step"][lines]) == (origin, t, step)
            assert table["actual"][lines] == y[t]
            before = y[: origin + 1]
            assert table["naive"][lines] == before[~np.isnan(before)][-1]
            season = t - 6
            while season > origin or np.isnan(y[season]):
                season -= 6
            assert table["seasonal_naive"][lines] == y[season]
            lines += 1
    assert lines == len(table["step"]) == len(table["q0.95"])


def test_the_season_beside_it_may_be_another(rng):
    y = waves(rng)
    found = LSTMForecaster(3, **SMALL).backtest(y, every=7, season=1)
    assert np.array_equal(found.table["naive"], found.table["seasonal_naive"]) and found.season == 1


@pytest.mark.parametrize("refit", [None, 6])
def test_a_back_test_does_not_look_ahead(rng, refit):
    y, ahead = waves(rng), rng.standard_normal((80, 1))
    other, changed = np.where(np.arange(80) < 70, y, y + 5), np.where(np.arange(80)[:, None] < 70, ahead, 9)
    forecaster = LSTMForecaster(3, **SMALL)
    one, two = (forecaster.backtest(values, past=past, future=ahead, refit=refit, every=2).table
                for values, past in ((y, ahead), (other, changed)))  # fmt: skip
    before = one["origin"] < 70
    assert before.any() and (~before).any()
    for name in ("forecast", "q0.05", "q0.95", "naive", "seasonal_naive"):
        assert np.array_equal(one[name][before], two[name][before])
    assert not np.array_equal(one["forecast"][~before], two["forecast"][~before])
    assert forecaster.models_ is None


def test_a_back_test_is_fit_and_update(rng):
    y, ahead = waves(rng), rng.standard_normal((80, 1))
    forecaster = LSTMForecaster(3, **SMALL)
    found = forecaster.backtest(y, future=ahead, start=0.7, every=1).table
    forecaster.fit(y[:56], future=ahead[:56])
    assert forecaster.evaluate(y[56:], future=ahead[56:]).scores == pytest.approx(
        {**LSTMForecaster(3, **SMALL).backtest(y, future=ahead).scores})  # fmt: skip
    for origin in range(55, 77):
        expected = forecaster.forecast_quantiles(future=ahead[origin + 1 : origin + 4])
        here = found["origin"] == origin
        assert np.array_equal(found["q0.05"][here], expected[:, 0])
        forecaster.update(y[origin + 1 : origin + 2], future=ahead[origin + 1 : origin + 2])


def test_learning_anew_is_fit(rng):
    y = waves(rng)
    forecaster = LSTMForecaster(3, **{**SMALL, "epochs": 30})
    found = forecaster.backtest(y, start=0.75, refit=10, every=5).table
    expected = forecaster.fit(y[:70]).forecast()
    assert np.array_equal(found["forecast"][found["origin"] == 69], expected)
    assert not np.array_equal(forecaster.fit(y[:60]).update(y[60:70]).forecast(), expected)


def test_series_of_different_lengths_end_when_they_end(rng):
    y, short = waves(rng, 80), waves(rng, 60)
    found = LSTMForecaster(3, **SMALL).backtest({"long": y, "short": short}, start=0.8)
    assert found.by_series["long"]["lines"] == 16 * 3 - 3 and found.by_series["short"]["lines"] == 12 * 3 - 3
    assert set(found.table["time"][found.table["series"] == "short"]) == set(range(48, 60))


def test_evaluating_moves_nothing(rng):
    y = waves(rng)
    forecaster = LSTMForecaster(3, **SMALL).fit(y[:70])
    before = forecaster.forecast()
    forecaster.evaluate(y[70:], every=2)
    assert np.array_equal(before, forecaster.forecast())
    forecaster.update(y[70:])
    assert forecaster.panel_.indices[0].last == 79
