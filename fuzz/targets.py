"""What reads files, as functions of bytes: each must end with an object, a ValueError or an OSError, and nothing else.

The first byte says what the others are: a whole file; the text of our own header, in a container that is otherwise
right; or the header of the container, before a body of zeros. So the fuzzer works behind each gate, not only before the
first.
"""

import contextlib
import functools
import json
import struct
import tempfile
from pathlib import Path

import numpy as np

import cylstm
from cylstm.cli.classifier import Classifier, Columns
from cylstm.cli.info import about_classifier, about_forecaster
from cylstm.scaling import Scaler
from fuzz import exchange_targets, keras_files, onnx_files

RAW, HEADER, CONTAINER = range(3)
REFUSALS = (ValueError, OSError)
BODY = 4096  # bytes


def tiny_model():
    vocabulary = cylstm.Vocabulary.from_text("ab c")
    return cylstm.Model(len(vocabulary), 2, len(vocabulary), embedding_size=2, vocabulary=vocabulary, seed=0)


def tiny_data():
    return np.arange(12).reshape(2, 6) % 3, np.arange(12).reshape(2, 6) % 4


def tiny_forecaster():
    series = np.sin(np.arange(30.0))
    maker = cylstm.LSTMForecaster(2, season=3, members=1, epochs=1, hidden_size=2, quantiles=(0.1, 0.9))
    return maker.fit([series, series[4:]], past=[series, series[4:]], static=[[1.0], [2.0]])


def tiny_classifier():
    rows = [np.sin(np.arange(12.0)).reshape(6, 2)[: 2 + n] for n in range(4)]
    model = cylstm.Model(2, 2, 2, labels=["no", "yes"], bidirectional=True, output="last", seed=0)
    found = Classifier(model, Scaler().fit(rows), Columns("kind", "who", ("a", "b"), ("c",)))
    model.fit(found.inputs(rows), np.array(["no", "yes"] * 2), epochs=1, progress=False)
    return found


@functools.cache
def folder():
    kept = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    folder.kept = kept
    return Path(kept.name)


@functools.cache
def right_file(kind):
    """A file as cylstm writes it: (its bytes, the header of its container, the bytes behind that)."""
    path = folder() / f"right.{kind}"
    model = tiny_model()
    if kind == "model":
        model.save(path)
    elif kind == "forecaster":
        tiny_forecaster().save(path)
    elif kind == "classifier":
        tiny_classifier().save(path)
    else:
        x, y = tiny_data()
        model.fit(x, y, epochs=1, batch_size=2, seed=1, checkpoint=path, progress=False, optimizer=cylstm.SGD(lr=0.1))
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return content, json.loads(content[8 : 8 + length]), content[8 + length :]


def container(header, body):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def as_file(kind, data):
    """The file that these bytes of the fuzzer's stand for."""
    mode, rest = data[0] % 3, data[1:]
    if mode == RAW:
        return rest
    _, header, body = right_file(kind)
    if mode == CONTAINER:
        return container(rest, bytes(BODY))
    return container({**header, "__metadata__": {"cylstm": rest.decode("utf-8", "replace")}}, body)


def written(kind, data):
    path = folder() / f"given.{kind}"
    path.write_bytes(as_file(kind, data))
    return path


def model(data):
    """Model.load, and one call of what comes out of it."""
    with contextlib.suppress(*REFUSALS):
        read = cylstm.Model.load(written("model", data))
        x = np.zeros((1, 2), np.int64) if read.loss.of_classes else np.zeros((1, 2, read.input_size), read.dtype)
        assert np.asarray(read(x)).shape[-1] == read.output_size
        if read.vocabulary is not None:
            read.vocabulary.decode([0])


def forecaster(data):
    """LSTMForecaster.load, what comes out of it, and a step further."""
    with contextlib.suppress(*REFUSALS, ArithmeticError):
        read = cylstm.LSTMForecaster.load(written("forecaster", data))
        read.forecast()
        about_forecaster(read)
        N = len(read.series_)
        row = [[np.ones((1, *shape))] * N for shape in ((), (read.layout_.P,), (read.layout_.C,))]
        read.go_on(*row).forecast()  # as `update`, in whatever form the series are


def classifier(data):
    """What `cylstm classify --model` and `cylstm info` read, and the labels of two sequences."""
    with contextlib.suppress(*REFUSALS):
        read = Classifier.load(written("classifier", data))
        x = np.linspace(-1, 1, 6 * read.model.input_size).reshape(6, -1)
        assert read.predict_proba([x, x[:1]]).shape == (2, len(read.model.labels))
        about_classifier(read)


def checkpoint(data):
    """What `cylstm train --resume` reads first."""
    with contextlib.suppress(*REFUSALS):
        cylstm.Model.from_checkpoint(written("checkpoint", data))


def resume(data):
    """What `fit` goes on from."""
    x, y = tiny_data()
    with contextlib.suppress(*REFUSALS, cylstm.NonFiniteLoss):
        tiny_model().fit(x, y, epochs=1, batch_size=2, seed=1, resume=written("checkpoint", data), progress=False,
                         optimizer=cylstm.SGD(lr=0.1))  # fmt: skip


def vocabulary(data):
    """Vocabulary.from_json, and there and back again."""
    with contextlib.suppress(*REFUSALS):
        read = cylstm.Vocabulary.from_json(data.decode("utf-8", "replace"))
        assert cylstm.Vocabulary.from_json(read.to_json()) == read
        read.decode(range(len(read)))


ALL = (model, forecaster, classifier, checkpoint, resume, vocabulary, keras_files.keras, onnx_files.onnx)
TARGETS = {target.__name__: target for target in ALL} | exchange_targets.TARGETS


def seeds(name):
    """Right files in each of the forms, for the fuzzer to begin with."""
    if name in exchange_targets.TARGETS:
        return exchange_targets.seeds(name)
    if name == "keras":
        return keras_files.seeds()
    if name == "vocabulary":
        return [cylstm.Vocabulary.from_text(text, level=level).to_json().encode()
                for level in ("char", "word") for text in ("a b c", "long words, short ones")]  # fmt: skip
    if name == "onnx":
        return onnx_files.seeds()
    content, header, _ = right_file(name if name in ("model", "forecaster", "classifier") else "checkpoint")
    text = header["__metadata__"]["cylstm"].encode()
    return [bytes([RAW]) + content, bytes([HEADER]) + text, bytes([CONTAINER]) + json.dumps(header).encode()]
