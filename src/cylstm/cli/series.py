"""Series in tables: rows in order of time, and NaN where a row is missing."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

import numpy as np

from cylstm.cli.columns import Roles, listed
from cylstm.cli.tables import Table, Texts, shown
from cylstm.cli.times import Form, Step, expect_one_century, forms_of, numbered
from cylstm.forecast.frames import Index

__all__ = ["Series", "line_of", "read_series"]

EPOCH = datetime.datetime(1970, 1, 1)
LARGEST = 1e150  # of numbers; their squares are finite


@dataclass
class Series:
    """What a table has, by the names of series.

    values : (T,) with NaN in gaps. future : (T + n, C), None without such columns; n = ahead[name] rows, at the end,
    are of steps to come. indices : up to the last row with a value. form : in which times are written.
    rows : of the file. skipped : rows that were known before; before : of each series, how far these are from the last
    that was known, 0, -1, ..., their numbers, and their lines. told : in words, what was found.
    """

    values: dict[str, np.ndarray]
    future: dict[str, np.ndarray] | None
    ahead: dict[str, int]
    indices: dict[str, Index]
    form: Form | None
    step: Step | None
    rows: int
    skipped: int
    told: list[str]
    before: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=dict)


# --- rows -------------------------------------------------------------------------------------------------------------


def read_series(table: Table, roles: Roles, known: dict[str, Index] | None = None) -> Series:
    """The series of a table, each in order of time, with gaps where rows are missing. known : where series have to go
    on, by name: rows up to there are left out. Raises ValueError that names a line."""
    texts = [name for name in (roles.time, roles.group) if name]
    data = table.read(numbers=[*roles.targets, *roles.future], texts=texts)
    for name in (*roles.targets, *roles.future):
        large = np.abs(data[name]) > LARGEST
        if large.any():
            n = large.argmax()
            raise table.error(int(table.lines[n]), f"a number up to {LARGEST:g}", f"{data[name][n]:g}", name)
    if roles.group and "" in data[roles.group].values:
        raise table.error(line_of(table, data[roles.group], ""), "the name of a series", "an empty cell", roles.group)
    groups = data[roles.group] if roles.group else Texts([""], np.zeros(len(table.lines), np.int64))
    form, times, zone = roles.form, np.zeros(len(table.lines), np.int64), None
    for rows in np.split(np.argsort(groups.codes, kind="stable"), np.cumsum(np.bincount(groups.codes))[:-1]):
        times[rows] = np.arange(1, len(rows) + 1)
    if roles.time:
        last = next(iter(known.values())) if known else None
        form, times, zone = read_times(table, data[roles.time], roles, groups, last)
    order = np.lexsort((times, groups.codes))
    parts = np.split(order, np.flatnonzero(np.diff(groups.codes[order])) + 1)
    told = list(roles.told)
    if not all((np.diff(part) > 0).all() for part in parts):
        told.append("rows were put in order of time")
    expect_different(table, roles, times, parts, groups, form)
    if known:
        step = Step.from_text(next(iter(known.values())).step)
    else:
        step = Step("number", 1) if roles.time is None else Step.of([times[part] for part in parts], form.whole)
    if step is None:
        refuse_uneven(table, times, parts, form)
    columns = {name: data[name] for name in (*roles.targets, *roles.future)}
    found = Series({}, {} if roles.future else None, {}, {}, form, step, len(table.lines), 0, told)
    for part in parts:
        group = groups.values[groups.codes[part[0]]]
        names = [group] if roles.group else roles.targets
        if known is not None and names[0] not in known:
            line = int(table.lines[part[0]])
            raise table.error(line, f"a series of the model ({listed(known)})", repr(group), roles.group)
        where = (roles.time, known[names[0]] if known is not None else None, zone)
        add(found, table, {name: column[part] for name, column in columns.items()}, times[part], table.lines[part],
            names, roles, where)  # fmt: skip
    return found


def add(found, table, columns, times, lines, names, roles, where) -> None:
    """One series or, side by side, several with the same times, to those that were found."""
    time, index, zone = where
    step, Y = found.step, np.stack([columns[name] for name in roles.targets])
    if index is None:
        places = step.places(times)
    else:
        last = number_of(index.last_label, zone)
        if time is None and times[-1] < last:
            of = f" of {names[0]!r}" if roles.group else ""
            raise ValueError(f"{table.path}: expected the {last:,} rows{of} that the model knows, and more behind them "
                             f"(without a column of times rows are counted), got {len(times):,}")  # fmt: skip
        new = times > last
        back = step.places(np.concatenate([[last], times[~new]]))[1:]
        found.before.update((name, (back, row[~new], lines[~new])) for name, row in zip(names, Y, strict=True))
        places = step.places(np.concatenate([[last], times[new]]))[1:] - 1
        found.skipped += int((~new).sum())
        times, lines, Y = times[new], lines[new], Y[:, new]
        columns = {name: column[new] for name, column in columns.items()}
        expect_there(table, index, places, lines, [moment_of(n, zone) if index.kind == "column" else n for n in times])
    full = int(places[-1]) + 1 if len(places) else 0
    if full > 2 * len(places) + 1:
        raise table.error(lines[int(np.diff(places, prepend=-1).argmax())], f"rows {step} apart, with few missing",
                          f"a hole of {int(np.diff(places, prepend=-1).max()) - 1:,}", time)  # fmt: skip
    values = np.full((len(Y), full), np.nan)
    values[:, places] = Y
    there = np.flatnonzero(~np.isnan(values).all(axis=0))
    end = int(there[-1]) + 1 if len(there) else 0
    if index is None:
        for name, row in zip(names, values, strict=True):
            known = np.flatnonzero(~np.isnan(row))
            if not len(known):
                raise ValueError(f"{table.path}: expected at least one number of {name!r}, got none")
            behind = end - 1 - int(known[-1])
            if behind > len(known):
                line = int(lines[np.searchsorted(places, known[-1])])
                raise table.error(line, f"numbers of {name!r} nearly as far as of others (--target says what else to "
                                  "foretell)", f"its last one, {behind:,} steps before the end")  # fmt: skip
        index = index_of(found, times, time, zone, places, end)
    else:
        index = index.ahead(end)
    if roles.future:
        future = np.full((full, len(roles.future)), np.nan)
        future[places] = np.stack([columns[name] for name in roles.future], axis=1)
        holes = np.argwhere(np.isnan(future[end:]))
        if len(holes):
            ahead, column = holes[0]
            line = int(
                lines[np.searchsorted(places, end + ahead)]
            )  # of the row, or of the one behind it if it is missing
            raise table.error(line, "a number in all rows to come", "an empty cell" if end + ahead in places else
                              "a row that is missing before it", roles.future[column])  # fmt: skip
    for name, row in zip(names, values, strict=True):
        found.values[name], found.ahead[name], found.indices[name] = row[:end], full - end, index
        if roles.future:
            found.future[name] = future


def index_of(found, times, time, zone, places, end) -> Index:
    """That of the row with the last value, a number of steps from the first."""
    if time is None:
        return Index(last=end)
    if found.form.whole:
        return Index(None, "integers", int(times[0]) + (end - 1) * found.step.size, found.step.size, time)
    last = moment_of(times[0], zone)
    if end - 1 in places:  # as it is: the last day of a month is no number of months behind another's
        return Index(None, "column", moment_of(times[places == end - 1][0], zone).isoformat(), found.step.text, time)
    return Index(None, "column", last.isoformat(), found.step.text, time).ahead(end - 1)


def read_times(table, column: Texts, roles, groups, last) -> tuple[Form, np.ndarray, datetime.tzinfo | None]:
    """The form of a column's times, (N,) microseconds or numbers, and their zone."""
    forms = [roles.form] if roles.form else forms_of([text for text in column.values if text])
    if "" in column.values:
        raise table.error(line_of(table, column, ""), "a time", "an empty cell", roles.time)
    found = []
    for form in forms or [Form("year-month-day")]:
        moments = []
        for text in column.values:
            try:
                moments.append(form.read(text))
            except ValueError:
                raise table.error(line_of(table, column, text), f"a time as those before ({form})", shown(text),
                                  roles.time) from None  # fmt: skip
        try:
            expect_one_century(form.pattern, moments)
        except ValueError as error:
            raise ValueError(f"{table.path}, column {roles.time!r}: expected {error}") from None
        zone = None
        if not form.whole:
            try:
                moments, zone = numbered(moments)
            except ValueError:
                raise ValueError(f"{table.path}, column {roles.time!r}: expected a time zone in all times or in none, "
                                 "got some of both") from None  # fmt: skip
        found.append((form.like(column.values), np.array(moments)[column.codes], zone))
    if len(found) > 1:
        order = [np.lexsort((times, groups.codes)) for _, times, _ in found]
        cuts = np.flatnonzero(np.diff(groups.codes[order[0]])) + 1
        even = [each for each, rows in zip(found, order, strict=True)
                if Step.of([each[1][part] for part in np.split(rows, cuts)], whole=False)]  # fmt: skip
        if len(even) != 1:
            raise ValueError(f"{table.path}, column {roles.time!r}: expected dates of one meaning, got "
                             f"{shown(column.values[0])}, which is {' or '.join(str(form) for form, *_ in found)}; "
                             "--time-format '%d/%m/%Y' or '%m/%d/%Y' says which")  # fmt: skip
        found = even
        roles.told.append(f"dates are {found[0][0]}, in which rows are evenly apart")
    if last is not None and not found[0][0].whole:
        zone = last.last_label.tzinfo
        if (zone is None) != (found[0][2] is None):
            raise ValueError(f"{table.path}, column {roles.time!r}: expected times as the model has them, "
                             f"{last.last}, got {shown(column.values[0])}")  # fmt: skip
        if zone is not None:
            moved = zone.utcoffset(None) - found[0][2].utcoffset(None)
            return found[0][0], found[0][1] + round(moved.total_seconds() * 1e6), zone
    return found[0]


