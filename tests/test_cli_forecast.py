"""`cylstm forecast`: from a table to a model, a picture and a table, and on; and what it refuses."""

import datetime
import json
from pathlib import Path

import numpy as np
import pytest
from commands import read, refused
from forecasts import SMALL, days, forecast, table, wave
from safetensors import safe_open
from safetensors.numpy import save_file

from cylstm import LSTMForecaster
from cylstm.cli import main, table_options

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_of_days_gives_a_model_a_picture_and_a_table(folder, capsys):
    y = [None if n in (30, 31) else value for n, value in enumerate(wave(140))]
    rows = [row for n, row in enumerate(zip(days(140), y, ["x"] * 140, strict=True)) if n != 60]
    table("sales.csv", ["day", "sales", "note"], *zip(*rows, strict=True))
    out = forecast(capsys, "sales.csv", *SMALL)
    assert "sales.csv: 139 rows of 'sales'\n" in out
    assert "times in 'day' (year-month-day), a day apart, 2024-01-01 to 2024-05-19\n" in out
    assert "gaps: 'sales' 3\n" in out and "left out: 'note'\n" in out and "a season of 7 steps" in out
    assert "a season of 7 " in out.split("back-test")[1] and "intervals of 90% hold" in out
    assert out.endswith("wrote sales.safetensors, sales-forecast.csv, sales-forecast.png\n")
    assert (folder / "sales-forecast.png").read_bytes().startswith(b"\x89PNG")
    found = read("sales-forecast.csv")
    assert [row["time"] for row in found] == ["2024-05-20", "2024-05-21", "2024-05-22", "2024-05-23"]
    # The same as the package says of the same numbers.
    values = np.array([np.nan if value is None else value for value in y])
    values[60] = np.nan
    forecaster = LSTMForecaster(4, members=2, epochs=3).fit(values)
    columns = [[float(row[name]) for name in ("q0.05", "q0.25", "median", "q0.75", "q0.95")] for row in found]
    assert np.allclose(columns, forecaster.forecast_quantiles(), rtol=1e-6)
    assert repr(forecaster.backtest(values)) in out
    assert LSTMForecaster.load("sales.safetensors").season_ == 7


def test_a_model_goes_on_over_the_same_table_with_more_rows(capsys):
    y = wave(130)
    table("sales.csv", ["day", "sales"], days(120), y[:120])
    forecast(capsys, "sales.csv", *SMALL, "--no-backtest")
    table("grown.csv", ["day", "sales"], days(130), y)
    rows = Path("grown.csv").read_text().splitlines()
    del rows[126]  # a day is missing, and stays a gap
    Path("grown.csv").write_text("\n".join(rows))
    out = forecast(capsys, "grown.csv", "--model", "sales.safetensors", "--out", "later.safetensors")
    assert "grown.csv: 129 rows, 120 of them known before; 10 new steps\nits forecasts of these:\n" in out
    assert out.endswith("wrote later.safetensors, later-forecast.csv, later-forecast.png\n")
    expected = LSTMForecaster(4, members=2, epochs=3).fit(y[:120])
    new = y[120:].copy()
    new[5] = np.nan
    report, later = expected.evaluate(new), expected.copy().update(new)
    assert repr(report) in out
    found = read("later-forecast.csv")
    assert found[0]["time"] == "2024-05-10"
    assert np.allclose([float(row["median"]) for row in found], later.forecast(), rtol=1e-6)
    # Once more over the same rows: nothing is new.
    out = forecast(capsys, "grown.csv", "--model", "later.safetensors", "--horizon", "2")
    assert "129 of them known before; 0 new steps\n" in out
    assert [row["median"] for row in read("later-forecast.csv")] == [row["median"] for row in found[:2]]


