"""Tables in CSV files, and times in them: what is read, and what is refused by its line and column."""

import csv
import datetime
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cylstm.cli import tables
from cylstm.cli.columns import chosen
from cylstm.cli.series import read_series
from cylstm.cli.tables import Table
from cylstm.cli.times import Form, Step, forms_of, numbered

NAN = np.nan


def write(folder, text, name="t.csv"):
    content = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(content)
    return str(folder / name)


def numbers(folder, text, column="b", **options):
    return Table(write(folder, text), **options).read(numbers=[column])[column].tolist()


def refused(folder, text, column=None, **options):
    """What an error says behind the file's name."""
    path = write(folder, text)
    with pytest.raises(ValueError) as error:
        Table(path, **options).read(numbers=[column] if column else ["b"])
    assert str(error.value).startswith(path)
    return str(error.value).removeprefix(path).lstrip(":, ")


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2.5\n3,-4e2\n",
        "\ufeffa,b\r\n1,2.5\r\n3,-4e2\r\n",
        "a,b\r1,2.5\r3,-4e2",
        "a;b\n1;2.5\n3;-400,\n"[:-2] + "\n",
        "a;b\n1;2,5\n3;-400\n",
        "a\tb\n1\t2,5\n3\t-4e2\n",
        "a\tb\n1\t2.5\n3\t-400\n",
        "a|b\n1|2.5\n3|-400\n",
        'sep=;\na;b\n"1";"2,5"\n3;-400\n',
        'a, "b"\n1, 2.5\n3, "-400"\n\n\n',
        "a,b,\n1,2.5,\n3,-400,\n,,\n,,\n",
        "a , b\n1, 2.5 \n3,-400\n",
        'a,b\n"x,\ny",2.5\n"x;""y",-400\n',
    ],
)
def test_a_table_is_read_however_it_is_written(text, tmp_path):
    table = Table(write(tmp_path, text))
    assert table.names == ["a", "b"] and table.kind("b") == "numbers"
    assert table.read(numbers=["b"])["b"].tolist() == [2.5, -400]


def test_texts_are_the_different_ones_and_their_places(tmp_path):
    table = Table(write(tmp_path, 'a,b\n"x, y",1\n z ,2\n"x, y",3\n,4\n"two\nlines",5\nz,6\n'))
    found = table.read(texts=["a"], numbers=["b"])
    assert found["a"].values == ["x, y", "z", "", "two\nlines"] and found["a"].codes.tolist() == [0, 1, 0, 2, 3, 1]
    assert table.lines.tolist() == [2, 3, 4, 5, 6, 8] and found["b"].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("missing", ["", " ", "NA", "n/a", "NaN", "nan", "null", "None", "#N/A", "<NA>", "."])
def test_what_is_missing_is_nan(missing, tmp_path):
    assert np.array_equal(numbers(tmp_path, f"a,b\n1,2\n1,{missing}\n1,3\n"), [2, NAN, 3], equal_nan=True)


@pytest.mark.parametrize(
    "cell",
    ["abc", "1_000", "1 000", "1 000", "inf", "-Infinity", "0x10", "5%", "$5", "−5", "1.2.3", "１２", "--1", "1e",
     "2024-01-02", "True", "1/2", "'5"],
)  # fmt: skip
def test_numbers_that_are_none_are_refused_by_line_and_column(cell, tmp_path):
    assert refused(tmp_path, f"a,b\n1,2\n\n1,{cell}\n") == f"line 4, column 'b': expected a number, got {cell!r}"


def test_a_number_beyond_all_floats_is_refused(tmp_path):
    assert refused(tmp_path, "a,b\n1,2\n1,1e999\n") == "line 3, column 'b': expected a finite number, got 1e999"


