"""What docs/coming.md says of Keras and PyTorch: the same name, another meaning."""

import inspect
import os

import numpy as np
import pytest

from cylstm import LSTM, SGD, Adam, Model, data, exchange

torch = pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
T, I, H = 7, 3, 5


@pytest.fixture
def keras():
    keras = pytest.importorskip("keras", minversion="3.5")
    keras.utils.set_random_seed(0)
    return keras


of_keras = pytest.mark.filterwarnings("ignore")  # Keras's own, and what exchange.load leaves to the caller


def pair(**options):
    """A layer of torch's with a head, and a model with the same weights."""
    torch.manual_seed(0)
    network = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(I, H, batch_first=True, **options)})
    network["head"] = torch.nn.Linear(H * (1 + network["lstm"].bidirectional), 1)
    return network, exchange.load(network.state_dict(), format="pytorch", head="head.")


def biases(network):
    return (network["lstm"].bias_ih_l0 + network["lstm"].bias_hh_l0).detach().numpy().copy()


# --- PyTorch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_two_biases_learn_twice_as_fast_as_one_and_count_twice(rng, name):
    x, y = rng.standard_normal((4, T, I)).astype("float32"), rng.standard_normal((4, T, 1)).astype("float32")
    network, model = pair()
    before, ours = biases(network), model.parameters["lstm.bias_l0"].copy()
    assert np.allclose(before, ours)
    optimizer = getattr(torch.optim, name)(network.parameters(), 0.1)
    outputs = network["head"](network["lstm"](torch.from_numpy(x))[0])
    torch.nn.functional.mse_loss(outputs, torch.from_numpy(y)).backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1e9).item()
    optimizer.step()
    of_bias = network["lstm"].bias_ih_l0.grad.norm().item()
    options = dict(optimizer={"SGD": SGD, "Adam": Adam}[name](0.1), clip_norm=None, progress=False)
    history = model.fit(x, y, epochs=1, **options)
    assert norm**2 == pytest.approx(history.gradient_norm[0] ** 2 + of_bias**2, rel=1e-4)
    assert np.allclose(biases(network) - before, 2 * (model.parameters["lstm.bias_l0"] - ours), atol=1e-6)
    weight = network["lstm"].weight_hh_l0.detach()
    assert np.allclose(weight, model.parameters["lstm.weight_hh_l0"], atol=1e-6)


def test_padding_counts_in_torchs_mean_and_not_in_ours(rng):
    x, y = rng.standard_normal((2, T, I)).astype("float32"), np.ones((2, T, 1), "float32")
    _, model = pair()
    lengths = np.array([T, 2])
    outputs, _ = model(x, lengths=lengths)
    assert not outputs[1, 2:].any()
    y[1, 2:] = 0  # padded with zeros, as pad_sequence does
    error = ((outputs - y) ** 2)[..., 0]
    theirs = torch.nn.functional.mse_loss(torch.from_numpy(outputs), torch.from_numpy(y)).item()
    ours = model.evaluate(x, y, lengths=lengths)["loss"]
    assert ours == pytest.approx(error.sum() / (T + 2), rel=1e-5)
    assert theirs == pytest.approx(error.sum() / (2 * T), rel=1e-5) and ours > 1.5 * theirs


def test_the_last_step_is_not_the_final_state_of_two_directions(rng):
    x = rng.standard_normal((2, T, I)).astype("float32")
    network, _ = pair(bidirectional=True)
    y, (h, _) = network["lstm"](torch.from_numpy(x))
    last = Model(I, H, 1, bidirectional=True, output="last", loss="mse", seed=0)
    for name, values in network.state_dict().items():
        if "bias" not in name and name.startswith("lstm."):
            last.parameters[name][...] = values
    for suffix in ("", "_reverse"):
        last.parameters[f"lstm.bias_l0{suffix}"][...] = sum(
            network.state_dict()[f"lstm.bias_{which}_l0{suffix}"] for which in ("ih", "hh")
        )
    outputs, state = last(x)
    assert np.allclose(state.h, h.detach(), atol=1e-6)  # the same order
    both = torch.cat([h[-2], h[-1]], dim=1).detach().numpy()
    assert np.allclose(outputs, both @ last.parameters["head.weight"].T + last.parameters["head.bias"], atol=1e-6)
    assert not np.allclose(y[:, -1].detach(), both, atol=1e-2)