def moment_of(number, zone) -> datetime.datetime:
    return (EPOCH + datetime.timedelta(microseconds=int(number))).replace(tzinfo=zone)


def number_of(label, zone) -> int:
    """The reverse."""
    if isinstance(label, int):
        return label
    return (label.replace(tzinfo=None) - EPOCH) // datetime.timedelta(microseconds=1)


# --- errors -----------------------------------------------------------------------------------------------------------


def line_of(table, column: Texts, text) -> int:
    """The first that has a text in a column."""
    return int(table.lines[np.argmax(column.codes == column.values.index(text))])


def expect_different(table, roles, times, parts, groups, form) -> None:
    """ValueError for two rows of one time."""
    for part in parts:
        same = np.flatnonzero(np.diff(times[part]) == 0)
        if len(same):
            first, second = sorted(table.lines[part[same[0] : same[0] + 2]].tolist())
            way = "" if roles.group else "; --group says which column names the series of a row"
            if form is not None and "%H" in form.pattern:
                way += "; an hour that comes twice where summer time ends needs zones (2024-10-27T02:00+01:00), or UTC"
            of = f" of {groups.values[groups.codes[part[0]]]!r}" if roles.group else ""
            raise table.error(second, f"one row of each time{of}{way}", f"that of line {first} again", roles.time)


