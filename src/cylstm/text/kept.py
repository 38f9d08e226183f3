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
from cylstm.tensor_files import FORMAT, open_tensors
from cylstm.text.vocabulary import Vocabulary
from cylstm.version import __version__

try:
    import fcntl
except ImportError:  # Windows: processes that encode the same text at the same time do not wait for each other
    fcntl = None

__all__ = ["KIND", "about", "ids_of", "places"]

KIND = "corpus"
CHANGES = "{}: expected a file that stays as it is while it is read, got one that changes"
RULES = 1  # how texts become vocabularies and ids: another number where a later version does it in another way
COARSE = 50_000_000  # ns: changes that are closer together may give a file the same times
DATA_TYPES = {"uint8": "U8", "uint16": "U16", "uint32": "U32"}
FULL = (errno.ENOSPC, errno.EDQUOT)
ELSEWHERE = (*FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR,
             errno.EEXIST, errno.ELOOP)  # fmt: skip
BEGIN = b'{"__metadata__": {"cylstm": "{\\"kind\\": \\"corpus\\"'  # behind the eight bytes of the length


def places(path: str, level: str, folder=None) -> list[str]:
    """Where the ids of a text may be: in this folder, or beside it and, where nothing can be written there, in the
    user's folder for what programs keep (XDG_CACHE_HOME, ~/.cache). Nowhere for what has its name from the system, as
    /dev/stdin, or lies in memory, in /dev/shm, where changes through a map move no time."""
    name = f"{os.path.basename(path)}.{level}.ids"
    if folder is not None:
        return [os.path.join(folder, name)]
    beside = os.path.dirname(path)
    above = os.path.join(os.path.realpath(beside or "."), "")
    if above.startswith(("/dev/", "/proc/", "/sys/")):
        return []
    import hashlib  # 8 ms: `import cylstm` has 15

    whole = os.path.realpath(path)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    mark = hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]  # texts of one name from several folders meet there
    short = name if len(os.fsencode(name)) < 200 else f"{level}.ids"
    return [os.path.join(beside, name), os.path.join(cache, "cylstm", f"{mark}.{short}")]


def ids_of(text, folder, tell):
    """(ids, vocabulary) of a `corpus.Text`, from a file that is kept, or will be; None where that can be nowhere.

    tell : is called with a line where something is made that takes time or room.
    Raises ValueError where a file of that name is something else, and what `Text.write` raises.
    """
    candidates, failures = [], []

    def expect_other_place(error):
        if folder is not None or error.errno not in ELSEWHERE:
            raise error
        failures.append(error)

    wanted = places(text.path, text.level, folder)
    for place in wanted:
        try:
            found, why = kept(place, text)
        except OSError as error:
            expect_other_place(error)
            continue
        if found is not None:
            return found
        candidates.append(place)
        if why and not text.skips:
            tell(f"{place}: made anew, since {why}")
    if text.skips:  # the ids of another text: that of what is known
        return None
    for place in candidates:
        try:
            if place != wanted[0]:
                os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
                if any(error.errno in FULL for error in failures) and device_of(place) == device_of(wanted[0]):
                    continue
            found = made(place, text, tell)
        except OSError as error:
            expect_other_place(error)
            continue
        if place != wanted[0] and found is not None:
            tell(f"{wanted[0]}: cannot be used ({failures[0].strerror}); the ids are kept in {place}")
        return found
    for error in failures:
        if error.errno in FULL:  # a nameless file would fill the next disk, or the memory
            raise error
    return None


def device_of(place):
    return os.stat(os.path.dirname(os.path.realpath(place))).st_dev


# --- reading ----------------------------------------------------------------------------------------------------------


