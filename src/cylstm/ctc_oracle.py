"""CTC in plain NumPy, written to be read (see oracle.py): what the compiled loss and the decoders are checked against.

Graves, Fernández, Gomez & Schmidhuber 2006, "Connectionist temporal classification". float64 throughout, in log space.

Notation. T steps, V classes, one of them the blank, L labels. An alignment gives each step a class; merging its runs of
equal classes, then dropping its blanks, leaves a labelling. The S = 2L + 1 states of a labelling are its labels with a
blank before, between and behind them.
"""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np

__all__ = ["ctc_loss", "ctc_probabilities", "log_softmax"]


def log_softmax(logits):
    """logits (..., V) -> their log probabilities."""
    # log softmax(z)_v = z_v - m - log sum_u exp(z_u - m), m = max(z)
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def over_blanks(states, blank):
    """(S,) whether a state can follow on the one two before it, over a blank: between labels that differ."""
    allowed = np.zeros(len(states), bool)
    allowed[2:] = (states[2:] != blank) & (states[2:] != states[:-2])
    return allowed


def arrivals(log_p, over):
    """log sum_r move(r, s) p(r), (S,): from s itself, from s - 1 and, where over[s], from s - 2."""
    from_1, from_2 = (np.concatenate([np.full(n, -np.inf), log_p])[:-n] for n in (1, 2))
    return np.logaddexp(np.logaddexp(log_p, from_1), np.where(over, from_2, -np.inf))


def ctc_loss(logits, labels, blank=0):
    """One row: logits (T, V), labels (L,) -> -log p(labels | logits), and its gradient by the logits, (T, V).

    A row that no alignment fits, T < L + the number of equal neighbours among labels, has the loss infinity and the
    gradient 0.
    """
    log_y = log_softmax(logits)
    T, _ = log_y.shape
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    over, over_back, log_y_s = over_blanks(states, blank), over_blanks(states[::-1], blank), log_y[:, states]
    log_alpha, log_beta = np.full((2, T, len(states)), -np.inf)
    # alpha_0(s) = y_0(s) of the first blank and the first label
    log_alpha[0, :2] = log_y_s[0, :2]
    for t in range(1, T):
        # alpha_t(s) = y_t(s) sum_r move(r, s) alpha_{t-1}(r)
        log_alpha[t] = log_y_s[t] + arrivals(log_alpha[t - 1], over)
    # beta_{T-1}(s) = 1 of the last label and the last blank
    log_beta[-1, -2:] = 0
    for t in reversed(range(T - 1)):
        # beta_t(r) = sum_s move(r, s) y_{t+1}(s) beta_{t+1}(s)
        log_beta[t] = arrivals((log_y_s[t + 1] + log_beta[t + 1])[::-1], over_back)[::-1]
    # p = sum_s alpha_t(s) beta_t(s), whatever t
    log_p = np.logaddexp.reduce(log_alpha + log_beta, axis=1)
    if log_p[-1] == -np.inf:
        return np.inf, np.zeros_like(log_y)
    # d loss / d z_t(v) = y_t(v) - 1/p sum over the states s of class v of alpha_t(s) beta_t(s)
    shares = np.exp(log_alpha + log_beta - log_p[:, None])
    dlogits = np.exp(log_y)
    for s, v in enumerate(states):
        dlogits[:, v] -= shares[:, s]
    return -log_p[-1], dlogits


def ctc_probabilities(logits, blank=0):
    """logits (T, V) -> the probability of every labelling, a dict by tuple of labels, from all V^T alignments."""
    y = np.exp(log_softmax(logits))
    found = {}
    for alignment in product(range(y.shape[1]), repeat=len(y)):
        merged = [alignment[0]] + [v for u, v in pairwise(alignment) if v != u]
        labels = tuple(v for v in merged if v != blank)
        # p(labels) = sum over its alignments of prod_t y_t(alignment_t)
        found[labels] = found.get(labels, 0.0) + y[np.arange(len(y)), alignment].prod()
    return found
