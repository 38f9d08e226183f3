"""Something small to learn, for the tests of training."""

import numpy as np

from cylstm import Model

V = 7


def make(**options):
    return Model(V, 12, V, **{"seed": 1, "dtype": "float64", **options})


def sequences(rng, lengths):
    """Ragged next-token data with something to learn: each token is the one before plus 1 or 2."""
    ids = [np.cumsum(rng.integers(1, 3, n + 1)) % V for n in lengths]
    return [row[:-1] for row in ids], [row[1:] for row in ids]
