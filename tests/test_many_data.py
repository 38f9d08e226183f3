"""Data of many models, shared by all or stacked: what each model's own `fit` makes of its part."""

import subprocess
import sys

import numpy as np
import pytest
from panels import B, I, N, T, pair

from cylstm import Model, Models

LOSSES = {
    "mse": {"loss": "mse"},
    "classes": {"loss": "cross_entropy"},
    "labels": {"labels": ["a", "b"]},
    "binary": {"loss": "binary_cross_entropy"},
    "binary labels": {"loss": "binary_cross_entropy", "labels": ["a", "b"], "sizes": (I, 8, 1)},
}


def own(value, n, shared):
    return value if shared else value[n]


@pytest.mark.parametrize("shared", ["", "x", "y", "xy", "lengths", "x lengths", "y lengths", "xy lengths"])
@pytest.mark.parametrize("name", LOSSES)
def test_steps_past_a_rows_end_are_anything(name, shared):
    models, alone = pair(**LOSSES[name])
    rng, head = np.random.default_rng(3), alone[0].heads[""]
    lengths = rng.integers(1, T + 1, (N, B))
    lengths[0] = 1  # and others go on behind
    if "lengths" in shared:
        lengths = lengths[1]
    x = rng.standard_normal((B, T, I) if "x" in shared else (N, B, T, I)).astype(np.float32)
    shape = (B, T, *head.width) if "y" in shared else (N, B, T, *head.width)
    y = rng.standard_normal(shape) if name == "mse" else rng.integers(0, 2, shape)
    y = np.array(["a", "b"])[y] if head.labels else y
    for array, nothing in ((x, np.nan), (y, {"mse": np.inf, "classes": -99, "binary": 7}.get(name, "c"))):
        ends = lengths if lengths.ndim == 1 or array.ndim - len(head.width if array is y else (I,)) == 3 else \
            lengths.max(axis=0)  # fmt: skip
        array[np.broadcast_to(np.arange(T) >= ends[..., None], array.shape[: array.ndim - (
            len(head.width) if array is y else 1)])] = nothing  # fmt: skip
    given = dict(epochs=2, batch_size=4, progress=False)
    history = models.fit(x, y, lengths=lengths, validation=(x, y, lengths), **given)
    found = models.evaluate(x, y, lengths=lengths)
    outputs = models(x, lengths=lengths)
    for n, one in enumerate(alone):
        its = own(x, n, "x" in shared), own(y, n, "y" in shared), own(lengths, n, "lengths" in shared)
        one.fit(*its[:2], lengths=its[2], validation=its, **given)
        assert np.array_equal(models.flat[n], one.parameters.raw())
        assert history[n].validation_loss == one.trained.history.validation_loss
        assert found["loss"][n] == one.evaluate(*its[:2], lengths=its[2])["loss"]
        assert np.array_equal(outputs[n], one(its[0], lengths=its[2])[0])


def test_what_is_wrong_in_steps_that_count_is_said_of_the_model():
    models = Models(I, 8, 2, seeds=range(N))
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((B, T, I)), rng.integers(0, 2, (B, T))
    lengths = np.full((N, B), 2)
    lengths[2, 5] = 4
    y[5, 3] = 7
    with pytest.raises(ValueError, match=r"model 2: y\[5, 3\]: expected ids in 0\.\.1, got 7"):
        models.fit(x, y, lengths=lengths, progress=False)
    y[5, 3], lengths[1, 3] = 0, -1
    with pytest.raises(ValueError, match=r"model 1: lengths\[3\]: expected a length in 0\.\.6, got -1"):
        models.fit(x, y, lengths=lengths, progress=False)
    lengths[1, 3], lengths[3] = 1, 0
    with pytest.raises(ValueError, match="model 3: x: expected at least one step that counts"):
        models.fit(x, y, lengths=lengths, progress=False)


