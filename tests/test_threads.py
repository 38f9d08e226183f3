"""Threads: the same bits for any number of them, beside Python's own, and in children after fork and spawn."""

import multiprocessing
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cylstm import LSTM, Model, State, num_threads, set_num_threads
from cylstm.locks import Claim, Lock

TASKS = Path("/proc/self/task")  # the threads of a process, on Linux
LINUX = pytest.mark.skipif(not TASKS.exists(), reason="needs fork and /proc")
PATIENCE = 120  # seconds, for what takes less than one
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12's

# Each is worth seven threads; those of "rows" share out the batch, those of "units" the hidden units.
CASES = {
    "rows": dict(B=57, T=45, I=11, H=37),
    "rows ids": dict(B=57, T=18, I=23, H=65, L=2, ids=True, ragged=True),
    "rows all": dict(B=67, T=13, I=17, H=33, L=2, D=2, dropout=0.3, ragged=True, resets=True),
    "rows and a long one": dict(B=61, T=70, I=11, H=37, L=2, D=2, ragged="one long"),
    "units": dict(B=15, T=15, I=33, H=233),
    "units ids": dict(B=9, T=9, I=23, H=151, L=2, ids=True, resets=True),
    "units all": dict(B=13, T=7, I=19, H=151, L=2, D=2, dropout=0.3, ragged=True, resets=True),
    "units of many rows": dict(B=37, T=5, I=19, H=277, ragged=True),
    "units of one row": dict(B=1, T=15, I=20, H=501),
}


@pytest.fixture(autouse=True)
def threads_as_before():
    before = num_threads()
    yield
    set_num_threads(before)


def given(B, T, I, H, L=1, D=1, dropout=0.0, ids=False, ragged=False, resets=False, dtype="float32", seed=1, scale=1):
    """A layer and what run() gives to it."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: (scale * rng.standard_normal(shape)).astype(dtype)  # noqa: E731
    layer = LSTM(I, H, L, bidirectional=D == 2, dropout=dropout, dtype=dtype, seed=1)
    x = rng.integers(0, I, (B, T)) if ids else draw(B, T, I)
    lengths = rng.integers(T // 2, T + 1, B) if ragged else None
    if ragged == "one long":
        lengths = np.where(np.arange(B) == B // 2, T, lengths // 5)
    resets = rng.random((B, T)) < 0.1 if resets else None
    return layer, x, State(*draw(2, L * D, B, H)), lengths, resets, draw(B, T, D * H), State(*draw(2, L * D, B, H))


def run(layer, x, start, lengths, resets, dy, dstate):
    """All that inference and training give, by name."""
    layer.rng = np.random.default_rng(5)  # of the dropout masks
    y, (h, c) = layer(x, start, lengths=lengths, resets=resets)
    y_kept, (h_kept, c_kept), tape = layer.forward(x, start, lengths=lengths, resets=resets)
    dx, (dh, dc), parameters = layer.backward(tape, dy, dstate)
    return dict(y=y, h=h, c=c, y_kept=y_kept, h_kept=h_kept, c_kept=c_kept, dx=dx, dh=dh, dc=dc, **parameters)


def assert_same(got, expected):
    assert not [name for name in expected | got if not np.array_equal(got[name], expected[name])]


@pytest.mark.parametrize("case", CASES)
def test_same_bits_for_any_number_of_threads(isa, dtype, case):
    layer, *setting = given(**CASES[case], dtype=dtype)
    _, *nan = given(**CASES[case], dtype=dtype, scale=np.nan)
    set_num_threads(1)
    expected = run(layer, *setting)
    for n in (2, 3, 7, 7, 1):
        set_num_threads(n)
        assert_same(run(layer, *setting), expected)
        run(layer, *nan)  # the memory that the layer keeps for its next call is now full of what nobody may read


def test_same_bits_whichever_layer_each_thread_has_come_to(isa):
    """Who has rows of its own runs ahead through the layers, whose inputs differ in width."""
    layer, x, *_ = given(B=33, T=40, I=17, H=129, L=2)
    set_num_threads(1)
    expected, _ = layer(x)
    set_num_threads(4)
    assert all(np.array_equal(layer(x)[0], expected) for _ in range(25))


@pytest.mark.parametrize(("loss", "output"), [("cross_entropy", "sequence"), ("mse", "last")])
def test_a_model_learns_the_same_bits(isa, dtype, rng, loss, output):
    x, lengths = rng.integers(0, 31, (99, 12)), rng.integers(3, 13, 99)
    y = rng.integers(0, 301, (99, 12)) if output == "sequence" else rng.standard_normal((99, 301)).astype(dtype)

    def learn(n):
        set_num_threads(n)
        options = dict(embedding_size=17, num_layers=2, dropout=0.3, loss=loss, output=output, dtype=dtype, seed=1)
        model = Model(31, 65, 301, **options)
        history = model.fit(x, y, lengths=lengths, epochs=1, batch_size=64, progress=False)
        return {**model.parameters, "outputs": model(x, lengths=lengths)[0], "loss": history.train_loss}

    expected = learn(1)
    for n in (2, 7):
        assert_same(learn(n), expected)


@pytest.mark.parametrize("case", ["rows", "units", "units of many rows"])
def test_many_python_threads_on_one_layer_get_the_bits_of_one(isa, case):
    layer, *one = given(**CASES[case])
    _, *two = given(**CASES[case], seed=2)
    expected = [run(layer, *one), run(layer, *two)]
    set_num_threads(2)
    with ThreadPoolExecutor(8) as pool:
        for n, got in enumerate(pool.map(run, [layer] * 16, *zip(*[one, two] * 8, strict=True))):
            assert_same(got, expected[n % 2])


@pytest.mark.parametrize("n", [0, -2, 2.0, True, "2", None])
def test_a_bad_number_of_threads_is_named_and_changes_nothing(n):
    set_num_threads(np.int64(3))
    with pytest.raises(ValueError if type(n) is int else TypeError, match=f"n: expected an integer.*, got .*{n}"):
        set_num_threads(n)
    assert num_threads() == 3


def python(code, value):
    command, variables = [sys.executable, "-c", code], {**os.environ, "CYLSTM_NUM_THREADS": value}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("value", ["0", "-1", "x", "2.5"])
def test_a_bad_number_in_the_environment_is_named(value):
    *_, error = python("import cylstm", value).stderr.splitlines()
    assert re.match(f"ValueError: CYLSTM_NUM_THREADS: expected an integer.*, got .*{value}", error)


@LINUX
def test_threads_start_when_first_needed_and_no_more_than_allowed():
    answer = python("""
