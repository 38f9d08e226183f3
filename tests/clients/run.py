"""Programs of others that use torch.nn.LSTM, with it and with cylstm in its place: their numbers and their time.

python tests/clients/run.py [NAME ...] [--keep FOLDER] [--out docs/clients.md] [--rounds 3] [--again]

Environments and answers lie in FOLDER, and what is there is not made again while the program and cylstm are the same.
A round runs each engine once, in turn, in processes that stay; the first round's times are thrown away.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
ENGINES = ("torch", "cylstm")
BEGIN, END = "<!-- made by tests/clients/run.py -->", "<!-- end -->"
BOUND = 1e-4  # of the largest number; or 30 times what a moved weight does


@dataclass
class Client:
    environment: str
    package: str
    does: str
    by: str = "cylstm"  # or "torch": what cylstm leaves to it; or "nobody": where no LSTM is left


CLIENTS = {
    "sb3_contrib": Client("rl", "sb3-contrib", "RecurrentPPO: learn, predict"),
    "sb3_contrib:resets": Client("rl", "sb3-contrib", "the same, `resets=` in one call"),
    "torchrl": Client("rl", "torchrl", "LSTMModule: rollouts, policy gradient"),
    "torchrl:resets": Client("rl", "torchrl", "the same, `resets=` in one call"),
    "darts": Client("forecasting", "darts", "RNNModel: fit, predict"),
    "neuralforecast": Client("forecasting", "neuralforecast", "LSTM: fit, predict"),
    "pytorch_forecasting": Client("forecasting", "pytorch-forecasting", "DeepAR: fit, predict"),
    "gluonts": Client("forecasting", "gluonts", "DeepAR: train, predict"),
    "skorch": Client("forecasting", "skorch", "classifier, two-way: fit, predict"),
    "lightning": Client("forecasting", "lightning", "language model: fit, predict"),
    "lightning:bf16-mixed": Client("forecasting", "lightning", "the same in `bf16-mixed`", by="torch"),
    "opacus": Client("forecasting", "opacus", "private training: its own DPLSTM in both", by="nobody"),
    "captum": Client("forecasting", "captum", "training, integrated gradients"),
    "shap": Client("forecasting", "shap", "training, expected gradients"),
    "flair": Client("text", "flair", "sequence tagger: train, predict"),
    "onmt": Client("text", "OpenNMT-py", "encoder, stepping decoder: train, translate"),
    "kraken": Client("images", "kraken", "line recogniser: train, predict"),
    "nam": Client("audio", "neural-amp-modeler", "LSTM in pieces: train, play"),
    "resemblyzer": Client("audio", "Resemblyzer", "voice encoder: embed"),
}


def digest(*paths):
    """Of these files' names and bytes."""
    found = hashlib.sha256()
    for path in sorted(paths):
        found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return found.hexdigest()[:16]


