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
