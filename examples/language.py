"""Language: a book letter by letter. What the rest of it costs in bits per character, and a few lines more of it."""

import numpy as np

import cylstm
from examples import loading

text = loading.book()

vocabulary = cylstm.Vocabulary.from_text(text)
V, ids = len(vocabulary), vocabulary.encode(text)
train, rest = (cylstm.data.streams(part, 32) for part in np.split(ids, [len(ids) * 9 // 10]))
model = cylstm.Model(V, 192, V, embedding_size=32, vocabulary=vocabulary, seed=0)
model.fit(*train, tbptt=64, epochs=2, optimizer=cylstm.Adam(cylstm.Cosine(1e-2, 2)), progress=False)
bits = cylstm.data.evaluate_text(model, *rest)["bits_per_character"]
sample = vocabulary.decode(list(model.generate("In the ", 300, temperature=0.7, seed=0)))

print(f"bits per character {bits:.3f}")
print(f"In the {sample}")


def picture(figure):
    """What each of the book's last letters cost: -log2 of the probability that the model gave it."""
    logits, _ = model(ids[None, -1000:-1])
    logits = logits[0, -216:].astype(float)
    letters = ids[-216:]
    paid = (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(216), letters]) / np.log(2)
    panels = figure.subplots(3, 1, sharey=True)
    for n, axes in enumerate(panels):
        line = slice(72 * n, 72 * (n + 1))
        axes.bar(range(72), paid[line], color=np.where(paid[line] > bits, "C3", "C0"))
        axes.axhline(bits, color="k", lw=0.8, ls="--")
        text = vocabulary.decode(letters[line]).replace("\n", "↵")
        axes.set_xticks(range(72), text, family="monospace", fontsize=9, va="baseline")
        axes.tick_params(axis="x", length=0, pad=11)
        axes.margins(x=0.005)
    panels[0].set_title(f"Surprise at the book's last letters; dashed: {bits:.2f}, the mean of its last tenth")
    panels[1].set_ylabel("bits per letter")
    panels[2].set_xlabel("the text, letter by letter: red ones cost more than the mean")


loading.draw(picture, "language")
