"""Files: safetensors with a versioned JSON header, written so that a reader sees the old file or the new, never half.

Nothing is pickled. The header stands in the file's metadata under "cylstm":
{"kind": "model" or "checkpoint", "format": 1, "cylstm": "0.1.0", ...}.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path

import numpy as np

from cylstm.checks import path_name
from cylstm.version import __version__

__all__ = ["Tensors", "expect_file", "kind_of", "open_safetensors", "open_tensors", "write_atomically", "write_tensors"]

FORMAT = 1


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

    header = {"kind": kind, "format": FORMAT, "cylstm": __version__, **header}
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    text = json.dumps(header, default=np.ndarray.tolist)  # some generators hold arrays
    write_atomically(path, save(arrays, metadata={"cylstm": text}))


class Tensors:
    """A file's header, the shapes that it claims (name -> shape), and its tensors, one by one."""

    def __init__(self, path, header, shapes, get):
        self.path, self.header, self.shapes, self.get = path, header, shapes, get

    def read(self, name: str, shape, dtype) -> np.ndarray:
        """One tensor, which must have this shape and dtype: ValueError otherwise."""
        if self.shapes.get(name) != tuple(shape):
            raise ValueError(f"{self.path}: expected a tensor {name} {tuple(shape)}, got {self.shapes.get(name)}")
        array = self.get(name)
        if array.dtype != dtype:
            raise ValueError(f"{self.path}: expected {name} in {np.dtype(dtype)}, got {array.dtype}")
        return array


def expect_file(path: str) -> None:
    """OSError where there is no file that can be read, ValueError for a pipe or a device: other libraries' errors name
    no path, and a pipe has no end."""
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise ValueError(f"{path}: expected a regular file, got a pipe or a device")
    with open(path, "rb"):
        pass


@contextlib.contextmanager
def open_safetensors(path: str, expected: str):
    """Open any safetensors file: the open file and its metadata, a dict. Raises OSError, or ValueError that says what
    was expected for a file that is anything else."""
    from safetensors import SafetensorError, safe_open

    expect_file(path)
    try:
        opened = safe_open(path, framework="numpy")
        metadata = opened.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected {expected}, got a file that is truncated or none at all ({error})"
        ) from None
    with opened as file:
        yield file, metadata


def kind_of(path) -> str | None:
    """What a file says that it is; None for one without our header, which `open_tensors` refuses in words. Raises
    OSError, or ValueError for no safetensors."""
    path = path_name("path", path)
    with open_safetensors(path, "a cylstm model") as (_, metadata):
        try:
            found = json.loads(metadata["cylstm"])["kind"]
        except (KeyError, RecursionError, TypeError, ValueError):
            return None
    return found if isinstance(found, str) else None


@contextlib.contextmanager
def open_tensors(path, kind: str):
    """Open a file written by write_tensors. Raises OSError, or ValueError for a file that is anything else."""
    path = path_name("path", path)
    with open_safetensors(path, a_file_of(kind, "cylstm ")) as (file, metadata):
        header = _checked_header(path, kind, metadata)
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        yield Tensors(path, header, shapes, file.get_tensor)


def a_file_of(kind, whose="") -> str:
    """A kind, as errors have it: "a cylstm model", "cylstm models"."""
    return f"{'' if kind == 'models' else 'a '}{whose}{kind}"


def _checked_header(path, kind, metadata) -> dict:
    try:
        header = json.loads(metadata["cylstm"])
        version = header["format"]
        found = header["kind"]
    except (KeyError, RecursionError, TypeError, ValueError):
        raise ValueError(f"{path}: expected {a_file_of(kind, 'cylstm ')}, got safetensors without its header; "
                         "cylstm.exchange.load reads weights of PyTorch") from None  # fmt: skip
    if type(version) is not int or version < 1:
        raise ValueError(f"{path}: expected a format from 1 to {FORMAT}, got {version!r}")
    if version > FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT} or older, got {version}: written by a newer cylstm "
                         f"({header.get('cylstm')})")  # fmt: skip
    if found != kind:
        raise ValueError(f"{path}: expected {a_file_of(kind, 'cylstm ')}, got {a_file_of(found)}")
    return header
