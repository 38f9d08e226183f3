"""Keras's files, put together with h5py and zipfile from what they hold; and those of data/keras_files.npz again."""

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np

TRACE = np.load(Path(__file__).parent / "data" / "keras_files.npz")


def layer(class_name, **options):
    return {"module": "keras.layers", "class_name": class_name, "config": options, "registered_name": None}


def lstm(units, name="lstm", **options):
    plain = dict(activation="tanh", recurrent_activation="sigmoid", return_sequences=True)
    return layer("LSTM", name=name, units=units, **plain | options)


def dense(units, name="dense", **options):
    return layer("Dense", name=name, units=units, **options)


def sequential(*layers, class_name="Sequential"):
    return {"module": "keras", "class_name": class_name, "config": {"name": "m", "layers": list(layers)}}


def call(name, *calls, number=0, tensor=0, **options):
    """One of a functional model's layers as Keras 3 describes it: which layer's output goes in."""
    tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [one, number, tensor]}} for one in calls]
    return {"name": name, "inbound_nodes": [{"args": tensors, "kwargs": options}] if calls else []}


def arrays(**shapes):
    """Random weights by the names of layers: LSTM's are (I, 4H), ... of (I, H), a dense layer's (F, O)."""
    rng, found = np.random.default_rng(4), {}
    for name, (I, H) in shapes.items():
        base = name.split("_")[0]
        kinds = {"lstm": ("cell/", [(I, 4 * H), (H, 4 * H), (4 * H,)]), "dense": ("", [(I, H), (H,)]),
                 "embedding": ("", [(I, H)])}  # fmt: skip
        place, several = kinds[base]
        for n, shape in enumerate(several):
            found[f"layers/{name}/{place}vars/{n}"] = rng.uniform(-0.8, 0.8, shape).astype(np.float32)
    return found


def weights(content) -> bytes:
    """An HDF5 file of arrays by their paths; attributes by "GROUP@name"."""
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        for path, array in content.items():
            place, _, name = path.partition("@")
            if name:
                root.require_group(place or "/").attrs[name] = array
            else:
                root[path] = array
    return file.getvalue()


def archive(path, config, content, version="3.15.1", compression=zipfile.ZIP_STORED):
    """A .keras file. config: as JSON, or text; content: arrays by their paths, or the bytes of a file."""
    with zipfile.ZipFile(path, "w", compression) as members:
        members.writestr("metadata.json", json.dumps({"keras_version": version}))
        members.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        members.writestr("model.weights.h5", content if isinstance(content, bytes) else weights(content))
    return path


ROLES = {1: ["embeddings"], 2: ["kernel", "bias"], 3: ["kernel", "recurrent_kernel", "bias"]}


def old(path, config, layers, version="2.15.0", top="model_weights/", pieces=False):
    """An older .h5, of arrays by layers; with `pieces`, names in several attributes. config: None for weights alone."""
    content = {"@model_config": json.dumps(config)} if config is not None else {}
    names = [name.encode() for name in layers]
    if pieces:
        content |= {f"{top}@layer_names{n}": np.array([name], "S") for n, name in enumerate(names)}
    else:
        content[f"{top}@layer_names"] = np.array(names, "S")
    content[f"{top}@keras_version"] = version
    for name, several in layers.items():
        roles = [f"{name}/cell/{role}:0" for role in ROLES.get(len(several), ROLES[3] * 2)]
        content[f"{top}{name}@weight_names"] = np.array(roles, "S") if several else np.zeros(0)
        content |= {f"{top}{name}/{role}": array for role, array in zip(roles, several, strict=True)} if several else {}
    Path(path).write_bytes(weights(content))
    return path


def by_layers(content):
    """Arrays of `arrays` by their layers."""
    found = {}
    for path, array in content.items():
        found.setdefault(path.split("/")[1], []).append(array)
    return found


def as_keras_wrote(which, ending, path):
    """The file "keras3 classifier", ... of the trace."""
    prefix = f"{which} {ending}"
    found = {name.removeprefix(prefix): TRACE[name] for name in TRACE if name.startswith(prefix)}
    inside = {name[1:]: array for name, array in found.items() if name[0] == ":"}
    texts = {name[1:]: str(array) for name, array in found.items() if name[0] == "@"}
    if ending == ".keras":
        version = json.loads(texts["metadata.json"])["keras_version"]
        return archive(path, texts["config.json"], inside, version)
    path.write_bytes(weights(inside | {f"@{name}": text for name, text in texts.items()}))
    return path
