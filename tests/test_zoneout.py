"""Zoneout: what stays as it was in training, and the mean of both elsewhere; what all masks have to give is in
test_drops.py."""

import copy
import pickle

import numpy as np
import pytest
from against_oracle import agrees, exact, gradients_are_differences, oracle_options, random_state, same

from cylstm import LSTM, Model, exchange, oracle, set_num_threads
from cylstm.oracle import sigmoid

ZONEOUTS = [(0.4, 0.3), (0.5, 0.0), (0.0, 0.35), (1.0, 0.2)]
CELLS = {
    "plain": {},
    "peepholes, clips, first state": dict(
        peepholes=True, cell_clip=0.6, gate_clip=2.0, first_state=True, update_dropout=0.2
    ),
    "activations": dict(activations=("hard_sigmoid", "softsign", "exponential"), coupled=True, update_dropout=0.4),
    "projection": dict(proj_size=3, first_state=True, recurrent_dropout=0.3, weight_drop=0.2),
    "reverse": dict(reverse=True, peepholes=True, first_state=True),
}


@pytest.fixture(autouse=True)
def one_thread(threads_as_they_were):
    """A projection meets twice a step, and waits long where others compute."""
    set_num_threads(1)


def made(sizes, L, D, dtype, rng, **options):
    layer = LSTM(*sizes, L, bidirectional=D == 2, dtype=dtype, seed=rng, **options)
    for values in layer.parameters.values():
        values[...] += 0.4 * rng.standard_normal(values.shape)
    return layer


@pytest.mark.parametrize("zoneout", ZONEOUTS)
@pytest.mark.parametrize("cell", CELLS)
def test_training_agrees_with_the_oracle(isa, dtype, close, cell, zoneout):
    rng, cell = np.random.default_rng(20301), CELLS[cell]
    for n, (T, B, I, H) in enumerate([(6, 3, 2, 5), (7, 4, 3, 9), (5, 20, 4, 17), (6, 9, 2, 33)]):
        L, D = 1 + n % 3, 1 if cell.get("reverse") else 1 + n % 2
        layer = made((I, H), L, D, dtype, rng, zoneout=zoneout, **cell)
        lengths, resets = rng.integers(0, T + 1, B) if n % 3 else None, rng.random((B, T)) < 0.3 if n != 2 else None
        agrees(layer, close, rng, B, T, ids=n == 1, given=n % 2 == 0, lengths=lengths, resets=resets)


@pytest.mark.parametrize("zoneout", ZONEOUTS)
@pytest.mark.parametrize("cell", CELLS)
def test_elsewhere_it_is_the_mean_of_both(isa, dtype, close, cell, zoneout):
    rng, cell = np.random.default_rng(20302), CELLS[cell]
    for n, (T, B, I, H) in enumerate([(6, 3, 2, 5), (8, 1, 3, 19), (5, 20, 4, 17), (6, 9, 2, 33)]):
        L, D = 1 + n % 3, 1 if cell.get("reverse") else 1 + n % 2
        layer = made((I, H), L, D, dtype, rng, zoneout=zoneout, **cell)
        lengths, resets = rng.integers(0, T + 1, B) if n % 3 else None, rng.random((B, T)) < 0.3 if n != 2 else None
        x, state = rng.standard_normal((B, T, I)).astype(dtype), random_state(layer, B, rng) if n % 2 else None
        begun = copy.deepcopy(layer.rng.bit_generator.state)
        y, final = layer(x, state, lengths=lengths, resets=resets)
        assert layer.rng.bit_generator.state == begun
        parameters = {name: values.astype(float) for name, values in layer.parameters.items()}
        wanted, (h, c), _ = oracle.forward(
            x.astype(float), parameters, None if state is None else exact(state), **oracle_options(layer),
            lengths=lengths, resets=resets, zoneout_masks=[1 - z for z in zoneout])  # fmt: skip
        for name, got, expected in (("y", y, wanted), ("h", final.h, h), ("c", final.c, c)):
            close(got, expected, f"{name}, {T=} {B=} {I=} {H=} {L=} {D=}")


