"""torch.nn.LSTM's place in a PyTorch model, computed by cylstm on the CPU. Needs torch; imported on request only.

from cylstm.torch import LSTM  # instead of: from torch.nn import LSTM
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import threading

import numpy as np
import torch
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import cylstm
from cylstm.params import Parameters
from cylstm.state import State

__all__ = ["LSTM"]

_made = itertools.count()  # of layers: each has masks of its own

COMPARED_FROM = 16  # steps of rows: a call on so many takes much longer than comparing all weights


class LSTM(torch.nn.LSTM):
    """A `torch.nn.LSTM` on the CPU, faster: its arguments, parameters, initial weights, `state_dict` and results.

    forward(input, hx=None) takes a Tensor or a PackedSequence and returns (output, (h_n, c_n)), as torch's does, and
    autograd goes through it. float32 and float64 on the CPU; no proj_size, no second derivatives. Dropout draws from
    NumPy's generator, seeded from torch.initial_seed() when the module first runs: other masks than torch's.

    Weights are packed once per change. A call without gradients on fewer than COMPARED_FROM steps of rows (a stream)
    knows of changes by torch's version counters, which writes through `.data` escape: call `flatten_parameters()` after
    such. All other calls compare the values.

    Raises ValueError for what it cannot compute, naming the argument, and what torch.nn.LSTM raises for wrong shapes.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.proj_size:
            raise ValueError(f"proj_size: expected 0, got {self.proj_size}")

    def forward(self, input, hx=None):
        """As torch.nn.LSTM's."""
        packed = isinstance(input, PackedSequence)
        self._check(input.data if packed else input)
        if packed:
            return self._forward_packed(input, hx)
        if input.dim() not in (2, 3):
            raise ValueError(f"input: expected 2 or 3 dimensions, got {input.dim()}")
        batched = input.dim() == 3
        if batched and input.shape[0 if self.batch_first else 1] == 0:
            return super().forward(input, hx)  # nothing to compute, but the shapes of an empty batch
        self.check_input(input if batched else input.unsqueeze(0), None)
        x = input.transpose(0, 1) if batched and not self.batch_first else input
        if hx is not None:
            self._check_state(hx, batched, x.shape[0] if batched else 1)
        y, h, c = self._run(x, hx, batched, None)
        if not batched:
            return y, (h.squeeze(1), c.squeeze(1))
        return (y if self.batch_first else y.transpose(0, 1)), (h, c)

    def _forward_packed(self, packed, hx):
        """Rows in the caller's order inside, as everywhere in cylstm; sorted again for what goes out."""
        self.check_input(packed.data, packed.batch_sizes)
        x, lengths = pad_packed_sequence(packed, batch_first=True)
        if hx is not None:
            self._check_state(hx, True, x.shape[0])
        y, h, c = self._run(x, hx, True, lengths)
        if packed.sorted_indices is not None:
            y, lengths = y.index_select(0, packed.sorted_indices), lengths[packed.sorted_indices]
        data = pack_padded_sequence(y, lengths, batch_first=True).data
        return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices), (h, c)

    def _check(self, data):
        if data.device.type != "cpu":
            raise ValueError(f"input: expected a tensor on the CPU, got one on {data.device}")
        if data.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"input: expected float32 or float64, got {data.dtype}")

    def _check_state(self, hx, batched, B):
        expected = (self.num_layers * (2 if self.bidirectional else 1), *([B] if batched else []), self.hidden_size)
        self.check_hidden_size(hx[0], expected, "Expected hidden[0] size {}, got {}")
        self.check_hidden_size(hx[1], expected, "Expected hidden[1] size {}, got {}")
        dtype = self.weight_hh_l0.dtype
        for part in hx:
            if part.dtype != dtype or part.device.type != "cpu":
                raise ValueError(f"hx: expected {dtype} on the CPU as the weights, got {part.dtype} on {part.device}")

    def _run(self, x, hx, batched, lengths):
        """y, h, c from x (B, T, I) or (T, I)."""
        weights = [getattr(self, name) for names in self._all_weights for name in names]
        h, c = hx if hx is not None else (None, None)
        if h is not None and not batched:
            h, c = h.unsqueeze(1), c.unsqueeze(1)
        tensors = (x, *weights, *(() if h is None else (h, c)))
        records = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        steps = x.shape[0] * x.shape[1] if batched else x.shape[0]
        core = self._core(weights, records or steps >= COMPARED_FROM)
        core.layer.dropout = self.dropout if self.training else 0.0
        lengths = None if lengths is None else lengths.numpy()
        if records:
            return _Run.apply(core, lengths, x, h, c, *weights)
        return core.infer(x, h, c, lengths, drops=core.layer.dropout > 0)

    def _core(self, weights, compares):
        """The layer behind the module, with its weights of now."""
        core = self.__dict__.get("_cylstm")
        if core is None or core.layer.dtype != _numpy_dtype(weights[0].dtype):
            core = self.__dict__["_cylstm"] = _Core(self, weights[0].dtype)
        core.follow(weights, compares)
        return core

    def flatten_parameters(self):
        """Take the weights anew at the next call, whatever torch says of them."""
        if "_cylstm" in self.__dict__:
            self._cylstm.seen = None

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_cylstm", None)  # made again from the parameters
        return state


