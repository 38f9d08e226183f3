"""Several heads, each with a loss of its own, and horizons: losses and gradients against models of one head, whose own
are held against the oracle, and against differences."""

import copy
import pickle

import numpy as np
import pytest
from gradcheck import numerical_gradient

from cylstm import SGD, Adam, Head, Model, losses

I, H, B, T = 3, 5, 6, 9
LENGTHS = np.array([9, 3, 0, 1, 6, 9])
HEADS = {
    "kind": Head(4, weight=0.7),
    "size": Head(2, loss="mae", weight=2.0, bias=False),
    "end": Head(6, loss="gaussian", output="last", weight=0.3),
    "next": Head(4, loss=losses.Quantiles([0.2, 0.7]), horizon=3),
    "later": Head(3, output="last", horizon=2, weight=1.5),
    "said": Head(4, loss="ctc", weight=0.1),
}
SHAPES = ["all", "lengths", "left", "holes", "list"]


def several(**options):
    return Model(I, H, HEADS, num_layers=2, bidirectional=True, dtype="float64", seed=2, **options)


def alone(model, name):
    """The head of this name, with the weights that it has among several."""
    head = model.heads[name]
    one = Model(I, H, head.output_size, num_layers=2, bidirectional=True, dtype="float64", loss=head.loss,
                output=head.output, horizon=head.horizon, head_bias=head.bias)  # fmt: skip
    for other, values in one.parameters.items():
        values[...] = model.parameters[other.replace("head.", f"head.{name}.")]
    return one


def some_data(rng, heads, N=B):
    x, y = rng.standard_normal((N, T, I)), {}
    for name, head in heads.items():
        shape = (N,) if head.per_row else (N, T)
        if head.loss.of_rows:
            y[name] = [rng.integers(1, head.output_size, n) for n in (3, 1, 0, 2, 2, 3)]
        elif head.loss.of_classes:
            y[name] = rng.integers(0, head.output_size, shape + head.width)
        else:
            y[name] = rng.standard_normal(shape + head.width)
    return x, y


def some_mask(shape, rng, least=0):
    """(B, T): which steps are real, so many in each row at least."""
    steps = np.arange(T) < np.maximum(LENGTHS, least)[:, None]
    if shape == "holes":
        steps = rng.random((B, T)) < 0.5
        steps[:, 2 : 2 + least] = True
        steps[2, 2 + least :] = steps[2, :2] = False
    return np.ones((B, T), bool) if shape == "all" else steps[:, ::-1] if shape == "left" else steps


def given_as(shape, mask, x, y, heads):
    """x, y and options, as a caller gives them, with what nobody may look at where the mask is false."""
    x = np.where(mask[..., None], x, np.nan)
    y = {name: of if heads[name].per_row else np.where(mask.reshape(B, T, *[1] * (of.ndim - 2)), of, -9)
         for name, of in y.items()}  # fmt: skip
    if shape == "list":
        rows = lambda a: [row[keep] for row, keep in zip(a, mask, strict=True)]  # noqa: E731
        return rows(x), {name: of if heads[name].per_row else rows(of) for name, of in y.items()}, {}
    return x, y, {"lengths": mask.sum(axis=1)} if shape == "lengths" else {} if shape == "all" else {"mask": mask}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("least", [0, 4])  # a row without a step cannot say anything
def test_the_loss_is_the_weighted_sum_of_the_heads(isa, rng, shape, least):
    heads = {name: head for name, head in HEADS.items() if name != "said" or least}
    model = Model(I, H, heads, num_layers=2, bidirectional=True, dtype="float64", seed=2)
    x, y = some_data(rng, heads)
    x, y, options = given_as(shape, some_mask(shape, rng, least), x, y, heads)
    weights = rng.random(B) + 0.1
    expected, gradients, tokens = 0.0, {}, 0
    for name, head in heads.items():
        found = alone(model, name).loss_and_gradients(x, y[name], sample_weight=weights, **options)
        expected += head.weight * found.loss
        tokens += found.tokens
        for own, values in found.gradients.items():
            own = own.replace("head.", f"head.{name}.")
            gradients[own] = gradients.get(own, 0) + head.weight * values
    result = model.loss_and_gradients(x, y, sample_weight=weights, **options)
    assert result.loss == pytest.approx(expected, rel=1e-12) and result.tokens == tokens
    assert result.gradients.keys() == gradients.keys()
    for name, values in gradients.items():
        np.testing.assert_allclose(result.gradients[name], values, rtol=1e-9, atol=1e-12 * np.abs(values).max())
    found = model.evaluate(x, y, sample_weight=weights, batch_size=2, **options)
    assert found["loss"] == pytest.approx(expected, rel=1e-12)
    for name in heads:
        own = alone(model, name).evaluate(x, y[name], sample_weight=weights, **options)
        for key, value in own.items():
            assert found[f"{name}.{key}"] == pytest.approx(value, rel=1e-12), (name, key)


