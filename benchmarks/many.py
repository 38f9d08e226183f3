"""What do many small models cost at once, beside a `fit` for each? `python -m benchmarks.many [--models N] [--rounds N]
[--hidden H ...] [--batch B ...] [--steps T] [--out FILE]`.

Each model has a series of its own: float32, one feature in and one out, Adam, clipping. Three kinds of runs: one update
and no more, where what a `fit` costs at least is most of it; one update in each of 50 epochs, where what an epoch costs
counts; and 50 updates in one epoch. Contenders take turns, on one thread and on two: `Models.fit`; a `Model.fit` each;
and those by joblib's two workers, which are warm, with one thread each. Weights are compared before anything is timed.
Needs joblib.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np

import cylstm
from benchmarks import compare, timer
from cylstm import Adam, Models

# Epochs, updates in each, and how many times as many models: the shorter, the more.
RUNS = {"1 update": (1, 1, 8), "50 epochs of 1": (50, 1, 1), "1 epoch of 50": (1, 50, 1)}


def fitted(model, x, y, options):
    model.fit(x, y, optimizer=Adam(), **options)
    return model.parameters.raw().copy()


def worker(model, x, y, options):
    cylstm.set_num_threads(1)
    return fitted(model, x, y, options)


def contenders(H, B, T, count, epochs, updates, pool):
    """Name -> a function that trains new models and returns the seconds that took, without making them."""
    rng = np.random.default_rng(0)
    x = np.sin(rng.uniform(0, 6, (count, B * updates, 1)) + 0.3 * np.arange(T + 1)).astype(np.float32)[..., None]
    x, y = x[:, :, :-1], x[:, :, 1:]
    options = dict(epochs=epochs, batch_size=B, progress=False)
    begun = Models(1, H, 1, seeds=range(count), loss="mse")
    models, alone = Models.of(begun), list(begun)

    def reset():
        models.flat[:] = begun.flat
        for n, model in enumerate(alone):
            model.parameters.flat = begun.flat[n]

    def timed(call):
        def run():
            reset()
            start = time.perf_counter()
            found = call()
            return time.perf_counter() - start, found

        return run

    def by_joblib():
        import joblib

        return pool(joblib.delayed(worker)(*each, options) for each in zip(alone, x, y, strict=True))

    def together():
        models.fit(x, y, optimizer=Adam(), **options)
        return models.flat.copy()

    return {
        "Models.fit": timed(together),
        "Model.fit each": timed(lambda: [fitted(*each, options) for each in zip(alone, x, y, strict=True)]),
        "joblib": timed(by_joblib),
    }


def measured(ways, count, rounds):
    """Milliseconds per model, by threads and name: medians."""
    answers = {name: call()[1] for name, call in ways.items()}
    for name, found in answers.items():
        assert np.array_equal(answers["Models.fit"], np.array(found)), f"{name}: expected the same weights, got others"
    times = {}
    for _ in range(rounds):
        for threads in (1, 2):
            cylstm.set_num_threads(threads)
            for name, call in ways.items():
                if threads == 2 or name != "joblib":
                    times.setdefault(str(threads), {}).setdefault(name, []).append(call()[0])
    return {threads: {name: 1e3 * statistics.median(found) / count for name, found in of.items()}
            for threads, of in times.items()}  # fmt: skip


def table(rows):
    """As Markdown: milliseconds per model, and how many times as long the others take."""
    made = []
    for row in rows:
        cells = {"run": row["run"], "H, B": f"{row['H']}, {row['B']}"}
        for threads, before in (("1", ""), ("2", "two threads: ")):
            ms = row["milliseconds"][threads]
            ours, each = ms["Models.fit"], ms["Model.fit each"]
            cells |= {f"{before}Models.fit": f"{ours:.3g}", f"{before}Model.fit each": f"{each:.3g}",
                      f"{before}ratio": f"{each / ours:.1f}"}  # fmt: skip
        two = row["milliseconds"]["2"]
        made.append(cells | {"joblib, 2 workers": f"{two['joblib']:.3g}",
                             "joblib, ratio": f"{two['joblib'] / two['Models.fit']:.1f}"})  # fmt: skip
    return compare.lines(made)


def main():
    import joblib

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of joblib's workers
    rows = []
    with joblib.Parallel(n_jobs=2) as pool:
        for run, (epochs, updates, times) in RUNS.items():
            for H, B in itertools.product(given.hidden, given.batch):
                count = given.models * times
                found = measured(contenders(H, B, given.steps, count, epochs, updates, pool), count, given.rounds)
                rows.append({"run": run, "H": H, "B": B, "models": count, "milliseconds": found})
                print(table(rows[-1:]), flush=True)
    if given.out:
        given.out.write_text(json.dumps({"machine": timer.machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
