"""Models and states in other processes and threads: pickle, copy, joblib, threadpoolctl; one training at a time."""

import copy
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import threadpoolctl

from cylstm import Model, State, num_threads, set_num_threads


@pytest.fixture(autouse=True)
def threads_as_before():
    before = num_threads()
    yield
    set_num_threads(before)


def outputs_and_threads(model, x):
    return model(x)[0], num_threads()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value, protocol=5))])
def test_copies_compute_the_same_and_share_nothing(rng, copied):
    model = Model(11, 6, 3, num_layers=2, dropout=0.5, embedding_size=4, seed=1)
    ids, y = rng.integers(0, 11, (5, 9)), rng.integers(0, 3, (5, 9))
    state = State(*rng.standard_normal((2, 2, 5, 6)).astype("f4"))
    other, other_state = copied(model), copied(state)
    assert isinstance(other_state, State) and not np.shares_memory(other_state.h, state.h)
    assert np.array_equal(other(ids, other_state)[0], model(ids, state)[0])
    # The dropout masks to come are the same ones, too.
    assert other.loss_and_gradients(ids, y).loss == model.loss_and_gradients(ids, y).loss
    expected, _ = model(ids)
    other.fit(ids, y, epochs=1, progress=False)
    assert np.array_equal(model(ids)[0], expected) and not np.array_equal(other(ids)[0], expected)


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12's
def test_joblib_workers_compute_the_same_bits(rng, backend):
    model, x = Model(3, 40, 2, loss="mse", seed=1), rng.standard_normal((6, 20, 50, 3)).astype("f4")
    with joblib.parallel_config(backend=backend, n_jobs=2):
        answers = joblib.Parallel()(joblib.delayed(outputs_and_threads)(model, rows) for rows in x)
    for (got, _), rows in zip(answers, x, strict=True):
        assert np.array_equal(got, model(rows)[0])


def test_joblib_tells_its_workers_their_share(rng):
    model, x = Model(3, 4, 2, loss="mse", seed=1), rng.standard_normal((2, 3, 5, 3)).astype("f4")
    with joblib.parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=3):
        answers = joblib.Parallel()(joblib.delayed(outputs_and_threads)(model, rows) for rows in x)
    assert [threads for _, threads in answers] == [3, 3]


def controlled():
    return [found for found in threadpoolctl.threadpool_info() if found["user_api"] == "cylstm"]


def test_threadpoolctl_sees_and_limits_the_threads():
    set_num_threads(5)
    (found,) = controlled()
    assert found["num_threads"] == 5 and found["internal_api"] == "cylstm" and found["version"]
    for options in ({}, {"user_api": "cylstm"}, {"limits": {"cylstm": 2}}):
        with threadpoolctl.threadpool_limits(**{"limits": 2, **options}):
            assert num_threads() == 2
        assert num_threads() == 5
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        assert num_threads() == 5


@pytest.mark.parametrize("imports", ["import threadpoolctl, cylstm", "import cylstm, threadpoolctl"])
def test_threadpoolctl_may_be_imported_before_or_after(imports):
    code = f"{imports}; assert 'cylstm' in [found['user_api'] for found in threadpoolctl.threadpool_info()]"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_model_serves_many_threads_with_the_bits_of_one(rng):
    model = Model(20, 60, 20, num_layers=2, embedding_size=16, seed=1)
    batches = [rng.integers(0, 20, (n % 5 + 1, 40 + n)) for n in range(24)]
    expected = [
        (model(ids)[0], model.predict(ids), list(model.generate(ids[0], 9, seed=n))) for n, ids in enumerate(batches)
    ]

    def serve(n):
        return model(batches[n])[0], model.predict(batches[n]), list(model.generate(batches[n][0], 9, seed=n))

    with ThreadPoolExecutor(8) as pool:
        for got, wanted in zip(pool.map(serve, range(24)), expected, strict=True):
            assert np.array_equal(got[0], wanted[0]) and np.array_equal(got[1], wanted[1]) and got[2] == wanted[2]


def test_gradients_may_be_taken_by_many_threads(rng):
    """Only `fit` changes the model: data-parallel loops of one's own need no lock for the rest."""
    model = Model(3, 50, 2, loss="mse", seed=1)
    data = [
        (rng.standard_normal((4, 30, 3)).astype("f4"), rng.standard_normal((4, 30, 2)).astype("f4")) for _ in range(8)
    ]
    expected = [model.loss_and_gradients(x, y) for x, y in data]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(lambda pair: model.loss_and_gradients(*pair), data), expected, strict=True):
            assert got.loss == wanted.loss and np.array_equal(got.gradients.flat, wanted.gradients.flat)


def test_a_second_training_of_one_model_is_refused(rng):
    model, x, y = Model(3, 5, 1, loss="mse", seed=1), rng.standard_normal((8, 5, 3)), rng.standard_normal((8, 5, 1))
    x, errors = x.astype("f4"), []

    def train():
        try:
            model.fit(x, y, epochs=1, progress=False)
        except RuntimeError as error:
            errors.append(str(error))

    def in_between(event):
        other = threading.Thread(target=train)
        other.start()
        other.join()

    model.fit(x, y, epochs=1, progress=False, callbacks=[in_between])
    assert set(errors) == {"model: expected one training run at a time, got a second one while another goes on"}
    del errors[:]
    train()
    assert not errors


def test_training_may_begin_again_after_an_error(rng):
    model, x, y = Model(3, 5, 1, loss="mse", seed=1), rng.standard_normal((8, 5, 3)), rng.standard_normal((8, 5, 1))
    x = x.astype("f4")

    def fail(event):
        raise OSError("a callback's own")

    with pytest.raises(OSError, match="a callback's own"):
        model.fit(x, y, epochs=1, progress=False, callbacks=[fail])
    model.fit(x, y, epochs=1, progress=False)
