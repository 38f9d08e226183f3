"""The same by Keras: padded, masked, and numbered."""

import sys

import keras
import numpy as np
from keras import layers

from examples import loading
from examples.sequences import RECIPES, SEEDS

job = sys.argv[1]
train, test = getattr(loading, job)()

steps = np.concatenate(train[0])
center, scale, longest = steps.mean(axis=0), steps.std(axis=0), max(map(len, [*train[0], *test[0]]))
names = np.unique(train[1])


def prepared(x, y):
    rows = [(row - center) / scale for row in x]
    padded = keras.utils.pad_sequences(rows, longest, "float32", padding="post", value=-99)
    return padded, np.searchsorted(names, y)


def accuracy(seed, epochs, rate, input_dropout, recurrent_dropout):
    keras.utils.set_random_seed(seed)
    lstm = layers.LSTM(64, dropout=input_dropout, recurrent_dropout=recurrent_dropout)
    model = keras.Sequential([layers.Input((longest, len(center))), layers.Masking(-99),
                              layers.Bidirectional(lstm), layers.Dense(len(names))])  # fmt: skip
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * -(-len(train[0]) // 32))
    model.compile(keras.optimizers.Adam(schedule, global_clipnorm=5), metrics=["accuracy"],
                  loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))  # fmt: skip
    model.fit(*prepared(*train), epochs=epochs, batch_size=32, verbose=0)
    return model.evaluate(*prepared(*test), verbose=0)[1]


found = [accuracy(seed, **RECIPES[job]) for seed in SEEDS]

print(f"{job} {np.median(found):.4f} ({min(found):.4f} to {max(found):.4f})")
