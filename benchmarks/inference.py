"""How fast does the layer run over whole batches of sequences, beside torch, onnxruntime, openvino and jax?"""

import numpy as np

from benchmarks import peers
from benchmarks.timer import agree
from cylstm import LSTM

JAX_LIMIT = 3e10  # floating-point operations; beyond, jax is neither the fastest nor done soon


def layer_and_input(shape):
    """An LSTM of this shape and x (B, T, I), always the same."""
    x = np.random.default_rng(1).standard_normal((shape.B, shape.T, shape.I)).astype(np.float32)
    return LSTM(shape.I, shape.H, shape.L, seed=1), x


def cases(shapes, threads):
    """Labels and contenders of each shape of more than one step, all checked against ours."""
    for shape in shapes:
        if shape.T == 1:
            continue
        layer, x = layer_and_input(shape)
        y = layer(x)[0]
        contenders = {
            "torch": peers.torch_inference(layer, x),
            "onnxruntime": peers.onnxruntime_inference(layer, x, threads),
            "openvino": peers.openvino_inference(layer, x, threads),
        }
        if shape.B * shape.T * shape.L * 8 * shape.H * (shape.I + shape.H) < JAX_LIMIT:
            contenders["jax"] = peers.jax_inference(layer, x)
        for name, call in contenders.items():
            got = np.asarray(call())
            agree(name, got if name in ("torch", "jax") else got.swapaxes(0, 1), y)
        yield {"shape": shape.name}, {"cylstm": lambda layer=layer, x=x: layer(x), **contenders}
