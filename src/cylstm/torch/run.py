"""One call of the layer behind a module, and its place in torch's graph of gradients."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import torch
from torch import Tensor

from cylstm._module import Module, addresses_of

__all__ = ["KINDS", "Call", "call_of", "is_eager", "is_plain", "run", "shapes_of"]

KINDS = (Tensor, torch.nn.Parameter)
_making = threading.Lock()


class Call:
    """What a call is, beside its tensors: one object for forward, backward and torch's own computation of both.

    core: the layer behind the module. weights: the module's of now, held until they have been read (a parametrisation
    makes new ones whenever it is asked), and their addresses. lengths: int64 (B,) of packed rows, longest
    first, and sizes: what torch has for them; or None. resets: bool (B, T) or None. dropout: 0 outside of training.
    """

    __slots__ = ("addresses", "batch_first", "bias", "core", "dropout", "lengths", "resets", "sizes", "weights")

    def __init__(self, core, weights, addresses, bias, batch_first=False, dropout=0.0, lengths=None, sizes=None):
        self.core, self.weights, self.addresses, self.bias = core, weights, addresses, bias
        self.batch_first, self.dropout = batch_first, dropout
        self.lengths, self.sizes, self.resets = lengths, sizes, None


def call_of(module, weights, dtype, I, H, L, D, bias, **options) -> Call | int:
    """The call with these weights, or the number of the first that cylstm does not read where it lies.

    The layer behind a module is made when it is first needed, and again where its sizes or type are others.
    """
    key = dtype, I, H, L, D, bias
    kept = module.__dict__.get("_cylstm")
    if kept is None or kept[0] != key or kept[1] is None:  # None: a copy of somebody's own making
        shapes = shapes_of(I, H, L, D, bias)
        with _making:
            core = Module(I, H, L, D, bias, "float64" if dtype is torch.float64 else "float32")
            kept = module.__dict__["_cylstm"] = key, core, shapes
    addresses = addresses_of(weights, KINDS, dtype, torch.strided, kept[2])
    return addresses if type(addresses) is int else Call(kept[1], weights, addresses, bias, **options)


def shapes_of(I, H, L, D, bias) -> list[tuple[int, int]]:
    """Rows and columns of each weight in nn.LSTM's order, 0 columns for a bias."""
    biases = [(4 * H, 0)] * 2 if bias else []
    return [shape for n in range(L) for shape in [(4 * H, D * H if n else I), (4 * H, H), *biases] * D]


def run(call: Call, x: Tensor, h: Tensor | None, c: Tensor | None):
    """y, time-major or packed, and the final h and c, each (L*D, B, H)."""
    if torch.is_grad_enabled() and (
        x.requires_grad
        or (h is not None and (h.requires_grad or c.requires_grad))
        or any([w.requires_grad for w in call.weights])
    ):
        return _Run.apply(call, x, h, c, *call.weights)
    return _forward(call, x, h, c, call.addresses, False)[:3]


def _forward(call, x, h, c, addresses, keep):
    masks = _masks(call, x) if call.dropout > 0 else None
    y, h_n, c_n, tape = call.core.run(
        _array(x), _array(h), _array(c), addresses, call.batch_first, call.lengths, masks, call.resets, keep,
        torch.get_num_threads(),
    )  # fmt: skip
    return torch.from_numpy(y), torch.from_numpy(h_n), torch.from_numpy(c_n), tape


def _array(tensor):
    if tensor is None:
        return None
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()


def _masks(call, x):
    """The masks that nn.LSTM would draw now, one after each layer but the last, in packed or time-major order."""
    rows, width = x.shape[:-1], call.core.num_directions * call.core.hidden_size
    if call.lengths is None and call.batch_first:
        rows = rows[1], rows[0]
    if call.dropout == 1:
        return x.new_zeros((call.core.num_layers - 1, *rows, width)).numpy()
    kept = [x.new_empty((*rows, width)).bernoulli_(1 - call.dropout) for _ in range(call.core.num_layers - 1)]
    return torch.stack(kept).div_(1 - call.dropout).numpy()


