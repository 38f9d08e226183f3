"""How many threads compute beside torch, and whose: counted by the system, each time in a process of its own."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

CALL = """
import os, torch, cylstm.torch
def threads():
    return len(os.listdir("/proc/self/task"))
def call():
    torch.manual_seed(0)
    module, x = cylstm.torch.LSTM(100, 200, 2), torch.randn(40, 32, 100)
    module(x)[0].sum().backward()
"""


def ran(code):
    subprocess.run([sys.executable, "-c", CALL + code], check=True, timeout=300)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the threads in /proc")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_as_many_threads_as_torch_is_told(number):
    """Computing starts no thread where torch is told to use one, and as many as the others do where it is told so."""
    ran(
        f"torch.set_num_threads({number}); cylstm.set_num_threads(3); before = threads(); call();"
        f"assert threads() - before == {number - 1}, (before, threads())"
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the threads in /proc")
def test_cylstms_own_number_bounds_it():
    ran(
        "torch.set_num_threads(3); cylstm.set_num_threads(1); before = threads();"
        "module = cylstm.torch.LSTM(100, 200, 2); x = torch.empty(40, 32, 100);"
        "started = threads(); module(x); assert threads() == started, (before, started, threads())"
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the threads in /proc")
def test_the_threads_are_torchs():
    """Where torch's are awake already, a call needs no others."""
    ran(
        "torch.set_num_threads(3); cylstm.set_num_threads(3); a = torch.randn(700, 700); (a @ a).exp().sum();"
        "before = threads(); call(); assert threads() == before, (before, threads())"
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_a_forked_child_computes():
    """An OpenMP runtime is lost there, and torch hangs where it uses it; cylstm goes on with threads of its own."""
    ran(
        "torch.set_num_threads(2); call(); module, x = cylstm.torch.LSTM(100, 200), torch.zeros(40, 32, 100)\n"
        "with torch.no_grad():\n"
        "    expected = module(x)[0].numpy().tobytes()\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os._exit(0 if module(x)[0].numpy().tobytes() == expected else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0"
    )
