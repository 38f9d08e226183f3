"""CTC's decoders: the best path in plain NumPy, beams against every alignment there is and against a search in plain
Python, and what users get wrong."""

import itertools
from collections import defaultdict

import numpy as np
import pytest

from cylstm import ctc_oracle, num_threads, set_num_threads
from cylstm._core import ctc as core
from cylstm.ctc import Labelling, ctc_beam_search, ctc_greedy, ctc_loss


@pytest.fixture
def threads():
    before = num_threads()
    yield set_num_threads
    set_num_threads(before)


def merged(alignment, blank):
    """(label, start, end) of each label that an alignment leaves."""
    runs, t = [], 0
    for v, steps in itertools.groupby(alignment):
        n = len(list(steps))
        if v != blank:
            runs.append((v, t, t + n))
        t += n
    return runs


def runs_of(result):
    assert isinstance(result, Labelling) and result.labels.dtype == result.start.dtype == result.end.dtype == np.int64
    return list(zip(result.labels.tolist(), result.start.tolist(), result.end.tolist(), strict=True))


def same(one, other):
    return runs_of(one) == runs_of(other) and one.score == other.score


def beams(logits, blank, width):
    """Hannun et al.'s search, with a dict for a beam: the most probable first, as (labels, log probability)."""
    beam = {(): (1.0, 0.0)}
    for y in np.exp(ctc_oracle.log_softmax(logits)):
        found = defaultdict(lambda: [0.0, 0.0])
        for labels, (in_blank, in_label) in beam.items():
            found[labels][0] += (in_blank + in_label) * y[blank]
            if labels:
                found[labels][1] += in_label * y[labels[-1]]
            for v in range(len(y)):
                if v != blank:
                    found[*labels, v][1] += (in_blank if labels[-1:] == (v,) else in_blank + in_label) * y[v]
        beam = dict(sorted(found.items(), key=lambda entry: -sum(entry[1]))[:width])
    return [(labels, np.log(sum(p))) for labels, p in beam.items()]


# --- the best path ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("V", "blank"), [(2, 0), (3, 1), (5, 4), (40, 17)])
def test_greedy_is_the_best_class_of_each_step(isa, dtype, rng, V, blank):
    sizes = [1, 7, 30, 64, 2]
    logits = [rng.normal(0, 2, (T, V)).astype(dtype) for T in sizes]
    logits[2][:, blank] += 2
    for z, result in zip(logits, ctc_greedy(logits, blank=blank), strict=True):
        assert runs_of(result) == merged(z.argmax(axis=1).tolist(), blank)
        expected = ctc_oracle.log_softmax(z).max(axis=1).sum()
        assert result.score == pytest.approx(expected, rel={"float32": 1e-6, "float64": 1e-13}[dtype])


def test_greedy_of_padded_rows(isa, dtype, rng):
    logits = rng.normal(0, 2, (3, 20, 6)).astype(dtype)
    lengths = [20, 3, 11]
    cut = [z[:T] for z, T in zip(logits, lengths, strict=True)]
    logits[1, 3:], logits[2, 11:] = np.nan, np.inf
    for one, other in zip(ctc_greedy(logits, lengths=lengths, blank=2), ctc_greedy(cut, blank=2), strict=True):
        assert same(one, other)


def test_runs_and_blanks():
    path = [0, 2, 2, 0, 2, 1, 1, 1, 0, 0, 1]
    logits = np.eye(3)[path]
    [result] = ctc_greedy(logits[None])
    assert runs_of(result) == [(2, 1, 3), (2, 4, 5), (1, 5, 8), (1, 10, 11)]
    [nothing] = ctc_greedy(np.eye(3)[[1] * 4][None], blank=1)
    assert runs_of(nothing) == [] and nothing.score == pytest.approx(4 * np.log(np.e / (np.e + 2)))
    [equal] = ctc_greedy(np.zeros((1, 3, 4)), blank=3)
    assert runs_of(equal) == [(0, 0, 3)]  # the first of equals, as numpy.argmax has it


