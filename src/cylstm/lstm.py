"""The layer: an LSTM over whole sequences, its state as a plain value, and its gradients.

Calls come in at _core/layer.pyx; _core/arguments.pyx checks everything a caller can get wrong, once, before any buffer
is touched; the arithmetic is in _core/network.pyx and below. The same equations, written to be read, are in oracle.py.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np

from cylstm._core import layer
from cylstm.cell import CellType, check_stack, hidden_sizes, initialise, layout, one_or_each, parameters_of
from cylstm.checks import as_float_array, as_generator, describe, flag, positive_int, real_in
from cylstm.drops import OfDrops
from cylstm.init import LATER
from cylstm.parameters import laid_out
from cylstm.precision import (
    check_int8,
    converted,
    expect_gradients,
    fill,
    given_of,
    kept_of,
    precision_of,
    precision_option,
    rounds,
)

__all__ = ["LSTM"]


class LSTM(layer.Layer):
    """A multi-layer, optionally bidirectional long short-term memory.

    i, f, o = sigmoid(W x + R h + b), g = tanh(W x + R h + b), c = f c_prev + i g, h = o tanh(c)
    (Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000). Gate order i, f, g, o.

    Parameters
    ----------
    input_size, num_layers : int >= 1
        I and L.
    hidden_size : int >= 1, or a tuple of them
        H, or H of each layer, (96, 48): L is their number then. States are as wide as the widest layer is; what they
        have beyond a narrower one's width is 0, and ignored where it comes in. `lstm.hidden_size` is the widest one's,
        `lstm.hidden_sizes` has each layer's.
    bidirectional : bool
        D = 2: each layer also runs from the end of each sequence to its start.
    dropout : float in [0, 1)
        Share of each layer's outputs, but the last one's, set to 0 by `forward`; `lstm(x)` and `step` drop nothing.
        With one layer there is nothing to drop: 0.
    dropout_per : "step" or "sequence"
        Whether `dropout` draws anew for each step, or once for each row and call (Gal & Ghahramani 2016; the locked
        dropout of Merity, Keskar & Socher 2018).
    input_dropout, recurrent_dropout : float in [0, 1)
        Shares of x, and of h before it is multiplied by weight_hh, that `forward` sets to 0 at all steps of a row
        alike; of h in each layer and direction on its own, the same for all gates (Gal & Ghahramani 2016). Ids have no
        inputs to drop: `input_dropout` is 0 then.
    recurrent_dropout_per : "row" or "gate"
        "gate": h has masks of its own in the sums of each gate (Keras 3; Keras 2 with implementation=1).
    update_dropout : float in [0, 1)
        Share of g that `forward` sets to 0 where c gets it, c = f c_prev + i m g, at all steps of a row alike; nothing
        that c has is dropped (Semeniuta, Severyn & Barth 2016).
    weight_drop : float in [0, 1)
        Share of the elements of weight_hh that `forward` takes as 0, for all rows and steps of a call (DropConnect: Wan
        et al. 2013; Merity, Keskar & Socher 2018). The weights themselves stay; what is dropped has no gradient.
    zoneout : two floats in [0, 1]
        z_c and z_h: shares of c and of h that in `forward` stay what they were before a step, drawn anew for each row,
        step and unit. Everything else takes the mean, z old + (1 - z) new (Krueger et al. 2017).
    bias : bool
        Whether the gates have a bias.
    peepholes : bool
        Whether i and f see c_prev, and o sees c: each adds p * c to its sum, p being one weight per unit, 0 at first
        (Gers, Schraudolph & Schmidhuber 2002). Gradients flow through them.
    coupled : bool
        f = 1 - i (Greff et al. 2017). f's rows of weight_ih, weight_hh and bias stay, unused, as ONNX has them.
    cell_clip : float, optional
        c stays within -cell_clip..cell_clip (Sak, Senior & Beaufays 2014). Where it is cut, no gradient flows.
    activations : three activations, optional
        In the place of sigmoid for i, f and o, of tanh for g, and of tanh in h = o tanh(c): each a name ("sigmoid",
        "tanh", "hard_sigmoid", "relu", "softsign", "linear", ...: `cylstm.activations.CELL`), or a tuple of a name and
        its numbers, ("hard_sigmoid", 1 / 6, 0.5).
    gate_clip : float, optional
        What i, f, g and o are functions of stays within -gate_clip..gate_clip (ONNX's clip). Where it is cut, no
        gradient flows.
    first_state : bool
        Whether sequences begin with a state that is learnt, h0 and c0 (H,) of each layer and direction, 0 at first: the
        rows of a call without `state`, and whatever begins at `resets`, in both directions.
    reverse : bool
        Whether the only direction, of each layer, runs from the end of each row to its start. Outputs stay in the order
        of time, and names as they are without; the final state is the one after the first step.
    proj_size : int in [0, hidden_size)
        P: h = R_p (o tanh(c)) has P numbers (Sak, Senior & Beaufays 2014), as torch.nn.LSTM has it: so wide are the
        recurrent weights (4H, P), the state's h, each direction's output, and half or all of the next layer's input.
        R_p (P, H) is weight_hr. 0 for no projection, h = o tanh(c).
    proj_clip : float, optional
        With a projection, h stays within -proj_clip..proj_clip (TensorFlow's LSTMCell). Where it is cut, no gradient
        flows.
    layer_norm : "ba" or "torchscript", or a pair of it and eps, optional
        Rows normalised to mean 0 and variance 1, eps (1e-5, of 1e-12..1) being added to the variance: W x and R h, each
        with a gain of its own (norm_ih, norm_hh (4H,)), and c, with gain and shift (norm_c (2, H)), so that h = o
        tanh(LN(c)).
        "ba": the next step gets c itself (Ba, Kiros & Hinton 2016); "torchscript": it gets LN(c), as in PyTorch's
        LayerNormLSTMCell, whose two shifts of W x and R h are one bias here. Not with peepholes.
    merge : "concat", "sum", "mean" or "product"
        How the two directions of a layer give its outputs: side by side (B, T, 2*H), or added, averaged or multiplied,
        number by number, (B, T, H), which is the next layer's input then. The state stays one of each direction.
    residual : bool
        Whether what goes into a layer is added to its outputs, from the second layer on: y = LSTM(dropped x) + x, x
        being the outputs of the layer below, undropped (Wu et al. 2016). The state is the layers' own h and c.
    highway : bool
        Whether a layer's outputs are mixed with what goes into it, from the second layer on: y = t h + (1 - t) x,
        t = sigmoid(W_t x + b_t), with highway_weight (H, I) and highway_bias (H,), -1 at first (P for H with a
        projection); of two directions each with its half of x (Srivastava, Greff & Schmidhuber 2015). The state is the
        layers' own h and c.
    forget_bias : float
        Initial bias of the forget gate (1.0: Jozefowicz, Zaremba & Sutskever 2015). The other biases begin at 0.
    dtype : "float32" or "float64"
    seed : int, None or numpy.random.Generator
        Of the initial weights and, further on, of the dropout masks: `lstm.rng`.
    precision : "bfloat16", optional
        Products of matrices are of numbers rounded to bfloat16, with sums in float32; weights, gradients and all else
        stay in float32, where `dtype` is that. It is what mixed precision is elsewhere: about twice as fast, or more,
        with AMX, and nothing to gain without. `lstm(x)` has the bits of `lstm.astype("bfloat16")(x)`. `lstm.precision`
        changes it.
    parameters : Parameters, optional
        Where to keep the weights (a part of a model's buffer); the names and shapes must be those of `LSTM.layout`.

    Initial weights: weight_hh is orthogonal gate by gate (Saxe, McClelland & Ganguli 2014), weight_ih is uniform with
    standard deviation 1/sqrt(fan_in), and so is weight_hr.

    Raises ValueError or TypeError, naming the argument, for anything else.
    """

    def __init__(self, input_size, hidden_size, num_layers=1, *, bidirectional=False, dropout=0.0, bias=True,
                 peepholes=False, coupled=False, cell_clip=None, activations=None, gate_clip=None, first_state=False,
                 reverse=False, proj_size=0, proj_clip=None, layer_norm=None, forget_bias=1.0, dtype="float32",
                 seed=None, parameters=None, dropout_per="step", input_dropout=0.0, recurrent_dropout=0.0,
                 weight_drop=0.0, zoneout=(0.0, 0.0), merge="concat", residual=False,
                 update_dropout=0.0, recurrent_dropout_per="row", highway=False, precision=None):  # fmt: skip
        I, sizes = positive_int("input_size", input_size), hidden_sizes(hidden_size, num_layers)
        L, D, dtype = len(sizes), 1 + flag("bidirectional", bidirectional), self.check_dtype(dtype)
        cell = CellType.checked(dtype, bias=bias, peepholes=peepholes, coupled=coupled, cell_clip=cell_clip,
                                activations=activations, gate_clip=gate_clip, first_state=first_state, reverse=reverse,
                                proj_size=proj_size, proj_clip=proj_clip, layer_norm=layer_norm, merge=merge,
                                residual=residual, highway=highway)  # fmt: skip
        check_stack(cell, sizes, D)
        largest = float(np.finfo(dtype).max)
        forget_bias = real_in("forget_bias", forget_bias, -largest, largest)
        rng = as_generator("seed", 0 if seed is LATER else seed)
        parameters = laid_out(layout(I, sizes, L, D, cell), dtype, parameters)
        parameters.watch()
        super().__init__(I, sizes, L, D, cell, dropout, dtype, parameters, rng)
        self.cell, self.hidden_sizes, self.bidirectional, self.forget_bias = cell, sizes, D == 2, forget_bias
        self.dropout_per, self.input_dropout = dropout_per, input_dropout
        self.recurrent_dropout, self.recurrent_dropout_per = recurrent_dropout, recurrent_dropout_per
        self.update_dropout = update_dropout
        self.weight_drop, self.zoneout = weight_drop, zoneout
        self.precision = precision
        if self.precision == "int8":
            check_int8(self)
        if seed is not LATER:
            initialise(parameters, I, sizes, L, D, cell, forget_bias, rng)

    dropout_per = OfDrops("Whether `dropout` draws for each step, or once for each row: 'step' or 'sequence'.")
    input_dropout = OfDrops("Share of x that `forward` sets to 0, at all steps of a row alike.")
    recurrent_dropout = OfDrops("Share of h that `forward` sets to 0 before weight_hh, at all steps of a row alike.")
    recurrent_dropout_per = OfDrops("Whether `recurrent_dropout` has a mask for each 'row', or for each 'gate' of it.")
    update_dropout = OfDrops("Share of g that `forward` sets to 0 where c gets it, at all steps of a row alike.")
    weight_drop = OfDrops("Share of the elements of weight_hh that `forward` takes as 0.")
    zoneout = OfDrops("Shares of c and of h that stay what they were before a step; in the mean outside of `forward`.")

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
    def layout(input_size, hidden_size, num_layers=1, *, bidirectional=False, **cell) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters in the order of the flat buffer. cell: bias, peepholes, ... as in LSTM."""
        return layout(input_size, hidden_size, num_layers, 2 if bidirectional else 1, CellType(**cell))

    @property
    def bias(self) -> bool:
        """Whether the gates have a bias."""
        return self.cell.bias

    @property
    def causal(self) -> bool:
        """Whether no output depends on later steps: it has one direction, forward."""
        return not (self.bidirectional or self.cell.reverse)

    @property
    def precision(self) -> str:
        """What its matrices are multiplied in: "float32", "float64", "bfloat16" or, of a layer from `astype`, which
        keeps them so, too, "float16" or "int8". A layer of float32 can change between "float32" and "bfloat16".
        """
        return precision_of(self)

    @precision.setter
    def precision(self, value):
        self.rounded = rounds(self.parameters, value)

    def astype(self, precision) -> LSTM:
        """This layer as it is now with its numbers in "float32" or "float64" or, to run and no more, in fewer bits:
        "bfloat16", "float16" or "int8".

        Of those three, weight_ih and weight_hh are kept and multiplied in so few bits; everything else and all sums are
        float32, as what goes in and comes out is. Calls are the same, but for `forward`, which is refused.

        - float16: the weights are rounded.
        - bfloat16: the weights are rounded, and so are x and h where they meet them.
        - int8: a weight is a whole number within -127..127 times a scale of its row, which is one unit's in one gate. h
          has steps of 1/127, and x has 1/127 of the largest number of its row and step. So h has to stay within -1..1:
          a projection, an activation beyond them or such a state is refused. These sums have the same bits on all
          processors.

        Raises TypeError, or ValueError for other names and for weights that the precision does not hold.
        """
        sizes = (self.input_size, one_or_each(self.hidden_sizes), self.num_layers)

        def make(dtype, parameters):
            options = {**self.options, "dtype": dtype, "precision": None}
            layer = type(self)(*sizes, **options, seed=LATER, parameters=parameters)
            layer.embedded = self.embedded
            return layer

        return converted(self, make, precision)

    @property
    def options(self) -> dict:
        """The arguments that make a layer of this kind, beside its sizes."""
        cell = self.cell
        return {
            "bidirectional": self.bidirectional, "dropout": self.dropout, **self.drops.config, "bias": cell.bias,
            **cell.chosen,
            "forget_bias": self.forget_bias, "dtype": str(self.dtype), **precision_option(self),
        }  # fmt: skip

    def __reduce__(self):
        sizes = (self.input_size, one_or_each(self.hidden_sizes), self.num_layers)
        kept, rng = kept_of(self.parameters), copy.deepcopy(self.rng)
        return _rebuilt, (type(self), sizes, self.options, kept, rng, self.embedded)

    def __repr__(self) -> str:
        options = {name: value for name, value in self.options.items() if name != "forget_bias"}
        options["dropout"] = f"{self.dropout:g}"
        if not self.rounded:  # of a layer from `astype`, the type is what its matrices have
            options["dtype"] = self.precision
        told = ", ".join(f"{name}={value if name == 'dropout' else repr(value)}" for name, value in options.items())
        H = one_or_each(self.hidden_sizes)
        sizes = f"input_size={self.input_size}, hidden_size={H}, num_layers={self.num_layers}"
        return f"LSTM({sizes}, {told})"

    def trace(self, x, state=None, *, lengths=None, resets=None):
        """What goes on inside: every gate, cell and state of every layer and direction, at each step.

        x, state, lengths, resets: as for `lstm(x)`, whose outputs and final state are `trace.y` and `trace.state`.

        Returns a `Trace`, a dict of arrays (B, T, H), or (T, H) for one sequence, of the layer's type and in the order
        of time: "i_l0", "f_l0", "g_l0", "o_l0" are gates as they were used (f = 1 - i where they are coupled), "c_l0"
        and "h_l0" the state after each step, (B, T, P) for h with a projection; and so "i_l1", "i_l0_reverse", ... All
        is 0 past a row's end. Nothing is dropped; with zoneout, c and h are the means that `lstm(x)` takes.

        The arrays come from the oracle (`cylstm.oracle`), in float64, and are rounded to the layer's type. They differ
        from what the kernels compute by rounding alone, which tests hold them to. A step of a layer takes a tenth of a
        millisecond or more: it is for a look at some thousand steps.

        Raises TypeError or ValueError as `lstm(x)` does, and for a layer in fewer bits than float32.
        """
        from cylstm.trace import trace  # with the oracle, which nothing else here needs

        return trace(self, x, state, lengths=lengths, resets=resets)

    # --- PyTorch's names and shapes -------------------------------------------------------------------------------

    def _parameters_of(self):
        return parameters_of(self.input_size, self.hidden_sizes, self.num_layers, self.num_directions, self.cell)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the weights under torch.nn.LSTM's names; its two biases are (bias, 0)."""
        weights = {}
        for parameter in self._parameters_of():
            values = self.parameters.raw(parameter.name)
            first, *others = parameter.torch
            weights[first] = values.copy()
            weights.update({name: np.zeros_like(values) for name in others})
        return weights

    def load_state_dict(self, weights) -> None:
        """Take over weights under torch.nn.LSTM's names (NumPy arrays or CPU tensors); its two biases are summed.

        Raises ValueError for names missing or unknown and for wrong shapes, before anything is changed.
        """
        if not isinstance(weights, Mapping):
            raise TypeError(f"weights: expected a mapping from names to arrays, got {describe(weights)}")
        known = {name for parameter in self._parameters_of() for name in parameter.torch}
        if set(weights) != known:
            missing, unknown = sorted(known - set(weights)), sorted(set(weights) - known, key=str)
            wrong = [f"{', '.join(map(str, names))} {what}" for names, what in
                     ((missing, "missing"), (unknown, "unknown")) if names]  # fmt: skip
            raise ValueError(f"weights: expected torch.nn.LSTM's names, got {'; '.join(wrong)}")
        arrays = {}
        for parameter in self._parameters_of():
            parts = {name: as_float_array(name, weights[name], self.dtype) for name in parameter.torch}
            for name, array in parts.items():
                if array.shape != parameter.shape:
                    raise ValueError(f"{name}: expected {parameter.shape}, got {array.shape}")
            first, *others = parts.values()
            arrays[parameter.name] = np.array(sum(others, first))  # a copy: they may be views of this layer's own
        expect_gradients(self.parameters, "load_state_dict")
        for name, array in arrays.items():
            self.parameters.raw(name)[...] = array
        self.parameters.touch()


def _rebuilt(cls, sizes, options, kept, rng, embedded=False):
    """A copy (copy, pickle) of a layer, with parameters of its own; kept: by kept_of."""
    layer = cls(*sizes, **options, seed=LATER, parameters=given_of(kept))
    layer.embedded = embedded
    fill(layer.parameters, kept)
    layer.rng = rng
    return layer
