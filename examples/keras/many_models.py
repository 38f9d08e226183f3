"""Many small models: one for each of 1,000 series, which foretells its next step.

A Keras model is compiled when it first trains, which takes longer than all that follows: there is one, whose weights
and moments become again what they were at first before each series.
"""

import time

import keras
import numpy as np
from keras import layers

from examples import loading

series = loading.waves()  # (1000, 239)

train = 180
keras.utils.set_random_seed(0)
lstm = layers.LSTM(8, return_sequences=True, stateful=True)
model = keras.Sequential([layers.Input(batch_shape=(1, 60, 1)), lstm, layers.Dense(1)])
rate = keras.optimizers.schedules.CosineDecay(5e-2, 10 * train // 60)
model.compile(keras.optimizers.Adam(rate, global_clipnorm=5), "mse")
model.optimizer.build(model.trainable_variables)
variables = model.variables + model.optimizer.variables
first = [np.array(variable) for variable in variables]
again = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: lstm.reset_state())
whole = keras.Sequential([layers.Input((237, 1)), layers.LSTM(8, return_sequences=True),
                          layers.Dense(1)])  # fmt: skip
errors = []
for change in np.diff(series)[:, :, None]:
    x, y = change[:-1], change[1:]  # (237, 1)
    for variable, value in zip(variables, first, strict=True):
        variable.assign(value)
    model.fit(x[:train].reshape(-1, 60, 1), y[:train].reshape(-1, 60, 1), epochs=10, batch_size=1,
              shuffle=False, callbacks=[again], verbose=0)  # fmt: skip
    whole.set_weights(model.get_weights())
    left = (y - whole.predict_on_batch(x[None])[0])[train:]
    errors.append((np.abs(left).mean(), np.abs(y[train:]).mean()))
error, last = np.median(errors, axis=0)

print(f"median error {error:.4f}")
print(f"as the last value {last:.4f}")
print(f"{1000 * (time.perf_counter() - loading.loaded_at) / len(series):.2f} ms for each model")
