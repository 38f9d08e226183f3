"""Series in and out: arrays, and Series and data frames of pandas and polars with the index that goes on behind them.

pandas and polars are imported where one of their objects came, or where a file says that one had come.
"""

from __future__ import annotations

import datetime
from calendar import monthrange
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from cylstm.checks import check_finite, described_with_way, one_of, plain_array

__all__ = ["Index", "column_of_dates", "library_of", "numbers"]


def library_of(value) -> str | None:
    """ "pandas" or "polars" for a Series or a data frame of theirs."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    return library if library in ("pandas", "polars") and kind.__name__ in ("Series", "DataFrame") else None


def numbers(name: str, value) -> np.ndarray:
    """(T,) or (T, F), float64, with NaN where something is missing. Raises TypeError or ValueError."""
    library = library_of(value)
    if library == "pandas":
        for where, dtype in dtypes(value):
            if dtype.kind not in "biuf":  # pandas makes nanoseconds of dates, and numbers of their digits
                raise TypeError(f"{name}: expected numbers{where}, got {dtype}")
        array = value.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        for where, dtype in dtypes(value) if library == "polars" else ():
            if dtype.is_temporal():
                raise TypeError(f"{name}: expected numbers{where}, got {dtype}")
        array = plain_array(name, value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected numbers, got {described_with_way(array)}")
    check_finite(name, array, np.float64, missing=True)
    return array.astype(np.float64)


def dtypes(value) -> list:
    """Of a Series or a data frame: in words where each is, and what it is."""
    if not hasattr(value, "columns"):
        return [("", value.dtype)]
    return [(f" in column {name!r}", dtype) for name, dtype in zip(value.columns, value.dtypes, strict=True)]


@dataclass(frozen=True)
class Index:
    """Where the rows of a series are, up to its last one, as text and numbers that a file can hold.

    kind : "none", rows 0, 1, ...; "integers"; of pandas "datetime" or "period"; of polars "column", dates or moments
        in a column `name`.
    last : of the last row: a number, or text. step : between two rows: a number, pandas' name of a frequency, months as
        "3mo" or "3mo end", days from Monday to Friday as "1b", or seconds as "3600.0s". zone : of moments.
    dtype : their unit, or "Date".
    """

    library: str | None = None
    kind: str = "none"
    last: object = None
    step: object = 1
    name: str | None = None
    zone: str | None = None
    dtype: str | None = None

    @classmethod
    def of(cls, name: str, value, T: int) -> Index:
        """Of what came. name : in errors. Raises ValueError where steps are uneven."""
        library = library_of(value)
        if library is None:
            return cls(last=T - 1)
        if library == "polars":
            return of_polars(name, value, T)
        return of_pandas(name, value.index)

    def checked(self) -> Index:
        """Itself, as a file claims it to be. Raises an error of whoever cannot go on from there."""
        one_of("kind", self.kind, ("none", "integers", "datetime", "period", "column"))
        if self.library not in (None, "pandas", "polars") or not isinstance(self.name, (str, type(None))):
            raise ValueError(f"index: expected one of pandas or polars with a name, got {self}")
        if self.kind in ("none", "integers") and not (type(self.last) is type(self.step) is int and self.step):
            raise ValueError(f"index: expected whole numbers, got {self.last!r} and {self.step!r}")
        self.ahead(1).labels(1)
        return self

    def labels(self, steps: int) -> list:
        """Of so many rows behind the last one; an Index of pandas, a list otherwise."""
        if self.kind == "none" or (self.kind == "integers" and self.library != "pandas"):
            return [self.last + n * self.step for n in range(1, steps + 1)]
        if self.kind == "column":
            return [later(datetime.datetime.fromisoformat(self.last), self.step, n) for n in range(1, steps + 1)]
        import pandas as pd

        if self.kind == "integers":
            return pd.RangeIndex(self.last + self.step, self.last + self.step * (steps + 1), self.step, name=self.name)
        if self.kind == "period":
            return pd.period_range(pd.Period(self.last, freq=self.step), periods=steps + 1, name=self.name)[1:]
        index = pd.date_range(self.last_label, periods=steps + 1, freq=self.step, name=self.name)[1:]
        return index.as_unit(self.dtype)

    @property
    def last_label(self):
        """Of the last row."""
        if self.kind == "column":
            return datetime.datetime.fromisoformat(self.last)
        if self.kind in ("none", "integers"):
            return self.last
        import pandas as pd

        if self.kind == "period":
            return pd.Period(self.last, freq=self.step)
        moment = pd.Timestamp(self.last).as_unit(self.dtype)
        return moment if self.zone is None else moment.tz_convert(self.zone)

    def ahead(self, steps: int) -> Index:
        """The Index of a series that is so many rows longer or, below 0, shorter."""
        if self.kind in ("none", "integers"):
            return replace(self, last=self.last + steps * self.step)
        if self.kind == "column":
            return replace(self, last=later(self.last_label, self.step, steps).isoformat())
        import pandas as pd

        if self.kind == "period":
            return replace(self, last=str(self.last_label + steps))
        if steps < 0:
            index = pd.date_range(end=self.last_label, periods=1 - steps, freq=self.step)
            return replace(self, last=index[0].isoformat())
        return replace(self, last=self.labels(steps)[-1].isoformat()) if steps else self

    def expect_next(self, name: str, value, T: int) -> None:
        """ValueError unless the rows of what came are those behind the last one."""
        if library_of(value) is None or library_of(value) != self.library or self.kind == "none" or not T:
            return  # plain numbers say nothing of where they are
        expected = self.labels(T)
        found = list(value.index) if self.library == "pandas" else in_column(value, self.name)
        if found is None:
            return
        for n, (one, other) in enumerate(zip(expected, found, strict=True)):
            if one != other:
                raise ValueError(f"{name}: expected {one} at row {n}, right behind what is known, got {other}")

    def write(self, array, columns=None, name=None):
        """(n,) or (n, F) as what came, with its labels; columns : names of F."""
        if self.library is None:
            return array
        if self.library == "pandas":
            import pandas as pd

            labels = self.labels(len(array))
            return pd.Series(array, labels, name=name) if columns is None else pd.DataFrame(array, labels, columns)
        import polars as pl

        if self.kind == "none" and columns is None:
            return pl.Series(name or "", array)
        given = {name or "forecast": array}
        if columns is not None:
            given = {text_of(column): array[:, n] for n, column in enumerate(columns)}
        if self.kind == "column":
            labels = self.labels(len(array))
            labels = [moment.date() for moment in labels] if self.dtype == "Date" else labels
            dtype = pl.Date if self.dtype == "Date" else pl.Datetime(self.dtype)
            return pl.DataFrame({self.name: pl.Series(labels, dtype=dtype), **given})
        return pl.DataFrame(given)


def text_of(column) -> str:
    """The name of a column of polars': "sales", "0.05", "sales 0.05"."""
    return " ".join(map(str, column)) if isinstance(column, tuple) else str(column)


