"""What stays of a run: its history as a table, in words and in a notebook; logs, and the file of the best model."""

import csv
import json
import math
import sys

import numpy as np
import pytest
from tasks import make, sequences

from cylstm import Checkpoint, History, Model, StopTraining, training

STANDING = [
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "updates",
    "seconds",
    "gradient_norm",
]


def some_history(validated=True, **options):
    history = History(**options)
    for n, loss in enumerate([2.0, 1.5, 1.25]):
        validation = {"loss": [2.5, 1.0, 1.75][n], "accuracy": 0.5} if validated else None
        metrics = {"f1": [0.25, 0.5, math.nan][n]}
        history.add({"loss": loss}, validation, metrics, learning_rate=0.1, updates=5 * n + 5, seconds=n + 0.5)
    return history


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validated", [False, True])
def test_a_history_is_a_table_whatever_ran(validated):
    history = some_history(validated)
    table = history.to_dict()
    assert list(table) == [*STANDING, "f1"] and {len(column) for column in table.values()} == {3}
    assert table["validation_loss"] == ([2.5, 1.0, 1.75] if validated else [None] * 3)
    assert table["train_accuracy"] == [None] * 3 and table["f1"] == [0.25, 0.5, None]
    again = History.from_dict(json.loads(json.dumps(table)))
    assert again.to_dict() == table and again.best_epoch == history.best_epoch == (1 if validated else 2)
    assert again.validation_loss == history.validation_loss


def test_what_begins_or_ends_in_the_middle_leaves_gaps():
    history = some_history(False)
    history.add({"loss": 1.0}, {"loss": 0.75}, {"f1": 0.5, "recall": 0.5}, learning_rate=0.1, updates=20, seconds=4.0)
    history.add({"loss": 0.5}, None, {}, learning_rate=0.1, updates=25, seconds=5.0)
    table = history.to_dict()
    assert table["validation_loss"] == [None, None, None, 0.75, None] and table["validation_accuracy"] == [None] * 5
    assert table["recall"] == [None, None, None, 0.5, None] and table["f1"] == [0.25, 0.5, None, 0.5, None]
    assert history.best_epoch == 3
    assert History.from_dict(table).to_dict() == table


def test_older_files_are_read():
    """In which what never ran was an empty list, and what began on resuming a shorter one."""
    old = {name: [0.5, 0.25] for name in STANDING} | {"validation_loss": [], "validation_accuracy": []}
    history = History.from_dict(old)
    assert history.validation_loss == [] and history.to_dict()["validation_loss"] == [None, None]
    history = History.from_dict(old | {"validation_loss": [3.0], "validation_accuracy": [None]})
    assert history.validation_loss == [None, 3.0] and history.best_epoch == 1


@pytest.mark.parametrize(("change", "message"), [
    (dict(f1="none"), r"history.f1: expected a list of numbers, got str 'none'"),
    (dict(f1=["a", "b"]), r"history.f1: expected a list of numbers"),
    (dict(f1=[0.5]), "history.f1: expected 2 entries, one per epoch, got 1"),
    (dict(seconds=[1.0]), "history.seconds: expected 2 entries"),
    (dict(validation_loss=[1.0] * 3), "history.validation_loss: expected 2 entries, one per epoch, got 3"),
    ({3: [0.5, 0.25]}, "history: expected names of columns, other than 'epoch', got int 3$"),
    (dict(epoch=[5, 6]), "history: expected names of columns, other than 'epoch', got str 'epoch'$"),
    (dict(f1=[10**400, 1]), "history.f1: expected a list of numbers, got list"),
    (None, "history: expected train_loss, train_accuracy, .*, got dict"),
])  # fmt: skip
def test_a_damaged_history_is_refused(change, message):
    lists = {name: [0.5, 0.25] for name in STANDING}
    lists = {"train_loss": []} if change is None else lists | change
    with pytest.raises(ValueError, match=message):
        History.from_dict(lists)


def test_it_is_printed_as_a_small_table():
    lines = repr(some_history()).splitlines()
    assert lines[0].split("  ")[0] == "epoch" and "train accuracy" not in lines[0]  # which there is none of
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert lines[2].split() == ["2", "1.5", "1", "0.5", "0.1", "10", "1.5", "0.5"]
    assert lines[3].split() == ["3", "1.25", "1.75", "0.5", "0.1", "15", "2.5"]  # f1 was no number
    assert "validation" not in repr(some_history(False)) and repr(History()) == "History of no epoch"


def test_a_long_one_is_shortened():
    history = History(*[[float(n) for n in range(100)] for _ in STANDING])
    first = [line.split()[0] for line in repr(history).splitlines()[1:]]
    assert first == [*map(str, range(1, 11)), "...", *map(str, range(91, 101))]


