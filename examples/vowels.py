"""A scientist: who says /ae/, of nine speakers, from 7 to 29 steps of 12 features; and digits, pixel by pixel."""

import numpy as np

import cylstm
from examples import loading


def accuracies(train, test, seeds):
    """Of models trained for 30 epochs, one for each seed."""
    (x, y), (x_test, y_test) = train, test
    steps = np.concatenate(x)
    centre, scale = steps.mean(axis=0), steps.std(axis=0)
    x, x_test = ([(row - centre) / scale for row in rows] for rows in (x, x_test))
    found, names = [], np.unique(y)
    for seed in range(seeds):
        model = cylstm.Model(len(centre), 64, len(names), labels=names, bidirectional=True,
                             output="last", seed=seed)  # fmt: skip
        model.fit(x, y, epochs=30, optimizer=cylstm.Adam(cylstm.Cosine(2e-2, 30)), progress=False)
        found.append(model.evaluate(x_test, y_test)["accuracy"])
    return np.array(found)


vowels, digits = loading.japanese_vowels(), loading.digits()  # (x, y) to train by, and to test

of_vowels = accuracies(*vowels, seeds=5)
of_digits = accuracies(*digits, seeds=3)

print(f"JapaneseVowels {of_vowels.mean():.3f} ({of_vowels.min():.3f} to {of_vowels.max():.3f})")
print(f"digits {of_digits.mean():.3f} ({of_digits.min():.3f} to {of_digits.max():.3f})")
