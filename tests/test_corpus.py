"""The fuzzer's kept corpus and right files through all readers: each ends with an object or a refusal."""

import numpy as np
import pytest

import cylstm
from fuzz import targets
from fuzz.__main__ import KEPT

KEPT_INPUTS = [(path.parent.name, path) for path in sorted(KEPT.glob("*/*"))]


@pytest.mark.parametrize("name", targets.TARGETS)
def test_right_files_are_read(name):
    for seed in targets.seeds(name):
        targets.TARGETS[name](seed)
    if name not in ("model", "checkpoint", "resume"):
        return
    kind = "model" if name == "model" else "checkpoint"
    path = targets.written(kind, targets.seeds(name)[targets.HEADER])
    read = cylstm.Model.load(path) if kind == "model" else cylstm.Model.from_checkpoint(path)
    assert np.array_equal(read.parameters.flat, targets.tiny_model().parameters.flat) == (kind == "model")


def test_there_is_a_corpus():
    assert {name for name, _ in KEPT_INPUTS} == set(targets.TARGETS)


@pytest.mark.parametrize("name, path", KEPT_INPUTS, ids=lambda value: getattr(value, "name", value))
def test_kept_inputs_end_with_an_object_or_a_refusal(name, path):
    targets.TARGETS[name](path.read_bytes())
