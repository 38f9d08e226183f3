"""Pictures as SVG, in the page's own colours: lines, dots, bars. They are drawn here, not by a program in the page."""

from __future__ import annotations

import math
from html import escape

import numpy as np

__all__ = ["bars", "dots", "lines", "number"]

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 10, 12, 38
MOST_POINTS = 600  # of a line
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value) -> str:
    """In few digits; thousands are set apart."""
    if value is None or not math.isfinite(value):
        return "-" if value is None or math.isnan(value) else "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    text = f"{value:.3g}"
    base, e, power = text.partition("e")
    return text if not e else f"{base}·10{str(int(power)).translate(RAISED)}".removeprefix("1·")


def ticks(low, high, log) -> list[float]:
    """Round numbers from low to high: a few."""
    if log:
        first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
        step = max(1, (last - first) // 5)
        found = [10.0**n for n in range(first, last + 1, step) if low * 0.999 <= 10.0**n <= high * 1.001]
        if len(found) < 2:
            found = [n * 10.0**e for e in range(first, last + 1) for n in (1, 2, 5) if low <= n * 10.0**e <= high]
        return found if len(found) > 1 else [low, high]
    raw = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * n for n in (1, 2, 2.5, 5, 10) if size * n >= raw * 0.999)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


class Axes:
    """Where numbers lie in a picture, and its frame."""

    def __init__(self, xs, ys, log_x=False, log_y=False, width=WIDTH, height=HEIGHT):
        self.log, self.width, self.height = (log_x, log_y), width, height
        self.x, self.y = (limits(values, log) for values, log in ((xs, log_x), (ys, log_y)))

    def place(self, x, y) -> str:
        return f"{self.along(x, 0):.1f},{self.along(y, 1):.1f}"

    def along(self, value, axis) -> float:
        low, high = (self.x, self.y)[axis]
        if self.log[axis]:
            value, low, high = (math.log(max(v, 1e-300)) for v in (value, low, high))
        share = (value - low) / (high - low)
        if axis == 0:
            return LEFT + share * (self.width - LEFT - RIGHT)
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)

    def frame(self, x_label, y_label, x_ticks=None) -> str:
        parts = []
        for value in ticks(*self.y, self.log[1]):
            y = self.along(value, 1)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{self.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                         f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')  # fmt: skip
        for value, text in x_ticks or [(value, number(value)) for value in ticks(*self.x, self.log[0])]:
            x = self.along(value, 0)
            y = self.height - BOTTOM + 16
            parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(text)}</text>')
        x, y = (LEFT + self.width - RIGHT) / 2, (TOP + self.height - BOTTOM) / 2
        parts.append(f'<text class="label" x="{x:.0f}" y="{self.height - 6}" text-anchor="middle">{escape(x_label)}'
                     f'</text><text class="label" transform="translate(11 {y:.0f}) rotate(-90)" '
                     f'text-anchor="middle">{escape(y_label)}</text>')  # fmt: skip
        return "".join(parts)


def limits(values, log) -> tuple[float, float]:
    """Of an axis: the finite numbers' lowest and highest, a little apart."""
    values = np.asarray([value for value in values if value is not None], float)
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    if not len(values):
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if log:
        return (low, high) if high > low * 1.01 else (low / 2, high * 2)
    room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def svg(axes, body, title) -> str:
    """The whole picture; title: what it is called where it cannot be seen."""
    return f'<svg viewBox="0 0 {axes.width} {axes.height}" role="img" aria-label="{escape(title)}">{body}</svg>'


