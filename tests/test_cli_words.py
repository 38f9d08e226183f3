"""The command line and words: perplexity per word, bits per character, what is unknown or banned, bars and samples."""

import io
import math
import re
import sys

import numpy as np
import pytest
from commands import TEXT, TINY, refused

from cylstm import Model, data
from cylstm.cli import commands, main

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Models of each level that `cylstm train` wrote."""
    corpus = tmp_path_factory.mktemp("trained") / "corpus.txt"
    corpus.write_text(TEXT, encoding="utf-8")
    models = {level: str(corpus.with_name(f"{level}.safetensors")) for level in ("char", "word", "byte")}
    for level, path in models.items():
        few = ["--max-vocab", "15"] if level == "word" else []
        run = ["train", str(corpus), *TINY, "--quiet", "--lr", "0.02", "--level", level, *few, "--out", path]
        assert main(run) == 0
    return models


def test_perplexity_is_told_per_word_and_bits_per_character_of_what_is_known(trained, capsys):
    assert main(["evaluate", trained["word"], "corpus.txt", "--streams", "1"]) == 0
    found = re.fullmatch(
        r"loss ([\d.]+) per token, perplexity ([\d.]+) per word \(the loss of all tokens over ([\d,]+) words\), "
        r"accuracy ([\d.]+)%, ([\d.]+) bits per character \(([\d,]+) <unk> left out\), ([\d,]+) tokens\n",
        capsys.readouterr().out,
    )
    model = Model.load(trained["word"])
    vocabulary = model.vocabulary
    x, y = data.next_token(vocabulary.encode(TEXT))
    expected, known = model.evaluate(x, y), model.evaluate(x, y, ignore=vocabulary.unknown_id)
    words = len(re.findall(r"\w+|[^\w\s]", TEXT)) - 1
    characters = sum(len(vocabulary.tokens[i]) for i in y if i != vocabulary.unknown_id)
    loss, perplexity, told, accuracy, bits, unknown, tokens = (float(part.replace(",", "")) for part in found.groups())
    assert (told, unknown, tokens) == (words, np.sum(y == vocabulary.unknown_id), len(y)) and unknown > 50
    assert loss == pytest.approx(expected["loss"], abs=1e-4)
    assert perplexity == pytest.approx(math.exp(expected["loss"] * len(y) / words), rel=1e-3)
    assert accuracy == pytest.approx(100 * expected["accuracy"], abs=1e-2)
    assert bits == pytest.approx(known["loss"] * known["tokens"] / math.log(2) / characters, rel=1e-3)


def test_what_was_never_seen_can_be_left_out(trained, folder, capsys):
    (folder / "other.txt").write_text(TEXT.replace("cat", "çät").replace("dog", "dög€"), encoding="utf-8")
    message = refused(capsys, "evaluate", trained["char"], "other.txt")
    where = (folder / "other.txt").read_text(encoding="utf-8")
    at = min(where.index(character) for character in "çä€ö")
    assert re.search(rf"first at position {at}, line {where[:at].count(chr(10)) + 1}; --unknown skip leaves ", message)
    assert main(["evaluate", trained["char"], "other.txt", "--unknown", "skip"]) == 0
    out, err = capsys.readouterr()
    skipped = {character: where.count(character) for character in "ç€öä"}
    assert out.endswith(f" tokens ({sum(skipped.values())} unknown ones of the corpus skipped)\n")
    shown = dict(re.findall(r"'(.)' \((\d+)\)", err))
    assert err.startswith("cylstm: unknown, skipped: ") and {k: int(n) for k, n in shown.items()} == skipped
    kept = "".join(character for character in where if character not in skipped)
    (folder / "kept.txt").write_text(kept, encoding="utf-8")
    assert main(["evaluate", trained["char"], "kept.txt"]) == 0
    assert out.startswith(capsys.readouterr().out.rstrip("\n"))


@pytest.mark.parametrize("level", ["word", "byte"])
def test_where_nothing_is_unknown_nothing_is_left_out(trained, level, folder, capsys):
    (folder / "other.txt").write_text("the çät sat on € the mat, " * 9, encoding="utf-8")
    assert main(["evaluate", trained[level], "other.txt"]) == 0
    expected = capsys.readouterr()
    assert main(["evaluate", trained[level], "other.txt", "--unknown", "skip"]) == 0
    assert capsys.readouterr() == expected and ("<unk> left out" in expected.out) == (level == "word")


def test_bad_ways_to_treat_the_unknown_are_refused(trained, folder, capsys):
    (folder / "other.txt").write_text("çççç", encoding="utf-8")
    arguments = ["evaluate", trained["char"], "other.txt", "--unknown"]
    assert refused(capsys, *arguments, "skip") == "other.txt: expected tokens of the vocabulary, got none"
    assert refused(capsys, *arguments, "drop").startswith("argument --unknown: invalid choice: 'drop'")
    (folder / "other.txt").write_text("çççaç", encoding="utf-8")
    assert refused(capsys, *arguments, "skip").startswith("other.txt: expected at least 2 tokens (a step and its")


def test_what_is_banned_is_not_written(trained, capsys):
    generate = ["generate", trained["word"], "--length", "200", "--seed", "1", "--temperature", "1.5"]
    assert main(generate) == 0
    out = capsys.readouterr().out
    assert "<unk>" in out and "the" in out
    assert main([*generate, "--ban", "<unk>", "--ban", "the"]) == 0
    out = capsys.readouterr().out
    assert not re.search(r"<unk>|\bthe\b", out) and len(out) > 200
    message = refused(capsys, *generate, "--ban", "<unk>", "--ban", "zebra")
    assert message == "ban[1]: expected a token of the vocabulary (one word), got 'zebra'"
    assert main(["generate", trained["char"], "--length", "200", "--seed", "1", "--ban", "e", "--ban", " "]) == 0
    assert not set(capsys.readouterr().out) & {"e", " "}


class Screen(io.StringIO):
    """A terminal, of both streams, and what stands on it in the end."""

    def isatty(self):
        return True

    def lines(self):
        shown = []
        for line in self.getvalue().split("\n"):
            drawn = ""
            for part in line.split("\r"):
                drawn = part + drawn[len(part) :]
            shown.append(drawn.rstrip())
        return shown


def test_the_report_stands_on_lines_of_its_own_beside_the_bars(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    assert main(["train", "corpus.txt", *TINY, "--sample", "0"]) == 0
    first, *lines, last = screen.lines()
    assert re.fullmatch(r"2,020 tokens, \d+ different; [\d,]+ parameters; 3 streams of [\d,]+ steps", first)
    assert [line.split(":")[0] for line in lines if line[:1] != " "] == [
        "epoch 1/2", "epoch 2/2", "test", "wrote model.safetensors, model.json"]  # fmt: skip
    assert last == ""


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("the cat\nsat.\n\nThe dog\nran.\n\n", [], "\n\n"),
        ("the cat sat.\nThe dog ran.\n", [], ""),
        ("the cat\nsat.\n\nThe dog\nran.\n\n", ["--prompt", "the"], "the"),
    ],
)
def test_samples_begin_where_a_paragraph_does(text, options, expected, folder, monkeypatch, capsys):
    """What they go on from is shown where it was asked for."""
    seen = []
    monkeypatch.setattr(commands, "continue_text", lambda model, prompt, *_, **__: seen.append(prompt) or iter("xy"))
    (folder / "lines.txt").write_bytes((text * 9).encode())
    assert main(["train", "lines.txt", *TINY, *options, "--quiet"]) == 0
    assert seen == [expected] * 2
    assert f"\n    {'the' * bool(options)}xy\n" in capsys.readouterr().out
