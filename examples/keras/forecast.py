"""A forecaster: the next 24 hours of a water flow with gaps and outliers, as an interval that holds 90 %."""

import keras
import numpy as np
from keras import layers, ops

from examples import loading

flow = loading.water_flow()  # (N,), NaN in gaps

change = flow[24:] - flow[:-24]
windows = np.lib.stride_tricks.sliding_window_view(change, 48)
x = np.nan_to_num(np.clip(windows[:, :24, None], -3, 3), nan=-9)
y = windows[:, 24:]
train, test = slice(len(x) * 7 // 10 - 24), slice(len(x) * 7 // 10, None)
quantiles = np.array([0.05, 0.5, 0.95], "float32")


def pinball(y, outputs):
    known = ops.logical_not(ops.isnan(y))[..., None]
    error = ops.where(known, y[..., None] - outputs, 0.0)
    total = ops.sum(ops.maximum(quantiles * error, (quantiles - 1) * error))
    return total / (3 * ops.maximum(ops.sum(ops.cast(known, "float32")), 1))


scores = []
for seed in range(5):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([layers.Input((24, 1)), layers.Masking(-9), layers.LSTM(16),
                              layers.Dense(72), layers.Reshape((24, 3))])  # fmt: skip
    rate = keras.optimizers.schedules.CosineDecay(1e-3, 20 * -(-len(x[train]) // 32))
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=5), pinball)
    model.fit(x[train], y[train], epochs=20, batch_size=32, verbose=0)
    low, middle, high = np.moveaxis(model.predict(x[test], verbose=0), 2, 0)
    there = np.isfinite(y[test])
    inside = (low <= y[test]) & (y[test] <= high)
    scores.append((np.nanmean(np.abs(middle - y[test])), np.mean(inside[there])))
mae, coverage = np.mean(scores, axis=0)
yesterday = np.nanmean(np.abs(y[test]))

print(f"mean absolute error {mae:.3f}")
print(f"as yesterday {yesterday:.3f}")
print(f"coverage {coverage:.3f}")
