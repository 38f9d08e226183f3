"""A stream: an amplifier that is played through, one sample at a time, as the samples come in.

Five seconds of a guitar and of an amplifier say what that adds. The sixth comes in as from a microphone: `step` takes a
sample and the state, gives what is added and the next state, and allocates nothing. Chunks go in by calls of the model.
"""

import time

import numpy as np

import cylstm
from examples import loading

x, y = loading.distortion()  # (N,) each, the guitar and the amplifier, 44,100 a second

train = len(x) * 5 // 6
parts = (25, -1, 1)  # streams side by side, each in chunks of 63 samples
model = cylstm.Model(1, 16, 1, loss="mse", seed=0)
model.fit(x[:train].reshape(parts), (y - x)[:train].reshape(parts), tbptt=63, epochs=60,
          optimizer=cylstm.Adam(cylstm.Cosine(1e-2, 60)), progress=False)  # fmt: skip

x, y = x[train:], y[train:]
heard, took = np.empty_like(x), np.empty(len(x))
added, state = out = model.step(x[:1], None)  # memory for what comes out, written over from now on
state.reset()
for n in range(len(x)):
    began = time.perf_counter()
    model.step(x[n : n + 1], state, out=out)
    heard[n] = x[n] + added[0]
    took[n] = time.perf_counter() - began
chunks, state = [], None
for chunk in np.array_split(x, len(x) // 64):  # as a sound card gives them
    of_chunk, state = model(chunk[:, None], state)
    chunks.append(chunk + of_chunk[:, 0])
error, signal = (np.convolve(wave, [1, -0.85], "valid") for wave in (y - heard, y))  # with raised treble

print(f"error to signal {np.sum(error**2) / np.sum(signal**2):.5f}")
print(f"microseconds a sample {1e6 * np.median(took):.2f}")
print(f"the same bits, by samples and by chunks: {np.array_equal(heard, np.concatenate(chunks))}")


def picture(figure):
    """Ten milliseconds of the sound, and how long each sample of the second took."""
    above, below = figure.subplots(2, 1)
    for wave, name, style in ((x, "guitar, in", "0.6"), (y, "amplifier", "k"), (heard, "model, heard", "C1--")):
        above.plot(np.arange(441) / 44.1, wave[len(x) // 3 :][:441], style, label=name)
    above.set(
        xlabel="milliseconds",
        ylabel="amplitude",
        xlim=(0, 12.5),
        title="An amplifier that is played through, sample by sample",
    )
    below.hist(1e6 * took, bins=np.geomspace(0.5, 500, 120), log=True, color="C1", label="each sample of a second")
    below.axvline(1e6 / 44100, color="k", ls="--", label="when the next one comes: 22.7 microseconds")
    below.set(xscale="log", xlabel="microseconds from a sample's coming in to its being heard", ylabel="samples")
    for axes in (above, below):
        axes.legend(loc="upper right", fontsize=8)


loading.draw(picture, "stream")
