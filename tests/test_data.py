"""Text to ids and back, targets, streams, batches and windows, and what is said about input that cannot be used."""

import json
import os
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from cylstm import data, vocab
from cylstm.vocab import Vocabulary

TEXT = "Die Größe — «naïve café», 東京タワー 🗼:\n\tx_1 = {'a': 0.5};    y  =  x_1\r\n\nThe end; the END.\n"


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="corpus.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return to_file


def in_blocks(text, size):
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("level", vocab.LEVELS)
def test_a_text_comes_back_from_its_ids(level):
    vocabulary = Vocabulary.from_text(TEXT, level)
    ids = vocabulary.encode(TEXT)
    assert vocabulary.decode(ids) == TEXT
    assert vocabulary.decode(ids[5:9].reshape(2, 2)) == "".join(vocabulary.decode_stream(ids[5:9]))
    assert ids.dtype == np.uint8
    assert [vocabulary.index[token] for token in vocabulary.tokens] == list(range(len(vocabulary)))


@pytest.mark.parametrize("level", vocab.LEVELS)
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_the_cut_into_blocks_changes_nothing(level, size):
    blocks = in_blocks(TEXT, size)
    vocabulary = Vocabulary.from_stream(iter(blocks), level)
    assert vocabulary == Vocabulary.from_text(TEXT, level)
    pieces = list(vocabulary.encode_stream(blocks))
    np.testing.assert_array_equal(np.concatenate(pieces), vocabulary.encode(TEXT))
    assert all(piece.dtype == vocabulary.dtype for piece in pieces)


def test_a_text_longer_than_a_block_is_encoded_whole(monkeypatch):
    monkeypatch.setattr(vocab, "BLOCK", 13)
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


def test_words_without_any_space_are_cut_so_that_memory_stays_bounded():
    text = "x" * 1000
    vocabulary = Vocabulary.from_stream(in_blocks(text, 7), "word")
    assert max(map(len, vocabulary.tokens)) == vocab.LONGEST_WORD
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
    monkeypatch.setattr(vocab, "MOST_COUNTED", 10)
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
    assert vocab.smallest_dtype(size) == dtype
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
    with pytest.raises(ValueError, match=r"^prompt: .* got 'é' \(U\+00E9\), '🗼' \(U\+1F5FC\), first at position 2$"):
        vocabulary.encode("abé🗼é", name="prompt")
    with pytest.raises(ValueError, match=r"first at position 5$"):
        list(vocabulary.encode_stream(["abc", "ab?"]))
    with pytest.raises(ValueError, match=r"'4' \(U\+0034\) and 2 more, first"):
        vocabulary.encode("0123456")
    words = Vocabulary(["go", " "], "word")
    with pytest.raises(ValueError, match=r"^text: expected words in the vocabulary, got 'gone', first at position 2$"):
        words.encode("go gone")
    assert Vocabulary("ab", unknown="<unk>").encode("\U0010ffff").tolist() == [2]


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
        (ValueError, "end: expected False", lambda: Vocabulary("a").encode("a", end=True)),
        (ValueError, "ids: expected ids in 0..1, got 2", lambda: Vocabulary("ab").decode([0, 2])),
        (TypeError, "ids: expected integer ids", lambda: Vocabulary("ab").decode([0.5])),
        (ValueError, "text: expected at least one token", lambda: Vocabulary.from_text("")),
        (ValueError, "max_size: expected an integer >= 3, got 2", lambda: Vocabulary.from_text("ab", max_size=2)),
        (ValueError, "min_count: expected an integer >= 1, got 0", lambda: Vocabulary.from_text("ab", min_count=0)),
    ],
)
def test_a_wrong_vocabulary_is_refused_by_name(error, message, call):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_the_manual_is_prose_in_a_stable_order():
    text = data.manual()
    assert len(text) > 300_000
    assert text.startswith("assert\n\n")
    assert text == data.manual()
    assert "list comprehension" in text


@pytest.mark.parametrize("block", [1, 2, 3, 5, 1000])
def test_a_file_is_decoded_block_by_block(write, block):
    assert "".join(data.read_text(write(TEXT), block)) == TEXT
    assert "".join(data.read_text(write("\ufeff\ufeff" + TEXT), block)) == "\ufeff" + TEXT


@pytest.mark.parametrize("block", [1, 2, 4, 1000])
@pytest.mark.parametrize(
    ("content", "byte", "offset"),
    [
        ("東京".encode() + b"ab\xe9c", "0xe9", 8),
        ("東京".encode()[:-1], "0xe4", 3),
        (b"\xff\xfea\x00", "0xff", 0),
    ],
)
def test_a_file_that_is_not_utf8_is_refused_with_the_offset(write, block, content, byte, offset):
    path = write(content)
    with pytest.raises(ValueError) as caught:
        list(data.read_text(path, block))
    assert str(caught.value) == f"{path}: expected UTF-8 text, got byte {byte} at offset {offset}"


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(write, content):
    path = write(content)
    with pytest.raises(ValueError, match="expected text, got an empty file"):
        list(data.read_text(path))
    with pytest.raises(ValueError, match="expected text, got an empty file"):
        data.encode_file(path)


