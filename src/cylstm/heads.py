"""Heads: what a model makes of the LSTM's outputs. Each is a linear layer with a loss, and has targets of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields

import numpy as np

from cylstm import losses
from cylstm._core.head import linear
from cylstm.checks import describe, flag, one_of, plain_array, positive_int, real_in
from cylstm.labels import Labels, is_text

__all__ = [
    "Head", "as_heads", "check_outputs", "head_outputs", "heads_config", "initialise", "layout_of", "of_kinds",
    "parameter_names", "weights_of",
]  # fmt: skip


@dataclass(frozen=True)
class Head:
    """A linear layer and its loss: one of several that a `Model` can have.

    output_size : O, the number of outputs: as many as the loss takes, classes for "cross_entropy".
    loss : a name or a `losses.Loss`.
    output : "sequence", outputs for each step, or "last", for each row from the last layer's final state.
    horizon : k, so many groups of O outputs, as many targets: of the next k steps, say. None for one, without an axis.
    labels : O strings, numbers or booleans that targets are instead of 0..O-1, and predictions too; two of them for
        "binary_cross_entropy" with one output.
    bias : whether the layer has one.
    weight : > 0, what its loss counts with in the sum over heads.

    Raises TypeError or ValueError, naming the argument.
    """

    output_size: int
    _: KW_ONLY
    loss: losses.Loss = "cross_entropy"
    output: str = "sequence"
    horizon: int | None = None
    labels: tuple | None = None
    bias: bool = True
    weight: float = 1.0

    def __post_init__(self):
        loss, O = losses.as_loss(self.loss), positive_int("output_size", self.output_size)
        loss.width(O)  # ValueError for a number of outputs that the loss cannot have
        one_of("output", self.output, ("sequence", "last"))
        if loss.of_rows and self.output == "last":
            raise ValueError(f"output: expected 'sequence' with loss={loss.name!r}, got 'last'")
        if loss.of_rows and self.horizon is not None:
            raise ValueError(f"horizon: expected None with loss={loss.name!r}, got {self.horizon}")
        names = None
        if self.labels is not None:
            if not loss.of_classes and not loss.of_rows and (loss.name != "binary_cross_entropy" or O > 1):
                raise TypeError(f"labels: expected None with loss={loss.name!r} of {O} outputs, which are no classes")
            names = Labels(self.labels, 2 if loss.name == "binary_cross_entropy" else O)
        checked = {
            "output_size": O, "loss": loss, "bias": flag("bias", self.bias),
            "horizon": None if self.horizon is None else positive_int("horizon", self.horizon),
            "labels": None if names is None else names.all, "names": names,
            "weight": real_in("weight", self.weight, 0, open_low=True),
        }  # fmt: skip
        kind = "last" if self.output == "last" else "steps" if loss.of_rows else "tokens"
        horizon = () if checked["horizon"] is None else (checked["horizon"],)
        # What it looks at: "last", the last states (B, D*H); "tokens", the real steps (N, D*H); "steps", all of them,
        # with the loss of a whole row.
        checked["kind"] = kind
        checked["per_row"] = kind != "tokens"  # a row has one target, and not each of its steps
        checked["groups"] = checked["horizon"] or 1  # targets of a step, or of a row
        checked["tail"] = (*horizon, O)  # the shape of the outputs of a step, or of a row,
        checked["width"] = (*horizon, *loss.width(O))  # and of what they are to meet
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def config(self) -> dict:
        """The arguments, for JSON."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        labels = None if self.labels is None else list(self.labels)
        return {**given, "loss": self.loss.config, "labels": labels}

    def decide(self, outputs) -> np.ndarray:
        """Predictions, from outputs (..., O)."""
        found = self.loss.decide(outputs)
        return found if self.labels is None else self.names.of(found)


