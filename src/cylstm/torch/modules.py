"""The modules: what a call has to be so that cylstm computes it, and what it falls back on."""

from __future__ import annotations

import copy
import copyreg
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from cylstm._core.torch_layer import packed_lengths
from cylstm.checks import one_of
from cylstm.torch import graphs
from cylstm.torch._call import ModuleCall, form_of, has_shape, is_eager, is_plain, weights_moved
from cylstm.torch.run import call_of, run

__all__ = ["LSTM", "Explanation", "LSTMCell", "explain"]


TRAINED = "float32", "bfloat16"  # precisions that have gradients


class _AsTorchs(type):
    """A class that equals the one whose place it takes, so that tables which hold that (of quantization, say) hold it,
    too."""

    def __eq__(cls, other):
        return cls is other or other is cls.__dict__.get("_torch_class")

    def __hash__(cls):
        return hash(cls.__dict__.get("_torch_class", cls.__name__))


class _Swapped:
    """What the two modules share: how they are copied, and how they are written to files: as torch's; and what they
    multiply in."""

    @property
    def precision(self) -> str:
        """What products of matrices are in where a call is in float32: "float32" or "bfloat16", as
        `cylstm.LSTM(precision=)` has it. Sums, weights, gradients, inputs and outputs are float32 in either."""
        return self.__dict__.get("_precision", "float32")

    @precision.setter
    def precision(self, value):
        self.__dict__["_precision"] = one_of("precision", value, TRAINED)

    def __reduce_ex__(self, protocol):
        torchs = type(self).__dict__.get("_torch_class")
        if torchs is None:  # a class of somebody's own, which is written as such
            return super().__reduce_ex__(protocol)
        return copyreg._reconstructor, (torchs, object, None), self.__getstate__()

    def __getstate__(self):
        state = super().__getstate__()
        state = dict(self.__dict__ if state is None else state)
        state.pop("_cylstm", None)  # made again from the parameters
        return state

    def __deepcopy__(self, memo):
        other = memo[id(self)] = type(self).__new__(type(self))
        other.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return other

    def __copy__(self):
        other = type(self).__new__(type(self))
        other.__setstate__(self.__getstate__())
        return other


class LSTM(_Swapped, torch.nn.LSTM, metaclass=_AsTorchs):
    """A `torch.nn.LSTM`, faster on the CPU: its arguments, parameters, initial weights, `state_dict`, errors and
    numbers, projections (proj_size) included.

    forward(input, hx=None, *, resets=None) takes and returns what torch's does, and autograd goes through it, to any
    order. cylstm computes float32 and float64 in memory; what else nn.LSTM can do (other types and devices, autocast,
    transforms, tracing, export) torch computes as ever: `explain` says which. The rounding is cylstm's.

    resets : bool Tensor (T, B), with batch_first (B, T), unbatched (T,), and of a PackedSequence as of the padded
        batch that it was made from. Where true, nothing flows between steps t-1 and t,
        in either direction: what an environment's `done` or the start of a new document asks for.

    Dropout draws from torch's generator the masks that nn.LSTM would draw. Weights may be written to in any way at any
    time. At most torch.get_num_threads() threads compute, and never more than cylstm.num_threads(). `precision`, an
    attribute, says whether products are in bfloat16.

    Written to a file or pickled whole, it is a torch.nn.LSTM. Raises what torch.nn.LSTM raises, and ValueError for
    resets that cylstm cannot take.
    """

    _torch_class = torch.nn.LSTM

    def forward(self, input, hx=None, *, resets=None):
        """As torch.nn.LSTM's; see the class."""
        if torch.compiler.is_compiling():
            return graphs.forward(self, input, hx, resets)
        call = _call_of(self, input, hx)
        if type(call) is str:
            return self._by_torch(call, input, hx, resets)
        return run_layer(self, call, input, hx, resets)

    def _by_torch(self, reason, input, hx, resets):
        if resets is not None:
            raise ValueError(f"resets: expected a call that cylstm computes, but torch does this one ({reason})")
        if isinstance(input, torch.fx.Proxy) and input.tracer.root is not self:
            # A leaf of the graph, as torch's own modules are.
            return input.tracer.create_proxy("call_module", input.tracer.path_of_module(self), (input, hx), {})
        _refuse_what_torch_misreads(self, input)
        return super().forward(input, hx)

    def __prepare_scriptable__(self):
        """What torch.jit.script compiles instead: a torch.nn.LSTM of the same parameters."""
        other = torch.nn.LSTM.__new__(torch.nn.LSTM)
        other.__setstate__(self.__getstate__())
        return other


