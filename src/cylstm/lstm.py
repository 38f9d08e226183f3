"""The layer: an LSTM over whole sequences, its state as a plain value, and its gradients.

Calls come in at _layer.pyx; _edge.pyx checks everything a caller can get wrong, once, before any buffer is touched; the
arithmetic is in _network.pyx and below. The same equations, written to be read, are in oracle.py.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np

from cylstm import _layer, _memory
from cylstm.checks import as_float_array, as_generator, describe, positive_int, real_in
from cylstm.init import LATER, initialise
from cylstm.params import Parameters

__all__ = ["LSTM", "MOST_LAYERS"]


MOST_LAYERS = 10_000


class LSTM(_layer.Layer):
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
        With one layer there is nothing to drop: 0.
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
        I, H = positive_int("input_size", input_size), positive_int("hidden_size", hidden_size)
        L = positive_int("num_layers", num_layers)
        if L > MOST_LAYERS:
            raise ValueError(f"num_layers: expected at most {MOST_LAYERS}, got {L}")
        self.bidirectional = bool(bidirectional)
        self.bias = bool(bias)
        dtype = self.check_dtype(dtype)
        largest = float(np.finfo(dtype).max)
        self.forget_bias = real_in("forget_bias", forget_bias, -largest, largest)
        rng = as_generator("seed", 0 if seed is LATER else seed)
        if max(I, 4 * (H + 16)) > _memory.LARGEST:
            raise ValueError(f"input_size, hidden_size: expected less than {_memory.LARGEST}, got {I}, {H}")
        layout = self.layout(I, H, L, bidirectional=self.bidirectional, bias=self.bias)
        parameters = Parameters(layout, dtype) if parameters is None else parameters
        if parameters.layout != layout or parameters.dtype != dtype:
            raise ValueError(f"parameters: expected {layout} in {dtype}, got {parameters!r}")
        parameters.watch()
        super().__init__(I, H, L, 2 if self.bidirectional else 1, self.bias, dropout, dtype, parameters, rng)
        if seed is not LATER:
            initialise(parameters, self.forget_bias, rng)

    @staticmethod
    def check_dtype(dtype) -> np.dtype:
        """float32 or float64; TypeError or ValueError for anything else."""
        try:
            dtype = np.dtype(dtype)
        except (SyntaxError, TypeError, ValueError):  # NumPy parses some strings
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
    def output_size(self) -> int:
        """D*H, the width of the output."""
        return self.num_directions * self.hidden_size

    def __reduce__(self):
        options = {name: getattr(self, name) for name in ("bidirectional", "dropout", "bias", "forget_bias", "dtype")}
        sizes = (self.input_size, self.hidden_size, self.num_layers)
        flat, rng = self.parameters.raw().copy(), copy.deepcopy(self.rng)
        return _rebuilt, (type(self), sizes, options, flat, rng, self.embedded)

    def __repr__(self) -> str:
        return (
            f"LSTM(input_size={self.input_size}, hidden_size={self.hidden_size}, num_layers={self.num_layers}, "
            f"bidirectional={self.bidirectional}, dropout={self.dropout:g}, bias={self.bias}, dtype='{self.dtype}')"
        )

    # --- PyTorch's names and shapes -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the weights under torch.nn.LSTM's names; its two biases are (bias, 0)."""
        weights = {}
        for name in self.parameters:
            values = self.parameters.raw(name)
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
        if not isinstance(weights, Mapping):
            raise TypeError(f"weights: expected a mapping from names to arrays, got {describe(weights)}")
        expected = {}
        for name, shape in self.parameters.layout.items():
            names = [name.replace("bias_", "bias_ih_"), name.replace("bias_", "bias_hh_")]
            expected[name] = (names if name.startswith("bias_") else [name], shape)
        known = {torch_name for names, _ in expected.values() for torch_name in names}
        if set(weights) != known:
            missing, unknown = sorted(known - set(weights)), sorted(set(weights) - known, key=str)
            wrong = [f"{', '.join(map(str, names))} {what}" for names, what in
                     ((missing, "missing"), (unknown, "unknown")) if names]  # fmt: skip
            raise ValueError(f"weights: expected torch.nn.LSTM's names, got {'; '.join(wrong)}")
        arrays = {}
        for name, (names, shape) in expected.items():
            parts = [as_float_array(part, weights[part], self.dtype) for part in names]
            for part, array in zip(names, parts, strict=True):
                if array.shape != shape:
                    raise ValueError(f"{part}: expected {shape}, got {array.shape}")
            arrays[name] = np.array(sum(parts[1:], parts[0]))  # a copy: they may be views of this layer's own
        for name, array in arrays.items():
            self.parameters.raw(name)[...] = array
        self.parameters.touch()


def _rebuilt(cls, sizes, options, flat, rng, embedded=False):
    """A copy (copy, pickle) of a layer, with parameters of its own."""
    layer = cls(*sizes, **options, seed=LATER)
    layer.embedded = embedded
    layer.parameters.raw()[:] = flat
    layer.parameters.touch()
    layer.rng = rng
    return layer
