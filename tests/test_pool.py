"""How many members a team has for one of many short tasks (cext/pool.c); and that steps which are shared have the same bits."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import cylstm

CEXT = Path(__file__).parents[1] / "cext"
COMPILER = shutil.which(os.environ.get("CC", "cc"))

SOURCE = """
#include <stdint.h>
#define CYLSTM_CLOCKS static int64_t clock_on_the_wall; \\
    static int64_t wall_clock(void) { return clock_on_the_wall; } static int64_t own_clock(void) { return 0; }
#include "pool.c"
typedef struct { int members; int64_t end; } found;
static void task(void *context, int me, int count, cylstm_team *team)
{
    (void)team;
    if (me == 0) ((found *)context)->members = count, clock_on_the_wall = ((found *)context)->end;
}
int members(int asleep, int awake, int64_t begin, int64_t end)
{
    found now = {0, end};
    clock_on_the_wall = begin;
    cylstm_full_teams(1); /* who uses which processor is not asked here */
    cylstm_run_one_of_many(asleep, awake, task, &now);
    return now.members;
}
"""


@pytest.fixture
def members(tmp_path):
    """members(asleep, awake, begin, end), in microseconds, of a pool of its own with a clock of the test's."""
    if not CEXT.exists() or COMPILER is None:
        pytest.skip("needs the source and a C compiler")
    (tmp_path / "pool_alone.c").write_text(SOURCE)
    library = tmp_path / "pool_alone.so"
    command = [COMPILER, "-shared", "-fPIC", "-pthread", f"-I{CEXT}", "-o", library, tmp_path / "pool_alone.c"]
    subprocess.run(command, check=True)
    call = ctypes.CDLL(library).members
    call.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
    return lambda asleep, awake, begin, end: call(asleep, awake, int(begin * 1000), int(end * 1000))


def test_a_task_is_shared_once_others_have_just_ended(members):
    assert members(1, 3, 1000, 1020) == 1  # the first one of a stream
    assert members(1, 3, 1030, 1200) == 3
    assert members(1, 3, 1249, 1250) == 3  # however long the last one took
    assert members(1, 3, 1301, 1302) == 1  # threads have gone to sleep
    assert members(1, 3, 1303, 1304) == 3


def test_a_task_that_is_worth_as_many_in_any_case_asks_no_clock(members):
    assert members(2, 2, 1000, 1001) == 2
    assert members(1, 3, 1002, 1003) == 1  # and is none of the many
    assert members(1, 1, 1004, 1005) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shared_steps_have_the_bits_of_one_thread(dtype):
    rng = np.random.default_rng(0)
    lstm = cylstm.LSTM(37, 210, 2, dtype=dtype, seed=0)
    x = rng.standard_normal((60, 37)).astype(dtype)
    before, found = cylstm.num_threads(), []
    try:
        for threads in (1, 2, 3):
            cylstm.set_num_threads(threads)
            state, rows = lstm.initial_state(), []
            for x_t in x:
                rows.append(lstm.step(x_t, state, out=state)[0].copy())
            found.append((np.stack(rows), state))
        whole, final = lstm(x)
    finally:
        cylstm.set_num_threads(before)
    for rows, state in found:
        assert np.array_equal(rows, whole)
        assert np.array_equal(state.h, final.h) and np.array_equal(state.c, final.c)