def refuse_uneven(table, times, parts, form) -> None:
    """ValueError: the first line whose distance from the row before is not the commonest."""
    pairs = [(np.diff(times[part]), table.lines[part]) for part in parts]
    sizes, counts = np.unique(np.concatenate([steps for steps, _ in pairs]), return_counts=True)
    if not len(sizes):
        raise ValueError(f"{table.path}: expected at least two rows of a series, got {len(parts)} of one row")
    common = sizes[counts.argmax()]
    way = "; where summer time changes the zone, write dates without one" if form.name == "with zone" else ""
    for steps, lines in pairs:
        odd = np.flatnonzero(steps != common)
        if len(odd):
            told = [str(size) if form.whole else str(datetime.timedelta(microseconds=int(size)))
                    for size in (steps[odd[0]], common)]  # fmt: skip
            evenly = f"rows evenly apart, with few missing (most are {told[1]} apart){way}"
            raise table.error(int(lines[odd[0] + 1]), evenly, f"one {told[0]} behind that of line {lines[odd[0]]}")
    raise ValueError(f"{table.path}: expected rows evenly apart")


def expect_there(table, index, places, lines, moments) -> None:
    """ValueError for a row that is where no step leads from the last one that is known."""
    odd = np.flatnonzero(places < 0)
    if not len(odd) and len(places) and places[-1] <= 2 * len(places):
        labels = index.labels(int(places[-1]) + 1)
        odd = [n for n, (place, moment) in enumerate(zip(places, moments, strict=True)) if labels[place] != moment]
    if len(odd):
        raise table.error(int(lines[odd[0]]), f"times a number of steps behind {index.last}", str(moments[odd[0]]),
                          index.name)  # fmt: skip