@pytest.mark.parametrize("labels, y", [
    (["1", "2"], [[1, "2"], ["1", "2"]]), ([1, "1"], [[1, "1"], ["1", 1]]), (["a", 1], [["a", 1], [1, "a"]]),
    ([1, 0], [[True, 0], [1, False]]),
])  # fmt: skip
def test_lists_of_labels_stay_what_they_are(labels, y):
    x = np.random.default_rng(0).standard_normal((2, 2, I))
    alone, error = Model(I, 4, 2, seed=0, labels=labels), None
    try:
        alone.fit(x, y, epochs=2, progress=False)
    except ValueError as refused:
        error = refused
    for many, given in ((x, y), (x[None], [y])):
        models = Models(I, 4, 2, seeds=[0], labels=labels)
        if error is None:
            models.fit(many, given, epochs=2, progress=False)
            assert np.array_equal(models.flat[0], alone.parameters.raw())
        else:
            with pytest.raises(ValueError) as found:
                models.fit(many, given, epochs=2, progress=False)
            assert str(error) in str(found.value)


def test_arrays_for_reading_alone(tmp_path):
    models, alone = pair(loss="mse")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((N, B, T, I)).astype(np.float32))
    x, y = np.load(tmp_path / "x.npy", mmap_mode="r"), rng.standard_normal((N, B, T, 2)).astype(np.float32)
    lengths = rng.integers(1, T + 1, (N, B))
    y.setflags(write=False)
    lengths.setflags(write=False)
    models.fit(x, y, lengths=lengths, validation=(x, y), epochs=2, progress=False)
    outputs = models(x)
    for n, one in enumerate(alone):
        one.fit(x[n], y[n], lengths=lengths[n], epochs=2, progress=False)
        assert np.array_equal(models.flat[n], one.parameters.raw()) and np.array_equal(outputs[n], one(x[n])[0])


WRITES = """
import sys, threading
import numpy as np
from cylstm import Models
what = sys.argv[1]
rng = np.random.default_rng(0)
x = rng.integers(0, 5, (64, 50)) if what == "ids" else rng.standard_normal((64, 50, 5)).astype(np.float32)
y, lengths = rng.integers(0, 2, (64, 50)), rng.integers(1, 50, 64)
given, value = {"ids": (x, 10**12), "y": (y, 10**10), "lengths": (lengths, 10**7)}[what]
models, over = Models(5, 8, 2, seeds=range(4)), threading.Event()

def write():
    while models.trained is None and not over.wait(0.01):
        pass
    given[:] = value

writer = threading.Thread(target=write)
writer.start()
try:
    models.fit(x, y, lengths=lengths, epochs=60, batch_size=4, progress=False)
finally:
    over.set()
    writer.join()
alike = Models(5, 8, 2, seeds=range(4))
rng = np.random.default_rng(0)
x = rng.integers(0, 5, (64, 50)) if what == "ids" else rng.standard_normal((64, 50, 5)).astype(np.float32)
y, lengths = rng.integers(0, 2, (64, 50)), rng.integers(1, 50, 64)
alike.fit(x, y, lengths=lengths, epochs=60, batch_size=4, progress=False)
assert np.array_equal(models.flat, alike.flat)
"""


@pytest.mark.parametrize("what", ["ids", "y", "lengths"])
def test_a_thread_that_writes_to_what_was_given(what):
    done = subprocess.run([sys.executable, "-c", WRITES, what], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_outputs_of_what_is_no_number():
    models, alone = pair(loss="mse")
    x = np.random.default_rng(0).standard_normal((N, B, T, I)).astype(np.float32)
    x[1, 2, 3, 0], x[2, 0, 0, 1] = np.nan, np.inf
    with np.errstate(all="ignore"):
        found = models(x)
        assert np.isnan(found[1, 2, 3:]).all() and not np.isnan(found[0]).any()
        for n, one in enumerate(alone):
            assert np.array_equal(found[n], one(x[n])[0], equal_nan=True)
    with pytest.raises(ValueError, match=r"model 1: x\[2, 3, 0\]: expected a finite number"):
        models.evaluate(x, np.zeros((N, B, T, 2)))
