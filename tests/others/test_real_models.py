"""Trained models of other people, from their packages (extra "real"), held to what those packages compute.

The packages' files will do: `pip install --no-deps` brings them without what else they need.
"""

import importlib.util
import pickle
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

from cylstm import exchange
from cylstm.exchange.network import Dense, Direction, Network, Recurrent

torch = pytest.importorskip("torch")


def files_of(package):
    """The folder of an installed package, which is not imported: it may need much that is not here."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"needs {package}, of the extra 'real'")
    return Path(found.submodule_search_locations[0])


# --- silero-vad: is this speech? (16 kHz, 32 ms a step) ---------------------------------------------------------------


def voice(seconds, rate=16_000):
    """Like a vowel that comes and goes: harmonics of a moving pitch under three formants, and a little noise."""
    rng, t = np.random.default_rng(5), np.arange(seconds * rate) / rate
    phase = 2 * np.pi * np.cumsum(120 + 25 * np.sin(2 * np.pi * 1.3 * t)) / rate
    sound = np.zeros(len(t))
    for k in range(1, 30):
        gain = 0.05 + sum(np.exp(-(((140 * k - formant) / 150) ** 2)) for formant in (600, 1200, 2600))
        sound += gain * np.sin(k * phase) / k**0.3
    loudness = np.sqrt(np.clip(np.sin(2 * np.pi * 2.2 * t), 0, 1)) * (t > 0.7) * (t < 2.4)
    return (0.15 * sound * loudness + 0.002 * rng.standard_normal(len(t))).astype("f4")


def test_silero_hears_the_same_voice():
    path = files_of("silero_vad") / "data" / "silero_vad.jit"
    sound = torch.from_numpy(voice(3))
    sound = sound[: len(sound) // 512 * 512]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's, of its own TorchScript
        package = torch.jit.load(str(path))
        package.reset_states()
        expected = np.array([package(chunk, 16_000).item() for chunk in sound.reshape(-1, 512)])
    assert expected.min() < 0.05 and expected.max() > 0.9

    with pytest.warns(UserWarning, match="^state dict: left out, as no option names it: "):
        lstm = exchange.load(package.state_dict(), format="pytorch", prefix="_model.decoder.rnn.")
    inner, chunks = package._model, torch.nn.functional.pad(sound, (64, 0)).unfold(0, 576, 512)
    with torch.no_grad():  # what stands before the LSTM, of 64 samples of the chunk before, too
        features = [inner.encoder(inner.run_extractors(chunk[None]))[0, :, 0].numpy() for chunk in chunks]
    h, _ = lstm(np.stack(features))
    V, b = (package.state_dict()[f"_model.decoder.decoder.2.{name}"].numpy() for name in ("weight", "bias"))
    z = np.maximum(h, 0) @ V[0, :, 0] + b
    np.testing.assert_allclose(1 / (1 + np.exp(-z)), expected, rtol=0, atol=1e-6)


# --- Resemblyzer: whose voice is this? --------------------------------------------------------------------------------


def test_resemblyzer_recognises_the_same_voices(rng):
    path = files_of("resemblyzer") / "pretrained.pt"
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    encoder, linear = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)  # as in voice_encoder.py
    encoder.load_state_dict({k.removeprefix("lstm."): v for k, v in state.items() if k.startswith("lstm.")})
    linear.load_state_dict({k.removeprefix("linear."): v for k, v in state.items() if k.startswith("linear.")})
    mels = torch.from_numpy(rng.gamma(0.3, 0.02, (4, 160, 40)).astype("f4"))  # as sparse as theirs
    with torch.no_grad():
        expected, (hidden, _) = encoder(mels)
        embedded = linear(hidden[-1]).relu().numpy()

    with pytest.warns(UserWarning, match="left out, as no option names it: .*model_state.linear.weight"):
        y, state = exchange.load(path)(mels.numpy())
    np.testing.assert_allclose(y, expected.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(state.h, hidden.numpy(), rtol=0, atol=1e-5)
    with pytest.warns(UserWarning, match="left out, as no option names it: "):
        model = exchange.load(path, head="model_state.linear.", last=True)
    np.testing.assert_allclose(np.maximum(model(mels.numpy())[0], 0), embedded, rtol=0, atol=1e-5)


# --- madmom: where are the beats? (peepholes) -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def madmom():
    """Its networks, by its own code; the package itself does not import where it was renamed."""
    folder = files_of("madmom")
    stub = types.ModuleType("madmom")
    stub.__path__ = [str(folder)]
    before = set(sys.modules)
    sys.modules["madmom"] = stub
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield [pickle.loads(path.read_bytes(), encoding="latin1") for path in networks_in(folder)]
    finally:
        for name in set(sys.modules) - before:
            if name.split(".")[0] == "madmom":
                del sys.modules[name]


def networks_in(folder):
    return sorted(folder.glob("models/*/*/*lstm_*.pkl"))


def direction_of(layer):
    """One direction's weights of four gates, each (I, H), (H, H), (H,)."""
    gates = layer.input_gate, layer.forget_gate, layer.cell, layer.output_gate
    return Direction(
        np.concatenate([gate.weights.T for gate in gates]),
        np.concatenate([gate.recurrent_weights.T for gate in gates]),
        np.concatenate([gate.bias for gate in gates]),
        np.stack([gate.peephole_weights for gate in (layer.input_gate, layer.forget_gate, layer.output_gate)]),
        layer.init, layer.cell_init,
    )  # fmt: skip


def network_of(net):
    """A network of theirs as one of ours."""
    *recurrent, head = net.layers
    ways = [[layer.fwd_layer, layer.bwd_layer] if hasattr(layer, "fwd_layer") else [layer] for layer in recurrent]
    layers = [Recurrent(tuple(map(direction_of, way))) for way in ways]
    return Network((*layers, Dense(head.weights.T.copy(), head.bias, head.activation_fn.__name__)))


def test_madmoms_networks_hear_the_same_beats(madmom, rng):
    assert len(madmom) == 24
    for net in madmom:
        network = network_of(net)
        model = exchange.model_of(network)
        x = rng.gamma(0.5, 0.4, (60, model.input_size)).astype("f4")  # like spectra
        got = model.predict_proba(x)
        np.testing.assert_allclose(got.squeeze(), net.process(x), rtol=0, atol=1e-5)
        assert all(np.array_equal(a, b) for a, b in zip(*map(weights_of, (network, exchange.network_of(model))),
                                                        strict=True))  # fmt: skip


def weights_of(network):
    return [getattr(one, name) for layer in network.layers if isinstance(layer, Recurrent) for one in layer.directions
            for name in ("weight_ih", "weight_hh", "bias", "peephole")]  # fmt: skip