@pytest.mark.parametrize("level", vocab.LEVELS)
def test_a_file_becomes_a_map_of_ids(write, tmp_path, level):
    path = write(TEXT)
    ids, vocabulary = data.encode_file(path, level, folder=tmp_path)
    assert isinstance(ids, np.memmap) and not ids.flags.writeable and ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, vocabulary.encode(TEXT))
    assert vocabulary.decode(ids) == TEXT
    assert os.listdir(tmp_path) == ["corpus.txt"]
    again, same = data.encode_file(path, vocabulary=vocabulary)
    assert same is vocabulary
    np.testing.assert_array_equal(again, ids)


def test_a_file_at_byte_level_may_hold_anything(write):
    content = b"\xff\xfe\x00" + bytes(range(256))
    ids, _ = data.encode_file(write(content), "byte")
    assert bytes(ids) == content
    with pytest.raises(ValueError, match="expected text, got an empty file"):
        data.encode_file(write(b""), "byte")


def test_a_file_with_characters_outside_the_vocabulary_is_refused(write, tmp_path):
    path = write("abcd")
    with pytest.raises(ValueError) as caught:
        data.encode_file(path, vocabulary=Vocabulary("abc"), folder=tmp_path)
    assert str(caught.value) == f"{path}: expected characters in the vocabulary, got 'd' (U+0064), first at position 3"
    assert os.listdir(tmp_path) == ["corpus.txt"]


@pytest.mark.parametrize("level", vocab.LEVELS)
def test_memory_does_not_grow_with_the_file(write, level):
    text = TEXT * 2_500 + "".join(f"w{i:x} " for i in range(20_000))
    peaks = []
    for repeats in (2, 6):
        path = write(text * repeats)
        tracemalloc.start()
        ids, vocabulary = data.encode_file(path, level, max_size=10_000)
        x, _ = data.streams(data.split(ids)[0], 32)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert np.shares_memory(x, ids)
        assert level != "word" or (len(vocabulary) == 10_000 and ids.dtype == np.uint16)
    assert path.stat().st_size > 8 * vocab.BLOCK
    assert peaks[1] < 1.2 * peaks[0]


def test_one_hot_rows_have_their_one_in_its_place():
    ids = np.array([[4, 0, 2], [1, 1, 3]], np.uint8)
    rows = data.one_hot(ids, 5, "float64")
    assert rows.shape == (2, 3, 5) and rows.dtype == np.float64
    np.testing.assert_array_equal(rows.argmax(-1), ids)
    np.testing.assert_array_equal(rows.sum(-1), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"ids: expected ids in 0..3, got 4"):
        data.one_hot(ids, 4)


def test_a_split_is_contiguous_and_complete():
    ids = np.arange(103, dtype=np.uint8)
    parts = data.split(ids)
    assert [len(part) for part in parts] == [93, 5, 5]
    assert all(np.shares_memory(part, ids) for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts), ids)
    assert [part[0] for part in data.split(list("abcdefg"), (0.5, 0, 0.5))[::2]] == ["a", "e"]


def test_a_shuffled_split_keeps_inputs_and_targets_together():
    x, y = np.arange(40) * 3, [f"{i * 3}" for i in range(40)]
    parts, names = data.split(x, (0.7, 0.3), seed=5), data.split(y, (0.7, 0.3), seed=5)
    assert sorted(np.concatenate(parts).tolist()) == x.tolist()
    assert parts[0].tolist() != x[:28].tolist()
    assert [[str(i) for i in part] for part in parts] == list(names)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((0.9, 0.2), r"fractions: expected a sum of 1, got 1\.1"),
        ((1.5, -0.5), r"fractions: expected a number in \[0, 1\], got 1\.5"),
        ((0.999, 0.001), r"data: expected enough elements for a part of 0\.001, got 103 in all"),
    ],
)
def test_a_wrong_split_is_refused(fractions, message):
    with pytest.raises(ValueError, match=message):
        data.split(np.arange(103), fractions)


def test_targets_are_the_next_tokens():
    ids = np.array([[5, 3, 8, 1], [2, 7, 7, 0]], np.uint8)
    x, y = data.next_token(ids)
    np.testing.assert_array_equal(x, [[5, 3, 8], [2, 7, 7]])
    np.testing.assert_array_equal(y, [[3, 8, 1], [7, 7, 0]])
    assert np.shares_memory(x, ids) and np.shares_memory(y, ids)
    with pytest.raises(ValueError, match=r"ids: expected at least 2 tokens .*, got uint8 \(2, 1\)"):
        data.next_token(ids[:, :1])


