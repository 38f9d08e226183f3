"""Training: it learns, losses are per token, seeds decide, and what can go wrong is said before anything changes."""

import io
import json
import os
import sys

import numpy as np
import pytest
from tasks import V, make, sequences

from cylstm import (
    SGD,
    Adam,
    History,
    Model,
    ReduceOnPlateau,
    StepDecay,
    StopTraining,
    Vocabulary,
    checks,
    data,
    oracle,
)  # fmt: skip
from cylstm.training.dataset import Dataset


def test_one_epoch_is_what_the_oracle_computes(rng):
    """Batches in order, per-token loss of a ragged batch, clipping, Adam: ten updates by hand."""
    model = make()
    x, y = sequences(rng, [4, 9, 2, 7, 7, 1])
    params = {name: values.copy() for name, values in model.parameters.items()}
    moments = [{name: np.zeros_like(p) for name, p in params.items()} for _ in range(2)]
    losses, tokens, t = [], [], 0
    for _ in range(5):
        for rows in data.batches_by_length([len(row) for row in x], 4):
            t += 1
            (xs, lengths), (ys, _) = data.pad([x[n] for n in rows]), data.pad([y[n] for n in rows])
            inside = {name.removeprefix("lstm."): p for name, p in params.items() if name.startswith("lstm.")}
            h, _, tape = oracle.forward(np.eye(V)[xs], inside, lengths=lengths)
            real = np.arange(xs.shape[1]) < lengths[:, None]
            flat = h.reshape(-1, 12)
            loss, dlogits = oracle.softmax_cross_entropy(
                flat @ params["head.weight"].T + params["head.bias"], ys.ravel(), real.ravel())  # fmt: skip
            _, _, gradients = oracle.backward(tape, (dlogits @ params["head.weight"]).reshape(h.shape))
            gradients = {f"lstm.{name}": g for name, g in gradients.items()}
            gradients.update({"head.weight": dlogits.T @ flat, "head.bias": dlogits.sum(axis=0)})
            oracle.clip_by_global_norm(gradients, 0.3)
            oracle.adam(params, gradients, *moments, t, lr=0.02)
            losses.append(loss)
            tokens.append(real.sum())
    history = model.fit(
        x, y, epochs=5, batch_size=4, shuffle=False, clip_norm=0.3, optimizer=Adam(0.02), progress=False
    )
    for name, p in params.items():
        np.testing.assert_allclose(model.parameters[name], p, rtol=1e-8, atol=1e-10, err_msg=name)
    expected = [np.average(losses[n : n + 2], weights=tokens[n : n + 2]) for n in range(0, 10, 2)]
    np.testing.assert_allclose(history.train_loss, expected, rtol=1e-10)
    assert history.updates == [2, 4, 6, 8, 10] and history.train_loss[-1] < history.train_loss[0]


