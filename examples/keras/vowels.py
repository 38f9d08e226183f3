"""A scientist: who says /ae/, of nine speakers, from 7 to 29 steps of 12 features; and digits, pixel by pixel."""

import keras
import numpy as np
from keras import layers

from examples import loading


def accuracies(train, test, seeds):
    """Of models trained for 30 epochs, one for each seed."""
    (x, y), (x_test, y_test) = train, test
    steps, longest = np.concatenate(x), max(map(len, [*x, *x_test]))
    centre, scale = steps.mean(axis=0), steps.std(axis=0)
    x, x_test = ([(row - centre) / scale for row in rows] for rows in (x, x_test))
    padded = dict(maxlen=longest, dtype="float32", padding="post", value=-99)
    x, x_test = (keras.utils.pad_sequences(rows, **padded) for rows in (x, x_test))
    names, y = np.unique(y, return_inverse=True)
    y_test = np.searchsorted(names, y_test)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = []
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([layers.Input((longest, len(centre))), layers.Masking(-99),
                                  layers.Bidirectional(layers.LSTM(64)),
                                  layers.Dense(len(names))])  # fmt: skip
        rate = keras.optimizers.schedules.CosineDecay(2e-2, 30 * -(-len(x) // 32))
        optimizer = keras.optimizers.Adam(rate, global_clipnorm=5)
        model.compile(optimizer, loss, metrics=["accuracy"])
        model.fit(x, y, epochs=30, batch_size=32, verbose=0)
        found.append(model.evaluate(x_test, y_test, verbose=0)[1])
    return np.array(found)


vowels, digits = loading.japanese_vowels(), loading.digits()  # (x, y) to train by, and to test

of_vowels = accuracies(*vowels, seeds=5)
of_digits = accuracies(*digits, seeds=3)

print(f"JapaneseVowels {of_vowels.mean():.3f} ({of_vowels.min():.3f} to {of_vowels.max():.3f})")
print(f"digits {of_digits.mean():.3f} ({of_digits.min():.3f} to {of_digits.max():.3f})")
