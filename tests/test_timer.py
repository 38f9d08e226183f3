"""The benchmarks' timer: turns in which the core is seen to be disturbed are taken again."""

import io
import math
import os
import re

import pytest

from benchmarks import timer


@pytest.fixture
def quiet(monkeypatch):
    """What the probe says, one time after the other; at the end, that it is quiet."""
    said = []
    monkeypatch.setattr(timer.Probe, "__init__", lambda self: None)
    monkeypatch.setattr(timer.Probe, "is_quiet", lambda self: said.pop(0) if said else True)
    monkeypatch.setattr(timer, "REST", 0)
    return said


def timed(rounds, **options):
    """What is found of one contender, and how often it ran: two calls before the turns, of one call each."""
    calls = []
    found = timer.interleaved({"one": lambda: calls.append(0)}, seconds=0, rounds=rounds, **options)
    return found["one"], len(calls) - 2


def test_quiet_turns_count_at_once(quiet):
    found, turns = timed(3)
    assert turns == 3 and found["disturbed"] == 0 and found["calls"] == 3


def test_a_turn_counts_if_the_core_is_quiet_before_and_after_it(quiet):
    quiet += [False, True, False, True, True]  # the second probe of a turn is not asked where the first has seen enough
    found, turns = timed(1)
    assert turns == 3 and found["disturbed"] == 0 and math.isfinite(found["median"])


def test_patience_ends(quiet):
    quiet += [False] * 100
    found, turns = timed(2, patience=5)
    assert turns == 10 and found["disturbed"] == 2


def test_the_probe_compares_with_its_best(monkeypatch):
    """By a clock of its own: so many seconds pass between two looks at it, in turn while the sum runs and while not."""
    passed, now = [1.0] * 300, [0.0]

    def clock():
        now[0] += passed.pop(0)
        return now[0]

    monkeypatch.setattr(timer.time, "perf_counter", clock)
    probe = timer.Probe()
    assert probe.best == 1
    for seconds, quiet, best in ((1.14, True, 1), (1.2, False, 1), (0.5, True, 0.5), (1.0, False, 0.5)):
        passed += [9, seconds] * 3
        assert probe.is_quiet() == quiet and probe.best == pytest.approx(best)
    passed += [9, 0.5, 9, 3.0, 9, 3.0]  # the median of three counts
    assert not probe.is_quiet()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="asks which processors there are")
def test_one_processor_of_each_core_comes_first(monkeypatch):
    """Of four cores with two threads each, numbered one core after the other."""
    monkeypatch.setattr(timer.os, "sched_getaffinity", lambda _: set(range(2, 8)))

    def siblings(path):
        first = int(re.findall(r"cpu(\d+)/", path)[0]) // 2 * 2
        return io.StringIO(f"{first}-{first + 1}\n")

    monkeypatch.setattr("builtins.open", siblings)
    assert timer.processors() == [2, 4, 6, 3, 5, 7]
