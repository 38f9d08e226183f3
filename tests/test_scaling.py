"""Scalers: what they subtract and divide by, the way back, gaps, and what cannot be scaled."""

import pickle

import numpy as np
import pytest

from cylstm.scaling import Scaler

KINDS = ("standard", "robust", "min-max")


@pytest.fixture
def rows(rng):
    """Sequences of 1 to 7 steps with 3 features of different units, one of them an outlier's home, with gaps."""
    rows = [rng.normal([5, -300, 1e-4], [2, 40, 1e-5], (T, 3)) for T in (7, 1, 4, 6)]
    rows[0][2, 1] = 4e4
    rows[2][1, 0] = rows[3][5, 2] = np.nan
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_the_statistics_are_those_of_all_steps_without_gaps(rows, kind):
    scaler = Scaler(kind).fit(rows)
    steps = np.concatenate(rows)
    low, middle, high = np.nanquantile(steps, (0.25, 0.5, 0.75), axis=0)
    expected = {
        "standard": (np.nanmean(steps, axis=0), np.nanstd(steps, axis=0)),
        "robust": (middle, high - low),
        "min-max": (np.nanmin(steps, axis=0), np.nanmax(steps, axis=0) - np.nanmin(steps, axis=0)),
    }[kind]
    np.testing.assert_allclose((scaler.center, scaler.scale), expected, rtol=1e-13)
    for found, row in zip(scaler.transform(rows), rows, strict=True):
        np.testing.assert_allclose(found, (row - expected[0]) / expected[1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back(rows, kind):
    scaler = Scaler(kind).fit(rows)
    for found, row in zip(scaler.inverse(scaler.transform(rows)), rows, strict=True):
        np.testing.assert_allclose(found, row, rtol=1e-11)
        assert np.array_equal(np.isnan(found), np.isnan(row))


@pytest.mark.parametrize("kind", KINDS)
def test_one_array_and_a_list_of_its_rows_are_the_same(rng, kind):
    x = rng.normal(3, 2, (5, 6, 2))
    array, listed = Scaler(kind).fit(x), Scaler(kind).fit(list(x))
    assert np.array_equal(array.center, listed.center) and np.array_equal(array.scale, listed.scale)
    assert np.array_equal(array.transform(x), np.stack(listed.transform(list(x))))
    assert array.transform(x[0]).shape == (6, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.1, 0.0, -3e5, 1e20 / 3, 1e300, 1e-300, 1.7e308, 5e-324])
def test_a_constant_feature_has_scale_1(rng, kind, value):
    x = rng.standard_normal((3, 333, 2))
    x[..., 1] = value
    scaler = Scaler(kind).fit(x)
    assert scaler.scale[0] != 1 and scaler.scale[1] == 1
    assert scaler.center[1] == value and not scaler.transform(x)[..., 1].any()


def test_huge_and_tiny_numbers_and_outliers_keep_their_spread():
    x = np.array([1.0, 2, 3, 4, 5])[:, None]
    for unit in (1e300, 1e-300):
        np.testing.assert_allclose(Scaler().fit(x * unit).scale / unit, np.sqrt(2), rtol=1e-14)
    assert Scaler("robust").fit([[1.0], [2.0], [3.0], [4.0], [1e20]]).scale == 2
    assert Scaler("robust").fit([[1.0], [2.0], [2.0], [2.0], [9.0]]).scale == 1  # quartiles that are the same


def test_types_stay_and_small_ones_lose_nothing_to_a_large_mean():
    x = (1e6 + np.arange(8).reshape(2, 4, 1)).astype("float32")
    scaled = Scaler().fit(x).transform(x)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.ravel(), (np.arange(8) - 3.5) / np.arange(8).std(), rtol=1e-6)
    assert Scaler().fit(np.arange(8).reshape(4, 2)).transform(np.arange(4).reshape(2, 2)).dtype == np.float64


