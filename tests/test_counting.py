"""Which targets count, and how much: weights of rows, steps and classes, masks, a class to ignore, targets that are
missing; in losses and gradients, in evaluate, in fit."""

import numpy as np
import pytest

from cylstm import SGD, Model, State, losses, oracle

I, H, O, B, T = 3, 7, 6, 5, 8
KINDS = {
    **{name: loss for name, loss in losses.by_name.items() if not loss.of_rows},
    "smoothed": losses.CrossEntropy(smoothing=0.2),
    "median": losses.Quantiles([0.5]),
}
LENGTHS = np.array([8, 3, 0, 1, 6])
SHAPES = ["all", "lengths", "left", "holes", "list"]


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def made(kind, output="sequence", **options):
    return Model(I, H, O, loss=kind, output=output, dtype="float64", seed=3, **options)


def some_data(rng, model, N=B):
    x, loss = rng.standard_normal((N, T, I)), model.loss
    shape = (N,) if model.output == "last" else (N, T)
    return x, rng.integers(0, O, shape) if loss.of_classes else rng.random((*shape, *loss.width(O)))


def some_mask(shape, rng):
    """(B, T): which steps are real."""
    if shape == "all":
        return np.ones((B, T), bool)
    if shape == "holes":
        mask = rng.random((B, T)) < 0.6
        mask[2] = False
        return mask
    steps = np.arange(T) < LENGTHS[:, None]
    return steps[:, ::-1] if shape == "left" else steps


def given_as(shape, mask, x, y, weights=None):
    """x, y and options, as a caller gives them, with what nobody may look at where the mask is false."""
    x = np.where(mask[..., None], x, np.nan)
    if shape == "list":
        rows = lambda a: [row[keep] for row, keep in zip(a, mask, strict=True)]  # noqa: E731
        return rows(x), rows(y), {} if weights is None else {"sample_weight": rows(weights)}
    y = np.where(mask.reshape(mask.shape + (1,) * (y.ndim - 2)), y, -7 if y.dtype.kind == "i" else np.nan)
    options = {"lengths": LENGTHS} if shape == "lengths" else {} if shape == "all" else {"mask": mask}
    if weights is not None:
        options["sample_weight"] = np.where(mask, weights, np.nan)
    return x, y, options


def by_the_oracle(model, x, y, mask, weights=None, resets=None, state=None):
    """The mean loss and its gradients, row by row of what is real."""
    parameters = {name: model.parameters[name] for name in model.parameters}
    inside = {name.removeprefix("lstm."): values for name, values in parameters.items() if name.startswith("lstm.")}
    options = dict(num_layers=model.num_layers, bidirectional=model.bidirectional)
    h, tapes, kept = [], [], [np.flatnonzero(row) for row in mask]
    for n, steps in enumerate(kept):
        if len(steps):
            cuts = None if resets is None else np.diff(np.cumsum(resets[n])[steps], prepend=0)[None] > 0
            start = None if state is None else tuple(part[:, [n]] for part in state)
            out, _, tape = oracle.forward(x[n, steps][None], inside, start, resets=cuts, **options)
            h.append(out[0])
            tapes.append((tape, out.shape))
    h = np.concatenate(h)
    targets = np.concatenate([y[n, steps] for n, steps in enumerate(kept)])
    weights = None if weights is None else np.concatenate([weights[n, steps] for n, steps in enumerate(kept)])
    outputs = h @ parameters["head.weight"].T + parameters["head.bias"]
    names = {"softmax_cross_entropy": "softmax_cross_entropy", "squared_error": "mse", "absolute_error": "mae",
             "pinball": "quantiles"}  # fmt: skip
    function = getattr(oracle, names.get(model.loss.kernel, model.loss.kernel))
    loss, doutputs = function(outputs, targets, weights, **vars(model.loss))
    gradients = {"head.weight": doutputs.T @ h, "head.bias": doutputs.sum(axis=0)}
    dh, at = doutputs @ parameters["head.weight"], 0
    for tape, shape in tapes:
        _, _, found = oracle.backward(tape, dh[at : at + shape[1]].reshape(shape))
        at += shape[1]
        for name, values in found.items():
            gradients[f"lstm.{name}"] = gradients.get(f"lstm.{name}", 0) + values
    return loss, gradients


