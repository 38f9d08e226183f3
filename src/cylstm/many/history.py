"""What happened while many models trained."""

from __future__ import annotations

import math

import numpy as np

from cylstm.training.history import History

__all__ = ["Histories"]

BY_MODEL = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "learning_rate", "updates",
            "gradient_norm")  # fmt: skip


class Histories:
    """One row per model and one column per epoch in each array; NaN where a model had no such epoch any more, being out
    of patience or at its end, and where there is no such number.

    train_loss, train_accuracy, validation_loss, validation_accuracy, learning_rate, updates, gradient_norm :
        (N, epochs) float64, as in `History`.
    seconds : (epochs,), so far, of all models together.

    `histories[n]` is the `History` of model n; len() says how many models there are.
    """

    def __init__(self, models: int):
        self.seconds = np.zeros(0)
        self._room = {name: np.full((models, 8), np.nan) for name in BY_MODEL}  # for more epochs than there were
        self._show()

    def _show(self):
        for name, room in self._room.items():
            setattr(self, name, room[:, : self.epochs])

    def __len__(self) -> int:
        return len(self.train_loss)

    @property
    def epochs(self) -> int:
        """The most that a model has had."""
        return len(self.seconds)

    def add(self, seconds, **columns) -> None:
        """One more epoch: numbers (N,) by name."""
        epoch = self.epochs
        for name, room in self._room.items():
            if epoch == room.shape[1]:
                self._room[name] = room = np.column_stack([room, np.full((len(room), epoch + 8), np.nan)])
            if columns.get(name) is not None:
                room[:, epoch] = columns[name]
        self.seconds = np.append(self.seconds, seconds)
        self._show()

    def __getitem__(self, n) -> History:
        """That of model n, of the epochs that it had."""
        had = ~np.isnan(self.updates[n])
        lists = {name: getattr(self, name)[n, had].tolist() for name in BY_MODEL}
        for name in ("validation_loss", "validation_accuracy"):
            if np.isnan(self.validation_loss[n]).all():
                lists[name] = []
        for name in ("train_accuracy", "validation_accuracy", "gradient_norm"):
            lists[name] = [None if math.isnan(value) else value for value in lists[name]]
        lists["updates"] = [int(value) for value in lists["updates"]]
        return History(**lists, seconds=self.seconds[had].tolist())

    def __iter__(self):
        return (self[n] for n in range(len(self)))

    def arrays(self) -> dict[str, np.ndarray]:
        """For a file."""
        return {name: getattr(self, name) for name in (*BY_MODEL, "seconds")}

    @classmethod
    def of(cls, arrays) -> Histories:
        """The reverse. Raises ValueError where they do not belong together."""
        shape = arrays["train_loss"].shape
        if len(shape) != 2 or arrays["seconds"].shape != shape[1:]:
            raise ValueError(f"history.seconds: expected (epochs,), got {arrays['seconds'].shape}, of losses {shape}")
        for name in (*BY_MODEL, "seconds"):
            if arrays[name].dtype != np.float64:
                raise ValueError(f"history.{name}: expected float64, got {arrays[name].dtype}")
        seconds, updates = arrays["seconds"], arrays["updates"]
        if not (np.isfinite(seconds) & (seconds >= 0)).all():
            raise ValueError("history.seconds: expected finite numbers >= 0, got others")
        if not (np.isnan(updates) | ((updates >= 0) & (updates <= 2**53) & (updates == np.floor(updates)))).all():
            raise ValueError("history.updates: expected integers >= 0 or NaN, got others")
        found = cls(len(arrays["train_loss"]))
        found.seconds = np.array(seconds)
        for name in BY_MODEL:
            if arrays[name].shape != shape:
                raise ValueError(f"history.{name}: expected {shape}, got {arrays[name].shape}")
            found._room[name] = np.array(arrays[name], np.float64)
        found._show()
        return found

    def __repr__(self):
        if not self.epochs:
            return f"Histories of {len(self)} models, of no epoch"
        last = self.validation_loss if not np.isnan(self.validation_loss).all() else self.train_loss
        had = np.where(np.isnan(self.updates), -1, np.arange(self.epochs)).max(axis=1)
        losses = last[np.arange(len(self)), np.maximum(had, 0)]
        what = "validation loss" if last is self.validation_loss else "loss"
        low, middle, high = (np.nanquantile(losses, q) for q in (0, 0.5, 1)) if not np.isnan(losses).all() else (
            [math.nan] * 3)  # fmt: skip
        return (f"Histories of {len(self)} models, {self.epochs} epochs, {self.seconds[-1]:.1f} s: last {what} "
                f"{low:.4g} to {high:.4g}, median {middle:.4g}")  # fmt: skip
