"""What a text costs per character and per word: against sums over its tokens, made by hand."""

import math
import re

import numpy as np
import pytest

from cylstm import LSTM, Model, Vocabulary, data, losses, maps

TEXT = "Die Größe — «naïve café», 東京タワー 🗼:\n\tx_1 = 0.5;    y  =  x_1\r\n\nThe end; the END of the end.\n" * 3
LEVELS = ("char", "word", "byte")


def made(vocabulary, seed=1, **options):
    """A model far from uniform."""
    size = len(vocabulary)
    model = Model(size, 7, size, embedding_size=5, vocabulary=vocabulary, seed=seed, dtype="float64", **options)
    for values in model.parameters.values():
        values *= 3
    return model


def costs(model, x, y):
    """-log p of each target (...), in nats."""
    z, _ = model(x)
    z = z - z.max(axis=-1, keepdims=True)
    return np.log(np.exp(z).sum(axis=-1)) - np.take_along_axis(z, np.asarray(y, int)[..., None], -1)[..., 0]


@pytest.mark.parametrize("level", LEVELS)
def test_bits_are_per_character_and_perplexity_of_words_per_word(level):
    vocabulary = Vocabulary.from_text(TEXT, level)
    model = made(vocabulary)
    x, y = data.next_token(vocabulary.encode(TEXT))
    found = data.evaluate_text(model, x, y)
    total = costs(model, x, y).sum()
    first = {"char": "D", "word": "Die", "byte": "D"}[level]
    characters = len(TEXT) - len(first)
    assert found["characters"] == characters and found["unknown"] == 0
    assert found["bits_per_character"] == pytest.approx(total / math.log(2) / characters, rel=1e-12)
    expected = model.evaluate(x, y)
    assert {name: found[name] for name in expected} == expected
    if level == "word":
        words = len(re.findall(r"\w+|[^\w\s]", TEXT)) - 1
        assert found["words"] == words < found["tokens"]
        assert found["word_perplexity"] == pytest.approx(math.exp(total / words), rel=1e-12)
        assert found["word_perplexity"] > 2 * found["perplexity"]
    else:
        assert "words" not in found and "word_perplexity" not in found


