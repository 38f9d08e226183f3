"""Training: epochs of mini-batches or of chunks of long streams, with checkpoints that resume to the same bits.

A run is a function of (initial weights, data, options, seed): the order of epoch e is drawn from (seed, e) alone, and
what else is random, the dropout masks, comes from the model's generator, whose state is part of every checkpoint.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cylstm._core import updates
from cylstm.batches import batch_of
from cylstm.checks import describe, positive_int, real_in
from cylstm.loss_and_gradients import evaluate, learn
from cylstm.parameters import Parameters
from cylstm.training import checkpoint as checkpoints
from cylstm.training.checkpoint import Checkpoint, SavedRun, read_checkpoint
from cylstm.training.dataset import Dataset
from cylstm.training.events import Event, NonFiniteLoss, StopTraining, deferred_interrupt
from cylstm.training.history import History
from cylstm.training.optim import Adam, Optimizer
from cylstm.training.schedule import ReduceOnPlateau

__all__ = ["fit"]


@dataclass(frozen=True)
class Options:
    """Everything but the data that decides what training computes, `epochs` excepted; the same again on resuming."""

    batch_size: int
    optimizer: str
    clip_norm: float | None
    clip_each: bool
    tbptt: int | None
    shuffle: bool
    seed: int
    patience: int | None
    rows: int
    tokens: int
    data: str | None  # a fingerprint, where there is a checkpoint
    accumulate: int = 1
    trainable: list[str] | None = None  # names


def fit(model, x, y, *, lengths=None, mask=None, resets=None, state=None, sample_weight=None, class_weight=None,
        ignore=None, missing="error", validation=None, epochs=10, batch_size=32, optimizer=None, clip_norm=5.0,
        clip_each=False, accumulate=1, trainable=None, tbptt=None, shuffle=True, seed=0, patience=None, checkpoint=None,
        resume=None, progress=True, callbacks=(), on_gradients=None) -> History:  # fmt: skip
    """Train a model, in place.

    x, y : ids (B, T) or features (B, T, I), and, as the loss asks, classes (B, T) or numbers (B, T, O), with `lengths`
        (B,) where rows differ; or two lists of arrays of different lengths; or one sequence, without the axis B.
        For output="last" y is classes (B,) or numbers (B, O), in any shape that has as many to a row (`data.windows`);
        for "ctc" a list of the labels of each row.
    mask : booleans (B, T), or a list of arrays (T_b,): a step where it is false is skipped, wherever it stands, as if
        the row were shorter: the state passes it by, and neither its input nor its target is looked at.
    resets, state : as for `LSTM`, of all rows; resets of a list are (B, T) for its longest sequence.
    sample_weight : numbers >= 0 that the loss of each row, (B,), or of each step, (B, T) or a list, counts with. A mean
        is the sum of weight times loss over the sum of weights, as PyTorch has it.
    class_weight : a dict from classes to numbers >= 0, 1 for those it does not name, or "balanced": N / (K n) for a
        class with n of N targets, of K that are there (King & Zeng 2001). For classes, or one output of 0 or 1.
        Validation does not use it.
    ignore : a class that does not count, in or outside 0..O-1 (-100 is PyTorch's).
    missing : "error", or "skip" leaves targets that are NaN out of the loss, number by number.
    validation : (x, y), (x, y, lengths) or a dict of x, y and lengths, mask, resets, state or sample_weight, evaluated
        after each epoch: no gradient, no dropout, no random number. `ignore` and `missing` apply.
    epochs, batch_size : int >= 1. A last batch may be smaller.
    optimizer : SGD, Adam or AdamW, whose lr is a number or a schedule; a new Adam(lr=1e-3) by default. An object that
        has trained this model before goes on: with its moments, its schedule and the next epoch's order of rows, so
        that one epoch after the other is the same as all in one call (but for `patience`, which counts from the call's
        beginning on).
    clip_norm : largest norm of all gradients together (Pascanu et al. 2013), or of each parameter's with clip_each;
        None does not clip.
    accumulate : one update for so many batches (or chunks), by the mean over all that counts in them.
    trainable : a name or a pattern of parameters ("head.*"), or several; the others stay as they are. None for all.
    tbptt : k cuts the steps into chunks of k: x (S, T) are S parallel streams, one update per chunk, the state is
        carried from chunk to chunk and starts at `state`, or zero, each epoch (`data.streams` makes x and y;
        batch_size and shuffle do not apply).
    shuffle : draw a new order of the rows for each epoch, from (seed, epoch).
    patience : stop after so many epochs without a lower validation loss (training loss, where there is no validation),
        and go back to the best weights.
    checkpoint : path or Checkpoint: the whole state is written there now and then, atomically.
    resume : path of a checkpoint of the same run to go on from, or what `read_checkpoint` has read of it. `epochs` are
        those of the whole run; the end has the same bits as without the break.
        Ctrl-C finishes the update at hand, writes the checkpoint if there is one, and raises KeyboardInterrupt.
    progress : a tqdm bar per epoch with loss and tokens/s.
    callbacks : callables, each called with an Event after every update and epoch; may raise StopTraining.
    on_gradients : called with the model and its gradients, Parameters, before each update: what it adds to them (noise,
        the slope of a penalty) is clipped and taken as they are.

    Returns the History. Raises TypeError or ValueError naming the argument, and the place of a number in x or y that is
    not finite, before anything is changed; RuntimeError where another thread is training the model (what others get
    from it meanwhile may be of weights half updated: give them a copy); NonFiniteLoss when the loss, its gradients, the
    validation loss or, in the end, the weights stop being numbers: no update follows, and the checkpoint stays as it
    was before.
    """
    dataset = Dataset(model, x, y, lengths, mask=mask, resets=resets, state=state, sample_weight=sample_weight,
                      class_weight=class_weight, ignore=ignore, missing=missing)  # fmt: skip
    held_out = None if validation is None else held_out_data(model, validation, ignore, missing)
    optimizer = Adam() if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected SGD, Adam or AdamW, got {describe(optimizer)}")
    if tbptt is not None:
        tbptt = positive_int("tbptt", tbptt)
        expect_streams(model, dataset)
    options = Options(
        batch_size=positive_int("batch_size", batch_size), optimizer=repr(optimizer),
        clip_norm=None if clip_norm is None else real_in("clip_norm", clip_norm, 0, open_low=True),
        clip_each=bool(clip_each), tbptt=tbptt, shuffle=bool(shuffle), seed=positive_int("seed", seed, 0),
        patience=None if patience is None else positive_int("patience", patience), rows=len(dataset),
        tokens=dataset.tokens, data=dataset.fingerprint() if checkpoint or resume else None,
        accumulate=positive_int("accumulate", accumulate),
        trainable=None if trainable is None else model.parameters.matching("trainable", trainable))  # fmt: skip
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint(checkpoint)
    callbacks, epochs = as_callbacks(callbacks), positive_int("epochs", epochs)
    if on_gradients is not None and not callable(on_gradients):
        raise TypeError(f"on_gradients: expected a callable, got {describe(on_gradients)}")
    me = object()
    try:
        if not model.in_training.take(me):
            raise RuntimeError("model: expected one training run at a time, got a second one while another goes on")
        run = Run(model, dataset, held_out, optimizer, options, checkpoint, progress, callbacks, on_gradients)
        if resume is not None:
            checkpoints.resume(run, resume if isinstance(resume, SavedRun) else read_checkpoint(resume, name="resume"))
        return run.until(run.first_epoch + epochs)
    finally:
        model.in_training.give_back(me)


def held_out_data(model, validation, ignore, missing) -> Dataset:
    """(x, y), (x, y, lengths) or a dict, checked."""
    known = ("x", "y", "lengths", "mask", "resets", "state", "sample_weight")
    if isinstance(validation, (tuple, list)) and len(validation) in (2, 3):
        validation = dict(zip(known, validation, strict=False))
    if not isinstance(validation, Mapping) or not {"x", "y"} <= set(validation) <= set(known):
        given = describe(validation)
        if isinstance(validation, Mapping):
            given = f"one of {', '.join(map(str, validation))}"
        raise ValueError("validation: expected (x, y), (x, y, lengths) or a dict of x, y and "
                         f"{', '.join(known[2:])}, got {given}")  # fmt: skip
    return Dataset(model, **validation, ignore=ignore, missing=missing, prefix="validation ")


def expect_streams(model, dataset) -> None:
    """ValueError for what tbptt cannot cut into chunks."""
    if dataset.ragged:
        raise ValueError("tbptt: expected streams in one array, with lengths where they differ, got a list")
    if model.bidirectional or model.output == "last" or model.loss.of_rows:
        raise ValueError(
            f"tbptt: expected a model of one direction with output='sequence' and a loss of steps, got {model}"
        )


def as_callbacks(callbacks) -> tuple:
    """A tuple of callables."""
    if callable(callbacks) or not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks: expected a list of callables, got {describe(callbacks)}")
    callbacks = tuple(callbacks)
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks: expected callables, got {describe(callback)}")
    return callbacks


class Run:
    """One training run: where it stands, and how it goes on."""

    def __init__(self, model, dataset, held_out, optimizer, options, checkpoint, progress, callbacks, on_gradients):
        self.model, self.dataset, self.held_out = model, dataset, held_out
        self.optimizer, self.options, self.checkpoint = optimizer, options, checkpoint
        self.progress, self.callbacks, self.on_gradients = progress, callbacks, on_gradients
        self.moments = moments = optimizer.moments(model.parameters)
        self.gradients = Parameters(model.parameters.layout, model.dtype)
        self.means = Parameters(model.parameters.layout, model.dtype) if options.accumulate > 1 else None
        self.history = History()
        self.first_epoch = self.epoch = moments.epochs
        self.position = 0  # updates of this epoch that are done
        self.total, self.weight, self.hits, self.tokens = 0.0, 0.0, 0.0, 0  # of this epoch
        self.state = None  # carried from chunk to chunk
        self.best, self.best_weights, self.waited = math.inf, None, 0
        # What a schedule has seen is of one measure: of another one it begins anew.
        self.measure = "training" if held_out is None else "validation"
        same = moments.measure == self.measure
        self.lowest, self.since_plateau = (moments.lowest, moments.since_plateau) if same else (math.inf, 0)
        self.plateaus = moments.plateaus
        self.elapsed, self.started = 0.0, time.perf_counter()
        self.saved_at, self.saved_update, self.saved_path = self.started, moments.updates, None

    # --- the loop -------------------------------------------------------------------------------------------------

    def until(self, epochs) -> History:
        """Train up to `epochs` epochs in all."""
        self.started = self.saved_at = time.perf_counter()
        try:
            with deferred_interrupt() as interrupt:
                while self.epoch < epochs and not self.out_of_patience():
                    self.run_epoch(epochs, interrupt)
                    self.save_now_and_then(interrupt)
        except StopTraining:
            if self.checkpoint is not None and self.moments.updates != self.saved_update:
                self.save()
        if self.options.patience is not None and self.best_weights is not None:
            self.model.parameters.raw()[:] = self.best_weights
            self.model.parameters.touch()
        if interrupt.is_set():
            raise KeyboardInterrupt
        self.expect_finite_weights()
        return self.history

    def out_of_patience(self):
        return self.options.patience is not None and self.waited >= self.options.patience

    def run_epoch(self, epochs, interrupt):
        from tqdm import tqdm  # 30 ms: `import cylstm` has 15

        batches = self.batches()
        bar = tqdm(total=len(batches), initial=self.position, desc=f"epoch {self.epoch + 1}/{epochs}", unit="batch",
                   disable=not self.progress or sys.stderr is None, leave=True)  # fmt: skip
        with bar:
            shown, tokens_shown = time.perf_counter(), self.tokens
            while self.position < len(batches):
                loss = self.update(batches[self.position], self.epoch + self.position / len(batches))
                self.position += 1
                if loss is not None:
                    self.tell("update", loss)
                self.save_now_and_then(interrupt)
                bar.update()
                now = time.perf_counter()
                if self.progress and now - shown > 0.2 and self.weight:
                    rate = (self.tokens - tokens_shown) / (now - shown)
                    bar.set_postfix_str(f"loss {self.total / self.weight:.4f}, {rate:,.0f} tokens/s", refresh=False)
                    shown, tokens_shown = now, self.tokens
            self.end_epoch(bar, len(batches))
        self.save_now_and_then(interrupt, epoch_ended=True)
        self.tell("epoch", self.history.train_loss[-1])

    def batches(self):
        """This epoch's updates in order: lists of batches, which are index arrays, or the first steps of chunks."""
        options = self.options
        if options.tbptt is not None:
            batches = list(range(0, self.dataset.steps, options.tbptt))
        else:
            batches = self.dataset.batches(options.batch_size, [options.seed, self.epoch] if options.shuffle else None)
        return [batches[n : n + options.accumulate] for n in range(0, len(batches), options.accumulate)]

    def update(self, batches, progress) -> float | None:
        """One update of the weights; returns the loss before it, None where nothing counts, and nothing is updated."""
        results = []
        for batch in batches:
            results.append(self.one_batch(batch))
            if len(batches) > 1:
                self.take_mean(results)
        total = sum(result.loss * result.weight for result in results if result.weight)
        weight = sum(result.weight for result in results)
        if not weight:
            return None
        loss = results[0].loss if len(results) == 1 else total / weight
        if len(results) > 1:
            self.gradients.raw()[:] = self.means.raw()
        if self.on_gradients is not None:
            self.on_gradients(self.model, self.gradients)
        if self.options.trainable is not None:
            for name in set(self.gradients) - set(self.options.trainable):
                self.gradients.raw(name)[...] = 0  # they have no part in the norm
        scale = self.clip(loss)
        rate = self.optimizer.lr.at(progress, self.plateaus)
        self.optimizer.update(self.model.parameters, self.gradients, lr=rate, scale=scale,
                              trainable=self.options.trainable)  # fmt: skip
        self.total += total
        self.weight += weight
        self.hits += sum(result.hits for result in results)
        self.tokens += sum(result.tokens for result in results)
        return loss

    def one_batch(self, batch):
        """The gradients of one batch, and what else there is to tell of it."""
        tbptt = self.options.tbptt
        part = self.dataset.part(batch) if tbptt is None else self.dataset.part(slice(None), batch, batch + tbptt)
        result = learn(self.model, batch_of(self.model, part, self.dataset.counting), self.gradients, self.state)
        if tbptt is not None:
            self.state = result.state
        return result

    def take_mean(self, results):
        """The gradients' mean over all that counts in the batches so far, the last one's being those at hand."""
        if len(results) == 1:
            self.means.raw()[:] = self.gradients.raw()
        elif results[-1].weight:
            share = results[-1].weight / sum(result.weight for result in results)
            self.means.raw()[:] += self.model.dtype.type(share) * (self.gradients.raw() - self.means.raw())

    def clip(self, loss) -> float:
        """What the gradients are to be multiplied by; with clip_each they have been, one by one."""
        norm = math.sqrt(updates.sum_squares(self.gradients.raw()))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = "loss: expected a finite number" if not math.isfinite(loss) else "gradients: expected a finite norm"
            self.complain(f"{what}, got {norm if math.isfinite(loss) else loss}", self.moments.updates + 1)
        limit = self.options.clip_norm
        if limit is None:
            return 1.0
        if not self.options.clip_each:
            return min(1.0, limit / (norm + 1e-6))  # PyTorch's formula
        for name in self.gradients:
            part = self.gradients.raw(name).reshape(-1)
            norm = math.sqrt(updates.sum_squares(part))
            if norm > limit:
                updates.scale_inplace(part, limit / (norm + 1e-6))
        return 1.0

    def complain(self, what, update):
        batch = self.position + update - self.moments.updates
        where = f"epoch {self.epoch + 1}, batch {batch}" if batch else f"the end of epoch {self.epoch}"
        kept = f"; {self.saved_path} holds update {self.saved_update}" if self.saved_path else ""
        raise NonFiniteLoss(f"{what} at update {update} ({where}){kept}")

    def expect_finite_weights(self):
        if not math.isfinite(updates.sum_squares(self.model.parameters.raw())):
            self.complain("weights: expected finite numbers, got others", self.moments.updates)

    def end_epoch(self, bar, batches):
        found = self.model.loss.metrics(self.total, self.weight, self.hits, self.model.output_size)
        held_out = None if self.held_out is None else evaluate(self.model, self.held_out)
        if held_out is not None and not math.isfinite(held_out["loss"]):
            self.complain(f"validation loss: expected a finite number, got {held_out['loss']}", self.moments.updates)
        history = self.history
        history.train_loss.append(found["loss"])
        history.train_accuracy.append(found.get("accuracy"))
        last_update = self.epoch + (batches - 1) / batches
        history.learning_rate.append(self.optimizer.lr.at(last_update, self.plateaus))
        history.updates.append(self.moments.updates)
        history.seconds.append(self.elapsed + time.perf_counter() - self.started)
        text = f"loss {found['loss']:.4f}"
        monitored = found["loss"]
        if held_out is not None:
            monitored = held_out["loss"]
            history.validation_loss.append(monitored)
            history.validation_accuracy.append(held_out.get("accuracy"))
            text += f", validation {monitored:.4f}"
        bar.set_postfix_str(text)
        self.watch(monitored)
        self.epoch, self.position = self.epoch + 1, 0
        self.remember()
        self.total, self.weight, self.hits, self.tokens, self.state = 0.0, 0.0, 0.0, 0, None

    def remember(self):
        """Let the optimiser go on from here, the next time."""
        moments = self.moments
        moments.epochs, moments.plateaus, moments.measure = self.epoch, self.plateaus, self.measure
        moments.lowest, moments.since_plateau = self.lowest, self.since_plateau

    def watch(self, loss):
        """Early stopping and plateaus: both count epochs without a lower loss, one since this call began."""
        self.waited += 1
        if loss < self.best:
            self.best, self.waited = loss, 0
            if self.options.patience is not None:
                self.best_weights = self.model.parameters.raw().copy()
        self.since_plateau += 1
        if loss < self.lowest:
            self.lowest, self.since_plateau = loss, 0
        if isinstance(self.optimizer.lr, ReduceOnPlateau) and self.since_plateau >= self.optimizer.lr.patience:
            self.plateaus, self.since_plateau = self.plateaus + 1, 0

    def tell(self, kind, loss):
        for callback in self.callbacks:
            epoch = self.epoch - 1 if kind == "epoch" else self.epoch
            callback(Event(kind, self.model, epoch, self.moments.updates, loss, self.history))

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def save_now_and_then(self, interrupt, epoch_ended=False):
        if self.checkpoint is not None:
            now = time.perf_counter()
            every, seconds = self.checkpoint.updates, self.checkpoint.seconds
            due = every is not None and self.moments.updates - self.saved_update >= every
            due = due or (seconds is not None and now - self.saved_at >= seconds)
            if due or epoch_ended or interrupt.is_set():
                self.save()
        if interrupt.is_set():
            raise KeyboardInterrupt

    def save(self):
        """Write a checkpoint; NonFiniteLoss where the weights are worth nothing."""
        self.expect_finite_weights()
        checkpoints.save(self)
        self.saved_at, self.saved_update = time.perf_counter(), self.moments.updates
        self.saved_path = self.checkpoint.path
