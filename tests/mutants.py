"""Puts one mistake at a time into the kernels and the Cython core, builds what contains it, and runs the tests.

    python tests/mutants.py [--count 200] [--seed 1] [--minutes 600] [--only FILE ...] [--list]

The share of mistakes that are found says what the tests see. All happens in a copy of the tree, with one instruction
set. A mistake that changes no instruction is none, and another one is drawn.
"""

import argparse
import contextlib
import os
import random
import re
import resource
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parent.parent
MEMORY = 8 << 30  # bytes of addresses: a size that went wrong shall not take the machine's
# One thread where a test does not say how many; and what was printed before a crash is there.
ENVIRONMENT = {"CYLSTM_EMULATE": "amx", "CYLSTM_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

# The tests that matter to a file: cheap and telling ones, and then those for who is left. ISA stands for the set.
GRID = "tests/test_grid.py::test_agrees_with_the_oracle[ISA-{}-{}]"
SMALL = [GRID.format(*case) for case in (("float64", 3), ("float32", 4), ("float32", 1), ("float64", 6))]
LARGE = [GRID.format("float32", n) for n in (0, 2, 5, 8)]
VARIANTS = "tests/test_variants.py::test_agrees_with_the_oracle"
THREADS = ["tests/test_threads.py::test_same_bits_for_any_number_of_threads",
           "tests/test_threads.py::test_same_bits_whichever_layer_each_thread_has_come_to",
           "tests/test_threads.py::test_a_model_learns_the_same_bits"]  # fmt: skip
CELLS = ["cells_stay_within_their_bounds_and_nan_shows", "a_coupled_cell_needs_no_forget_gate",
         "steps_give_the_bits_of_the_whole_and_threads_those_of_one[ISA-float32-all]"]  # fmt: skip
CELLS = [f"tests/test_variants.py::test_{name}" for name in CELLS]
KERNELS, ROUNDING, OPS, MODULE, LAYER = (f"tests/test_{n}.py" for n in ("kernels", "rounding", "ops", "module", "lstm"))
CTC, DECODING = "tests/test_ctc.py", "tests/test_ctc_decoding.py"
DENSE_KERNELS, OPTIM, SEAMS, STEP = (f"tests/test_{n}.py" for n in ("dense_kernels", "optim", "seams", "model_step"))
HEADS = "tests/test_heads.py"
ROOM = [
    "neither_does_a_models",
    "calls_again_reuse_their_memory",
    "a_large_vocabulary_never_has_all_its_logits",
    "memory_begins_on_a_cache_line_and_is_no_larger_than_asked_for",
    "bytes_are_compared_up_to_the_last",
    "what_one_call_needed_waits_for_one_that_needs_about_as_much",
]
ROOM = [f"tests/test_memory_and_gil.py::test_{name}" for name in ROOM]
HEAD = ["linear", "rows_count_by_their_weights", "what_the_head_is_given_must_fit"]
HEAD = [f"{OPS}::test_{name}" for name in HEAD]
# Of the Cython core also with tiles, which are emulated: fast enough for these.
TILED = ["tests/test_tiles.py", GRID.format("float32", 4), GRID.format("float32", 6)]
TILED += [f"{THREADS[0]}[ISA-float32-{case}]" for case in ("rows all", "units all", "units of many rows")]
TILED += [
    f"{OPS}::test_losses_and_their_gradients[ISA-float32-{loss}-300-70-2203-True]" for loss in ("mse", "smoothed")
]
NEWER = [
    f"tests/test_{name}.py"
    for name in ("drops", "layer_norm", "merge", "highway", "widths", "zoneout", "proj_clip", "projection")
]
CORE = ([*SMALL, VARIANTS, LAYER, "tests/test_ragged.py"], [MODULE, *LARGE, *THREADS, *NEWER])
TESTS = {
    "cext/cell/lstm.h": ([*SMALL, VARIANTS], [KERNELS, LAYER, MODULE, *LARGE, *CELLS]),
    "cext/cell/narrow.h": (["tests/test_narrow.py"], SMALL),
    "cext/cell/norm.h": (["tests/test_layer_norm.py"], []),
    "cext/cell/zone.h": (["tests/test_zoneout.py"], []),
    "cext/product/panels.h": ([*SMALL, ROUNDING, OPS], [KERNELS, LAYER, MODULE, *LARGE, *THREADS]),
    "cext/product/unpacked.h": ([MODULE, KERNELS], [*SMALL, *THREADS]),
    "cext/product/gradients.h": ([KERNELS, *SMALL], [OPS, LAYER, *LARGE, *THREADS]),
    "cext/product/pack_weights.h": ([KERNELS, *SMALL, VARIANTS], [OPS, LAYER, MODULE, *LARGE]),
    "cext/activations.h": ([KERNELS, ROUNDING], [*SMALL, OPS]),
    "cext/functions.h": ([DENSE_KERNELS, "tests/test_activations.py"], ["tests/test_dense.py"]),
    "cext/dense.h": ([DENSE_KERNELS], ["tests/test_dense.py"]),
    "cext/loss.h": ([OPS], ["tests/test_losses.py", "tests/test_model.py", "tests/test_train.py"]),
    "cext/ctc.h": ([f"{CTC}::test_loss_and_gradient", CTC], []),
    "cext/optim.h": ([OPS, OPTIM, ROUNDING], ["tests/test_train.py"]),
    "src/cylstm/_core/forward.pyx": CORE,
    "src/cylstm/_core/backward.pyx": CORE,
    "src/cylstm/_core/gradients.pyx": CORE,
    "src/cylstm/_core/packed_rows.pyx": CORE,
    "src/cylstm/_core/network.pyx": CORE,
    "src/cylstm/_core/highway.pyx": (["tests/test_highway.py"], []),
    "src/cylstm/_core/tile_range.pyx": CORE,
    "src/cylstm/_core/packing.pyx": CORE,
    "src/cylstm/_core/ragged.pyx": (
        [*SMALL[:2], LAYER, "tests/test_lstm_arguments.py", "tests/test_ragged.py", "tests/test_model.py"],
        [STEP, SEAMS, MODULE, *THREADS],
    ),
    "src/cylstm/_core/head.pyx": (HEAD, [OPS, HEADS, "tests/test_dense.py", THREADS[2], ROOM[2]]),
    "src/cylstm/_core/blas.pyx": (["tests/test_blas.py", STEP, SEAMS], [OPS, HEADS, MODULE, ROOM[0]]),
    "src/cylstm/_core/updates.pyx": ([f"{OPS}::test_adam", DENSE_KERNELS, OPS, OPTIM], [ROUNDING, THREADS[2]]),
    "src/cylstm/_core/memory.pyx": (
        [SMALL[0], *ROOM, "tests/test_weights.py"],
        [OPS, LAYER, "tests/test_hostile.py"],
    ),
    "src/cylstm/_core/ctc.pyx": ([CTC, DECODING], ["tests/test_interrupt.py"]),
    "src/cylstm/_core/ctc_beam.pyx": ([DECODING], ["tests/test_interrupt.py"]),
}

MISTAKES = [
    (r"(?<=[\w)\]]) \+ (?=[\w(*&])", (" - ", " * ")),
    (r"(?<=[\w)\]]) - (?=[\w(*&])", (" + ",)),
    (r"(?<=[\w)\]]) \* (?=[\w(])", (" + ",)),
    (r" (<|>) (?=[\w(-])", (r" \1= ",)),
    (r" (<|>)= ", (r" \1 ",)),
    (r"(?<=\w)\[([\w.]+(?: [-+] \w+)?)\]", (r"[\1 + 1]", r"[\1 - 1]")),
    (r"(?<![\w.])\d+(?![\w.])", (lambda digits: str(int(digits) + 1),)),
    (r"\bfirst(?=_row\b|\b)", ("last",)),
    (r"\blast(?=_row\b|\b)", ("first",)),
    (r"\bc_prev\b", ("c",)),
    (r"(?<![\w.])c\b(?!_)", ("c_prev",)),
    (r"\+ LANES\b", ("+ 2 * LANES",)),
    (r"\b2 \* LANES\b", ("LANES",)),
    (r"\b3 \* LANES\b", ("2 * LANES",)),
    (r"(?:(?<=[=,?:] )|(?<=\())-(?=[\w(])", ("",)),
    (r"(?<![;\w] )(?<![\w.*\[\]])\*?[\w.]+(?:\[[^\]]*\])? [-+*]= [^;,\n]+(?:;|$)", ("NOTHING",)),
    (r"\bmin(?=\()", ("max",)),
    (r"\bmax(?=\()", ("min",)),
]
# What is no code, or declares without computing; and functions whose answer decides how fast, never what.
NO_C = r"""/\*.*?\*/|"[^"\n]*"|^[ ]*\#(?:[^\n]*\\\n)*[^\n]*|^(?:static|INLINE|typedef)[^{;]*|^[ ]*[\w ]+ [^=;()]*;$"""
NO_CYTHON = (
    r'""".*?"""|"[^"\n]*"|\#[^\n]*|^(?:from|cimport|import)\ (?:[^\n(]*\([^)]*\)|[^\n]*)'
    r"|^cdef\ \w+\ (?:rows_at_once|best_by_rows|inputs_by_steps|team_size)\(.*?\n\n\n"
    r"|^[ ]*(?:cdef|def)\ [\w *]+\(.*?:\n|^[ ]*cdef\ [^=\n]*$|\[::1\]|\[real\]"
)
# Mistakes that cannot change a result, by what the line is then, and why.
NO_MISTAKES = [
    (r"goes_on|\bbeat\b", "when Ctrl-C is heard"),
    (r"threads_for\(", "how many threads there are"),
    (r"^    [A-Z_]+ = \d+", "how work is cut into pieces"),
    (r"__builtin_prefetch", "what is in the cache"),
    (r"load_part\)\(.*, 1\)", "what stands in lanes that nobody reads"),
    (r">= (best|max)|z >= 0 \? z : 0", "which of equal numbers is the largest"),
    (r"LANES < (end \?|n;)", "whether the last whole vector is read as one"),
]


def candidates(name):
    """(line number, the line, the line with a mistake) of every mistake in a file."""
    source = (ROOT / name).read_text()
    besides = NO_CYTHON if name.endswith(".pyx") else NO_C
    code = re.sub(besides, lambda m: re.sub(r"[^\n]", "\0", m[0]), source, flags=re.DOTALL | re.MULTILINE)
    found = []
    for number, (line, visible) in enumerate(zip(source.split("\n"), code.split("\n"), strict=True)):
        for pattern, others in MISTAKES:
            for place in re.finditer(pattern, visible):
                for other in others:
                    instead = other(place[0]) if callable(other) else place.expand(other)
                    instead = instead.replace("NOTHING", "pass" if name.endswith(".pyx") else ";")
                    wrong = line[: place.start()] + instead + line[place.end() :]
                    if not any(re.search(known, wrong) for known, _ in NO_MISTAKES):
                        found.append((number, line, wrong))
    return found


def drawn(names, seed):
    """Mistakes without end of the files in turn, as often as a file is long; those of one file in a random order."""
    rng = random.Random(seed)
    left = {name: rng.sample(found, len(found)) for name in names if (found := candidates(name))}
    sizes = {name: len((ROOT / name).read_text().split("\n")) for name in left}
    while left:
        (name,) = rng.choices(list(left), [sizes[name] for name in left])
        yield name, *left[name].pop()
        if not left[name]:
            del left[name]


class Tree:
    """A copy of the tree, built once, and the commands that built it, to be given again one by one."""

    def __init__(self, folder):
        self.folder = folder
        names = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(names, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\0"):
            if name and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        setup = folder / "setup.py"
        setup.write_text(setup.read_text().replace('"-O3"', '"-O1"'))
        build = [sys.executable, "setup.py", "build_clib", "build_ext", "--inplace"]
        self.environment = {**os.environ, "PYTHONPATH": str(folder / "src"), **ENVIRONMENT}
        log = self.run(build)
        if log.returncode:
            sys.exit(log.stdout + log.stderr)
        lines = (log.stdout + log.stderr).splitlines()
        self.commands = [shlex.split(line) for line in lines if re.search(r" (-o|rcs) .*\.(o|so|a)\b", line)]
        told = {}
        tell = mock.patch("Cython.Build.cythonize", lambda _, **options: told.update(options))
        with tell, mock.patch("setuptools.setup"):
            runpy.run_path(str(setup))
        directives = (f"-X{name}={value}" for name, value in told["compiler_directives"].items())
        self.cython = [sys.executable, "-m", "cython", "-Isrc", *directives]
        code = "from cylstm._core import kernels; print(*kernels.available())"
        self.sets = self.run([sys.executable, "-c", code], check=True).stdout.split()
        self.isa = [isa for isa in self.sets if isa != "amx"][-1]

    def run(self, command, **options):
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, **options)

    def module(self, name):
        """Where a file is compiled into. Only `kernels` contains kernels: the others reach them through its pointer."""
        return "kernels" if name.startswith("cext") else Path(name).stem

    def library(self, name):
        return self.folder / "src" / "cylstm" / "_core" / (self.module(name) + sysconfig.get_config_var("EXT_SUFFIX"))

    def build(self, name):
        """The object code of what a file is compiled into, None where it does not compile, and the module's library."""
        kernels, library = name.startswith("cext"), self.library(name)
        source = f"cext/isa/{self.isa}.c" if kernels else f"src/cylstm/_core/{self.module(name)}.c"
        compiled = next(c for c in self.commands if source in c)
        steps = [compiled] if kernels else [[*self.cython, "-o", source, name], compiled]
        if kernels:
            steps.append(next(c for c in self.commands if c[-1].endswith(f"isa/{self.isa}.o")))
        linked = next(c for c in self.commands if c[c.index("-o") + 1 if "-o" in c else 0].endswith(f"/{library.name}"))
        steps.append([str(library) if part.endswith(f"/{library.name}") else part for part in linked])
        if any(self.run(step).returncode for step in steps):
            return None, None
        return (self.folder / compiled[compiled.index("-o") + 1]).read_bytes(), library.read_bytes()

    def found_by(self, tests, limit, isa):
        """The test that fails, hangs or crashes with one instruction set, or None."""
        tests = [test.replace("ISA", isa) for test in tests]
        command = [sys.executable, "-m", "pytest", "-x", "-v", "--tb=no", "-p", "no:cacheprovider", *tests]
        command += ["-k", " and ".join(f"not {name}" for name in self.sets if name != isa)]

        def alone():
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        with tempfile.TemporaryFile("w+") as output:
            options = dict(stdout=output, stderr=output, start_new_session=True, preexec_fn=alone)
            process = subprocess.Popen(command, cwd=self.folder, env={**self.environment, "CYLSTM_ISA": isa}, **options)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(limit)
            status = process.poll()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what its tests started
            process.wait()
            if status == 0:
                return None
            how = {None: " (hangs)", 1: ""}.get(status, " (crashes)")
            output.seek(0)
            begun = re.findall(r"^(tests/\S+::.+?)(?: [PFES][A-Z]{4,6} .*| *Fatal.*)?$", output.read(), re.M)
            return (begun[-1] if begun else "the first import") + how


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="how many mistakes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600, help="begin none after so long")
    parser.add_argument("--only", nargs="+", default=list(TESTS), choices=list(TESTS), metavar="FILE")
    parser.add_argument("--list", action="store_true", help="show the mistakes and change nothing")
    options = parser.parse_args()
    mistakes = drawn(options.only, options.seed)
    if options.list:
        for (name, number, line, wrong), _ in zip(mistakes, range(options.count), strict=False):
            print(f"{name}:{number + 1}: {line.strip()}  ->  {wrong.strip()}")
        return
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        print(f"built after {time.monotonic() - begin:.0f} s, for {tree.isa}", flush=True)
        start = time.monotonic()
        every = dict.fromkeys(t for name in options.only for stage in TESTS[name] for t in stage)
        tiled = [(TILED, "amx")] if "amx" in tree.sets else []
        for tests, isa in [(every, tree.isa), *tiled]:
            if broken := tree.found_by(tests, 3600, isa):
                sys.exit(f"{broken} fails without any mistake")
        whole = time.monotonic() - start
        print(f"all tests take {whole:.0f} s", flush=True)
        original, results = {}, []
        for name, number, line, wrong in mistakes:
            if len(results) == options.count or time.monotonic() - begin > 60 * options.minutes:
                break
            if name not in original:
                original[name] = tree.build(name)
            path = tree.folder / name
            source = path.read_text()
            before, after = source.split("\n")[:number], source.split("\n")[number + 1 :]
            path.write_text("\n".join([*before, wrong, *after]))
            compiled, _ = tree.build(name)
            path.write_text(source)
            if compiled not in (None, original[name][0]):
                quick, rest = TESTS[name]
                stages = [(quick, tree.isa), *(tiled if name.startswith("src") else []), (rest, tree.isa)]
                found = next(filter(None, (tree.found_by(tests, 60 + 2 * whole, isa) for tests, isa in stages)), None)
                results.append(found)
                print(f"{name}:{number + 1}: {line.strip()}  ->  {wrong.strip()}  {found or 'SURVIVED'}", flush=True)
            tree.library(name).write_bytes(original[name][1])
        share = sum(map(bool, results)) / max(1, len(results))
        print(f"{len(results)} mistakes, {share:.1%} found, after {(time.monotonic() - begin) / 60:.0f} minutes")
    sys.exit(share < 0.95)


if __name__ == "__main__":
    main()
