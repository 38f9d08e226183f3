"""Tables in CSV files, read strictly: what may be meant in two ways, or is no number, is an error with its line.

A file is read twice: its first rows say how it is written, and what its columns are; then the columns that are wanted
are read a piece at a time, numbers as float64, texts as one number each beside a list of the different ones.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cylstm.tensor_files import expect_file

__all__ = ["MISSING", "Table", "Texts"]

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SIGNS = {"point": ".", "comma": ","}
SAMPLE = 1000  # rows that say what columns are, fewer of a wide table
CELLS = 1 << 18  # of a piece
MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "."}  # in lower case
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")  # or three decimals
LONG = re.compile(r"[+-]?\d{4}")  # where thousands have a sign there is none
NOT_TEXT = {b"PK\x03\x04": "an Excel or zip file", b"\xd0\xcf\x11\xe0": "an Excel file", b"\x1f\x8b": "a gzip file",
            b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PAR1": "a Parquet file"}  # fmt: skip


@dataclass
class Texts:
    """A column of text: `values`, the different ones in the order in which they come, and of each row its place among
    them, `codes` (N,)."""

    values: list[str] = field(default_factory=list)
    codes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


class Table:
    """A CSV file: UTF-8, divided by commas, semicolons, tabs or bars, with the names of its columns in its first line.

    names : of the columns; `unnamed` are those that have none, called "column 1", ...
    delimiter, decimal : as the first rows have them; decimal ("point" or "comma") as given, if it was. sure : columns
    some number of which has shown that the latter does not stand between thousands.
    sample : the first rows. lines : (N,) int64, where in the file each row begins, after `read`.
    ragged : whether rows may be shorter than the first line.
    Raises OSError, or ValueError that names the file and the line.
    """

    def __init__(self, path, decimal=None, ragged=False):
        self.path, self.ragged, self.lines = str(path), ragged, np.zeros(0, np.int64)
        expect_text(self.path)
        first = list(itertools.islice(self._text(), 50))
        told = re.fullmatch(r"sep=(.)\s*", first[0]) if first else None  # Excel's own line
        self.begins = 1 if told else 0
        if not "".join(first[self.begins :]).strip():
            raise ValueError(f"{self.path}: expected names of columns and rows, got an empty file")
        self.delimiter = told[1] if told else delimiter_of(self.path, first)
        rows = self._rows()
        self.line, header = next(rows, (0, []))
        self.names = self._names(header)
        count = max(10, min(SAMPLE, CELLS // len(self.names)))
        self.sample = [cells for _, cells in itertools.islice(self._filled(rows), count)]
        if not self.sample:
            raise ValueError(f"{self.path}: expected rows behind the names of columns, got none")
        self.decimal, self.sure = (SIGNS[decimal], set(self.names)) if decimal else self._decimal()

    def error(self, line, expected, got, column=None) -> ValueError:
        """Of a line, and of a column by its name."""
        where = f", column {column!r}" if column is not None else ""
        return ValueError(f"{self.path}, line {line}{where}: expected {expected}, got {got}")

    def expect(self, option, column) -> str:
        """A column's name, as an option has it. Raises ValueError."""
        if column not in self.names:
            raise ValueError(f"{option}: expected a column of {self.path} ({', '.join(map(repr, self.names))}), got "
                             f"{column!r}")  # fmt: skip
        return column

    # --- what columns are -----------------------------------------------------------------------------------------

    def cells(self, column) -> list[str]:
        """Of the first rows, those that are not empty."""
        place = self.names.index(column)
        found = (row[place].strip() for row in self.sample)
        return [cell for cell in found if cell.lower() not in MISSING]

    def kind(self, column) -> str:
        """ "numbers", "text" or "nothing", by the first rows; one number makes it numbers: others are errors then."""
        cells = self.cells(column) or self._first(column)
        if not cells:
            return "nothing"
        return "numbers" if any(NUMBER.fullmatch(cell) for cell in cells) else "text"

    def _first(self, column) -> list[str]:
        """The first cell that is not empty, of all rows."""
        place = self.names.index(column)
        found = (row[place].strip() for _, rows in self._pieces() for row in rows)
        return list(itertools.islice((cell for cell in found if cell.lower() not in MISSING), 1))

    # --- reading --------------------------------------------------------------------------------------------------

    def read(self, numbers=(), texts=()) -> dict[str, np.ndarray | Texts]:
        """The columns by their names: numbers (N,) float64, NaN where nothing is, and Texts."""
        index = {name: {} for name in texts}
        parts = {name: [] for name in (*numbers, *texts)}
        lines = array("q")
        places = {name: n for n, name in enumerate(self.names)}
        for new, rows in self._pieces():
            columns = list(zip(*rows, strict=True))
            lines.extend(new)
            for name in numbers:
                parts[name].append(self._numbers(columns[places[name]], name, new))
            for name in texts:
                known = index[name]
                codes = (known.setdefault(cell.strip(), len(known)) for cell in columns[places[name]])
                parts[name].append(np.fromiter(codes, np.int64, len(rows)))
        self.lines = np.array(lines, np.int64)
        found = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        return {**found, **{name: Texts(list(index[name]), found[name]) for name in texts}}

    def _numbers(self, cells, column, lines) -> np.ndarray:
        text = "".join(cells)
        comma = self.decimal == ","
        unsure = column not in self.sure and self.decimal in text
        if text.isascii() and "_" not in text and not unsure and not (comma and "." in text):
            plain = (cell.replace(",", ".") for cell in cells) if comma else cells
            try:
                found = np.fromiter((float(cell or "nan") for cell in plain), np.float64, len(cells))
                if not np.isinf(found).any():
                    return found
            except ValueError:
                pass  # one by one, to say which
        return np.array([self._number(cell, column, line) for cell, line in zip(cells, lines, strict=True)])

    def _number(self, cell, column, line) -> float:
        cell = cell.strip()
        if cell.lower() in MISSING:
            return math.nan
        other = "." if self.decimal == "," else ","
        if not NUMBER.fullmatch(cell) or other in cell:
            sign = {",": "comma", ".": "point"}[other]
            way = f" (--decimal {sign} reads such ones)" if NUMBER.fullmatch(cell) and self.delimiter != other else ""
            raise self.error(line, f"a number{way}", f"{shown(cell)}", column)
        if column not in self.sure and self.decimal in cell:
            if THOUSANDS.fullmatch(cell):
                raise self.error(line, "one sign before decimals, and none between thousands",
                                 f"{cell!r}; --decimal point or comma says which it is", column)  # fmt: skip
            self.sure.add(column)
        number = float(cell.replace(",", "."))
        if math.isinf(number):
            raise self.error(line, "a finite number", cell, column)
        return number

    def _pieces(self) -> Iterator[tuple[list[int], list[list[str]]]]:
        rows = self._rows()
        next(rows)
        rows = self._filled(rows)
        while piece := list(itertools.islice(rows, max(1, CELLS // len(self.names)))):
            yield [line for line, _ in piece], [cells for _, cells in piece]

    def _text(self) -> Iterator[str]:
        with open(self.path, encoding="utf-8-sig", newline="") as file:
            try:
                for line in file:
                    if "\0" in line:
                        raise ValueError(f"{self.path}: expected a CSV file of text, got one with zero bytes")
                    yield line
            except UnicodeDecodeError:
                raise ValueError(not_utf_8(self.path)) from None

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Where each row begins, and its cells: of all rows, empty lines among them."""
        lines = itertools.islice(self._text(), self.begins, None)
        reader = csv.reader(lines, delimiter=self.delimiter, skipinitialspace=True, strict=True)
        line = self.begins + 1
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise self.error(line, "a row of CSV", f"what is none ({error})") from None
            if cells is None:
                return
            yield line, cells
            line = self.begins + reader.line_num + 1

    def _filled(self, rows) -> Iterator[tuple[int, list[str]]]:
        """Rows as wide as the first line, without those at the end that have nothing in them."""
        width, waiting = len(self.names), []
        for line, cells in rows:
            if not any(cells):
                if cells or width == 1:
                    waiting.append((line, cells))
                continue
            if waiting and width == 1:
                raise self.error(waiting[0][0], "a value ('NaN' for a missing one)", "an empty line")
            for before, empty in waiting:
                yield before, self._wide(before, empty, width)
            waiting.clear()
            yield line, cells if len(cells) == width else self._wide(line, cells, width)

    def _wide(self, line, cells, width):
        if len(cells) > width and not any(cells[width:]):
            return cells[:width]
        if len(cells) > width or (len(cells) < width and not self.ragged):
            comment = cells[0].startswith("#") or self.names[0].startswith("#")
            got = f"{len(cells)}{' (a comment? there are none in CSV)' if comment else ''}"
            raise self.error(line, f"{width} cells divided by {DELIMITERS.get(self.delimiter, self.delimiter)}, as in "
                             f"line {self.line}", got)  # fmt: skip
        return cells + [""] * (width - len(cells))

    # --- the first line, and how numbers are written --------------------------------------------------------------

    def _names(self, header) -> list[str]:
        cells = [" ".join(cell.split()) for cell in header]
        while len(cells) > 1 and not cells[-1] and not self._used(len(cells) - 1):
            cells.pop()
        if not any(cells) or all(NUMBER.fullmatch(cell) or re.match(r"\d+[-/.]\d+[-/.]\d", cell)
                                 for cell in cells if cell):  # fmt: skip
            raise self.error(self.line, "the names of the columns (add a first line with them)",
                             ", ".join(map(shown, cells[:4])))  # fmt: skip
        names = [cell or f"column {n + 1}" for n, cell in enumerate(cells)]
        self.unnamed = {name for cell, name in zip(cells, names, strict=True) if not cell}
        for n, name in enumerate(names):
            if name in names[:n]:
                raise self.error(self.line, "different names of columns", f"{name!r} twice")
        return names

    def _used(self, place) -> bool:
        """Whether a column that has no name has anything in it."""
        rows = self._rows()
        next(rows)
        return any(len(cells) > place and cells[place].strip() for _, cells in rows)

    def _decimal(self) -> tuple[str, set[str]]:
        """The sign before decimals, and `sure`. Raises ValueError for two signs. What is odd in one column says nothing
        of another: 8.15 may be a time, beside numbers with points between thousands."""
        if self.delimiter == ",":
            return ".", set(self.names)
        signs, sure = {}, set()
        for name, column in zip(self.names, zip(*self.sample, strict=True), strict=True):
            cells = [cell.strip() for cell in column]
            cells = [cell for cell in cells if NUMBER.fullmatch(cell)]
            found = [cell for cell in cells if "," in cell or "." in cell]
            for cell in found:
                signs.setdefault("," if "," in cell else ".", cell)
            if any(not THOUSANDS.fullmatch(cell) for cell in found) or any(map(LONG.match, cells)):
                sure.add(name)
        if len(signs) > 1:
            told = " and ".join(map(repr, signs.values()))
            raise ValueError(f"{self.path}: expected one sign before decimals, and none between thousands, got {told}; "
                             "--decimal point or comma says which it is")  # fmt: skip
        return next(iter(signs), "."), sure


def shown(cell) -> str:
    """A cell, in errors."""
    return repr(cell if len(cell) <= 40 else cell[:37] + "...") if cell else "an empty cell"


def expect_text(path) -> None:
    """OSError, or ValueError for what is no text by its first bytes."""
    expect_file(path)
    with open(path, "rb") as file:
        start = file.read(4)
    for signature, what in NOT_TEXT.items():
        if start.startswith(signature):
            raise ValueError(f"{path}: expected a CSV file in UTF-8, got {what} (save it as CSV, UTF-8)")


def not_utf_8(path) -> str:
    """Where a file is none: the offset and the line."""
    content = Path(path).read_bytes()
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return (
            f"{path}, line {line}: expected UTF-8, got byte 0x{content[error.start]:02x} at offset {error.start} "
            "(save it as CSV UTF-8)"
        )
    return f"{path}: expected UTF-8, got a file that changes while it is read"


def delimiter_of(path, lines) -> str:
    """What divides the first line, and most of the others into as many cells. Raises ValueError."""
    found = {}
    for delimiter in DELIMITERS:
        try:
            rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
            counts = [len(row) for row in rows if row]
        except csv.Error:
            continue
        if counts[0] > 1:
            found[delimiter] = (sum(count == counts[0] for count in counts) / len(counts), counts[0])
    best = [delimiter for delimiter, score in found.items() if score == max(found.values())]
    if len(best) > 1:
        told = " and by ".join(DELIMITERS[delimiter] for delimiter in best)
        raise ValueError(f"{path}: expected cells divided by one sign, got lines that are divided by {told} alike")
    return best[0] if best else ","
