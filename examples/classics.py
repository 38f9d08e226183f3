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
    title: str
    figure: int  # mean number of sequences until success
    cells: int
    limit: int  # where a run is given up


class Recipe(NamedTuple):
    """Of Adam, `lr`; of the gates, the biases to begin with: open to remember, closed to what is noise."""

    B: int
    H: int
    lr: float
    forget_bias: float = 1.0
    input_bias: float = 0.0


PAPERS = {
    "reber": Paper("Embedded Reber grammar", 8440, 6, 30_000),
    "adding": Paper("Adding, T = 100", 74_000, 4, 200_000),
    "order": Paper("Temporal order, 4 classes", 31_390, 4, 100_000),
    "continual": Paper("Continual Reber grammar", 14_087, 8, 30_000),
}
NO_FORGETTING = 30.0  # a forget gate's bias, for a gate that is 1, and whose gradient is 0, in float32
RECIPES = {
    "reber": [Recipe(1, 12, 0.01), Recipe(8, 12, 0.03)],
    "adding": [Recipe(1, 4, 0.003, 5.0, -4.0), Recipe(8, 4, 0.02, 5.0, -4.0)],
    "order": [Recipe(1, 4, 0.01, 5.0, -4.0), Recipe(8, 4, 0.02, 5.0, -4.0)],
    "continual": [Recipe(1, 8, 0.01), Recipe(4, 12, 0.02), Recipe(4, 12, 0.02, NO_FORGETTING)],
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


def table(found, wrong):
    """What was found, {(task, recipe): sequences of each seed}, in Markdown, beside the papers' figures; and how many
    of 2560 sequences each network then got wrong, where there is such a test."""
    rows = [["", "paper: cells", "sequences", "cylstm: cells", "batch", "solved", "sequences, median", "range",
             "wrong of 2560, at most"], ["---"] * 9]  # fmt: skip
    for (name, recipe), sequences in found.items():
        paper, solved = PAPERS[name], np.isfinite(sequences)
        title, figure = paper.title, f"{paper.figure:,}"
        if recipe.forget_bias == NO_FORGETTING:
            title, figure = f"{title}, no forget gates", "never"
        median, low, high = map(number, (np.median(sequences), min(sequences), max(sequences)))
        of_test = str(max(wrong[name, recipe])) if wrong.get((name, recipe)) else ""
        rows.append([title, str(paper.cells), figure, str(recipe.H), str(recipe.B),
                     f"{solved.sum()} of {len(solved)}", median, f"{low} to {high}", of_test])  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def number(sequences):
    """2,304, or never."""
    return f"{sequences:,.0f}" if np.isfinite(sequences) else "never"


def draw(found, path):
    """A point for each seed, beside the paper's figure; those that were given up are not drawn."""
    from matplotlib.figure import Figure

    shown = {key: sequences for key, sequences in found.items() if np.isfinite(sequences).any()}
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(shown)), layout="constrained")
    axis = figure.subplots()
    for y, ((name, _), sequences) in enumerate(shown.items()):
        axis.plot([PAPERS[name].figure] * 2, [y - 0.3, y + 0.3], color="black", lw=3, label="the paper's mean")
        axis.plot(sequences, [y] * len(sequences), "o", color="tab:blue", alpha=0.5, label="cylstm, one seed")
        axis.plot(np.median(sequences), y, "|", color="tab:blue", ms=22, mew=2.5, label="cylstm, median")
    axis.set_yticks(range(len(shown)), [f"{PAPERS[name].title}\nbatch {recipe.B}" for name, recipe in shown])
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("sequences until the task was solved")
    axis.set_title("Sequences that the classic tasks took, beside the papers' figures")
    axis.grid(axis="x", which="both", alpha=0.3)
    axis.legend(*zip(*list(zip(*axis.get_legend_handles_labels(), strict=True))[:3], strict=True), loc="lower right")
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
    found, wrong = {}, {}
    for name in given.tasks or TASKS:
        for recipe in RECIPES[name]:
            for seed in range(given.seeds):
                sequences, model = train(TASKS[name], recipe, seed, PAPERS[name].limit)
                found.setdefault((name, recipe), []).append(sequences)
                if issubclass(TASKS[name], LastSequences) and np.isfinite(sequences):
                    test = TASKS[name](np.random.default_rng([seed, 2]), 1)
                    wrong.setdefault((name, recipe), []).append(test.wrong(model))
                print(f"{name} {recipe} seed {seed}: {number(sequences)}", file=sys.stderr, flush=True)
    print(table(found, wrong))
    if given.picture:
        draw(found, given.picture)


if __name__ == "__main__":
    main()
