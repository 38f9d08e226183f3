"""`cylstm train`: what it writes, what it prints as it goes, how it ends and goes on."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from commands import TEXT, TINY, press_ctrl_c, refused, start

from cylstm import Adam, data, training
from cylstm.cli import main
from cylstm.model import Model
from cylstm.text.vocabulary import Vocabulary

pytestmark = pytest.mark.usefixtures("folder")


def test_training_writes_model_picture_and_history(capsys):
    assert main(["train", "corpus.txt", *TINY, "--out", "m.safetensors", "--plot", "loss.png", "--prompt", "The "]) == 0
    out, err = capsys.readouterr()
    assert sorted(os.listdir()) == ["corpus.txt", "loss.png", "m.json", "m.safetensors"]
    assert Path("loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    history = json.loads(Path("m.json").read_text())
    assert len(history["train_loss"]) == len(history["validation_loss"]) == 2
    assert history["train_loss"][1] < history["train_loss"][0]
    model = Model.load("m.safetensors")
    assert model.vocabulary == Vocabulary.from_text(TEXT) and (model.hidden_size, model.num_layers) == (9, 2)
    assert re.findall(r"^epoch ./.", out, re.MULTILINE) == ["epoch 1/2", "epoch 2/2"]
    assert len(re.findall(r"^    The ", out, re.MULTILINE)) == 2  # the samples
    held_out = re.search(r"^test: (loss .*, 100 tokens)$", out, re.M)
    assert main(["evaluate", "m.safetensors", "corpus.txt", "--part", "test"]) == 0
    assert capsys.readouterr().out.strip() == held_out[1]
    assert err == "", "a file would keep every state of a bar"


def test_training_is_reproducible_and_what_fit_does_on_its_own():
    for name in ("one", "two"):
        assert main(["train", "corpus.txt", *TINY, "--quiet", "--seed", "5", "--out", f"{name}.safetensors"]) == 0
    assert Path("one.safetensors").read_bytes() == Path("two.safetensors").read_bytes()

    ids, vocabulary = data.encode_file("corpus.txt")
    parts = [data.streams(part, count) for part, count in zip(data.split(ids), (3, 3, 3), strict=True)]
    model = Model(len(vocabulary), 9, len(vocabulary), num_layers=2, embedding_size=5, seed=5)
    history = model.fit(*parts[0], validation=parts[1], epochs=2, tbptt=8, optimizer=Adam(4e-3), seed=5, progress=False)
    assert json.loads(Path("one.json").read_text())["validation_loss"] == history.validation_loss
    saved = Model.load("one.safetensors").parameters
    for name, array in model.parameters.items():
        np.testing.assert_array_equal(saved[name], array)


@pytest.mark.parametrize("level", ["word", "byte"])
def test_words_and_bytes(level, capsys):
    most = ["--max-vocab", "20"] if level == "word" else []
    assert main(["train", "corpus.txt", *TINY, "--quiet", "--level", level, *most]) == 0
    model = Model.load("model.safetensors")
    assert model.vocabulary.level == level
    assert len(model.vocabulary) == {"word": 20, "byte": 256}[level]
    assert model.embedding_size == 5
    assert main(["generate", "model.safetensors", "--prompt", "cat zebra", "--length", "4"]) == 0
    out, err = capsys.readouterr()
    assert "cat zebra" in out
    assert ("prompt: read as <unk>: 'zebra'" in err) == (level == "word")


def test_clipping_and_patience_reach_the_training(monkeypatch):
    seen, original = [], Model.fit
    monkeypatch.setattr(Model, "fit", lambda *args, **options: seen.append(options) or original(*args, **options))
    assert main(["train", "corpus.txt", *TINY, "--quiet", "--clip", "0.5", "--patience", "7"]) == 0
    assert main(["train", "corpus.txt", *TINY, "--quiet", "--clip", "0"]) == 0
    assert [(options["clip_norm"], options["patience"]) for options in seen] == [(0.5, 7), (None, None)]


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "plateau"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_and_schedule_lowers_the_loss(optimizer, schedule):
    options = ["--optimizer", optimizer, "--schedule", schedule, "--epochs", "3", "--patience", "3", "--clip", "1"]
    assert main(["train", "corpus.txt", *TINY, *options, "--quiet"]) == 0
    history = json.loads(Path("model.json").read_text())
    assert history["train_loss"][2] < history["train_loss"][0]
    rates = history["learning_rate"]
    assert (rates[-1] < rates[0]) == (schedule in ("step", "cosine"))


def test_a_checkpoint_that_was_asked_for_is_kept_and_trains_on_to_the_same_bits(capsys, monkeypatch):
    run = ["train", "corpus.txt", *TINY, "--quiet", "--dropout", "0.3"]
    assert main([*run, "--epochs", "3", "--out", "whole.safetensors"]) == 0
    assert main([*run, "--checkpoint", "run.ckpt", "--out", "half.safetensors"]) == 0
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")
    assert main(["train", "--resume", "../run.ckpt", "--epochs", "3", "--out", "../resumed.safetensors"]) == 0
    monkeypatch.chdir("..")
    assert Model.load("whole.safetensors").dropout == 0.3
    assert Path("whole.safetensors").read_bytes() == Path("resumed.safetensors").read_bytes()
    assert "run.ckpt" in os.listdir() and "whole.ckpt" not in os.listdir()
    capsys.readouterr()
    resume = ["train", "--resume", "run.ckpt", "--out", "more.safetensors"]
    assert "lr=Constant(rate=0.5)" in refused(capsys, *resume, "--lr", "0.5")
    assert refused(capsys, *resume, "--level", "byte") == "--level: expected char as in run.ckpt, got byte"
    assert "--schedule: expected constant as in run.ckpt" in refused(capsys, *resume, "--schedule", "cosine")
    assert "hidden_size=9" in refused(capsys, *resume, "--hidden", "11")
    with open("corpus.txt", "a") as file:
        file.write("the cat")
    assert refused(capsys, *resume).endswith("expected the text of run.ckpt, got another")


def test_ctrl_c_saves_and_says_how_to_go_on_to_the_same_bits():
    run = ["train", "corpus.txt", *TINY, "--quiet", "--sample", "0"]
    with start(*run, "--epochs", 10**6, "--out", "broken.safetensors") as process:
        while not process.stdout.readline().startswith(b"epoch 3/"):
            assert process.poll() is None
        press_ctrl_c(process)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.decode() == "cylstm: interrupted; go on with: cylstm train --resume broken.ckpt\n"
    assert sorted(os.listdir()) == ["broken.ckpt", "corpus.txt"]
    go_on = err.decode().split("go on with: cylstm ")[1].split()
    epochs = str(3 + out.count(b"epoch ") + 2)
    assert main([*go_on, "--epochs", epochs]) == 0
    assert main([*run, "--epochs", epochs, "--out", "whole.safetensors"]) == 0
    assert Path("whole.safetensors").read_bytes() == Path("broken.safetensors").read_bytes()
    whole, broken = (json.loads(Path(f"{name}.json").read_text()) for name in ("whole", "broken"))
    assert whole["validation_loss"] == broken["validation_loss"]
    assert "broken.ckpt" not in os.listdir(), "a checkpoint that nobody asked for is kept"


def test_ctrl_c_before_there_is_a_checkpoint_says_that_there_is_none(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "fit", interrupted)
    assert main(["train", "corpus.txt", *TINY, "--quiet", "--out", "none.safetensors"]) == 130
    said = "cylstm: interrupted before there was a checkpoint; no none.safetensors is written\n"
    assert capsys.readouterr().err == said and os.listdir() == ["corpus.txt"]


def test_a_new_run_leaves_an_interrupted_ones_checkpoint_alone(capsys):
    run = ["train", "corpus.txt", *TINY, "--quiet", "--sample", "0"]
    Path("model.ckpt").write_bytes(b"of another run")
    message = refused(capsys, *run)
    assert message.startswith(
        "model.ckpt: expected no checkpoint of a run that was interrupted, got one: go on with it"
    )
    assert "(cylstm train --resume model.ckpt)" in message
    assert Path("model.ckpt").read_bytes() == b"of another run"
    assert main([*run, "--out", "other.safetensors"]) == 0
    assert main([*run, "--checkpoint", "model.ckpt"]) == 0
    assert training.read_checkpoint("model.ckpt").note is not None
    assert main(["train", "--resume", "model.ckpt", "--out", "model.safetensors", "--quiet", "--sample", "0"]) == 0
    assert "model.ckpt" in os.listdir(), "a checkpoint that was asked for, if by its usual name, is gone"


def test_a_loss_that_is_no_number_ends_training_and_keeps_the_last_checkpoint(capsys, monkeypatch):
    calls = []
    original = training.run.learn

    def sick(*arguments, **options):
        result = original(*arguments, **options)
        calls.append(1)
        sums = result.heads[""]._replace(total=float("nan"))
        return result._replace(heads={"": sums}) if len(calls) > 100 else result

    monkeypatch.setattr(training.run, "learn", sick)
    assert main(["train", "corpus.txt", *TINY, "--quiet", "--sample", "0"]) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith(
        "cylstm: error: loss: expected a finite number, got nan at update 101 (epoch 2"
    )
    assert sorted(os.listdir()) == ["corpus.txt", "model.ckpt"]


@pytest.mark.parametrize("name", ["out", "history", "plot", "checkpoint"])
def test_an_empty_name_is_no_file(capsys, name):
    assert f"--{name}: expected a file" in refused(capsys, "train", "corpus.txt", *TINY, f"--{name}", "")


def test_training_goes_on_when_nobody_reads_its_report():
    with start("train", "corpus.txt", *TINY, "--quiet", "--epochs", 3) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
    assert Model.load("model.safetensors").hidden_size == 9
