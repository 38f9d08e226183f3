"""The rolling back-test of six series that ship in packages: `python -m examples.six_series`.

Each learns from the first 70 %, and then forecasts a season from every row on, as it comes; once a season it learns
anew. Nothing is set but the horizon: seasons are found. The seasonal-naive forecast beside it is told its season.
"""

import numpy as np

import cylstm
from examples import loading


def six_series():
    """{name: (values (N,), NaN in gaps, and the steps of a season)}."""
    from statsmodels.datasets import macrodata

    series = loading.short_series()
    chosen = {name: series[name] for name in ("airline", "scripts", "carbon", "ocean")}
    chosen["sunspots"] = (series["sunspots"][0], 11)  # a cycle of about eleven years
    chosen["gdp"] = (np.asarray(macrodata.load_pandas().data["realgdp"], float), 4)  # of a quarter
    return chosen


if __name__ == "__main__":
    print("| series | rows | season | error / naive | error / seasonal-naive | coverage of 90 % |")
    print("|---|---|---|---|---|---|")
    verdicts = []
    for name, (values, season) in six_series().items():
        report = cylstm.LSTMForecaster(horizon=season).backtest(values, refit=season, season=season)
        found = report.scores
        naive, seasonal = (found["mae"] / found[f"{rival}_mae"] for rival in ("naive", "seasonal_naive"))
        print(
            f"| {name} | {len(values)} | {season} | {naive:.2f} | {seasonal:.2f} | {found['coverage']:.2f} |",
            flush=True,
        )
        verdicts.append(f"{name}:\n{report.verdict}")
    print("\n" + "\n".join(verdicts))
