"""cylstm: LSTMs on the CPU, trained and run from Python. README.md is a tour, `oracle` the mathematics."""

import os
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from cylstm._core import load_blas  # noqa: F401 (before whatever else would load it)
from cylstm._core.kernels import instruction_set
from cylstm._core.team import num_threads, set_num_threads
from cylstm.lstm import LSTM
from cylstm.parameters import Parameters
from cylstm.state import Gradients, State
from cylstm.version import __version__  # noqa: F401

if TYPE_CHECKING:
    from cylstm import ctc, data, exchange, forecast, losses, online, oracle, training
    from cylstm.dense import Dense
    from cylstm.forecast import LSTMForecaster
    from cylstm.heads import Head
    from cylstm.many.models import Models
    from cylstm.model import Model
    from cylstm.text.vocabulary import Vocabulary
    from cylstm.training import (
        SGD,
        Adam,
        AdamW,
        Checkpoint,
        Constant,
        Cosine,
        Event,
        History,
        NonFiniteLoss,
        ReduceOnPlateau,
        StepDecay,
        StopTraining,
    )

with suppress(ImportError):  # 4 ms where there is threadpoolctl: it asks no entry point, so one has to come forward
    from cylstm import for_threadpoolctl  # noqa: F401

# Who imports only the layer does not wait for the rest (25 ms): it comes on first use (PEP 562).
_LATER = {
    **dict.fromkeys(("SGD", "Adam", "AdamW"), "training.optim"),
    **dict.fromkeys(("Constant", "Cosine", "ReduceOnPlateau", "StepDecay"), "training.schedule"),
    **dict.fromkeys(("Event", "NonFiniteLoss", "StopTraining"), "training.events"),
    "Checkpoint": "training.checkpoint",
    "Dense": "dense",
    "Head": "heads",
    "History": "training.history",
    "LSTMForecaster": "forecast.forecaster",
    "Model": "model",
    "Models": "many.models",
    "Vocabulary": "text.vocabulary",
}
_MODULES = ("ctc", "data", "exchange", "forecast", "losses", "online", "oracle", "training")

__all__ = [
    "LSTM",
    "SGD",
    "Adam",
    "AdamW",
    "Checkpoint",
    "Constant",
    "Cosine",
    "Dense",
    "Event",
    "Gradients",
    "Head",
    "History",
    "LSTMForecaster",
    "Model",
    "Models",
    "NonFiniteLoss",
    "Parameters",
    "ReduceOnPlateau",
    "State",
    "StepDecay",
    "StopTraining",
    "Vocabulary",
    "ctc",
    "data",
    "exchange",
    "forecast",
    "get_include",
    "instruction_set",
    "losses",
    "num_threads",
    "online",
    "oracle",
    "set_num_threads",
    "train",
    "training",
]


def __getattr__(name):
    if name in _MODULES:
        return import_module(f"cylstm.{name}")
    if name == "train":  # its shorter name
        return import_module("cylstm.training")
    if name not in _LATER:
        raise AttributeError(f"module 'cylstm' has no attribute {name!r}")
    return globals().setdefault(name, getattr(import_module(f"cylstm.{_LATER[name]}"), name))


def get_include():
    """The folder of the C headers: cylstm.h, which leads to the kernels' contract (see "Embedding" in the manual)."""
    return os.path.join(os.path.dirname(__file__), "include")


def __dir__():
    return sorted(set(globals()) | set(__all__))