class _Run(torch.autograd.Function):
    """Backpropagation through time (Werbos 1990). Where the tape is spent or was not kept, backward runs forward
    again."""

    @staticmethod
    def forward(ctx, call, x, h, c, *weights):
        ctx.call, ctx.tape, ctx.hooked = call, None, True
        ctx.set_materialize_grads(False)
        ctx.generator = torch.get_rng_state() if call.dropout > 0 else None
        y, h_n, c_n, tape = _forward(call, x, h, c, call.addresses, True)
        call.weights = ticket = None
        if torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
            ctx.tape, ctx.hooked = tape, False
        else:  # somebody decides what is kept, as torch.utils.checkpoint does
            ticket = _ticket_for(tape)
        ctx.save_for_backward(x, h, c, ticket, *weights)  # autograd refuses what is changed in place until backward
        return y, h_n, c_n

    @staticmethod
    def backward(ctx, dy, dh, dc):
        call, needed = ctx.call, ctx.needs_input_grad
        given = [gradient for gradient in (dy, dh, dc) if gradient is not None]
        if not given:
            return (None,) * len(needed)
        if torch.is_grad_enabled() or not is_eager() or not all([is_plain(gradient) for gradient in given]):
            return None, *_torch_backward(ctx, dy, dh, dc)
        x, h, c, ticket, *weights = ctx.saved_tensors
        tape, ctx.tape = ctx.tape if ticket is None else _tape_of(ticket), None
        threads = torch.get_num_threads()
        arrays = [_array(gradient) for gradient in (dy, dh, dc)]
        gradients = tape and call.core.backward(tape, *arrays, needed[1], call.batch_first, threads)
        if gradients is None:
            addresses = [w.data_ptr() for w in weights]
            if not ctx.hooked and addresses != call.addresses:
                raise RuntimeError(
                    "weights: expected those of the forward call, but other memory has taken their place"
                )
            with torch.random.fork_rng(devices=[], enabled=ctx.generator is not None):
                if ctx.generator is not None:
                    torch.set_rng_state(ctx.generator)
                tape = _forward(call, x, h, c, addresses, True)[3]
            gradients = call.core.backward(tape, *arrays, needed[1], call.batch_first, threads)
        dx, dh_0, dc_0, parts = gradients
        return (
            None,
            torch.from_numpy(dx) if needed[1] else None,
            torch.from_numpy(dh_0) if needed[2] else None,
            torch.from_numpy(dc_0) if needed[3] else None,
            *[torch.from_numpy(part) if need else None for part, need in zip(parts, needed[4:], strict=True)],
        )


class _Ticket(np.ndarray):
    """A number whose memory stands for a tape: a tensor of it can be saved, and lets go of the tape where it is
    dropped."""


_tickets: weakref.WeakValueDictionary[int, _Ticket] = weakref.WeakValueDictionary()  # by their addresses


def _ticket_for(tape) -> Tensor:
    ticket = np.zeros(1).view(_Ticket)
    ticket.tape = tape
    _tickets[ticket.ctypes.data] = ticket
    return torch.from_numpy(ticket)


def _tape_of(ticket):
    """None where the tensor has been copied meanwhile."""
    found = _tickets.get(ticket.data_ptr())
    return None if found is None else found.tape


def is_plain(tensor) -> bool:
    """Whether it is numbers in memory, and nothing that stands for some: no subclass, no other layout or device."""
    return (
        type(tensor) in KINDS
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and not tensor.is_neg()
        and not torch._C._functorch.is_legacy_batchedtensor(tensor)
    )


def is_eager() -> bool:
    """Whether torch computes as it goes: nothing traces or transforms what happens."""
    return (
        torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
        and torch.autograd.forward_ad._current_level < 0
    )


def _torch_backward(ctx, dy, dh, dc):
    """The same gradients as functions of everything they depend on: torch's own forward, and back through that.

    Serves second derivatives (create_graph), and backward under torch's transforms.
    """
    call = ctx.call
    if call.resets is not None:
        raise RuntimeError("resets: expected first derivatives only, got create_graph=True or a transform of backward")
    x, h, c, _, *weights = ctx.saved_tensors
    with torch.enable_grad(), torch.random.fork_rng(devices=[], enabled=ctx.generator is not None):
        if ctx.generator is not None:
            torch.set_rng_state(ctx.generator)
        # Aliases: one tensor may stand in two places, and each place has a gradient of its own.
        x, h, c, *weights = [None if part is None else part.view_as(part) for part in (x, h, c, *weights)]
        outputs = _torch_forward(call, x, h, c, weights)
    chosen = [part if need else None for part, need in zip((x, h, c, *weights), ctx.needs_input_grad[1:], strict=True)]
    pairs = [(y, d) for y, d in zip(outputs, (dy, dh, dc), strict=True) if d is not None]
    found = iter(
        torch.autograd.grad(
            [y for y, _ in pairs], [part for part in chosen if part is not None], [d for _, d in pairs],
            create_graph=torch.is_grad_enabled(), allow_unused=True,
        )
    )  # fmt: skip
    return [None if part is None else next(found) for part in chosen]


def _torch_forward(call: Call, x, h, c, weights):
    """What `run` gives, computed by torch."""
    core, both = call.core, call.core.num_directions == 2
    if h is None:
        B = len(call.lengths) if call.lengths is not None else x.shape[0 if call.batch_first else 1]
        h = c = x.new_zeros(core.num_layers * core.num_directions, B, core.hidden_size)
    options = call.bias, core.num_layers, float(call.dropout), call.dropout > 0, both
    if call.sizes is not None:
        return torch._VF.lstm(x, call.sizes, (h, c), weights, *options)
    y, h_n, c_n = torch._VF.lstm(x, (h, c), weights, *options, call.batch_first)
    return y.transpose(0, 1) if call.batch_first else y, h_n, c_n