def check(result, loss, gradients):
    assert result.loss == pytest.approx(loss, rel=1e-11)
    for name, values in result.gradients.items():
        np.testing.assert_allclose(values, gradients[name], rtol=1e-9, atol=1e-12 * np.abs(gradients[name]).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_each_loss_with_weights_on_ragged_batches(rng, kind, shape, weighted):
    model = made(kind, num_layers=2, bidirectional=True)
    x, y = some_data(rng, model)
    mask, weights = some_mask(shape, rng), rng.exponential(2, (B, T)) * (rng.random((B, T)) < 0.8)
    weights = weights if weighted else None
    x_given, y_given, options = given_as(shape, mask, x, y, weights)
    loss, gradients = by_the_oracle(model, x, y, mask, weights)
    result = model.loss_and_gradients(x_given, y_given, **options)
    check(result, loss, gradients)
    real = weights[mask] if weighted else np.ones(mask.sum())
    assert result.tokens == np.count_nonzero(real) and result.weight == pytest.approx(real.sum(), rel=1e-12)
    found = model.evaluate(x_given, y_given, batch_size=2, **options)
    assert found["loss"] == pytest.approx(loss, rel=1e-11) and found["tokens"] == result.tokens


@pytest.mark.parametrize("shape", SHAPES)
def test_missing_targets_are_left_out_number_by_number(rng, kind, shape):
    if kind.of_classes:
        with pytest.raises(
            TypeError, match=r"missing: expected 'error' with loss='cross_entropy', .*`ignore`.*got 'skip'"
        ):
            made(kind).evaluate(*some_data(rng, made(kind)), missing="skip")
        return
    model = made(kind)
    x, y = some_data(rng, model)
    mask, weights = some_mask(shape, rng), rng.exponential(2, (B, T))
    y[rng.random(y.shape) < 0.3] = np.nan
    y[0, :2] = np.nan
    x_given, y_given, options = given_as(shape, mask, x, y, weights)
    loss, gradients = by_the_oracle(model, x, y, mask, weights)
    check(model.loss_and_gradients(x_given, y_given, missing="skip", **options), loss, gradients)
    found = model.evaluate(x_given, y_given, missing="skip", batch_size=2, **options)
    assert found["loss"] == pytest.approx(loss, rel=1e-11)
    assert found["tokens"] == (~np.isnan(y[mask]).all(axis=-1)).sum()
    before = model.parameters.flat.copy()
    name = r"y\[0\]\[0, 0\]" if shape == "list" else r"y\[\d+, \d+, 0\]"
    for call in (model.loss_and_gradients, model.evaluate, model.fit):
        with pytest.raises(ValueError, match=rf"{name}: expected a finite number, got nan"):
            call(x_given, y_given, **options)
    np.testing.assert_array_equal(model.parameters.flat, before)


@pytest.mark.parametrize("output", ["sequence", "last"])
@pytest.mark.parametrize("ignore", [-100, 2])
@pytest.mark.parametrize("smoothing", [0, 0.3])
def test_a_class_to_ignore_and_weights_of_classes(rng, output, ignore, smoothing):
    model = made(losses.CrossEntropy(smoothing=smoothing), output)
    x, y = some_data(rng, model, 20)
    y[::3] = ignore
    w = np.array([0.5, 2, 1, 1, 0, 3])
    each = np.where(y == ignore, 0, w[y.clip(0)])
    plain = np.where(y == ignore, 0, y)
    expected = model.loss_and_gradients(x, plain, sample_weight=each)
    by_class = {0: 0.5, 1: 2.0, 4: 0, 5: np.float32(3)}
    result = model.loss_and_gradients(x, y, ignore=ignore, class_weight=by_class)
    assert result[0] == pytest.approx(expected[0], rel=1e-13) and result[3:] == expected[3:]
    np.testing.assert_allclose(result.gradients.flat, expected.gradients.flat, rtol=1e-9, atol=1e-14)
    assert model.evaluate(x, y, ignore=ignore, class_weight=by_class) == model.evaluate(x, plain, sample_weight=each)
    counts = np.bincount(y[y != ignore], minlength=O)
    balanced = np.divide((y != ignore).sum() / (counts > 0).sum(), counts, out=np.ones(O), where=counts > 0)
    got = model.evaluate(x, y, ignore=ignore, class_weight="balanced")
    by_hand = model.evaluate(x, y, ignore=ignore, class_weight=dict(enumerate(balanced)))
    assert got == pytest.approx(by_hand, rel=1e-12)
    hits = model.predict(x) == y
    each = np.where(y == ignore, 0, balanced[y.clip(0)])
    assert got["accuracy"] == pytest.approx((hits * each).sum() / each.sum())
    if ignore < 0:
        with pytest.raises(ValueError, match=r"y\[0(, 0)?\]: expected ids in 0\.\.5, got -100"):
            model.evaluate(x, y)


def test_weights_of_the_two_classes_of_one_output(rng):
    model = Model(I, H, 1, loss="binary_cross_entropy", dtype="float64", seed=1)
    x, y = rng.standard_normal((B, T, I)), (rng.random((B, T, 1)) < 0.2).astype(float)
    expected = model.evaluate(x, y, sample_weight=np.where(y[..., 0] > 0, 5.0, 1.0))
    assert model.evaluate(x, y, class_weight={1: 5.0}) == expected
    n = y.mean()
    assert model.evaluate(x, y, class_weight="balanced") == pytest.approx(
        model.evaluate(x, y, class_weight={0: 0.5 / (1 - n), 1: 0.5 / n}), rel=1e-12)  # fmt: skip


@pytest.mark.parametrize("shape", ["lengths", "left", "holes"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_mask_with_resets_and_states(rng, shape, bidirectional):
    """A reset of a step that is left out comes with the next that is not; states are those of the rows."""
    model = made("mse", bidirectional=bidirectional)
    x, y = some_data(rng, model)
    mask, resets = some_mask(shape, rng), rng.random((B, T)) < 0.3
    state = State(*rng.standard_normal((2, 1 + bidirectional, B, H)))
    x_given, y_given, options = given_as(shape, mask, x, y)
    options |= dict(resets=resets, state=state)
    loss, gradients = by_the_oracle(model, x, y, mask, None, resets, state)
    check(model.loss_and_gradients(x_given, y_given, **options), loss, gradients)
    assert model.evaluate(x_given, y_given, batch_size=3, **options)["loss"] == pytest.approx(loss, rel=1e-11)
    outputs, final = model(x_given, state, resets=resets, mask=mask)
    assert np.mean((outputs - y)[mask] ** 2) == pytest.approx(loss, rel=1e-11)
    assert not outputs[~mask].any()
    np.testing.assert_array_equal(model.predict(x_given, mask=mask), model(x_given, mask=mask)[0])
    empty = ~mask.any(axis=1)
    np.testing.assert_array_equal(np.stack(final)[:, :, empty], np.stack(state)[:, :, empty])


@pytest.mark.parametrize("output", ["sequence", "last"])
def test_where_a_row_is_padded_changes_nothing(rng, output):
    """Left or right, in an array or a list; neither in what is learnt."""
    results = []
    x, mask = rng.standard_normal((B, T, I)), np.arange(T) < np.array([8, 3, 2, 1, 6])[:, None]
    y = rng.integers(0, O, (B,) if output == "last" else (B, T))
    flipped = mask[:, ::-1]
    left, y_left = np.full_like(x, np.nan), y.copy() if output == "last" else np.full_like(y, -1)
    left[flipped] = x[mask]
    if output == "sequence":
        y_left[flipped] = y[mask]
    rows = [row[keep] for row, keep in zip(x, mask, strict=True)]
    y_rows = y if output == "last" else [row[keep] for row, keep in zip(y, mask, strict=True)]
    for data, options in [((x, y), dict(mask=mask)), ((x, y), dict(lengths=mask.sum(axis=1))),
                          ((left, y_left), dict(mask=flipped)), ((rows, y_rows), {})]:  # fmt: skip
        model = made("cross_entropy", output)
        history = model.fit(*data, epochs=2, batch_size=2, progress=False, validation=dict(
            zip(("x", "y"), data, strict=True), **options), **options)  # fmt: skip
        results.append((history.train_loss, history.validation_loss, model.parameters.flat.tobytes()))
    assert all(result == results[0] for result in results)


def test_fit_learns_from_what_counts(rng):
    """Weights 0 are as if the rows were not there, and 2 as if they were there twice."""
    x, y = rng.standard_normal((8, T, I)), rng.random((8, T, O))
    weights = np.array([1, 0, 2, 1, 0, 2, 2, 1.0])
    twice = np.repeat(np.arange(8), weights.astype(int))
    models = [made("mse") for _ in range(2)]
    options = dict(epochs=3, batch_size=100, optimizer=SGD(lr=0.1), shuffle=False, progress=False)
    histories = [models[0].fit(x, y, sample_weight=weights, **options), models[1].fit(x[twice], y[twice], **options)]
    np.testing.assert_allclose(histories[0].train_loss, histories[1].train_loss, rtol=1e-12)
    np.testing.assert_allclose(models[0].parameters.flat, models[1].parameters.flat, rtol=1e-10)


def test_batches_in_which_nothing_counts_update_nothing(rng):
    model, seen = made("cross_entropy"), []
    x, y = some_data(rng, model, 6)
    y[[0, 1, 4, 5]] = -1
    history = model.fit(x, y, ignore=-1, batch_size=2, epochs=2, shuffle=False, progress=False, callbacks=[seen.append])
    assert history.updates == [1, 2] and [event.kind for event in seen] == ["update", "epoch"] * 2
    assert np.isfinite(history.train_loss).all()


def test_streams_carry_their_state_past_what_is_left_out(rng):
    """Chunks of a mask, of lengths and of resets, some of them empty, give what the whole gives."""
    model = made("mse")
    x, y = some_data(rng, model)
    mask, resets = some_mask("holes", rng), rng.random((B, T)) < 0.2
    mask[0, 2:6] = False
    weights, state = rng.exponential(2, (B, T)), State(*rng.standard_normal((2, 1, B, H)))
    seen = []
    options = dict(mask=mask, resets=resets, state=state, sample_weight=weights)
    still = SGD(lr=1e-300)
    history = model.fit(x, y, tbptt=2, epochs=1, optimizer=still, progress=False, **options,
                        callbacks=[lambda event: seen.append(event.loss)])  # fmt: skip
    assert history.train_loss == pytest.approx([model.evaluate(x, y, **options)["loss"]], rel=1e-11)
    assert len(seen) == 5


def test_a_run_with_weights_and_masks_goes_on_to_the_same_bits(rng, tmp_path):
    x, y = rng.standard_normal((12, T, I)), rng.random((12, T, O))
    options = dict(mask=rng.random((12, T)) < 0.7, sample_weight=rng.exponential(1, (12, T)), missing="skip",
                   batch_size=4, progress=False, seed=1)  # fmt: skip
    y[3, 5] = np.nan
    whole, broken = made("mse"), made("mse")
    history = whole.fit(x, y, epochs=4, **options)
    broken.fit(x, y, epochs=2, checkpoint=tmp_path / "c", **options)
    other = made("mse")
    for changed in (
        {"sample_weight": options["sample_weight"] + 1},
        {"mask": ~options["mask"]},
        {"sample_weight": None},
    ):
        with pytest.raises(ValueError, match="resume: expected the same run as in"):
            other.fit(x, y, epochs=4, resume=tmp_path / "c", **{**options, **changed})
    resumed = other.fit(x, y, epochs=4, resume=tmp_path / "c", **options)
    assert resumed.train_loss == history.train_loss
    np.testing.assert_array_equal(other.parameters.flat, whole.parameters.flat)


@pytest.mark.parametrize("at_once", [1, 7, 1000])
@pytest.mark.parametrize("shape", SHAPES)
def test_long_rows_are_evaluated_in_pieces_of_steps(rng, shape, at_once, monkeypatch):
    model, state = made("mse"), State(*rng.standard_normal((2, 1, B, H)))
    x, y = some_data(rng, model)
    mask, resets, weights = some_mask(shape, rng), rng.random((B, T)) < 0.3, rng.exponential(1, (B, T))
    loss, _ = by_the_oracle(model, x, y, mask, weights, resets, state)
    x_given, y_given, options = given_as(shape, mask, x, y, weights)
    monkeypatch.setattr("cylstm.loss_and_gradients.at_once", lambda size: max(1, at_once // size))
    resets = resets if shape != "list" else resets[:, : max(map(len, x_given))]
    found = model.evaluate(x_given, y_given, batch_size=3, resets=resets, state=state, **options)
    assert found["loss"] == pytest.approx(loss, rel=1e-11)


def test_streams_of_different_lengths_are_cut_into_chunks(rng):
    """Of which some rows are over before a chunk begins; probabilities of what is left out are there for nobody."""
    model = made("cross_entropy")
    x, y = some_data(rng, model)
    seen = []
    history = model.fit(x, y, lengths=LENGTHS, tbptt=3, epochs=1, optimizer=SGD(lr=1e-300), progress=False,
                        callbacks=[lambda event: seen.append(event.kind)])  # fmt: skip
    assert history.train_loss == pytest.approx([model.evaluate(x, y, lengths=LENGTHS)["loss"]], rel=1e-12)
    assert seen == ["update"] * 3 + ["epoch"]
    mask = np.arange(T) < LENGTHS[:, None]
    np.testing.assert_array_equal(
        model.predict_proba(x, mask=mask)[mask], model.predict_proba(x, lengths=LENGTHS)[mask]
    )
