"""The ids of a text, kept in a file beside it and used again for as long as the text is the same.

The file is safetensors (docs/files.md): one tensor, "ids", and in the header the vocabulary, what it was built by, and
the size, times and inode of the text. It is written under another name, which one process at a time has, and renamed
when it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import time
import unicodedata

import numpy as np

from cylstm.maps import remember
from cylstm.tensor_files import FORMAT, kind_of, open_tensors
from cylstm.text.vocabulary import Vocabulary
from cylstm.version import __version__

try:
    import fcntl
except ImportError:  # Windows: processes that encode the same text at the same time do not wait for each other
    fcntl = None

__all__ = ["KIND", "about", "ids_of", "places"]

KIND = "corpus"
RULES = 1  # how texts become vocabularies and ids: another number where a later version does it in another way
COARSE = 50_000_000  # ns: changes that are closer together may give a file the same times
DATA_TYPES = {"uint8": "U8", "uint16": "U16", "uint32": "U32"}
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def places(path: str, level: str, folder=None) -> list[str]:
    """Where the ids of a text may be: in this folder, or beside it and, where nothing can be written there, in the
    user's folder for what programs keep (XDG_CACHE_HOME, ~/.cache)."""
    name = f"{os.path.basename(path)}.{level}.ids"
    if folder is not None:
        return [os.path.join(folder, name)]
    import hashlib  # 8 ms: `import cylstm` has 15

    whole = os.path.realpath(path)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    mark = hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]  # texts of one name from several folders meet there
    return [os.path.join(os.path.dirname(path), name), os.path.join(cache, "cylstm", f"{mark}.{name}")]


def ids_of(text, folder, tell):
    """(ids, vocabulary) of a `corpus.Text`, from a file that is kept, or will be; None where that can be nowhere.

    tell : is called with a line where something is made that takes time or room.
    Raises ValueError where a file of that name is something else, and what `Text.write` raises.
    """
    candidates = places(text.path, text.level, folder)
    for place in candidates:
        found, why = kept(place, text)
        if found is not None:
            return found
        if why:
            tell(f"{place}: made anew, since {why}")
    if text.skips:  # the ids of another text: that of what is known
        return None
    for number, place in enumerate(candidates):
        try:
            if number:
                os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
            found = made(place, text, tell)
        except OSError as error:
            if folder is not None or error.errno not in UNWRITABLE:
                raise
            continue
        if number:
            tell(f"{candidates[0]}: cannot be written; the ids are kept in {place}")
        return found
    return None


# --- reading ----------------------------------------------------------------------------------------------------------


def kept(place, text):
    """(ids, vocabulary) of a file that holds those of a text as it is now, otherwise None; and what has changed, None
    where there is no file. Raises ValueError for a file of something else."""
    if not os.path.lexists(place):
        return None, None
    try:
        kind = kind_of(place)
    except ValueError:
        kind = None
    if kind != KIND:
        raise ValueError(f"{place}: expected the ids of {text.path}, or no file, got something else or a damaged file")
    try:
        with open_tensors(place, KIND) as file:
            header, shapes = file.header, file.shapes
        vocabulary = Vocabulary.from_json(header["vocabulary"])
        (count,) = shapes["ids"]
        why = difference(place, header, text, vocabulary)
        if why is None:
            return (mapped(place, vocabulary, count, header["digest"]), vocabulary), None
    except (KeyError, TypeError, ValueError):
        why = "it was written by another version of cylstm"
    return None, why


def difference(place, header, text, vocabulary) -> str | None:
    """What is not as a text wants it; None where everything is."""
    if header["source"] != stamp(text.path):
        return f"{text.path} has changed"
    if header["written"] != os.stat(place).st_mtime_ns:
        return "something else has written to it"
    if header["rules"] != rules(text.level):
        return "it was written by other rules"
    if text.vocabulary is not None:
        return None if vocabulary == text.vocabulary else "it is of another vocabulary"
    return None if header["options"] == text.options else "its vocabulary is of other options"


def about(place) -> dict:
    """What a file says of itself, in lines by their names. Raises OSError or ValueError."""
    try:
        with open_tensors(place, KIND) as file:
            header, (count,) = file.header, file.shapes["ids"]
        vocabulary, source = Vocabulary.from_json(header["vocabulary"]), header["source"]
        built = ", ".join(f"{name}={value}" for name, value in (header["options"] or {}).items())
        return {"kind": "the ids of a text", "ids": f"{count:,}, {vocabulary.dtype}", "vocabulary": vocabulary,
                "built by": built or "a vocabulary that was there", "text": f"{source['size']:,} bytes",
                "digest": header["digest"], "cylstm": header["cylstm"]}  # fmt: skip
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{place}: expected the ids of a text, got a damaged file ({error})") from None


