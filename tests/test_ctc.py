"""CTC's loss: the oracle against finite differences and every alignment there is, the kernel against the oracle,
published numbers, and what users get wrong."""

import ctypes
import itertools

import numpy as np
import pytest
import raw
from gradcheck import check_gradients
from test_kernels import before_forbidden_memory

from cylstm import ctc_oracle, num_threads, oracle, set_num_threads
from cylstm._core import ctc as core
from cylstm.ctc import ctc_loss

# tests/test_cpu.cpp of Baidu's warp-ctc: probabilities, step by step, of two rows; the blank is class 5.
WARP_CTC = np.array([
    [[0.633766, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
     [0.111121, 0.588392, 0.278779, 0.0055756, 0.00569609, 0.010436],
     [0.0357786, 0.633813, 0.321418, 0.00249248, 0.00272882, 0.0037688],
     [0.0663296, 0.643849, 0.280111, 0.00283995, 0.0035545, 0.00331533],
     [0.458235, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107]],
    [[0.30176, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
     [0.24082, 0.397533, 0.0557226, 0.0546814, 0.0557528, 0.19549],
     [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, 0.202456],
     [0.280884, 0.429522, 0.0326593, 0.0339046, 0.0326856, 0.190345],
     [0.423286, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046]],
])  # fmt: skip
WARP_CTC_TARGETS = [[0, 1, 2, 1, 0], [0, 1, 1, 0]]
# Five steps have room for one alignment only, the second with a blank: its gradients are the probabilities less these.
WARP_CTC_PATHS = [[0, 1, 2, 1, 0], [0, 1, 5, 1, 0]]


@pytest.fixture
def threads():
    before = num_threads()
    yield set_num_threads
    set_num_threads(before)


def some_labels(rng, V, L, blank):
    """Of few kinds, so that some repeat."""
    return rng.choice(np.delete(np.arange(V), blank)[:5], L)


def batch(rng, dtype, sizes, V, blank, scale=2.0):
    """Rows (T, L) of logits and labels."""
    logits = [rng.normal(0, scale, (T, V)).astype(dtype) for T, _ in sizes]
    return logits, [some_labels(rng, V, L, blank) for _, L in sizes]


# --- the oracle -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("T", "V", "labels", "blank"), [
    (4, 3, [1, 2], 0), (5, 4, [0, 0, 2], 3), (6, 3, [0, 2, 2], 1), (3, 3, [], 2), (1, 2, [0], 1), (7, 5, [3, 1, 3], 4),
])  # fmt: skip
def test_the_oracles_gradient(rng, T, V, labels, blank):
    logits = rng.standard_normal((T, V))
    _, gradient = oracle.ctc_loss(logits, labels, blank)
    check_gradients(lambda: oracle.ctc_loss(logits, labels, blank)[0], {"z": logits}, {"z": gradient})


@pytest.mark.parametrize(("T", "V", "blank"), [(1, 2, 0), (3, 3, 1), (4, 3, 2), (6, 2, 1), (5, 4, 0)])
def test_the_oracle_sums_over_all_alignments(rng, T, V, blank):
    logits = rng.normal(0, 2, (T, V))
    expected = ctc_oracle.ctc_probabilities(logits, blank)
    assert sum(expected.values()) == pytest.approx(1, rel=1e-12)
    for n in range(T + 2):
        for labels in itertools.product(np.delete(np.arange(V), blank).tolist(), repeat=n):
            p = np.exp(-oracle.ctc_loss(logits, list(labels), blank)[0])
            assert p == pytest.approx(expected.get(labels, 0), rel=1e-10)


# --- the kernel -------------------------------------------------------------------------------------------------------

SIZES = [(1, 0), (1, 1), (2, 1), (9, 4), (9, 0), (40, 15), (33, 16), (37, 17), (70, 31), (64, 32), (90, 40), (5, 4)]


