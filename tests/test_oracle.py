"""The oracle against finite differences, and against a trace frozen from PyTorch."""

import functools
from pathlib import Path

import numpy as np
import pytest
from gradcheck import check_gradients

from cylstm import LSTM, oracle

TRACE = np.load(Path(__file__).parent / "data" / "torch_trace.npz")


def problem(rng, *, B=3, T=5, I=2, H=4, L=1, D=1, bias=True, lengths=None, resets=None, dropout=False):
    """Weights, input, initial state and the options of one call; everything float64 and nothing symmetric."""
    params = {name: rng.standard_normal(shape) * 0.6
              for name, shape in LSTM.layout(I, H, L, bidirectional=D == 2, bias=bias).items()}  # fmt: skip
    arrays = {**params, "x": rng.standard_normal((B, T, I)), "h0": rng.standard_normal((L * D, B, H)),
              "c0": rng.standard_normal((L * D, B, H))}  # fmt: skip
    masks = [(rng.random((B, T, D * H)) > 0.4) / 0.6 for _ in range(L - 1)] if dropout else None
    options = dict(num_layers=L, bidirectional=D == 2, lengths=lengths, resets=resets, dropout_masks=masks)
    return params, arrays, options


CASES = {
    "one layer": {},
    "one hidden unit": dict(H=1, I=3),
    "without bias": dict(bias=False, L=2),
    "two layers both ways": dict(L=2, D=2, I=6, H=2),
    "lengths": dict(lengths=[2, 5, 1]),
    "lengths, two layers both ways": dict(lengths=[4, 1, 3], L=2, D=2, I=6, H=2, T=4),
    "resets": dict(resets=np.array([[0, 0, 1, 0, 0], [1, 0, 0, 1, 1], [0, 1, 0, 0, 0]], bool)),
    "resets and lengths both ways": dict(resets=np.array([[0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 0]], bool),
                                         lengths=[4, 2, 3], D=2, T=4),
    "dropout": dict(L=3, D=2, B=5, T=3, I=6, H=2, dropout=True),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_gradients_against_finite_differences(rng, case):
    """Parameters, input and initial state; the loss looks at the outputs and at both parts of the final state."""
    params, arrays, options = problem(rng, **CASES[case])
    state = arrays["h0"], arrays["c0"]
    y, final, tape = oracle.forward(arrays["x"], params, state, **options)
    dy, dh, dc = rng.standard_normal(y.shape), *rng.standard_normal((2, *final[0].shape))

    def loss():
        y, (h, c), _ = oracle.forward(arrays["x"], params, state, **options)
        return (dy * y).sum() + (dh * h).sum() + (dc * c).sum()

    dx, (dh0, dc0), dparams = oracle.backward(tape, dy, (dh, dc))
    check_gradients(loss, arrays, {**dparams, "x": dx, "h0": dh0, "c0": dc0})


def test_the_three_forms_agree(rng):
    params, arrays, _ = problem(rng, B=1)
    W, R, b = params.values()
    y, _, _ = oracle.forward(arrays["x"], params)
    np.testing.assert_allclose(oracle.sequence(arrays["x"][0], W, R, b), y[0], rtol=1e-13)
    h = c = np.zeros((1, 4))
    for t in range(5):
        h, c = oracle.step(arrays["x"][:, t], h, c, W, R, b)
        np.testing.assert_allclose(h, y[:, t], rtol=1e-13)


@pytest.mark.parametrize("D", [1, 2])
def test_lengths_and_resets_cut_a_row_into_pieces(rng, D):
    """Each piece, run alone from a zero state, gives the same outputs; only the row's two ends see the initial state.

    Finite differences cannot show this: they hold for whatever forward computes.
    """
    lengths = np.array([7, 4, 1, 6])
    resets = np.zeros((4, 7), bool)
    resets[[0, 0, 0, 1, 1, 2, 3, 3], [0, 2, 3, 2, 5, 1, 0, 4]] = True
    params, arrays, options = problem(rng, B=4, T=7, L=2, D=D, lengths=lengths, resets=resets)
    x, h0, c0 = arrays["x"], arrays["h0"], arrays["c0"]
    y, (hn, cn), _ = oracle.forward(x, params, (h0, c0), **options)
    plain = dict(num_layers=2, bidirectional=D == 2)
    for b, length in enumerate(lengths):
        cuts = [t for t in range(1, length) if resets[b, t]]
        for start, end in zip([0, *cuts], [*cuts, length], strict=True):
            h, c = np.zeros((2, 2 * D, 1, 4))
            if start == 0 and not resets[b, 0]:
                h[::D], c[::D] = h0[::D, b : b + 1], c0[::D, b : b + 1]
            if end == length and D == 2:
                h[1::D], c[1::D] = h0[1::D, b : b + 1], c0[1::D, b : b + 1]
            piece, (h, c), _ = oracle.forward(x[b : b + 1, start:end], params, (h, c), **plain)
            np.testing.assert_allclose(y[b, start:end], piece[0], rtol=1e-12)
            if end == length:
                np.testing.assert_allclose((hn[::D, b], cn[::D, b]), (h[::D, 0], c[::D, 0]), rtol=1e-12)
            if start == 0 and D == 2:
                np.testing.assert_allclose((hn[1::D, b], cn[1::D, b]), (h[1::D, 0], c[1::D, 0]), rtol=1e-12)
        assert not y[b, length:].any()


def test_dropout_masks_multiply_what_goes_between_layers(rng):
    params, arrays, options = problem(rng, L=3, D=2, dropout=True)
    expected = arrays["x"]
    for layer in range(3):
        alone = {name.replace(f"_l{layer}", "_l0"): p for name, p in params.items() if f"_l{layer}" in name}
        expected, _, _ = oracle.forward(expected, alone, bidirectional=True)
        if layer < 2:
            expected = expected * options["dropout_masks"][layer]
    np.testing.assert_allclose(oracle.forward(arrays["x"], params, **options)[0], expected, rtol=1e-12)


def test_padding_is_ignored(rng):
    """Whatever stands past a row's end, in x and in dy, NaN included."""
    params, arrays, options = problem(rng, L=2, D=2, lengths=[2, 5, 1])
    x, dy = arrays["x"], rng.standard_normal((3, 5, 8))
    y, _, tape = oracle.forward(x, params, **options)
    dx, dstate, dparams = oracle.backward(tape, dy)
    padding = np.arange(5) >= np.array([2, 5, 1])[:, None]
    x[padding], dy[padding] = np.nan, np.nan
    again, _, tape = oracle.forward(x, params, **options)
    np.testing.assert_array_equal(again, y)
    assert not y[padding].any()
    dx_again, dstate_again, dparams_again = oracle.backward(tape, dy)
    np.testing.assert_array_equal(dx_again, dx)
    assert not dx[padding].any()
    np.testing.assert_array_equal(dstate_again, dstate)
    for name, values in dparams.items():
        np.testing.assert_array_equal(dparams_again[name], values, err_msg=name)


def test_everything_is_float64_whatever_comes(rng):
    """float32 is widened once, never computed in: the same numbers as from its float64 copy."""
    params, arrays, _ = problem(rng)
    params, x = {name: p.astype("f4") for name, p in params.items()}, arrays["x"].astype("f4")
    outputs, targets = rng.standard_normal((7, 5)).astype("f4"), rng.random((7, 5)).astype("f4")

    def results(params, x, outputs, targets):
        y, final, tape = oracle.forward(x, params)
        dx, dstate, dparams = oracle.backward(tape, (x[..., :1] * np.ones(4, x.dtype)))
        return [y, *final, dx, *dstate, *dparams.values(), *oracle.mse(outputs, targets),
                *oracle.binary_cross_entropy(outputs, targets),
                *oracle.softmax_cross_entropy(outputs, targets.argmax(axis=1))]  # fmt: skip

    wide = results({name: p.astype(float) for name, p in params.items()}, x.astype(float), outputs.astype(float),
                   targets.astype(float))  # fmt: skip
    for got, expected in zip(results(params, x, outputs, targets), wide, strict=True):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["softmax_cross_entropy", "mse", "mae", "huber", "quantiles", "binary_cross_entropy"])
