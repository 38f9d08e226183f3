"""An LSTM layer in a few lines of NumPy, float64: what files of other systems say, computed beside our own code."""

import numpy as np


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def lstm_layer(x, W, U, b, h=None, c=None, peephole=None):
    """x (T, I), W (4H, I), U (4H, H), b (4H,), gates i, f, g, o -> outputs (T, H)."""
    H = U.shape[1]
    W, U, b = (np.asarray(part, float) for part in (W, U, b))
    h, c = (np.zeros(H) if part is None else np.asarray(part, float) for part in (h, c))
    pi, pf, po = np.zeros((3, H)) if peephole is None else np.asarray(peephole, float)
    outputs = []
    for x_t in np.asarray(x, float):
        i, f, g, o = (W @ x_t + U @ h + b).reshape(4, H)
        c_old = c
        c = sigmoid(f + pf * c_old) * c_old + sigmoid(i + pi * c_old) * np.tanh(g)
        h = sigmoid(o + po * c) * np.tanh(c)
        outputs.append(h)
    return np.array(outputs)


def both_ways(x, forward, backward):
    """lstm_layer in both directions, each of its own arguments after x, side by side."""
    return np.concatenate([lstm_layer(x, *forward), lstm_layer(x[::-1], *backward)[::-1]], axis=1)
