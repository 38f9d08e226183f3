"""What others tried in order to break the package: memory that changes under a call, attributes put in its way, and
signals at the worst moment."""

import contextlib
import copy
import os
import pickle
import random
import re
import signal
import stat
import threading
import time

import numpy as np
import pytest

from cylstm import (
    LSTM,
    SGD,
    Adam,
    AdamW,
    Checkpoint,
    Cosine,
    Dense,
    Model,
    NonFiniteLoss,
    State,
    data,
    losses,
    tensor_files,
    training,
)
from cylstm.parameters import Parameters
from cylstm.text.vocabulary import Vocabulary


def model(**options):
    return Model(3, 8, 5, **{"seed": 1, **options})


def batch(rng, B=4, T=6):
    return rng.standard_normal((B, T, 3)).astype("f4"), rng.integers(0, 5, (B, T))


# --- memory of the caller's -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "make"), [
    ("bias", lambda no: model(head_bias=no)), ("tied", lambda no: model(embedding_size=8, tied=no)),
    ("bias", lambda no: Dense(3, bias=no)), ("zero_infinity", lambda no: losses.CTC(zero_infinity=no)),
    ("nesterov", lambda no: SGD(momentum=0.5, nesterov=no)), ("bidirectional", lambda no: LSTM(2, 3, bidirectional=no)),
    ("coupled", lambda no: LSTM(2, 3, coupled=no)),
    ("shuffle", lambda no: model().fit(*batch(np.random.default_rng(0)), epochs=1, shuffle=no, progress=False)),
    ("clip_each", lambda no: model().fit(*batch(np.random.default_rng(0)), epochs=1, clip_each=no, progress=False)),
])  # fmt: skip
@pytest.mark.parametrize("no", ["False", "no", 0, []])
def test_switches_are_true_or_false(name, make, no):
    """The text "False" counts as true."""
    with pytest.raises(TypeError, match=f"{name}: expected True or False, got {type(no).__name__}"):
        make(no)
    make(np.bool_(False))


class Swapping:
    """Answers good values the first time it is read, and bad ones from then on."""

    def __init__(self, good, bad):
        self.values = [bad, good]

    def __array__(self, dtype=None, copy=None):
        return self.values.pop() if len(self.values) > 1 else self.values[0]


def test_inputs_that_answer_otherwise_the_second_time_are_read_once(rng):
    x, y = batch(rng)
    expected = model().loss_and_gradients(x, y)
    got = model().loss_and_gradients(Swapping(x, np.repeat(x, 1000, axis=1)), y)
    assert np.array_equal(got.gradients.flat, expected.gradients.flat)


@pytest.mark.parametrize("name", ["targets", "lengths"])
def test_checked_numbers_are_the_ones_that_are_used(monkeypatch, rng, name):
    """As if another thread wrote in between: the caller's array changes right after it was looked at."""
    x, y = batch(rng)
    lengths, m = np.array([6, 1, 4, 2]), model()
    expected = m.loss_and_gradients(x, y, lengths=lengths)
    given = {"targets": y, "lengths": lengths}[name]
    original = np.asarray

    def asarray(array, dtype=None):
        if np.may_share_memory(array, given) and dtype == np.int64:
            raise AssertionError("the caller's memory is used after it was checked")
        return original(array) if dtype is None else original(array, dtype)

    monkeypatch.setattr(np, "asarray", asarray)
    got = m.loss_and_gradients(x, y, lengths=lengths)
    given[...] = 2**40
    assert np.array_equal(got.gradients.flat, expected.gradients.flat)


def test_targets_written_by_another_thread(rng):
    m, (x, y), done = model(), batch(rng, 32, 500), threading.Event()

    def write():
        while not done.wait(0.001):
            y[...] = 2**40 if y[0, 0] == 0 else 0

    other = threading.Thread(target=write)
    other.start()
    try:
        for _ in range(200):
            try:
                assert np.isfinite(m.loss_and_gradients(x, y).loss)
            except ValueError as error:
                # Before or after the tokens that count were gathered.
                assert re.match(r"(y\[\d+, \d+\]|counted y\[\d+\]): expected ids in 0..4, got", str(error))
    finally:
        done.set()
        other.join()