@pytest.mark.parametrize(("V", "blank"), [(2, 1), (3, 0), (6, 3), (17, 16), (28, 0), (131, 77)])
def test_loss_and_gradient(isa, dtype, rng, close, V, blank):
    logits, labels = batch(rng, dtype, SIZES, V, blank)
    losses, gradients = ctc_loss(logits, labels, blank=blank, gradients=True)
    assert losses.dtype == np.float64 and len(gradients) == len(SIZES)
    for z, target, loss, gradient in zip(logits, labels, losses, gradients, strict=True):
        expected, dlogits = oracle.ctc_loss(z, target, blank)
        assert loss == pytest.approx(expected, rel={"float32": 2e-6, "float64": 1e-13}[dtype])
        if np.isfinite(expected):
            close(gradient, dlogits, f"{len(z)} steps, {len(target)} labels")
            np.testing.assert_allclose(gradient.sum(axis=1), 0, atol={"float32": 1e-6, "float64": 1e-15}[dtype])
        else:
            assert not gradient.any()
    np.testing.assert_array_equal(ctc_loss(logits, labels, blank=blank), losses)


@pytest.mark.parametrize("blank", [0, 1, 2])
def test_the_probabilities_of_all_labellings_sum_to_1(isa, dtype, rng, blank):
    T, logits = 5, rng.normal(0, 2, (5, 3)).astype(dtype)
    others = np.delete(np.arange(3), blank).tolist()
    every = [labels for n in range(T + 1) for labels in itertools.product(others, repeat=n)]
    p = np.exp(-ctc_loss([logits] * len(every), every, blank=blank))
    assert p.sum() == pytest.approx(1, rel={"float32": 1e-6, "float64": 1e-13}[dtype])
    expected = ctc_oracle.ctc_probabilities(logits, blank)
    np.testing.assert_allclose(p, [expected.get(labels, 0) for labels in every], rtol=1e-5)


def test_the_numbers_of_warp_ctc(isa, dtype):
    logits = np.log(WARP_CTC).astype(dtype)
    losses, gradients = ctc_loss(logits, WARP_CTC_TARGETS, blank=5, gradients=True)
    np.testing.assert_allclose(losses, [3.342114, 5.422623], atol=2e-6)
    for gradient, y, path in zip(gradients, WARP_CTC, WARP_CTC_PATHS, strict=True):
        np.testing.assert_allclose(gradient, y - np.eye(6)[path], atol=1e-4)  # its tolerance
    two = np.array([[[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1]]], dtype)
    y = np.exp(0.6) / (np.exp(0.6) + 4 * np.exp(0.1))
    assert np.exp(-ctc_loss(two, [[1, 2]])) == pytest.approx(y**2, rel=1e-6)


def test_the_numbers_of_keras(isa, dtype):
    """Its test of ctc_loss: the second row has two steps and two labels."""
    logits = np.array([[[0.4, 0.8, 0.4], [0.2, 0.8, 0.3], [0.9, 0.4, 0.5]],
                       [[0.4, 0.8, 0.4], [0.2, 0.3, 0.3], [0.4, 0.3, 0.2]]], dtype)  # fmt: skip
    losses = ctc_loss(logits, np.array([[1, 2, 1], [1, 2, 2]]), input_lengths=[3, 2], target_lengths=[3, 2])
    np.testing.assert_allclose(losses, [3.4411672, 1.91680186], atol=2e-7)


def test_rows_of_unequal_length_in_every_form(isa, dtype, rng):
    """Padded, in a list, each alone: the same bits. What stands past an end may be anything."""
    sizes, V, blank = [(7, 3), (12, 5), (1, 0), (9, 9), (12, 0)], 6, 2
    logits, labels = batch(rng, dtype, sizes, V, blank)
    losses, gradients = ctc_loss(logits, labels, blank=blank, gradients=True)
    padded, targets = np.full((5, 12, V), np.nan, dtype), np.full((5, 9), -7)
    for b, (z, target) in enumerate(zip(logits, labels, strict=True)):
        padded[b, : len(z)], targets[b, : len(target)] = z, target
    before = padded.copy()
    lengths, counts = [T for T, _ in sizes], np.array([L for _, L in sizes], np.uint8)
    got, dpadded = ctc_loss(padded, targets, input_lengths=lengths, target_lengths=counts, blank=blank, gradients=True)
    np.testing.assert_array_equal(got, losses)
    np.testing.assert_array_equal(padded, before)
    assert dpadded.shape == padded.shape and dpadded.dtype == dtype
    for b, (T, L) in enumerate(sizes):
        np.testing.assert_array_equal(dpadded[b, :T], gradients[b])
        assert not dpadded[b, T:].any()
        alone = ctc_loss(padded[b : b + 1, :T], [targets[b, :L].tolist()], blank=blank, gradients=True)
        assert alone[0] == losses[b]
        np.testing.assert_array_equal(alone[1][0], gradients[b])


