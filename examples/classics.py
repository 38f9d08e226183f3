"""How many sequences an LSTM needs to learn the tasks by which LSTMs were introduced: `python -m examples.classics`.

Each task is learnt from some seeds, one sequence at a time and in batches, until the paper's own criterion holds
(classic_tasks.py). The table that is printed is the one in docs/classics.md, the picture is that beside it.
"""

import argparse
import sys
from typing import NamedTuple

import numpy as np

import cylstm
from examples.classic_tasks import LINKS, TASKS, LastSequences


class Paper(NamedTuple):
    """What a paper says: `sequences`, the mean number until success, or infinity, of the `share` of its nets that
    succeeded, per cent; `cells` is the size of these. A run of ours is given up at `limit` sequences."""

    title: str
    cells: int
    sequences: float
    limit: int
    share: int = 100


class Recipe(NamedTuple):
    """Sequences to an update, cells, Adam's rate, and what the biases of two gates begin with."""

    B: int
    H: int
    lr: float
    forget_bias: float = 1.0
    input_bias: float = 0.0


PAPERS = {
    "reber": Paper("Embedded Reber grammar", 6, 8440, 30_000),
    "adding": Paper("Adding, T = 100", 4, 74_000, 200_000),
    "order": Paper("Temporal order, 4 classes", 4, 31_390, 100_000),
    "continual": Paper("Continual Reber grammar", 8, 14_087, 30_000, 62),
    "without": Paper("The same without forget gates", 8, np.inf, 30_000, 0),
}
# A forget gate whose bias is 30 is 1, and stays it: in float32 that takes no more than 17.
RECIPES = {
    "reber": [Recipe(1, 12, 0.01), Recipe(8, 12, 0.03)],
    "adding": [Recipe(1, 4, 0.003, 5.0, -4.0), Recipe(8, 4, 0.02, 5.0, -4.0)],
    "order": [Recipe(1, 4, 0.01, 5.0, -4.0), Recipe(8, 4, 0.02, 5.0, -4.0)],
    "continual": [Recipe(1, 8, 0.01), Recipe(4, 12, 0.02)],
    "without": [Recipe(4, 12, 0.02, 30.0)],
}


def train(task, recipe, seed, limit):
    """Until the task is solved: how many sequences that took, or infinity, and the model."""
    B, H, lr, forget_bias, input_bias = recipe
    trial, link, (inputs, outputs) = task(np.random.default_rng([seed, 1]), B), LINKS[task.loss], task.sizes
    model = cylstm.Model(inputs, H, outputs, output=task.output, loss=task.loss, forget_bias=forget_bias, seed=seed)
    model.parameters["lstm.bias_l0"][:H] = input_bias
    optimizer = cylstm.Adam(lr)
    while trial.seen < limit:
        x, target, how = trial.batch()
        y, state, tape = model.forward(x, **how)
        error = link(y) - target  # the loss's slope, too: of squares / 2, and of both cross entropies
        counts = trial.judge(error, state)
        slopes = np.where(counts[..., None], error, 0) / counts.sum()
        optimizer.update(model.parameters, model.backward(tape, slopes, input_gradient=False).parameters)
        if trial.solved(model):
            return trial.seen, model
    return np.inf, model


def table(found):
    """What was found, {(task, recipe): sequences of each seed}, in Markdown, beside the papers' figures."""
    rows = [["", "paper: cells", "sequences, mean", "cylstm: cells", "batch", "solved", "sequences, median", "range"],
            ["---"] * 8]  # fmt: skip
    for (name, recipe), sequences in found.items():
        paper, solved = PAPERS[name], np.isfinite(sequences)
        figure = number(paper.sequences) + (f" ({paper.share} % of nets)" if 0 < paper.share < 100 else "")
        median, low, high = map(number, (np.median(sequences), min(sequences), max(sequences)))
        rows.append([paper.title, str(paper.cells), figure, str(recipe.H), str(recipe.B),
                     f"{solved.sum()} of {len(solved)}", median, f"{low} to {high}"])  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def number(sequences):
    """2,304, or never."""
    return f"{sequences:,.0f}" if np.isfinite(sequences) else "never"


def draw(found, path):
    """A point for each seed that succeeded, and how many did, beside the paper's figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.5 + 0.5 * len(found)), layout="constrained")
    axis = figure.subplots()
    for y, ((name, _), sequences) in enumerate(found.items()):
        solved = [n for n in sequences if np.isfinite(n)]
        axis.plot([PAPERS[name].sequences] * 2, [y - 0.3, y + 0.3], color="black", lw=3, label="the paper's mean")
        axis.plot(solved, [y] * len(solved), "o", color="tab:blue", alpha=0.5, label="cylstm, each seed")
        axis.plot(np.median(sequences), y, "|", color="tab:orange", ms=22, mew=3, label="cylstm, median")
        axis.annotate(f"{len(solved)} of {len(sequences)}", (1.01, y), xycoords=("axes fraction", "data"), va="center")
    axis.set_yticks(range(len(found)), [f"{PAPERS[name].title}\nbatch {recipe.B}" for name, recipe in found])
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("sequences until the task was solved (at the right: how many seeds solved it)")
    axis.set_title("Sequences that the classic tasks take, beside the papers' figures")
    axis.grid(axis="x", which="both", alpha=0.3)
    axis.legend(*(part[:3] for part in axis.get_legend_handles_labels()), loc="upper right")
    figure.savefig(path)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m examples.classics", description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"{', '.join(TASKS)}; all by default")
    parser.add_argument("--seeds", type=int, default=10, help="0 to so many (10)")
    parser.add_argument("--picture", metavar="PATH", help="draw it there, .svg or .png (needs matplotlib)")
    given = parser.parse_args(arguments)
    unknown = set(given.tasks) - set(TASKS)
    if unknown or given.seeds < 1:
        parser.error(f"expected tasks of {', '.join(TASKS)} and seeds >= 1, got {given.tasks} and {given.seeds}")
    found = {}
    for name in given.tasks or TASKS:
        for recipe in RECIPES[name]:
            for seed in range(given.seeds):
                sequences, model = train(TASKS[name], recipe, seed, PAPERS[name].limit)
                found.setdefault((name, recipe), []).append(sequences)
                said = f"{name} {recipe} seed {seed}: {number(sequences)}"
                if issubclass(TASKS[name], LastSequences) and np.isfinite(sequences):
                    test = TASKS[name](np.random.default_rng([seed, 2]), 1)
                    said += f", then {test.wrong(model)} of 2560 wrong"
                print(said, file=sys.stderr, flush=True)
    print(table(found))
    if given.picture:
        draw(found, given.picture)


if __name__ == "__main__":
    main()