def test_gradients_are_differences(rng):
    model = Model(I, H, HEADS, dtype="float64", seed=4)
    x, y = some_data(rng, HEADS)
    result = model.loss_and_gradients(x, y)
    for name in ("lstm.weight_hh_l0", "head.kind.weight", "head.next.bias", "head.later.weight", "head.said.weight"):
        values = model.parameters[name]
        expected = numerical_gradient(lambda: model.evaluate(x, y)["loss"], values[:2])
        np.testing.assert_allclose(result.gradients[name][:2], expected, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", [name for name, loss in losses.by_name.items() if not loss.of_rows])
@pytest.mark.parametrize("output", ["sequence", "last"])
def test_a_horizon_is_as_many_heads(isa, rng, kind, output):
    """The mean over k groups of outputs is the mean of k means; weights and missing targets are of each group."""
    k, O = 3, 6
    heads = {str(n): Head(O, loss=kind, output=output, weight=1 / k) for n in range(k)}
    model = Model(I, H, O, loss=kind, output=output, horizon=k, dtype="float64", seed=1)
    apart = Model(I, H, heads, dtype="float64")
    for name, values in apart.parameters.items():
        if name.startswith("head."):
            _, n, name = name.split(".")
            values[...] = model.parameters[f"head.{name}"][int(n) * O : (int(n) + 1) * O]
        else:
            values[...] = model.parameters[name]
    x = rng.standard_normal((B, T, I))
    shape = ((B,) if output == "last" else (B, T)) + model.heads[""].width
    y = rng.integers(0, O, shape) if model.loss.of_classes else rng.random(shape)
    at = lambda n: y[:, n] if output == "last" else y[:, :, n]  # noqa: E731
    result = model.loss_and_gradients(x, y, lengths=[9, 3, 2, 1, 6, 9])
    each = apart.loss_and_gradients(x, {str(n): at(n) for n in range(k)}, lengths=[9, 3, 2, 1, 6, 9])
    assert result.loss == pytest.approx(each.loss, rel=1e-12) and result.tokens == each.tokens
    for name, values in each.gradients.items():
        if name.startswith("head."):
            _, n, name = name.split(".")
            found = result.gradients[f"head.{name}"][int(n) * O : (int(n) + 1) * O]
        else:
            found = result.gradients[name]
        np.testing.assert_allclose(found, values, rtol=1e-9, atol=1e-13, err_msg=name)
    assert model.evaluate(x, y)["loss"] == pytest.approx(apart.evaluate(x, {str(n): at(n) for n in range(k)})["loss"])
    outputs = model(x)[0]
    assert outputs.shape == (B, *[T] * (output == "sequence"), k, O)
    np.testing.assert_allclose(outputs[..., 1, :], apart(x)[0]["1"], rtol=1e-12)
    np.testing.assert_array_equal(model(x[0])[0], model(x[:1])[0][0])
    if output == "sequence":
        np.testing.assert_allclose(model.step(x[:, 0], None)[0], outputs[:, 0], rtol=1e-12)


def test_weights_of_a_horizon_and_targets_that_are_missing(rng):
    """A loss by hand: of |output - target| that are there, each with its weight."""
    model = Model(I, H, 1, loss="mae", output="last", horizon=4, dtype="float64", seed=1)
    x, y, w = rng.standard_normal((B, T, I)), rng.standard_normal((B, 4, 1)), rng.random((B, 4))
    y[rng.random(y.shape) < 0.3] = np.nan
    there = ~np.isnan(y[..., 0])
    apart = np.abs(model(x)[0] - y)[..., 0]
    for weights, whole in ((w, w), (w[:, 0], np.repeat(w[:, :1], 4, axis=1)), (None, np.ones((B, 4)))):
        found = model.evaluate(x, y, sample_weight=weights, missing="skip")
        assert found["loss"] == pytest.approx((whole * apart)[there].sum() / whole[there].sum(), rel=1e-12)
        assert found["tokens"] == there.sum()
    with pytest.raises(ValueError, match=r"sample_weight: expected \(6,\) or \(6, 4\), got \(6, 3\)"):
        model.evaluate(x, y, sample_weight=w[:, :3], missing="skip")
    with pytest.raises(ValueError, match=r"y: expected \(6, 4, 1\), got \(6, 3, 1\)"):
        model.evaluate(x, y[:, :3])


def test_windows_fit_a_horizon(rng):
    from cylstm import data

    x, y = data.windows(rng.standard_normal((200, 2)), 12, 5)
    model = Model(2, H, 2, loss="mse", output="last", horizon=5, seed=1)
    history = model.fit(x, y, epochs=2, progress=False)
    assert model.predict(x).shape == y.shape and history.train_loss[1] < history.train_loss[0]


@pytest.mark.parametrize("shape", ["one", "array", "lengths", "mask", "list"])
def test_outputs_are_those_of_each_head(rng, shape):
    model = several()
    x, _ = some_data(rng, HEADS)
    options = {"lengths": LENGTHS} if shape == "lengths" else {}
    if shape == "mask":
        options = {"mask": rng.random((B, T)) < 0.7}
    given = x[0] if shape == "one" else [row[: n + 1] for n, row in enumerate(x)] if shape == "list" else x
    outputs, final = model(given, **options)
    decided, likely = model.predict(given, **options), model.predict_proba(given, **options)
    assert outputs.keys() == decided.keys() == HEADS.keys() and likely.keys() == {"kind", "later", "said"}
    for name in HEADS:
        one = alone(model, name)
        expected, one_final = one(given, **options)
        np.testing.assert_array_equal(np.stack(final), np.stack(one_final))
        pairs = [(outputs[name], expected), (decided[name], one.predict(given, **options))]
        if name in likely:
            pairs.append((likely[name], one.predict_proba(given, **options)))
        for found, wanted in pairs:
            assert isinstance(found, list) == isinstance(wanted, list)
            for row, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(row, other)
    with pytest.raises(ValueError, match="predict_proba: expected a model with probabilities, got one with loss='mse'"):
        Model(I, H, {"a": Head(2, loss="mse")}).predict_proba(x)


def test_steps_are_those_of_the_sequence(rng):
    heads = {name: head for name, head in HEADS.items() if head.kind == "tokens"}
    model = Model(I, H, heads, num_layers=2, dtype="float64", seed=2)
    x = rng.standard_normal((B, T, I))
    outputs, _ = model(x)
    state = None
    for t in range(T):
        found, state = model.step(x[:, t], state)
        for name in heads:
            np.testing.assert_allclose(found[name], outputs[name][:, t], rtol=1e-12)


@pytest.mark.parametrize("shape", ["all", "lengths", "left", "holes"])
def test_a_loss_of_ones_own(isa, rng, shape):
    """The mean of squares, by hand, of some heads."""
    heads = {"size": Head(2, loss="mse", weight=1.0), "end": Head(3, loss="mse", output="last", horizon=2)}
    model = Model(I, H, heads, bidirectional=True, dtype="float64", seed=2)
    x, y = some_data(rng, heads)
    mask = some_mask(shape, rng)
    options = {"lengths": LENGTHS} if shape == "lengths" else {} if shape == "all" else {"mask": mask}
    expected = model.loss_and_gradients(x, y, **options)
    outputs, final, tape = model.forward(x, **options)
    plain, plain_final = model(x, **options)
    for name in heads:
        np.testing.assert_allclose(outputs[name], plain[name], rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(np.stack(final), np.stack(plain_final), rtol=1e-13)
    slopes = {
        "size": 2 * (outputs["size"] - y["size"]) / (mask.sum() * 2),
        "end": (outputs["end"] - y["end"]) / (B * 3),
    }
    slopes["size"][~mask] = np.nan  # which nobody may look at
    found = model.backward(tape, slopes)
    for name, values in expected.gradients.items():
        np.testing.assert_allclose(found.parameters[name], values, rtol=1e-9, atol=1e-13, err_msg=name)
    assert found.x.shape == x.shape and (found.x[~mask] == 0).all()

    def loss():
        outputs, _ = model(x, **options)
        apart = np.where(mask[..., None], outputs["size"] - y["size"], 0)
        return (apart**2).sum() / (mask.sum() * 2) + ((outputs["end"] - y["end"]) ** 2).mean()

    n = 4
    np.testing.assert_allclose(found.x[n], numerical_gradient(loss, x[n]), rtol=1e-6, atol=1e-9)
    with pytest.raises(TypeError, match="d_outputs: expected a dict by head, of size, end, got float64"):
        model.backward(model.forward(x)[2], slopes["size"])
    with pytest.raises(ValueError, match=r"d_outputs\['end'\]: expected \(6, 2, 3\), got \(6, 3\)"):
        model.backward(model.forward(x)[2], {**slopes, "end": slopes["end"][:, 0]})


def test_a_mask_of_one_sequence_and_resets_within_it(rng):
    """forward(mask=) is forward of what is left, and gradients go back to their places."""
    model = Model(I, H, 2, loss="mse", dtype="float64", seed=2)
    x, mask, resets = rng.standard_normal((T, I)), rng.random(T) < 0.6, rng.random(T) < 0.4
    outputs, final, tape = model.forward(x, mask=mask, resets=resets)
    cuts = np.diff(np.cumsum(resets)[mask], prepend=0) > 0
    expected, expected_final, other = model.forward(x[mask], resets=cuts)
    np.testing.assert_array_equal(outputs[mask], expected)
    np.testing.assert_array_equal(np.stack(final), np.stack(expected_final))
    assert (outputs[~mask] == 0).all()
    slopes = rng.standard_normal((T, 2))
    found, wanted = model.backward(tape, slopes), model.backward(other, slopes[mask])
    np.testing.assert_array_equal(found.parameters.flat, wanted.parameters.flat)
    np.testing.assert_array_equal(found.x[mask], wanted.x)
    assert (found.x[~mask] == 0).all() and found.x.shape == x.shape
    with pytest.raises(ValueError, match=r"mask: expected \(9,\), got \(8,\)"):
        model.forward(x, mask=mask[:8])


def test_training_goes_on_from_its_checkpoint(rng, tmp_path):
    heads = {name: head for name, head in HEADS.items() if head.kind == "tokens"}
    x, y = some_data(rng, heads)
    options = dict(batch_size=2, optimizer=Adam(0.01), validation=(x, y), progress=False)
    whole, broken = (Model(I, H, heads, num_layers=2, dropout=0.3, seed=3) for _ in range(2))
    expected = whole.fit(x, y, epochs=3, **options)

    def stop(event):
        if event.update == 4:
            raise KeyboardInterrupt

    path = tmp_path / "run.ckpt"
    from cylstm import Checkpoint

    options["optimizer"] = Adam(0.01)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(x, y, epochs=3, checkpoint=Checkpoint(path, updates=1), callbacks=[stop], **options)
    again = Model.from_checkpoint(path)
    assert again.config == whole.config
    options["optimizer"] = Adam(0.01)
    history = again.fit(x, y, epochs=3, resume=path, **options)
    np.testing.assert_array_equal(again.parameters.flat, whole.parameters.flat)
    assert history.train_loss == expected.train_loss and history.validation_loss == expected.validation_loss
    assert expected.train_loss[-1] < expected.train_loss[0]


def test_what_fit_weighs_and_leaves_out_is_said_by_head(rng):
    heads = {"kind": Head(4), "size": Head(2, loss="mse", weight=0.5)}
    model = Model(I, H, heads, dtype="float64", seed=2)
    x, y = some_data(rng, heads)
    y["kind"][0, :5], y["size"][1, 3] = -100, np.nan
    options = dict(class_weight={"kind": {1: 3.0}}, ignore={"kind": -100}, missing="skip",
                   sample_weight={"size": np.arange(1.0, B + 1)})  # fmt: skip
    found = model.evaluate(x, y, **options)
    names = {"kind": ("class_weight", "ignore"), "size": ("missing", "sample_weight")}
    for name, own in names.items():
        one = Model(I, H, heads[name].output_size, loss=heads[name].loss, dtype="float64")
        for other, values in one.parameters.items():
            values[...] = model.parameters[other.replace("head.", f"head.{name}.")]
        given = {key: options[key][name] if isinstance(options[key], dict) else options[key] for key in own}
        assert found[f"{name}.loss"] == pytest.approx(one.evaluate(x, y[name], **given)["loss"], rel=1e-12)
    history = model.fit(x, y, epochs=2, optimizer=SGD(0.05), progress=False, accumulate=2, batch_size=2, **options)
    assert history.train_loss[1] < history.train_loss[0]


def test_files_and_copies_have_them(rng, tmp_path):
    model = several()
    model.save(tmp_path / "m.safetensors")
    x, _ = some_data(rng, HEADS)
    for other in (Model.load(tmp_path / "m.safetensors"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.heads == model.heads and other.config == model.config
        for name, values in other(x)[0].items():
            np.testing.assert_array_equal(values, model(x)[0][name])
    single = Model(I, H, 2, loss="huber", output="last", horizon=3, head_bias=False)
    single.save(tmp_path / "m.safetensors")
    assert Model.load(tmp_path / "m.safetensors").config == single.config


@pytest.mark.parametrize("arguments, error, message", [
    (dict(output_size={}), ValueError, "output_size: expected at least one head, got none"),
    (dict(output_size={"a.b": 3}), ValueError, "output_size: expected names of heads, without a dot, got str 'a.b'"),
    (dict(output_size={"a": 0}), ValueError, r"output_size\['a'\]: output_size: expected an integer >= 1, got 0"),
    (dict(output_size={"a": Head(3)}, loss="mse"), TypeError, "loss: expected the default with several heads"),
    (dict(output_size={"a": Head(3)}, head_bias=False), TypeError, "head_bias: expected the default with several"),
    (dict(output_size=3, horizon=0), ValueError, "horizon: expected an integer >= 1, got 0"),
    (dict(output_size=3, horizon=2, loss="ctc"), ValueError, "horizon: expected None with loss='ctc', got 2"),
])  # fmt: skip
def test_what_is_no_head_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        Model(I, H, **arguments)


@pytest.mark.parametrize("change, error, message", [
    ({"y": 3}, TypeError, "y: expected a dict of targets for kind, size, got int 3"),
    ({"y": {"kind": 3}}, TypeError, "y: expected a dict of targets for kind, size, got a dict of kind"),
    ({"ignore": 3}, TypeError, "ignore: expected a dict by head, of kind, size, got int 3"),
    ({"sample_weight": {"no": 1}}, TypeError, "sample_weight: expected a dict by head, of kind, size, got dict"),
    ({"sample_weight": {"size": [1.0]}}, ValueError, r"sample_weight\['size'\]: expected \(6,\) or \(6, 9\), "),
    ({"missing": "no"}, ValueError, "missing: expected one of 'error', 'skip', got str 'no'"),
])  # fmt: skip
def test_what_does_not_fit_the_heads_is_named(rng, change, error, message):
    heads = {"kind": Head(4), "size": Head(2, loss="mse")}
    model = Model(I, H, heads)
    x, y = some_data(rng, heads)
    before = model.parameters.flat.copy()
    for call in (model.fit, model.evaluate, model.loss_and_gradients):
        with pytest.raises(error, match=message):
            call(x, **{"y": y, **change})
    with pytest.raises(ValueError, match=r"y\['size'\]\[1, 3, 1\]: expected a finite number, got nan"):
        y["size"][1, 3, 1] = np.nan
        model.evaluate(x, y)
    np.testing.assert_array_equal(model.parameters.flat, before)
    with pytest.raises(
        ValueError, match="generate: expected a model of one direction with cross_entropy at every step"
    ):
        next(model.generate([1], 3))
