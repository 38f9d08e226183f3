"""`cylstm forecast`: tables that would be read as something else than they are, and rows that a model has seen."""

import datetime

import numpy as np
import pytest
from commands import read, refused
from forecasts import days, forecast, table, wave

from cylstm.cli import main, pictures
from cylstm.cli.forecast import digits_of

pytestmark = pytest.mark.usefixtures("folder")
ONE = ["--members", "1", "--epochs", "1", "--horizon", "4", "--no-backtest"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- times ------------------------------------------------------------------------------------------------------------


def test_clocks_that_some_times_leave_out_are_kept(capsys):
    """As R writes hours: midnight is a date alone."""
    moments = [datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=n) for n in range(96)]
    times = [str(moment)[: 10 if moment.hour == 0 else 19] for moment in moments]
    table("t.csv", ["when", "y"], times, wave(96, 24))
    assert "an hour apart, 2024-01-01 00:00:00 to 2024-01-04 23:00:00\n" in forecast(capsys, "t.csv", *ONE)
    expected = [f"2024-01-05 0{n}:00:00" for n in range(4)]
    assert [row["time"] for row in read("t-forecast.csv")] == expected
    table("new.csv", ["when", "y"], ["2024-01-05"], [50])
    forecast(capsys, "new.csv", "--model", "t.safetensors")
    assert [row["time"] for row in read("t-forecast.csv")][:3] == expected[1:]


def test_years_of_two_digits_stay_in_order(capsys):
    months = [f"01.{n % 12 + 1:02}.{(1955 + n // 12) % 100:02}" for n in range(66 * 12)]
    table("t.csv", ["when", "y"], months, wave(792, 12))
    assert refused(capsys, "forecast", "t.csv", "--time-format", "%d.%m.%y") == (
        "t.csv, column 'when': expected years of four digits, or of one century that two can tell (1969 to 2068), got "
        "20 and 55, read as 2020 and 2055"
    )
    table("t.csv", ["when", "y"], months[600:], wave(192, 12))
    forecast(capsys, "t.csv", *ONE, "--time-format", "%d.%m.%y")
    assert read("t-forecast.csv")[0]["time"] == "01.01.21"


@pytest.mark.parametrize(
    ("times", "following", "said"),
    [
        ([f"{2022 + n // 12}{n % 12 + 1:02}" for n in range(36)], ["202501", "202502"], "(yearmonth), a month apart"),
        ([f"2024{n + 1:02}.0" for n in range(12)], ["202501", "202502"], "(yearmonth), a month apart"),
        ([f"2020-W{n:02}" for n in range(30, 54)], ["2021-W01", "2021-W02"], "(year-week), a week apart"),
        (["2024-05-06", "2024-05-07", "2024-05-08", "2024-05-09", "2024-05-10", "2024-05-13", "2024-05-14",
          "2024-05-15", "2024-05-16", "2024-05-17"], ["2024-05-20", "2024-05-21"], "a business day apart"),
    ],
    ids=["months", "pandas' months", "weeks", "two weeks"],
)  # fmt: skip
def test_times_of_other_forms_go_on(times, following, said, capsys):
    table("t.csv", ["period", "y"], times, wave(len(times)))
    assert said in forecast(capsys, "t.csv", *ONE[:-3], "--horizon", "2", "--season", "1", "--no-backtest")
    assert [row["time"] for row in read("t-forecast.csv")] == following


@pytest.mark.parametrize("times", [[f"2024{n:02}" for n in range(1, 53)], ["20241", "20242", "20243", "20244"]])
def test_numbers_with_weeks_or_quarters_do_not_count_on(times, capsys):
    table("t.csv", ["period", "y"], times, wave(len(times)))
    assert refused(capsys, "forecast", "t.csv").startswith(
        f"t.csv, column 'period': expected times in a form that is known (2024-W05, 2024Q1), got '{times[0]}', which "
    )


def test_an_hour_that_comes_twice_and_days_with_offsets_have_a_way_out(capsys):
    table("t.csv", ["t", "y"], [f"2024-10-27 0{n}:00" for n in (0, 1, 2, 2, 3)], wave(5))
    assert "; an hour that comes twice where summer time ends needs zones (2024" in refused(capsys, "forecast", "t.csv")
    offsets = ["+01:00"] * 10 + ["+02:00"] * 10
    table("t.csv", ["t", "y"], [f"{a}T00:00{b}" for a, b in zip(days(20), offsets, strict=True)], wave(20))
    assert "; where summer time changes the zone, write dates without one, got" in refused(capsys, "forecast", "t.csv")


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "first"),
    [
        (["Country", "1960", "1961"], "AB"),
        (["Shop", "2024-01", "2024-02"], "AB"),
        (["A", "2.5", "3"], "AB"),
        (["Shop", "2020 [YR2020]", "2021 [YR2021]"], "AB"),
        (["Shop", "Dec 2024", "Jan 2025"], "AB"),
    ],
)
def test_numbers_and_dates_are_no_names_of_series(header, first, capsys):
    table("t.csv", header, first, [1.5, 2.5], [2.5, 3.5])
    assert refused(capsys, "forecast", "t.csv").startswith(
        f"t.csv, line 1: expected names of columns to foretell, got '{header[1]}', '{header[2]}' (add a first line"
    )