def test_one_layer_by_hand():
    """h is of the c that the gates make, not of the c that is kept; h goes out as it goes on (Krueger et al. 2017)."""
    rng = np.random.default_rng(20303)
    layer = made((3, 4), 1, 1, "float64", rng, zoneout=(0.5, 0.25))
    W, R, b = layer.parameters.values()
    x, (h, c), outputs = rng.standard_normal((2, 7, 3)), rng.standard_normal((2, 2, 4)), []
    y, final, tape = layer.forward(x, (h[None], c[None]))
    (new_c,), (new_h,) = tape.zoneout_masks
    for t in range(7):
        i, f, g, o = np.split(x[:, t] @ W.T + h @ R.T + b, 4, axis=1)
        fresh = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = np.where(new_h[:, t], sigmoid(o) * np.tanh(fresh), h)
        c = np.where(new_c[:, t], fresh, c)
        outputs.append(h)
    assert 0 < new_c.sum() < new_c.size and 0 < new_h.sum() < new_h.size
    np.testing.assert_allclose(y, np.stack(outputs, 1), rtol=1e-12)
    np.testing.assert_allclose(final.h[0], h, rtol=1e-12)
    np.testing.assert_allclose(final.c[0], c, rtol=1e-12)


def test_gradients_by_differences():
    rng = np.random.default_rng(20304)
    layer = made((3, 5), 2, 2, "float64", rng, zoneout=(0.4, 0.3), proj_size=3, first_state=True, peepholes=True,
                 recurrent_dropout=0.25)  # fmt: skip
    x, lengths, resets = rng.standard_normal((3, 6, 3)), np.array([6, 2, 4]), rng.random((3, 6)) < 0.25
    gradients_are_differences(layer, x, rng, given=False, lengths=lengths, resets=resets)


@pytest.mark.parametrize("cell", CELLS)
def test_shares_of_zero_give_the_plain_bits(isa, dtype, cell):
    rng = np.random.default_rng(20305)
    x = rng.standard_normal((5, 9, 3)).astype(dtype)
    plain, none = (made((3, 17), 2, 1, dtype, np.random.default_rng(1), **more, **CELLS[cell]) for more in
                   ({}, dict(zoneout=(0, 0.0))))  # fmt: skip
    none.zoneout = 0.5, 0.5
    assert not same(none(x)[0], plain(x)[0])
    none.zoneout = [0.0, 0]
    assert same([none(x)[0], *none(x)[1]], [plain(x)[0], *plain(x)[1]])
    (y, _, tape), (expected, _, plain_tape) = none.forward(x), plain.forward(x)
    assert same(y, expected) and tape.zoneout_masks is None
    assert same([none.backward(tape, y).parameters.flat], [plain.backward(plain_tape, y).parameters.flat])


def test_shares_of_one_keep_the_state(isa, dtype):
    rng = np.random.default_rng(20306)
    layer = made((3, 17), 1, 1, dtype, rng, zoneout=(1, 1))
    x, state, dy = rng.standard_normal((5, 9, 3)), random_state(layer, 5, rng), rng.standard_normal((5, 9, 17))
    y, final, tape = layer.forward(x, state)
    for got, end in ((y, final), layer(x, state)):
        assert same(got, np.broadcast_to(state.h[0][:, None], got.shape)) and same([*end], [*state])
    gradients = layer.backward(tape, dy, state)
    assert not gradients.parameters.flat.any() and not gradients.x.any()
    np.testing.assert_allclose(gradients.state.h[0], dy.sum(1) + state.h[0], rtol=1e-4)
    assert same(gradients.state.c, state.c)


def test_the_mean_of_many_draws_is_what_evaluation_takes(rng):
    """After one step, where h and c are means of what is drawn."""
    layer = made((3, 6), 1, 1, "float64", rng, zoneout=(0.3, 0.15))
    x, h, c = rng.standard_normal((1, 3)), rng.standard_normal((1, 1, 6)), rng.standard_normal((1, 1, 6))
    many = 40000
    y, final, tape = layer.forward(np.tile(x, (many, 1, 1)), (np.tile(h, (1, many, 1)), np.tile(c, (1, many, 1))))
    _, (mean_h, mean_c) = layer(x[None], (h, c))
    np.testing.assert_allclose(y.mean(0), mean_h[0], atol=0.02)
    np.testing.assert_allclose(final.c.mean(1), mean_c[0], atol=0.02)
    for new, z in zip(tape.zoneout_masks, (0.3, 0.15), strict=True):
        assert new.shape == (1, many, 1, 6) and new.dtype == bool and not new.all(0).all(0).all(0).any()
        np.testing.assert_allclose(new.mean((0, 1, 2)), 1 - z, atol=0.01)
        assert abs(np.corrcoef(new[0, :, 0].T) - np.eye(6)).max() < 0.03


