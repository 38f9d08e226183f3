"""The one check of time: how many times faster than NumPy, both in turn in one run, with wide margins.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.ratios [--seconds 1]

Seconds say nothing on somebody else's machine; a ratio to NumPy in the same run says enough to see a kernel that is not
used, or a copy that should not be there. The least ratios are about half of those measured with AVX-512, and two thirds
of those with AVX2; a build without kernels for either does not reach them. One thread on both sides.
"""

import argparse
import os
import sys

import numpy as np

import cylstm
from benchmarks import plain, timer
from benchmarks.calls import layer_and_input
from benchmarks.shapes import BY_NAME
from benchmarks.timer import agree
from cylstm import Model

CHAR = BY_NAME["char"]._replace(T=20)  # its ratios are those of all 50 steps, sooner

# case -> the least that NumPy's median may be, in medians of ours
LEAST = {
    "inference toy": 14,
    "inference series": 3.5,
    "inference char": 1.5,
    "training toy": 5.5,
    "training series": 2.2,
    "training char": 1.3,
    "step 32": 6,
    "gradients char, ids": 1.4,
}


def weights(parameters):
    """Plain arrays by name, without the views that tell the layer of a change."""
    return {name: values.copy() for name, values in parameters.items()}


def inference(shape):
    """Ours and NumPy's callable, which agree."""
    layer, x, _ = layer_and_input(shape)
    parameters = weights(layer.parameters)

    def numpys():
        return plain.forward(x, parameters, shape.L)[0]

    agree("y", numpys(), layer(x)[0])
    return lambda: layer(x), numpys


def training(shape):
    """Forward and backward: ours and NumPy's callable, which agree."""
    layer, x, dy = layer_and_input(shape)
    parameters = weights(layer.parameters)

    def ours():
        return layer.backward(layer.forward(x)[2], dy)

    def numpys():
        return plain.backward(plain.forward(x, parameters, shape.L)[1], parameters, dy)

    expected, (dx, got) = ours(), numpys()
    agree("dx", dx, expected.x)
    for name, values in expected.parameters.items():
        agree(f"d{name}", got[name], values)
    return ours, numpys


def streaming(shape):
    """One step: ours and NumPy's callable, which agree."""
    layer, x, _ = layer_and_input(shape)
    W, R, b = plain.weights_of(weights(layer.parameters), 0)
    x, state = x[:, 0], layer.initial_state(shape.B)

    def numpys():
        return plain.step(x, state.h[0], state.c[0], W, R, b)

    agree("h", numpys()[0], layer.step(x, state)[0])
    return lambda: layer.step(x, state), numpys


def gradients(shape):
    """Loss and gradients of a model of ids: ours and NumPy's callable, which agree."""
    V = shape.I
    ids = np.random.default_rng(1).integers(0, V, (shape.B, shape.T + 1))
    x, y = ids[:, :-1], ids[:, 1:]
    model = Model(V, shape.H, V, num_layers=shape.L, seed=1)
    parameters = weights(model.parameters)

    def numpys():
        return plain.loss_and_gradients(x, y, parameters, shape.L)

    expected, (loss, got) = model.loss_and_gradients(x, y), numpys()
    agree("loss", loss, expected.loss)
    for name, values in expected.gradients.items():
        agree(f"d{name}", got[name], values)
    return lambda: model.loss_and_gradients(x, y), numpys


def cases():
    """name -> ours and NumPy's callable."""
    shapes = {"toy": BY_NAME["toy"], "series": BY_NAME["series"], "char": CHAR}
    return {
        **{f"{task.__name__} {name}": task(shape) for task in (inference, training) for name, shape in shapes.items()},
        "step 32": streaming(BY_NAME["step32"]),
        "gradients char, ids": gradients(CHAR),
    }


def too_slow(ratios, least):
    """Both name -> ratio: a sentence for each case that is below its least."""
    return [
        f"{name}: {ratios[name]:.2f} times as fast as NumPy, at least {minimum} expected"
        for name, minimum in least.items()
        if ratios[name] < minimum
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="time per contender")
    arguments = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        parser.error("OPENBLAS_NUM_THREADS: expected 1 in the environment, so that NumPy has one thread, too")
    cylstm.set_num_threads(1)
    ratios = {}
    print(f"{'case':22} {'cylstm ms':>10} {'NumPy ms':>10} {'ratio':>7} {'least':>7}")
    for name, (ours, numpys) in cases().items():
        times = timer.interleaved({"cylstm": ours, "numpy": numpys}, seconds=arguments.seconds, patience=3)
        milliseconds = [1e3 * times[contender]["median"] for contender in ("cylstm", "numpy")]
        ratios[name] = milliseconds[1] / milliseconds[0]
        print(f"{name:22} {milliseconds[0]:10.3g} {milliseconds[1]:10.3g} {ratios[name]:7.2f} {LEAST[name]:7.2f}")
    failures = too_slow(ratios, LEAST)
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
