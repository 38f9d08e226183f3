"""How much of what is possible does the layer reach, on one core, with the instruction set in use and each precision?

What is possible is told by three times, each at the best rate that is seen in the same run, between the layers' turns
(peak.c, made with the compiler at hand):

- multiply-adds of the products, at the peak of the unit that has them: FMA in registers or, of bfloat16 and bytes,
  tiles or dot products; of float32 with AMX the better of FMA and six products of tiles;
- activations, as fast as the library's own cells are without a product, on rows in the first-level cache;
- bytes, as fast as so many of them are read, or written, again and again: traffic() says which.

A training pass has three times the multiply-adds, the cells forward and backward, and the tape. Two shares are told:
of the largest of the three, and of the larger of bytes and the sum of the two others, which the same units make one
after the other.
"""

import ctypes
import subprocess
import tempfile
import time

import cylstm
from benchmarks import compare, timer, training
from benchmarks.inference import layer_and_input
from benchmarks.precision import ours
from benchmarks.shapes import BY_NAME, GRID, GRID_B, GRID_H, SHAPES
from cylstm._core import kernels
from cylstm._core.memory import aligned_empty

# Bytes of a vector, and how to have them.
PEAKS = {
    "baseline": (16, []),
    "avx2": (32, ["-mavx2", "-mfma"]),
    "avx512": (64, ["-mavx512f"]),
    "amx": (64, ["-mavx512f", "-mamx-tile", "-mamx-bf16", "-mamx-int8", "-DTILES"]),
}
ROUNDS, CELL_ROUNDS = 200_000, 2000
# Of one round of fewer bits: four products of tiles, or twelve of vectors.
TILE_FLOPS = {"bfloat16": 4 * 2 * 16 * 16 * 32, "int8": 4 * 2 * 16 * 16 * 64}
DOT_FLOPS = {"bfloat16": 12 * 2 * 32, "int8": 12 * 2 * 64}
DOTS = ["-mavx512bf16", "-mavx512vnni", "-DDOTS"]
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
PARTS = 6  # products of tiles for one of float32
SMALLEST, LARGEST = 16 << 10, 256 << 20  # bytes: any first-level cache holds the one, none the other
PASSES = {"inference": 1, "training": 2}


def best(call, repeats=5):
    """Seconds of the fastest of a few calls."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


def selector():
    """The address of cylstm_select()."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.c_void_p(pointer(kernels.select, b"cylstm._core.kernels.select"))


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
        options = ["-O2", "-shared", "-fPIC", f"-DBYTES={width}", f"-I{cylstm.get_include()}", *flags]
        subprocess.run(["cc", *options, source, "-o", library], check=True)
        self.isa, self.loaded = isa, ctypes.CDLL(library)
        self.loaded.multiply_adds.restype = self.loaded.read_memory.restype = ctypes.c_double
        self.loaded.flops_per_round.restype = self.loaded.cells_per_round.restype = ctypes.c_ssize_t
        # FLOP/s by precision, bytes per second read and written by how many they are, units per second by direction.
        self.peaks, self.reading, self.writing, self.cells = {}, {}, {}, {}
        self.precisions = ("float32", *self.small_flops)

    def look(self, reads, writes):
        """Measure all once more, memory of these sizes in bytes."""
        size, loaded, isa = ctypes.c_ssize_t, self.loaded, self.isa.encode()
        self.see(self.peaks, "float32", ROUNDS * loaded.flops_per_round(), lambda: loaded.multiply_adds(size(ROUNDS)))
        for precision in self.precisions[1:]:
            rounds, whole = int(1e9 / self.small_flops[precision]), int(precision == "int8")
            self.see(self.peaks, precision, rounds * self.small_flops[precision],
                     lambda n=rounds, whole=whole: loaded.multiply_small(size(n), whole))  # fmt: skip
        for back in (0, 1):
            self.see(self.cells, back, CELL_ROUNDS * loaded.cells_per_round(),
                     lambda back=back: loaded.cells(selector(), isa, size(CELL_ROUNDS), back))  # fmt: skip
        for held in sorted({*reads, *writes}):
            buffer, rounds = aligned_empty(held, "u1"), max(1, int(5e7 / held))
            buffer[:] = 0
            place = ctypes.c_void_p(buffer.ctypes.data), size(held), size(rounds)
            if held in reads:
                self.see(self.reading, held, held * rounds, lambda at=place: loaded.read_memory(*at))
            for past in (0, 1) if held in writes else ():
                self.see(self.writing, held, held * rounds, lambda at=place, past=past: loaded.write_memory(*at, past))

    def see(self, rates, name, work, call):
        rates[name] = max(rates.get(name, 0.0), work / best(call))

    def limits(self, shape, precision, task):
        """Seconds by what takes them."""
        peak = self.peaks[precision]
        if precision == "float32" and self.isa == "amx":
            peak = max(peak, self.peaks["bfloat16"] / PARTS)
        reads, writes = traffic(shape, precision, task)
        units = shape.B * shape.T * shape.L * shape.H
        return {
            "multiply-adds": (1 if task == "inference" else 3) * timer.flops(shape) / peak,
            "activations": sum(units / self.cells[back] for back in range(PASSES[task])),
            "bytes": sum(moved / self.reading[level(held)] for moved, held in reads)
            + sum(moved / self.writing[level(held)] for moved, held in writes),
        }


