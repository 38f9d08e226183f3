"""Models that are trained by workers: joblib's processes and threads, and those of concurrent.futures."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from joblib import Parallel, cpu_count, delayed, parallel_config
from threadpoolctl import threadpool_limits

import cylstm
from cylstm import Adam, Model, NonFiniteLoss, num_threads, set_num_threads
from cylstm.processors import processors
from examples import loading
from examples.workers import learn_all

METHODS = [method for method in multiprocessing.get_all_start_methods() if method != "fork" or sys.platform == "linux"]
PATIENCE = 120  # seconds, for what takes less than ten
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12's


@pytest.fixture(autouse=True)
def nobody_says_how_many_threads(monkeypatch):
    for name in ("CYLSTM_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def waves(rows=48):
    """x and y (rows, 29, 1): a wave each, and what comes next."""
    series = loading.waves(rows, 30).astype("float32")[..., None]
    return series[:, :-1], series[:, 1:]


def trial(x, y, hidden_size, rate, **options):
    """A model whose updates are worth two threads, and its loss in validation."""
    model = Model(1, hidden_size, 1, loss="mse", seed=hidden_size)
    options = dict(epochs=2, validation=(x[32:], y[32:]), optimizer=Adam(rate), progress=False) | options
    history = model.fit(x[:32], y[:32], **options)
    return model, history.validation_loss[-1]


GRID = [(hidden_size, rate) for hidden_size in (40, 64) for rate in (1e-3, 1e-2)]


def search(parallel, x, y, **options):
    return parallel(delayed(trial)(x, y, hidden_size, rate, **options) for hidden_size, rate in GRID)


def assert_same(got, expected):
    assert len(got) == len(expected)
    for (model, score), (other, other_score) in zip(got, expected, strict=True):
        assert np.array_equal(model.parameters.flat, other.parameters.flat) and score == other_score
        assert model.trained.history.train_loss == other.trained.history.train_loss


# --- threads of a worker ----------------------------------------------------------------------------------------------


def threads_of_a_worker(task=0):
    return cylstm.num_threads(), os.getpid()


def told(parallel, tasks=4):
    """What the workers say, which are not this process."""
    threads, workers = zip(*parallel(delayed(threads_of_a_worker)(task) for task in range(tasks)), strict=True)
    assert os.getpid() not in workers
    return set(threads)


def test_each_of_two_processes_has_its_share():
    set_num_threads(7)  # which is for this process
    assert told(Parallel(2)) == {max(1, cpu_count() // 2)}
    with parallel_config("loky", n_jobs=2, inner_max_num_threads=3):
        assert told(Parallel()) == {3}
    assert num_threads() == 7


def test_what_the_environment_says_is_for_each_worker(monkeypatch):
    monkeypatch.setenv("CYLSTM_NUM_THREADS", "5")
    with parallel_config("loky", n_jobs=2, inner_max_num_threads=6):  # workers of its own
        assert told(Parallel()) == {5}


def limited(n):
    before = num_threads()
    with threadpool_limits(n):
        inside = num_threads()
    with threadpool_limits(n, user_api="cylstm"):
        ours = num_threads()
    return before, inside, ours, num_threads()


def test_threadpoolctl_limits_a_worker():
    with parallel_config("loky", n_jobs=2, inner_max_num_threads=4):
        assert Parallel()(delayed(limited)(n) for n in (1, 2)) == [(4, 1, 1, 4), (4, 2, 2, 4)]


# --- a search ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_search_by_two_workers_finds_the_bits_of_one(backend):
    """Threads share the pool: who finds it at work for the other computes alone."""
    x, y = waves()
    set_num_threads(1)
    expected = search(Parallel(1), x, y)
    set_num_threads(2)
    inner = {"inner_max_num_threads": 2} if backend == "loky" else {}
    with parallel_config(backend, n_jobs=2, **inner):
        found = search(Parallel(), x, y)
    assert_same(found, expected)
    best, _ = min(found, key=lambda pair: pair[1])
    assert np.array_equal(best.predict(x), min(expected, key=lambda pair: pair[1])[0].predict(x))


def of_a_map(x, y, hidden_size):
    for array in (x, y):
        assert isinstance(array, np.memmap) and not array.flags.writeable
    return trial(x, y, hidden_size, 1e-2, epochs=1)


def test_fit_takes_the_read_only_memory_maps_that_workers_share():
    x, y = (np.ascontiguousarray(part) for part in waves(4096))  # 475 KB each
    x[:48], y[:48] = waves()
    expected = [trial(x, y, 40, 1e-2, epochs=1), trial(x, y, 17, 1e-2, epochs=1)]
    jobs = Parallel(2, max_nbytes="100K", mmap_mode="r")
    found = jobs(delayed(of_a_map)(x, y, hidden_size) for hidden_size in (40, 17))
    assert_same(found, expected)


def test_many_small_models_come_back_as_they_were_learnt():
    series = loading.waves(40)
    expected = learn_all(series)
    for backend in ("loky", "threading"):
        assert_same(learn_all(series, 2, backend), expected)
    model, _ = learn_all(series[:2], 2)[1]
    model.fit(np.zeros((1, 5, 1)), np.zeros((1, 5, 1)), epochs=1, progress=False)  # it is whole


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_an_error_reaches_the_caller_with_its_words(backend):
    x, y = waves()
    x = x.copy()
    x[5, 3, 0] = np.nan
    with parallel_config(backend, n_jobs=2):
        with pytest.raises(ValueError, match=r"^x\[5, 3, 0\]: expected a finite number, got nan"):
            search(Parallel(), x, y)
        with pytest.raises(TypeError, match=r"^optimizer: expected SGD, Adam or AdamW, got str 'adam'"):
            search(Parallel(), *waves(), optimizer="adam")
        with pytest.raises(NonFiniteLoss, match=r"loss|weights|gradients"):
            search(Parallel(), *waves(), optimizer=cylstm.SGD(1e30), clip_norm=None, epochs=9)


def goes_on(x, y, hidden_size, folder, fails):
    """A trial with a checkpoint of its own, which is broken off in its third epoch, and taken up the next time."""

    def breaks(event):
        if fails and event.kind == "update" and event.epoch == 2:
            raise ZeroDivisionError(f"of {hidden_size}")

    path = f"{folder}/{hidden_size}.ckpt"
    resume = path if os.path.exists(path) else None
    return trial(x, y, hidden_size, 1e-2, epochs=4, checkpoint=path, resume=resume, callbacks=[breaks])


def test_trials_go_on_from_checkpoints_of_their_own(tmp_path):
    x, y = waves()
    sizes = (13, 40)
    with pytest.raises(ZeroDivisionError, match=r"of (13|40)"):
        Parallel(2)(delayed(goes_on)(x, y, size, tmp_path, True) for size in sizes)
    assert list(tmp_path.glob("*.ckpt"))
    found = Parallel(2)(delayed(goes_on)(x, y, size, tmp_path, False) for size in sizes)
    assert_same(found, [trial(x, y, size, 1e-2, epochs=4) for size in sizes])


# --- processes that know of no share ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_processes_are_told_how_many_threads_they_have(method):
    """After threads have been started here, which a forked process does not have."""
    x, y = waves()
    set_num_threads(3)
    expected = [trial(x, y, 40, 1e-2), trial(x, y, 64, 1e-2)]
    context = multiprocessing.get_context(method)
    for n in (1, 2):
        with ProcessPoolExecutor(2, context, initializer=set_num_threads, initargs=(n,)) as pool:
            found = pool.map(trial, [x, x], [y, y], [40, 64], [1e-2, 1e-2], timeout=PATIENCE)
            assert_same(list(found), expected)
            assert {threads for threads, _ in pool.map(threads_of_a_worker, range(4))} == {n}
    assert num_threads() == 3


@pytest.mark.parametrize("method", METHODS)
def test_processes_that_are_not_told_have_what_they_inherit(method):
    set_num_threads(3)
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        (threads, _), *_ = pool.map(threads_of_a_worker, range(1), timeout=PATIENCE)
    assert threads == (3 if method == "fork" else processors())