def test_gradients_go_where_they_are_wanted(isa, dtype, rng):
    """Over whatever is there, over the logits, and not over half of them."""
    logits, lengths, targets = rng.normal(0, 2, (3, 8, 5)).astype(dtype), [8, 2, 5], [[1, 2], [4], [3, 3]]
    losses, gradients = ctc_loss(logits, targets, input_lengths=lengths, gradients=True)
    memory = np.full((4, 8, 5), np.nan, dtype)
    memory[1:] = logits
    for out, given in ((np.full_like(logits, np.nan), logits), (memory[1:], memory[1:])):
        got, returned = ctc_loss(given, targets, input_lengths=lengths, out=out)
        assert returned is out
        np.testing.assert_array_equal(got, losses)
        np.testing.assert_array_equal(out, gradients)
    readonly = np.zeros_like(logits)
    readonly.flags.writeable = False
    other = {"float32": "float64", "float64": "float32"}[dtype]
    for wrong, error, message in [
        (memory[:3], ValueError, "out: expected logits itself or memory apart from it"),
        (memory, ValueError, r"out: expected float.. \(3, 8, 5\), got float.. \(4, 8, 5\)"),
        (np.zeros((3, 8, 5), other), ValueError, r"out: expected float.. \(3, 8, 5\), got float.. \(3, 8, 5\)"),
        (np.asfortranarray(logits), ValueError, "out: expected an array that is C-contiguous and writeable"),
        (readonly, ValueError, "out: expected an array that is C-contiguous and writeable"),
        (logits.tolist(), TypeError, "out: expected an array, got list"),
    ]:
        with pytest.raises(error, match=message):
            ctc_loss(memory[1:], targets, out=wrong)
    with pytest.raises(ValueError, match=r"out: expected float.. \(B, T, V\), got"):
        ctc_loss(list(logits), targets, out=np.zeros_like(logits))


def test_rows_that_are_too_short(isa, dtype, rng):
    """One step fewer than labels and equal neighbours need, and just as many."""
    labels = [[1, 1, 1], [1, 2, 1], [2, 2, 1], [3]]
    needed = [5, 3, 4, 1]
    logits = [rng.normal(0, 2, (T, 4)).astype(dtype) for T in needed]
    losses, gradients = ctc_loss(logits, labels, gradients=True)
    assert np.isfinite(losses).all() and all(gradient.any(axis=1).all() for gradient in gradients)
    shorter = [z[:-1] for z in logits[:3]]
    losses, gradients = ctc_loss(shorter, labels[:3], gradients=True)
    assert (losses == np.inf).all() and not any(gradient.any() for gradient in gradients)
    losses, gradients = ctc_loss([*shorter, logits[3]], labels, zero_infinity=True, gradients=True)
    assert not losses[:3].any() and losses[3] == oracle_loss(logits[3], labels[3], dtype) and gradients[3].any()


def oracle_loss(z, labels, dtype):
    return pytest.approx(oracle.ctc_loss(z, labels)[0], rel={"float32": 2e-6, "float64": 1e-13}[dtype])


def test_no_labels_are_blanks_alone(isa, dtype, rng):
    logits = rng.normal(0, 3, (2, 20, 7)).astype(dtype)
    for targets in ([[], []], np.zeros((2, 0), int), [np.array([]), ()]):
        losses = ctc_loss(logits, targets, blank=4)
        np.testing.assert_allclose(losses, -ctc_oracle.log_softmax(logits)[..., 4].sum(axis=1), rtol=1e-6)


