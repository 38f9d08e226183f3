"""Model files: what goes in comes out; what is damaged, newer or something else is said so; nothing is half-written."""

import json
import os
import stat

import numpy as np
import pytest
import safetensors.numpy

from cylstm import Model, Vocabulary, io, train


@pytest.fixture
def model():
    vocabulary = Vocabulary.from_text("the quick brown fox", "char", end="<end>")
    size = len(vocabulary)
    return Model(
        size, 7, size, num_layers=2, embedding_size=3, dropout=0.25, dtype="float64", seed=1, vocabulary=vocabulary
    )


def test_a_model_survives_its_file(tmp_path, model):
    path = tmp_path / "m.safetensors"
    model.save(path)
    twin = Model.load(path)
    assert twin.config == model.config
    assert twin.vocabulary == model.vocabulary
    np.testing.assert_array_equal(twin.parameters.flat, model.parameters.flat)
    x = np.array([[1, 5, 2]])
    np.testing.assert_array_equal(twin(x), model(x))
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current_umask()
    assert os.listdir(tmp_path) == ["m.safetensors"]


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_other_tools_can_read_the_weights(tmp_path, model):
    model.save(tmp_path / "m.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert list(sorted(tensors)) == sorted(model.parameters)
    np.testing.assert_array_equal(tensors["lstm.weight_hh_l1"], model.parameters["lstm.weight_hh_l1"])


@pytest.mark.parametrize("cut", [0, 3, 8, 200, -1])
def test_a_truncated_file_is_said_so(tmp_path, model, cut):
    path = tmp_path / "m.safetensors"
    model.save(path)
    content = path.read_bytes()
    path.write_bytes(content[:cut])
    with pytest.raises(ValueError, match=r"m.safetensors: expected a cylstm model, got a file that is truncated"):
        Model.load(path)


def rewritten(path, model, change, tensors=None):
    """A model file whose header went through `change`."""
    model.save(path)
    with io.open_tensors(path, "model") as file:
        header = file.header
    header = change(header) or header
    tensors = dict(model.parameters) if tensors is None else tensors
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"cylstm": json.dumps(header)}))


def changed(**entries):
    return lambda header: {**header, **entries}


@pytest.mark.parametrize(("change", "message"), [
    (changed(format=2, cylstm="9.0"), r"expected format 1 or older, got 2: written by a newer cylstm \(9.0\)"),
    (changed(format="1"), "expected a format from 1 to 1, got '1'"),
    (changed(format=True), "expected a format from 1 to 1, got True"),
    (changed(format=-1), "expected a format from 1 to 1, got -1"),
    (changed(kind="checkpoint"), "expected a cylstm model, got a checkpoint"),
    (changed(config={}), "header of a cylstm model"),
    (changed(config=None), "header of a cylstm model"),
    (lambda h: changed(config={**h["config"], "hidden_size": 8})(h), "do not fit the sizes"),
    (lambda h: changed(config={**h["config"], "hidden_size": 10**12})(h), "do not fit the sizes"),
    (lambda h: changed(config={**h["config"], "num_layers": 10**12})(h), "1000000000000 layers, but fewer numbers"),
    (lambda h: changed(config={**h["config"], "hidden_size": -7})(h), "header of a cylstm model"),
    (lambda h: changed(config={**h["config"], "loss": "hinge"})(h), "loss: expected one of"),
    (lambda h: changed(config={**h["config"], "surprise": 1})(h), "header of a cylstm model"),
    (changed(vocabulary="[]"), "header of a cylstm model"),
    (changed(vocabulary="{"), "header of a cylstm model"),
    (lambda h: [1, 2], "safetensors without its header"),
])  # fmt: skip
def test_a_strange_header_is_said_so(tmp_path, model, change, message):
    path = tmp_path / "m.safetensors"
    rewritten(path, model, change)
    with pytest.raises(ValueError, match=rf"m.safetensors: .*{message}"):
        Model.load(path)


def test_strange_tensors_are_said_so(tmp_path, model):
    path = tmp_path / "m.safetensors"
    tensors = {name: values.astype("float32") for name, values in model.parameters.items()}
    rewritten(path, model, changed(), tensors)
    with pytest.raises(ValueError, match=r"expected embedding.weight in float64, got float32"):
        Model.load(path)
    rewritten(path, model, changed(), {"other": np.arange(3.0)})
    with pytest.raises(ValueError, match="do not fit the sizes"):
        Model.load(path)


def test_what_is_no_model_is_said_so(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("dear diary, " * 100)
    with pytest.raises(ValueError, match=r"notes.txt: expected a cylstm model"):
        Model.load(text)
    plain = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file({"w": np.arange(3.0)}, plain)
    with pytest.raises(
        ValueError, match=r"plain.safetensors: expected a cylstm model, got safetensors without its header"
    ):
        Model.load(plain)
    with pytest.raises(FileNotFoundError, match=r"missing.safetensors"):
        Model.load(tmp_path / "missing.safetensors")
    with pytest.raises(IsADirectoryError):
        Model.load(tmp_path)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, model, monkeypatch):
    path = tmp_path / "m.safetensors"
    model.save(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]
    with pytest.raises(FileNotFoundError, match=r"missing/m.safetensors'$"):
        model.save(tmp_path / "missing" / "m.safetensors")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        model.save(tmp_path)


def test_a_checkpoint_that_claims_too_much_allocates_nothing(tmp_path, model):
    header = {**model.header(), "config": {**model.config, "hidden_size": 10**9}}
    io.write_tensors(tmp_path / "c", "checkpoint", header, {"parameters": model.parameters.flat})
    with pytest.raises(ValueError, match="do not fit the sizes"):
        train.read_checkpoint(tmp_path / "c")


def test_links_are_followed_and_devices_written_into(tmp_path, model):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    model.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    np.testing.assert_array_equal(Model.load(tmp_path / "real").parameters.flat, model.parameters.flat)
    model.save("/dev/null")
    assert not os.path.isfile("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: expected a regular file"):
        Model.load(tmp_path / "pipe")