def as_heads(output_size, **options) -> dict[str, Head]:
    """Heads by name, from what `Model` takes: a number with the options of its one head, which has the name "", or a
    dict of Heads, of their configs or of numbers. Raises TypeError or ValueError."""
    if not isinstance(output_size, Mapping):
        return {"": Head(output_size, **options)}
    plain = {field.name: field.default for field in fields(Head)}
    for name, value in options.items():
        default = plain[name]
        if value is not default and not (isinstance(value, type(default)) and value == default):
            name = "head_bias" if name == "bias" else name
            raise TypeError(
                f"{name}: expected the default with several heads, which have their own, got {describe(value)}"
            )
    if not output_size:
        raise ValueError("output_size: expected at least one head, got none")
    heads = {}
    for name, given in output_size.items():
        if not isinstance(name, str) or not name or "." in name or not is_text(name):
            raise ValueError(f"output_size: expected names of heads, without a dot, got {describe(name)}")
        if isinstance(given, Mapping) and not {"output_size"} <= set(given) <= set(plain):
            shown = ", ".join(map(str, given))
            raise TypeError(
                f"output_size[{name!r}]: expected a dict of {', '.join(plain)}, got one of {shown or 'nothing'}"
            )
        try:
            heads[name] = given if isinstance(given, Head) else \
                Head(**given) if isinstance(given, Mapping) else Head(given)  # fmt: skip
        except (TypeError, ValueError) as error:
            raise type(error)(f"output_size[{name!r}]: {error}") from None
    return heads


def heads_config(heads) -> dict:
    """The arguments of `Model` that say which heads it has, for JSON; nothing is said of a horizon and labels that are
    not there, so that older versions read the files."""
    if "" not in heads:
        return {"output_size": {name: head.config for name, head in heads.items()}}
    config = dict(heads[""].config, head_bias=heads[""].bias)
    unsaid = {"bias", "weight", *(name for name in ("horizon", "labels") if config[name] is None)}
    return {name: value for name, value in config.items() if name not in unsaid}


def parameter_names(name: str, tied: bool = False) -> tuple[str, str]:
    """Of weight and bias of a head of this name. tied : its weight is the embedding's."""
    prefix = f"head.{name}." if name else "head."
    return "embedding.weight" if tied else f"{prefix}weight", f"{prefix}bias"


def layout_of(heads, features: int, table=None) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of heads that see so many features. table : (V, E) of the embedding that the
    one head shares. ValueError where it cannot."""
    shapes = {}
    if table is not None and [(head.groups * head.output_size, features) for head in heads.values()] != [table]:
        sees = ", ".join(f"{head.groups * head.output_size} outputs of {features} features" for head in heads.values())
        raise ValueError(f"tied: expected one head of {table[0]} outputs that sees {table[1]} features, got {sees}")
    for name, head in heads.items():
        weight, bias = parameter_names(name)
        if table is None:
            shapes[weight] = (head.groups * head.output_size, features)
        if head.bias:
            shapes[bias] = (head.groups * head.output_size,)
    return shapes


def of_kinds(heads) -> dict[str, list[str]]:
    """The names of heads by what they look at."""
    kinds = {}
    for name, head in heads.items():
        kinds.setdefault(head.kind, []).append(name)
    return kinds


def initialise(parameters, heads, rng) -> None:
    """Weights with standard deviation 1/sqrt(fan_in), uniform; biases 0."""
    for name, head in heads.items():
        weight, bias = parameter_names(name, tied=parameter_names(name)[0] not in parameters)
        weight, bias = parameters.raw(weight), parameters.raw(bias) if head.bias else None
        bound = math.sqrt(3 / weight.shape[1])
        weight[:] = rng.uniform(-bound, bound, weight.shape)
        if head.bias:
            bias[:] = 0


def weights_of(model, name) -> tuple:
    """Weight, as products take it, and bias of one head, not tracked; None for no bias."""
    weight, bias = parameter_names(name, model.tied)
    return model.parameters.operand(weight), model.parameters.raw(bias) if model.heads[name].bias else None


def check_outputs(model, outputs, x_t, state) -> None:
    """TypeError or ValueError for what a step of a model cannot write its outputs into, beside the state's memory."""
    x_t = plain_array("x_t", x_t)
    rows, others = x_t.shape if x_t.dtype.kind in "iu" else x_t.shape[:-1], tuple(state)
    if model.only is not None:
        model.only.check(outputs, rows, others)
        return
    if not isinstance(outputs, Mapping) or set(outputs) != set(model.linears):
        raise TypeError(f"out: expected a dict of outputs of {', '.join(model.linears)}, got {describe(outputs)}")
    for name, layer in model.linears.items():
        layer.check(outputs[name], rows, others)
        others += (outputs[name],)


def head_outputs(model, name, h) -> np.ndarray:
    """Outputs (N, groups * O) of one head from h (N, D*H)."""
    return linear(h, *weights_of(model, name), model.lstm.rounded)
