"""JSON of other systems, and networks whose weights are lists of numbers in it."""

from __future__ import annotations

import json

import numpy as np

from cylstm.checks import describe
from cylstm.tensor_files import expect_file, write_atomically

__all__ = ["array_of", "expect_keys", "object_of", "read_object", "write_object"]

MOST_AXES = 8  # of an array


def read_object(path) -> dict:
    """The object that a file is. Raises OSError, or ValueError for one that is none."""
    expect_file(path)
    with open(path, "rb") as file:
        return object_of(file.read())


def object_of(text) -> dict:
    """The object that a text or its bytes are. Raises ValueError."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("expected JSON, got brackets within brackets without end") from None
    except ValueError as error:
        raise ValueError(f"expected JSON, got some that is truncated or none at all ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {describe(value)}")
    return value


def expect_keys(name: str, value, needed, others=()) -> dict:
    """An object with these keys, or ValueError; others may be there, None: any."""
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected an object, got {describe(value)}")
    missing = [key for key in needed if key not in value]
    if missing:
        raise ValueError(f"{name}: expected {', '.join(needed)}, got no {', '.join(missing)}")
    strange = [] if others is None else [key for key in value if key not in (*needed, *others)]
    if strange:
        raise ValueError(f"{name}: expected {', '.join((*needed, *others))}, got {describe(strange[0])}")
    return value


def array_of(name: str, value, ndim: int, dtype) -> np.ndarray:
    """Lists of numbers as an array of so many axes. Raises ValueError for anything else.

    Each number is looked at before an array is made: a single text among them would make all of them as long.
    """
    shape, level = [], [value]
    for _ in range(ndim):
        size = len(level[0]) if isinstance(level[0], list) else 0
        if not size or not all(isinstance(row, list) and len(row) == size for row in level):
            break
        shape, level = [*shape, size], [one for row in level for one in row]
    if len(shape) < ndim or ndim > MOST_AXES or not all(type(number) in (float, int) for number in level):
        told = {0: "a number", 1: "a list of numbers", 2: "rows of numbers, all of one length"}.get(
            ndim, f"numbers in at most {MOST_AXES} axes, all rows of one length"
        )
        raise ValueError(f"{name}: expected {told}, got {describe(value)}")
    try:
        with np.errstate(over="ignore"):
            array = np.array(level, np.float64).astype(dtype).reshape(shape)
    except OverflowError:
        array = np.array([np.inf])
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected numbers that {np.dtype(dtype)} holds, got others")
    return array


def write_object(path, value: dict) -> None:
    """Write an object whose arrays become lists, number by number in full, atomically. Raises OSError, TypeError for
    what JSON has not, or ValueError for numbers that are not finite, which it has not either."""

    def listed(part):
        if isinstance(part, np.ndarray):
            return part.tolist()
        raise TypeError(f"{path}: expected what JSON has, got {describe(part)}")

    try:
        text = json.dumps(value, default=listed, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: expected finite numbers, as JSON has no others ({error})") from None
    write_atomically(path, text.encode())