def test_losses_against_finite_differences(rng, name, masked):
    outputs, numbers = rng.standard_normal((7, 6)) * 2, rng.choice([-3, -0.4, 0.4, 3], (7, 6))
    targets = {"softmax_cross_entropy": rng.integers(0, 6, 7), "binary_cross_entropy": rng.random((7, 6)),
               "quantiles": outputs[:, ::2]}.get(name, outputs + numbers)  # fmt: skip
    if name == "quantiles":  # no output within a step of its target, where there is a corner
        targets, outputs = targets.copy(), np.repeat(targets, 2, axis=1) + numbers
    mask = np.array([1, 0, 1, 1, 0, 1, 1], bool) if masked else None
    parameters = {"huber": {"delta": 1.3}, "quantiles": {"quantiles": (0.2, 0.7)}}.get(name, {})
    function = functools.partial(getattr(oracle, name), **parameters)
    loss, gradient = function(outputs, targets, mask)
    check_gradients(lambda: function(outputs, targets, mask)[0], {"outputs": outputs}, {"outputs": gradient})
    if masked:
        assert loss == pytest.approx(function(outputs[mask], targets[mask])[0], rel=1e-14)


def test_losses_by_hand():
    loss, _ = oracle.softmax_cross_entropy(np.array([[1.0, 2.0, 0.5], [0.1, -3.0, 2.0]]), np.array([1, 0]))
    p = [np.exp(2) / (np.exp(1) + np.exp(2) + np.exp(0.5)), np.exp(0.1) / (np.exp(0.1) + np.exp(-3) + np.exp(2))]
    assert loss == pytest.approx(-np.log(p).mean(), rel=1e-14)
    loss, _ = oracle.binary_cross_entropy(np.array([[0.7, -1.2]]), np.array([[1.0, 0.0]]))
    q = 1 / (1 + np.exp([-0.7, 1.2]))
    assert loss == pytest.approx(-(np.log(q[0]) + np.log(1 - q[1])) / 2, rel=1e-14)
    loss, _ = oracle.mse(np.array([[1.0, 2.5, 0.0], [0.5, 3.0, -1.0]]), np.array([[0.0, 2.0, 2.0], [0.5, 1.0, 1.0]]))
    assert loss == pytest.approx(((1 + 0.25 + 4) / 3 + (0 + 4 + 4) / 3) / 2, rel=1e-14)
    outputs, targets = np.array([[1.0, 2.5], [0.5, 3.0]]), np.array([[0.0, 2.0], [0.75, 5.0]])
    assert oracle.mae(outputs, targets)[0] == pytest.approx((1 + 0.5 + 0.25 + 2) / 4, rel=1e-14)
    huber = (0.5 * (1 - 0.25) + 0.125 + 0.25**2 / 2 + 0.5 * (2 - 0.25)) / 4
    assert oracle.huber(outputs, targets, delta=0.5)[0] == pytest.approx(huber, rel=1e-14)
    several, one = np.array([[1.0, 2.5], [0.5, 3.0]]), np.array([[2.0], [0.25]])
    pinball = (0.1 * 1 + 0.2 * 0.5 + 0.9 * 0.25 + 0.2 * 2.75) / 4
    assert oracle.quantiles(several, one, quantiles=(0.1, 0.8))[0] == pytest.approx(pinball, rel=1e-14)


