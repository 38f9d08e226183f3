"""The head with its losses, embedding gradients and optimisers, against the oracle."""

import numpy as np
import pytest

from cylstm import _head, _ops, oracle

NAMES = {"cross_entropy": "softmax_cross_entropy", "mse": "mse", "binary_cross_entropy": "binary_cross_entropy"}


def head(rng, dtype, N, F, O):
    return (rng.standard_normal(shape).astype(dtype) for shape in ((N, F), (O, F), (O,)))


def some_targets(rng, kind, N, O, dtype):
    if kind == "cross_entropy":
        return rng.integers(0, O, N)
    return (rng.standard_normal((N, O)) if kind == "mse" else rng.random((N, O))).astype(dtype)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize(("N", "F", "O"), [(1, 3, 2), (7, 5, 17), (130, 33, 65), (300, 70, 2_203), (150, 7, 40_003)])
def test_losses_and_their_gradients(isa, dtype, rng, close, kind, with_bias, N, F, O):
    """The last two go in several chunks, the first of them in tiles where there are any."""
    h, weight, bias = head(rng, dtype, N, F, O)
    bias = bias if with_bias else None
    targets = some_targets(rng, kind, N, O, dtype)
    outputs = h.astype(float) @ weight.astype(float).T + (bias if with_bias else 0)
    loss, doutputs = getattr(oracle, NAMES[kind])(outputs, targets)
    dh, dweight, dbias = np.full_like(h, np.nan), np.full_like(weight, np.nan), np.full(O, np.nan, dtype)
    total, hits = _head.loss(kind, h, weight, bias, targets, scale=0.75 / N, dh=dh, dweight=dweight,
                            dbias=dbias if with_bias else None)  # fmt: skip
    assert total / N == pytest.approx(loss, rel={"float32": 1e-5, "float64": 1e-12}[dtype])
    close(dh, 0.75 * doutputs @ weight, "dh")
    close(dweight, 0.75 * doutputs.T @ h, "dweight")
    if with_bias:
        close(dbias, 0.75 * doutputs.sum(axis=0), "dbias")
    only, hits_only = _head.loss(kind, h, weight, bias, targets)
    assert only == total and hits_only == hits
    if kind == "cross_entropy":
        assert hits == (_head.linear(h, weight, bias).argmax(axis=1) == targets).sum()
    elif kind == "binary_cross_entropy":
        assert hits == ((_head.linear(h, weight, bias) > 0) == (targets > 0.5)).sum()
    else:
        assert hits == 0


def test_linear(isa, dtype, rng, close):
    h, weight, bias = head(rng, dtype, 13, 7, 33)
    close(_head.linear(h, weight, bias), h.astype(float) @ weight.T.astype(float) + bias)
    close(_head.linear(h, weight, None), h.astype(float) @ weight.T.astype(float))


def test_linear_in_chunks(isa, dtype, rng, close):
    """So much that Ctrl-C is heard on the way."""
    h, weight, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((1700, 300), (3001, 300), 3001))
    close(_head.linear(h, weight, bias), h.astype(float) @ weight.T.astype(float) + bias)


@pytest.mark.parametrize("kind", NAMES)
def test_a_nan_reaches_the_loss(isa, dtype, rng, kind):
    h, weight, bias = head(rng, dtype, 9, 5, 35)
    h[4, 2] = np.nan
    total, _ = _head.loss(kind, h, weight, bias, some_targets(rng, kind, 9, 35, dtype))
    assert np.isnan(total)


def test_equal_logits_hit_the_first_as_argmax_does(isa, dtype):
    weight = np.array([[0.5], [2.0], [2.0], [1.0]], dtype)
    h = np.array([[1.5]], dtype)
    assert [_head.loss("cross_entropy", h, weight, None, np.array([v]))[1] for v in range(4)] == [0, 1, 0, 0]


def test_binary_hits_are_on_the_same_side_of_one_half(isa, dtype):
    """Neither a logit of 0 nor a target of 1/2 is above it."""
    logits, targets = (np.ravel(a).astype(dtype)[:, None] for a in np.meshgrid([-1, 0, 1], [0.25, 0.5, 0.75]))
    weight = np.ones((1, 1), dtype)
    hits = [
        _head.loss("binary_cross_entropy", z[None], weight, None, t[None])[1]
        for z, t in zip(logits, targets, strict=True)
    ]
    assert hits == [1, 1, 0, 1, 1, 0, 0, 0, 1]


def test_large_logits_stay_finite(isa, dtype):
    weight, h = np.array([[900.0], [-900.0], [3.0]], dtype), np.array([[1.0]], dtype)
    dh, dweight = np.empty((1, 1), dtype), np.empty((3, 1), dtype)
    total, _ = _head.loss("cross_entropy", h, weight, None, np.array([1]), scale=1.0, dh=dh, dweight=dweight)
    assert total == 1800
    np.testing.assert_allclose(dweight[:, 0], [1, -1, 0], atol=1e-30)


@pytest.mark.parametrize(("V", "E", "N"), [(6, 7, 5), (6, 7, 0), (3000, 300, 700)])
def test_the_gradient_of_an_embedding_counts_repeated_ids(isa, dtype, rng, close, V, E, N):
    """The largest is shared out among threads."""
    ids, rows = rng.integers(0, max(1, V // 3), N), rng.standard_normal((N, E)).astype(dtype)
    out = np.full((V, E), np.nan, dtype)
    expected = np.zeros((V, E))
    np.add.at(expected, ids, rows)
    _ops.embedding_gradient(out, ids, rows)
    close(out, expected)


def test_sum_squares_and_scale(isa, dtype, rng):
    x = rng.standard_normal(10_007).astype(dtype)
    assert _ops.sum_squares(x) == pytest.approx((x.astype(float) ** 2).sum(), rel=1e-14)
    expected = x * np.dtype(dtype).type(-0.3)
    _ops.scale_inplace(x, -0.3)
    np.testing.assert_array_equal(x, expected)
    assert _ops.sum_squares(x[:0]) == 0


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam(isa, dtype, rng, close, decoupled, decay):
    p = rng.standard_normal(1003).astype(dtype)
    m, v = np.zeros_like(p), np.zeros_like(p)
    expected, moments = {"p": p.astype(float)}, ({"p": np.zeros(1003)}, {"p": np.zeros(1003)})
    for t in range(1, 6):
        g = rng.standard_normal(1003).astype(dtype)
        _ops.adam(p, g, m, v, t, 0.05, 0.85, 0.99, 1e-6, decay, decoupled, 0.5)
        oracle.adam(expected, {"p": 0.5 * g.astype(float)}, *moments, t, lr=0.05, betas=(0.85, 0.99), eps=1e-6,
                    weight_decay=decay, decoupled=decoupled)  # fmt: skip
    close(p, expected["p"])
    close(m, moments[0]["p"])
    close(v, moments[1]["p"])


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd(isa, dtype, rng, close, momentum, nesterov):
    p = rng.standard_normal(1003).astype(dtype)
    m = np.zeros_like(p) if momentum else None
    expected, buffers = {"p": p.astype(float)}, {"p": np.zeros(1003)}
    for _ in range(5):
        g = rng.standard_normal(1003).astype(dtype)
        _ops.sgd(p, g, m, 0.05, momentum, nesterov, 0.02, 0.5)
        oracle.sgd(expected, {"p": 0.5 * g.astype(float)}, buffers, lr=0.05, momentum=momentum, nesterov=nesterov,
                   weight_decay=0.02)  # fmt: skip
    close(p, expected["p"])
