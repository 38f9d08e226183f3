"""What would many ranks gain? A model of compute and network: `python -m benchmarks.simulated_ranks [--out FILE]`.

Each rank is a machine of its own with one thread. What an update takes there is measured here, for batches from the
shape's B rows down to one. The exchange is that of `cylstm.training.parallel`: with R ranks and n bytes of gradients,

    2 ((R - 1) latency + (R - 1) / R n / bandwidth) + n / memory + 6 ceil(log2 R) latency:

each rank sends every other its section (`Alltoallv`), adds up R sections of n / R, sends its sum to all (`Allgatherv`),
and takes part in six exchanges of a few bytes. Nothing overlaps. Ranks wait for the slowest: of R whose times spread
normally by `SPREAD`, the expected one is about sqrt(2 ln R) spreads behind the mean.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np

from benchmarks import compare, timer
from benchmarks.ranks import data_of, model_of
from benchmarks.shapes import BY_NAME

SHAPES = ("char512", "word", "word1500")
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
NETWORKS = {
    "10 Gbit/s": (10e9 / 8, 20e-6),
    "100 Gbit/s": (100e9 / 8, 2e-6),
}  # bytes/s; seconds until a message is there
MEMORY = 10e9  # bytes/s of adding up
SPREAD = 0.02  # of a rank's time
PAYS = 0.5  # of the ideal: below, half of the machines are bought for nothing


def exchange(ranks, size, bandwidth, latency):
    """Seconds until all ranks have the sum of `size` bytes."""
    if ranks == 1:
        return 0.0
    moved = 2 * ((ranks - 1) * latency + (ranks - 1) / ranks * size / bandwidth)
    return moved + size / MEMORY + 6 * math.ceil(math.log2(ranks)) * latency


def update(ranks, rows, times, size, network):
    """Seconds of an update in which each rank has so many rows; of fewer than one, some ranks have none.

    times : {rows: seconds} as measured, between which it is linear.
    """
    known = sorted(times)
    compute = float(np.interp(max(1, math.ceil(rows)), known, [times[n] for n in known]))
    slowest = 1 + SPREAD * math.sqrt(2 * math.log(ranks)) if ranks > 1 else 1.0
    return compute * slowest + exchange(ranks, size, *NETWORKS[network])


def simulated(shape, times, size, network):
    """For each number of ranks: weak and strong efficiency, 1 is the ideal."""
    alone = times[shape.B]
    for ranks in RANKS:
        weak = alone / update(ranks, shape.B, times, size, network)
        strong = alone / update(ranks, shape.B / ranks, times, size, network) / ranks
        yield ranks, weak, strong


def measured(shape):
    """{rows: seconds} of an update by one thread, and the bytes of its gradients."""
    from benchmarks.lm import update as update_of

    contenders, rows = {}, shape.B
    x, y, _ = data_of(shape, 1, "alone", 1)
    model = model_of(shape)
    while rows:
        contenders[rows] = update_of(model, x[:rows], y[:rows])
        rows //= 2
    found = timer.interleaved(contenders, seconds=2.0, rounds=5)
    return {rows: one["median"] for rows, one in found.items()}, model.parameters.raw().nbytes


def table(rows):
    """In Markdown: how many times as fast as one rank, with as many rows for each (weak) or for all (strong)."""
    made = []
    for row in rows:
        shape, times = BY_NAME[row["shape"]], {int(n): seconds for n, seconds in row["seconds"].items()}
        for network in NETWORKS:
            found = list(simulated(shape, times, row["bytes"], network))
            for place, kind in ((1, "weak"), (2, "strong")):
                gains = {str(one[0]): f"{one[0] * one[place]:.3g}" for one in found[1:]}
                pays = max(one[0] for one in found if one[place] >= PAYS)
                made.append({"shape": shape.name, "network": network, "": kind, **gains, "pays until": pays})
    return compare.lines(made)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulated_ranks", description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, choices=SHAPES)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    import cylstm

    cylstm.set_num_threads(1)
    rows = []
    for name in given.shapes:
        times, size = measured(BY_NAME[name])
        rows.append({"shape": name, "bytes": size, "seconds": times})
    print(table(rows))
    if given.out:
        given.out.write_text(json.dumps({"machine": timer.machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
