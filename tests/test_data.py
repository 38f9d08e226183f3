"""Files, splits, targets, streams, batches and windows, and what is said about input that cannot be used."""

import os
import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from cylstm import data
from cylstm.text.vocabulary import BLOCK, LEVELS, Vocabulary

TEXT = "Die Größe — «naïve café», 東京タワー 🗼:\n\tx_1 = {'a': 0.5};    y  =  x_1\r\n\nThe end; the END.\n"


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="corpus.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return to_file


def test_the_manual_is_prose_in_a_stable_order():
    text = data.manual()
    assert len(text) > 300_000
    assert text.startswith("assert\n\n")
    assert text == data.manual()
    assert "list comprehension" in text


def test_the_topics_of_the_manual_are_sorted(monkeypatch):
    monkeypatch.setattr("pydoc_data.topics.topics", {"b": "\nsecond\n", "a": "first"})
    assert data.manual() == "a\n\nfirst\n\nb\n\nsecond\n"


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


@pytest.mark.parametrize("level", LEVELS)
def test_a_file_becomes_a_map_of_ids(write, tmp_path, level):
    path = write(TEXT)
    ids, vocabulary = data.encode_file(path, level, folder=tmp_path)
    assert isinstance(ids, np.memmap) and not ids.flags.writeable and ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, vocabulary.encode(TEXT))
    assert vocabulary.decode(ids) == TEXT
    assert os.listdir(tmp_path) == ["corpus.txt"]
    with pytest.raises(FileNotFoundError, match="absent"):
        data.encode_file(path, level, folder=tmp_path / "absent")
    again, same = data.encode_file(path, vocabulary=vocabulary)
    assert same is vocabulary
    np.testing.assert_array_equal(again, ids)


def test_a_file_at_byte_level_may_hold_anything(write):
    content = b"\xff\xfe\x00" + bytes(range(256))
    ids, _ = data.encode_file(write(content), "byte")
    assert bytes(ids) == content
    with pytest.raises(ValueError, match="expected text, got an empty file"):
        data.encode_file(write(b""), "byte")


def test_a_file_may_be_read_without_what_is_unknown(write, tmp_path):
    path, skipped = write("abcd\nad" * 3), Counter()
    ids, _ = data.encode_file(path, vocabulary=Vocabulary("abc\n"), folder=tmp_path, unknown="skip", skipped=skipped)
    assert ids.tolist() == [0, 1, 2, 3, 0] * 3 and skipped == {"d": 6}
    with pytest.raises(ValueError) as caught:
        data.encode_file(path, vocabulary=Vocabulary("xyz"), folder=tmp_path, unknown="skip")
    assert str(caught.value) == f"{path}: expected tokens of the vocabulary, got none"
    assert os.listdir(tmp_path) == ["corpus.txt"]


def test_a_file_with_characters_outside_the_vocabulary_is_refused(write, tmp_path):
    path = write("abcd")
    with pytest.raises(ValueError) as caught:
        data.encode_file(path, vocabulary=Vocabulary("abc"), folder=tmp_path)
    expected = "expected characters in the vocabulary, got 'd' (U+0064), first at position 3, line 1"
    assert str(caught.value) == f"{path}: {expected}"
    assert os.listdir(tmp_path) == ["corpus.txt"]


@pytest.mark.parametrize("level", LEVELS)
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
    assert path.stat().st_size > 8 * BLOCK
    assert peaks[1] < 1.2 * peaks[0]


def test_a_pipe_is_refused_where_it_would_be_read_twice(write, monkeypatch):
    path = write(TEXT)
    monkeypatch.setattr("stat.S_ISFIFO", lambda mode: True)
    with pytest.raises(ValueError, match="expected a file, which can be read twice, got a pipe"):
        data.encode_file(path)


def test_one_hot_rows_have_their_one_in_its_place():
    ids = np.array([[4, 0, 2], [1, 1, 3]], np.uint8)
    rows = data.one_hot(ids, 5, "float64")
    assert rows.shape == (2, 3, 5) and rows.dtype == np.float64
    np.testing.assert_array_equal(rows.argmax(-1), ids)
    np.testing.assert_array_equal(rows.sum(-1), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"ids\[0, 0\]: expected ids in 0..3, got 4"):
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.split(np.arange(103), 0.2), "fractions: expected one number for each part, got float 0.2"),
        (lambda: data.an_bn(3), "sizes: expected a list of integers, got int 3"),
    ],
)
def test_one_number_instead_of_several_is_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()


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
    with pytest.raises(ValueError, match=r"sequences\[1\]: expected \(T, 2\), got float64 \(4, 3\)"):
        data.pad([np.ones((3, 2)), np.ones((4, 3))])
    ids, lengths = data.pad([np.arange(2), np.arange(0)])
    assert ids.tolist() == [[0, 1], [0, 0]] and lengths.tolist() == [2, 0]
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
    assert [lengths[batch[0]] for batch in first] != [4, 4, 2, 2, 2]
    assert [b.tolist() for b in data.batches_by_length(lengths, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    with pytest.raises(ValueError, match=r"lengths: expected \(N,\) integers >= 0"):
        data.batches_by_length([3, -1], 2)


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


def test_tokens_are_shown_side_by_side():
    vocabulary = Vocabulary(["go", "\n", "incomprehensibility" * 2], "word")
    head, right, wrong = data.side_by_side(vocabulary, [0, 1], [1, 2], np.array([1, 0]))
    assert head.split() == ["input", "target", "predicted"]
    assert right.split() == ["'go'", r"'\n'", r"'\n'", "="]
    assert wrong.split() == [r"'\n'", "'incomprehensibil...", "'go'"]
    assert right.index(r"'\n'") == head.index("target") and wrong.index("'go'") == head.index("predicted")
    with pytest.raises(ValueError):
        list(data.side_by_side(vocabulary, [0], [1, 2], [1, 2]))