class LSTMCell(_Swapped, torch.nn.LSTMCell):
    """A `torch.nn.LSTMCell`, faster on the CPU; all that is said of `LSTM` holds, but for resets."""

    _torch_class = torch.nn.LSTMCell

    def forward(self, input, hx=None):
        """As torch.nn.LSTMCell's."""
        call = "torch.compile traces the call" if torch.compiler.is_compiling() else _call_of_cell(self, input, hx)
        if type(call) is str:
            if isinstance(input, torch.fx.Proxy) and input.tracer.root is not self:
                return input.tracer.create_proxy("call_module", input.tracer.path_of_module(self), (input, hx), {})
            return super().forward(input, hx)
        return run(call, input, *(hx or (None, None)))[1:]

    def __prepare_scriptable__(self):
        """What torch.jit.script compiles instead: a torch.nn.LSTMCell of the same parameters."""
        other = torch.nn.LSTMCell.__new__(torch.nn.LSTMCell)
        other.__setstate__(self.__getstate__())
        return other


@dataclass(frozen=True)
class Explanation:
    """Who computes a call: engine is "cylstm" or "torch"; reason says why torch does, "" otherwise."""

    engine: str
    reason: str = ""

    def __str__(self):
        return f"{self.engine} ({self.reason})" if self.reason else self.engine


def explain(module: torch.nn.Module, input, hx=None) -> Explanation:
    """Who would compute `module(input, hx)` now, and why. Computes nothing.

    Raises TypeError for a module that is no LSTM.
    """
    if isinstance(module, (LSTM, LSTMCell)):
        kept = module.__dict__.get("_cylstm")
        call = (_call_of if isinstance(module, LSTM) else _call_of_cell)(module, input, hx)
        if kept is None:
            module.__dict__.pop("_cylstm", None)
    elif isinstance(module, (torch.nn.LSTM, torch.nn.LSTMCell)):
        call = (
            f"the module is {type(module).__module__}.{type(module).__qualname__}: cylstm.torch.accelerate() swaps it"
        )
    else:
        raise TypeError(f"module: expected an LSTM or LSTMCell, got {type(module).__name__}")
    return Explanation("torch", call) if isinstance(call, str) else Explanation("cylstm")


def _call_of(module: LSTM, input, hx) -> ModuleCall | str:
    """The call, or why torch computes it: also wherever torch has an error to raise."""
    inputs = inputs_of(module, input, hx)
    if type(inputs) is str:
        return inputs
    form, batch_first, lengths, sizes = inputs
    if weights_moved(module._parameters, module._flat_weights_names, module._flat_weight_refs):
        module._update_flat_weights()
    I, H, L, D = module.input_size, module.hidden_size, module.num_layers, 2 if module.bidirectional else 1
    weights, dropout = module._flat_weights, module.dropout if module.training and L > 1 else 0.0
    key, rank = (form[0], I, H, L, D, module.bias, module.proj_size, _rounds(module, form[0])), len(form) - 1
    call = call_of(module, weights, key, rank, -1 if lengths is not None else 1, batch_first, dropout, lengths, sizes)
    return _unlike_weights(call, weights, module._flat_weights_names) if type(call) is int else call


def inputs_of(module, input, hx):
    """What a layer's input is: bits of a number and its shape; whether it is batch-first; and, of a packed one, the
    lengths of the rows and what torch has for them, otherwise None. Or why cylstm computes nothing of the kind."""
    packed = isinstance(input, PackedSequence)
    x = input.data if packed else input
    H, count = module.hidden_size, module.num_layers * (2 if module.bidirectional else 1)
    form = form_of(x, module.input_size)
    if form is None:
        return _unlike(x) or f"the input is {tuple(x.shape)}"
    batch_first = module.batch_first and len(form) == 4
    lengths = sizes = None
    if packed:
        sizes = input.batch_sizes
        if len(form) == 3 and is_plain(sizes) and sizes.dtype is torch.int64 and sizes.dim() == 1:
            lengths = packed_lengths(sizes.contiguous().numpy(), form[1])
        if lengths is None:
            return "the packed sequence is not one"
        state = count, len(lengths)
    elif len(form) == 4:
        state = count, form[1 if batch_first else 2]
    elif len(form) == 3:
        state = (count,)
    else:
        return f"the input is {tuple(x.shape)}"
    if hx is not None:
        reason = _unlike_state(hx, form[0], (*state, module.proj_size or H), (*state, H))
        if reason:
            return reason
    return form, batch_first, lengths, sizes


def _call_of_cell(module: LSTMCell, input, hx) -> ModuleCall | str:
    form = inputs_of_cell(module, input, hx)
    if type(form) is str:
        return form
    weights, bias = _weights_of_cell(module), module.bias
    key = form[0], module.input_size, module.hidden_size, 1, 1, bias, 0, _rounds(module, form[0])
    call = call_of(module, weights, key, len(form) - 1, 0)
    return _unlike_weights(call, weights, CELL_WEIGHTS) if type(call) is int else call


