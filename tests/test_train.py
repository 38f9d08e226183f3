"""Training: it learns, losses are per token, a killed run resumes to the same bits, and what can go wrong is said."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cylstm import (
    SGD,
    Adam,
    Checkpoint,
    History,
    Model,
    NonFiniteLoss,
    ReduceOnPlateau,
    StepDecay,
    StopTraining,
    Vocabulary,
    data,
    oracle,
    train,
)  # fmt: skip

V = 7


def make(**options):
    return Model(V, 12, V, **{"seed": 1, "dtype": "float64", **options})


def sequences(rng, lengths):
    """Ragged next-token data with something to learn: each token is the one before plus 1 or 2."""
    ids = [np.cumsum(rng.integers(1, 3, n + 1)) % V for n in lengths]
    return [row[:-1] for row in ids], [row[1:] for row in ids]


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
    dataset = train.Dataset(model, x, y)
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
        assert (history.train_accuracy[-1] is None) == (model.loss == "mse")


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


def test_the_progress_bar_says_loss_and_speed(rng, capsys):
    x, y = sequences(rng, [6] * 8)
    make().fit(x, y, validation=(x, y), epochs=2, batch_size=4)
    assert "epoch 2/2: 100%" in (text := capsys.readouterr().err) and "validation" in text


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


# --- checkpoints ------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
import time
import numpy as np
from cylstm import Adam, Checkpoint, Cosine, Model, data
mode, path, resume = sys.argv[1], sys.argv[2], sys.argv[3] == "resume"
rng = np.random.default_rng(3)
ids = (np.cumsum(rng.integers(1, 3, 3000)) % 7).astype(np.uint8)
model = Model(7, 24, 7, num_layers=2, dropout=0.3, seed=1)
slow = [lambda event: time.sleep(0.01)] if "slow" in sys.argv else []
common = dict(callbacks=slow, epochs=4, optimizer=Adam(Cosine(0.01, epochs=4)), progress=False, patience=3, seed=9,
              checkpoint=Checkpoint(path, updates=2), resume=path if resume else None)
x, y = data.streams(ids, 4)
if mode == "chunks":
    history = model.fit(x, y, validation=(x[:1], y[:1]), tbptt=20, **common)
else:
    lengths = rng.integers(5, 40, 60)
    rows = [ids[n * 45 : n * 45 + k + 1] for n, k in enumerate(lengths)]
    xs, ys = [r[:-1] for r in rows], [r[1:] for r in rows]
    history = model.fit(xs, ys, validation=(xs[:9], ys[:9]), batch_size=4, **common)
model.save(path + ".model")
print(history.train_loss, history.validation_loss, history.updates)
"""


def start(*arguments):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, text=True)


def kill_after_checkpoints(process, path, count, seconds):
    """SIGKILL a little after the checkpoint was replaced `count` times; whether the process was still running."""
    seen = set()
    while len(seen) < count and process.poll() is None:
        if os.path.exists(path):
            seen.add(os.stat(path).st_mtime_ns)
        time.sleep(0.001)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("mode", ["chunks", "ragged batches"])
def test_killed_at_a_random_moment_and_resumed_ends_with_the_same_bits(tmp_path, mode):
    whole, path = str(tmp_path / "whole"), str(tmp_path / "broken")
    expected, _ = start(mode, whole, "fresh").communicate()
    rng = np.random.default_rng()
    for attempt in range(3):
        process = start(mode, path, "resume" if attempt else "fresh", "slow")
        assert kill_after_checkpoints(process, path, rng.integers(2, 9), rng.uniform(0, 0.02))
    output, _ = start(mode, path, "resume").communicate()
    assert output == expected and output.startswith("[")
    assert Path(path + ".model").read_bytes() == Path(whole + ".model").read_bytes()


