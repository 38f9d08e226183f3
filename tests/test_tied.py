"""One table for the embedding and the head, and dropout of its rows."""

import copy

import numpy as np
import pytest
from gradcheck import check_gradients

from cylstm import Adam, Dense, Model
from cylstm.training import read_checkpoint

V, E = 11, 6


def tied(**options):
    return Model(V, options.pop("hidden", E), V, embedding_size=E, tied=True, seed=3, **options)


def some(rng, B=4, T=7):
    return rng.integers(0, V, (B, T)), rng.integers(0, V, (B, T))


def test_there_is_one_table_and_no_other_weight(rng):
    model = tied()
    assert "head.weight" not in model.parameters and model.parameters["head.bias"].shape == (V,)
    x, _ = some(rng)
    features = model.parameters["embedding.weight"][x]
    h, _ = model.lstm(features)
    logits = h @ model.parameters["embedding.weight"].T + model.parameters["head.bias"]
    np.testing.assert_allclose(model(x)[0], logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [
    {}, dict(head_bias=False, num_layers=2), dict(hidden=9, after=[Dense(E, "tanh")]), dict(before=[Dense(4, "tanh")]),
    dict(hidden=E // 2, bidirectional=True),
])  # fmt: skip
def test_its_gradient_is_that_of_both_uses(rng, options):
    model = tied(dtype="float64", **options)
    x, y = some(rng)
    lengths = np.array([7, 3, 5, 1])
    gradients = model.loss_and_gradients(x, y, lengths=lengths).gradients
    values = {name: model.parameters[name] for name in model.parameters}
    check_gradients(lambda: model.loss_and_gradients(x, y, lengths=lengths).loss, values, gradients)


def test_a_loss_of_ones_own_has_the_same_gradients(rng):
    model = tied(dtype="float64")
    x, _ = some(rng)
    outputs, _, tape = model.forward(x)
    slopes = rng.standard_normal(outputs.shape)
    gradients = model.backward(tape, slopes).parameters
    values = {name: model.parameters[name] for name in model.parameters}
    check_gradients(lambda: (slopes * model(x)[0]).sum(), values, gradients)


def test_it_learns_steps_and_comes_back(tmp_path, rng):
    model = tied(vocabulary=None, embedding_dropout=0.2)
    x = (np.arange(60)[:, None] * 3 + np.arange(9)) % V
    x, y = x[:, :-1], x[:, 1:]
    common = dict(batch_size=8, seed=4, progress=False, optimizer=Adam(2e-2))
    path = tmp_path / "run.ckpt"
    history = model.fit(x, y, epochs=20, checkpoint=path, **common)
    assert history.train_loss[-1] < 0.5 * history.train_loss[0]
    whole = model.parameters.flat.copy()
    state, found = None, []
    for t in range(x.shape[1]):
        outputs, state = model.step(x[:3, t], state)
        found.append(outputs)
    np.testing.assert_allclose(np.stack(found, 1), model(x[:3])[0], rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "model.safetensors")
    for again in (Model.load(tmp_path / "model.safetensors"), copy.deepcopy(model), Model.from_checkpoint(path)):
        assert again.tied and again.embedding_dropout == 0.2 and again.config == model.config
        assert np.array_equal(again.parameters.flat, whole)
    saved = read_checkpoint(path)
    again = Model.from_checkpoint(saved)
    again.fit(x, y, epochs=23, resume=saved, **common)
    model.fit(x, y, epochs=23, resume=read_checkpoint(path), **common)
    assert np.array_equal(again.parameters.flat, model.parameters.flat)
    assert "embedding" in model.summary() and f"{V * E:,}" in model.summary()


def test_dropped_rows_are_those_of_whole_words(rng):
    model = Model(V, 5, V, embedding_size=E, embedding_dropout=0.5, seed=1, dtype="float64")
    x, y = some(rng, 6, 20)
    for _ in range(4):
        model.rng, drawn = np.random.default_rng(8), np.random.default_rng(8)
        keep = (drawn.random(V, np.float32) >= 0.5) / 0.5
        assert 0 < keep.sum() < 2 * V
        gradients = model.loss_and_gradients(x, y).gradients
        model.rng = np.random.default_rng(8)
        loss = model.loss_and_gradients(x, y).loss
        other = copy.deepcopy(model)
        other.embedding_dropout = 0
        other.parameters["embedding.weight"][:] *= keep[:, None]
        expected = other.loss_and_gradients(x, y)
        assert loss == pytest.approx(expected.loss, rel=1e-12)
        np.testing.assert_allclose(
            gradients["embedding.weight"],
            expected.gradients["embedding.weight"] * keep[:, None],
            rtol=1e-10,
            atol=1e-15,
        )
        assert not np.array_equal(loss, model.evaluate(x, y)["loss"])
    assert model.evaluate(x, y) == model.evaluate(x, y)  # nothing is dropped


@pytest.mark.parametrize("options, message", [
    (dict(tied=True), "tied: expected an embedding, whose table is the head's weight"),
    (dict(tied=True, embedding_size=4), "one head of 11 outputs that sees 4 features, got 11 outputs of 6"),
    (dict(tied=True, embedding_size=6, bidirectional=True), "got 11 outputs of 12 features"),
    (dict(tied=True, embedding_size=6, output_size=7), "got 7 outputs of 6 features"),
    (dict(tied=True, embedding_size=6, output_size={"a": 11, "b": 2}), "got 11 outputs of 6 features, 2 outputs"),
    (dict(embedding_dropout=0.5), "embedding_dropout: expected 0 without embedding_size, got 0.5"),
    (dict(embedding_dropout=1, embedding_size=3), "embedding_dropout: expected a number in"),
])  # fmt: skip
def test_what_cannot_be_is_refused(options, message):
    options = {"output_size": V, **options}
    with pytest.raises(ValueError, match=message):
        Model(V, E, options.pop("output_size"), **options)


def test_it_stays_as_it_is():
    with pytest.raises(AttributeError, match="tied: expected to stay"):
        tied().tied = False
