"""The ids of a text beside other people's files: what somebody else writes, links, owns, forbids or damages."""

import errno
import mmap
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from commands import TEXT
from test_kept import NAME, encoded, lengthened, needs_proc, reads, spoilt

from cylstm import data
from cylstm.text import corpus, kept
from cylstm.text.vocabulary import Vocabulary

pytestmark = pytest.mark.usefixtures("folder")

# --- who else has a hand in it ----------------------------------------------------------------------------------------


def test_ids_are_those_of_the_header_whatever_takes_the_name(monkeypatch):
    """Another process replaces the file at the worst moments: before it is mapped, and as soon as it has its name."""
    plain, vocabulary = data.encode_file("corpus.txt")
    other = Vocabulary(reversed(vocabulary.tokens))
    os.mkdir("elsewhere")
    data.encode_file("corpus.txt", vocabulary=other, keep=True, folder="elsewhere")
    mapped, replace = kept.mapped, os.replace

    def late(*given):
        shutil.copy2(f"elsewhere/{NAME}", "other")
        replace("other", NAME)
        return mapped(*given)

    def again(*given):
        replace(*given)
        shutil.copy2(f"elsewhere/{NAME}", "other")
        replace("other", NAME)

    for name, module, action in (("mapped", kept, late), ("replace", os, again)):
        for fresh in (True, False):
            if fresh and os.path.exists(NAME):
                os.unlink(NAME)
            elif not fresh:
                encoded()
            with monkeypatch.context() as patch:
                patch.setattr(module, name, action)
                ids, found = encoded()
            assert found == vocabulary
            np.testing.assert_array_equal(ids, plain)


