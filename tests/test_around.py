"""Dense layers and embeddings of columns: arguments, initial weights, files, training, and what is refused."""

import copy
import pickle
import re

import numpy as np
import pytest
from by_numpy import ByNumpy

from cylstm import LSTM, Adam, AdamW, Dense, Model, batches, data, maps
from cylstm.model_parameters import layout_of
from cylstm.tensor_files import write_tensors

I, H, O, B, T = 4, 6, 3, 5, 7
AROUND = dict(
    embeddings={3: (6, 3), 1: (9, 2)}, before=[Dense(7, "tanh", 0.3), 5], after=[Dense(6, "silu", bias=False)]
)
NAMES = ["embeddings.1.weight", "embeddings.3.weight", "before.0.weight", "before.0.bias", "before.1.weight",
         "before.1.bias", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_l0", "after.0.weight", "head.weight",
         "head.bias"]  # fmt: skip


def made(**options):
    return Model(I, H, O, **{"loss": "mse", "dtype": "float64", "seed": 1, **AROUND, **options})


def some_data(rng, model, rows=B):
    x = rng.standard_normal((rows, T, model.input_size))
    for column, (V, _) in model.embeddings.items():
        x[..., column] = rng.integers(0, V, (rows, T))
    return x, rng.standard_normal((rows, O) if model.output == "last" else (rows, T, O))


# --- embeddings of columns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64", "uint8", ">f4"])
def test_a_column_gives_way_to_its_row_of_a_table(rng, kind):
    """The other columns first, then the rows, whatever the order in which the tables were given."""
    model = Model(I, H, O, loss="mse", dtype="float64", seed=1, embeddings=AROUND["embeddings"])
    x = np.stack([rng.integers(0, 5, (B, T)), rng.integers(0, 9, (B, T)), rng.integers(0, 3, (B, T)),
                  rng.integers(0, 6, (B, T))], axis=2).astype(kind)  # fmt: skip
    tables = [model.parameters[f"embeddings.{n}.weight"] for n in (1, 3)]
    features = np.concatenate([x[..., [0, 2]].astype(float), *(
        table[x[..., n].astype(int)] for table, n in zip(tables, (1, 3), strict=True))], axis=2)  # fmt: skip
    layer = LSTM(7, H, dtype="float64", parameters=model.parameters.child("lstm."), seed=1)
    model = pickle.loads(pickle.dumps(model))  # whose weights the layer has not drawn anew
    np.testing.assert_array_equal(model.embed(x), features)
    np.testing.assert_array_equal(model.lstm(features)[0], model.lstm(model.embed(x))[0])
    assert layer.input_size == model.lstm.input_size == 7
    y = rng.standard_normal((B, T, O))
    _, gradients, _ = ByNumpy(model).loss_and_gradients(list(x.astype(float)), list(y))
    for name, values in model.loss_and_gradients(x, y).gradients.items():
        np.testing.assert_allclose(values, gradients[name], rtol=1e-9, atol=1e-13, err_msg=name)
    np.testing.assert_array_equal(model(x[2])[0], model(x)[0][2])


def test_every_column_may_be_one(rng):
    model = Model(2, H, O, loss="mse", dtype="float64", seed=1, embeddings={0: (4, 3), 1: (5, 2)})
    x, y = some_data(rng, model)
    _, gradients, _ = ByNumpy(model).loss_and_gradients(list(x), list(y))
    for name, values in model.loss_and_gradients(x.astype(int), y).gradients.items():
        np.testing.assert_allclose(values, gradients[name], rtol=1e-9, atol=1e-13, err_msg=name)
    assert not model.backward(model.forward(x)[2], y).x.any()


