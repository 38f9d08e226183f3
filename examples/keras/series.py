"""The forecaster's other series: eight of 36 to 732 steps, a model for each, which foretells a season."""

import keras
import numpy as np
from keras import layers, ops

from examples import loading

series = loading.short_series()  # name: (values (N,), NaN in gaps, and the steps of a season)

quantiles = np.array([0.05, 0.5, 0.95], "float32")


def pinball(y, outputs):
    known = ops.logical_not(ops.isnan(y))[..., None]
    error = ops.where(known, y[..., None] - outputs, 0.0)
    total = ops.sum(ops.maximum(quantiles * error, (quantiles - 1) * error))
    return total / (3 * ops.sum(ops.cast(known, "float32")))


def scores(values, season, seed):
    """Of the last 30 %: the mean absolute error, that of the season before, and the share inside the interval."""
    change = values[season:] - values[:-season]
    cut = len(change) * 7 // 10
    change = change / np.nanstd(change[:cut])
    x, y = change[:-season], np.lib.stride_tricks.sliding_window_view(change, season)[1:].copy()
    y[np.isnan(x)] = np.nan
    x = np.nan_to_num(x, nan=-9)[None, :, None]  # (1, M, 1)
    train, test = y.copy(), y.copy()
    train[cut - season :], test[: cut - 1] = np.nan, np.nan
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([layers.Input(x.shape[1:]), layers.Masking(-9),
                              layers.LSTM(8, return_sequences=True), layers.Dense(3 * season),
                              layers.Reshape((-1, season, 3))])  # fmt: skip
    rate = keras.optimizers.schedules.CosineDecay(5e-2, 50)
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=5), pinball)
    model.fit(x, train[None], epochs=50, verbose=0)
    low, middle, high = np.moveaxis(model.predict(x, verbose=0)[0], 2, 0)
    inside = ((low <= test) & (test <= high))[np.isfinite(test)]
    return np.nanmean(np.abs(middle - test)), np.nanmean(np.abs(test)), inside.mean()


found = [np.mean([scores(*one, seed) for seed in range(3)], axis=0) for one in series.values()]
mae, before, coverage = np.transpose(found)
ratio = mae / before

print(f"error over that of a season ago {np.exp(np.log(ratio).mean()):.3f}")
print(f"coverage {coverage.mean():.3f}")
for name, of_one, inside in zip(series, ratio, coverage, strict=True):
    print(f"| {name} | {len(series[name][0])} | {of_one:.2f} | {inside:.2f} |")
