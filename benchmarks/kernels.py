"""Which share of the FMA peak does the layer reach, on one core, with each instruction set?

The peak is measured in the same run, in turn with the layer, by a loop of multiply-adds in registers (peak.c, made with
the compiler at hand).
"""

import ctypes
import subprocess
import tempfile

import cylstm
from benchmarks import timer, training
from benchmarks.inference import layer_and_input
from cylstm._core import kernels

# Bytes of a vector, and how to have them. "amx" multiplies bfloat16, three parts to a float; its share is of the FMA
# peak, which it may exceed.
PEAKS = {
    "baseline": (16, []),
    "avx2": (32, ["-mavx2", "-mfma"]),
    "avx512": (64, ["-mavx512f"]),
    "amx": (64, ["-mavx512f"]),
}
SHAPES = ("series", "hydro", "char", "char512", "word", "word1500")  # those with B >= 16
ROUNDS = 200_000


def peak_call(isa, folder):
    """A callable of so many floating-point operations, and their number."""
    width, flags = PEAKS[isa]
    library = f"{folder}/peak_{isa}.so"
    source = __file__.replace("kernels.py", "peak.c")
    options = ["-O2", "-shared", "-fPIC", f"-DBYTES={width}", *flags]
    subprocess.run(["cc", *options, source, "-o", library], check=True)
    loaded = ctypes.CDLL(library)
    loaded.multiply_adds.argtypes, loaded.multiply_adds.restype = [ctypes.c_ssize_t], ctypes.c_double
    loaded.flops_per_round.restype = ctypes.c_ssize_t
    return lambda: loaded.multiply_adds(ROUNDS), ROUNDS * loaded.flops_per_round()


def run(shapes, threads, seconds, rounds):
    """Rows of GFLOP/s: the peak, the layer in inference and in training, and its shares."""
    cylstm.set_num_threads(1)
    chosen, rows = cylstm.instruction_set(), []
    with tempfile.TemporaryDirectory() as folder:
        for isa in kernels.available():
            kernels.use(isa)
            peak, peak_flops = peak_call(isa, folder)
            for shape in shapes:
                if shape.name not in SHAPES:
                    continue
                layer, x = layer_and_input(shape)
                train = training.pass_of(layer, x)
                contenders = {"peak": peak, "inference": lambda layer=layer, x=x: layer(x), "training": train}
                times = timer.interleaved(contenders, seconds=seconds, rounds=rounds)
                work = {"peak": peak_flops, "inference": timer.flops(shape), "training": 3 * timer.flops(shape)}
                rate = {name: 1e-9 * work[name] / t["median"] for name, t in times.items()}
                rows.append({"shape": shape.name, "instruction set": isa, "gflops": rate})
                print(isa, shape.name, {name: f"{values:.0f}" for name, values in rate.items()}, flush=True)
    kernels.use(chosen)
    return rows