def test_classes_that_cannot_be(isa, dtype, rng):
    """A logit of -infinity, or as good as it."""
    logits = rng.normal(0, 2, (3, 8, 5)).astype(dtype)
    logits[0, :, 3] = -np.inf  # of no label
    logits[1, :, 1] = -np.inf
    logits[2, 2:, 2] = -np.inf
    labels = [[1, 2], [2, 1], [2, 1]]
    losses, gradients = ctc_loss(logits, labels, gradients=True)
    assert losses[1] == np.inf and not gradients[1].any()
    for b in (0, 2):
        expected, dlogits = oracle.ctc_loss(logits[b], labels[b])
        assert losses[b] == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(gradients[b], dlogits, atol=1e-6)
    far = np.where(np.isneginf(logits), np.finfo(dtype).min / 2, logits)
    losses, gradients = ctc_loss(far, labels, gradients=True)
    assert losses[1] > 1e30 and not np.isnan(gradients).any()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 100.0, 1e4, 1e6, 3e7, 1e30])
def test_logits_of_any_size(isa, dtype, rng, scale):
    logits, labels = batch(rng, dtype, [(200, 60), (31, 9)], 12, 11, scale)
    losses, gradients = ctc_loss(logits, labels, blank=11, gradients=True)
    for z, target, loss, gradient in zip(logits, labels, losses, gradients, strict=True):
        expected, dlogits = oracle.ctc_loss(z, target, 11)
        assert loss == pytest.approx(expected, rel={"float32": 3e-6, "float64": 1e-12}[dtype])
        np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-5)
        if scale < 1e6:  # beyond, float32 tells no alignments apart that are closer than 1
            np.testing.assert_allclose(gradient, dlogits, atol={"float32": 1e-5, "float64": 1e-8}[dtype])


@pytest.mark.parametrize("scale", [0.01, 3.0, 30.0])
def test_float32_over_2000_steps(isa, rng, scale):
    logits, labels = batch(rng, "float32", [(2000, 300)], 30, 29, scale)
    losses, (gradient,) = ctc_loss(logits, labels, blank=29, gradients=True)
    expected, dlogits = oracle.ctc_loss(logits[0], labels[0], 29)
    assert losses[0] == pytest.approx(expected, rel=1e-8)
    np.testing.assert_allclose(gradient, dlogits, atol=5e-6)


def test_a_sure_loss_is_small_and_never_negative(isa, dtype):
    labels = [1, 2, 2, 3]
    logits = np.full((40, 5), -60, dtype)
    logits[:, 0] = 0
    logits[[3, 9, 20, 30], labels] = 60
    loss, gradients = ctc_loss(logits[None], [labels], gradients=True)
    assert 0 <= loss[0] < {"float32": 1e-5, "float64": 1e-14}[dtype]
    assert np.abs(gradients).max() < 1e-5


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 0), (4, 3), (8, 36), (8, 35)])
def test_what_is_no_number_reaches_the_loss_of_its_row(isa, dtype, rng, wrong, place):
    """Also where the row is too short; and no other row's."""
    logits = rng.normal(0, 2, (3, 9, 37)).astype(dtype)
    logits[1][place] = wrong
    for labels in ([1, 2, 36], [1] * 9):
        losses, gradients = ctc_loss(logits, [[1], labels, [2]], gradients=True, zero_infinity=True)
        assert np.isnan(losses).tolist() == [False, True, False]
        assert np.isnan(gradients[1]).all() and np.isfinite(gradients[[0, 2]]).all()
    logits[1] = -np.inf
    assert np.isnan(ctc_loss(logits, [[1], [], [2]])).tolist() == [False, True, False]


def test_the_same_bits_for_any_number_of_threads(dtype, rng, threads):
    logits, labels = batch(rng, dtype, [(150 - 7 * n % 64, 40 - n) for n in range(37)], 30, 4)
    found = []
    for count in (1, 2, 3, 7):
        threads(count)
        losses, gradients = ctc_loss(logits, labels, blank=4, gradients=True)
        found.append((losses.tobytes(), *(gradient.tobytes() for gradient in gradients)))
    assert all(other == found[0] for other in found[1:])


def scratch(T, L, gradient):
    """Reals, as kernels.h says."""
    width, kept, alphas = L // 16 * 16 + 16, T if gradient else 1, T + 1 if gradient else 2
    return (alphas + 1) * 4 * (width + 16) + kept * (2 * width + 16) + 2 * width + 48


