"""Layer norm in plain NumPy, to be read (see oracle.py).

float64 throughout. Notation. B rows, n numbers of each, which are normalised together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Norm", "normed", "normed_backward"]


def normed(z, eps):
    """z (B, n) -> z with mean 0 and variance 1 in each row, or a little less than 1, and 1 / its deviation (B, 1)."""
    # n = (z - mean(z)) / sqrt(mean((z - mean(z))^2) + eps) (Ba, Kiros & Hinton 2016)
    centred = z - z.mean(axis=1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + eps)
    return centred * scale, scale


def normed_backward(n, scale, dn):
    """dz (B, n) from what `normed` gave."""
    # dz = (dn - mean(dn) - n mean(dn n)) / deviation
    return scale * (dn - dn.mean(axis=1, keepdims=True) - n * (dn * n).mean(axis=1, keepdims=True))


class Norm(NamedTuple):
    """Of a cell: gains of x W' and of h R' (4H,), gain and shift of c (2, H); carried: whether it is the normalised c
    that the next step gets (PyTorch's LayerNormLSTMCell), not c itself (Ba et al.)."""

    carried: bool
    eps: float
    x: np.ndarray
    h: np.ndarray
    c: np.ndarray

    def seen(self, c):
        """What h = o tanh(.) is of, from c."""
        # LN(c) = gain n + shift
        return self.c[0] * normed(c, self.eps)[0] + self.c[1]

    def backward(self, c, dc, dseen):
        """Gradients by c (B, H), and by the gain and shift of c (2, H): from dc, by what the next step gets, and dseen,
        by what h is of."""
        n, scale = normed(c, self.eps)
        d = dseen + dc if self.carried else dseen
        by_c = normed_backward(n, scale, d * self.c[0])
        return by_c if self.carried else dc + by_c, np.stack([(d * n).sum(axis=0), d.sum(axis=0)])

    def part_backward(self, z, gain, dz):
        """Gradients by z = x W' or h R' (B, 4H), and by its gain (4H,)."""
        n, scale = normed(z, self.eps)
        return normed_backward(n, scale, dz * gain), (dz * n).sum(axis=0)
