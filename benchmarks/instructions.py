"""The guard of speed: instructions of a fixed set of calls under callgrind, against a budget that is kept in git.

    python -m benchmarks.instructions [--write] [--budget FILE]

The same binary and the same inputs give the same count, whatever else the machine does. A call that takes over 2 % more
than its budget fails; a change that is worth it lands with a new budget. Counts depend on compiler, Python and NumPy
too: the budget says which they were, and a difference is printed first. It is compared all the same, so that
the guard can always fail; where a difference is to blame, count the commit before with the same tools (--write --budget
before.json) and compare with that.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from cylstm._core import kernels

BUDGET = Path(__file__).with_suffix(".json")
LIMIT = 2  # percent
MISSING = "valgrind: expected the program on the path, found none (Debian: apt-get install valgrind)"


def run_under_callgrind(folder):
    """Run benchmarks.calls, leaving a file in `folder` each time it asks who started it; returns what it printed."""
    command = ["valgrind", "-q", "--tool=callgrind", "--dump-before=getppid", f"--callgrind-out-file={folder}/part",
               sys.executable, "-m", "benchmarks.calls"]  # fmt: skip
    # Nothing of the caller's environment: even its size moves the stack.
    environment = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def total(path):
    """The number of instructions in one of callgrind's files."""
    return int(re.search(r"^totals: (\d+)$", path.read_text(), re.MULTILINE).group(1))


def count():
    """Instructions per call by name, and the conditions they depend on."""
    with tempfile.TemporaryDirectory() as folder:
        ran = run_under_callgrind(folder)
        repetitions = ran["repetitions"]
        parts = [Path(folder, f"part.{n + 1}") for n in range(2 * len(repetitions))]
        if len(list(Path(folder).glob("part.*"))) != len(parts):
            raise RuntimeError(f"callgrind: expected {len(parts)} files, got {sorted(os.listdir(folder))}")
        # The first of each two holds the warm-up, and what came before it.
        counts = {name: total(part) // n for (name, n), part in zip(repetitions.items(), parts[1::2], strict=True)}
    valgrind = subprocess.run(["valgrind", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return counts, {
        "instruction_set": ran["instruction_set"],
        "compiler": compilers(Path(kernels.__file__)),
        "blas": ran["blas"],
        "python": sys.version.split()[0],
        "numpy": metadata.version("numpy"),
        "valgrind": valgrind,
    }


def compilers(library):
    """The compilers that made a shared library, in their own words, which they leave in it."""
    found = re.findall(rb"GCC: \([^\0]*?\) [\d.]+|clang version [\d.]+", library.read_bytes())
    return ", ".join(sorted({words.decode() for words in found})) or "unknown"


def differences(budget, now):
    """One sentence for each condition that is not the budget's."""
    return [
        f"{name}: the budget was counted with {budget.get(name)}, this is {now.get(name)}"
        for name in sorted(budget.keys() | now.keys())
        if budget.get(name) != now.get(name)
    ]


def compare(budget, counts):
    """Both name -> instructions. Returns what fails and what has become better than its budget, as sentences."""
    failures = [f"{name}: in the budget, but not counted" for name in budget if name not in counts]
    better = []
    for name, instructions in counts.items():
        if name not in budget:
            failures.append(f"{name}: counted, but not in the budget")
            continue
        change = 100 * (instructions - budget[name]) / budget[name]
        if change > LIMIT:
            failures.append(f"{name}: {change:+.1f} %, at most {LIMIT:+} % allowed")
        elif change < -LIMIT:
            better.append(f"{name}: {change:+.1f} %, lower the budget")
    return failures, better


def table(budget, counts):
    """Budget, count and change of each call, as lines."""
    lines = [f"{'call':28} {'budget':>12} {'now':>12} {'change':>9}"]
    for name, instructions in counts.items():
        before = budget.get(name)
        change = "" if before is None else f"{100 * (instructions / before - 1):+.2f} %"
        lines.append(f"{name:28} {before or '':>12} {instructions:>12} {change:>9}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make these counts the budget")
    parser.add_argument("--budget", type=Path, default=BUDGET, metavar="FILE")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit(MISSING)
    counts, conditions = count()
    if arguments.write:
        arguments.budget.write_text(json.dumps({"conditions": conditions, "instructions": counts}, indent=1) + "\n")
        print(f"{arguments.budget}: written")
        return
    budget = json.loads(arguments.budget.read_text())
    failures, better = compare(budget["instructions"], counts)
    print("\n".join([*differences(budget["conditions"], conditions), table(budget["instructions"], counts), *better]))
    if failures:
        sys.exit("\n".join(["more instructions than the budget allows:", *failures]))


if __name__ == "__main__":
    main()
