"""What happened while training: a number per epoch, as JSON and as a picture."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType

from cylstm.checks import describe, path_name
from cylstm.tensor_files import write_atomically

__all__ = ["PICTURES", "History"]

PICTURES = (".png", ".svg", ".pdf")


@dataclass
class History:
    """One entry per epoch in each list; losses are means per token (or per row, for output="last").

    validation_loss and validation_accuracy are empty where there was no validation data; accuracies are None for a
    loss that has none.
    """

    train_loss: list = field(default_factory=list)
    train_accuracy: list = field(default_factory=list)
    validation_loss: list = field(default_factory=list)
    validation_accuracy: list = field(default_factory=list)
    learning_rate: list = field(default_factory=list)  # of each epoch's last update
    updates: list = field(default_factory=list)  # so far, at the end of each epoch
    seconds: list = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.train_loss)

    @property
    def best_epoch(self) -> int | None:
        """Index of the epoch with the lowest validation loss (training loss without validation); None before any."""
        losses = self.validation_loss or self.train_loss
        return min(range(len(losses)), key=losses.__getitem__) if losses else None

    def to_dict(self) -> dict:
        """Plain lists, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, lists: dict) -> History:
        """The reverse of to_dict. Raises ValueError for anything else."""
        names = [entry.name for entry in fields(cls)]
        if not isinstance(lists, dict) or sorted(lists) != sorted(names):
            raise ValueError(f"history: expected {', '.join(names)}, got {describe(lists)}")
        for name, entries in lists.items():
            if not isinstance(entries, list) or not all(isinstance(entry, (int, float, NoneType)) for entry in entries):
                raise ValueError(f"history.{name}: expected a list of numbers, got {describe(entries)}")
        return cls(**lists)

    def save(self, path) -> None:
        """Write the lists as JSON, atomically. Raises OSError."""
        write_atomically(path, json.dumps(self.to_dict(), indent=1).encode())

    def plot(self, path) -> None:
        """Draw training and validation loss per epoch into a picture (by its ending: PNG, SVG, PDF), without a screen.

        Needs matplotlib (the extra "plot"); raises ImportError without it, ValueError before the first epoch and for
        another ending, OSError. The file is written atomically.
        """
        path = path_name("path", path)
        if Path(path).suffix.lower() not in PICTURES:
            raise ValueError(f"path: expected a file ending in {', '.join(PICTURES)}, got {path}")
        if not len(self):
            raise ValueError("history: expected at least one epoch to plot, got none")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(7, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        epochs = range(1, len(self) + 1)
        axes.plot(epochs, self.train_loss, marker="o", markersize=3, label="training")
        if self.validation_loss:
            axes.plot(epochs, self.validation_loss, marker="o", markersize=3, label="validation")
            best = self.best_epoch
            axes.annotate(f"{self.validation_loss[best]:.4g}", (best + 1, self.validation_loss[best]),
                          textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8)  # fmt: skip
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
        picture = io.BytesIO()
        figure.savefig(picture, format=Path(path).suffix[1:], dpi=120)
        write_atomically(path, picture.getvalue())
