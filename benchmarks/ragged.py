"""What does a ragged batch cost, beside the same batch padded, and beside torch's packed one?

Lengths are uniform in T/4..T. `fill` is the share of real steps; what is asked is at most 1.05 x fill x padded.
"""

import numpy as np

from benchmarks import peers
from benchmarks.inference import layer_and_input
from benchmarks.shapes import Shape
from benchmarks.timer import agree

RAGGED = [
    Shape("events", 12, 64, 1, 32, 29, "medical records"),
    Shape("lines", 65, 128, 1, 32, 200, "handwriting"),
    Shape("phones", 256, 256, 1, 32, 500, "speech"),
]


def cases(shapes, threads):
    """Labels and contenders, inference and training; the ragged ones are checked against each other."""
    for shape in RAGGED:
        layer, x = layer_and_input(shape)
        rng = np.random.default_rng(2)
        dy = rng.standard_normal((shape.B, shape.T, shape.H)).astype(np.float32)
        lengths = rng.integers(shape.T // 4, shape.T + 1, shape.B)
        lengths[0] = shape.T
        dy[np.arange(shape.T) >= lengths[:, None]] = 0
        labels = {"shape": shape.name, "fill": round(float(lengths.mean()) / shape.T, 3)}

        def train(layer=layer, x=x, dy=dy, lengths=None):
            y, _, tape = layer.forward(x, lengths=lengths)
            return y, layer.backward(tape, dy)

        inference = {
            "cylstm": lambda layer=layer, x=x, lengths=lengths: layer(x, lengths=lengths),
            "cylstm, padded": lambda layer=layer, x=x: layer(x),
            "torch": peers.torch_inference(layer, x, lengths),
            "torch, padded": peers.torch_inference(layer, x),
        }
        training = {
            "cylstm": lambda train=train, lengths=lengths: train(lengths=lengths),
            "cylstm, padded": train,
            "torch": peers.torch_training(layer, x, dy, lengths),
            "torch, padded": peers.torch_training(layer, x, dy),
        }
        agree("torch", inference["torch"](), inference["cylstm"]()[0])
        (_, gradients), (_, d_torch) = training["cylstm"](), training["torch"]()
        agree("torch dx", d_torch["x"], gradients.x)
        agree("torch dR", d_torch["weight_hh_l0"], gradients.parameters["weight_hh_l0"])
        yield {**labels, "task": "inference"}, inference
        yield {**labels, "task": "training"}, training
