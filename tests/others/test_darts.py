"""`DartsLSTM` beside sequences that are cut by hand, and in darts' own tools: needs darts, and is skipped without.

darts is no part of the extra "others": beside it it brings numba, llvmlite, shap, pyod and statsmodels, 400 MB.
"""

import pickle

import numpy as np
import pytest

pytest.importorskip("darts")

import pandas as pd
from darts import TimeSeries
from darts.models import SKLearnModel

from cylstm import Model, losses
from cylstm.forecast.for_darts import DartsLSTM, QuantileLSTM
from cylstm.sklearn import LSTMRegressor

N = 60
SMALL = dict(epochs=2, batch_size=16, random_state=0)


def numbers(seed, width, n=N):
    return 100 * (seed + 1) + np.cumsum(np.random.default_rng(seed).normal(0, 5, (n, width)), axis=0)


def series_of(values, static=None):
    index = pd.date_range(
        "2020-01-01", periods=len(values), freq="h"
    )  # of days darts 0.48 makes an error, with pandas 3
    static = None if static is None else pd.DataFrame(static)
    return TimeSeries.from_times_and_values(index, values, static_covariates=static)


def regressor(**options):
    return LSTMRegressor(6, **{**SMALL, **options})


def windows(columns, chunk, n=N):
    """Sequences, and the numbers that follow each, one by one. columns : of each feature its values and lags. Where a
    feature has no number, it is NaN."""
    steps = sorted({lag for _, lags in columns for lag in lags})
    first, found = -steps[0], []
    for now in range(first, n - max(chunk - 1, steps[-1], 0)):
        found.append([[values[now + lag] if lag in lags else np.nan for values, lags in columns] for lag in steps])
    return np.array(found), first


def scaled(x, by):
    """By mean and standard deviation of all windows; a feature behind says where those with gaps have numbers."""
    center, scale = np.nanmean(by, axis=(0, 1)), np.nanstd(by, axis=(0, 1))
    there = ~np.isnan(x[0])
    known = np.unique(there[:, ~there.all(axis=0)], axis=1)
    x = np.nan_to_num((x - center) / np.where(scale, scale, 1))
    return np.concatenate([x, np.broadcast_to(known, (len(x), *known.shape))], axis=2)


def test_lags_come_to_the_lstm_in_the_order_of_time():
    y, past, future = numbers(0, 2), numbers(1, 1), numbers(2, 2)
    columns = [(y[:, 0], range(-4, 0)), (y[:, 1], range(-4, 0)), (past[:, 0], (-6, -2)),
               (future[:, 0], range(-2, 3)), (future[:, 1], range(-2, 3))]  # fmt: skip
    x, first = windows(columns, 3)
    following = np.array([y[now : now + 3].ravel() for now in range(first, first + len(x))])
    plain = regressor().fit(scaled(x, x), following)

    model = DartsLSTM(4, [-6, -2], (2, 3), output_chunk_length=3, model=regressor())
    model.fit(series_of(y), series_of(past), series_of(future))
    assert model.model.model_.input_size == 5 + 3 and model.model.model_.output_size == 6
    end = 40
    found = model.predict(3, series_of(y[:end]), series_of(past[:end]), series_of(future[: end + 3]))
    wanted = plain.predict(scaled(x[end - first : end - first + 1], x))
    assert np.allclose(found.values(), wanted.reshape(3, 2), rtol=1e-5)


def test_lags_of_each_component_and_static_covariates():
    y = numbers(0, 2)
    columns = [(y[:, 0], (-2, -1)), (y[:, 1], (-5, -3, -1))]
    columns += [(np.full(N, value), (-5, -3, -2, -1)) for value in (1.0, 2.0)]
    x, first = windows(columns, 1)
    plain = regressor().fit(scaled(x, x), y[first:])
    model = DartsLSTM({"1": [-5, -3, -1], "default_lags": [-2, -1]}, model=regressor())
    model.fit(series_of(y, {"size": [1.0, 2.0]}))
    ahead, _ = windows([(np.append(values, 0), lags) for values, lags in columns], 1, N + 1)
    assert np.allclose(model.predict(1).values(), plain.predict(scaled(ahead[-1:], x)), rtol=1e-5)


