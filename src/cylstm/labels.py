"""Labels: what a user calls the classes of a head, kept in files and given back by `predict`."""

from __future__ import annotations

import math

import numpy as np

from cylstm.checks import describe, plain_array

__all__ = ["Labels", "plain"]

KINDS = (str, int, float)  # bool is an int
SHOWN = 8  # labels in an error


class Labels:
    """The labels of classes 0, 1, ...: different strings, numbers or booleans.

    given : as many as `count`, in the order of the classes. Raises TypeError or ValueError, naming the argument.
    """

    def __init__(self, given, count: int):
        if isinstance(given, (str, bytes)) or not hasattr(given, "__len__"):
            raise TypeError(f"labels: expected a list of {count} labels, got {describe(given)}")
        self.all = tuple(given.tolist() if isinstance(given, np.ndarray) else map(plain, given))
        for label in self.all:
            if not isinstance(label, KINDS) or label != label or label in (math.inf, -math.inf):
                raise TypeError(f"labels: expected strings, finite numbers or booleans, got {describe(label)}")
        self.index = {label: n for n, label in enumerate(self.all)}
        if len(self.all) != count or len(self.index) != count:
            raise ValueError(f"labels: expected {count} different labels, one for each class, got {describe(given)}")
        same = len({type(label) for label in self.all}) == 1
        self.array = np.array(self.all, None if same else object)

    def ids(self, name: str, y, real=None, ignore=None) -> np.ndarray:
        """The classes of an array of labels, int64 of its shape: -1 for `ignore`, 0 where `real` is false.

        Raises ValueError that names the first that is none of them.
        """
        y = plain_array(name, y)
        find = {**self.index, **({} if ignore is None else {ignore: -1})}
        known = np.ones(y.shape, bool) if real is None else np.zeros(y.shape, bool)
        if real is not None:
            known[real] = True
        ids = np.zeros(y.shape, np.int64)
        found = [find.get(label) if isinstance(label, KINDS) else None for label in map(plain, y[known].tolist())]
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
    """A Python scalar of a NumPy one."""
    return value.item() if isinstance(value, np.generic) else value
