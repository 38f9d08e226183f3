"""`cylstm classify`: from a table of sequences to a model, a picture and a table, to new labels; what it refuses."""

import json

import numpy as np
import pytest
from commands import printed, read, refused
from safetensors import safe_open
from safetensors.numpy import save_file

from cylstm import Model
from cylstm.cli import main, table_options
from cylstm.cli.classifier import Classifier
from cylstm.cli.classify import held_out

SMALL = ["--epochs", "12", "--hidden", "12"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def waves(count=60, low=8, high=14):
    """Of two speeds: labels, and arrays (T_n,)."""
    rng = np.random.default_rng(0)
    labels = ["slow", "quick"] * (count // 2)
    rows = [np.sin(rng.uniform(0, 6) + np.arange(rng.integers(low, high + 1)) * (0.3 if label == "slow" else 1.6))
            for label in labels]  # fmt: skip
    return labels, [np.round(row, 4) for row in rows]


def wide(name, labels, rows, header="kind", sign=","):
    width = max(map(len, rows))
    with open(name, "w", encoding="utf-8", newline="") as file:
        file.write(sign.join([header, *(f"t{n}" for n in range(width))]) + "\n")
        for label, row in zip(labels, rows, strict=True):
            file.write(sign.join([label, *map(str, row), *[""] * (width - len(row))]) + "\n")


def long(name, labels, rows, comma=False):
    """Two features, the second in another unit, and a column of text."""
    lines = ["who;kind;a;b;note"]
    for n, (label, row) in enumerate(zip(labels, rows, strict=True)):
        lines += [f"no {n};{label};{value};{500_000 + 1000 * value:.2f};x" for value in row]
    text = "\n".join(lines) + "\n"
    with open(name, "w", encoding="utf-8") as file:
        file.write(text.replace(".", ",") if comma else text)


def classify(capsys, *arguments):
    """What it prints; it must go well."""
    return printed(capsys, "classify", *arguments)


def test_a_row_for_each_sequence(folder, capsys):
    labels, rows = waves()
    wide("waves.csv", labels, rows)
    out = classify(capsys, "waves.csv", "--label", "kind", *SMALL, "--seed", "3")
    assert out.startswith(
        "waves.csv: 60 sequences of 8 to 14 steps\nlabels in 'kind': 'quick' 30, 'slow' 30\nlearnt from "
    )
    assert "test, with 12 more: " in out and "always 'slow' has 50.0%\nis / found" in out
    assert out.endswith("wrote waves.safetensors, waves-predictions.csv, waves-predictions.png\n")
    assert (folder / "waves-predictions.png").read_bytes().startswith(b"\x89PNG")
    found = read("waves-predictions.csv")
    lines = [int(row["line"]) - 2 for row in found]
    assert len(lines) == 12 and [row["label"] for row in found] == [labels[n] for n in lines]
    assert [labels[n] for n in lines].count("slow") == 6 and lines == sorted(lines)
    right = sum(row["label"] == row["found"] for row in found)
    assert right > 9 and f": {right / 12:.1%} right ({right} of 12)" in out
    # The same as the package finds with the model of the file.
    classifier = Classifier.load("waves.safetensors")
    expected = classifier.predict_proba([rows[n][:, None] for n in lines])
    assert np.allclose([[float(row["p(quick)"]), float(row["p(slow)"])] for row in found], expected, atol=1e-5)
    others = np.concatenate([row for n, row in enumerate(rows) if n not in lines])  # nothing is known of the test's
    assert classifier.scaler.center == pytest.approx(others.mean()) and classifier.scaler.scale == pytest.approx(
        others.std()
    )
    # The same seed, the same numbers.
    before = (folder / "waves-predictions.csv").read_bytes()
    classify(capsys, "waves.csv", "--label", "kind", *SMALL, "--seed", "3")
    assert (folder / "waves-predictions.csv").read_bytes() == before


@pytest.mark.parametrize("comma", [False, True])
def test_steps_one_below_the_other(comma, capsys):
    labels, rows = waves()
    long("steps.csv", labels, rows, comma)
    out = classify(capsys, "steps.csv", "--label", "kind", "--group", "who", *SMALL)
    assert "60 sequences of 8 to 14 steps of 2 features ('a', 'b')\n" in out and "left out: 'note'\n" in out
    found = read("steps-predictions.csv")
    assert list(found[0]) == ["line", "sequence", "label", "found", "p(quick)", "p(slow)"]
    places = [int(row["sequence"].split()[1]) for row in found]
    starts = 2 + np.cumsum([0, *map(len, rows)])
    assert [int(row["line"]) for row in found] == [starts[n] for n in places]
    assert sum(row["label"] == row["found"] for row in found) > 9  # `b` is in units of its own


def test_labels_of_new_sequences(folder, capsys):
    labels, rows = waves(80)
    wide("waves.csv", labels[:60], rows[:60])
    classify(capsys, "waves.csv", "--label", "kind", *SMALL)
    wide("new.csv", labels[60:], rows[60:])
    out = classify(capsys, "new.csv", "--model", "waves.safetensors")
    found = read("new-predictions.csv")
    right = sum(row["label"] == row["found"] for row in found)
    assert len(found) == 20 and f"{right / 20:.1%} right ({right} of 20); always 'slow' has 50.0%" in out
    assert out.endswith("wrote new-predictions.csv\n")
    # Without labels, and with longer sequences than before.
    (folder / "bare.csv").write_text("t0,t1,t2\n0.1,0.2,0.3\n0.5,,\n")
    classify(capsys, "bare.csv", "--model", "waves.safetensors")
    bare = read("bare-predictions.csv")
    assert list(bare[0]) == ["line", "found", "p(quick)", "p(slow)"]
    expected = Classifier.load("waves.safetensors").predict_proba([np.array([[0.1], [0.2], [0.3]]), np.array([[0.5]])])
    assert np.allclose([float(row["p(slow)"]) for row in bare], expected[:, 1], atol=1e-5)
    longer = [np.arange(20) / 10]
    wide("longer.csv", ["slow"], longer)
    classify(capsys, "longer.csv", "--model", "waves.safetensors")


def test_labels_of_new_steps(folder, capsys):
    labels, rows = waves()
    long("steps.csv", labels, rows)
    classify(capsys, "steps.csv", "--label", "kind", "--group", "who", *SMALL)
    (folder / "new.csv").write_text("b,who,a,c\n500100,x,0.1,7\n500200,x,0.2,7\n500100,y,0.1,7\n")
    classify(capsys, "new.csv", "--model", "steps.safetensors")
    found = read("new-predictions.csv")
    rows = [np.array([[0.1, 500100], [0.2, 500200]]), np.array([[0.1, 500100]])]
    expected = Classifier.load("steps.safetensors").predict_proba(rows)
    assert [row["sequence"] for row in found] == ["x", "y"] and [row["line"] for row in found] == ["2", "4"]
    assert np.allclose([float(row["p(slow)"]) for row in found], expected[:, 1], atol=1e-5)
    (folder / "new.csv").write_text("b,who,c\n500100,x,0.1\n")
    assert refused(capsys, "classify", "new.csv", "--model", "steps.safetensors") == (
        "--model: expected a column of new.csv ('b', 'who', 'c'), got 'a'"
    )


def test_labels_are_in_order_of_their_numbers(capsys):
    labels, rows = waves(24)
    wide("t.csv", [{"slow": "10", "quick": "9"}[label] for label in labels], rows)
    assert "labels in 'kind': '9' 12, '10' 12\n" in classify(capsys, "t.csv", "--label", "kind", "--epochs", "1")


def test_many_labels_are_counted_and_drawn(folder, capsys):
    rows = [np.full(3, n % 40, float) for n in range(120)]
    wide("t.csv", [f"label ${n % 40}_" for n in range(120)], rows)
    out = classify(capsys, "t.csv", "--label", "kind", "--epochs", "1", "--hidden", "4")
    assert ", ... (40)\n" in out and "is / found" not in out and "NO BETTER than that: " in out
    assert (folder / "t-predictions.png").exists()


def test_two_of_each_label_are_enough(capsys):
    wide("t.csv", ["a", "a", "b", "b"], [np.array([1.0, 2])] * 2 + [np.array([3.0, 2])] * 2)
    out = classify(capsys, "t.csv", "--label", "kind", "--epochs", "2")
    assert "learnt from 2 sequences; epoch 2 of 2 was the best\n" in out and "test, with 2 more: " in out


def test_a_share_of_each_label_is_held_out():
    places = np.repeat([0, 1, 2, 3], [100, 10, 2, 1])
    rest, kept = held_out(np.arange(113), places, 0.2, np.random.default_rng(0))
    assert np.bincount(places[kept]).tolist() == [20, 2, 1] and sorted([*rest, *kept]) == list(range(113))
    assert not np.array_equal(kept, held_out(np.arange(113), places, 0.2, np.random.default_rng(1))[1])


def test_names_in_any_letters_are_drawn(folder, capsys):
    labels, rows = waves(20)
    wide("t.csv", [{"slow": "$a_{", "quick": "語"}[label] for label in labels], rows)
    classify(capsys, "t.csv", "--label", "kind", "--epochs", "1")
    assert (folder / "t-predictions.png").exists()


def test_a_picture_needs_matplotlib_and_the_rest_does_not(folder, capsys, monkeypatch):
    monkeypatch.setattr(table_options.importlib.util, "find_spec", lambda name: None)
    wide("t.csv", *waves(20))
    out = classify(capsys, "t.csv", "--label", "kind", "--epochs", "1")
    assert out.endswith("wrote t.safetensors, t-predictions.csv\nno picture: pip install 'cylstm[plot]'\n")
    assert not (folder / "t-predictions.png").exists()


def test_steps_behind_those_of_the_model_are_numbered_on(folder, capsys):
    """What else stands there is no step: labels under another name, an age."""
    labels, rows = waves(20, 3, 3)
    wide("t.csv", labels, rows)
    classify(capsys, "t.csv", "--label", "kind", "--epochs", "1")
    for names, extra in (("t0,t1,t2,Kind", "Kind"), ("t0,t1,t2,age", "age"), ("t0,t1,t2,t4", "t4"),
                         ("t0,t1,t2,t3,t4,7", "7"), ("t0,t1,t2,t03", "t03")):  # fmt: skip
        (folder / "new.csv").write_text(f"{names}\n{','.join(map(str, range(names.count(',') + 1)))}\n")
        assert refused(capsys, "classify", "new.csv", "--model", "t.safetensors") == (
            "new.csv: expected no columns behind the model's steps ('t0', 't1', 't2') but further steps, numbered "
            f"alike, got '{extra}'; take it out of the table"
        )
    (folder / "new.csv").write_text("t0,t1,t2,t3,t4\n0.1,0.2,0.3,0.4,0.5\n")
    classify(capsys, "new.csv", "--model", "t.safetensors")
    expected = Classifier.load("t.safetensors").predict_proba([np.arange(1, 6)[:, None] / 10])
    assert float(read("new-predictions.csv")[0]["p(slow)"]) == pytest.approx(expected[0, 1], abs=1e-5)


def counting(columns, rows=30):
    """A table whose labels stand together, of noise and another column."""
    noise = np.random.default_rng(0).normal(0, 1, (rows, 2)).round(3)
    lines = [f"kind,{columns[0]},a,b"]
    lines += [f"{'x' if n < rows // 2 else 'y'},{value},{a},{b}"
              for n, (value, (a, b)) in enumerate(zip(columns[1], noise, strict=True))]  # fmt: skip
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "values",
    [range(7, 37), range(0, 300, 10), range(30, 0, -1), [n + n // 7 for n in range(30)],
     [1_700_000_000 + 60 * n for n in range(30)]],
    ids=["ids", "tens", "down", "ids with gaps", "times"],
)  # fmt: skip
def test_a_column_that_counts_the_rows_is_no_step(values, folder, capsys):
    (folder / "t.csv").write_text(counting(("a0", values)).replace("kind,a0,a,b", "kind,id,a,b"))
    message = "t.csv, column 'id': expected a step, got numbers that count the rows; --leave-out takes it for none"
    assert refused(capsys, "classify", "t.csv", "--label", "kind") == message
    # In any place, and not where the model is there already: two rows of steps may well rise together.
    table = [line.split(",") for line in (folder / "t.csv").read_text().splitlines()]
    (folder / "t.csv").write_text("".join(f"{kind},{a},{b},{number}\n" for kind, number, a, b in table))
    assert refused(capsys, "classify", "t.csv", "--label", "kind") == message
    out = classify(capsys, "t.csv", "--label", "kind", "--leave-out", "id", "--epochs", "1")
    assert "of 2 steps" in out
    (folder / "new.csv").write_text("a,b\n1,2\n2,3\n3,4\n")
    classify(capsys, "new.csv", "--model", "t.safetensors")


@pytest.mark.parametrize(
    "values",
    [range(30), [n // 3 for n in range(30)], [1e9 + n**1.5 for n in range(30)], [-n // 3 - n / 100 for n in range(30)]],
    ids=["index", "number of the sequence", "times", "down"],
)  # fmt: skip
def test_a_column_that_counts_the_rows_is_no_feature(values, folder, capsys):
    table = [line.split(",") for line in counting(("index", values)).splitlines()]
    text = "".join(f"{'who' if n == 0 else f's{(n - 1) // 3}'},{','.join(line)}\n" for n, line in enumerate(table))
    text = text.replace("s4,y", "s4,x")  # one label for all rows of a sequence
    (folder / "t.csv").write_text(text)
    assert refused(capsys, "classify", "t.csv", "--label", "kind", "--group", "who") == (
        "t.csv, column 'index': expected a feature, got numbers that count the rows; --leave-out takes it for none"
    )
    classify(capsys, "t.csv", "--label", "kind", "--group", "who", "--leave-out", "index", "--epochs", "1")
    (folder / "new.csv").write_text("who,a,b\n" + "".join(f"s{n // 2},{n},{n}\n" for n in range(8)))
    classify(capsys, "new.csv", "--model", "t.safetensors")


def test_what_rises_otherwise_is_learnt_from(folder, capsys):
    """Within each sequence; from row to row of a table that is sorted; as a number that sequences have in common."""
    noise = np.random.default_rng(0).normal(0, 1, 30)
    (folder / "t.csv").write_text(counting(("first", np.sort(noise))))
    classify(capsys, "t.csv", "--label", "kind", "--epochs", "1")
    lines = [f"s{n // 3},{'x' if n < 15 else 'y'},{n % 3},{n // 6},{noise[n]}" for n in range(30)]
    (folder / "t.csv").write_text("who,kind,step,age,a\n" + "\n".join(lines) + "\n")
    out = classify(capsys, "t.csv", "--label", "kind", "--group", "who", "--epochs", "1")
    assert "of 3 features ('step', 'age', 'a')" in out


# --- bad input --------------------------------------------------------------------------------------------------------

ROWS = "kind,t0,t1,t2\na,1,2,3\na,2,2,\nb,3,1,4\nb,1,1,1\n"
WIDE, LONG = ["--label", "kind"], ["--label", "kind", "--group", "who"]
STEPS = "who,kind,x\nu,a,1\nu,a,2\nv,a,3\nv,a,4\nw,b,5\nz,b,7\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (ROWS, [], "--label: expected a column of labels, or a --model that has learnt some, got neither"),
        (ROWS, ["--label", "sort"], "--label: expected a column of t.csv ('kind', 't0', 't1', 't2'), got 'sort'"),
        (ROWS, [*WIDE, "--leave-out", "kind"], "--label, --group, --leave-out: expected different columns"),
        (ROWS + "b,1,x,2\n", WIDE, "t.csv, line 6, column 't1': expected a number, got 'x'"),
        (ROWS + "b,1,,2\n", WIDE, "t.csv, line 6, column 't1': expected a number (only steps behind the "
         "end of a sequence may be empty), got an empty cell"),
        (ROWS + "b,,,\n", WIDE, "t.csv, line 6: expected at least one step, got a row without"),
        (ROWS + ",1,2,3\n", WIDE, "t.csv, line 6, column 'kind': expected a label, got an empty cell"),
        (ROWS + "NaN,1,2,3\n", WIDE, "t.csv, line 6, column 'kind': expected a label (if it is one, call it something "
         "else: so missing ones are written), got 'NaN'"),
        (STEPS + "NA,b,1\n", LONG, "t.csv, line 8, column 'who': expected the name of a sequence (if it is one, call "
         "it something else: so missing ones are written), got 'NA'"),
        ("kind,t0\n1,5\n2,4\n1.0,6\n2,6\n1,6\n1.0,9\n", WIDE, "t.csv, line 4, column 'kind': expected one way to "
         "write a number, '1' as in line 2, got '1.0'"),
        (ROWS + "b,1,2,3,4\n", WIDE, "t.csv, line 6: expected 4 cells divided by commas, as in line 1"),
        (ROWS + "c,1,2,3\n", WIDE, "t.csv, line 6: expected at least two sequences of each label, one to "
         "learn from and one to test with, got one of 'c'"),
        ("kind,t0\na,1\na,2\n", WIDE, "t.csv: expected at least two labels, got 'a' alone"),
        ("kind,who,t0\na,x,1\nb,y,2\n", WIDE, "t.csv: expected steps, numbers, in all columns but the "
         "label (--group for a row of each step), got 'who'; --leave-out takes it for none"),
        (",kind,t0\n5,a,1\n7,b,2\n", WIDE, "t.csv: expected steps, numbers, in all columns but the label "
         "(--group for a row of each step), got 'column 1'"),
        ("id,kind,t0\n1,a,5\n2,a,6\n3,b,5\n4,b,7\n", WIDE, "t.csv, column 'id': expected a step, got "
         "numbers that count the rows; --leave-out takes it for none"),
        ("kind\na\nb\n", WIDE, "t.csv: expected a column of numbers beside 'kind', got none"),
        ("1,2,3\n4,5,6\n", ["--label", "1"], "t.csv, line 1: expected the names of the columns"),
        (STEPS + "u,a,1\n", LONG, "t.csv, line 8, column 'who': expected the rows of a "
         "sequence one below the other, got 'u', which began in line 2"),
        (STEPS + "z,a,1\n", LONG, "t.csv, line 8, column 'kind': expected one label for "
         "all steps of a sequence, 'b' as before, got 'a'"),
        (STEPS + "z,b,\n", LONG, "t.csv, line 8, column 'x': expected a number, got an "
         "empty cell"),
        (STEPS + ",b,1\n", LONG, "t.csv, line 8, column 'who': expected the name of a "
         "sequence, got an empty cell"),
        (STEPS, [*LONG, "--leave-out", "x"], "t.csv: expected a column of numbers beside"),
        (ROWS, [*WIDE, "--test-fraction", "1"], "argument --test-fraction: expected a number in (0, 1), got"),
        (ROWS, [*WIDE, "--out", "t.csv"], "--out: expected files that are not read, got t.csv, "),
        (ROWS, ["--model", "m", "--label", "kind"], "--label: expected none beside --model, which has its own, got"),
        (ROWS, ["--model", "absent"], "absent: No such file or directory"),
        (ROWS, ["--model", "t.csv"], "t.csv: expected a cylstm classifier, got a file that is truncated or none"),
    ],
)  # fmt: skip
def test_bad_tables_and_options_are_refused(text, options, message, folder, capsys):
    (folder / "t.csv").write_text(text)
    assert refused(capsys, "classify", "t.csv", *options).startswith(message)


def change(path, name, tensors=(), **header):
    """A file with other things in its header, or other tensors."""
    with safe_open(path, framework="numpy") as file:
        found = json.loads(file.metadata()["cylstm"])
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    arrays.update(tensors)
    save_file(arrays, name, metadata={"cylstm": json.dumps({**found, **header})})


def test_damaged_files_are_refused(folder, capsys):
    (folder / "t.csv").write_text(ROWS)
    classify(capsys, "t.csv", "--label", "kind", "--epochs", "1")
    columns = {"label": "kind", "group": None, "features": ["t0", "t1"], "left_out": []}
    change("t.safetensors", "same.safetensors", columns=columns)
    assert Classifier.load("same.safetensors").columns.features == ("t0", "t1")
    for changes in (
        {"columns": {**columns, "group": "who"}},
        {"columns": {**columns, "label": 3}},
        {"columns": {**columns, "more": 3}},
        {"columns": {**columns, "features": []}},
        {"columns": {**columns, "features": ["t0", "t0"]}},
        {"columns": {**columns, "group": "t0", "features": ["t0"]}},
        {"columns": None},
        {"model": {}},
        {"tensors": {"scaler.scale": np.zeros(1)}},
        {"tensors": {"scaler.center": np.full(1, np.nan)}},
        {"tensors": {"scaler.center": np.zeros(2)}},
        {"tensors": {"model.head.weight": np.zeros((2, 3), np.float32)}},
    ):
        change("t.safetensors", "bad.safetensors", **changes)
        message = refused(capsys, "classify", "t.csv", "--model", "bad.safetensors")
        assert message.startswith("bad.safetensors: expected a classifier as it was saved, got one that is damaged (")
        (folder / "bad.safetensors").unlink()


def test_new_tables_that_the_model_cannot_read_are_refused(folder, capsys):
    (folder / "t.csv").write_text(ROWS)
    classify(capsys, "t.csv", "--label", "kind", "--epochs", "1")

    def message(text):
        (folder / "new.csv").write_text(text)
        before = main(["classify", "new.csv", "--model", "t.safetensors"])
        assert before == 2 and not (folder / "new-predictions.csv").exists()
        return capsys.readouterr().err.removeprefix("cylstm: error: ").rstrip()

    assert message("t1,t2\n1,2\n") == "new.csv: expected 't0' as the column of step 1, as the model had it, got 't1'"
    assert (
        message("kind,t0\nc,1\n") == "new.csv, line 2, column 'kind': expected a label of the model ('a', 'b'), got 'c'"
    )
    assert message("kind\na\n") == "new.csv: expected columns of steps ('t0', 't1', 't2'), got none"
    Model(1, 3, 2).save("other.safetensors")
    assert refused(capsys, "classify", "t.csv", "--model", "other.safetensors") == (
        "other.safetensors: expected a cylstm classifier, got a model"
    )