def of_pandas(name, index) -> Index:
    """Of an index with even steps."""
    import pandas as pd

    called = index.name if index.name is None else str(index.name)
    if isinstance(index, pd.PeriodIndex):
        steps = np.diff(index.asi8)
        expect_even(name, index, steps)
        if len(steps) and steps[0] != index.freq.n:
            raise ValueError(f"{name}: expected an index of a period each ({index.freqstr}), got {index[0]} and then "
                             f"{index[1]}")  # fmt: skip
        return Index("pandas", "period", str(index[-1]), index.freqstr, called)
    if isinstance(index, pd.DatetimeIndex):
        expect_even(name, index, np.sign(np.diff(index.asi8)))
        expect_zone(name, index)
        step = index.freqstr or pd.DatetimeIndex(index, freq="infer").freqstr
        if step is None:
            raise ValueError(f"{name}: expected an index whose steps have a frequency (Series.asfreq makes one, with "
                             f"NaN where nothing is), got one from {index[0]} to {index[-1]} without")  # fmt: skip
        expect_frequency(name, index, step)
        return Index("pandas", "datetime", index[-1].isoformat(), step, called, str(index.tz or "") or None, index.unit)
    if pd.api.types.is_integer_dtype(index.dtype):
        steps = np.diff(index.to_numpy().astype(np.int64))  # of unsigned ones none is below 0
        expect_even(name, index, steps)
        return Index("pandas", "integers", int(index[-1]), int(steps[0]) if len(steps) else 1, called)
    raise TypeError(f"{name}: expected an index of dates, periods or integers, got {index.dtype}")


def expect_zone(name, index):
    """ValueError for a time zone that its name, which is all that a file has, does not give back: one of dateutil."""
    try:
        same = index.tz is None or index[-1].tz_convert(str(index.tz)).isoformat() == index[-1].isoformat()
    except Exception:
        same = False
    if not same:
        raise ValueError(f"{name}: expected a time zone with a name, such as zoneinfo's, got {index.tz}")


