"""Files: safetensors with a versioned JSON header, written so that a reader sees the old file or the new, never half.

Nothing is pickled. The header stands in the file's metadata under "cylstm":
{"kind": "model" or "checkpoint", "format": 1, "cylstm": "0.1.0", ...}.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cylstm.checks import describe, path_name, positive_int, real_in

__all__ = ["Checkpoint", "check_same_run", "open_tensors", "standing", "write_atomically", "write_tensors"]

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often the whole state of training is written.

    path : file. updates : every so many updates; seconds : every so many seconds; whichever comes first. It is also
    written after every epoch. note : anything JSON can hold, kept in the file for whoever resumes.
    """

    path: str | os.PathLike
    updates: int | None = None
    seconds: float | None = 60.0
    note: object = None

    def __post_init__(self):
        if not isinstance(self.path, (str, os.PathLike)):
            raise TypeError(f"checkpoint: expected a path or a Checkpoint, got {describe(self.path)}")
        path = Path(self.path)
        if path.is_dir():
            raise ValueError(f"checkpoint: expected a file, got the folder {path}")
        if not path.absolute().parent.is_dir():
            raise ValueError(f"checkpoint: expected a file in an existing folder, got {path}")
        if self.updates is not None:
            positive_int("checkpoint.updates", self.updates)
        if self.seconds is not None:
            real_in("checkpoint.seconds", self.seconds, 0)
        try:
            json.dumps(self.note)
        except (RecursionError, TypeError, ValueError) as error:
            raise TypeError(
                f"checkpoint.note: expected what JSON can hold, got {describe(self.note)} ({error})"
            ) from None


def write_atomically(path, content: bytes) -> None:
    """Write a file beside `path`, make sure it is on the disk, then let it take the name. Raises OSError.

    A symbolic link stays one and its target is replaced, with its permissions; what is no regular file (/dev/null, a
    pipe) is written into. Raises TypeError for what is no path.
    """
    path = Path(os.path.realpath(path_name("path", path)))
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(content)
        return
    try:
        _write_beside(path, content)
    except OSError as error:  # its own name would be the temporary file's
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write_beside(path, content):
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    temporary = path.parent / f".cylstm.{os.urandom(8).hex()}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_tensors(path, kind: str, header: dict, tensors: dict[str, np.ndarray]) -> None:
    """Write named arrays and a JSON header atomically."""
    from safetensors.numpy import save

    from cylstm import __version__

    header = {"kind": kind, "format": FORMAT, "cylstm": __version__, **header}
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    text = json.dumps(header, default=np.ndarray.tolist)  # some generators hold arrays
    write_atomically(path, save(arrays, metadata={"cylstm": text}))


class TensorFile:
    """An open file: its header, the shapes it claims (name -> shape), and its tensors one by one."""

    def __init__(self, path, header, file):
        self.path, self.header, self._file = path, header, file
        self.shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

    def read(self, name: str, shape, dtype) -> np.ndarray:
        """One tensor, which must have this shape and dtype: ValueError otherwise."""
        if self.shapes.get(name) != tuple(shape):
            raise ValueError(f"{self.path}: expected a tensor {name} {tuple(shape)}, got {self.shapes.get(name)}")
        array = self._file.get_tensor(name)
        if array.dtype != dtype:
            raise ValueError(f"{self.path}: expected {name} in {np.dtype(dtype)}, got {array.dtype}")
        return array


@contextlib.contextmanager
def open_tensors(path, kind: str):
    """Open a file written by write_tensors. Raises OSError, or ValueError for a file that is anything else."""
    from safetensors import SafetensorError, safe_open

    path = path_name("path", path)
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise ValueError(f"{path}: expected a regular file, got a pipe or a device")
    with open(path, "rb"):
        pass  # safetensors' own errors for a missing or unreadable file name no path
    try:
        opened = safe_open(path, framework="numpy")
        metadata = opened.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a cylstm {kind}, got a file that is truncated or none at all ({error})"
        ) from None
    with opened as file:
        yield TensorFile(path, _checked_header(path, kind, metadata), file)


def _checked_header(path, kind, metadata) -> dict:
    try:
        header = json.loads(metadata["cylstm"])
        version = header["format"]
        found = header["kind"]
    except (KeyError, RecursionError, TypeError, ValueError):
        raise ValueError(f"{path}: expected a cylstm {kind}, got safetensors without its header") from None
    if type(version) is not int or version < 1:
        raise ValueError(f"{path}: expected a format from 1 to {FORMAT}, got {version!r}")
    if version > FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT} or older, got {version}: written by a newer cylstm "
                         f"({header.get('cylstm')})")  # fmt: skip
    if found != kind:
        raise ValueError(f"{path}: expected a cylstm {kind}, got a {found}")
    return header


def check_same_run(path, header, config, options):
    """ValueError unless a checkpoint was written by a run of the same model and options."""
    try:
        written = dict(header["config"])
        if written["num_layers"] == 1:  # once, dropout could be anything then
            written["dropout"] = config["dropout"]
        pairs = [(written, config, "model"), (header["options"], options, "run")]
        for saved, present, what in pairs:
            for name, value in present.items():
                if saved[name] != value:
                    raise ValueError(
                        f"resume: expected the same {what} as in {path}, with {name}={saved[name]}, got {value}"
                    )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a checkpoint, got one whose header is damaged ({error})") from None


MOST_COUNTED = 2**53
# A generator's place within its numbers, MT19937's and Philox's, which NumPy takes as it comes.
PLACES = {"pos": 624, "buffer_pos": 4}
COUNTS = ("epoch", "position", "hits", "tokens", "waited", "since_plateau", "plateaus")


def standing(path, header, batches: int) -> dict:
    """Where a run stood that wrote a checkpoint, by the names of its attributes. ValueError where that cannot be.

    batches : how many there are in an epoch.
    """
    try:
        given = header["numbers"]
        stood = {name: positive_int(name, given[name], 0) for name in COUNTS}
        stood["updates"] = positive_int("updates", header["updates"], 0)
        if max(stood.values()) > MOST_COUNTED:
            raise ValueError(f"expected counts of at most {MOST_COUNTED}, got {max(stood.values())}")
        stood["total"] = real_in("total", given["total"], -math.inf)
        stood["best"] = math.inf if given["best"] is None else real_in("best", given["best"], -math.inf)
        stood["elapsed"] = real_in("elapsed", header["elapsed"], 0)
        if stood["position"] > batches or (stood["position"] > 0) != (stood["tokens"] > 0):
            raise ValueError(f"{stood['position']} of {batches} batches with {stood['tokens']} tokens")
        generator = {**header["generator"], **header["generator"]["state"]}
        for name, most in PLACES.items():
            if not 0 <= generator.get(name, 0) <= most:
                raise ValueError(f"generator: expected {name} in 0..{most}, got {generator[name]}")
        return stood
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a checkpoint, got one whose header is damaged ({error})") from None
