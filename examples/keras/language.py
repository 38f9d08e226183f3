"""Language: a book letter by letter. What the rest of it costs in bits per character, and a few lines more of it."""

import keras
import numpy as np
from keras import layers

from examples import loading

text = loading.book()

letters = sorted(set(text))
V, index = len(letters), {letter: n for n, letter in enumerate(letters)}
ids = np.array([index[letter] for letter in text])


def chunks(ids):
    """(32 N, 64): the first chunks of 32 streams side by side, then the second ones, ..."""
    steps = len(ids) // 32 // 64 * 64
    return ids[: 32 * steps].reshape(32, -1, 64).swapaxes(0, 1).reshape(-1, 64)


def network(batch, stateful):
    lstm = layers.LSTM(192, return_sequences=True, stateful=stateful)
    return keras.Sequential([layers.Input(batch_shape=batch), layers.Embedding(V, 32), lstm,
                             layers.Dense(V)])  # fmt: skip


train, rest = np.split(ids, [len(ids) * 9 // 10])
keras.utils.set_random_seed(0)
model = network((32, 64), True)
x, y = chunks(train[:-1]), chunks(train[1:])
rate = keras.optimizers.schedules.CosineDecay(1e-2, 2 * len(x) // 32)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(rate, global_clipnorm=5), loss)
again = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: model.layers[1].reset_state())
model.fit(x, y, epochs=2, batch_size=32, shuffle=False, callbacks=[again], verbose=0)
model.layers[1].reset_state()
nats = model.evaluate(chunks(rest[:-1]), chunks(rest[1:]), batch_size=32, verbose=0)
bits = nats / np.log(2)
writer, sample = network((1, 1), True), "In the "
writer.set_weights(model.get_weights())
for n in range(len(sample) + 299):
    logits = writer(np.array([[index[sample[n]]]]))[0] / 0.7
    if n + 1 == len(sample):
        sample += letters[int(keras.random.categorical(logits, 1)[0, 0])]

print(f"bits per character {bits:.3f}")
print(sample)