def test_a_number_in_a_late_piece_is_refused_by_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CELLS", 100)
    rows = "".join(f"{n},{n / 2}\n" for n in range(3000))
    assert refused(tmp_path, "a,b\n" + rows + "1,x\n") == "line 3002, column 'b': expected a number, got 'x'"
    assert numbers(tmp_path, "a,b\n" + rows) == [n / 2 for n in range(3000)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected names of columns and rows, got an empty file"),
        (" \n\n", "expected names of columns and rows, got an empty file"),
        ("\ufeff", "expected names of columns and rows, got an empty file"),
        ("a,b\n", "expected rows behind the names of columns, got none"),
        ("a,b\n,\n", "expected rows behind the names of columns, got none"),
        ("1,2\n3,4\n", "line 1: expected the names of the columns (add a first line with them), got '1', '2'"),
        ("2024-01-01,2\n2024-01-02,4\n", "line 1: expected the names of the columns (add a first line with them), "
         "got '2024-01-01', '2'"),
        ("a,b,a\n1,2,3\n", "line 1: expected different names of columns, got 'a' twice"),
        ("a,b\n1,2\n1,2,3\n", "line 3: expected 2 cells divided by commas, as in line 1, got 3"),
        ("a,b\n1,2\n1\n", "line 3: expected 2 cells divided by commas, as in line 1, got 1"),
        ("a,b\n1,2\n1,5,7\n", "line 3: expected 2 cells divided by commas, as in line 1, got 3"),
        ('a,b\n1,2\n3,"4\n5,6\n', "line 3: expected a row of CSV, got what is none (unexpected end of data)"),
        ('a,b\n1,2\n3,"4"5\n', "line 3: expected a row of CSV, got what is none (',' expected after '\"')"),
        ("b\n1\n\n3\n", "line 3: expected a value ('NaN' for a missing one), got an empty line"),
        (b"a,b\n1,caf\xe9\n", "line 2: expected UTF-8, got byte 0xe9 at offset 9 (save it as CSV UTF-8)"),
        ("# made\na,b\n1,2\n", "line 2: expected 1 cells divided by commas, as in line 1, got 2 (a comment? there are "
         "none in CSV)"),
        ("a,b\n1,2\n# end\n", "line 3: expected 2 cells divided by commas, as in line 1, got 1 (a comment? there are "
         "none in CSV)"),
        (b"a,b\n1,2\n1,\x00\n", "expected a CSV file of text, got one with zero bytes"),
        ("a,b\n1,2\n".encode("utf-16"), "expected a CSV file in UTF-8, got UTF-16 (save it as CSV, UTF-8)"),
        (b"PK\x03\x04 and so on", "expected a CSV file in UTF-8, got an Excel or zip file (save it as CSV, UTF-8)"),
        ("a,b;c\n1,2;3\n", "expected cells divided by one sign, got lines that are divided by commas and by semicolons "
         "alike"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused(text, message, tmp_path):
    assert refused(tmp_path, text) == message


UNCLEAR = "line {}, column 'b': expected one sign before decimals, and none between thousands, got '{}'; --decimal"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a;b\n1;1,5\n1;2.5\n", "expected one sign before decimals, and none between thousands, got '1,5' and '2.5'"),
        ("a;b\n1;1.234\n1;2.500\n", UNCLEAR.format(2, "1.234")),
        ("a\tb\n1\t1,234\n1\t999\n", UNCLEAR.format(2, "1,234")),
        ("a\tb\n1\t900\n1\t1.122\n", UNCLEAR.format(3, "1.122")),
        ("a|b\n1|900\n1|1.122\n", UNCLEAR.format(3, "1.122")),
        ("a;b\n8.15;900\n9.30;1.122\n", UNCLEAR.format(3, "1.122")),
        ("a;b\n8,15;900\n9,30;1,122\n", UNCLEAR.format(3, "1,122")),
        ("a;b\n" + "8.15;900\n" * 1200 + "9.30;1.122\n", UNCLEAR.format(1202, "1.122")),
        (
            "a;b\n" + "1;999\n" * 1200 + "1;1.001\n",
            "line 1202, column 'b': expected one sign before decimals, and none be",
        ),
        ("a;b\n1;1,234\n1;999\n", UNCLEAR.format(2, "1,234")),
        ("a;b\n1;1.234,5\n1;0,5\n", "line 2, column 'b': expected a number, got '1.234,5'"),
        ('a,b\n1,"1,5"\n1,"2,5"\n', "line 2, column 'b': expected a number, got '1,5'"),
    ],
)
def test_decimals_that_may_be_thousands_are_refused(text, message, tmp_path):
    assert refused(tmp_path, text).startswith(message)