class _Core:
    """A cylstm.LSTM that follows a module's parameters."""

    def __init__(self, module, dtype):
        # Torch's own generator is left alone: what else a script draws from it stays the same.
        generator = np.random.default_rng([torch.initial_seed() % 2**64, next(_made)])
        self.layer = cylstm.LSTM(
            module.input_size, module.hidden_size, module.num_layers, bidirectional=module.bidirectional,
            bias=module.bias, dtype=_numpy_dtype(dtype), seed=generator)  # fmt: skip
        self.names = [name for names in module._all_weights for name in names]
        self.seen = self.held = None
        self.lock = threading.RLock()  # of seen, of copying, and of the layer's generator

    def follow(self, weights, compares):
        """Copy the weights where they changed, by torch's version counters or by their values."""
        counted = not any(w.is_inference() for w in weights)  # such tensors have no counter
        now = [(w.data_ptr(), w._version) for w in weights] if counted else None
        if counted and now == self.seen and not compares:
            return
        with self.lock:
            arrays = dict(zip(self.names, (w.detach().numpy() for w in weights), strict=True))
            changed = False
            for name in self.layer.parameters:
                own, given = self.layer.parameters.raw(name), arrays.get(name)
                if given is None:  # torch has two biases, which are always added
                    given = arrays[name.replace("bias_", "bias_ih_")] + arrays[name.replace("bias_", "bias_hh_")]
                if not np.array_equal(own, given):
                    own[...] = given
                    changed = True
            if changed:
                self.layer.parameters.touch()
            # Held, so that no other memory can come to lie at their addresses.
            self.seen, self.held = now, [w.detach() for w in weights]

    def infer(self, x, h, c, lengths, drops):
        """Without a graph; in training, torch drops here, too."""
        with self.lock if drops else contextlib.nullcontext():
            run = self.layer.forward if drops else self.layer
            y, final = run(x.detach().numpy(), _state(h, c), lengths=lengths)[:2]
        return torch.from_numpy(y), torch.from_numpy(final.h), torch.from_numpy(final.c)

    def split(self, gradients):
        """Gradients by torch's names, in the order of the module's parameters: the two biases have equal ones."""
        for name in self.names:
            own = name.replace("bias_ih_", "bias_").replace("bias_hh_", "bias_")
            values = torch.from_numpy(gradients.raw(own))
            yield values.clone() if name.startswith("bias_hh_") else values


class _Run(torch.autograd.Function):
    """One call and its backward pass (Werbos 1990). Where the tape is spent, or its weights have
    been others meanwhile, backward runs forward again."""

    @staticmethod
    def forward(ctx, core, lengths, x, h, c, *weights):
        ctx.core, ctx.lengths, ctx.dropout = core, lengths, core.layer.dropout
        ctx.save_for_backward(x, h, c, *weights)  # autograd then refuses what was changed in place meanwhile
        with core.lock if ctx.dropout else contextlib.nullcontext():
            ctx.generator = copy.deepcopy(core.layer.rng) if ctx.dropout else None
            y, final, ctx.tape = core.layer.forward(x.detach().numpy(), _state(h, c), lengths=lengths)
        ctx.version = core.layer.parameters.version()
        return torch.from_numpy(y), torch.from_numpy(final.h), torch.from_numpy(final.c)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dh, dc):
        x, h, c, *weights = ctx.saved_tensors
        layer, tape, ctx.tape = ctx.core.layer, ctx.tape, None
        if tape is None or layer.parameters.version() != ctx.version:
            with ctx.core.lock:
                ctx.core.follow(weights, compares=True)
                later, before = layer.rng, layer.dropout
                layer.rng, layer.dropout = copy.deepcopy(ctx.generator) or later, ctx.dropout
                try:
                    tape = layer.forward(x.detach().numpy(), _state(h, c), lengths=ctx.lengths)[2]
                finally:
                    layer.rng, layer.dropout = later, before
        gradients = Parameters(layer.parameters.layout, layer.dtype)
        needed = ctx.needs_input_grad
        given = layer.backward(tape, dy.numpy(), State(dh.numpy(), dc.numpy()), out=gradients, input_gradient=needed[2])
        dx = torch.from_numpy(given.x) if needed[2] else None
        states = [torch.from_numpy(part) if need else None for part, need in zip(given.state, needed[3:5], strict=True)]
        return None, None, dx, *states, *ctx.core.split(gradients)


def _state(h, c):
    return None if h is None else State(h.detach().numpy(), c.detach().numpy())


def _numpy_dtype(dtype):
    return np.dtype("float64" if dtype == torch.float64 else "float32")