def mapped(place, vocabulary, count, digest) -> np.memmap:
    """The ids of a file, whose digest is remembered."""
    with open(place, "rb") as file:
        begin = 8 + int.from_bytes(file.read(8), "little")
        if os.fstat(file.fileno()).st_size != begin + count * vocabulary.dtype.itemsize:
            raise ValueError(f"{place}: expected {count} ids of {vocabulary.dtype}, got a file of another length")
        ids = np.memmap(file, vocabulary.dtype, "r", begin, (count,))
        remember(ids, digest, len(vocabulary), file)
    return ids


def stamp(path) -> dict:
    """What changes with a file's contents, even where somebody sets its time of modification back."""
    found = os.stat(path)
    return {"size": found.st_size, "modified": found.st_mtime_ns, "changed": found.st_ctime_ns, "inode": found.st_ino}


def settled(path) -> dict:
    """The stamp of a file that has been as it is for long enough to have another after a change."""
    while 0 <= (age := time.time_ns() - stamp(path)["changed"]) < COARSE:
        time.sleep((COARSE - age) / 1e9)
    return stamp(path)


def rules(level) -> list:
    """By which ids are made: what a letter is depends on Python's tables."""
    return [RULES, level, unicodedata.unidata_version if level == "word" else None]


# --- writing ----------------------------------------------------------------------------------------------------------


def made(place, text, tell):
    """(ids, vocabulary), after they are written to a file. Nothing is left of it where that is broken off."""
    with alone(place, text.path, tell) as file:
        found, _ = kept(place, text)  # by whoever had the name before
        if found is not None:
            return found
        source = settled(text.path)
        os.chmod(file.name, stat.S_IMODE(os.stat(text.path).st_mode) & 0o666 | stat.S_IRUSR | stat.S_IWUSR)
        tell(f"{text.path}: {source['size']:,} bytes become ids, which are kept in {place}")
        vocabulary, count = text.learned()
        header = {"kind": KIND, "format": FORMAT, "cylstm": __version__, "vocabulary": vocabulary.to_json(),
                  "options": text.options, "rules": rules(text.level), "source": source,
                  "written": time.time_ns() // 2_000_000_000 * 2_000_000_000,  # a time that every file system can keep
                  "digest": "0" * 32}  # fmt: skip
        most = source["size"] + 1  # ids: none of them has less than a byte, but what ends a list of words has none
        room = len(head(header, vocabulary.dtype, most))
        expect_room(place, room + (count or 0) * vocabulary.dtype.itemsize)
        file.seek(room)
        count, header["digest"] = text.write(file, vocabulary, place, (count or most) * vocabulary.dtype.itemsize)
        if stamp(text.path) != source:
            raise ValueError(f"{text.path}: expected a file that stays as it is while it is read, got one that changes")
        file.seek(0)
        file.write(head(header, vocabulary.dtype, count, room))
        os.fsync(file.fileno())
        if fcntl is None:
            file.close()
        os.utime(file.name, ns=(header["written"],) * 2)
        os.replace(file.name, place)
        return mapped(place, vocabulary, count, header["digest"]), vocabulary


def head(header, dtype, count, room=None) -> bytes:
    """What stands before the ids in a safetensors file, filled up with spaces."""
    tensor = {"dtype": DATA_TYPES[dtype.name], "shape": [count], "data_offsets": [0, count * dtype.itemsize]}
    text = json.dumps({"__metadata__": {"cylstm": json.dumps(header)}, "ids": tensor}).encode()
    room = -(-(8 + len(text)) // 4096) * 4096 if room is None else room
    return (room - 8).to_bytes(8, "little") + text.ljust(room - 8)


def expect_room(place, needed) -> None:
    """OSError where a disk has not so many bytes."""
    free = shutil.disk_usage(os.path.dirname(place) or ".").free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({needed:,} bytes are needed, {free:,} are free)",
                      place)  # fmt: skip


@contextlib.contextmanager
def alone(place, path, tell):
    """A new, empty file that will have this name: no other process has it meanwhile. Who comes second waits. In the end
    it is gone, unless it was renamed."""
    file = None
    try:
        file = _part(place, path, tell)
        yield file
    finally:
        if file is not None:
            if fcntl is None:  # Windows removes no open file; its name is ours alone
                file.close()
            with contextlib.suppress(OSError):
                if file.closed or same_file(file):  # and not what another process has made of that name since
                    os.unlink(file.name)
            file.close()


def _part(place, path, tell):
    folder, name = os.path.split(place)
    part = os.path.join(folder, f".cylstm.{name}.part")
    while fcntl is not None:
        file = _opened(part)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"{path}: waits for another process, which writes {place}")
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except BaseException:
                file.close()
                raise
        except OSError:  # a file system without locks
            file.close()
            os.unlink(part)
            break
        if same_file(file):
            file.truncate(0)
            return file
        file.close()  # it has been renamed, or removed, meanwhile
    return _opened(os.path.join(folder, f".cylstm.{name}.{os.getpid()}.part"))


def _opened(part):
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return open(part, "r+b", buffering=0, opener=lambda name, _: os.open(name, flags, 0o666))


def same_file(file) -> bool:
    """Whether the name of an open file is still its own."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except FileNotFoundError:
        return False