def test_a_notebook_shows_a_table_and_a_picture(monkeypatch):
    history = some_history()
    history.metrics["<lambda>"] = [1, 2, 3]
    page = history._repr_html_()
    assert page.startswith("<table>") and page.count("<tr>") == 4 and "<th>&lt;lambda&gt;</th>" in page
    assert page.count("<svg") == 1 and page.endswith("</svg>\n") and "<?xml" not in page
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.setitem(sys.modules, name, None)
    assert history._repr_html_() == page[: page.index("</table>") + len("</table>")]
    with pytest.raises(ImportError):
        history.plot("never.png")
    assert History()._repr_html_() == "<p>History of no epoch</p>"


def test_the_picture_has_a_panel_for_each_metric(tmp_path):
    history = some_history(watched=("f1", "max"))
    history.plot(tmp_path / "loss.svg")
    axes = history.figure().axes
    assert [panel.get_ylabel() for panel in axes] == ["loss, mean per token", "f1"]
    np.testing.assert_array_equal(axes[1].lines[0].get_ydata(), [0.25, 0.5, np.nan])
    np.testing.assert_array_equal(axes[0].lines[1].get_ydata(), [2.5, 1.0, 1.75])
    assert history.best_epoch == 1 and axes[0].texts[0].get_text() == "1"  # the loss where f1 was best


def test_a_dollar_in_a_name_is_one(tmp_path):
    history = some_history()
    history.metrics["$no_math{$"] = [1.0, 2.0, 3.0]
    history.plot(tmp_path / "loss.png")
    assert "<svg" in history._repr_html_() and history.figure().axes[2].get_ylabel() == "$no_math{$"


# --- callbacks --------------------------------------------------------------------------------------------------------


