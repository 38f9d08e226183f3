"""The kernels and the pool, built for this machine and for others, run here and under emulators, held to the oracle.

python tests/cross/check.py aarch64 windows

It builds driver.c for the host as well, and the same arithmetic must give the same bits on both. Needs, beside the
installed package, Debian's gcc-aarch64-linux-gnu and qemu-user-static, or gcc-mingw-w64-x86-64-win32 and wine.
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cylstm import cell_oracle, oracle

HERE = Path(__file__).parent
CEXT = HERE.parents[1] / "cext"
FLAGS = ["-std=gnu11", "-O3", "-fno-math-errno", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", f"-I{CEXT}"]
X86_FLAGS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"],
    "amx": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mamx-tile", "-mamx-bf16", "-mamx-int8"],
}
# Target: compiler, its flags, what runs the program, instruction sets beside the baseline.
TARGETS = {
    "host": (os.environ.get("CC", "gcc"), ["-pthread"], [], ["avx2", "avx512", "amx"]),
    "aarch64": ("aarch64-linux-gnu-gcc", ["-pthread", "-static"], ["qemu-aarch64-static"], []),
    "windows": ("x86_64-w64-mingw32-gcc", ["-static"], ["wine"], ["avx2", "avx512"]),
}
TOLERANCE = {"f32": 2e-5, "f64": 1e-11}
LARGEST_ERROR = {"exp": 1.1, "sigmoid": 2.5, "tanh": 2.5}  # in units of the last place, as in tests/test_kernels.py
EXACT = {"exp": np.exp, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "tanh": np.tanh}
# T, B, I, H, and whether ids go in: one row, odd sizes, more rows than a block has, whole vectors.
CASES = [(9, 1, 5, 70, False), (5, 7, 11, 37, False), (6, 29, 23, 33, True), (3, 16, 16, 64, False)]


def build(target, folder):
    """The driver for one target, each file with its own flags as in setup.py."""
    compiler, flags, _, sets = TARGETS[target]
    kernels = [(CEXT / "isa" / f"{isa}.c", X86_FLAGS.get(isa, [])) for isa in ["baseline", *sets]]
    objects = []
    for source, more in [*kernels, (CEXT / "dispatch.c", []), (CEXT / "pool.c", []), (HERE / "driver.c", [])]:
        objects.append(folder / f"{target}_{source.stem}.o")
        subprocess.run([compiler, *FLAGS, *flags, *more, "-c", source, "-o", objects[-1]], check=True)
    program = folder / f"{target}.exe"
    subprocess.run([compiler, *flags, *objects, "-lm", "-o", program], check=True)
    return program


def case(number):
    """The arrays of one case in the order of driver.c's inputs."""
    T, B, I, H, with_ids = CASES[number]
    rng = np.random.default_rng([20260, number])
    x = rng.standard_normal((T, B, I))
    x[-1, 0, :2] = -250.0, 30.0  # gates beyond all their limits
    limits = [-np.inf, -1e5, -0.0, 1e5, np.inf, np.nan]
    numbers = [limits, rng.uniform(-86, 86, 1500), rng.choice([-1, 1], 501) * 10.0 ** rng.uniform(-37, 1.9, 501)]
    return {
        "sizes": np.array([T, B, I, H]),
        "x": x,
        "ids": rng.integers(0, I, (T, B)) if with_ids else np.zeros(0),
        "h0": rng.standard_normal((B, H)),
        "c0": rng.standard_normal((B, H)),
        "W": rng.normal(0, 0.4, (4 * H, I)),
        "R": rng.normal(0, 0.2, (4 * H, H)),
        "b": rng.standard_normal(4 * H),
        "classes": rng.integers(0, H, T * B),
        "values": rng.uniform(0, 1, (T * B, H)),
        "weights": rng.integers(0, 8, T * B) / 4,
        "numbers": np.concatenate(numbers),
    }


def run(target, program, inputs, folder):
    """(instruction set, type, members) -> name -> array, as doubles."""
    given, answer = folder / f"{target}.in", folder / f"{target}.out"
    arrays = [np.ascontiguousarray(array, "<f8") for array in inputs.values()]
    given.write_bytes(b"".join(np.int64(array.size).tobytes() + array.tobytes() for array in arrays))
    # From within the folder, by names without folders: Windows has others.
    command = [*TARGETS[target][2], f"./{program.name}", given.name, answer.name]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    found, data, at = {}, answer.read_bytes(), 0
    while at < len(data):
        isa, type_, members, name = data[at : at + 32].rstrip(b"\0").decode().split(maxsplit=3)
        count = int.from_bytes(data[at + 32 : at + 40], "little")
        at += 40 + 8 * count
        found.setdefault((isa, type_, int(members)), {})[name] = np.frombuffer(data[at - 8 * count : at], "<f8")
    return found


