"""Targets of the regressor that count with weights: their scale, in any unit, and weights that are none."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from cylstm.sklearn import LSTMRegressor

SMALL = dict(hidden_size=4, epochs=2, random_state=0)


@pytest.fixture
def x(rng):
    """20 sequences of 5 steps with 2 features."""
    return rng.standard_normal((20, 5, 2))


@pytest.mark.parametrize("unit", [1.0, 1e200, 1e-200, 1e307])
@pytest.mark.parametrize("weight", [1.0, 1e-320, 1e307])
def test_equal_weights_scale_as_none_do(x, unit, weight):
    y = np.stack([x[:, -1, 0] / 4, np.full(20, 1 / 3)], axis=1) * unit
    without = LSTMRegressor(**SMALL).fit(x, y).target_scaler_
    regressor = LSTMRegressor(**SMALL, output="sequence")
    weighted = regressor._targets(y.repeat(5, axis=0).reshape(20, 5, 2), x, np.full((20, 5), weight), known=False)
    assert np.abs(weighted).max() < 10
    np.testing.assert_allclose(regressor.target_scaler_.center, without.center, rtol=1e-12)
    np.testing.assert_allclose(regressor.target_scaler_.scale, without.scale, rtol=1e-12)
    assert regressor.target_scaler_.scale[1] == 1 and regressor.target_scaler_.center[1] == y[0, 1]


def test_weighted_targets_have_mean_0_and_deviation_1(x, rng):
    y, weights = 1e200 * rng.standard_normal(20), np.arange(20) % 4
    y[weights == 0] = 1e202
    regressor = LSTMRegressor(**SMALL).fit(x, y, weights)
    scaled = (y[weights > 0] - regressor.target_scaler_.center) / regressor.target_scaler_.scale
    assert np.average(scaled, weights=weights[weights > 0]) == pytest.approx(0, abs=1e-12)
    assert np.average(scaled**2, weights=weights[weights > 0]) == pytest.approx(1)
    assert np.isfinite(regressor.predict(x)).all()


@pytest.mark.parametrize("shape", [(20,), (20, 5)])
def test_weights_that_are_all_0_are_said(x, shape):
    regressor = LSTMRegressor(**SMALL, output="sequence")
    for weights in (np.zeros(shape), list(np.zeros(shape)) if len(shape) > 1 else np.zeros(shape, int)):
        with pytest.raises(ValueError, match="sample_weight: expected at least one weight above zero, got none"):
            regressor.fit(x, x[..., 0], weights)
    with pytest.raises(ValueError, match=r"sample_weight\[3\]: expected a finite number, got inf"):
        LSTMRegressor(**SMALL).fit(x, x[:, 0, 0], np.where(np.arange(20) == 3, np.inf, 1))