def fitted(model, rng, callbacks, **options):
    x, y = sequences(np.random.default_rng(5), [6] * 8)
    options = {"epochs": 3, "progress": False, "metrics": ["f1"]} | options
    return model.fit(x, y, callbacks=callbacks, **options)


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_logs_have_a_line_per_epoch_with_all_columns(tmp_path, rng):
    sizes = []

    def look(event):  # after the logs: each line is there when the epoch is over
        if event.kind == "epoch":
            sizes.append((len(read_csv(tmp_path / "l.csv")), len((tmp_path / "l.jsonl").read_text().splitlines())))

    (tmp_path / "l.csv").write_text("of another run\n")
    logs = [training.CSVLog(tmp_path / "l.csv"), training.JSONLines(tmp_path / "l.jsonl"), look]
    nan = [0.5, math.nan, math.inf]
    history = fitted(make(), rng, logs, metrics=["f1", ("own", lambda targets, outputs: nan.pop(0))])
    assert sizes == [(1, 1), (2, 2), (3, 3)]
    table = {"epoch": [1, 2, 3], **history.to_dict()}
    rows = read_csv(tmp_path / "l.csv")
    assert list(rows[0]) == list(table) and table["own"] == [0.5, None, None]
    for name, column in table.items():
        assert [None if row[name] == "" else float(row[name]) for row in rows] == column
    lines = [json.loads(line, parse_constant=None) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    assert {name: [line[name] for line in lines] for name in table} == table
    assert "NaN" not in (tmp_path / "l.jsonl").read_text()


@pytest.mark.parametrize("kind", ["CSVLog", "JSONLines"])
def test_a_resumed_run_goes_on_in_its_log(tmp_path, rng, kind):
    make_log = getattr(training, kind)
    fitted(make(), rng, [make_log(tmp_path / "whole")], epochs=5)

    def stop(event):
        if event.epoch == 2 and event.kind == "epoch":
            raise StopTraining

    log = tmp_path / "log"
    fitted(make(), rng, [stop, make_log(log)], epochs=5, checkpoint=tmp_path / "c")  # the third line was never written
    before = log.read_text()
    fitted(make(), rng, [make_log(log)], epochs=5, resume=tmp_path / "c")
    assert log.read_text().startswith(before)
    texts = [path.read_text().splitlines() for path in (tmp_path / "whole", log)]
    assert len(texts[0]) == len(texts[1]) == 5 + (kind == "CSVLog")
    read = (lambda path: read_csv(path)) if kind == "CSVLog" else (lambda path: [
        json.loads(line) for line in path.read_text().splitlines()])  # fmt: skip
    for whole, resumed in zip(read(tmp_path / "whole"), read(log), strict=True):
        assert {**whole, "seconds": 0} == {**resumed, "seconds": 0}


def test_another_fit_goes_on_in_the_log_of_one_object(tmp_path, rng):
    model, optimizer, log = make(), training.Adam(), training.CSVLog(tmp_path / "log")
    for _ in range(2):
        fitted(model, rng, [log], epochs=2, optimizer=optimizer)
    assert [row["epoch"] for row in read_csv(tmp_path / "log")] == ["1", "2", "3", "4"]
    with pytest.raises(ValueError, match=r"log: expected the columns epoch, .*f1, got .*gradient_norm$"):
        fitted(model, rng, [log], epochs=2, optimizer=optimizer, metrics=())
    fitted(make(), rng, [training.CSVLog(tmp_path / "log")], epochs=1)
    assert len(read_csv(tmp_path / "log")) == 1  # a new object begins anew


class Given:
    """A metric of given numbers."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def __call__(self, targets, outputs):
        return self.numbers.pop(0)


@pytest.mark.parametrize(("better", "kept"), [("max", [0, 2, 4]), ("min", [0, 5])])
def test_the_best_model_is_in_the_file(tmp_path, rng, better, kept):
    path, seen = tmp_path / "best", []

    def look(event):
        if event.kind == "epoch":
            same = np.array_equal(Model.load(path).parameters.flat, event.model.parameters.flat)
            seen.extend([event.epoch] * same)

    own = ("own", Given(0.5, 0.5, 0.75, math.inf if better == "max" else -math.inf, 1.5, 0.25))
    fitted(make(), rng, [training.BestOnly(path, monitor=("own", better)), look], epochs=6, metrics=[own])
    assert seen == kept


def test_it_goes_by_what_the_run_watches_and_past_a_break(tmp_path, rng):
    path, saved = tmp_path / "best", []

    class Counting(Model):
        def save(self, path):
            saved.append(1)
            super().save(path)

    make_counting = lambda: Counting(7, 12, 7, seed=1, dtype="float64")  # noqa: E731
    options = dict(checkpoint=tmp_path / "c", monitor=("own", "max"))
    fitted(make_counting(), rng, [training.BestOnly(path)], metrics=[("own", Given(1, 3, 2))], **options)
    assert len(saved) == 2
    fitted(make_counting(), rng, [training.BestOnly(path)], epochs=6, resume=tmp_path / "c", monitor=("own", "max"),
           metrics=[("own", Given(2.5, 3, 4))])  # fmt: skip
    assert len(saved) == 3
    fitted(make_counting(), rng, [training.BestOnly(path)], metrics=())  # by the loss, which falls
    assert len(saved) == 6


@pytest.mark.parametrize(("make_callback", "error", "message"), [
    (lambda: training.BestOnly("."), ValueError, r"path: expected a file, got the folder \.$"),
    (lambda: training.CSVLog("nowhere/l.csv"), ValueError, "path: expected a file in an existing folder, got nowhere"),
    (lambda: training.JSONLines(3), TypeError, "path: expected a path, got int 3"),
    (lambda: training.BestOnly("b", monitor="own"), ValueError, r"monitor: expected \('own', 'max'\) or"),
    (lambda: training.BestOnly("b", monitor=3), TypeError, "monitor: expected a name or"),
])  # fmt: skip
def test_bad_arguments_of_callbacks_are_named(make_callback, error, message):
    with pytest.raises(error, match=message):
        make_callback()


@pytest.mark.parametrize("make_callback", [training.BestOnly, training.CSVLog, training.JSONLines, Checkpoint])
@pytest.mark.parametrize("path", ["", "a\0b", "a\ud800b", "a" * 300, "a/" * 2500, "file/below", "absent/", "absent/a"])
def test_a_path_that_cannot_be_is_said_at_once(monkeypatch, tmp_path, make_callback, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^(path|checkpoint): expected a file in an existing folder, got .{1,300}$"):
        make_callback(path)
    assert make_callback("file") and make_callback(tmp_path / "new")


@pytest.mark.parametrize("folder", ["", "file", "file/below", "a\0b", "a\ud800b", "a" * 300])
def test_a_folder_that_cannot_be_is_said_at_once(monkeypatch, tmp_path, folder):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboardX", math)  # anything: it is not asked for more
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^folder: expected a folder, there or to be made, got .{1,300}$"):
        training.TensorBoard(folder)
    assert training.TensorBoard("not/there/yet") and training.TensorBoard(".")


def test_a_name_that_the_run_does_not_have_is_said_so(tmp_path, rng):
    with pytest.raises(ValueError, match="monitor: expected one of 'loss', 'f1', which this run has, got 'recall'"):
        fitted(make(), rng, [training.BestOnly(tmp_path / "best", monitor="recall")])
    assert not (tmp_path / "best").exists()


def test_tensorboard_needs_tensorboardx_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"^TensorBoard: expected tensorboardX \(pip install 'cylstm\[log\]'\)"):
        training.TensorBoard("runs")
