"""Does it count? a^n b^n as in the notes: trained on n <= 10 with 50 hidden units, asked up to n = 30.

    python -m benchmarks.anbn [--seeds 5] [--out benchmarks/results/anbn.json]

After the first b every token of a^n b^n is determined, the end included; a string counts if all of them are predicted.
"""

import argparse
import json

import numpy as np

from benchmarks.timer import machine
from cylstm import Adam, Cosine, Model, Vocabulary, data

TRAINED, ASKED = 10, 30
EPOCHS = 1000
VOCABULARY = Vocabulary(["a", "b"], "char", end="$")


def strings(sizes):
    """Ids of a^n b^n and the end token, for each n."""
    return [VOCABULARY.encode(s, end=True) for s in data.an_bn(sizes)]


def solved(seed):
    """For n = 1..ASKED: whether every determined token is predicted."""
    rows = strings(range(1, TRAINED + 1))
    model = Model(3, 50, 3, seed=seed)
    model.fit([r[:-1] for r in rows], [r[1:] for r in rows], epochs=EPOCHS, batch_size=2, clip_norm=1.0, seed=seed,
              optimizer=Adam(Cosine(0.02, epochs=EPOCHS, minimum=4e-4)), progress=False)  # fmt: skip
    right = []
    for n, row in enumerate(strings(range(1, ASKED + 1)), start=1):
        right.append(bool((model.predict(row[:-1])[n:] == row[n + 1 :]).all()))
    return right


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    right = np.array([solved(seed) for seed in range(arguments.seeds)])
    print("| seed | n = 1..10 | n = 11..20 | n = 21..30 |\n|---|---|---|---|")
    for seed, row in enumerate(right):
        print(f"| {seed} | {row[:10].mean():.0%} | {row[10:20].mean():.0%} | {row[20:].mean():.0%} |")
    print(f"| all | {right[:, :10].mean():.0%} | {right[:, 10:20].mean():.0%} | {right[:, 20:].mean():.0%} |")
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump({"machine": machine(), "solved": right.tolist()}, file, indent=1)


if __name__ == "__main__":
    main()