def test_truncated_bptt_carries_the_state(rng):
    """One update with a zero rate changes nothing, so the loss over chunks is that of the whole streams."""
    model = make()
    ids = np.cumsum(rng.integers(1, 3, 400)) % V
    x, y = data.streams(ids, 3)
    whole = model.evaluate(x, y)["loss"]
    history = model.fit(x, y, epochs=1, tbptt=11, optimizer=SGD(1e-300), progress=False)
    assert history.train_loss[0] == pytest.approx(whole, rel=1e-12)
    assert history.updates == [-(-x.shape[1] // 11)]
    separate = np.average(
        [model.evaluate(x[:, n : n + 11], y[:, n : n + 11])["loss"] for n in range(0, x.shape[1], 11)],
        weights=[x[:, n : n + 11].size for n in range(0, x.shape[1], 11)],
    )
    assert abs(separate - whole) > 1e-4


def test_a_memory_map_of_small_ids_trains_like_an_array(tmp_path, rng):
    ids = (np.cumsum(rng.integers(1, 3, 400)) % V).astype(np.uint8)
    ids.tofile(tmp_path / "ids")
    mapped = np.memmap(tmp_path / "ids", np.uint8, "r")
    runs = []
    for source in (ids.astype(np.int64), mapped):
        model = make()
        model.fit(*data.streams(source, 3), epochs=2, tbptt=11, progress=False)
        runs.append(model.parameters.flat)
    np.testing.assert_array_equal(*runs)


def test_validation_touches_nothing(rng):
    """Neither weights nor random numbers: the same run with and without it has the same bits."""
    x, y = sequences(rng, [6] * 20)
    runs = []
    for validation in (None, (x[:5], y[:5]), (np.stack(x[:4]), np.stack(y[:4]), [6, 2, 3, 1])):
        model = make(dropout=0.4, num_layers=2, dtype="float32")
        history = model.fit(x, y, validation=validation, epochs=3, batch_size=8, progress=False)
        runs.append(model.parameters.flat.copy())
        assert len(history.validation_loss) == (0 if validation is None else 3)
    assert history.validation_loss[-1] == model.evaluate(np.stack(x[:4]), np.stack(y[:4]), lengths=[6, 2, 3, 1])["loss"]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


@pytest.mark.parametrize("seeds", [(1, 1), (1, 2)])
def test_same_seed_same_bits(rng, seeds):
    x, y = sequences(rng, rng.integers(1, 12, 30))
    runs = []
    for seed in seeds:
        model = make(dropout=0.3, num_layers=2, dtype="float32")
        model.fit(x, y, epochs=2, batch_size=8, seed=seed, progress=False)
        runs.append(model.parameters.flat)
    assert np.array_equal(*runs) == (seeds[0] == seeds[1])


def test_shuffling_draws_a_new_order_each_epoch():
    model = make()
    x = y = np.arange(40).reshape(40, 1) % V
    dataset = Dataset(model, x, y)
    orders = [np.concatenate(dataset.batches(8, [0, epoch])) for epoch in (0, 1, 0)]
    assert sorted(orders[0]) == list(range(40)) and (orders[0] != orders[1]).any()
    np.testing.assert_array_equal(orders[0], orders[2])
    np.testing.assert_array_equal(np.concatenate(dataset.batches(8)), np.arange(40))


def test_last_output_and_other_losses_learn(rng):
    x = rng.standard_normal((200, 8, 3))
    total = x.sum(axis=(1, 2))
    tasks = [
        (dict(output="last"), (total > 0).astype(int), 2),
        (dict(output="last", loss="mse", bidirectional=True), total[:, None], 1),
        (dict(loss="binary_cross_entropy"), (np.cumsum(x.sum(axis=2), axis=1) > 0)[..., None].astype(float), 1),
    ]
    for options, y, outputs in tasks:
        model = Model(3, 16, outputs, seed=1, **options)
        before = model.evaluate(x, y)["loss"]
        history = model.fit(x, y, epochs=15, optimizer=Adam(0.02), progress=False)
        assert model.evaluate(x, y)["loss"] < 0.35 * before, options
        assert (history.train_accuracy[-1] is None) == (model.loss.name == "mse")


def test_clipping_by_parameter(rng):
    x, y = sequences(rng, [9] * 4)
    for each in (False, True):
        model = make()
        before = {name: values.copy() for name, values in model.parameters.items()}
        gradients = model.loss_and_gradients(np.stack(x), np.stack(y)).gradients
        norms = {name: np.linalg.norm(g) for name, g in gradients.items()}
        model.fit(x, y, epochs=1, batch_size=4, shuffle=False, clip_norm=0.01, clip_each=each, optimizer=SGD(1.0),
                  progress=False)  # fmt: skip
        total = np.sqrt(sum(n**2 for n in norms.values()))
        for name, values in model.parameters.items():
            norm = norms[name] if each else total
            step = before[name] - values
            np.testing.assert_allclose(step, gradients[name] * min(1, 0.01 / (norm + 1e-6)), rtol=1e-6, atol=1e-12)


def test_learning_rates_reach_the_updates(rng):
    x, y = sequences(rng, [6] * 8)
    history = make().fit(x, y, epochs=4, optimizer=SGD(StepDecay(0.1, every=2, factor=0.5)), progress=False)
    assert history.learning_rate == [0.1, 0.1, 0.05, 0.05]
    model = make()
    flat = model.parameters.flat.copy()
    history = model.fit(
        x, y, validation=(x, y), epochs=6, optimizer=SGD(ReduceOnPlateau(1e-300, patience=2)), progress=False
    )
    np.testing.assert_allclose(flat, model.parameters.flat, rtol=0, atol=1e-290)
    np.testing.assert_allclose(np.array(history.learning_rate) / 1e-300, [1, 1, 1, 0.5, 0.5, 0.25])


def test_early_stopping_restores_the_best_weights(rng):
    x, y = sequences(rng, [8] * 6)
    held_out = sequences(rng, [8] * 40)
    model = Model(V, 40, V, seed=1)
    history = model.fit(
        x, y, validation=held_out, epochs=400, batch_size=6, patience=5, optimizer=Adam(0.02), progress=False
    )
    assert len(history) < 400 and history.best_epoch == len(history) - 6
    assert history.validation_loss[-1] > history.validation_loss[history.best_epoch]
    assert model.evaluate(*held_out)["loss"] == pytest.approx(min(history.validation_loss), rel=1e-6)


def test_callbacks_see_updates_and_epochs_and_can_stop(rng):
    x, y = sequences(rng, [6] * 8)
    seen = []

    def watch(event):
        seen.append((event.kind, event.epoch, event.update))
        if event.update == 5:
            raise StopTraining

    history = make().fit(x, y, epochs=10, batch_size=4, callbacks=[watch], progress=False)
    assert seen == [("update", 0, 1), ("update", 0, 2), ("epoch", 0, 2), ("update", 1, 3), ("update", 1, 4),
                    ("epoch", 1, 4), ("update", 2, 5)]  # fmt: skip
    assert len(history) == 2


def test_where_no_bar_can_be_drawn_there_is_a_line_per_epoch(rng, capsys, monkeypatch):
    x, y = sequences(rng, [6] * 8)
    history = make().fit(x, y, validation=(x, y), epochs=3, batch_size=2)
    losses = zip(history.train_loss, history.validation_loss, strict=True)
    expected = [f"epoch {n}/3: loss {a:.4f}, validation {b:.4f}" for n, (a, b) in enumerate(losses, 1)]
    assert capsys.readouterr().err.splitlines() == expected
    make().fit(x, y, epochs=2, progress=False)
    assert capsys.readouterr().err == ""
    for stderr in (None, (closed := io.StringIO())):
        closed.close()
        monkeypatch.setattr(sys, "stderr", stderr)
        make().fit(x, y, epochs=1)


# --- aⁿbⁿ -------------------------------------------------------------------------------------------------------------


def test_it_learns_a_n_b_n():
    """Trained on n <= 10 it predicts what is determined: after the first b, every b and the end."""
    strings = data.an_bn(range(1, 11))
    vocabulary = Vocabulary(["a", "b"], "char", end="$")
    rows = [vocabulary.encode(s, end=True) for s in strings]
    model = Model(3, 50, 3, seed=1)
    model.fit(
        [r[:-1] for r in rows], [r[1:] for r in rows], epochs=250, batch_size=10, optimizer=Adam(0.01), progress=False
    )
    for n, row in enumerate(rows, start=1):
        np.testing.assert_array_equal(model.predict(row[:-1])[n:], row[n + 1 :], err_msg=f"n = {n}")


# --- history, bad input -----------------------------------------------------------------------------------------------


def test_history_is_drawn_and_kept_without_a_screen(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    history = History(
        [2.0, 1.5, 1.2], [0.1, 0.2, 0.3], [2.1, 1.4, 1.6], [0.1, 0.3, 0.2], [0.1] * 3, [5, 10, 15], [1.0, 2.0, 3.0]
    )
    assert history.best_epoch == 1 and len(history) == 3
    history.plot(tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    history.save(tmp_path / "h.json")
    assert History.from_dict(json.loads((tmp_path / "h.json").read_text())) == history
    with pytest.raises(ValueError, match=r"path: expected a file ending in .png, .svg, .pdf, got .*loss$"):
        history.plot(tmp_path / "loss")
    with pytest.raises(ValueError, match="history: expected at least one epoch"):
        History().plot(tmp_path / "none.png")
    with pytest.raises(TypeError, match="path, axis: expected a path or an axis of matplotlib, got neither"):
        history.plot()
    with pytest.raises(TypeError, match="axis: expected one of matplotlib, got int 3"):
        history.plot(axis=3)
    with pytest.raises(TypeError, match=r"test: expected a number, got str '1.2'"):
        history.plot(tmp_path / "loss.png", test="1.2")
    one = History([2.0], [None], [], [], [0.1], [5], [1.0]).figure().axes[0]
    assert one.get_xlim() == (0.5, 1.5) and [tick for tick in one.get_xticks() if 0.5 < tick < 1.5] == [1]


def test_a_picture_has_a_title_a_unit_and_the_test_loss_and_goes_into_an_axis():
    from matplotlib.figure import Figure

    history = History([2.0, 1.5], [None] * 2, [2.1, 1.6], [None] * 2, [0.1] * 2, [5, 10], [1.0, 2.0])
    own = Figure().subplots(1, 2)
    history.plot(axis=own[1], test=1.75, title="$ota", unit="nats per token")
    drawn = history.figure(test=1.75, title="$ota", unit="nats per token").axes[0]
    for axis in (own[1], drawn):
        assert (axis.get_title(), axis.get_ylabel(), axis.get_xlabel()) == ("$ota", "loss, nats per token", "epoch")
        assert [text.get_text() for text in axis.get_legend().get_texts()] == ["training", "validation", "test, 1.75"]
        assert list(axis.lines[2].get_ydata()) == [1.75, 1.75]
    assert not own[0].lines
    assert history.figure().axes[0].get_title() == "Training" and len(history.figure().axes[0].lines) == 2


X = np.arange(40).reshape(8, 5) % V


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (dict(y=X[:7]), ValueError, "y: expected 8 rows, as many as x, got 7"),
    (dict(y=X[:, :4]), ValueError, r"y: expected \(8, 5\), got \(8, 4\)"),
    (dict(y=X + 1), ValueError, r"y\[1, 1\]: expected ids in 0..6, got 7"),
    (dict(x=X - 1), ValueError, r"x\[0, 0\]: expected ids in 0..6, got -1"),
    (dict(x=X * 1j), TypeError, "x: expected"),
    (dict(x=np.full((8, 5, 3), 0.5)), ValueError, r"x: expected \(B, T, 7\)"),
    (dict(x=[X[0, :0], X[1, :0]], y=[X[0, :0], X[1, :0]]), ValueError, "x: expected at least one step that counts"),
    (dict(x=[[], []], y=[[], []]), ValueError, r"x: expected at least one row, step.*got \(2, 0\)"),
    (dict(x=X[0] + 0.5), ValueError, r"x: expected \(B, T, 7\), got \(5,\)"),
    (dict(x=X + 0.5), ValueError, r"x: expected \(B, T, 7\) or \(T, 7\), got \(8, 5\)"),
    (dict(x=X[0]), ValueError, r"y: expected \(5,\), got \(8, 5\)"),
    (dict(x=[X[0], X[1]], y=[X[0], X[1, 1:]]), ValueError, r"y\[1\]: expected \(5,\), got \(4,\)"),
    (dict(lengths=5), ValueError, r"lengths: expected \(8,\), got \(\)"),
    (dict(lengths=[1, 2]), ValueError, r"lengths: expected \(8,\), got \(2,\)"),
    (dict(epochs=0), ValueError, "epochs: expected an integer >= 1, got 0"),
    (dict(batch_size=2.5), TypeError, "batch_size: expected an integer"),
    (dict(optimizer="adam"), TypeError, "optimizer: expected SGD, Adam or AdamW, got str 'adam'"),
    (dict(clip_norm=0), ValueError, "clip_norm: expected"),
    (dict(seed=-1), ValueError, "seed: expected an integer >= 0"),
    (dict(patience=0), ValueError, "patience: expected"),
    (dict(tbptt=0), ValueError, "tbptt: expected an integer >= 1"),
    (dict(tbptt=3, x=[X[0], X[1]], y=[X[0], X[1]]), ValueError, "tbptt: expected streams in one array"),
    (dict(validation=X), ValueError, r"validation: expected \(x, y\), \(x, y, lengths\) or a dict"),
    (dict(validation=(X, X + 1)), ValueError, r"validation y\[1, 1\]: expected ids in 0..6, got 7"),
    (dict(checkpoint="/nowhere/at/all/run.ckpt"), ValueError, "checkpoint: expected a file in an existing folder"),
    (dict(checkpoint="."), ValueError, r"checkpoint: expected a file, got the folder \."),
    (dict(resume=True), TypeError, "resume: expected a path, got bool True"),
    (dict(checkpoint=3), TypeError, "checkpoint: expected a path or a Checkpoint, got int 3"),
    (dict(callbacks=[3]), TypeError, "callbacks: expected callables, got int 3"),
    (dict(y=3), TypeError, "y: expected an array or a list of arrays, got int 3"),
    (dict(x=[X[0]], y=None), TypeError, "y: expected targets beside x, or batches .* got None"),
])  # fmt: skip
def test_bad_arguments_are_named_before_anything_changes(arguments, error, message):
    model = make()
    before = model.parameters.flat.copy()
    with pytest.raises(error, match=message):
        model.fit(**{"x": X, "y": X, "progress": False, **arguments})
    np.testing.assert_array_equal(model.parameters.flat, before)


def test_what_stands_past_the_ends_of_targets_is_ignored(rng):
    """-1 is how many mark padding; it is no class, and nobody looks at it."""
    x, y = rng.integers(0, V, (2, 6, 9))
    lengths = np.array([9, 3, 5, 9, 1, 3])
    marked = np.where(np.arange(9) < lengths[:, None], y, -1)
    runs = []
    for targets in (y, marked):
        model = make()
        model.fit(x, targets, lengths=lengths, validation=(x, targets, lengths), epochs=2, batch_size=2, progress=False)
        runs.append((model.parameters.flat.copy(), model.loss_and_gradients(x, targets, lengths=lengths).loss))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    with pytest.raises(ValueError, match=r"y\[1, 3\]: expected ids in 0..6, got -1"):
        make().fit(x, marked, lengths=lengths + (lengths < 9), progress=False)


def test_a_failed_picture_or_history_leaves_the_old_one(tmp_path, monkeypatch):
    history = History([2.0, 1.5], [None, None], [], [], [0.1] * 2, [5, 10], [1.0, 2.0])
    for name, write in [("loss.png", history.plot), ("h.json", history.save)]:
        write(tmp_path / name)
        before = (tmp_path / name).read_bytes()
        history.train_loss.append(1.0)
        with monkeypatch.context() as patch, pytest.raises(OSError, match=f"No space left .*{name}"):
            patch.setattr(os, "fsync", full)
            write(tmp_path / name)
        history.train_loss.pop()
        assert (tmp_path / name).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["h.json", "loss.png"]
    with pytest.raises(ValueError, match="xyz"):
        history.plot(tmp_path / "loss.xyz")
    assert sorted(os.listdir(tmp_path)) == ["h.json", "loss.png"]


def full(descriptor):
    raise OSError(28, "No space left on device")


def test_fit_takes_the_rows_in_a_new_order_each_epoch(monkeypatch):
    taken, part = [], Dataset.part
    monkeypatch.setattr(Dataset, "part", lambda self, rows: taken.extend(rows) or part(self, rows))
    make().fit(X, X, epochs=3, batch_size=3, seed=4, progress=False)
    orders = np.reshape(taken, (3, 8))
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(8), (3, 1)))
    assert len({tuple(order) for order in orders}) == 3


def test_lengths_are_checked_once(rng, monkeypatch):
    """When they come in: an update, of ragged rows here, hands on what was made of them."""
    checked, check_lengths = [], checks.check_lengths
    for module in ("cylstm._core.ragged", "cylstm.batches", "cylstm.training.dataset"):
        count = lambda lengths, *sizes: checked.append(1) or check_lengths(lengths, *sizes)  # noqa: E731
        monkeypatch.setattr(f"{module}.check_lengths", count)
    model, lengths = make(), [5, 2, 5, 4, 1, 3, 4, 5]
    model.fit(X, X, lengths=lengths, epochs=2, batch_size=3, progress=False)
    assert len(checked) == 1
    model.loss_and_gradients(X, X, lengths=lengths)
    assert len(checked) == 2
    model.evaluate(X, X, lengths=lengths)
    assert len(checked) == 3
    model(X, lengths=lengths)
    assert len(checked) == 4
