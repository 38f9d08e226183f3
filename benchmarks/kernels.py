"""Which share of what is possible does the layer reach, on one core, with each instruction set and precision?

What is possible is the largest of three times, each at a rate that is measured in the same run (peak.c, made with the
compiler at hand):

- the multiply-adds of the products at the peak of the unit that has them: FMA in registers or tiles of bfloat16 or
  bytes; of float32 with AMX the better of FMA and six products of tiles;
- the bytes of the weights, R at each step and W once per call, as fast as memory of so many bytes is read;
- the activations of the gates and of c, as fast as kernels do them on an array in the first-level cache.

Of a training pass: three times the multiply-adds, the bytes of two passes, and the same activations. What goes to the
tape and comes back from it is not counted.
"""

import ctypes
import subprocess
import tempfile
import time

import numpy as np

import cylstm
from benchmarks import timer, training
from benchmarks.inference import layer_and_input
from benchmarks.precision import ours
from cylstm._core import kernels
from cylstm._core.memory import aligned_empty

# Bytes of a vector, and how to have them.
PEAKS = {
    "baseline": (16, []),
    "avx2": (32, ["-mavx2", "-mfma"]),
    "avx512": (64, ["-mavx512f"]),
    "amx": (64, ["-mavx512f", "-mamx-tile", "-mamx-bf16", "-mamx-int8", "-DTILES"]),
}
ROUNDS = 200_000
TILE_FLOPS = {"bfloat16": 4 * 2 * 16 * 16 * 32, "int8": 4 * 2 * 16 * 16 * 64}  # of one round
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
PARTS = 6  # products of tiles for one of float32


def best(call, repeats=5):
    """Seconds of the fastest of a few calls."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


class Machine:
    """What this core can do with an instruction set, each rate measured when it is first asked for."""

    def __init__(self, isa, folder):
        width, flags = PEAKS[isa]
        library = f"{folder}/peak_{isa}.so"
        source = __file__.replace("kernels.py", "peak.c")
        options = ["-O2", "-shared", "-fPIC", f"-DBYTES={width}", *flags]
        subprocess.run(["cc", *options, source, "-o", library], check=True)
        self.isa, self.loaded, self.bandwidths = isa, ctypes.CDLL(library), {}
        self.loaded.multiply_adds.argtypes, self.loaded.multiply_adds.restype = [ctypes.c_ssize_t], ctypes.c_double
        self.loaded.flops_per_round.restype = ctypes.c_ssize_t
        self.loaded.read_memory.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_ssize_t]
        self.loaded.read_memory.restype = ctypes.c_double
        fma = ROUNDS * self.loaded.flops_per_round() / best(lambda: self.loaded.multiply_adds(ROUNDS))
        self.peaks = {"float32": fma}
        if isa == "amx":
            for precision, flops in TILE_FLOPS.items():
                whole = int(precision == "int8")
                seconds = best(lambda whole=whole: self.loaded.multiply_tiles(ctypes.c_ssize_t(ROUNDS // 10), whole))
                self.peaks[precision] = ROUNDS // 10 * flops / seconds
            self.peaks["float32"] = max(fma, self.peaks["bfloat16"] / PARTS)
        x = np.random.default_rng(1).standard_normal(4096).astype(np.float32)
        sigmoid, tanh = (best(lambda f=f: [kernels.elementwise(f, x) for _ in range(200)]) for f in ("sigmoid", "tanh"))
        self.unit_seconds = (3 * sigmoid + 2 * tanh) / (200 * x.size)

    def bandwidth(self, size):
        """Bytes per second, of reading so many again and again."""
        size = max(size // 1024, 1) * 1024
        if size not in self.bandwidths:
            buffer, rounds = aligned_empty(size, "u1"), max(1, int(2e8 / size))
            buffer[:] = 0
            read = lambda: self.loaded.read_memory(buffer.ctypes.data, size, rounds)  # noqa: E731
            self.bandwidths[size] = size * rounds / best(read)
        return self.bandwidths[size]

    def limits(self, shape, precision, passes):
        """Seconds by what takes them; passes: 1 for inference, 2 for forward and backward."""
        of_weight, found = WEIGHT_BYTES[precision], 0.0
        for width in [shape.I] + [shape.H] * (shape.L - 1):
            R, W = (of_weight * 4 * shape.H * columns for columns in (shape.H, width))
            if shape.T == 1:
                found += passes * (R + W) / self.bandwidth(R + W)
            else:
                found += passes * (shape.T * R / self.bandwidth(R) + W / self.bandwidth(W))
        products = (1 if passes == 1 else 3) * timer.flops(shape)
        return {
            "multiply-adds": products / self.peaks[precision],
            "bytes": found,
            "activations": shape.B * shape.T * shape.L * shape.H * self.unit_seconds,
        }


def run(shapes, threads, seconds, rounds):
    """Rows of GFLOP/s, and of the share of what is possible, with what bounds it."""
    cylstm.set_num_threads(1)
    chosen, rows = cylstm.instruction_set(), []
    with tempfile.TemporaryDirectory() as folder:
        for isa in kernels.available():
            kernels.use(isa)
            machine = Machine(isa, folder)
            for shape in shapes:
                rows += rows_of(machine, shape, seconds, rounds)
    kernels.use(chosen)
    return rows


def rows_of(machine, shape, seconds, rounds):
    layer, x = layer_and_input(shape)
    contenders, work = {}, {}
    for precision in machine.peaks:
        contenders[precision, 1] = ours(layer, x, precision)
        if shape.T > 1 and precision != "int8":
            learner = cylstm.LSTM(shape.I, shape.H, shape.L, precision=precision, seed=1)
            contenders[precision, 2] = training.pass_of(learner, x)
    for name, t in timer.interleaved(contenders, seconds=seconds, rounds=rounds).items():
        precision, passes = name
        limits = machine.limits(shape, precision, passes)
        bound = max(limits, key=limits.get)
        flops = timer.flops(shape) * (1 if passes == 1 else 3)
        row = work.setdefault(passes, {"shape": shape.name, "instruction set": machine.isa})
        row["pass"] = "inference" if passes == 1 else "training"
        row.setdefault("gflops", {})[precision] = 1e-9 * flops / t["median"]
        row.setdefault("share", {})[precision] = f"{limits[bound] / t['median']:.0%} {bound}"
        row.setdefault("limits", {})[precision] = limits
    for row in work.values():
        told = {f"{name} GFLOP/s": f"{value:.0f}, {row['share'][name]}" for name, value in row["gflops"].items()}
        print(machine.isa, shape.name, row["pass"], told, flush=True)
    return list(work.values())
