"""Rows of unequal length, and resets within rows."""

import numpy as np
import pytest

import cylstm
from cylstm import LSTM, State
from cylstm._core.ragged import Plan, planned

SHAPE = dict(input_size=5, hidden_size=19, num_layers=2)
same = np.testing.assert_array_equal


@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_equal_each_row_run_alone(isa, dtype, rng, bidirectional):
    layer = LSTM(**SHAPE, bidirectional=bidirectional, dtype=dtype, seed=1)
    lengths = np.array([4, 9, 1, 9, 6])
    x = rng.standard_normal((5, 9, 5)).astype(dtype)
    for row, end in enumerate(lengths):
        x[row, end:] = np.nan  # padding must not be read
    start = State(*(rng.standard_normal((layer.num_directions * 2, 5, 19)).astype(dtype) for _ in range(2)))
    y, final = layer(x, start, lengths=lengths)
    for row, end in enumerate(lengths):
        alone, state = layer(x[row, :end], State(start.h[:, [row]], start.c[:, [row]]))
        same(y[row, :end], alone)
        same(y[row, end:], 0 * y[row, end:])
        same(final.h[:, row], state.h[:, 0])
        same(final.c[:, row], state.c[:, 0])


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("one_long", [False, True])
def test_rows_in_another_order_have_the_same_bits(isa, dtype, rng, threads, one_long):
    """Sorted or not, whoever computes them: outputs, states and gradients by both."""
    before = cylstm.num_threads()
    layer = LSTM(**SHAPE, bidirectional=True, dtype=dtype, seed=1)
    lengths = rng.integers(1, 61, 43)
    if one_long:
        lengths = np.where(np.arange(43) == 17, 60, (lengths + 4) // 5)
    x, dy = rng.standard_normal((43, 60, 5)).astype(dtype), rng.standard_normal((43, 60, 38)).astype(dtype)
    start, end = (State(*rng.standard_normal((2, 4, 43, 19)).astype(dtype)) for _ in range(2))

    def run(rows):
        part, last = (State(state.h[:, rows], state.c[:, rows]) for state in (start, end))
        without_tape = layer(x[rows], part, lengths=lengths[rows])[0]
        y, final, tape = layer.forward(x[rows], part, lengths=lengths[rows])
        gradients = layer.backward(tape, dy[rows], last)
        return [without_tape, y, gradients.x], [*final, *gradients.state]

    by_row, by_state = run(np.arange(43))
    try:
        cylstm.set_num_threads(threads)
        for rows in (np.argsort(lengths), np.argsort(-lengths), rng.permutation(43)):
            again, state_again = run(rows)
            for got, expected in zip(again, by_row, strict=True):
                same(got, expected[rows])
            for got, expected in zip(state_again, by_state, strict=True):
                same(got, expected[:, rows])
    finally:
        cylstm.set_num_threads(before)


def test_padding_gets_no_gradient_and_gives_none(isa, dtype, rng):
    layer = LSTM(**SHAPE, bidirectional=True, dtype=dtype, seed=1)
    lengths = np.array([4, 9, 1, 9, 6])
    x = rng.standard_normal((5, 9, 5)).astype(dtype)
    dy = rng.standard_normal((5, 9, 38)).astype(dtype)
    _, _, tape = layer.forward(x, lengths=lengths)
    reference = layer.backward(tape, dy)
    padding = np.arange(9) >= lengths[:, None]
    x[padding], dy[padding] = np.nan, np.nan
    _, _, tape = layer.forward(x, lengths=lengths)
    gradients = layer.backward(tape, dy)
    same(gradients.x, reference.x)
    same(gradients.x[padding], 0 * reference.x[padding])
    same(gradients.parameters.flat, reference.parameters.flat)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_resets_cut_a_sequence_in_two(isa, dtype, rng, bidirectional):
    """With a reset at step 4 the two halves know nothing of each other, in values and in gradients."""
    layer = LSTM(5, 19, 1, bidirectional=bidirectional, dtype=dtype, seed=1)
    x = rng.standard_normal((1, 9, 5)).astype(dtype)
    dy = rng.standard_normal((1, 9, layer.output_size)).astype(dtype)
    start = State(*(rng.standard_normal((layer.num_directions, 1, 19)).astype(dtype) for _ in range(2)))
    zero = layer.initial_state(1)
    y, final, tape = layer.forward(x, start, resets=np.arange(9)[None] == 4)
    gradients = layer.backward(tape, dy)
    # The forward direction starts the left half, the reverse direction the right one.
    left = State(*(np.concatenate([s[:1], z[1:]]) for s, z in zip(start, zero, strict=True)))
    right = State(*(np.concatenate([z[:1], s[1:]]) for s, z in zip(start, zero, strict=True)))
    y_left, final_left, tape_left = layer.forward(x[:, :4], left)
    y_right, final_right, tape_right = layer.forward(x[:, 4:], right)
    same(y, np.concatenate([y_left, y_right], axis=1))
    same(final.h[0], final_right.h[0])
    same(final.h[1:], final_left.h[1:])
    dx_left = layer.backward(tape_left, dy[:, :4])
    dx_right = layer.backward(tape_right, dy[:, 4:])
    same(gradients.x, np.concatenate([dx_left.x, dx_right.x], axis=1))
    same(gradients.state.h[0], dx_left.state.h[0])
    same(gradients.state.c[1:], dx_right.state.c[1:])


def test_a_reset_at_the_first_step_discards_the_initial_state(dtype, rng):
    layer = LSTM(**SHAPE, dtype=dtype, seed=1)
    x = rng.standard_normal((2, 6, 5)).astype(dtype)
    start = State(*(rng.standard_normal((2, 2, 19)).astype(dtype) for _ in range(2)))
    resets = np.array([[True] + [False] * 5, [False] * 6])
    y, _, tape = layer.forward(x, start, resets=resets)
    same(y[0], layer(x[0])[0])
    same(y[1], layer(x[1], State(start.h[:, 1:], start.c[:, 1:]))[0])
    gradients = layer.backward(tape, rng.standard_normal(y.shape))
    assert not gradients.state.h[:, 0].any() and not gradients.state.c[:, 0].any()
    assert gradients.state.h[:, 1].all() and gradients.state.c[:, 1].all()


def test_lengths_that_are_those_of_the_array_sort_nothing():
    assert Plan(3, 4, np.array([4, 4, 4])).lengths is None
    assert list(Plan(3, 4, np.array([4, 3, 4])).order()) == [0, 2, 1]


def test_a_plan_has_lengths_of_its_own():
    given = np.array([4, 1, 3])
    for lengths in (given, given[::-1], given.astype(">i8"), given.astype("u1"), given.tolist()):
        expected = list(lengths)
        plan = planned(3, 4, lengths, None)
        if isinstance(lengths, np.ndarray):
            lengths[:] = 2
        assert plan.lengths.dtype == np.int64 and list(plan.lengths) == expected
        given[:] = [4, 1, 3]


def test_one_step_has_lengths_and_resets_too(isa, dtype, rng):
    layer = LSTM(**SHAPE, dtype=dtype, seed=1)
    x = rng.standard_normal((3, 1, 5)).astype(dtype)
    start = State(*(rng.standard_normal((2, 3, 19)).astype(dtype) for _ in range(2)))
    y, final = layer(x, start, lengths=[1, 1, 1], resets=[[False], [True], [False]])
    whole, without = layer(x, start), layer(x)
    for row, (expected, state) in enumerate([whole, without, whole]):
        same(y[row], expected[row])
        same(final.h[:, row], state.h[:, row])
        same(final.c[:, row], state.c[:, row])
    for lengths in ([1, 2, 1], [1, -1, 1]):
        for given in (lengths, np.array(lengths), np.array(lengths, np.int16)):
            with pytest.raises(ValueError, match=r"lengths\[1\]: expected a length in 0\.\.1, got"):
                layer(x, start, lengths=given)


@pytest.mark.parametrize("lengths", [[0, 7, 0, 3, 1], [0, 0, 0, 0, 0]])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_row_of_length_0_keeps_its_state_and_has_no_part_in_gradients(isa, dtype, rng, lengths, threads):
    """Without rows of any length too: every gradient is 0 then, not what memory held."""
    before = cylstm.num_threads()
    layer = LSTM(**SHAPE, bidirectional=True, dtype=dtype, seed=1)
    lengths = np.array(lengths)
    x, ids = rng.standard_normal((5, 7, 5)).astype(dtype), rng.integers(0, 5, (5, 7))
    x[np.arange(7) >= lengths[:, None]] = np.nan
    start = State(*(rng.standard_normal((4, 5, 19)).astype(dtype) for _ in range(2)))
    dy = rng.standard_normal((5, 7, 38)).astype(dtype)
    dfinal = State(*(rng.standard_normal((4, 5, 19)).astype(dtype) for _ in range(2)))
    some, empty = np.flatnonzero(lengths), np.flatnonzero(lengths == 0)
    cylstm.set_num_threads(threads)
    try:
        for inputs in (x, ids):
            layer.backward(layer.forward(x[:, :1], start)[2], dy[:, :1])  # numbers in all memory
            y, final, tape = layer.forward(inputs, start, lengths=lengths)
            gradients = layer.backward(tape, dy, dfinal)
            without_tape = layer(inputs, start, lengths=lengths)
            same(np.stack(without_tape[1]), np.stack(final))
            same(without_tape[0], y)
            assert not y[empty].any()
            same(np.stack(final)[:, :, empty], np.stack(start)[:, :, empty])
            same(np.stack(gradients.state)[:, :, empty], np.stack(dfinal)[:, :, empty])
            expected = {name: 0 * values for name, values in gradients.parameters.items()}
            if some.size:
                part = [State(*(array[:, some] for array in state)) for state in (start, dfinal)]
                y_some, _, tape = layer.forward(inputs[some], part[0], lengths=lengths[some])
                same(y[some], y_some)
                expected = layer.backward(tape, dy[some], part[1]).parameters
            for name, values in gradients.parameters.items():
                same(values, expected[name])
    finally:
        cylstm.set_num_threads(before)
