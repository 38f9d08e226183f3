"""Each mistake that hand-written LSTMs make is put back into the oracle, and the gradient check must then fail.

A check that cannot fail proves nothing. Each mutation replaces one line of the oracle, which must be there exactly
once; the unchanged source passes the same check.
"""

import numpy as np
import pytest
from gradcheck import RTOL, gradient_error
from mistakes import is_found, mutated, worst_gradient_error

from cylstm import oracle

# name -> (the line as it is, the line with the mistake)
LAYER_MUTATIONS = {
    "h[t] for h[t+1]: the output of step t is the state before it": (
        "            h = (run.alive * run.h[1:])[clock]\n",
        "            h = (run.alive * run.h[:-1])[clock]\n",
    ),
    "tanh(tanh(C)) going forward": ("        h_t = o[t] * np.tanh(seen)\n",
                                    "        h_t = o[t] * np.tanh(np.tanh(seen))\n"),
    "C[t] for C[t+1] in the output gate": ("        tanh_c = np.tanh(seen)\n", "        tanh_c = np.tanh(c[t])\n"),
    "C[t-1] for C[t], which is the previous one, in the forget gate": ("        df = dc_t * c_prev\n",
                                                                       "        df = dc_t * c[t - 1]\n"),
    "C[t+1] for C[t] in the forget gate": ("        df = dc_t * c_prev\n", "        df = dc_t * c[t + 1]\n"),
    "tanh(tanh(C))": ("        do = dh_t * tanh_c\n", "        do = dh_t * np.tanh(tanh_c)\n"),
    "tanh(tanh(C)) in the derivative": ("        dseen = dh_t * o[t] * (1 - tanh_c**2)\n",
                                        "        dseen = dh_t * o[t] * (1 - np.tanh(tanh_c) ** 2)\n"),
    "f(1-f) missing": ("        dz_f = df * f[t] * (1 - f[t])\n", "        dz_f = df\n"),
    "i(1-i) missing": ("        dz_i = di * i[t] * (1 - i[t])\n", "        dz_i = di\n"),
    "sigmoid again instead of its derivative": ("        dz_o = do * o[t] * (1 - o[t])\n",
                                                "        dz_o = do * sigmoid(o[t])\n"),
    "tanh again instead of its derivative": ("        dz_g = dg * (1 - g[t] ** 2)\n",
                                             "        dz_g = dg * np.tanh(g[t])\n"),
    "a sigmoid's derivative for tanh's": ("        dz_g = dg * (1 - g[t] ** 2)\n",
                                          "        dz_g = dg * g[t] * (1 - g[t])\n"),
    "h[t+1] for h[t]: R trained on the wrong step's state": ("dR += dR_t\n", "dR += dz_h.T @ h[t + 1]\n"),
    "h[t-1] for h[t]: R trained on the wrong step's state": ("dR += dR_t\n", "dR += dz_h.T @ h[t - 1]\n"),
    "W trained on the wrong step's input": ("        dW += dz_x.T @ x[t]\n", "        dW += dz_x.T @ x[t - 1]\n"),
    "no gradient through the next step's c": ("        dc = keep[t] * dc_prev + (1 - alive[t]) * dc\n",
                                              "        dc = np.zeros_like(dc)\n"),
    "no gradient through the next step's h": ("        dh = keep[t] * dh_prev + (1 - alive[t]) * dh\n",
                                              "        dh = np.zeros_like(dh)\n"),
}  # fmt: skip
LOSS_MUTATIONS = {
    "log without the log-sum-exp": ("    log_p = logits - log_sum\n", "    log_p = np.log(np.abs(logits))\n"),
    "a bare log of the softmax": (
        "    log_sum = largest + np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))\n",
        "    log_sum = np.log(np.exp(logits).sum(axis=1, keepdims=True))\n",
    ),
    "averaged over sequences instead of tokens": ("    return weights / weights.sum()\n", "    return weights / 3\n"),
}


def test_the_unchanged_oracle_passes():
    assert worst_gradient_error(mutated("        # z = W x_t + R h_{t-1} + b\n", "")) <= RTOL


@pytest.mark.parametrize("mistake", LAYER_MUTATIONS)
def test_a_mistake_in_the_layer_fails_the_gradient_check(mistake):
    assert is_found(mutated(*LAYER_MUTATIONS[mistake]), {})


def loss_check(module):
    """Raises AssertionError unless the loss per token of a ragged batch is right: value, gradient, large logits."""
    rng = np.random.default_rng(6)
    logits, targets = rng.standard_normal((15, 4)) * 2, rng.integers(0, 4, 15)
    real = (np.arange(5) < np.array([5, 2, 3])[:, None]).ravel()
    loss, gradient = module.softmax_cross_entropy(logits, targets, real)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.mean([-np.log(p[n, targets[n]]) for n in np.flatnonzero(real)])
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    assert gradient_error(lambda: module.softmax_cross_entropy(logits, targets, real)[0], logits, gradient) <= RTOL
    with np.errstate(all="ignore"):
        loss, gradient = module.softmax_cross_entropy(np.array([[900.0, -5.0], [3.0, 2.0]]), np.array([1, 0]))
    assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_the_unchanged_loss_passes():
    loss_check(oracle)


@pytest.mark.parametrize("mistake", LOSS_MUTATIONS)
def test_a_mistake_in_the_loss_fails_its_check(mistake):
    with pytest.raises(AssertionError):
        loss_check(mutated(*LOSS_MUTATIONS[mistake]))
