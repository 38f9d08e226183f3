"""Audio: what an amplifier does to a sound, learnt from five seconds of both, and tried on a sixth."""

import keras
import numpy as np
from keras import layers

from examples import loading

x, y = loading.distortion()  # (N,) each, 44,100 a second


def chunks(wave):
    """(25 N, 63, 1): the first chunks of 25 streams side by side, then the second ones, ..."""
    return wave.reshape(25, -1, 63, 1).swapaxes(0, 1).reshape(-1, 63, 1)


train = len(x) * 5 // 6
scores = []
for seed in range(3):
    keras.utils.set_random_seed(seed)
    lstm = layers.LSTM(16, return_sequences=True, stateful=True)
    model = keras.Sequential([layers.Input(batch_shape=(25, 63, 1)), lstm, layers.Dense(1)])
    rate = keras.optimizers.schedules.CosineDecay(1e-2, 60 * (train // 25 // 63))
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=5), "mse")
    again = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_, lstm=lstm: lstm.reset_state())
    model.fit(chunks(x[:train]), chunks((y - x)[:train]), epochs=60, batch_size=25, shuffle=False,
              callbacks=[again], verbose=0)  # fmt: skip
    whole = keras.Sequential([layers.Input((None, 1)), layers.LSTM(16, return_sequences=True),
                              layers.Dense(1)])  # fmt: skip
    whole.set_weights(model.get_weights())
    left = y - (x + whole.predict(x[None, :, None], verbose=0)[0, :, 0])
    error, signal = (np.convolve(wave[train:], [1, -0.85], "valid") for wave in (left, y))
    scores.append(np.sum(error**2) / np.sum(signal**2))

print(f"error to signal {np.mean(scores):.5f} ({min(scores):.5f} to {max(scores):.5f})")
