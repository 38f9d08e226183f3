"""Series of pandas and polars go in and come out with their index: needs them, and is skipped without."""

import datetime

import numpy as np
import pytest

from cylstm import LSTMForecaster
from cylstm.forecast.frames import Index

SMALL = dict(hidden_size=4, members=1, epochs=1, season=6, log=False)
T = 60


@pytest.fixture
def y(rng):
    return 3 + np.sin(np.arange(T)) + 0.1 * rng.standard_normal(T)


def same(found, expected):
    assert list(found) == list(expected) and found.dtype == expected.dtype and found.name == expected.name


def small(horizon=3, **options):
    return LSTMForecaster(horizon, **{**SMALL, **options})


def indices(pd):
    return {
        "month starts": pd.date_range("2001-01-01", periods=T + 5, freq="MS", name="month"),
        "month ends": pd.date_range("2001-01-31", periods=T + 5, freq="ME"),
        "working days": pd.bdate_range("2001-01-01", periods=T + 5),
        "hours in a zone": pd.date_range("2001-03-24", periods=T + 5, freq="h", tz="Europe/Berlin"),
        "without a name of its frequency": pd.DatetimeIndex(
            list(pd.date_range("2001-01-01", periods=T + 5, freq="2D"))
        ),
        "periods": pd.period_range("2001Q1", periods=T + 5, freq="Q", name="quarter"),
        "integers": pd.RangeIndex(3, 3 + 2 * (T + 5), 2, name="n"),
        "years": pd.Index(np.arange(1700, 1700 + T + 5)),
    }


@pytest.mark.parametrize("kind", list(indices(pytest.importorskip("pandas"))))
def test_an_index_of_pandas_goes_on(y, kind, tmp_path):
    import pandas as pd

    index = indices(pd)[kind]
    series = pd.Series(y, index[:T], name="sales")
    forecaster = small().fit(series)
    expected = small().fit(y).forecast_quantiles()
    found = forecaster.forecast()
    assert found.name == "sales" and np.array_equal(found, expected[:, 2])
    same(found.index, index[T : T + 3])
    found = forecaster.forecast_quantiles()
    assert np.array_equal(found, expected) and list(found.columns) == [0.05, 0.25, 0.5, 0.75, 0.95]
    forecaster.save(tmp_path / "f")
    for each in (forecaster, LSTMForecaster.load(tmp_path / "f")):
        each.update(pd.Series(y[:2], index[T : T + 2]))
        same(each.forecast().index, index[T + 2 : T + 5])
        if kind != "years":
            with pytest.raises(ValueError, match=r"new_rows: expected .* at row 0, right behind what is known, got"):
                each.update(pd.Series(y[:2], index[T + 3 : T + 5]))
    table = pd.DataFrame(small().backtest(series, every=7).table)
    first = table[table["step"] == 2].iloc[0]
    assert first["origin"] == index[41] and first["time"] == index[43] and first["actual"] == y[43]


def test_frames_of_pandas_are_series_in_columns(y):
    pd = pytest.importorskip("pandas")
    index = pd.date_range("2001-01-01", periods=T, freq="D")
    frame = pd.DataFrame({"a": y, "b": np.where(np.arange(T) == 7, np.nan, 2 * y)}, index)
    weather = pd.DataFrame({"rain": y, "sun": -y}, index)
    forecaster = small().fit(frame, future=weather)
    ahead = pd.DataFrame({"rain": [1, 2, 3.0], "sun": [1, 2, 3]}, pd.date_range("2001-03-02", periods=3, freq="D"))
    found, bounds = forecaster.forecast(future=ahead), forecaster.forecast_quantiles(future=ahead)
    plain = small().fit(frame.to_numpy(), future=weather.to_numpy())
    assert np.array_equal(found, plain.forecast(future=ahead.to_numpy())) and list(found.columns) == ["a", "b"]
    assert np.array_equal(bounds["b"][0.95], plain.forecast_quantiles(future=ahead.to_numpy())[:, 1, 4])
    with pytest.raises(ValueError, match=r"future: expected 2001-03-02 00:00:00 at row 0, .* got 2001-03-01 00:00:00"):
        forecaster.forecast(future=ahead.shift(freq="-1D"))
    with pytest.raises(ValueError, match="future: expected 2001-01-01 00:00:00 at row 0"):
        small().fit(frame, future=weather.shift(freq="1D"))
    later = frame.shift(freq=f"{T}D")[["b", "a"]]
    with pytest.raises(ValueError, match=r"new_rows: expected the series \('a', 'b'\), got \('b', 'a'\)"):
        forecaster.update(later, future=weather.shift(freq=f"{T}D"))


def test_integers_that_may_be_missing_are_numbers(y):
    pd = pytest.importorskip("pandas")
    series = pd.Series([*np.arange(40), *[None] * 3, *np.arange(17)], dtype="Int64")
    expected = small().fit(np.array([*np.arange(40), *[np.nan] * 3, *np.arange(17)])).forecast()
    assert np.array_equal(small().fit(series).forecast(), expected)


