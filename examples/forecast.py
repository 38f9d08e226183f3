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


def picture(figure):
    """Five days of those that were kept for testing: each time 24 hours are over, the next 24 are foretold."""
    axes, begin = figure.subplots(), test.start + 48  # the hour whose change is the first that is foretold
    day = np.arange(24)
    for n in range(5):
        hours = begin + 24 * n + day
        change = model.predict(x[hours[:1] - 48], mask=known[hours[:1] - 48])[0]  # (24, 3)
        low, middle, high = (flow[hours - 24, None] + change).T
        names = ("5 to 95 %, foretold", "median, foretold", "what came") if n == 0 else (None,) * 3
        axes.fill_between(24 * n + day, low, high, color="C0", alpha=0.25, lw=0, label=names[0])
        axes.plot(24 * n + day, middle, color="C0", label=names[1])
        axes.plot(24 * n + day, flow[hours], "k.", ms=4, label=names[2])
        axes.axvline(24 * n, color="0.8", lw=0.8, zorder=0)
    axes.set(xlabel="hours since testing began", ylabel="flow of water, litres per second", xticks=range(0, 121, 24))
    axes.set_title(f"The next 24 hours, five times: the intervals hold {coverage:.0%} of all test hours")
    axes.legend()


loading.draw(picture, "forecast")
