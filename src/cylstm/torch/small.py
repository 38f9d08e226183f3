"""Modules in fewer bits, which run and no more: what `astype` puts in the place of a model's LSTMs."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import torch
from torch.nn.utils.parametrize import is_parametrized

from cylstm._core.torch_layer import Module
from cylstm.checks import describe, one_of
from cylstm.init import LATER
from cylstm.lstm import LSTM
from cylstm.small_parameters import PRECISIONS, SmallParameters
from cylstm.torch import graphs
from cylstm.torch._call import ModuleCall
from cylstm.torch.modules import CELL_WEIGHTS, described, inputs_of, inputs_of_cell, run_layer
from cylstm.torch.run import run

__all__ = ["SmallLSTM", "SmallLSTMCell", "astype"]

_numbers = itertools.count()


def astype(model: torch.nn.Module, precision: str) -> torch.nn.Module:
    """A copy of a model whose every nn.LSTM and nn.LSTMCell is in "float16", "bfloat16" or "int8", to run and no more.

    Everything else is copied as it is, the weights of the LSTMs only in the new precision (`cylstm.LSTM.astype` says
    what it means). Calls are the same, on float32 tensors in memory, packed sequences and `resets` included. It is the
    model as it is at that moment; later changes of the other one do not reach it.

    Raises TypeError where there is no module; ValueError for another precision, where there is no LSTM, for weights
    that the precision does not hold, and, by its name, for an LSTM that lies elsewhere than in memory or that may
    compute anything else: it has hooks or a `forward` of its own, or is of a class of somebody's own.
    """
    one_of("precision", precision, PRECISIONS)
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    made = {}
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.LSTM, torch.nn.LSTMCell)):
            made[id(module)] = _small(name or "the model", module, precision)
    if not made:
        raise ValueError("model: expected one with an nn.LSTM or nn.LSTMCell, got none")
    return copy.deepcopy(model, made)


class _Small(torch.nn.Module):
    """What the two share: weights that are no tensors, and the layer behind a call.

    weights : cylstm.small_parameters.SmallParameters under cylstm.LSTM's names, to be read in float32.
    """

    def __init__(self, module, weights: SmallParameters):
        super().__init__()
        self.input_size, self.hidden_size, self.bias = module.input_size, module.hidden_size, module.bias
        self.num_layers = getattr(module, "num_layers", 1)
        self.batch_first = getattr(module, "batch_first", False)
        self.bidirectional = getattr(module, "bidirectional", False)
        self.dropout, self.proj_size = float(getattr(module, "dropout", 0)), getattr(module, "proj_size", 0)
        self.train(module.training)
        self._take(weights)

    def _take(self, weights):
        D = 2 if self.bidirectional else 1
        sizes = self.input_size, self.hidden_size, self.num_layers, D, self.bias, self.proj_size
        self.weights, self.core = weights, Module(*sizes, "float32", False, weights)
        self.number = next(_numbers)
        graphs.small_modules[self.number] = self

    @property
    def precision(self) -> str:
        """ "float16", "bfloat16" or "int8"."""
        return self.weights.precision

    def flatten_parameters(self) -> None:
        """Nothing: nn.LSTM has it, and others call it."""

    def _refuse(self, reason):
        raise TypeError(f"input: expected a call that cylstm computes in {self.precision}, of float32 tensors in "
                        f"memory ({self.extra_repr()}); but {reason}")  # fmt: skip

    def expect_no_dropout(self):
        """RuntimeError where nn.LSTM would drop outputs."""
        if self.training and self.dropout > 0 and self.num_layers > 1:
            raise RuntimeError(f"dropout: expected a module after eval(), as {self.precision} runs and no more")

    def _call(self, x, hx, form, lift, batch_first=False, lengths=None, sizes=None) -> ModuleCall:
        """The call of an input of this form, as `inputs_of` has it. Raises for what is not computed."""
        if form[0] != 32:
            self._refuse(f"its type is {x.dtype}")
        self.expect_no_dropout()
        call = ModuleCall(self.core, (), None, self.bias, len(form) - 1, lift, batch_first, 0.0, lengths, sizes)
        if call.is_recorded(x, *(hx or (None, None))):
            raise RuntimeError("input: expected a call under torch.inference_mode() or no_grad(), as "
                               f"{self.precision} has no gradients, but some input requires them")  # fmt: skip
        return call

    def extra_repr(self) -> str:
        """The sizes, as nn.LSTM shows them, and the precision."""
        told = [f"{self.input_size}, {self.hidden_size}", f"precision={self.precision!r}"]
        for name, usual in (("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0),
                            ("bidirectional", False), ("proj_size", 0)):  # fmt: skip
            if getattr(self, name) != usual:
                told.append(f"{name}={getattr(self, name)}")
        return ", ".join(told)

    def __getstate__(self):
        state = dict(self.__dict__)
        del state["core"], state["number"]
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        self._take(self.weights)

    def get_extra_state(self):
        """Of `state_dict`: precision, and the numbers as they are kept, as tensors."""
        return {
            "precision": self.precision,
            "numbers": {name: _as_tensor(values) for name, values in self.weights.stored.items()},
            "scales": {name: torch.from_numpy(values.copy()) for name, values in self.weights.scales.items()},
        }

    def set_extra_state(self, state):
        """Raises ValueError for that of another module or precision."""
        own, taken = self.weights, []
        if not isinstance(state, dict) or state.keys() != {"precision", "numbers", "scales"}:
            raise ValueError(f"state: expected precision, numbers and scales, got {describe(state)}")
        if state["precision"] != own.precision:
            raise ValueError(f"precision: expected {own.precision}, got {state['precision']}")
        for key, kept in (("numbers", own.stored), ("scales", own.scales)):
            given = {name: _as_array(tensor) for name, tensor in state[key].items()}
            got, expected = _types_of(given), _types_of(kept)
            if got != expected:
                raise ValueError(f"{key}: expected {expected}, got {got}")
            taken.append(given)
        self._take(SmallParameters(own.layout, own.precision, *taken).checked())


class SmallLSTM(_Small):
    """An nn.LSTM in fewer bits, from `astype`: its sizes, calls and `state_dict`, but no tensors among its parameters.

    forward(input, hx=None, *, resets=None) takes float32 tensors in memory or a PackedSequence and returns what
    nn.LSTM does; resets as `cylstm.torch.LSTM` has it. The numbers are those of `cylstm.LSTM.astype(precision)`.

    Raises TypeError for other inputs, RuntimeError for an input that requires gradients and, with dropout, in training,
    and ValueError for int8 where h of hx is beyond -1..1.
    """

    def forward(self, input, hx=None, *, resets=None):
        """As torch.nn.LSTM's; see the class."""
        if torch.compiler.is_compiling():
            return graphs.small_forward(self, input, hx, resets)
        found = inputs_of(self, input, hx)
        if type(found) is str:
            self._refuse(found)
        form, batch_first, lengths, sizes = found
        if lengths is None:
            call = self._call(input, hx, form, 1, batch_first)
        else:
            call = self._call(input.data, hx, form, -1, batch_first, lengths, sizes)
        return run_layer(self, call, input, hx, resets)