def test_ctrl_c_saves_and_raises(tmp_path, rng):
    x, y = sequences(rng, [6] * 40)
    path = tmp_path / "run.ckpt"

    def press(event):
        if event.update == 7 and event.kind == "update":
            os.kill(os.getpid(), signal.SIGINT)

    model = make()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=3, batch_size=4, checkpoint=Checkpoint(path, note={"corpus": "x"}), callbacks=[press],
                  progress=False)  # fmt: skip
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    saved, note = train.read_checkpoint(path)
    assert note == {"corpus": "x"}
    np.testing.assert_array_equal(saved.parameters.flat, model.parameters.flat)
    resumed, whole = make(seed=5), make()
    history = resumed.fit(x, y, epochs=3, batch_size=4, resume=path, progress=False)
    expected = whole.fit(x, y, epochs=3, batch_size=4, progress=False)
    np.testing.assert_array_equal(resumed.parameters.flat, whole.parameters.flat)
    assert history.train_loss == expected.train_loss


def test_a_finished_run_resumes_to_more_epochs(tmp_path, rng):
    x, y = sequences(rng, [6] * 20)
    path = tmp_path / "run.ckpt"
    make().fit(x, y, epochs=2, checkpoint=path, progress=False)
    resumed, whole = make(), make()
    resumed.fit(x, y, epochs=5, resume=path, progress=False)
    whole.fit(x, y, epochs=5, progress=False)
    np.testing.assert_array_equal(resumed.parameters.flat, whole.parameters.flat)


def test_a_checkpoint_of_another_run_is_refused(tmp_path, rng):
    x, y = sequences(rng, [6] * 20)
    path = tmp_path / "run.ckpt"
    make().fit(x, y, epochs=1, checkpoint=path, progress=False)
    model = make()
    before = model.parameters.flat.copy()
    for options, message in [
        (dict(batch_size=5), "same run .* batch_size=32, got 5"),
        (dict(seed=3), "seed=0, got 3"),
        (dict(optimizer=SGD(0.1)), "optimizer="),
        (dict(clip_norm=None), "clip_norm=5.0"),
    ]:
        with pytest.raises(ValueError, match=f"resume: expected .*{message}"):
            model.fit(x, y, epochs=2, resume=path, progress=False, **options)
    with pytest.raises(ValueError, match=r"resume: expected .*rows=20, got 19"):
        model.fit(x[1:], y[1:], epochs=2, resume=path, progress=False)
    with pytest.raises(ValueError, match=r"same model .* hidden_size=12, got 13"):
        Model(V, 13, V, dtype="float64").fit(x, y, epochs=2, resume=path, progress=False)
    np.testing.assert_array_equal(model.parameters.flat, before)
    with pytest.raises(ValueError, match=r"expected a cylstm model, got a checkpoint"):
        Model.load(path)
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=r"expected a cylstm checkpoint, got a model"):
        model.fit(x, y, resume=tmp_path / "m", progress=False)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"expected a cylstm checkpoint, got a file that is truncated"):
        model.fit(x, y, resume=path, progress=False)


def test_a_loss_that_is_no_number_stops_training(tmp_path, rng):
    x = rng.standard_normal((40, 6, 3))
    y = rng.standard_normal((40, 6, 1))
    y[25, 3] = np.nan
    path = tmp_path / "run.ckpt"
    model = Model(3, 8, 1, loss="mse", seed=1)
    message = r"loss: expected a finite number, got nan at update 7 \(epoch 1, batch 7\); .*run.ckpt holds update 6"
    with pytest.raises(NonFiniteLoss, match=message):
        model.fit(x, y, batch_size=4, shuffle=False, checkpoint=Checkpoint(path, updates=3), progress=False)
    assert np.isfinite(model.parameters.flat).all()
    saved, _ = train.read_checkpoint(path)
    np.testing.assert_array_equal(saved.parameters.flat, model.parameters.flat)
    x[3, 2, 1] = np.inf  # saturates the gates, so that the loss stays finite
    with pytest.raises(
        NonFiniteLoss, match=r"gradients: expected a finite norm, got nan at update 1 \(epoch 1, batch 1\)$"
    ):
        model.fit(x[:20], y[:20], shuffle=False, progress=False)


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
    with pytest.raises(ValueError, match="history: expected at least one epoch"):
        History().plot(tmp_path / "none.png")


