"""The benchmarks' timer: turns in which the core is seen to be disturbed are taken again."""

import math

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


def test_the_probe_knows_its_best():
    probe = timer.Probe()
    assert 0 < probe.best < math.inf
    probe.best = 1e-12
    assert not probe.is_quiet()
    probe.best = 1e3
    assert probe.is_quiet() and probe.best < 1e3 * timer.DISTURBED
