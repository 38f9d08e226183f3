"""`cylstm forecast CSV`: the series of a table, a forecaster, a picture and a table of what comes next."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import numpy as np

from cylstm.cli.columns import NAMED, Roles, chosen, listed
from cylstm.cli.series import Series, read_series
from cylstm.cli.tables import Table
from cylstm.cli.times import Form, Step
from cylstm.forecast import LSTMForecaster
from cylstm.tensor_files import write_atomically

__all__ = ["run_forecast"]

HORIZON = 12
ORIGINS = 50  # of a back-test, at most
START = 0.7  # of it, as a share of each series
KEPT = ("target", "future", "time", "group", "form")  # of the roles, in a model's file


def run_forecast(args, say) -> None:
    """Read, learn or go on, foretell, write. say : prints."""
    table = Table(args.csv, args.decimal)
    forecaster, found = go_on(args, table, say) if args.model else learn(args, table, say)
    horizon = args.horizon or forecaster.horizon
    future = ahead_of(found, forecaster, horizon)
    bounds = list(forecaster.forecast_quantiles(horizon, future=future).values())
    forecaster.save(args.out)
    write_atomically(args.table, as_table(forecaster, bounds, found.form))
    if args.picture:
        from cylstm.cli.pictures import fans

        title = f"{table.path}, {horizon} steps ahead"
        fans(args.picture, panels(forecaster, found, bounds), list(forecaster.quantiles), title)
    say(f"wrote {', '.join(filter(None, (args.out, args.table, args.picture)))}")
    if not args.picture:
        say("no picture: pip install 'cylstm[plot]'")


# --- learning ---------------------------------------------------------------------------------------------------------


def learn(args, table, say) -> tuple[LSTMForecaster, Series]:
    """A new forecaster, and how good it is."""
    roles = chosen(table, args)
    found = read_series(table, roles)
    horizon = args.horizon or HORIZON
    if roles.future:
        rows = min(found.ahead.values())
        horizon = args.horizon or rows
        if rows < max(horizon, 1):
            needed = f"{max(horizon, 1)} steps to come, with {listed(roles.future)} and without {listed(roles.targets)}"
            raise ValueError(f"--future: expected rows of {needed}, at the end of {table.path}, got {rows}")
    tell(say, table, roles, found)
    options = {name: getattr(args, name) for name in ("season", "members", "epochs", "seed")}
    options = {name: value for name, value in options.items() if value is not None}
    forecaster = LSTMForecaster(horizon, **options)
    future = over(found)
    say(f"learning, {forecaster.members} models{'' if args.no_backtest else ' and as many for a back-test'} ...")
    try:
        forecaster.fit(found.values, future=future)
    except ValueError as error:
        way = "" if args.horizon else " (as --horizon has it by default)"
        raise ValueError(f"--{error}{way}" if str(error).startswith("horizon:") else str(error)) from error
    forecaster.panel_ = replace(forecaster.panel_, indices=tuple(found.indices.values()))
    forecaster.columns_ = {"target": tuple(roles.targets), "future": tuple(roles.future) or None,
                           "time": roles.time and (roles.time,), "group": roles.group and (roles.group,),
                           "form": found.form and (found.form.name, found.form.pattern)}  # fmt: skip
    season = "no season" if forecaster.season_ == 1 else f"a season of {forecaster.season_} steps"
    say(f"{season}{', growth by shares (logarithms)' if forecaster.log_ else ''}")
    if not args.no_backtest:
        every = max(1, round(max(map(len, found.values.values())) * (1 - START) / ORIGINS))
        try:
            report = forecaster.backtest(found.values, future=future, start=START, every=every)
        except (ArithmeticError, ValueError) as error:
            say(f"no back-test, for want of rows: {error}")
        else:
            say(f"back-test: learnt from {START:.0%} of the rows, {horizon} steps ahead, from every "
                f"{'row' if every == 1 else f'{every}th row'} of the others\n{report!r}")  # fmt: skip
    return forecaster, found


def tell(say, table, roles, found) -> None:
    """What was read, and as what."""
    names = list(found.values)
    what = f"series of {roles.group!r} ({listed(names)}), {roles.targets[0]!r}" if roles.group else listed(names)
    say(f"{table.path}: {found.rows:,} rows; {len(names)} series: {what}" if roles.group or len(names) > 1 else
        f"{table.path}: {found.rows:,} rows of {what}")  # fmt: skip
    if roles.time is None:
        say("no column of times (--time says which): each row is a step behind the one before")
    else:
        first, last = span(found)
        say(f"times in {roles.time!r} ({found.form}), {found.step} apart, {first} to {last}")
    gaps = {name: int(np.isnan(values).sum()) for name, values in found.values.items()}
    several = ", ".join(f"{name!r} {count:,}" for name, count in gaps.items() if count)
    say(f"gaps: {several if len(several) < 200 else f'{sum(gaps.values()):,} in all'}" if several else "no gaps")
    if roles.future:
        say(f"known ahead: {listed(roles.future)}, {min(found.ahead.values())} steps")
    elif any(found.ahead.values()):
        say(f"the last {max(found.ahead.values())} rows have no value: what is foretold begins there")
    ends = {name: index.ahead(-trailing(found.values[name])).last_label for name, index in found.indices.items()}
    early = [f"{name!r} {found.form.write(end) if found.form else end}" for name, end in ends.items()
             if end < max(ends.values())]  # fmt: skip
    if early:
        more = f", ... ({len(early)})" if len(early) > NAMED else ""
        where = "each from its own end on" if roles.group else "all from the last row on"
        say(f"last numbers before those of others: {', '.join(early[:NAMED])}{more}; foretold {where}")
    for line in (*found.told, *holes_ahead(found, roles)):
        say(line)
    if table.decimal == ",":
        say("decimals behind commas")


def trailing(values) -> int:
    """Steps behind the last number."""
    return int(np.isnan(values[::-1]).argmin())


def holes_ahead(found, roles) -> list[str]:
    """In words, what is missing of what is known ahead, in rows that are over."""
    if not roles.future:
        return []
    parts = list(over(found).values())
    missing = np.isnan(np.concatenate(parts if roles.group else parts[:1])).sum(axis=0)
    told = ", ".join(f"{name!r} {count:,}" for name, count in zip(roles.future, missing, strict=True) if count)
    return [f"gaps of what is known ahead: {told}"] if told else []


def span(found) -> tuple[str, str]:
    """The first and the last time with a row."""
    first = [index.ahead(1 - len(values)).last_label
             for index, values in zip(found.indices.values(), found.values.values(), strict=True)]  # fmt: skip
    return found.form.write(min(first)), found.form.write(max(index.last_label for index in found.indices.values()))


def over(found) -> dict | None:
    """Covariates of the rows that are over."""
    if found.future is None:
        return None
    return {name: rows[: len(found.values[name])] for name, rows in found.future.items()}


def ahead_of(found, forecaster, horizon) -> dict | None:
    """Covariates of the steps to come."""
    if not forecaster.layout_.C:
        return None
    least = min(found.ahead.values())
    if least < horizon:
        raise ValueError(f"--horizon: expected at most {least} steps, of which the table has what is known ahead, got "
                         f"{horizon}")  # fmt: skip
    return {name: rows[len(found.values[name]) :][:horizon] for name, rows in found.future.items()}


# --- going on ---------------------------------------------------------------------------------------------------------


def roles_of(forecaster) -> Roles:
    """The columns as `learn` kept them. Raises KeyError, TypeError or ValueError for a forecaster of another's."""
    kept = {name: list(forecaster.columns_[name] or ()) for name in KEPT}
    time, group = (kept[name][0] if kept[name] else None for name in ("time", "group"))
    form = Form(*kept["form"]) if kept["form"] else None
    roles = Roles(kept["target"], kept["future"], time, group, form)
    panel, names = forecaster.panel_, [*roles.targets, *roles.future, *filter(None, (time, group))]
    kind = "none" if form is None else "integers" if form.whole else "column"
    steps = {Step.from_text(index.step) for index in panel.indices}
    if (
        not all(isinstance(name, str) for name in (*names, *panel.names))
        or len(set(names)) < len(names)
        or (time is None) != (form is None)
        or (len(roles.targets) != 1 if group else roles.targets != list(panel.names))
        or len(roles.future) != forecaster.layout_.C
        or {index.kind for index in panel.indices} != {kind}
        or len(steps) != 1
        or min(step.size for step in steps) < 1
    ):
        raise ValueError(f"columns: expected those of the series {panel}, got {roles}")
    return roles


