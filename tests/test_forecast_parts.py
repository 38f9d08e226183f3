"""What forecasts are made of: seasons, inputs, windows, intervals, random futures."""

import numpy as np
import pytest

from cylstm.forecast import learning
from cylstm.forecast.features import History, Layout, filled
from cylstm.forecast.forecaster import unit_of
from cylstm.forecast.learning import Settings, stretched, stretches, windows
from cylstm.forecast.paths import at_scores
from cylstm.forecast.season import find_season, grows_by_shares

NAN = np.nan


def history(y, season, known=None, P=0, C=0, rng=None, static=()):
    """Of values with NaN in gaps, and random covariates."""
    y = np.array(y, float)
    covariates = [np.zeros((len(y), F)) if rng is None else rng.standard_normal((len(y), F)) for F in (P, C)]
    return History(filled(y, season), ~np.isnan(y), *covariates, np.array(static, float), 2.0)


def waves(rng, T, season, trend=0.0, noise=0.2):
    steps = np.arange(T)
    return trend * steps + np.sin(2 * np.pi * steps / season) + noise * rng.standard_normal(T)


@pytest.mark.parametrize("season", [4, 7, 12, 24])
def test_a_season_is_found_under_a_trend_and_beside_gaps(rng, season):
    y = waves(rng, 10 * season + 3, season, trend=0.3)
    y[rng.random(len(y)) < 0.1] = NAN
    assert find_season(y) == season


def test_noise_a_random_walk_a_line_and_few_rows_have_none(rng):
    noise = rng.standard_normal(200)
    for y in (noise, noise.cumsum(), noise[:5], np.arange(50.0), np.ones(40), np.full(40, NAN)):
        assert find_season(y) == 1


def test_what_varies_by_shares_is_told_from_what_varies_by_amounts(rng):
    level, noise = np.exp(np.arange(160) / 60), 0.1 * rng.standard_normal(160)
    assert grows_by_shares(level * np.exp(noise))
    gaps = np.where(rng.random(160) < 0.1, NAN, level * np.exp(noise))
    assert grows_by_shares(gaps)
    for y in (level + noise, level * np.exp(noise) - 3, np.exp(noise), level[:30], np.ones(160)):
        assert not grows_by_shares(y)


def test_a_gap_has_the_value_of_a_season_before():
    assert filled([NAN, 1, NAN, 2, NAN, NAN, NAN], 4).tolist() == [1, 1, 1, 2, 1, 1, 1]
    assert filled([3, NAN, 5, NAN], 1).tolist() == [3, 3, 5, 5]
    assert filled([NAN, NAN, 7, NAN], 2).tolist() == [7, 7, 7, 7]


def test_a_base_is_the_last_known_value_of_the_same_place_in_a_season():
    layout = Layout(season=4, horizon=9)
    assert layout.base(10, np.arange(1, 10)).tolist() == [7, 8, 9, 10, 7, 8, 9, 10, 7]
    assert Layout(1, 3).base(10, np.arange(1, 4)).tolist() == [10, 10, 10]
    assert layout.base(np.array([[10], [11]]), np.array([1, 5])).tolist() == [[7, 7], [8, 8]]


def test_the_numbers_of_a_step_by_hand(rng):
    y = np.array([1, 5, 2, 7, 4, NAN, 6, 11.0])
    series = history(y, 2, P=1, C=1, rng=rng, static=[0.5])
    series.past[6] = series.future[7] = NAN
    layout = Layout(2, 4, 1, 1, 1)
    after = layout.after(series, series.y, np.arange(2, 8))
    assert after.shape == (6, layout.width) == (6, 12)
    # y[6] = 6 has the base y[4] = 4, and the mean of 4, 2 and 1; a scale of 2.
    past, future = series.past, series.future
    change = future[6, 0] - future[4, 0]
    assert after[4] == pytest.approx([(6 - 7 / 3) / 2, 1, 0, 0, 0, (4 - 7 / 3) / 2, 0, 1, future[6, 0], change, 1, 0.5])
    assert after[3, :4] == pytest.approx([0, 0, past[5, 0], 1])  # a gap
    assert after[5, 8:] == pytest.approx([0, 0, 0, 0.5])  # a covariate that is missing
    assert after[5, 6:8] == pytest.approx([0, -1], abs=1e-12)
    steps = np.array([8, 10])
    ahead = layout.ahead(series, series.y, steps, layout.base(7, steps - 7), np.array([0.25, 0.75]), np.ones((12, 1)))
    assert ahead[:, :4].tolist() == [[0] * 4] * 2 and ahead[:, 4].tolist() == [0.25, 0.75]
    assert ahead[:, 5] == pytest.approx([(6 - 13 / 4) / 2] * 2)  # about 6, 4, 2 and 1


