"""The same seven jobs with Keras 3 on JAX: `python -m examples.keras.forecast`."""

import os

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
