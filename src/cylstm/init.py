"""Initial weights: functions that fill one parameter's array in place."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["LATER", "forget_gate", "gain_and_shift", "mostly_carried", "ones", "orthogonal_gates", "uniform", "zeros"]

LATER = object()  # as a seed: the weights come from elsewhere, and drawing some would take longer than reading those


def uniform(values, forget_bias, rng) -> None:
    """Standard deviation 1/sqrt(fan_in)."""
    bound = math.sqrt(3 / values.shape[1])
    values[...] = rng.uniform(-bound, bound, values.shape)


def orthogonal_gates(values, forget_bias, rng) -> None:
    """Each gate drawn uniformly from the orthogonal matrices (Saxe, McClelland & Ganguli 2014)."""
    for gate in np.split(values, 4):
        q, r = np.linalg.qr(rng.standard_normal(gate.shape))
        # Without the signs of R's diagonal, Q would not be uniform (Mezzadri 2007).
        gate[...] = q * np.sign(np.diag(r))


def forget_gate(values, forget_bias, rng) -> None:
    """0, but for the forget gate's."""
    values[...] = 0
    np.split(values, 4)[1][...] = forget_bias


def ones(values, forget_bias, rng) -> None:
    """Draws nothing."""
    values[...] = 1


def gain_and_shift(values, forget_bias, rng) -> None:
    """1 and 0: draws nothing."""
    values[0], values[1] = 1, 0


def mostly_carried(values, forget_bias, rng) -> None:
    """-1: layers give more of what goes into them than of their own at first (Srivastava, Greff & Schmidhuber 2015)."""
    values[...] = -1


def zeros(values, forget_bias, rng) -> None:
    """Draws nothing: the other weights of a seed are the same with and without these."""
    values[...] = 0