class SmallLSTMCell(_Small):
    """An nn.LSTMCell in fewer bits; all that is said of `SmallLSTM` holds, but for resets."""

    def forward(self, input, hx=None):
        """As torch.nn.LSTMCell's."""
        if torch.compiler.is_compiling():
            return graphs.small_cell_forward(self, input, hx)
        form = inputs_of_cell(self, input, hx)
        if type(form) is str:
            self._refuse(form)
        return run(self._call(input, hx, form, 0), input, *(hx or (None, None)))[1:]


_CLASSES = {id(torch.nn.LSTM): SmallLSTM, id(torch.nn.LSTMCell): SmallLSTMCell}  # by the class's id


def _small(name, module, precision):
    """A module in this precision; `name` is for what it raises."""
    cls = _before_swapping(type(module))
    if is_parametrized(module):
        cls = _before_swapping(cls.__bases__[0])
    if id(cls) not in _CLASSES:
        raise ValueError(f"{name}: expected an nn.LSTM or nn.LSTMCell, got a subclass, {cls.__qualname__}")
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        raise ValueError(f"{name}: expected a module without hooks and a forward of its own, got some")
    names = getattr(module, "_flat_weights_names", CELL_WEIGHTS[: 4 if module.bias else 2])
    weights = {key: _in_memory(f"{name}.{key}", getattr(module, key)) for key in names}
    if isinstance(module, torch.nn.LSTMCell):
        weights = {f"{key}_l0": values for key, values in weights.items()}
    options = {name: getattr(module, name) for name in ("bidirectional", "proj_size") if hasattr(module, name)}
    sizes, dtype = (
        (module.input_size, module.hidden_size, getattr(module, "num_layers", 1)),
        weights["weight_hh_l0"].dtype,
    )
    layer = LSTM(*sizes, bias=module.bias, dtype=str(dtype), seed=LATER, **options)
    layer.load_state_dict(weights)
    return _CLASSES[id(cls)](module, layer.astype(precision).parameters)


def _before_swapping(cls):
    return cls.__dict__.get("_torch_class", cls)


def _in_memory(name, tensor) -> np.ndarray:
    """float32 or float64."""
    if not isinstance(tensor, torch.Tensor) or not tensor.is_cpu or not tensor.is_floating_point():
        raise ValueError(f"{name}: expected floating-point numbers in memory, got {described(tensor)}")
    return (tensor if tensor.dtype is torch.float64 else tensor.float()).detach().numpy()


def _types_of(arrays):
    return {name: (str(array.dtype), array.shape) for name, array in arrays.items()}


def _as_tensor(values: np.ndarray) -> torch.Tensor:
    """A copy; a bfloat16's bits, which NumPy has as whole numbers, become torch's type of it."""
    tensor = torch.from_numpy(values.copy())
    return tensor.view(torch.bfloat16) if values.dtype == np.uint16 else tensor


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor).numpy().copy()
