"""The one timer: contenders in turn, round after round, so that whatever disturbs the machine disturbs all of them."""

import os
import platform
import subprocess
import sys
import time
from importlib import metadata

import numpy as np

# Relative to the largest element. All are float32: sums over thousands of steps leave each about 1e-5 off.
TOLERANCE = 1e-4

REST = 0.02  # seconds

PACKAGES = ("cylstm", "numpy", "torch", "onnxruntime", "openvino", "jax")
FORCED = ("CYLSTM_ISA", "OPENBLAS_CORETYPE", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")


def interleaved(contenders, *, seconds=1.0, rounds=9):
    """name -> callable; returns name -> {"median", "low", "high", "calls"}, in seconds per call.

    Each contender runs `rounds` times in turn, each time for about seconds / rounds. low and high are the quartiles.
    Before its turn there is a rest, in which threads that still look out for work go to sleep: nobody finds the
    processors taken, or kept awake, by the one before.
    """
    repeats, samples = {}, {name: [] for name in contenders}
    for name, call in contenders.items():
        call()  # the first call is not the steady one
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(seconds / rounds / max(time.perf_counter() - start, 1e-7)))
    for _ in range(rounds):
        for name, call in contenders.items():
            time.sleep(REST)
            if repeats[name] > 1:
                call()  # with cold caches
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            samples[name].append((time.perf_counter() - start) / repeats[name])
    return {
        name: {
            "median": float(np.median(times)),
            "low": float(np.quantile(times, 0.25)),
            "high": float(np.quantile(times, 0.75)),
            "calls": repeats[name] * rounds,
        }
        for name, times in samples.items()
    }


def agree(name, got, expected):
    """Outputs are compared before anything is timed. Raises AssertionError."""
    error = float(np.abs(np.asarray(got) - np.asarray(expected)).max() / np.abs(expected).max())
    if not error < TOLERANCE:
        raise AssertionError(f"{name}: outputs differ by {error:.1e}")


def flops(shape):
    """Of the products in one forward pass, x W' and h R' of every gate; a training pass has three times as many."""
    inputs = [shape.I] + [shape.H] * (shape.L - 1)
    return sum(8 * shape.H * (width + shape.H) * shape.B * shape.T for width in inputs)


def machine():
    """What the figures depend on: processor, instruction set, versions, what was forced, the commit."""
    import cylstm

    def version(package):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    processor = platform.processor()
    try:
        with open("/proc/cpuinfo") as lines:
            processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "processor": processor,
        "instruction_set": cylstm.instruction_set(),
        "forced": {name: os.environ[name] for name in FORCED if name in os.environ},
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in PACKAGES},
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
    }
