"""Model files: what goes in comes out; what is damaged, newer or something else is said so; nothing is half-written."""

import contextlib
import json
import os
import stat

import numpy as np
import pytest
import safetensors.numpy

from cylstm import Model, Vocabulary, tensor_files, training


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
    np.testing.assert_array_equal(twin(x)[0], model(x)[0])
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
    with tensor_files.open_tensors(path, "model") as file:
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
    (lambda h: changed(config={**h["config"], "hidden_size": 10**12})(h), "hidden_size: expected less than"),
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


@pytest.fixture
def room():
    """A context in which files have no more room than so many bytes: the kernel itself then refuses to write on.

    Only the call under test may be made in it: what pytest writes may go to a file, too.
    """
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limited(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.mark.parametrize("size", [0, 1, 700, -1])
def test_a_full_disk_leaves_the_old_file_and_is_named(tmp_path, model, room, size):
    path = tmp_path / "m.safetensors"
    model.save(path)
    before = path.read_bytes()
    model.parameters["head.bias"][...] += 1
    with pytest.raises(OSError, match=r"File too large: '.*/m.safetensors'$"), room(size % len(before)):
        model.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_a_full_disk_in_training_leaves_the_old_checkpoint_and_a_model_that_works(tmp_path, rng, room):
    model, path = Model(5, 7, 5, seed=1), tmp_path / "run.ckpt"
    ids = rng.integers(0, 5, (8, 6))
    model.fit(ids, ids, epochs=1, checkpoint=path, progress=False)
    before = path.read_bytes()
    with pytest.raises(OSError, match=r"File too large: '.*/run.ckpt'$"), room(500):
        model.fit(ids, ids, epochs=2, checkpoint=path, progress=False)
    assert path.read_bytes() == before
    assert Model.from_checkpoint(path).config == model.config
    model.evaluate(ids, ids)


@pytest.mark.parametrize("folder", ["/proc", "/dev/null"])
def test_a_folder_that_takes_no_files_is_named(model, folder):
    if not os.path.exists(folder):
        pytest.skip(f"needs {folder}")
    with pytest.raises(OSError, match=f"'{folder}/m.safetensors'$"):
        model.save(f"{folder}/m.safetensors")


def test_a_checkpoint_that_claims_too_much_allocates_nothing(tmp_path, model):
    header = {**model.header(), "config": {**model.config, "hidden_size": 10**8}}
    tensor_files.write_tensors(tmp_path / "c", "checkpoint", header, {"parameters": model.parameters.flat})
    with pytest.raises(ValueError, match="do not fit the sizes"):
        Model.from_checkpoint(tmp_path / "c")


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


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["numbers"].update(position=10**6),
        lambda header: header["numbers"].update(tokens=0),
        lambda header: header["numbers"].update(plateaus=10**400),
        lambda header: header["numbers"].update(total=10**400),
        lambda header: header["numbers"].pop("hits"),
        lambda header: header.update(updates=10**30),
        lambda header: header.update(elapsed=-1),
        lambda header: header["history"].update(train_loss="none"),
        lambda header: header.update(history=None),
        lambda header: header["generator"]["state"].update(pos=10**8),
        lambda header: header["generator"].update(state=None),
    ],
)
def test_a_damaged_checkpoint_is_said_so_and_changes_nothing(tmp_path, rng, change):
    ids, path = rng.integers(0, 5, (8, 6)), tmp_path / "run.ckpt"
    make = lambda: Model(5, 7, 5, seed=np.random.Generator(np.random.MT19937(1)))  # noqa: E731
    options = dict(epochs=2, batch_size=4, progress=False)

    def stop(event):
        raise training.StopTraining

    make().fit(ids, ids, checkpoint=path, callbacks=[stop], **options)
    make().fit(ids, ids, resume=path, **options)
    with tensor_files.open_tensors(path, "checkpoint") as file:
        header, tensors = file.header, {name: file.read(name, shape, "f4") for name, shape in file.shapes.items()}
    change(header)
    tensor_files.write_tensors(path, "checkpoint", header, tensors)
    model = make()
    before = model.parameters.flat.copy()
    with pytest.raises(ValueError, match=r"run\.ckpt: expected a checkpoint, got one"):
        model.fit(ids, ids, resume=path, **options)
    assert np.array_equal(model.parameters.flat, before)


def test_numbers_beyond_all_floats_in_a_model_file_are_said_so(tmp_path, model):
    header = {**model.header(), "config": {**model.config, "dropout": 10**400}}
    tensor_files.write_tensors(tmp_path / "m", "model", header, dict(model.parameters))
    with pytest.raises(ValueError, match="expected the header of a cylstm model, got one that is damaged"):
        Model.load(tmp_path / "m")