@pytest.mark.parametrize(
    ("form", "zone", "said"),
    [
        ("%d.%m.%Y", None, "day-month-year"),
        ("%m/%d/%Y", None, "month-day-year"),
        ("%Y%m%d", None, "yearmonthday"),
        ("%Y-%m-%dT%H:%M", None, "year-month-day"),
        ("%Y-%m-%dT%H:%M:%S+02:00", datetime.timezone(datetime.timedelta(hours=2)), "moments with a time zone"),
    ],
)
def test_times_come_out_as_they_went_in_and_go_on_in_their_form(form, zone, said, capsys):
    y, when = wave(60), [day.strftime(form) for day in days(64)]
    table("t.csv", ["when", "y"], when[:60], y)
    out = forecast(capsys, "t.csv", *SMALL, "--no-backtest")
    assert f"times in 'when' ({said}), a day apart, {when[0]} to {when[59]}\n" in out
    assert [row["time"] for row in read("t-forecast.csv")] == when[60:]
    table("more.csv", ["when", "y"], when[60:62], [50, 51])
    forecast(capsys, "more.csv", "--model", "t.safetensors")
    assert [row["time"] for row in read("t-forecast.csv")][:2] == when[62:]


def test_dates_of_two_meanings_are_those_that_are_even(capsys):
    y = wave(14, season=4)
    months = [f"{n % 12 + 1:02d}/01/{2023 + n // 12}" for n in range(14)]
    table("t.csv", ["when", "y"], months, y)
    out = forecast(capsys, "t.csv", *SMALL, "--horizon", "2", "--no-backtest")
    assert "dates are month-day-year, in which rows are evenly apart\n" in out and ", a month apart, " in out
    assert [row["time"] for row in read("t-forecast.csv")] == ["03/01/2024", "04/01/2024"]
    table("u.csv", ["when", "y"], ["01/01/2024", "02/02/2024", "03/03/2024", "04/04/2024"], y[:4])
    assert refused(capsys, "forecast", "u.csv").startswith(
        "u.csv, column 'when': expected dates of one meaning, got '01/01/2024', which is day-month-year or month-day-"
    )
    table("t.csv", ["when", "y"], [month[:6] + month[8:] for month in months], y)
    forecast(capsys, "t.csv", *SMALL, "--horizon", "2", "--no-backtest", "--time-format", "%m/%d/%y")
    assert [row["time"] for row in read("t-forecast.csv")] == ["03/01/24", "04/01/24"]


@pytest.mark.parametrize(
    ("times", "following", "said"),
    [
        (list(range(1950, 2010)), ["2010", "2011", "2012", "2013"], "(whole numbers), 1 apart, 1950 to 2009"),
        ([f"{2000 + n // 12}-{n % 12 + 1:02d}" for n in range(60)], ["2005-01", "2005-02", "2005-03", "2005-04"],
         "(year-month), a month apart, 2000-01 to 2004-12"),
        ([f"{2000 + n // 4}Q{n % 4 + 1}" for n in range(60)], ["2015Q1", "2015Q2", "2015Q3", "2015Q4"],
         "(year-quarter), a quarter apart, 2000Q1 to 2014Q4"),
        ([str(np.busday_offset("2024-01-01", n)) for n in range(60)],
         ["2024-03-25", "2024-03-26", "2024-03-27", "2024-03-28"],
         "(year-month-day), a business day apart, 2024-01-01 to 2024-03-22"),
        ([str(np.datetime64("2020-01") + n + 1) + "-01" for n in range(59)] + ["2025-01-01"],
         ["2025-02-01", "2025-03-01", "2025-04-01", "2025-05-01"],
         "(year-month-day), a month apart, 2020-02-01 to 2025-01-01"),
    ],
    ids=["years", "months", "quarters", "business days", "firsts"],
)  # fmt: skip
def test_steps_of_all_kinds_go_on(times, following, said, capsys):
    table("t.csv", ["t", "y"], times, wave(60))
    assert f"times in 't' {said}\n" in forecast(capsys, "t.csv", *SMALL, "--no-backtest")
    assert [row["time"] for row in read("t-forecast.csv")] == following
    table("new.csv", ["t", "y"], following[:3:2], [50, 51])  # one is missing
    out = forecast(capsys, "new.csv", "--model", "t.safetensors")
    assert "new.csv: 2 rows; 3 new steps" in out and read("t-forecast.csv")[0]["time"] == following[3]


def test_month_ends_go_on(capsys):
    ends = [str((np.datetime64("2020-02") + n).astype("datetime64[D]") - 1) for n in range(40)]
    table("t.csv", ["t", "y"], ends, wave(40))
    assert ", a month's end apart, 2020-01-31 to 2023-04-30" in forecast(capsys, "t.csv", *SMALL, "--no-backtest")
    assert [row["time"] for row in read("t-forecast.csv")] == ["2023-05-31", "2023-06-30", "2023-07-31", "2023-08-31"]


