"""A C header of a network: its weights as constant arrays, and the few loops that run them, one step at a time.

It stands alone: C99 or C++, `<math.h>` and nothing else. Our own `cylstm.h` needs Python and the compiled kernels,
which is no way for a plugin or a microcontroller; there what is wanted is a file to include. It is plain and slow
beside the kernels, and gives their numbers to rounding.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from cylstm.checks import describe, path_name
from cylstm.exchange.network import Dense, Network, Recurrent, expect_plain, naming, numbered, parted, tell_left_out
from cylstm.exchange.pytorch import named_arrays
from cylstm.tensor_files import write_atomically

__all__ = ["write"]

# What an activation makes of v, with its ALPHA and BETA; F ends the names of functions, as in tanhf.
ACTIVATIONS = {
    "relu": "v > 0 ? v : 0",
    "leaky_relu": "v > 0 ? v : ALPHA * v",
    "tanh": "tanhF(v)",
    "sigmoid": "NAME_sigmoid(v)",
    "elu": "v > 0 ? v : ALPHA * expm1F(v)",
    "softplus": "(v > 0 ? v : 0) + log1pF(expF(-fabsF(v)))",
    "softsign": "v / (1 + fabsF(v))",
    "gelu_tanh": "v * (1 + tanhF((REAL)0.7978845608028654 * (v + (REAL)0.044715 * v * v * v))) / 2",
    "silu": "v * NAME_sigmoid(v)",
    "affine": "ALPHA * v + BETA",
    "exponential": "expF(v)",
    "hard_sigmoid": "ALPHA * v + BETA < 0 ? 0 : ALPHA * v + BETA > 1 ? 1 : ALPHA * v + BETA",
    "hard_tanh": "v < -1 ? -1 : v > 1 ? 1 : v",
    "relu6": "v < 0 ? 0 : v > 6 ? 6 : v",
    "scaled_tanh": "ALPHA * tanhF(BETA * v)",
    "selu": "(REAL)1.0507009873554805 * (v > 0 ? v : (REAL)1.6732632423543772 * expm1F(v))",
    "thresholded_relu": "v > ALPHA ? v : 0",
}

HEAD = """\
/* TITLE, written by cylstm.
 *
 *     #include "FILE"             (C99 or C++, with -lm)
 *
 *     NAME_state state;
 *     REAL y[NAME_outputs];
 *     NAME_reset(&state);          // before each sequence
 *     NAME_step(&state, INPUT, y);     // each step: INPUTS in, NAME_outputs numbers out
 *
 * Weights lie as in PyTorch: (outputs, inputs), row by row, the gates of an LSTM in the order i, f, g, o; a bias_l0 is
 * the sum of bias_ih_l0 and bias_hh_l0. Nothing is allocated, and a state is all that changes. */
#ifndef GUARD
#define GUARD

#include <math.h>

enum { SIZES };
"""

LOOPS = """\
static inline REAL NAME_sigmoid(REAL v)
{
    return 1 / (1 + expF(-v));
}

/* y (O) = W x + b; W (O, I), b (O) or NULL, x (I) */
static inline void NAME_dense(int O, int I, const REAL *W, const REAL *b, const REAL *x, REAL *y)
{
    for (int o = 0; o < O; o++) {
        REAL sum = b ? b[o] : 0;
        for (int i = 0; i < I; i++) sum += W[o * I + i] * x[i];
        y[o] = sum;
    }
}

/* One step of an LSTM layer: W (4H, I), U (4H, H), b (4H) or NULL, x (I); h and c (H) are replaced.
 * a = W x + U h + b; c = sigmoid(f) c + sigmoid(i) tanh(g); h = sigmoid(o) tanh(c) */
static inline void NAME_lstm(int H, int I, const REAL *W, const REAL *U, const REAL *b, const REAL *x, REAL *h,
                             REAL *c)
{
    REAL a[NAME_gates];
    NAME_dense(4 * H, I, W, b, x, a);
    for (int o = 0; o < 4 * H; o++)
        for (int n = 0; n < H; n++) a[o] += U[o * H + n] * h[n];
    for (int n = 0; n < H; n++) {
        c[n] = NAME_sigmoid(a[H + n]) * c[n] + NAME_sigmoid(a[n]) * tanhF(a[2 * H + n]);
        h[n] = NAME_sigmoid(a[3 * H + n]) * tanhF(c[n]);
    }
}
"""

SOFTMAX = """\
    {
        REAL most = Y[0], sum = 0;
        for (int n = 1; n < WIDTH; n++) most = Y[n] > most ? Y[n] : most;
        for (int n = 0; n < WIDTH; n++) sum += Y[n] = expF(Y[n] - most);
        for (int n = 0; n < WIDTH; n++) Y[n] /= sum;
    }
