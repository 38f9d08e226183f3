"""One call of the layer behind a module, and its place in torch's graph of gradients."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import torch
from torch import Tensor

from cylstm._core.torch_layer import Module
from cylstm.torch._call import ModuleCall, addresses_of

__all__ = ["call_of", "run", "shapes_of"]

_making = threading.Lock()


def call_of(
    module, weights, key, rank, lift, batch_first=False, dropout=0.0, lengths=None, sizes=None
) -> ModuleCall | int:
    """The call with these weights, or the number of the first that cylstm does not read where it lies.

    key: bits of a number, I, H, L, D, whether there are biases, P of a projection or 0, and whether products are of
    rounded numbers. The layer behind a module is made when it is first needed, and again where its key is another.
    """
    kept = module.__dict__.get("_cylstm")
    if kept is None or kept[0] != key or kept[1] is None:  # None: a copy of somebody's own making
        bits, *sizes_of_layer, rounded = key
        with _making:
            core = Module(*sizes_of_layer, "float64" if bits == 64 else "float32", rounded)
            kept = module.__dict__["_cylstm"] = key, core, shapes_of(*sizes_of_layer)
    addresses = addresses_of(weights, key[0], kept[2])
    if type(addresses) is int:
        return addresses
    return ModuleCall(kept[1], weights, addresses, key[5], rank, lift, batch_first, dropout, lengths, sizes)


def shapes_of(I, H, L, D, bias, P) -> list[tuple[int, int]]:
    """Rows and columns of each weight in nn.LSTM's order, 0 columns for a bias."""
    Y = P or H
    others = [(4 * H, Y), *[(4 * H, 0)] * (2 if bias else 0), *([(P, H)] if P else [])]
    return [shape for n in range(L) for shape in [(4 * H, D * Y if n else I), *others] * D]


def run(call: ModuleCall, x: Tensor, h: Tensor | None, c: Tensor | None):
    """y, time-major or packed, and the final h (L*D, B, P or H) and c (L*D, B, H); of a cell no y."""
    if call.is_recorded(x, h, c):
        return _apply(call, x, h, c, *call.weights)
    return _forward(call, x, h, c, call.addresses, False)[:3]


def _forward(call, x, h, c, addresses, keep):
    masks = _masks(call, x) if call.dropout > 0 else None
    y, h_n, c_n, tape = call.core.run(
        *call.arrays(x, h, c), addresses, call.batch_first, call.lengths, masks, call.resets, keep,
        torch.get_num_threads(),
    )  # fmt: skip
    return None if call.lift == 0 else call.tensor(y), call.tensor(h_n), call.tensor(c_n), tape


def _masks(call, x):
    """The masks that nn.LSTM would draw now, one after each layer but the last, in packed or time-major order."""
    rows, width = x.shape[:-1], call.core.num_directions * call.core.h_size
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
        if dy is None and dh is None and dc is None:
            return (None,) * len(needed)
        arrays = call.gradients(dy, dh, dc)
        if arrays is None:
            return None, *_torch_backward(ctx, dy, dh, dc)
        saved = ctx.saved_tensors  # torch looks here whether they are what they were
        tape, ctx.tape = ctx.tape if saved[3] is None else _tape_of(saved[3]), None
        threads = torch.get_num_threads()
        gradients = None if tape is None else call.core.backward(tape, *arrays, needed[1], call.batch_first, threads)
        if gradients is None:
            tape = _forward_again(ctx, *saved)
            gradients = call.core.backward(tape, *arrays, needed[1], call.batch_first, threads)
        dx, dh_0, dc_0, parts = gradients
        return (
            None,
            call.tensor(dx) if needed[1] else None,
            call.tensor(dh_0) if needed[2] else None,
            call.tensor(dc_0) if needed[3] else None,
            *[torch.from_numpy(part) if need else None for part, need in zip(parts, needed[4:], strict=True)],
        )


# As Function.apply without its look at the arguments, 3 us long: none of them belongs to a transform of torch.func.
_apply = super(torch.autograd.Function, _Run).apply


def _forward_again(ctx, x, h, c, _, *weights):
    """The tape of the same forward call."""
    addresses = [w.data_ptr() for w in weights]
    if not ctx.hooked and addresses != ctx.call.addresses:
        raise RuntimeError("weights: expected those of the forward call, but other memory has taken their place")
    with torch.random.fork_rng(devices=[], enabled=ctx.generator is not None):
        if ctx.generator is not None:
            torch.set_rng_state(ctx.generator)
        return _forward(ctx.call, x, h, c, addresses, True)[3]


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


def _torch_forward(call: ModuleCall, x, h, c, weights):
    """What `run` gives, computed by torch."""
    core, both, less = call.core, call.core.num_directions == 2, range(3 - call.rank if call.lift >= 0 else 0)
    for _ in less:
        x, h, c = [None if part is None else part.unsqueeze(call.lift) for part in (x, h, c)]
    if h is None:
        B = len(call.lengths) if call.lengths is not None else x.shape[0 if call.batch_first else 1]
        h, c = [x.new_zeros(core.num_layers * core.num_directions, B, size) for size in (core.h_size, core.hidden_size)]
    options = call.bias, core.num_layers, float(call.dropout), call.dropout > 0, both
    if call.sizes is not None:
        return torch._VF.lstm(x, call.sizes, (h, c), weights, *options)
    y, h_n, c_n = torch._VF.lstm(x, (h, c), weights, *options, call.batch_first)
    for _ in less:
        y, h_n, c_n = y.squeeze(call.lift), h_n.squeeze(call.lift), c_n.squeeze(call.lift)
    return y.transpose(0, 1) if call.batch_first else y, h_n, c_n