@pytest.mark.parametrize("p", [1e-6, 0.003, 1 / 256, 0.1234567, 0.5, 0.9999, 1.0])
def test_shares_are_those_that_were_asked_for(p):
    from cylstm.drops import kept

    drawn = np.random.default_rng(3)
    new = np.stack([kept(drawn, (5, 1, 200003), p) for _ in range(4)])
    wanted, size = p * new.size, new.size
    assert abs((~new).sum() - wanted) <= 5 * np.sqrt(size * p * (1 - p))


@pytest.mark.parametrize("B, H, P, D", [(57, 37, 0, 1), (33, 65, 20, 2), (13, 151, 0, 1), (1, 301, 130, 1)])
def test_same_bits_for_any_number_of_threads(dtype, B, H, P, D):
    rng = np.random.default_rng(20307)
    layer = made((19, H), 2, D, dtype, rng, zoneout=(0.4, 0.3), proj_size=P, first_state=True)
    x, found = rng.standard_normal((B, 4, 19)).astype(dtype), []
    options = dict(lengths=rng.integers(2, 5, B), resets=rng.random((B, 4)) < 0.2)
    for threads in (1, 2, 7):
        set_num_threads(threads)
        layer.rng = np.random.default_rng(5)
        y, state, tape = layer.forward(x, **options)
        gradients = layer.backward(tape, y, state)
        evaluated, end = layer(x, **options)
        found.append([y, *state, gradients.x, *gradients.state, gradients.parameters.flat, evaluated, *end])
    assert same(found[1], found[0]) and same(found[2], found[0])


@pytest.mark.parametrize("cell", [name for name in CELLS if name != "reverse"])
def test_steps_give_the_bits_of_the_whole(isa, dtype, cell):
    rng = np.random.default_rng(20308)
    for B, I, H in ((1, 3, 5), (9, 4, 33), (40, 20, 70)):
        layer = made((I, H), 2, 1, dtype, rng, zoneout=(0.4, 0.3), **CELLS[cell])
        x = rng.standard_normal((B, 6, I)).astype(dtype)
        wanted, final = layer(x)
        state = own = None
        for t in range(6):
            y, state = layer.step(x[:, t], state)
            assert same(y, wanted[:, t])
            y, own = layer.step(x[:, t], own, out=own)
            assert same(y, wanted[:, t])
        assert same([*state], [*final]) and same([*own], [*final])


# --- models -----------------------------------------------------------------------------------------------------------


def test_a_models_evaluation_draws_nothing_and_its_steps_are_the_whole(rng):
    model = Model(7, 12, 7, num_layers=2, embedding_size=4, zoneout=(0.5, 0.05), seed=2)
    ids = rng.integers(0, 7, (4, 9))
    assert (
        model.evaluate(ids, ids)["loss"] == model.evaluate(ids, ids)["loss"] != model.loss_and_gradients(ids, ids).loss
    )
    whole, state = model(ids)[0], None
    for t in range(9):
        y, state = model.step(ids[:, t], state)
        np.testing.assert_allclose(y, whole[:, t], rtol=2e-5, atol=1e-6)
    plain = Model(7, 12, 7, num_layers=2, embedding_size=4, seed=2)
    assert not np.allclose(plain(ids)[0], whole, atol=1e-4)
    model.zoneout = 0, 0
    assert same(model(ids)[0], plain(ids)[0])


def test_a_model_generates_with_the_mean():
    model = Model(5, 16, 5, embedding_size=3, zoneout=(0.6, 0.6), seed=2)
    model.parameters.raw()[...] *= 3
    model.parameters.touch()
    ids = [1, 2, 3, 4]
    for _ in range(12):
        ids.append(int(model(np.array([ids]))[0][0, -1].argmax()))
    assert list(model.generate([1, 2, 3, 4], 12, temperature=0)) == ids[4:] and len(set(ids[4:])) > 1


