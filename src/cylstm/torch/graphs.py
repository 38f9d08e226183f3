"""cylstm as an operator of torch's graphs: what torch.compile puts in the place of a module's call."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
import weakref

import torch
from torch import Tensor

from cylstm._core.torch_layer import Module
from cylstm.torch._call import addresses_of, array_of
from cylstm.torch.run import shapes_of

__all__ = ["forward", "small_cell_forward", "small_forward", "small_modules"]


class _AllowedWhenDynamoComes(importlib.abc.MetaPathFinder):
    """Dynamo, the part of torch.compile that reads Python, breaks the graph at each nn.LSTM unless it is told not to.
    It is told when it is imported, which nobody should have to wait for who does not compile."""

    def find_spec(self, name, path=None, target=None):
        if name != "torch._dynamo.config":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            module.allow_rnn = True

        spec.loader.exec_module = exec_module
        return spec


if "torch._dynamo.config" in sys.modules:
    sys.modules["torch._dynamo.config"].allow_rnn = True
else:
    sys.meta_path.insert(0, _AllowedWhenDynamoComes())

_library = torch.library.Library("cylstm", "DEF")
_CALL = (
    "Tensor x, Tensor? h, Tensor? c, Tensor[] weights, Tensor? masks, Tensor? resets, "
    "bool bias, int layers, bool bidirectional, bool batch_first, bool rounded"
)
_library.define(
    "small_lstm(Tensor x, Tensor? h, Tensor? c, Tensor? resets, int module, bool batch_first) -> "
    "(Tensor, Tensor, Tensor)"
)
_library.define(f"lstm({_CALL}) -> (Tensor, Tensor, Tensor)")
_library.define(
    f"lstm_backward(Tensor? dy, Tensor? dh, Tensor? dc, {_CALL}) -> (Tensor, Tensor, Tensor, Tensor[])"
)  # fmt: skip


def forward(module: torch.nn.LSTM, input, hx, resets):
    """A module's call while torch traces it: by the operator, or by torch where cylstm computes no such call."""
    dropout = module.dropout if module.training and module.num_layers > 1 else 0.0
    ours = (
        isinstance(input, Tensor)
        and input.dim() in (2, 3)
        and input.dtype in (torch.float32, torch.float64)
        and input.device.type == "cpu"
        and input.numel() > 0
        and dropout < 1
        and not torch.compiler.is_exporting()
        and not torch.is_autocast_enabled("cpu")
    )
    if not ours:
        if resets is not None:
            raise ValueError("resets: expected a call that cylstm computes, but torch traces this one and does it")
        return torch.nn.LSTM.forward(module, input, hx)
    module._update_flat_weights()
    module.check_input(input if input.dim() == 3 else input.unsqueeze(1), None)
    x, h, c, resets, batch_first = _in_three_dimensions(module, input, hx, resets)
    masks = None
    if dropout > 0:
        T, B = (x.shape[1], x.shape[0]) if batch_first else (x.shape[0], x.shape[1])
        shape = T, B, (2 if module.bidirectional else 1) * (module.proj_size or module.hidden_size)
        kept = [x.new_empty(shape).bernoulli_(1 - dropout) for _ in range(module.num_layers - 1)]
        masks = torch.stack(kept).div_(1 - dropout)
    results = torch.ops.cylstm.lstm(
        x, h, c, module._flat_weights, masks, resets, module.bias, module.num_layers, module.bidirectional, batch_first,
        input.dtype is torch.float32 and module.precision == "bfloat16",
    )  # fmt: skip
    return _as_given(input, batch_first, *results)


small_modules: weakref.WeakValueDictionary[int, torch.nn.Module] = weakref.WeakValueDictionary()  # by their numbers


def small_forward(module, input, hx, resets):
    """The same of a module in fewer bits, whose weights are no tensors: the operator has the module's number."""
    _expect_small(module, input, hx, (2, 3))
    x, h, c, resets, batch_first = _in_three_dimensions(module, input, hx, resets)
    results = torch.ops.cylstm.small_lstm(x, h, c, resets, module.number, batch_first)
    return _as_given(input, batch_first, *results)


def small_cell_forward(module, input, hx):
    """Of a cell: x (B, I) or (I,) is one step."""
    _expect_small(module, input, hx, (1, 2))
    x, h, c = input, *(hx or (None, None))
    for _ in range(3 - input.dim()):
        x, h, c = (None if part is None else part.unsqueeze(0) for part in (x, h, c))
    _, h, c = torch.ops.cylstm.small_lstm(x, h, c, None, module.number, False)
    for _ in range(3 - input.dim()):
        h, c = h.squeeze(0), c.squeeze(0)
    return h, c


