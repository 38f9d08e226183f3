"""A forecaster: the next 24 hours of a water flow with gaps and outliers, as an interval that holds 90 %.

What is foretold is the change from the same hour of the day before, by the last 24 such changes. Windows with gaps are
kept: a step that is missing is skipped, a target that is missing does not count.
"""

import numpy as np

import cylstm
from examples import loading

flow = loading.water_flow()  # (N,), NaN in gaps

change = flow[24:] - flow[:-24]
x, y = cylstm.data.windows(change, 24, 24)  # (M, 24, 1) each
x, known = np.clip(x, -3, 3), np.isfinite(x[..., 0])  # outliers, and what is there
train, test = slice(len(x) * 7 // 10 - 24), slice(len(x) * 7 // 10, None)
quantiles = cylstm.losses.Quantiles([0.05, 0.5, 0.95])
scores = []
for seed in range(5):
    model = cylstm.Model(1, 16, 3, horizon=24, output="last", loss=quantiles, seed=seed)
    optimizer = cylstm.Adam(cylstm.Cosine(1e-3, 20))
    model.fit(x[train], y[train], mask=known[train], missing="skip", epochs=20,
              optimizer=optimizer, progress=False)  # fmt: skip
    scores.append(model.evaluate(x[test], y[test], mask=known[test], missing="skip",
                                 metrics=["mae", "coverage"]))  # fmt: skip
mae, coverage = (np.mean([score[name] for score in scores]) for name in ("mae", "coverage"))
yesterday = np.nanmean(np.abs(y[test]))

print(f"mean absolute error {mae:.3f}")
print(f"as yesterday {yesterday:.3f}")
print(f"coverage {coverage:.3f}")
