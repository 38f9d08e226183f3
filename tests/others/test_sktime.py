"""`SktimeLSTM` under sktime's own checks, and beside `LSTMForecaster`: needs sktime, and is skipped without."""

import numpy as np
import pytest

pytest.importorskip("sktime")

from sktime.datasets import load_airline, load_longley
from sktime.forecasting.model_evaluation import evaluate
from sktime.split import ExpandingWindowSplitter
from sktime.utils.estimator_checks import check_estimator

from cylstm import LSTMForecaster
from cylstm.forecast.for_sktime import SktimeLSTM

pytestmark = pytest.mark.filterwarnings("ignore")  # sktime's own, of versions to come

SMALL = dict(hidden_size=8, members=1, epochs=3)


def test_it_passes_the_checks_of_sktime():
    found = check_estimator(SktimeLSTM, raise_exceptions=False, verbose=False)
    assert len(found) > 700 and {name: result for name, result in found.items() if result != "PASSED"} == {}


def test_it_says_what_the_forecaster_says():
    y = load_airline()
    adapted = SktimeLSTM(**SMALL).fit(y[:130], fh=[1, 3, 6])
    plain = LSTMForecaster(6, **SMALL).fit(y[:130])
    for rows in (0, 5):
        if rows:
            adapted.update(y[130:135], update_params=False)
            plain.update(y[130:135])
        bounds = plain.forecast_quantiles().to_numpy()
        found = adapted.predict()
        assert np.array_equal(found, bounds[[0, 2, 5], 2]) and list(found.index) == list(
            y.index[130 + rows :][[0, 2, 5]]
        )
        assert np.array_equal(adapted.predict_interval(coverage=0.9), bounds[[0, 2, 5]][:, [0, 4]])
        between = adapted.predict_quantiles(alpha=[0.05, 0.15, 0.25]).to_numpy()
        assert (np.diff(between) > 0).all()


def test_rows_that_are_left_out_are_missing_and_rows_that_are_known_do_not_count_again():
    y = load_airline()
    adapted = SktimeLSTM(**SMALL).fit(y[:130], fh=[1, 2])
    adapted.update(y[125:130], update_params=False).update(y[133:135], update_params=False)
    plain = LSTMForecaster(2, **SMALL).fit(y[:130]).update([np.nan] * 3).update(y[133:135].to_numpy())
    assert np.array_equal(adapted.predict(), plain.forecast())


def test_what_is_known_ahead_goes_in():
    y, X = load_longley()
    adapted = SktimeLSTM(**SMALL).fit(y[:14], X=X[:14], fh=[1, 2])
    plain = LSTMForecaster(2, **SMALL).fit(y[:14].to_numpy(), future=X[:14].to_numpy())
    assert np.array_equal(adapted.predict(X=X[14:16]), plain.forecast(future=X[14:16].to_numpy()))
    only = X[14:16].to_numpy()
    only[0] = np.nan
    assert np.array_equal(adapted.predict(X=X[15:16]), plain.forecast(future=only))


def test_covariates_are_known_by_their_names():
    y, X = load_longley()
    adapted = SktimeLSTM(**SMALL).fit(y[:14], X=X[:14], fh=[1, 2])
    assert np.array_equal(adapted.predict(X=X[14:16]), adapted.predict(X=X[14:16][X.columns[::-1]]))


def test_rows_that_are_missing_in_what_it_learns_from_are_gaps():
    y, X = load_longley()
    there = [n not in (3, 4, 9) for n in range(14)]
    adapted = SktimeLSTM(**SMALL).fit(y[:14][there], X=X[:14][there], fh=[1, 2])
    rows, columns = (np.where(there, each[:14].to_numpy().T, np.nan).T for each in (y, X))
    plain = LSTMForecaster(2, **SMALL).fit(rows, future=columns)
    assert np.array_equal(adapted.predict(X=X[14:16]), plain.forecast(future=X[14:16].to_numpy()))


def test_it_runs_in_their_back_test():
    splits = ExpandingWindowSplitter(fh=[1, 2, 3], initial_window=120, step_length=8)
    found = evaluate(SktimeLSTM(**SMALL), splits, load_airline(), strategy="update")
    assert len(found) == 3 and np.isfinite(found["test_MeanAbsolutePercentageError"]).all()
