"""The examples: each job runs with cylstm on made-up data, and its lines are counted as the page has them."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import made_up
import numpy as np
import pytest

from examples import loading
from examples.count import FOLDER, JOBS, LIBRARIES, own_lines, script
from examples.gallery import EXAMPLES, PICTURES
from examples.run import ONE_THREAD, figures, table

PAGE = Path(__file__).parent.parent / "docs" / "examples.md"


@pytest.fixture
def printed(monkeypatch, capsys, tmp_path):
    """What a job prints, on made-up data."""

    def after_running(job):
        made_up.run(job, monkeypatch, tmp_path)
        return capsys.readouterr().out

    return after_running


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
    x, y = made_up.sound()
    before = np.sum(np.convolve(y - x, [1, -0.85]) ** 2) / np.sum(np.convolve(y, [1, -0.85]) ** 2)
    assert float(figures(printed("distortion"))["error to signal"]) < before / 2


def test_an_amplifier_is_played_through(printed):
    out = printed("stream")
    found = figures(out)
    assert set(found) == {"error to signal", "microseconds a sample"} and float(found["error to signal"]) < 0.05
    assert "the same bits, by samples and by chunks: True\n" in out


def test_digits_are_read_in_a_strip(printed):
    found = {name: float(figure) for name, figure in figures(printed("ocr")).items()}
    assert set(found) == {"character error rate", "strips without an error"}
    assert found["character error rate"] < 0.05 and found["strips without an error"] > 0.8


def test_a_model_that_leaves_says_the_same(printed):
    off = dict(re.findall(r"(\w+) is off by at most (\S+) sunspots", printed("export")))
    here = {"ONNX": find_spec("onnxruntime"), "C": shutil.which("cc")}
    assert list(off) == [name for name in here if here[name]]
    assert all(0 <= float(most) < 1e-3 for most in off.values())


def test_the_book_goes_on(printed):
    out = printed("language").split("drawn: ")[0]
    assert float(figures(out)["bits per character"]) < 3
    assert len(out.split("\n", 1)[1]) == len("In the ") + 300 + 1


def test_nothing_is_drawn_where_pictures_go_nowhere(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PICTURES", "")
    loading.draw(None, "nothing")
    assert not list(tmp_path.iterdir()) and ONE_THREAD["PICTURES"] == ""
    monkeypatch.delenv("PICTURES")
    loading.draw(lambda figure: figure.subplots(), "something")
    assert Path("pictures/something.png").exists()
    assert capsys.readouterr().out == f"drawn: {Path('pictures', 'something.png')}\n"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_read_in_a_minute(name):
    lines = (FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60 and lines[0].startswith('"""') and lines[-1] == f'loading.draw(picture, "{name}")'


def test_the_gallery_has_them_all():
    page = PAGE.parent / "gallery.md"
    if not page.exists():
        pytest.skip("only the tests and benchmarks are here")
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"^!\[.{30,}\]\(pictures/(\w+)\.png\)$", text, re.MULTILINE)
    assert shown == list(EXAMPLES)
    assert all(f"(../examples/{name}.py)" in text or f" ../examples/{name}.py\n" in text for name in EXAMPLES)
    sizes = {path.stem: path.stat().st_size for path in PICTURES.iterdir()}
    assert set(sizes) == set(EXAMPLES) and max(sizes.values()) < 60_000 and sum(sizes.values()) < 400_000


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


def picture(figure):
    figure.subplots().plot(y)


loading.draw(picture, "counted")
'''


def test_what_counts(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(COUNTED)
    assert own_lines(path) == 4
    path.write_text(COUNTED + "y = 1; z = 2\n")
    with pytest.raises(ValueError, match=r"job\.py:27: expected one statement in 100 characters, got 'y = 1; z = 2'"):
        own_lines(path)
    path.write_text(COUNTED + f"y = {'1' * 97}\n")
    with pytest.raises(ValueError, match=r"job\.py:27"):
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