def expect_frequency(name, index, step):
    """ValueError for a frequency that its name does not give back, such as one with holidays of one's own."""
    import pandas as pd

    try:
        same = index.freq is None or pd.tseries.frequencies.to_offset(step) == index.freq
        same = same and index.equals(pd.date_range(index[0], periods=len(index), freq=step).as_unit(index.unit))
    except ValueError:
        same = False
    if not same:
        raise ValueError(
            f"{name}: expected an index with a frequency that its name gives back, got {index.freq or step}"
        )


def expect_even(name, index, steps):
    """ValueError unless all steps are the same, and forward."""
    wrong = steps != steps[0] if len(steps) and steps[0] > 0 else np.ones(len(steps), bool)
    if wrong.any():
        n = int(wrong.argmax())
        raise ValueError(f"{name}: expected rows in order and one step apart, NaN where nothing is, got {index[n]} and "
                         f"then {index[n + 1]}")  # fmt: skip


def of_polars(name, value, T) -> Index:
    """Of a column of dates or moments, where a frame has one."""
    column = column_of_dates(value)
    if column is None:
        return Index("polars", last=T - 1)
    moments = in_column(value, column)
    zone = getattr(value[column].dtype, "time_zone", None)
    if zone is not None:
        raise ValueError(f"{name}: expected moments without a time zone in {column!r}, got {zone}")
    if None in moments:
        raise ValueError(f"{name}: expected a date in each row of {column!r}, got null in row {moments.index(None)}")
    step = step_of(moments)
    if step is None:
        raise ValueError(f"{name}: expected rows in order and one step apart in {column!r}, null where nothing is "
                         f"(upsample makes such a frame), got {T} from {moments[0]} to {moments[-1]}")  # fmt: skip
    dtype = getattr(value[column].dtype, "time_unit", "Date")
    return Index("polars", "column", moments[-1].isoformat(), step, column, dtype=dtype)


def column_of_dates(value) -> str | None:
    """The first one that a frame of polars has."""
    if library_of(value) != "polars" or type(value).__name__ == "Series":
        return None
    kinds = {each: value[each].dtype.base_type().__name__ for each in value.columns}
    return next((each for each, kind in kinds.items() if kind in ("Date", "Datetime")), None)


def in_column(frame, column) -> list | None:
    """The moments of a column, None for null, or None where the frame has none."""
    if not hasattr(frame, "columns") or column not in frame.columns:
        return None
    return [datetime.datetime.combine(moment, datetime.time()) if type(moment) is datetime.date else moment
            for moment in frame[column].to_list()]  # fmt: skip


def step_of(moments) -> str | None:
    """What two rows are apart: "86400.0s", "1mo", or "1mo end" for the last days of months. None where they differ.

    Three years of 365 days each are years: the fourth may have 366.
    """
    if len(moments) < 2:
        return None
    months = {12 * (later.year - earlier.year) + later.month - earlier.month for earlier, later in pairwise(moments)}
    if len(months) == 1 and min(months) >= 1 and len({moment.time() for moment in moments}) == 1:
        step, days = months.pop(), {moment.day for moment in moments}
        reached = {(moments[0].month - 1 + n * step) % 12 + 1 for n in range(12)}
        if len(days) == 1 and max(days) <= min(monthrange(2001, month)[1] for month in reached):
            return f"{step}mo"
        if all(moment.day == monthrange(moment.year, moment.month)[1] for moment in moments):
            return f"{step}mo end"
    seconds = {(later - earlier).total_seconds() for earlier, later in pairwise(moments)}
    return f"{seconds.pop()!r}s" if len(seconds) == 1 and min(seconds) > 0 else None


def later(moment, step, count):
    """A moment so many steps later."""
    if step.endswith("s"):
        return moment + datetime.timedelta(seconds=float(step[:-1]) * count)
    if step.endswith("b"):
        day = np.busday_offset(moment.date(), int(step[:-1]) * count)
        return datetime.datetime.combine(day.item(), moment.timetz())
    months = moment.year * 12 + moment.month - 1 + int(step.partition("mo")[0]) * count
    year, month = divmod(months, 12)
    day = monthrange(year, month + 1)[1] if step.endswith("end") else moment.day
    return moment.replace(year=year, month=month + 1, day=day)