def _expect_small(module, input, hx, dimensions):
    """TypeError or RuntimeError for what the module refuses outside of graphs, and for graphs that outlive this
    process, in which its number means another module, or none."""
    if torch.compiler.is_exporting():
        raise RuntimeError(f"export: expected a module in float32 or float64, got one in {module.precision}, whose "
                           "weights no file of torch has")  # fmt: skip
    if not isinstance(input, Tensor) or input.dim() not in dimensions:
        raise TypeError(f"input: expected a Tensor of {dimensions[0]} or {dimensions[1]} dimensions, as torch.compile "
                        f"traces a module in {module.precision}")  # fmt: skip
    if torch.is_autocast_enabled("cpu"):
        raise TypeError(f"input: expected a call that cylstm computes in {module.precision}; but autocast is on")
    module.expect_no_dropout()


def _in_three_dimensions(module, input, hx, resets):
    """x, h, c, the resets, and whether x is batch-first. Raises what nn.LSTM raises for other shapes of h and c."""
    batched, batch_first = input.dim() == 3, module.batch_first and input.dim() == 3
    x = input if batched else input.unsqueeze(1)
    h = c = None
    if hx is not None:
        h, c = hx if batched else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        expected = module.num_layers * (2 if module.bidirectional else 1), x.shape[0 if batch_first else 1]
        for n, part, width in ((0, h, module.proj_size or module.hidden_size), (1, c, module.hidden_size)):
            message = f"Expected hidden[{n}] size {{}}, got {{}}"
            torch.nn.LSTM.check_hidden_size(module, part, (*expected, width), message)
    return x, h, c, resets if resets is None or batched else resets.unsqueeze(1), batch_first


def _as_given(input, batch_first, y, h, c):
    if input.dim() == 2:
        return y.squeeze(1), (h.squeeze(1), c.squeeze(1))
    return (y.transpose(0, 1) if batch_first else y), (h, c)


_cores: dict[tuple, Module] = {}
MOST_CORES = 256


def _core(x, weights, bias, layers, bidirectional, rounded) -> Module:
    """A layer for the weights of one module, known by the address of the first; what it holds of them is compared
    anyway."""
    H, Y = _sizes_of(weights)
    sizes = x.shape[-1], H, layers, 2 if bidirectional else 1, bias, Y if Y < H else 0
    key = weights[0].data_ptr(), x.dtype, sizes, rounded
    core = _cores.get(key)
    if core is None:
        while len(_cores) >= MOST_CORES:
            _cores.pop(next(iter(_cores)), None)
        core = _cores[key] = Module(*sizes, "float64" if x.dtype is torch.float64 else "float32", rounded)
    return core


def _sizes_of(weights):
    """H, and the width of h: P with a projection."""
    return weights[1].shape[0] // 4, weights[1].shape[1]


def _small_core(number) -> Module:
    """Raises RuntimeError where there is no such module any more."""
    module = small_modules.get(number)
    if module is None:
        raise RuntimeError("module: expected the one that the graph was compiled for, but it is gone")
    return module.core


def _small_lstm(x, h, c, resets, module, batch_first):
    core = _small_core(module)
    if x.dim() != 3 or x.shape[-1] != core.input_size or x.dtype is not torch.float32 or not x.numel():
        raise TypeError(f"input: expected (..., {core.input_size}) in torch.float32, got {tuple(x.shape)} in {x.dtype}")
    y, h_n, c_n, _ = _run_core(core, None, x, h, c, None, resets, batch_first, False)
    return torch.from_numpy(y), torch.from_numpy(h_n), torch.from_numpy(c_n)


def _run(x, h, c, weights, masks, resets, bias, layers, bidirectional, batch_first, rounded, keep):
    weights = [part.contiguous() for part in weights]
    core = _core(x, weights, bias, layers, bidirectional, rounded)
    H, Y = core.hidden_size, core.h_size
    shapes = shapes_of(x.shape[-1], H, layers, core.num_directions, bias, Y if Y < H else 0)
    addresses = addresses_of(weights, 64 if x.dtype is torch.float64 else 32, shapes)
    if type(addresses) is int:
        raise RuntimeError(f"weights: expected an LSTM's for this input in {x.dtype}, got others at place {addresses}")
    return core, _run_core(core, addresses, x, h, c, masks, resets, batch_first, keep)


