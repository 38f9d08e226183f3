"""Ctrl-C, and other signals, in the middle of a long call."""

import functools
import math
import signal
import threading
import time

import numpy as np
import pytest

from cylstm import LSTM, Model, _head, num_threads, set_num_threads

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that signals")
# Seconds of the processor's time, not of the clock's: so all is the same on a machine that has other work to do.
SOON = 0.1  # until a signal comes, long after weights are packed
LONG = 0.5  # that a call takes at least, on however fast a machine


@pytest.fixture(autouse=True, params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request):
    before = num_threads()
    set_num_threads(request.param)
    yield
    set_num_threads(before)


@pytest.fixture
def alarm():
    """A function that sends a signal to this process SOON, to be handled as it is told."""
    before = signal.getsignal(signal.SIGPROF)

    def start(handler):
        signal.signal(signal.SIGPROF, handler)
        signal.setitimer(signal.ITIMER_PROF, SOON * num_threads())

    yield start
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


@functools.cache
def wide_layer():
    """Its orthogonal weights take longer to draw than a test may."""
    return LSTM(16, 1100, dtype="float64", seed=1)


def wide(size):
    """Members of a team share out units; steps of one row take long enough, there are many, and few bytes go out."""
    x = np.random.default_rng(1).standard_normal((1, 100 * size, 16))
    return wide_layer(), x, None


def ragged(size):
    """Members share out rows."""
    rng = np.random.default_rng(1)
    layer = LSTM(8, 96, 2, bidirectional=True, dtype="float64", seed=1)
    return layer, rng.standard_normal((64 * size, 240, 8)), rng.integers(120, 241, 64 * size)


def summed(size):
    """Most of the time of backward goes into gradients of weights, after all steps."""
    x = np.random.default_rng(1).standard_normal((100 * size, 40, 300))
    return LSTM(300, 100, dtype="float64", seed=1), x, None


# What follows makes work of a size: a function that makes all ready for a call, and returns the call.


def inference(make, size):
    layer, x, lengths = make(size)
    return lambda: lambda: layer(x, lengths=lengths)[0]


def taped(make, size):
    layer, x, lengths = make(size)
    return lambda: lambda: layer.forward(x, lengths=lengths)[0]


def backward(make, size):
    layer, x, lengths = make(size)

    def ready():
        y, _, tape = layer.forward(x, lengths=lengths)
        return lambda: layer.backward(tape, y).parameters.flat

    return ready


def head(learns, size):
    rng, N, F, V = np.random.default_rng(1), 400 * size, 200, 12_000
    h, weight, classes = rng.standard_normal((N, F)), rng.standard_normal((V, F)), rng.integers(0, V, N)
    dh, dweight = np.empty_like(h), np.empty_like(weight)

    def call():
        if not learns:
            return _head.linear(h, weight, None)[::100].copy()
        _head.loss("cross_entropy", h, weight, None, classes, scale=1.0, dh=dh, dweight=dweight)
        return dh.copy()

    return lambda: call


CASES = dict(
    wide=(inference, wide), ragged=(inference, ragged), taped=(taped, ragged), steps_back=(backward, wide),
    sums=(backward, summed), head=(head, True), outputs=(head, False))  # fmt: skip


sizes = {}  # name, number of threads -> what was large enough the last time


def sized(name, of_size):
    """What makes ready for a call that takes LONG, what it returns, and the processor's time for it in s."""
    size = sizes.get((name, num_threads()), 1)
    while True:
        ready = of_size(size)
        call = ready()
        start = time.thread_time()  # which stands still while others have the processor
        result = call()
        taken = time.thread_time() - start
        if taken >= LONG:
            sizes[name, num_threads()] = size
            return ready, result, taken
        size = math.ceil(size * min(8, 1.2 * LONG / taken))


def work(name):
    kind, what = CASES[name]
    return sized(name, functools.partial(kind, what))


@pytest.mark.parametrize("name", CASES)
def test_a_handler_that_raises_stops_the_call(alarm, name):
    ready, expected, whole = work(name)
    call = ready()

    def stop(number, frame):
        raise InterruptedError("stop")

    start = time.thread_time()
    alarm(stop)
    with pytest.raises(InterruptedError, match="stop"):
        call()
    assert time.thread_time() - start < 0.7 * whole, "it went on to its end"
    assert np.array_equal(ready()(), expected)


@pytest.mark.parametrize("name", ["ragged", "sums", "head"])
def test_a_handler_that_returns_changes_nothing(alarm, name):
    ready, expected, _ = work(name)
    call, heard = ready(), []
    alarm(lambda number, frame: heard.append(time.perf_counter()))
    got = call()
    assert heard and heard[0] < time.perf_counter()
    assert np.array_equal(got, expected)


def test_ctrl_c_stops_a_call_and_its_tape_is_spent(alarm):
    call = work("steps_back")[0]()
    alarm(signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        call()
    with pytest.raises(ValueError, match="tape: expected a tape that no backward call has used"):
        call()


def test_a_handler_may_use_the_layer_that_it_interrupts(alarm):
    layers = []

    def of_size(size):
        layer, x, _ = wide(size)
        layers[:] = [(layer, x[:, :50])]
        return lambda: lambda: layer(x)[0]

    ready, expected, _ = sized("wide", of_size)
    [(layer, beginning)], inside = layers, []
    alarm(lambda number, frame: inside.append(layer(beginning)[0]))
    assert np.array_equal(ready()(), expected)
    assert np.array_equal(inside[0], expected[:, :50])


def test_a_model_goes_on_after_ctrl_c_in_evaluate(alarm):
    model = Model(16, 900, 5, loss="mse", dtype="float64", seed=1)

    def of_size(size):
        rng = np.random.default_rng(1)
        x, y = rng.standard_normal((4, 100 * size, 16)), rng.standard_normal((4, 100 * size, 5))
        return lambda: lambda: model.evaluate(x, y)

    ready, expected, _ = sized("evaluate", of_size)
    alarm(signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        ready()()
    assert ready()() == expected


def test_calls_of_other_threads_are_left_alone(alarm):
    ready, expected, _ = work("wide")
    got, done = [], threading.Event()

    def run():
        got.append(ready()())
        done.set()

    def stop(number, frame):
        raise InterruptedError

    alarm(stop)
    threading.Thread(target=run).start()
    with pytest.raises(InterruptedError):
        done.wait()
    done.wait()
    assert np.array_equal(got[0], expected)