def test_losses_stay_finite_where_a_bare_log_would_not():
    logits, targets = np.array([[800.0, -800.0, 3.0]]), np.array([1])
    loss, gradient = oracle.softmax_cross_entropy(logits, targets)
    assert loss == 1600 and np.isfinite(gradient).all()
    loss, gradient = oracle.binary_cross_entropy(logits, np.array([[0.0, 1.0, 0.5]]))
    assert loss == pytest.approx((800 + 800 + np.log1p(np.exp(-3)) + 1.5) / 3) and np.isfinite(gradient).all()


def test_clipping_scales_all_gradients_by_one_number():
    gradients = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0], [12.0]])}
    assert oracle.clip_by_global_norm(gradients, 20.0) == 13
    np.testing.assert_array_equal(gradients["a"], [3, 0])
    assert oracle.clip_by_global_norm(gradients, 6.5) == 13
    np.testing.assert_allclose(gradients["a"], [1.5, 0], rtol=1e-6)
    np.testing.assert_allclose(gradients["b"], [[2], [6]], rtol=1e-6)


# --- the trace: PyTorch 2.13, made by torch_trace.py ------------------------------------------------------------------

TRACED = {"one": (1, False), "both": (2, True), "ragged": (1, False), "ragged both": (2, True)}


def traced(case, prefix):
    """name -> array for the arrays of one case whose names begin with prefix."""
    start = f"{case}/{prefix}"
    return {name[len(start) :]: TRACE[name].copy() for name in TRACE.files if name.startswith(start)}


