"""Masks of h of each gate, held against Keras's own cell, whose masks are set to ours."""

import importlib.util
import os

import numpy as np
import pytest

from cylstm import LSTM

os.environ.setdefault("KERAS_BACKEND", "torch" if importlib.util.find_spec("torch") else "jax")
os.environ.setdefault("JAX_ENABLE_X64", "1")
keras = pytest.importorskip("keras", minversion="3.5", reason="Keras's cell is needed")


@pytest.mark.filterwarnings("ignore")  # Keras's own
def test_masks_of_gates_are_those_of_kerass_cell(rng):
    layer = LSTM(5, 7, recurrent_dropout=0.4, recurrent_dropout_per="gate", dtype="float64", seed=1)
    layer.parameters["bias_l0"][...] = rng.standard_normal(28)
    x, start = rng.standard_normal((4, 6, 5)), rng.standard_normal((2, 4, 7))
    y, _, tape = layer.forward(x, tuple(start[:, None]))
    cell = keras.layers.LSTMCell(7, recurrent_dropout=0.4, implementation=1, dtype="float64")
    cell.build((4, 5))
    cell.set_weights([np.ascontiguousarray(layer.parameters[name].T) for name in
                      ("weight_ih_l0", "weight_hh_l0", "bias_l0")])  # fmt: skip
    masks = tape.recurrent_masks[0]
    cell.get_recurrent_dropout_mask = lambda _h: [keras.ops.convert_to_tensor(mask) for mask in masks]
    states = [keras.ops.convert_to_tensor(part) for part in start]
    for t in range(6):
        h, states = cell(keras.ops.convert_to_tensor(x[:, t]), states, training=True)
        # Keras's functions compute in float32 here and there, whatever its policy
        np.testing.assert_allclose(keras.ops.convert_to_numpy(h), y[:, t], rtol=1e-5, atol=1e-6)
