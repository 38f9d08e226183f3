"""Keras's Bidirectional in each merge mode: its files in, against its equations by hand, and out."""

import numpy as np
import pytest
from keras_by_hand import archive, arrays, dense, layer, lstm, sequential

import cylstm
from cylstm import exchange

X = np.random.default_rng(9).standard_normal((3, 6, 2))
MODES = {"concat": lambda f, b: np.concatenate([f, b], -1), "sum": np.add, "ave": lambda f, b: (f + b) / 2,
         "mul": np.multiply}  # fmt: skip
OURS = {"concat": "concat", "sum": "sum", "ave": "mean", "mul": "product"}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def one_way(x, kernel, recurrent, bias):
    """Keras's LSTMCell: (B, T, H)."""
    h = c = np.zeros((len(x), len(recurrent)))
    outputs = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, 1)


def weights_of(number, I, H):
    """Of layers/bidirectional or layers/bidirectional_1."""
    name, rng = "bidirectional" + f"_{number}" * (number > 0), np.random.default_rng(number)
    shapes = (I, 4 * H), (H, 4 * H), (4 * H,)
    return {f"layers/{name}/{way}_layer/cell/vars/{n}": rng.uniform(-0.8, 0.8, shape).astype("f4")
            for way in ("forward", "backward") for n, shape in enumerate(shapes)}  # fmt: skip


def both_ways(name, sequences, mode):
    return layer("Bidirectional", name=name, merge_mode=mode, layer=lstm(4, return_sequences=sequences))


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_a_stack_gives_keras_numbers(mode, sequences, tmp_path):
    """keras.layers.Bidirectional: the backward layer's outputs are turned before they are merged; of the last outputs
    alone, its own last one is."""
    wide = 8 if mode == "concat" else 4
    groups = [weights_of(0, 2, 4), weights_of(1, wide, 4)]
    head = arrays(dense=(wide, 3))
    model = exchange.load(
        archive(
            tmp_path / "m.keras",
            sequential(both_ways("a", True, mode), both_ways("b", sequences, mode), dense(3)),
            groups[0] | groups[1] | head,
        )
    )
    assert model.merge == OURS[mode] and model.output == ("sequence" if sequences else "last")
    y = X
    for n, group in enumerate(groups):
        several = list(group.values())
        forward, backward = one_way(y, *several[:3]), one_way(y[:, ::-1], *several[3:])
        if n == 1 and not sequences:
            y = MODES[mode](forward[:, -1], backward[:, -1])
        else:
            y = MODES[mode](forward, backward[:, ::-1])
    W, b = head.values()
    np.testing.assert_allclose(model(X.astype("f4"))[0], y @ W + b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("output", ["sequence", "last"])
@pytest.mark.parametrize("merge", OURS.values())
def test_there_and_back(merge, output, tmp_path):
    model = cylstm.Model(3, 5, 2, loss="mse", num_layers=2, bidirectional=True, merge=merge, output=output, seed=2)
    exchange.save(model, tmp_path / "m.keras")
    again = exchange.load(tmp_path / "m.keras")
    assert again.config == model.config and np.array_equal(again.parameters.flat, model.parameters.flat)


def test_layers_of_different_modes_are_refused(tmp_path):
    content = weights_of(0, 2, 4) | weights_of(1, 4, 4) | arrays(dense=(4, 3))
    path = archive(tmp_path / "m.keras",
                   sequential(both_ways("a", True, "sum"), both_ways("b", True, "ave"), dense(3)), content)  # fmt: skip
    with pytest.raises(ValueError, match="LSTM layer 1: expected a merge of directions as in the first one, sum, got"):
        exchange.load(path)
