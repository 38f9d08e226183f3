"""How does training scale over ranks? `python -m benchmarks.ranks [--shapes NAME ...] [--rounds N] [--out FILE]`.

One update (forward, backward, the sum over ranks, clipping, Adam) by one rank and by several, each with one thread on a
processor of its own, beside PyTorch's DistributedDataParallel with gloo on the same model, data and processors. Weak:
each rank has the shape's B rows. Strong: all together have them. Losses are compared before anything is timed. Needs
mpi4py, an mpiexec beside this Python or on the path, and torch.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import compare, timer
from benchmarks.shapes import BY_NAME

DEFAULT = ("char512", "word", "hydro")
VOCABULARIES = {"char": 65, "char512": 65, "word": 10_000, "word1500": 10_000}
RATE, CLIP, SKIPPED = 1e-3, 5.0, 2  # the first updates are not the steady ones
CASES = ((1, "alone"), (2, "weak"), (2, "strong"))


def data_of(shape, ranks, kind, updates):
    """x and y of so many updates: ids (N, T), or features (N, T, I) and numbers (N, T, 1); and the rows of a batch."""
    rows = shape.B * (ranks if kind == "weak" else 1)
    rng, N = np.random.default_rng(1), rows * updates
    if shape.name in VOCABULARIES:
        ids = rng.integers(0, VOCABULARIES[shape.name], (N, shape.T + 1))
        return ids[:, :-1].copy(), ids[:, 1:].copy(), rows
    x = rng.standard_normal((N, shape.T, shape.I), np.float32)
    return x, x[..., :1].cumsum(axis=1) / 10, rows


def model_of(shape):
    """As `benchmarks lm` has it, or with one output that is a number."""
    from cylstm import Model

    if shape.name not in VOCABULARIES:
        return Model(shape.I, shape.H, 1, num_layers=shape.L, loss="mse", seed=1)
    V = VOCABULARIES[shape.name]
    return Model(V, shape.H, V, num_layers=shape.L, embedding_size=shape.I if V > 1000 else None, seed=1)


# --- one rank ---------------------------------------------------------------------------------------------------------


def ours(shape, ranks, kind, updates, comm, store):
    """Seconds and loss of each update."""
    from cylstm import Adam

    x, y, rows = data_of(shape, ranks, kind, updates)
    times, losses = [time.perf_counter()], []

    def told(event):
        if event.kind == "update":
            times.append(time.perf_counter())
            losses.append(event.loss)

    model_of(shape).fit(x, y, comm=comm if ranks > 1 else None, batch_size=rows, epochs=1, shuffle=False,
                        optimizer=Adam(RATE), clip_norm=CLIP, callbacks=[told], progress=False)  # fmt: skip
    return np.diff(times).tolist(), losses


def torchs(shape, ranks, kind, updates, comm, store):
    """The same with DistributedDataParallel."""
    import torch

    torch.set_num_threads(1)
    x, y, rows = data_of(shape, ranks, kind, updates)
    model = torch_module(shape)
    net = model
    if ranks > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=comm.rank, world_size=ranks)
        net = torch.nn.parallel.DistributedDataParallel(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    adam, mine, times, losses = torch.optim.Adam(parameters, RATE), rows // ranks, [time.perf_counter()], []
    classes = shape.name in VOCABULARIES
    for first in range(0, len(x), rows):
        own = slice(first + comm.rank * mine, first + (comm.rank + 1) * mine)
        out, target = net(torch.from_numpy(x[own])), torch.from_numpy(y[own])
        loss = torch.nn.functional.cross_entropy(out.flatten(0, 1), target.flatten()) if classes else \
            torch.nn.functional.mse_loss(out, target)  # fmt: skip
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        adam.step()
        times.append(time.perf_counter())
        losses.append(loss.item())
    if ranks > 1:
        torch.distributed.destroy_process_group()
    return np.diff(times).tolist(), np.mean(comm.allgather(losses), axis=0).tolist()


def torch_module(shape):
    """The same model with the same weights."""
    import torch

    from benchmarks.peers import torch_lstm

    model = model_of(shape)
    weights = {name: torch.from_numpy(values.copy()) for name, values in model.parameters.items()}

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = torch_lstm(model.lstm), torch.nn.Linear(shape.H, model.output_size)
            self.head.load_state_dict({"weight": weights["head.weight"], "bias": weights["head.bias"]})
            self.table = None
            if model.embedding_size is not None:
                self.table = torch.nn.Embedding.from_pretrained(weights["embedding.weight"], freeze=False)
            for name, bias in self.lstm.named_parameters():  # torch's second bias would make it another model
                bias.requires_grad_(not name.startswith("bias_hh"))

        def forward(self, x):
            if self.table is not None:
                x = self.table(x)
            elif shape.name in VOCABULARIES:
                x = torch.nn.functional.one_hot(x, model.input_size).float()
            return self.head(self.lstm(x)[0])

    return Net()


def one_rank(given):
    """In a process of mpiexec's: prints on the first rank what it measured."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[comm.rank % len(processors)]})
    os.environ["CYLSTM_NUM_THREADS"] = "1"
    run = ours if given["who"] == "cylstm" else torchs
    found = run(BY_NAME[given["shape"]], comm.size, given["kind"], given["updates"], comm, given["store"])
    if comm.rank == 0:
        print(json.dumps(found))


# --- all of them ------------------------------------------------------------------------------------------------------


def measured(who, shape, ranks, kind, updates):
    """The median seconds of an update, and the losses."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory() as folder:
        given = {"who": who, "shape": shape, "kind": kind, "updates": updates, "store": f"{folder}/store"}
        command = [shutil.which("mpiexec", path=beside), "-n", str(ranks), sys.executable, "-m", "benchmarks.ranks",
                   "--one-rank", json.dumps(given)]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    seconds, losses = json.loads(done.stdout)
    return statistics.median(seconds[SKIPPED:]), losses


def run(shapes, rounds, updates):
    """A row for each shape: by contender and case, the medians of `rounds` processes, taken in turn."""
    for shape in shapes:
        found = {}
        for _ in range(rounds):
            for ranks, kind in CASES:
                losses = {}
                for who in ("cylstm", "torch"):
                    seconds, losses[who] = measured(who, shape, ranks, kind, updates)
                    found.setdefault(f"{who} {kind}", []).append(seconds)
                if not np.allclose(losses["torch"], losses["cylstm"], rtol=1e-3):
                    raise AssertionError(
                        f"{shape} {kind}: expected the losses {losses['cylstm']}, got {losses['torch']}"
                    )
        yield {"shape": shape, "updates": updates, "seconds": found}


def table(rows):
    """In Markdown: milliseconds of an update, and how much of the ideal is reached."""
    made = []
    for row in rows:
        for who in ("cylstm", "torch"):
            alone, weak, strong = (statistics.median(row["seconds"][f"{who} {kind}"]) for _, kind in CASES)
            made.append({"shape": row["shape"], "": who, "1 rank, ms": f"{1e3 * alone:.4g}",
                         "2 ranks, weak": f"{1e3 * weak:.4g}", "efficiency": f"{alone / weak:.0%}",
                         "2 ranks, strong": f"{1e3 * strong:.4g}", "gain": f"{alone / strong:.2f}"})  # fmt: skip
    return compare.lines(made)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=DEFAULT, choices=tuple(BY_NAME))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one-rank", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one_rank:
        return one_rank(json.loads(given.one_rank))
    rows = []
    for row in run(given.shapes, given.rounds, given.updates):
        rows.append(row)
        print(table([row]), flush=True)
    if given.out:
        given.out.write_text(json.dumps({"machine": timer.machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
