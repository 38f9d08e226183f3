"""cylstm: LSTMs on the CPU, trained and run from Python. README.md is a tour, `oracle` the mathematics."""

__version__ = "0.1.0"

from cylstm import data
from cylstm._kernels import instruction_set
from cylstm._pool import num_threads, set_num_threads
from cylstm.history import History
from cylstm.lstm import LSTM
from cylstm.model import Model
from cylstm.optim import SGD, Adam, AdamW, Constant, Cosine, ReduceOnPlateau, StepDecay
from cylstm.params import Parameters
from cylstm.state import Gradients, State
from cylstm.train import Checkpoint, Event, NonFiniteLoss, StopTraining
from cylstm.vocab import Vocabulary

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
    "instruction_set",
    "num_threads",
    "set_num_threads",
]
