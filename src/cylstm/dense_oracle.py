"""Dense layers and embeddings in plain NumPy, to be read (see oracle.py): what models with them are checked against.

float64 throughout. Notation. N rows, F features of each, S outputs. Weights as in PyTorch: W (S, F), b (S,).
"""

from __future__ import annotations

import numpy as np

__all__ = ["ACTIVATIONS", "activation", "dense", "dense_backward", "embedded", "embedded_backward", "sigmoid"]


def sigmoid(z):
    # s = 1 / (1 + exp(-z)), e = exp(-|z|): no overflow, and all digits of a gate that is nearly shut
    e = np.exp(-abs(z))
    return np.where(z < 0, e, 1) / (1 + e)


def gelu(z):
    # a = sqrt(2 / pi) (z + 0.044715 z^3), f = z (1 + tanh(a)) / 2 (Hendrycks & Gimpel 2016)
    t = np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))
    # f' = (1 + t) / 2 + z (1 - t^2) a' / 2
    return z * (1 + t) / 2, (1 + t) / 2 + z * (1 - t**2) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * z**2) / 2


def elu(z, alpha=1.0, scale=1.0):
    # f = z where z > 0, else alpha (exp(z) - 1) (Clevert, Unterthiner & Hochreiter 2016), times a scale
    low = np.minimum(z, 0)
    return scale * np.where(z > 0, z, alpha * np.expm1(low)), scale * np.where(z > 0, 1, alpha * np.exp(low))


def scaled_tanh(z, alpha=1.0, beta=1.0):
    # f = alpha tanh(beta z)
    t = np.tanh(beta * z)
    return alpha * t, alpha * beta * (1 - t**2)


def bounded(z, alpha, beta, low, high):
    # f = alpha z + beta, within low..high
    f = alpha * z + beta
    return np.clip(f, low, high), alpha * ((low < f) & (f < high))


# f(z) and f'(z) of each, whose numbers follow z
ACTIVATIONS = {
    "linear": lambda z: (z, np.ones_like(z)),
    "relu": lambda z: (np.maximum(z, 0), (z > 0) * 1.0),
    "leaky_relu": lambda z, alpha=0.01: (np.where(z > 0, z, alpha * z), np.where(z > 0, 1, alpha)),
    "tanh": scaled_tanh,
    "sigmoid": lambda z: (sigmoid(z), sigmoid(z) * (1 - sigmoid(z))),
    "elu": elu,
    "softplus": lambda z: (np.logaddexp(0, z), sigmoid(z)),
    "softsign": lambda z: (z / (1 + abs(z)), 1 / (1 + abs(z)) ** 2),
    "gelu_tanh": gelu,
    "silu": lambda z: (z * sigmoid(z), sigmoid(z) + z * sigmoid(z) * (1 - sigmoid(z))),
    "affine": lambda z, alpha, beta: bounded(z, alpha, beta, -np.inf, np.inf),
    "exponential": lambda z: (np.exp(z), np.exp(z)),
    "hard_sigmoid": lambda z, alpha=0.2, beta=0.5: bounded(z, alpha, beta, 0, 1),
    "hard_tanh": lambda z: bounded(z, 1, 0, -1, 1),
    "relu6": lambda z: bounded(z, 1, 0, 0, 6),
    "scaled_tanh": scaled_tanh,
    # Klambauer et al. 2017
    "selu": lambda z: elu(z, 1.6732632423543772, 1.0507009873554805),
    "thresholded_relu": lambda z, alpha=1.0: (np.where(z > alpha, z, 0), (z > alpha) * 1.0),
}


def activation(given, z):
    """f(z) and f'(z) of an activation: a name, or a tuple of a name and its numbers."""
    name, *numbers = (given,) if isinstance(given, str) else given
    return ACTIVATIONS[name](z, *numbers)


def dense(h, W, b, f, mask=1.0):
    """h (N, F) -> y (N, S). mask (N, S): of dropout, 1 / (1 - p) where an output is kept, else 0."""
    # z = W h + b,  y = mask f(z)
    return mask * activation(f, h @ W.T + b)[0]


def dense_backward(h, W, b, f, dy, mask=1.0):
    """dy (N, S) = d loss / d y -> dh, dW, db."""
    # dz = mask dy f'(z)
    dz = mask * dy * activation(f, h @ W.T + b)[1]
    # dh = W' dz,  dW = sum_n dz h',  db = sum_n dz
    return dz @ W, dz.T @ h, dz.sum(axis=0)


def embedded(x, tables):
    """x (N, I), tables {column: (V, E)} -> the other columns, then the row of each table that its column names."""
    numbers = np.delete(x, list(tables), axis=1)
    return np.concatenate([numbers, *(table[x[:, column].astype(int)] for column, table in tables.items())], axis=1)


def embedded_backward(x, tables, d):
    """d = d loss / d features -> dx (N, I), 0 in the columns with tables, and {column: d loss / d table}."""
    dx, dtables = np.zeros(x.shape), {column: np.zeros(table.shape) for column, table in tables.items()}
    start = x.shape[1] - len(tables)
    dx[:, [column for column in range(x.shape[1]) if column not in tables]] = d[:, :start]
    for column, dtable in dtables.items():
        # d table_v = the sum of d over the rows that have v
        np.add.at(dtable, x[:, column].astype(int), d[:, start : start + dtable.shape[1]])
        start += dtable.shape[1]
    return dx, dtables
