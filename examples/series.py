"""The forecaster's other series: eight of 36 to 732 steps, a model for each, which foretells a season as an interval.

What is foretold is the change from the same step of the season before; of series without a season, that of the next
step. A series goes in as one sequence: a step that is missing is skipped, a target that is missing does not count.
"""

import numpy as np

import cylstm
from examples import loading

series = loading.short_series()  # name: (values (N,), NaN in gaps, and the steps of a season)

quantiles = cylstm.losses.Quantiles([0.05, 0.5, 0.95])


def scores(values, season, seed):
    """Of the last 30 %: the mean absolute error, that of the season before, and the share inside the interval."""
    change = values[season:] - values[:-season]
    cut = len(change) * 7 // 10
    x, y = cylstm.data.windows(change / np.nanstd(change[:cut]), 1, season)
    x, known = x[:, 0], np.isfinite(x[:, 0, 0])  # (M, 1), (M,); y (M, season, 1)
    train, test = y.copy(), y.copy()
    train[cut - season :], test[: cut - 1] = np.nan, np.nan
    model = cylstm.Model(1, 8, 3, horizon=season, loss=quantiles, seed=seed)
    model.fit(x, train, mask=known, missing="skip", epochs=50,
              optimizer=cylstm.Adam(cylstm.Cosine(5e-2, 50)), progress=False)  # fmt: skip
    found = model.evaluate(x, test, mask=known, missing="skip", metrics=["mae", "coverage"])
    return found["mae"], np.nanmean(np.abs(test)), found["coverage"]


found = [np.mean([scores(*one, seed) for seed in range(3)], axis=0) for one in series.values()]
mae, before, coverage = np.transpose(found)
ratio = mae / before

print(f"error over that of a season ago {np.exp(np.log(ratio).mean()):.3f}")
print(f"coverage {coverage.mean():.3f}")
for name, of_one, inside in zip(series, ratio, coverage, strict=True):
    print(f"| {name} | {len(series[name][0])} | {of_one:.2f} | {inside:.2f} |")
