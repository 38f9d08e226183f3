"""Labels: what a user calls the classes of a head, kept in files and given back by `predict`."""

from __future__ import annotations

import math

import numpy as np

from cylstm.checks import describe, plain_array

__all__ = ["MISSING", "Labels", "is_text", "plain"]

KINDS = (str, int, float)  # bool is an int
MISSING = -2  # among classes
SHOWN = 8  # labels in an error


class Labels:
    """The labels of classes 0, 1, ...: different strings, numbers or booleans.

    given : as many as `count`, in the order of the classes. Raises TypeError or ValueError, naming the argument.
    """

    def __init__(self, given, count: int):
        if isinstance(given, np.ndarray) and given.ndim == 1:
            given = given.tolist()
        if not isinstance(given, (list, tuple)):  # a set has no order
            raise TypeError(f"labels: expected a list of {count} labels, got {describe(given)}")
        self.all = tuple(map(plain, given))
        for label in self.all:
            if not isinstance(label, KINDS) or label != label or label in (math.inf, -math.inf):
                raise TypeError(f"labels: expected strings, finite numbers or booleans, got {describe(label)}")
            if isinstance(label, str) and not is_text(label):
                raise ValueError(f"labels: expected text that a file can hold, got {describe(label)}")
        self.index = {label: n for n, label in enumerate(self.all)}
        if len(self.all) != count or len(self.index) != count:
            raise ValueError(f"labels: expected {count} different labels, one for each class, got {describe(given)}")
        self.array = np.array(self.all)
        if self.array.tolist() != list(self.all) or len({type(label) for label in self.all}) > 1:
            self.array = np.array(self.all, object)  # NumPy would make others of them

    def ids(self, name: str, y, real=None, ignore=None, missing=False) -> np.ndarray:
        """The classes of an array of labels, int64 of its shape: -1 for `ignore`, 0 where `real` is false; MISSING for
        NaN, where targets may be `missing`.

        Raises ValueError that names the first that is none of them.
        """
        y = plain_array(name, y)
        find = {**self.index, **({} if ignore is None else {ignore: -1})}
        known = np.ones(y.shape, bool) if real is None else np.zeros(y.shape, bool)
        if real is not None:
            known[real[:]] = True
        ids = np.zeros(y.shape, np.int64)
        labels = list(map(plain, y[known].tolist()))
        found = [find.get(label) if isinstance(label, KINDS) else None for label in labels]
        if missing:
            found = [MISSING if label != label else n for label, n in zip(labels, found, strict=True)]
        if None in found:
            place = tuple(int(n) for n in np.argwhere(known)[found.index(None)])
            where = f"[{', '.join(map(str, place))}]" if place else ""
            raise ValueError(f"{name}{where}: expected one of {self.shown()}, got {describe(plain(y[place]))}")
        ids[known] = found
        return ids

    def of(self, ids) -> np.ndarray:
        """The labels of classes, an array of their shape."""
        return self.array[ids]

    def shown(self) -> str:
        """The labels, the first of them where there are many."""
        more = f", ... ({len(self.all)} labels)" if len(self.all) > SHOWN else ""
        return ", ".join(map(repr, self.all[:SHOWN])) + more


def plain(value):
    """A Python scalar of a NumPy one, and of a string's or a number's subclass (an Enum's) what it is."""
    value = value.item() if isinstance(value, np.generic) else value
    for kind in (bool, *KINDS):
        if isinstance(value, kind):
            return value if type(value) is kind else kind.__str__(value) if kind is str else kind(value)
    return value


def is_text(given: str) -> bool:
    """Whether it can be encoded: lone surrogates cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in given)
