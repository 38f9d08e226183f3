"""cylstm: LSTMs on the CPU, trained and run from Python. README.md is a tour, `oracle` the mathematics."""

import os
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from cylstm import _load_blas  # noqa: F401 (before whatever else would load it)
from cylstm._kernels import instruction_set
from cylstm._pool import num_threads, set_num_threads
from cylstm.lstm import LSTM
from cylstm.params import Parameters
from cylstm.state import Gradients, State

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cylstm import data, losses, oracle, train
    from cylstm.history import History
    from cylstm.model import Model
    from cylstm.optim import SGD, Adam, AdamW, Constant, Cosine, ReduceOnPlateau, StepDecay
    from cylstm.train import Checkpoint, Event, NonFiniteLoss, StopTraining
    from cylstm.vocab import Vocabulary

with suppress(ImportError):  # 4 ms where there is threadpoolctl: it asks no entry point, so one has to come forward
    from cylstm import threadpool  # noqa: F401

# Who imports only the layer does not wait for the rest (25 ms): it comes on first use (PEP 562).
_LATER = {
    "History": "history",
    "Model": "model",
    "SGD": "optim",
    "Adam": "optim",
    "AdamW": "optim",
    "Constant": "optim",
    "Cosine": "optim",
    "ReduceOnPlateau": "optim",
    "StepDecay": "optim",
    "Checkpoint": "train",
    "Event": "train",
    "NonFiniteLoss": "train",
    "StopTraining": "train",
    "Vocabulary": "vocab",
}
_MODULES = ("data", "losses", "oracle", "train")

__all__ = [
    "LSTM",
    "SGD",
    "Adam",
    "AdamW",
    "Checkpoint",
    "Constant",
    "Cosine",
    "Event",
    "Gradients",
    "History",
    "Model",
    "NonFiniteLoss",
    "Parameters",
    "ReduceOnPlateau",
    "State",
    "StepDecay",
    "StopTraining",
    "Vocabulary",
    "data",
    "get_include",
    "instruction_set",
    "losses",
    "num_threads",
    "oracle",
    "set_num_threads",
    "train",
]


def __getattr__(name):
    if name in _MODULES:
        return import_module(f"cylstm.{name}")
    if name not in _LATER:
        raise AttributeError(f"module 'cylstm' has no attribute {name!r}")
    return globals().setdefault(name, getattr(import_module(f"cylstm.{_LATER[name]}"), name))


def get_include():
    """The folder of the C headers: cylstm.h, which leads to the kernels' contract (see "Embedding" in the manual)."""
    return os.path.join(os.path.dirname(__file__), "include")


def __dir__():
    return sorted(set(globals()) | set(__all__))
