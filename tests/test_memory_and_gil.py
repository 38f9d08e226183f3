"""What a call takes besides arithmetic: memory, and the GIL."""

import threading
import time

import numpy as np
import pytest

from cylstm import LSTM, Model
from cylstm._core import head
from cylstm._core.memory import aligned_empty, same_bytes
from cylstm.losses import CrossEntropy


@pytest.mark.parametrize("size", [1, 37, 4000])
def test_memory_begins_on_a_cache_line_and_is_no_larger_than_asked_for(dtype, traced, size):
    kept = [aligned_empty(size, dtype) for _ in range(20)]
    for values in kept:
        assert values.shape == (size,) and values.dtype == dtype and values.ctypes.data % 64 == 0
    del kept, values
    assert traced(lambda: aligned_empty(size, dtype)) < size * np.dtype(dtype).itemsize + 2000


def test_bytes_are_compared_up_to_the_last(dtype, rng):
    """Every bit of every number, whether it changes a value or not."""
    a = rng.standard_normal(37).astype(dtype)
    a[5] = np.nan
    b = a.copy()
    assert same_bytes(a, b) and not same_bytes(a, b[:-1]) and not same_bytes(a[:-1], b)
    for place in (0, 20, 36):
        kept, b[place] = b[place], -b[place]
        assert not same_bytes(a, b) and not same_bytes(b, a)
        b[place] = kept
    a[7], b[7] = 0.0, -0.0
    assert not same_bytes(a, b)


def test_a_step_into_out_allocates_no_array(rng, traced):
    layer = LSTM(3, 1000, seed=1)
    state = layer.initial_state(4)  # 16 kB each in h and c
    x = rng.standard_normal((4, 3)).astype("float32")

    def stream():
        for _ in range(20):
            layer.step(x, state, out=state)

    stream()
    assert traced(stream) < 2000  # the view that a step returns, and the tuple
    assert traced(lambda: layer.step(x, state)) > 3 * 16000


def test_neither_does_a_models(rng, traced):
    model = Model(3, 1000, 900, loss="mse", seed=1)
    x, view = rng.standard_normal((4, 3)).astype("float32"), model.parameters["head.bias"]
    out = model.step(x, None)  # outputs of 14 kB, and h and c of 16 kB each

    def stream():
        for _ in range(20):
            model.step(x, out[1], out=out)

    stream()
    view[...] = 0.5  # a view that is held costs a look at all weights at each step, but no memory
    stream()
    assert traced(stream) < 2000
    del view
    stream()
    assert traced(stream) < 2000
    assert traced(lambda: model.step(x, out[1])) > 3 * 14000


def test_calls_again_reuse_their_memory(rng, traced):
    """Only what is returned is new: y, states and gradients; gates, states of all steps and scratch are kept."""
    layer = LSTM(5, 64, seed=1)
    x, dy = rng.standard_normal((16, 100, 5)).astype("float32"), rng.standard_normal((16, 100, 64)).astype("float32")

    def update():
        _, _, tape = layer.forward(x)
        layer.backward(tape, dy)

    first = traced(update)
    assert traced(update) < dy.nbytes + x.nbytes + layer.parameters.flat.nbytes + 50_000 < first / 2


def test_what_one_call_needed_waits_for_one_that_needs_about_as_much(rng):
    spare, kept = [], []
    for N, V in [(1500, 1000), (1500, 1000), (200, 1000), (20, 50), (20, 50), (1500, 1000)]:
        h, weight = rng.standard_normal((N, 16)).astype("f4"), rng.standard_normal((V, 16)).astype("f4")
        head.loss(CrossEntropy(), h, weight, None, rng.integers(0, V, N), spare=spare)
        kept += spare
    assert [memory is kept[0] for memory in kept] == [True, True, True, False, False, False]
    assert kept[0].nbytes > 1_000_000 > 200_000 > kept[3].nbytes and kept[4] is kept[3]


@pytest.mark.parametrize("what", ["call", "forward", "backward", "head"])
def test_other_threads_run_during_a_call(rng, what):
    """While another thread holds the GIL, who sleeps waits for it: twice at most does one wake up in a call."""
    layer = LSTM(8, 128, seed=1)
    x = rng.standard_normal((64, 1000, 8)).astype("float32")
    h, weight = rng.standard_normal((6000, 64)).astype("float32"), rng.standard_normal((5000, 64)).astype("float32")
    tapes = []
    dy = np.ones((64, 1000, 128), np.float32)
    call = {
        "call": lambda: layer(x),
        "forward": lambda: layer.forward(x),
        "backward": lambda: layer.backward(tapes.pop(), dy),
        "head": lambda: head.loss(CrossEntropy(), h, weight, None, np.zeros(6000, np.int64)),
    }[what]
    turns = [0]  # of each call, up to the one at hand

    def run():
        while len(turns) < 200 and max(turns) <= 5:  # on a machine with other work to do, not in every call
            if what == "backward":
                tapes.append(layer.forward(x)[2])
            turns.append(0)
            call()
            turns.append(0)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        if len(turns) % 2 == 0:
            turns[-1] += 1
    thread.join()
    assert max(turns) > 5


@pytest.mark.parametrize("V", [10_000, 50_000])
def test_a_large_vocabulary_never_has_all_its_logits(rng, traced, V):
    N, F = 1500, 16
    h = rng.standard_normal((N, F)).astype("float32")
    weight = rng.standard_normal((V, F)).astype("float32")
    classes = rng.integers(0, V, N)
    dh, dweight, dbias = np.empty_like(h), np.empty_like(weight), np.empty(V, np.float32)
    bias = rng.standard_normal(V).astype("float32")

    def call():
        head.loss(CrossEntropy(), h, weight, bias, classes, scale=1 / N, dh=dh, dweight=dweight, dbias=dbias)

    logits = N * V * 4
    assert traced(call) < logits / 3
    z = h[:7] @ weight.T + bias
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(7), classes[:7]] -= 1
    np.testing.assert_allclose(dh[:7], p @ weight / N, rtol=1e-3, atol=1e-7)
