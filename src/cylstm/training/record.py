"""What a model was trained on, and how: its files keep that beside the weights."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

import numpy as np

from cylstm._core.kernels import instruction_set
from cylstm.checks import describe
from cylstm.training.history import History
from cylstm.version import __version__

__all__ = ["Trained", "this_machine"]

PLAIN = (str, float, bool, type(None))


@dataclass(frozen=True)
class Trained:
    """What the last `fit` of a model was: `model.trained`.

    history : its History, which grows as long as it goes on.
    options : its arguments that decide what it computes, by name, "data" among them: a hash (BLAKE2b, 128 bits) of
        inputs, targets and what else counts, or of batches that came one by one no more than how they count.
    machine : versions and instruction set, by name.
    """

    history: History
    options: dict
    machine: dict

    def to_dict(self) -> dict:
        """For JSON. How long it took is left out: the same run makes the same file."""
        history = self.history.to_dict()
        history["seconds"] = [None] * len(self.history)
        return {"history": history, "options": dict(self.options), "machine": dict(self.machine)}

    @classmethod
    def from_dict(cls, given) -> Trained:
        """The reverse of to_dict. Raises ValueError for anything else."""
        if not isinstance(given, dict) or set(given) != {"history", "options", "machine"}:
            raise ValueError(f"trained: expected history, options and machine, got {describe(given)}")
        for name in ("options", "machine"):
            found = given[name]
            if not isinstance(found, dict) or not all(map(is_plain, found.values())):
                raise ValueError(f"trained.{name}: expected a dict of text and numbers, got {describe(found)}")
        history = History.from_dict(given["history"])
        watched = str(given["options"].get("monitor")).rpartition(" ")
        if watched[2] in ("min", "max"):
            history.watched = watched[0], watched[2]
        return cls(history, given["options"], given["machine"])


def is_plain(value) -> bool:
    """Text, a number, though no integer beyond all floats, a switch, None, or a list of them."""
    if isinstance(value, list):
        return not any(isinstance(part, list) for part in value) and all(map(is_plain, value))
    return isinstance(value, PLAIN) or (isinstance(value, int) and abs(value) <= sys.float_info.max)


def this_machine() -> dict[str, str]:
    """What numbers depend on beside options and data."""
    return {"cylstm": __version__, "instruction set": instruction_set(), "NumPy": np.__version__,
            "Python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}  # fmt: skip
