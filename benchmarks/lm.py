"""How long does one update of a language model take?

Embedding or one-hot ids, LSTM, head, cross-entropy, clipping, Adam.
"""

import math

import numpy as np

from benchmarks import peers, plain
from cylstm import Adam, Model, Parameters
from cylstm._core import updates

VOCABULARIES = {"toy": 4, "char": 65, "char512": 65, "word": 10_000}  # word has an embedding, as wide as its I
RATE, CLIP = 1e-3, 5.0


def update(model, x, y):
    """A callable that makes one update as `fit` does, and returns the loss before it."""
    adam, gradients = Adam(RATE), Parameters(model.parameters.layout, model.dtype)

    def call():
        result = model.loss_and_gradients(x, y, out=gradients)
        norm = math.sqrt(updates.sum_squares(gradients.raw()))
        adam.update(model.parameters, gradients, scale=min(1.0, CLIP / (norm + 1e-6)))
        return result.loss

    return call


def numpy_update(model, x, y):
    """The same in tight NumPy (plain.py)."""
    weights = {name: values.copy() for name, values in model.parameters.items()}
    m, v = ({name: np.zeros_like(values) for name, values in weights.items()} for _ in range(2))
    count = 0

    def call():
        nonlocal count
        count += 1
        loss, gradients = plain.loss_and_gradients(x, y, weights, model.num_layers)
        norm = math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))
        scale = min(1.0, CLIP / (norm + 1e-6))
        for name, g in gradients.items():
            g *= scale
            m[name] += 0.1 * (g - m[name])
            v[name] += 0.001 * (g * g - v[name])
            step = RATE / (1 - 0.9**count) * m[name]
            weights[name] -= step / (np.sqrt(v[name] / (1 - 0.999**count)) + 1e-8)
        return loss

    return call


def cases(shapes, threads):
    """Labels and contenders of the four shapes that have text; the first losses are compared."""
    for shape in shapes:
        if shape.name not in VOCABULARIES:
            continue
        V = VOCABULARIES[shape.name]
        ids = np.random.default_rng(1).integers(0, V, (shape.B, shape.T + 1))
        x, y = ids[:, :-1].copy(), ids[:, 1:].copy()
        model = Model(V, shape.H, V, num_layers=shape.L, embedding_size=shape.I if V > 1000 else None, seed=1)
        contenders = {"cylstm": None, "torch": peers.torch_language_model(model, x, y, RATE, CLIP)}
        if shape.name == "toy":
            contenders["numpy"] = numpy_update(model, x, y)
        contenders["cylstm"] = update(model, x, y)
        losses = {name: [call() for _ in range(3)] for name, call in contenders.items()}
        for name, values in losses.items():
            if not np.allclose(values, losses["cylstm"], rtol=2e-4):
                raise AssertionError(f"{name}: expected the losses {losses['cylstm']}, got {values}")
        yield {"shape": shape.name, "V": V}, contenders
