"""cylstm: LSTMs on the CPU, trained and run from Python. See README.md for a tour."""

from cylstm._kernels import instruction_set
from cylstm.lstm import LSTM, Gradients, State

__version__ = "0.1.0"
__all__ = ["LSTM", "Gradients", "State", "instruction_set"]