@pytest.mark.parametrize(("T", "V", "L"), [(1, 1, 0), (6, 5, 3), (20, 33, 15), (20, 16, 16), (34, 7, 33)])
def test_the_kernel_keeps_to_its_arrays(isa, dtype, rng, T, V, L):
    """Behind each begins forbidden memory. The gradient's rows, and those of the logits, are further apart than V."""
    real = {"float32": ctypes.c_float, "float64": ctypes.c_double}[dtype]
    size, pointer = ctypes.c_ssize_t, ctypes.c_void_p
    kinds = [size, size, size, pointer, size, pointer, size, real, pointer, size, pointer]
    kernel = ctypes.CFUNCTYPE(ctypes.c_double, *kinds)(raw.addresses(isa, dtype)["ctc_loss"])
    logits = rng.normal(0, 2, T * (V + 3) - 3).astype(dtype)
    z = np.array([logits[t * (V + 3) :][:V] for t in range(T)])
    labels = rng.integers(1, max(2, V), L)
    expected, dlogits = oracle.ctc_loss(z, labels)
    at = [before_forbidden_memory(a) for a in (logits, labels, np.full(T * (V + 1) - 1, np.nan, dtype))]
    for gradient in (None, at[2]):
        room = before_forbidden_memory(np.full(scratch(T, L, gradient is not None), np.nan, dtype))
        loss = kernel(T, V, L, at[0].ctypes.data, V + 3, at[1].ctypes.data, 0, 0.25,
                      None if gradient is None else gradient.ctypes.data, V + 1, room.ctypes.data)  # fmt: skip
        assert loss == pytest.approx(expected, rel=2e-6)
    got = np.append(at[2], np.nan).reshape(T, V + 1)
    np.testing.assert_allclose(got[:, :V], 0.25 * dlogits, atol=1e-6)
    assert np.isnan(got[:, V]).all()


# --- what users get wrong ---------------------------------------------------------------------------------------------

Z = np.zeros((2, 5, 4), np.float32)
Y = [[1, 2], [3]]