# --- beams ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("T", "V", "blank"), [(1, 2, 0), (1, 4, 3), (4, 3, 1), (5, 3, 2), (6, 2, 0), (4, 4, 0)])
def test_a_wide_beam_finds_everything(isa, dtype, rng, T, V, blank):
    """Every labelling, the most probable first, with its probability: against all V^T alignments."""
    logits = [rng.normal(0, 1.5, (T, V)).astype(dtype) for _ in range(4)]
    for z, results in zip(logits, ctc_beam_search(logits, blank=blank, width=2000, best=2000), strict=True):
        expected = ctc_oracle.ctc_probabilities(z, blank)
        assert sum(np.exp(result.score) for result in results) == pytest.approx(1, rel=1e-6)
        assert [result.score for result in results] == sorted((r.score for r in results), reverse=True)
        assert {tuple(result.labels.tolist()) for result in results} == set(expected)
        for result in results:
            p = expected[tuple(result.labels.tolist())]
            assert np.exp(result.score) == pytest.approx(p, rel={"float32": 1e-5, "float64": 1e-12}[dtype])
    [first] = ctc_beam_search(logits[:1], blank=blank, width=2000)
    assert same(first, ctc_beam_search(logits[:1], blank=blank, width=2000, best=1)[0][0])


@pytest.mark.parametrize("width", [1, 2, 3, 7, 40])
@pytest.mark.parametrize(
    ("T", "V", "blank", "scale"), [(30, 6, 0, 1.0), (12, 50, 31, 2.0), (25, 3, 2, 0.5), (9, 13, 12, 0.1)]
)
def test_a_narrow_beam_is_that_of_a_plain_search(isa, dtype, rng, T, V, blank, scale, width):
    logits = rng.normal(0, scale, (3, T, V)).astype(dtype)
    for z, results in zip(logits, ctc_beam_search(logits, blank=blank, width=width, best=width), strict=True):
        expected = beams(z, blank, width)
        assert [tuple(result.labels.tolist()) for result in results] == [labels for labels, _ in expected]
        np.testing.assert_allclose([result.score for result in results], [p for _, p in expected], rtol=1e-5)


def test_a_prefix_that_comes_back_is_the_same_one(rng):
    """Narrow beams lose prefixes whose continuations they keep; found again, they must not be there twice."""
    for seed in range(40):
        logits = np.random.default_rng(seed).normal(0, 1.2, (1, 40, 3))
        results = ctc_beam_search(logits, width=4, best=4)[0]
        labels = [tuple(result.labels.tolist()) for result in results]
        assert len(set(labels)) == len(labels)
        assert labels == [found for found, _ in beams(logits[0], 0, 4)]