def expected(inputs, got, dtype):
    """What the oracle says. Its losses start from the y that was got, its gradients from the loss's, its optimisers
    from dW: no error is counted twice."""
    exact = {name: array.astype(dtype).astype(np.float64) for name, array in inputs.items()}
    T, B, I, H = inputs["sizes"]
    N = T * B
    ids = inputs["ids"]
    x = np.eye(I)[ids] if ids.size else exact["x"]
    alive = np.ones((T, B, 1))
    weights = exact["W"], exact["R"]
    layer = cell_oracle.run_forward(x, exact["h0"], exact["c0"], *weights, exact["b"], alive, alive)
    zero = np.zeros((B, H))
    back = cell_oracle.run_backward(layer, got["d squared"].reshape(T, B, H), zero, zero, *weights)
    answer = dict(zip(["dx", "dh0", "dc0", "dW", "dR", "db"], back[:6], strict=True))
    y, classes = got["y"].reshape(N, H), inputs["classes"]
    squared, answer["d squared"] = oracle.mse(y, exact["values"])
    whole = exact["weights"].sum()
    binary, d_binary = oracle.binary_cross_entropy(y, exact["values"], exact["weights"])
    answer["d binary"] = d_binary * (whole / N)  # of the sum over N
    softmax, answer["d softmax"] = oracle.softmax_cross_entropy(y, classes)
    right = ((y > 0) == (exact["values"] > 0.5)).sum(axis=1) @ exact["weights"]
    hits = [(y.argmax(axis=1) == classes).sum(), right, 0]
    answer["losses"] = np.array([softmax * N, binary * whole, squared * N, N, whole, N, *hits])
    answer["y"], answer["c"] = layer.h[1:], layer.c[-1]

    gradient, size = {"W": 0.5 * got["dW"]}, got["dW"].size
    answer["squares"] = np.array([(got["dW"] ** 2).sum()])
    moving, m, v = ({"W": array.copy()} for array in (exact["W"].ravel(), np.zeros(size), np.zeros(size)))
    for t in range(1, 5):
        oracle.adam(moving, gradient, m, v, t, lr=0.01, weight_decay=0.1, decoupled=t > 2)
    answer["adam"] = moving["W"]
    moving, m = {"W": exact["W"].ravel().copy()}, {"W": np.zeros(size)}
    oracle.sgd(moving, gradient, {"W": np.zeros(size)}, lr=0.01, weight_decay=0.1)
    for t in range(1, 4):
        oracle.sgd(moving, gradient, m, lr=0.01, momentum=0.9, nesterov=t > 2, weight_decay=0.1)
    answer["sgd"] = moving["W"]
    return answer


def check_elementwise(got, numbers, type_, where):
    dtype = {"f32": np.float32, "f64": np.float64}[type_]
    x = numbers.astype(dtype)
    for name, function in EXACT.items():
        exact = function(np.clip(x.astype(np.longdouble), -87, 87))
        error = np.abs(got[name] - exact) / np.spacing(np.abs(exact).astype(dtype))
        inside = np.abs(x) <= 86
        worst = error[inside].max()
        assert worst <= LARGEST_ERROR[name], f"{where}: {name} is {worst:.2f} ULP off"
        assert np.isnan(got[name][np.isnan(x)]).all(), f"{where}: {name} of NaN is a number"
        assert np.isfinite(got[name][~np.isnan(x)]).all(), f"{where}: {name} overflows"


def check(inputs, found, where):
    for (isa, type_, members), got in found.items():
        here, alone = f"{where}, {isa}, {type_}", found[isa, type_, 1]
        for name in got:
            same = got[name].tobytes() == alone[name].tobytes()
            assert same, f"{here}: {name} has other bits from {members} members than from one"
        if members > 1:
            continue
        answer = expected(inputs, got, {"f32": np.float32, "f64": np.float64}[type_])
        assert got.keys() == answer.keys() | EXACT.keys(), here
        for name, values in answer.items():
            off, scale = np.abs(got[name] - values.ravel()).max(), np.abs(values).max()
            assert off <= TOLERANCE[type_] * scale, f"{here}: {name} is off by {off:.1e} of {scale:.1e}"
        check_elementwise(got, inputs["numbers"], type_, here)


def compare(here, there, names, what):
    for type_ in TOLERANCE:
        for name in names(here[type_]):
            same = np.array_equal(here[type_][name], there[type_][name], equal_nan=True)
            assert same, f"{what}, {type_}: {name} has other bits than on the host"


def by_set(found):
    """instruction set -> type -> name -> array"""
    sets = {}
    for (isa, type_, members), got in found.items():
        if members == 1:
            sets.setdefault(isa, {})[type_] = got
    return sets


def check_bits(answers):
    """The same arithmetic, the same bits: of one instruction set under two systems, but for what their libm computes;
    and of two that have a fused multiply-add, where no sum depends on the width of a vector."""
    host = by_set(answers["host"])
    for isa, there in by_set(answers.get("windows", {})).items():
        compare(host[isa], there, lambda got: got.keys() - {"losses", "d binary"}, f"windows, {isa}")
    if "aarch64" in answers and "avx2" in host:
        there = by_set(answers["aarch64"])["baseline"]
        compare(host["avx2"], there, lambda got: ["y", "c", "d squared", *EXACT], "aarch64")


def main(targets):
    targets = ["host", *targets]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            programs = dict(zip(targets, pool.map(build, targets, [folder] * len(targets)), strict=True))
        for number, sizes in enumerate(CASES):
            inputs = case(number)
            answers = {target: run(target, program, inputs, folder) for target, program in programs.items()}
            for target, found in answers.items():
                check(inputs, found, f"{target}, case {sizes}")
                expected_sets = {isa for isa, *_ in answers["host"]} if target != "aarch64" else {"baseline"}
                assert {isa for isa, *_ in found} == expected_sets, target
            check_bits(answers)
    for target, found in answers.items():
        print(f"{target}: {len(CASES)} cases agree, by {', '.join(by_set(found))}")


if __name__ == "__main__":
    main(sys.argv[1:])
