"""The learning-rate finder: what a rising rate does to a copy, and what it leaves alone."""

import math

import numpy as np
import pytest
from tasks import make, sequences

from cylstm import SGD, Adam, Model, training
from cylstm.training import LearningRates, find_lr


def test_the_losses_are_those_of_updates_with_rising_rates(rng):
    """Against a loop of one's own."""
    x, y = rng.standard_normal((12, 7, 3)), rng.standard_normal((12, 7, 2))
    model, again = (Model(3, 5, 2, loss="mse", dtype="float64", seed=1) for _ in range(2))
    options = dict(lowest=1e-4, highest=0.1, updates=10, shuffle=False, batch_size=5, clip_norm=None)
    found = find_lr(model, x, y, optimizer=SGD(momentum=0.5), **options)
    rates, losses, optimizer = 1e-4 * 1000 ** (np.arange(10) / 9), [], SGD(momentum=0.5)
    for n, rate in enumerate(rates):
        part = slice(5 * (n % 3), 5 * (n % 3) + 5)
        result = again.loss_and_gradients(x[part], y[part])
        losses.append(result.loss)
        optimizer.update(again.parameters, result.gradients, lr=rate)
    np.testing.assert_allclose(found.rates, rates, rtol=1e-12)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-10)
    weights = 0.9 ** np.arange(10)[::-1]
    for n in range(10):
        share = weights[9 - n :]
        assert found.smoothed[n] == pytest.approx((share * losses[: n + 1]).sum() / share.sum(), rel=1e-10)


def test_the_model_and_the_optimiser_stay_as_they_are(rng):
    x, y = sequences(rng, [6] * 20)
    found = []
    for finds in (False, True):
        model, optimizer = make(dropout=0.4, num_layers=2), Adam(0.01)
        model.fit(x, y, epochs=1, optimizer=optimizer, progress=False)
        before, generator = model.parameters.flat.tobytes(), repr(model.rng.bit_generator.state)
        if finds:
            find_lr(model, x, y, optimizer=optimizer, updates=20, batch_size=4)
            assert model.parameters.flat.tobytes() == before and repr(model.rng.bit_generator.state) == generator
            assert optimizer.lr.rate == 0.01
        model.fit(x, y, epochs=2, optimizer=optimizer, progress=False)
        found.append(model.parameters.flat.tobytes())
    assert found[0] == found[1]


def test_it_stops_where_the_loss_runs_away(rng):
    x, y = rng.standard_normal((40, 6, 3)), rng.standard_normal((40, 6, 1))
    model = Model(3, 8, 1, loss="mse", seed=1)
    found = find_lr(model, x, y, optimizer=SGD(), highest=1e6, updates=200, batch_size=8)
    assert 50 < len(found.rates) < 200 and found.rates[-1] < 1e4
    room = 3 * max(found.smoothed.min(), found.smoothed[0] - found.smoothed.min())
    assert found.smoothed[-1] > found.smoothed.min() + room >= found.smoothed[:-1].max()
    found = find_lr(model, x * 1e3, y, optimizer=SGD(), lowest=1e30, highest=1e38, clip_norm=None)  # at once
    assert 1 <= len(found.rates) < 100 and np.isfinite(found.losses).all()


def test_the_suggestion_is_the_steepest_descent():
    rates = np.geomspace(1e-5, 1, 101)
    curve = 3 - 2 / (1 + np.exp(-3 * (np.log10(rates) + 2.5))) + 5 * np.maximum(0, np.log10(rates) + 1)
    curve[3] = 0.5 * (curve[2] + curve[4]) - 0.3  # a beginner's luck, in the first tenth
    assert LearningRates(rates, curve, curve).suggestion == pytest.approx(10**-2.5, rel=0.06)
    assert LearningRates(rates, curve, 2 + rates).suggestion is None
    assert LearningRates(rates[:2], curve[:2], curve[:2]).suggestion is None
    assert repr(LearningRates(rates, curve, 2 + rates)) == "LearningRates(101 from 1e-05 to 1, suggestion none)"


