"""What training drops beside `dropout`: elements of weight_hh, and units of whole rows, against the oracle; and what it
keeps as it was."""

import copy
import pickle

import numpy as np
import pytest
from against_oracle import agrees, same, with_some_weights
from gradcheck import check_gradients

from cylstm import LSTM, Model, num_threads, set_num_threads
from cylstm.drops import DROPS as ARGUMENTS

DROPS = {
    "weights": dict(weight_drop=0.4),
    "states": dict(recurrent_dropout=0.3),
    "states, by gates": dict(recurrent_dropout=0.3, recurrent_dropout_per="gate"),
    "gates, norms": dict(
        recurrent_dropout=0.3, recurrent_dropout_per="gate", layer_norm=("ba", 0.01), zoneout=(0.3, 0.0)
    ),
    "gates, projection": dict(
        recurrent_dropout=0.3, recurrent_dropout_per="gate", proj_size=3, zoneout=(0.2, 0.4), first_state=True
    ),
    "updates": dict(update_dropout=0.3),
    "inputs": dict(input_dropout=0.25),
    "per sequence": dict(dropout=0.35, dropout_per="sequence"),
    "all": dict(
        weight_drop=0.2,
        recurrent_dropout=0.4,
        input_dropout=0.3,
        dropout=0.5,
        dropout_per="sequence",
        update_dropout=0.15,
    ),
    "zoneout": dict(zoneout=(0.4, 0.25)),
    "all, zoneout": dict(
        weight_drop=0.2, recurrent_dropout=0.4, dropout=0.5, peepholes=True, zoneout=(0.3, 0.2), update_dropout=0.25
    ),
    "all, per step": dict(
        weight_drop=0.2,
        recurrent_dropout=0.4,
        recurrent_dropout_per="gate",
        input_dropout=0.3,
        dropout=0.5,
        peepholes=True,
    ),
}
SIZES = [(1, 1, 3, 5), (7, 1, 8, 33), (2, 6, 2, 16), (9, 3, 5, 17), (12, 17, 20, 64), (5, 40, 11, 7), (20, 33, 70, 50)]


def made(sizes, L, D, dtype, drops, rng):
    """A layer with weights of some size everywhere. rng: or a seed."""
    rng = np.random.default_rng(rng)
    drops = {name: value for name, value in drops.items() if L > 1 or not name.startswith("dropout")}
    layer = LSTM(*sizes, L, bidirectional=D == 2, dtype=dtype, seed=rng, **drops)
    for values in layer.parameters.values():
        values[...] += 0.3 * rng.standard_normal(values.shape)
    return layer


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("drops", DROPS)
def test_agrees_with_the_oracle(isa, dtype, close, drops, ids):
    rng = np.random.default_rng(20281)
    drops = {name: value for name, value in DROPS[drops].items() if not (ids and name == "input_dropout")}
    for n, (T, B, I, H) in enumerate(SIZES):
        layer = made((I, H), 1 + n % 3, 1 + n % 2, dtype, drops, rng)
        lengths = rng.integers(0, T + 1, B) if n % 3 else None
        resets = rng.random((B, T)) < 0.2 if n % 4 else None
        agrees(layer, close, rng, B, T, ids=ids, lengths=lengths, resets=resets)


@pytest.mark.parametrize("drops", ["all", "all, zoneout", "all, per step"])
def test_gradients_by_differences(drops):
    """The compiled layer itself, in float64, past the oracle: the same masks for the same place in the generator."""
    rng = np.random.default_rng(20282)
    layer = made((4, 5), 2, 2, "float64", DROPS[drops], rng)
    x, lengths, resets = rng.standard_normal((3, 6, 4)), np.array([6, 2, 4]), rng.random((3, 6)) < 0.2
    h0, c0, dh, dc = rng.standard_normal((4, 4, 3, 5))
    dy = rng.standard_normal((3, 6, 10))

    def forward():
        layer.rng = np.random.default_rng(7)
        return layer.forward(x, (h0, c0), lengths=lengths, resets=resets)

    def loss():
        y, (h, c), _ = forward()
        return (dy * y).sum() + (dh * h).sum() + (dc * c).sum()

    dx, (dh0, dc0), gradients = layer.backward(forward()[2], dy, (dh, dc))
    weights = {name: layer.parameters[name] for name in layer.parameters}
    check_gradients(
        loss, {"x": x, "h0": h0, "c0": c0, **weights}, {"x": dx, "h0": dh0, "c0": dc0, **gradients}
    )  # fmt: skip