def test_many_series_history_and_back_test():
    several = [series_of(numbers(seed, 1)) for seed in range(3)]
    prices = [series_of(numbers(seed + 5, 1, N + 8)) for seed in range(3)]
    model = DartsLSTM(8, lags_future_covariates=(0, 4), output_chunk_length=4, model=regressor())
    model.fit(several, future_covariates=prices)
    ahead = model.predict(8, several, future_covariates=prices)  # two chunks
    assert [len(found) for found in ahead] == [8, 8, 8] and np.isfinite(np.stack([f.values() for f in ahead])).all()

    past = model.historical_forecasts(several[1], future_covariates=prices[1], start=50, start_format="position",
                                      forecast_horizon=4, retrain=False, last_points_only=False)  # fmt: skip
    for n, found in enumerate(past):
        again = model.predict(4, several[1][: 50 + n], future_covariates=prices[1])
        assert found.start_time() == again.start_time() and np.allclose(found.values(), again.values(), rtol=1e-5)
    errors = model.backtest(several, future_covariates=prices, start=0.8, forecast_horizon=4, retrain=False)
    assert len(errors) == 3 and np.isfinite(errors).all()

    anew = model.historical_forecasts(several[1], future_covariates=prices[1], start=54, start_format="position",
                                      forecast_horizon=4, retrain=True, last_points_only=False)  # fmt: skip
    other = model.untrained_model().fit(several[1][:55], future_covariates=prices[1])
    assert np.array_equal(anew[1].values(), other.predict(4).values())


