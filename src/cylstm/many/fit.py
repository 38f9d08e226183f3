"""`fit` of many models: what it takes, checked before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from cylstm.checks import describe, flag, positive_int, real_in
from cylstm.many.data import Stacked
from cylstm.many.history import Histories
from cylstm.many.run import Run
from cylstm.training.batch_stream import named_parts
from cylstm.training.optim import SGD, Adam, AdamW

__all__ = ["fit"]

# What `Model.fit` has beside, and what it has to be here.
OTHERS = {
    "mask": None, "resets": None, "state": None, "sample_weight": None, "class_weight": None, "ignore": None,
    "missing": "error", "accumulate": 1, "tbptt": None, "callbacks": (), "on_gradients": None, "metrics": (),
    "monitor": "loss", "comm": None, "parts": None, "precision": None,
}  # fmt: skip


def fit(models, x, y, *, lengths=None, validation=None, epochs=10, batch_size=None, optimizer=None, clip_norm=5.0,
        clip_each=False, trainable=None, shuffle=None, seed=0, patience=None, checkpoint=None, resume=None,
        progress=True, **others) -> Histories:  # fmt: skip
    """Train many models, in place: each is trained as `Model.fit` trains it, to the bit, for any number of threads.

    x, y, lengths : arrays as `Model.fit` takes them, (B, T, ...) and (B,), shared by all models, or stacked along a
        first axis, (N, B, T, ...) and (N, B).
    validation : (x, y), (x, y, lengths) or a dict of them, each shared or stacked.
    epochs, batch_size, optimizer, clip_norm, clip_each, trainable, shuffle : as for `Model.fit`. An optimizer of this
        kind that has trained these models before goes on, each model where it stopped.
    seed : of the order of rows: an int, or N of them.
    patience : of each model by its own loss: one that is out of it stops, with its best weights, and others go on.
    checkpoint : path, to which the standing of all is written after each epoch, atomically. resume : path of one.
    progress : on stderr a line per epoch, with the median and the range of losses.

    What else `Model.fit` takes is refused: mask, resets, state, weights, ignore, missing, accumulate, tbptt, callbacks,
    on_gradients, metrics, monitor, precision, comm and parts; and so are targets in other shapes than the one that
    errors name, and single sequences without the axis B.

    Returns the Histories. Raises TypeError or ValueError, naming the argument, and the model where its data is at
    fault, before anything is changed. A model whose loss, gradients or validation loss are no numbers stops there, as
    its own `fit` would: the others go on to their end, and then comes NonFiniteLoss, which names it; `trained.history`
    has what there was. Ctrl-C ends it after the updates at hand, models being at different ones; a checkpoint is of the
    last whole epoch.
    """
    for name, value in others.items():
        if name not in OTHERS:
            raise TypeError(f"{name}: expected an argument of fit, got an unknown one")
        if not is_same(value, OTHERS[name]):
            raise TypeError(f"{name}: expected {OTHERS[name]!r} for many models, which is what Model.fit alone takes, "
                            f"got {describe(value)}")  # fmt: skip
    one, count = models.template, len(models)
    data = Stacked(one, count, x, y, lengths)
    held_out = None
    if validation is not None:
        parts = named_parts("validation", validation)
        for name in parts.keys() - {"x", "y", "lengths"}:
            raise TypeError(f"validation: expected x, y and lengths for many models, got {name}, too")
        held_out = Stacked(one, count, **parts, prefix="validation ")
    optimizer = Adam() if optimizer is None else optimizer
    if type(optimizer) not in (SGD, Adam, AdamW):
        raise TypeError(f"optimizer: expected SGD, Adam or AdamW, got {describe(optimizer)}")
    batch_size = positive_int("batch_size", 32 if batch_size is None else batch_size)
    options = {
        "batch_size": batch_size,
        "shuffle": shuffle is None or flag("shuffle", shuffle),
        "seeds": seeds_of(seed, count),
        "optimizer": repr(optimizer),
        "clip_norm": None if clip_norm is None else real_in("clip_norm", clip_norm, 0, open_low=True),
        "clip_each": flag("clip_each", clip_each),
        "patience": None if patience is None else positive_int("patience", patience),
        "trainable": None if trainable is None else one.parameters.matching("trainable", trainable),
        "validation": None if held_out is None else held_out.fingerprint(),
        "data": data.fingerprint(),
    }
    epochs, me = positive_int("epochs", epochs), object()
    try:
        if not models.in_training.take(me):
            raise RuntimeError("models: expected one training run at a time, got a second one while another goes on")
        run = Run(models, data, held_out, optimizer, options, checkpoint, flag("progress", progress))
        if resume is not None:
            run.resume(resume)
        return run.until(epochs)
    finally:
        models.in_training.give_back(me)


def is_same(value, expected) -> bool:
    """Whether an argument says what it has to be here; an empty list says it as an empty tuple does."""
    if isinstance(expected, tuple):
        return isinstance(value, (list, tuple)) and not value
    return value is expected or (type(value) is type(expected) and value == expected)


def seeds_of(seed, count) -> list[int]:
    """One for each model."""
    if getattr(seed, "ndim", 1) == 0 or not isinstance(seed, Iterable) or isinstance(seed, (str, bytes, Set, Mapping)):
        return [positive_int("seed", seed, 0)] * count
    seeds = [positive_int(f"seed[{n}]", one, 0) for n, one in enumerate(seed)]
    if len(seeds) != count:
        raise ValueError(f"seed: expected one, or {count}, got {len(seeds)}")
    return seeds
