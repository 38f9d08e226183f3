"""Optimisers against the oracle (and through its trace against PyTorch), learning rates, settings."""

import numpy as np
import pytest

from cylstm import SGD, Adam, AdamW, Constant, Cosine, ReduceOnPlateau, StepDecay, oracle

ORACLE = {
    "sgd": (SGD(0.05, weight_decay=0.02), lambda p, g, s, t: oracle.sgd(p, g, s["m"], lr=0.05, weight_decay=0.02)),
    "momentum": (SGD(0.05, momentum=0.9), lambda p, g, s, t: oracle.sgd(p, g, s["m"], lr=0.05, momentum=0.9)),
    "nesterov": (SGD(0.05, momentum=0.9, nesterov=True),
                 lambda p, g, s, t: oracle.sgd(p, g, s["m"], lr=0.05, momentum=0.9, nesterov=True)),
    "adam": (Adam(0.05, betas=(0.8, 0.95), weight_decay=0.1),
             lambda p, g, s, t: oracle.adam(p, g, s["m"], s["v"], t, lr=0.05, betas=(0.8, 0.95), weight_decay=0.1)),
    "adamw": (AdamW(0.05, weight_decay=0.1),
              lambda p, g, s, t: oracle.adamw(p, g, s["m"], s["v"], t, lr=0.05, weight_decay=0.1)),
}  # fmt: skip


@pytest.mark.parametrize("name", ORACLE)
def test_updates_are_the_oracles(isa, rng, name):
    optimizer, update = ORACLE[name]
    p = rng.standard_normal(37)
    expected, slots = {"p": p.copy()}, {kind: {"p": np.zeros(37)} for kind in "mv"}
    moments = optimizer.start(p)
    for t in range(1, 6):
        g = rng.standard_normal(37)
        optimizer.update(p, g, moments, 0.05, 0.5)
        update(expected, {"p": 0.5 * g}, slots, t)
    assert moments.updates == 5
    np.testing.assert_allclose(p, expected["p"], rtol=1e-12)


def test_settings_hold_no_state():
    optimizer = Adam(0.1)
    first, second = np.full(3, 2.0), np.full(3, 2.0)
    for p in (first, second):
        moments = optimizer.start(p)
        for g in ([1.0, -2.0, 3.0], [0.5, 0.1, -1.0]):
            optimizer.update(p, np.array(g), moments, 0.1)
    np.testing.assert_array_equal(first, second)


def test_learning_rates():
    assert Constant(0.3).at(7.5, 2) == 0.3
    assert [StepDecay(1.0, every=2, factor=0.5).at(e, 0) for e in (0, 1.9, 2, 3.5, 4)] == [1, 1, 0.5, 0.5, 0.25]
    cosine = Cosine(1.0, epochs=10, minimum=0.2, warmup=2)
    assert cosine.at(1, 0) == pytest.approx(0.5) and cosine.at(2, 0) == pytest.approx(1.0) and cosine.at(0, 0) > 0
    assert cosine.at(6, 0) == pytest.approx(0.6)
    assert cosine.at(10, 0) == pytest.approx(0.2) and cosine.at(50, 0) == pytest.approx(0.2)
    plateau = ReduceOnPlateau(1.0, factor=0.1, minimum=0.05)
    assert [plateau.at(3, n) for n in range(3)] == [1, 0.1, 0.05]


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: Adam(0), ValueError, r"lr: expected a number in \(0, inf\), got 0"),
    (lambda: Adam("fast"), TypeError, "lr: expected a number, got str 'fast'"),
    (lambda: Adam(betas=0.9), ValueError, "betas: expected two numbers"),
    (lambda: Adam(betas=(0.9, 1.0)), ValueError, r"betas\[1\]: expected a number in \[0, 1\), got 1"),
    (lambda: Adam(eps=0), ValueError, "eps: expected"),
    (lambda: SGD(momentum=1.0), ValueError, "momentum: expected"),
    (lambda: SGD(nesterov=True), ValueError, "nesterov: expected a momentum > 0"),
    (lambda: AdamW(weight_decay=-1), ValueError, "weight_decay: expected"),
    (lambda: StepDecay(0.1, every=0), ValueError, "every: expected an integer >= 1"),
    (lambda: Cosine(0.1, epochs=3, warmup=3), ValueError, "warmup: expected"),
    (lambda: ReduceOnPlateau(0.1, factor=1.0), ValueError, "factor: expected"),
    (lambda: Constant(float("nan")), ValueError, "rate: expected"),
])  # fmt: skip
def test_bad_settings_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