def go_on(args, table, say) -> tuple[LSTMForecaster, Series]:
    """A forecaster from its file, behind new rows, and how its forecasts of these were."""
    forecaster = LSTMForecaster.load(args.model)
    panel = forecaster.panel_of()
    try:
        roles = roles_of(forecaster)
    except (AttributeError, LookupError, TypeError, ValueError):
        raise ValueError(f"{args.model}: expected a forecaster that `cylstm forecast` wrote, got another") from None
    if args.horizon and args.horizon > forecaster.horizon:
        raise ValueError(f"--horizon: expected at most {forecaster.horizon}, for which {args.model} was made, got "
                         f"{args.horizon}")  # fmt: skip
    for name in (*roles.targets, *roles.future, *filter(None, (roles.time, roles.group))):
        table.expect(args.model, name)
    found = read_series(table, roles, dict(zip(panel.names, panel.indices, strict=True)))
    for n, name in enumerate(panel.names):  # those that have no row here, and the order that the model has
        for part, otherwise in ((found.values, np.zeros(0)), (found.ahead, 0), (found.indices, panel.indices[n])):
            part[name] = part.pop(name, otherwise)
        if roles.future:
            found.future[name] = found.future.pop(name, np.zeros((0, len(roles.future))))
    new = max(map(len, found.values.values()))
    known = f", {found.skipped:,} of them known before" if found.skipped else ""
    told = [*expect_known(forecaster, found, table, roles), *holes_ahead(found, roles)]
    for line in (f"{table.path}: {found.rows:,} rows{known}; {new:,} new steps", *told):
        say(line)
    for name, values in found.values.items():
        if forecaster.log_ and (values <= 0).any():
            raise ValueError(f"{table.path}: expected numbers > 0 of {name!r}, whose logarithms the model foretells, "
                             f"got {values[values <= 0][0]:g}")  # fmt: skip
    future = over(found)
    if any((~np.isnan(values)).any() for values in found.values.values()):
        every = max(1, round(new / ORIGINS))
        say(f"its forecasts of these:\n{forecaster.evaluate(found.values, future=future, every=every)!r}")
    return forecaster.update(found.values, future=future), found