def test_what_pandas_has_and_no_forecast_can_follow_is_refused(y):
    pd, dateutil = pytest.importorskip("pandas"), pytest.importorskip("dateutil.tz")
    index = pd.date_range("2001-01-01", periods=T + 1, freq="D")
    for wrong, message in [
        (pd.Series(y, index.delete(7)), "series: expected an index whose steps have a frequency"),
        (pd.Series(y, index[:T][::-1]), "series: expected rows in order"),
        (pd.Series(y, [*range(7), *range(8, T + 1)]), "one step apart, NaN where nothing is, got 6 and then 8"),
        (pd.Series(y, range(T, 0, -1)), "expected rows in order"),
        (
            pd.Series(y, pd.PeriodIndex([pd.Period("2001-01", "M") + 2 * n for n in range(T)])),
            r"series: expected an index of a period each \(M\), got 2001-01 and then 2001-03",
        ),
        (
            pd.Series(
                y, pd.date_range("2001-01-01", periods=T, freq=pd.offsets.CustomBusinessDay(holidays=["2009-01-01"]))
            ),
            "series: expected an index with a frequency that its name gives back, got <CustomBusinessDay>",
        ),
        (
            pd.Series(y, pd.date_range("2001-01-01", periods=T, freq=pd.DateOffset(months=1))),
            "that its name gives back",
        ),
        (
            pd.Series(y, index[:T].tz_localize(dateutil.tzoffset(None, 3600))),
            "series: expected a time zone with a name",
        ),
        (pd.Series(y, np.arange(T, 0, -1, dtype=np.uint8)), "expected rows in order"),
        (pd.Series(y, list(map(str, range(T)))), "series: expected an index of dates, periods or integers"),
        (pd.Series(["a"] * T, index[:T]), "series: expected numbers, got (str|object)"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            small().fit(wrong)


def test_periods_may_be_longer_than_one(y):
    pd = pytest.importorskip("pandas")
    index = pd.period_range("2001-01", periods=T + 3, freq="2M")
    assert list(small().fit(pd.Series(y, index[:T])).forecast().index) == list(index[T:])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_covariates_are_known_by_their_names(y, library, tmp_path):
    frame = pytest.importorskip(library).DataFrame
    weather = frame({"rain": y, "sun": -y})
    small().fit(y, past=weather, future=weather).save(tmp_path / "f")
    for each in (small().fit(y, past=weather, future=weather), LSTMForecaster.load(tmp_path / "f")):
        ahead = weather[:3]
        assert np.array_equal(each.forecast(future=ahead), each.forecast(future=np.stack([y, -y], axis=1)[:3]))
        wrong = r"expected the columns \('rain', 'sun'\), got \('sun', 'rain'\)"
        with pytest.raises(ValueError, match=f"future: {wrong}"):
            each.forecast(future=ahead[["sun", "rain"]])
        with pytest.raises(ValueError, match=f"past: {wrong}"):
            each.update(y[:3], past=ahead[["sun", "rain"]], future=ahead)
        with pytest.raises(ValueError, match=f"future: {wrong}"):
            each.evaluate(y[:3], past=ahead, future=ahead[["sun", "rain"]])
    with pytest.raises(ValueError, match=rf"future\['b'\]: {wrong}"):
        small().fit({"a": y, "b": y}, future={"a": weather, "b": weather[["sun", "rain"]]})


def test_static_features_are_known_by_the_names_of_series(y):
    pd = pytest.importorskip("pandas")
    static = pd.DataFrame({"size": [1.0, 2.0]}, ["a", "b"])
    both = pd.DataFrame({"a": y, "b": -y})
    found = small().fit(both, static=static).forecast()
    assert np.array_equal(found, small().fit(both, static=static.reset_index(drop=True)).forecast())
    for series, wrong in ((both, static[::-1]), ([y, -y], static.set_axis([1, 0]))):
        with pytest.raises(ValueError, match=r"static: expected the rows \(.*\), one of each series, got \("):
            small().fit(series, static=wrong)
    assert small().fit([y, -y], static=static).panel_.form == "list"


@pytest.mark.parametrize("kind", ["a date", "text", "objects"])
def test_dates_and_text_are_no_numbers(y, kind):
    pd = pytest.importorskip("pandas")
    column = {"a date": pd.date_range("2001-01-01", periods=T), "text": ["7"] * T,
              "objects": pd.Series([7] * T, dtype=object)}[kind]  # fmt: skip
    with pytest.raises(TypeError, match="series: expected numbers in column 'b', got"):
        small().fit(pd.DataFrame({"a": y, "b": column}))
    with pytest.raises(TypeError, match="series: expected numbers, got"):
        small().fit(pd.Series(column))
    with pytest.raises(TypeError, match="future: expected numbers in column 'b', got"):
        small().fit(pd.Series(y), future=pd.DataFrame({"b": column}))


@pytest.mark.parametrize("days, after", [
    ([datetime.date(2001, 1, 1) + datetime.timedelta(7 * n) for n in range(T)], datetime.date(2002, 2, 25)),
    ([datetime.date(2001 + n // 12, n % 12 + 1, 1) for n in range(T)], datetime.date(2006, 1, 1)),
    ([datetime.date(2001 + (n + 1) // 12, (n + 1) % 12 + 1, 1) - datetime.timedelta(1) for n in range(T)],
     datetime.date(2006, 1, 31)),
    ([datetime.datetime(2001, 1, 1, 6) + datetime.timedelta(minutes=15 * n) for n in range(T)],
     datetime.datetime(2001, 1, 1, 21)),
])  # fmt: skip
def test_a_column_of_dates_of_polars_goes_on(y, days, after, tmp_path):
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"when": days, "sales": y})
    forecaster = small().fit(frame)
    forecaster.save(tmp_path / "f")
    for each in (forecaster, LSTMForecaster.load(tmp_path / "f")):
        found = each.forecast()
        assert found.columns == ["when", "sales"] and found["when"][0] == after and found.schema == frame.schema
        assert np.array_equal(found["sales"], small().fit(y).forecast())
        bounds = each.forecast_quantiles()
        assert bounds.columns == ["when", *(f"sales {q}" for q in (0.05, 0.25, 0.5, 0.75, 0.95))]
        each.update(pl.DataFrame({"when": found["when"][:2], "sales": y[:2]}))
        assert each.forecast()["when"][0] == found["when"][2]
        with pytest.raises(ValueError, match=r"new_rows: expected .* right behind what is known"):
            each.update(frame)
    gaps = pl.DataFrame({"when": days[:7] + days[8:], "sales": y[1:]})
    with pytest.raises(ValueError, match="series: expected rows in order and one step apart in 'when'"):
        small().fit(gaps)


def when(first, step, count=T):
    return [first + n * step for n in range(count)]


@pytest.mark.parametrize("moments, after", [
    (when(datetime.datetime(2001, 1, 1), datetime.timedelta(seconds=1234567)), datetime.timedelta(seconds=1234567)),
    ([datetime.datetime(2001 + n, 1, 1) for n in range(3)], datetime.datetime(2004, 1, 1)),
    ([datetime.datetime(1901 + n, 12, 31, 9) for n in range(99)], datetime.datetime(2000, 12, 31, 9)),
    ([datetime.datetime(2001 + n // 4, 3 * (n % 4) + 3, 30) for n in range(5)], datetime.datetime(2002, 6, 30)),
])  # fmt: skip
def test_steps_of_polars_are_exact(moments, after):
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"when": moments, "y": np.zeros(len(moments))})
    index = Index.of("series", frame, len(frame))
    expected = moments[-1] + after if isinstance(after, datetime.timedelta) else after
    assert index.labels(1) == [expected] and index.ahead(-1).last_label == moments[-2]
    assert Index.of("series", frame[:2], 2).ahead(12).last_label > moments[1]


def test_a_unit_of_polars_comes_back(y):
    pl = pytest.importorskip("polars")
    moments = when(datetime.datetime(2001, 1, 1), datetime.timedelta(hours=1))
    for unit in ("ms", "us", "ns"):
        frame = pl.DataFrame({"when": pl.Series(moments, dtype=pl.Datetime(unit)), "y": y})
        assert small().fit(frame).forecast().schema == frame.schema


def test_columns_of_polars_that_no_forecast_can_follow_are_refused(y):
    pl = pytest.importorskip("polars")
    months = [datetime.datetime(2001 + n // 12, n % 12 + 1, 1, n % 2) for n in range(T)]
    days = when(datetime.date(2001, 1, 1), datetime.timedelta(1))
    thirtieth = [datetime.date(2001, n, 30) for n in range(3, 13)]
    for column, message in [
        (months, "series: expected rows in order and one step apart in 'when'"),
        (thirtieth, "series: expected rows in order and one step apart in 'when'"),
        ([*days[:7], None, *days[8:]], "series: expected a date in each row of 'when', got null in row 7"),
        ([datetime.time(n // 60, n % 60) for n in range(T)], "series: expected numbers in column 'when', got Time"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            small().fit(pl.DataFrame({"when": column, "y": y[: len(column)]}))


def test_series_of_polars(y):
    pl = pytest.importorskip("polars")
    series = pl.Series("sales", [None if n == 5 else value for n, value in enumerate(y)])
    found = small().fit(series, future=pl.DataFrame({"a": y})).forecast(future=pl.Series(y[:3]))
    expected = small().fit(np.where(np.arange(T) == 5, np.nan, y), future=y).forecast(future=y[:3])
    assert isinstance(found, pl.Series) and found.name == "sales" and np.array_equal(found, expected)
    assert small().fit(series).forecast_quantiles().columns == ["0.05", "0.25", "0.5", "0.75", "0.95"]
    both = small().fit({"a": series, "b": series[10:]}).forecast()
    assert list(both) == ["a", "b"] and len(both["b"]) == 3
