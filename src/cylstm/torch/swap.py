"""Swapping the LSTMs of a model in place, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.utils.parametrize import is_parametrized

from cylstm.checks import one_of
from cylstm.small_parameters import PRECISIONS
from cylstm.torch.modules import LSTM, TRAINED, LSTMCell

__all__ = ["Change", "accelerate", "restore"]


@dataclass(frozen=True)
class Change:
    """One swapped module: its name in the model ("" for the model itself), and its class before and after."""

    name: str
    before: type
    after: type

    def __str__(self):
        return f"{self.name or 'the model'}: {_path(self.before)} -> {_path(self.after)}"


_swapped: dict[int, type] = {id(torch.nn.LSTM): LSTM, id(torch.nn.LSTMCell): LSTMCell}  # by the class's id


def accelerate(model: torch.nn.Module, precision: str | None = None) -> list[Change]:
    """Let cylstm compute every nn.LSTM and nn.LSTMCell of a model, in place.

    Each module stays the same object, with the same Parameters, hooks and attributes; its class changes, so that
    optimisers, DistributedDataParallel, tied weights and whoever else holds it go on as they are. A subclass of
    nn.LSTM keeps its own methods, and its calls of `super().forward` are computed by cylstm. To be called on a model
    that lies on the CPU, before torch.compile; what cylstm does not compute (`explain`) torch goes on computing.

    precision : "float32" or "bfloat16", to be `precision` of all of them, those that are swapped already included.

        Fewer bits, to run and no more, are `astype`'s.

    Returns what was changed: nothing for modules that are swapped already. Raises TypeError where there is no module,
    and ValueError for another precision.
    """
    if precision is not None:
        if precision in PRECISIONS and precision not in TRAINED:
            raise ValueError(
                f"precision: expected one that has gradients; astype(model, {precision!r}) makes a copy to run"
            )
        one_of("precision", precision, TRAINED)
    changes = _change(model, _ours)
    if precision is not None:
        for module in model.modules():
            if isinstance(module, (LSTM, LSTMCell)):
                module.precision = precision
    return changes


def restore(model: torch.nn.Module) -> list[Change]:
    """Take `accelerate` back: each module has the class that it had, and cylstm.torch.LSTM becomes torch.nn.LSTM."""
    return _change(model, lambda module: type(module).__dict__.get("_torch_class"))


def _change(model, choose) -> list[Change]:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    changes = []
    for name, module in model.named_modules():
        before, after = type(module), choose(module)
        if after is not None:
            module.__dict__.pop("_cylstm", None)
            module.__class__ = after
            changes.append(Change(name, before, after))
    return changes


def _ours(module) -> type | None:
    """The class to take, None for what is no LSTM or is ours already."""
    cls = type(module)
    if not is_parametrized(module):
        return _ours_of(cls)
    # Its class is one that torch made for it alone, whose first base it goes back to without its parametrisations.
    base = _ours_of(cls.__bases__[0])
    names = {name: value for name, value in cls.__dict__.items() if name not in ("__dict__", "__weakref__")}
    return base and type(base)(cls.__name__, (base,), {**names, "_torch_class": cls})


def _ours_of(cls) -> type | None:
    if issubclass(cls, (LSTM, LSTMCell)) or not issubclass(cls, (torch.nn.LSTM, torch.nn.LSTMCell)):
        return None
    if id(cls) not in _swapped:
        base = LSTM if issubclass(cls, torch.nn.LSTM) else LSTMCell
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "_torch_class": cls}
        meta = type(base)
        if not issubclass(meta, type(cls)):  # the class has one of its own, as abstract classes have
            meta = type(meta.__name__, (meta, type(cls)), {})
        _swapped[id(cls)] = meta(cls.__name__, (cls, base), names)
    return _swapped[id(cls)]


def _path(cls) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