@pytest.mark.parametrize(("size", "count", "steps"), [(23, 3, 7), (22, 3, 7), (21, 3, 6), (4, 3, 1), (9, 1, 8)])
def test_streams_cut_a_text_into_equal_rows_one_after_the_other(size, count, steps):
    ids = np.arange(100, 100 + size, dtype=np.uint8)
    x, y = data.streams(ids, count)
    assert x.shape == y.shape == (count, steps)
    np.testing.assert_array_equal(x.ravel(), ids[: count * steps])
    np.testing.assert_array_equal(y, x + 1)
    assert np.shares_memory(x, ids) and np.shares_memory(y, ids)


def test_a_text_too_short_for_its_streams_is_refused():
    with pytest.raises(ValueError, match=r"ids: expected \(N,\) with N > 3, .*, got int64 \(3,\)"):
        data.streams(np.arange(3), 3)
    with pytest.raises(ValueError, match=r"ids: expected \(N,\)"):
        data.streams(np.arange(30).reshape(3, 10), 3)


def test_padding_keeps_every_sequence_and_its_length():
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=(t, 2)) for t in (3, 1, 5)]
    x, lengths = data.pad(arrays)
    assert x.shape == (3, 5, 2) and lengths.tolist() == [3, 1, 5]
    for row, array, length in zip(x, arrays, lengths, strict=True):
        np.testing.assert_array_equal(row[:length], array)
        assert not row[length:].any()
    ids, _ = data.pad([np.array([7], np.uint8), np.array([300, 5], np.uint16)])
    assert ids.dtype == np.uint16 and ids.tolist() == [[7, 0], [300, 5]]
    with pytest.raises(ValueError, match=r"sequences\[1\]: expected \(T >= 1, 2\), got float64 \(4, 3\)"):
        data.pad([np.ones((3, 2)), np.ones((4, 3))])
    with pytest.raises(ValueError, match=r"sequences\[1\]: expected \(T >= 1\), got int64 \(0,\)"):
        data.pad([np.arange(2), np.arange(0)])
    with pytest.raises(ValueError, match="expected at least one sequence, got none"):
        data.pad([])


@pytest.mark.parametrize("rng", [None, 4])
def test_batches_hold_every_sequence_once_beside_others_of_its_length(rng):
    lengths = np.random.default_rng(8).integers(1, 30, 53).astype(np.uint8)
    batches = data.batches_by_length(lengths, 8, rng)
    assert sorted(np.concatenate(batches).tolist()) == list(range(53))
    assert sorted(len(batch) for batch in batches) == [5, *[8] * 6]
    ranges = sorted((lengths[batch].min(), lengths[batch].max()) for batch in batches)
    assert all(high <= low for (_, high), (low, _) in pairwise(ranges))
    assert all((np.diff(lengths[batch].astype(int)) <= 0).all() for batch in batches)


def test_batches_are_drawn_by_the_seed():
    lengths = [4, 4, 4, 4, 2, 2, 2, 2, 2]
    first, same, other = ([b.tolist() for b in data.batches_by_length(lengths, 2, s)] for s in (1, 1, 2))
    assert first == same != other
    assert [b.tolist() for b in data.batches_by_length(lengths, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    with pytest.raises(ValueError, match=r"lengths: expected \(N,\) integers >= 1"):
        data.batches_by_length([3, 0], 2)


def test_windows_are_followed_by_their_targets():
    series = np.arange(1, 12) ** 2.0
    x, y = data.windows(series, 4, horizon=2, stride=3)
    assert x.shape == (2, 4, 1) and y.shape == (2, 2, 1)
    np.testing.assert_array_equal(x[..., 0], [[1, 4, 9, 16], [16, 25, 36, 49]])
    np.testing.assert_array_equal(y[..., 0], [[25, 36], [64, 81]])
    table = np.random.default_rng(1).normal(size=(9, 3))
    x, y = data.windows(table, 5)
    assert x.shape == (4, 5, 3) and y.shape == (4, 1, 3)
    assert np.shares_memory(x, table) and x.strides[-1] == x.itemsize
    np.testing.assert_array_equal(x[2], table[2:7])
    np.testing.assert_array_equal(y[:, 0], table[5:])
    with pytest.raises(ValueError, match=r"series: expected \(N,\) or \(N, F\) with N >= 10, got float64 \(9, 3\)"):
        data.windows(table, 9)


def test_an_bn_are_as_many_b_as_a():
    assert data.an_bn([3, 1]) == ["aaabbb", "ab"]
    with pytest.raises(ValueError, match="sizes: expected an integer >= 1, got 0"):
        data.an_bn([0])
