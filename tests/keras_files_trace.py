"""Makes data/keras_files.npz: what is in files that Keras has written, and what their models predict.

    python tests/keras_files_trace.py        (needs Keras: 3 with jax, or 2.15 with TensorFlow; each adds its own)

Of each model, as .keras and as the older .h5, the texts and attributes ("FILE@name", "FILE:GROUP@name") and the arrays
("FILE:path"); x, lengths and outputs. Seen: Keras 3.15.1 and 2.15.0.
"""

import io
import os
import tempfile
import zipfile
from pathlib import Path

os.environ |= {"KERAS_BACKEND": "jax", "CUDA_VISIBLE_DEVICES": ""}

import h5py
import keras
import numpy as np

B, T, I, V = 3, 6, 3, 7
PATH = Path(__file__).parent / "data" / "keras_files.npz"
layers = keras.layers


def models():
    both = [layers.Bidirectional(layers.LSTM(4, return_sequences=more)) for more in (True, False)]
    yield "classifier", keras.Sequential([
        keras.Input((None, I)), layers.Dense(5, "tanh"), both[0], layers.Dropout(0.25), both[1],
        layers.Dense(4, "relu"), layers.Dropout(0.5), layers.Dense(3), layers.Softmax()])  # fmt: skip
    ids = keras.Input((None,))
    h = layers.LSTM(4, return_sequences=True)(layers.Embedding(V, 3, mask_zero=True)(ids))
    yield "masked", keras.Model(ids, layers.Dense(1, "sigmoid")(layers.LSTM(4)(h)))


def content(file, name):
    """What an HDF5 file has, by names for this trace."""
    found = {}

    def visit(path, one):
        if isinstance(one, h5py.Dataset):
            found[f"{name}:{path}"] = one[()]
        for key, value in one.attrs.items():
            if key in ("layer_names", "weight_names", "name"):
                found[f"{name}:{path}@{key}"] = np.array(value, "S") if len(value) else np.zeros(0)

    with h5py.File(file) as root:
        root.visititems(visit)
        found |= {f"{name}@{key}": value for key, value in root.attrs.items()}
    return found


def main():
    major = keras.__version__.split(".")[0]
    kept = dict(np.load(PATH)) if PATH.exists() else {}
    kept = {name: part for name, part in kept.items() if not name.startswith(f"keras{major} ")}
    rng = np.random.default_rng(5)
    for name, model in models():
        model.set_weights([rng.uniform(-0.8, 0.8, weight.shape) for weight in model.get_weights()])
        x = rng.standard_normal((B, T, I)).astype(np.float32)
        lengths = np.array([T, 2, 4])
        if name == "masked":
            x = np.where(np.arange(T) < lengths[:, None], rng.integers(1, V, (B, T)), 0)
        prefix = f"keras{major} {name}"
        kept |= {f"{prefix} x": x, f"{prefix} outputs": model.predict(x, verbose=0)}
        if name == "masked":
            kept[f"{prefix} lengths"] = lengths
        with tempfile.TemporaryDirectory() as folder:
            model.save(f"{folder}/m.keras")
            model.save(f"{folder}/m.h5")
            with zipfile.ZipFile(f"{folder}/m.keras") as archive:
                kept |= content(io.BytesIO(archive.read("model.weights.h5")), f"{prefix} .keras")
                kept |= {
                    f"{prefix} .keras@{part}": archive.read(part).decode() for part in ("config.json", "metadata.json")
                }
            kept |= content(f"{folder}/m.h5", f"{prefix} .h5")
    np.savez_compressed(PATH, **kept)
    print(PATH.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
