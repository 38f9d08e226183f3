"""What does a crowded machine do to a team of threads? `python -m benchmarks.crowded [--shapes NAME ...] [--out FILE]`.

Each call with the default number of threads beside the same call with one, and torch's likewise: on a quiet machine,
with another process at work on one of the processors, with one on each, and, where this process may make cgroups, with
a quota of 1 and of 1.5 processors. Contenders take turns; each turn lasts long enough for the scheduler to have shared
the processors out, and begins with calls that do not count: what is measured is the steady state.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import compare, inference, peers, timer, training
from benchmarks.shapes import SHAPES

TURN, BEFORE = 0.25, 0.1  # seconds
GROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu"))  # version 2, version 1
PERIOD = 100_000  # microseconds
BUSY = "while True: pass"


@contextlib.contextmanager
def busy(count):
    """So many other processes that never rest."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


@contextlib.contextmanager
def quota(processors):
    """This process in a cgroup that may use so many processors' time. Raises OSError where that is not allowed."""
    for root in GROUPS:
        second = (root / "cgroup.controllers").exists()
        if second or (root / "cpu.cfs_quota_us").exists():
            break
    else:
        raise OSError("no cgroup with a quota")
    group = root / f"crowded-{os.getpid()}"
    group.mkdir()
    try:
        limit = int(processors * PERIOD)
        if second:
            (group / "cpu.max").write_text(f"{limit} {PERIOD}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(limit))
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        (root / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def conditions(processors):
    """Names, and what makes each."""
    return {
        "quiet": contextlib.nullcontext,
        "one busy": lambda: busy(1),
        "all busy": lambda: busy(processors),
        "quota 1": lambda: quota(1),
        "quota 1.5": lambda: quota(1.5),
    }


def with_threads(set_threads, count, call):
    def turn():
        set_threads(count)
        call()

    return turn


def contenders(shape, task, threads):
    """Calls by name, outputs compared; torch is there if it is installed."""
    import cylstm

    layer, x = inference.layer_and_input(shape)
    if task == "training":
        call = training.pass_of(layer, x)
    elif shape.T == 1:
        state = layer.initial_state(shape.B)
        call = lambda: layer.step(x[:, 0], state)  # noqa: E731
    else:
        call = lambda: layer(x)  # noqa: E731
    found = {
        "one": with_threads(cylstm.set_num_threads, 1, call),
        "default": with_threads(cylstm.set_num_threads, threads, call),
    }
    with contextlib.suppress(ImportError):
        import torch

        if shape.T == 1 and task == "inference":
            theirs = peers.torch_step(layer, x[:, 0])
        elif task == "inference":
            theirs = peers.torch_inference(layer, x)
            timer.agree("torch", theirs(), layer(x)[0])
        else:
            theirs = peers.torch_training(layer, x, call.dy)
            timer.agree("torch", theirs()[0], call()[0])
        found["torch, one"] = with_threads(torch.set_num_threads, 1, theirs)
        found["torch"] = with_threads(torch.set_num_threads, threads, theirs)
    return found


def ratio(found, name, base):
    """Of neighbours in time: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(found[name], found[base], strict=True))


def measure(calls, rounds):
    """Seconds per call, by contender and round."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            until = time.perf_counter() + BEFORE
            call()
            while time.perf_counter() < until:
                call()
            count, start = 0, time.perf_counter()
            while count == 0 or time.perf_counter() - start < TURN:
                call()
                count += 1
            times[name].append((time.perf_counter() - start) / count)
    return times


def table(rows):
    """Medians in ms, and of the rounds the median ratio, as Markdown."""
    made = []
    for row in rows:
        found, cells = row["seconds"], {"": row["condition"], "shape": f"`{row['shape']}`", "task": row["task"]}
        for name, team, alone in (("cylstm", "default", "one"), ("torch", "torch", "torch, one")):
            if team in found:
                cells[f"{name}, one thread"] = f"{1e3 * statistics.median(found[alone]):.3g}"
                cells[f"{name}, default"] = f"{1e3 * statistics.median(found[team]):.3g}"
                cells[f"{name}, ratio"] = f"{ratio(found, team, alone):.2f}"
        made.append(cells)
    return compare.lines(made)


def main(arguments):
    """All conditions, shapes and tasks."""
    threads, rows = len(os.sched_getaffinity(0)), []
    shapes = [shape for shape in SHAPES if arguments.shapes is None or shape.name in arguments.shapes]
    for name, make in conditions(threads).items():
        if arguments.conditions and name not in arguments.conditions:
            continue
        for shape in shapes:
            for task in arguments.tasks if shape.T > 1 else ("inference",):
                calls = contenders(shape, task, threads)
                try:
                    with make():
                        found = measure(calls, arguments.rounds)
                except OSError as error:
                    print(f"{name}: left out ({error})", file=sys.stderr)
                    continue
                rows.append({"condition": name, "shape": shape.name, "task": task, "seconds": found})
                print(table(rows[-1:]), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": timer.machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+")
    parser.add_argument("--conditions", nargs="+")
    parser.add_argument("--tasks", nargs="+", default=["inference", "training"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    main(parser.parse_args())
