"""How much memory does training take at its peak, beside torch's; and does it grow over calls of random shapes?"""

import gc
import json
import subprocess
import sys
import tracemalloc

import numpy as np

from benchmarks.shapes import BY_NAME
from cylstm import LSTM

CALLS = 100_000

# Run in an interpreter of its own: what the peak of the resident set adds to weights and data. The peak begins anew
# after they are made, which takes memory too.
PEAK = """
import gc, json, sys
import numpy as np
from benchmarks import training, peers, inference
from benchmarks.shapes import BY_NAME
package, name, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
shape = BY_NAME[name]
layer, x = inference.layer_and_input(shape)
dy = np.random.default_rng(2).standard_normal((shape.B, shape.T, shape.H)).astype(np.float32)
if package == "torch":
    import torch
    torch.set_num_threads(threads)
    small = inference.layer_and_input(BY_NAME["toy"])
    peers.torch_training(small[0], small[1], np.ones((1, 14, 50), np.float32))()  # its libraries are loaded by use
    call = peers.torch_training(layer, x, dy)
else:
    import cylstm
    cylstm.set_num_threads(threads)
    def call():
        layer.backward(layer.forward(x)[2], dy)
        layer.parameters.touch()  # an update follows: training packs weights anew each time
def resident(which):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(which))
gc.collect()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = resident("VmRSS")
for _ in range(3):
    call()
print(json.dumps(resident("VmHWM") - before))
"""


def peak(package, name, threads):
    """Bytes."""
    command = [sys.executable, "-c", PEAK, package, name, str(threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def calls_of_random_shapes(calls, layers, x):
    """The same ones each time; after each, the bytes of the resident set."""
    rng = np.random.default_rng(1)
    for n in range(calls):
        layer, B, T = layers[n % 2], int(rng.integers(1, 25)), int(rng.integers(1, 41))
        lengths = rng.integers(1, T + 1, B) if n % 3 == 0 else None
        if n % 4 == 0:
            y, _, tape = layer.forward(x[:B, :T], lengths=lengths)
            layer.backward(tape, y)
        else:
            layer(x[:B, :T], lengths=lengths)
        yield resident()


def growth(calls):
    """Bytes by which memory grows when so many calls of random shapes are made again, and again.

    resident: the resident set at its peak; it goes up and down by some MB, as the allocator's arenas fill and empty.
    held: what Python and NumPy hold at the end (tracemalloc).
    """
    layers = [LSTM(7, 24, 2, bidirectional=True, seed=1), LSTM(7, 33, seed=1)]
    x = np.random.default_rng(0).standard_normal((24, 40, 7)).astype(np.float32)
    peaks = [max(calls_of_random_shapes(calls, layers, x)) for _ in range(3)]
    held = []
    tracemalloc.start(1)
    for _ in range(3):
        for _resident in calls_of_random_shapes(calls // 10, layers, x):
            pass
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    return {"resident": peaks[2] - peaks[1], "held": held[2] - held[1]}


def run(shapes, threads, seconds, rounds):
    """Rows of bytes."""
    rows = [
        {"shape": shape.name, "bytes": {package: peak(package, shape.name, threads) for package in ("cylstm", "torch")}}
        for shape in shapes
        if shape.T > 1 and shape in BY_NAME.values()
    ]
    rows.append({"shape": f"growth, {CALLS} calls again", "bytes": growth(CALLS)})
    return rows
