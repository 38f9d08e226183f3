"""Bidirectional, H = 64, batches of 32, Adam with a cosine: by cylstm.sklearn."""

import sys

import numpy as np
from sklearn.pipeline import make_pipeline

import cylstm
from cylstm.sklearn import LSTMClassifier, SequenceScaler
from examples import loading
from examples.sequences import RECIPES, SEEDS

job = sys.argv[1]
train, test = getattr(loading, job)()


def accuracy(seed, epochs, rate, **dropped):
    rates = cylstm.Cosine(rate, epochs)
    classifier = LSTMClassifier(64, bidirectional=True, epochs=epochs, learning_rate=rates,
                                random_state=seed, model_options=dropped)  # fmt: skip
    return make_pipeline(SequenceScaler(), classifier).fit(*train).score(*test)


found = [accuracy(seed, **RECIPES[job]) for seed in SEEDS]

print(f"{job} {np.median(found):.4f} ({min(found):.4f} to {max(found):.4f})")
