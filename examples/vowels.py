"""A scientist: who says /ae/, of nine speakers, from 7 to 29 steps of 12 features; and digits, pixel by pixel."""

import numpy as np

import cylstm
from examples import loading


def accuracies(train, test, seeds):
    """Of models trained for 30 epochs, one for each seed; and what the last of them says."""
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
    return np.array(found), model.predict(x_test)


vowels, digits = loading.japanese_vowels(), loading.digits()  # (x, y) to train by, and to test

of_vowels, who = accuracies(*vowels, seeds=5)
of_digits, which = accuracies(*digits, seeds=3)

print(f"JapaneseVowels {of_vowels.mean():.3f} ({of_vowels.min():.3f} to {of_vowels.max():.3f})")
print(f"digits {of_digits.mean():.3f} ({of_digits.min():.3f} to {of_digits.max():.3f})")


def picture(figure):
    """How often the last model took one class for another, of both jobs."""
    kinds = ("Who speaks, of 9", vowels, who, "speaker"), ("Which digit, of 10", digits, which, "digit")
    for axes, (title, (_, (_, y)), said, kind) in zip(figure.subplots(1, 2), kinds, strict=True):
        names = np.unique(y)
        counts = np.zeros((len(names), len(names)), int)
        np.add.at(counts, (np.searchsorted(names, y), np.searchsorted(names, said)), 1)
        axes.imshow(counts / counts.sum(axis=1, keepdims=True), cmap="Blues")
        for row, column in np.argwhere(counts):
            colour = "white" if row == column else "C3"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, weight="bold")
        axes.set(title=f"{title}: {np.mean(said == y):.1%} right", xlabel=f"{kind} that the model names",
                 ylabel=f"{kind} that it was")  # fmt: skip
        axes.set(xticks=range(len(names)), xticklabels=names, yticks=range(len(names)), yticklabels=names)
    figure.suptitle("How many test sequences of each class (rows) were taken for which (columns)")


loading.draw(picture, "vowels")