def test_rows_without_times_are_a_step_apart(capsys):
    table("t.csv", ["a", "b"], wave(60), 2 * wave(60, seed=1))
    out = forecast(capsys, "t.csv", *SMALL, "--no-backtest")
    assert "t.csv: 60 rows; 2 series: 'a', 'b'\nno column of times" in out
    found = read("t-forecast.csv")
    assert [(row["time"], row["series"]) for row in found[3:5]] == [("64", "a"), ("61", "b")]
    table("new.csv", ["a", "b"], [*wave(60), 50, 51], [*2 * wave(60, seed=1), 100, None])
    assert "62 rows, 60 of them known before; 2 new steps" in forecast(capsys, "new.csv", "--model", "t.safetensors")
    assert read("t-forecast.csv")[0]["time"] == "63"


def test_rows_of_groups_without_times_are_counted_in_each(capsys):
    y, z = wave(40), wave(30, seed=1)
    rows = [(name, value) for n in range(40) for name, values in (("y", y), ("z", z)) for value in values[n : n + 1]]
    table("t.csv", ["which", "value"], *zip(*rows, strict=True))
    out = forecast(capsys, "t.csv", "--group", "which", *SMALL, "--no-backtest")
    assert "no gaps\n" in out
    assert [row["time"] for row in read("t-forecast.csv")] == ["41", "42", "43", "44", "31", "32", "33", "34"]


def test_a_long_table_has_a_series_in_each_group(capsys):
    y, z, when = wave(60), 5 * wave(50, seed=1), days(60)
    rows = [*zip(when, ["north"] * 60, y, strict=True), *zip(when[3:53], ["south"] * 50, z, strict=True)]
    rows = [rows[n] for n in np.random.default_rng(0).permutation(len(rows))]
    table("long.csv", ["day", "shop", "sold"], *zip(*rows, strict=True), sign=";")
    out = forecast(capsys, "long.csv", "--group", "shop", *SMALL)
    assert "110 rows; 2 series: series of 'shop' ('" in out and "rows were put in order of time\n" in out
    found = {row["series"]: row for row in reversed(read("long-forecast.csv"))}
    assert found["north"]["time"] == "2024-03-01" and found["south"]["time"] == "2024-02-23"
    order = list(dict.fromkeys(row[1] for row in rows))
    values = {name: {"north": y, "south": z}[name] for name in order}
    expected = LSTMForecaster(4, members=2, epochs=3).fit(values).forecast()
    assert float(found["south"]["median"]) == pytest.approx(expected["south"][0], rel=1e-6)
    table("new.csv", ["day", "shop", "sold"], days(2, "2024-02-23"), ["south"] * 2, [250, 251])
    assert "2 new steps" in forecast(capsys, "new.csv", "--model", "long.safetensors")
    later = {row["series"]: row for row in reversed(read("long-forecast.csv"))}
    assert later["north"] == found["north"] and later["south"]["time"] == "2024-02-25"
    table("other.csv", ["day", "shop", "sold"], days(2), ["west"] * 2, [250, 251])
    message = refused(capsys, "forecast", "other.csv", "--model", "long.safetensors")
    assert message.startswith("other.csv, line 2, column 'shop': expected a series of the model ('")


def test_what_is_known_ahead_stands_in_the_rows_to_come(capsys):
    rng = np.random.default_rng(0)
    price = rng.choice([1.0, 2.0], 128)
    sold = np.round(50 - 10 * price + 0.1 * rng.standard_normal(128), 3)
    table("shop.csv", ["day", "sold", "price"], days(123), [*sold[:120], None, None, None], price[:123])
    small = [*SMALL[:2], "--epochs", "40"]
    out = forecast(capsys, "shop.csv", "--future", "price", *small, "--no-backtest")
    assert "known ahead: 'price', 3 steps\n" in out
    medians = np.array([float(row["median"]) for row in read("shop-forecast.csv")])
    assert len(medians) == 3 and np.abs(medians - (50 - 10 * price[120:123])).max() < 3
    table("new.csv", ["day", "price", "sold"], days(8, "2024-04-30"), price[120:], [*sold[120:125], None, None, None])
    forecast(capsys, "new.csv", "--model", "shop.safetensors")
    found = read("shop-forecast.csv")
    medians = np.array([float(row["median"]) for row in found])
    assert found[0]["time"] == "2024-05-05" and np.abs(medians - (50 - 10 * price[125:])).max() < 3
    table("new.csv", ["day", "price", "sold"], days(1, "2024-05-05"), [1], [40])
    assert main(["forecast", "new.csv", "--model", "shop.safetensors"]) == 2
    assert "--horizon: expected at most 0 steps, of which the table has what is known ahead" in capsys.readouterr().err
    table("none.csv", ["day", "sold", "price"], days(60), sold[:60], price[:60])
    assert refused(capsys, "forecast", "none.csv", "--future", "price").startswith(
        "--future: expected rows of 1 steps to come, with 'price' and without 'sold', at the end of none.csv, got 0"
    )


