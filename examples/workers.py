"""The thousand models of `many_models`, ten thousand of them, learnt by several workers and brought back:
`python -m examples.workers [SERIES [WORKERS [BACKEND]]]`; BACKEND is one of joblib's, loky (processes) or threading.
"""

import sys
import time

import numpy as np
from joblib import Parallel, delayed, parallel_config

import cylstm
from examples import loading


def learn(seed, series):
    """A model that has learnt from a series (T,), and by how much it misses the changes to come."""
    change = np.diff(series)[:, None]
    x, y = change[:-1], change[1:]
    model = cylstm.Model(1, 8, 1, loss="mse", seed=seed)
    rate = cylstm.Adam(cylstm.Cosine(5e-2, 10))
    model.fit(x[None, :180], y[None, :180], tbptt=60, epochs=10, optimizer=rate, progress=False)
    return model, np.abs(y - model.predict(x))[180:].mean()


def learn_all(series, workers=1, backend="loky"):
    """What learn() returns for each of the series (N, T), by so many workers."""
    with parallel_config(backend, n_jobs=workers):
        return Parallel()(delayed(learn)(seed, row) for seed, row in enumerate(series))


def main(count=10_000, workers=2, backend="loky"):
    series = loading.waves(int(count))
    start = time.perf_counter()
    models, errors = zip(*learn_all(series, int(workers), backend), strict=True)
    took = time.perf_counter() - start
    weights = sum(float(np.abs(model.parameters.flat).sum()) for model in models)  # the same for any workers
    print(f"{count} models, {workers} workers, {backend}: {took:.1f} s")
    print(f"median error {np.median(errors):.4f}, weights {weights!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
