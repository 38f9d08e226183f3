"""Labelled sequences in tables: one in each row, or the steps of each in rows one below the other."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from cylstm.cli.classifier import Columns
from cylstm.cli.series import line_of, listed
from cylstm.cli.tables import MISSING, NUMBER, Table, Texts, shown

__all__ = ["Sequences", "columns_of", "expect_same", "read_sequences"]

COUNTED = 10  # sequences whose whole numbers rise one by one, without being evenly apart, are hardly so by chance


@dataclass
class Sequences:
    """rows : arrays (T_n, F), float64. lines : where each begins. labels : None where the table has none.
    groups : their names, None where each has a row of its own."""

    rows: list[np.ndarray]
    lines: np.ndarray
    labels: list[str] | None
    groups: list[str] | None


def columns_of(table: Table, args) -> tuple[Columns, list[str]]:
    """The columns that the options name, and the others by what they have in them; and what is left out besides.
    Raises ValueError."""
    named = [("--label", args.label), ("--group", args.group), *(("--leave-out", name) for name in args.leave_out)]
    named = [(option, table.expect(option, name)) for option, name in named if name is not None]
    for name, count in Counter(name for _, name in named).items():
        if count > 1:
            raise ValueError(f"--label, --group, --leave-out: expected different columns, got {name!r} twice")
    rest = [name for name in table.names if name not in {name for _, name in named}]
    texts = [name for name in rest if table.kind(name) == "text"]
    if args.group is None:
        odd = [name for name in rest if name in table.unnamed or name in texts]
        if odd:
            raise ValueError(f"{table.path}: expected steps, numbers, in all columns but the label (--group for a row "
                             f"of each step), got {odd[0]!r}; --leave-out takes it for none")  # fmt: skip
        features, texts = rest, []
    else:
        features = [name for name in rest if table.kind(name) == "numbers" and name not in table.unnamed]
    if not features:
        raise ValueError(f"{table.path}: expected a column of numbers beside {listed(name for _, name in named)}, "
                         "got none")  # fmt: skip
    left = [name for name in rest if name not in features]
    return Columns(args.label, args.group, tuple(features), tuple(args.leave_out)), left


def expect_same(table: Table, columns: Columns) -> Columns:
    """Those of a table of which labels are to be found: of rows, as many steps as they have, more than the model had
    only where the names of its steps are numbered and go on. Raises ValueError."""
    if columns.group is not None:
        for name in (columns.group, *columns.features):
            table.expect("--model", name)
        return columns
    others = (columns.label, *columns.left_out)
    steps = tuple(name for name in table.names if name not in others)
    for step, (found, known) in enumerate(zip(steps, columns.features, strict=False)):
        if found != known:
            raise ValueError(f"{table.path}: expected {known!r} as the column of step {step + 1}, as the model had it, "
                             f"got {found!r}")  # fmt: skip
    if not steps:
        raise ValueError(f"{table.path}: expected columns of steps ({listed(columns.features)}), got none")
    for before, name in zip(steps[len(columns.features) - 1 :], steps[len(columns.features) :], strict=False):
        if name != next_name(before):
            raise ValueError(f"{table.path}: expected no columns behind the model's steps ({listed(columns.features)}) "
                             f"but further steps, numbered alike, got {name!r}; take it out of the table")  # fmt: skip
    return Columns(columns.label, None, steps, columns.left_out)


def next_name(name) -> str | None:
    """What goes on behind a name: t10 behind t9, t010 behind t009; None where it ends in no number."""
    number = re.search(r"[0-9]+$", name)
    return number and name[: number.start()] + str(int(number[0]) + 1).zfill(len(number[0]))


def read_sequences(table: Table, columns: Columns, learning=False) -> Sequences:
    """learning : of these, features that count the rows and labels that are one number are refused, too. Raises
    ValueError that names a line or a column."""
    labelled = columns.label in table.names
    texts = [name for name in (columns.label if labelled else None, columns.group) if name is not None]
    data = table.read(numbers=columns.features, texts=texts)
    for name in texts:
        for cell in data[name].values:
            if cell.lower() in MISSING:
                what = "a label" if name == columns.label else "the name of a sequence"
                other = " (if it is one, call it something else: so missing ones are written)" if cell else ""
                raise table.error(line_of(table, data[name], cell), what + other, shown(cell), name)
    numbers = np.stack([data[name] for name in columns.features], axis=1)
    labels = data[columns.label] if labelled else None
    if columns.group is None:
        rows, starts, groups = in_rows(table, columns, numbers), np.arange(len(numbers)), None
    else:
        rows, starts, groups = below(table, columns, numbers, data[columns.group], labels)
    if learning:
        expect_no_counts(table, columns, numbers, starts)
        expect_numbers_once(table, columns, labels)
    found = None if labels is None else [labels.values[code] for code in labels.codes[starts]]
    return Sequences(rows, table.lines[starts], found, groups)


def in_rows(table, columns, numbers) -> list[np.ndarray]:
    """Sequences (T_n, 1) of numbers (N, T); what is empty behind the last number is behind the end."""
    there = ~np.isnan(numbers)
    lengths = np.where(there.any(axis=1), numbers.shape[1] - there[:, ::-1].argmax(axis=1), 0)
    if not lengths.all():
        raise table.error(int(table.lines[lengths.argmin()]), "at least one step", "a row without")
    gaps = ~there & (np.arange(numbers.shape[1]) < lengths[:, None])
    if gaps.any():
        row, step = np.argwhere(gaps)[0]
        raise table.error(int(table.lines[row]), "a number (only steps behind the end of a sequence may be empty)",
                          "an empty cell", columns.features[step])  # fmt: skip
    return [row[:length, None] for row, length in zip(numbers, lengths, strict=True)]


def below(table, columns, numbers, groups: Texts, labels) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """Sequences (T_n, F) of numbers (steps, F), the step with which each begins, and their names."""
    gaps = np.argwhere(np.isnan(numbers))
    if len(gaps):
        step, feature = gaps[0]
        raise table.error(int(table.lines[step]), "a number", "an empty cell", columns.features[feature])
    starts = np.flatnonzero(np.diff(groups.codes, prepend=-1))
    first, seen = {}, groups.codes[starts].tolist()
    for start, code in zip(starts.tolist(), seen, strict=True):
        if code in first:
            raise table.error(int(table.lines[start]), "the rows of a sequence one below the other",
                              f"{shown(groups.values[code])}, which began in line {table.lines[first[code]]}",
                              columns.group)  # fmt: skip
        first[code] = start
    if labels is not None:
        inside = np.ones(len(numbers), bool)
        inside[starts] = False
        odd = np.flatnonzero(inside & (np.diff(labels.codes, prepend=-1) != 0))
        if len(odd):
            was, now = (shown(labels.values[labels.codes[n]]) for n in (odd[0] - 1, odd[0]))
            raise table.error(int(table.lines[odd[0]]), f"one label for all steps of a sequence, {was} as before", now,
                              columns.label)  # fmt: skip
    return np.split(numbers, starts[1:]), starts, [groups.values[code] for code in seen]


def expect_no_counts(table, columns, numbers, starts) -> None:
    """ValueError for a feature that tells where in the file a sequence stands, and so its label, where the rows of each
    label stand together: a row's number, an id, a time that goes on from one sequence to the next.

    With rows of its own for each step it is enough that it rises, or falls, from each sequence to the next and never
    turns. A table with a row for each sequence may be sorted by one of its steps: there it is whole numbers, or evenly
    apart.
    """
    if len(starts) < 3:
        return
    what = "a step" if columns.group is None else "a feature"
    for name, values in zip(columns.features, numbers.T, strict=True):
        steps, between = np.diff(values), np.diff(values[starts])
        if not any((sign * steps >= 0).all() and (sign * between > 0).all() for sign in (1, -1)):
            continue
        whole = len(starts) >= COUNTED and (values == np.round(values)).all()
        if columns.group is not None or whole or (steps == steps[0]).all():
            raise ValueError(f"{table.path}, column {name!r}: expected {what}, got numbers that count the rows; "
                             "--leave-out takes it for none")  # fmt: skip


def expect_numbers_once(table, columns, labels) -> None:
    """ValueError for labels that differ as texts, but not as numbers."""
    known = {}
    for label in labels.values:
        if not NUMBER.fullmatch(label):
            continue
        number = float(label.replace(",", "."))
        if known.setdefault(number, label) != label:
            before = known[number]
            raise table.error(line_of(table, labels, label), f"one way to write a number, {before!r} as in line "
                              f"{line_of(table, labels, before)}", repr(label), columns.label)  # fmt: skip
