"""What the tests of `cylstm forecast` share: tables that are made up, the command, and what it wrote."""

import datetime

import numpy as np
from commands import printed

SMALL = ["--members", "2", "--epochs", "3", "--horizon", "4"]


def wave(count, season=7, seed=0):
    rng = np.random.default_rng(seed)
    return np.round(50 + 10 * np.sin(np.arange(count) * 2 * np.pi / season) + rng.standard_normal(count), 3)


def days(count, first="2024-01-01"):
    start = datetime.date.fromisoformat(first)
    return [start + datetime.timedelta(n) for n in range(count)]


def table(name, header, *columns, sign=","):
    """Write a table; None is an empty cell."""
    rows = ([*header], *zip(*columns, strict=True))
    with open(name, "w", encoding="utf-8", newline="") as file:
        file.writelines(sign.join("" if cell is None else str(cell) for cell in row) + "\n" for row in rows)


def forecast(capsys, *arguments):
    """What it prints; it must go well."""
    return printed(capsys, "forecast", *arguments)
