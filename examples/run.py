"""Every job with both libraries, timed: `python -m examples.run [JOB ...]`.

Each script runs in a process of its own, on one processor with one thread, and both of a pair back to back, once or
(where it is short) several times in turn. Seconds are from the data's being there to the script's end: imports do not
count, Keras's compilation does, and nothing is drawn. The rows that are printed are those of the tables in
docs/examples.md.
"""

import argparse
import json
import os
import re
import runpy
import statistics
import subprocess
import sys
import time

from examples import loading
from examples.count import JOBS, LIBRARIES, own_lines, script

FIGURE = re.compile(r"^([A-Za-z ]+) (\d+\.\d+)(?: \(.*\))?$")
REPEATS, ENOUGH = 3, 60  # times, unless a pair has taken so many seconds
ONE_THREAD = {
    **{name: "1" for name in ("CYLSTM_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "PICTURES": "",
}


def alone(module):
    """In a process of its own: runs a script, and tells how long it took."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    runpy.run_module(module, run_name="__main__")
    print(f"\nseconds {time.perf_counter() - loading.loaded_at:.2f}")


def timed(job, library):
    """What a script printed, and the seconds that it took."""
    package = ".".join(part for part in ("examples", LIBRARIES[library], job) if part)
    command = [sys.executable, "-m", "examples.run", "--alone", package]
    done = subprocess.run(command, env={**os.environ, **ONE_THREAD}, stdout=subprocess.PIPE, text=True, check=True)
    printed, seconds = done.stdout.rsplit("\nseconds ", 1)
    return printed, float(seconds)


def figures(printed):
    """The figures by name, as they were printed."""
    return dict(found.groups() for found in map(FIGURE.match, printed.splitlines()) if found)


def table(job, printed, seconds):
    """The rows of a job, in Markdown."""
    by_library = {library: figures(printed[library]) for library in LIBRARIES}
    names = [name for name in by_library["cylstm"] if name in by_library["Keras"]]
    rows = [["", "lines", *names, "seconds"], ["---"] * (len(names) + 3)]
    for library in LIBRARIES:
        time = f"{statistics.median(seconds[library]):.3g}"
        rows.append([library, str(own_lines(script(job, library))), *map(by_library[library].get, names), time])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main():
    parser = argparse.ArgumentParser(prog="python -m examples.run")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=", ".join(JOBS))
    parser.add_argument("--alone", metavar="MODULE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        return alone(given.alone)
    for job in given.jobs or JOBS:
        printed, seconds, began = {}, {library: [] for library in LIBRARIES}, time.perf_counter()
        for _ in range(REPEATS):
            for library in LIBRARIES:
                printed[library], took = timed(job, library)
                seconds[library].append(took)
            if time.perf_counter() - began > ENOUGH:
                break
        print(f"{job}\n\n{table(job, printed, seconds)}\n\n{json.dumps(seconds)}\n", flush=True)


if __name__ == "__main__":
    main()