def test_dropout_of_one_layer_is_refused_where_torch_warns():
    with pytest.warns(UserWarning, match="dropout"):
        torch.nn.LSTM(I, H, dropout=0.5)
    with pytest.raises(ValueError, match="dropout"):
        Model(I, H, 1, loss="mse", dropout=0.5)


def test_first_weights():
    torch.manual_seed(0)
    theirs, ours = torch.nn.LSTM(40, 100), LSTM(40, 100, seed=0)
    for name, values in theirs.named_parameters():
        assert 0.09 < values.abs().max() <= 0.1, name  # uniform within 1 / sqrt(H), biases too
    assert np.allclose(ours.parameters["weight_ih_l0"].std(), 1 / np.sqrt(40), rtol=0.05)
    gate = ours.parameters["weight_hh_l0"][100:200]
    assert np.allclose(gate @ gate.T, np.eye(100), atol=1e-5)
    assert np.array_equal(ours.parameters["bias_l0"], np.repeat([0, 1, 0, 0], 100))


def test_weights_of_classes_are_in_both_sums(rng):
    x, y = rng.standard_normal((4, T, I)).astype("float32"), np.array([0, 0, 1, 2])
    model = Model(I, H, 3, output="last", seed=0)
    weight = {0: 1.0, 1: 2.0, 2: 5.0}
    theirs = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0]))
    loss = theirs(torch.from_numpy(model(x)[0]), torch.from_numpy(y)).item()
    assert model.evaluate(x, y, class_weight=weight)["loss"] == pytest.approx(loss, rel=1e-5)


def test_batches_of_like_lengths(rng):
    lengths = [9, 2, 8, 3]
    x = [rng.standard_normal((n, I)) for n in lengths]
    y = [rng.standard_normal((n, 1)) for n in lengths]
    options = dict(epochs=1, progress=False)

    def loss(batches):
        return Model(I, H, 1, loss="mse", seed=0).fit(batches, optimizer=SGD(0.5), **options).train_loss[0]

    model = Model(I, H, 1, loss="mse", seed=0)
    ours = model.fit(x, y, batch_size=2, shuffle=False, optimizer=SGD(0.5), **options).train_loss[0]
    alike = [loss(data.Batched([(x[n], y[n]) for n in order], 2)) for order in ([1, 3, 2, 0], [2, 0, 1, 3])]
    assert min(abs(ours - one) for one in alike) < 1e-6
    assert abs(ours - loss(data.Batched(list(zip(x, y, strict=True)), 2))) > 1e-4


# --- Keras ------------------------------------------------------------------------------------------------------------


def loaded(model, path):
    model.save(path)
    return exchange.load(path)


@of_keras
def test_first_weights_of_keras(keras):
    layer = keras.layers.LSTM(100)
    layer.build((None, None, 40))
    kernel, recurrent, bias = layer.get_weights()
    assert np.abs(kernel).max() <= np.sqrt(6 / (40 + 400)) and np.array_equal(bias, np.repeat([0, 1, 0, 0], 100))
    assert np.allclose(recurrent @ recurrent.T, np.eye(100), atol=1e-4)  # all four gates at once
    assert not np.allclose(recurrent[:, :100] @ recurrent[:, :100].T, np.eye(100), atol=0.1)
    assert layer.recurrent_activation is keras.activations.sigmoid