def inputs_of_cell(module, input, hx):
    """Bits of a number and the shape of a cell's input, or why cylstm computes nothing of the kind."""
    form = form_of(input, module.input_size)
    if form is None or len(form) == 4:
        return _unlike(input) or f"the input is {tuple(input.shape)}"
    if hx is not None:
        state = *form[1:-1], module.hidden_size
        reason = _unlike_state(hx, form[0], state, state)
        if reason:
            return reason
    return form


def _rounds(module, bits) -> bool:
    return bits == 32 and module.precision == "bfloat16"


CELL_WEIGHTS = "weight_ih", "weight_hh", "bias_ih", "bias_hh"


def _weights_of_cell(module):
    own = module._parameters
    found = [own.get(name) for name in CELL_WEIGHTS[: 4 if module.bias else 2]]
    return [getattr(module, name) if w is None else w for name, w in zip(CELL_WEIGHTS, found, strict=False)]


def _unlike(x) -> str:
    """Why a tensor, or the state that torch is in, is nothing that cylstm computes with; "" where it is."""
    if not isinstance(x, Tensor):
        return f"a {type(x).__name__} stands for the input"
    if x.dtype not in (torch.float32, torch.float64):
        return f"its type is {x.dtype}"
    if not x.is_cpu:
        return f"it is on {x.device}"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    if not is_eager():
        return "torch traces or transforms the call"
    return "" if is_plain(x) else f"a {type(x).__name__} is not laid out as numbers in memory"


def _unlike_state(hx, bits, *shapes) -> str:
    """The same of an initial state."""
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        return "hx is not a pair"
    for part, shape in zip(hx, shapes, strict=True):
        if not has_shape(part, bits, shape):
            return f"hx holds {described(part)}"
    return ""


def _unlike_weights(n, weights, names) -> str:
    if n >= len(weights):
        return f"there are {len(weights)} weights"
    return f"{names[n]} is {described(weights[n])}"


def _refuse_what_torch_misreads(module, input):
    """RuntimeError for shapes that torch 2.13 hands on to oneDNN unchecked, which then reads past the end of a
    tensor."""
    types = {w.dtype for w in module._flat_weights if isinstance(w, Tensor)}
    if isinstance(input, PackedSequence) and {input.data.dtype, *types} == {torch.float32}:
        module.check_input(input.data, input.batch_sizes)
    kept = module.__dict__.get("_cylstm")
    if kept is None or module.proj_size or len(kept[2]) != len(module._flat_weights):
        return
    for name, w, (rows, columns) in zip(module._flat_weights_names, module._flat_weights, kept[2], strict=True):
        expected = (rows, columns) if columns else (rows,)
        if isinstance(w, Tensor) and w.dtype is torch.float32 and w.is_cpu and w.shape != expected:
            raise RuntimeError(f"{name}: expected {expected}, got {tuple(w.shape)}")


def described(w) -> str:
    if not isinstance(w, Tensor):
        return type(w).__name__
    return f"a {type(w).__name__} {tuple(w.shape)} in {w.dtype} on {w.device}, strides {w.stride()}"


def run_layer(module, call: ModuleCall, input, hx, resets):
    """What a layer gives: y, as torch has it, and the final (h, c)."""
    if resets is not None:
        call.resets = _resets_of(module, input, resets)
    if call.lengths is not None:
        return _run_packed(call, input, hx)
    y, h, c = run(call, input, *(hx or (None, None)))
    return (y.transpose(0, 1) if call.batch_first else y), (h, c)


def _resets_of(module, input, resets):
    """bool (B, T), NumPy, from (T, B), (B, T) or (T,)."""
    packed = isinstance(input, PackedSequence)
    if packed:  # as the padded batch would have them, in the order before packing
        expected = len(input.batch_sizes), int(input.batch_sizes[0])
        expected = expected[::-1] if module.batch_first else expected
    else:
        expected = tuple(input.shape[:-1])
    if not isinstance(resets, Tensor) or resets.dtype is not torch.bool or not is_plain(resets):
        raise TypeError(f"resets: expected a bool Tensor {expected} on the CPU, got {described(resets)}")
    if tuple(resets.shape) != expected:
        raise ValueError(f"resets: expected {expected}, got {tuple(resets.shape)}")
    if resets.dim() == 1:
        resets = resets.unsqueeze(0)
    elif not module.batch_first:
        resets = resets.transpose(0, 1)
    if packed and input.sorted_indices is not None:
        resets = resets.index_select(0, input.sorted_indices)
    return resets.numpy()


def _run_packed(call, packed, hx):
    """Packed rows go in and come out as they lie; states are the caller's, in the order before packing."""
    _, sizes, order, back = packed
    h, c = hx or (None, None)
    if h is not None and order is not None:
        h, c = h.index_select(1, order), c.index_select(1, order)
    y, h, c = run(call, packed.data, h, c)
    if back is not None:
        h, c = h.index_select(1, back), c.index_select(1, back)
    return PackedSequence(y, sizes, order, back), (h, c)
