"""Audio: what an amplifier does to a sound, learnt from five seconds of both, and tried on a sixth.

The model foretells what the amplifier adds to the sound. Its figure is the energy of what is left over that of the
amplifier's sound, both with their treble raised (Wright et al. 2019).
"""

import numpy as np

import cylstm
from examples import loading

x, y = loading.distortion()  # (N,) each, 44,100 a second

train = len(x) * 5 // 6
parts = (25, -1, 1)  # streams side by side, each in chunks of 63 samples
scores = []
for seed in range(3):
    model = cylstm.Model(1, 16, 1, loss="mse", seed=seed)
    optimizer = cylstm.Adam(cylstm.Cosine(1e-2, 60))
    model.fit(x[:train].reshape(parts), (y - x)[:train].reshape(parts), tbptt=63, epochs=60,
              optimizer=optimizer, progress=False)  # fmt: skip
    left = y - (x + model.predict(x[:, None])[:, 0])
    error, signal = (np.convolve(wave[train:], [1, -0.85], "valid") for wave in (left, y))
    scores.append(np.sum(error**2) / np.sum(signal**2))

print(f"error to signal {np.mean(scores):.5f} ({min(scores):.5f} to {max(scores):.5f})")
