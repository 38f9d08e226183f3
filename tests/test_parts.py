"""Batches cut into parts: their gradients, put together, are those of the batch; and a run of them resumes."""

import itertools
import sys

import numpy as np
import pytest

import cylstm
from cylstm.training.parallel import world
from cylstm.training.parts import TreeSum, cut

ROWS = 23
rng = np.random.default_rng(5)
LENGTHS = rng.integers(2, 17, ROWS)
X = [rng.normal(size=(n, 3)) for n in LENGTHS]
Y = [rng.integers(0, 4, n) for n in LENGTHS]


def tree(values):
    """The same sum, level by level."""
    while len(values) > 1:
        pairs = [values[n] + values[n + 1] for n in range(0, len(values) - 1, 2)]
        values = pairs + values[2 * len(pairs) :]
    return values[0]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 21])
def test_a_tree_sum_is_that_of_the_levels(count):
    values = [np.random.default_rng(n).normal(size=50).astype(np.float32) * 10.0 ** (n % 5) for n in range(count)]
    total = TreeSum(values[0])
    for value in values:
        total.add(value)
    assert total.value().tobytes() == tree(values).tobytes()
    in_a_row = np.add.accumulate(values)[-1]
    assert count < 4 or total.value().tobytes() != in_a_row.tobytes()


def test_what_is_more_of_a_part_belongs_to_it():
    total = TreeSum(np.empty(2))
    for value, more in ((1.0, False), (2.0, True), (4.0, False), (0.0, False), (8.0, True)):
        total.add(np.full(2, value), more)
    assert [count for count, _ in total.stack] == [2, 1] and total.value().tolist() == [15.0, 15.0]