@pytest.mark.parametrize("wrong", [2.5, -1.0, 9.0, np.nan, np.inf, -np.inf])
def test_what_is_no_id_is_refused_by_place(rng, monkeypatch, wrong):
    model = made()
    x, y = some_data(rng, model)
    x[3, 5, 1], text = wrong, re.escape(f"expected an id in 0..8, got {wrong}")
    for call in (model, model.forward, model.predict, lambda x: model.loss_and_gradients(x, y),
                 lambda x: model.evaluate(x, y), lambda x: model.fit(x, y, progress=False)):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^x\[3, 5, 1\]: {text}"):
            call(x)
    with pytest.raises(ValueError, match=rf"^x_t\[3, 1\]: {text}"):
        model.step(x[:, 5], None)
    with pytest.raises(ValueError, match=rf"^x_t\[1\]: {text}"):
        model.step(x[3, 5], None)
    for call in (model, model.forward, lambda x: model.loss_and_gradients(x, y[3])):
        with pytest.raises(ValueError, match=rf"^x\[5, 1\]: {text}"):
            call(x[3])
    rows = [row[: 7 - n] for n, row in enumerate(x[::-1])]
    for call in (model, lambda x: model.loss_and_gradients(x, [row[: 7 - n] for n, row in enumerate(y)])):
        with pytest.raises(ValueError, match=rf"^x\[1\]\[5, 1\]: {text}"):
            call(rows)
    with pytest.raises(ValueError, match=rf"^validation x\[3, 5, 1\]: {text}"):
        model.fit(np.zeros_like(x), y, validation=(x, y), progress=False)
    monkeypatch.setattr(batches, "AT_ONCE", 2 * T)  # in parts, whose own places nobody knows
    monkeypatch.setattr(maps, "AT_ONCE", 2 * T)
    for call in (model, model.predict, lambda x: model.loss_and_gradients(x, y)):
        with pytest.raises(ValueError, match=rf"^x\[3, 5, 1\]: {text}"):
            call(x)
    mask = np.ones((B, T), bool)
    mask[2, 1] = False
    with pytest.raises(ValueError, match=rf"^x\[3, 5, 1\]: {text}"):
        model(x, mask=mask)
    with pytest.raises(ValueError, match=rf"^x\[3, 5, 1\]: {text}"):
        model(x, lengths=[7, 7, 7, 6, 7])
    for call in (model, Model(I, H, O, loss="ctc", embeddings=AROUND["embeddings"]).predict):
        for given, masks, place in ((x, mask, r"\[3, 5, 1\]"), (x[3], mask[3], r"\[5, 1\]"),
                                    (list(x), list(mask), r"\[3\]\[5, 1\]")):  # fmt: skip
            with pytest.raises(ValueError, match=f"^x{place}: {text}"):
                call(given, mask=masks)
    mask[3, 5] = False
    lengths = [7, 7, 7, 5, 7]
    assert np.isfinite(model(x, mask=mask)[0]).all() and np.isfinite(model(x, lengths=lengths)[0]).all()
    assert np.isfinite(model.forward(x, lengths=lengths)[0]).all()
    assert np.isfinite(model.loss_and_gradients(x, y, mask=mask).loss)
    assert np.isfinite(model.evaluate(x, y, lengths=lengths)["loss"])


def test_integers_that_are_no_ids_are_refused_too(rng):
    model = made()
    x = np.abs(some_data(rng, model)[0]).astype(int)
    x[2, 1, 3] = 6
    with pytest.raises(ValueError, match=r"^x\[2, 1, 3\]: expected an id in 0..5, got 6$"):
        model(x)