def cylstm_digest():
    kinds = (".py", ".pyx", ".pxd", ".c", ".h", ".def", ".toml")
    sources = [path for folder in ("src", "cext") for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    return digest(*sources, ROOT / "setup.py", ROOT / "pyproject.toml")


def made_environment(name, folder):
    """A virtual environment with exactly what its file names, and this checkout; its python."""
    place = folder / "environments" / name
    python, pins = place / "bin" / "python", HERE / "environments" / f"{name}.txt"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    made = {"pins": digest(pins), "cylstm": cylstm_digest()}
    note = place / "made.json"
    before = json.loads(note.read_text()) if note.exists() else {}
    if before.get("pins") != made["pins"]:
        print(f"making the environment {name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        subprocess.run([*pip, "--upgrade", "pip"], check=True)
        subprocess.run([*pip, "--no-deps", "--requirement", pins], check=True)
    if before != made:
        subprocess.run([*pip, "--no-deps", "--force-reinstall", built_wheel(folder)], check=True)
        note.write_text(json.dumps(made))
    return python


def built_wheel(folder):
    """Of this checkout, from a copy: objects built here before are left alone."""
    wheels = folder / "wheels" / cylstm_digest()
    if not list(wheels.glob("*.whl")):
        with tempfile.TemporaryDirectory() as copy:

            def run(*command, **options):
                return subprocess.run(command, check=True, text=True, **options)

            files = run("git", "ls-files", cwd=ROOT, capture_output=True).stdout
            run("tar", "-cf", f"{copy}/files.tar", "--files-from", "-", cwd=ROOT, input=files)
            run("tar", "-xf", "files.tar", cwd=copy)
            pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
            run(*pip, "--wheel-dir", wheels, copy)
    return next(wheels.glob("*.whl"))


@contextlib.contextmanager
def program(python, name, engine, log):
    """A call that runs the program once more and returns its answer."""
    command = [python, HERE / "program.py", name, engine]
    with tempfile.TemporaryDirectory() as folder, open(log, "w") as errors:  # programs leave files where they run
        process = subprocess.Popen(
            command, cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )  # fmt: skip

        def answer():
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{name}: {engine} ended: {log}")
            return line

        def call():
            process.stdin.write("\n")
            process.stdin.flush()
            return json.loads(answer())

        try:
            answer()  # ready
            yield call
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()


def apart(numbers, reference):
    """The largest difference in a list of numbers, of its largest number; the worst list."""
    worst = 0.0
    for name, expected in reference.items():
        if len(numbers[name]) != len(expected):  # other episodes, other labels
            return float("inf")
        if not expected:
            raise AssertionError(f"{name}: expected numbers to compare, got none")
        largest = max(map(abs, expected)) or 1.0
        worst = max(worst, *(abs(a - b) / largest for a, b in zip(numbers[name], expected, strict=True)))
    return worst


def measured(name, python, folder, rounds):
    """What goes into the table, of one client."""
    client = CLIENTS[name]
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)

    def start(engine):
        return program(python, name, engine, logs / f"{name} {engine}.txt")

    with start("moved") as call:
        moved = call()["numbers"]
    with contextlib.ExitStack() as stack:
        run = {engine: stack.enter_context(start(engine)) for engine in ENGINES}
        first = {engine: run[engine]() for engine in ENGINES}
        seconds = {engine: [] for engine in ENGINES}
        for n in range(rounds):
            for engine in ENGINES[:: -1 if n % 2 else 1]:
                seconds[engine].append(run[engine]()["seconds"])
    row = {
        "client": name,
        "version": version(python, client.package),
        "calls": first["cylstm"]["calls"],
        "apart": apart(first["cylstm"]["numbers"], first["torch"]["numbers"]),
        "moved": apart(moved, first["torch"]["numbers"]),
        "seconds": seconds,
    }
    computed = {who for who, count in first["cylstm"]["calls"].items() if count}
    if client.by not in (computed or {"nobody"}):
        raise AssertionError(f"{name}: expected calls computed by {client.by}, got {row['calls']}")
    if first["torch"]["calls"]["cylstm"]:
        raise AssertionError(f"{name}: expected no call computed by cylstm with torch's, got {first['torch']['calls']}")
    return row


def version(python, package):
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def processor():
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


def table(rows):
    yield "| client | program | calls: cylstm, torch | numbers apart | a weight moved | torch, s | cylstm, s | times |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        client = CLIENTS[row["client"]]
        theirs, ours = (statistics.median(row["seconds"][engine]) for engine in ENGINES)
        cells = [
            f"{client.package} {row['version']}",
            client.does,
            f"{row['calls']['cylstm']}, {row['calls']['torch']}",
            f"{row['apart']:.1g}",
            f"{row['moved']:.1g}",
            f"{theirs:.2f}",
            f"{ours:.2f}",
            f"{theirs / ours:.2f}",
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield f"{processor()}, {os.cpu_count()} processors, Python {platform.python_version()}, torch 2.13.0."


def write(text, out):
    """Between the marks of a page that has them."""
    if out is None:
        print(text)
        return
    page = out.read_text() if out.exists() else ""
    if BEGIN in page:
        before, rest = page.split(BEGIN)
        text = f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}"
    out.write_text(text.rstrip("\n") + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CLIENTS))
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="measure again what lies there")
    given = parser.parse_args()
    if unknown := set(given.names) - set(CLIENTS):
        parser.error(f"NAME: expected some of {', '.join(CLIENTS)}, got {', '.join(unknown)}")
    with contextlib.ExitStack() as stack:
        folder = (given.keep or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        (folder / "answers").mkdir(parents=True, exist_ok=True)
        rows, failed = [], []
        for name in given.names or CLIENTS:
            answer = folder / "answers" / f"{name}.json"
            parts = (HERE / "swap.py", HERE / "program.py", HERE / "programs" / f"{name.partition(':')[0]}.py")
            key = {"program": digest(*parts), "cylstm": cylstm_digest(), "rounds": given.rounds}
            kept = json.loads(answer.read_text()) if answer.exists() and not given.again else {}
            if kept.get("key") != key:
                try:
                    python = made_environment(CLIENTS[name].environment, folder)
                    kept = {"key": key, "row": measured(name, python, folder, given.rounds)}
                except (RuntimeError, AssertionError, subprocess.CalledProcessError) as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    failed.append(name)
                    continue
                answer.write_text(json.dumps(kept))
            row = kept["row"]
            print(f"{name}: {row['apart']:.1g} apart, {row['seconds']}", file=sys.stderr)
            rows.append(row)
            if not row["apart"] <= max(BOUND, 30 * row["moved"]):
                failed.append(name)
    write("\n".join(table(rows)), given.out)
    if failed:
        sys.exit(f"did not run, or numbers further apart than rounding takes them: {', '.join(failed)}")


if __name__ == "__main__":
    main()