def test_rows_at_the_end_without_a_value_are_told_and_foretold(capsys):
    table("t.csv", ["day", "y"], days(63), [*wave(60), None, None, None])
    assert "the last 3 rows have no value: what is foretold begins there\n" in forecast(capsys, "t.csv", *SMALL)
    assert read("t-forecast.csv")[0]["time"] == "2024-03-01"


@pytest.mark.parametrize("times", [range(40, 0, -1), [f"{1950 + n}.0" for n in range(40)], range(-40, 80, 3)])
def test_whole_numbers_that_count_are_times_however_they_are_written(times, capsys):
    table("t.csv", ["t", "y"], times, wave(40))
    out = forecast(capsys, "t.csv", *SMALL, "--no-backtest")
    assert out.startswith("t.csv: 40 rows of 'y'\ntimes in 't' (whole numbers), ")
    assert ("rows were put in order of time\n" in out) == (times[0] == 40)


def test_a_column_that_begins_late_is_foretold_and_one_without_a_name_is_not(capsys):
    y = wave(1200)
    header = ["", "day", "y", "late", "empty"]
    late = [None] * 1100 + [float(n) for n in range(100)]
    table("t.csv", header, range(1200), days(1200), y, late, [None] * 1200)
    out = forecast(capsys, "t.csv", *SMALL[:2], "--epochs", "1", "--horizon", "2", "--season", "1", "--no-backtest")
    assert "2 series: 'y', 'late'\n" in out and "gaps: 'late' 1,100\nleft out: 'column 1', 'empty'\n" in out


def test_what_has_no_logarithm_is_refused_by_a_model_of_logarithms(folder, capsys):
    n = np.arange(150)
    y = np.round(100 * np.exp(n / 30 + 0.3 * np.sin(n * np.pi / 6) + 0.05 * np.random.default_rng(0).random(150)), 2)
    table("t.csv", ["day", "y"], days(150), y)
    assert "growth by shares (logarithms)\n" in forecast(capsys, "t.csv", *SMALL, "--no-backtest")
    (folder / "new.csv").write_text("day,y\n2024-05-30,0\n")
    assert main(["forecast", "new.csv", "--model", "t.safetensors"]) == 2
    assert (
        "new.csv: expected numbers > 0 of 'y', whose logarithms the model foretells, got 0" in capsys.readouterr().err
    )


def test_names_in_any_letters_are_drawn(folder, capsys):
    table("t.csv", ["日", "$a_\\frac{", "_hidden"], days(40), wave(40), wave(40, seed=1))
    forecast(capsys, "t.csv", *SMALL, "--no-backtest")
    assert (folder / "t-forecast.png").exists()


def test_too_few_rows_for_a_back_test_are_enough_for_a_forecast(capsys):
    table("t.csv", ["day", "y"], days(6), wave(6))
    assert "no back-test, for want of rows: " in forecast(capsys, "t.csv", *SMALL)


def test_a_picture_needs_matplotlib_and_the_rest_does_not(folder, capsys, monkeypatch):
    monkeypatch.setattr(table_options.importlib.util, "find_spec", lambda name: None)
    table("t.csv", ["day", "y"], days(40), wave(40))
    out = forecast(capsys, "t.csv", *SMALL, "--no-backtest")
    assert out.endswith("wrote t.safetensors, t-forecast.csv\nno picture: pip install 'cylstm[plot]'\n")
    assert not (folder / "t-forecast.png").exists()


# --- bad input --------------------------------------------------------------------------------------------------------