def test_a_type_that_cannot_hold_the_ids_is_refused(rng):
    model = Model(2, 4, O, loss="mse", seed=1, embeddings={1: (3000, 1)})
    x = np.full((2, 3, 2), 2999.0)
    outputs, _ = model(x)
    np.testing.assert_array_equal(model(x.astype("float32"))[0], outputs)
    for call in (model, model.forward, lambda x: model.evaluate(x, np.zeros((2, 3, O), "f4"))):
        with pytest.raises(TypeError, match=r"^x: expected a type that holds ids up to 2999, got float16"):
            call(x.astype("float16"))


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, error, message", [
    (dict(before=5), TypeError, "before: expected a list of Dense layers, got int 5"),
    (dict(after="relu"), TypeError, "after: expected a list of Dense layers, got str 'relu'"),
    (dict(after=Dense(3)), TypeError, "after: expected a list of Dense layers, got Dense"),
    (dict(before=[4, 0]), ValueError, r"before\[1\].size: expected an integer >= 1, got 0"),
    (dict(before=[True]), TypeError, r"before\[0\].size: expected an integer, got bool True"),
    (dict(before=[{"size": 4, "activation": "mish"}]), ValueError, r"before\[0\].activation: expected one of 'linear'"),
    (dict(after=[{"size": 4, "dropout": 1.0}]), ValueError, r"after\[0\].dropout: expected a number in \[0, 1\), got"),
    (dict(after=[{"units": 4}]), TypeError, r"after\[0\]: expected a dict of size, activation, dropout, bias, got"),
    (dict(embeddings=[(4, 2)]), TypeError, r"embeddings: expected a dict {column: \(V, E\)}, got list"),
    (dict(embeddings={4: (5, 2)}), ValueError, r"embeddings: expected each column once, in 0..3, got int 4"),
    (dict(embeddings={"0": (5, 2), 0: (5, 2)}), ValueError, r"embeddings: expected each column once, in 0..3, got"),
    (dict(embeddings={-1: (5, 2)}), ValueError, r"embeddings: expected an integer >= 0, got -1"),
    (dict(embeddings={1: 5}), TypeError, r"embeddings\[1\]: expected \(V, E\), got int 5"),
    (dict(embeddings={1: (5, 0)}), ValueError, r"embeddings\[1\]: expected an integer >= 1, got 0"),
    (dict(embeddings={1: (5, 2)}, embedding_size=3), ValueError,
     r"embeddings: expected none beside embedding_size, whose inputs are ids \(B, T\), got {1: \(5, 2\)}"),
])  # fmt: skip
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        Model(I, H, O, **arguments)


def test_a_layer_is_what_it_was_made_with():
    layer = Dense(np.int64(4), dropout=0)
    assert (layer, layer.config) == (
        Dense(4, "relu", 0.0, True),
        dict(size=4, activation="relu", dropout=0.0, bias=True),
    )
    with pytest.raises(AttributeError):
        layer.size = 5
    for given in (layer, 4, layer.config):
        assert Model(I, H, O, before=[given]).before == (layer,)
    model = made()
    for name in ("before", "after", "embeddings", "inputs", "behind"):
        with pytest.raises(AttributeError, match=f"{name}: expected to stay"):
            setattr(model, name, ())
    with pytest.raises(TypeError):
        model.embeddings[0] = (3, 4)


def test_wrong_inputs_are_named(rng):
    model, plain = made(), Model(I, H, O, loss="mse", before=[5])
    x, y = some_data(rng, model)
    ids = np.zeros((B, T), int)
    ways = [lambda model: model, lambda model: model.forward, lambda model: lambda x: model.loss_and_gradients(x, y)]
    for way in ways:
        with pytest.raises(
            TypeError, match=r"^x: expected floating-point numbers \(ids need an embedding before dense "
        ):
            way(plain)(ids)
        with pytest.raises(TypeError, match=r"^x: expected floating-point numbers or integers, got bool"):
            way(model)(x > 0)
        for wrong in (x[..., :3], x[:0], x[None]):
            with pytest.raises(ValueError, match=r"^x: expected"):
                way(model)(wrong)
    with pytest.raises(
        TypeError, match=r"^x: expected floating-point numbers \(ids need an embedding before dense layer"
    ):
        plain(ids, lengths=[7, 1, 2, 3, 4])
    with pytest.raises(ValueError, match=r"^x_t: expected \(B, 4\) or \(4,\), got \(5, 3\)"):
        model.step(x[:, 0, :3], None)
    with pytest.raises(ValueError, match=r"^x: expected \(B, T, 4\) or \(T, 4\), none of them 0, got \(0, 7, 4\)"):
        model(x[:0])
    with pytest.raises(ValueError, match="generate: expected a model of ids, got one of numbers"):
        Model(3, H, 3, before=[4]).generate([1, 2], 3)