@of_keras
def test_outputs_of_masked_steps_are_repeated_by_keras_and_0_here(keras, rng, tmp_path):
    x = rng.standard_normal((2, T, I)).astype("float32")
    mask = np.array([[True] * T, [True] * 3 + [False] * (T - 3)])
    x[~mask] = -9
    layers = [keras.layers.Masking(-9), keras.layers.LSTM(H, return_sequences=True), keras.layers.Dense(1)]
    model = keras.Sequential([keras.layers.Input((T, I)), *layers])
    theirs, again = model.predict(x, verbose=0), loaded(model, tmp_path / "m.keras")
    ours, _ = again(x, mask=mask)
    assert np.allclose(ours[mask], theirs[mask], atol=1e-5) and not ours[~mask].any()
    assert np.allclose(theirs[1, 3:], theirs[1, 2], atol=1e-6)


@of_keras
def test_what_stands_in_a_mean(keras, rng, tmp_path):
    """Masked steps do not count in either; weights are divided by rows there, and by their sum here."""
    x, y = rng.standard_normal((2, T, I)).astype("float32"), rng.standard_normal((2, T, 1)).astype("float32")
    mask = np.array([[True] * T, [True] * 3 + [False] * (T - 3)])
    x[~mask] = -9
    layers = [keras.layers.Masking(-9), keras.layers.LSTM(H, return_sequences=True), keras.layers.Dense(1)]
    model = keras.Sequential([keras.layers.Input((T, I)), *layers])
    model.compile(loss="mse")
    again = loaded(model, tmp_path / "m.keras")
    assert model.evaluate(x, y, verbose=0) == pytest.approx(again.evaluate(x, y, mask=mask)["loss"], rel=1e-4)

    model = keras.Sequential([keras.layers.Input((T, I)), keras.layers.LSTM(H), keras.layers.Dense(1)])
    model.compile(loss="mse")
    again, weights = loaded(model, tmp_path / "m.keras"), np.array([1.0, 3.0])
    theirs = model.evaluate(x, y[:, 0], sample_weight=weights, verbose=0)
    ours = again.evaluate(x, y[:, 0], sample_weight=weights)["loss"]
    assert theirs * 2 == pytest.approx(ours * weights.sum(), rel=1e-4)


@of_keras
def test_a_stateful_layer_goes_on_where_it_was(keras, rng, tmp_path):
    x = rng.standard_normal((1, T, I)).astype("float32")
    model = keras.Sequential([keras.layers.Input(batch_shape=(1, T, I)), keras.layers.LSTM(H, stateful=True),
                              keras.layers.Dense(1)])  # fmt: skip
    first, second = (model.predict(x, verbose=0) for _ in range(2))
    again = loaded(model, tmp_path / "m.keras")
    _, state = again(x)
    assert np.allclose(again(x)[0], first, atol=1e-6) and not np.allclose(first, second, atol=1e-4)
    assert np.allclose(again(x, state)[0], second, atol=1e-6)


@of_keras
@pytest.mark.parametrize("theirs, ours", [
    (dict(global_clipnorm=0.1), dict(clip_norm=0.1)), (dict(clipnorm=0.1), dict(clip_norm=0.1, clip_each=True)),
])  # fmt: skip
def test_clipping(keras, rng, tmp_path, theirs, ours):
    x, y = rng.standard_normal((4, T, I)).astype("float32"), 9 * rng.standard_normal((4, 1)).astype("float32")
    model = keras.Sequential([keras.layers.Input((T, I)), keras.layers.LSTM(H), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0, **theirs), "mse")
    again = loaded(model, tmp_path / "m.keras")
    before = again.parameters.flat.copy()
    model.fit(x, y, epochs=1, verbose=0)
    again.fit(x, y, epochs=1, optimizer=SGD(1.0), progress=False, **ours)
    assert np.abs(again.parameters.flat - before).max() > 1e-3
    assert np.allclose(model.predict(x, verbose=0), again.predict(x), atol=1e-5)


