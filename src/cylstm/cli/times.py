"""Times in tables: dates and moments from their text and back, and the step that rows are apart."""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

__all__ = ["ODD", "Form", "Step", "expect_one_century", "forms_of", "look_like_parts", "look_like_times", "numbered"]

CLOCK = r"(?:(?P<T>[ T])(?P<H>\d\d?):(?P<M>\d\d)(?::(?P<S>\d\d)(?P<f>\.\d{1,9})?)?)?"
# Day, month and year in the orders in which they are written; what stands between them is the same twice.
ORDERS = {
    "year-month-day": r"(?P<Y>\d{4})(?P<sign>[-/.])(?P<m>\d\d?)(?P=sign)(?P<d>\d\d?)",
    "day-month-year": r"(?P<d>\d\d?)(?P<sign>[-/.])(?P<m>\d\d?)(?P=sign)(?P<Y>\d{4})",
    "month-day-year": r"(?P<m>\d\d?)(?P<sign>[-/])(?P<d>\d\d?)(?P=sign)(?P<Y>\d{4})",
    "yearmonthday": r"(?P<Y>\d{4})(?P<sign>)(?P<m>\d\d)(?P<d>\d\d)(?:\.0)?",  # .0 as in WHOLE
    "yearmonth": r"(?P<Y>\d{4})(?P<sign>)(?P<m>\d\d)(?:\.0)?",
    "year-month": r"(?P<Y>\d{4})(?P<sign>[-/])(?P<m>\d\d)",
    "year-week": r"(?P<Y>\d{4})(?P<sign>-?)W(?P<w>\d\d)",  # of ISO 8601
    "year-quarter": r"(?P<Y>\d{4})(?P<sign>[- ]?)[Qq](?P<q>[1-4])",
}
SHAPES = {name: re.compile(order + (CLOCK if "<d>" in order else ""), re.ASCII) for name, order in ORDERS.items()}
WRITTEN = {"year-month-day": "Ymd", "day-month-year": "dmY", "month-day-year": "mdY", "yearmonthday": "Ymd",
           "yearmonth": "Ym", "year-month": "Ym"}  # fmt: skip
WITH_ZONE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)", re.ASCII)
WHOLE = re.compile(r"([+-]?\d{1,15})(?:\.0)?", re.ASCII)  # pandas writes 2024.0 where a number is missing
NEARLY = re.compile(r"\d[-/. ]\d|\d:\d\d|\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)", re.IGNORECASE)
MICROSECONDS = 1_000_000
ODD = -(1 << 62)  # no place
UNKNOWN = re.compile(r"(1[89]|2[01])\d\d(0[1-9]|[1-4]\d|5[0-3])|(19|20)\d\d[1-4]", re.ASCII)
DAY = 86_400 * MICROSECONDS
LONG = {"week": 7 * DAY, "day": DAY, "hour": DAY // 24, "minute": 60 * MICROSECONDS, "second": MICROSECONDS,
        "microsecond": 1}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """How times are written.

    name : of ORDERS, "with zone", "whole number", or a format of `strptime`'s. pattern : of `strftime`'s, to write
    them with, as those that were read: as the one with most parts, for some leave out seconds, or a clock, that are 0.
    """

    name: str
    pattern: str = ""

    @property
    def whole(self) -> bool:
        return self.name == "whole number"

    def read(self, text: str) -> datetime.datetime | int:
        """A moment, or a number. Raises ValueError."""
        if self.whole:
            found = WHOLE.fullmatch(text)
            if not found:
                raise ValueError(text)
            return int(found[1])
        if self.name == "with zone":
            if not WITH_ZONE.fullmatch(text):
                raise ValueError(text)
            return datetime.datetime.fromisoformat(text)
        if self.name not in SHAPES:
            return datetime.datetime.strptime(text, self.name)
        found = SHAPES[self.name].fullmatch(text)
        if not found:
            raise ValueError(text)
        parts = found.groupdict()
        if "w" in parts:
            return datetime.datetime.fromisocalendar(int(parts["Y"]), int(parts["w"]), 1)
        month = 3 * int(parts["q"]) - 2 if "q" in parts else int(parts["m"])
        clock = [int(parts.get(part) or 0) for part in "HMS"]
        fraction = (parts.get("f") or ".")[1:7].ljust(6, "0")
        return datetime.datetime(int(parts["Y"]), month, int(parts.get("d") or 1), *clock, int(fraction))

    def tried(self, text: str):
        """The same, or None."""
        try:
            return self.read(text)
        except ValueError:
            return None

    def like(self, texts) -> Form:
        """With the pattern of some that were read, or the one that it has, if that has more parts."""
        if self.name not in SHAPES:
            return self if self.name in ("whole number", "with zone") else replace(self, pattern=self.name)
        found = (SHAPES[self.name].fullmatch(text).groupdict() for text in texts)
        parts = max(found, key=lambda parts: sum(parts.get(part) is not None for part in "TSf"))
        sign = parts["sign"]
        if "q" in parts or "w" in parts:
            return replace(self, pattern=f"%G{sign}W%V" if "w" in parts else f"%Y{sign}Q")
        date = sign.join(f"%{part}" for part in WRITTEN[self.name])
        clock = "".join(sign + f"%{part}" for sign, part in zip(" ::.", "HMSf", strict=True) if parts.get(part))
        pattern = date + (clock and (parts["T"] + clock[1:]))
        return replace(self, pattern=max(pattern, self.pattern, key=lambda each: each.count("%")))

    def write(self, moment) -> str:
        """A time as it would stand in the table."""
        if self.whole:
            return str(moment)
        if self.name == "with zone":
            return moment.isoformat()
        if self.name == "year-quarter":
            return f"{moment.strftime(self.pattern)}{(moment.month + 2) // 3}"
        return moment.strftime(self.pattern)

    def __str__(self):
        return {"whole number": "whole numbers", "with zone": "moments with a time zone"}.get(self.name, self.name)