@pytest.mark.parametrize("around", [dict(before=[4]), dict(embeddings={1: (5, 2)}), dict(embedding_size=3, before=[4])])
def test_ids_never_go_into_the_layer_behind_these(around):
    model = Model(I, H, I, **around)
    for layer in (
        model.lstm,
        copy.deepcopy(model).lstm,
        copy.deepcopy(model.lstm),
        pickle.loads(pickle.dumps(model)).lstm,
    ):
        for call in (layer, layer.forward, lambda ids, layer=layer: layer.step(ids[0], None)):
            with pytest.raises(
                TypeError, match=r"expected what the model makes of its inputs, . floating-point numbers"
            ):
                call(np.zeros((2, 3), int))
    assert not Model(I, H, I, after=[4]).lstm.embedded


# --- weights ----------------------------------------------------------------------------------------------------------


def test_names_and_shapes():
    shapes = [(9, 2), (6, 3), (7, 7), (7,), (5, 7), (5,), (24, 5), (24, 6), (24,), (6, 6), (3, 6), (3,)]
    model = made()
    assert list(model.parameters.layout.items()) == list(zip(NAMES, shapes, strict=True))
    options = dict(embeddings={"1": [9, 2], 3: (6, 3)}, before=model.config["before"], after=model.after)
    assert layout_of(I, H, model.heads, **options) == model.parameters.layout


def test_initial_weights(rng):
    """Those of a model without are the same with them; those of dense layers are as `Dense` says."""
    for options in (dict(), dict(embedding_size=5, num_layers=2, bidirectional=True)):
        plain, dense = (Model(I, H, O, seed=3, after=after, **options) for after in ((), [40, O]))
        for name, values in plain.parameters.items():
            if name != "head.weight":
                np.testing.assert_array_equal(dense.parameters[name], values)
    layers = [Dense(300, activation) for activation in ("relu", "tanh", "silu", "linear", "softsign", "gelu_tanh")]
    model = Model(200, H, O, seed=3, before=layers, embeddings={0: (500, 101)})
    for n, bound in enumerate(np.sqrt([6 / 300, 3 / 300, 6 / 300, 3 / 300, 3 / 300, 6 / 300])):
        values = model.parameters[f"before.{n}.weight"]
        assert values.shape == (300, 300) and not model.parameters[f"before.{n}.bias"].any()
        assert 0.999 * bound < np.abs(values).max() <= bound and abs(values.mean()) < 0.01 * bound
        assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.01)
    assert model.parameters["embeddings.0.weight"].std() == pytest.approx(1, rel=0.02)
    again = Model(200, H, O, seed=3, before=layers, embeddings={0: (500, 101)})
    np.testing.assert_array_equal(again.parameters.flat, model.parameters.flat)


