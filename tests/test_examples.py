"""The examples: each job runs with cylstm on made-up data, and its lines are counted as the page has them."""

import re
import runpy
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from examples import loading
from examples.count import JOBS, LIBRARIES, own_lines, script
from examples.run import figures, table

PAGE = Path(__file__).parent.parent / "docs" / "examples.md"


def flow():
    """A day's course that rises, with noise, a gap and an outlier."""
    rng, hours = np.random.default_rng(0), np.arange(600)
    flow = 100 + hours / 20 + 3 * np.sin(hours * 2 * np.pi / 24) + rng.normal(0, 0.3, len(hours))
    flow[200:230], flow[310] = np.nan, 20
    return flow


def rows_of_two_classes(names, length):
    """Rows of a class rise or fall."""
    rng = np.random.default_rng(1)
    x = [rng.normal(0, 0.2, (length(n), 2)) + np.linspace(0, (-1) ** n, length(n))[:, None] for n in range(60)]
    y = np.array([names[n % 2] for n in range(60)])
    return [(x[:40], y[:40]), (x[40:], y[40:])]


def sound():
    """A wave whose peaks are cut, in a length that its 25 streams of chunks share."""
    x = np.sin(np.arange(7560) / 9).astype("float32") * np.linspace(0.2, 1, 7560, dtype="float32")
    return x, np.tanh(3 * x)


def two_series():
    """One that rises faster and faster, with a season and a gap; and one that goes to and fro."""
    rng, months = np.random.default_rng(2), np.arange(90)
    rises = months**2 / 30 + 20 * np.sin(months * 2 * np.pi / 6) + rng.normal(0, 0.5, len(months))
    rises[20:23] = np.nan
    return {"rises": (rises, 6), "to and fro": (5 * (-1.0) ** np.arange(50) + rng.normal(0, 0.5, 50), 1)}


MADE_UP = {
    "water_flow": flow,
    "short_series": two_series,
    "waves": partial(loading.waves, 12),
    "corridors": partial(loading.corridors, 200, 16, 60),
    "japanese_vowels": lambda: rows_of_two_classes(["a", "b"], lambda n: 4 + n % 5),
    "digits": lambda: rows_of_two_classes([3, 7], lambda n: 6),
    "distortion": sound,
    "book": lambda: "the cat sat on the mat. the dog sat on the log. In the end, both of them ate.\n" * 400,
}


@pytest.fixture
def printed(monkeypatch, capsys):
    """What a job prints, on made-up data."""

    def run(job):
        for name, made_up in MADE_UP.items():
            monkeypatch.setattr(loading, name, made_up)
        runpy.run_module(f"examples.{job}", run_name="__main__")
        return capsys.readouterr().out

    return run


def test_the_forecaster_is_nearer_than_yesterday(printed):
    found = {name: float(figure) for name, figure in figures(printed("forecast")).items()}
    assert set(found) == {"mean absolute error", "as yesterday", "coverage"}
    assert found["mean absolute error"] < found["as yesterday"] / 2 and 0.3 < found["coverage"] < 1


def test_a_season_is_nearer_than_the_one_before(printed):
    out = printed("series")
    found = {name: float(figure) for name, figure in figures(out).items()}
    assert set(found) == {"error over that of a season ago", "coverage"}
    assert found["error over that of a season ago"] < 0.3 and 0.5 < found["coverage"] < 1
    rows = [row.strip("| ").split(" | ") for row in out.splitlines() if row.startswith("|")]
    assert [row[:2] for row in rows] == [["rises", "90"], ["to and fro", "50"]]
    ratios, inside = ([float(row[n]) for row in rows] for n in (2, 3))
    assert found["error over that of a season ago"] == pytest.approx(np.sqrt(np.prod(ratios)), abs=0.01)
    assert found["coverage"] == pytest.approx(np.mean(inside), abs=0.006)


def test_many_models_are_nearer_than_the_last_value(printed):
    found = {name: float(figure) for name, figure in figures(printed("many_models")).items()}
    assert set(found) == {"median error", "as the last value"}
    assert found["median error"] < 0.55 * found["as the last value"]


def test_the_policy_remembers(printed):
    found = {name: float(figure) for name, figure in figures(printed("policy")).items()}
    assert set(found) == {"right before", "right after"}
    assert found["right before"] < 0.7 and found["right after"] > 0.95