def test_state_makes_it_anew(rows):
    scaler = Scaler("robust").fit(rows)
    for again in (Scaler("robust", **scaler.state()), pickle.loads(pickle.dumps(scaler))):
        assert again.kind == "robust"
        assert np.array_equal(again.transform(rows)[1], scaler.transform(rows)[1])
    assert "Scaler('robust', center=[" in repr(again) and repr(Scaler()) == "Scaler('standard')"


@pytest.mark.parametrize("act, said", [
    (lambda: Scaler("max"), "kind: expected one of 'standard', 'robust', 'min-max', got str 'max'"),
    (lambda: Scaler().transform(np.ones((2, 3))), "Scaler: expected a fitted one, got one without statistics"),
    (lambda: Scaler().state(), "Scaler: expected a fitted one"),
    (lambda: Scaler(center=[1.0]), "scale: expected both center and scale, or none"),
    (lambda: Scaler(center=[1.0], scale=[0.0]), "scale: expected numbers > 0, got 0"),
    (lambda: Scaler(center=[1.0], scale=[1.0, 2.0]), r"scale: expected \(1,\), as center is, got \(2,\)"),
    (lambda: Scaler(center=[np.nan], scale=[1.0]), r"center\[0\]: expected a finite number, got nan"),
    (lambda: Scaler().fit(np.full((2, 3), np.inf)), r"values\[0, 0\]: expected a finite number, got inf"),
    (lambda: Scaler().fit([np.array([[1.0, np.nan]])]), "values: expected at least one number of feature 1, got none"),
    (lambda: Scaler().fit([np.ones((4, 3)), np.ones((4, 2))]), r"values\[1\]: expected \(T, 3\), got float64 \(4, 2\)"),
    (lambda: Scaler().fit(np.ones(4)), r"values: expected \(..., F\) of at least two axes, got float64 \(4,\)"),
    (lambda: Scaler().fit(np.ones((4, 2))).transform(np.ones((4, 3))), r"values: expected \(..., 2\) of at least two"),
])  # fmt: skip
def test_what_cannot_be_is_said(act, said):
    with pytest.raises(ValueError, match=said):
        act()


@pytest.mark.parametrize("kind, numbers", [("standard", [0.0, 5e-324]), ("min-max", [-1.7e308, 1.7e308])])
def test_a_spread_that_is_no_number_is_said(kind, numbers):
    scaler = Scaler(kind).fit([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match=r"values\[..., 1\]: expected a spread that float64 holds, got .* to "):
        scaler.fit(np.stack([[0.0, 1.0], numbers], axis=1))
    assert scaler.center.tolist() == Scaler(kind).fit([[1.0, 2.0], [3.0, 4.0]]).center.tolist()


@pytest.mark.parametrize("way, scale, numbers, said", [
    ("inverse", 1e4, np.array([[np.nan], [7.0]], "float16"), r"values\[1, 0\]: expected a number that float16 holds"),
    ("transform", 1e-4, np.array([[1.0], [7.0]], "float16"), r"values\[1, 0\]: expected a number that float16 holds"),
    ("inverse", 1e30, [np.ones((1, 1)), np.full((1, 1), 1e30, "f4")], r"values\[1\]\[0, 0\]: expected a number that"),
    ("transform", 1e-300, np.array([[1e30]]), r"values\[0, 0\]: expected a number that float64 holds when scaled"),
])  # fmt: skip
def test_a_number_that_scaling_makes_infinite_is_said(way, scale, numbers, said):
    with pytest.raises(ValueError, match=said):
        getattr(Scaler(center=[0.0], scale=[scale]), way)(numbers)


def test_a_state_is_a_copy(rows):
    scaler = Scaler().fit(rows)
    scaler.state()["center"][:] = scaler.state()["scale"][:] = 9
    assert np.array_equal(scaler.center, Scaler().fit(rows).center) and not (scaler.scale == 9).any()


def test_other_kinds_are_no_numbers():
    with pytest.raises(TypeError, match="values: expected numbers, got <U1"):
        Scaler().fit([["a"], ["b"]])
