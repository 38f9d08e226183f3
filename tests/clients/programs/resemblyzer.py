"""Eight voices of noise and tones, Resemblyzer's encoder with the weights in its wheel: an embedding of each."""

import numpy as np
import swap
from resemblyzer import VoiceEncoder

RATE = 16000


def run():
    rng, seconds = np.random.default_rng(0), np.arange(RATE * 4) / RATE
    encoder = swap.accelerate(VoiceEncoder("cpu", verbose=False))
    embeddings = []
    for tone in rng.uniform(80, 250, 8):
        overtones = sum(np.sin(2 * np.pi * tone * n * seconds) / n for n in range(1, 12))
        voice = 0.1 * overtones * np.abs(np.sin(2 * np.pi * 2 * seconds)) + 0.01 * rng.standard_normal(len(seconds))
        embeddings.append(encoder.embed_utterance(voice.astype("float32"), rate=4))
    return {"embeddings": np.stack(embeddings)}
