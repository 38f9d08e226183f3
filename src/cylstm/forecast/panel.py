"""One series or many, and the covariates beside them, in whatever form they came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cylstm.checks import describe
from cylstm.forecast.frames import Index, column_of_dates, library_of, numbers

__all__ = ["Panel", "columns_of", "covariates", "expect_positive", "read", "read_table", "static_features"]


@dataclass(frozen=True)
class Panel:
    """What form series came in, so that forecasts come out in it.

    form : "one", "columns" of an array or a frame, "list" or "dict". names : of the series, for a dict its keys.
    indices : of each series; of "columns" one for all.
    """

    form: str
    names: tuple
    indices: tuple[Index, ...]

    def parts(self, name: str, given) -> list:
        """What came for each series, in this form. Raises TypeError or ValueError."""
        if self.form in ("one", "columns"):
            return [given] * len(self.names)
        if self.form == "dict":
            if not isinstance(given, Mapping) or set(given) != set(self.names):
                raise TypeError(f"{name}: expected a dict with the keys {', '.join(map(str, self.names))}, "
                                f"got {describe(given)}")  # fmt: skip
            return [given[key] for key in self.names]
        if not isinstance(given, (list, tuple)) or len(given) != len(self.names):
            raise TypeError(f"{name}: expected a list of {len(self.names)}, one of each series, got {describe(given)}")
        return list(given)

    def index(self, n: int) -> Index:
        """Of series number n."""
        return self.indices[0 if self.form == "columns" else n]

    def label(self, name: str, n: int) -> str:
        """Of an argument's part for series number n, in errors."""
        if self.form in ("one", "columns"):
            return name
        return f"{name}[{self.names[n]!r}]" if self.form == "dict" else f"{name}[{n}]"

    def ahead(self, steps) -> Panel:
        """Of series that have so many more rows each."""
        counts = steps[:1] if self.form == "columns" else steps
        return replace(self, indices=tuple(
            index.ahead(count) for index, count in zip(self.indices, counts, strict=True)))  # fmt: skip

    def write(self, arrays, levels=None):
        """Forecasts (n,) of each series or, with levels, (n, Q) in the form in which the series came."""
        if self.form == "columns":
            columns = self.names if levels is None else [(name, level) for name in self.names for level in levels]
            if self.indices[0].library is None:
                return np.stack(arrays, axis=1)
            array = np.stack(arrays, axis=1) if levels is None else np.concatenate(arrays, axis=1)
            if levels is not None and self.indices[0].library == "pandas":
                import pandas as pd

                columns = pd.MultiIndex.from_tuples(columns, names=["series", "quantile"])
            return self.indices[0].write(array, columns)
        columns = None if levels is None else list(levels)
        found = [index.write(array, columns, None if self.form != "one" else name)
                 for index, array, name in zip(self.indices, arrays, self.names, strict=True)]  # fmt: skip
        if self.form == "one":
            return found[0]
        return dict(zip(self.names, found, strict=True)) if self.form == "dict" else found


def read(name: str, given) -> tuple[Panel, list[np.ndarray]]:
    """The form, and the numbers (T,) of each series, with NaN in gaps. Raises TypeError or ValueError."""
    if isinstance(given, Mapping):
        form, names, parts = "dict", tuple(given), list(given.values())
    elif isinstance(given, (list, tuple)) and len(given) and all(hasattr(part, "__len__") for part in given):
        form, names, parts = "list", tuple(range(len(given))), list(given)
    else:
        return read_table(name, given)
    if not parts:
        raise ValueError(f"{name}: expected at least one series, got none")
    indices, values = [], []
    for key, part in zip(names, parts, strict=True):
        label = f"{name}[{key!r}]"
        panel, columns = read_table(label, part)
        if len(columns) > 1:
            raise ValueError(f"{label}: expected one series (T,), got {len(columns)} columns")
        indices.append(panel.indices[0])
        values += columns
    return Panel(form, names, tuple(indices)), values