@pytest.mark.parametrize("case", TRACED)
def test_values_and_gradients_are_torchs(case):
    layers, bidirectional = TRACED[case]
    params, lengths = traced(case, "weights/"), TRACE.get(f"{case}/lengths")
    state = TRACE[f"{case}/h0"], TRACE[f"{case}/c0"]
    y, final, tape = oracle.forward(TRACE[f"{case}/x"], params, state, num_layers=layers, bidirectional=bidirectional,
                                    lengths=lengths)  # fmt: skip
    dx, dstate, dparams = oracle.backward(tape, TRACE[f"{case}/dy"], (TRACE[f"{case}/dhn"], TRACE[f"{case}/dcn"]))
    got = {"y": y, "hn": final[0], "cn": final[1], "dx": dx, "dh0": dstate[0], "dc0": dstate[1]}
    for name, values in got.items():
        np.testing.assert_allclose(values, TRACE[f"{case}/{name}"], rtol=1e-11, atol=1e-13, err_msg=name)
    expected = traced(case, "gradients/")
    assert expected.keys() == dparams.keys()
    for name, values in dparams.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-11, atol=1e-13, err_msg=name)


UPDATES = {
    "adam": lambda p, g, s, t: oracle.adam(p, g, s["m"], s["v"], t, lr=0.02, betas=(0.85, 0.99)),
    "adam with decay": lambda p, g, s, t: oracle.adam(p, g, s["m"], s["v"], t, lr=0.02, weight_decay=0.1),
    "adamw": lambda p, g, s, t: oracle.adamw(p, g, s["m"], s["v"], t, lr=0.02, weight_decay=0.1),
    "momentum": lambda p, g, s, t: oracle.sgd(p, g, s["m"], lr=0.3, momentum=0.8),
    "nesterov": lambda p, g, s, t: oracle.sgd(p, g, s["m"], lr=0.3, momentum=0.8, nesterov=True, weight_decay=0.01),
}


@pytest.mark.parametrize("optimizer", UPDATES)
@pytest.mark.parametrize("case", TRACED)
def test_ten_training_losses_are_torchs(case, optimizer):
    """LSTM, head, cross-entropy per real token, clipping by the global norm, ten updates."""
    layers, bidirectional = TRACED[case]
    params, head = traced(case, "weights/"), traced(case, "head/")
    x, targets = TRACE[f"{case}/x"], TRACE[f"{case}/targets"]
    lengths = TRACE.get(f"{case}/lengths", np.full(len(x), x.shape[1]))
    real = (np.arange(x.shape[1]) < lengths[:, None]).ravel()
    everything = {**params, **head}
    moments = {kind: {name: np.zeros_like(p) for name, p in everything.items()} for kind in "mv"}
    losses, norms = [], []
    for t in range(1, 11):
        y, _, tape = oracle.forward(x, params, num_layers=layers, bidirectional=bidirectional, lengths=lengths)
        h = y.reshape(-1, y.shape[2])
        loss, dlogits = oracle.softmax_cross_entropy(h @ head["weight"].T + head["bias"], targets.ravel(), real)
        losses.append(loss)
        _, _, gradients = oracle.backward(tape, (dlogits @ head["weight"]).reshape(y.shape))
        gradients = {**gradients, "weight": dlogits.T @ h, "bias": dlogits.sum(axis=0)}
        norms.append(oracle.clip_by_global_norm(gradients, TRACE["clip_norm"]))
        UPDATES[optimizer](everything, gradients, moments, t)
    np.testing.assert_allclose(losses, TRACE[f"{case}/losses/{optimizer}"], rtol=1e-10)
    assert losses[-1] < losses[0] - 0.05
    assert max(norms) > 1.2 * TRACE["clip_norm"], "the trace does not say whether clipping works"
