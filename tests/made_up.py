"""Made-up data for the examples, in the place of what packages of the index have, and how an example is run on it."""

import runpy
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from examples import loading
from examples.gallery import EXAMPLES


def flow():
    """A day's course that rises, with noise, a gap and an outlier."""
    rng, hours = np.random.default_rng(0), np.arange(600)
    flow = 100 + hours / 20 + 3 * np.sin(hours * 2 * np.pi / 24) + rng.normal(0, 0.3, len(hours))
    flow[200:230], flow[310] = np.nan, 20
    return flow


def rows_of_two_classes(names, length):
    """Rows of a class rise or fall."""
    rng = np.random.default_rng(1)
    x = [rng.normal(0, 0.2, (length(n), 2)) + np.linspace(0, (-1) ** n, length(n))[:, None] for n in range(60)]
    y = np.array([names[n % 2] for n in range(60)])
    return [(x[:40], y[:40]), (x[40:], y[40:])]


def sound():
    """A wave whose peaks are cut, in a length that its 25 streams of chunks share."""
    x = np.sin(np.arange(7560) / 9).astype("float32") * np.linspace(0.2, 1, 7560, dtype="float32")
    return x, np.tanh(3 * x)


def two_series():
    """One that rises faster and faster, with a season and a gap; and one that goes to and fro."""
    rng, months = np.random.default_rng(2), np.arange(90)
    rises = months**2 / 30 + 20 * np.sin(months * 2 * np.pi / 6) + rng.normal(0, 0.5, len(months))
    rises[20:23] = np.nan
    return {"rises": (rises, 6), "to and fro": (5 * (-1.0) ** np.arange(50) + rng.normal(0, 0.5, 50), 1)}


def strips():
    """Of two digits: one is high, one is low, with a gap of two columns between them."""
    rng, parts = np.random.default_rng(3), []
    for count in (240, 20):
        y = [rng.choice([3, 7], rng.integers(2, 5)) for _ in range(count)]
        x = [rng.normal(0, 0.1, (5 * len(row), 10)).astype("float32") for row in y]
        for strip, row in zip(x, y, strict=True):
            for n, digit in enumerate(row):
                strip[5 * n + 1 : 5 * n + 4, digit - 3 : digit] += 1
        parts.append((x, y))
    return parts


MADE_UP = {
    "water_flow": flow,
    "short_series": two_series,
    "waves": partial(loading.waves, 12),
    "corridors": partial(loading.corridors, 200, 16, 60),
    "japanese_vowels": lambda: rows_of_two_classes(["a", "b"], lambda n: 4 + n % 5),
    "digits": lambda: rows_of_two_classes([3, 7], lambda n: 6),
    "digit_strips": strips,
    "sunspots": lambda: 60 + 50 * np.sin(np.arange(309) * 2 * np.pi / 11),
    "distortion": sound,
    "book": lambda: "the cat sat on the mat. the dog sat on the log. In the end, both of them ate.\n" * 400,
}


def run(job, monkeypatch, folder):
    """Runs a job on such data; where it has a picture, that is drawn into a folder and looked at."""
    for name, made_up in MADE_UP.items():
        monkeypatch.setattr(loading, name, made_up)
    monkeypatch.setenv("PICTURES", str(folder))
    names = runpy.run_module(f"examples.{job}", run_name="__main__")
    if job in EXAMPLES:
        look_at(folder / f"{job}.png", names["picture"])


def look_at(path, picture):
    """That the file of a picture has something to see, and the picture a title, labels on its axes, and no legend that
    names nothing."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.shape == (450, 800, 3)
    assert 0.02 < (pixels.min(axis=-1) < 230).mean() < 0.9, "blank, or all of one colour"
    figure = Figure()
    picture(figure)
    assert figure.get_suptitle() or any(axes.get_title() for axes in figure.axes)
    assert all(axes.has_data() for axes in figure.axes)
    assert all(any(getattr(axes, f"get_{side}label")() for axes in figure.axes) for side in "xy")
    named = [axes.get_legend().get_texts() for axes in figure.axes if axes.get_legend()]
    assert all(texts and all(text.get_text() for text in texts) for texts in named)