import os, numpy as np, cylstm
from cylstm._core import team
team.full_teams(True)  # on fewer processors, too
def count(): print(len(os.listdir("/proc/self/task")))
print(cylstm.num_threads()), count()
small, large, x = cylstm.LSTM(5, 19, 2), cylstm.LSTM(33, 301), np.ones((8, 40, 33), "float32")
small.step(x[0, :1, :5], small.initial_state(1))
y, _, tape = small.forward(x[:3, :6, :5])
small.backward(tape, y), count()
for n in (1, 3, 2, 5):
    cylstm.set_num_threads(n), large(x), count()
""", "6")  # fmt: skip
    allowed, before, *after = map(int, answer.stdout.split())
    assert allowed == 6 and [n - before for n in after] == [0, 0, 2, 2, 4], answer.stderr


def run_and_send(sender, setting):
    sender.send((len([*TASKS.glob("*")]), run(*setting), len([*TASKS.glob("*")])))


def in_child(method, setting, expected):
    """run() in a child process, which then ends by itself. Returns how many threads it had before and after."""
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=run_and_send, args=(sender, setting), daemon=True)
    child.start()
    sender.close()
    assert receiver.poll(PATIENCE), "the child hangs"
    before, got, after = receiver.recv()
    child.join(PATIENCE)
    assert child.exitcode == 0
    assert_same(got, expected)
    return before, after


@LINUX
@pytest.mark.parametrize("case", CASES)
def test_a_forked_child_starts_threads_of_its_own(case):
    """Seven, the first among them: so each case is worth them."""
    setting = given(**CASES[case])
    set_num_threads(7)
    expected = run(*setting)
    assert in_child("fork", setting, expected) == (1, 7)
    assert_same(run(*setting), expected)


@LINUX
def test_a_forked_child_finds_locks_open():
    lock, claim = Lock(), Claim()

    def take_both():
        with lock.held:
            assert claim.take("the child")

    child = multiprocessing.get_context("fork").Process(target=take_both, daemon=True)
    assert claim.take("the parent")
    with lock.held:
        child.start()
        child.join(PATIENCE)
    assert child.exitcode == 0, "the child waits for a thread that it does not have"
    assert not claim.take("another")


@LINUX
def test_a_child_forked_by_who_holds_a_lock_gives_it_back():
    lock, claim = Lock(), Claim()
    assert claim.take("here")
    child, whole = None, False
    try:
        with lock.held:
            child = os.fork()
        claim.give_back("here")
        whole = lock.held.acquire(blocking=False) and claim.take("anew")
    finally:
        if child == 0:
            os._exit(0 if whole else 1)
    assert whole
    assert os.waitpid(child, 0)[1] == 0


@LINUX
@pytest.mark.parametrize("case", ["rows", "units"])
def test_a_child_forked_in_the_middle_of_calls_is_whole(case):
    setting = given(**CASES[case])
    set_num_threads(2)
    expected = run(*setting)
    with ThreadPoolExecutor(2) as pool:  # one call has the threads, one works alone
        calls = [pool.submit(run, *setting) for _ in range(50)]
        while not calls[-1].done():
            assert in_child("fork", setting, expected) == (1, 2)
    for call in calls:
        assert_same(call.result(), expected)


def test_a_spawned_child_computes_the_same_bits(monkeypatch):
    monkeypatch.setenv("CYLSTM_NUM_THREADS", "3")
    setting = given(**CASES["units all"])
    before, after = in_child("spawn", setting, run(*setting))
    assert after == before + 2 or not TASKS.exists()