@pytest.mark.parametrize(("logits", "targets", "options", "error", "message"), [
    (Z[0], Y, {}, ValueError, r"logits: expected \(B, T, V\) with a row, a step and a class at least, got .*\(5, 4\)"),
    (Z[:0], [], {}, ValueError, r"logits: expected \(B, T, V\) .*, got float32 \(0, 5, 4\)"),
    (Z.astype(int), Y, {}, TypeError, r"logits: expected floating-point numbers, got int64 \(2, 5, 4\)"),
    ([], [], {}, ValueError, r"logits: expected \(B, T, V\)"),
    ([Z[0], Z[1, :, :3]], Y, {}, ValueError, r"logits\[1\]: expected \(T >= 1, V = 4\), got float32 \(5, 3\)"),
    ([Z[0], Z[1, :0]], Y, {}, ValueError, r"logits\[1\]: expected \(T >= 1, V = 4\), got float32 \(0, 4\)"),
    ([Z[0, 0], Z[1]], Y, {}, ValueError, r"logits\[0\]: expected \(T >= 1, V\), got float32 \(4,\)"),
    ([Z[0], Z[1] > 0], Y, {}, TypeError, r"logits\[1\]: expected floating-point numbers, got bool"),
    (list(Z), Y, {"input_lengths": [5, 5]}, ValueError, "input_lengths: expected None beside a list of logits"),
    (Z, Y, {"input_lengths": [5, 6]}, ValueError, r"input_lengths\[1\]: expected 1\.\.5, got 6"),
    (Z, Y, {"input_lengths": [0, 5]}, ValueError, r"input_lengths\[0\]: expected 1\.\.5, got 0"),
    (Z, Y, {"input_lengths": [5.0, 5]}, TypeError, "input_lengths: expected integers, got float64"),
    (Z, Y, {"input_lengths": [5]}, ValueError, r"input_lengths: expected \(2,\), got \(1,\)"),
    (Z, Y, {"target_lengths": [2, 1]}, TypeError, "targets: expected one array, got rows of unequal length"),
    (Z, [[1, 2]] * 2, {"target_lengths": [2, 3]}, ValueError, r"target_lengths\[1\]: expected 0\.\.2, got 3"),
    (Z, [[1, 2]] * 3, {"target_lengths": [2, 1]}, ValueError, r"targets: expected \(2, L\) beside target_lengths, got"),
    (Z, [1, 2], {}, TypeError, r"targets\[0\]: expected integer labels \(L,\), got int64 \(\)"),
    (Z, Y[:1], {}, ValueError, "targets: expected the labels of 2 rows, got 1"),
    (Z, 3, {}, TypeError, "targets: expected the labels of 2 rows, got int 3"),
    (Z, "ab", {}, TypeError, "targets: expected the labels of 2 rows, got str 'ab'"),
    (Z, np.array(3), {}, TypeError, "targets: expected the labels of 2 rows, got int64"),
    (Z, [[1], [2.0]], {}, TypeError, r"targets\[1\]: expected integer labels \(L,\), got float64 \(1,\)"),
    (Z, [[1], [True]], {}, TypeError, r"targets\[1\]: expected integer labels \(L,\), got bool \(1,\)"),
    (Z, [[1], [2, 3, 4]], {}, ValueError, r"targets\[1\]\[2\]: expected a label in 0\.\.3 other than .*, got 4"),
    (Z, [[], [1, -1]], {}, ValueError, r"targets\[1\]\[1\]: expected a label in 0\.\.3 other than the blank 0, got -1"),
    (Z, [[3, 2], [1]], {"blank": 2}, ValueError, r"targets\[0\]\[1\]: expected .* other than the blank 2, got 2"),
    (Z, [np.array([2**64 - 1], np.uint64), [1]], {}, ValueError, r"targets\[0\]\[0\]: expected a label in"),
    (Z, Y, {"blank": 4}, ValueError, r"blank: expected a class in 0\.\.3, got int 4"),
    (Z, Y, {"blank": -1}, ValueError, "blank: expected an integer >= 0, got -1"),
    (Z, Y, {"blank": 1.0}, TypeError, "blank: expected an integer, got float"),
])  # fmt: skip
def test_bad_input_is_named(logits, targets, options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        ctc_loss(logits, targets, **options)


def test_other_floats_and_layouts_are_taken(rng):
    logits = rng.standard_normal((2, 7, 5))
    for given, used in (("float16", "float32"), ("longdouble", "float64")):
        losses, gradients = ctc_loss(logits.astype(given), Y, gradients=True)
        assert gradients.dtype == used
        np.testing.assert_array_equal(losses, ctc_loss(logits.astype(given).astype(used), Y))
    turned = np.asfortranarray(logits)
    np.testing.assert_array_equal(ctc_loss(turned, Y), ctc_loss(logits, Y))
    mixed, gradients = ctc_loss([logits[0].astype("f4"), logits[1]], Y, gradients=True)
    assert gradients[0].dtype == np.float64 and mixed[1] == ctc_loss(logits, Y)[1]


def test_the_core_does_not_leave_its_arrays():
    """Whatever it is told: the public functions check what users give, and these calls what comes to the kernels."""
    z, one = np.zeros((6, 4)), np.array([3])
    good = dict(starts=np.array([0, 3]), lengths=np.array([3, 3]), blank=0)
    good |= dict(labels=np.array([1, 2]), ends=np.array([0, 1, 2]))
    core.loss(z, **good)
    bad = [dict(starts=np.array([0, 4])), dict(starts=np.array([-1, 3])), dict(starts=one), dict(blank=-1),
           dict(lengths=np.array([3, 0])),
           dict(ends=np.array([0, 1])), dict(ends=np.array([0, 2, 1])), dict(ends=np.array([0, 3, 2])), dict(blank=4),
           dict(ends=np.array([1, 1, 2])), dict(labels=np.array([1, 4])), dict(labels=np.array([1, -1])), dict(blank=1),
           dict(gradient=np.zeros((6, 3))), dict(gradient=np.zeros((5, 4)))]  # fmt: skip
    for wrong in bad:
        with pytest.raises(ValueError, match="expected"):
            core.loss(z, **{**good, **wrong})