def test_truncated_training_resumes_to_the_bit(tmp_path, rng):
    x, y = rng.standard_normal((8, 12, 3)), rng.standard_normal((8, 12, 2))
    whole, broken, resumed = (Model(3, 9, 2, loss="mse", zoneout=(0.3, 0.1), seed=1) for _ in range(3))
    options = dict(batch_size=4, tbptt=4, progress=False)
    whole.fit(x, y, epochs=4, **options)
    broken.fit(x, y, epochs=2, checkpoint=tmp_path / "c", **options)
    resumed.fit(x, y, epochs=4, resume=tmp_path / "c", **options)
    assert same(resumed.parameters.flat, whole.parameters.flat)
    other = Model(3, 9, 2, loss="mse", zoneout=(0.3, 0.2), seed=1)
    with pytest.raises(
        ValueError, match=r"resume: expected the same model .* zoneout=\[0\.3, 0\.1\], got \[0\.3, 0\.2\]"
    ):
        other.fit(x, y, epochs=4, resume=tmp_path / "c", **options)


def test_runs_of_before_go_on(tmp_path, rng):
    """Their files say nothing of zoneout."""
    x, y = rng.standard_normal((8, 5, 3)), rng.standard_normal((8, 5, 2))
    options = dict(batch_size=4, progress=False)
    begun, more = (Model(3, 9, 2, loss="mse", seed=1) for _ in range(2))
    begun.fit(x, y, epochs=1, checkpoint=tmp_path / "c", **options)
    assert "zoneout" not in begun.config
    assert len(more.fit(x, y, epochs=2, resume=tmp_path / "c", **options).train_loss) == 2


def test_copies_and_words():
    layer = LSTM(3, 4, zoneout=(0.5, 0.05))
    assert layer.zoneout == (0.5, 0.05) and "zoneout=(0.5, 0.05)" in repr(layer)
    assert pickle.loads(pickle.dumps(layer)).zoneout == copy.deepcopy(layer).zoneout == (0.5, 0.05)
    assert LSTM(3, 4).zoneout == (0.0, 0.0) and "zoneout" not in repr(LSTM(3, 4))


@pytest.mark.parametrize("value, error, text", [
    (0.5, TypeError, r"^zoneout: expected a pair of shares, of c and of h, got float 0\.5"),
    ((0.5,), TypeError, "^zoneout: expected a pair of shares, of c and of h, got tuple"),
    ("ab", TypeError, "^zoneout: expected a pair"),
    ((0.5, 1.5), ValueError, r"^zoneout\[1\]: expected a number in \[0, 1\], got 1\.5"),
    ((-0.1, 0.5), ValueError, r"^zoneout\[0\]: expected a number in \[0, 1\], got -0\.1"),
    ((np.nan, 0), ValueError, r"^zoneout\[0\]: expected a number"),
    (("0.5", 0), TypeError, r"^zoneout\[0\]: expected a number, got str"),
])  # fmt: skip
def test_what_are_no_shares_is_refused(value, error, text):
    for make in (lambda: LSTM(3, 4, zoneout=value), lambda: Model(3, 4, 5, zoneout=value)):
        with pytest.raises(error, match=text):
            make()
    layer = LSTM(3, 4, zoneout=(0.1, 0.2))
    with pytest.raises(error, match=text):
        layer.zoneout = value
    assert layer.zoneout == (0.1, 0.2)


def test_other_formats_have_none(tmp_path):
    for made in (LSTM(3, 4, zoneout=(0, 0.2)), Model(3, 4, 5, zoneout=(0.2, 0))):
        with pytest.raises(ValueError, match=r"^zoneout: expected \(0, 0\), since networks have none, got \(0"):
            exchange.network_of(made)


def test_calls_of_others_train_without_it():
    from cylstm.calls import Call

    layer = LSTM(2, 3, zoneout=(0.1, 0.2))
    with pytest.raises(ValueError, match=r"^layer: expected one without dropout, got zoneout=\(0\.1, 0\.2\)"):
        Call(layer, 4, 5, training=True)
    call = Call(layer, 4, 5)
    layer.zoneout = 0.1, 0.3
    call.refresh()
    layer.zoneout = 0.1, 0.0
    with pytest.raises(ValueError, match=r"^refresh: expected a layer with zoneout, .* got zoneout=\(0\.1, 0\.0\)"):
        call.refresh()
