"""How many members a team has for short tasks in a row (cext/pool.c); and that shared steps have the same bits."""

import ctypes

import numpy as np
import pytest
from compiled import compiled

import cylstm

SOURCE = """
#define _GNU_SOURCE
#include <stdint.h>
#include <time.h>
static _Thread_local int of_the_test; /* other threads would look out for ever if their clock stood still */
static int64_t clock_on_the_wall;
#define OWN_IS_WALL /* who uses which processor is not asked here */
#define CYLSTM_CLOCKS \\
    static int64_t wall_clock(void) \\
    { \\
        struct timespec t; \\
        clock_gettime(CLOCK_MONOTONIC, &t); \\
        return of_the_test ? clock_on_the_wall : (int64_t)t.tv_sec * 1000000000 + t.tv_nsec; \\
    }
#include "pool.c"
typedef struct { int members; int64_t end; atomic_int took_part; } found;
static void task(void *context, int me, int count, cylstm_team *team)
{
    (void)team;
    atomic_fetch_add(&((found *)context)->took_part, 1);
    if (me == 0) ((found *)context)->members = count, clock_on_the_wall = ((found *)context)->end;
}
int members(int asleep, int awake, int64_t begin, int64_t end)
{
    found now = {0, end, 0};
    of_the_test = 1, clock_on_the_wall = begin;
    cylstm_run_in_a_row(asleep, awake, task, &now);
    return now.took_part == now.members ? now.members : -now.took_part;
}
"""


LATE = """
#define _GNU_SOURCE
#include <stdint.h>
static int64_t wall, own;
#define CYLSTM_CLOCKS static int64_t wall_clock(void) { return wall; } static int64_t own_clock(void) { return own; }
#include "pool.c"
static void task(void *context, int me, int count, cylstm_team *team)
{
    (void)context, (void)me, (void)count, (void)team;
    wall += 30, own += 20;
}
void begin(int64_t when) { pool.began = when; }
int64_t *part(int64_t when, int woken)
{
    static int64_t found[2];
    wall = when;
    take_part(task, NULL, 1, 2, NULL, woken);
    found[0] = pool.found[1].all.wall, found[1] = pool.found[1].all.own;
    return found;
}
"""


def test_who_begins_late_was_kept_from_running_until_then(tmp_path):
    pool = compiled(tmp_path, LATE)
    pool.begin.argtypes, pool.part.argtypes = (ctypes.c_int64,), (ctypes.c_int64, ctypes.c_int)
    pool.part.restype = ctypes.POINTER(ctypes.c_int64)
    pool.begin(1000)
    assert pool.part(1005, False)[:2] == [35, 20]
    assert pool.part(1100, False)[:2] == [130, 20]
    assert pool.part(1100, True)[:2] == [30, 20]  # but not one that had to be woken


@pytest.fixture
def members(tmp_path):
    """members(asleep, awake, begin, end), in microseconds, of a pool of its own with a clock of the test's."""
    call = compiled(tmp_path, SOURCE).members
    call.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
    return lambda asleep, awake, begin, end: call(asleep, awake, int(begin * 1000), int(end * 1000))


def test_a_task_is_shared_once_two_have_followed_each_other(members):
    assert members(1, 3, 1000, 1020) == 1
    assert members(1, 3, 1030, 1050) == 1
    assert members(1, 3, 1060, 1070) == 3
    assert members(1, 3, 1109, 1119) == 3
    assert members(1, 3, 1160, 1180) == 1  # threads may have gone to sleep
    assert members(1, 3, 1181, 1201) == 1
    assert members(1, 3, 1202, 1212) == 3


def test_a_task_that_is_worth_several_threads_in_any_case_is_in_no_row(members):
    assert members(2, 3, 1000, 1001) == 2
    assert members(1, 3, 1002, 1003) == 1
    assert members(1, 1, 1004, 1005) == 1
    assert members(1, 3, 1006, 1007) == 1
    assert members(1, 3, 1008, 1009) == 3


def test_a_thread_that_was_not_wanted_for_many_tasks_takes_part_again(members):
    for wanted in (4, *[2] * 600, 4, 3, *[2] * 127, 3, 1, 4):
        assert members(wanted, wanted, 0, 0) == wanted


def test_tasks_are_shared_no_more_for_a_while_where_that_costs_more_than_it_gains(members):
    clock = 1000

    def task(took):
        nonlocal clock
        clock += took + 1
        return members(1, 3, clock - took, clock)

    def left_alone():
        start = clock
        while task(100) == 1:
            pass
        return clock - start

    assert [task(100), task(100), task(60)] == [1, 1, 3]  # which counts for nothing: it wakes threads
    assert [task(took) for took in (4100, 60) * 4] == [3] * 8  # 15,840 lost in all, of 20,000
    assert [task(4100), task(4100), task(100)] == [3, 3, 1]
    assert 9_800 < left_alone() < 10_100  # then they are tried again
    assert [task(11_000), task(11_000), task(100)] == [3, 3, 1]
    assert 19_800 < left_alone() < 20_100


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shared_steps_have_the_bits_of_one_thread(dtype):
    rng = np.random.default_rng(0)
    lstm = cylstm.LSTM(37, 210, 2, dtype=dtype, seed=0)
    x = rng.standard_normal((60, 37)).astype(dtype)
    whole, final = lstm(x)
    for threads in (1, 2, 3):
        cylstm.set_num_threads(threads)
        state, rows = lstm.initial_state(), []
        for x_t in x:
            rows.append(lstm.step(x_t, state, out=state)[0].copy())
        assert np.array_equal(np.stack(rows), whole)
        assert np.array_equal(state.h, final.h) and np.array_equal(state.c, final.c)
