"""Masks against Keras 3.15, as tests/keras_trace.py has frozen it: a masked step is skipped, by both directions."""

from pathlib import Path

import numpy as np
import pytest

from cylstm import Model

TRACE = np.load(Path(__file__).parent / "data" / "keras_trace.npz")
DIRECTIONS = {"forward": "", "backward": "_reverse"}


def by_our_names(what):
    """Keras's (I, 4H) and (H, 4H), of the same order of gates, are the transposes of ours."""
    found = {"head.weight": TRACE[f"{what} dense/kernel"].T, "head.bias": TRACE[f"{what} dense/bias"]}
    for theirs, suffix in DIRECTIONS.items():
        cell = f"{what} bidirectional/{theirs}_lstm/lstm_cell"
        found[f"lstm.weight_ih_l0{suffix}"] = TRACE[f"{cell}/kernel"].T
        found[f"lstm.weight_hh_l0{suffix}"] = TRACE[f"{cell}/recurrent_kernel"].T
        found[f"lstm.bias_l0{suffix}"] = TRACE[f"{cell}/bias"]
    return found


@pytest.fixture
def model():
    (_, _, I), O = TRACE["x"].shape, TRACE["y"].shape[-1]
    H = TRACE["final 0"].shape[1]
    model = Model(I, H, O, bidirectional=True, loss="mse", dtype="float64")
    for name, values in by_our_names("weight").items():
        model.parameters[name][...] = values
    return model


def test_outputs_and_final_states(isa, model):
    mask = TRACE["mask"]
    outputs, state = model(TRACE["x"], mask=mask)
    np.testing.assert_allclose(outputs[mask], TRACE["outputs"][mask], rtol=1e-11, atol=1e-13)
    expected = [np.stack([TRACE[f"final {n}"], TRACE[f"final {n + 2}"]]) for n in range(2)]
    np.testing.assert_allclose(np.stack(state), np.stack(expected), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("form", ["array", "list", "own loss"])
def test_the_loss_of_what_is_not_masked_and_its_gradients(isa, model, form):
    x, y, mask = TRACE["x"], TRACE["y"], TRACE["mask"]
    if form == "own loss":
        outputs, _, tape = model.forward(x, mask=mask)
        found = model.backward(tape, 2 * (outputs - y) / (mask.sum() * y.shape[-1])).parameters
    else:
        given = (x, y, mask) if form == "array" else map(list, (x, y, mask))
        x, y, mask = given
        result = model.loss_and_gradients(x, y, mask=mask)
        assert result.loss == pytest.approx(float(TRACE["loss"]), rel=1e-12)
        found = result.gradients
    for name, expected in by_our_names("gradient").items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-13, err_msg=name)