def test_a_layers_own_views_can_be_loaded_into_it():
    layer = LSTM(4, 4, 2, seed=1)
    weights, swapped = layer.state_dict(), {}
    for name in weights:
        other = name.replace("l0", "l2").replace("l1", "l0").replace("l2", "l1")
        swapped[name] = layer.parameters[other] if name.startswith("weight") else weights[other]
    layer.load_state_dict(swapped)
    for name, values in layer.state_dict().items():
        other = name.replace("l0", "l2").replace("l1", "l0").replace("l2", "l1")
        assert np.array_equal(values, weights[other])


@pytest.mark.parametrize("shift", [-1, 1])
def test_the_next_state_may_not_lie_in_a_part_of_the_last(rng, shift):
    layer, memory = LSTM(3, 8, 2, seed=1), rng.standard_normal((2, 4, 1, 8)).astype("f4")
    state, out = State(*memory[:, 1:3]), State(*memory[:, 1 + shift : 3 + shift])
    with pytest.raises(ValueError, match="out: expected the memory of `state` or other memory, got a part of it"):
        layer.step(np.ones(3, "f4"), state, out=out)


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", [lambda m: m.parameters, lambda m: {}, lambda m: Parameters({"a": (3,)}, "f4")])
def test_gradients_go_nowhere_else(rng, out):
    m = model()
    before, out = m.parameters.flat.copy(), out(m)
    with pytest.raises((TypeError, ValueError), match="out: expected"):
        m.loss_and_gradients(*batch(rng), out=out)
    assert np.array_equal(m.parameters.flat, before)
    if isinstance(out, Parameters) and out.layout == m.parameters.layout:
        _, _, tape = m.lstm.forward(np.ones((1, 2, 3), "f4"))
        with pytest.raises(ValueError, match="out: expected memory of its own, got that of the parameters"):
            m.lstm.backward(tape, np.ones((1, 2, 8), "f4"), out=out.child("lstm."))


def test_assigning_a_buffer_copies_into_it(rng):
    m, x = model(), rng.standard_normal((2, 3, 3)).astype("f4")
    values, before = 2 * m.parameters.flat, m(x)[0]
    memory = m.parameters.flat
    m.parameters.flat = values
    assert np.may_share_memory(m.parameters.flat, memory) and np.array_equal(memory, values)
    assert not np.array_equal(m(x)[0], before)
    m.parameters.flat /= 2
    assert np.array_equal(m(x)[0], before)
    with pytest.raises(ValueError, match="broadcast"):
        m.parameters.flat = values[1:]


@pytest.mark.parametrize("optimizer", [Adam(), AdamW(), SGD(0.1, momentum=0.5)])
def test_moments_of_others_are_refused(optimizer):
    p, g = (Parameters({"a": (10,)}, "f4") for _ in range(2))
    p.flat = g.flat = 1
    names = optimizer.buffer_names
    for buffers in ({}, dict.fromkeys(names), {name: np.ones(9, "f4") for name in names}):
        optimizer.moments(p).buffers = buffers
        with pytest.raises(ValueError, match="gradient, moments: expected 10 numbers each"):
            optimizer.update(p, g)
    assert np.array_equal(p.flat, np.ones(10))


def test_a_number_of_updates_begins_at_zero():
    (p, g), adam = (Parameters({"a": (10,)}, "f4") for _ in range(2)), Adam()
    adam.moments(p).updates = -1
    with pytest.raises(ValueError, match="updates: expected the number of updates so far, got -1"):
        adam.update(p, g)


# --- objects that are changed, made twice, or copied ------------------------------------------------------------------


def test_a_models_sizes_stay():
    m = model()
    for name, value in dict(output_size=10**6, lstm=LSTM(3, 40), parameters=None, loss="mse").items():
        with pytest.raises(AttributeError, match=f"{name}: expected to stay"):
            setattr(m, name, value)
    with pytest.raises(AttributeError, match="input_size: expected to stay int 3"):
        m.__init__(3, 4, 5)
    m = model(num_layers=2)
    m.dropout = 0.5
    assert m.lstm.dropout == m.config["dropout"] == 0.5


