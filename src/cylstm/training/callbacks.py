"""Callbacks for `fit(callbacks=[...])`: the best model's file, and a line per epoch in files that others read."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
import weakref

from cylstm.checks import file_to_write, folder_to_write
from cylstm.metrics import as_monitor
from cylstm.tensor_files import write_atomically

__all__ = ["BestOnly", "CSVLog", "JSONLines", "TensorBoard"]


class BestOnly:
    """Saves the model (`Model.save`, atomically) after each epoch that is better than all before it, those before a
    resumed run's break included. Models of several runs that go to one object have to beat each other.

    path : of the model's file.
    monitor : what to go by, as for `fit`; None for what the run watches. Where it is no number, nothing is saved.

    Raises TypeError or ValueError, for a name that the run does not have after its first epoch.
    """

    def __init__(self, path, monitor=None):
        self.path = file_to_write("path", path)
        self.monitor = None if monitor is None else as_monitor(monitor)
        self.best = math.inf  # of what is better the higher it is, the negative

    def __call__(self, event):
        if event.kind != "epoch":
            return
        name, better = self.monitor or event.history.watched
        entries = event.history.column(name)
        if not entries or entries[-1] is None:
            known = ", ".join(map(repr, ("loss", *event.history.metrics)))
            raise ValueError(f"monitor: expected one of {known}, which this run has, got {name!r}")
        finite = [entry is not None and math.isfinite(entry) for entry in entries]
        *before, now = [(entry if better == "min" else -entry) if there else math.inf
                        for entry, there in zip(entries, finite, strict=True)]  # fmt: skip
        self.best = min([self.best, *before])
        if now < self.best:
            event.model.save(self.path)
            self.best = now


class EpochLog:
    """What the logs have in common: which lines are new."""

    def __init__(self):
        self.history = None  # that the last line came from

    def __call__(self, event):
        if event.kind != "epoch":
            return
        columns, history = event.history.to_dict(), event.history
        first = event.epoch + 2 - len(history)  # epochs are told from 1
        lines = [{"epoch": first + n, **{name: entries[n] for name, entries in columns.items()}}
                 for n in range(len(history))]  # fmt: skip
        if history is self.history or (self.history is not None and len(lines) == 1):
            self.append(lines[-1])
        else:
            self.begin(lines)
        self.history = history

    def begin(self, lines) -> None:
        """Write all lines, in the place of what was there."""
        raise NotImplementedError

    def append(self, line) -> None:
        """Write one more."""
        raise NotImplementedError


class CSVLog(EpochLog):
    """A CSV file with a line for each epoch: its number, from 1, and all columns of `History.to_dict`; an entry is
    empty where there is nothing, or no finite number.

    A run begins the file anew. A run that was resumed writes the epochs before the break again, from its history, and
    goes on; another `fit` with the same object goes on, too, and ValueError says where it has other columns. Each line
    is in the file when the epoch is over. Raises TypeError, ValueError or OSError.
    """

    def __init__(self, path):
        super().__init__()
        self.path, self.columns = file_to_write("path", path), None

    def begin(self, lines):
        self.columns = list(lines[0])
        write_atomically(self.path, "".join(map(self.text, [self.columns, *map(dict.values, lines)])).encode())

    def append(self, line):
        if list(line) != self.columns:
            raise ValueError(f"{self.path}: expected the columns {', '.join(self.columns)}, got {', '.join(line)}")
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write(self.text(line.values()))

    @staticmethod
    def text(entries) -> str:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow("" if entry is None else entry for entry in entries)
        return line.getvalue()


class JSONLines(EpochLog):
    """A file with a JSON object on a line for each epoch: its number, "epoch", from 1, and all columns of
    `History.to_dict`; null where there is nothing, or no finite number.

    A run begins the file anew, and goes on in it when it is resumed, as for `CSVLog`; another `fit` with the same
    object goes on, too. Each line is in the file when the epoch is over. Raises TypeError, ValueError or OSError.
    """

    def __init__(self, path):
        super().__init__()
        self.path = file_to_write("path", path)

    def begin(self, lines):
        write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def append(self, line):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class TensorBoard(EpochLog):
    """Scalars for TensorBoard, through tensorboardX (the extra "log"): the columns of `History.to_dict` after each
    epoch, whose number, from 1, is the step; nothing where there is no finite number.

    folder : is made if it is not there; each run has a file of its own in it. A run that was resumed writes the epochs
        before the break again, and TensorBoard shows these in the place of what it had. An epoch's scalars are in the
        file when it is over.

    Raises TypeError, ValueError, ImportError without tensorboardX, or OSError.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder = folder_to_write("folder", folder)
        expect_tensorboardx()
        self.writer, self.close = None, lambda: None

    def begin(self, lines):
        from tensorboardX.event_file_writer import EventsWriter  # without SummaryWriter's thread, which may be late
        from tensorboardX.proto.event_pb2 import SessionLog

        self.close()
        os.makedirs(self.folder, exist_ok=True)
        # Files have the second in their names, and are read in the names' order.
        self.writer = EventsWriter(os.path.join(self.folder, "events"), f".{time.time_ns()}")
        self.close = weakref.finalize(self, self.writer.close)
        if len(lines) > 1:
            self.write(lines[0]["epoch"], session_log=SessionLog(status=SessionLog.START))
        for line in lines:
            self.append(line)

    def append(self, line):
        from tensorboardX.summary import scalar

        for name, value in line.items():
            if name != "epoch" and value is not None:
                self.write(line["epoch"], summary=scalar(name, value))
        self.writer.flush()

    def write(self, step, **what):
        from tensorboardX.proto.event_pb2 import Event

        self.writer.write_event(Event(step=step, wall_time=time.time(), **what))


def expect_tensorboardx() -> None:
    """Raises ImportError."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise ImportError(f"TensorBoard: expected tensorboardX (pip install 'cylstm[log]'), got: {error}") from None