def forms_of(cells, most=False) -> list[Form]:
    """Those in which all of these texts can be read, the likeliest first: of 03/04/2024 there are two. What may be a
    date is no whole number.

    most : where there is none such, the one in which more than half of them can: the others are mistakes.
    """
    counts, found = [], []
    for form in map(Form, ("with zone", *SHAPES, "whole number")):
        moments = [moment for moment in map(form.tried, cells) if moment is not None]
        if form.name in ("yearmonthday", "yearmonth") and not all(1800 <= moment.year < 2200 for moment in moments):
            continue
        counts.append((len(moments), form))
        if moments and len(moments) == len(cells) and not (form.whole and found):
            found.append(form.like(cells))
    if not found and most:
        count, form = max(counts, key=lambda pair: pair[0])
        return [form] if 2 * count > len(cells) else []
    return found


def look_like_times(cells) -> bool:
    """Whether most of some texts, which have no form that is known, seem to be times all the same."""
    return 2 * sum(bool(NEARLY.search(cell) and re.search(r"\d", cell)) for cell in cells) > len(cells)


def look_like_parts(cells) -> bool:
    """Whether whole numbers are all years with a week, 202453, or a quarter, 20244, that do not count on at its end."""
    return bool(cells) and all(UNKNOWN.fullmatch(cell.removesuffix(".0")) for cell in cells)


def expect_one_century(written, moments) -> None:
    """ValueError for years of two digits that strptime, whose 68 is 2068 and 69 is 1969, tears apart."""
    if "%y" not in written:
        return
    years = sorted({moment.year for moment in moments})
    holes = [after - before for before, after in pairwise(years)]
    if holes and max(holes) > years[0] + 100 - years[-1]:
        n = holes.index(max(holes))
        raise ValueError(
            f"years of four digits, or of one century that two can tell (1969 to 2068), "
            f"got {years[n] % 100:02} and {years[n + 1] % 100:02}, read as {years[n]} and {years[n + 1]}"
        )


def numbered(moments) -> tuple[np.ndarray, datetime.tzinfo | None]:
    """Moments as microseconds since 1970, int64, and their zone, UTC where they have several. Raises ValueError where
    some have none."""
    zones = {moment.utcoffset() for moment in moments}
    if None in zones:
        if len(zones) > 1:
            raise ValueError("some with and some without")
        return np.array(moments, "datetime64[us]").astype(np.int64), None
    zone = moments[0].tzinfo if len(zones) == 1 else datetime.UTC
    plain = [moment.astimezone(zone).replace(tzinfo=None) for moment in moments]
    return np.array(plain, "datetime64[us]").astype(np.int64), zone


