"""`cylstm train --resume`: a checkpoint may come from a stranger."""

import os
from pathlib import Path

import pytest
from commands import TINY, refused

from cylstm.cli import main, options
from cylstm.training import checkpoint, read_checkpoint

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def note(monkeypatch, capsys):
    """What a checkpoint of the command line says of its options, to be changed at will; and its file."""
    assert main(["train", "corpus.txt", *TINY, "--quiet", "--checkpoint", "run.ckpt", "--out", "half.safetensors"]) == 0
    saved = read_checkpoint("run.ckpt")
    monkeypatch.setattr(options, "read_checkpoint", lambda path: saved)
    capsys.readouterr()
    return saved.note


@pytest.mark.parametrize("name", ["out", "history", "plot"])
def test_a_strangers_checkpoint_overwrites_nothing(capsys, note, name):
    Path("mine.png").write_text("mine")
    note["options"].update({"out": os.path.abspath("new.safetensors"), name: os.path.abspath("mine.png")})
    message = refused(capsys, "train", "--resume", "run.ckpt", "--epochs", "3")
    assert message.startswith("run.ckpt: expected to write a new file, got") and message.endswith(f"say --{name}")
    assert Path("mine.png").read_text() == "mine"


def test_a_history_beside_the_model_of_a_strangers_checkpoint_is_not_overwritten(capsys, note):
    Path("new.json").write_text("mine")
    note["options"].update(out=os.path.abspath("new.safetensors"), history=None)
    assert "new.json, which exists" in refused(capsys, "train", "--resume", "run.ckpt", "--epochs", "3")
    assert Path("new.json").read_text() == "mine"


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "zzz"}, {"schedule": ["cosine"]}, {"level": "zz"}, {"sample": -3}, {"quiet": "no"}, {"tbptt": 0},
        {"streams": {}}, {"out": 5, "plot": 7}, {"hidden": 10**9}, {"lr": "nan"}, {"corpus": 7},
        {"corpus": "/dev/zero"},
    ],
)  # fmt: skip
def test_options_of_a_strangers_checkpoint_are_checked_as_if_typed(capsys, note, changes):
    note["options"].update({"out": os.path.abspath("new.safetensors"), **changes})
    assert "expected a" in refused(capsys, "train", "--resume", "run.ckpt")


def test_unknown_options_of_a_strangers_checkpoint_are_left_alone(note):
    note["options"].update(
        command="evaluate", resume="x", checkpoint="y.ckpt", func=1, out=os.path.abspath("new.safetensors")
    )
    assert main(["train", "--resume", "run.ckpt", "--epochs", "3"]) == 0
    assert not os.path.exists("y.ckpt")


def test_a_checkpoint_is_opened_once(folder, monkeypatch):
    assert main(["train", "corpus.txt", *TINY, "--quiet", "--checkpoint", "run.ckpt", "--out", "half.safetensors"]) == 0
    opened, open_tensors = [], checkpoint.open_tensors
    monkeypatch.setattr(checkpoint, "open_tensors", lambda path, kind: opened.append(path) or open_tensors(path, kind))
    resumed = ["train", "--resume", "run.ckpt", "--out", "whole.safetensors", "--quiet"]
    assert main(resumed) == 0
    assert opened == ["run.ckpt"]