def lines(title, series, *, x_label, y_label, log_x=False, log_y=False, bands=(), dashed=()) -> str:
    """series: (x, y) by name; what is no number leaves a gap. bands: (x, low, high), behind them. dashed: names of what
    is beside the point."""
    xs = [value for x, *_ in [*series.values(), *bands] for value in (min(x), max(x))]
    ys = [value for _, y in series.values() for value in y] + [value for _, *ends in bands for y in ends for value in y]
    axes = Axes(xs, ys, log_x, log_y)
    body = [axes.frame(x_label, y_label)]
    for x, low, high in bands:
        x, low, high = thinned(x, low, high)
        there = [(a, b, c) for a, b, c in zip(x, low, high, strict=True) if math.isfinite(b) and math.isfinite(c)]
        points = [axes.place(a, b) for a, b, _ in there] + [axes.place(a, c) for a, _, c in reversed(there)]
        body.append(f'<polygon class="band" points="{" ".join(points)}"/>')
    for n, (name, (x, y)) in enumerate(series.items()):
        kind = f"s{n % 6}" + " dashed" * (name in dashed)
        x, y = thinned(x, y)
        runs, run = [], []
        for a, b in zip(x, y, strict=True):
            if b is None or not math.isfinite(b) or (log_y and b <= 0):
                runs, run = [*runs, run], []
            else:
                run.append((axes.along(a, 0), axes.along(b, 1)))
        for points in filter(None, [*runs, run]):
            if len(points) == 1:
                body.append(f'<circle class="{kind}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2.5"/>')
            else:
                told = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
                body.append(f'<polyline class="{kind}" points="{told}"/>')
    key = "".join(f'<span class="key s{n % 6}{" dashed" * (name in dashed)}">{escape(name)}</span>'
                  for n, name in enumerate(series))  # fmt: skip
    return figure(title, svg(axes, "".join(body), title), key if len(series) > 1 or bands else "")


def thinned(*columns):
    """No more than MOST_POINTS of each."""
    count = len(columns[0])
    chosen = range(count) if count <= MOST_POINTS else np.linspace(0, count - 1, MOST_POINTS).round().astype(int)
    return [[column[n] if column[n] is None else float(column[n]) for n in chosen] for column in columns]


def dots(title, x, y, *, x_label, y_label, kind="s0", square=False, diagonal=False) -> str:
    """Points of two columns; square: both from 0 to 1."""
    both = (0.0, 1.0) if square else [*np.ravel(x), *np.ravel(y)] if diagonal else None
    axes = Axes(x if both is None else both, y if both is None else both, width=260 if square else WIDTH)
    body = [axes.frame(x_label, y_label)]
    if square:
        body.append(f'<line class="edge" x1="{axes.along(0, 0):.1f}" y1="{axes.along(1, 1):.1f}" '
                    f'x2="{axes.along(1, 0):.1f}" y2="{axes.along(0, 1):.1f}"/>')  # fmt: skip
    if diagonal:
        low, high = axes.x
        body.append(f'<line class="edge" x1="{axes.along(low, 0):.1f}" y1="{axes.along(low, 1):.1f}" '
                    f'x2="{axes.along(high, 0):.1f}" y2="{axes.along(high, 1):.1f}"/>')  # fmt: skip
    for a, b in zip(*thinned(np.ravel(x), np.ravel(y)), strict=True):
        if math.isfinite(a) and math.isfinite(b):
            body.append(f'<circle class="{kind} dot" cx="{axes.along(a, 0):.1f}" cy="{axes.along(b, 1):.1f}" r="3"/>')
    return figure(title, svg(axes, "".join(body), title))


def bars(title, counts, labels, *, x_label, y_label, kind="s0") -> str:
    """A histogram: how many, and where each bar begins, as text."""
    n = len(counts)
    axes = Axes((0, n), (0, max(1, *counts)))
    axes.x, axes.y = (0.0, float(n)), (0.0, max(1.0, *map(float, counts)) * 1.05)
    every = max(1, -(-n // 8))
    body = [axes.frame(x_label, y_label, [(k, label) for k, label in enumerate(labels) if k % every == 0])]
    for k, count in enumerate(counts):
        x, y = axes.along(k + 0.06, 0), axes.along(count, 1)
        body.append(f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{axes.along(k + 0.94, 0) - x:.1f}" '
                    f'height="{max(0.0, axes.along(0, 1) - y):.1f}"><title>{count}</title></rect>')  # fmt: skip
    return figure(title, svg(axes, "".join(body), title))


def figure(title, picture, key="") -> str:
    """A picture under its title."""
    return f"<figure><figcaption>{escape(title)}</figcaption>{picture}<div class='keys'>{key}</div></figure>"
