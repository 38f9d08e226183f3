"""Checkpoints: killed, interrupted or stopped, a run resumes to the same bits; what is no number stops it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tasks import V, make, sequences

from cylstm import (
    SGD,
    Adam,
    Checkpoint,
    Head,
    Model,
    NonFiniteLoss,
    StopTraining,
    tensor_files,
    training,
)  # fmt: skip

SCRIPT = """
import sys
import time
import numpy as np
from cylstm import Adam, Checkpoint, Cosine, Model, data
mode, path, resume = sys.argv[1], sys.argv[2], sys.argv[3] == "resume"
rng = np.random.default_rng(3)
ids = (np.cumsum(rng.integers(1, 3, 3000)) % 7).astype(np.uint8)
model = Model(7, 24, 7, num_layers=2, dropout=0.3, seed=1)
# One that is to be killed does not end before, however late that comes.
wait = [lambda event: time.sleep(0.01 if event.update < 55 else 600)] if "killed" in sys.argv else []
common = dict(callbacks=wait, epochs=4, optimizer=Adam(Cosine(0.01, epochs=4)), progress=False, patience=3, seed=9,
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
    running = process.poll() is None
    process.kill()
    process.communicate()
    return running and process.returncode != 0


@pytest.mark.parametrize("mode", ["chunks", "ragged batches"])
def test_killed_at_a_random_moment_and_resumed_ends_with_the_same_bits(tmp_path, mode):
    whole, path = str(tmp_path / "whole"), str(tmp_path / "broken")
    expected, _ = start(mode, whole, "fresh").communicate()
    rng = np.random.default_rng()
    for attempt in range(3):
        process = start(mode, path, "resume" if attempt else "fresh", "killed")
        assert kill_after_checkpoints(process, path, rng.integers(2, 9), rng.uniform(0, 0.02))
    output, _ = start(mode, path, "resume").communicate()
    assert output == expected and output.startswith("[")
    assert Path(path + ".model").read_bytes() == Path(whole + ".model").read_bytes()


def test_ctrl_c_saves_and_raises(tmp_path, rng):
    x, y = sequences(rng, [6] * 40)
    path = tmp_path / "run.ckpt"

    def press(event):
        if event.update == 7 and event.kind == "update":
            signal.raise_signal(signal.SIGINT)

    model = make()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=3, batch_size=4, checkpoint=Checkpoint(path, note={"corpus": "x"}), callbacks=[press],
                  progress=False)  # fmt: skip
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    read = training.read_checkpoint(path)
    saved, note = Model.from_checkpoint(read), read.note
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
    with pytest.raises(ValueError, match=r"resume: expected .*data="):
        model.fit([row[::-1] for row in x], y, epochs=2, resume=path, progress=False)
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


def test_heads_in_another_order_are_another_model(tmp_path, rng):
    """Weights, and the sums of an epoch, lie in their order."""
    heads = {"a": Head(2, loss="mse"), "b": Head(2, loss="mae")}
    x, y = rng.standard_normal((4, 6, 3)), {name: rng.standard_normal((4, 6, 2)) for name in heads}
    Model(3, 5, heads, seed=1).fit(x, y, epochs=1, checkpoint=tmp_path / "c", progress=False)
    model = Model(3, 5, dict(reversed(heads.items())), seed=1)
    before = model.parameters.flat.copy()
    with pytest.raises(
        ValueError, match=r"^resume: expected the same model as in .*, with output_size={'a': .*, got {'"
    ):
        model.fit(x, y, epochs=2, resume=tmp_path / "c", progress=False)
    np.testing.assert_array_equal(model.parameters.flat, before)
    assert len(Model(3, 5, heads).fit(x, y, epochs=2, resume=tmp_path / "c", progress=False)) == 2


def test_a_history_of_other_epochs_is_damaged(tmp_path, rng):
    """A run that is an optimiser's second has a history of its own epochs."""
    (x, y), path, optimizer = sequences(rng, [6] * 8), tmp_path / "c", Adam()
    model = make()
    model.fit(x, y, epochs=3, optimizer=optimizer, progress=False)
    model.fit(x, y, epochs=2, optimizer=optimizer, checkpoint=path, progress=False)
    with tensor_files.open_tensors(path, "checkpoint") as file:
        header, arrays = file.header, {name: file.get(name) for name in file.shapes}
    assert header["numbers"]["first_epoch"] == 3 and len(header["history"]["train_loss"]) == 2
    assert len(make().fit(x, y, epochs=3, resume=path, progress=False)) == 3
    header["history"] = {name: [*entries, entries[-1]] for name, entries in header["history"].items()}
    tensor_files.write_tensors(path, "checkpoint", header, arrays)
    expected = r"c: expected a checkpoint, got one that is damaged \(history: expected the epochs from 3 to 5, got 3\)$"
    with pytest.raises(ValueError, match=expected):
        make().fit(x, y, epochs=3, resume=path, progress=False)