GOOD = "\n".join(f"{day},{value}" for day, value in zip(days(30), wave(30), strict=True)) + "\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("day,y\n" + GOOD + "2024-01-31,x\n", [], "t.csv, line 32, column 'y': expected a number, got 'x'"),
        ("day,y\n" + GOOD + "2024-01-31,-1e302\n", [], "t.csv, line 32, column 'y': expected a number up to 1e+150,"),
        ("day,y\n" + GOOD + ",5\n", [], "t.csv, line 32, column 'day': expected a time, got an empty cell"),
        ("day,y\n" + GOOD + "2024-02-30,5\n", [], "t.csv, line 32, column 'day': expected a time as those before (yea"),
        ("day,y\n" + GOOD + "2024-01-30,5\n", [], "t.csv, line 32, column 'day': expected one row of each time; "
         "--group says which column names the series of a row, got that of line 31 again"),
        ("day,y\n" + GOOD + "2025-01-01,5\n", [], "t.csv, line 32: expected rows evenly apart, with few missing (most "
         "are 1 day, 0:00:00 apart), got one 337 days, 0:00:00 behind that of line 31"),
        ("day,y\n" + GOOD + "2024-01-31 11:00,5\n", [], "t.csv, line 32: expected rows evenly apart"),
        (GOOD, [], "t.csv, line 1: expected the names of the columns (add a first line with them), got '2024-01-01'"),
        ("2024-01-01,y\n" + GOOD[17:], [], "t.csv, line 1: expected the names of the columns"),
        ("day,y\nJan 1 2024,1\nJan 2 2024,2\n", [], "t.csv, column 'day': expected times in a form that is known, got"),
        ("day,y\n1.2.24,1\n2.2.24,2\n", [], "t.csv, column 'day': expected times in a form that is known, got '1.2.24"),
        ("Year,month,y\n2024,1,5\n2024,2,6\n", [], "t.csv: expected times in one column, got 'Year', 'month' (--targe"),
        ("day,y\n" + GOOD, ["--time-format", "year-month-day"], "--time-format: expected a format as %d/%m/%Y, got 'y"),
        ("day,y\n,kg\n" + GOOD, [], "t.csv, line 2, column 'y': expected a number, got 'kg'"),
        ("day,y\n" + GOOD + "Total,1500\n", [], "t.csv, line 32, column 'day': expected a time as those before"),
        ("day,y\n" + GOOD, ["--target", "z"], "--target: expected a column of t.csv ('day', 'y'), got 'z'"),
        ("day,y\n" + GOOD, ["--time", "when"], "--time: expected a column of t.csv ('day', 'y'), got 'when'"),
        ("day,y\n" + GOOD, ["--time", "y"], "--time: expected dates"),
        ("day,y\n" + GOOD, ["--target", "y", "--future", "y"], "--time, --group, --target, --future: expected differe"),
        ("day,y\n" + GOOD, ["--target", "day"], "t.csv, line 2, column 'day': expected a number, got '2024-01-01'"),
        ("day,y\n" + GOOD, ["--time-format", "%d/%m/%Y"], "--time-format: expected a column of such times, got none"),
        ("day,note\n2024-01-01,x\n", [], "t.csv: expected a column of numbers to foretell, got 'day', 'note'"),
        ("day,y\n2024-01-01,\n", ["--target", "y"], "t.csv: expected at least two rows of a series, got 1 of one row"),
        ("day,y,z\n2024-01-01,,1\n2024-01-02,,2\n", ["--target", "y"], "t.csv: expected at least one number of 'y', g"),
        ("day,y,z\n2024-01-01,1,1\n", ["--group", "z", "--target", "y", "--target", "day"], "--target: expected one c"),
        ("day,g,y\n2024-01-01,,1\n", ["--group", "g"], "t.csv, line 2, column 'g': expected the name of a series, got"),
        ("t,y\n2024-01-01T00:00Z,1\n2024-01-02T00:00,2\n", ["--time", "t"], "--time: expected dates"),
        ("day;y\n2024-01-01;1.500\n2024-01-02;2.500\n", [], "t.csv, line 2, column 'y': expected one sign befo"),
        ("day,y\n" + GOOD, ["--out", "absent/m.safetensors"], "--out: expected a file in an existing folder that can"),
        ("day,y\n" + GOOD, ["--out", "t.csv"], "--out: expected files that are not read, got t.csv, t.csv-forecast.c"),
        ("day,y\n" + GOOD, ["--horizon", "0"], "argument --horizon: expected an integer >= 1, got '0'"),
        ("day,y\n" + GOOD, ["--model", "absent"], "absent: No such file or directory"),
        ("day,y\n" + GOOD, ["--model", "t.csv"], "--out: expected files that are not read, got t.csv, "),
        ("day,y\n" + GOOD, ["--model", "m", "--season", "3"], "--season: expected none beside --model, which has its"),
        ("day,y\n" + GOOD, ["--model", "m", "--target", "y"], "--target: expected none beside --model, which has its"),
    ],
)  # fmt: skip
def test_bad_tables_and_options_are_refused(text, options, message, folder, capsys):
    (folder / "t.csv").write_text(text)
    assert refused(capsys, "forecast", "t.csv", *options).startswith(message)


