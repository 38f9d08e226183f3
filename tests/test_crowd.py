"""Teams of threads where other processes want the processors too (cext/crowd.h)."""

import ctypes
import os
import subprocess
import sys

import pytest
from compiled import compiled

MS = 1_000_000  # nanoseconds

SOURCE = """
#include <stdint.h>
#define CYLSTM_CLOCKS static int64_t clock_on_the_wall; \\
    static int64_t wall_clock(void) { return clock_on_the_wall; } static int64_t own_clock(void) { return 0; }
#include "crowd.h"
int members(int wanted, int64_t when) { clock_on_the_wall = when; (void)now; (void)plus; return uncrowded(wanted); }
void task(const int64_t *waited, const int64_t *ran, const int64_t *idle, int count, int64_t took, int64_t when)
{
    member_times found[256];
    for (int me = 0; me < count; me++) found[me] = (member_times){{took, ran[me]}, {waited[me], idle[me]}};
    clock_on_the_wall = when;
    look_back(found, count, took);
}
void ignore(int yes) { crowd.ignored = yes; }
"""


@pytest.fixture
def crowd(tmp_path):
    """The rules alone, with a clock of the test's."""
    found = compiled(tmp_path, SOURCE)
    found.members.argtypes = ctypes.c_int, ctypes.c_int64
    found.task.argtypes = [ctypes.POINTER(ctypes.c_int64)] * 3 + [ctypes.c_int] + [ctypes.c_int64] * 2

    class Crowd:
        ignore = staticmethod(found.ignore)

        @staticmethod
        def members(wanted, when):
            """How many a team has that begins at so many ms."""
            return found.members(wanted, int(when * MS))

        @staticmethod
        def task(took, when, *members):
            """One of so many ms ends then. Of each member: for how many ms it ran, for how many it waited, and in how
            many of these it ran, looking out."""
            arrays = (
                (ctypes.c_int64 * len(members))(*(int(ms * MS) for ms in of)) for of in zip(*members, strict=True)
            )
            ran, waited, looked = arrays
            found.task(waited, ran, looked, len(members), int(took * MS), int(when * MS))

    return Crowd


ROBBED = (10, 5, 5), (5, 0, 0)  # of 10 ms: one ran, half of them waiting for the other, which ran for 5


def test_a_quiet_team_stays_full_even_where_its_work_is_uneven(crowd):
    assert crowd.members(2, 0) == 2
    crowd.task(10, 10, (10, 0, 0), (10, 6, 6))
    crowd.task(10, 20, (9.7, 0, 0), (9.8, 0, 0))
    assert crowd.members(2, 20) == 2


def test_who_is_robbed_is_left_out_for_a_while_and_then_tried_again(crowd):
    crowd.task(10, 10, *ROBBED)  # 10 ms of work in 10 ms, as one alone would have done
    assert [crowd.members(2, when) for when in (10, 19.9, 20.1)] == [1, 1, 2]
    assert crowd.members(1, 10) == 1


def test_a_while_grows_as_long_as_full_teams_are_robbed_and_shrinks_again(crowd):
    def while_from(when):
        crowd.task(10, when, *ROBBED)
        lasted = next(ms for ms in range(1, 3000) if crowd.members(2, when + ms) == 2)
        assert crowd.members(2, when + lasted + 1) == 2  # a full one has begun
        return lasted

    assert [while_from(1e5 * n) for n in range(9)] == [10, 20, 40, 80, 160, 320, 640, 1000, 1000]
    for _ in range(5):
        crowd.task(600, 1e6, (600, 0, 0), (600, 0, 0))  # 1200 > 1000, 600 > 500, > 250, > 125
    assert while_from(2e6) == 125


def test_a_while_is_longer_than_what_the_team_lost(crowd):
    for n, ms in enumerate([400, 800, 1600, 3200, 6400, 6400]):
        crowd.task(400, 1e5 * n, (400, 200, 200), (200, 0, 0))
        assert [crowd.members(2, 1e5 * n + after) for after in (ms - 1, ms + 1)] == [1, 2]


def test_a_short_interrupt_robs_nobody(crowd):
    crowd.task(0.4, 1, (0.4, 0.15, 0.15), (0.25, 0, 0))
    crowd.task(1000, 1001, (1000, 50, 50), (950, 0, 0))
    assert crowd.members(2, 1001) == 2


def test_a_team_that_does_more_than_the_others_would_is_kept(crowd):
    crowd.task(10, 10, (5, 0, 0), (5, 0, 0))  # each has half a processor; alone it would have that half
    assert crowd.members(2, 10) == 2


def test_members_that_only_give_way_to_each_other_are_too_many(crowd):
    crowd.task(
        10, 10, (5, 6, 1), (5, 6, 1)
    )  # on one processor: nobody is kept from work, but each waits for the other's
    assert crowd.members(2, 11) == 1


def test_of_sixteen_only_those_that_are_robbed_are_left_out(crowd):
    waits, robbed = (10, 5, 5), (5, 0, 0)
    crowd.task(10, 10, *[waits] * 3, robbed, *[waits] * 11, robbed)
    assert [crowd.members(wanted, 11) for wanted in (16, 9, 2, 1)] == [14, 7, 1, 1]
    crowd.task(10, 12, *[waits] * 12, robbed, robbed)  # a smaller team again
    assert crowd.members(16, 13) == 12


def test_what_a_small_team_found_takes_no_more_from_a_large_one(crowd):
    crowd.task(10, 10, *ROBBED)
    assert crowd.members(16, 11) == 15


def test_it_can_be_ignored(crowd):
    crowd.task(10, 10, *ROBBED)
    crowd.ignore(1)
    assert crowd.members(2, 11) == 2


COUNTED = """
import os, resource, sys
import numpy as np
import cylstm
from cylstm._core import team

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
team.full_teams(sys.argv[1] == "full")
cylstm.set_num_threads(2)
layer = cylstm.LSTM(8, 160, seed=1)
x = np.random.default_rng(1).standard_normal((6, 60, 8)).astype(np.float32)
y, _ = layer(x)
for _ in range(100):  # until all is known
    layer(x)
before = resource.getrusage(resource.RUSAGE_SELF)
for _ in range(200):
    assert np.array_equal(layer(x)[0], y)
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_nivcsw + after.ru_nvcsw - before.ru_nivcsw - before.ru_nvcsw)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a processor to be bound to")
def test_two_threads_on_one_processor_soon_become_one_and_give_the_same_bits():
    """On one processor, a member that waits gives way to the other at each of 60 steps; alone, it never does."""

    def switches(how):
        done = subprocess.run([sys.executable, "-c", COUNTED, how], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    full = switches("full")
    assert full > 200 * 40
    assert switches("as they are") < full / 3


IDLE = """
import time
import numpy as np
import cylstm

cylstm.set_num_threads(3)
layer = cylstm.LSTM(8, 160, seed=1)
x = np.random.default_rng(1).standard_normal((6, 60, 8)).astype(np.float32)
for _ in range(5):
    layer(x)
before = time.process_time()  # of all threads
time.sleep(1)
print(time.process_time() - before)
"""


def test_idle_threads_take_no_time():
    """Seconds of processors in a second without a call; a thread that looked out all the time would take one."""
    done = subprocess.run([sys.executable, "-c", IDLE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.2
