"""The initial weights of a layer."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["LATER", "initialise", "orthogonal"]

LATER = object()  # as a seed: the weights come from elsewhere, and drawing some would take longer than reading those


def orthogonal(size: int, rng) -> np.ndarray:
    """A matrix (size, size) drawn uniformly from the orthogonal ones (Saxe, McClelland & Ganguli 2014)."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    # Without the signs of R's diagonal, Q would not be uniform (Mezzadri 2007).
    return q * np.sign(np.diag(r))


def initialise(parameters, forget_bias: float, rng) -> None:
    """weight_hh orthogonal gate by gate, weight_ih uniform with standard deviation 1/sqrt(fan_in), biases 0 but f's."""
    for name in parameters:
        values = parameters.raw(name)
        H = len(values) // 4
        if name.startswith("weight_ih"):
            bound = math.sqrt(3 / values.shape[1])
            values[...] = rng.uniform(-bound, bound, values.shape)
        elif name.startswith("weight_hh"):
            for gate in range(4):
                values[gate * H : (gate + 1) * H] = orthogonal(H, rng)
        else:
            values[...] = 0
            values[H : 2 * H] = forget_bias
    parameters.touch()