def read_table(name, given, behind=None) -> tuple[Panel, list[np.ndarray]]:
    """`read` of one series, or of several in the columns of a table. behind : the Index of the rows before, where there
    are some; these have to follow."""
    library, table = library_of(given), without_dates(given)
    array = numbers(name, table)
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"{name}: expected (T,), or (T, N) for N series in columns, got {describe(array)}")
    if behind is None:
        index = Index.of(name, given, len(array))
    else:
        behind.expect_next(name, given, len(array))
        index = behind.ahead(len(array))
    if array.ndim == 1:
        called = getattr(given, "name", None) if library else None
        return Panel("one", (called,), (index,)), [array]
    names = tuple(table.columns) if library else tuple(range(array.shape[1]))
    return Panel("columns", names, (index,)), list(array.T)


def without_dates(table):
    """A frame of polars without its column of dates; anything else as it is."""
    column = column_of_dates(table)
    return table if column is None else table.drop(column)


def columns_of(part) -> tuple[str, ...] | None:
    """The names of a frame's columns of numbers, as text, which a file can hold; None of anything else."""
    table = without_dates(part) if library_of(part) else part
    return tuple(map(str, table.columns)) if library_of(table) and hasattr(table, "columns") else None


def covariates(name, given, panel, rows, width=None, columns=None) -> list[np.ndarray]:
    """Of each series (rows[n], F), with NaN in gaps; of several series in columns the same for all. Without any F is 0.

    width : F as it was in `fit`, whose rows are those before; None for those of `fit` itself. An index has to be that
        of the series. columns : of frames, as they were in `fit`. Raises TypeError or ValueError.
    """
    if given is None:
        if width:
            raise ValueError(f"{name}: expected the {width} covariates that `fit` had, got None")
        return [np.zeros((count, 0)) for count in rows]
    if width == 0:
        raise ValueError(f"{name}: expected None, as in `fit`, got {describe(given)}")
    found = []
    for n, part in enumerate(panel.parts(name, given)):
        label = panel.label(name, n)
        named = columns_of(part)
        columns = columns or named
        if named and named != columns:
            raise ValueError(f"{label}: expected the columns {columns}, got {named}")
        array = numbers(label, without_dates(part))
        array = array[:, None] if array.ndim == 1 else array
        F = width or (found[0].shape[1] if found else array.shape[-1])
        if array.ndim != 2 or array.shape != (rows[n], F):
            raise ValueError(f"{label}: expected ({rows[n]}, {F}), a row for each step, got {describe(array)}")
        index = panel.index(n)
        (index.ahead(-rows[n]) if width is None else index).expect_next(label, part, rows[n])
        found.append(array)
    return found


def static_features(given, panel) -> np.ndarray:
    """(N, S), of one series also (S,). Raises TypeError or ValueError."""
    N = len(panel.names)
    if given is None:
        return np.zeros((N, 0))
    if panel.form == "dict":
        given = [numbers(f"static[{key!r}]", row) for key, row in
                 zip(panel.names, panel.parts("static", given), strict=True)]  # fmt: skip
    expect_rows_of(panel, given)
    array = numbers("static", given)
    array = array[None] if panel.form == "one" and array.ndim == 1 else array
    if array.ndim != 2 or len(array) != N or not array.size:
        raise ValueError(f"static: expected ({N}, S), got {describe(array)}")
    if np.isnan(array).any():
        raise ValueError("static: expected numbers, got NaN, which says nothing of a series")
    return array


def expect_rows_of(panel, given) -> None:
    """ValueError for static features of pandas whose index names other series, or in another order. One that has been
    left as it is by default says nothing, and neither do names for series without."""
    if library_of(given) != "pandas" or panel.form == "one" or type(given.index).__name__ == "RangeIndex":
        return
    found, nameless = tuple(given.index), panel.names == tuple(range(len(panel.names)))
    if found != panel.names and not (nameless and given.index.dtype.kind not in "iu"):
        raise ValueError(f"static: expected the rows {panel.names}, one of each series, got {found}")


def expect_positive(name, array, log) -> None:
    """ValueError for a number that has no logarithm, where one is taken."""
    wrong = np.flatnonzero(array <= 0) if log else ()
    if len(wrong):
        got = f"{array[wrong[0]]:g}"
        raise ValueError(
            f"{name}[{wrong[0]}]: expected a number > 0, as logarithms are foretold (not with log=False), got {got}"
        )