def test_a_character_of_bytes_counts_where_it_begins():
    vocabulary = Vocabulary(level="byte", end="<end>")
    model = made(vocabulary)
    text = "é東a🗼é\u0301z" * 2
    begins = np.cumsum([0, *(len(character.encode()) for character in text[:-1])])
    ids = vocabulary.encode(text, end=True)
    for start, stop in ((0, len(ids)), (0, 1 + len(ids) // 2), (1, 9), (2, 8), (3, 7)):  # most cut a character
        x, y = data.next_token(ids[start:stop])
        found = data.evaluate_text(model, x, y)
        characters = np.sum((begins > start) & (begins < stop))  # the first byte is no target
        assert found["characters"] == characters > 0
        bits = costs(model, x, y).sum() / math.log(2)
        assert found["bits_per_character"] == pytest.approx(bits / characters, rel=1e-12)


@pytest.mark.parametrize("level", ["char", "word"])
def test_unknown_tokens_cost_no_bits_and_are_counted(level):
    vocabulary = Vocabulary.from_text(TEXT + "end " * 5, level, min_count=7)
    model = made(vocabulary)
    x, y = data.next_token(vocabulary.encode(TEXT))
    known = y != vocabulary.unknown_id
    found, each = data.evaluate_text(model, x, y), costs(model, x, y)
    assert found["unknown"] == (~known).sum() > 0
    assert found["tokens"] == len(y) and found["loss"] == pytest.approx(each.mean(), rel=1e-12)
    characters = sum(len(vocabulary.tokens[i]) for i in y[known])
    assert found["characters"] == characters
    assert found["bits_per_character"] == pytest.approx(each[known].sum() / math.log(2) / characters, rel=1e-12)
    if level == "word":
        words = sum(not vocabulary.tokens[i].isspace() for i in y)  # unknown ones are words
        assert found["words"] == words
        assert found["word_perplexity"] == pytest.approx(math.exp(each.sum() / words), rel=1e-12)
    nothing = data.evaluate_text(model, [0, 1], [vocabulary.unknown_id] * 2)
    assert nothing["unknown"] == 2 and nothing["characters"] == 0 and math.isnan(nothing["bits_per_character"])


def test_what_does_not_count_is_not_counted(rng, monkeypatch):
    """Streams, lengths, masks and lists, each in pieces."""
    monkeypatch.setattr(maps, "AT_ONCE", 3)
    vocabulary = Vocabulary.from_text(TEXT, "word", end="<end>")
    model = made(vocabulary)
    characters = np.array([len(token) for token in vocabulary.tokens])
    words = np.array([not token.isspace() for token in vocabulary.tokens], int)
    for special in (vocabulary.unknown_id, vocabulary.end_id):
        characters[special] = 0
    words[vocabulary.end_id] = 0
    x, y = data.streams(np.append(vocabulary.encode(TEXT), [vocabulary.end_id] * 4), 4)
    lengths, mask = np.array([9, x.shape[1], 0, 20]), rng.random(x.shape) < 0.6
    real = np.arange(x.shape[1]) < lengths[:, None]
    for options, kept in [({}, np.ones(x.shape, bool)), (dict(lengths=lengths), real), (dict(mask=mask), mask),
                          (dict(lengths=lengths, mask=mask), real & mask)]:  # fmt: skip
        found, expected = data.evaluate_text(model, x, y, **options), model.evaluate(x, y, **options)
        total = expected["loss"] * expected["tokens"]
        assert expected["tokens"] == kept.sum()
        assert found["characters"] == characters[y[kept]].sum() and found["words"] == words[y[kept]].sum()
        assert found["word_perplexity"] == pytest.approx(math.exp(total / found["words"]), rel=1e-12)
        assert found["bits_per_character"] == pytest.approx(total / math.log(2) / found["characters"], rel=1e-12)
    rows = [(row[:end], target[:end]) for row, target, end in zip(x, y, lengths, strict=True)]
    ragged = data.evaluate_text(model, *map(list, zip(*rows, strict=True)), batch_size=2)
    assert ragged == pytest.approx(data.evaluate_text(model, x, y, lengths=lengths), rel=1e-12)
    alone = data.evaluate_text(model, x[1], y[1], mask=mask[1], state=model.initial_state(1))
    assert alone == pytest.approx(data.evaluate_text(model, x[1:2], y[1:2], mask=mask[1:2]), rel=1e-12)
    resets = np.arange(x.shape[1]) % 5 == 0
    cut = data.evaluate_text(model, x[1], y[1], resets=resets)
    assert cut["loss"] == model.evaluate(x[1], y[1], resets=resets)["loss"] != model.evaluate(x[1], y[1])["loss"]


def test_smoothed_labels_play_no_part():
    vocabulary = Vocabulary.from_text(TEXT)
    smooth = made(vocabulary, loss=losses.CrossEntropy(smoothing=0.2), dropout=0.3, num_layers=2)
    plain = made(vocabulary, dropout=0.3, num_layers=2)
    x, y = data.streams(vocabulary.encode(TEXT), 3)
    state = smooth.rng.bit_generator.state
    assert data.evaluate_text(smooth, x, y) == data.evaluate_text(plain, x, y)
    assert smooth.evaluate(x, y)["loss"] != plain.evaluate(x, y)["loss"]
    assert smooth.rng.bit_generator.state == state and smooth.loss.smoothing == 0.2


def test_white_space_alone_has_no_words():
    vocabulary = Vocabulary.from_text("a b\n  c\t", "word")
    found = data.evaluate_text(made(vocabulary), *data.next_token(vocabulary.encode(" \n  \t ")))
    assert found["words"] == 0 and math.isnan(found["word_perplexity"]) and found["characters"] == 5


def test_a_model_of_no_text_is_refused():
    vocabulary = Vocabulary("abc")
    for model in (Model(3, 2, 3, seed=1), LSTM(3, 2), None):
        with pytest.raises(ValueError, match=r"^model: expected one with a vocabulary"):
            data.evaluate_text(model, [0], [1])
    for options in (dict(loss="mse"), dict(output="last")):
        with pytest.raises(ValueError, match=r"^model: expected one of its vocabulary's next tokens, got Model"):
            data.evaluate_text(Model(3, 2, 3, vocabulary=vocabulary, seed=1, **options), [0], [1])
    with pytest.raises(ValueError, match=r"^model: expected one of its vocabulary's next tokens"):
        data.evaluate_text(Model(3, 2, 2, vocabulary=vocabulary, seed=1), [0], [1])
    with pytest.raises(ValueError, match=r"^y: expected"):
        data.evaluate_text(Model(3, 2, 3, vocabulary=vocabulary, seed=1), [0, 1], [1])
