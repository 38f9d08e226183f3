"""What a caller can get wrong, checked once at the Python edge, said in one style: argument, expected, got."""

from __future__ import annotations

import operator

import numpy as np

__all__ = ["as_float_array", "as_ids", "describe", "one_of", "plain_array", "positive_int", "real_in"]


def describe(value) -> str:
    """What came, in few words: shape and dtype for arrays, type and value otherwise."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def positive_int(name: str, value, minimum: int = 1) -> int:
    """An integer >= minimum. Raises TypeError for non-integers (bool included), ValueError for smaller ones."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected an integer, got {describe(value)}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {describe(value)}") from None
    if number < minimum:
        raise ValueError(f"{name}: expected an integer >= {minimum}, got {number}")
    return number


def real_in(name: str, value, low: float, high: float = np.inf, *, open_low=False, open_high=False) -> float:
    """A finite real number between low and high. Raises TypeError or ValueError."""
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise TypeError(f"{name}: expected a number, got {describe(value)}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {describe(value)}") from None
    too_low = number <= low if open_low else number < low
    too_high = number >= high if open_high else number > high
    if not np.isfinite(number) or too_low or too_high:
        left, right = "(" if open_low else "[", ")" if open_high or np.isinf(high) else "]"
        raise ValueError(f"{name}: expected a number in {left}{low:g}, {high:g}{right}, got {number:g}")
    return number


def one_of(name: str, value, choices):
    """One of a few named choices. Raises ValueError that lists them."""
    if not isinstance(value, str) or value not in choices:
        expected = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}: expected one of {expected}, got {describe(value)}")
    return value


def plain_array(name: str, value) -> np.ndarray:
    """`value` as an array. Raises TypeError for a masked one (its mask would be lost) and for unequal rows."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without a mask, got a masked one (use lengths, or fill it)")
    try:
        return np.asarray(value)
    except ValueError:
        raise TypeError(f"{name}: expected one array, got rows of unequal length") from None


def as_float_array(name: str, value, dtype) -> np.ndarray:
    """`value` as an array of floating `dtype`, without a copy where it is one already.

    Any real floating dtype is converted; integers, booleans, complex numbers, strings and objects raise TypeError.
    """
    array = plain_array(name, value)
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: expected floating-point numbers, got {describe(array)}")
    return np.asarray(array, dtype=dtype)


def as_ids(name: str, value, size: int) -> np.ndarray:
    """Token ids as int64, each in 0..size-1. Raises TypeError for non-integers, ValueError for ids out of range."""
    array = plain_array(name, value)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integer ids, got {describe(array)}")
    if array.size:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= size:
            raise ValueError(f"{name}: expected ids in 0..{size - 1}, got {low if low < 0 else high}")
    return np.asarray(array, dtype=np.int64)
