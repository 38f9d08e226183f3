"""The standing of a training run in a file: everything that decides how it goes on."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass

from cylstm.activations import renamed
from cylstm.cell import CellType
from cylstm.checks import describe, file_to_write, path_name, positive_int, real_in
from cylstm.drops import DROPS
from cylstm.loss_and_gradients import Sums
from cylstm.state import State
from cylstm.tensor_files import Tensors, open_tensors, write_tensors
from cylstm.training.history import History
from cylstm.training.parts import by_part

__all__ = ["Checkpoint", "SavedRun", "read_checkpoint", "resume", "save"]

LARGEST_COUNT = 2**53
# Options that older files have not, as they were then.
ADDED = {"accumulate": 1, "trainable": None, "monitor": "loss min", "parts": None}
# What models have not unless their `config` says so.
UNSAID = {
    "embeddings": {}, "before": [], "after": [], "horizon": None, "labels": None, "embedding_dropout": 0.0,
    "tied": False, **CellType().variant, **DROPS,
}  # fmt: skip
# A generator's place within its numbers, MT19937's and Philox's, which NumPy takes as it comes.
PLACES = {"pos": 624, "buffer_pos": 4}
COUNTS = ("epoch", "position", "waited", "since_plateau", "plateaus", "first_epoch")
ARRAYS = ("parameters", "best", "state.h", "state.c")  # and optimizer.NAME, its moments


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often the whole state of training is written.

    path : file. updates : every so many updates; seconds : every so many seconds; whichever comes first. It is also
    written after every epoch. note : anything JSON can hold, kept in the file for whoever resumes.
    """

    path: str | os.PathLike
    updates: int | None = None
    seconds: float | None = 60.0
    note: object = None

    def __post_init__(self):
        if not isinstance(self.path, (str, os.PathLike)):
            raise TypeError(f"checkpoint: expected a path or a Checkpoint, got {describe(self.path)}")
        file_to_write("checkpoint", self.path)
        if self.updates is not None:
            positive_int("checkpoint.updates", self.updates)
        if self.seconds is not None:
            real_in("checkpoint.seconds", self.seconds, 0)
        try:
            json.dumps(self.note)
        except (RecursionError, TypeError, ValueError) as error:
            raise TypeError(
                f"checkpoint.note: expected what JSON can hold, got {describe(self.note)} ({error})"
            ) from None


class SavedRun:
    """What a checkpoint holds, read once: `fit(..., resume=)` goes on from it, `Model.from_checkpoint` makes the model
    as it was, `note` is what `Checkpoint.note` said.

    It serves one run, which takes its arrays.
    """

    def __init__(self, path, header, arrays):
        self.path, self.header = path, header
        self._arrays = arrays

    @property
    def note(self):
        """The note that came with the `Checkpoint`, for whoever sets up the same run again."""
        return self.header.get("note")

    @property
    def tensors(self) -> Tensors:
        """The arrays, each to be read in the shape and type that it must have."""
        if self._arrays is None:
            raise ValueError(f"resume: expected a checkpoint that no run has gone on from, got {self.path} once more")
        shapes = {name: array.shape for name, array in self._arrays.items()}
        return Tensors(self.path, self.header, shapes, self._arrays.__getitem__)

    def release(self) -> None:
        """Let go of the arrays."""
        self._arrays = None

    def check_same(self, config, options) -> None:
        """ValueError unless it was written by a run of the same model and options."""
        try:
            config = json.loads(json.dumps(said(config)))  # as in a file, where tuples are lists
            written = json.loads(json.dumps(said(self.header["config"])))
            written |= {name: renamed(written[name]) for name in ("activations", "before", "after")}
            if written["num_layers"] == 1:  # once, dropout could be anything then
                written["dropout"] = config["dropout"]
            pairs = [(written, config, "model"), ({**ADDED, **self.header["options"]}, options, "run")]
            for saved, present, what in pairs:
                for name, value in present.items():
                    if not same(saved[name], value):
                        raise ValueError(
                            f"resume: expected the same {what} as in {self.path}, with {name}={saved[name]}, "
                            f"got {value}"
                        )
        except (KeyError, TypeError) as error:
            raise self.damaged(error) from None

    def counts(self, batches: float, heads) -> dict:
        """Where the run stood, by the names of its attributes. ValueError where that cannot be.

        batches : how many there are in an epoch; infinity where nobody knows. heads : their names.
        """
        header = self.header
        try:
            given = header["numbers"]
            # which older files have not
            given = {"first_epoch": 0, "lowest": given["best"], "norms": [0.0, 0], **given}
            stood = {name: positive_int(name, given[name], 0) for name in COUNTS}
            stood["updates"] = positive_int("updates", header["updates"], 0)
            if max(stood.values()) > LARGEST_COUNT:
                raise ValueError(f"expected counts of at most {LARGEST_COUNT}, got {max(stood.values())}")
            given = {"weight": given["tokens"], **given}  # which older files have not, since all weights were 1
            stood["sums"] = self.sums(given, heads)
            total, updates = given["norms"]
            stood["norms"] = real_in("norms", total, 0), positive_int("norms", updates, 0)
            for name in ("best", "lowest"):
                stood[name] = math.inf if given[name] is None else real_in(name, given[name], -math.inf)
            stood["elapsed"] = real_in("elapsed", header["elapsed"], 0)
            tokens = sum(found.tokens for found in stood["sums"].values())
            if stood["position"] > batches or (tokens and stood["position"] == 0):
                raise ValueError(f"{stood['position']} of {batches} batches with {tokens} tokens")
            generator = {**header["generator"], **header["generator"]["state"]}
            for name, most in PLACES.items():
                if not 0 <= generator.get(name, 0) <= most:
                    raise ValueError(f"generator: expected {name} in 0..{most}, got {generator[name]}")
            return stood
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise self.damaged(error) from None

    def sums(self, numbers, heads) -> dict[str, Sums]:
        """The Sums of each head, of the epoch that was going on."""
        lists = [numbers[name] if len(heads) > 1 else [numbers[name]] for name in Sums._fields]
        found = {}
        for head, total, weight, hits, tokens in zip(heads, *lists, strict=True):
            total, tokens = real_in("total", total, -math.inf), positive_int("tokens", tokens, 0)
            found[head] = Sums(total, real_in("weight", weight, 0), real_in("hits", hits, 0), tokens)
            if tokens > LARGEST_COUNT or (tokens > 0) != (found[head].weight > 0):
                raise ValueError(f"expected a weight of {tokens} tokens, got {weight}")
        return found

    def damaged(self, error) -> ValueError:
        """The error that says so."""
        return ValueError(f"{self.path}: expected a checkpoint, got one whose header is damaged ({error})")


