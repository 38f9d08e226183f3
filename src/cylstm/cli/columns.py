"""Which column of a table is what, as options say or as it looks: times, groups, numbers to foretell."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from cylstm.cli.tables import NUMBER, Table, shown
from cylstm.cli.times import Form, Step, forms_of, look_like_parts, look_like_times

__all__ = ["Roles", "chosen", "listed"]

PARTS = {  # of times
    *("year", "quarter", "month", "week", "weekday", "dayofweek", "day_of_week", "dayofyear", "day_of_year", "day"),
    *("hour", "minute", "second", "date", "time", "datetime", "timestamp", "ts", "epoch"),
    *("jahr", "quartal", "monat", "kw", "woche", "wochentag", "tag", "datum", "zeit", "uhrzeit", "uhr", "stunde"),
    *("année", "trimestre", "mois", "semaine", "jour", "heure"),
}
IDS = {"id", "index", "nr", "row"}
YEAR = re.compile(r"(?<!\d)(18|19|20|21)\d\d(?!\d)", re.ASCII)
NAMED = 5  # columns, or series, in a line


@dataclass
class Roles:
    """Which columns are what. time, group : None for none. form : of times; None where all rows have to say.
    told : in words, what was found and what is left out."""

    targets: list[str]
    future: list[str] = field(default_factory=list)
    time: str | None = None
    group: str | None = None
    form: Form | None = None
    told: list[str] = field(default_factory=list)


def listed(names) -> str:
    """Some names, the first of them where they are many."""
    names = [repr(name) for name in names]
    return ", ".join(names[:NAMED]) + (f", ... ({len(names)})" if len(names) > NAMED else "")


def chosen(table: Table, args) -> Roles:
    """The columns that the options name, and the others by what they have in them. Raises ValueError."""
    for option in ("time", "group"):
        if getattr(args, option) is not None:
            table.expect(f"--{option}", getattr(args, option))
    targets, future = ([table.expect(f"--{option}", name) for name in getattr(args, option)]
                       for option in ("target", "future"))  # fmt: skip
    named = [*targets, *future, *filter(None, (args.time, args.group))]
    for name, count in Counter(named).items():
        if count > 1:
            raise ValueError(f"--time, --group, --target, --future: expected different columns, got {name!r} twice")
    roles = Roles(targets, future, args.time, args.group)
    find_time(table, roles, args.time_format, [name for name in table.names if name not in named])
    rest, numbering = [name for name in table.names if name not in (*named, roles.time)], []
    if not targets:
        roles.targets, numbering = by_default(table, roles, rest)
    if roles.group and len(roles.targets) > 1:
        raise ValueError("--target: expected one column beside --group, whose values are those of each series, "
                         f"got {listed(roles.targets)}")  # fmt: skip
    left = [name for name in rest if name not in (*roles.targets, *numbering)]
    if left:
        roles.told.append(f"left out: {listed(left)}")
    return roles


def by_default(table, roles, rest) -> tuple[list[str], list[str]]:
    """Columns of numbers to foretell, and those that number the rows or are parts of times. Raises ValueError."""
    found = [name for name in rest if table.kind(name) == "numbers" and name not in table.unnamed]
    parts = [name for name in found if name.lower() in PARTS]
    if roles.time is None and parts:
        raise ValueError(f"{table.path}: expected times in one column, got {listed(parts)} (--target names what is "
                         "to be foretold; without times, rows are in the order of the file)")  # fmt: skip
    whole = [name for name in found if reads(Form("whole number"), table.cells(name))]
    left = [name for name in whole if name in parts or name.lower() in IDS or numbers_rows(table, name)]
    way = f"{listed(left)} (whole numbers that count rows, or parts of times; --target takes them)"
    found = [name for name in found if name not in left]
    odd = [name for name in found if NUMBER.fullmatch(name) or forms_of([name])]
    if roles.time is None and len(found) > 1 and all(map(YEAR.search, found)):  # 2020 [YR2020], Jan 2024
        odd = found
    if odd:
        raise table.error(table.line, "names of columns to foretell", f"{listed(odd)} (add a first line with names or, "
                          "if times stand in it, turn the table: a row of each time; --target takes columns by such "
                          "names)")  # fmt: skip
    if left and found:
        roles.told.append(f"left out: {way}")
    elif not found:
        nearly = [name for name in rest if nearly_numbers(table.cells(name))]
        if nearly:  # reading it as numbers says which cell is none, and where
            table.read(numbers=nearly[:1])
        raise ValueError(f"{table.path}: expected a column of numbers to foretell, got "
                         f"{way if left else listed(table.names)}")  # fmt: skip
    return found, left


def nearly_numbers(cells) -> bool:
    """Whether most of some texts have more digits than other signs, and are no times."""
    digits = [2 * len(re.findall(r"\d", cell)) >= len(cell) for cell in cells]
    return 2 * sum(digits) > len(cells) and not forms_of(cells, most=True)


def numbers_rows(table, column) -> bool:
    """Whether whole numbers are those of the rows, each once, in any order."""
    cells = table.cells(column)
    numbers = sorted(map(Form("whole number").read, cells))
    return len(cells) == len(table.sample) > 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def find_time(table, roles, written, free) -> None:
    """Put the time column and its form into the roles. free : columns that no option names."""
    if written and "%" not in written:
        raise ValueError(f"--time-format: expected a format as %d/%m/%Y, got {written!r}")
    if roles.time is not None:
        cells = table.cells(roles.time)
        forms = [Form(written).like("")] if written else forms_of(cells, most=True)
        if not forms:
            raise ValueError("--time: expected dates (2024-01-31, 31.01.2024, 2024-01, 2024Q1, 2024-01-31 13:00), or "
                             f"whole numbers, in {roles.time!r}, got {shown((cells or [''])[0])}; --time-format says "
                             "how others are written")  # fmt: skip
    else:
        forms = []
        for name in free:
            cells = table.cells(name)
            if written:
                found = [Form(written).like("")] if reads(Form(written), cells) else []
            else:
                found = [form for form in forms_of(cells, most=True) if not form.whole]
            if found and forms:
                roles.told.append(f"{name!r} has times, too; {roles.time!r} is taken (--time says which)")
            elif found:
                roles.time, forms = name, found
        if written and not forms:
            raise ValueError(f"--time-format: expected a column of such times, got none in {listed(free)}")
        odd = [name for name in free if table.kind(name) == "text" and look_like_times(table.cells(name))]
        if odd and not forms:
            raise ValueError(
                f"{table.path}, column {odd[0]!r}: expected times in a form that is known, got "
                f"{shown(table.cells(odd[0])[0])}; --time-format says how they are written, as '%d %b %Y'"
            )
        if not forms and len(free) > (0 if roles.targets else 1) and counts_on(table, free[0], roles.group):
            roles.time, forms = free[0], [Form("whole number")]
    if forms and forms[0].whole and look_like_parts(table.cells(roles.time)):
        raise ValueError(f"{table.path}, column {roles.time!r}: expected times in a form that is known (2024-W05, "
                         f"2024Q1), got {shown(table.cells(roles.time)[0])}, which may have a week or a quarter behind "
                         "its year")  # fmt: skip
    if forms and reads(forms[0], [roles.time]):
        raise table.error(table.line, "the names of the columns (add a first line with them)", shown(roles.time))
    roles.form = forms[0] if len(forms) == 1 else None


def reads(form, cells) -> bool:
    """Whether all of these, and at least one, are times in a form."""
    try:
        return bool([form.read(cell) for cell in cells])
    except ValueError:
        return False


def counts_on(table, column, group) -> bool:
    """Whether a column of whole numbers, as the years, rises or falls evenly from row to row (of a group, where there
    is one), but for holes."""
    if not reads(Form("whole number"), table.cells(column)) or len(table.cells(column)) < len(table.sample):
        return False
    place, several = table.names.index(column), {}
    for row in table.sample:
        number = Form("whole number").read(row[place].strip())
        several.setdefault(group and row[table.names.index(group)], []).append(number)
    several = [np.array(numbers) for numbers in several.values()]
    if all((np.diff(numbers) < 0).all() for numbers in several):  # the newest first
        several = [numbers[::-1] for numbers in several]
    return all((np.diff(numbers) > 0).all() for numbers in several) and Step.of(several, whole=True) is not None
