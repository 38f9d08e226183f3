"""Many models in one file: their weights and histories and, in a checkpoint, how their training stands."""

from __future__ import annotations

import json
import time

import numpy as np

from cylstm import model_files
from cylstm.checks import describe, path_name, positive_int
from cylstm.many.history import Histories
from cylstm.model import Model
from cylstm.tensor_files import open_tensors, write_tensors
from cylstm.training.checkpoint import Checkpoint
from cylstm.training.record import Trained, is_plain

__all__ = ["as_checkpoint", "load", "resume", "save", "save_run"]

HISTORY = "history."
COUNTS = ("updates", "epochs", "plateaus", "since_plateau")  # of Moments, integers (N,); with `lowest`, a number each


def as_checkpoint(given) -> Checkpoint:
    """A path or a Checkpoint that only names one. Raises TypeError or ValueError."""
    checkpoint = given if isinstance(given, Checkpoint) else Checkpoint(given)
    if checkpoint.updates is not None:
        raise ValueError("checkpoint: expected one after each epoch for many models, got one every "
                         f"{checkpoint.updates} updates")  # fmt: skip
    return checkpoint


def save(models, path) -> None:
    """`Models.save`."""
    header, arrays = {"config": models.config}, {"models": models.flat}
    if models.trained is not None:
        header["trained"] = {"options": models.trained.options, "machine": models.trained.machine}
        arrays |= history_arrays(models.trained.history)
    write_tensors(path, "models", header, arrays)


def history_arrays(history):
    return {HISTORY + name: array for name, array in history.arrays().items()}


def load(cls, path):
    """`Models.load`."""
    path = path_name("path", path)
    with open_tensors(path, "models") as file:
        flat, template = read_flat(path, file)
        try:
            models = cls.like(template, len(flat))
            trained = file.header.get("trained")
            if trained is not None:
                options, machine = trained["options"], trained["machine"]
                for found in (options, machine):
                    if not isinstance(found, dict) or not all(map(is_plain, found.values())):
                        raise ValueError(f"expected a dict of text and numbers, got {describe(found)}")
                models.trained = Trained(read_history(file, len(flat)), options, machine)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: expected many models, got a file that is damaged ({error})") from None
    models.flat[:] = flat
    return models


def read_flat(path, file):
    """The weights (N, P), and a model of their kind."""
    shape = file.shapes.get("models", ())
    if len(shape) != 2 or not shape[0]:
        raise ValueError(f"{path}: expected a tensor models (N, P), got {shape}")
    header = {"config": file.header.get("config"), "vocabulary": None}
    template = model_files.from_header(Model, path, header, {"parameters": shape[1:]})
    return file.read("models", shape, template.dtype), template


def read_history(file, count) -> Histories:
    names = [name for name in file.shapes if name.startswith(HISTORY)]
    history = Histories.of({name.removeprefix(HISTORY): file.get(name) for name in names})
    if len(history) != count:
        raise ValueError(f"history: expected {count} models, got {len(history)}")
    return history


# --- checkpoints ------------------------------------------------------------------------------------------------------


def save_run(run) -> None:
    """Write everything that decides how a run goes on."""
    moments = run.moments
    header = {
        "config": run.models.config, "options": run.options, "done": run.done, "note": run.checkpoint.note,
        "failed": {str(n): text for n, text in run.failed.items()}, "measure": moments.measure,
        "elapsed": run.elapsed + time.perf_counter() - run.started,
    }  # fmt: skip
    arrays = {"models": run.models.flat, "first": run.first, "best": run.best, "waited": run.waited,
              "going": run.going, "lowest": moments.lowest, **history_arrays(run.history)}  # fmt: skip
    arrays |= {name: getattr(moments, name) for name in COUNTS}
    arrays |= {f"optimizer.{name}": buffer for name, buffer in moments.buffers.items()}
    if run.best_weights is not None:
        arrays["best_weights"] = run.best_weights
    write_tensors(run.checkpoint.path, "models' checkpoint", header, arrays)


def resume(run, path) -> None:
    """Let a run go on where a checkpoint stands. Raises OSError, or ValueError before anything changes."""
    path, flat, moments = path_name("resume", path), run.models.flat, run.moments
    with open_tensors(path, "models' checkpoint") as file:
        try:
            expect_same(path, json.loads(json.dumps(run.models.config)), file.header["config"])
            expect_same(path, json.loads(json.dumps(run.options)), file.header["options"])
            done, count = positive_int("done", file.header["done"], 0), len(flat)
            failed = {int(n): str(text) for n, text in file.header["failed"].items()}
            elapsed, measure = float(file.header["elapsed"]), str(file.header["measure"])
            history = read_history(file, count)
            if history.epochs != done or not all(0 <= n < count for n in failed):
                raise ValueError(f"expected {done} epochs and failures of {count} models")
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: expected a checkpoint, got one that is damaged ({error!r})") from None
        of_run = {name: (count, kind) for name, kind in
                  (("first", np.int64), ("best", np.float64), ("waited", np.int64), ("going", np.bool_))}  # fmt: skip
        of_moments = dict.fromkeys(COUNTS, (count, np.int64)) | {"lowest": (count, np.float64)}
        arrays = {name: file.read(name, (size,), kind) for name, (size, kind) in (of_run | of_moments).items()}
        buffers = {name: file.read(f"optimizer.{name}", flat.shape, flat.dtype) for name in moments.buffers}
        weights = file.read("models", flat.shape, flat.dtype)
        best_weights = None if run.best_weights is None else file.read("best_weights", flat.shape, flat.dtype)
    flat[:] = weights
    for name in of_run:
        setattr(run, name, arrays[name])
    for name in of_moments:
        setattr(moments, name, arrays[name])
    for name, buffer in buffers.items():
        moments.buffers[name][:] = buffer
    run.done, run.failed, run.elapsed, run.history = done, failed, elapsed, history
    run.best_weights, moments.measure = best_weights, measure


def expect_same(path, present, saved) -> None:
    """ValueError unless a checkpoint is of the same models and options."""
    for name, value in present.items():
        if saved[name] != value:
            before, now = map(shown, (saved[name], value))
            raise ValueError(f"resume: expected the same as in {path}, with {name}={before}, got {now}")


def shown(value) -> str:
    """A number or a text itself; of what may be long, what it is."""
    return describe(value) if isinstance(value, (list, dict)) else repr(value)
