"""Files of Neural Amp Modeler."""

import json

import numpy as np
import pytest
from lstm_by_hand import lstm_layer

import cylstm
from cylstm import exchange

METADATA = {"name": "a test's", "gear_type": "pedal", "loudness": -17.25, "training": {"settings": {"n": None}}}


def file_of(rng, I=1, H=3, L=2, O=1, state=0.0):
    """A file, and its parts as arrays."""
    parts = []
    for n in range(L):
        wide = (I if n == 0 else H) + H
        parts.append([rng.uniform(-0.8, 0.8, (4 * H, wide)), rng.uniform(-0.8, 0.8, 4 * H),
                      *(rng.uniform(0.1, 1, (2, H)) * state)])  # fmt: skip
    parts.append([rng.standard_normal((O, H)), rng.standard_normal(O)])
    parts = [[part.astype("f4") for part in layer] for layer in parts]
    config = {"input_size": I, "hidden_size": H, "num_layers": L}
    if (I, O) != (1, 1):
        config |= {"in_channels": I, "out_channels": O}
    weights = [number for layer in parts for part in layer for number in part.ravel().tolist()]
    return {"version": "0.5.4", "metadata": METADATA, "architecture": "LSTM", "config": config, "weights": weights,
            "sample_rate": 48000}, parts  # fmt: skip


def written(path, file):
    path.write_text(file if isinstance(file, str) else json.dumps(file))
    return path


def by_hand(parts, h):
    *layers, (V, c) = parts
    for W, b, h0, c0 in layers:
        inputs = h.shape[1]
        h = lstm_layer(h, W[:, :inputs], W[:, inputs:], b, h0, c0)
    return h @ V.T + c


@pytest.mark.parametrize("I, O", [(1, 1), (2, 3)])
def test_a_file_is_a_model(I, O, rng, tmp_path):
    file, parts = file_of(rng, I=I, O=O)
    x = rng.standard_normal((40, I)).astype("f4")
    model = exchange.load(written(tmp_path / "amp.nam", file))
    np.testing.assert_allclose(model(x)[0], by_hand(parts, x), rtol=0, atol=1e-6)


def test_the_state_of_a_file_is_in_its_network(rng, tmp_path):
    file, parts = file_of(rng, state=0.6)
    network = exchange.read(written(tmp_path / "amp.nam", file))
    for layer, (W, b, h0, c0) in zip(network.layers[:-1], parts[:-1], strict=True):
        (one,) = layer.directions
        assert np.array_equal(np.hstack([one.weight_ih, one.weight_hh]), W) and np.array_equal(one.bias, b)
        assert np.array_equal(one.h0, h0) and np.array_equal(one.c0, c0)


@pytest.mark.parametrize("state", [0.0, 0.6])
@pytest.mark.parametrize("I, O", [(1, 1), (2, 3)])
def test_a_file_comes_back_to_the_byte(I, O, state, rng, tmp_path):
    file, _ = file_of(rng, I=I, O=O, state=state)
    network = exchange.read(written(tmp_path / "amp.nam", file))
    assert network.notes == {"nam": {"version": "0.5.4", "metadata": METADATA, "sample_rate": 48000}}
    exchange.write(network, tmp_path / "again.nam")
    assert (tmp_path / "again.nam").read_text() == (tmp_path / "amp.nam").read_text()


def test_a_model_comes_back_to_the_bit(tmp_path, rng):
    model = cylstm.Model(1, 5, 1, num_layers=2, loss="mse", head_bias=False, seed=1)
    model.parameters.flat = rng.standard_normal(model.parameters.size)
    exchange.save(model, tmp_path / "amp.nam", sample_rate=44100.0, metadata={"name": "mine"})
    file = json.loads((tmp_path / "amp.nam").read_text())
    assert file["sample_rate"] == 44100 and file["metadata"] == {"name": "mine"} and file["version"] == "0.5.4"
    again = exchange.load(tmp_path / "amp.nam")
    for name, values in model.parameters.items():
        assert np.array_equal(again.parameters[name], values), name
    assert not again.parameters["head.bias"].any()


def test_the_network_decides_what_it_says(rng, tmp_path):
    """Notes may have come by another format, in which anything can stand."""
    file, _ = file_of(rng)
    network = exchange.read(written(tmp_path / "amp.nam", file))
    network.notes["nam"] |= {"weights": [0.5], "config": {"hidden_size": 9}, "architecture": "WaveNet", "mine": [1]}
    exchange.write(network, tmp_path / "again.nam")
    assert json.loads((tmp_path / "again.nam").read_text()) == file | {"mine": [1]}
    for version in ("0.8.0", 5, None):
        network.notes["nam"]["version"] = version
        with pytest.raises(ValueError, match=r"third.nam: version: expected 0.5.0 to 0.7, got"):
            exchange.write(network, tmp_path / "third.nam")
    network.notes["nam"] = ["0.5.4"]
    with pytest.raises(ValueError, match=r"third.nam: notes: expected a dict of what a NAM file says, got list"):
        exchange.write(network, tmp_path / "third.nam")
    assert not (tmp_path / "third.nam").exists()


