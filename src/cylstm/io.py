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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cylstm.checks import describe, positive_int, real_in

__all__ = ["Checkpoint", "check_same_run", "open_tensors", "write_atomically", "write_tensors"]

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
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ValueError(f"checkpoint: expected a path in an existing folder, got {path}")
        if self.updates is not None:
            positive_int("checkpoint.updates", self.updates)
        if self.seconds is not None:
            real_in("checkpoint.seconds", self.seconds, 0)


def write_atomically(path, content: bytes) -> None:
    """Write a file beside `path`, make sure it is on the disk, then let it take the name. Raises OSError.

    A symbolic link stays one and its target is replaced; what is no regular file (/dev/null, a pipe) is written into.
    """
    path = Path(os.path.realpath(path))
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
    import tempfile  # 15 ms: `import cylstm` has 15

    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's are for the owner alone
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
    """An open file: its header, the shapes and dtypes it claims, and its tensors one by one."""

    def __init__(self, path, header, file):
        self.path, self.header, self._file = path, header, file

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, without reading any tensor."""
        return {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}  # noqa: SIM118

    def read(self, name: str, shape, dtype) -> np.ndarray:
        """One tensor, which must have this shape and dtype: ValueError otherwise."""
        shapes = self.shapes()
        if name not in shapes or shapes[name] != tuple(shape):
            raise ValueError(f"{self.path}: expected a tensor {name} {tuple(shape)}, got {shapes.get(name)}")
        array = self._file.get_tensor(name)
        if array.dtype != dtype:
            raise ValueError(f"{self.path}: expected {name} in {np.dtype(dtype)}, got {array.dtype}")
        return array


@contextlib.contextmanager
def open_tensors(path, kind: str):
    """Open a file written by write_tensors. Raises OSError, or ValueError for a file that is anything else."""
    from safetensors import SafetensorError, safe_open

    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise ValueError(f"{path}: expected a regular file, got a pipe or a device")
    with open(path, "rb"):
        pass  # safetensors' own errors for a missing or unreadable file name no path
    try:
        opened = safe_open(os.fspath(path), framework="numpy")
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
        pairs = [(header["config"], config, "model"), (header["options"], options, "run")]
        header["numbers"], header["history"], header["updates"], header["generator"], header["elapsed"]
        for saved, present, what in pairs:
            for name, value in present.items():
                if saved[name] != value:
                    raise ValueError(
                        f"resume: expected the same {what} as in {path}, with {name}={saved[name]}, got {value}"
                    )
    except (KeyError, TypeError):
        raise ValueError(f"{path}: expected a checkpoint, got one whose header is damaged") from None
