"""Ctrl-C, and other signals, in the middle of a long call.

No time is asserted: the machine, and what else it does, decides when a signal comes and when it is heard. Each test is
an attempt, repeated with twice the work until it shows what it is to show, which a call that hears of signals only at
its end never does.
"""

import contextlib
import functools
import signal
import threading
import time

import numpy as np
import pytest

from cylstm import LSTM, Model, ctc, losses, num_threads, set_num_threads
from cylstm._core import head
from cylstm.parameters import Parameters

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that signals")
SOON = 0.03  # s until a signal comes
SIZES = 1, 2, 4, 8, 16  # a call of size 1 takes 0.1 to 0.5 s on one thread of 2025


class Stop(Exception):
    pass


@pytest.fixture(autouse=True, params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request):
    before = num_threads()
    set_num_threads(request.param)
    yield
    set_num_threads(before)


@contextlib.contextmanager
def signals(handler):
    """Send a signal to this process SOON."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, SOON)
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def stopped(call, error=Stop):
    """Whether a signal whose handler raises ended the call, and not its work."""

    def handler(number, frame):
        raise error

    try:
        with signals(handler):
            call()
    except error:
        return True
    return False


def heard(call, handler=lambda: None):
    """What the call returns, and whether signals were heard in the middle of it.

    Each comes SOON after the one before was handled: of three, the second was heard neither as the call began nor after
    its end.
    """
    times = 0

    def handle(number, frame):
        nonlocal times
        times += 1
        handler()
        if times < 3:
            signal.setitimer(signal.ITIMER_REAL, SOON)

    with signals(handle):
        result = call()
    return result, times == 3


def with_more_and_more_work(attempt):
    for size in SIZES:
        if attempt(size):
            return
    pytest.fail(f"not even with {size} times the work")


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@functools.cache
def wide_layer():
    """Its orthogonal weights take longer to draw than a test may."""
    return LSTM(16, 1100, dtype="float64", seed=1)


# Work of a size: a function that makes all ready for a call, and returns the call.


def wide(size):
    """Members of a team share out units; steps of one row take long enough, there are many, and few bytes go out."""
    x = np.random.default_rng(1).standard_normal((1, 350 * size, 16))
    return wide_layer(), x, None


def ragged(size):
    """Members share out rows."""
    rng = np.random.default_rng(1)
    layer = LSTM(8, 256, 2, bidirectional=True, dtype="float64", seed=1)
    return layer, rng.standard_normal((24 * size, 240, 8)), rng.integers(120, 241, 24 * size)


def summed(size):
    """Most of the time of backward goes into gradients of weights, after all steps."""
    x = np.random.default_rng(1).standard_normal((600 * size, 40, 300))
    return LSTM(300, 100, dtype="float64", seed=1), x, None


def inference(make, size):
    layer, x, lengths = make(size)
    return lambda: lambda: layer(x, lengths=lengths)[0]


def taped(make, size):
    layer, x, lengths = make(size)
    return lambda: lambda: layer.forward(x, lengths=lengths)[0]


def backward(make, size):
    """Where gradients go is made before: to clear megabytes may take as long as a signal takes to come."""
    layer, x, lengths = make(size)

    def ready():
        y, _, tape = layer.forward(x, lengths=lengths)
        out = Parameters(layer.parameters.layout, layer.dtype)
        return lambda: layer.backward(tape, y, out=out).parameters.flat

    return ready


def call_head(learns, size):
    """Of any size, one chunk of rows: signals are heard between its pieces."""
    rng, N, F, V = np.random.default_rng(1), 1300, 400 * size, 6_000
    h, weight, classes = rng.standard_normal((N, F)), rng.standard_normal((V, F)), rng.integers(0, V, N)
    dh, dweight = np.empty_like(h), np.empty_like(weight)

    def call():
        if not learns:
            return head.linear(h, weight, None)[::100].copy()
        head.loss(losses.CrossEntropy(), h, weight, None, classes, scale=1.0, dh=dh, dweight=dweight)
        return dh.copy()

    return lambda: call


def call_ctc(decodes, size):
    """Between rows, and between steps of a beam search."""
    rng = np.random.default_rng(1)
    if decodes:
        logits = rng.standard_normal((6 * size, 500, 30))
        return lambda: lambda: np.array([found.score for found in ctc.ctc_beam_search(logits, width=100)])
    logits, targets = rng.standard_normal((200 * size, 700, 20)), rng.integers(1, 20, (200 * size, 200))
    return lambda: lambda: ctc.ctc_loss(logits, targets)


CASES = dict(
    wide=functools.partial(inference, wide), ragged=functools.partial(inference, ragged),
    taped=functools.partial(taped, ragged), steps_back=functools.partial(backward, wide),
    sums=functools.partial(backward, summed), head=functools.partial(call_head, True),
    outputs=functools.partial(call_head, False), ctc=functools.partial(call_ctc, False),
    beams=functools.partial(call_ctc, True))  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_handler_that_raises_stops_the_call(name):
    def attempt(size):
        ready = CASES[name](size)
        expected = ready()()
        call, got = ready(), []
        part = seconds(lambda: got.append(stopped(call)))
        again = ready()
        whole = seconds(lambda: got.append(again()))
        early, after = got
        assert np.array_equal(after, expected)
        return early and part < whole / 2

    with_more_and_more_work(attempt)


@pytest.mark.parametrize("name", ["ragged", "sums", "head"])
def test_a_handler_that_returns_changes_nothing(name):
    def attempt(size):
        ready = CASES[name](size)
        expected = ready()()
        got, in_the_middle = heard(ready())
        assert np.array_equal(got, expected)
        return in_the_middle

    with_more_and_more_work(attempt)


def test_ctrl_c_stops_a_call_and_its_tape_is_spent():
    def attempt(size):
        ready = CASES["steps_back"](size)
        expected = ready()()
        call = ready()
        early = stopped(call, KeyboardInterrupt)
        try:
            got = call()
        except ValueError as error:
            assert str(error).startswith("tape: expected a tape that no backward call has used")
            return early
        assert early  # before the first step back, which leaves the tape as good as it was
        assert np.array_equal(got, expected)
        return False

    with_more_and_more_work(attempt)


def test_a_handler_may_use_the_layer_that_it_interrupts():
    def attempt(size):
        layer, x, _ = wide(size)
        expected, inside = layer(x)[0], []
        got, in_the_middle = heard(lambda: layer(x)[0], lambda: inside.append(layer(x[:, :50])[0]))
        assert np.array_equal(got, expected)
        assert all(np.array_equal(y, expected[:, :50]) for y in inside)
        return in_the_middle

    with_more_and_more_work(attempt)


def test_a_model_goes_on_after_ctrl_c_in_evaluate():
    model = Model(16, 900, 5, loss="mse", dtype="float64", seed=1)

    def attempt(size):
        rng = np.random.default_rng(1)
        x, y = rng.standard_normal((4, 300 * size, 16)), rng.standard_normal((4, 300 * size, 5))
        expected = model.evaluate(x, y)
        early = stopped(lambda: model.evaluate(x, y), KeyboardInterrupt)
        assert model.evaluate(x, y) == expected
        return early

    with_more_and_more_work(attempt)


def test_calls_of_other_threads_are_left_alone():
    def attempt(size):
        ready = CASES["wide"](size)
        expected, got, done = ready()(), [], threading.Event()

        def run():
            got.append(ready()())
            done.set()

        threading.Thread(target=run).start()
        early = stopped(done.wait) and not got
        done.wait()
        assert np.array_equal(got[0], expected)
        return early

    with_more_and_more_work(attempt)


def test_a_step_is_never_left_half_done(rng):
    """Its states are overwritten where they lie: some layers' alone would be states of no time at all."""
    layer = LSTM(8, 192, 4, dtype="float64", seed=1)

    def attempt(size):
        x, before = rng.standard_normal((2000 * size, 8)), layer.initial_state(2000 * size)
        after, rows, whole = before.copy(), rng.permutation(len(x)), True
        took = seconds(lambda: layer.step(x, after, rows=rows))
        pool, state = before.copy(), before.copy()
        calls = (lambda: layer.step(x, pool, rows=rows)), (lambda: layer.step(x[np.argsort(rows)], state, out=state))
        for call, states in zip(calls, (pool, state), strict=True):
            whole &= stopped(call) and all(map(np.array_equal, states, after))
            assert whole or all(map(np.array_equal, states, after)) or all(map(np.array_equal, states, before))
        return whole and took > 10 * SOON

    with_more_and_more_work(attempt)
