"""The model: gradients of the whole, losses per token, outputs, generation, evaluation, bad input."""

import copy
import pickle

import numpy as np
import pytest
from gradcheck import check_gradients

from cylstm import Model, Vocabulary, data

V, H, O = 5, 4, 6
VARIANTS = {
    "ids": {},
    "embedding": dict(embedding_size=3),
    "features": dict(features=True),
    "last": dict(output="last"),
    "last, both ways": dict(output="last", bidirectional=True, num_layers=2),
    "mse": dict(loss="mse", features=True),
    "binary": dict(loss="binary_cross_entropy", num_layers=2),
    "without head bias": dict(head_bias=False),
}


def make(variant, dtype="float64", **more):
    options = {**VARIANTS[variant], **more}
    features = options.pop("features", False)
    return Model(V, H, O, dtype=dtype, seed=1, **options), features


def some_data(rng, model, features, B=3, T=4):
    x = rng.standard_normal((B, T, V)) if features else rng.integers(0, V, (B, T))
    shape = (B,) if model.output == "last" else (B, T)
    y = rng.integers(0, O, shape) if model.loss.of_classes else rng.random((*shape, O))
    return x, y


@pytest.mark.parametrize("lengths", [None, [4, 1, 3]])
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_the_whole_against_finite_differences(rng, variant, lengths):
    model, features = make(variant)
    x, y = some_data(rng, model, features)
    result = model.loss_and_gradients(x, y, lengths=lengths)
    arrays = {name: model.parameters[name] for name in model.parameters}  # views: written through by the check

    def loss():
        return model.evaluate(x, y, lengths=lengths)["loss"]

    assert result.loss == pytest.approx(loss(), rel=1e-12)
    check_gradients(loss, arrays, dict(result.gradients))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_ragged_loss_is_the_mean_over_tokens(rng, variant):
    """Not over rows, not over padding: by hand, from each row alone."""
    model, features = make(variant)
    x, y = some_data(rng, model, features)
    lengths = [4, 1, 3]
    result = model.loss_and_gradients(x, y, lengths=lengths)
    alone = [model.loss_and_gradients(x[[n], :k], y[[n]] if model.output == "last" else y[[n], :k])
             for n, k in enumerate(lengths)]  # fmt: skip
    tokens = [r.tokens for r in alone]
    assert tokens == ([1, 1, 1] if model.output == "last" else lengths) and result.tokens == sum(tokens)
    assert result.loss == pytest.approx(np.average([r.loss for r in alone], weights=tokens), rel=1e-12)
    expected = np.average([r.gradients.flat for r in alone], axis=0, weights=tokens)
    np.testing.assert_allclose(result.gradients.flat, expected, rtol=1e-9, atol=1e-13)
    assert result.hits == sum(r.hits for r in alone)


@pytest.mark.parametrize("variant", ["ids", "embedding"])
def test_padding_ids_may_be_any_number(rng, variant):
    model, _ = make(variant)
    x, y = some_data(rng, model, False)
    before = model.loss_and_gradients(x, y, lengths=[4, 1, 3])
    x[1, 1:], y[1, 1:] = -1, 10**9
    after = model.loss_and_gradients(x, y, lengths=[4, 1, 3])
    np.testing.assert_array_equal(after.gradients.flat, before.gradients.flat)
    assert model.evaluate(x, y, lengths=[4, 1, 3])["loss"] == pytest.approx(before.loss, rel=1e-12)
    model.fit(x, y, lengths=[4, 1, 3], epochs=1, progress=False)