def test_decimals_are_read_as_they_are_said_to_be(tmp_path):
    text = "a;b\n1;1.234\n1;2.500\n"
    assert numbers(tmp_path, text, decimal="point") == [1.234, 2.5]
    assert refused(tmp_path, text, decimal="comma").startswith(
        "line 2, column 'b': expected a number (--decimal point reads such ones), got '1.234'"
    )
    assert numbers(tmp_path, "a;b\n1;1,234\n1;7\n", decimal="comma") == [1.234, 7]
    assert numbers(tmp_path, "a;b\n" + "1;2\n" * 1200 + "1;2.5\n1;1.125\n")[1200:] == [2.5, 1.125]
    assert numbers(tmp_path, "a\tb\n1\t1.234\n2\t0.5\n") == [1.234, 0.5]
    assert numbers(tmp_path, "a\tb\n1\t1.234\n2\t1500\n") == [1.234, 1500]
    assert numbers(tmp_path, "a\tb\n1\t1.234\n", decimal="point") == [1.234]
    late = "a;b\n" + "1;2\n" * 1200 + "1;2,5\n"
    assert refused(tmp_path, late) == (
        "line 1202, column 'b': expected a number (--decimal comma reads such ones), got '2,5'"
    )


def test_a_column_without_a_name_has_its_place_for_one(tmp_path):
    table = Table(write(tmp_path, ",b,\n7,1,\n8,2,x\n"))
    assert table.names == ["column 1", "b", "column 3"] and table.unnamed == {"column 1", "column 3"}


def test_short_rows_are_filled_where_that_will_do(tmp_path):
    path = write(tmp_path, "a,b,c\n1,2,3\n1\n1,2,3,,\n")
    assert np.array_equal(Table(path, ragged=True).read(numbers=["c"])["c"], [3, NAN, 3], equal_nan=True)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(st.sampled_from(",;\t"), st.lists(st.tuples(st.floats(-1e9, 1e9), TEXT), min_size=1, max_size=12), st.booleans())
