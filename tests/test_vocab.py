"""Text to ids and back, and what is said about text that a vocabulary does not hold."""

import json
import pickle
from collections import Counter

import numpy as np
import pytest

from cylstm.text import vocabulary as module
from cylstm.text.vocabulary import LEVELS, LONGEST_WORD, Vocabulary, smallest_dtype

TEXT = "Die Größe — «naïve café», 東京タワー 🗼:\n\tx_1 = {'a': 0.5};    y  =  x_1\r\n\nThe end; the END.\n"


def in_blocks(text, size):
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("level", LEVELS)
def test_a_text_comes_back_from_its_ids(level):
    vocabulary = Vocabulary.from_text(TEXT, level)
    ids = vocabulary.encode(TEXT)
    assert vocabulary.decode(ids) == TEXT
    assert vocabulary.decode(ids[5:9].reshape(2, 2)) == "".join(vocabulary.decode_stream(ids[5:9]))
    assert ids.dtype == np.uint8
    assert [vocabulary.index[token] for token in vocabulary.tokens] == list(range(len(vocabulary)))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_the_cut_into_blocks_changes_nothing(level, size):
    blocks = in_blocks(TEXT, size)
    vocabulary = Vocabulary.from_stream(iter(blocks), level)
    assert vocabulary == Vocabulary.from_text(TEXT, level)
    pieces = list(vocabulary.encode_stream(blocks))
    np.testing.assert_array_equal(np.concatenate(pieces), vocabulary.encode(TEXT))
    assert all(piece.dtype == vocabulary.dtype for piece in pieces)


def test_a_text_longer_than_a_block_is_encoded_whole(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 13)
    vocabulary = Vocabulary.from_text(TEXT * 3, "word")
    assert vocabulary.decode(vocabulary.encode(TEXT * 3)) == TEXT * 3


def test_characters_are_ordered_by_frequency_then_code_point():
    vocabulary = Vocabulary.from_text("bbaaczz_")
    assert vocabulary.tokens == ("a", "b", "z", "_", "c")
    np.testing.assert_array_equal(vocabulary.encode("cab_z"), [4, 0, 1, 3, 2])
    assert vocabulary.unknown is None and vocabulary.unknown_id is None


def test_words_are_words_spaces_and_single_other_characters():
    vocabulary = Vocabulary.from_text("Don't  go, x_1!\n\n", "word")
    ids = vocabulary.encode("Don't  go, x_1!\n\n")
    tokens = [vocabulary.tokens[i] for i in ids]
    assert tokens == ["Don", "'", "t", "  ", "go", ",", " ", "x_1", "!", "\n", "\n"]
    assert vocabulary.tokens[0] == "\n"