def level(held):
    """The size of memory, in bytes, whose rate counts for so many that stay together."""
    return min(LARGEST, max(SMALLEST, -(-held // 1024) * 1024))


def traffic(shape, precision, task):
    """Pairs of bytes that a task cannot but read, and of those it cannot but write: how many, and of how many that stay
    together, which says what level of the caches holds them.

    Inference reads x once, the weights as weights_read() says, and writes y. Training does so with the weights twice;
    it writes the tape (i, f, g, o, c and h of each unit and step; y is the last layer's h), and reads it back, and
    x; it reads dy and writes dx and the weights' gradients. What one layer hands to the next, and gates on their way
    to become gradients, could stay in a cache.
    """
    rows = 4 * shape.B * shape.T
    x, y, tape = rows * shape.I, rows * shape.H, rows * 6 * shape.H * shape.L
    weights = weights_read(shape, precision)
    if task == "inference":
        return [(x, x), *weights], [(y, y)]
    flat = sum(4 * 4 * shape.H * (width + shape.H + 1) for width in widths(shape))
    return [(2 * x, x), (y, y), (tape, tape), *weights, *weights], [(tape, tape), (x, x), (flat, flat)]


def widths(shape):
    """What each layer's rows of inputs have."""
    return [shape.I] + [shape.H] * (shape.L - 1)


def weights_read(shape, precision):
    """By a pass over all steps: R at each step, W once; a step alone has both together."""
    found = []
    for width in widths(shape):
        R, W = (WEIGHT_BYTES[precision] * 4 * shape.H * columns for columns in (shape.H, width))
        found += [(R + W, R + W)] if shape.T == 1 else [(R * shape.T, R), (W, W)]
    return found


def run(shapes, threads, seconds, rounds):
    """Rows of times, and of the three limits of each."""
    cylstm.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(cylstm.instruction_set(), folder)
        found = [(shape, times_of(machine, shape, seconds, rounds)) for shape in shapes]
        return [row for shape, times in found for row in rows_of(machine, shape, times)]


def times_of(machine, shape, seconds, rounds):
    """What the timer says, by task and precision; the machine is looked at before and after."""
    layer, x = layer_and_input(shape)
    contenders = {}
    for precision in machine.precisions if shape in SHAPES else machine.precisions[:1]:
        contenders["inference", precision] = ours(layer, x, precision)
        if shape.T > 1 and precision != "int8":
            learner = cylstm.LSTM(shape.I, shape.H, shape.L, precision=precision, seed=1)
            contenders["training", precision] = training.pass_of(learner, x)
    reads, writes = (
        {level(held) for task, precision in contenders for _, held in traffic(shape, precision, task)[way]}
        for way in (0, 1)
    )
    machine.look(reads, writes)
    found = timer.interleaved(contenders, seconds=seconds, rounds=rounds)
    machine.look(reads, writes)
    return found


def rows_of(machine, shape, times):
    """One row for each task."""
    rows = {}
    for (task, precision), t in times.items():
        row = rows.setdefault(task, {"shape": shape.name, "pass": task, "seconds": {}, "limits": {}})
        row["seconds"][precision] = t
        row["limits"][precision] = machine.limits(shape, precision, task)
    return list(rows.values())


def shares(row, precision="float32"):
    """Of the largest of the three, and of the larger of bytes and what the same units make one after the other."""
    limits, taken = row["limits"][precision], row["seconds"][precision]["median"]
    return max(limits.values()) / taken, max(limits["bytes"], limits["multiply-adds"] + limits["activations"]) / taken


def in_percent(row, precision="float32"):
    return " / ".join(f"{100 * share:.0f}" for share in shares(row, precision))


def table(rows):
    """The shapes of the list."""
    lines = []
    for row in rows:
        shape, limits = BY_NAME[row["shape"]], row["limits"]["float32"]
        if shape not in SHAPES:
            continue
        flops = timer.flops(shape) * (1 if row["pass"] == "inference" else 3)
        line = {"shape": row["shape"], "pass": row["pass"], "cylstm": compare.milliseconds(row, "float32"),
                "GFLOP/s": f"{1e-9 * flops / row['seconds']['float32']['median']:.0f}"}  # fmt: skip
        line |= {name: compare.three_digits(1e3 * limit) for name, limit in limits.items()}
        line |= {f"{name}, %": in_percent(row, name) if name in row["limits"] else ""
                 for name in WEIGHT_BYTES}  # fmt: skip
        lines.append(line)
    return compare.lines(lines)


def grid(rows):
    """H down, B across: the shares of each task."""
    cells = {(row["pass"], row["shape"]): in_percent(row) for row in rows}
    return compare.lines([
        {"H": H, **{f"{task}, B = {B}": cells.get((task, GRID[H, B].name), "") for task in PASSES for B in GRID_B}}
        for H in GRID_H
    ])  # fmt: skip