def test_what_counts_rows_or_is_a_part_of_times_is_left_out(capsys):
    y = wave(40)
    weekdays = [day.weekday() for day in days(40)]
    table("t.csv", ["n", "date", "weekday", "sales", "ID"], range(40), days(40), weekdays, y, [7] * 40)
    out = forecast(capsys, "t.csv", *ONE)
    assert "40 rows of 'sales'\n" in out and "left out: 'n', 'weekday', 'ID' (whole numbers that count rows, or" in out
    assert len(read("t-forecast.csv")) == 4
    assert "3 series: 'n', 'weekday', 'sales'\n" in forecast(
        capsys, "t.csv", *ONE, "--target", "n", "--target", "weekday", "--target", "sales"
    )
    table("t.csv", ["Jahr", "Monat", "Umsatz"], [2020 + n // 12 for n in range(40)], [n % 12 + 1 for n in range(40)], y)
    assert refused(capsys, "forecast", "t.csv").startswith("t.csv: expected times in one column, got 'Jahr', 'Monat'")
    table("t.csv", ["day", "n"], days(40), range(40))
    assert refused(capsys, "forecast", "t.csv").endswith(
        "to foretell, got 'n' (whole numbers that count rows, or parts of times; --target takes them)"
    )


@pytest.mark.parametrize("form", ["{}%", "${}", "−{}", "1 {}", "1'{}"])
def test_cells_that_are_nearly_numbers_are_told(form, capsys):
    table("t.csv", ["day", "note", "y"], days(12), ["x1 y"] * 12, [form.format(n) for n in range(136, 148)])
    assert refused(capsys, "forecast", "t.csv") == (
        f"t.csv, line 2, column 'y': expected a number, got {form.format(136)!r}"
    )


# --- series that end, and what is known ahead -------------------------------------------------------------------------


def test_series_that_end_early_are_told_or_refused(capsys):
    table("t.csv", ["day", "a", "b"], days(60), wave(60), [*wave(40, seed=1), *[None] * 20])
    out = forecast(capsys, "t.csv", *ONE)
    assert "last numbers before those of others: 'b' 2024-02-09; foretold all from the last row on\n" in out
    table("u.csv", ["day", "a", "b"], days(60), wave(60), [*wave(25, seed=1), *[None] * 35])
    assert refused(capsys, "forecast", "u.csv") == (
        "u.csv, line 26: expected numbers of 'b' nearly as far as of others (--target says what else to foretell), got "
        "its last one, 35 steps before the end"
    )
    table("v.csv", ["day", "g", "y"], [*days(40), *days(30)], ["a"] * 40 + ["b"] * 30, [*wave(40), *wave(30, seed=1)])
    out = forecast(capsys, "v.csv", *ONE, "--group", "g")
    assert "last numbers before those of others: 'b' 2024-01-30; foretold each from its own end on\n" in out


def test_holes_in_what_is_known_ahead_are_told_or_refused(capsys):
    price = [float(n % 3) for n in range(64)]
    table("t.csv", ["day", "y", "price"], days(64), [*wave(60), *[None] * 4], [None, None, *price[2:]])
    assert "gaps of what is known ahead: 'price' 2\n" in forecast(capsys, "t.csv", *ONE, "--future", "price")
    table("u.csv", ["day", "y", "price"], days(64), [*wave(60), *[None] * 4], [*price[:62], None, 1.0])
    expected = "u.csv, line 64, column 'price': expected a number in all rows to come, got "
    assert refused(capsys, "forecast", "u.csv", "--future", "price") == expected + "an empty cell"
    some = [n for n in range(64) if n != 62]
    table("u.csv", ["day", "y", "price"], [days(64)[n] for n in some], [*wave(60), *[None] * 3], price[:63])
    assert refused(capsys, "forecast", "u.csv", "--future", "price") == expected + "a row that is missing before it"
    table("new.csv", ["day", "y", "price"], days(8, "2024-03-01"), [1, 2, 3, *[None] * 5], [None, *price[:7]])
    assert "gaps of what is known ahead: 'price' 1\n" in forecast(capsys, "new.csv", "--model", "t.safetensors")
    table("new.csv", ["day", "y", "price"], days(8, "2024-03-04"), [1, 2, 3, *[None] * 5], [*price[:7], None])
    assert refused(capsys, "forecast", "new.csv", "--model", "t.safetensors").startswith(
        "new.csv, line 9, column 'price'"
    )


# --- going on ---------------------------------------------------------------------------------------------------------


def test_numbers_in_rows_that_were_known_are_told(capsys):
    a, b = wave(50), 1000 * wave(50, seed=1)
    table("t.csv", ["day", "a", "b"], days(48), a[:48], [*b[:44], *[None] * 4])
    forecast(capsys, "t.csv", *ONE)
    table("t2.csv", ["day", "a", "b"], days(50), a, b)
    out = forecast(capsys, "t2.csv", "--model", "t.safetensors")
    assert "not used, for they stand in rows known before, but were missing or others then: 4 numbers of 'b'\n" in out
    assert "48 of them known before; 2 new steps\n" in out and "of 'a'" not in out


@pytest.mark.parametrize("group", [False, True])
def test_without_times_rows_that_are_known_are_counted(group, capsys):
    y = wave(43)
    options = ["--group", "g"] if group else []

    def rows(values):
        return (["g", "y"], ["x"] * len(values), values) if group else (["y"], values)

    table("t.csv", *rows(y[:40]))
    forecast(capsys, "t.csv", *ONE, *options)
    table("grown.csv", *rows(y))
    out = forecast(capsys, "grown.csv", "--model", "t.safetensors", "--out", "later.safetensors")
    assert "43 rows, 40 of them known before; 3 new steps\nits forecasts of these:" in out
    assert read("later-forecast.csv")[0]["time"] == "44"
    table("short.csv", *rows(y[40:]))
    of = " of 'x'" if group else ""
    assert refused(capsys, "forecast", "short.csv", "--model", "t.safetensors").startswith(
        f"short.csv: expected the 40 rows{of} that the model knows, and more behind them"
    )
    table("other.csv", *rows(np.append(y[:39], y[:4] + 1)))
    assert refused(capsys, "forecast", "other.csv", "--model", "t.safetensors") == (
        f"other.csv, line 41, column 'y': expected {y[39]:g}, which the model knows here (without "
        f"times a file has all rows of before), got {y[0] + 1:g}"
    )


# --- what is written --------------------------------------------------------------------------------------------------


def test_numbers_far_from_0_have_the_digits_that_tell_them_apart(capsys):
    table("t.csv", ["day", "y"], days(60), [f"{1e12 + value:.3f}" for value in wave(60)])
    forecast(capsys, "t.csv", *ONE)
    found = [float(row["median"]) - 1e12 for row in read("t-forecast.csv")]
    assert all(20 < value < 80 and value % 1 for value in found)
    assert [digits_of(np.array(rows)) for rows in ([1.0, 2], [1e6, 1e6 + 1], [3.0, 3], [0.0, 0], [1e20, 1e20])] == [
        8, 14, 17, 17, 17]  # fmt: skip


def test_each_panel_has_its_own_times(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(pictures, "write", lambda figure, path: seen.append(figure))
    table("t.csv", ["day", "a", "b"], days(40), wave(40), wave(40, seed=1))
    forecast(capsys, "t.csv", *ONE)
    seen[0].draw_without_rendering()
    for axis in seen[0].axes:
        labels = [label for label in axis.get_xticklabels() if label.get_visible() and label.get_text()]
        assert len(labels) > 1 and {label.get_rotation() for label in labels} == {30}


def test_versions_in_names_of_models_stay(folder, capsys):
    table("t.csv", ["day", "y"], days(40), wave(40))
    assert "wrote sales.v1, sales.v1-forecast.csv, " in forecast(capsys, "t.csv", *ONE, "--out", "sales.v1")
    forecast(capsys, "t.csv", *ONE, "--out", "sales.v2.safetensors")
    assert (folder / "sales.v1-forecast.csv").exists() and (folder / "sales.v2-forecast.csv").exists()


def test_short_tables_say_how_many_rows_they_need(capsys):
    table("t.csv", ["day", "y"], days(2), [1.5, 2])
    assert main(["forecast", "t.csv"]) == 2
    assert "expected at least 3 rows, with two numbers, got 2 with 2" in capsys.readouterr().err
    table("t.csv", ["day", "y"], days(5), [1.5, 2, 1, 3, 2])
    assert main(["forecast", "t.csv"]) == 2
    message = capsys.readouterr().err
    assert ": --horizon: expected at most 3, " in message and "got 12 (as --horizon has it by default)\n" in message
    assert main(["forecast", "t.csv", "--horizon", "9"]) == 2
    assert "to learn from, got 9\n" in capsys.readouterr().err