@pytest.mark.parametrize("blank", [0, 2])
def test_labels_are_where_their_best_alignment_has_them(dtype, rng, blank):
    T, V = 6, 3
    logits = rng.normal(0, 1.5, (2, T, V)).astype(dtype)
    logits[1, 2, 1 - blank // 2] = -np.inf
    for z, results in zip(logits, ctc_beam_search(logits, blank=blank, width=500, best=500), strict=True):
        y = ctc_oracle.log_softmax(z)
        best = {}
        for alignment in itertools.product(range(V), repeat=T):
            runs, score = merged(alignment, blank), y[np.arange(T), alignment].sum()
            labels = tuple(v for v, _, _ in runs)
            best[labels] = max(best.get(labels, (-np.inf, [])), (score, runs))
        for result in results:
            assert runs_of(result) == best[tuple(result.labels.tolist())][1]


def test_scores_are_losses(dtype, rng):
    """Or a little less, where the beam lost some alignments."""
    logits = rng.normal(0, 6, (5, 40, 30)).astype(dtype)
    lengths = [40, 12, 33, 1, 40]
    results = ctc_beam_search(logits, lengths=lengths, width=200, blank=29)
    losses = ctc_loss(logits, [result.labels for result in results], input_lengths=lengths, blank=29)
    scores = np.array([result.score for result in results])
    np.testing.assert_allclose(scores, -losses, rtol=0.01)
    assert (scores <= -losses + 1e-5).all()
    greedy = ctc_greedy(logits, lengths=lengths, blank=29)
    assert all(beam.score >= path.score for beam, path in zip(results, greedy, strict=True))
    for result, T in zip(results, lengths, strict=True):
        ends = result.end.tolist()
        assert all(s < e for s, e in zip(result.start, ends, strict=True)) and all(e <= T for e in ends)
        assert all(e <= s for e, s in zip(ends, result.start[1:], strict=False))


def test_classes_that_cannot_be_are_in_no_label(isa, dtype, rng):
    logits = rng.normal(0, 1, (1, 12, 9)).astype(dtype)
    logits[..., 3], logits[0, 5, 0] = -np.inf, -np.inf
    for result in ctc_beam_search(logits, width=60, best=60)[0]:
        assert 3 not in result.labels and np.isfinite(result.score)
        assert any(start <= 5 < end for start, end in zip(result.start, result.end, strict=True))
    assert ctc_beam_search(np.array([[[-np.inf, 0.0]] * 3]), width=5)[0].labels.tolist() == [1]
    assert len(ctc_beam_search(np.array([[[0.0, -np.inf]] * 3]), width=5, best=5)[0]) == 1


def test_the_same_results_for_any_number_of_threads(dtype, rng, threads):
    logits = [rng.normal(0, 2, (60 - n, 25)).astype(dtype) for n in range(23)]
    found = []
    for count in (1, 2, 5):
        threads(count)
        found.append([*ctc_greedy(logits), *ctc_beam_search(logits, width=30)])
    for other in found[1:]:
        assert all(same(one, another) for one, another in zip(found[0], other, strict=True))


# --- what users get wrong ---------------------------------------------------------------------------------------------

Z = np.zeros((2, 5, 4), np.float32)


@pytest.mark.parametrize("decode", [ctc_greedy, ctc_beam_search])
@pytest.mark.parametrize(("logits", "options", "error", "message"), [
    (Z[0], {}, ValueError, r"logits: expected \(B, T, V\)"),
    (Z, {"lengths": [5, 6]}, ValueError, r"lengths\[1\]: expected 1\.\.5, got 6"),
    (list(Z), {"lengths": [5, 5]}, ValueError, "lengths: expected None beside a list of logits"),
    (Z, {"blank": 4}, ValueError, r"blank: expected a class in 0\.\.3, got int 4"),
])  # fmt: skip
def test_bad_input_is_named(decode, logits, options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        decode(logits, **options)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"width": 0}, ValueError, "width: expected an integer >= 1, got 0"),
    ({"width": 2.0}, TypeError, "width: expected an integer, got float"),
    ({"width": 2**31}, ValueError, r"width: expected 1\.\.429496729 for 5 steps, got 2147483648"),
    ({"best": 0}, ValueError, "best: expected an integer >= 1, got 0"),
    ({"width": 3, "best": 4}, ValueError, "best: expected at most the width 3, got 4"),
])  # fmt: skip
def test_bad_widths_are_named(options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        ctc_beam_search(Z, **options)


@pytest.mark.parametrize("decode", [ctc_greedy, ctc_beam_search])
@pytest.mark.parametrize(("wrong", "said"), [(np.nan, "a number, got nan"), (np.inf, "a number, got inf")])
def test_what_is_no_number_is_named(isa, dtype, rng, decode, wrong, said):
    logits = rng.standard_normal((3, 6, 20)).astype(dtype)
    logits[1, 4, 18] = wrong
    with pytest.raises(ValueError, match=rf"^logits\[1, 4, 18\]: expected {said}$"):
        decode(logits)
    with pytest.raises(ValueError, match=rf"^logits\[1\]\[4, 18\]: expected {said}$"):
        decode(list(logits))
    decode(logits, lengths=[6, 4, 6])
    logits[1, 4] = -np.inf
    with pytest.raises(ValueError, match=r"^logits\[1, 4, 0\]: expected a number at one class at least, got -inf$"):
        decode(logits)


def test_the_core_aligns_within_its_arrays():
    """Labels that are too many for the steps have no alignment, and do no harm."""
    start, end = core.align(np.zeros((2, 3)), np.array([0]), np.array([2]), np.array([1, 1, 2]), np.array([0, 3]), 0)
    assert start.shape == end.shape == (3,)
    with pytest.raises(ValueError, match="labels: expected"):
        core.align(np.zeros((2, 3)), np.array([0]), np.array([2]), np.array([0]), np.array([0, 1]), 0)
