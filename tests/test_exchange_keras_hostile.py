"""Keras files that are damaged, claim too much or point elsewhere; weights that say too little; what Keras lacks."""

import io
import json
import struct
import zipfile

import h5py
import numpy as np
import pytest
from keras_by_hand import archive, arrays, by_layers, dense, lstm, old, sequential, weights

import cylstm
from cylstm import exchange
from cylstm.exchange.network import Dense, Direction, Network, Recurrent

CONFIG = sequential(lstm(4), dense(3))
CONTENT = arrays(lstm=(2, 4), dense=(4, 3))
KERNEL = "layers/lstm/cell/vars/0"


def changed(change) -> bytes:
    """The weights, once something was done to their open file."""
    file = io.BytesIO(weights(CONTENT))
    with h5py.File(file, "r+") as root:
        change(root)
    return file.getvalue()


def replaced(root, path, **options):
    del root[path]
    return root.create_dataset(path, **options)


def virtual(root):
    layout = h5py.VirtualLayout((2, 16), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (2, 16))
    del root[KERNEL]
    root.create_virtual_dataset(KERNEL, layout)


def linked(link):
    def change(root):
        del root[KERNEL]
        root[KERNEL] = link

    return change


HUGE = (1 << 30, 16)
CHANGES = {
    "claims": (lambda root: replaced(root, KERNEL, shape=HUGE, dtype="f4", chunks=(1024, 16)),
               r"expected as many bytes as \(1073741824, 16\) takes, got 0"),
    "claims, of zeros": (lambda root: replaced(root, KERNEL, data=np.zeros((1 << 18, 16), "f4"), compression="gzip",
                                               chunks=(1 << 18, 16)), "expected as many bytes as"),
    "a chunk claims": (lambda root: replaced(root, KERNEL, data=np.zeros((2, 16), "f4"), compression="gzip",
                                             maxshape=(None, 16), chunks=(1 << 19, 16)),
                       r"expected as many bytes as a chunk of \(524288, 16\) takes"),
    "never written": (lambda root: replaced(root, KERNEL, shape=(2, 16), dtype="f4"), "takes, got 0"),
    "whole numbers": (lambda root: replaced(root, KERNEL, data=np.ones((2, 16), "i8")), "real numbers, got int64"),
    "texts": (lambda root: replaced(root, KERNEL, data=["a", "b"]), "expected real numbers, got object"),
    "other ranks": (lambda root: replaced(root, KERNEL, data=np.ones(16, "f4")), r"shape \(any, 16\), got \(16,\)"),
    "a group": (lambda root: (root.__delitem__(KERNEL), root.create_group(KERNEL)), "expected a dataset, got a group"),
    "a soft link": (linked(h5py.SoftLink("/layers/dense/vars/0")), "expected weights in the file itself, got a link"),
    "another file": (linked(h5py.ExternalLink("other.h5", "/x")), "expected weights in the file itself, got a link"),
    "virtual": (virtual, "expected weights in the file itself, got those of other files"),
    "external": (lambda root: replaced(root, KERNEL, shape=(2, 16), dtype="f4", external=[("other", 0, 128)]),
                 "expected weights in the file itself, got those of other files"),
    "no layers": (lambda root: root.__delitem__("layers"), "expected groups of layers, as Keras writes them, got none"),
    "no LSTM": (lambda root: root.__delitem__("layers/lstm"), "layers: expected 1 groups called lstm, got 0"),
    "another LSTM": (lambda root: root.copy("layers/lstm", "layers/lstm_1"), "expected 1 groups called lstm, got 2"),
    "no bias": (lambda root: root.__delitem__("layers/lstm/cell/vars/2"), "lstm: expected 3 arrays in cell/vars, got"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_weights_that_are_not_there_are_not_read(name, tmp_path, traced):
    change, message = CHANGES[name]
    content = changed(change)
    path = archive(tmp_path / "m.keras", CONFIG, content)

    def refused():
        with pytest.raises(ValueError, match=f"m.keras: .*{message}"):
            exchange.load(path)

    assert traced(refused) < 4 << 20


def test_one_layers_weights_are_not_another_ones(tmp_path):
    file = io.BytesIO(weights(arrays(lstm=(4, 4))))
    with h5py.File(file, "r+") as root:
        for n in range(1, 60):
            root[f"layers/lstm_{n}"] = root["layers/lstm"]
    layers = [lstm(4, f"l{n}") for n in range(60)]
    with pytest.raises(ValueError, match="expected weights of its own, got those of another layer again"):
        exchange.load(archive(tmp_path / "m.keras", sequential(*layers), file.getvalue()))


def test_an_archive_that_claims_too_much(tmp_path, traced):
    bomb = archive(
        tmp_path / "m.keras", json.dumps(CONFIG) + " " * (64 << 20), CONTENT, compression=zipfile.ZIP_DEFLATED
    )

    def refused():
        with pytest.raises(
            ValueError, match=r"m.keras: config.json: expected at most 64 times what is there of it, got"
        ):
            exchange.load(bomb)

    assert traced(refused) < 1 << 20


def attribute(name, value):
    file = io.BytesIO(old_file())
    with h5py.File(file, "r+") as root:
        root["model_weights"].attrs[name] = value
    return file.getvalue()


def old_file() -> bytes:
    content = {"@model_config": json.dumps(CONFIG), "model_weights@layer_names": np.array(["lstm", "dense"], "S")}
    for name in ("lstm", "dense"):
        content[f"model_weights/{name}@weight_names"] = np.array([f"{name}/x:0"], "S")
        content[f"model_weights/{name}/{name}/x:0"] = np.ones((2, 2), "f4")
    return weights(content)


def variable(rows, kind):
    found = np.empty(len(rows), object)
    found[:] = [np.array(row, kind) for row in rows]
    return found.astype(h5py.vlen_dtype(np.dtype(kind)))


def descriptors(content, length):
    """Where texts of this length are spoken of: the length, an address of the global heap and a number in there."""
    at = content.find(struct.pack("<I", length))
    while at >= 0:
        address = int.from_bytes(content[at + 4 : at + 12], "little")
        if content[address : address + 4] == b"GCOL":
            yield at
        at = content.find(struct.pack("<I", length), at + 1)


def claiming(name, length):
    """A file with a text that is said to be longer than it is: libhdf5 allocates as much."""
    value = "x" * 777 if name == "keras_version" else ["y" * 777, "lstm"]
    content = bytearray(attribute(name, value))
    (at,) = descriptors(content, 777)
    content[at : at + 4] = struct.pack("<I", length)
    return bytes(content)


def one_text_often():
    """Of 999 texts, each is said to be the configuration."""
    content = bytearray(attribute("layer_names", np.array([f"{n:013}" for n in range(999)], object)))
    (one,) = descriptors(content, len(json.dumps(CONFIG)))
    places = list(descriptors(content, 13))
    assert len(places) == 999
    for at in places:
        content[at : at + 16] = content[one : one + 16]
    return bytes(content)


def long_names() -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w", libver="latest") as root:
        root.create_group("model_weights").attrs.create("layer_names", np.zeros(10, "S20000"))
    return file.getvalue()


OLD = {
    "roles": (old_file, "lstm: expected kernel, recurrent_kernel, bias, got x"),
    "numbers": (lambda: attribute("layer_names", np.arange(3)), r"layer_names: expected names, got int64 \(3,\)"),
    "lists": (lambda: attribute("layer_names", [["lstm"], ["dense"]]), "lstm: expected kernel, recurrent_kernel, bias"),
    "variable numbers": (lambda: attribute("layer_names", variable([[1, 2], [3]], "i4")),
                         "layer_names: expected names, got object"),
    "a long text": (lambda: claiming("keras_version", 1 << 28), r"keras_version: expected one text, got object \(\)"),
    "long texts": (lambda: claiming("layer_names", 1 << 28), "layer_names: expected at most 65536 bytes in one"),
    "one text many times": (one_text_often, "layer_names: expected at most 65536 bytes in one attribute"),
    "other layers": (lambda: attribute("layer_names", np.array(["a", "b"], "S")), "lstm: expected weights of"),
    "too many": (long_names, "layer_names: expected at most 65536 bytes in one attribute"),
    "version": (lambda: attribute("keras_version", 3), "keras_version: expected text, got"),
    "versions": (lambda: attribute("keras_version", np.array(["3", "4"], "S")), "keras_version: expected one text"),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_older_files_that_are_not_right(name, tmp_path):
    content, message = OLD[name]
    (tmp_path / "m.h5").write_bytes(content())
    with pytest.raises(ValueError, match=f"m.h5: {message}"):
        exchange.load(tmp_path / "m.h5")


CONFIGS = {
    "no JSON": ("{", "config.json: expected JSON"),
    "deep": ("[" * 100000, "config.json: expected JSON"),
    "a list": ("[]", "config.json: expected a JSON object, got list"),
    "a subclass": ('{"class_name": "Mine", "config": {}}', "expected a Sequential or a Functional model, got 'Mine'"),
    "no layers": ('{"class_name": "Sequential", "config": {}}', "Sequential: expected layers in the configuration"),
    "nothing": ("{}", "a Keras model: expected class_name in the configuration, got NoneType None"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_that_are_none(name, tmp_path):
    text, message = CONFIGS[name]
    with pytest.raises(ValueError, match=f"m.keras: {message}"):
        exchange.load(archive(tmp_path / "m.keras", text, CONTENT))


@pytest.mark.parametrize("missing", ["config.json", "model.weights.h5"])
def test_an_archive_without_its_parts(missing, tmp_path):
    whole = zipfile.ZipFile(archive(tmp_path / "m.keras", CONFIG, CONTENT))
    with zipfile.ZipFile(tmp_path / "less.keras", "w") as less:
        for name in whole.namelist():
            if name != missing:
                less.writestr(name, whole.read(name))
    with pytest.raises(ValueError, match=f"less.keras: expected {missing} in it, as in Keras's files, got none"):
        exchange.load(tmp_path / "less.keras")


@pytest.mark.parametrize("ending", [".keras", ".h5", ".weights.h5"])
def test_a_file_cut_anywhere_is_refused(ending, tmp_path):
    path = tmp_path / f"m{ending}"
    if ending == ".keras":
        archive(path, CONFIG, CONTENT)
    elif ending == ".h5":
        old(path, CONFIG, by_layers(CONTENT))
    else:
        path.write_bytes(weights(CONTENT))
    content = path.read_bytes()
    for end in [*range(0, 300, 7), *range(300, len(content) - 1, 211)]:
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match=f"m{ending}: "):
            exchange.load(path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"m\.keras"):
        exchange.load(tmp_path / "m.keras")
    with pytest.raises(IsADirectoryError):
        exchange.load(tmp_path, format="keras")
    with pytest.raises(ValueError, match="/dev/null: expected a regular file"):
        exchange.load("/dev/null", format="keras")


ALONE = {
    "no LSTM": (arrays(dense=(4, 3)), "expected LSTM layers of one kind and one embedding at most, or config="),
    "a dense layer before": (arrays(lstm=(3, 4), dense=(4, 3)), "dense: expected config= .*, as it fits before and"),
    "two dense layers": (arrays(lstm=(2, 4), dense=(4, 3), dense_1=(3, 3)), "dense_1: expected config="),
    "a GRU": ({"layers/gru/cell/vars/0": np.ones((2, 12), "f4")}, "gru: expected an embedding, a dense layer or"),
    "no LSTM's shapes": ({"layers/lstm/cell/vars/0": np.ones((2, 12), "f4"),
                          "layers/lstm/cell/vars/1": np.ones((4, 12), "f4")}, r"lstm: expected the \(I, 4\*H\)"),
    "both ways and a head": ({path.replace("lstm", f"bidirectional/{way}_layer"): array
                              for way in ("forward", "backward") for path, array in arrays(lstm=(2, 4)).items()}
                             | arrays(dense=(8, 3)), "dense: expected config= .*, as activations, and which outputs"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
def test_weights_that_leave_open_what_they_are(name, tmp_path):
    content, message = ALONE[name]
    (tmp_path / "m.weights.h5").write_bytes(weights(content))
    with pytest.raises(ValueError, match=f"m.weights.h5: {message}"):
        exchange.load(tmp_path / "m.weights.h5")


def test_a_configuration_beside_a_file_with_one(tmp_path):
    for path in (archive(tmp_path / "m.keras", CONFIG, CONTENT), old(tmp_path / "m.h5", CONFIG, by_layers(CONTENT))):
        with pytest.raises(ValueError, match="config: expected None for a"):
            exchange.load(path, config=CONFIG)
    (tmp_path / "m.weights.h5").write_bytes(weights(CONTENT))
    with pytest.raises(ValueError, match=r"config: expected the text of model.to_json\(\)"):
        exchange.load(tmp_path / "m.weights.h5", config=3)


def model(**options):
    return cylstm.Model(3, 5, 2, loss="mse", **options)


UNKNOWN_TO_KERAS = {
    "peepholes": (lambda: model(peepholes=True), "layer 0: expected no peephole, which Keras's layer does not have"),
    "coupled": (lambda: model(coupled=True), "layer 0: expected no coupled, .*, got bool True"),
    "clip": (lambda: model(cell_clip=0.5), "layer 0: expected no cell_clip, .*, got float 0.5"),
    "gelu_tanh": (lambda: model(after=[cylstm.Dense(4, "gelu_tanh")]), "layer 1: expected an activation that"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN_TO_KERAS)
def test_what_keras_does_not_have(name, tmp_path):
    made, message = UNKNOWN_TO_KERAS[name]
    given = made()
    given.parameters.flat = np.random.default_rng(1).uniform(-0.6, 0.6, given.parameters.size)
    with pytest.raises(ValueError, match=f"m.keras: {message}"):
        exchange.save(given, tmp_path / "m.keras")
    assert not list(tmp_path.iterdir())


def test_first_states_and_names_of_files(tmp_path):
    rng = np.random.default_rng(3)
    way = Direction(
        *(rng.standard_normal(shape) for shape in ((20, 3), (20, 5))), h0=rng.standard_normal(5), c0=np.zeros(5)
    )
    network = Network((Recurrent((way,)), Dense(rng.standard_normal((2, 5)))))
    with pytest.raises(ValueError, match="layer 0: expected no h0, which Keras's layer does not have"):
        exchange.write(network, tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"m.h5: expected a name that ends in .keras or .weights.h5"):
        exchange.save(model(), tmp_path / "m.h5")