def test_corridors_are_as_they_are_said_to_be():
    rollouts, test = loading.corridors(3, 4, 30)
    assert len(rollouts) == 3 and [len(part) for part in test] == [30] * 4
    signs = []
    for x, begins, ends, right in [*rollouts, test]:
        assert x.shape == (*begins.shape, 2) and begins.shape[1] == 80 and begins[:, 0].all()
        np.testing.assert_array_equal(begins[:, 1:], ends[:, :-1])
        for row in range(len(x)):
            steps = np.split(np.arange(80), np.flatnonzero(begins[row])[1:])
            assert all(5 <= len(part) <= 15 for part in steps[:-1]) and len(steps[-1]) <= 15
            for part in steps:
                assert len(set(right[row, part])) == 1
                seen = np.zeros((len(part), 2))
                seen[0, 0], seen[-1, 1] = 1 if right[row, part[0]] else -1, ends[row, part[-1]]
                np.testing.assert_allclose(x[row, part], seen, atol=0.6)
                signs.append(right[row, part[0]])
    assert 0.4 < np.mean(signs) < 0.6


def test_the_scientist_tells_classes_apart(printed):
    found = figures(printed("vowels"))
    assert set(found) == {"JapaneseVowels", "digits"} and min(map(float, found.values())) > 0.9


def test_the_amplifier_is_learnt(printed):
    x, y = sound()
    before = np.sum(np.convolve(y - x, [1, -0.85]) ** 2) / np.sum(np.convolve(y, [1, -0.85]) ** 2)
    assert float(figures(printed("distortion"))["error to signal"]) < before / 2


def test_the_book_goes_on(printed):
    out = printed("language")
    assert float(figures(out)["bits per character"]) < 3
    assert len(out.split("\n", 1)[1]) == len("In the ") + 300 + 1


@pytest.mark.parametrize("job", JOBS)
def test_no_job_takes_more_lines_than_with_keras(job):
    ours, theirs = (own_lines(script(job, library)) for library in LIBRARIES)
    assert 0 < ours < theirs


def test_the_page_has_the_lines_that_are_counted():
    if not PAGE.exists():
        pytest.skip("only the tests and benchmarks are here")
    shown = re.findall(r"^\| (cylstm|Keras) \| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    counted = [(library, str(own_lines(script(job, library)))) for job in JOBS for library in LIBRARIES]
    assert shown == counted, "python -m examples.run writes them anew"


COUNTED = '''"""A docstring."""

import numpy as np
from examples import loading

x = loading.book()


def longest(x):
    """The longest."""
    # a comment
    return max(
        x, key=len)


y = longest(x)  # counts once

print(y,
      x)
'''


def test_what_counts(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(COUNTED)
    assert own_lines(path) == 4
    path.write_text(COUNTED + "y = 1; z = 2\n")
    with pytest.raises(ValueError, match=r"job\.py:20: expected one statement in 100 characters, got 'y = 1; z = 2'"):
        own_lines(path)
    path.write_text(COUNTED + f"y = {'1' * 97}\n")
    with pytest.raises(ValueError, match=r"job\.py:20"):
        own_lines(path)


def test_a_table_has_the_figures_as_they_were_printed():
    printed = {"cylstm": "bits per character 1.829\nIn the 2.5\n", "Keras": "bits per character 1.945\n"}
    rows = table("language", printed, {"cylstm": [2.0, 1.0, 9.0], "Keras": [4.0]}).splitlines()
    assert rows[0] == "|  | lines | bits per character | seconds |"  # a number in the text is none
    assert [row.split(" | ")[2:] for row in rows[2:]] == [["1.829", "2 |"], ["1.945", "4 |"]]


def test_the_page_on_scikit_learn_has_the_lines_of_its_scripts():
    path = PAGE.parent / "scikit_learn.md"
    if not path.exists():
        pytest.skip("only the tests and benchmarks are here")
    page = path.read_text(encoding="utf-8")
    for library in ("cylstm", "Keras", "PyTorch"):
        name = {"PyTorch": "torch"}.get(library, library.lower())
        lines = own_lines(Path(loading.__file__).parent / "sequences" / f"with_{name}.py")
        assert f"\n| {library} | {lines} | " in page