X = np.arange(40).reshape(8, 5) % V


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (dict(y=X[:7]), ValueError, "y: expected 8 rows, as many as x, got 7"),
    (dict(y=X[:, :4]), ValueError, r"y: expected \(8, 5\), got \(8, 4\)"),
    (dict(y=X + 1), ValueError, "y: expected ids in 0..6, got 7"),
    (dict(x=X - 1), ValueError, "x: expected ids in 0..6, got -1"),
    (dict(x=X * 1j), TypeError, "x: expected"),
    (dict(x=np.full((8, 5, 3), 0.5)), ValueError, r"x: expected \(B, T, 7\)"),
    (dict(x=[X[0], X[1, :0]], y=[X[0], X[1, :0]]), ValueError, r"x\[1\]: expected \(T\) and at least one step"),
    (dict(x=[X[0], X[1]], y=[X[0], X[1, 1:]]), ValueError, r"y\[1\]: expected \(5,\), got \(4,\)"),
    (dict(lengths=[1, 2]), ValueError, r"lengths: expected \(8,\), got \(2,\)"),
    (dict(epochs=0), ValueError, "epochs: expected an integer >= 1, got 0"),
    (dict(batch_size=2.5), TypeError, "batch_size: expected an integer"),
    (dict(optimizer="adam"), TypeError, "optimizer: expected SGD, Adam or AdamW, got str 'adam'"),
    (dict(clip_norm=0), ValueError, "clip_norm: expected"),
    (dict(seed=-1), ValueError, "seed: expected an integer >= 0"),
    (dict(patience=0), ValueError, "patience: expected"),
    (dict(tbptt=0), ValueError, "tbptt: expected an integer >= 1"),
    (dict(tbptt=3, lengths=[5] * 7 + [4]), ValueError, "tbptt: expected streams of equal length"),
    (dict(validation=X), ValueError, r"validation: expected \(x, y\) or \(x, y, lengths\)"),
    (dict(validation=(X, X + 1)), ValueError, "validation y: expected ids in 0..6, got 7"),
    (dict(checkpoint="/nowhere/at/all/run.ckpt"), ValueError, "checkpoint: expected a path in an existing folder"),
    (dict(checkpoint="."), ValueError, "checkpoint: expected a path in an existing folder"),
    (dict(checkpoint=3), TypeError, "checkpoint: expected a path or a Checkpoint, got int 3"),
    (dict(callbacks=[3]), TypeError, "callbacks: expected callables, got int 3"),
    (dict(y=3), TypeError, "y: expected an array or a list of arrays, got int64"),
    (dict(x=[X[0]], y=None), TypeError, "y: expected a list of arrays, as x is one, got NoneType"),
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
    with pytest.raises(ValueError, match=r"y: expected ids in 0..6, got -1"):
        make().fit(x, marked, lengths=lengths + (lengths < 9), progress=False)


@pytest.mark.parametrize("kind", ["update", "epoch"])
def test_ctrl_c_in_a_callback_is_never_lost(tmp_path, rng, kind):
    x, y = sequences(rng, [6] * 8)

    def press(event):
        if event.kind == kind and event.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make().fit(x, y, epochs=3, checkpoint=tmp_path / "c", callbacks=[press], progress=False)  # in the last epoch
    resumed, whole = make(), make()
    resumed.fit(x, y, epochs=4, resume=tmp_path / "c", progress=False)
    whole.fit(x, y, epochs=4, progress=False)
    np.testing.assert_array_equal(resumed.parameters.flat, whole.parameters.flat)


def test_a_run_stopped_by_a_callback_has_a_checkpoint(tmp_path, rng):
    x, y = sequences(rng, [6] * 20)

    def stop(event):
        if event.update == 3:
            raise StopTraining

    model, whole = make(), make()
    model.fit(x, y, epochs=3, batch_size=4, checkpoint=tmp_path / "c", callbacks=[stop], progress=False)
    model.fit(x, y, epochs=3, batch_size=4, resume=tmp_path / "c", progress=False)
    whole.fit(x, y, epochs=3, batch_size=4, progress=False)
    np.testing.assert_array_equal(model.parameters.flat, whole.parameters.flat)


def test_a_validation_loss_that_is_no_number_stops_training(tmp_path, rng):
    x, y = rng.standard_normal((12, 6, 3)), rng.standard_normal((12, 6, 1))
    held_out = x.copy()
    held_out[1, 2, 0] = np.nan
    message = r"validation loss: expected a finite number, got nan at update 3 \(epoch 1, batch 3\); .* holds update 2"
    with pytest.raises(NonFiniteLoss, match=message):
        Model(3, 8, 1, loss="mse", seed=1).fit(
            x, y, validation=(held_out, y), batch_size=4, checkpoint=Checkpoint(tmp_path / "c", updates=2),
            progress=False)  # fmt: skip


