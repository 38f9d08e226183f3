"""Text in and text out: the corpus, streams for short texts, and how what a model writes comes to its end."""

import numpy as np
import pytest

from cylstm import data
from cylstm.text import corpus
from cylstm.text.sampling import continue_text
from cylstm.text.vocabulary import Vocabulary


def test_without_a_corpus_the_manual_is_read():
    ids, vocabulary = corpus.read_corpus(None, "word", max_size=100)
    assert len(vocabulary) == 100 and ids.dtype == np.uint8
    ids, vocabulary = corpus.read_corpus()
    assert vocabulary.decode(ids) == data.manual()


def test_streams_become_fewer_for_a_short_text():
    ids = np.arange(100, dtype=np.uint8)
    assert corpus.text_streams(ids, 7, 10)[0].shape == (7, 14)
    assert corpus.text_streams(ids, 20, 10)[0].shape == (9, 11)
    assert corpus.text_streams(ids, 20, 1000)[0].shape == (1, 99)


@pytest.mark.parametrize("level", ["char", "word", "byte"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one line, which\nis broken.\n\nAnd another\none.\n", "\n\n"),
        ("one line, which\r\nis broken.\r\n\r\nAnd another\r\none.\r\n", "\n\r\n"),
        ("Ann\nBob\nEve", ""),
        ("Ann\r\nBob\r\nEve\r\n\r", ""),
        ("a\n\n" + "b\n" * 150, ""),
        ("a\n\n" + "b\n" * 90, "\n\n"),
        ("\n\n", "\n\n"),
        ("ab", ""),
        ("the cat sat " * 50 + "\n", " "),
        ("the cat sat " * 50, " "),
        ("the cat sat\n" * 50, ""),
    ],
)
def test_paragraphs_begin_after_a_blank_line(text, expected, level):
    vocabulary = Vocabulary.from_text(text, level)
    assert corpus.paragraph_break(vocabulary.encode(text), vocabulary) == expected


def test_different_texts_have_different_fingerprints(monkeypatch):
    ids = np.random.default_rng(1).integers(0, 300, 1000).astype(np.uint16)
    monkeypatch.setattr(corpus, "BLOCK", 7)
    found = corpus.fingerprint(ids)
    monkeypatch.setattr(corpus, "BLOCK", 999)
    assert corpus.fingerprint(ids.copy()) == found
    ids[500] += 1
    assert corpus.fingerprint(ids) != found


class Parrot:
    """What `continue_text` needs of a model: repeats given ids."""

    def __init__(self, vocabulary, ids):
        self.vocabulary, self.ids = vocabulary, ids

    def generate(self, prompt, length, **options):
        self.prompt, self.stop = prompt, options["stop"]
        yield from self.ids[:length]


@pytest.mark.parametrize(
    ("stop", "expected"), [("", "aabbccaa"), ("bb", "aabb"), ("bcc", "aabbcc"), ("a", "a"), ("abba", "aabbccaa")]
)
def test_text_ends_with_its_stop(stop, expected):
    parrot = Parrot(Vocabulary("abc", end="<end>"), [0, 0, 1, 1, 2, 2, 0, 0])
    assert "".join(continue_text(parrot, length=8, stop=stop)) == expected
    assert list(parrot.prompt) == [0] and parrot.stop == (3,)
    words = Parrot(Vocabulary(["go", "\n", "now"], "word"), [0, 2, 0])
    assert "".join(continue_text(words, length=3, stop="on")) == "gon"
    assert list(words.prompt) == [1]
