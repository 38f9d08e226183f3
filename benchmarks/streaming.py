"""How long does one step of a stream take, Python call included, beside torch's LSTMCell and the others?"""

import numpy as np

from benchmarks import peers
from benchmarks.inference import layer_and_input
from benchmarks.timer import agree


def cases(shapes, threads):
    """Labels and contenders of each shape of one step, all checked against ours."""
    for shape in shapes:
        if shape.T > 1:
            continue
        layer, x = layer_and_input(shape)
        x_t, state = x[:, 0].copy(), layer.initial_state(shape.B)
        expected = layer.step(x_t, state)[0]
        contenders = {
            "torch": peers.torch_step(layer, x_t),
            "onnxruntime": peers.onnxruntime_inference(layer, x, threads),
            "openvino": peers.openvino_inference(layer, x, threads),
            "jax": peers.jax_inference(layer, x),
        }
        for name, call in contenders.items():
            agree(name, np.asarray(call()).reshape(expected.shape), expected)

        def ours(layer=layer, x_t=x_t, state=state):
            return layer.step(x_t, state, out=state)

        yield {"shape": shape.name}, {"cylstm": ours, **contenders}