def _run_core(core, addresses, x, h, c, masks, resets, batch_first, keep):
    states, B = core.num_layers * core.num_directions, x.shape[0 if batch_first else 1]
    for name, part, width in (("h", h, core.h_size), ("c", c, core.hidden_size)):
        _expect(name, part, (states, B, width), x.dtype)
    _expect("resets", resets, tuple(x.shape[:2]), torch.bool)
    cuts = array_of(resets)
    if cuts is not None and not batch_first:
        cuts = cuts.swapaxes(0, 1)
    return core.run(
        array_of(x), array_of(h), array_of(c), addresses, batch_first, None,
        array_of(None if masks is None else masks.contiguous()), cuts, keep, torch.get_num_threads(),
    )  # fmt: skip


def _expect(name, tensor, shape, dtype):
    if tensor is not None and (tensor.shape != shape or tensor.dtype is not dtype):
        raise RuntimeError(f"{name}: expected {shape} in {dtype}, got {tuple(tensor.shape)} in {tensor.dtype}")


def _lstm(x, h, c, weights, masks, resets, bias, layers, bidirectional, batch_first, rounded):
    options = bias, layers, bidirectional, batch_first, rounded
    _, (y, h_n, c_n, _) = _run(x, h, c, weights, masks, resets, *options, False)
    return torch.from_numpy(y), torch.from_numpy(h_n), torch.from_numpy(c_n)


def _lstm_backward(dy, dh, dc, x, h, c, weights, masks, resets, bias, layers, bidirectional, batch_first, rounded):
    options = bias, layers, bidirectional, batch_first, rounded
    core, (*_, tape) = _run(x, h, c, weights, masks, resets, *options, True)
    given = core.backward(tape, array_of(dy), array_of(dh), array_of(dc), True, batch_first, torch.get_num_threads())
    dx, dh_0, dc_0, parts = given
    return torch.from_numpy(dx), torch.from_numpy(dh_0), torch.from_numpy(dc_0), [torch.from_numpy(p) for p in parts]


_library.impl("small_lstm", _small_lstm, "CPU")
_library.impl("lstm", _lstm, "CPU")
_library.impl("lstm_backward", _lstm_backward, "CPU")


@torch.library.register_fake("cylstm::small_lstm")
def _(x, h, c, resets, module, batch_first):
    T, B = (x.shape[1], x.shape[0]) if batch_first else (x.shape[0], x.shape[1])
    core = _small_core(module)
    states = core.num_layers * core.num_directions
    y = x.new_empty(T, B, core.num_directions * core.h_size)
    return y, x.new_empty(states, B, core.h_size), x.new_empty(states, B, core.hidden_size)


@torch.library.register_fake("cylstm::lstm")
def _(x, h, c, weights, masks, resets, bias, layers, bidirectional, batch_first, rounded):
    T, B = (x.shape[1], x.shape[0]) if batch_first else (x.shape[0], x.shape[1])
    D, (H, Y) = 2 if bidirectional else 1, _sizes_of(weights)
    return x.new_empty(T, B, D * Y), x.new_empty(layers * D, B, Y), x.new_empty(layers * D, B, H)


@torch.library.register_fake("cylstm::lstm_backward")
def _(dy, dh, dc, x, h, c, weights, masks, resets, bias, layers, bidirectional, batch_first, rounded):
    B = x.shape[0 if batch_first else 1]
    state, (H, Y) = (layers * (2 if bidirectional else 1), B), _sizes_of(weights)
    dx = x.new_empty(x.shape[1], x.shape[0], x.shape[2]).transpose(0, 1) if batch_first else x.new_empty(x.shape)
    return dx, x.new_empty(*state, Y), x.new_empty(*state, H), [x.new_empty(part.shape) for part in weights]


def _setup(ctx, inputs, output):
    x, h, c, weights, masks, resets, *options = inputs
    ctx.options, ctx.states = options, h is not None
    ctx.save_for_backward(x, h, c, masks, resets, *weights)
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, dh, dc):
    x, h, c, masks, resets, *weights = ctx.saved_tensors
    dx, dh_0, dc_0, parts = torch.ops.cylstm.lstm_backward(
        dy, dh, dc, x, h, c, weights, masks, resets, *ctx.options
    )  # fmt: skip
    return dx, dh_0 if ctx.states else None, dc_0 if ctx.states else None, parts, *[None] * 7


torch.library.register_autograd("cylstm::lstm", _backward, setup_context=_setup)


def _no_backward(ctx, *gradients):
    raise RuntimeError("backward: expected a module in float32 or float64, got one in fewer bits, which only runs")


torch.library.register_autograd("cylstm::small_lstm", _no_backward)
