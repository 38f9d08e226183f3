"""What does the first call cost, and the import?"""

import copy
import subprocess
import sys
import time

import numpy as np

from benchmarks import peers
from benchmarks.inference import JAX_LIMIT, layer_and_input

IMPORTS = ("numpy", "cylstm", "onnxruntime", "openvino", "torch", "jax")
PEER_ROUNDS = 3  # making a session anew takes seconds where weights are large

LARGE = 500  # hidden units, from where on ours takes as long


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def models(shape):
    """Contender -> a function that makes a model and returns its call. Compilation counts where it happens: jax's is
    part of the first call, that of onnxruntime and openvino is over when their session is there."""

    layer, x = layer_and_input(shape)  # once: drawing orthogonal weights takes seconds where they are large

    def ours():
        new = copy.deepcopy(layer)
        return lambda: new(x)

    makers = {
        "cylstm": ours,
        "torch": lambda: peers.torch_inference(layer, x),
        "onnxruntime": lambda: peers.onnxruntime_inference(layer, x, 1),
        "openvino": lambda: peers.openvino_inference(layer, x, 1),
    }
    if shape.B * shape.T * shape.L * 8 * shape.H * (shape.I + shape.H) < JAX_LIMIT:
        makers["jax"] = lambda: peers.jax_inference(layer, x)
    return makers


def run(shapes, threads, seconds_each, rounds):
    """Rows: of each shape the first call of a model just made (in ours, packing weights), and ours again; of each
    package a fresh interpreter that imports it."""
    rows = []
    for shape in shapes:
        first, again, makers = {}, [], models(shape)
        for n in range(rounds if shape.H < LARGE else PEER_ROUNDS):
            for name, make in makers.items():
                if name == "cylstm" or n < PEER_ROUNDS:
                    call = make()
                    first.setdefault(name, []).append(seconds(call))
                if name == "cylstm":
                    again += [seconds(call) for _ in range(3)]
        times = {"cylstm": first.pop("cylstm"), "cylstm, again": again, **first}
        rows.append({
            "shape": shape.name,
            "seconds": {name: {"median": float(np.median(values))} for name, values in times.items()},
        })  # fmt: skip
    # In turn, as everywhere: an interpreter with the package, against one without any.
    samples = {name: [] for name in ("nothing", *IMPORTS)}
    for _ in range(rounds):
        for name, values in samples.items():
            code = "pass" if name == "nothing" else f"import {name}"
            values.append(seconds(lambda code=code: subprocess.run([sys.executable, "-c", code], check=True)))
    bare = np.median(samples["nothing"])
    times = {name: {"median": float(np.median(values) - bare)} for name, values in samples.items() if name in IMPORTS}
    rows.append({"shape": "import", "seconds": times})
    return rows