def test_parts_have_about_as_many_steps_each():
    assert cut([1] * 8, 4).tolist() == [0, 2, 4, 6, 8]
    assert cut([1] * 6, 4).tolist() == [0, 1, 3, 4, 6]
    assert cut([10, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 2).tolist() == [0, 1, 11]
    assert cut([3], 4).tolist() == [0, 0, 0, 1, 1]  # the middle of its only row lies in the third
    assert cut([0, 0, 0], 2).tolist() == [0, 3, 3]
    for seed in range(50):
        rng = np.random.default_rng(seed)
        sizes, parts = rng.integers(0, 100, rng.integers(1, 80)), int(rng.integers(1, 12))
        begins = cut(sizes, parts)
        assert begins[0] == 0 and begins[-1] == len(sizes) and (np.diff(begins) >= 0).all()
        shares = [sizes[a:b].sum() for a, b in itertools.pairwise(begins)]
        assert max(shares) <= sizes.sum() / parts + sizes.max(initial=0)


def model(**options):
    """In float64, so that sums in another order are the same but for the last bits."""
    return cylstm.Model(3, 5, 4, num_layers=2, bidirectional=True, dtype="float64", seed=2, **options)


def weights_after(make, parts, *data, **options):
    made = make()
    history = made.fit(*data, parts=parts, progress=False, optimizer=cylstm.SGD(0.5, momentum=0.9), **options)
    return made.parameters.raw().copy(), history


def with_two_heads():
    heads = {"kind": cylstm.Head(4), "size": cylstm.Head(1, loss="mse", weight=0.3)}
    return cylstm.Model(3, 5, heads, dtype="float64", seed=2)


CASES = {
    "ragged": (model, (X, Y), dict(batch_size=7)),
    "weights": (model, (X, Y), dict(batch_size=7, sample_weight=rng.random(ROWS), class_weight={1: 3.0}, ignore=2)),
    "accumulated": (model, (X, Y), dict(batch_size=5, accumulate=2)),
    "two heads": (
        with_two_heads,
        (X, {"kind": Y, "size": [row[:, :1].copy() for row in X]}),
        dict(batch_size=7, sample_weight={"kind": rng.random(ROWS), "size": None}, accumulate=2),
    ),
    "batches": (model, ([(X[n : n + 6], Y[n : n + 6]) for n in range(0, ROWS, 6)],), {}),
    "last": (lambda: model(output="last"), (X, np.array([row[0] for row in Y])), dict(batch_size=8)),
    "streams": (
        lambda: cylstm.Model(4, 6, 4, num_layers=2, dtype="float64", seed=3),
        cylstm.data.streams(rng.integers(0, 4, 700), 7),
        dict(tbptt=30),
    ),
    "one sequence": (model, (X[0], Y[0]), {}),
}


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
@pytest.mark.parametrize("case", CASES)
def test_parts_learn_what_the_whole_batch_does(case, parts):
    make, data, options = CASES[case]
    expected, history = weights_after(make, None, *data, epochs=3, validation=None, **options)
    found, of_parts = weights_after(make, parts, *data, epochs=3, **options)
    assert np.abs(expected - make().parameters.raw()).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(of_parts.train_loss, history.train_loss, rtol=1e-12)
    np.testing.assert_allclose(of_parts.gradient_norm, history.gradient_norm, rtol=1e-9)


def drops():
    return cylstm.Model(4, 12, 4, embedding_size=6, num_layers=2, dropout=0.3, recurrent_dropout=0.2, seed=3)


def test_each_part_has_masks_of_its_own():
    """Of rows that are the same, with a mask for each part: losses differ between parts, and from update to update."""
    x = np.tile(rng.integers(0, 4, (1, 9)), (4, 1))
    losses = []
    for parts in (1, 2, 4):
        made = drops()
        made.fit(x, x, parts=parts, epochs=2, batch_size=4, optimizer=cylstm.SGD(0.0 + 1e-30), progress=False,
                 callbacks=[lambda event: losses.append(event.loss) if event.kind == "update" else None])  # fmt: skip
    assert len(set(losses)) == 6
    again = [weights_after(drops, 4, x, x, epochs=3)[0].tobytes() for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.parametrize("stop", [1, 4, 5, 9])
def test_a_run_in_parts_resumes_to_the_same_bits(tmp_path, stop):
    x, y = cylstm.data.streams(rng.integers(0, 4, 600), 6)
    options = dict(tbptt=20, epochs=3, parts=4, progress=False, accumulate=2)
    whole = drops()
    whole.fit(x, y, optimizer=cylstm.Adam(1e-2), **options)

    def interrupt(event):
        if event.kind == "update" and event.update == stop:
            raise cylstm.StopTraining

    path = tmp_path / "run.ckpt"
    drops().fit(x, y, optimizer=cylstm.Adam(1e-2), checkpoint=path, callbacks=[interrupt], **options)
    resumed = drops()
    resumed.fit(x, y, optimizer=cylstm.Adam(1e-2), resume=path, **options)
    assert resumed.parameters.raw().tobytes() == whole.parameters.raw().tobytes()
    with pytest.raises(ValueError, match=r"resume: expected the same run as in .*, with parts=4, got 2"):
        drops().fit(x, y, optimizer=cylstm.Adam(1e-2), resume=path, **{**options, "parts": 2})


@pytest.mark.parametrize("streams", [2, 6])
def test_streams_fewer_than_parts_go_on_from_their_state(tmp_path, streams):
    x, y = cylstm.data.streams(rng.integers(0, 4, 300), streams)
    options, path = dict(tbptt=20, epochs=2, parts=8, progress=False), tmp_path / "run.ckpt"
    whole, made = drops(), drops()
    whole.fit(x, y, **options)

    def stop(event):
        if event.kind == "update" and event.update == 2:
            raise cylstm.StopTraining

    made.fit(x, y, checkpoint=path, callbacks=[stop], **options)
    resumed = drops()
    resumed.fit(x, y, resume=path, **options)
    assert resumed.parameters.raw().tobytes() == whole.parameters.raw().tobytes()


def test_sequences_in_parts_have_checkpoints_in_the_middle_of_an_epoch(tmp_path):
    options, path = dict(batch_size=6, epochs=2, parts=2, progress=False), tmp_path / "run.ckpt"
    whole = model(dropout=0.2)
    whole.fit(X, Y, **options)

    def stop(event):
        if event.kind == "update" and event.update == 6:
            raise cylstm.StopTraining

    model(dropout=0.2).fit(X, Y, checkpoint=cylstm.Checkpoint(path, updates=1), callbacks=[stop], **options)
    resumed = model(dropout=0.2)
    resumed.fit(X, Y, resume=path, **options)
    assert resumed.parameters.raw().tobytes() == whole.parameters.raw().tobytes()


@pytest.mark.parametrize("environment", [{}, {"PMI_SIZE": "1"}, {"OMPI_COMM_WORLD_SIZE": "1", "PMIX_RANK": "0"}])
def test_a_process_that_was_started_alone_is_alone(monkeypatch, environment):
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert world() is None


def test_several_ranks_need_mpi4py(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("PMIX_RANK", "1")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r"expected mpi4py for 4 ranks: pip install 'cylstm\[mpi\]'"):
        world()
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE")
    assert world() is None  # srun tells a single process its rank, too


@pytest.mark.parametrize("parts, error", [(0, ValueError), (1.5, TypeError), ("all", TypeError), (True, TypeError)])
def test_parts_are_counted(parts, error):
    with pytest.raises(error, match="parts: expected an integer"):
        model().fit(X, Y, parts=parts, progress=False)
