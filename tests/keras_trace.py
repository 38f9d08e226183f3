"""Makes data/keras_trace.npz: what Keras 3.15 computes for a masked LSTM of both directions with a Dense layer behind,
in float64.

    python tests/keras_trace.py        (needs keras and jax, which the tests do not)

Weights under Keras's names, x, a mask with steps left out before, within and behind rows, outputs, final states, and
the loss with its gradients: the mean of squares over the outputs of the steps that are not masked.
"""

import os
from pathlib import Path

os.environ |= {"KERAS_BACKEND": "jax", "JAX_ENABLE_X64": "1"}

import jax
import jax.numpy as jnp
import keras
import numpy as np

B, T, I, H, O = 5, 7, 3, 4, 2


@keras.saving.register_keras_serializable()
def tanh(x):
    """Keras's own computes in float32."""
    return jnp.tanh(x)


def main():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    rng = np.random.default_rng(7)
    mask = rng.random((B, T)) < 0.7
    mask[1, :3] = False
    mask[2, 4:] = False
    x, y = rng.standard_normal((B, T, I)), rng.standard_normal((B, T, O))
    inputs, steps = keras.Input((T, I)), keras.Input((T,), dtype="bool")
    layer = keras.layers.LSTM(H, activation=tanh, return_sequences=True, return_state=True)
    lstm = keras.layers.Bidirectional(layer)
    h, *states = lstm(inputs, mask=steps)
    model = keras.Model([inputs, steps], [keras.layers.Dense(O)(h), *states])
    for weight in model.weights:
        weight.assign(rng.standard_normal(weight.shape) * 0.6)

    def loss(weights):
        (outputs, *_), _ = model.stateless_call(weights, others, [x, mask])
        return jnp.where(mask[..., None], (outputs - y) ** 2, 0).sum() / (mask.sum() * O)

    others = [variable.value for variable in model.non_trainable_variables]
    weights = [weight.value for weight in model.trainable_variables]
    value, gradients = jax.value_and_grad(loss)(weights)
    outputs, *final = model([x, mask])
    parts = {"x": x, "y": y, "mask": mask, "outputs": outputs, "loss": value}
    parts.update({f"final {n}": state for n, state in enumerate(final)})  # h, c forward, then h, c backward
    for weight, gradient in zip(model.trainable_variables, gradients, strict=True):
        parts[f"weight {weight.path}"], parts[f"gradient {weight.path}"] = weight.value, gradient
    path = Path(__file__).parent / "data" / "keras_trace.npz"
    np.savez_compressed(path, **{name: np.asarray(part) for name, part in parts.items()})


if __name__ == "__main__":
    main()
