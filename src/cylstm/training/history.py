"""What happened while training: a number per epoch, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field, fields
from types import NoneType

from cylstm.checks import describe, real_in
from cylstm.tensor_files import write_atomically
from cylstm.training import pictures

__all__ = ["History"]

STYLE = {"marker": "o", "markersize": 3}
SHOWN = 20  # rows of a table that is printed; of a longer one, the first and the last half of them


@dataclass(repr=False)
class History:
    """One entry per epoch in each list; losses are means per token (or per row, for output="last").

    train_loss, train_accuracy : as the epoch's updates met them; accuracies are None for a loss that has none.
    validation_loss, validation_accuracy : empty where there was no validation data, None for an epoch without.
    learning_rate : of each epoch's last update.
    updates, seconds : so far, at the end of each epoch.
    gradient_norm : the mean over the epoch's updates of the norm of all gradients, before they were clipped.
    metrics : a list for each name that `fit` was given, None for an epoch without.
    watched : what `fit(monitor=)` watched, and whether "max" or "min" is better; no part of tables and files.
    """

    train_loss: list = field(default_factory=list)
    train_accuracy: list = field(default_factory=list)
    validation_loss: list = field(default_factory=list)
    validation_accuracy: list = field(default_factory=list)
    learning_rate: list = field(default_factory=list)
    updates: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    gradient_norm: list = field(default_factory=list)
    metrics: dict[str, list] = field(default_factory=dict)
    watched: tuple[str, str] = field(default=("loss", "min"), compare=False)

    def __len__(self) -> int:
        return len(self.train_loss)

    @property
    def best_epoch(self) -> int | None:
        """Index of the first epoch with the best of what was watched: the lowest validation loss (training loss without
        validation), if nothing else was; None before any."""
        name, better = self.watched
        found = [(-value if better == "max" else value, epoch) for epoch, value in enumerate(self.column(name))
                 if value is not None and math.isfinite(value)]  # fmt: skip
        return min(found)[1] if found else None

    def column(self, name) -> list:
        """The list of what may be watched: "loss" and "accuracy" are those of validation, where there is any."""
        if name in ("loss", "accuracy"):
            return getattr(self, f"validation_{name}") or getattr(self, f"train_{name}")
        return self.metrics.get(name, [])

    def add(self, train, validation, metrics, **numbers) -> None:
        """One more epoch. train, validation: "loss" and "accuracy" of it, validation None where there is none."""
        epochs = len(self)
        if validation is not None and not self.validation_loss:  # it begins here
            self.validation_loss, self.validation_accuracy = [None] * epochs, [None] * epochs
        self.train_loss.append(train["loss"])
        self.train_accuracy.append(train.get("accuracy"))
        if self.validation_loss or validation is not None:
            self.validation_loss.append((validation or {}).get("loss"))
            self.validation_accuracy.append((validation or {}).get("accuracy"))
        for name in {**self.metrics, **metrics}:
            self.metrics.setdefault(name, [None] * epochs).append(metrics.get(name))
        for name, number in numbers.items():
            entries = getattr(self, name)
            entries += [None] * (epochs - len(entries))  # of epochs of an older version
            entries.append(number)

    def to_dict(self) -> dict[str, list]:
        """Columns of a table, for JSON or a data frame: lists of one length, one entry per epoch, which is None where
        there was nothing, or no finite number. Metrics are columns beside the others."""
        lists = {name: getattr(self, name) or [None] * len(self) for name in COLUMNS}
        lists |= self.metrics
        return {name: [entry if isinstance(entry, int) or (entry is not None and math.isfinite(entry)) else None
                       for entry in entries] for name, entries in lists.items()}  # fmt: skip

    @classmethod
    def from_dict(cls, lists: dict) -> History:
        """The reverse of to_dict, also of its older forms, in which what never ran was empty, and which had no norms of
        gradients. Raises ValueError for anything else."""
        if not isinstance(lists, dict) or not set(COLUMNS) - {"gradient_norm"} <= set(lists):
            raise ValueError(f"history: expected {', '.join(COLUMNS)}, got {describe(lists)}")
        for name, entries in lists.items():
            if not isinstance(name, str) or name == "epoch":  # which is the number of a line, in tables and files
                raise ValueError(f"history: expected names of columns, other than 'epoch', got {describe(name)}")
            if not isinstance(entries, list) or not all(map(can_be_entry, entries)):
                raise ValueError(f"history.{name}: expected a list of numbers, got {describe(entries)}")
        epochs, known = len(lists["train_loss"]), {"gradient_norm": []}
        for name, entries in lists.items():
            may_be_short = name in MAY_BE_EMPTY
            if len(entries) > epochs or (len(entries) < epochs and not may_be_short):
                raise ValueError(f"history.{name}: expected {epochs} entries, one per epoch, got {len(entries)}")
            # Shorter than all epochs they were in older files of runs that met their validation data on resuming.
            known[name] = [None] * (epochs - len(entries)) + entries
        if all(entry is None for entry in known["validation_loss"]):
            known["validation_loss"], known["validation_accuracy"] = [], []
        if all(entry is None for entry in known["gradient_norm"]):
            known["gradient_norm"] = []
        return cls(**{name: known.pop(name) for name in COLUMNS}, metrics=known)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """A heading and what stands below it, as text: of the columns that have something."""
        lists = {"epoch": list(range(1, len(self) + 1)), **self.to_dict()}
        lists = {name: entries for name, entries in lists.items() if any(entry is not None for entry in entries)}
        half = SHOWN // 2
        chosen = range(len(self))
        chosen = chosen if len(chosen) <= SHOWN else [*chosen[:half], None, *chosen[-half:]]
        text = [["..." if n is None else shown(entries[n]) for entries in lists.values()] for n in chosen]
        return list(lists), text

    def __repr__(self):
        if not len(self):
            return "History of no epoch"
        heading, text = self.rows()
        heading = [name.replace("_", " ") for name in heading]
        widths = [max(map(len, column)) for column in zip(heading, *text, strict=True)]
        lines = ["  ".join(f"{entry:>{width}}" for entry, width in zip(row, widths, strict=True))
                 for row in (heading, *text)]  # fmt: skip
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """A table and, where there is matplotlib, a picture: what a notebook shows."""
        if not len(self):
            return f"<p>{self!r}</p>"
        import html  # 2 200 entities, which only this needs

        heading, text = self.rows()
        head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in heading)
        body = "".join("<tr>" + "".join(f"<td>{entry}</td>" for entry in row) + "</tr>" for row in text)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        try:
            return table + pictures.shown(self.figure())
        except ImportError:
            return table

    def save(self, path) -> None:
        """Write the lists of to_dict as JSON, atomically. Raises OSError."""
        write_atomically(path, json.dumps(self.to_dict(), indent=1).encode())

    def plot(self, path=None, *, axis=None, test=None, title="Training", unit="mean per token") -> None:
        """Draw training and validation loss, and metrics, per epoch into a picture (by its ending: PNG, SVG, PDF),
        without a screen; or the losses alone into a picture of yours.

        axis : of matplotlib, to draw the losses into, instead of a path.
        test : a loss on other data, such as `model.evaluate(x, y)["loss"]`, which is drawn across.
        title : above the losses. unit : of the losses, beside them.

        Needs matplotlib (the extra "plot"); raises ImportError without it, TypeError or ValueError naming the argument,
        ValueError before the first epoch and for another ending, OSError. The file is written atomically.
        """
        if (path is None) == (axis is None):
            got = "neither" if path is None else "both"
            raise TypeError(f"path, axis: expected a path or an axis of matplotlib, got {got}")
        test = None if test is None else real_in("test", test, -math.inf)
        if path is not None:
            pictures.ending(path)
        elif not (hasattr(axis, "plot") and hasattr(axis, "set_title")):
            raise TypeError(f"axis: expected one of matplotlib, got {describe(axis)}")
        if not len(self):
            raise ValueError("history: expected at least one epoch to plot, got none")
        if axis is not None:
            self._draw_losses(axis, test, title, unit)
            pictures.of_epochs(axis, len(self))
        else:
            pictures.write(self.figure(test=test, title=title, unit=unit), path)

    def figure(self, *, test=None, title="Training", unit="mean per token"):
        """The picture of `plot`: a panel of losses, and one for each metric."""
        figure, axes = pictures.curves(1 + len(self.metrics), 4.2 + 1.8 * len(self.metrics))
        self._draw_losses(axes[0], test, title, unit)
        epochs, lists = range(1, len(self) + 1), self.to_dict()
        for panel, name in zip(axes[1:], self.metrics, strict=True):
            panel.plot(epochs, drawn(lists[name]), color="C2", **STYLE)
            panel.set_ylabel(name, parse_math=False)  # a $ is one
        pictures.of_epochs(axes[-1], len(self))
        return figure

    def _draw_losses(self, axis, test, title, unit):
        """Into one panel."""
        epochs, lists = range(1, len(self) + 1), self.to_dict()
        axis.plot(epochs, drawn(lists["train_loss"]), label="training", **STYLE)
        if self.validation_loss:
            axis.plot(epochs, drawn(lists["validation_loss"]), label="validation", **STYLE)
            best = self.best_epoch
            if best is not None and (loss := self.validation_loss[best]) is not None:
                axis.annotate(f"{loss:.4g}", (best + 1, loss), textcoords="offset points", xytext=(0, 6), ha="center",
                              fontsize=8)  # fmt: skip
        if test is not None:
            axis.axhline(test, color="C3", linestyle="--", linewidth=1.2, label=f"test, {test:.4g}")
        axis.set_title(title, parse_math=False)
        axis.set_ylabel(f"loss, {unit}", parse_math=False)
        axis.legend()


COLUMNS = tuple(entry.name for entry in fields(History) if entry.name not in ("metrics", "watched"))
MAY_BE_EMPTY = "validation_loss", "validation_accuracy", "gradient_norm"


def can_be_entry(entry) -> bool:
    """A number, though no integer beyond all floats, or None."""
    if isinstance(entry, int):
        return abs(entry) <= sys.float_info.max
    return isinstance(entry, (float, NoneType))


def shown(entry) -> str:
    """One entry of a table."""
    if entry is None:
        return ""
    return str(entry) if isinstance(entry, int) else f"{entry:.4g}"


def drawn(entries) -> list[float]:
    """With gaps, where there is nothing."""
    return [math.nan if entry is None else entry for entry in entries]
