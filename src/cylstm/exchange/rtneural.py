"""RTNeural's JSON: networks of Keras' layers, or a state dict of PyTorch in lists, as its two loaders read them.

A file of the first kind is {"in_shape": [null, null, I], "layers": [...]}, each layer {"type", "activation", "shape",
"weights"}. Weights lie as in Keras: (inputs, outputs), an LSTM's kernel (I, 4H), recurrent kernel (H, 4H) and bias
(4H), gates i, f, g, o. One of the second kind has names of tensors only (`cylstm.exchange.pytorch`).
Source: RTNeural's model_loader.h, torch_helpers.h and python/model_utils.py (github.com/jatinchowdhury18/RTNeural).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cylstm.checks import describe, flag, one_of, path_name
from cylstm.exchange import pytorch
from cylstm.exchange.json_files import array_of, expect_keys, read_object, write_object
from cylstm.exchange.network import (
    Dense,
    Direction,
    Network,
    Recurrent,
    expect_plain,
    naming,
    parted,
    shown,
    tell_left_out,
    transposed,
)

__all__ = ["read", "write"]

ACTIVATIONS = ("tanh", "relu", "sigmoid", "softmax", "elu")  # "" for none
DENSE = ("dense", "time-distributed-dense")


def read(path, *, dtype="float32", **options) -> Network:
    """A file of RTNeural as a network; outputs are those of every step, as RTNeural's are.

    dtype : of the weights, "float32" or "float64".
    options : for a file that is a state dict, `prefix`, `head`, ... of `exchange.pytorch.read`.

    Raises OSError, TypeError, or ValueError: other layers (conv1d, gru, prelu, ...) and other activations by their
    names, weights that do not fit.
    """
    path = path_name("path", path)
    one_of("dtype", dtype, ("float32", "float64"))
    with naming(path):
        file = read_object(path)
        if "layers" not in file:
            states = of_state_dict(file, dtype)
            if not states:
                told = shown(file) or "nothing"
                raise ValueError(f"expected in_shape and layers, or a state dict's tensors by their names, got {told}")
            return pytorch.read(states, **options)
        if options:
            raise ValueError(f"expected a state dict for {', '.join(options)}, got a file that names its layers")
        expect_keys("file", file, ("in_shape", "layers"), None)
        width = last_of("in_shape", file["in_shape"])
        layers = []
        for n, layer in enumerate(listed("layers", file["layers"])):
            with naming(f"layers[{n}]"):
                add_layer(layers, layer, width, dtype)
            width = layers[-1].width
        return Network(tuple(layers))


def of_state_dict(file, dtype):
    """Arrays by name, of what is numbers or lists of them, in lists or not: another layer's tensors have any axes."""
    return {
        name: array_of(name, value, axes_of(value), dtype)
        for name, value in file.items()
        if type(value) in (float, int) or (isinstance(value, list) and value)
    }


def axes_of(value) -> int:
    """The depth of lists within lists."""
    axes = 0
    while isinstance(value, list) and value:
        value, axes = value[0], axes + 1
    return axes


def listed(name, value):
    if not isinstance(value, list):
        raise ValueError(f"{name}: expected a list, got {describe(value)}")
    return value


def last_of(name, shape) -> int:
    """The width that a shape ends with: [batch, steps, width] or [batch, width], null for any."""
    shape = listed(name, shape)
    if len(shape) not in (2, 3) or type(shape[-1]) is not int or shape[-1] < 1:
        raise ValueError(f"{name}: expected [null, null, width], got {describe(shape)}")
    return shape[-1]


def add_layer(layers, layer, inputs, dtype):
    """Append what a layer is, or put an activation behind the last one."""
    expect_keys("layer", layer, ("type", "shape"), None)
    kind, weights = layer["type"], listed("weights", layer.get("weights", []))
    activation = layer.get("activation") or "linear"
    width = last_of("shape", layer["shape"])
    if kind == "lstm":
        if activation not in ("tanh", "linear"):  # RTNeural computes tanh, whatever is named
            raise ValueError(f"activation: expected tanh in an LSTM, got {describe(activation)}")
        expect_number(weights, 2, 3)
        kernel, recurrent = (array_of(f"weights[{n}]", weights[n], 2, dtype) for n in (0, 1))
        bias = array_of("weights[2]", weights[2], 1, dtype) if len(weights) == 3 else None
        layers.append(Recurrent((Direction(transposed(kernel), transposed(recurrent), bias),)))
    elif kind in DENSE:
        one_of("activation", activation, ("linear", *ACTIVATIONS))
        expect_number(weights, 1, 2)
        bias = array_of("weights[1]", weights[1], 1, dtype) if len(weights) == 2 else None
        layers.append(Dense(transposed(array_of("weights[0]", weights[0], 2, dtype)), bias, activation))
    elif kind == "activation":
        one_of("activation", activation, ACTIVATIONS)
        if not layers or not isinstance(layers[-1], Dense) or layers[-1].activation != "linear":
            raise ValueError(f"activation: expected one dense layer without an activation before it, got {activation} "
                             "behind another")  # fmt: skip
        layers[-1] = replace(layers[-1], activation=activation)
    else:
        raise ValueError(f"type: expected lstm, {', '.join(DENSE)} or activation, got {describe(kind)}")
    if layers[-1].width != width:
        raise ValueError(f"shape: expected {layers[-1].width}, as weights have it, got {width}")
    first = layers[-1].directions[0].weight_ih if kind == "lstm" else layers[-1].weight
    if kind != "activation" and first.shape[1] != inputs:
        raise ValueError(f"weights: expected {inputs} inputs, as many as stand before it, got {first.shape[1]}")


def expect_number(weights, low, high):
    if not low <= len(weights) <= high:
        raise ValueError(f"weights: expected {low} or {high} arrays, got {len(weights)}")


def write(network: Network, path, *, state_dict=False) -> None:
    """Write JSON that RTNeural reads, atomically; numbers are written in full.

    state_dict : for a file of the other kind, whose names are those of `exchange.pytorch.write`; activations are no
        part of it, and a warning names them.

    Raises OSError, TypeError, or ValueError for what RTNeural has not: an embedding, both directions, variants of the
    cell, a first state, a network that gives its last output only, other activations, weights that are not finite.
    """
    path = path_name("path", path)
    flag("state_dict", state_dict)
    with naming(path):
        table, before, recurrent, _ = parted(network)
        if table is not None:
            raise ValueError("embedding: expected none, which RTNeural has not, got one")
        expect_plain("RTNeural", recurrent)
        if state_dict:
            value = pytorch.state_dict(network)
        else:
            first = (before[0].weight if before else recurrent[0].directions[0].weight_ih).shape[1]
            value = {"in_shape": [None, None, first], "layers": [layer_to_write(one) for one in network.layers]}
    write_object(path, value)
    others = pytorch.forms_of(network) if state_dict else ()
    tell_left_out(path, "as RTNeural has no place for it", network, others=others)


def layer_to_write(layer):
    if isinstance(layer, Recurrent):
        (one,) = layer.directions
        bias = np.zeros(len(one.weight_hh), one.weight_hh.dtype) if one.bias is None else one.bias  # it must be there
        kind, activation, weights = "lstm", "tanh", [one.weight_ih.T, one.weight_hh.T, bias]
    else:
        activation = "" if layer.activation == "linear" else one_of("activation", layer.activation, ACTIVATIONS)
        kind, weights = "dense", [layer.weight.T] + ([] if layer.bias is None else [layer.bias])
    return {"type": kind, "activation": activation, "shape": [None, None, layer.width], "weights": weights}