@pytest.mark.parametrize("drops", ["all", "all, zoneout", "all, per step"])
@pytest.mark.parametrize("B, H, D", [(57, 37, 1), (33, 65, 2), (13, 151, 1), (1, 301, 1)])
def test_same_bits_for_any_number_of_threads(dtype, drops, B, H, D):
    rng = np.random.default_rng(20283)
    layer = made((19, H), 2, D, dtype, DROPS[drops], rng)
    x, lengths, resets = rng.standard_normal((B, 9, 19)).astype(dtype), rng.integers(4, 10, B), rng.random((B, 9)) < 0.1
    before, found = num_threads(), []
    try:
        for threads in (1, 2, 7):
            set_num_threads(threads)
            layer.rng = np.random.default_rng(5)
            y, state, tape = layer.forward(x, lengths=lengths, resets=resets)
            gradients = layer.backward(tape, y, state)
            found.append([y, *state, gradients.x, *gradients.state, gradients.parameters.flat])
    finally:
        set_num_threads(before)
    assert same(found[1], found[0]) and same(found[2], found[0])


def test_only_forward_drops_and_the_weights_stay(isa, dtype, rng):
    dropping = made((5, 19), 2, 1, dtype, DROPS["all"], 1)
    plain = made((5, 19), 2, 1, dtype, {}, 1)
    x, before = rng.standard_normal((4, 8, 5)).astype(dtype), dropping.parameters.flat.copy()
    wanted = plain(x)[0]
    y, _, tape = dropping.forward(x)
    assert not np.array_equal(y, wanted)
    assert np.array_equal(dropping(x)[0], wanted)
    assert np.array_equal(dropping.step(x[:, 0], None)[0], wanted[:, 0])
    dropping.backward(tape, y)
    assert np.array_equal(dropping(x)[0], wanted) and np.array_equal(dropping.parameters.flat, before)
    for name in ("weight_drop", "recurrent_dropout", "update_dropout", "input_dropout", "dropout"):
        setattr(dropping, name, 0)
    assert np.array_equal(dropping.forward(x)[0], wanted)


@pytest.mark.parametrize("drops", DROPS)
def test_every_tape_has_masks_of_its_own(dtype, drops, rng):
    """Two at once, and plain calls in between, on a layer whose weights a view keeps from being packed once."""
    layer = made((6, 40), 2, 2, dtype, DROPS[drops], 1)
    held = layer.parameters["weight_hh_l0"]
    x, dy = (rng.standard_normal((9, 7, width)).astype(dtype) for width in (6, layer.output_size))

    def alone(seed):
        layer.rng = np.random.default_rng(seed)
        y, _, tape = layer.forward(x)
        return y, layer.backward(tape, dy)

    wanted = [alone(1), alone(2)]
    assert not np.array_equal(wanted[0][0], wanted[1][0])
    layer.rng = np.random.default_rng(1)
    y_1, _, tape_1 = layer.forward(x)
    layer.rng = np.random.default_rng(2)
    y_2, _, tape_2 = layer.forward(x)
    layer(x)
    got_2 = layer.backward(tape_2, dy)
    layer(x)
    got_1 = layer.backward(tape_1, dy)
    for (y, got), (wanted_y, expected) in zip([(y_1, got_1), (y_2, got_2)], wanted, strict=True):
        assert np.array_equal(y, wanted_y)
        assert same([got.x, *got.state, got.parameters.flat], [expected.x, *expected.state, expected.parameters.flat])
    assert held.base is not None


def test_masks_are_of_the_shares_and_scaled(rng):
    layer = made((60, 70), 3, 2, "float64", DROPS["all"], 1)
    _, _, tape = layer.forward(rng.standard_normal((50, 4, 60)), lengths=rng.integers(1, 5, 50))
    shapes = {"weights": (6, 280, 70), "recurrent": (6, 50, 70), "input": (50, 60), "updates": (6, 50, 70)}
    found = {"weights": tape.weight_masks, "recurrent": tape.recurrent_masks, "input": tape.input_mask,
             "updates": tape.update_masks}  # fmt: skip
    for (name, mask), p in zip(found.items(), (0.2, 0.4, 0.3, 0.15), strict=True):
        assert mask.shape == shapes[name] and set(np.unique(mask)) == {0, 1 / (1 - p)}
        assert abs(np.mean(mask == 0) - p) < 0.03
    assert [mask.shape for mask in tape.masks] == [(50, 1, 140)] * 2
    assert set(np.unique(tape.masks)) == {0, 2}
    for mask in (*found.values(), *tape.masks):
        assert not mask.flags.writeable  # backward reads it
    plain = LSTM(3, 4).forward(rng.standard_normal((2, 3)))[2]
    assert plain.masks is plain.input_mask is plain.weight_masks is plain.recurrent_masks is plain.update_masks is None


