"""Streams in number: what does a step cost where states lie apart? `python -m benchmarks.sessions [--out FILE]`.

A service keeps 4,000 sessions, and at each tick some of them, drawn at random, have a frame. Throughput: one call for B
of them, by their rows in a pool of states and by a list of states, beside batches of B whose states lie together: all
4,000 in turn, and always the same one, which stays in the cache. And beside onnxruntime, for which states have to be
copied together and back. Latency: 10^6 steps of single sessions, each drawn from 1,000, and 10^6 in calls of 1,000.
What is computed is compared before anything is timed. Each number of threads has a process of its own, bound to as many
processors.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import compare, peers, timer

SIZES = ((32, 32, 1), (128, 128, 2), (256, 256, 1))  # I, H, L
SESSIONS, BATCHES = 4000, (1, 10, 100, 1000)
LATENCY, SHARE, STEPS, TURN = (128, 128, 2), 1000, 10**6, 10_000  # of a turn: steps of one session each
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def filled(state, rng):
    for array in state:
        array[...] = rng.uniform(-1, 1, array.shape)
    return state


class Apart:
    """A layer, sessions in a pool and one by one, and draws of B of them with a frame each."""

    def __init__(self, sizes, sessions, B, draws, threads):
        import cylstm

        I, H, L = sizes
        self.rng = np.random.default_rng(1)
        self.layer = cylstm.LSTM(I, H, L, seed=1)
        self.pool = filled(self.layer.initial_state(sessions), self.rng)
        self.states = [cylstm.State(*(array[:, n : n + 1].copy() for array in self.pool)) for n in range(sessions)]
        self.rows = [self.rng.permutation(sessions)[:B] for _ in range(draws)]
        self.lists = [[self.states[n] for n in rows] for rows in self.rows]
        self.frames = self.rng.standard_normal((8, B, I), np.float32)
        self.batches = [cylstm.State(*(array[:, n : n + B].copy() for array in self.pool))
                        for n in range(0, sessions, B)]  # fmt: skip
        self.theirs = cylstm.State(*(array.copy() for array in self.pool))
        self.session = peers.onnxruntime_step(self.layer, threads)
        self.check()

    def check(self):
        """A step of the first draw by every way, on states that nobody has changed yet."""
        rows, x = self.rows[0], self.frames[0]
        expected, _ = self.layer.step(x, tuple(np.ascontiguousarray(array[:, rows]) for array in self.pool))
        ways = {"pool": self.by_rows(x, rows), "list": self.by_list(x, self.lists[0]),
                "onnxruntime": self.by_onnxruntime(x, rows)}  # fmt: skip
        for name, y in ways.items():
            timer.agree(name, y, expected)
        for n, row in enumerate(rows):
            for one, of_pool, of_list in zip(self.theirs, self.pool, self.lists[0][n], strict=True):
                timer.agree("onnxruntime's state", one[:, row], of_pool[:, row])
                timer.agree("list's state", of_list[:, 0], of_pool[:, row])

    def by_batch(self, x, batch):
        return self.layer.step(x, batch, out=batch)[0]

    def by_rows(self, x, rows):
        return self.layer.step(x, self.pool, rows=rows)[0]

    def by_list(self, x, states):
        return self.layer.step(x, states)[0]

    def by_onnxruntime(self, x, rows):
        y, h, c = self.session(x, self.theirs.h[:, rows], self.theirs.c[:, rows])
        self.theirs.h[:, rows], self.theirs.c[:, rows] = h, c
        return y

    def calls(self):
        """Contenders for the timer: each call takes the next draw."""

        def by(way, given):
            draws, frames = itertools.cycle(given), itertools.cycle(self.frames)
            return lambda: way(next(frames), next(draws))

        return {
            "same batch": by(self.by_batch, self.batches[:1]),
            "together": by(self.by_batch, self.batches),
            "pool": by(self.by_rows, self.rows),
            "list": by(self.by_list, self.lists),
            "onnxruntime": by(self.by_onnxruntime, self.rows),
        }


def throughput(threads, seconds, rounds):
    """Seconds per call of every size and batch."""
    for sizes, B in itertools.product(SIZES, BATCHES):
        apart = Apart(sizes, SESSIONS, B, 64, threads)
        times = timer.interleaved(apart.calls(), seconds=seconds, rounds=rounds)
        row = {"kind": "throughput", "I, H, L": sizes, "B": B, "threads": threads, "seconds": times}
        print(table([row]), file=sys.stderr, flush=True)
        yield row


def latency(threads, steps):
    """Quantiles of the seconds of one call, contenders in turn."""
    for B in (1, SHARE):
        apart = Apart(LATENCY, SHARE, B, TURN if B == 1 else 64, threads)
        calls, times = apart.calls(), {}
        del calls["same batch"], calls["together"]
        for call in calls.values():
            for _ in range(100):
                call()
        turn = TURN // B
        for _ in range(max(1, steps // TURN)):
            for name, call in calls.items():
                time.sleep(timer.REST)  # threads of the one before, which look out for work, go to sleep
                call()
                found = np.empty(turn)
                for n in range(turn):
                    start = time.perf_counter_ns()
                    call()
                    found[n] = time.perf_counter_ns() - start
                times.setdefault(name, []).append(found * 1e-9)
        quantiles = {name: {at: float(np.quantile(np.concatenate(all_of_it), share)) for at, share in QUANTILES.items()}
                     for name, all_of_it in times.items()}  # fmt: skip
        row = {"kind": "latency", "I, H, L": LATENCY, "B": B, "sessions": SHARE, "threads": threads,
               "calls": turn * max(1, steps // TURN), "quantiles": quantiles}  # fmt: skip
        print(latencies([row]), file=sys.stderr, flush=True)
        yield row


def table(rows):
    """Sessions per second, and beside them the throughput of states that lie apart over that of batches together."""
    made = []
    for row in rows:
        if row["kind"] != "throughput":
            continue
        speed = {name: row["B"] / found["median"] for name, found in row["seconds"].items()}
        cells = {"I, H, L": ", ".join(map(str, row["I, H, L"])), "B": row["B"], "threads": row["threads"]}
        for name, value in speed.items():
            beside = f" ({value / speed['together']:.2f})" if name in ("pool", "list") else ""
            cells[f"{name}, 10³/s"] = compare.three_digits(value / 1e3) + beside
        cells["pool / onnxruntime"] = f"{speed['pool'] / speed['onnxruntime']:.2f}"
        made.append(cells)
    return compare.lines(made)


def latencies(rows):
    """Microseconds of a call."""
    made = []
    for row in rows:
        if row["kind"] != "latency":
            continue
        cells = {"I, H, L": ", ".join(map(str, row["I, H, L"])), "B": row["B"], "threads": row["threads"]}
        for name, found in row["quantiles"].items():
            for at, value in found.items():
                cells[f"{name}, {at}"] = compare.three_digits(value * 1e6)
        made.append(cells)
    return compare.lines(made)


def answer(arguments):
    """All rows at one number of threads, in this process."""
    threads = arguments.threads[0]
    os.sched_setaffinity(0, timer.processors()[:threads])
    import cylstm

    cylstm.set_num_threads(threads)
    rows = [*throughput(threads, arguments.seconds, arguments.rounds), *latency(threads, arguments.steps)]
    arguments.answer.write_text(json.dumps(rows))


def main(arguments):
    """One process for each number of threads."""
    if arguments.answer:
        answer(arguments)
        return
    rows = []
    for threads in arguments.threads:
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [sys.executable, "-m", "benchmarks.sessions", "--threads", str(threads), "--answer", file.name,
                       "--seconds", str(arguments.seconds), "--rounds", str(arguments.rounds),
                       "--steps", str(arguments.steps)]  # fmt: skip
            subprocess.run(command, check=True)
            rows += json.load(file)
    print(f"{table(rows)}\n\n{latencies(rows)}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": timer.machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.0, help="time per contender")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=STEPS, help="of sessions, for latency")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    main(parser.parse_args())
