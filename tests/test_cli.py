"""The command line: what it prints, how it ends, and what it says of bad input."""

import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from commands import TEXT, TINY, press_ctrl_c, refused, start

from cylstm import LSTMForecaster, data
from cylstm.cli import main
from cylstm.cli.classifier import Classifier
from cylstm.model import Model

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A model that `cylstm train` wrote."""
    corpus = tmp_path_factory.mktemp("trained") / "corpus.txt"
    corpus.write_text(TEXT, encoding="utf-8")
    model = str(corpus.with_name("model.safetensors"))
    assert main(["train", str(corpus), *TINY, "--quiet", "--lr", "0.02", "--epochs", "4", "--out", model]) == 0
    return model


# --- evaluate, generate, info -----------------------------------------------------------------------------------------


def test_evaluation_prints_loss_perplexity_and_accuracy(trained, capsys):
    assert main(["evaluate", trained, "corpus.txt", "--streams", "1"]) == 0
    means = r"loss ([\d.]+) per token, perplexity ([\d.]+), accuracy ([\d.]+)%, ([\d.]+) bits per character"
    found = re.fullmatch(means + ", 2,019 tokens\n", capsys.readouterr().out)
    model = Model.load(trained)
    x, y = data.next_token(model.vocabulary.encode(TEXT))
    expected = model.evaluate(x, y)
    assert float(found[1]) == pytest.approx(expected["loss"], abs=1e-4)
    assert float(found[2]) == pytest.approx(np.exp(expected["loss"]), rel=1e-2)
    assert float(found[3]) == pytest.approx(100 * expected["accuracy"], abs=1e-2)
    assert float(found[4]) == pytest.approx(expected["loss"] / np.log(2), rel=1e-3)  # a token is a character


def test_evaluation_shows_tokens_side_by_side(trained, capsys):
    assert main(["evaluate", trained, "corpus.txt", "--show", "6", "--part", "validation"]) == 0
    first, *rows = capsys.readouterr().out.splitlines()
    assert first.endswith(" 100 tokens") and len(rows) == 7
    model = Model.load(trained)
    x, y = data.next_token(data.split(model.vocabulary.encode(TEXT))[1][:7])
    assert rows == list(data.side_by_side(model.vocabulary, x, y, model.predict(x)))


def test_generation_goes_on_from_the_prompt(trained, capsys):
    arguments = [
        "generate",
        trained,
        "--prompt",
        "The ",
        "--length",
        "30",
        "--seed",
        "3",
        "--top-k",
        "9",
        "--top-p",
        "0.9",
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    model = Model.load(trained)
    ids = list(model.generate("The ", 30, temperature=0.8, top_k=9, top_p=0.9, seed=3))
    assert out == "The " + model.vocabulary.decode(ids) + "\n"
    assert main([*arguments, "--stop", out[10:13]]) == 0
    assert capsys.readouterr().out == "The " + out[4 : out.index(out[10:13], 4) + 3] + "\n"
    assert main(["generate", trained, "--length", "5", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == model.vocabulary.decode(list(model.generate("\n", 5, temperature=0))) + "\n"


def test_generation_prints_as_it_goes(trained):
    with start("generate", trained, "--length", 10**9, "--prompt", "The cat", "--seed", "1") as process:
        seen = b""
        while len(seen) < 300:
            seen += process.stdout.read(100)
        assert process.poll() is None  # a thousand million tokens to go
        assert seen.startswith(b"The cat")
        press_ctrl_c(process)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130 and err == b""


def test_every_token_is_flushed(trained, monkeypatch):
    class Terminal(io.StringIO):
        steps = ()

        def flush(self):
            self.steps = (*self.steps, self.getvalue())

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["generate", trained, "--length", "20", "--prompt", "The"]) == 0
    assert [len(step) for step in terminal.steps[:21]] == list(range(3, 24))


def test_generation_ends_quietly_when_its_reader_leaves(trained):
    with start("generate", trained, "--length", 10**9, "--seed", "1") as process:
        process.stdout.read(20)
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == b""


def test_info_says_what_is_installed_and_what_a_file_holds(trained, capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("cylstm", "instruction set", "BLAS", "NumPy"))
    assert main(["info", trained]) == 0
    out, model = capsys.readouterr().out, Model.load(trained)
    assert out.startswith(model.summary() + "\n\n")
    lines = out.removeprefix(model.summary() + "\n\n").splitlines()
    rows = dict(re.split(r" {2,}", line.strip(), maxsplit=1) for line in lines)
    assert rows["hidden_size"] == "9" and rows["num_layers"] == "2"
    assert rows["parameters"].startswith(f"{model.parameters.size:,}, ")
    assert rows["lstm.weight_hh_l1"] == "(36, 9)"
    assert rows["vocabulary"] == repr(model.vocabulary)
    assert rows["tokens"].startswith("' ' 't'")


def info(capsys, path):
    """The lines that `cylstm info` prints, by their names."""
    assert main(["info", str(path)]) == 0
    return dict(re.split(r" {2,}", line.strip(), maxsplit=1) for line in capsys.readouterr().out.splitlines())


def test_info_says_what_a_forecaster_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [f"2024-{1 + n // 28:02d}-{1 + n % 28:02d},{shop},{n % 7 + 1},{n % 2}" for shop in "xy" for n in range(28)]
    Path("t.csv").write_text("day,shop,sales,open\n" + "\n".join([*lines, "2024-01-29,x,,1", "2024-01-29,y,,0"]) + "\n")
    options = ["--group", "shop", "--target", "sales", "--future", "open", "--horizon", "1", "--no-backtest"]
    assert main(["forecast", "t.csv", *options, "--members", "1", "--epochs", "2", "--season", "7"]) == 0
    capsys.readouterr()
    rows = info(capsys, "t.safetensors")
    assert rows["file"] == f"t.safetensors, {Path('t.safetensors').stat().st_size:,} bytes"
    assert rows["kind"] == "a forecaster of 2 series"
    assert rows["'x'"] == rows["'y'"] == "up to 2024-01-28T00:00:00, a day apart"
    told = {"targets": "'sales'", "time": "'day'", "series by": "'shop'", "known ahead": "'open'"}
    assert told.items() <= rows.items()
    assert rows["covariates"] == "1 known ahead" and rows["horizon"] == "1 steps, direct"
    assert rows["season"] == "7 steps" and rows["models"] == "1, each one layer of 32 hidden units"
    assert rows["trained"].startswith("epochs=2, patience=20, ") and rows["quantiles"] == "0.05, 0.25, 0.5, 0.75, 0.95"
    model = LSTMForecaster.load("t.safetensors").models_[0]
    assert rows["parameters"] == f"{model.parameters.size:,} in all"
    # Those of Python's, of arrays, and of more series than are listed.
    LSTMForecaster(2, season=1, members=2, epochs=1, hidden_size=3, num_layers=2, log=True, quantiles=(0.5,)).fit(
        [np.exp(np.sin(np.arange(20.0) + n)) for n in range(14)]
    ).save("many.safetensors")
    rows = info(capsys, "many.safetensors")
    assert rows["11"] == "up to row 19" and rows["..."] == "and 2 more" and "12" not in rows
    assert rows["season"] == rows["covariates"] == "none" and rows["learnt"] == "logarithms (growth by shares)"
    assert rows["models"] == "2, each 2 layers of 3 hidden units" and "targets" not in rows


def test_info_says_what_a_classifier_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    steps = [f"{'ab'[n // 2 % 2]},s{n // 2},{n % 5},{n * n % 7},{n}" for n in range(24)]
    Path("t.csv").write_text("kind,who,u,v,n\n" + "\n".join(steps) + "\n")
    options = ["--hidden", "5", "--epochs", "3", "--seed", "4", "--leave-out", "n"]
    assert main(["classify", "t.csv", "--label", "kind", "--group", "who", *options]) == 0
    capsys.readouterr()
    rows, model = info(capsys, "t.safetensors"), Classifier.load("t.safetensors").model
    assert rows["file"] == f"t.safetensors, {Path('t.safetensors').stat().st_size:,} bytes"
    assert rows["kind"] == "a classifier of sequences, the rows of one 'who' each"
    assert rows["labels in 'kind'"] == "'a', 'b'" and rows["features"] == "2: 'u', 'v'" and rows["left out"] == "'n'"
    assert rows["model"] == "one layer of 5 hidden units in either direction"
    assert rows["parameters"] == f"{model.parameters.size:,}, {model.parameters.nbytes:,} bytes"
    history = model.trained.history
    best = history.best_epoch
    assert rows["trained"] == f"3 epochs on {model.trained.options['rows']} sequences"
    assert rows["best"] == f"epoch {best + 1}: validation loss {history.validation_loss[best]:.4g}"
    assert rows["options"].startswith("optimizer=AdamW(") and rows["options"].endswith("patience=20, seed=4")
    Path("t.csv").write_text("kind,t0,t1\na,1,2\na,3,1\nb,2,2\nb,1,1\n")
    assert main(["classify", "t.csv", "--label", "kind", "--epochs", "1"]) == 0
    capsys.readouterr()
    rows = info(capsys, "t.safetensors")
    assert rows["kind"] == "a classifier of sequences, a row each" and rows["steps"] == "2: 't0', 't1'"
    assert rows["trained"].startswith("1 epoch on ") and "left out" not in rows
    content = Path("t.safetensors").read_bytes()
    Path("t.safetensors").write_bytes(content.replace(b'\\"group\\"', b'\\"grasp\\"'))
    assert refused(capsys, "info", "t.safetensors").startswith(
        "t.safetensors: expected a classifier as it was saved, got one that is damaged ("
    )


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected text, got an empty file"),
        (b"a", "expected at least 40 tokens to train, validate and test, got 1"),
        (b"ab" * 19, "expected at least 40 tokens to train, validate and test, got 38"),
        ("caf\xe9".encode("latin-1") * 50, "expected UTF-8 text, got byte 0xe9 at offset 3"),
        (None, "No such file or directory"),
    ],
)
def test_a_bad_corpus_is_refused(content, message, folder, capsys):
    if content is not None:
        (folder / "bad.txt").write_bytes(content)
    assert refused(capsys, "train", "bad.txt", *TINY) == f"bad.txt: {message}"


def test_an_error_stays_on_one_line(capsys):
    assert refused(capsys, "train", "no such\nfile.txt") == "no such file.txt: No such file or directory"


def test_the_shortest_corpus_that_can_be_split_is_taken(folder):
    (folder / "short.txt").write_text("abcde" * 8)
    assert main(["train", "short.txt", *TINY, "--quiet"]) == 0


def test_a_corpus_with_unknown_characters_cannot_be_evaluated(trained, folder, capsys):
    (folder / "other.txt").write_text("The cät", encoding="utf-8")
    message = refused(capsys, "evaluate", trained, "other.txt")
    assert message.startswith(
        "other.txt: expected characters in the vocabulary, got 'ä' (U+00E4), first at position 5, line 1; --unk"
    )
    assert "--unknown skip" in message and "--min-count 2" in message
    (folder / "one.txt").write_text("T")
    assert refused(capsys, "evaluate", trained, "one.txt").startswith("one.txt: expected at least 2 tokens")
    (folder / "few.txt").write_text("The cat")
    assert refused(capsys, "evaluate", trained, "few.txt", "--part", "test").startswith("few.txt: expected at least 40")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hidden", "0"], "argument --hidden: expected an integer in 1..65536, got '0' (see cylstm train --help)"),
        (["--hidden", "65537"], "argument --hidden: expected an integer in 1..65536, got '65537'"),
        (["--layers", "two"], "argument --layers: expected an integer >= 1, got 'two' (see cylstm train --help)"),
        (["--dropout", "1"], "argument --dropout: expected a number in [0, 1), got 1 (see cylstm train --help)"),
        (["--lr", "nan"], "argument --lr: expected a number in (0, inf), got nan (see cylstm train --help)"),
        (["--level", "line"], "argument --level: invalid choice: 'line'"),
        (["--hiden", "3"], "unrecognized arguments: --hiden 3"),
        (
            ["--out", "absent/m.safetensors"],
            "--out: expected a file in an existing folder that can be",
        ),
        (["--out", "."], "--out: expected a file, got the folder '.'"),
        (["--level", "byte", "--max-vocab", "20"], "--max-vocab, --min-count: expected neither with --level byte"),
        (["--level", "byte", "--min-count", "2"], "--max-vocab, --min-count: expected neither with --level byte"),
        (["--layers", "1", "--dropout", "0.5"], "--dropout: expected at least 2 --layers"),
        (["--min-count", "999999"], "min_count: expected at most "),
        (["--checkpoint", "absent/run.ckpt"], "--checkpoint: expected a file in an existing folder"),
        (
            ["--history", "model.safetensors"],
            "CORPUS, --out, --plot, --history, --checkpoint: expected different files",
        ),
        (
            ["--out", "corpus.txt"],
            "CORPUS, --out, --plot, --history, --checkpoint: expected different files, got corpus",
        ),
        (["--history", "../corpus/corpus.txt"], "--history: expected a file in an existing folder"),
        (["--history", "./corpus.txt"], "CORPUS, --out, --plot, --history, --checkpoint: expected different files"),
        (["--plot", "loss.bmp"], "--plot: expected a file ending in .png, .svg, .pdf, got loss.bmp"),
        (["--resume", "absent.ckpt"], "absent.ckpt: No such file or directory"),
        (["--resume", "corpus.txt"], "corpus.txt: expected a cylstm checkpoint, got"),
        (["--prompt", "€"], "--prompt: expected characters in the vocabulary, got '€' (U+20AC), first at position 0"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(options, message, capsys):
    assert refused(capsys, "train", "corpus.txt", *TINY, *options).startswith(message)


def test_a_checkpoint_is_no_model_and_a_model_no_checkpoint(trained, capsys):
    assert main(["train", "corpus.txt", *TINY, "--quiet", "--checkpoint", "run.ckpt"]) == 0
    capsys.readouterr()
    assert refused(capsys, "generate", "run.ckpt") == "run.ckpt: expected a cylstm model, got a checkpoint"
    assert refused(capsys, "train", "--resume", trained) == f"{trained}: expected a cylstm checkpoint, got a model"


@pytest.mark.parametrize("command", ["evaluate", "generate", "info"])
def test_a_bad_model_file_is_refused(command, trained, folder, capsys):
    whole = Path(trained).read_bytes()
    tensors = safetensors.numpy.load(whole)
    header = json.dumps({"kind": "model", "format": 99, "cylstm": "9.0"})
    files = {
        "truncated": (whole[:-40], "expected a cylstm model, got a file that is truncated or none at all"),
        "headless": (whole[:5], "expected a cylstm model, got a file that is truncated or none at all"),
        "empty": (b"", "expected a cylstm model, got a file that is truncated or none at all"),
        "foreign": (safetensors.numpy.save(tensors), "expected a cylstm model, got safetensors without its header"),
        "newer": (safetensors.numpy.save(tensors, metadata={"cylstm": header}), "expected format 1 or older, got 99"),
    }
    corpus = ["corpus.txt"] if command == "evaluate" else []
    for name, (content, message) in files.items():
        (folder / name).write_bytes(content)
        assert refused(capsys, command, name, *corpus).startswith(f"{name}: {message}"), name
    assert refused(capsys, command, "absent", *corpus) == "absent: No such file or directory"


def test_a_model_without_text_neither_writes_nor_reads(capsys):
    Model(5, 4, 5, seed=1).save("ids.safetensors")
    message = "ids.safetensors: expected a model with a vocabulary, trained on text, got one without"
    assert refused(capsys, "generate", "ids.safetensors") == message
    assert refused(capsys, "evaluate", "ids.safetensors", "corpus.txt") == message


def test_bytes_that_are_no_text_can_be_banned(folder, capsys):
    """As a shell gives them: $'\\xc3'."""
    model = Model(256, 4, 256, vocabulary=data.Vocabulary(level="byte"), seed=1)
    model.save("bytes.safetensors")
    bans = [os.fsdecode(bytes([n])) for n in range(256) if n not in (0, *b"abc")]
    options = [part for token in bans for part in ("--ban", token)]
    assert main(["generate", "bytes.safetensors", "--prompt", "a", "--length", "60", *options]) == 0
    assert set(capsys.readouterr().out.strip()) <= set("abc\0")
    assert refused(capsys, "generate", "bytes.safetensors", "--ban", os.fsdecode(b"\xc3\xa9")) == (
        "ban[0]: expected a token of the vocabulary (one byte), got 'é'")  # fmt: skip
    for two in (b"\xc3\xff", b"a\xff"):
        assert refused(capsys, "generate", "bytes.safetensors", "--ban", os.fsdecode(two)).endswith(f"got {two}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--prompt", "The €ät"],
            "prompt: expected characters in the vocabulary, got '€' (U+20AC), 'ä' (U+00E4), fir",
        ),
        (["--length", "-1"], "argument --length: expected an integer >= 0, got '-1'"),
        (["--temperature", "-0.5"], "argument --temperature: expected a number in [0, inf), got -0.5"),
        (["--top-p", "0"], "argument --top-p: expected a number in (0, 1], got 0"),
        (["--top-k", "0"], "argument --top-k: expected an integer >= 1, got '0'"),
    ],
)
def test_bad_requests_to_write_are_refused(options, message, trained, capsys):
    assert refused(capsys, "generate", trained, *options).startswith(message)


def test_a_command_is_needed(capsys):
    assert refused(capsys).startswith(
        "the following arguments are required: forecast | classify | train | evaluate | generate | report | convert"
    )
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("cylstm ")
