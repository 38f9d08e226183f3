"""Many small models: one for each of 1,000 series, which foretells its next step.

What is foretold is the change from one step to the next, by a model that has learnt from the first three quarters of
its series alone; figures are medians over the models, of the last quarter.
"""

import time

import numpy as np

import cylstm
from examples import loading

series = loading.waves()  # (1000, 239)

train = 180
errors = []
for seed, change in enumerate(np.diff(series)[:, :, None]):
    x, y = change[:-1], change[1:]  # (237, 1)
    model = cylstm.Model(1, 8, 1, loss="mse", seed=seed)
    model.fit(x[None, :train], y[None, :train], tbptt=60, epochs=10,
              optimizer=cylstm.Adam(cylstm.Cosine(5e-2, 10)), progress=False)  # fmt: skip
    left = (y - model.predict(x))[train:]
    errors.append((np.abs(left).mean(), np.abs(y[train:]).mean()))
error, last = np.median(errors, axis=0)

print(f"median error {error:.4f}")
print(f"as the last value {last:.4f}")
print(f"{1000 * (time.perf_counter() - loading.loaded_at) / len(series):.2f} ms for each model")
