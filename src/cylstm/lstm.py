"""The layer: an LSTM over whole sequences, its state as a plain value, and its gradients.

This is the Python edge: everything a caller can get wrong is checked here, once, before any buffer is touched. The
arithmetic is in _lstm.pyx and below; the same equations, written to be read, are in oracle.py.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import numpy as np

from cylstm import _lstm, _weights
from cylstm._steps import Plan
from cylstm.checks import as_float_array, as_ids, describe, plain_array, positive_int, real_in
from cylstm.init import initialise
from cylstm.params import Parameters
from cylstm.state import Gradients, State, Tape

__all__ = ["LSTM"]

LARGEST = 2**31 - 1  # of rows or columns of one matrix: what a 32-bit BLAS can take


class _Input(NamedTuple):
    """A checked input: features (B, T, I) or ids (B, T), the plan of its steps, and whether the caller had a batch."""

    x: np.ndarray | None
    ids: np.ndarray | None
    plan: Plan
    batched: bool


class LSTM:
    """A multi-layer, optionally bidirectional long short-term memory.

    i, f, o = sigmoid(W x + R h + b), g = tanh(W x + R h + b), c = f c_prev + i g, h = o tanh(c)
    (Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000). Gate order i, f, g, o.

    Parameters
    ----------
    input_size, hidden_size, num_layers : int >= 1
        I, H and L.
    bidirectional : bool
        D = 2: each layer also runs from the end of each sequence to its start.
    dropout : float in [0, 1)
        Share of each layer's outputs, but the last one's, set to 0 by `forward`; `lstm(x)` and `step` drop nothing.
    bias : bool
        Whether the gates have a bias.
    forget_bias : float
        Initial bias of the forget gate (1.0: Jozefowicz, Zaremba & Sutskever 2015). The other biases begin at 0.
    dtype : "float32" or "float64"
    seed : int, None or numpy.random.Generator
        Of the initial weights and, further on, of the dropout masks: `lstm.rng`.
    parameters : Parameters, optional
        Where to keep the weights (a part of a model's buffer); the names and shapes must be those of `LSTM.layout`.

    Initial weights: weight_hh is orthogonal gate by gate (Saxe, McClelland & Ganguli 2014), weight_ih is uniform with
    standard deviation 1/sqrt(fan_in).

    Raises ValueError or TypeError, naming the argument, for anything else.
    """

    def __init__(self, input_size, hidden_size, num_layers=1, *, bidirectional=False, dropout=0.0, bias=True,
                 forget_bias=1.0, dtype="float32", seed=None, parameters=None):  # fmt: skip
        self.input_size = positive_int("input_size", input_size)
        self.hidden_size = positive_int("hidden_size", hidden_size)
        self.num_layers = positive_int("num_layers", num_layers)
        if max(self.input_size, 4 * (self.hidden_size + 16)) > LARGEST:
            raise ValueError(f"input_size, hidden_size: expected less than {LARGEST}, got {input_size}, {hidden_size}")
        self.bidirectional = bool(bidirectional)
        self.dropout = real_in("dropout", dropout, 0, 1, open_high=True)
        self.bias = bool(bias)
        self.forget_bias = real_in("forget_bias", forget_bias, -math.inf, open_low=True)
        self.dtype = self.check_dtype(dtype)
        self.rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
        layout = self.layout(
            self.input_size, self.hidden_size, self.num_layers, bidirectional=self.bidirectional, bias=self.bias
        )
        self.parameters = Parameters(layout, self.dtype) if parameters is None else parameters
        if self.parameters.layout != layout or self.parameters.dtype != self.dtype:
            raise ValueError(f"parameters: expected {layout} in {self.dtype}, got {self.parameters!r}")
        self._weights = None
        self._packed_version = None
        self._values = 0  # how often the packed weights became others
        initialise(self.parameters, self.forget_bias, self.rng)

    @staticmethod
    def check_dtype(dtype) -> np.dtype:
        """float32 or float64; TypeError or ValueError for anything else."""
        try:
            dtype = np.dtype(dtype)
        except TypeError:
            raise TypeError(f"dtype: expected 'float32' or 'float64', got {describe(dtype)}") from None
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"dtype: expected 'float32' or 'float64', got {str(dtype)!r}")
        return dtype

    @staticmethod
    def layout(input_size, hidden_size, num_layers=1, *, bidirectional=False, bias=True) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters in the order of the flat buffer."""
        directions = 2 if bidirectional else 1
        shapes = {}
        for layer in range(num_layers):
            width = input_size if layer == 0 else directions * hidden_size
            for suffix in ("", "_reverse")[:directions]:
                shapes[f"weight_ih_l{layer}{suffix}"] = (4 * hidden_size, width)
                shapes[f"weight_hh_l{layer}{suffix}"] = (4 * hidden_size, hidden_size)
                if bias:
                    shapes[f"bias_l{layer}{suffix}"] = (4 * hidden_size,)
        return shapes

    @property
    def num_directions(self) -> int:
        """D: 2 if bidirectional, otherwise 1."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """D*H, the width of the output."""
        return self.num_directions * self.hidden_size

    def __reduce__(self):
        options = {name: getattr(self, name) for name in ("bidirectional", "dropout", "bias", "forget_bias", "dtype")}
        sizes = (self.input_size, self.hidden_size, self.num_layers)
        return _rebuilt, (type(self), sizes, options, self.parameters.flat.copy(), copy.deepcopy(self.rng))

    def __repr__(self) -> str:
        return (
            f"LSTM(input_size={self.input_size}, hidden_size={self.hidden_size}, num_layers={self.num_layers}, "
            f"bidirectional={self.bidirectional}, dropout={self.dropout:g}, bias={self.bias}, dtype='{self.dtype}')"
        )

    # --- running --------------------------------------------------------------------------------------------------

    def __call__(self, x, state=None, *, lengths=None, resets=None):
        """Run over whole sequences and keep nothing: y and the final state.

        x : (B, T, I) or (T, I) floats of any precision, or (B, T) or (T,) integer ids standing for one-hot rows.
            Any strided view will do; time-major data go in as `x.swapaxes(0, 1)`.
        state : State or None (zeros), each array (L*D, B, H); B is 1 for unbatched input.
        lengths : (B,) integers in 1..T, in any order. y is 0 past each row's end, the final state is the one at each
            row's own end, and the reverse direction begins there.
        resets : (B, T) or, unbatched, (T,) booleans. Where true, nothing flows between steps t-1 and t in either
            direction: the forward state, the initial one included, is zero before step t.

        Returns y (B, T, D*H) or (T, D*H) and the final State.

        Raises TypeError or ValueError naming the argument. Numbers that are not finite pass through to y.
        """
        y, final, _ = self._run(self._check_input(x, lengths, resets), state, keep=False)
        return y, final

    def forward(self, x, state=None, *, lengths=None, resets=None):
        """The same as `lstm(x)`, with dropout, and with a third result: the tape that `backward` needs."""
        return self._run(self._check_input(x, lengths, resets), state, keep=True)

    def step(self, x_t, state, *, out=None):
        """One step of a stream: y_t (B, D*H) or (H,) and the next state.

        x_t : (B, I) or (I,) floats, or (B,) or scalar integer ids. state : State (L, B, H).
        out : State to write the next state into, which may be `state` itself.

        Raises ValueError where the layer is bidirectional: its reverse direction needs the whole sequence.
        """
        if self.bidirectional:
            raise ValueError("step: expected a layer of one direction, got a bidirectional one")
        x_t = np.asarray(x_t)
        features = x_t.dtype.kind not in "iu"
        batched = x_t.ndim == (2 if features else 1)
        if x_t.ndim not in ((1, 2) if features else (0, 1)) or (features and x_t.shape[-1] != self.input_size):
            expected = f"(B, {self.input_size}) or ({self.input_size},)" if features else "ids (B,) or a single id"
            raise ValueError(f"x_t: expected {expected}, got {x_t.shape}")
        given = self._check_input(np.expand_dims(x_t, 1 if batched else 0), None, None, name="x_t")
        y, final, _ = self._run(given, state, keep=False, out=out)
        return (y[:, 0] if batched else y[0]), final

    def initial_state(self, batch_size=1) -> State:
        """A state of zeros, arrays (L*D, B, H)."""
        shape = self._state_shape(positive_int("batch_size", batch_size))
        return State(np.zeros(shape, self.dtype), np.zeros(shape, self.dtype))

    def backward(self, tape, dy, dstate=None, *, out=None) -> Gradients:
        """Backpropagation through time (Werbos 1990): the gradients of a loss whose gradients by y and state are given.

        tape : from `forward`, whose weights must not have changed since; it serves one backward.
        dy : d loss / d y, of y's shape; what stands past a row's end is ignored.
        dstate : d loss / d final state, a State, or None for zeros.
        out : Parameters of this layer's layout to overwrite with the gradients, instead of new ones.

        Returns Gradients(x, state, parameters).
        Raises TypeError or ValueError naming the argument, and ValueError for a tape already used.
        """
        if not isinstance(tape, Tape) or tape.layer is not self:
            raise TypeError(f"tape: expected a tape of this layer, got {describe(tape)}")
        inner, B = tape.inner, tape.y_shape[0]
        dy = as_float_array("dy", dy, self.dtype)
        expected = tape.y_shape if tape.batched else tape.y_shape[1:]
        if dy.shape != expected:
            raise ValueError(f"dy: expected {expected}, got {dy.shape}")
        dy = np.ascontiguousarray(dy.reshape(tape.y_shape))
        dh, dc = (None, None) if dstate is None else self._check_state("dstate", dstate, B)
        gradients = Parameters(self.parameters.layout, self.dtype) if out is None else out
        if not isinstance(gradients, Parameters):
            raise TypeError(f"out: expected Parameters, got {describe(out)}")
        if np.may_share_memory(gradients.flat, self.parameters.flat):
            raise ValueError("out: expected memory of its own, got the layer's parameters")
        if gradients.layout != self.parameters.layout or gradients.dtype != self.dtype:
            raise ValueError(f"out: expected {self.parameters!r}, got {out!r}")
        self._packed_weights()
        if tape.values != self._values:
            raise ValueError("tape: expected the weights that forward saw, but they have changed since")
        dinitial = State(*(np.empty(self._state_shape(B), self.dtype) for _ in range(2)))
        dx = _lstm.backward(inner, dy, dh, dc, *dinitial, gradients.flat)
        gradients.touch()
        if dx is not None:
            dx = tape.plan.unpack(dx)
            dx = dx if tape.batched else dx[0]
        return Gradients(dx, dinitial, gradients)

    def _run(self, given, state, *, keep, out=None):
        plan = given.plan
        B, T = (given.x if given.ids is None else given.ids).shape[:2]
        ids = None
        if given.ids is not None:
            # A copy, whose steps past a row's end are gone, is checked: the kernels trust it, and so does backward.
            ids = as_ids("x", np.array(plan.pack(given.ids), order="C"), self.input_size)
        if state is None:
            state = self.initial_state(B)
        h0, c0 = self._check_state("state", state, B)
        if out is None:
            final = State(np.empty(h0.shape, self.dtype), np.empty(c0.shape, self.dtype))
        else:
            final = self._check_out(out, B)
        weights = self._packed_weights()
        masks = None
        if keep and self.dropout > 0 and self.num_layers > 1:
            kept = self.rng.random((self.num_layers - 1, plan.rows, self.output_size), np.float32) >= self.dropout
            masks = kept.astype(self.dtype) / self.dtype.type(1 - self.dropout)
        x = None if given.x is None else np.ascontiguousarray(plan.pack(given.x))
        if keep and x is not None and np.may_share_memory(x, given.x):
            x = x.copy()  # the tape outlives the call, and the caller's array may change
        y = (np.empty if plan.order is None else np.zeros)((B, T, self.output_size), self.dtype)
        inner = _lstm.forward(weights, plan, x, ids, h0, c0, masks, keep, y, *final)
        tape = Tape(self, plan, given.batched, inner, y.shape) if keep else None
        return (y if given.batched else y[0]), final, tape

    def _packed_weights(self):
        """The weights as the kernels want them, to be packed anew if the parameters may have changed and did.

        What another thread computes with is never written to: it keeps the weights that it began with.
        """
        version, weights, flat = self.parameters.version(), self._weights, self.parameters.flat
        if weights is not None and version == self._packed_version and weights.current():
            return weights
        if weights is None or version[0] != self._packed_version[0] or not weights.holds(flat):
            self._values += 1
            if weights is not None:
                weights.update(flat)
        if weights is None or not weights.current():
            weights = _weights.Weights(self.input_size, self.hidden_size, self.num_layers, self.num_directions, self.bias,
                                       self.dtype)  # fmt: skip
            weights.update(flat)
            self._weights = weights
        self._packed_version = version
        return weights

    # --- what a caller can get wrong ------------------------------------------------------------------------------

    def _state_shape(self, B):
        return (self.num_layers * self.num_directions, B, self.hidden_size)

    def _check_input(self, x, lengths, resets, name="x") -> _Input:
        x = plain_array(name, x)
        I = self.input_size
        features = x.dtype.kind not in "iu"
        if features:
            x = as_float_array(name, x, self.dtype)
            if x.ndim not in (2, 3) or x.shape[-1] != I:
                raise ValueError(f"{name}: expected (B, T, {I}) or (T, {I}), got {x.shape}")
        else:
            if x.ndim not in (1, 2):
                raise ValueError(
                    f"{name}: expected ids (B, T) or (T,), or features in floating point, got {describe(x)}"
                )
        batched = x.ndim == (3 if features else 2)
        x = x if batched else x[None]
        B, T = x.shape[:2]
        if B == 0 or T == 0:
            shape = x.shape if batched else x.shape[1:]
            raise ValueError(f"{name}: expected at least one row and one step, got {shape}")
        if (B + 1) * (T + 1) > LARGEST:
            raise ValueError(f"{name}: expected at most {LARGEST} steps in all, got {B} x {T}")
        if lengths is not None:
            lengths = self.check_lengths(lengths, B, T)
        if resets is not None:
            resets = np.asarray(resets)
            if resets.dtype != bool:
                raise TypeError(f"resets: expected booleans, got {describe(resets)}")
            if resets.shape != ((B, T) if batched else (T,)):
                raise ValueError(f"resets: expected {(B, T) if batched else (T,)}, got {resets.shape}")
            resets = resets.reshape(B, T)
        return _Input(x if features else None, None if features else x, Plan(B, T, lengths, resets), batched)

    @staticmethod
    def check_lengths(lengths, B, T) -> np.ndarray:
        """B integers in 1..T as int64; TypeError or ValueError for anything else."""
        lengths = np.atleast_1d(np.asarray(lengths))
        if lengths.dtype.kind not in "iu":
            raise TypeError(f"lengths: expected integers, got {describe(lengths)}")
        if lengths.shape != (B,):
            raise ValueError(f"lengths: expected ({B},), got {lengths.shape}")
        low, high = int(lengths.min()), int(lengths.max())
        if low < 1 or high > T:
            raise ValueError(f"lengths: expected lengths in 1..{T}, got {low if low < 1 else high}")
        return lengths.astype(np.int64)

    def _check_state(self, name, state, B):
        try:
            h, c = state
        except (TypeError, ValueError):
            raise TypeError(f"{name}: expected a State(h, c), got {describe(state)}") from None
        arrays = []
        for part, array in (("h", h), ("c", c)):
            array = as_float_array(f"{name}.{part}", array, self.dtype)
            if array.shape != self._state_shape(B):
                raise ValueError(f"{name}.{part}: expected {self._state_shape(B)}, got {array.shape}")
            arrays.append(np.ascontiguousarray(array))
        return arrays

    def _check_out(self, out, B):
        try:
            h, c = out
        except (TypeError, ValueError):
            raise TypeError(f"out: expected a State(h, c), got {describe(out)}") from None
        for part, array in (("h", h), ("c", c)):
            good = isinstance(array, np.ndarray) and array.flags.c_contiguous and array.flags.writeable
            if not good or array.dtype != self.dtype or array.shape != self._state_shape(B):
                raise ValueError(f"out.{part}: expected a writable, contiguous {self.dtype} {self._state_shape(B)}, "
                                 f"got {describe(array)}")  # fmt: skip
        if np.may_share_memory(h, c):
            raise ValueError("out: expected two arrays, got h and c in the same memory")
        return out

    # --- PyTorch's names and shapes -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the weights under torch.nn.LSTM's names; its two biases are (bias, 0)."""
        weights = {}
        for name, values in self.parameters.items():
            if name.startswith("bias_"):
                weights[name.replace("bias_", "bias_ih_")] = values.copy()
                weights[name.replace("bias_", "bias_hh_")] = np.zeros_like(values)
            else:
                weights[name] = values.copy()
        return weights

    def load_state_dict(self, weights) -> None:
        """Take over weights under torch.nn.LSTM's names (NumPy arrays or CPU tensors); its two biases are summed.

        Raises ValueError for names missing or unknown and for wrong shapes, before anything is changed.
        """
        expected = {}
        for name, shape in self.parameters.layout.items():
            names = [name.replace("bias_", "bias_ih_"), name.replace("bias_", "bias_hh_")]
            expected[name] = (names if name.startswith("bias_") else [name], shape)
        known = {torch_name for names, _ in expected.values() for torch_name in names}
        if set(weights) != known:
            missing, unknown = sorted(known - set(weights)), sorted(set(weights) - known)
            raise ValueError(f"weights: expected torch.nn.LSTM's names, got {missing} missing and {unknown} unknown")
        arrays = {}
        for name, (names, shape) in expected.items():
            parts = [as_float_array(part, weights[part], self.dtype) for part in names]
            for part, array in zip(names, parts, strict=True):
                if array.shape != shape:
                    raise ValueError(f"{part}: expected {shape}, got {array.shape}")
            arrays[name] = sum(parts[1:], parts[0])
        for name, array in arrays.items():
            self.parameters[name][...] = array
        self.parameters.touch()


def _rebuilt(cls, sizes, options, flat, rng):
    """A copy (copy, pickle) of a layer, with parameters of its own."""
    layer = cls(*sizes, **options, seed=0)
    layer.parameters.flat[:] = flat
    layer.parameters.touch()
    layer.rng = rng
    return layer
