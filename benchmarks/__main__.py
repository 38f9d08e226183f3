"""python -m benchmarks QUESTION... [--shapes toy char] [--threads 1 2] [--seconds 1] [--rounds 9] [--out-dir FOLDER]

Questions: inference, training, streaming, lm, ragged, variants, ctc, swap, module, precision, training_bfloat16,
kernels, startup, memory; then `compare`, which prints the answers in FOLDER as tables, with ratios, and draws them;
without --out-dir those of benchmarks/results, from which it also writes the tables of the manual and of the README.
A name of a shape may be a pattern: `--shapes 'H*B32'` is a part of the grid, which kernels alone has (shapes.py).
Answers of some shapes take their places among those of others in FOLDER, if these are of the same machine.
Each number of threads has a process of its own, bound to as many processors. Nothing else may run meanwhile.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks import compare, pages, timer
from benchmarks.shapes import BY_NAME, SHAPES

QUESTIONS = ("inference", "training", "streaming", "lm", "ragged", "variants", "ctc", "swap", "module", "precision",
             "training_bfloat16", "kernels", "startup", "memory")  # fmt: skip
ONE_THREAD = ("kernels", "startup")


def answer(question, shapes, threads, seconds, rounds):
    """The rows of one question at one number of threads, in a process bound to as many processors."""
    os.sched_setaffinity(0, timer.processors()[:threads])
    import cylstm

    cylstm.set_num_threads(threads)
    if question not in (*ONE_THREAD, "memory"):
        import torch

        torch.set_num_threads(threads)
    module = importlib.import_module(f"benchmarks.{question}")
    if hasattr(module, "run"):
        return [{**row, "threads": threads} for row in module.run(shapes, threads, seconds, rounds)]
    rows = []
    for labels, contenders in module.cases(shapes, threads):
        rows.append(
            {**labels, "threads": threads, "seconds": timer.interleaved(contenders, seconds=seconds, rounds=rounds)}
        )
        shown = {name: f"{1e3 * t['median']:.4g}" for name, t in rows[-1]["seconds"].items()}
        print(f"{question} {labels} {threads} thread(s), ms: {shown}", file=sys.stderr, flush=True)
    return rows


def ask(question, arguments):
    """All rows of one question, one process after the other."""
    rows = []
    for threads in arguments.threads if question not in ONE_THREAD else [1]:
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [sys.executable, "-m", "benchmarks", question, "--threads", str(threads), "--answer", file.name,
                       "--seconds", str(arguments.seconds), "--rounds", str(arguments.rounds)]  # fmt: skip
            names = ["--shapes", *arguments.shapes] if arguments.shapes else []
            subprocess.run([*command, *names], check=True)
            rows += json.load(file)
    return rows


def chosen(question, patterns):
    """The shapes of a question, all or those whose names fit."""
    known = BY_NAME.values() if question == "kernels" else SHAPES
    return [shape for shape in known if not patterns or any(fnmatchcase(shape.name, name) for name in patterns)]


def same_machine(before, now):
    """Raises ValueError where rows of both do not belong together."""
    for name in ("processor", "instruction_set", "forced"):
        if before[name] != now[name]:
            raise ValueError(f"{name}: expected {before[name]!r}, as before, got {now[name]!r}")


def merged(before, now):
    """The rows of an answer and, of other shapes and numbers of threads, those of one from before."""
    fresh, order = {(row["shape"], row["threads"]) for row in now}, {name: n for n, name in enumerate(BY_NAME)}
    rows = [row for row in before if (row["shape"], row["threads"]) not in fresh] + now
    return sorted(rows, key=lambda row: (row["threads"], order.get(row["shape"], len(order))))


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("questions", nargs="+", choices=[*QUESTIONS, "compare"], metavar="QUESTION")
    parser.add_argument("--shapes", nargs="+", metavar="NAME")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.0, help="time per contender")
    parser.add_argument("--rounds", type=int, default=9, help="how often each contender has its turn")
    parser.add_argument("--out-dir", type=Path, help="where to leave QUESTION.json, the machine stamped on it")
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        shapes = chosen(arguments.questions[0], arguments.shapes)
        rows = answer(arguments.questions[0], shapes, arguments.threads[0], arguments.seconds, arguments.rounds)
        Path(arguments.answer).write_text(json.dumps(rows))
        return
    for question in arguments.questions:
        if question == "compare":
            folder = arguments.out_dir or pages.RESULTS
            compare.main(folder)
            if folder.resolve() == pages.RESULTS.resolve():
                pages.write()
            continue
        path, before = arguments.out_dir and arguments.out_dir / f"{question}.json", []
        if path and arguments.shapes and path.exists():
            earlier = json.loads(path.read_text())
            same_machine(earlier["machine"], timer.machine())
            before = earlier["rows"]
        rows = ask(question, arguments)
        print(compare.table(rows))
        if path:
            arguments.out_dir.mkdir(parents=True, exist_ok=True)
            data = {"machine": timer.machine(), "rows": merged(before, rows) if before else rows}
            path.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
