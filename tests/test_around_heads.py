"""Dense layers and embeddings of columns beside several heads, horizons and masks: gradients are differences, a mask is
the steps that it leaves, and metrics and steps see what the heads see."""

import numpy as np
import pytest
from gradcheck import numerical_gradient

from cylstm import Dense, Head, Model

I, H, B, T = 4, 5, 4, 6
HEADS = {
    "kind": Head(3, weight=0.7),
    "size": Head(2, loss="mse", horizon=2),
    "end": Head(2, loss="huber", output="last", weight=0.4),
    "said": Head(4, loss="ctc", weight=0.2),
}
AROUND = dict(embeddings={1: (7, 3)}, before=[Dense(6, "tanh")], after=[Dense(5, "softplus"), Dense(4, "linear")])


def made(heads=HEADS, **options):
    return Model(I, H, heads, dtype="float64", seed=3, **{**AROUND, **options})


def some_data(rng):
    x = rng.standard_normal((B, T, I))
    x[..., 1] = rng.integers(0, 7, (B, T))
    y = {"kind": rng.integers(0, 3, (B, T)), "size": rng.standard_normal((B, T, 2, 2)), "end": rng.random((B, 2)),
         "said": [[1, 2], [3], [], [2, 2]]}  # fmt: skip
    return x, y


@pytest.mark.parametrize("lengths", [None, [6, 3, 1, 4]])
def test_gradients_are_differences(rng, lengths):
    """Heads of every step, of the last and of whole rows: the layers behind the LSTM learn from all of them."""
    model, (x, y) = made(bidirectional=True), some_data(rng)
    result = model.loss_and_gradients(x, y, lengths=lengths)
    assert result.loss == pytest.approx(model.evaluate(x, y, lengths=lengths)["loss"], rel=1e-12)
    for name in model.parameters:
        values = model.parameters[name]
        part = (slice(0, 2),) * values.ndim
        if name == "embeddings.1.weight":
            part = (slice(None), 0)
        expected = numerical_gradient(lambda: model.evaluate(x, y, lengths=lengths)["loss"], values[part])
        np.testing.assert_allclose(result.gradients[name][part], expected, rtol=1e-6, atol=1e-9, err_msg=name)


def test_a_loss_of_ones_own_behind_a_mask(rng):
    heads = {name: HEADS[name] for name in ("size", "end")}
    model, (x, y), mask = made(heads, num_layers=2), some_data(rng), rng.random((B, T)) < 0.7
    mask[2] = False
    x[~mask] = np.nan  # which nobody may look at, in the column of ids either
    expected = model.loss_and_gradients(x, {name: y[name] for name in heads}, mask=mask)
    outputs, _, tape = model.forward(x, mask=mask)
    for name, values in model(x, mask=mask)[0].items():
        np.testing.assert_allclose(outputs[name], values, rtol=1e-12)
    apart = outputs["end"] - y["end"]
    slopes = {"size": (outputs["size"] - y["size"]) / (2 * mask.sum()), "end": 0.4 * np.clip(apart, -1, 1) / (2 * B)}
    found = model.backward(tape, slopes)
    for name, values in expected.gradients.items():
        np.testing.assert_allclose(found.parameters[name], values, rtol=1e-9, atol=1e-13, err_msg=name)
    assert found.x.shape == x.shape and (found.x[~mask] == 0).all() and (found.x[..., 1] == 0).all()
    x[0, 4, 1], mask[0, 4] = 7, True
    with pytest.raises(ValueError, match=r"x\[0, 4, 1\]: expected an id in 0\.\.6, got 7"):
        model.forward(x, mask=mask)


def test_steps_and_metrics_see_what_the_heads_see(rng):
    heads = {name: HEADS[name] for name in ("kind", "size")}
    model, (x, y) = made(heads), some_data(rng)
    outputs, _ = model(x)
    state = None
    for t in range(T):
        found, state = model.step(x[:, t], state)
        for name in heads:
            np.testing.assert_allclose(found[name], outputs[name][:, t], rtol=1e-12)
    y = {name: y[name] for name in heads}
    found = model.evaluate(x, y, metrics={"size": ["mae"], "kind": ["top_2"]})
    assert found["size.mae"] == pytest.approx(np.abs(outputs["size"] - y["size"]).mean(), rel=1e-12)
    history = model.fit(x, y, epochs=3, progress=False)
    assert history.train_loss[2] < history.train_loss[0]


def test_files_have_all_of_it(rng, tmp_path):
    model, (x, _) = made(), some_data(rng)
    model.save(tmp_path / "m.safetensors")
    other = Model.load(tmp_path / "m.safetensors")
    assert other.config == model.config
    for name, values in model(x)[0].items():
        np.testing.assert_array_equal(other(x)[0][name], values)
