"""`import cylstm`: light, and everything public is there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

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
    assert not modules & {"cylstm.model", "cylstm.training.run", "cylstm.data", "safetensors", "tqdm", "argparse"}


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
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}  # ours may be set
    assert in_fresh_interpreter(code, environment) == 0


# Every module, from the bottom up: one may import those before it. A line is a room.
ROOMS = """
version signatures maps checks processors activations locks init
ctc_oracle dense_oracle loss_oracle optim_oracle norm_oracle cell_oracle between_oracle oracle
_core _core.memory parameters state cell drops losses _core.kernels _core.choice _core.operands _core.small_matrix \
small_parameters precision trace
_core.blas _core.load_blas _core.interrupt _core.ragged _core.team _core.direction \
_core.packed_rows _core.apart _core.gradients _core.highway _core.forward _core.backward _core.packing \
_core.packed_weights _core.network _core.tile_range _core.pieces _core.arena \
_core.arguments _core.places _core.masks _core.tape _core.layer _core.torch_layer _core.head _core.updates _core.many \
_core.crew _core.ctc _core.ctc_beam
lstm
dense inputs labels heads model_parameters between
tensor_files sequences scaling iterables counting ctc batches metric_sums label_metrics metrics \
loss_and_gradients own_loss predictions
text text.vocabulary text.kept text.corpus text.sampling text.measures
training.pictures training.history training.record training.events training.progress training.callbacks \
training.schedule training.optim training.targets training.dataset training.parts training.parallel \
training.checkpoint training.batch_stream training.run training.fit training.finder training
model_files summary
report.charts report.sample report.inside report.reach report.follows report.outcome report.sections report.page report
model data many.history many.data many.measures many.files many.run many.fit many.models many
forecast.season forecast.features forecast.learning forecast.flights forecast.paths forecast.frames forecast.panel \
forecast.backtest forecast.files forecast.forecaster forecast forecast.for_sktime
online.features online.base online.estimators online.detector online
exchange.network exchange.json_files exchange.pytorch exchange.rtneural exchange.nam exchange.c_header \
exchange.keras_attributes \
exchange.keras_activations exchange.keras_layers exchange.keras_config exchange.keras_inferred \
exchange.keras_weights exchange.keras_written exchange.keras \
exchange.protobuf exchange.onnx_file exchange.onnx_values exchange.onnx_functions exchange.onnx_formulas \
exchange.onnx_nodes exchange.onnx_notes exchange.onnx_dense exchange.onnx_shapes exchange.onnx_pieces \
exchange.onnx_outside exchange.onnx_lstm exchange.onnx_graph exchange.onnx_write exchange.onnx exchange.models exchange
for_threadpoolctl calls
torch.threads torch._call torch.run torch.graphs torch.modules torch.small torch.swap torch
sklearn.rows sklearn.base sklearn.classifier sklearn.regressor sklearn.scaler sklearn forecast.for_darts
cylstm
cli.arguments cli.table_options cli.options cli.convert cli.tables cli.times cli.columns cli.series \
cli.pictures cli.forecast cli.classifier cli.sequences cli.classify cli.info cli.commands cli __main__
"""
ORDER = ROOMS.split()

IMPORT = r"^ *from (cylstm[\w.]*) c?import (?:\(([^)]*)\)|([^\n#(]*))"


def imports_of(path):
    """The modules of cylstm that a file imports, anywhere in it."""
    found = set()
    for package, several, some in re.findall(IMPORT, path.read_text(), re.M):
        package = package.removeprefix("cylstm").strip(".")
        for name in re.findall(r"\w+", re.sub(r" as \w+", "", several or some)):
            inner = f"{package}.{name}".strip(".")
            found.add(inner if inner in ORDER else package or "cylstm")
    return found


def test_imports_run_downwards_only():
    root = Path(cylstm.__file__).parent
    for path in (path for ending in ("py", "pyx", "pxd") for path in sorted(root.rglob(f"*.{ending}"))):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        name = "cylstm" if name == "__init__" else name
        assert name in ORDER, f"{name}: expected a place in ORDER"
        upwards = {other for other in imports_of(path) - {name} if ORDER.index(other) > ORDER.index(name)}
        assert not upwards, f"{name} imports {upwards}"