@needs_proc
def test_a_text_that_is_written_to_through_a_map_is_read_again():
    """Only the first change of a page since it was brought to the disk moves the times of a file."""
    if file_system(".") == "tmpfs":
        pytest.skip("a file system in memory never writes a page to a disk")
    with open("corpus.txt", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[0:1] = b"T"
        time.sleep(0.1)
        encoded()
        view[0:7] = b"tac eht"
        ids, vocabulary = encoded()
        assert vocabulary.decode(ids[:7]) == "tac eht"


def file_system(path):
    """The type of the file system where a path is."""
    path, lines = os.path.join(os.path.realpath(path), ""), Path("/proc/mounts").read_text().splitlines()
    found = [(os.path.join(line.split()[1], ""), line.split()[2]) for line in lines]
    return max(one for one in found if path.startswith(one[0]))[1]


def test_a_text_that_is_written_to_all_the_time_is_refused(monkeypatch):
    monkeypatch.setattr(kept, "COARSE", 1_000_000)
    monkeypatch.setattr(kept, "flush", lambda path: lengthened())
    with pytest.raises(ValueError, match=r"corpus.txt: expected a file that stays as it is while it is read"):
        encoded()
    assert os.listdir() == ["corpus.txt"]


@pytest.mark.skipif(not hasattr(os, "fchown"), reason="needs owners of files")
def test_nobody_reads_the_ids_who_may_not_read_the_text(monkeypatch):
    os.chmod("corpus.txt", 0o640)
    group = os.stat("corpus.txt").st_gid
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fchown", lambda number, user, group: asked.append((user, group)))
        encoded()
    assert os.stat(NAME).st_mode & 0o777 == 0o640 and asked == [(-1, group)]

    def refusing(*given):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for text, ids in ((0o640, 0o600), (0o664, 0o604), (0o604, 0o600), (0o644, 0o604)):
        os.unlink(NAME)
        os.chmod("corpus.txt", text)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fchown", refusing)
            encoded()
        assert os.stat(NAME).st_mode & 0o777 == ids
    os.unlink(NAME)
    with monkeypatch.context() as patch:
        patch.setattr(os, "listxattr", lambda path: ["system.posix_acl_access"], raising=False)
        encoded()
    assert os.stat(NAME).st_mode & 0o777 == 0o600


def part_of(name=NAME):
    """The name under which ids are written."""
    with kept.alone(os.path.abspath(name), "corpus.txt", print) as file:
        return file.name


@pytest.mark.skipif(kept.fcntl is None, reason="there no name is known before")
def test_what_stands_at_the_name_of_the_half_made_file_is_not_written_over():
    part = part_of()
    Path("mine").write_text("precious")
    for target in ("mine", "corpus.txt"):
        os.link(target, part)
        ids, _ = encoded(max_size=len(target))
        np.testing.assert_array_equal(ids, data.encode_file("corpus.txt", max_size=len(target))[0])
        assert Path("mine").read_text() == "precious" and Path("corpus.txt").read_text() == TEXT
        assert sorted(os.listdir()) == ["corpus.txt", NAME, "mine"]
    os.unlink(NAME)
    Path("empty").touch()
    os.link("empty", part)
    encoded()
    assert Path("empty").read_bytes() == b""


@pytest.mark.parametrize("locks", ["refused", "none"])
def test_without_locks_each_process_and_thread_has_a_file_of_its_own(monkeypatch, locks):
    if locks == "none":
        monkeypatch.setattr(kept, "fcntl", None)
    elif kept.fcntl is None:
        pytest.skip("needs locks on files")
    else:

        def refused(*given):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(kept.fcntl, "flock", refused)
    opened, original = [], kept._opened
    monkeypatch.setattr(kept, "_opened", lambda *given: opened.append(original(*given)) or opened[-1])
    ids, vocabulary = encoded()
    with kept.alone(os.path.abspath(NAME), "corpus.txt", print) as first:
        first.write(b"another thread's")
        again, _ = encoded(max_size=9)
        np.testing.assert_array_equal(again, data.encode_file("corpus.txt", max_size=9)[0])
    assert vocabulary.decode(ids) == TEXT and sorted(os.listdir()) == ["corpus.txt", NAME]
    own = [file.name for file in opened if os.path.basename(file.name).count(".") == 4]
    assert len(own) == len(set(own)) == 3 and not any(str(os.getpid()) in name.split(".")[-2] for name in own)
    with pytest.raises(FileExistsError):
        original("corpus.txt", os.O_EXCL)


# --- what stands at the name ------------------------------------------------------------------------------------------

DAMAGE = {
    "empty": lambda: os.truncate(NAME, 0),
    "the header cut short": lambda: os.truncate(NAME, 200),
    "the ids cut short": lambda: os.truncate(NAME, os.path.getsize(NAME) - 9),
    "a wrong length of the header": lambda: spoilt(1 - os.path.getsize(NAME)),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_ids_are_made_anew(what):
    encoded()
    DAMAGE[what]()
    said = []
    ids, vocabulary = corpus.read_corpus("corpus.txt", encoded_in=".", tell=said.append)
    assert vocabulary.decode(ids) == TEXT and "made anew, since it is" in said[0]
    assert said[0].endswith("empty" if what == "empty" else "damaged")


def test_a_folder_or_a_pipe_at_the_name_is_an_error_that_names_it():
    os.mkdir(NAME)
    with pytest.raises(ValueError, match=f"{NAME}: expected the ids of corpus.txt, or no file, got a directory"):
        encoded()
    os.rmdir(NAME)
    if hasattr(os, "mkfifo"):
        os.mkfifo(NAME)
        with pytest.raises(ValueError, match=f"{NAME}: expected .* got a pipe or a device"):
            encoded()


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_links_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    os.mkdir("disk")
    os.symlink("disk/ids", NAME)
    for change in (lambda: None, lengthened):  # a link to nothing as yet, and one to older ids
        change()
        ids, vocabulary = encoded()
        assert vocabulary.decode(ids) == Path("corpus.txt").read_text()
        assert os.path.islink(NAME) and os.listdir("disk") == ["ids"] and sorted(os.listdir()) == [
            "corpus.txt", NAME, "disk"]  # fmt: skip
    shutil.rmtree("disk")  # a link into nowhere
    ids, vocabulary = encoded()
    assert vocabulary.decode(ids) == Path("corpus.txt").read_text() and os.path.islink(NAME)
    assert os.path.dirname(ids.filename) == str(tmp_path / "cache" / "cylstm")


def test_ids_that_cannot_be_read_are_left_for_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    encoded()
    original = kept.kept

    def refusing(place, text):
        if place == NAME:
            raise PermissionError(errno.EACCES, "Permission denied", place)
        return original(place, text)

    monkeypatch.setattr(kept, "kept", refusing)
    said = []
    text = corpus.Text("corpus.txt", "char", None, {"max_size": None, "min_count": 1}, "error", None)
    ids, vocabulary = corpus.encoded(text, None, True, said.append)
    assert vocabulary.decode(ids) == TEXT
    assert said[-1] == f"{NAME}: cannot be used (Permission denied); the ids are kept in {ids.filename}"
    with pytest.raises(PermissionError):
        encoded(folder="")

    def refusing_cache(place, text):
        if place != NAME:
            raise PermissionError(errno.EACCES, "Permission denied", place)
        return original(place, text)

    monkeypatch.setattr(kept, "kept", refusing_cache)
    lengthened()
    said.clear()
    ids, vocabulary = corpus.encoded(text, None, True, said.append)
    assert ids.filename == os.path.abspath(NAME) and not any("cannot be used" in line for line in said)


def test_of_a_long_name_the_ids_are_kept_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for length in (225, 245, 251):
        name = "c" * (length - 4) + ".txt"
        shutil.copy("corpus.txt", name)
        for _ in range(2):
            ids, vocabulary = data.encode_file(name, keep=True)
            assert vocabulary.decode(ids) == TEXT and os.path.exists(ids.filename)
        assert os.path.exists(f"{name}.char.ids") == (length < 250)
    with pytest.raises(OSError, match="File name too long"):
        data.encode_file(name, keep=True, folder=".")


def test_of_a_text_on_a_full_disk_the_ids_are_kept_on_another(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    usage = shutil.disk_usage(".")
    cache = str(tmp_path / "cache")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=usage.free * path.startswith(cache)))
    with pytest.raises(OSError, match="bytes are needed, 0 are free"):
        encoded()  # both are on one disk
    monkeypatch.setattr(kept, "device_of", lambda place: place.startswith(cache))
    ids, vocabulary = encoded()
    assert vocabulary.decode(ids) == TEXT and os.path.dirname(ids.filename) == f"{cache}/cylstm"


@pytest.mark.skipif(kept.fcntl is None, reason="Windows renames no open file")
def test_where_the_name_is_refused_the_text_is_not_encoded_again(monkeypatch):
    def refused(*given):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    plain, vocabulary = data.encode_file("corpus.txt")
    monkeypatch.setattr(os, "replace", refused)
    seen, said = reads(monkeypatch), []
    text = corpus.Text("corpus.txt", "char", None, {"max_size": None, "min_count": 1}, "error", None)
    ids, found = corpus.encoded(text, None, True, said.append)
    np.testing.assert_array_equal(ids, plain)
    assert found == vocabulary and len(seen) == 2 and ids.filename is None and os.listdir() == ["corpus.txt"]
    assert said[-1].startswith(f"{NAME}: cannot be replaced (Operation not permitted)")


@needs_proc
def test_of_a_text_that_the_system_names_nothing_is_kept(tmp_path):
    code = (
        "import cylstm; ids, v = cylstm.data.encode_file('/dev/stdin', keep=True); print(v.decode(ids), ids.filename)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with open("corpus.txt") as text:
        done = subprocess.run([sys.executable, "-c", code], stdin=text, capture_output=True, text=True, env=environment)
    assert done.stdout == f"{TEXT} None\n" and not (tmp_path / "cache").exists(), done.stderr
    assert not os.path.exists("/dev/stdin.char.ids")
    assert kept.places("/dev/fd/3", "char") == kept.places("/proc/self/fd/3", "char") == []
    assert kept.places("/dev/shm/corpus.txt", "char") == [] and len(kept.places("corpus.txt", "char")) == 2


def test_where_tokens_are_skipped_nothing_is_told_to_be_made(monkeypatch):
    encoded()
    vocabulary, said = Vocabulary(sorted(set(TEXT) - {"e"})), []
    corpus.read_corpus("corpus.txt", vocabulary=vocabulary, unknown="skip", encoded_in=".", tell=said.append)
    assert said == []


def test_where_numbers_begin_with_their_greatest_byte_nothing_is_kept(monkeypatch):
    plain, _ = data.encode_file("corpus.txt")
    monkeypatch.setattr(sys, "byteorder", "big")
    np.testing.assert_array_equal(encoded()[0], plain)
    assert os.listdir() == ["corpus.txt"]


@pytest.mark.skipif(kept.fcntl is None, reason="needs locks")
def test_who_waits_goes_on_as_soon_as_the_ids_have_their_name(monkeypatch):
    """And not when the map that they lie in is gone: a rank that trains waits for the others in turn."""
    written, waiting = corpus.Text.write, []

    def write(self, file, *rest):
        other = open(file.name, "rb")  # noqa: SIM115
        waiting.append(
            (threading.Thread(target=kept.fcntl.flock, args=(other, kept.fcntl.LOCK_EX), daemon=True), other)
        )
        waiting[0][0].start()
        return written(self, file, *rest)

    monkeypatch.setattr(corpus.Text, "write", write)
    ids, _ = data.encode_file("corpus.txt", keep=True)
    thread, other = waiting[0]
    thread.join(60)
    assert not thread.is_alive() and len(ids)
    other.close()
