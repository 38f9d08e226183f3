"""Training: `fit`, which is `Model.fit`, and what goes into it and comes out of it."""

from cylstm.training.callbacks import BestOnly, CSVLog, JSONLines, TensorBoard
from cylstm.training.checkpoint import Checkpoint, SavedRun, read_checkpoint
from cylstm.training.events import Event, NonFiniteLoss, StopTraining
from cylstm.training.finder import LearningRates, find_lr
from cylstm.training.fit import fit
from cylstm.training.history import History
from cylstm.training.optim import SGD, Adam, AdamW
from cylstm.training.parallel import RankError
from cylstm.training.record import Trained
from cylstm.training.schedule import Constant, Cosine, ReduceOnPlateau, StepDecay

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "BestOnly",
    "CSVLog",
    "Checkpoint",
    "Constant",
    "Cosine",
    "Event",
    "History",
    "JSONLines",
    "LearningRates",
    "NonFiniteLoss",
    "RankError",
    "ReduceOnPlateau",
    "SavedRun",
    "StepDecay",
    "StopTraining",
    "TensorBoard",
    "Trained",
    "find_lr",
    "fit",
    "read_checkpoint",
]