# --- steps ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What rows are apart. unit : "number", "seconds", "business days", "months" or "months' ends"; size : how many."""

    unit: str
    size: int

    @classmethod
    def of(cls, several, whole: bool) -> Step | None:
        """The step of several series, each (N,) int64 in rising order: the commonest, of which all others are
        multiples. None where there is none such, or where more would be missing than there is."""
        for unit in ("number",) if whole else units_of(several):
            steps = np.concatenate([np.diff(cls(unit, 1).places(times)) for times in several])
            if not len(steps):
                return None
            sizes, counts = np.unique(steps, return_counts=True)
            size = int(sizes[counts.argmax()])
            missing = int((steps // max(size, 1) - 1).sum())
            if unit == "business days" and size > 1:  # of weeks, say
                continue
            if size > 0 and math.gcd(*sizes.tolist()) == size and missing <= len(steps):
                return cls(unit, size)
        return None

    def places(self, times) -> np.ndarray:
        """Times (N,) counted in steps from the first one; ODD where no number of steps leads."""
        if not len(times):
            return np.zeros(0, np.int64)
        counted = units(self.unit, times)
        places, left = np.divmod(counted - counted[0], self.size)
        return np.where(left == 0, places, ODD)

    @property
    def text(self):
        """As a forecaster's Index has it."""
        return {"number": self.size, "seconds": f"{self.size / MICROSECONDS!r}s", "business days": f"{self.size}b",
                "months": f"{self.size}mo", "months' ends": f"{self.size}mo end"}[self.unit]  # fmt: skip

    @classmethod
    def from_text(cls, text) -> Step:
        """The reverse."""
        if isinstance(text, int):
            return cls("number", text)
        if text.endswith("s"):
            return cls("seconds", round(float(text[:-1]) * MICROSECONDS))
        unit = {"b": "business days", "mo": "months", "mo end": "months' ends"}[re.sub(r"^\d+", "", text)]
        return cls(unit, int(re.match(r"\d+", text)[0]))

    def __str__(self):
        if self.unit == "number":
            return str(self.size)
        if self.unit == "seconds":
            names, size = LONG, self.size
        elif self.unit == "business days":
            names, size = {"business day": 1}, self.size
        else:
            end = "'s end" * (self.unit == "months' ends")
            names, size = {f"year{end}": 12, f"quarter{end}": 3, f"month{end}": 1}, self.size
        name, one = next((name, one) for name, one in names.items() if size % one == 0)
        if size > one:
            name = name.replace("'s end", "s' end")
            return f"{size // one} {name}s"
        return f"{'an' if name[0] == 'h' else 'a'} {name}"


def units_of(several) -> list[str]:
    """The units in which the times of several series may be counted, the likeliest first."""
    times = np.concatenate(several).view("datetime64[us]")
    days, months = times.astype("datetime64[D]"), times.astype("datetime64[M]")
    in_month, in_day = times - months, times - days
    found, step = [], [np.diff(each.view("datetime64[us]").astype("datetime64[M]").astype(int)) for each in several]
    monthly = all((each > 0).all() for each in step)
    if monthly and (in_month == in_month[0]).all() and in_month[0] < np.timedelta64(28, "D"):
        found.append("months")
    if monthly and (in_day == in_day[0]).all() and (days + 1 == (months + 1).astype("datetime64[D]")).all():
        found.append("months' ends")
    weeks, weekdays = np.divmod(days.astype(np.int64) + 3, 7)  # Mondays begin them
    weekend = (weekdays[:-1] == 4) & (weekdays[1:] == 0) & (np.diff(weeks) == 1)
    several_weeks = len(np.unique(weeks)) > 2 or weekend.any()
    if (in_day == in_day[0]).all() and np.is_busday(days).all() and several_weeks:
        found.append("business days")
    return [*found, "seconds"]


def units(unit, times) -> np.ndarray:
    """Times (N,) int64 in such units, from some beginning; what is inside of a unit, and differs, makes them odd."""
    if unit in ("number", "seconds"):
        return times
    moments = times.view("datetime64[us]")
    days = moments.astype("datetime64[D]")
    if unit == "business days":
        return np.busday_count("1970-01-01", days)
    return moments.astype("datetime64[M]").astype(np.int64)
