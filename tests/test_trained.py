"""What a model keeps of its training: norms of gradients in the history, and how it was trained in its file."""

import copy
import json
import pickle

import numpy as np
import pytest
from tasks import V, make, sequences

import cylstm
from cylstm import SGD, Model, StopTraining, training
from cylstm.tensor_files import open_tensors, write_tensors

DATA = sequences(np.random.default_rng(5), [6] * 12)


def fitted(model, **options):
    return model.fit(*DATA, **{"epochs": 2, "batch_size": 4, "progress": False, **options})


def file_with(path, trained):
    """A model's file that says this of its training."""
    model = make()
    parameters = {name: model.parameters.raw(name) for name in model.parameters}
    write_tensors(path, "model", {**model.header(), "trained": trained}, parameters)
    return path


def test_norms_are_means_of_an_epoch_before_clipping():
    model, seen = make(), []

    def look(model, gradients):
        seen.append(np.linalg.norm(gradients.flat))

    history = fitted(model, on_gradients=look, clip_norm=1e-3, optimizer=SGD(0.1))
    assert len(seen) == 6
    np.testing.assert_allclose(history.gradient_norm, [np.mean(seen[:3]), np.mean(seen[3:])], rtol=1e-12)
    each = fitted(make(), clip_each=True, clip_norm=1e-3, optimizer=SGD(0.1))
    np.testing.assert_allclose(each.gradient_norm[0], history.gradient_norm[0], rtol=1e-2)


def test_norms_of_a_resumed_epoch_are_those_of_all_of_it(tmp_path):
    def stop(event):
        if event.update == 5:
            raise StopTraining

    whole, path = fitted(make()), tmp_path / "run.ckpt"
    fitted(make(), checkpoint=cylstm.Checkpoint(path, updates=1), callbacks=[stop])
    assert fitted(make(), resume=path).gradient_norm == whole.gradient_norm
    header = training.read_checkpoint(path).header
    assert header["numbers"].pop("norms")[1] == 2  # which older files do not have


def test_older_histories_have_no_norms():
    lists = fitted(make()).to_dict()
    del lists["gradient_norm"]
    history = cylstm.History.from_dict(lists)
    assert history.gradient_norm == [] and history.to_dict()["gradient_norm"] == [None, None]
    history.add({"loss": 1.0}, None, {}, learning_rate=0.1, updates=9, seconds=1.0, gradient_norm=0.5)  # gone on
    assert history.gradient_norm == [None, None, 0.5] and len(history.rows()[1]) == 3


def test_a_model_says_how_it_was_trained(tmp_path):
    model, path = make(), tmp_path / "m.safetensors"
    assert model.trained is None
    model.save(path)
    assert Model.load(path).trained is None
    history = fitted(model, seed=3, clip_norm=2.0, monitor=("accuracy", "max"))
    assert model.trained.history is history and model.trained.options["seed"] == 3
    model.save(path)
    kept = Model.load(path).trained
    assert kept.options == json.loads(json.dumps(model.trained.options)) and kept.options["clip_norm"] == 2.0
    assert kept.machine["instruction set"] == cylstm.instruction_set() and kept.machine["NumPy"] == np.__version__
    assert kept.history.train_loss == history.train_loss and kept.history.seconds == [None, None]
    assert kept.history.watched == ("accuracy", "max") and kept.history.best_epoch == history.best_epoch
    with open_tensors(path, "model") as file:
        assert "seconds" in file.header["trained"]["history"]


def test_the_hash_is_of_the_data():
    hashes = set()
    for x, y in (DATA, DATA, (DATA[0][::-1], DATA[1][::-1])):
        model = make()
        model.fit(x, y, epochs=1, progress=False)
        hashes.add(model.trained.options["data"])
    assert len(hashes) == 2 and {len(one) for one in hashes} == {32}
    model = make()
    model.fit([(np.array([[1, 2]]), np.array([[2, 3]]))], epochs=1, progress=False)
    assert model.trained.options["data"].startswith("batches, ")


def test_the_same_run_makes_the_same_file(tmp_path):
    for name in "ab":
        model = make()
        fitted(model)
        model.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_copies_and_other_precisions_have_it_too(tmp_path):
    model = make(dtype="float32")
    fitted(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.astype("int8")):
        assert other.trained.options == model.trained.options and other.trained.history == model.trained.history
    model.save(tmp_path / "small", precision="bfloat16")
    assert Model.load(tmp_path / "small").trained.history.train_loss == model.trained.history.train_loss


@pytest.mark.parametrize(("change", "message"), [
    (None, "trained: expected history, options and machine, got NoneType None"),
    ({"history": {}}, "history: expected train_loss"),
    ({"options": {"seed": {"a": 1}}}, "trained.options: expected a dict of text and numbers, got dict"),
    ({"options": {"seed": 10**400}}, "trained.options: expected a dict of text and numbers, got dict"),
    ({"options": {"seed": [[1]]}}, "trained.options: expected a dict of text and numbers, got dict"),
    ({"machine": []}, "trained.machine: expected a dict of text and numbers, got list"),
    ({"more": 1}, "trained: expected history, options and machine, got dict"),
])  # fmt: skip
def test_a_file_that_says_something_else_is_refused(tmp_path, change, message):
    model = make()
    fitted(model)
    trained = None if change is None else {**model.trained.to_dict(), **change}
    with pytest.raises(
        ValueError, match=rf"expected the header of a cylstm model, got one that is damaged \({message}"
    ):
        Model.load(file_with(tmp_path / "m", trained))
    assert Model.load(file_with(tmp_path / "m", model.trained.to_dict())).input_size == V