def test_inputs_and_targets_do_not_see_what_comes_later(rng):
    y = waves(rng, 60, 6)
    y[[20, 33]] = NAN
    layout, before = Layout(6, 4, 1, 1), history(y, 6, P=1, C=1, rng=rng)
    changed = np.array(y)
    changed[40:] += 100
    after = History(filled(changed, 6), before.known, np.array(before.past), before.future, before.static, before.scale)
    after.past[40:] += 100
    one, other = (windows(layout, [each], 10) for each in (before, after))
    origins = np.rint(one.share[:, 9] * 54 + 6).astype(int)
    assert np.array_equal(one.x[origins < 40], other.x[origins < 40])
    assert not np.array_equal(one.x[origins >= 40][:, :10], other.x[origins >= 40][:, :10])
    assert np.isnan(one.y[:, :10]).all()
    for row, origin in enumerate(origins):
        for far in range(1, 5):
            step = origin + far
            target = one.y[row, 9 + far, 0]
            if step >= 60 or step in (20, 33):
                assert np.isnan(target)
            else:
                base = before.y[step - 6]
                assert target == pytest.approx((y[step] - base) / 2, rel=1e-5, abs=1e-6)
                assert one.x[row, 9 + far, 4] == pytest.approx(far / 4)


def test_a_gap_at_the_beginning_is_no_look_ahead(rng):
    y = waves(rng, 60, 6)
    y[:25] = NAN
    found = windows(Layout(6, 4), [history(y, 6)], 10)
    origins = np.rint(found.share[:, 9] * 54 + 6).astype(int)
    assert origins.min() == 25  # the gap has the value of step 25


def test_contexts_begin_behind_the_first_season_and_vary_where_drawn(rng):
    layout, series = Layout(6, 4), history(waves(rng, 60, 6), 6)
    whole, drawn = (windows(layout, [series], 10, each) for each in (None, np.random.default_rng(0)))
    length = whole.mask[:, :10].sum(axis=1)
    assert length[0] == 1 and (length[9:] == 10).all() and whole.mask[:, 9:].all()
    length = drawn.mask[9:, :10].sum(axis=1)
    assert length.min() == 5 and length.max() == 10 and len(set(length)) > 3


def test_the_unit_is_that_of_known_changes():
    y = np.array([1, 5, NAN, 8, 4, NAN, 7, 20.0])
    assert unit_of(y, 2) == pytest.approx(np.sqrt((3**2 + 3**2) / 2))  # 5 to 8, 4 to 7
    assert unit_of(np.array([1.0, 5.0, 1.0, 5.0, 1.0]), 2) == pytest.approx(np.std([1, 5, 1, 5, 1]))
    assert unit_of(np.full(5, 3.0), 1) == 1


def test_every_model_is_held_away_from_a_fifth(rng, monkeypatch):
    seen = []

    def fit(model, x, y, *, validation, **_):
        seen.append([each[~np.isnan(each)] for each in (y, validation["y"])])

    monkeypatch.setattr(learning.Model, "fit", fit)
    series = history(rng.standard_normal(51), 1)
    learning.learnt(Layout(1, 1), [series], Settings((0.1, 0.5, 0.9), 4, 4, 1, 0.0, 7, 1, 1, 8, 1e-3, 0))
    targets = np.diff(series.y)[1:].astype("f4") / 2  # of steps 2 to 50: shares 1/50 to 49/50
    for fold, (train, test) in zip((4, 3, 2, 1, 0, 4, 3), seen, strict=True):
        piece = slice(max(10 * fold - 1, 0), 10 * fold + 9)
        assert test == pytest.approx(targets[piece], rel=1e-6)
        assert train == pytest.approx(np.delete(targets, piece), rel=1e-6)


def test_intervals_are_stretched_until_they_hold_their_share(rng):
    quantiles = (0.05, 0.5, 0.95)
    y = rng.standard_normal((40_000, 1))
    outputs = np.tile([-0.822, 0.0, 0.822], (40_000, 1))  # half of what a normal distribution has
    found = stretches([(outputs[:1000], y[:1000]), (outputs[1000:], y[1000:])], quantiles)
    assert found == pytest.approx([2, 1, 2], rel=0.03)
    skewed = np.where(y > 0, 3 * y, y)
    assert stretches([(outputs, skewed)], quantiles) == pytest.approx([2, 1, 5], rel=0.03)  # 6, and 5 is the most
    wider = stretched(outputs[:2, ::-1], found, quantiles)
    assert wider == pytest.approx(np.tile([-1.645, 0, 1.645], (2, 1)), rel=0.03)
    assert np.quantile(y, [0.05, 0.95]) == pytest.approx(wider[0, [0, 2]], rel=0.05)


def test_between_quantiles_lie_straight_lines_against_a_normal_distribution():
    outputs = np.array([[-2.0, 1.0, 4.0]]).repeat(5, axis=0)
    z = np.array([-2.0, -1.0, 0.0, 0.5, 3.0])
    levels = (0.15865525393145707, 0.5, 0.8413447460685429)  # z of -1, 0, 1
    assert at_scores(outputs, levels, z) == pytest.approx(1 + 3 * z)
    outputs[:, 2] = 2
    assert at_scores(outputs, levels, z) == pytest.approx([-5, -2, 1, 1.5, 4])
