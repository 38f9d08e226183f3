"""Parts of a batch, as ranks share them out: which rows each has, the order in which gradients are added, states."""

from __future__ import annotations

import numpy as np

from cylstm.state import State

__all__ = ["TreeSum", "by_part", "cut", "joined"]


def cut(sizes, parts) -> np.ndarray:
    """Where parts of neighbouring rows begin and end, (parts + 1,), about as large each: a row is in the part in which
    its middle lies. sizes : (B,) integers >= 0."""
    ends = np.cumsum(sizes, dtype=np.int64)
    total = max(1, int(ends[-1]))
    place = (2 * ends - sizes) * parts // (2 * total)
    return np.searchsorted(np.minimum(place, parts - 1), np.arange(parts + 1))


class TreeSum:
    """The sum of arrays in the order of a binary tree, ((0 + 1) + (2 + 3)) + ...; of n it keeps log2(n) at most."""

    def __init__(self, like):
        self.like, self.stack, self.free = like, [], []  # of (how many, their sum)

    def add(self, array, more=False) -> None:
        """Take one in. more : it is a part of the last one."""
        if more:
            self.stack[-1][1][:] += array
            return
        self._merge(lambda last, before: last == before)
        taken = self.free.pop() if self.free else np.empty_like(self.like)
        taken[:] = array
        self.stack.append((1, taken))

    def value(self) -> np.ndarray:
        """Of all."""
        self._merge(lambda last, before: True)
        return self.stack[0][1]

    def _merge(self, wanted):
        while len(self.stack) > 1 and wanted(self.stack[-1][0], self.stack[-2][0]):
            count, last = self.stack.pop()
            self.stack[-1][1][:] += last
            self.stack[-1] = (self.stack[-1][0] + count, self.stack[-1][1])
            self.free.append(last)


def joined(state) -> State | None:
    """Of states by part, None for a part without rows, that of all rows; None where there is none."""
    parts = [one for _, one in sorted((state or {}).items()) if one is not None]
    if not parts:
        return None
    return State(*(np.concatenate([getattr(one, name) for one in parts], axis=1) for name in "hc"))


def by_part(state, begins, own) -> dict[int, State | None]:
    """The reverse of `joined`, of some parts. begins : as `cut` gives them."""
    sections = {part: slice(begins[part], begins[part + 1]) for part in own}
    return {part: State(*(one[:, rows] for one in state)) if rows.start < rows.stop else None
            for part, rows in sections.items()}  # fmt: skip