def test_lists_of_lists_are_ragged_rows():
    model = Model(V, H, V, seed=1)
    rows = [[1, 2, 3], [4], [2, 2]]
    as_arrays = [np.array(row) for row in rows]
    for a, b in zip(model(rows)[0], model(as_arrays)[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.evaluate(rows, rows) == model.evaluate(as_arrays, as_arrays)


def test_padding_of_any_value_changes_nothing(rng):
    model, _ = make("features", dropout=0.0)
    x, y = some_data(rng, model, True)
    before = model.loss_and_gradients(x, y, lengths=[4, 1, 3])
    x[1, 1:], y[1, 1:] = np.nan, 0
    after = model.loss_and_gradients(x, y, lengths=[4, 1, 3])
    assert after.loss == before.loss
    np.testing.assert_array_equal(after.gradients.flat, before.gradients.flat)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ids_and_one_hot_rows_give_the_same_numbers(rng, dtype):
    model, _ = make("ids", dtype, num_layers=2)
    x, y = some_data(rng, model, False)
    np.testing.assert_array_equal(model(x)[0], model(data.one_hot(x, V, dtype))[0])
    a, b = model.loss_and_gradients(x, y), model.loss_and_gradients(data.one_hot(x, V, dtype), y)
    assert a.loss == b.loss
    np.testing.assert_allclose(a.gradients.flat, b.gradients.flat, rtol=1e-4, atol=1e-7)


def test_outputs_follow_the_equations(rng):
    model, _ = make("embedding")
    x, _ = some_data(rng, model, False)
    rows = model.parameters["embedding.weight"][x]
    h, _ = model.lstm(rows)
    expected = h @ model.parameters["head.weight"].T + model.parameters["head.bias"]
    np.testing.assert_allclose(model(x)[0], expected, rtol=1e-12)
    np.testing.assert_allclose(model(x[0])[0], expected[0], rtol=1e-12)
    ragged, final = model(x, lengths=[2, 4, 1])
    np.testing.assert_array_equal(final.h, model.lstm(rows, lengths=[2, 4, 1])[1].h)
    np.testing.assert_allclose(ragged[0, :2], expected[0, :2], rtol=1e-12)
    assert not ragged[0, 2:].any() and not ragged[2, 1:].any()
    np.testing.assert_array_equal(model.predict(x), expected.argmax(axis=2))
    p = model.predict_proba(x)
    np.testing.assert_allclose(p, np.exp(expected) / np.exp(expected).sum(axis=2, keepdims=True), rtol=1e-12)


def test_last_is_the_final_state_of_both_directions(rng):
    model, _ = make("last, both ways")
    x, _ = some_data(rng, model, False)
    y, state = model.lstm(x, lengths=[2, 4, 3])
    expected = np.concatenate([state.h[2], state.h[3]], axis=1)
    np.testing.assert_array_equal(expected[0, :H], y[0, 1, :H])
    np.testing.assert_array_equal(expected[0, H:], y[0, 0, H:])
    expected = expected @ model.parameters["head.weight"].T + model.parameters["head.bias"]
    np.testing.assert_allclose(model(x, lengths=[2, 4, 3])[0], expected, rtol=1e-12)
    assert model(x[0])[0].shape == (O,)


def test_binary_probabilities(rng):
    model, _ = make("binary")
    x, y = some_data(rng, model, False)
    logits, _ = model(x)
    np.testing.assert_allclose(model.predict_proba(x), 1 / (1 + np.exp(-logits)), rtol=1e-12)
    np.testing.assert_array_equal(model.predict(x), logits > 0)
    assert model.evaluate(x, y)["accuracy"] == np.mean((logits > 0) == (y > 0.5))


@pytest.mark.parametrize("variant", ["ids", "embedding", "features"])
def test_steps_give_what_the_sequence_gives(rng, variant):
    model, features = make(variant)
    x, _ = some_data(rng, model, features)
    expected, _ = model(x)
    state = model.initial_state(3)
    for t in range(4):
        outputs, state = model.step(x[:, t], state)
        np.testing.assert_allclose(outputs, expected[:, t], rtol=1e-12)
    outputs, _ = model.step(x[0, 0], model.initial_state(1))
    np.testing.assert_allclose(outputs, expected[0, 0], rtol=1e-12)


def test_evaluate_by_pieces_equals_the_whole(rng, monkeypatch):
    model = Model(V, H, V, seed=1, dtype="float64")
    x, y = rng.integers(0, V, (2, 7, 50))
    whole = model.evaluate(x, y)
    result = model.loss_and_gradients(x, y)
    assert whole["loss"] == pytest.approx(result.loss, rel=1e-12)
    assert whole["accuracy"] == result.hits / 350 == np.mean(model.predict(x) == y)
    assert whole["perplexity"] == pytest.approx(np.exp(whole["loss"]))
    assert whole["tokens"] == 350
    monkeypatch.setattr("cylstm.batches.AT_ONCE", 20)  # chunks of steps that carry the state
    assert model.evaluate(x, y, batch_size=3)["loss"] == pytest.approx(whole["loss"], rel=1e-12)


def test_evaluate_takes_ragged_lists(rng):
    model = Model(V, H, V, seed=1, dtype="float64")
    x = [rng.integers(0, V, n) for n in (5, 2, 9)]
    y = [rng.integers(0, V, n) for n in (5, 2, 9)]
    expected = [model.evaluate(a, b)["loss"] for a, b in zip(x, y, strict=True)]
    assert model.evaluate(x, y)["loss"] == pytest.approx(np.average(expected, weights=[5, 2, 9]), rel=1e-12)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_independent(rng, clone):
    model, _ = make("embedding", num_layers=2, dropout=0.3)
    x, y = some_data(rng, model, False)
    twin = clone(model)
    same = twin.loss_and_gradients(x, y), model.loss_and_gradients(x, y)
    assert same[0].loss == same[1].loss
    before, _ = model(x)
    twin.fit(x, y, epochs=1, progress=False)
    np.testing.assert_array_equal(model(x)[0], before)
    assert np.abs(twin(x)[0] - before).max() > 1e-5


# --- generate ---------------------------------------------------------------------------------------------------------


def test_greedy_generation_feeds_back_the_argmax():
    model = Model(V, 16, V, seed=3)
    for values in model.parameters.values():
        values *= 4  # far from uniform
    ids = list(model.generate([1, 4, 2], 12, temperature=0))
    text = [1, 4, 2]
    for token in ids:
        assert token == model(np.array(text))[0][-1].argmax()
        text.append(token)
    assert len(ids) == 12 and len(set(ids)) > 1


def test_generation_is_seeded_and_lazy():
    model = Model(V, 16, V, seed=3)
    assert list(model.generate([1], 50, seed=5)) == list(model.generate([1], 50, seed=5))
    assert list(model.generate([1], 50, seed=5)) != list(model.generate([1], 50, seed=6))
    endless = model.generate([1], 10**12, seed=5)
    assert [next(endless) for _ in range(3)] == list(model.generate([1], 3, seed=5))
    assert list(model.generate([1], 0)) == []


def test_generation_stops_at_a_stop_id():
    model = Model(V, 16, V, seed=3)
    ids = list(model.generate([1], 200, seed=5))
    assert list(model.generate([1], 200, seed=5, stop=3)) == ids[: ids.index(3)]
    first = min(ids.index(3), ids.index(0))
    assert list(model.generate([1], 200, seed=5, stop=[3, 0])) == ids[:first]


def test_sampling_draws_from_the_distribution_it_says():
    from cylstm.text.sampling import Sampler

    logits = np.log([0.5, 0.05, 0.25, 0.2])
    np.testing.assert_allclose(Sampler().probabilities(logits), [0.5, 0.05, 0.25, 0.2], rtol=1e-12)
    hot = np.array([0.5, 0.05, 0.25, 0.2]) ** 2
    np.testing.assert_allclose(Sampler(temperature=0.5).probabilities(logits), hot / hot.sum(), rtol=1e-12)
    np.testing.assert_allclose(Sampler(top_k=2).probabilities(logits), [2 / 3, 0, 1 / 3, 0], rtol=1e-12)
    np.testing.assert_allclose(Sampler(top_p=0.6).probabilities(logits), [2 / 3, 0, 1 / 3, 0], rtol=1e-12)
    np.testing.assert_allclose(Sampler(top_p=0.5).probabilities(logits), [1, 0, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(Sampler(temperature=0).probabilities(logits), [1, 0, 0, 0])
    draw = Sampler(seed=1)
    counts = np.bincount([draw(logits) for _ in range(20_000)], minlength=4) / 20_000
    np.testing.assert_allclose(counts, [0.5, 0.05, 0.25, 0.2], atol=0.015)


def test_a_prompt_can_be_text_where_there_is_a_vocabulary():
    vocabulary = Vocabulary.from_text("hello world", "char")
    size = len(vocabulary)
    model = Model(size, 8, size, seed=1, vocabulary=vocabulary)
    assert list(model.generate("hello", 5, seed=2)) == list(model.generate(vocabulary.encode("hello"), 5, seed=2))
    with pytest.raises(TypeError, match="prompt: expected ids for a model without a vocabulary"):
        Model(V, H, V).generate("hello", 5)


# --- what a caller can get wrong --------------------------------------------------------------------------------------

X, Y = np.random.default_rng(4).integers(0, V, (3, 4)), np.random.default_rng(5).integers(0, O, (3, 4))


@pytest.mark.parametrize(("options", "error", "message"), [
    (dict(loss="hinge"), ValueError, "loss: expected one of 'cross_entropy', 'mse', .*, got str 'hinge'"),
    (dict(output="first"), ValueError, "output: expected one of 'sequence', 'last'"),
    (dict(embedding_size=0), ValueError, "embedding_size: expected an integer >= 1, got 0"),
    (dict(dtype="int32"), ValueError, "dtype: expected 'float32' or 'float64'"),
    (dict(dropout=-0.1), ValueError, r"dropout: expected a number in \[0, 1\)"),
    (dict(vocabulary="abc"), TypeError, "vocabulary: expected a Vocabulary"),
    (dict(vocabulary=Vocabulary("abc")), ValueError, "vocabulary: expected 5 tokens, one per id, got 3"),
])  # fmt: skip
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        Model(V, H, O, **options)


@pytest.mark.parametrize("method", ["loss_and_gradients", "evaluate"])
@pytest.mark.parametrize(("x", "y", "lengths", "error", "message"), [
    (X, Y[:, :3], None, ValueError, r"y: expected \(3, 4\), got \(3, 3\)"),
    (X, Y + 0.5, None, TypeError, "y: expected integer"),
    (X, Y + O, None, ValueError, r"y\[0, 0\]: expected ids in 0..5, got"),
    (X + V, Y, None, ValueError, r"x\[0, 0\]: expected ids in 0..4, got"),
    (X - V, Y, None, ValueError, r"x\[0, 0\]: expected ids in 0..4, got -"),
    (X, Y, [4, 5, 1], ValueError, r"lengths\[1\]: expected a length in 0..4, got 5"),
    (X, Y, [4, 3], ValueError, r"lengths: expected \(3,\), got \(2,\)"),
    (np.full((3, 4, V + 1), 0.5), Y, None, ValueError, rf"x: expected \(B, T, {V}\)"),
    (X * 1j, Y, None, TypeError, "x: expected floating-point numbers"),
])  # fmt: skip
def test_bad_data_are_named(method, x, y, lengths, error, message):
    with pytest.raises(error, match=message):
        getattr(Model(V, H, O, seed=1), method)(x, y, lengths=lengths)


def test_more_bad_calls_are_named():
    model = Model(V, H, V, seed=1)
    for arguments, error, message in [
        (dict(prompt=[], length=3), (TypeError, ValueError), "prompt: expected"),
        (dict(prompt=[V], length=3), ValueError, r"prompt\[0\]: expected ids in 0..4, got 5"),
        (dict(prompt=[1], length=-1), ValueError, "length: expected an integer >= 0"),
        (dict(prompt=[1], length=3, temperature=-1), ValueError, "temperature: expected a number"),
        (dict(prompt=[1], length=3, top_k=0), ValueError, "top_k: expected an integer >= 1"),
        (dict(prompt=[1], length=3, top_p=1.5), ValueError, "top_p: expected a number"),
        (dict(prompt=[1], length=3, stop=9), ValueError, "stop: expected ids in 0..4, got 9"),
    ]:
        with pytest.raises(error, match=message):
            model.generate(**arguments)
    with pytest.raises(ValueError, match="generate: expected as many outputs as inputs"):
        Model(V, H, O).generate([1], 3)
    with pytest.raises(ValueError, match="generate: expected a model of one direction"):
        Model(V, H, V, bidirectional=True).generate([1], 3)
    with pytest.raises(ValueError, match="predict_proba: expected a model with probabilities"):
        Model(V, H, O, loss="mse").predict_proba(X)
    with pytest.raises(ValueError, match=r"y: expected \(4,\), got \(3,\)"):
        model.loss_and_gradients(X[0], Y[:, 0] % V)
    with pytest.raises(TypeError, match="x: expected integer ids"):
        Model(V, H, O, embedding_size=3)(np.full((2, 3, V), 0.5))
    with pytest.raises(ValueError, match=r"x: expected ids \(B, T\) or \(T,\), got \(1, 3, 4\)"):
        Model(V, H, O, embedding_size=3)(X[None])
    with pytest.raises(TypeError, match="stop: expected integer ids, got float64"):
        model.generate([1], 3, stop=1.5)
    with pytest.raises(ValueError, match=r"out: expected Parameters\(.*float32\), got Parameters\(.*float64\)"):
        model.loss_and_gradients(X, X % V, out=Model(V, H, V, dtype="float64").parameters)


@pytest.mark.parametrize(("y", "error", "message"), [
    (np.full((3, 4, 2), 1.5), ValueError, r"y\[0, 0, 0\]: expected a target in \[0, 1\], got 1.5"),
    (np.full((3, 4, 2), -1), ValueError, r"y\[0, 0, 0\]: expected a target in \[0, 1\], got -1"),
    (np.full((3, 4, 2), 1j), TypeError, "y: expected numbers, got complex128"),
    (np.full((3, 4, 2), "1"), TypeError, "y: expected numbers, got <U1"),
])  # fmt: skip
@pytest.mark.parametrize("method", ["loss_and_gradients", "evaluate", "fit"])
def test_bad_targets_of_other_losses_are_named(method, y, error, message):
    with pytest.raises(error, match=message):
        getattr(Model(V, H, 2, loss="binary_cross_entropy"), method)(X, y)


def test_bad_data_change_nothing():
    """Neither the gradients' buffer nor the generator that dropout draws from."""
    model = Model(V, H, O, num_layers=2, dropout=0.5, seed=1)
    out = model.loss_and_gradients(X, Y).gradients
    before, generator = out.flat.copy(), model.rng.bit_generator.state
    for x, y, lengths in [(X + V, Y, None), (X, Y + O, None), (X, Y[:2], None), (X, Y, [1, 2, 5])]:
        with pytest.raises(ValueError, match="expected"):
            model.loss_and_gradients(x, y, lengths=lengths, out=out)
    np.testing.assert_array_equal(out.flat, before)
    assert model.rng.bit_generator.state == generator


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_list_of_arrays_is_a_ragged_batch(rng, variant):
    model, features = make(variant)
    x, _ = some_data(rng, model, features)
    rows = [x[0], x[1, :1], x[2, :3]]
    methods = [lambda x: model(x)[0], model.predict] + [model.predict_proba] * (model.loss.probabilities is not None)
    for method in methods:
        outputs = method(rows)
        for output, row in zip(outputs, rows, strict=True):
            np.testing.assert_allclose(output, method(row), rtol=1e-12)
            assert output.shape == method(row).shape
    with pytest.raises(ValueError, match="lengths: expected none with a list"):
        model(rows, lengths=[4, 1, 3])


def test_generation_from_weights_that_are_no_numbers_is_said_so():
    model = Model(V, H, V, seed=1)
    model.parameters["head.bias"][2] = np.nan
    for temperature in (0, 1):
        with pytest.raises(ValueError, match="logits: expected finite numbers, got nan"):
            next(model.generate([1], 3, temperature=temperature))


def test_a_memory_map_is_evaluated_in_bounded_memory(tmp_path, rng):
    rng.integers(0, V, 1_000_000, dtype=np.uint8).tofile(tmp_path / "ids")
    mapped = np.memmap(tmp_path / "ids", np.uint8, "r")
    x, y = data.streams(mapped, 100)
    model = Model(V, 1, V, seed=1)
    steps = []

    def embed(x, plan):
        steps.append(np.shares_memory(x, mapped))
        return x

    model.embed = embed
    model.evaluate(x, y)
    assert len(steps) > 1 and all(steps)
