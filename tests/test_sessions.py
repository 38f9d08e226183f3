"""Steps of streams whose states lie apart, in a pool or one by one: the bits of a step of the same states taken
together, written where they lie, and nowhere else."""

import threading

import numpy as np
import pytest
from against_oracle import with_some_weights

from cylstm import LSTM, Head, Model, State, set_num_threads

CASES = {
    "plain": {},
    "two layers": dict(num_layers=2),
    "projection": dict(num_layers=2, proj_size=9, proj_clip=0.4),
    "widths": dict(hidden_size=(21, 33, 14)),
    "residual": dict(num_layers=2, residual=True),
    "highway": dict(num_layers=2, highway=True),
    "peepholes": dict(num_layers=2, peepholes=True, coupled=True, cell_clip=0.3),
    "layer norm": dict(layer_norm="ba"),
    "zoneout": dict(num_layers=2, zoneout=(0.2, 0.3)),
    "first state": dict(num_layers=2, first_state=True),
}
I, N = 11, 29
WORDS = {"FIT": "expected a writable, contiguous", "OWN": "expected memory of its own, got some of"}


def told(message):
    for short, words in WORDS.items():
        message = message.replace(short, words)
    return message


def made(rng, case="plain", H=33, **options):
    options = {"hidden_size": H, **CASES[case], **options}
    return with_some_weights(LSTM(I, options.pop("hidden_size"), seed=rng, **options), rng)


def some_pool(layer, rng, N=N):
    """Numbers that int8 has, too."""
    return type(layer.initial_state())(
        *(rng.uniform(-1, 1, array.shape).astype(array.dtype) for array in layer.initial_state(N))
    )


def taken(pool, rows):
    return type(pool)(*(np.ascontiguousarray(array[:, rows]) for array in pool))


def one_by_one(pool, rows):
    return [taken(pool, [n]) for n in rows]


def same(a, b):
    return all(one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
               for one, other in zip(a, b, strict=True))  # fmt: skip


def agrees(layer, x, pool, rows):
    """A step by the pool's rows and one of states one by one, beside one of their copy."""
    y, state = layer.step(x, taken(pool, rows))
    others = np.setdiff1d(np.arange(pool.h.shape[1]), rows)
    ours, states = pool.copy(), one_by_one(pool, rows)
    found, returned = layer.step(x, ours, rows=rows)
    assert returned is ours and same([found], [y])
    assert same(taken(ours, rows), state) and same(taken(ours, others), taken(pool, others))
    assert not any(np.shares_memory(found, array) for array in ours)
    found, returned = layer.step(x, states)
    assert returned is states and same([found], [y])
    assert all(same(one, taken(state, [n])) for n, one in enumerate(states))
    return y


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_bits_of_states_taken_together(isa, dtype, case, ids):
    rng = np.random.default_rng(20551)
    layer = made(rng, case, dtype=dtype)
    for B in (1, 3, 13, N):
        pool, rows = some_pool(layer, rng), rng.permutation(N)[:B]
        pool.c[:, np.setdiff1d(np.arange(N), rows)] = np.nan  # nobody looks at the others
        x = rng.integers(0, I, B) if ids else rng.standard_normal((B, I)).astype(dtype)
        agrees(layer, x, pool, rows)
    wide = rng.standard_normal((2 * N, 2 * I)).astype(dtype)
    agrees(layer, rng.integers(0, I, 2 * N)[::-2] if ids else wide[::-2, :I], some_pool(layer, rng), rng.permutation(N))


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8"])
def test_in_fewer_bits(isa, rng, precision):
    layer = made(rng, "two layers", H=49).astype(precision)
    for B in (1, 5, 19):
        agrees(layer, rng.standard_normal((B, I)).astype("f4"), some_pool(layer, rng), rng.permutation(N)[:B])


