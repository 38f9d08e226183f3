"""How fast are forward and backward together, beside torch and jax?"""

import numpy as np

from benchmarks import peers
from benchmarks.inference import JAX_LIMIT, layer_and_input
from benchmarks.timer import agree


def pass_of(layer, x):
    """A callable that runs the layer forward and backward and returns y and the gradients."""
    shape = (*x.shape[:2], layer.output_size)
    dy = np.random.default_rng(2).standard_normal(shape).astype(np.float32)

    def call():
        y, _, tape = layer.forward(x)
        return y, layer.backward(tape, dy)

    call.dy = dy
    return call


def cases(shapes, threads):
    """Labels and contenders of each shape of more than one step: all outputs and gradients are checked against ours."""
    for shape in shapes:
        if shape.T == 1:
            continue
        layer, x = layer_and_input(shape)
        ours = pass_of(layer, x)
        dy = ours.dy
        y, gradients = ours()
        contenders = {"cylstm": ours, "torch": peers.torch_training(layer, x, dy)}
        y_torch, d_torch = contenders["torch"]()
        agree("torch", y_torch, y)
        agree("torch dx", d_torch["x"], gradients.x)
        for name, d in gradients.parameters.items():
            agree(f"torch d{name}", d_torch[name.replace("bias_", "bias_ih_")], d)
        if shape.B * shape.T * shape.L * 8 * shape.H * (shape.I + shape.H) < JAX_LIMIT:
            contenders["jax"] = peers.jax_training(layer, x, dy)
            y_jax, (d_jax, dx_jax) = contenders["jax"]()
            agree("jax", y_jax, y)
            agree("jax dx", dx_jax, gradients.x)
            for n, parts in enumerate(d_jax):
                for name, d in zip(("weight_ih", "weight_hh", "bias"), parts, strict=True):
                    agree(f"jax d{name}_l{n}", d, gradients.parameters[f"{name}_l{n}"])
        yield {"shape": shape.name}, contenders