def test_it_finds_a_rate_that_learns(rng):
    x, y = sequences(rng, [12] * 60)
    found = find_lr(make(), x, y, batch_size=10)
    assert 1e-3 < found.suggestion < 0.3
    losses = [make().fit(x, y, epochs=3, batch_size=10, optimizer=Adam(rate), progress=False).train_loss[-1]
              for rate in (found.suggestion / 100, found.suggestion)]  # fmt: skip
    assert losses[1] < 0.8 * losses[0]


@pytest.mark.parametrize("options", [dict(tbptt=3), dict(mask=np.tile([True, True, False, True, True, True], (8, 1)))])
def test_data_come_as_for_fit(rng, options):
    x, y = (np.stack(rows) for rows in sequences(rng, [6] * 8))
    found = find_lr(make(), x, y, updates=12, sample_weight=rng.random(8), trainable="head.*", **options)
    first = make().evaluate(x[:, :3] if "tbptt" in options else x, y[:, :3] if "tbptt" in options else y)
    assert len(found.losses) == 12 and found.losses[0] == pytest.approx(first["loss"], rel=0.2)


def test_it_is_drawn(tmp_path, rng):
    x, y = sequences(rng, [6] * 20)
    found = find_lr(make(), x, y, updates=30, batch_size=4)
    found.plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    axes = found.figure().axes[0]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), found.smoothed)
    assert axes.get_xscale() == "log" and axes.lines[2].get_xdata()[0] == found.suggestion
    assert found._repr_html_().startswith("<svg")
    with pytest.raises(ValueError, match="path: expected a file ending in"):
        found.plot(tmp_path / "rates.txt")


def test_batches_come_as_for_fit(rng):
    x, y = (np.stack(rows) for rows in sequences(rng, [6] * 8))
    batches = [(x[n : n + 3], y[n : n + 3]) for n in range(0, 8, 3)]
    options = dict(updates=12, optimizer=SGD(), shuffle=False)
    found, expected = find_lr(make(), batches, **options), find_lr(make(), x, y, batch_size=3, **options)
    np.testing.assert_array_equal(found.losses, expected.losses)


def test_rates_of_all_sizes(rng):
    x, y = sequences(rng, [6] * 8)
    found = find_lr(make(dtype="float64"), x, y, lowest=5e-324, highest=1.7e308, updates=30, optimizer=SGD())
    expected = [-323.306 + (308.230 + 323.306) * n / 29 for n in range(len(found.rates))]
    np.testing.assert_allclose(np.log10(found.rates), expected, atol=0.01)
    assert len(found.rates) > 15


@pytest.mark.parametrize(("options", "error", "message"), [
    (dict(updates=10**400), ValueError, r"^updates: expected an integer in 10\.\.1000000, got int 1000.*\.\.\.$"),
    (dict(lowest=0), ValueError, "lowest: expected a number in"),
    (dict(highest=1e-7), ValueError, "highest: expected a number in"),
    (dict(updates=9), ValueError, "updates: expected an integer >= 10, got 9"),
    (dict(optimizer="adam"), TypeError, "optimizer: expected SGD, Adam or AdamW, got str 'adam'"),
    (dict(epochs=3), TypeError, "find_lr: expected options of lengths, mask, .*, got epochs"),
    (dict(batch_size=0), ValueError, "batch_size: expected an integer >= 1, got 0"),
])  # fmt: skip
def test_bad_arguments_are_named(rng, options, error, message):
    x, y = sequences(rng, [6] * 4)
    with pytest.raises(error, match=message):
        find_lr(make(), x, y, **options)


def test_a_loss_that_is_no_number_from_the_beginning_is_said_so(rng):
    model = make()
    model.parameters["head.bias"][2] = math.nan
    with pytest.raises(training.NonFiniteLoss, match="loss: expected a finite number, got nan at update 1"):
        find_lr(model, *sequences(rng, [6] * 4))