def test_a_layer_is_made_once(rng):
    layer = LSTM(3, 8, seed=1)
    y, _, tape = layer.forward(np.ones((1, 2, 3), "f4"))
    with pytest.raises(RuntimeError, match="LSTM: expected __init__ to run once"):
        layer.__init__(3, 80)
    layer.backward(tape, y)


def test_a_tape_cannot_be_copied():
    tape = LSTM(3, 4).forward(np.ones((1, 2, 3), "f4"))[2]
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="Tape"):
            duplicate(tape)


def test_a_generator_is_a_generator():
    with pytest.raises(TypeError, match=r"rng: expected a numpy.random.Generator, got int 5"):
        LSTM(3, 4).rng = 5
    for make in (lambda seed: LSTM(3, 4, seed=seed), lambda seed: model(seed=seed)):
        for seed in ("x", -1, 1.5):
            with pytest.raises((TypeError, ValueError), match="seed: expected None, integers >= 0 or a"):
                make(seed)


def test_a_subclass_stays_one_in_copies():
    class Mine(Model):
        pass

    assert type(copy.deepcopy(Mine(3, 4, 5))) is Mine


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_saved_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "m.safetensors"
    model().save(path)
    os.chmod(path, 0o600)
    model().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and os.listdir(tmp_path) == ["m.safetensors"]


def test_a_long_name_can_be_saved(tmp_path):
    path = tmp_path / ("m" * 243 + ".safetensors")
    model().save(path)
    assert Model.load(path).hidden_size == 8


def test_an_open_files_number_is_no_path(tmp_path):
    with open(tmp_path / "f", "wb") as file:
        calls = [Model.load, model().save, data.encode_file, lambda path: next(data.read_text(path))]
        for call in calls:
            with pytest.raises(TypeError, match="path: expected a path, got int"):
                call(file.fileno())
        os.fstat(file.fileno())


def test_loading_takes_time_in_proportion_to_the_file(tmp_path, monkeypatch):
    """Nothing is drawn that the file holds anyway, and tensors are listed once."""
    m = Model(3, 8, 5, num_layers=40, seed=1)
    m.save(tmp_path / "m")
    monkeypatch.setattr("cylstm.lstm.initialise", None)
    monkeypatch.setattr("cylstm.model.initialise", None)
    for other in (Model.load(tmp_path / "m"), copy.deepcopy(m), pickle.loads(pickle.dumps(m)).lstm):
        assert np.array_equal(other.parameters.flat, (m if isinstance(other, Model) else m.lstm).parameters.flat)


def test_a_note_that_json_cannot_hold_is_refused_at_once(tmp_path):
    for note in ({1, 2}, object()):
        with pytest.raises(TypeError, match=r"checkpoint\.note: expected what JSON can hold"):
            Checkpoint(tmp_path / "c", note=note)


def test_numbers_of_numpys_in_an_optimizer_reach_the_checkpoint(tmp_path, rng):
    x, y = batch(rng)
    for lr in (np.float32(1e-3), Cosine(np.float32(1e-3), epochs=np.int64(2))):
        history = model().fit(x, y, epochs=1, optimizer=Adam(lr), checkpoint=tmp_path / "c", progress=False)
        history.save(tmp_path / "h")
        with tensor_files.open_tensors(tmp_path / "c", "checkpoint") as file:
            assert f"rate={float(np.float32(1e-3))!r}" in file.header["options"]["optimizer"]
            assert file.header["history"]["learning_rate"] == history.learning_rate


# --- training ---------------------------------------------------------------------------------------------------------


def test_weights_that_are_no_numbers_in_the_end_are_said(rng):
    with pytest.raises(
        NonFiniteLoss, match=r"weights: expected finite numbers, got others at update 1 \(the end of epoch 1\)$"
    ):
        model().fit(*batch(rng), epochs=1, optimizer=SGD(1e300), progress=False)


