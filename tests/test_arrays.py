"""Arrays of other libraries go in without a copy: the buffer protocol, `__array__`, DLPack, memory-mapped files."""

import array
import tracemalloc

import numpy as np
import pytest

from cylstm import LSTM, Model
from cylstm.checks import plain_array

T, I = 100_000, 8


class WithArray:
    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values


class WithInterface:
    def __init__(self, values):
        self.values, self.__array_interface__ = values, values.__array_interface__


class WithDLPack:
    def __init__(self, values):
        self.values = values

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class Elsewhere(WithDLPack):
    def __dlpack__(self, **options):
        raise BufferError("it is in the memory of another processor")


def memory_mapped(values, folder):
    values.tofile(folder / "x.f4")
    return np.memmap(folder / "x.f4", values.dtype, "r", shape=values.shape)


def read_only(values, folder):
    values.flags.writeable = False
    return values


MAKERS = {
    "buffer": lambda values, folder: memoryview(values),
    "array.array": lambda values, folder: (
        memoryview(array.array("f", values.ravel())).cast("B").cast("f", values.shape)
    ),
    "__array__": lambda values, folder: WithArray(values),
    "__array_interface__": lambda values, folder: WithInterface(values),
    "DLPack": lambda values, folder: WithDLPack(values),
    "memory map": memory_mapped,
    "read-only": read_only,
    "every second row": lambda values, folder: np.repeat(values, 2, axis=0)[::2],
}


def traced(call):
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = call()
        return result, tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", MAKERS)
def test_features_are_read_where_they_are(rng, tmp_path, kind):
    values = rng.standard_normal((T, I)).astype("f4")
    layer = LSTM(I, 1, seed=1)
    expected, _ = layer(values)
    given = MAKERS[kind](values, tmp_path)
    layer(given)  # what a call works in is kept for the next one, so then only y is new
    (got, _), peak = traced(lambda: layer(given))
    assert np.array_equal(got, expected)
    assert peak < got.nbytes + values.nbytes / 4


@pytest.mark.parametrize("kind", ["buffer", "__array__", "DLPack"])
def test_ids_targets_and_states_too(rng, tmp_path, kind):
    make = lambda values: MAKERS[kind](values, tmp_path)  # noqa: E731
    ids, classes = rng.integers(0, 5, (7, 12)), rng.integers(0, 3, (7, 12))
    model = Model(5, 6, 3, seed=1)
    h, c = rng.standard_normal((2, 1, 7, 6)).astype("f4")
    assert np.array_equal(model(make(ids), (make(h), make(c))), model(ids, (h, c)))
    lengths, resets = rng.integers(1, 13, 7), rng.random((7, 12)) < 0.3
    got = model.lstm(ids, lengths=make(lengths), resets=make(resets))[0]
    assert np.array_equal(got, model.lstm(ids, lengths=lengths, resets=resets)[0])
    expected = model.loss_and_gradients(ids, classes)
    assert model.loss_and_gradients(make(ids), make(classes)).loss == expected.loss
    x, y = rng.standard_normal((7, 12, 5)).astype("f4"), rng.standard_normal((7, 12, 3)).astype("f4")
    model = Model(5, 6, 3, loss="mse", seed=1)
    assert model.evaluate(make(x), make(y)) == model.evaluate(x, y)
    model.fit(make(x), make(y), epochs=1, progress=False)
    tape = model.lstm.forward(make(x))[2]
    model.lstm.backward(tape, make(np.ones((7, 12, 6), "f4")))


def test_a_plain_array_is_the_same_memory(rng):
    values = rng.standard_normal((5, 3))
    for make in (MAKERS["buffer"], MAKERS["__array__"], MAKERS["DLPack"]):
        assert np.shares_memory(plain_array("x", make(values, None)), values)


def test_what_is_in_another_memory_is_refused(rng):
    with pytest.raises(TypeError, match=r"x: expected an array that NumPy can read in place \(it is in the memory of"):
        LSTM(3, 4)(Elsewhere(rng.standard_normal((5, 3)).astype("f4")))