def test_what_is_written_is_read(tmp_path, delimiter, rows, quoted):
    with open(tmp_path / "t.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
        writer.writerow(["a", "b"])
        writer.writerows((repr(number), f"x{text}") for number, text in rows)
    found = Table(tmp_path / "t.csv", decimal="point").read(numbers=["a"], texts=["b"])
    assert found["a"].tolist() == [number for number, _ in rows]
    assert [found["b"].values[code] for code in found["b"].codes] == [f"x{text}".strip() for _, text in rows]


@FEW
@given(st.data())
def test_rows_find_their_places(tmp_path, data):
    """Of series that begin and end on different days, in any order, with rows and cells missing."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    minutes, expected, lines = data.draw(st.sampled_from([1, 15, 1440])), {}, []
    for name in ("one", "other"):
        start, count = rng.integers(0, 50), rng.integers(12, 30)
        values = rng.standard_normal(count).round(3)
        there = rng.random(count) < 0.85
        there[[0, -1]] = there[2:9] = True
        expected[name] = np.where(there, values, NAN)
        for n in np.flatnonzero(there):
            moment = datetime.datetime(2024, 2, 27) + datetime.timedelta(minutes=int(minutes * (start + n)))
            lines.append(f"{moment:%d.%m.%Y %H:%M};{name};{values[n]}")
        lines.append(f"{moment + datetime.timedelta(minutes=minutes):%d.%m.%Y %H:%M};{name};")
    rng.shuffle(lines)
    table = Table(write(tmp_path, "\n".join(["when;who;what", *lines])))
    args = SimpleNamespace(time=None, time_format=None, group="who", target=[], future=[])
    found = read_series(table, chosen(table, args))
    assert set(found.values) == set(expected) and found.ahead == {"one": 1, "other": 1}
    for name, values in expected.items():
        assert np.array_equal(found.values[name], values, equal_nan=True)
    assert found.step.text == f"{minutes * 60.0}s"


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment", "name"),
    [
        ("2024-01-31", (2024, 1, 31), "year-month-day"),
        ("2024/01/31", (2024, 1, 31), "year-month-day"),
        ("2024-01-31 13:05", (2024, 1, 31, 13, 5), "year-month-day"),
        ("2024-01-31T13:05:09.250000", (2024, 1, 31, 13, 5, 9, 250_000), "year-month-day"),
        ("31.01.2024", (2024, 1, 31), "day-month-year"),
        ("31/01/2024 07:00:00", (2024, 1, 31, 7), "day-month-year"),
        ("01/31/2024", (2024, 1, 31), "month-day-year"),
        ("20240131", (2024, 1, 31), "yearmonthday"),
        ("2024-02", (2024, 2, 1), "year-month"),
        ("2024Q3", (2024, 7, 1), "year-quarter"),
        ("2024-Q4", (2024, 10, 1), "year-quarter"),
    ],
)
def test_times_are_read_and_written_alike(text, moment, name):
    form = forms_of([text])[0]
    assert form.name == name and form.read(text) == datetime.datetime(*moment) and form.write(form.read(text)) == text


@pytest.mark.parametrize("text", ["abc", "12.5", "2024-13-01", "2024-02-30", "01.02.24", "2024-01-31 25:00", "1/2", ""])
def test_other_texts_are_no_times(text):
    assert [form for form in forms_of([text]) if not form.whole] == []


def test_a_date_may_have_two_meanings():
    assert [form.name for form in forms_of(["03/04/2024"])] == ["day-month-year", "month-day-year"]
    assert [form.name for form in forms_of(["03/04/2024", "03/13/2024"])] == ["month-day-year"]
    assert [form.name for form in forms_of(["03.04.2024"])] == ["day-month-year"]


def test_times_with_zones_stay_in_theirs_or_become_utc():
    form = forms_of(["2024-01-31T13:00+01:00"])[0]
    assert form.name == "with zone"
    times, zone = numbered([form.read("2024-01-31T13:00+01:00"), form.read("2024-01-31T14:00+01:00")])
    assert np.diff(times).tolist() == [3_600_000_000] and str(zone) == "UTC+01:00"
    times, zone = numbered([form.read("2024-03-31T01:00+01:00"), form.read("2024-03-31T03:00+02:00")])
    assert np.diff(times).tolist() == [3_600_000_000] and str(zone) == "UTC"
    with pytest.raises(ValueError):
        numbered([form.read("2024-03-31T01:00Z"), datetime.datetime(2024, 3, 31)])


def steps(*texts):
    form = forms_of(texts)[0]
    if form.whole:
        return Step.of([np.array([form.read(text) for text in texts])], whole=True)
    return Step.of([numbered([form.read(text) for text in texts])[0]], whole=False)


@pytest.mark.parametrize(
    ("texts", "text", "said"),
    [
        (("2024-01-01", "2024-01-02", "2024-01-03", "2024-01-05"), "86400.0s", "a day"),
        (("2024-01-01", "2024-01-08", "2024-01-22", "2024-01-29"), "604800.0s", "a week"),
        (("2024-01-01", "2024-02-01", "2024-03-01", "2024-06-01", "2024-07-01"), "1mo", "a month"),
        (("2023-11-30", "2023-12-31", "2024-01-31", "2024-02-29"), "1mo end", "a month's end"),
        (("2020Q1", "2020Q2", "2020Q4", "2021Q1"), "3mo", "a quarter"),
        (("2020-12-31", "2021-12-31", "2022-12-31"), "12mo end", "a year's end"),
        (("2024-01-01 00:00", "2024-01-01 00:15", "2024-01-01 00:30"), "900.0s", "15 minutes"),
        (("2024-01-01 00:00", "2024-01-01 01:00", "2024-01-01 02:00"), "3600.0s", "an hour"),
        (("2024-01-04", "2024-01-05", "2024-01-08", "2024-01-10", "2024-01-11", "2024-01-12", "2024-01-15"), "1b",
         "a business day"),
        (("1990", "1992", "1994", "1998"), 2, "2"),
        (("5", "6", "7"), 1, "1"),
    ],
)  # fmt: skip
def test_the_step_is_found_beside_holes(texts, text, said):
    step = steps(*texts)
    assert step.text == text and str(step) == said and Step.from_text(text) == step


@pytest.mark.parametrize(
    "texts",
    [
        ("2024-01-01", "2024-01-02", "2024-01-09", "2024-01-20", "2024-02-13"),  # more is missing than is there
        ("2024-01-01", "2024-01-08", "2024-01-16", "2024-01-22"),
        ("2024-01-01 00:00:00", "2024-01-01 00:10:01", "2024-01-01 00:20:00"),
        ("1990", "1991", "2050"),
        ("2024-01-01",),
    ],
)
def test_times_that_are_uneven_have_no_step(texts):
    assert steps(*texts) is None


def test_places_are_counted_in_steps():
    times = numbered([datetime.datetime(2024, month, 1) for month in (1, 3, 4, 12)])[0]
    assert Step("months", 1).places(times).tolist() == [0, 2, 3, 11]
    assert Form("%d.%m.%y").read("31.01.24") == datetime.datetime(2024, 1, 31)
