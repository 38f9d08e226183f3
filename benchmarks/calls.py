"""The calls whose instructions are counted, and the program that callgrind watches while it makes them.

`python -m benchmarks.instructions` starts it. Before and after the counted repetitions of each call it asks for its
parent's process id, which nothing else in it does: there callgrind writes down what it counted since the last time.
"""

import gc
import json
import math
import os

import numpy as np

import cylstm
from benchmarks.shapes import BY_NAME
from cylstm import LSTM, Adam, Model
from cylstm._core import blas, updates
from cylstm.ctc import ctc_loss

# Each call is repeated so often before it is counted, while Python rewrites its bytecode and allocators settle, and so
# often again to be counted. The large ones, slow where AVX2 is emulated, come after the small ones, which have warmed
# their Python code.
MANY, FEW = 20, 2

# Small enough for a processor that is emulated: each still runs every loop of its kernels, whole and remainder.
TOY, SERIES, CHAR = BY_NAME["toy"], BY_NAME["series"]._replace(T=10), BY_NAME["char"]._replace(B=16, T=5)


def layer_and_input(shape, dtype="float32"):
    """An LSTM of this shape, x (B, T, I) and dy (B, T, H), always the same."""
    rng = np.random.default_rng(1)
    x, dy = (rng.standard_normal((shape.B, shape.T, width)).astype(dtype) for width in (shape.I, shape.H))
    return LSTM(shape.I, shape.H, shape.L, dtype=dtype, seed=1), x, dy


def inference(shape, **options):
    """A callable that runs the layer and keeps nothing."""
    layer, x, _ = layer_and_input(shape)
    return lambda: layer(x, **options)


def training(shape, dtype="float32", **options):
    """A callable that runs the layer forward and backward."""
    layer, x, dy = layer_and_input(shape, dtype)

    def call():
        tape = layer.forward(x, **options)[2]
        return layer.backward(tape, dy)

    return call


def streaming(shape):
    """A callable that takes one step, the next state written over the last."""
    layer, x, _ = layer_and_input(shape)
    state = layer.initial_state(shape.B)
    return lambda: layer.step(x[:, 0], state, out=state)


def update(shape):
    """A callable that makes one update of a model of ids, as `fit` does: gradients, clipping, Adam."""
    V = shape.I
    ids = np.random.default_rng(1).integers(0, V, (shape.B, shape.T + 1))
    model, adam = Model(V, shape.H, V, num_layers=shape.L, seed=1), Adam()
    gradients = cylstm.Parameters(model.parameters.layout, model.dtype)

    def call():
        result = model.loss_and_gradients(ids[:, :-1], ids[:, 1:], out=gradients)
        norm = math.sqrt(updates.sum_squares(gradients.raw()))
        adam.update(model.parameters, gradients, scale=min(1.0, 5 / (norm + 1e-6)))
        return result

    return call


def labels_unaligned():
    """A callable of CTC's loss and gradient, of the letters of benchmarks/ctc.py and a few rows."""
    rng = np.random.default_rng(1)
    logits, targets = rng.standard_normal((8, 150, 28)).astype("f4"), rng.integers(1, 28, (8, 40))
    return lambda: ctc_loss(logits, targets, gradients=True)


def calls():
    """name -> repetitions and callable, each the same on every run."""
    lengths = np.random.default_rng(2).integers(1, SERIES.T + 1, SERIES.B)
    resets = np.random.default_rng(3).random((SERIES.B, SERIES.T)) < 0.2
    return {
        "step 32": (MANY, streaming(BY_NAME["step32"])),
        "inference toy": (MANY, inference(TOY)),
        "training toy": (MANY, training(TOY)),
        "inference series": (FEW, inference(SERIES)),
        "inference series, resets": (FEW, inference(SERIES, resets=resets)),
        "inference char": (FEW, inference(CHAR)),
        "training series": (FEW, training(SERIES)),
        "training series, float64": (FEW, training(SERIES, "float64")),
        "training series, ragged": (FEW, training(SERIES, lengths=lengths)),
        "training char": (FEW, training(CHAR)),
        "update char, ids": (FEW, update(CHAR)),
        "ctc": (FEW, labels_unaligned()),
    }


def main():
    cylstm.set_num_threads(1)
    named = calls()
    gc.collect()
    gc.disable()
    for repetitions, call in named.values():
        for _ in range(repetitions):
            call()
        os.getppid()
        for _ in range(repetitions):
            call()
        os.getppid()
    repetitions = {name: number for name, (number, _) in named.items()}
    isa = cylstm.instruction_set()
    print(json.dumps({"repetitions": repetitions, "instruction_set": isa, "blas": blas.description()}))


if __name__ == "__main__":
    main()
