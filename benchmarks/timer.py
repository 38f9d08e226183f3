"""The one timer: contenders in turn, round after round, so that whatever disturbs the machine disturbs all of them; and
turns in which it is seen to be disturbed are taken again."""

import os
import platform
import subprocess
import sys
import time
from importlib import metadata

import numpy as np

# Relative to the largest element. All are float32: sums over thousands of steps leave each about 1e-5 off.
TOLERANCE = 1e-4

REST = 0.12  # seconds: threads go on looking out for work, torch's for 0.01, onnxruntime's for 0.05, NumPy's for 0.1
PATIENCE = 5  # turns, one after the other, until one counts in any case
DISTURBED = 1.15  # times as long as the probe takes on a quiet core

PACKAGES = ("cylstm", "numpy", "torch", "onnxruntime", "openvino", "jax")
FORCED = ("CYLSTM_ISA", "OPENBLAS_CORETYPE", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")


class Probe:
    """How long a short sum over numbers in the second-level cache takes: a neighbour on the other thread of the core,
    which no load average of a virtual machine shows, makes it, and whatever is measured, up to three times as slow."""

    def __init__(self):
        self.numbers, self.best = np.ones(65536, np.float32), np.inf
        for _ in range(50):
            self.is_quiet()

    def is_quiet(self):
        """Whether it takes about as long as the best that was seen."""
        times = []
        for _ in range(3):
            start = time.perf_counter()
            for _ in range(10):
                self.numbers.sum()
            times.append(time.perf_counter() - start)
        self.best = min(self.best, *times)
        return np.median(times) < DISTURBED * self.best


def interleaved(contenders, *, seconds=1.0, rounds=9, patience=PATIENCE):
    """name -> callable; returns name -> {"median", "low", "high", "calls", "disturbed"}, in seconds per call.

    Each contender runs `rounds` times in turn, each time for about seconds / rounds. low and high are the quartiles.
    Before its turn there is a rest, in which threads that still look out for work go to sleep: nobody finds the
    processors taken, or kept awake, by the one before. A turn counts if the core is quiet before and after it, or when
    patience ends: `disturbed` says how many turns count that were not quiet.
    """
    probe = Probe()
    repeats, samples, disturbed = {}, {name: [] for name in contenders}, dict.fromkeys(contenders, 0)
    for name, call in contenders.items():
        call()  # the first call is not the steady one
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(seconds / rounds / max(time.perf_counter() - start, 1e-7)))
    for _ in range(rounds):
        for name, call in contenders.items():
            for _ in range(patience):
                time.sleep(REST)
                quiet = probe.is_quiet()
                if repeats[name] > 1:
                    call()  # with cold caches
                start = time.perf_counter()
                for _ in range(repeats[name]):
                    call()
                taken = (time.perf_counter() - start) / repeats[name]
                quiet = quiet and probe.is_quiet()
                if quiet:
                    break
            samples[name].append(taken)
            disturbed[name] += not quiet
    return {
        name: {
            "median": float(np.median(times)),
            "low": float(np.quantile(times, 0.25)),
            "high": float(np.quantile(times, 0.75)),
            "calls": repeats[name] * rounds,
            "disturbed": disturbed[name],
        }
        for name, times in samples.items()
    }


def processors():
    """Those that this process may use, one of each core before the second threads of cores."""

    def place(cpu):
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as siblings:
                ends = [[int(end) for end in part.split("-")] for part in siblings.read().strip().split(",")]
        except OSError:
            return 0, cpu
        return sum(min(cpu, last[-1] + 1) - first for first, *last in ((e[0], *e) for e in ends) if first < cpu), cpu

    return sorted(os.sched_getaffinity(0), key=place)


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