def test_files(tmp_path):
    y = series_of(numbers(0, 2))
    model = DartsLSTM(5, output_chunk_length=2, model=regressor(), quantiles=[0.1, 0.5, 0.9]).fit(y)
    model.save(str(tmp_path / "model.pkl"))
    for again in (DartsLSTM.load(str(tmp_path / "model.pkl"), trusted=True), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(again.predict(4).values(), model.predict(4).values())


@pytest.mark.parametrize("width, chunk", [(1, 1), (2, 3)])
def test_quantiles(width, chunk):
    y, levels = numbers(0, width), [0.1, 0.5, 0.9]
    model = DartsLSTM(5, output_chunk_length=chunk, model=regressor(), quantiles=levels).fit(series_of(y))
    rows = model.predict(chunk, predict_likelihood_parameters=True)
    x, first = windows([(y[:, n], range(-5, 0)) for n in range(width)], chunk)
    inside = model.model
    targets = np.array([y[now : now + chunk].ravel() for now in range(first, first + len(x))])
    plain = Model(width, 6, 3 * chunk * width, output="last", loss=losses.Quantiles(levels), seed=inside._seed)
    plain.fit(scaled(x, x), (targets - targets.mean(axis=0)) / targets.std(axis=0), epochs=2, batch_size=16,
              optimizer=inside.optimizer(1e-2), seed=inside._seed, progress=False)  # fmt: skip
    ahead, _ = windows([(np.append(y[:, n], np.zeros(chunk)), range(-5, 0)) for n in range(width)], chunk, N + chunk)
    of_each = plain(scaled(ahead[-1:], x))[0].reshape(chunk * width, 3)
    wanted = targets.mean(axis=0)[:, None] + targets.std(axis=0)[:, None] * np.sort(of_each)
    assert np.allclose(rows.values(), wanted.reshape(chunk, width * 3), rtol=1e-4)
    names = [f"{component}_q{q:.3f}" for component in range(width) for q in levels]
    assert list(rows.components) == names

    assert np.allclose(model.predict(chunk).values(), rows.values()[:, 1::3])
    drawn = model.predict(chunk, num_samples=200).all_values()  # (chunk, width, samples)
    assert (drawn >= rows.values()[:, ::3, None] - 1e-9).all() and (drawn <= rows.values()[:, 2::3, None] + 1e-9).all()
    assert (drawn.std(axis=2) > 0).all()


@pytest.mark.parametrize("quantiles", [None, [0.2, 0.5, 0.8]])
def test_weights_of_each_number(quantiles):
    """darts then has a regressor for each step and component."""
    y, weights = numbers(0, 2), np.random.default_rng(1).uniform(0.1, 5, (N, 2))
    model = DartsLSTM(5, output_chunk_length=2, model=regressor(), quantiles=quantiles)
    model.fit(series_of(y), sample_weight=series_of(weights))
    x, first = windows([(y[:, n], range(-5, 0)) for n in range(2)], 2)
    ahead, _ = windows([(np.append(y[:, n], [0, 0]), range(-5, 0)) for n in range(2)], 2, N + 2)
    found = model.predict(2, predict_likelihood_parameters=quantiles is not None).values().reshape(2, 2, -1)
    for step in range(2):
        for n in range(2):
            of_one = slice(first + step, first + step + len(x)), n
            plain = QuantileLSTM(6, **SMALL, loss=losses.Quantiles(quantiles)) if quantiles else regressor()
            plain.fit(scaled(x, x), y[of_one], sample_weight=weights[of_one])
            assert np.allclose(found[step, n], plain.predict(scaled(ahead[-1:], x))[0], rtol=1e-5)


def test_covariates_that_darts_makes_of_dates():
    y = series_of(numbers(0, 1))
    encoders = {"cyclic": {"future": ["hour"]}}
    model = DartsLSTM(7, lags_future_covariates=(7, 2), output_chunk_length=2, add_encoders=encoders, model=regressor())
    assert np.isfinite(model.fit(y).predict(6).values()).all()
    assert model.model.model_.input_size == 1 + 2 + 1


def test_a_gap_before_the_chunk():
    y = numbers(0, 1)
    columns = [(y[:, 0], range(-6, -2))]  # lags 4 to 1, two steps before
    x, first = windows(columns, 2)
    targets = np.array([y[now : now + 2, 0] for now in range(first, first + len(x))])
    plain = regressor().fit(scaled(x, x), targets)
    model = DartsLSTM(4, output_chunk_length=2, output_chunk_shift=2, model=regressor()).fit(series_of(y))
    ahead, _ = windows([(np.append(y[:, 0], np.zeros(4)), range(-6, -2))], 2, N + 4)
    found = model.predict(2)
    assert found.start_time() == pd.Timestamp("2020-01-01") + pd.Timedelta(hours=N + 2)
    assert np.allclose(found.values().ravel(), plain.predict(scaled(ahead[-1:], x)), rtol=1e-5)


@pytest.mark.parametrize("quantiles", [None, (0.1, 0.5, 0.9)])
def test_one_regressor_makes_several_models(quantiles):
    shared = regressor()
    made = [DartsLSTM(5, model=shared, quantiles=quantiles) for _ in range(2)]
    first = made[0].fit(series_of(numbers(0, 1))).predict(3)
    made[1].fit(series_of(numbers(1, 1)))
    assert np.array_equal(made[0].predict(3).values(), first.values())
    assert not hasattr(shared, "model_")


def test_one_series_of_one_component_goes_without():
    y = numbers(0, 1)[:, 0]
    y = (y - y.mean()) / y.std()
    model = SKLearnModel(lags=5, output_chunk_length=3, model=regressor()).fit(series_of(y))
    x, first = windows([(y, range(-5, 0))], 3)
    targets = np.array([y[now : now + 3] for now in range(first, first + len(x))])
    plain = regressor().fit(x, targets)
    assert np.allclose(model.predict(3).values().ravel(), plain.predict(y[None, -5:, None])[0], rtol=1e-5, atol=1e-6)


def test_what_it_refuses():
    with pytest.raises(TypeError, match=r"model: expected a .*LSTMRegressor, got"):
        DartsLSTM(5, model=Model(1, 2, 1, loss="mse"))
    with pytest.raises(ValueError, match="model: expected output='last', got 'sequence'"):
        DartsLSTM(5, model=LSTMRegressor(output="sequence"))
    with pytest.raises(ValueError, match="model: expected loss='mse' beside quantiles"):
        DartsLSTM(5, model=LSTMRegressor(loss="mae"), quantiles=[0.1, 0.5, 0.9])
    gaps = numbers(0, 1)
    gaps[20] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        DartsLSTM(5, model=regressor()).fit(series_of(gaps))
    model = DartsLSTM(5, model=regressor()).fit(series_of(numbers(0, 1)))
    with pytest.raises(ValueError, match="NaN"):
        model.predict(1, series_of(gaps[:22]))
