"""The guards of speed: that they can fail, and say which call."""

import pytest

from benchmarks import instructions, ratios

BUDGET = {"step": 1000, "training": 5000}


def test_the_same_counts_pass():
    assert instructions.compare(BUDGET, dict(BUDGET)) == ([], [])


def test_two_percent_more_pass_and_any_more_fails_by_name():
    assert instructions.compare(BUDGET, {"step": 1020, "training": 5000}) == ([], [])
    failures, better = instructions.compare(BUDGET, {"step": 1021, "training": 5000})
    assert failures == ["step: +2.1 %, at most +2 % allowed"] and better == []


def test_one_call_that_fell_does_not_hide_another_that_rose():
    failures, better = instructions.compare(BUDGET, {"step": 1100, "training": 2500})
    assert [failure.split(":")[0] for failure in failures] == ["step"]
    assert better == ["training: -50.0 %, lower the budget"]


@pytest.mark.parametrize("counts, name", [({"step": 1000}, "training"), ({**BUDGET, "new": 7}, "new")])
def test_a_call_on_one_side_only_fails(counts, name):
    failures, _ = instructions.compare(BUDGET, counts)
    assert len(failures) == 1 and failures[0].startswith(f"{name}: ")


def test_other_tools_than_the_budgets_are_named():
    assert instructions.differences({"python": "3.11.2", "numpy": "2"}, {"python": "3.12.0", "numpy": "2"}) == [
        "python: the budget was counted with 3.11.2, this is 3.12.0"
    ]


def test_a_slower_ratio_fails_by_name():
    least = {"step": 0.5, "training": 2.0}
    assert ratios.too_slow({"step": 0.5, "training": 2.1}, least) == []
    assert ratios.too_slow({"step": 0.5, "training": 1.9}, least) == [
        "training: 1.90 times as fast as NumPy, at least 2.0 expected"
    ]