def test_masks_are_drawn_in_one_order_whatever_the_lengths(rng):
    """inputs, outputs, weights, states, updates: masks of rows are those of the caller's rows."""
    layer = made((3, 4), 2, 2, "float32", DROPS["all"], 1)
    draws = np.random.default_rng(11)
    wanted = [draws.random(shape, np.float32) >= p for shape, p in
              (((5, 3), 0.3), ((1, 5, 8), 0.5), ((4, 16, 4), 0.2), ((4, 5, 4), 0.4), ((4, 5, 4), 0.15))]  # fmt: skip
    for lengths in (None, [2, 6, 0, 4, 6]):
        layer.rng = np.random.default_rng(11)
        _, _, tape = layer.forward(rng.standard_normal((5, 6, 3)), lengths=lengths)
        found = tape.input_mask, np.stack(tape.masks)[:, :, 0], tape.weight_masks, tape.recurrent_masks
        found = *found, tape.update_masks
        assert same([mask > 0 for mask in found], wanted)
    per_step = made((3, 4), 2, 2, "float32", dict(dropout=0.5), 1)
    per_step.rng = np.random.default_rng(11)
    kept = np.stack(per_step.forward(rng.standard_normal((5, 6, 3)))[2].masks)[0] > 0
    assert np.array_equal(kept, (np.random.default_rng(11).random((6, 5, 8), np.float32) >= 0.5).swapaxes(0, 1))


def test_the_first_output_does_not_see_the_weights_that_are_dropped(rng):
    """From a zero state, as AWD-LSTM's own test has it."""
    layer = LSTM(5, 12, weight_drop=0.9, dtype="float64", seed=1)
    x = rng.standard_normal((3, 6, 5))
    y, plain = layer.forward(x)[0], layer(x)[0]
    assert np.array_equal(y[:, 0], plain[:, 0]) and not np.isclose(y[:, 1:], plain[:, 1:]).any()


def test_an_unbatched_row_is_one_of_a_batch(rng):
    layer = made((5, 12), 2, 1, "float64", DROPS["all"], 1)
    x, found = rng.standard_normal((6, 5)), []
    for given in (x, x[None]):
        layer.rng = np.random.default_rng(3)
        y, _, tape = layer.forward(given)
        found.append([y.reshape(6, 12), layer.backward(tape, y).x.reshape(6, 5)])
    assert same(*found)


# --- models, files, copies --------------------------------------------------------------------------------------------


def model_of(drops, **options):
    return Model(4, 12, 3, num_layers=2, loss="mse", seed=1, **{**DROPS[drops], **options})


