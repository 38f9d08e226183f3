"""Arrays of other libraries go in without a copy: the buffer protocol, `__array__`, DLPack, memory-mapped files."""

import array
import tracemalloc

import numpy as np
import pytest

from cylstm import LSTM, Model, data
from cylstm.checks import describe, plain_array

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
    assert np.array_equal(model(make(ids), (make(h), make(c)))[0], model(ids, (h, c))[0])
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
    message = r"x: expected an array that NumPy can read, got \w+.Elsewhere \(it is in the memory of another"
    with pytest.raises(TypeError, match=message):
        LSTM(3, 4)(Elsewhere(rng.standard_normal((5, 3)).astype("f4")))


class Foreign:
    """A tensor as torch's are, which NumPy cannot read."""

    def __init__(self, dtype="torch.float32", device="cpu", layout="torch.strided", requires_grad=False):
        self.dtype, self.device, self.layout, self.requires_grad = dtype, device, layout, requires_grad

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("in words of its own")

    def cpu(self):
        return self


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        (dict(requires_grad=True), "torch.float32; {}.detach() is one"),
        (dict(dtype="torch.bfloat16"), "torch.bfloat16; {}.float() is one"),
        (dict(device="cuda:0"), "torch.float32; {}.cpu() is one"),
        (dict(layout="torch.sparse_coo"), "torch.float32; {}.to_dense() is one"),
        (dict(device="cuda:0", requires_grad=True, dtype="torch.bfloat16"), "{}.detach().cpu().float() is one"),
        ({}, "torch.float32 (in words of its own)"),
    ],
)
def test_what_numpy_cannot_read_is_named_with_the_way_out(options, ends):
    layer, x = LSTM(3, 4, 2), np.ones((2, 5, 3), "f4")
    model, state, wrong = Model(3, 4, 2), layer.initial_state(2), Foreign(**options)
    tape = layer.forward(x)[2]
    calls = {
        "x": [lambda: layer(wrong), lambda: layer.forward(wrong), lambda: model(wrong), lambda: model.fit(wrong, x),
              lambda: model.predict(wrong), lambda: model.evaluate(wrong, x)],
        "x_t": [lambda: layer.step(wrong, None), lambda: model.step(wrong, None)],
        "state.h": [lambda: layer(x, (wrong, state.c))],
        "state.c": [lambda: layer.step(x[:, 0], (state.h, wrong))],
        "lengths": [lambda: layer(x, lengths=wrong), lambda: model.fit(x, np.ones((2, 5), int), lengths=wrong)],
        "resets": [lambda: layer(x, resets=wrong)],
        "dy": [lambda: layer.backward(tape, wrong)],
        "y": [lambda: model.fit(x, wrong), lambda: model.evaluate(x, wrong),
              lambda: model.loss_and_gradients(x, wrong)],
        "x[1]": [lambda: model([x[0], wrong]), lambda: model.fit([x[0], wrong], [np.ones(5, int)] * 2)],
        "y[1]": [lambda: model.fit([x[0], x[1]], [np.ones(5, int), wrong])],
        "prompt": [lambda: Model(3, 4, 3).generate(wrong, 1)],
        "series": [lambda: data.windows(wrong, 3)],
        "sequences[0]": [lambda: data.pad([wrong])],
        "weight_ih_l0": [lambda: layer.load_state_dict({**layer.state_dict(), "weight_ih_l0": wrong})],
    }  # fmt: skip
    for name, callables in calls.items():
        for call in callables:
            with pytest.raises(TypeError) as raised:
                call()
            message = str(raised.value)
            assert message.startswith(f"{name}: expected an array that NumPy can read, got "), message
            assert message.endswith(ends.format(name)), message


def test_arrays_of_objects_and_of_strange_types_are_told_the_way_out():
    sequences = np.empty(2, object)
    sequences[:] = [np.ones((2, 3)), np.ones((4, 3))]
    with pytest.raises(
        TypeError, match=r"x: expected floating-point numbers, got object \(2,\); sequences of different"
    ):
        LSTM(3, 4)(sequences)
    with pytest.raises(TypeError, match=r"x: expected floating-point.*a list of arrays"):
        Model(3, 4, 2).fit(sequences, np.ones((2, 2)))
    with pytest.raises(
        TypeError, match=r"x: expected floating-point numbers, got \|V2 \(2, 5, 3\); .astype\('float32'\)"
    ):
        LSTM(3, 4)(np.zeros((2, 5, 3), "V2"))  # as bfloat16 arrays of jax are


def test_what_came_is_told_on_one_line():
    class Broken:
        def __repr__(self):
            raise RuntimeError("no words for it")

    assert describe([np.arange(4.0).reshape(2, 2)]) == "list [array([[0., 1.], [2., 3.]])]"
    assert describe({"a": np.array(["x  y"])}) == "dict {'a': array(['x  y'], dtype='<U4')}"
    assert describe(Broken()) == "Broken" and describe([Broken()]) == "list"
    with pytest.raises(TypeError, match=r"^output_size: expected an integer, got Broken$"):
        Model(3, 4, Broken())
