"""A processor of its own for each member of a team (cext/processors.h)."""

import ctypes
import os
import sys

import numpy as np
import pytest
from compiled import compiled

import cylstm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is told where to run")

SOURCE = """
#define _GNU_SOURCE
#include <sched.h>
#include <pthread.h>
#include <stdint.h>
#define MOST_THREADS 256
static int running_on;
static uint64_t masks[MOST_THREADS], there = ~(uint64_t)0; /* what threads ask for; the container's */
static int get_mask(pthread_t thread, size_t size, cpu_set_t *set)
{
    (void)size;
    CPU_ZERO(set);
    for (int n = 0; n < 64; n++) if ((masks[thread] & there) >> n & 1) CPU_SET(n, set);
    return 0;
}
static int set_mask(pthread_t thread, size_t size, const cpu_set_t *set)
{
    (void)size;
    masks[thread] = 0;
    for (int n = 0; n < 64; n++) masks[thread] |= (uint64_t)(CPU_ISSET(n, set) != 0) << n;
    return 0;
}
static pthread_t self;
static pthread_t this_thread(void) { return self; }
static int this_processor(void) { return running_on; }
#define sched_getcpu this_processor
#define pthread_self this_thread
#define pthread_getaffinity_np get_mask
#define pthread_setaffinity_np set_mask
#include "processors.h"
static place places[MOST_THREADS];
void start(int me, uint64_t mask) { masks[me] = mask, begins(&places[me], (pthread_t)me); }
void wake(int caller, int count) { running_on = caller, keep_apart(places, count); }
void container(uint64_t mask) { there = mask; }
uint64_t mask(int me) { return masks[me]; }
void work(int me, int where) { self = (pthread_t)me, let_go(&places[me]), running_on = where, note_where(&places[me]); }
"""


@pytest.fixture
def pool(tmp_path):
    """The rules alone, of four members that may run on processors 0 to 4; thread n is member n."""
    found = compiled(tmp_path, SOURCE)
    found.start.argtypes, found.container.argtypes = (ctypes.c_int, ctypes.c_uint64), (ctypes.c_uint64,)
    found.mask.restype = ctypes.c_uint64
    for me in (1, 2, 3):
        found.start(me, 0b11111)
    return found


def masks(pool):
    return [pool.mask(me) for me in (1, 2, 3)]


def test_who_has_not_run_yet_is_kept_from_the_callers_processor_and_from_each_others(pool):
    pool.wake(1, 4)
    assert masks(pool) == [0b11101, 0b11100, 0b11000]


def test_who_runs_may_run_everywhere_again(pool):
    pool.wake(1, 4)
    for me, where in ((1, 0), (2, 2), (3, 4)):
        pool.work(me, where)
    assert masks(pool) == [0b11111] * 3


def test_who_asked_for_no_processors_in_particular_still_does_afterwards(pool):
    """Set to what there was, threads would never come to the processors that a container is given later."""
    everything = 2**64 - 1
    pool.start(1, everything)
    pool.container(0b111)
    pool.wake(1, 2)
    assert pool.mask(1) == 0b101
    pool.work(1, 0)
    assert pool.mask(1) == everything


def test_members_with_processors_of_their_own_are_left_alone(pool):
    for me, where in ((1, 0), (2, 2), (3, 4)):
        pool.work(me, where)
    pool.wake(1, 4)
    pool.wake(3, 4)
    assert masks(pool) == [0b11111] * 3


def test_who_was_on_the_callers_processor_or_another_members_is_kept_from_all_of_them(pool):
    for me, where in ((1, 2), (2, 3), (3, 3)):
        pool.work(me, where)
    pool.wake(2, 4)
    assert masks(pool) == [0b10011, 0b11111, 0b10010]


def test_who_is_not_in_the_team_is_left_alone(pool):
    pool.wake(1, 2)
    assert masks(pool) == [0b11101, 0b11111, 0b11111]


def test_more_members_than_processors_are_left_alone(pool):
    for me in (1, 2, 3):
        pool.start(me, 0b10)
    pool.wake(1, 4)
    assert masks(pool) == [0b10] * 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs to know where a thread may run")
def test_a_thread_may_run_everywhere_after_a_task():
    before = cylstm.num_threads()
    try:
        cylstm.set_num_threads(3)
        layer = cylstm.LSTM(8, 160, seed=1)
        x = np.random.default_rng(1).standard_normal((6, 60, 8)).astype(np.float32)
        for _ in range(20):
            layer(x)
        own = os.sched_getaffinity(0)
        assert all(os.sched_getaffinity(int(thread)) == own for thread in os.listdir("/proc/self/task"))
    finally:
        cylstm.set_num_threads(before)
