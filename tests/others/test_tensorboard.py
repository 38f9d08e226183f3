"""TensorBoard's files, written through tensorboardX and read back: needs it, and is skipped without."""

import math

import numpy as np
import pytest
from tasks import make, sequences

from cylstm import training

pytest.importorskip("tensorboardX")


def scalars(folder):
    """(step, value) by name, of all files in the order of their names."""
    from tensorboardX.proto.event_pb2 import Event

    found, purged = {}, []
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):  # records: length, its checksum, the event, its checksum
            size = int.from_bytes(content[at : at + 8], "little")
            event = Event.FromString(content[at + 12 : at + 12 + size])
            at += size + 16
            if event.HasField("session_log"):
                purged.append(event.step)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found, purged


def fitted(model, callbacks, **options):
    x, y = sequences(np.random.default_rng(5), [6] * 8)
    nan = [0.5, math.nan, 0.25, math.inf]
    return model.fit(x, y, callbacks=callbacks, progress=False, **options,
                     metrics=["f1", ("own", lambda targets, outputs: nan.pop(0))])  # fmt: skip


def test_all_columns_are_there_after_each_epoch(tmp_path):
    seen = []
    board = training.TensorBoard(tmp_path / "runs")

    def look(event):
        if event.kind == "epoch":
            seen.append(len(scalars(tmp_path / "runs")[0]["train_loss"]))

    history = fitted(make(), [board, look], epochs=3)
    assert seen == [1, 2, 3]
    found, purged = scalars(tmp_path / "runs")
    table = {name: [(n + 1, entry) for n, entry in enumerate(entries) if entry is not None]
             for name, entries in history.to_dict().items()}  # fmt: skip
    assert {name for name, entries in table.items() if entries} == set(found) and purged == []
    for name, entries in found.items():
        np.testing.assert_allclose(entries, table[name], rtol=1e-6)
    assert [step for step, _ in found["own"]] == [1, 3]


def test_a_resumed_run_takes_the_place_of_what_was_there(tmp_path):
    runs = tmp_path / "runs"
    first, second = training.TensorBoard(runs), training.TensorBoard(runs)
    fitted(make(), [first], epochs=2, checkpoint=tmp_path / "c")
    fitted(make(), [second], epochs=4, resume=tmp_path / "c")
    found, purged = scalars(runs)
    assert [step for step, _ in found["train_loss"]] == [1, 2, 1, 2, 3, 4] and purged == [1]