"""


def write(network: Network, path, *, name="model") -> None:
    """Write a header with a network's weights and `NAME_reset`, `NAME_step`, atomically.

    name : what all its names begin with, an identifier of C.

    Numbers are float, or double where weights are float64, each with its bits. Of a network that gives its last output
    only, that is what the last step gives.

    Raises OSError, TypeError, or ValueError for both directions, variants of the cell, and weights that are not finite.
    """
    path = path_name("path", path)
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name)):
        raise ValueError(f"name: expected an identifier of C, got {describe(name)}")
    with naming(path):
        text = header_of(network, Path(path).name)
    F, REAL = ("f", "float") if network.dtype == np.float32 else ("", "double")
    text = re.sub(r"\b(tanh|exp|expm1|log1p|fabs)F\b", rf"\1{F}", text)
    write_atomically(path, text.replace("REAL", REAL).replace("NAME", name).encode())
    tell_left_out(path, "as a C header has no place for it", network)


def header_of(network, file) -> str:
    """The text, with NAME, REAL and functions that end with F."""
    table, before, recurrent, _ = parted(network)
    expect_plain("a step in C", recurrent, known=("last", "h0", "c0"))
    for n, layer in enumerate(network.layers):
        if isinstance(layer, Dense) and numbered(layer.activation)[0] not in ("linear", "softmax", *ACTIVATIONS):
            raise ValueError(f"layer {n}: expected one of {', '.join(ACTIVATIONS)}, got {layer.activation!r}")
    first = before[0].weight if before else recurrent[0].directions[0].weight_ih
    sizes = {"inputs": 1 if table else first.shape[1], "outputs": network.layers[-1].width,
             "gates": 4 * max(layer.hidden_size for layer in recurrent)}  # fmt: skip
    words = {
        "TITLE": f"{len(recurrent)} LSTM layers" if len(recurrent) > 1 else "One LSTM layer",
        "SIZES": ", ".join(f"NAME_{key} = {size}" for key, size in sizes.items()), "GUARD": "CYLSTM_NAME_H",
        "FILE": file, "INPUTS": "an id" if table else "NAME_inputs", "INPUT": "id" if table else "x",
    }  # fmt: skip
    head = re.sub("|".join(words), lambda match: words[match[0]], HEAD)
    arrays = named_arrays(network, ("weight_ih", "weight_hh", "bias", "h0", "c0"))
    constants = [constant(name, array) for name, array in arrays.items()]
    return "\n".join([head, *constants, LOOPS, state_and_reset(recurrent, arrays), step(network, arrays), "#endif\n"])


def identifier(name) -> str:
    return "NAME_" + name.replace(".", "_")


def constant(name, array) -> str:
    """An array as C has it: each number in the fewest digits that give its bits."""
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    suffix = "f" if array.dtype == np.float32 else ""
    numbers = [f"{number}{suffix}" for number in array.ravel().astype(str)]
    rows = "".join(f"    {', '.join(numbers[n : n + 8])},\n" for n in range(0, len(numbers), 8))
    size = " * ".join(map(str, array.shape))
    return f"static const REAL {identifier(name)}[{size}] = {{\n{rows}}};\n"


def state_and_reset(recurrent, arrays) -> str:
    """The type of a state, and what sets it to the one that sequences begin with."""
    start = "" if "weight_ih_l0" in arrays else "lstm."
    fields, sets = [], []
    for n, layer in enumerate(recurrent):
        fields.append(f"    REAL h_l{n}[{layer.hidden_size}], c_l{n}[{layer.hidden_size}];\n")
        for part in "hc":
            known = f"{start}{part}0_l{n}"
            value = f"{identifier(known)}[n]" if known in arrays else "0"
            sets.append(f"    for (int n = 0; n < {layer.hidden_size}; n++) state->{part}_l{n}[n] = {value};\n")
    return (f"typedef struct {{\n{''.join(fields)}}} NAME_state;\n\n"
            f"static inline void NAME_reset(NAME_state *state)\n{{\n{''.join(sets)}}}\n")  # fmt: skip


def step(network, arrays) -> str:
    """The function that goes through all layers."""
    names = iter([name for name in arrays if re.search(r"\.weight$|weight_ih_l", name)])
    lines, given = [], "x"
    inputs = "const REAL *x"
    for n, layer in enumerate(network.layers):
        name = next(names)
        if isinstance(layer, Recurrent):
            one, ending = layer.directions[0], name.partition("weight_ih")[2]
            weights = [identifier(name.replace("weight_ih", part)) for part in ("weight_ih", "weight_hh")]
            bias = name.replace("weight_ih", "bias")
            weights.append(identifier(bias) if bias in arrays else "0")
            state = f"state->h{ending}, state->c{ending}"
            sizes = f"{layer.hidden_size}, {one.weight_ih.shape[1]}"
            lines.append(f"    NAME_lstm({sizes}, {', '.join(weights)}, {given}, {state});\n")
            given = f"state->h{ending}"
        elif name == "embedding.weight":
            inputs, given = "int id", f"NAME_embedding_weight + id * {layer.width}"
        else:
            last = n == len(network.layers) - 1
            lines += dense_lines(layer, name, arrays, given, "y" if last else f"y{n}")
            given = "y" if last else f"y{n}"
    if given != "y":
        lines.append(f"    for (int n = 0; n < NAME_outputs; n++) y[n] = {given}[n];\n")
    return f"static inline void NAME_step(NAME_state *state, {inputs}, REAL *y)\n{{\n{''.join(lines)}}}\n"


def dense_lines(layer, name, arrays, given, y):
    """A dense layer and its activation, from `given` into `y`."""
    O, F = layer.weight.shape
    bias = name.replace("weight", "bias")
    bias = identifier(bias) if bias in arrays else "0"
    if y != "y":
        yield f"    REAL {y}[{O}];\n"
    yield f"    NAME_dense({O}, {F}, {identifier(name)}, {bias}, {given}, {y});\n"
    if layer.activation == "softmax":
        yield SOFTMAX.replace("WIDTH", str(O)).replace("Y", y)
    elif layer.activation != "linear":
        yield f"    for (int n = 0; n < {O}; n++) {{\n        const REAL v = {y}[n];\n"
        yield f"        {y}[n] = {expression_of(layer.activation)};\n    }}\n"


def expression_of(activation) -> str:
    """What an activation makes of v, in C."""
    name, numbers = numbered(activation)
    expression = ACTIVATIONS[name]
    for place, number in numbers.items():
        expression = expression.replace(place.upper(), f"(REAL){number!r}")
    return expression
