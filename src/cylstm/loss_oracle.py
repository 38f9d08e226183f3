"""Losses in plain NumPy, to be read (see oracle.py): the weighted mean over tokens, and its gradient.

float64 throughout. Notation. N tokens, V classes, O outputs of each.
"""

from __future__ import annotations

import numpy as np

from cylstm.dense_oracle import sigmoid

__all__ = [
    "binary_cross_entropy", "gaussian", "huber", "mae", "mse", "quantiles", "softmax_cross_entropy",
]  # fmt: skip


def token_weights(count, weights):
    """weights (count,) of tokens, a mask (1 is real, 0 padding) included, made to sum to 1; None: all alike."""
    weights = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    return weights / weights.sum()


def element_weights(targets, weights):
    """targets (N, O), NaN where missing -> weights (N, O) that sum to 1 and are 0 there, and targets with 0 there."""
    weights = np.ones(len(targets)) if weights is None else np.asarray(weights, np.float64)
    missing = np.isnan(targets)
    weights = np.where(missing, 0, weights[:, None])
    return weights / weights.sum(), np.where(missing, 0, targets)


def softmax_cross_entropy(logits, targets, weights=None, *, smoothing=0.0):
    """logits (N, V), targets (N,) ids, weights (N,) or None -> mean loss per token, d loss / d logits.

    smoothing: the share of each target that goes to all V classes equally (Szegedy et al. 2016).
    """
    logits, weights = np.asarray(logits, np.float64), token_weights(len(logits), weights)
    # log sum_v exp(z_v) = m + log sum_v exp(z_v - m), m = max(z): no overflow, no log(0)
    largest = logits.max(axis=1, keepdims=True)
    log_sum = largest + np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
    log_p = logits - log_sum
    # loss = -sum_n w_n sum_v q_nv log p_nv, q = onehot(target), smoothed
    q = np.full(logits.shape, smoothing / logits.shape[1])
    q[np.arange(len(logits)), targets] += 1 - smoothing
    # d loss / d z = w (p - q)
    return -(weights[:, None] * q * log_p).sum(), weights[:, None] * (np.exp(log_p) - q)


def mse(outputs, targets, weights=None):
    """outputs, targets (N, O), NaN where missing -> mean of e^2, e = output - target, over what is there; gradient."""
    weights, targets = element_weights(targets, weights)
    error = np.asarray(outputs, np.float64) - targets
    return (weights * error**2).sum(), weights * 2 * error


def mae(outputs, targets, weights=None):
    """The same of |e|."""
    weights, targets = element_weights(targets, weights)
    error = np.asarray(outputs, np.float64) - targets
    return (weights * abs(error)).sum(), weights * np.sign(error)


def huber(outputs, targets, weights=None, *, delta):
    """The same of e^2 / 2, and of delta (|e| - delta / 2) where |e| > delta (Huber 1964)."""
    weights, targets = element_weights(targets, weights)
    error = np.asarray(outputs, np.float64) - targets
    loss = np.where(abs(error) > delta, delta * (abs(error) - delta / 2), error**2 / 2)
    return (weights * loss).sum(), weights * np.clip(error, -delta, delta)


def quantiles(outputs, targets, weights=None, *, quantiles):
    """y (N, O*Q), targets t (N, O) -> mean of max(q (t - y), (q - 1) (t - y)) (Koenker & Bassett 1978), gradient."""
    weights, targets = (np.repeat(a, len(quantiles), axis=1) for a in element_weights(targets, weights))
    weights, q = weights / len(quantiles), np.tile(quantiles, targets.shape[1] // len(quantiles))
    below = targets - np.asarray(outputs, np.float64)
    # d loss / d y = -q where y < t, 1 - q where y > t
    slope = np.where(below > 0, -q, np.where(below < 0, 1 - q, 0))
    return (weights * np.maximum(q * below, (q - 1) * below)).sum(), weights * slope


def gaussian(outputs, targets, weights=None, *, floor):
    """outputs (N, 2 O): a mean m and a log-variance s for each target (N, O) -> mean of -log N(t; m, v), v = exp(s) +
    floor (Nix & Weigend 1994), gradient."""
    weights, targets = element_weights(targets, weights)
    outputs = np.asarray(outputs, np.float64)
    error, spread = outputs[:, ::2] - targets, np.exp(outputs[:, 1::2])
    v = spread + floor
    loss = (np.log(2 * np.pi) + np.log(v) + error**2 / v) / 2
    gradient = np.empty_like(outputs)
    gradient[:, ::2] = weights * error / v
    gradient[:, 1::2] = weights * (1 - error**2 / v) * spread / v / 2
    return (weights * loss).sum(), gradient


def binary_cross_entropy(logits, targets, weights=None):
    """logits, targets in [0, 1] (N, O) -> mean over tokens and outputs, as of mse, of the loss, its gradient."""
    logits = np.asarray(logits, np.float64)
    weights, targets = element_weights(targets, weights)
    # -t log s(z) - (1 - t) log(1 - s(z)) = max(z, 0) - t z + log(1 + exp(-|z|))
    loss = np.maximum(logits, 0) - targets * logits + np.log1p(np.exp(-np.abs(logits)))
    return (weights * loss).sum(), weights * (sigmoid(logits) - targets)
