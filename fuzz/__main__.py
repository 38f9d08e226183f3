"""python -m fuzz [TARGET...] [--runs N] [--seconds S] [--corpus FOLDER]: coverage-guided fuzzing of the readers.

Needs atheris (dependency group "fuzz"). Each target (fuzz/targets.py) runs in a process of its own, with 2 GB of
address space more than it begins with, and at most five seconds for one input. An input that ends in anything but an
object or a refusal is left in the present folder, and the exit status is not 0. New inputs that reach new lines go to
FOLDER/TARGET; fuzz/corpus is the kept one, to which `--merge` adds what reaches lines that nothing in it does.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

KEPT = Path(__file__).parent / "corpus"
MEMORY = 2 << 30


def fuzz(name, options):
    """Runs in a process that ends here."""
    import atheris

    with atheris.instrument_imports(include=["cylstm"], enable_loader_override=False):
        from cylstm import exchange, forecast, model, tensor_files, training  # noqa: F401
        from cylstm.cli import classifier, info  # noqa: F401
        from cylstm.exchange import keras, nam, onnx, pytorch, rtneural  # noqa: F401
    from fuzz import targets

    for kind in ("model", "forecaster", "classifier", "checkpoint"):
        targets.right_file(kind)
    targets.onnx_files.right_file()
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY, own + MEMORY))

    def one(data):
        if data:
            targets.TARGETS[name](data)

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


def steps_of(target, data):
    """The steps from line to line that reading these bytes takes in cylstm."""
    steps = set()

    def trace(frame, event, argument):
        if "cylstm" not in frame.f_code.co_filename:
            return None
        last = 0

        def lines(frame, event, argument):
            nonlocal last
            steps.add((frame.f_code.co_filename, last, frame.f_lineno))
            last = frame.f_lineno
            return lines

        return lines

    sys.settrace(trace)
    try:
        target(data)
    finally:
        sys.settrace(None)
    return steps


def merge(name, found):
    """Copy to the kept corpus what takes steps that nothing in it takes, small inputs first."""
    from fuzz import targets

    target, seen = targets.TARGETS[name], set()
    target(targets.seeds(name)[0])  # what is imported and cached the first time
    for path in [*sorted((KEPT / name).iterdir()), *sorted(found.iterdir(), key=lambda path: path.stat().st_size)]:
        data = path.read_bytes()
        steps = steps_of(target, data) if data else set()
        if path.parent != KEPT / name and steps - seen:
            (KEPT / name / path.name).write_bytes(data)
        seen |= steps


def main():
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--runs", type=int, default=-1)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--merge", action="store_true", help="add to the kept corpus what reaches new lines, and end")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments, options = parser.parse_known_args()
    if arguments.one:
        return fuzz(arguments.one, options + arguments.targets)  # libFuzzer's options, then its folders
    from fuzz import targets

    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.targets or targets.TARGETS:
            found = (arguments.corpus or Path(scratch)) / name
            found.mkdir(parents=True, exist_ok=True)
            (KEPT / name).mkdir(parents=True, exist_ok=True)
            for n, seed in enumerate(targets.seeds(name)):
                (found / f"seed{n}").write_bytes(seed)
            if arguments.merge:
                merge(name, found)
                continue
            command = [
                sys.executable,
                "-m",
                "fuzz",
                "--one",
                name,
                "-timeout=5",
                "-max_len=4096",
                "-print_final_stats=1",
            ]
            command += [f"-dict={Path(__file__).parent / 'words.dict'}"]
            command += [f"-runs={arguments.runs}", f"-max_total_time={arguments.seconds}", str(found), str(KEPT / name)]
            print(f"== {name}", flush=True)
            if subprocess.run(command).returncode != 0:
                failed.append(name)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