def test_int8_holds_the_rows_that_take_the_step(isa, rng):
    layer = made(rng, "two layers").astype("int8")
    pool, x = some_pool(layer, rng), np.ones((2, I), "f4")
    pool.h[1, 4, 7] = 1.5
    before = pool.copy()
    layer.step(x, pool.copy(), rows=[3, 5])
    for given in (dict(state=pool, rows=[3, 4]), dict(state=one_by_one(pool, [3, 4]))):
        with pytest.raises(ValueError, match=r"state.h, row 1 of the step: expected numbers within -1..1, which int8"):
            layer.step(x, **given)
        assert same(pool, before)


@pytest.mark.parametrize("case", ["two layers", "widths", "zoneout"])
def test_numbers_that_tiles_do_not_hold(isa, rng, case):
    """With AMX, whether it is used depends on the rows that take the step, and on all layers of them."""
    layer, x = made(rng, case), rng.standard_normal((13, I)).astype("f4")
    for number in (np.nan, 1e13):
        for row in (2, 7, 19):
            for part in (0, 1):
                pool = some_pool(layer, rng)
                pool[part][-1, row, 3] = number
                agrees(layer, x, pool, np.r_[7, 8:20])


@pytest.mark.parametrize("case", ["two layers", "projection", "widths", "highway", "layer norm"])
@pytest.mark.parametrize("B, H", [(13, 201), (150, 70)])
def test_the_same_bits_for_any_number_of_threads(isa, dtype, case, B, H):
    """Members of a team share out units, and rows."""
    rng = np.random.default_rng(20552)
    sizes = dict(hidden_size=(H, H // 2, H + 9)) if case == "widths" else {}
    layer = made(rng, case, H, dtype=dtype, **sizes)
    pool, rows = some_pool(layer, rng, 2 * B), rng.permutation(2 * B)[:B]
    x = rng.standard_normal((B, I)).astype(dtype)
    found = []
    for threads in (1, 2, 7):
        set_num_threads(threads)
        found.append(agrees(layer, x, pool, rows))
    assert all(np.array_equal(y, found[0]) for y in found)


@pytest.mark.parametrize("options", [dict(), dict(embedding_size=4), dict(before=[6], after=[5]), "heads"])
def test_a_models_sessions(rng, options):
    """And over several steps, of which each session takes its own."""
    heads = {"a": Head(3, loss="mse"), "b": Head(2, loss="mse")}
    heads, options = (heads, {}) if options == "heads" else (3, dict(loss="mse", **options))
    model = Model(I, 13, heads, num_layers=2, seed=3, **options)
    pool, states = model.initial_state(6), [model.initial_state() for _ in range(6)]
    singly = [model.initial_state() for _ in range(6)]
    for _ in range(9):
        rows = rng.permutation(6)[: rng.integers(1, 7)]
        x = rng.integers(0, I, len(rows)) if "embedding_size" in options else rng.standard_normal((len(rows), I))
        by_rows, returned = model.step(x, pool, rows=rows)
        assert returned is pool
        by_list, _ = model.step(x, [states[n] for n in rows])
        for n, row in enumerate(rows):
            expected, singly[row] = model.step(x[n], singly[row])
            for found in (by_rows, by_list):
                for name in expected if isinstance(expected, dict) else [...]:
                    np.testing.assert_allclose(found[name][n], expected[name], rtol=1e-5, atol=1e-6)
    for row in range(6):
        np.testing.assert_allclose(np.stack(taken(pool, [row])), np.stack(singly[row]), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(np.stack(states[row]), np.stack(singly[row]), rtol=1e-5, atol=1e-6)


def test_a_single_row_and_states_in_a_tuple(isa, rng):
    layer = made(rng, "two layers")
    pool, x = some_pool(layer, rng), rng.standard_normal(I).astype("f4")
    expected, state = layer.step(x, taken(pool, [4]))
    for row in (4, np.int16(4), np.array(4, "u8")):
        ours = pool.copy()
        y, _ = layer.step(x, ours, rows=row)
        assert y.shape == (33,) and np.array_equal(y, expected) and same(taken(ours, [4]), state)
    states = tuple(one_by_one(pool, [4, 9]))
    y, returned = layer.step(np.stack([x, x]), states)
    assert returned is states and same(states[0], state)
    ours = pool.copy()
    assert np.array_equal(layer.step(np.stack([x, x]), tuple(ours), rows=[4, 9])[0], y)


@pytest.mark.parametrize("make", [
    lambda rows: rows.tolist(), lambda rows: rows.astype("i2"), lambda rows: rows.astype("u8"),
    lambda rows: np.repeat(rows, 2)[::2], lambda rows: rows.astype(">i8"), memoryview,
])  # fmt: skip
def test_rows_come_in_any_integers(rng, make):
    layer, rows = made(rng), rng.permutation(N)[:7]
    pool, x = some_pool(layer, rng), rng.standard_normal((7, I)).astype("f4")
    expected = pool.copy()
    layer.step(x, expected, rows=rows)
    layer.step(x, pool, rows=make(rows))
    assert same(pool, expected)


@pytest.mark.parametrize("rows, error, message", [
    ([3, 5, 3], ValueError, r"rows\[2\]: expected another row than rows\[0\], got 3 again"),
    (np.array([8, 5, 5]), ValueError, r"rows\[2\]: expected another row than rows\[1\], got 5 again"),
    ([3, -1, 4], ValueError, r"rows\[1\]: expected rows of the pool, 0..28, got -1"),
    (np.array([3, 4, 29]), ValueError, r"rows\[2\]: expected rows of the pool, 0..28, got 29"),
    (np.array([2**63, 4, 2], "u8"), ValueError, r"rows\[0\]: expected rows of the pool, 0..28, got 9223372036"),
    ([3, 4], ValueError, r"rows: expected \(3,\), a row of the pool for each of x_t, got \(2,\)"),
    ([], ValueError, r"rows: expected \(3,\), a row of the pool for each of x_t, got \(0,\)"),
    ([[3], [4], [5]], ValueError, r"rows: expected \(3,\), a row of the pool for each of x_t, got \(3, 1\)"),
    (3, ValueError, r"rows: expected \(3,\), a row of the pool for each of x_t, got \(\)"),
    ([3.0, 4.0, 5.0], TypeError, r"rows: expected integers, got float64 \(3,\)"),
    ([True, False, True], TypeError, r"rows: expected integers, got bool \(3,\)"),
    (["a", "b", "c"], TypeError, r"rows: expected"),
    (slice(3), TypeError, r"rows: expected"),
])  # fmt: skip
def test_rows_that_are_none(rng, rows, error, message):
    layer = made(rng)
    pool = some_pool(layer, rng)
    before = pool.copy()
    with pytest.raises(error, match=message):
        layer.step(np.ones((3, I), "f4"), pool, rows=rows)
    assert same(pool, before)


def test_duplicates_wherever_they_stand(rng):
    """Also in pools so large, and among rows so regular, that they fall on one another in a table."""
    layer = LSTM(2, 1, seed=1)
    pool = layer.initial_state(2**20)
    for rows in (rng.permutation(2**20)[:3000], np.arange(1000) * 1024, np.arange(1000) * 1021, np.arange(999, -1, -1)):
        B = len(rows)
        layer.step(np.ones((B, 2), "f4"), pool, rows=rows)
        for first, last in ((0, B - 1), (B // 3, B // 2), (B - 2, B - 1)):
            twice = rows.copy()
            twice[last] = twice[first]
            with pytest.raises(ValueError, match=rf"rows\[{last}\]: expected another row than rows\[{first}\], got"):
                layer.step(np.ones((B, 2), "f4"), pool, rows=twice)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("change, error, message", [
    (lambda h, c: None, TypeError, "state: expected a State"),
    (lambda h, c: np.stack([h, c, h]), TypeError, "state: expected a State"),
    (lambda h, c: (h.astype("f8"), c), ValueError, r"state.h: FIT float32 \(2, N, 33\), got"),
    (lambda h, c: (h[0], c), ValueError, r"state.h: FIT float32 \(2, N, 33\), got"),
    (lambda h, c: (h[:, ::2], c), ValueError, r"state.h: FIT float32 \(2, N, 33\), got"),
    (lambda h, c: (h, c[:, :-1].copy()), ValueError, r"state.c: FIT float32 \(2, 29, 33\), got"),
    (lambda h, c: (h, c[..., :-1].copy()), ValueError, r"state.c: FIT float32 \(2, 29, 33\)"),
    (lambda h, c: (h, read_only(c)), ValueError, r"state.c: FIT float32 \(2, 29, 33\), got"),
    (lambda h, c: (h, h), ValueError, "state: expected two arrays, got h and c in the same memory"),
    (lambda h, c: (h.tolist(), c), ValueError, "state.h: FIT float32"),
])  # fmt: skip
def test_pools_that_are_none(rng, change, error, message):
    layer = made(rng, "two layers")
    pool = change(*some_pool(layer, rng))
    with pytest.raises(error, match=told(message)):
        layer.step(np.ones((2, I), "f4"), pool, rows=[1, 2])


def part_of(state):
    """h begins where the other's second layer does."""
    memory = np.zeros(3 * 33, "f4")
    memory[: 2 * 33] = state.h.ravel()
    return State(memory[: 2 * 33].reshape(2, 1, 33), state.c), State(memory[33:].reshape(2, 1, 33), state.c.copy())


@pytest.mark.parametrize("change, error, message", [
    (lambda a, b, c: [a, b], ValueError, "x_t: expected 2 rows, one for each state, got 3 of them"),
    (lambda a, b, c: [a, b, a], ValueError, r"state\[2\].h: OWN state\[0\].h's"),
    (lambda a, b, c: [a, b, State(c.h, b.c)], ValueError, r"state\[2\].c: OWN state\[1\].c"),
    (lambda a, b, c: [a, b, State(a.c, c.c)], ValueError, r"state\[0\].c: OWN state\[2\].h"),
    (lambda a, b, c: [a, b, State(c.h, c.h)], ValueError, r"state\[2\].c: OWN state\[2\].h"),
    (lambda a, b, c: [a, *part_of(c)], ValueError, r"state\[2\].h: OWN state\[1\].h"),
    (lambda a, b, c: [a, b, tuple(c)], TypeError, r"state\[2\]: expected a State, got tuple"),
    (lambda a, b, c: [a, b, None], TypeError, r"state\[2\]: expected a State, got NoneType"),
    (lambda a, b, c: [a, State(*np.zeros((2, 2, 2, 33), "f4")), c], ValueError,
     r"state\[1\].h: FIT float32 \(2, 1, 33\), got float32 \(2, 2, 33\)"),
    (lambda a, b, c: [a, State(b.h, b.c.astype("f8")), c], ValueError, r"state\[1\].c: FIT"),
    (lambda a, b, c: [a, State(b.h, read_only(b.c)), c], ValueError, r"state\[1\].c: FIT"),
    (lambda a, b, c: [], TypeError, r"state: expected a State"),
])  # fmt: skip
def test_lists_of_states_that_are_none(rng, change, error, message):
    layer = made(rng, "two layers")
    pool = some_pool(layer, rng)
    states = change(*one_by_one(pool, [3, 4, 5]))
    with pytest.raises(error, match=told(message)):
        layer.step(np.ones((3, I), "f4"), states)


def test_what_does_not_go_together(rng):
    layer = made(rng)
    pool, x = some_pool(layer, rng), np.ones((2, I), "f4")
    states = one_by_one(pool, [1, 2])
    for given in (dict(state=pool, rows=[1, 2], out=taken(pool, [1, 2])), dict(state=states, out=pool)):
        with pytest.raises(ValueError, match=r"out: expected None, as these states are overwritten where they lie"):
            layer.step(x, **given)
    with pytest.raises(TypeError, match=r"state: expected a State|state\.h: expected"):
        layer.step(x, [*states, states[0]], rows=[0, 1])
    with pytest.raises(ValueError, match=r"state.h: expected a writable, contiguous"):
        layer.step(x, states, rows=[0, 1])
    with pytest.raises(ValueError, match=r"x_t: expected 2 rows, one for each state, got a single row"):
        layer.step(x[0], states)
    with pytest.raises(ValueError, match=r"rows: expected one integer, as x_t is one row, got"):
        layer.step(x[0], pool, rows=[1])
    with pytest.raises(ValueError, match=r"x_t: expected at least one row"):
        layer.step(x[:0], pool, rows=[])
    with pytest.raises(ValueError, match=r"step: expected a layer of one direction"):
        LSTM(I, 3, bidirectional=True).step(x, pool, rows=[0, 1])


@pytest.mark.parametrize("way", ["rows", "list", "out"])
def test_frames_may_lie_in_the_states(isa, rng, way):
    """In those of other rows, too, which members of a team write while it reads."""
    B, H, layer = 1200, 70, LSTM(70, 70, seed=1)
    start = rng.uniform(-1, 1, (2, B, H)).astype("f4")
    set_num_threads(2)
    for part in (0, 1):
        expected = State(*start[:, None].copy())
        y, _ = layer.step(start[part, ::-1].copy(), expected, out=expected)
        for _ in range(40):
            memory = start.copy()
            state = State(*memory[:, None])
            if way == "list":
                found, _ = layer.step(memory[part, ::-1], [State(h[None, None], c[None, None]) for h, c in
                                                           zip(*memory, strict=True)])  # fmt: skip
            else:
                given = dict(rows=np.arange(B)) if way == "rows" else dict(out=state)
                found, _ = layer.step(memory[part, ::-1], state, **given)
            assert np.array_equal(found, y) and same(state, expected)


def test_memory_that_touches_and_memory_that_is_shared():
    """Wherever it begins."""
    layer, memory, c = LSTM(2, 5, seed=1), np.zeros(2000, "f4"), np.zeros((2, 1, 1, 5), "f4")

    def states(first, second):
        return [State(memory[n : n + 5].reshape(1, 1, 5), own) for n, own in zip((first, second), c, strict=True)]

    for n in range(200, 1800, 3):
        for apart in (5, -5):
            layer.step(np.ones((2, 2), "f4"), states(n, n + apart))
        for apart in (-4, -1, 0, 1, 4):
            with pytest.raises(
                ValueError, match=r"state\[1\].h: expected memory of its own, got some of state\[0\].h's"
            ):
                layer.step(np.ones((2, 2), "f4"), states(n, n + apart))


def test_threads_may_share_a_pool(rng):
    """Each steps rows of its own, again and again."""
    layer = made(rng, "two layers")
    pool, x = some_pool(layer, rng, 400), rng.standard_normal((100, I)).astype("f4")
    parts = rng.permutation(400).reshape(4, 100)
    expected = pool.copy()
    for rows in parts:
        for _ in range(30):
            layer.step(x, expected, rows=rows)

    def run(rows):
        for _ in range(30):
            layer.step(x, pool, rows=rows)

    others = [threading.Thread(target=run, args=(rows,)) for rows in parts]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert same(pool, expected)


def test_rows_that_another_thread_is_writing(rng):
    """What was checked is what is used: no row beyond the pool is ever touched."""
    layer, stop = made(rng), threading.Event()
    memory = [np.full((3, N, 33), 0.5, "f4") for _ in range(2)]
    pool = State(*(array[1:2] for array in memory))
    rows, good, bad = np.arange(5), np.arange(5), np.array([0, 40, -30, 2, 2])

    def write():
        while not stop.is_set():
            rows[:] = bad
            rows[:] = good

    other = threading.Thread(target=write)
    other.start()
    try:
        for _ in range(3000):
            try:
                layer.step(np.ones((5, I), "f4"), pool, rows=rows)
            except ValueError as error:
                assert str(error).startswith("rows[")
    finally:
        stop.set()
        other.join()
    for array in memory:
        assert (array[::2] == 0.5).all() and (array[1, 5:] == 0.5).all()
