"""The head with its losses, embedding gradients and optimisers, against the oracle."""

import functools

import numpy as np
import pytest

from cylstm import losses, oracle
from cylstm._core import head, updates
from cylstm._core.gradients import embedding_gradient

# Those of Model(loss=...), and the oracle's.
NAMES = {
    "cross_entropy": "softmax_cross_entropy",
    **{name: name for name in ("mse", "mae", "huber", "quantiles", "gaussian", "binary_cross_entropy")},
}
KINDS = {
    **{name: losses.by_name[name] for name in NAMES},
    "smoothed": losses.CrossEntropy(smoothing=0.2),
    "floor": losses.Gaussian(floor=0.3),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def in_oracle(kind):
    return functools.partial(getattr(oracle, NAMES[kind.name]), **vars(kind))


def fitting(kind, O):
    """So many outputs, or a few more, as the loss can have."""
    each = {"pinball": 3, "gaussian": 2}.get(kind.kernel, 1)
    return -(-O // each) * each


def random_head(rng, dtype, N, F, O):
    return (rng.standard_normal(shape).astype(dtype) for shape in ((N, F), (O, F), (O,)))


def some_targets(rng, kind, N, O, dtype):
    if kind.of_classes:
        return rng.integers(0, O, N)
    return rng.random((N, *kind.width(O))).astype(dtype)


def apart(kind, outputs, targets):
    """Targets moved away from outputs that rounding could put on their other side, where the slope has a step."""
    if kind.kernel not in ("absolute_error", "pinball"):
        return targets
    for _ in range(20):
        close = abs(outputs.reshape(*targets.shape, -1) - targets[..., None]) < 1e-4
        targets = np.where(close.any(axis=-1), targets + targets.dtype.type(3e-4), targets)
    assert not close.any()
    return targets


def some_hits(kind, outputs, targets):
    """(N,), by NumPy."""
    if kind.of_classes:
        return outputs.argmax(axis=1) == targets
    if isinstance(kind, losses.BinaryCrossEntropy):
        return ((outputs > 0) == (targets > 0.5)).sum(axis=1)
    return np.zeros(len(outputs))


def test_every_loss_is_tested():
    assert [name for name, loss in losses.by_name.items() if not loss.of_rows] == list(NAMES)


@pytest.mark.parametrize(("N", "F", "O", "with_bias"),
                         [(1, 3, 2, True), (1, 3, 2, False), (7, 5, 17, True), (7, 5, 17, False),
                          (130, 33, 65, True), (130, 33, 65, False), (300, 70, 2_203, True),
                          (150, 7, 9_007, False)])  # fmt: skip
def test_losses_and_their_gradients(isa, dtype, rng, close, kind, N, F, O, with_bias):
    """The last two go in several chunks, the first of them in tiles where there are any, the other in low ones."""
    O = fitting(kind, O)
    h, weight, bias = random_head(rng, dtype, N, F, O)
    bias = bias if with_bias else None
    targets = some_targets(rng, kind, N, O, dtype)
    outputs = h.astype(float) @ weight.astype(float).T + (bias if with_bias else 0)
    targets = apart(kind, outputs, targets)
    loss, doutputs = in_oracle(kind)(outputs, targets)
    dh, dweight, dbias = np.full_like(h, np.nan), np.full_like(weight, np.nan), np.full(O, np.nan, dtype)
    sums = head.loss(kind, h, weight, bias, targets, scale=0.75 / N, dh=dh, dweight=dweight,
                      dbias=dbias if with_bias else None)  # fmt: skip
    total, count, hits = sums
    assert count == N
    assert total / N == pytest.approx(loss, rel={"float32": 1e-5, "float64": 1e-12}[dtype])
    close(dh, 0.75 * doutputs @ weight, "dh")
    close(dweight, 0.75 * doutputs.T @ h, "dweight")
    if with_bias:
        close(dbias, 0.75 * doutputs.sum(axis=0), "dbias")
    assert hits == some_hits(kind, head.linear(h, weight, bias), targets).sum()
    assert head.loss(kind, h, weight, bias, targets) == sums


@pytest.mark.parametrize(("N", "F", "O"), [(7, 5, 17), (40, 3, 1), (300, 70, 2_203)])
def test_rows_count_by_their_weights(isa, dtype, rng, close, kind, N, F, O):
    O = max(2, O) if kind.of_classes else fitting(kind, O)
    h, weight, bias = random_head(rng, dtype, N, F, O)
    targets, weights = some_targets(rng, kind, N, O, dtype), rng.exponential(2, N).astype(dtype)
    weights[2::3] = 0
    outputs = h.astype(float) @ weight.astype(float).T + bias
    targets = apart(kind, outputs, targets)
    loss, doutputs = in_oracle(kind)(outputs, targets, weights)
    dh, dweight, dbias = np.full_like(h, np.nan), np.full_like(weight, np.nan), np.full(O, np.nan, dtype)
    whole = weights.sum(dtype=float)
    sums = head.loss(kind, h, weight, bias, targets, weights=weights, scale=0.75 / whole, dh=dh, dweight=dweight,
                      dbias=dbias)  # fmt: skip
    hits = some_hits(kind, head.linear(h, weight, bias), targets)
    assert sums[0] / whole == pytest.approx(loss, rel={"float32": 1e-5, "float64": 1e-12}[dtype])
    assert sums[1:] == pytest.approx((whole, (weights * hits.astype(float)).sum()), rel=1e-12)
    close(dh, 0.75 * doutputs @ weight, "dh")
    close(dweight, 0.75 * doutputs.T @ h, "dweight")
    close(dbias, 0.75 * doutputs.sum(axis=0), "dbias")
    assert head.loss(kind, h, weight, bias, targets, weights=weights) == sums


def test_weights_of_one_change_no_bit(isa, dtype, rng, kind):
    h, weight, bias = random_head(rng, dtype, 50, 9, 36)
    targets, results = some_targets(rng, kind, 50, 36, dtype), []
    for weights in (None, np.ones(50, dtype)):
        dh, dweight, dbias = np.empty_like(h), np.empty_like(weight), np.empty_like(bias)
        sums = head.loss(kind, h, weight, bias, targets, weights=weights, scale=0.3, dh=dh, dweight=dweight,
                          dbias=dbias)  # fmt: skip
        results.append([array.tobytes() for array in (dh, dweight, dbias)] + [sums])
    assert results[0] == results[1]


def test_a_row_of_weight_0_may_hold_anything(isa, dtype, rng, kind):
    """Even a class that there is not: the kernel does not look."""
    h, weight, bias = random_head(rng, dtype, 20, 4, 6)
    targets, weights, results = some_targets(rng, kind, 20, 6, dtype), np.ones(20, dtype), []
    weights[[3, 19]] = 0
    for other in (0, 2**40 if kind.of_classes else np.nan):
        targets[[3, 19]] = other
        dh, dweight = np.empty_like(h), np.empty_like(weight)
        sums = head.loss(kind, h, weight, bias, targets, weights=weights, scale=1.0, dh=dh, dweight=dweight)
        assert not dh[[3, 19]].any() and np.isfinite(dweight).all()
        results.append((sums, dh.tobytes(), dweight.tobytes()))
    assert results[0] == results[1] and sums[1] == 18


def changed(**attributes):
    return type("Changed", (losses.SquaredError,), attributes)()


def test_pieces_change_only_the_order_of_sums(dtype, rng):
    h, weight, bias = random_head(rng, dtype, 300, 5, 7)
    targets = some_targets(rng, changed(), 300, 7, dtype)
    expected = head.loss(changed(), h, weight, bias, targets)
    for piece in (1, 7, 100, 1000):
        dh, dweight = np.empty_like(h), np.empty_like(weight)
        sums = head.loss(changed(piece=piece), h, weight, bias, targets, scale=1.0, dh=dh, dweight=dweight)
        assert sums == pytest.approx(expected, rel=1e-12)


def test_what_the_head_is_given_must_fit(dtype, rng, kind):
    h, weight, bias = random_head(rng, dtype, 6, 4, 6)
    targets = some_targets(rng, kind, 6, 6, dtype)
    other = some_targets(rng, losses.by_name["mse" if kind.of_classes else "cross_entropy"], 6, 6, dtype)
    for wrong in (targets[1:], other):
        with pytest.raises(ValueError, match=r"expected|Buffer"):
            head.loss(kind, h, weight, bias, wrong)
    right = dict(dh=h.copy(), dweight=weight.copy(), dbias=bias.copy())
    for wrong in (dict(weights=np.ones(5, dtype)), dict(groups=0), dict(dh=right["dh"]),
                  *({**right, name: values[1:]} for name, values in right.items()),
                  *({**right, name: right[name][:, 1:].copy()} for name in ("dh", "dweight"))):  # fmt: skip
        with pytest.raises(ValueError, match="targets, weights, dh, dweight, dbias: expected shapes"):
            head.loss(kind, h, weight, bias, targets, **wrong)
    for wrong in ((weight[:, 1:].copy(), bias), (weight, bias[1:])):
        with pytest.raises(ValueError, match="weight, bias: expected"):
            head.linear(h, *wrong)
    with pytest.raises(ValueError, match="h: expected at least one row, got none"):
        head.loss(kind, h[:0], weight, bias, targets[:0])
    with pytest.raises(ValueError, match=r"kernel: expected a loss of kernels.def, got 'sgd'"):
        head.loss(changed(kernel="sgd"), h, weight, bias, rng.random((6, 6)).astype(dtype))


def test_linear(isa, dtype, rng, close):
    h, weight, bias = random_head(rng, dtype, 13, 7, 33)
    close(head.linear(h, weight, bias), h.astype(float) @ weight.T.astype(float) + bias)
    close(head.linear(h, weight, None), h.astype(float) @ weight.T.astype(float))


def test_linear_in_chunks(isa, dtype, rng, close):
    """So much that Ctrl-C is heard on the way."""
    h, weight, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((1700, 300), (3001, 300), 3001))
    close(head.linear(h, weight, bias), h.astype(float) @ weight.T.astype(float) + bias)


def test_a_nan_reaches_the_loss(isa, dtype, rng, kind):
    h, weight, bias = random_head(rng, dtype, 9, 5, 36)
    h[4, 2] = np.nan
    assert np.isnan(head.loss(kind, h, weight, bias, some_targets(rng, kind, 9, 36, dtype))[0])


def test_equal_logits_hit_the_first_as_argmax_does(isa, dtype):
    weight = np.array([[0.5], [2.0], [2.0], [1.0]], dtype)
    h = np.array([[1.5]], dtype)
    kind = losses.CrossEntropy()
    assert [head.loss(kind, h, weight, None, np.array([v]))[2] for v in range(4)] == [0, 1, 0, 0]


def test_binary_hits_are_on_the_same_side_of_one_half(isa, dtype):
    """Neither a logit of 0 nor a target of 1/2 is above it."""
    logits, targets = (np.ravel(a).astype(dtype)[:, None] for a in np.meshgrid([-1, 0, 1], [0.25, 0.5, 0.75]))
    weight = np.ones((1, 1), dtype)
    hits = [
        head.loss(losses.BinaryCrossEntropy(), z[None], weight, None, t[None])[2]
        for z, t in zip(logits, targets, strict=True)
    ]
    assert hits == [1, 1, 0, 1, 1, 0, 0, 0, 1]


def test_large_logits_stay_finite(isa, dtype):
    weight, h = np.array([[900.0], [-900.0], [3.0]], dtype), np.array([[1.0]], dtype)
    dh, dweight = np.empty((1, 1), dtype), np.empty((3, 1), dtype)
    found = head.loss(losses.CrossEntropy(), h, weight, None, np.array([1]), scale=1.0, dh=dh, dweight=dweight)
    assert found[0] == 1800
    np.testing.assert_allclose(dweight[:, 0], [1, -1, 0], atol=1e-30)


@pytest.mark.parametrize(("V", "E", "N"), [(6, 7, 5), (6, 7, 0), (3000, 300, 700)])
def test_the_gradient_of_an_embedding_counts_repeated_ids(isa, dtype, rng, close, V, E, N):
    """The largest is shared out among threads."""
    ids, rows = rng.integers(0, max(1, V // 3), N), rng.standard_normal((N, E)).astype(dtype)
    out = np.full((V, E), np.nan, dtype)
    expected = np.zeros((V, E))
    np.add.at(expected, ids, rows)
    embedding_gradient(out, ids, rows)
    close(out, expected)


@pytest.mark.parametrize("n", [1, 10_007, 140_003])
def test_sum_squares_and_scale(isa, dtype, rng, n):
    x = rng.standard_normal(n).astype(dtype)
    assert updates.sum_squares(x) == pytest.approx((x.astype(float) ** 2).sum(), rel=1e-13)
    expected = x * np.dtype(dtype).type(-0.3)
    updates.scale_inplace(x, -0.3)
    np.testing.assert_array_equal(x, expected)
    assert updates.sum_squares(x[:0]) == 0


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("n", [1, 1003, 140_003])
def test_adam(isa, dtype, rng, close, decoupled, decay, n):
    """The last is cut into pieces."""
    p = rng.standard_normal(n).astype(dtype)
    m, v = np.zeros_like(p), np.zeros_like(p)
    expected, moments = {"p": p.astype(float)}, ({"p": np.zeros(n)}, {"p": np.zeros(n)})
    for t in range(1, 6):
        g = rng.standard_normal(n).astype(dtype)
        updates.adam(p, g, m, v, t, 0.05, 0.85, 0.99, 1e-6, decay, decoupled, 0.5)
        oracle.adam(expected, {"p": 0.5 * g.astype(float)}, *moments, t, lr=0.05, betas=(0.85, 0.99), eps=1e-6,
                    weight_decay=decay, decoupled=decoupled)  # fmt: skip
    close(p, expected["p"])
    close(m, moments[0]["p"])
    close(v, moments[1]["p"])


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("n", [1, 1003, 140_003])
def test_sgd(isa, dtype, rng, close, momentum, nesterov, n):
    p = rng.standard_normal(n).astype(dtype)
    m = np.zeros_like(p) if momentum else None
    expected, buffers = {"p": p.astype(float)}, {"p": np.zeros(n)}
    for _ in range(5):
        g = rng.standard_normal(n).astype(dtype)
        updates.sgd(p, g, m, 0.05, momentum, nesterov, 0.02, 0.5)
        oracle.sgd(expected, {"p": 0.5 * g.astype(float)}, buffers, lr=0.05, momentum=momentum, nesterov=nesterov,
                   weight_decay=0.02)  # fmt: skip
    close(p, expected["p"])


def test_the_slope_at_the_corners():
    """Where output and target are the same nothing pulls; Huber's parabola goes over into its lines without a step."""
    h, weight = np.array([[1.0]]), np.array([[0.25], [0.75], [2.0], [-2.0]])
    targets = np.array([[0.25, 0.25, 0.25, 0.25]])

    def slopes(kind, targets=targets):
        dh, dweight = np.empty_like(h), np.empty_like(weight)
        total, _, _ = head.loss(kind, h, weight, None, targets, scale=4.0, dh=dh, dweight=dweight)
        return 4 * total, dweight[:, 0].tolist()

    assert slopes(losses.AbsoluteError()) == (0.5 + 1.75 + 2.25, [0, 1, 1, -1])
    assert slopes(losses.Huber(0.5)) == (0.125 + 0.5 * 1.5 + 0.5 * 2, [0, 0.5, 0.5, -0.5])
    assert slopes(losses.Huber(2.0)) == (0.125 + 1.75**2 / 2 + 2 * 1.25, [0, 0.5, 1.75, -2])
    quantiles = losses.Quantiles([0.25, 0.5])  # of 0.25 and of 1.0
    assert slopes(quantiles, np.array([[0.25, 1.0]])) == (0 + 0.25 + 0.75 + 1.5, [0, 0.5, 0.75, -0.5])


@pytest.mark.parametrize("kind", [name for name in KINDS if not KINDS[name].of_classes], indirect=True)
@pytest.mark.parametrize(
    ("N", "F", "O", "weighted"),
    [(7, 5, 17, False), (7, 5, 17, True), (41, 3, 1, False), (41, 3, 1, True), (300, 70, 2_203, True)],
)
def test_missing_targets_count_for_nothing(isa, dtype, rng, close, kind, N, F, O, weighted):
    """Some of a row's targets, or all; each of a row's counts for an equal share of its weight."""
    O = fitting(kind, O)
    h, weight, bias = random_head(rng, dtype, N, F, O)
    targets, weights = some_targets(rng, kind, N, O, dtype), rng.exponential(2, N).astype(dtype)
    outputs = h.astype(float) @ weight.astype(float).T + bias
    targets = apart(kind, outputs, targets)
    targets[rng.random(targets.shape) < 0.4] = np.nan
    targets[3], weights[5] = np.nan, 0
    weights = weights if weighted else None
    loss, doutputs = in_oracle(kind)(outputs, targets.astype(float), weights)
    dh, dweight, dbias = np.full_like(h, np.nan), np.full_like(weight, np.nan), np.full(O, np.nan, dtype)
    each = np.ones(N) if weights is None else weights.astype(float)
    whole = (each * (~np.isnan(targets)).mean(axis=1)).sum()
    sums = head.loss(kind, h, weight, bias, targets, weights=weights, scale=0.75 / whole, dh=dh, dweight=dweight,
                     dbias=dbias)  # fmt: skip
    assert sums[1] == pytest.approx(whole, rel=1e-12)
    assert sums[0] / whole == pytest.approx(loss, rel={"float32": 1e-5, "float64": 1e-12}[dtype])
    close(dh, 0.75 * doutputs @ weight, "dh")
    close(dweight, 0.75 * doutputs.T @ h, "dweight")
    close(dbias, 0.75 * doutputs.sum(axis=0), "dbias")
    assert not dh[3].any()
    assert head.loss(kind, h, weight, bias, targets, weights=weights) == sums


def test_one_class_alone_is_certain(isa, dtype):
    """Whatever the next rows hold."""
    h, weight = np.array([[-900.0], [5], [800], [0], [-900]], dtype), np.ones((1, 1), dtype)
    dh, dweight = np.empty_like(h), np.empty_like(weight)
    sums = head.loss(losses.CrossEntropy(), h, weight, None, np.zeros(5, np.int64), scale=1.0, dh=dh, dweight=dweight)
    assert sums == (0, 5, 5) and not dh.any() and not dweight.any()


@pytest.mark.parametrize(("N", "F", "O"), [(7, 5, 17), (300, 70, 2_203)])
def test_gradients_of_a_given_slope(isa, dtype, rng, close, N, F, O):
    """Without reading outputs, whatever they are; rows count by their weights as with any loss."""
    h, weight, bias = random_head(rng, dtype, N, F, O)
    slopes, weights = rng.standard_normal((N, O)).astype(dtype), rng.exponential(2, N).astype(dtype)
    weights[3] = 0
    dh, dweight, dbias = np.full_like(h, np.nan), np.full_like(weight, np.nan), np.full(O, np.nan, dtype)
    sums = head.loss(losses.GivenGradient(), h, weight, bias, slopes, weights=weights, scale=0.75, dh=dh,
                     dweight=dweight, dbias=dbias)  # fmt: skip
    assert sums == (0, pytest.approx(weights.sum(dtype=float), rel=1e-12), 0)
    expected = 0.75 * weights[:, None].astype(float) * slopes
    close(dh, expected @ weight, "dh")
    close(dweight, expected.T @ h, "dweight")
    close(dbias, expected.sum(axis=0), "dbias")
