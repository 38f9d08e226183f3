"""The tables of docs/performance.md and the README, written from benchmarks/results: `python -m benchmarks compare`.

A table stands between `<!-- compare: NAME -->` and `<!-- end -->`; its NAME is one of blocks().
"""

import json
import re
from pathlib import Path

from benchmarks import compare, crowded, kernels, many, ranks, sessions, simulated_ranks
from benchmarks.shapes import BY_NAME, SHAPES

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
DOCS = "ctc", "many", "performance", "precision", "scale", "variants"
PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in DOCS))
MARKED = re.compile(r"(<!-- compare: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
LEFT_OUT = {"avx2": ("onnxruntime", "jax")}  # they cannot be held to it

# What the README shows of all: question, shape, and what that is in words.
TOUR = (
    ("inference", "audio", "inference: an amplifier's sound"),
    ("inference", "series", "inference: forecasts of sensors"),
    ("inference", "word", "inference: text by words"),
    ("training", "series", "training: forecasts of sensors"),
    ("training", "hydro", "training: rainfall and runoff"),
    ("training", "char512", "training: text by letters"),
    ("streaming", "step32", "one step of a small stream"),
    ("streaming", "step256", "one step of a large one"),
    ("lm", "word", "one update of a language model, 10 000 words"),
    ("swap", "char", "one update in a PyTorch script"),
)


def tour(answers):
    """The README's rows: our time and the best peer's on one thread, theirs over ours on one and on two."""
    for question, shape, words in TOUR:
        one, two = (next(r for r in answers[question] if (r["shape"], r["threads"]) == (shape, n)) for n in (1, 2))
        peer, ratio = compare.best_peer(one)
        sizes = BY_NAME[shape]
        yield {"": words, "I, H, L, B, T": f"{sizes.I}, {sizes.H}, {sizes.L}, {sizes.B}, {sizes.T}",
               "cylstm, ms": compare.milliseconds(one, "cylstm"),
               "best peer, ms": f"{compare.milliseconds(one, peer)}, {peer}",
               "best peer / ours": f"{ratio:.2f}", "on two threads": f"{compare.best_peer(two)[1]:.2f}"}  # fmt: skip


def side_by_side(answers):
    """A machine in one table: our time in each question, and how many times as long the fastest peer takes."""
    cells = {}
    for question, column in (("inference", "inference"), ("streaming", "inference"), ("training", "training"),
                             ("lm", "language-model update")):  # fmt: skip
        for row in answers[question]:
            peer, ratio = compare.best_peer(row)
            text = f"{compare.milliseconds(row, 'cylstm')} ms, {ratio:.2f} × {peer}"
            cells.setdefault((row["threads"], row["shape"]), {})[column] = text
    order = list(BY_NAME)
    for threads, shape in sorted(cells, key=lambda key: (key[0], order.index(key[1]))):
        named = {column: cells[threads, shape].get(column, "") for column in
                 ("inference", "training", "language-model update")}  # fmt: skip
        yield {"shape": shape, "threads": threads, **named}


def who(machine):
    """The stamp of a result in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items()
                         if version and name != "cylstm")  # fmt: skip
    return f"{machine['processor']}, {machine['instruction_set']}; Python {machine['python']}, {versions}."


def blocks():
    """NAME -> Markdown of every table that a page may have: QUESTION, FOLDER/QUESTION and some made of several."""
    made = {"shapes": compare.lines([{**shape._asdict(), "name": f"`{shape.name}`"} for shape in SHAPES])}
    apart = json.loads((RESULTS / "scale" / "sessions.json").read_text())
    made["sessions-latency"], made["sessions-machine"] = sessions.latencies(apart["rows"]), who(apart["machine"])
    for of in (crowded, many, ranks, sessions, simulated_ranks):
        name = of.__name__.rpartition(".")[2]
        made[name] = of.table(json.loads((RESULTS / "scale" / f"{name}.json").read_text())["rows"])
    for folder in ("", "avx2", "zen4", "zen5"):
        data = compare.read(RESULTS / folder)
        answers = {question: answer["rows"] for question, answer in data.items()}
        prefix = f"{folder}/" if folder else ""
        for question, rows in answers.items():
            made[prefix + question] = compare.table(rows, LEFT_OUT.get(folder, ()))
        made[f"{prefix}machine"] = who(next(iter(data.values()))["machine"])
        if "kernels" in answers:
            made[f"{prefix}kernels"], made[f"{prefix}grid"] = (
                of(answers["kernels"]) for of in (kernels.table, kernels.grid)
            )
        if "precision" in answers:
            made[f"{prefix}precision-gains"] = compare.lines(list(compare.precision_gains(answers["precision"])))
        if "inference" in answers:
            made[f"{prefix}threads"] = compare.lines(compare.gains(answers))
            made[f"{prefix}summary"] = compare.lines(list(side_by_side(answers)))
        if not folder:
            made["tour"] = compare.lines(list(tour(answers)))
            made["ragged"] = compare.lines(list(compare.ragged_costs(answers["ragged"])))
            growth = [row for row in answers["memory"] if row["shape"].startswith("growth")]
            made["memory"] = compare.table([row for row in answers["memory"] if row not in growth])
            made["growth"] = compare.table(growth)
    return made


def filled(text, tables):
    """A page with its tables as they are now. Raises KeyError for a name that nothing is known of."""
    return MARKED.sub(lambda mark: f"{mark[1]}\n{tables[mark[2]]}\n\n{mark[3]}", text)


def write():
    """Fill all pages."""
    tables = blocks()
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
