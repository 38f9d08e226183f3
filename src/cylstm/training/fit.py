"""`fit`: what it takes, checked before anything is changed, and then a `Run` of it."""

from __future__ import annotations

from collections.abc import Iterable

from cylstm.checks import describe, flag, positive_int, real_in
from cylstm.metrics import BETTER, as_monitor, of_heads
from cylstm.precision import expect_gradients, rounds
from cylstm.training import checkpoint as checkpoints
from cylstm.training.batch_stream import Stream, are_batches, data_of, named_parts
from cylstm.training.checkpoint import Checkpoint, SavedRun, read_checkpoint
from cylstm.training.dataset import Dataset
from cylstm.training.history import History
from cylstm.training.optim import Adam, Optimizer
from cylstm.training.parallel import ranks_of
from cylstm.training.run import Options, Run
from cylstm.training.schedule import OF_WHOLE_EPOCHS

__all__ = ["fit"]


def fit(model, x, y=None, *, lengths=None, mask=None, resets=None, state=None, sample_weight=None, class_weight=None,
        ignore=None, missing="error", validation=None, epochs=10, batch_size=None, optimizer=None, clip_norm=5.0,
        clip_each=False, accumulate=1, trainable=None, tbptt=None, shuffle=None, seed=0, patience=None, checkpoint=None,
        resume=None, progress=True, callbacks=(), on_gradients=None, metrics=(), monitor="loss",
        precision=None, comm=None, parts=None) -> History:  # fmt: skip
    """Train a model, in place.

    x, y : ids (B, T) or features (B, T, I), and, as the loss asks, classes (B, T) or numbers (B, T, O), with `lengths`
        (B,) where rows differ; or two lists of arrays of different lengths; or one sequence, without the axis B.
        For output="last" y is classes (B,) or numbers (B, O), in any shape that has as many to a row (`data.windows`);
        for "ctc" a list of the labels of each row.
        Or x alone: batches, an iterable that is gone through once per epoch (a list, a PyTorch DataLoader, a
        `data.Batched`), or a function that returns a new one; an iterator can be had for one epoch. Each batch is
        (x, y), (x, y, lengths) or a dict of x, y and lengths, mask, resets, state or sample_weight. It is checked when
        it comes, before any update by it, and then forgotten. See "Data that does not fit into memory" in the manual.
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
    validation : (x, y), (x, y, lengths), a dict as of a batch, or batches (in a list: tuples or dicts), evaluated after
        each epoch: no gradient, no dropout, no random number. `ignore` and `missing` apply.
    epochs, batch_size : int >= 1; batches are of 32 rows by default, and a last one may be smaller. Batches that are
        given stay as they are.
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
    shuffle : draw a new order of the rows for each epoch, from (seed, epoch); True by default. Batches that are given
        come in their order (`data.Shuffled` makes another): True is refused.
    patience : stop after so many epochs without a better value of what `monitor` names, by default a lower validation
        loss (training loss, where there is no validation), and go back to the best weights.
    checkpoint : path or Checkpoint: the whole state is written there now and then, atomically.
    resume : path of a checkpoint of the same run to go on from, or what `read_checkpoint` has read of it. `epochs` are
        those of the whole run; the end has the same bits as without the break.
        Ctrl-C finishes the update at hand, writes the checkpoint if there is one, and raises KeyboardInterrupt.
    progress : on stderr a line per epoch, with its losses and metrics and, where that is a terminal or a notebook, a
        tqdm bar of the whole run, with the time left until its last epoch, and loss and tokens/s where there is room.
    callbacks : callables, each called with an Event after every update and epoch; may raise StopTraining.
    on_gradients : called with the model and its gradients, Parameters, before each update: what it adds to them (noise,
        the slope of a penalty) is clipped and taken as they are.
    metrics : names ("mae", "f1", "top_3", ...), functions f(targets, outputs) or f(targets, outputs, weights), and
        pairs (name, function): "Metrics" in the manual has all. They are of the validation data, after each epoch;
        where there is none, of the training data, which costs one more forward pass over all of it after each epoch.
        `history.metrics` has them. Of several heads, a dict by their names; each head's own loss and accuracy are
        metrics then, too ("NAME.loss").
    monitor : what `patience` and ReduceOnPlateau watch: "loss" or "accuracy" (of validation, or of training where there
        is none), or the name of a metric; ("name", "max") or ("name", "min") for a function's, to say which is better.
    precision : "bfloat16" or "float32": `model.precision` from now on, as `Model(precision=)` has it.
    comm : an mpi4py communicator, each of whose ranks calls `fit` with the same model, data and options: each trains by
        its share of every batch, and all have the same weights after every update. The first one writes the checkpoint,
        shows the progress and calls its callbacks, each calls `on_gradients`; "More than one machine" in the manual has
        the rest.
    parts : into how many parts each batch is cut, whose gradients are added in a tree: the number of ranks (None: with
        `comm`), or that times 2, 4, 8, ... The bits depend on parts alone, however many ranks there are.

    Returns the History. Raises TypeError or ValueError naming the argument, and the place of a number in x or y that is
    not finite, before anything is changed (of batches, before an update by the one that it names, from 0:
    `batches[17]: x[3, 5, 0]: ...`); RuntimeError where another thread is training the model (what others get
    from it meanwhile may be of weights half updated: give them a copy); NonFiniteLoss when the loss, its gradients, the
    validation loss or, in the end, the weights stop being numbers: no update follows, and the checkpoint stays as it
    was before; RankError where another rank fails, or was given other data.
    """
    with ranks_of(comm) as ranks:
        ranks.share_out(parts)
        expect_gradients(model.parameters, "model")
        rounds(model.parameters, precision)
        dataset = data_of(model, x, y, lengths, mask=mask, resets=resets, state=state, sample_weight=sample_weight,
                          class_weight=class_weight, ignore=ignore, missing=missing)  # fmt: skip
        metrics, monitor = watched(model, metrics, monitor)
        held_out = None if validation is None else held_out_data(model, validation, ignore, missing)
        optimizer = Adam() if optimizer is None else optimizer
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected SGD, Adam or AdamW, got {describe(optimizer)}")
        if tbptt is not None:
            tbptt = positive_int("tbptt", tbptt)
            expect_streams(model, dataset)
        callbacks, epochs = as_callbacks(callbacks), positive_int("epochs", epochs)
        for data in (dataset, held_out):
            if isinstance(data, Stream):
                data.expect_epochs(epochs + (data is dataset and held_out is None and bool(metrics)))
        options = Options(
            **options_of(dataset, optimizer, batch_size, shuffle), optimizer=repr(optimizer),
            clip_norm=None if clip_norm is None else real_in("clip_norm", clip_norm, 0, open_low=True),
            clip_each=flag("clip_each", clip_each), tbptt=tbptt, seed=positive_int("seed", seed, 0),
            patience=None if patience is None else positive_int("patience", patience),
            accumulate=positive_int("accumulate", accumulate),
            trainable=None if trainable is None else model.parameters.matching("trainable", trainable),
            monitor=" ".join(monitor), parts=ranks.parts)  # fmt: skip
        if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint(checkpoint)
        if on_gradients is not None and not callable(on_gradients):
            raise TypeError(f"on_gradients: expected a callable, got {describe(on_gradients)}")
        me = object()
        try:
            if not model.in_training.take(me):
                raise RuntimeError("model: expected one training run at a time, got a second one while another goes on")
            before = model.precision
            try:
                model.precision = before if precision is None else precision
                run = Run(model, dataset, held_out, optimizer, options, checkpoint, progress and ranks.rank == 0,
                          callbacks, on_gradients, metrics, monitor, ranks)  # fmt: skip
                run.meet(epochs)
                if resume is not None:
                    saved = ranks.of_first(lambda: resume if isinstance(resume, SavedRun) else
                                           read_checkpoint(resume, name="resume"))  # fmt: skip
                    checkpoints.resume(run, saved)
            except BaseException:
                model.precision = before
                raise
            return run.until(run.first_epoch + epochs)
        finally:
            model.in_training.give_back(me)