@pytest.mark.parametrize("drops", DROPS)
def test_models_train_and_keep_what_they_drop(drops, tmp_path, rng):
    x = rng.standard_normal((40, 9, 4))
    y = np.cumsum(x[..., :3], axis=1) / 3
    model = model_of(drops)
    history = model.fit(x, y, epochs=5, batch_size=5, progress=False)
    assert history.train_loss[-1] < history.train_loss[0]
    model.save(tmp_path / "model.safetensors")
    for other in (Model.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert other.config == model.config and repr(other) == repr(model)
        assert np.array_equal(other(x)[0], model(x)[0])
        for name, value in DROPS[drops].items():
            assert other.config[name] == getattr(other, name) == value
            assert f"{name}={value!r}" in repr(other)
    for name in ARGUMENTS.keys() & DROPS[drops].keys():
        assert f"{name} {DROPS[drops][name]}" in model.summary()
    assert not ARGUMENTS.keys() & Model(4, 12, 3, num_layers=2, dropout=0.5).config.keys()


@pytest.mark.parametrize("drops", DROPS)
def test_a_run_resumes_to_the_bit(drops, tmp_path, rng):
    x, y = rng.standard_normal((20, 9, 4)), rng.standard_normal((20, 9, 3))
    whole, broken, resumed = (model_of(drops) for _ in range(3))
    options = dict(batch_size=5, progress=False)
    whole.fit(x, y, epochs=4, **options)
    broken.fit(x, y, epochs=2, checkpoint=tmp_path / "c", **options)
    resumed.fit(x, y, epochs=4, resume=tmp_path / "c", **options)
    assert np.array_equal(resumed.parameters.flat, whole.parameters.flat)
    assert Model.from_checkpoint(tmp_path / "c").config == whole.config
    with pytest.raises(ValueError, match="resume: expected the same model"):
        Model(4, 12, 3, num_layers=2, loss="mse").fit(x, y, epochs=4, resume=tmp_path / "c", **options)


def test_shares_may_be_changed_as_dropout_may(rng):
    x, y = rng.standard_normal((2, 6, 5, 4))[..., :4], rng.standard_normal((6, 5, 3))
    model = model_of("weights")
    model.weight_drop, model.recurrent_dropout, model.dropout_per = 0, 0.5, "sequence"
    assert model.lstm.recurrent_dropout == model.config["recurrent_dropout"] == 0.5 and model.lstm.weight_drop == 0
    layer = pickle.loads(pickle.dumps(model.lstm))
    assert layer.dropout_per == "sequence" and repr(layer) == repr(model.lstm)
    tape = model.lstm.forward(x[0])[2]
    assert tape.weight_masks is None and tape.recurrent_masks.shape == (2, 6, 12)
    model.input_dropout = 0.5
    before = model.evaluate(x[0], y)["loss"]
    assert model.evaluate(x[0], y)["loss"] == before != model.loss_and_gradients(x[0], y).loss


def test_rows_of_an_embedding_are_dropped_by_columns(rng):
    model = Model(9, 8, 9, embedding_size=5, input_dropout=0.5, recurrent_dropout=0.2, weight_drop=0.2, seed=1)
    ids = rng.integers(0, 9, (12, 10))
    history = model.fit(ids, ids, epochs=30, batch_size=4, progress=False)
    assert history.train_loss[-1] < history.train_loss[0]
    with pytest.raises(ValueError, match=r"^input_dropout: expected 0 where ids go in, got 0\.5$"):
        Model(9, 8, 9, input_dropout=0.5).fit(ids, ids, epochs=1, progress=False)


@pytest.mark.parametrize("make", [lambda **more: LSTM(3, 4, **more), lambda **more: Model(3, 4, 5, **more)])
def test_what_means_nothing_is_refused(make):
    for name in ("input_dropout", "recurrent_dropout", "update_dropout", "weight_drop"):
        for value in (1.0, -0.1, np.nan):
            with pytest.raises(ValueError, match=rf"^{name}: expected a number in \[0, 1\)"):
                make(**{name: value})
        with pytest.raises(TypeError, match=f"^{name}: expected a number, got str"):
            make(**{name: "0.5"})
    with pytest.raises(ValueError, match=r"^dropout_per: expected one of 'step', 'sequence', got str 'row'"):
        make(dropout_per="row", num_layers=2)
    with pytest.raises(ValueError, match=r"^dropout_per: expected 'step' with one layer"):
        make(dropout_per="sequence")
    layer = make(weight_drop=0.5)
    with pytest.raises(ValueError, match=r"^weight_drop: expected a number in"):
        layer.weight_drop = 1
    assert layer.weight_drop == 0.5


def test_calls_of_others_are_refused_by_name():
    from cylstm import calls

    with pytest.raises(ValueError, match=r"^layer: expected one without dropout, got recurrent_dropout=0\.5, weight_d"):
        calls.Call(LSTM(2, 3, recurrent_dropout=0.5, weight_drop=0.1), 4, 5, training=True)
    with pytest.raises(ValueError, match=r"^layer: expected one without dropout, got update_dropout=0\.2"):
        calls.Call(LSTM(2, 3, update_dropout=0.2), 4, 5, training=True)
    calls.Call(LSTM(2, 3, recurrent_dropout=0.5, weight_drop=0.1, update_dropout=0.2), 4, 5)


@pytest.mark.parametrize("B, H, variant", [
    (20, 24, {}), (33, 40, dict(layer_norm="ba")), (9, (35, 67), dict(first_state=True)), (64, 300, {}),
])  # fmt: skip
def test_masks_of_gates_where_there_are_tiles(isa, dtype, close, B, H, variant):
    """Enough rows and units for these; the last one's weights are shared out among threads."""
    rng = np.random.default_rng(B)
    dropped = dict(recurrent_dropout=0.3, recurrent_dropout_per="gate")
    layer = with_some_weights(LSTM(20, H, 2, dtype=dtype, seed=1, **variant, **dropped), rng)
    layer.recurrent_dropout, layer.recurrent_dropout_per = 0.3, "gate"
    T = 3 if B == 64 else 6
    agrees(layer, close, rng, B, T)
    agrees(layer, close, rng, B, T, given=False, lengths=rng.integers(0, T + 1, B), resets=rng.random((B, T)) < 0.2)
    x, dy, found = rng.standard_normal((B, T, 20)).astype(dtype), np.ones((B, T, layer.output_size), dtype), []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        layer.rng = np.random.default_rng(3)
        y, state, tape = layer.forward(x)
        gradients = layer.backward(tape, dy)
        found.append([y, *state, gradients.x, *gradients.state, gradients.parameters.flat])
    assert all(same(other, found[0]) for other in found[1:])