def expect_known(forecaster, found, table, roles) -> list[str]:
    """In words, which numbers stand in rows that were known before and were not there then, or others. Raises
    ValueError for others where there are no times: rows are counted there."""
    told = []
    for name, series in zip(forecaster.panel_.names, forecaster.series_, strict=True):
        if name not in found.before:
            continue
        back, values, lines = found.before[name]
        kept = np.where(series.known, forecaster.in_units(series.y), np.nan)
        inside = (back > -len(kept)) & ~np.isnan(values)
        now, then = values[inside], kept[back[inside] - 1]
        odd = ~np.isclose(now, then, rtol=1e-12, atol=0)  # they may have gone through logarithms
        if roles.time is None and (odd & ~np.isnan(then)).any():
            n = (odd & ~np.isnan(then)).argmax()
            expected = f"{then[n]:g}, which the model knows here (without times a file has all rows of before)"
            raise table.error(int(lines[inside][n]), expected, f"{now[n]:g}", roles.targets[0] if roles.group else name)
        if odd.any():
            told.append(f"not used, for they stand in rows known before, but were missing or others then: "
                        f"{odd.sum():,} numbers of {name!r}")  # fmt: skip
    return told


# --- what is written --------------------------------------------------------------------------------------------------


def as_table(forecaster, bounds, form) -> bytes:
    """CSV: a line of each series and step."""
    text, middle = io.StringIO(), forecaster.quantiles.index(0.5)
    writer = csv.writer(text, lineterminator="\n")
    others = [n for n in range(len(forecaster.quantiles)) if n != middle]
    writer.writerow(["time", "series", "median", *(f"q{forecaster.quantiles[n]:g}" for n in others)])
    panel = forecaster.panel_
    for n, (name, rows) in enumerate(zip(panel.names, bounds, strict=True)):
        digits = digits_of(rows)
        for label, row in zip(panel.index(n).labels(len(rows)), rows, strict=True):
            numbers = (f"{row[k]:.{digits}g}" for k in (middle, *others))
            writer.writerow([form.write(label) if form else label, name, *numbers])
    return text.getvalue().encode()


def digits_of(rows) -> int:
    """As many as leave eight of what numbers differ by."""
    size, spread = float(np.abs(rows).max()), float(np.ptp(rows))
    return min(17, 8 + int(math.log10(size / spread))) if spread else 17


def panels(forecaster, found, bounds) -> list:
    """Of each series, what `fans` draws: as many known steps as make the forecast look small."""
    drawn = []
    for n, (name, rows) in enumerate(zip(forecaster.panel_.names, bounds, strict=True)):
        series, index = forecaster.series_[n], forecaster.panel_.index(n)
        known = np.where(series.known, forecaster.in_units(series.y), np.nan)
        if len(found.values[name]) > len(known):
            known = found.values[name]
        known = known[-max(4 * len(rows), 3 * forecaster.season_, 24) :]
        before = index.ahead(-len(known))
        drawn.append((name, before.labels(len(known)), known, index.labels(len(rows)), rows))
    return drawn