SCRIPTS = {
    "Hindi": "हिन्दी में किताबें",
    "Tamil": "தமிழ் மொழி",
    "Bengali": "বাংলা ভাষা",
    "decomposed French": "cafe\u0301 a\u0300 Noe\u0308l",
    "Thai": "ภาษาไทย ที่นี่",
    "Arabic": "كِتَابٌ عَرَبِيّ",
    "Hebrew": "שָׁלוֹם עוֹלָם",
    "Persian": "می\u200cخواهم خانه\u200cها",
    "Burmese": "မြန်မာ ဘာသာ",
    "Khmer": "ភាសា ខ្មែរ",
    "Sinhala": "ශ්\u200dරී ලංකා",
    "Brahmi": "\U00011013\U0001103a \U00011014",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_words_keep_their_marks(script):
    text = SCRIPTS[script]
    vocabulary = Vocabulary.from_text(text, "word")
    for block in (1, 2, 3, 1000):
        ids = np.concatenate(list(vocabulary.encode_stream(in_blocks(text, block))))
        assert vocabulary.decode(ids) == text
        assert [vocabulary.tokens[i] for i in ids if vocabulary.tokens[i] != " "] == text.split()
        assert Vocabulary.from_stream(in_blocks(text, block), "word") == vocabulary
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary


def test_marks_that_stand_alone_or_behind_other_characters():
    for text in (
        "\u0301",
        " \u0301a",
        "\u2764\ufe0f!",
        "1\ufe0f\u20e3",
        "\n\u0301\n",
        "a" + "\u0301" * 200,
        "-" + "\u0301" * 99,
    ):
        vocabulary = Vocabulary.from_text(text, "word")
        assert vocabulary.decode(vocabulary.encode(text)) == text
        assert max(map(len, vocabulary.tokens)) <= LONGEST_WORD


def test_a_vocabulary_of_an_older_file_cuts_words_as_it_did():
    """What a model was trained on stays what it is given."""
    text = SCRIPTS["Hindi"]
    pieces = ["ह", "ि", "न", "्", "द", "ी", " ", "म", "े", "ं"]
    fields = {"level": "word", "unknown": "<unk>", "end": None, "tokens": pieces}
    old = Vocabulary.from_json(json.dumps(fields))
    assert [old.tokens[i] for i in old.encode(text[:10])] == list(text[:10])
    assert "marks" not in json.loads(old.to_json()) and Vocabulary.from_json(old.to_json()) == old
    new = Vocabulary(pieces, "word", unknown="<unk>")
    assert old != new and [new.tokens[i] for i in new.encode(text[:10])] == ["<unk>", " ", "<unk>"]
    assert Vocabulary.from_json(new.to_json()) == new


def test_words_without_any_space_are_cut_so_that_memory_stays_bounded():
    text = "x" * 1000
    vocabulary = Vocabulary.from_stream(in_blocks(text, 7), "word")
    assert max(map(len, vocabulary.tokens)) == LONGEST_WORD
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_the_rare_words_become_the_unknown_token():
    text = "one two two three three three"
    vocabulary = Vocabulary.from_text(text, "word", max_size=4)
    assert vocabulary.tokens == (" ", "three", "two", "<unk>")
    np.testing.assert_array_equal(vocabulary.encode("two one four"), [2, 0, 3, 0, 3])
    assert vocabulary.decode(vocabulary.encode("two one")) == "two <unk>"
    assert vocabulary.missing("four two one four") == ["four", "one"]
    assert Vocabulary.from_text(text, "word", min_count=3).tokens == (" ", "three", "<unk>")


def test_rare_characters_get_an_unknown_token_only_where_some_were_left_out():
    assert Vocabulary.from_text("aabbcd", max_size=3).tokens == ("a", "b", "<unk>")
    assert Vocabulary.from_text("aabbcd", max_size=4, end="<end>").tokens == ("a", "b", "<unk>", "<end>")
    assert Vocabulary.from_text("aabbc", max_size=5).tokens == ("a", "b", "c")
    assert Vocabulary.from_text("aabbc", unknown="?").tokens == ("a", "b", "c", "?")


def test_more_distinct_words_than_can_be_counted_lose_the_rarest(monkeypatch):
    monkeypatch.setattr(module, "MOST_DIFFERENT", 10)
    often = "kept often "
    blocks = [f"{often} word{i} " for i in range(200)]
    vocabulary = Vocabulary.from_stream(blocks, "word")
    assert {"kept", "often", " "} <= set(vocabulary.tokens)
    assert len(vocabulary) <= 12


def test_the_end_token_closes_a_sequence_and_is_silent():
    vocabulary = Vocabulary("ab", end="<end>")
    ids = vocabulary.encode("aab", end=True)
    np.testing.assert_array_equal(ids, [0, 0, 1, vocabulary.end_id])
    assert vocabulary.decode(ids) == "aab"
    assert vocabulary.tokens[vocabulary.end_id] == "<end>"
    wide = Vocabulary(level="byte", end="<end>")
    np.testing.assert_array_equal(wide.encode(b"\xff\x00", end=True), np.array([255, 0, 256], np.uint16))
    assert wide.encode("é").dtype == wide.dtype == np.uint16


@pytest.mark.parametrize(("size", "dtype"), [(2, "u1"), (256, "u1"), (257, "u2"), (65536, "u2"), (65537, "u4")])
def test_ids_are_of_the_smallest_type(size, dtype):
    assert smallest_dtype(size) == dtype
    characters = [chr(code) for code in range(0x20000, 0x20000 + size)]
    vocabulary = Vocabulary(characters)
    np.testing.assert_array_equal(vocabulary.encode(characters[-1] + characters[0]), np.array([size - 1, 0], dtype))


def test_a_stream_of_bytes_is_decoded_as_soon_as_its_characters_are_whole():
    vocabulary = Vocabulary(level="byte")
    pieces = list(vocabulary.decode_stream("aé東".encode()))
    assert pieces == ["a", "", "é", "", "", "東", ""]
    assert vocabulary.decode([0xE6, 0x9D, 97]) == "\ufffda"
    assert vocabulary.decode([0xE6, 0x9D]) == "\ufffd"


@pytest.mark.parametrize(
    "vocabulary",
    [
        Vocabulary.from_text(TEXT, "char", max_size=20, end="<end>"),
        Vocabulary.from_text(TEXT, "word"),
        Vocabulary(level="byte", end="<end>"),
        Vocabulary("ba"),
    ],
    ids=repr,
)
def test_a_vocabulary_survives_json(vocabulary):
    text = vocabulary.to_json()
    assert text.isascii()
    again = Vocabulary.from_json(text)
    assert again == vocabulary and again.tokens == vocabulary.tokens and again.level == vocabulary.level
    assert again != Vocabulary("ab") and again != "ab"


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", '{"level": "char"}', "{", "7"])
def test_json_of_something_else_is_refused(text):
    with pytest.raises(ValueError, match="text: expected the JSON of a vocabulary, got str"):
        Vocabulary.from_json(text)
    broken = json.loads(Vocabulary("ab").to_json()) | {"tokens": ["a", "a"]}
    with pytest.raises(ValueError, match=r"expected distinct tokens, got 'a' twice"):
        Vocabulary.from_json(json.dumps(broken))


def test_unknown_characters_are_named_with_their_place():
    vocabulary = Vocabulary("abc")
    with pytest.raises(ValueError, match=r"^prompt: .* got 'é' \(U\+00E9\), '🗼' \(U\+1F5FC\), first at position 2"):
        vocabulary.encode("abé🗼é", name="prompt")
    with pytest.raises(ValueError, match=r"first at position 5, line 1$"):
        list(vocabulary.encode_stream(["abc", "ab?"]))
    lines = Vocabulary("abc\n")
    with pytest.raises(ValueError, match=r"first at position 9, line 4$"):
        list(lines.encode_stream(["a\n\n", "", "bc\nab", "c?\n?"]))
    with pytest.raises(ValueError, match=r"'4' \(U\+0034\) and 2 more, first"):
        vocabulary.encode("0123456")
    words = Vocabulary(["go", " "], "word")
    with pytest.raises(ValueError, match=r"^text: expected words in the vocabulary, got 'gone', first at position 2"):
        words.encode("go gone")
    words = Vocabulary(["go", " ", "\n"], "word")
    with pytest.raises(ValueError, match=r"got 'gone', first at position 4, line 2$"):
        words.encode("go \n gone\noff")
    assert Vocabulary("ab", unknown="<unk>").encode("\U0010ffff").tolist() == [2]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_unknown_tokens_can_be_left_out(size):
    """The text is read as if they were not there; who asks is told what they were."""
    text, skipped = "abé🗼\né, c" * 2, Counter()
    vocabulary = Vocabulary("abc\n,", end="<end>")
    pieces = list(vocabulary.encode_stream(in_blocks(text, size), unknown="skip", skipped=skipped))
    assert vocabulary.decode(np.concatenate(pieces)) == "ab\n,cab\n,c"
    assert skipped == {"é": 4, "🗼": 2, " ": 2} and all(piece.dtype == np.uint8 for piece in pieces)
    np.testing.assert_array_equal(vocabulary.encode(text, unknown="skip", end=True), [*np.concatenate(pieces), 5])
    words, skipped = Vocabulary(["go", " ", "\n"], "word"), Counter()
    pieces = words.encode_stream(in_blocks("go gone\nGo go!", size), unknown="skip", skipped=skipped)
    assert words.decode(np.concatenate(list(pieces))) == "go \n go" and skipped == dict.fromkeys(("gone", "Go", "!"), 1)
    assert len(vocabulary.encode("zé", unknown="skip")) == 0


def test_where_a_token_stands_for_the_unknown_nothing_is_left_out():
    skipped, vocabulary = Counter(), Vocabulary("ab", unknown="<unk>")
    assert [i.tolist() for i in vocabulary.encode_stream(["a?", "b"], unknown="skip", skipped=skipped)] == [[0, 2], [1]]
    assert not skipped
    np.testing.assert_array_equal(Vocabulary(level="byte").encode("é", unknown="skip"), [0xC3, 0xA9])


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "tokens: expected single characters, got 'ab'", lambda: Vocabulary(["ab"])),
        (ValueError, "tokens: expected words, got ''", lambda: Vocabulary([""], "word")),
        (ValueError, "tokens: expected distinct tokens, got 'a' twice", lambda: Vocabulary("aba")),
        (ValueError, "tokens: expected distinct tokens, got 'a' twice", lambda: Vocabulary("ab", unknown="a")),
        (ValueError, "tokens: expected at least one token, got none", lambda: Vocabulary()),
        (ValueError, "tokens: expected none at level 'byte'", lambda: Vocabulary("ab", "byte")),
        (TypeError, "tokens: expected strings, got int 5", lambda: Vocabulary([5])),
        (ValueError, "level: expected one of 'char', 'word', 'byte', got str 'line'", lambda: Vocabulary("a", "line")),
        (ValueError, "unknown: expected None at level 'byte'", lambda: Vocabulary((), "byte", unknown="?")),
        (TypeError, "end: expected a name or None, got int 0", lambda: Vocabulary("a", end=0)),
        (TypeError, "text: expected a string, got int 3", lambda: Vocabulary("a").encode(3)),
        (TypeError, "text: expected a string, got bytes", lambda: Vocabulary("a").encode(b"a")),
        (TypeError, "text: expected a string, got int 3", lambda: Vocabulary.from_text(3)),
        (ValueError, "unknown: expected one of 'error', 'skip'", lambda: Vocabulary("a").encode("a", unknown="ignore")),
        (ValueError, "end: expected False", lambda: Vocabulary("a").encode("a", end=True)),
        (ValueError, "ids[1]: expected ids in 0..1, got 2", lambda: Vocabulary("ab").decode([0, 2])),
        (TypeError, "ids: expected integer ids", lambda: Vocabulary("ab").decode([0.5])),
        (ValueError, "text: expected at least one token", lambda: Vocabulary.from_text("")),
        (ValueError, "max_size: expected an integer >= 3, got 2", lambda: Vocabulary.from_text("ab", max_size=2)),
        (ValueError, "min_count: expected an integer >= 1, got 0", lambda: Vocabulary.from_text("ab", min_count=0)),
        (ValueError, "min_count: expected at most 2, as often as", lambda: Vocabulary.from_text("aba", min_count=3)),
    ],
)
def test_a_wrong_vocabulary_is_refused_by_name(error, message, call):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("others", [0, 1, 40, 300])
def test_characters_of_any_share_of_ascii_are_counted_and_encoded_alike(rng, others):
    """Blocks of hardly any others take a way of their own."""
    letters = rng.choice(list("abc ?\n"), 1500)
    letters[rng.choice(1500, others, replace=False)] = rng.choice(list("é?東🗼\udc80"), others)
    text = "".join(letters)
    vocabulary = Vocabulary.from_text(text)
    counts = Counter(text)
    assert list(vocabulary.tokens) == sorted(counts, key=lambda letter: (-counts[letter], letter))
    assert vocabulary.encode(text).tolist() == [vocabulary.index[letter] for letter in text]
    known = Vocabulary("abc ?\n", unknown="<unk>")
    assert known.encode(text).tolist() == [known.index.get(letter, known.unknown_id) for letter in text]
    if others > 1:
        missing = next(n for n, letter in enumerate(text) if letter not in known.index)
        with pytest.raises(ValueError, match=f"first at position {missing}, line {1 + text[:missing].count(chr(10))}"):
            Vocabulary("abc ?\n").encode(text)
