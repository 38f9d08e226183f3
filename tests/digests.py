"""python tests/digests.py FILE: hashes of what cylstm computes, to hold one build against another, bit by bit.

Writes FILE (JSON) where there is none; else compares, and says which calls have changed. Layers and models over a grid
of sizes, types, directions, lengths, resets and ids, each with every instruction set of this machine, on one to three
threads, which must agree among themselves as well.
"""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

THREADS = 1, 2, 3
SIZES = [  # B, T, I, H, L, D
    (1, 1, 3, 5, 1, 1), (1, 40, 8, 32, 2, 1), (3, 7, 5, 17, 2, 2), (5, 30, 20, 64, 3, 1), (17, 9, 11, 33, 1, 2),
    (40, 25, 13, 37, 2, 2), (33, 12, 65, 128, 1, 1), (16, 20, 70, 150, 2, 2), (1, 12, 20, 301, 1, 1),
]  # fmt: skip


def digest(arrays):
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()[:16]


def layers():
    """Names of calls of layers, and what each gives."""
    from cylstm import LSTM, State

    for size, dtype, ids, ragged, cut in itertools.product(SIZES, ("float32", "float64"), *[(False, True)] * 3):
        B, T, I, H, L, D = size
        rng = np.random.default_rng(20261125)
        draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: B023, E731
        layer = LSTM(I, H, L, bidirectional=D == 2, dropout=0.3 if L > 1 else 0.0, dtype=dtype, seed=3)
        x = rng.integers(0, I, (B, T)) if ids else draw(B, T, I)
        options = {
            "lengths": rng.integers(1, T + 1, B) if ragged else None,
            "resets": rng.random((B, T)) < 0.15 if cut else None,
        }
        start, end = State(*draw(2, L * D, B, H)), State(*draw(2, L * D, B, H))
        y, (h, c) = layer(x, start, **options)
        y_kept, (h_kept, c_kept), tape = layer.forward(x, start, **options)
        dx, (dh, dc), gradients = layer.backward(tape, draw(B, T, D * H), end)
        found = dict(y=y, h=h, c=c, y_kept=y_kept, h_kept=h_kept, c_kept=c_kept, dh=dh, dc=dc)
        found |= {f"d {name}": values for name, values in gradients.items()}
        found |= {} if ids else {"dx": dx}
        if D == 1:
            found["step"], found["state"] = layer.step(x[:, 0], start)
        kinds = [word for word, is_so in (("ids", ids), ("ragged", ragged), ("cut", cut)) if is_so]
        yield f"layer {size} {dtype} {' '.join(kinds)}", found


def models():
    """The same of models: losses, gradients, predictions, and the weights after updates of each optimiser."""
    from cylstm import Dense, Model
    from cylstm.training.optim import SGD, Adam, AdamW

    optimisers = {"sgd": lambda: SGD(0.1, momentum=0.9), "adam": lambda: Adam(0.01), "adamw": lambda: AdamW(0.01)}
    around = {
        "": {}, "12": {"embedding_size": 12}, "around": {
            "embeddings": {4: (9, 5)}, "before": [Dense(33, "gelu_tanh", 0.2), Dense(17, "elu")],
            "after": [Dense(40, "softplus"), Dense(21, "silu", 0.3)]}}  # fmt: skip
    for loss, dtype, D, embedding in itertools.product(
        ("mse", "cross_entropy", "binary_cross_entropy"), ("float32", "float64"), (1, 2), around
    ):
        rng = np.random.default_rng(20261126)
        B, T, I, H, V = 21, 14, 23, 45, 19
        model = Model(I, H, V, num_layers=2, bidirectional=D == 2, loss=loss, dtype=dtype, seed=4, **around[embedding])
        x = rng.integers(0, I, (B, T)) if embedding == "12" else rng.standard_normal((B, T, I))
        if embedding == "around":
            x[..., 4] = rng.integers(0, 9, (B, T))
        y = rng.integers(0, V, (B, T)) if loss == "cross_entropy" else rng.random((B, T, V))
        if loss == "binary_cross_entropy":
            y = y < 0.4
        lengths = rng.integers(1, T + 1, B)
        found = {"initial": model.parameters.flat, "outputs": model(x, lengths=lengths)[0]}
        found["predicted"] = model.predict(x, lengths=lengths)
        result = model.loss_and_gradients(x, y, lengths=lengths)
        found["loss"], found["gradients"] = np.float64(result.loss), result.gradients.flat
        found["evaluated"] = np.array([value for _, value in sorted(model.evaluate(x, y, lengths=lengths).items())])
        yield f"model {loss} {dtype} {D} {embedding}", found
        for name, make in optimisers.items():
            model = Model(I, H, V, loss=loss, dtype=dtype, seed=5, bidirectional=D == 2, **around[embedding])
            history = model.fit(x, y, lengths=lengths, optimizer=make(), epochs=2, batch_size=8, progress=False)
            yield (
                f"fit {name} {loss} {dtype} {D} {embedding}",
                {"weights": model.parameters.flat, "losses": np.array(history.train_loss)},
            )


def computed():
    """One instruction set's, in a process of its own: BLAS chooses its kernels as it is loaded."""
    from cylstm import set_num_threads
    from cylstm._core import team

    found = {}
    team.full_teams(True)
    for threads in THREADS:
        set_num_threads(threads)
        for name, arrays in itertools.chain(layers(), models()):
            if found.setdefault(name, digest(arrays)) != digest(arrays):
                sys.exit(f"{name}: {threads} threads give other bits than one")
    return found


def main(path):
    from cylstm._core import kernels

    found = {}
    for isa in kernels.available():
        environment = {**os.environ, "CYLSTM_ISA": isa}
        run = subprocess.run([sys.executable, __file__], env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found |= {f"{isa} {name}": value for name, value in json.loads(run.stdout).items()}
    if not path.exists():
        path.write_text(json.dumps(found, indent=0))
        print(f"{len(found)} digests written")
        return
    before = json.loads(path.read_text())
    changed = [name for name in before.keys() | found.keys() if before.get(name) != found.get(name)]
    print(f"{len(found)} digests, {len(changed)} changed", *sorted(changed), sep="\n  ")
    sys.exit(bool(changed))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        print(json.dumps(computed()))