@pytest.mark.parametrize(
    ("columns", "index"),
    [
        *[(changed, {}) for changed in (
            {"form": None}, {"form": ["year-month-day", "%Y", 3]}, {"target": None}, {"target": [3]},
            {"target": ["y", "y"]}, {"future": ["price"]}, {"time": None}, {"time": ["y"]}, {"group": ["day"]})],
        *[({}, changed) for changed in (
            {"step": "0.0s"}, {"step": "0mo"}, {"kind": "integers", "last": 5, "step": 1}, {"kind": "none", "last": 5,
            "step": 1})],
    ],
)  # fmt: skip
def test_a_forecaster_of_others_is_refused(columns, index, folder, capsys):
    (folder / "t.csv").write_text("day,y\n" + GOOD)
    forecast(capsys, "t.csv", "--members", "1", "--epochs", "1", "--no-backtest")
    with safe_open("t.safetensors", framework="numpy") as file:
        header = json.loads(file.metadata()["cylstm"])
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    header["columns"].update(columns)
    header["panel"]["indices"][0].update(index)
    save_file(arrays, "bad.safetensors", metadata={"cylstm": json.dumps(header)})
    assert refused(capsys, "forecast", "t.csv", "--model", "bad.safetensors") == (
        "bad.safetensors: expected a forecaster that `cylstm forecast` wrote, got another"
    )


def test_a_table_that_does_not_go_on_is_refused(folder, capsys):
    (folder / "t.csv").write_text("day,y\n" + GOOD)
    forecast(capsys, "t.csv", *SMALL, "--no-backtest")

    def message(text):
        (folder / "new.csv").write_text(text)
        return refused(capsys, "forecast", "new.csv", "--model", "t.safetensors")

    assert message("day,z\n2024-01-31,5\n") == "t.safetensors: expected a column of new.csv ('day', 'z'), got 'y'"
    assert message("day,y\n2024-01-31 06:00,5\n").startswith(
        "new.csv, line 2, column 'day': expected times a number of steps behind 2024-01-30T00:00:00, got 2024-01-31 06"
    )
    assert message("day,y\n31.01.2024,5\n").startswith("new.csv, line 2, column 'day': expected a time as those before")
    assert message("day,y\n2024-06-01,5\n").endswith("expected rows a day apart, with few missing, got a hole of 122")
    table("months.csv", ["day", "y"], [f"{2010 + n // 12}-{n % 12 + 1:02d}-01" for n in range(40)], wave(40))
    forecast(capsys, "months.csv", *SMALL, "--no-backtest")
    (folder / "new.csv").write_text("day,y\n2013-05-01,5\n2013-06-15,5\n")
    assert refused(capsys, "forecast", "new.csv", "--model", "months.safetensors") == (
        "new.csv, line 3, column 'day': expected times a number of steps behind 2013-04-01T00:00:00, got 2013-06-15 "
        "00:00:00"
    )
    LSTMForecaster(2, members=1, epochs=1).fit(wave(30)).save("other.safetensors")
    (folder / "new.csv").write_text("day,y\n2024-01-31,5\n")
    assert refused(capsys, "forecast", "new.csv", "--model", "other.safetensors") == (
        "other.safetensors: expected a forecaster that `cylstm forecast` wrote, got another"
    )
    assert refused(capsys, "forecast", "new.csv", "--model", "t.safetensors", "--horizon", "5").startswith(
        "--horizon: expected at most 4, for which t.safetensors was made, got 5"
    )
