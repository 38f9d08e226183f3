"""Metrics: what there is to say of outputs beside their loss, by name or by a function, and which of it is watched."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from cylstm.checks import describe
from cylstm.label_metrics import LabelError, add_rows
from cylstm.metric_sums import (
    AUC,
    F1,
    AbsoluteError,
    Coverage,
    Determination,
    Function,
    Precision,
    Recall,
    RelativeError,
    RootSquaredError,
    Sums,
    TopK,
)

__all__ = ["BETTER", "Metric", "add_batch", "as_metrics", "as_monitor", "begin", "by_name", "of_heads", "values"]

# The names of what is there without being asked for, in `evaluate` and in a History.
RESERVED = frozenset((
    "epoch", "loss", "accuracy", "perplexity", "tokens", "train_loss", "train_accuracy", "validation_loss",
    "validation_accuracy", "learning_rate", "gradient_norm", "updates", "seconds",
))  # fmt: skip
AT_ONCE = 1 << 22  # outputs: bounds the memory that metrics take beside that of the loss

by_name: dict[str, type[Sums]] = {
    "mae": AbsoluteError,
    "rmse": RootSquaredError,
    "r2": Determination,
    "mape": RelativeError,
    "coverage": Coverage,
    "precision": Precision,
    "recall": Recall,
    "f1": F1,
    "top_k": TopK,
    "auc": AUC,
    "label_error": LabelError,
}
# Which way is better, of all that has a name of ours.
BETTER = {"loss": "min", "accuracy": "max", **{name: kind.better for name, kind in by_name.items()}}


class Metric(NamedTuple):
    """What was asked for: its name, which way is better ("max", "min", None for who knows), and `begin`, which makes
    the Sums of a pass."""

    name: str
    better: str | None
    begin: Callable[[], Sums]


def as_metrics(given, loss, O: int) -> tuple[Metric, ...]:
    """Metrics of names, functions and pairs (name, function), for a loss and so many outputs.

    Raises TypeError or ValueError for a name that is unknown or comes twice and for what does not go with the loss,
    ImportError for "auc" without scikit-learn.
    """
    if isinstance(given, str) or callable(given) or not isinstance(given, Iterable):
        raise TypeError(f"metrics: expected a list of names or functions, got {describe(given)}")
    found = {}
    for one in given:
        metric = named(one, loss, O) if isinstance(one, str) else of_function(one, loss, O)
        if metric.name in found or metric.name in RESERVED:
            why = "given twice" if metric.name in found else "taken: it is there without being asked for, or a column"
            raise ValueError(f"metrics: expected another name than {metric.name!r}, which is {why}")
        metric.begin()  # raises what there is to say against it
        found[metric.name] = metric
    return tuple(found.values())


def of_heads(given, heads) -> dict[str, tuple[Metric, ...]]:
    """Metrics by head: of several, `given` is a dict by their names, which metrics' names then begin with."""
    if "" in heads:
        found = {"": as_metrics(given, heads[""].loss, heads[""].output_size)}
    else:
        if not isinstance(given, Mapping) and not (isinstance(given, (list, tuple)) and not given):
            raise TypeError(f"metrics: expected a dict by head, of {', '.join(heads)}, got {describe(given)}")
        found = {}
        for name, of_one in dict(given).items():
            if name not in heads:
                raise ValueError(f"metrics: expected names of heads, {', '.join(heads)}, got {describe(name)}")
            metrics = as_metrics(of_one, heads[name].loss, heads[name].output_size)
            found[name] = tuple(metric._replace(name=f"{name}.{metric.name}") for metric in metrics)
    return {name: metrics for name, metrics in found.items() if metrics}


def named(name, loss, O) -> Metric:
    """The metric of a name."""
    top = re.fullmatch(r"top_([0-9]{1,9})", name)
    kind = TopK if top else by_name.get(name)
    if kind is None or (kind is TopK and not top):
        if name in RESERVED:
            raise ValueError(f"metrics: expected no {name!r}, which is there without being asked for, or a column")
        known = ", ".join(map(repr, by_name))
        raise ValueError(f"metrics: expected functions or names of {known} (any k, as 'top_3'), got {name!r}")
    expect_fitting(kind, name, loss)
    return Metric(name, kind.better, partial(kind, loss, O, int(top[1])) if top else partial(kind, loss, O))


