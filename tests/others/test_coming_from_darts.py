"""What docs/coming.md says of darts' own LSTMs: needs darts with PyTorch ("darts[torch]"), skipped without."""

import inspect

import numpy as np
import pytest

pytest.importorskip("darts")
pytest.importorskip("pytorch_lightning")

import pandas as pd
from darts import TimeSeries
from darts.models import BlockRNNModel, NaiveSeasonal, RNNModel
from darts.utils.likelihood_models import QuantileRegression

from cylstm import LSTMForecaster
from cylstm.forecast.for_darts import DartsLSTM
from cylstm.sklearn import LSTMRegressor

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch Lightning's

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
SMALL = dict(model="LSTM", hidden_dim=4, n_epochs=1, random_state=0, pl_trainer_kwargs=QUIET)
LEVELS = [0.1, 0.5, 0.9]


def series_of(values):
    return TimeSeries.from_times_and_values(pd.date_range("2020-01-01", periods=len(values), freq="h"), values)


@pytest.fixture
def values(rng):
    return 300 + rng.standard_normal(60).cumsum()


def test_a_forecast_without_num_samples(values):
    """Of darts' networks it is one draw, of its regressors and here the medians."""
    series = series_of(values)
    network = BlockRNNModel(8, 4, likelihood=QuantileRegression(LEVELS), **SMALL)
    network.fit(series)
    assert not np.allclose(network.predict(4).values(), network.predict(4).values())
    assert np.abs(network.predict(4).values()).max() < 30  # of numbers around 300: nothing is scaled
    regressor = LSTMRegressor(4, epochs=1, random_state=0)
    ours = DartsLSTM(8, output_chunk_length=4, quantiles=LEVELS, model=regressor).fit(series)
    rows = ours.predict(4, predict_likelihood_parameters=True).values()
    assert np.allclose(ours.predict(4).values()[:, 0], rows[:, 1])


def test_gaps(values):
    values[20] = np.nan
    assert np.isnan(BlockRNNModel(8, 4, **SMALL).fit(series_of(values)).predict(4).values()).all()
    assert np.isfinite(LSTMForecaster(4, members=1, epochs=1).fit(values).forecast()).all()


def test_covariates_of_the_past_beyond_a_chunk(values, rng):
    series, past = series_of(values), series_of(rng.standard_normal(60))
    network = BlockRNNModel(8, 4, **SMALL).fit(series, past_covariates=past)
    assert len(network.predict(4)) == 4
    with pytest.raises(ValueError, match="past_covariates"):
        network.predict(5)
    recurrent = RNNModel(8, **SMALL)
    assert recurrent.supports_future_covariates and not recurrent.supports_past_covariates
    assert recurrent.training_length == 24


def test_history(values):
    series = series_of(values)
    defaults = inspect.signature(NaiveSeasonal.historical_forecasts).parameters
    assert defaults["retrain"].default is True and defaults["last_points_only"].default is True
    found = NaiveSeasonal(1).historical_forecasts(series, start=40, start_format="position", forecast_horizon=4)
    assert len(found) == 60 - 40 - 3  # one number of each forecast, the fourth
    whole = NaiveSeasonal(1).historical_forecasts(series, start=0.8, forecast_horizon=4, last_points_only=False)
    report = LSTMForecaster(4, members=1, epochs=1).backtest(values, start=0.8)
    first = series.get_index_at_point(whole[0].start_time())
    assert (first, report.table["time"][0]) == (47, 48)
    assert len(whole) == 60 - 47 - 3 and report.scores["lines"] == 4 * (60 - 48 - 3) + 3 + 2 + 1
