"""Tokens that never come: `generate(ban=...)`, and what is drawn in their place."""

import numpy as np
import pytest

from cylstm import Model, Vocabulary
from cylstm.text.sampling import Sampler, continue_text

LOGITS = np.log([0.4, 0.05, 0.25, 0.2, 0.1])


@pytest.fixture
def words():
    """A model that writes a word after the other, <unk> before all."""
    vocabulary = Vocabulary.from_text("to be or not to be that is the question to", "word", min_count=1, end="<end>")
    size = len(vocabulary)
    model = Model(size, 8, size, vocabulary=vocabulary, seed=2)
    for values in model.parameters.values():
        values *= 2
    model.parameters["head.bias"][vocabulary.unknown_id] = 1.5
    return model


def test_what_is_banned_has_no_part_in_what_is_drawn_from():
    """The others keep their shares of each other; k and p are of them."""
    third = np.array([0, 0.05, 0.25, 0, 0.1])
    before = LOGITS.copy()
    np.testing.assert_allclose(Sampler(ban=[0, 3]).probabilities(LOGITS), third / third.sum(), rtol=1e-12)
    np.testing.assert_array_equal(LOGITS, before)
    hot = third**2
    np.testing.assert_allclose(Sampler(ban=[3, 0], temperature=0.5).probabilities(LOGITS), hot / hot.sum(), rtol=1e-12)
    two = [0, 0, 5 / 7, 0, 2 / 7]
    np.testing.assert_allclose(Sampler(ban=[0, 3], top_k=2).probabilities(LOGITS), two, rtol=1e-12)
    np.testing.assert_allclose(Sampler(ban=[0, 3], top_p=0.8).probabilities(LOGITS), two, rtol=1e-12)
    np.testing.assert_array_equal(Sampler(ban=[0, 3], top_p=0.6).probabilities(LOGITS), [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(Sampler(ban=[0, 3], top_k=5).probabilities(LOGITS) > 0, third > 0)
    np.testing.assert_array_equal(Sampler(ban=[0], temperature=0).probabilities(LOGITS), [0, 0, 1, 0, 0])
    assert Sampler(ban=[0, 2], temperature=0)(LOGITS) == 3


def test_a_draw_takes_one_number_whatever_is_banned():
    """A token that hardly ever comes may be banned, and the same seed draws the same."""
    logits = np.append(LOGITS, -40.0)
    free, without = Sampler(seed=3), Sampler(seed=3, ban=[5])
    assert [free(logits) for _ in range(500)] == [without(logits) for _ in range(500)]
    hard = Sampler(seed=3, ban=[0, 1])
    drawn = [hard(logits) for _ in range(500)]
    assert set(drawn) == {2, 3, 4}
    assert free.rng.random() == hard.rng.random()


@pytest.mark.parametrize("options", [{}, dict(temperature=0), dict(top_k=3), dict(top_p=0.7), dict(top_k=4, top_p=0.9)])
def test_what_is_banned_never_comes(words, options):
    unknown = words.vocabulary.unknown_id
    ids = list(words.generate("to ", 300, seed=1, **options))
    assert unknown in ids
    left = list(words.generate("to ", 300, seed=1, ban="<unk>", **options))
    assert unknown not in left and len(left) == 300
    assert list(words.generate("to ", 300, seed=1, ban=unknown, **options)) == left
    assert list(words.generate("to ", 300, seed=1, ban=np.array([unknown] * 2), **options)) == left
    few = set(words.generate("to ", 300, seed=1, ban=["<unk>", words.vocabulary.index["be"], "<end>", " "], **options))
    assert not few & {words.vocabulary.index[token] for token in ("<unk>", "be", "<end>", " ")}
    text = "".join(continue_text(words, "to ", 100, ban=["<unk>", " ", "<end>"], seed=1, **options))
    assert text and " " not in text and "<unk>" not in text


def test_only_one_token_may_be_left(words):
    rest = [i for i in range(len(words.vocabulary)) if i != 4]
    assert list(words.generate("to ", 5, ban=rest, seed=1)) == [4] * 5


def test_bytes_are_banned_by_their_text_or_as_they_are():
    vocabulary = Vocabulary(level="byte")
    model = Model(256, 4, 256, vocabulary=vocabulary, seed=1)
    expected = list(model.generate("a", 400, seed=1, ban=[97, 0xC3]))
    assert not {97, 0xC3} & set(expected)
    assert list(model.generate("a", 400, seed=1, ban=["a", b"\xc3"])) == expected
    with pytest.raises(ValueError, match=r"^ban: expected a token of the vocabulary \(one byte\), got 'é'$"):
        model.generate("a", 4, ban="é")


@pytest.mark.parametrize(
    ("ban", "error", "message"),
    [
        ("quest", ValueError, r"^ban: expected a token of the vocabulary \(one word\), got 'quest'$"),
        (["be", "to be"], ValueError, r"^ban\[1\]: expected a token of the vocabulary \(one word\), got 'to be'$"),
        ([0, 99], ValueError, r"^ban\[1\]: expected ids in 0..\d+, got 99$"),
        (-1, ValueError, r"^ban: expected ids in 0..\d+, got -1$"),
        (1.5, TypeError, r"^ban: expected integer ids, got float64 \(\)$"),
        ([True], TypeError, r"^ban\[0\]: expected integer ids, got bool \(\)$"),
        (None, TypeError, "^ban: expected integer ids"),
        ([[1, 2]], TypeError, r"^ban\[0\]: expected an id or a token, got list \[1, 2\]$"),
        (range(11), ValueError, "^ban: expected at least one token left to come, got all 11$"),
    ],
)
def test_a_wrong_ban_is_refused_by_name(words, ban, error, message):
    assert len(words.vocabulary) == 11
    with pytest.raises(error, match=message):
        words.generate("to", 3, ban=ban)


def test_tokens_need_a_vocabulary_and_numbers():
    model = Model(5, 3, 5, seed=1)
    with pytest.raises(TypeError, match=r"^ban: expected ids for a model without a vocabulary, got str '<unk>'$"):
        model.generate([1], 3, ban="<unk>")
    with pytest.raises(ValueError, match="logits: expected finite numbers, got -inf"):
        Sampler(ban=[0]).probabilities([0.5, -np.inf, -np.inf])
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="logits: expected finite numbers"):
            Sampler(ban=[0]).probabilities([wrong, 0.5, 0.25])


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("the cat sat\non the mat\n" * 9, "\n"),
        (
            2 * "".join(map(chr, range(48, 88))) + "the cat sat on the mat " * 9 + "\n",
            " ",
        ),  # one line: it is hardly met
        ("123 4567\n" * 9 + "1234567 " * 9, "\n"),  # a line in which every character is rarer than in others
        ("the cat sat on the mat " * 9, " "),
        ("abab\n", "\n"),
    ],
)
def test_without_a_prompt_a_text_begins_where_words_do(text, before, monkeypatch):
    vocabulary = Vocabulary.from_text(text)
    model = Model(len(vocabulary), 4, len(vocabulary), vocabulary=vocabulary, seed=0)
    seen = []
    monkeypatch.setattr(Model, "generate", lambda self, ids, *_, **__: seen.append(list(ids)) or iter(()))
    assert "".join(continue_text(model, "", 5)) == ""
    assert seen == [[vocabulary.index[before]]]