def at(*place, value):
    def change(file):
        part = file
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = value
        return file

    return change


WRONG = {
    "WaveNet": (at("architecture", value="WaveNet"), "architecture: expected LSTM, got str 'WaveNet'"),
    "later": (at("version", value="0.8.0"), "version: expected 0.5.0 to 0.7, got str '0.8.0'"),
    "no version": (at("version", value=5), "version: expected 0.5.0 to 0.7, got int 5"),
    "fewer": (lambda file: {**file, "weights": file["weights"][:-1]}, "weights: expected 160 numbers for .*, got 159"),
    "one more": (lambda file: {**file, "weights": [*file["weights"], 0.5]}, "expected 160 numbers for .*, got 161"),
    "more": (at("config", "out_channels", value=2), "weights: expected 164 numbers for .*, got 160"),
    "huge": (at("config", "hidden_size", value=10**12), "weights: expected 12000000000017000000000001 numbers"),
    "deep": (at("config", "num_layers", value=10**12), "weights: expected 89999999999980 numbers for .*, got 160"),
    "none": (at("config", "num_layers", value=0), "config.num_layers: expected an integer >= 1, got 0"),
    "half": (at("config", "hidden_size", value=3.5), "config.hidden_size: expected an integer, got float 3.5"),
    "channels": (at("config", "in_channels", value=2), "config.in_channels: expected 1, its input_size, got 2"),
    "strange": (at("config", "bidirectional", value=True), "config: expected input_size, .* got str 'bidirectional'"),
    "no config": (at("config", value=[1, 2]), "config: expected an object, got list"),
    "no weights": (lambda file: {"architecture": "LSTM"}, "expected version, .*, got no version, config, weights"),
    "text": (at("weights", value="0.1, 0.2"), "weights: expected a list of numbers, got str"),
    "nested": (at("weights", 3, value=[0.5]), "weights: expected a list of numbers, got list"),
    "infinite": (at("weights", 3, value=float("inf")), "weights: expected numbers that float32 holds, got others"),
    "truncated": (lambda file: json.dumps(file)[:300], "expected JSON, got some that is truncated or none at all"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_by_name(name, rng, tmp_path):
    change, message = WRONG[name]
    with pytest.raises(ValueError, match=rf"^[^:]*amp.nam: .*{message}"):
        exchange.load(written(tmp_path / "amp.nam", change(file_of(rng)[0])))


@pytest.mark.parametrize("model, message", [
    (lambda: cylstm.LSTM(1, 5), "expected one linear layer behind the LSTM, as NAM has it, got none"),
    (lambda: cylstm.Model(1, 5, 2), "expected one linear layer behind the LSTM, as NAM has it, got softmax"),
    (lambda: cylstm.Model(1, 5, 1, loss="mse", after=[cylstm.Dense(3)]), "as NAM has it, got relu, linear"),
    (lambda: cylstm.Model(1, 5, 1, loss="mse", before=[cylstm.Dense(3)]), "expected the LSTM first, as NAM has it"),
    (lambda: cylstm.Model(1, 5, 1, loss="mse", bidirectional=True), "expected one direction, as NAM has, got both"),
    (lambda: cylstm.Model(1, 5, 1, loss="mse", cell_clip=1.0), "expected no cell_clip, which NAM has not"),
    (lambda: cylstm.Model(1, 5, 1, loss="mse", output="last"), "expected no last, which NAM has not"),
])  # fmt: skip
def test_what_nam_has_not_is_not_written(model, message, tmp_path):
    with pytest.raises(ValueError, match=f"amp.nam: .*{message}"):
        exchange.save(model(), tmp_path / "amp.nam")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options, error, message", [
    (dict(sample_rate=0), ValueError, r"sample_rate: expected a number in \(0, inf\), got 0"),
    (dict(sample_rate="48k"), TypeError, "sample_rate: expected a number, got str '48k'"),
    (dict(metadata=5), TypeError, "metadata: expected a dict, got int 5"),
    (dict(metadata=["name"]), TypeError, "metadata: expected a dict, got list"),
    (dict(metadata={"when": {1, 2}}), TypeError, r"amp.nam: expected what JSON has, got set"),
    (dict(metadata={"loudness": np.nan}), ValueError, "amp.nam: expected finite numbers, as JSON has no others"),
])  # fmt: skip
def test_notes_that_are_wrong_are_said_so(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        exchange.save(cylstm.Model(1, 5, 1, loss="mse"), tmp_path / "amp.nam", **options)
