"""Fixtures for every test: the instruction sets of this machine, and a seeded generator of awkward numbers."""

import functools
import signal
import tracemalloc

import numpy as np
import pytest

from cylstm import num_threads, set_num_threads
from cylstm._core import kernels, team


def pytest_collection_modifyitems(items):
    """Cases that differ in the instruction set alone follow one another, so that the oracle has just answered what the
    second of them asks: see `against_oracle.answered`."""
    order = {}

    def case(item):
        test, _, names = item.nodeid.partition("[")
        spec = getattr(item, "callspec", None)
        return test, names.replace(spec.params["isa"], "", 1) if spec and "isa" in spec.params else names

    items.sort(key=lambda item: order.setdefault(case(item), len(order)))


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_works():
    """A job in the background of a script is started with SIGINT ignored, and would hand that on to its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=kernels.available())
def isa(request):
    """Runs the test once for each instruction set that this machine has, and asserts that it took."""
    before = kernels.instruction_set()
    assert kernels.use(request.param) == request.param == kernels.instruction_set()
    yield request.param
    assert kernels.instruction_set() == request.param
    kernels.use(before)


@functools.cache
def sets_threads(path):
    """Whether a file of tests says how many threads there are."""
    return "set_num_threads" in path.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def threads_as_they_were(request):
    """Whatever a test sets. A test of seven threads is one, on two busy processors too: there, teams do not shrink."""
    before = num_threads()
    team.full_teams(sets_threads(request.path))
    yield
    set_num_threads(before)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def traced():
    """A function that says by how many bytes memory grew at most while another one ran."""

    def peak(call):
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            call()
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()

    return peak


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of its own for each test of the command line, with a corpus in it."""
    from commands import TEXT  # which the other tests do not wait for

    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


@pytest.fixture
def rng():
    return np.random.default_rng(20260)


@pytest.fixture
def close(dtype):
    """Agreement with the oracle as the project demands it: relative to the largest element of the expected array."""
    bound = {"float32": 2e-5, "float64": 1e-11}[dtype]

    def check(got, expected, what=""):
        assert got.shape == expected.shape, what
        assert got.dtype == dtype, what
        scale = np.abs(expected).max(initial=0)
        error = np.abs(got.astype(np.float64) - expected).max(initial=0)
        assert error <= bound * scale, f"{what}: off by {error:.2e} of {scale:.2e}"

    return check
