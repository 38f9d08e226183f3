"""`import cylstm`: light, and everything public is there."""

import json
import os
import subprocess
import sys

import pytest

import cylstm


def in_fresh_interpreter(code, environment=os.environ):
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def test_every_public_name_is_there_and_listed():
    listed = dir(cylstm)
    for name in cylstm.__all__:
        assert getattr(cylstm, name) is not None and name in listed
    assert cylstm.Model.__module__ == "cylstm.model"
    assert cylstm.data.__name__ == "cylstm.data"


def test_no_other_name_is():
    with pytest.raises(AttributeError, match="module 'cylstm' has no attribute 'Modell'"):
        cylstm.Modell  # noqa: B018


def test_the_layer_comes_without_what_only_models_need():
    code = "import json, sys, cylstm; cylstm.LSTM(3, 5); print(json.dumps(sorted(sys.modules)))"
    modules = set(in_fresh_interpreter(code))
    assert "cylstm.lstm" in modules
    assert not modules & {"cylstm.model", "cylstm.train", "cylstm.data", "safetensors", "tqdm", "argparse"}


@pytest.mark.parametrize("name, value", [("OPENBLAS_NUM_THREADS", "2"), ("OPENBLAS_CORETYPE", "Haswell")])
@pytest.mark.parametrize("is_set", [True, False])
def test_the_environment_is_left_as_it_was(name, value, is_set):
    asked = {name: value} if is_set else {}
    code = f"import json, os, cylstm; print(json.dumps(os.environ.get({name!r})))"
    environment = {key: present for key, present in os.environ.items() if key != name} | {"CYLSTM_ISA": "baseline"}
    assert in_fresh_interpreter(code, {**environment, **asked}) == asked.get(name)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_importing_starts_no_thread():
    code = (
        "import json, os, numpy; before = len(os.listdir('/proc/self/task')); "
        "import cylstm; print(json.dumps(len(os.listdir('/proc/self/task')) - before))"
    )
    assert in_fresh_interpreter(code) == 0