def test_weights_that_are_no_numbers_never_replace_a_checkpoint(tmp_path, rng):
    x, y = sequences(rng, [6] * 12)
    path = tmp_path / "run.ckpt"

    def spoil(event):
        if event.update == 2:
            event.model.parameters["head.bias"][3] = np.inf

    message = (
        r"weights: expected finite numbers, got others at update 2 \(epoch 1, batch 2\); .*run.ckpt holds update 1"
    )
    with pytest.raises(NonFiniteLoss, match=message):
        make().fit(x, y, batch_size=4, checkpoint=Checkpoint(path, updates=1), callbacks=[spoil], progress=False)
    assert np.isfinite(train.read_checkpoint(path)[0].parameters.flat).all()


@pytest.mark.parametrize("generator", ["PCG64", "MT19937", "Philox", "SFC64"])
def test_any_generator_of_numpy_is_kept(tmp_path, rng, generator):
    x, y = sequences(rng, [6] * 20)
    seeds = [np.random.Generator(getattr(np.random, generator)(n)) for n in (1, 1, 2)]
    whole, first, second = (make(seed=seed, dropout=0.4, num_layers=2) for seed in seeds)
    whole.fit(x, y, epochs=3, progress=False)
    first.fit(x, y, epochs=1, checkpoint=tmp_path / "c", progress=False)
    second.fit(x, y, epochs=3, resume=tmp_path / "c", progress=False)
    np.testing.assert_array_equal(second.parameters.flat, whole.parameters.flat)
    other = make(seed=np.random.Generator(np.random.PCG64DXSM(1)), dropout=0.4, num_layers=2)
    with pytest.raises(ValueError, match="resume: expected the state of a PCG64DXSM"):
        other.fit(x, y, epochs=3, resume=tmp_path / "c", progress=False)


def test_sizes_may_be_numpys(tmp_path):
    model = make()
    sizes = dict(tbptt=np.int64(2), batch_size=np.int32(3), seed=np.uint8(1), clip_norm=np.float32(2.5))
    model.fit(X, X, epochs=np.int64(1), checkpoint=tmp_path / "c", progress=False, **sizes)
    assert train.read_checkpoint(tmp_path / "c")[0].config == model.config


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
    taken, take = [], train.Dataset.take
    monkeypatch.setattr(train.Dataset, "take", lambda self, rows: taken.extend(rows) or take(self, rows))
    make().fit(X, X, epochs=3, batch_size=3, seed=4, progress=False)
    orders = np.reshape(taken, (3, 8))
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(8), (3, 1)))
    assert len({tuple(order) for order in orders}) == 3


def test_the_best_weights_survive_a_break(tmp_path, rng):
    """The best epoch lies before the break, and nothing after it is better."""
    x, y = sequences(rng, [8] * 6)
    held_out = sequences(rng, [8] * 40)
    common = dict(validation=held_out, batch_size=6, patience=5, optimizer=Adam(0.02), progress=False)
    whole, broken, resumed = (Model(V, 40, V, seed=1) for _ in range(3))
    best = whole.fit(x, y, epochs=400, **common).best_epoch

    def stop(event):
        if event.epoch == best + 2:
            raise StopTraining

    broken.fit(x, y, epochs=400, checkpoint=tmp_path / "c", callbacks=[stop], **common)
    history = resumed.fit(x, y, epochs=400, resume=tmp_path / "c", **common)
    assert history.best_epoch == best and len(history) == best + 6
    np.testing.assert_array_equal(resumed.parameters.flat, whole.parameters.flat)


def test_ctrl_c_wins_over_a_callback_that_stops(rng):
    x, y = sequences(rng, [6] * 8)

    def press_and_stop(event):
        os.kill(os.getpid(), signal.SIGINT)
        raise StopTraining

    with pytest.raises(KeyboardInterrupt):
        make().fit(x, y, epochs=3, callbacks=[press_and_stop], progress=False)