def of_function(given, loss, O) -> Metric:
    """The metric of a function, or of a pair (name, function)."""
    pair = isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str)
    name, function = given if pair else (getattr(given, "__name__", None), given)
    if not callable(function):
        raise TypeError(f"metrics: expected names, functions or pairs (name, function), got {describe(given)}")
    if not isinstance(name, str) or not name:
        raise TypeError(f"metrics: expected a pair (name, function) for what has no name, got {describe(given)}")
    expect_fitting(Function, name, loss)
    return Metric(name, None, partial(Function, loss, O, name, function, taken_weights(name, function)))


def taken_weights(name, function) -> str | int | None:
    """Where a function takes weights: 2, its third place; the name `sample_weight` or `weights`; None for nowhere."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some that are compiled have none
        return None
    by_place = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    needed = [one for one in by_place if one.default is one.empty]
    several = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    keywords = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    asked = [one.name for one in parameters if one.name in ("sample_weight", "weights") and one not in by_place[:2]]
    if len(needed) > 3 or (len(by_place) < 2 and not several) or set(keywords) - set(asked[:1]):
        raise TypeError(f"metrics: expected {name}(targets, outputs) or {name}(targets, outputs, weights), "
                        f"got {name}{inspect.signature(function)}")  # fmt: skip
    return 2 if len(needed) == 3 else asked[0] if asked else None


def expect_fitting(kind, name, loss) -> None:
    """TypeError for a metric of what a loss does not say."""
    if loss.says not in kind.takes:
        fitting = ", ".join(repr(other) for other, one in by_name.items() if loss.says in one.takes)
        raise TypeError(f"metrics: expected functions or names of {fitting} with loss={loss.name!r}, got {name!r}")


def better_of(name) -> str | None:
    """Which way is better, of a name of ours, behind that of a head; None for others."""
    own = name.rpartition(".")[2]
    return "max" if re.fullmatch(r"top_[0-9]+", own) else BETTER.get(own)


def as_monitor(given, known=None) -> tuple[str, str]:
    """What is watched, and whether "max" or "min" is better, from a name or a pair of both.

    known : which way is better by name, None for who knows; without it, any name goes with a direction.
    Raises TypeError or ValueError.
    """
    pair = isinstance(given, (tuple, list)) and len(given) == 2 and isinstance(given[0], str)
    if not pair and not isinstance(given, str):
        raise TypeError(f"monitor: expected a name or (name, 'max' or 'min'), got {describe(given)}")
    name, better = given if pair else (given, None)
    if known is not None and name not in known:
        raise ValueError(f"monitor: expected one of {', '.join(map(repr, known))}, got {name!r}")
    own = better_of(name) if known is None else known[name]
    better = own if better is None else better
    if better not in ("max", "min"):
        raise ValueError(f"monitor: expected ({name!r}, 'max') or ({name!r}, 'min'), got {given!r}")
    return name, better


# --- a batch ----------------------------------------------------------------------------------------------------------


def begin(wanted) -> dict[str, list[Sums]]:
    """The Sums of a pass, by head."""
    return {name: [metric.begin() for metric in metrics] for name, metrics in wanted.items()}


def add_batch(sums, head, h, targets, weights=None, unit=1.0, lengths=None) -> None:
    """Take the tokens of a batch that count into all Sums of a head, a bounded number of outputs at a time.

    head : makes outputs (N, k * O) of h (N, D*H), those of k tokens to a row. targets : (N * k, ...). weights :
    (N * k,) over `unit`, None for 1 everywhere. Of a loss of rows h has all steps of each of B rows, targets are a list
    of the labels of each, weights (B,), and lengths (B,), None for all steps.
    """
    if not len(h):
        return
    weights = np.ones(len(targets)) if weights is None else weights.astype(np.float64) * unit
    if sums[0].loss.of_rows:
        add_rows(sums, head, h, targets, weights, lengths, AT_ONCE)
        return
    k, O = len(targets) // len(h), sums[0].O
    counted = weights > 0
    if targets.dtype.kind == "f":
        counted &= ~np.isnan(targets).all(axis=tuple(range(1, targets.ndim)))
    rows = max(1, AT_ONCE // (k * O))
    for start in range(0, len(h), rows):
        part = slice(k * start, k * (start + rows))
        keep = counted[part]
        if not keep.any():
            continue
        tokens = targets[part], head(h[start : start + rows]).reshape(-1, O), weights[part]
        tokens = tokens if keep.all() else tuple(array[keep] for array in tokens)
        for one in sums:
            one.add(*tokens)


def values(wanted, sums) -> dict[str, float]:
    """What the metrics of a pass are, by name."""
    return {metric.name: one.value() for name, metrics in wanted.items()
            for metric, one in zip(metrics, sums[name], strict=True)}  # fmt: skip