@of_keras
def test_clip_by_value(keras, rng, tmp_path):
    x, y = rng.standard_normal((4, T, I)).astype("float32"), 9 * rng.standard_normal((4, 1)).astype("float32")
    model = keras.Sequential([keras.layers.Input((T, I)), keras.layers.LSTM(H), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0, clipvalue=0.01), "mse")
    again = loaded(model, tmp_path / "m.keras")
    model.fit(x, y, epochs=1, verbose=0)
    again.fit(x, y, epochs=1, optimizer=SGD(1.0), clip_norm=None, progress=False,
              on_gradients=lambda _model, found: np.clip(found.flat, -0.01, 0.01, out=found.flat))  # fmt: skip
    assert np.allclose(model.predict(x, verbose=0), again.predict(x), atol=1e-5)


@of_keras
def test_dropout_of_a_keras_layer_is_of_its_inputs_at_all_steps(keras):
    x, layer = np.ones((1, 3, 40), "float32"), keras.layers.LSTM(H, dropout=0.5)
    layer(x)
    mask = keras.ops.convert_to_numpy(layer.cell.get_dropout_mask(keras.ops.convert_to_tensor(x[:, 0])))
    assert mask.shape == (1, 40) and set(np.unique(mask)) == {0, 2}  # what `input_dropout` draws


@of_keras
def test_patience(keras, rng):
    """As many epochs run; Keras keeps the last weights unless told otherwise, and here it is the best."""
    x, y = rng.standard_normal((8, T, I)).astype("float32"), rng.standard_normal((8, 1)).astype("float32")
    held_out = x, -y - 9  # gets worse from the first epoch on
    model = keras.Sequential([keras.layers.Input((T, I)), keras.layers.LSTM(H), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    stop = keras.callbacks.EarlyStopping(patience=3)
    theirs = model.fit(x, y + 9, validation_data=held_out, epochs=20, callbacks=[stop], verbose=0)
    ours = Model(I, H, 1, output="last", loss="mse", seed=0)
    history = ours.fit(x, y + 9, validation=held_out, epochs=20, patience=3, optimizer=Adam(1e-2), progress=False)
    assert len(theirs.history["loss"]) == len(history) == 4
    assert ours.evaluate(*held_out)["loss"] == pytest.approx(min(history.validation_loss), rel=1e-6)
    assert model.evaluate(*held_out, verbose=0) == pytest.approx(theirs.history["val_loss"][-1], rel=1e-4)


@of_keras
def test_eps_of_adam(keras, rng, tmp_path):
    x, y = rng.standard_normal((4, T, I)).astype("float32"), rng.standard_normal((4, 1)).astype("float32")
    model = keras.Sequential([keras.layers.Input((T, I)), keras.layers.LSTM(H), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-2), "mse")
    same, other = (loaded(model, tmp_path / "m.keras") for _ in range(2))
    model.fit(x, y, epochs=1, verbose=0)
    for ours, eps in ((same, 1e-2 / np.sqrt(1 - 0.999)), (other, 1e-2)):
        ours.fit(x, y, epochs=1, optimizer=Adam(1e-2, eps=eps), clip_norm=None, progress=False)
    assert np.allclose(same.predict(x), model.predict(x, verbose=0), atol=1e-6)
    assert not np.allclose(other.predict(x), model.predict(x, verbose=0), atol=1e-3)


@of_keras
def test_defaults(keras):
    adam = keras.optimizers.Adam()
    assert float(adam.learning_rate) == pytest.approx(1e-3) and adam.epsilon == 1e-7 and adam.global_clipnorm is None
    assert Adam().eps == 1e-8
    options = inspect.signature(keras.Model.fit).parameters
    assert options["epochs"].default == 1 and options["shuffle"].default is True
    assert keras.utils.pad_sequences([[1, 2]], 3).tolist() == [[0, 1, 2]]
    x = np.array([-2.9, 0.7, 2.0], "float32")
    found = keras.ops.convert_to_numpy(keras.activations.hard_sigmoid(x))
    assert np.allclose(found, np.clip(x / 6 + 0.5, 0, 1), atol=1e-6) and not np.allclose(
        found, 0.2 * x + 0.5, atol=0.02
    )
