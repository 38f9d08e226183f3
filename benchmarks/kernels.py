"""Which share of what is possible does the layer reach, on one core, with each instruction set and precision?

What is possible is the largest of three times, each at the best rate that is seen in the same run, between the layers'
turns (peak.c, made with the compiler at hand):

- the multiply-adds of the products at the peak of the unit that has them: FMA in registers, or, of bfloat16 and bytes,
  tiles or dot products; of float32 with AMX the better of FMA and six products of tiles;
- the bytes of the weights, R at each step and W once per call, as fast as memory of so many bytes is read;
- the activations of the gates and of c, as fast as kernels do them on an array in the first-level cache; the cell,
  which has several of them side by side, may be faster.

Of a training pass: three times the multiply-adds, the bytes of two passes, and the same activations. What goes to the
tape and comes back from it is not counted.
"""

import ctypes
import math
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
# Of one round of fewer bits: four products of tiles, or twelve of vectors.
TILE_FLOPS = {"bfloat16": 4 * 2 * 16 * 16 * 32, "int8": 4 * 2 * 16 * 16 * 64}
DOT_FLOPS = {"bfloat16": 12 * 2 * 32, "int8": 12 * 2 * 64}
DOTS = ["-mavx512bf16", "-mavx512vnni", "-DDOTS"]
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
    """What this core can do with an instruction set: the best that `look` has seen so far."""

    def __init__(self, isa, folder):
        width, flags = PEAKS[isa]
        if isa == "avx512" and {"bfloat16_dot", "int8_dot"} <= set(kernels.units()):
            self.small_flops, flags = DOT_FLOPS, [*flags, *DOTS]
        else:
            self.small_flops = TILE_FLOPS if isa == "amx" else {}
        library = f"{folder}/peak_{isa}.so"
        source = __file__.replace("kernels.py", "peak.c")
        options = ["-O2", "-shared", "-fPIC", f"-DBYTES={width}", *flags]
        subprocess.run(["cc", *options, source, "-o", library], check=True)
        self.isa, self.loaded = isa, ctypes.CDLL(library)
        self.loaded.multiply_adds.argtypes, self.loaded.multiply_adds.restype = [ctypes.c_ssize_t], ctypes.c_double
        self.loaded.flops_per_round.restype = ctypes.c_ssize_t
        self.loaded.read_memory.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_ssize_t]
        self.loaded.read_memory.restype = ctypes.c_double
        # FLOP/s by precision, bytes per second by how many are read again and again, seconds of a unit's activations.
        self.peaks, self.bandwidths, self.unit_seconds = {}, {}, math.inf
        self.precisions = ("float32", *self.small_flops)

    def look(self, sizes):
        """Measure all once more, of memory these sizes in bytes."""
        self.see(self.peaks, "float32", ROUNDS * self.loaded.flops_per_round(),
                 lambda: self.loaded.multiply_adds(ROUNDS))  # fmt: skip
        for precision in self.precisions[1:]:
            rounds, whole = int(1e9 / self.small_flops[precision]), int(precision == "int8")
            self.see(self.peaks, precision, rounds * self.small_flops[precision],
                     lambda n=rounds, whole=whole: self.loaded.multiply_small(ctypes.c_ssize_t(n), whole))  # fmt: skip
        for size in sizes:
            buffer, rounds = aligned_empty(size, "u1"), max(1, int(5e7 / size))
            buffer[:] = 0
            self.see(self.bandwidths, size, size * rounds,
                     lambda b=buffer, n=rounds: self.loaded.read_memory(b.ctypes.data, b.size, n))  # fmt: skip
        now = 3 * activation_seconds("sigmoid") + 2 * activation_seconds("tanh")
        self.unit_seconds = min(self.unit_seconds, now)

    def see(self, rates, name, work, call):
        rates[name] = max(rates.get(name, 0.0), work / best(call))

    def limits(self, shape, precision, passes):
        """Seconds by what takes them; passes: 1 for inference, 2 for forward and backward."""
        peak, reading = self.peaks[precision], 0.0
        if precision == "float32" and self.isa == "amx":
            peak = max(peak, self.peaks["bfloat16"] / PARTS)
        for size, times in reads_of(shape, precision):
            reading += passes * times * size / self.bandwidths[size]
        products = (1 if passes == 1 else 3) * timer.flops(shape)
        return {
            "multiply-adds": products / peak,
            "bytes": reading,
            "activations": shape.B * shape.T * shape.L * shape.H * self.unit_seconds,
        }


def activation_seconds(function):
    """Of one number: how much longer 8192 of them take than 1024, which leaves the call out."""
    few, many = (np.random.default_rng(1).standard_normal(n).astype(np.float32) for n in (1024, 8192))
    of_few, of_many = (best(lambda x=x: [kernels.elementwise(function, x) for _ in range(100)], 9) for x in (few, many))
    return (of_many - of_few) / (100 * (many.size - few.size))


def reads_of(shape, precision):
    """Bytes that stay together in a cache, in whole kilobytes, and how often a forward pass reads them."""
    found = []
    for width in [shape.I] + [shape.H] * (shape.L - 1):
        R, W = (WEIGHT_BYTES[precision] * 4 * shape.H * columns for columns in (shape.H, width))
        found += [(R + W, 1)] if shape.T == 1 else [(R, shape.T), (W, 1)]
    return [(-(-size // 1024) * 1024, times) for size, times in found]


def run(shapes, threads, seconds, rounds):
    """Rows of GFLOP/s, and of the share of what is possible, with what bounds it."""
    cylstm.set_num_threads(1)
    chosen, rows = cylstm.instruction_set(), []
    with tempfile.TemporaryDirectory() as folder:
        for isa in kernels.available():
            kernels.use(isa)
            machine = Machine(isa, folder)
            times = [times_of(machine, shape, seconds, rounds) for shape in shapes]
            for shape, found in zip(shapes, times, strict=True):
                rows += rows_of(machine, shape, found)
    kernels.use(chosen)
    return rows


def times_of(machine, shape, seconds, rounds):
    """Medians by precision and number of passes; the machine is looked at before and after."""
    layer, x = layer_and_input(shape)
    sizes, contenders = set(), {}
    for precision in machine.precisions:
        sizes.update(size for size, _ in reads_of(shape, precision))
        contenders[precision, 1] = ours(layer, x, precision)
        if shape.T > 1 and precision != "int8":
            learner = cylstm.LSTM(shape.I, shape.H, shape.L, precision=precision, seed=1)
            contenders[precision, 2] = training.pass_of(learner, x)
    machine.look(sizes)
    found = timer.interleaved(contenders, seconds=seconds, rounds=rounds)
    machine.look(sizes)
    return {name: t["median"] for name, t in found.items()}


def rows_of(machine, shape, times):
    rows = {}
    for (precision, passes), t in times.items():
        limits = machine.limits(shape, precision, passes)
        bound = max(limits, key=limits.get)
        flops = timer.flops(shape) * (1 if passes == 1 else 3)
        row = rows.setdefault(passes, {"shape": shape.name, "instruction set": machine.isa})
        row["pass"] = "inference" if passes == 1 else "training"
        row.setdefault("gflops", {})[precision] = 1e-9 * flops / t
        row.setdefault("share", {})[precision] = f"{limits[bound] / t:.0%} {bound}"
        row.setdefault("limits", {})[precision] = limits
    for row in rows.values():
        told = {f"{name} GFLOP/s": f"{value:.0f}, {row['share'][name]}" for name, value in row["gflops"].items()}
        print(machine.isa, shape.name, row["pass"], told, flush=True)
    return list(rows.values())
