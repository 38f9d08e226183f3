"""Labelled sequences in tables: one in each row, or the steps of each in rows one below the other."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from cylstm.cli.classifier import Columns
from cylstm.cli.series import line_of, listed
from cylstm.cli.tables import Table, Texts, shown

__all__ = ["Sequences", "columns_of", "expect_same", "read_sequences"]


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
    """Those of a table of which labels are to be found: of rows, as many steps as they have. Raises ValueError."""
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
    return Columns(columns.label, None, steps, columns.left_out)


def read_sequences(table: Table, columns: Columns) -> Sequences:
    """Raises ValueError that names a line."""
    labelled = columns.label in table.names
    texts = [name for name in (columns.label if labelled else None, columns.group) if name is not None]
    data = table.read(numbers=columns.features, texts=texts)
    for name in texts:
        if "" in data[name].values:
            what = "a label" if name == columns.label else "the name of a sequence"
            raise table.error(line_of(table, data[name], ""), what, "an empty cell", name)
    numbers = np.stack([data[name] for name in columns.features], axis=1)
    labels = data[columns.label] if labelled else None
    if columns.group is None:
        rows, starts, groups = in_rows(table, columns, numbers), np.arange(len(numbers)), None
    else:
        rows, starts, groups = below(table, columns, numbers, data[columns.group], labels)
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
    first = numbers[:, 0]
    if len(first) > 2 and numbers.shape[1] > 1 and (np.diff(first) == 1).all():
        raise ValueError(f"{table.path}, column {columns.features[0]!r}: expected a step, got numbers that count the "
                         "rows; --leave-out takes it for none")  # fmt: skip
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