def test_rows_of_mixed_types(rng):
    m = Model(5, 8, 5, seed=1)
    x, y = [np.array([1, 2, 3], "i1"), np.array([4, 0], "u1")], [np.array([2, 3, 4], "u8"), np.array([0, 1], "i2")]
    m.fit(x, y, epochs=1, progress=False)
    with pytest.raises(TypeError, match="x: expected rows of one kind"):
        m.fit([x[0], rng.standard_normal((2, 5))], y, epochs=1, progress=False)


@pytest.mark.parametrize("callbacks", [5, print])
def test_callbacks_are_a_list(rng, callbacks):
    with pytest.raises(TypeError, match="callbacks: expected a list of callables"):
        model().fit(*batch(rng), callbacks=callbacks)


def test_an_optimizers_rate_may_be_set_anew():
    adam = Adam()
    adam.lr = 0.1
    assert adam.lr == training.Constant(0.1)
    with pytest.raises(ValueError, match="lr: expected a number"):
        adam.lr = -1


# --- one line for each ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Cosine(0.1, 10, minimum=1), "minimum: expected a number"),
        (lambda: training.StepDecay(0.1, factor=1e200), "factor: expected a number"),
        (lambda: list(Vocabulary("ab").decode_stream([-1])), "ids: expected ids in 0..1, got -1"),
        (lambda: list(Vocabulary("ab").decode_stream([2])), "ids: expected ids in 0..1, got 2"),
        (lambda: Vocabulary("ab").missing(b"abc"), "text: expected a string"),
        (lambda: Vocabulary(5), "tokens: expected an iterable"),
        (lambda: Vocabulary.from_json('{"tokens": "ab", "level": "char", "unknown": null, "end": null}'), "a list"),
        (lambda: data.pad(5), "sequences: expected a list of arrays, got int 5"),
        (lambda: data.split(5), "data: expected an array or a list"),
        (lambda: data.split([1, 2], (1.0,), seed="x"), "seed: expected None"),
        (lambda: data.pad([np.ma.masked_array([1], [True])]), r"sequences\[0\]: expected an array without a mask"),
        (
            lambda: data.windows(np.ma.masked_array([1, 2], [True, False]), 1),
            "series: expected an array without",
        ),
        (lambda: data.encode_file("/dev/zero", "byte"), "/dev/zero: expected a file, got a device"),
        (lambda: data.encode_file(__file__, vocabulary="zz"), "vocabulary: expected a Vocabulary"),
        (lambda: LSTM(2, 3).load_state_dict(5), "weights: expected a mapping"),
        (lambda: LSTM(2, 3)(np.array([None])), "x: expected floating-point numbers, got object"),
        (lambda: list(model().generate([1], 1, stop=[[1], [9]])), "generate: expected|stop: expected"),
        (lambda: Model(5, 3, 5, embedding_size=2)(np.zeros((0, 3), int), lengths=np.zeros(0, int)), "x: expected at l"),
        (lambda: model()([np.array(3.0), [1, 2]]), "x: expected"),
        (lambda: LSTM(2, 3).parameters.child("zz"), "zz"),
    ],
)
def test_what_cannot_be_meant_is_named(call, message):
    with pytest.raises((KeyError, TypeError, ValueError), match=message):
        call()


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that signals")
@pytest.mark.parametrize("handles", ["raises", "uses the layer"])
def test_signals_between_calls_leave_no_lock_taken(handles, rng):
    """A view is alive, so that each call takes the lock of its tracker to compare the weights."""
    layer, x = LSTM(3, 8, seed=1), rng.standard_normal((2, 3, 3)).astype("f4")
    view, moments = layer.parameters["weight_hh_l0"], random.Random(1)
    heard = []

    def handler(number, frame):
        heard.append(layer(x)[0] if handles == "uses the layer" else None)
        if handles == "raises":
            raise InterruptedError

    def call_until_heard():  # a function, since CPython 3.13 does not cover the jump back of a loop by a try around it
        already = len(heard)
        signal.setitimer(signal.ITIMER_REAL, moments.uniform(5e-5, 5e-4))
        while len(heard) == already:
            view[0, 0] += 1
            layer.parameters.touch()
            layer(x)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            with contextlib.suppress(InterruptedError):
                call_until_heard()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert heard
    version = layer.parameters.version()
    view[0, 0] += 1
    assert layer.parameters.version() > version
