"""Many models in one file: their weights and histories and, in a checkpoint, how their training stands."""

from __future__ import annotations

import json
import time

import numpy as np

from cylstm import model_files
from cylstm.checks import describe, path_name, positive_int, real_in
from cylstm.many.history import Histories
from cylstm.model import Model
from cylstm.tensor_files import open_tensors, write_tensors
from cylstm.training.checkpoint import LARGEST_COUNT, Checkpoint
from cylstm.training.record import Trained, is_plain

__all__ = ["as_checkpoint", "load", "resume", "save", "save_run"]

HISTORY = "history."
OF_RUN = {"first": np.int64, "best": np.float64, "waited": np.int64, "going": np.bool_, "plateaus": np.int64,
          "since_plateau": np.int64, "lowest": np.float64}  # numbers of each model, (N,)  # fmt: skip
OF_MOMENTS = {"updates": np.int64, "epochs": np.int64}


def as_checkpoint(given) -> Checkpoint:
    """A path or a Checkpoint that only names one. Raises TypeError or ValueError."""
    checkpoint = given if isinstance(given, Checkpoint) else Checkpoint(given)
    for name in ("updates", "seconds"):
        given = getattr(checkpoint, name)
        if given not in (None, getattr(Checkpoint, name)):
            raise ValueError(f"checkpoint: expected one after each epoch for many models, got one every {given} {name}")
    return checkpoint


def save(models, path) -> None:
    """`Models.save`."""
    header, arrays = {"config": models.config}, {"models": models.flat}
    if models.trained is not None:
        header["trained"] = {"options": models.trained.options, "machine": models.trained.machine}
        arrays |= history_arrays(models.trained.history)
    if models.own:
        header["own"] = {str(n): None if own is None else own.to_dict() for n, own in models.own.items()}
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
                seeds = options["seeds"]
                if not isinstance(seeds, list) or len(seeds) != len(flat):
                    raise ValueError(f"seeds: expected {len(flat)}, got {describe(seeds)}")
                for n, seed in enumerate(seeds):
                    positive_int(f"seeds[{n}]", seed, 0)
                models.trained = Trained(read_history(file, len(flat)), options, machine)
            for n, own in file.header.get("own", {}).items():
                models.own[models._number(int(n))] = None if own is None else Trained.from_dict(own)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
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
        "failed": {str(n): text for n, text in run.failed.items()}, "measure": run.measure,
        "elapsed": run.elapsed + time.perf_counter() - run.started,
    }  # fmt: skip
    arrays = {"models": run.models.flat, **history_arrays(run.history)}
    arrays |= {name: getattr(run, name) for name in OF_RUN} | {name: getattr(moments, name) for name in OF_MOMENTS}
    arrays |= {f"optimizer.{name}": buffer for name, buffer in moments.buffers.items()}
    if run.best_weights is not None:
        arrays["best_weights"] = run.best_weights
    write_tensors(run.checkpoint.path, "models' checkpoint", header, arrays)


def resume(run, path) -> None:
    """Let a run go on where a checkpoint stands. Raises OSError, or ValueError before anything changes."""
    path, flat, moments = path_name("resume", path), run.models.flat, run.moments
    with open_tensors(path, "models' checkpoint") as file:
        for part, present in (("config", run.models.config), ("options", run.options)):
            if not isinstance(file.header.get(part), dict):
                raise ValueError(f"{path}: expected a checkpoint, got one that is damaged (no {part})")
            expect_same(path, json.loads(json.dumps(present)), file.header[part])
        arrays = {name: file.read(name, (len(flat),), kind) for name, kind in (OF_RUN | OF_MOMENTS).items()}
        buffers = {name: file.read(f"optimizer.{name}", flat.shape, flat.dtype) for name in moments.buffers}
        weights = file.read("models", flat.shape, flat.dtype)
        best_weights = None if run.best_weights is None else file.read("best_weights", flat.shape, flat.dtype)
        try:
            history = read_history(file, len(flat))
            done, failed, elapsed = stood(run, file.header, history, arrays)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: expected a checkpoint, got one that is damaged ({error})") from None
    flat[:] = weights
    for name in OF_RUN:
        setattr(run, name, arrays[name])
    for name, buffer in buffers.items():
        moments.buffers[name][:] = buffer
    moments.updates[:], moments.epochs[:] = arrays["updates"], arrays["epochs"]
    run.done, run.failed, run.elapsed, run.history, run.best_weights = done, failed, elapsed, history, best_weights
    run.remember(np.flatnonzero(arrays["epochs"] > arrays["first"]))


def stood(run, header, history, arrays) -> tuple[int, dict, float]:
    """How many epochs of the run are done, what failed and the seconds it took. ValueError where that cannot be."""
    count, patience = len(history), run.options["patience"]
    done, elapsed = positive_int("done", header["done"], 0), real_in("elapsed", header["elapsed"], 0)
    failed = {int(n): text for n, text in header["failed"].items()}
    if history.epochs != done or not all(0 <= n < count and isinstance(text, str) for n, text in failed.items()):
        raise ValueError(f"expected {done} epochs and failures of {count} models")
    if header["measure"] != run.measure:
        raise ValueError(f"measure: expected {run.measure}, got {describe(header['measure'])}")
    had = (~np.isnan(history.updates)).sum(axis=1)
    last = np.nanmax(history.updates, axis=1, initial=0) if done else np.zeros(count)
    first, epochs, updates, going = (arrays[name] for name in ("first", "epochs", "updates", "going"))
    whole = np.isin(np.arange(count), list(failed), invert=True)
    possible = {
        "first": (first >= 0) & (first <= LARGEST_COUNT),
        "epochs": epochs == first + had,
        "updates": (updates <= LARGEST_COUNT) & np.where(whole, updates == last, updates >= last),
        "plateaus": (arrays["plateaus"] >= 0) & (arrays["plateaus"] <= epochs),
        "since_plateau": (arrays["since_plateau"] >= 0) & (arrays["since_plateau"] <= epochs),
        "waited": (arrays["waited"] >= 0) & (arrays["waited"] <= had),
        "going": going == (whole & ((patience is None) | (arrays["waited"] < (patience or 0)))),
        "best": arrays["best"] > -np.inf,
        "lowest": arrays["lowest"] > -np.inf,
    }
    for name, may_be in possible.items():
        if not may_be.all():
            n = int(np.argmin(may_be))
            raise ValueError(f"{name}[{n}]: expected another number, got {arrays[name][n]}")
    return done, failed, elapsed


def expect_same(path, present, saved) -> None:
    """ValueError unless a checkpoint is of the same models and options."""
    for name, value in present.items():
        if saved.get(name, ...) != value:
            before, now = map(shown, (saved.get(name), value))
            raise ValueError(f"resume: expected the same as in {path}, with {name}={before}, got {now}")


def shown(value) -> str:
    """A number or a text itself; of what may be long, what it is."""
    return describe(value) if isinstance(value, (list, dict)) else repr(value)
