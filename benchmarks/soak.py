"""python -m benchmarks.soak [--short]: load, faults and leaks; the exit status is not 0 where any of it fails.

load     many threads call many models at once, each call compared with the bits that it gave alone
faults   SIGKILL at random moments while a model is being saved: what is there is whole, the old one or a new one
calls    10^5 of random shapes: what memory grows by when they are made again
models   10^4 made, used, trained for a step and dropped: likewise
"""

import argparse
import gc
import json
import os
import signal
import sys
import tempfile
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import cylstm
from benchmarks.memory import CALLS, growth, resident
from cylstm import LSTM, Model

THREADS, MODELS, LOAD_CALLS, KILLS, DROPPED = 32, 16, 20_000, 500, 10_000
# The allocator's arenas fill and empty by some MB; what Python and NumPy hold may differ by some caches.
RESIDENT_MAY_GROW, HELD_MAY_GROW = 16_000_000, 100_000


def load(threads, models, calls):
    """How many of the calls, made by so many threads on so many models at once, differ from the same ones alone."""
    rng = np.random.default_rng(3)
    layers = [LSTM(5, 8 + 13 * n, 1 + n % 2, bidirectional=n % 3 == 0, seed=n) for n in range(models)]
    inputs = [rng.standard_normal((1 + 3 * n % 11, 4 + 5 * n, 5)).astype("f4") for n in range(7)]
    alone = {(m, n): layer(x)[0] for m, layer in enumerate(layers) for n, x in enumerate(inputs)}
    chosen = [(int(rng.integers(models)), int(rng.integers(7)), bool(rng.random() < 0.3)) for _ in range(calls)]

    def wrong(choice):
        m, n, trains = choice
        if not trains:
            return not np.array_equal(layers[m](inputs[n])[0], alone[m, n])
        y, _, tape = layers[m].forward(inputs[n])
        layers[m].backward(tape, y)
        return not np.array_equal(y, alone[m, n])

    with ThreadPoolExecutor(threads) as pool:
        return {"calls": calls, "wrong": sum(pool.map(wrong, chosen))}


def faults(kills):
    """How many of so many kills in the middle of saving left something that is not a whole model."""
    rng, broken, versions = np.random.default_rng(4), 0, set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        model = Model(30, 60, 30, embedding_size=20, seed=0)
        model.parameters.flat[:] = -1
        model.save(path)
        for n in range(kills):
            child = os.fork()
            if child == 0:
                try:
                    for version in range(1_000_000):
                        model.parameters.flat[:] = n + version / 1000
                        model.save(path)
                finally:
                    os._exit(1)
            time.sleep(float(rng.uniform(0, 0.02)))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            try:
                flat = Model.load(path).parameters.flat
                broken += bool((flat != flat[0]).any())
                versions.add(float(flat[0]))
            except (OSError, ValueError):
                broken += 1
            for left in Path(folder).glob(".m.safetensors.*.tmp"):
                left.unlink()
    return {"kills": kills, "broken": broken, "versions seen": len(versions)}


def dropped_models(count):
    """Bytes by which memory grows when so many models are made and dropped again, and again."""

    def make(n):
        model = Model(9 + n % 5, 8 + n % 24, 4, num_layers=1 + n % 2, bidirectional=n % 3 == 0, seed=n)
        ids = np.full((2, 3 + n % 7), n % 9)
        model(ids)
        model.loss_and_gradients(ids, ids % 4)

    def peak(count):
        return max(resident() for n in range(count) if make(n) is None)

    peaks, held = [peak(count) for _ in range(3)], []
    tracemalloc.start(1)
    for _ in range(3):
        peak(count // 10)
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    return {"models": count, "resident": peaks[2] - peaks[1], "held": held[2] - held[1]}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--short", action="store_true", help="a tenth of it all")
    part = 10 if parser.parse_args().short else 1
    answers = {}
    for name, run in {
        "load": lambda: {"threads": THREADS, "models": MODELS} | load(THREADS, MODELS, LOAD_CALLS // part),
        "faults": lambda: faults(KILLS // part),
        "calls": lambda: {"calls": CALLS // part} | growth(CALLS // part),
        "models": lambda: dropped_models(DROPPED // part),
    }.items():
        start = time.perf_counter()
        answers[name] = run() | {"seconds": round(time.perf_counter() - start, 1)}
        print(name, json.dumps(answers[name]), flush=True)
    failed = answers["load"]["wrong"] or answers["faults"]["broken"]
    for name in ("calls", "models"):
        failed = failed or answers[name]["resident"] > RESIDENT_MAY_GROW or answers[name]["held"] > HELD_MAY_GROW
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    cylstm.set_num_threads(max(2, cylstm.num_threads()))
    main()