def held_out_data(model, validation, ignore, missing) -> Dataset | Stream:
    """(x, y), (x, y, lengths) or a dict, checked; or batches, to be checked as they come."""
    if are_batches(validation):
        return Stream(model, validation, ignore=ignore, missing=missing, name="validation")
    parts = named_parts("validation", validation)
    return Dataset(model, **parts, ignore=ignore, missing=missing, prefix="validation ")


def options_of(dataset, optimizer, batch_size, shuffle) -> dict:
    """The options that say what data there is and how it is cut; of batches that come one by one, that is unknown."""
    if not isinstance(dataset, Stream):
        return dict(batch_size=positive_int("batch_size", 32 if batch_size is None else batch_size),
                    shuffle=shuffle is None or flag("shuffle", shuffle), rows=len(dataset), tokens=dataset.tokens,
                    data=dataset.fingerprint())  # fmt: skip
    if batch_size is not None:
        raise ValueError(f"batch_size: expected None with batches, which come as they are, got {describe(batch_size)}")
    if shuffle:
        raise ValueError("shuffle: expected None or False with batches, which come in their order (data.Shuffled makes "
                         f"another), got {describe(shuffle)}")  # fmt: skip
    if not (dataset.known_length or type(optimizer.lr) in OF_WHOLE_EPOCHS):
        raise ValueError(f"optimizer: expected a rate that is the same throughout an epoch, or batches with a len(), "
                         f"which says how far an epoch has come, got {optimizer.lr!r}")  # fmt: skip
    return dict(batch_size=None, shuffle=False, rows=None, tokens=None, data=dataset.fingerprint())


def watched(model, metrics, monitor) -> tuple[dict, tuple[str, str]]:
    """The metrics by head, and what is watched with "max" or "min", checked."""
    metrics, known = of_heads(metrics, model.heads), {"loss": BETTER["loss"]}
    for name, head in model.heads.items():
        own = [key for key in head.loss.metrics(0.0, 1.0, 0.0, head.output_size) if key in ("loss", "accuracy")]
        known.update({f"{name}.{key}" if name else key: BETTER[key] for key in own})
    known.update({metric.name: metric.better for of_one in metrics.values() for metric in of_one})
    return metrics, as_monitor(monitor, known)


def expect_streams(model, dataset) -> None:
    """ValueError for what tbptt cannot cut into chunks."""
    if isinstance(dataset, Stream):
        raise ValueError("tbptt: expected None with batches, which carry no state from one to the next (streams may be "
                         "a memory map), got some")  # fmt: skip
    if dataset.ragged:
        raise ValueError("tbptt: expected streams in one array, with lengths where they differ, got a list")
    if not model.lstm.causal or set(model.kinds) != {"tokens"}:
        forward = ", forward," * model.reverse
        raise ValueError(
            f"tbptt: expected a model of one direction{forward} with output='sequence' and a loss of steps, got {model}"
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