def test_some_weights_stay_or_shrink_by_their_names(rng):
    model = made()
    x, y = some_data(rng, model)
    before = {name: values.copy() for name, values in model.parameters.items()}
    model.fit(x, y, epochs=1, progress=False, trainable=["before.0.*", "after.*", "embeddings.3.weight"])
    changed = [name for name, values in model.parameters.items() if not np.array_equal(values, before[name])]
    assert changed == ["embeddings.3.weight", "before.0.weight", "before.0.bias", "after.0.weight"]
    model.fit(
        x, y, epochs=1, progress=False, optimizer=AdamW(weight_decay={"before.*.weight": 0.1, "after.0.weight": 0.2})
    )


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [AROUND, dict(embeddings={}, embedding_size=3, before=[4]), {"output": "last"}])
def test_files_and_copies_have_all_of_it(tmp_path, rng, options):
    model = made(**options)
    x, y = some_data(rng, model)
    if model.embedding_size is not None:
        x = rng.integers(0, I, (B, T))
    model.save(tmp_path / "m")
    model.fit(x, y, epochs=1, progress=False, checkpoint=tmp_path / "c")
    saved, kept = Model.load(tmp_path / "m"), Model.from_checkpoint(tmp_path / "c")
    model.parameters.flat = kept.parameters.flat
    for other in (saved, kept, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.config == model.config and repr(other) == repr(model)
        assert (other.before, other.after, other.embeddings) == (model.before, model.after, model.embeddings)
        if other is not saved:
            np.testing.assert_array_equal(other(x)[0], model(x)[0])
    twin = copy.deepcopy(model)
    twin.rng = copy.deepcopy(model.rng)
    np.testing.assert_array_equal(
        twin.loss_and_gradients(x, y).gradients.flat, model.loss_and_gradients(x, y).gradients.flat
    )
    again = eval(repr(model), {"Model": Model})
    assert again.parameters.layout == model.parameters.layout and again.config == model.config


def test_a_model_without_them_has_no_word_of_them():
    """So that older versions read its file."""
    assert not {"before", "after", "embeddings"} & set(Model(I, H, O).config)


@pytest.mark.parametrize("changes", [
    dict(before=[10**15]), dict(before=[{"size": 7, "activation": "mish"}]), dict(before=3), dict(before=[10**400]),
    dict(before=[{"size": 7, "dropout": 10**400}]), dict(after=[[[]]]), dict(embeddings={"3": [10**12, 3]}),
    dict(embeddings={"x": [6, 3]}), dict(embeddings=[3, 6]), dict(embeddings={"3": ["6", 3]}), dict(embedding_size=3),
    dict(after=[]), dict(embeddings={}),
])  # fmt: skip
def test_a_damaged_header_is_said_so(tmp_path, changes):
    model = made()
    header = {**model.header(), "config": {**model.config, **changes}}
    write_tensors(tmp_path / "m", "model", header, {name: model.parameters.raw(name) for name in model.parameters})
    with pytest.raises(ValueError, match="m: expected the header of a cylstm model, got one that is damaged"):
        Model.load(tmp_path / "m")


@pytest.mark.parametrize("tbptt", [None, 3])
def test_a_run_resumes_to_the_same_bits(tmp_path, rng, tbptt):
    options = dict(batch_size=2, tbptt=tbptt, optimizer=Adam(0.01), progress=False)
    lengths = None if tbptt else [7, 2, 5, 7, 1]
    whole, broken, later = made(), made(), made(seed=9)
    x, y = some_data(rng, whole)
    whole.fit(x, y, lengths=lengths, epochs=4, **options)
    broken.fit(x, y, lengths=lengths, epochs=2, checkpoint=tmp_path / "c", **options)
    later.fit(x, y, lengths=lengths, epochs=4, resume=tmp_path / "c", **options)
    np.testing.assert_array_equal(later.parameters.flat, whole.parameters.flat)


def test_a_run_of_another_model_is_not_gone_on_with(tmp_path, rng):
    model = made()
    x, y = some_data(rng, model)
    model.fit(x, y, epochs=1, progress=False, checkpoint=tmp_path / "c")
    for other in (dict(before=[Dense(7, "tanh", 0.2), 5]), dict(after=[Dense(6, "elu", bias=False)]), dict(after=())):
        with pytest.raises(ValueError, match=f"resume: expected the same model as in .*c, with {next(iter(other))}="):
            made(**other).fit(x, y, epochs=2, progress=False, resume=tmp_path / "c")
    plain = Model(I, H, O, loss="mse", dtype="float64", seed=1)
    plain.fit(x, y, epochs=1, progress=False, checkpoint=tmp_path / "c")
    plain.fit(x, y, epochs=2, progress=False, resume=tmp_path / "c")
    with pytest.raises(ValueError, match=r"resume: expected the same model as in .*c, with after=\[\], got \[{"):
        Model(I, H, O, loss="mse", dtype="float64", after=[6]).fit(x, y, progress=False, resume=tmp_path / "c")


# --- text -------------------------------------------------------------------------------------------------------------


def test_text_is_generated_through_them(rng):
    """Greedily, as the logits of the whole say."""
    ids = np.cumsum(rng.integers(1, 3, 2000)) % 7
    model = Model(7, 24, 7, seed=1, embedding_size=5, before=[Dense(12, "gelu_tanh")], after=[Dense(16, "tanh", 0.1)])
    model.fit(*data.streams(ids, 8), tbptt=20, epochs=3, progress=False)
    written = list(model.generate(ids[:9], 12, temperature=0))
    whole = np.concatenate([ids[:9], written])
    assert written == list(model(whole[:-1])[0][8:].argmax(axis=1))
