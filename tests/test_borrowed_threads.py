"""Teams of another library's threads (cext/pool.h): an OpenMP runtime's place is taken by Python's threads here."""

import ctypes
import os
import threading

import numpy as np
import pytest

import cylstm
from cylstm._core import team

BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
PARALLEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
NUMBER = ctypes.CFUNCTYPE(ctypes.c_int)


class Runtime:
    """`size` threads for each parallel region; counts the regions and remembers who was in them."""

    def __init__(self, size):
        self.size, self.regions, self.who = size, 0, threading.local()
        self.functions = PARALLEL(self.parallel), NUMBER(self.me), NUMBER(lambda: self.size)

    def parallel(self, body, data, threads, flags):
        self.regions += 1
        assert (threads, flags) == (0, 0), "asking for fewer would end the others"
        run = BODY(body)

        def member(number):
            self.who.number = number
            run(data)

        others = [threading.Thread(target=member, args=(n,)) for n in range(1, self.size)]
        for thread in others:
            thread.start()
        member(0)
        for thread in others:
            thread.join()

    def me(self):
        return self.who.number

    def addresses(self):
        return [ctypes.cast(function, ctypes.c_void_p).value for function in self.functions]


@pytest.fixture
def layer_and_x():
    """A call that three threads are worth."""
    before = cylstm.num_threads()
    cylstm.set_num_threads(3)
    yield cylstm.LSTM(70, 150, 2, seed=1), np.random.default_rng(1).standard_normal((24, 30, 70)).astype("float32")
    team.borrow(0, 0, 0)
    cylstm.set_num_threads(before)


def run(layer, x):
    y, _, tape = layer.forward(x)
    return y, layer.backward(tape, y).parameters.flat.copy()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_same_bits_on_borrowed_threads(layer_and_x, size):
    expected, runtime = run(*layer_and_x), Runtime(size)
    team.borrow(*runtime.addresses())
    for got, wanted in zip(run(*layer_and_x), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert runtime.regions > 0
    team.borrow(0, 0, 0)
    regions = runtime.regions
    run(*layer_and_x)
    assert runtime.regions == regions


def test_one_thread_needs_no_region(layer_and_x):
    runtime = Runtime(3)
    team.borrow(*runtime.addresses())
    cylstm.set_num_threads(1)
    run(*layer_and_x)
    assert runtime.regions == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(layer_and_x):
    """What was borrowed did not come along."""
    expected, runtime = run(*layer_and_x), Runtime(3)
    team.borrow(*runtime.addresses())
    run(*layer_and_x)
    regions = runtime.regions
    child = os.fork()
    if child == 0:
        got = run(*layer_and_x)
        os._exit(0 if runtime.regions == regions and np.array_equal(got[1], expected[1]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
