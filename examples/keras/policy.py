"""A policy that remembers: which way to turn at the end of a corridor, as a sign at its beginning says."""

import keras
import numpy as np
from keras import layers

from examples import loading

rollouts, test = loading.corridors()  # x (B, T, 2); begins, ends, right (B, T)


def apart(x, begins, ends, right):
    """The corridors that end, (N, 15, 2), and the way that each sign says, (N, 1)."""
    rows = [row for part, starts in zip(x, begins, strict=True)
            for row in np.split(part, np.flatnonzero(starts)[1:])]  # fmt: skip
    ended = np.logical_or.reduceat(ends.ravel(), np.flatnonzero(begins))
    rows = [row for row, whole in zip(rows, ended, strict=True) if whole]
    x = keras.utils.pad_sequences(rows, maxlen=15, dtype="float32", padding="post", value=-9)
    return x, right[ends][:, None]


keras.utils.set_random_seed(0)
model = keras.Sequential([layers.Input((15, 2)), layers.Masking(-9), layers.LSTM(16),
                          layers.Dense(1, activation="sigmoid")])  # fmt: skip
model.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy")
rng, baseline = np.random.default_rng(0), 0.5
x_test, y_test = apart(*test)
before = np.mean((model.predict(x_test, verbose=0) > 0.5) == y_test)
for rollout in rollouts:
    x, right = (part[:110] for part in apart(*rollout))  # as many each time: others are compiled anew
    p = model.predict_on_batch(x)
    action = rng.random(p.shape) < p  # whether to turn right
    reward = action == right
    model.train_on_batch(x, action, sample_weight=(reward - baseline)[:, 0])
    baseline += 0.1 * (reward.mean() - baseline)
after = np.mean((model.predict(x_test, verbose=0) > 0.5) == y_test)

print(f"right before {before:.3f}")
print(f"right after {after:.3f}")
