"""What does the first call cost, and the import?"""

import subprocess
import sys
import time

import numpy as np

from benchmarks.inference import layer_and_input

IMPORTS = ("numpy", "cylstm", "onnxruntime", "torch")


def run(shapes, threads, seconds, rounds):
    """Rows: of each shape the first call (packing included) and the steady one; of each package a fresh interpreter."""
    rows = []
    for shape in shapes:
        first, steady = [], []
        for _ in range(rounds):
            layer, x = layer_and_input(shape)
            for times in (first, *[steady] * 3):
                start = time.perf_counter()
                layer(x)
                times.append(time.perf_counter() - start)
        times = {name: {"median": float(np.median(values))} for name, values in (("first", first), ("steady", steady))}
        rows.append({"shape": shape.name, "seconds": times})
    # In turn, as everywhere: an interpreter with the package, against one without any.
    samples = {name: [] for name in ("nothing", *IMPORTS)}
    for _ in range(rounds):
        for name, values in samples.items():
            code = "pass" if name == "nothing" else f"import {name}"
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            values.append(time.perf_counter() - start)
    bare = np.median(samples["nothing"])
    times = {name: {"median": float(np.median(values) - bare)} for name, values in samples.items() if name in IMPORTS}
    rows.append({"shape": "import", "seconds": times})
    return rows