def test_a_loss_that_is_no_number_stops_training(tmp_path, rng):
    x = rng.standard_normal((40, 6, 3))
    y = rng.standard_normal((40, 6, 1))
    y[25, 3] = 1e200  # whose square is infinite
    path = tmp_path / "run.ckpt"
    model = Model(3, 8, 1, loss="mse", dtype="float64", seed=1)
    message = r"loss: expected a finite number, got inf at update 7 \(epoch 1, batch 7\); .*run.ckpt holds update 6"
    with pytest.raises(NonFiniteLoss, match=message):
        model.fit(x, y, batch_size=4, shuffle=False, checkpoint=Checkpoint(path, updates=3), progress=False)
    assert np.isfinite(model.parameters.flat).all()
    saved = Model.from_checkpoint(path)
    np.testing.assert_array_equal(saved.parameters.flat, model.parameters.flat)
    y[:] = 3e38  # whose squares are finite in double precision, but not their gradients' sum in single
    with pytest.raises(
        NonFiniteLoss, match=r"gradients: expected a finite norm, got inf at update 1 \(epoch 1, batch 1\)$"
    ):
        Model(3, 8, 1, loss="mse", seed=1).fit(x[:20], y[:20], shuffle=False, progress=False)


@pytest.mark.parametrize("kind", ["update", "epoch"])
def test_ctrl_c_in_a_callback_is_never_lost(tmp_path, rng, kind):
    x, y = sequences(rng, [6] * 8)

    def press(event):
        if event.kind == kind and event.epoch == 2:
            signal.raise_signal(signal.SIGINT)

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

    def spoil(event):
        if event.update == 3:
            event.model.parameters["head.bias"][0] = np.nan

    message = r"validation loss: expected a finite number, got nan at update 3 \(epoch 1, batch 3\); .* holds update 2"
    with pytest.raises(NonFiniteLoss, match=message):
        Model(3, 8, 1, loss="mse", seed=1).fit(
            x, y, validation=(x, y), batch_size=4, checkpoint=Checkpoint(tmp_path / "c", updates=2),
            callbacks=[spoil], progress=False)  # fmt: skip


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
    assert np.isfinite(Model.from_checkpoint(path).parameters.flat).all()


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
    x = np.arange(40).reshape(8, 5) % V
    model.fit(x, x, epochs=np.int64(1), checkpoint=tmp_path / "c", progress=False, **sizes)
    assert Model.from_checkpoint(tmp_path / "c").config == model.config


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
        signal.raise_signal(signal.SIGINT)
        raise StopTraining

    with pytest.raises(KeyboardInterrupt):
        make().fit(x, y, epochs=3, callbacks=[press_and_stop], progress=False)


def test_a_checkpoint_that_was_read_serves_one_run(tmp_path):
    path, x = tmp_path / "run.ckpt", np.arange(48).reshape(8, 6) % V
    options = dict(batch_size=3, seed=4, progress=False)
    whole, half, rest, other = make(), make(), make(), make()
    whole.fit(x, x, epochs=3, **options)
    half.fit(x, x, epochs=2, checkpoint=Checkpoint(path, note="half"), **options)
    saved = training.read_checkpoint(path)
    path.unlink()  # all of it was read
    assert saved.note == "half" and np.array_equal(Model.from_checkpoint(saved).parameters.flat, half.parameters.flat)
    with pytest.raises(ValueError, match="resume: expected the same run"):
        other.fit(x, x, epochs=3, resume=saved, **options | {"seed": 5})
    rest.fit(x, x, epochs=3, resume=saved, **options)
    assert np.array_equal(rest.parameters.flat, whole.parameters.flat)
    with pytest.raises(ValueError, match="resume: expected a checkpoint that no run has gone on from, got "):
        other.fit(x, x, epochs=3, resume=saved, **options)