def kept(place, text):
    """(ids, vocabulary) of a file that holds those of a text as it is now, otherwise None; and what has changed, None
    where there is no file. Raises ValueError for a file of something else, OSError for one that cannot be read.

    All is read by one descriptor: the name may be another file's a moment later.
    """
    expected = f"{place}: expected the ids of {text.path}, or no file, got"
    try:
        file = open(place, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115
    except FileNotFoundError:
        return None, None
    except IsADirectoryError:
        raise ValueError(f"{expected} a directory") from None
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{expected} a pipe or a device")
        start = file.read(8 + len(BEGIN))
        if not start:
            return None, "it is empty"
        if start[8:] != BEGIN:
            raise ValueError(f"{expected} something else or a damaged file")
        return _judged(file, place, text)


def _without_waiting(name, flags):
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # for a pipe's other end


def _judged(file, place, text):
    status = os.fstat(file.fileno())
    try:
        header, count, begin = parsed(file, status.st_size)
    except (KeyError, RecursionError, TypeError, ValueError):
        return None, "it is damaged"
    try:
        vocabulary = Vocabulary.from_json(header["vocabulary"])
        if header["format"] > FORMAT:
            return None, "it was written by a newer version of cylstm"
        if status.st_size != begin + count * vocabulary.dtype.itemsize:
            return None, "it is damaged"
        why = difference(header, status, text, vocabulary)
        digest = header["digest"]
    except (KeyError, TypeError, ValueError):
        return None, "it was written by another version of cylstm"
    if why is not None:
        return None, why
    return (mapped(file, place, vocabulary, count, begin, digest), vocabulary), None


def parsed(file, size) -> tuple[dict, int, int]:
    """(header, number of ids, where they begin) of an open file of so many bytes. Raises KeyError, RecursionError,
    TypeError or ValueError for a damaged one."""
    file.seek(0)
    begin = 8 + int.from_bytes(file.read(8), "little")
    if begin > size:
        raise ValueError(begin)
    found = json.loads(file.read(begin - 8))
    (count,) = found["ids"]["shape"]
    return json.loads(found["__metadata__"]["cylstm"]), int(count), begin


def difference(header, status, text, vocabulary) -> str | None:
    """What is not as a text wants it; None where everything is. status : of the file with the header."""
    if header["source"] != stamp(text.path):
        return f"{text.path} has changed"
    if header["written"] != status.st_mtime_ns:
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


def mapped(file, place, vocabulary, count, begin, digest) -> np.memmap:
    """The ids of an open file, whose digest is remembered; place : the name that it has, or had."""
    with open(place, "rb", opener=lambda *_: os.dup(file.fileno())) as same:
        ids = np.memmap(same, vocabulary.dtype, "r", begin, (count,))
        remember(ids, digest, len(vocabulary), same)
    return ids


def stamp(path) -> dict:
    """What changes with a file's contents, even where somebody sets its time of modification back."""
    found = os.stat(path)
    return {"size": found.st_size, "modified": found.st_mtime_ns, "changed": found.st_ctime_ns, "inode": found.st_ino}


def settled(path) -> dict:
    """The stamp of a file that has been as it is for long enough to have another after a change. Raises ValueError for
    one that is written to all the time."""
    for _ in range(100):
        found, now = stamp(path), time.time_ns()
        flush(path)
        age = now - found["changed"]
        if not 0 <= age < COARSE and stamp(path) == found:
            return found
        time.sleep(min(max(COARSE - age, 0), COARSE) / 1e9)
    raise ValueError(CHANGES.format(path))


def flush(path) -> None:
    """Bring what was written to a file to its disk. Of a page that a process has in a shared map, only the first change
    after that moves the file's times."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        os.fsync(file.fileno())


def rules(level) -> list:
    """By which ids are made: what a letter is depends on Python's tables."""
    return [RULES, level, unicodedata.unidata_version if level == "word" else None]


# --- writing ----------------------------------------------------------------------------------------------------------


def made(place, text, tell):
    """(ids, vocabulary), after they are written to a file. Nothing is left of it where that is broken off. A link stays
    one: the file that it names is replaced. None where, without locks, another process has replaced it at once."""
    whole = os.path.realpath(place)
    with alone(whole, text.path, tell) as file:
        found, _ = kept(place, text)  # by whoever had the name before
        if found is not None:
            return found
        source = settled(text.path)
        permit(file, text.path)
        if source["size"]:  # an empty one is an error at once
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
            raise ValueError(CHANGES.format(text.path))
        file.seek(0)
        file.write(head(header, vocabulary.dtype, count, room))
        os.fsync(file.fileno())
        if fcntl is None:  # Windows renames no open file
            file.close()
            os.utime(file.name, ns=(header["written"],) * 2)
            os.replace(file.name, whole)
            return kept(place, text)[0]
        os.utime(file.fileno(), ns=(header["written"],) * 2)
        ids = mapped(file, place, vocabulary, count, room, header["digest"])
        try:
            os.replace(file.name, whole)
        except OSError as error:
            tell(f"{place}: cannot be replaced ({error.strerror}); the ids lie in a file without a name until the end")
            ids.filename = None
        return ids, vocabulary


def permit(file, path) -> None:
    """Let nobody read an open file who may not read another. (Windows: a folder's files have its permissions.)"""
    if not hasattr(os, "fchown"):
        return
    status = os.stat(path)
    mode = stat.S_IMODE(status.st_mode) & 0o666
    try:
        os.fchown(file.fileno(), -1, status.st_gid)
    except OSError:  # its group is another's: then those may who are let in by both, the group's and all others' bits
        mode = mode & 0o600 | mode >> 3 & mode & 0o006
    with contextlib.suppress(AttributeError, OSError):  # Linux has a list of more users, and bits that mean others then
        if "system.posix_acl_access" in os.listxattr(path):
            mode &= 0o600
    os.fchmod(file.fileno(), mode | 0o600)


def head(header, dtype, count, room=None) -> bytes:
    """What stands before the ids in a safetensors file, filled up with spaces."""
    tensor = {"dtype": DATA_TYPES[dtype.name], "shape": [count], "data_offsets": [0, count * dtype.itemsize]}
    text = json.dumps({"__metadata__": {"cylstm": json.dumps(header)}, "ids": tensor}).encode()
    room = -(-(8 + len(text)) // 4096) * 4096 if room is None else room
    return (room - 8).to_bytes(8, "little") + text.ljust(room - 8)


def expect_room(place, needed) -> None:
    """OSError where a disk has not so many bytes."""
    free = shutil.disk_usage(os.path.dirname(os.path.realpath(place))).free
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
            if fcntl is not None:  # a lock is kept as long as any copy of the descriptor, and the map has one
                with contextlib.suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)
            file.close()


def _part(place, path, tell):
    import hashlib  # 8 ms: `import cylstm` has 15

    folder, name = os.path.split(place)
    start = os.path.join(folder, f".cylstm.{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}")
    part, removed = f"{start}.part", False
    while fcntl is not None:
        with contextlib.ExitStack() as closing:
            file = closing.enter_context(_opened(part))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"{path}: waits for another process, which writes {place}")
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:  # a file system without locks
                os.unlink(part)
                break
            if same_file(file):  # otherwise it has been renamed, or removed, meanwhile
                if new(file, removed):
                    closing.pop_all()
                    return file
                os.unlink(part)
                removed = True
    return _opened(f"{start}.{os.urandom(8).hex()}.part", os.O_EXCL)


def new(file, removed) -> bool:
    """Whether nothing is in an open file, and nobody else has it. What another process left, or somebody linked to a
    file of his, is not written over: its name is removed. removed : that was done; then the owner is who he must be, as
    some file systems have it."""
    found = os.fstat(file.fileno())
    own = removed or found.st_uid == os.geteuid()
    return own and stat.S_ISREG(found.st_mode) and found.st_size == 0 and found.st_nlink <= 1


def _opened(part, more=0):
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | more
    return open(part, "r+b", buffering=0, opener=lambda name, _: os.open(name, flags, 0o600))


def same_file(file) -> bool:
    """Whether the name of an open file is still its own."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(file.name))
    except FileNotFoundError:
        return False