def read_checkpoint(path, *, name="path") -> SavedRun:
    """name: what errors call the path. Raises TypeError, OSError, or ValueError for a file that is no checkpoint."""
    path = path_name(name, path)
    with open_tensors(path, "checkpoint") as file:
        wanted = [name for name in file.shapes if name in ARRAYS or name.startswith("optimizer.")]
        return SavedRun(path, file.header, {name: file.get(name) for name in wanted})


def said(config) -> dict:
    """A model's `config` with all that it leaves unsaid."""
    return {**UNSAID, "precision": config["dtype"], **config}


def same(saved, present) -> bool:
    """Whether they are equal, the order of a dict's entries, of heads, included: weights lie in it."""
    return saved == present and (not isinstance(present, dict) or list(saved) == list(present))


def save(run, state) -> None:
    """Write everything that decides how a run goes on. state : of all rows, or None."""
    numbers = {**{name: getattr(run, name) for name in COUNTS}, "norms": list(run.norms)}
    for name in Sums._fields:  # of this epoch: a number or, of several heads, a list
        of_heads = [getattr(found, name) for found in run.sums.values()]
        numbers[name] = of_heads[0] if len(of_heads) == 1 else of_heads
    numbers.update({name: None if math.isinf(value) else value
                    for name, value in (("best", run.best), ("lowest", run.lowest))})  # fmt: skip
    header = {
        **run.model.header(), "options": vars(run.options), "numbers": numbers, "updates": run.moments.updates,
        "history": run.history.to_dict(), "generator": run.model.rng.bit_generator.state,
        "elapsed": run.elapsed + time.perf_counter() - run.started, "note": run.checkpoint.note,
    }  # fmt: skip
    arrays = {"parameters": run.model.parameters.raw()}
    arrays.update({f"optimizer.{name}": buffer for name, buffer in run.moments.buffers.items()})
    if run.best_weights is not None:
        arrays["best"] = run.best_weights
    if state is not None:
        arrays.update({"state.h": state.h, "state.c": state.c})
    write_tensors(run.checkpoint.path, "checkpoint", header, arrays)


def resume(run, saved: SavedRun) -> None:
    """Let a run go on where a checkpoint stands. Raises ValueError, before anything changes, where it is of another
    run."""
    model, flat, path, file = run.model, run.model.parameters.raw(), saved.path, saved.tensors
    saved.check_same(model.header()["config"], vars(run.options))
    stood = saved.counts(math.inf if run.options.rows is None else run.groups()[0], list(model.heads))
    try:
        history = History.from_dict(saved.header.get("history"))
        if len(history) != stood["epoch"] - stood["first_epoch"]:
            raise ValueError(f"history: expected the epochs from {stood['first_epoch']} to {stood['epoch']}, got "
                             f"{len(history)}")  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{path}: expected a checkpoint, got one that is damaged ({error})") from None
    buffers = {name: file.read(f"optimizer.{name}", flat.shape, flat.dtype) for name in run.moments.buffers}
    best = file.read("best", flat.shape, flat.dtype) if "best" in file.shapes else None
    state = None
    if run.options.tbptt is not None and "state.h" in file.shapes:
        like = model.initial_state(len(run.dataset))
        state = State(*(file.read(f"state.{part}", getattr(like, part).shape, model.dtype) for part in "hc"))
        if run.options.parts is not None:
            state = by_part(state, run.cut(None), run.ranks.own)
    parameters = file.read("parameters", flat.shape, flat.dtype)
    try:
        model.rng.bit_generator.state = saved.header["generator"]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"resume: expected the state of a {type(model.rng.bit_generator).__name__} in {path}, "
                         f"got another ({error})") from None  # fmt: skip
    flat[:] = parameters
    model.parameters.touch()
    for name, buffer in buffers.items():
        run.moments.buffers[name][:] = buffer
    run.moments.updates = run.saved_update = stood.pop("updates")
    run.saved_path = path
    for name, value in stood.items():
        setattr(run, name, value)
    history.watched = run.monitor
    run.history, run.best_weights, run.state = history, best, state
    run.remember()
    saved.release()
