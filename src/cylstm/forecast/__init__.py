"""Forecasts of series: `LSTMForecaster`, and it as a forecaster of sktime (`for_sktime`)."""

from cylstm.forecast.backtest import Report
from cylstm.forecast.forecaster import LSTMForecaster

__all__ = ["LSTMForecaster", "Report"]
