"""The ids of a text, kept in a file: used again where the text is the same, never stale ones, nothing half made."""

import errno
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import TEXT, TINY, press_ctrl_c, printed, start

import cylstm
from cylstm import data
from cylstm.cli import main
from cylstm.text import corpus, kept
from cylstm.text.vocabulary import LEVELS, Vocabulary

pytestmark = pytest.mark.usefixtures("folder")
needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
NAME = "corpus.txt.char.ids"


def encoded(**options):
    return data.encode_file("corpus.txt", keep=True, **options)


def reads(monkeypatch):
    """The list of texts that are read from now on."""
    found, original = [], corpus.read_text
    monkeypatch.setattr(corpus, "read_text", lambda path, *rest: found.append(path) or original(path, *rest))
    return found


# --- ids that are kept ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_ids_are_kept_and_the_text_is_not_read_again(monkeypatch, level):
    plain, vocabulary = data.encode_file("corpus.txt", level, max_size=None if level == "byte" else 30)
    options = {"level": level, "max_size": None if level == "byte" else 30}
    first, learnt = encoded(**options)
    assert sorted(os.listdir()) == ["corpus.txt", f"corpus.txt.{level}.ids"]
    seen = reads(monkeypatch)
    monkeypatch.setattr(corpus, "_read_bytes", lambda path: pytest.fail("read"))
    again, same = encoded(**options)
    with_vocabulary, _ = encoded(vocabulary=vocabulary)
    assert seen == [] and learnt == same == vocabulary
    for ids in (first, again, with_vocabulary):
        assert isinstance(ids, np.memmap) and not ids.flags.writeable and ids.dtype == plain.dtype
        assert os.path.basename(ids.filename) == f"corpus.txt.{level}.ids"
        np.testing.assert_array_equal(ids, plain)
    assert corpus.fingerprint(again) == corpus.fingerprint(plain) == corpus.fingerprint(np.array(plain))
    from safetensors.numpy import load_file

    np.testing.assert_array_equal(load_file(f"corpus.txt.{level}.ids")["ids"], plain)


def test_ids_of_more_tokens_take_more_bytes():
    letters = "".join(chr(0x4E00 + n) for n in range(300))
    Path("corpus.txt").write_text(letters * 3, encoding="utf-8")
    ids, vocabulary = encoded()
    assert ids.dtype == np.uint16 and len(vocabulary) == 300
    assert vocabulary.decode(encoded()[0]) == letters * 3


def rewritten(content):
    """The text with another content of the same length, its time of modification set back."""
    before = os.stat("corpus.txt")
    with open("corpus.txt", "r+b") as file:
        file.write(content)
    os.utime("corpus.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat("corpus.txt").st_mtime_ns == before.st_mtime_ns


def replaced():
    """Another file of the same times and size takes the name."""
    shutil.copy2("corpus.txt", "other.txt")
    os.replace("other.txt", "corpus.txt")


def spoilt(place):
    with open(NAME, "r+b") as file:
        file.seek(place, os.SEEK_END)
        file.write(b"\xfe")


def lengthened():
    with open("corpus.txt", "a") as file:
        file.write("the cat")


CHANGES = {
    "another content of the same size and time": (lambda: rewritten(b"tHE cAT"), "has changed"),
    "another file": (replaced, "has changed"),
    "a longer text": (lengthened, "has changed"),
    "ids that were written to": (lambda: spoilt(-1), "something else has written to it"),
    "other rules": (lambda: kept.__dict__.update(RULES=kept.RULES + 1), "it was written by other rules"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_has_changed_is_made_anew(monkeypatch, what):
    monkeypatch.setattr(kept, "RULES", kept.RULES)
    change, why = CHANGES[what]
    encoded()
    change()
    said = []
    ids, vocabulary = corpus.read_corpus("corpus.txt", encoded_in=".", tell=said.append)
    assert [why in said[0], len(said)] == [True, 2]
    assert vocabulary.decode(ids) == Path("corpus.txt").read_text()
    said.clear()
    corpus.read_corpus("corpus.txt", encoded_in=".", tell=said.append)
    assert said == []


def test_another_vocabulary_and_other_options_are_not_taken_for_these(monkeypatch):
    first, vocabulary = encoded()
    seen = reads(monkeypatch)
    for options in ({"max_size": 12}, {"min_count": 9}, {"vocabulary": Vocabulary(reversed(vocabulary.tokens))}):
        ids, found = encoded(**options)
        wanted, same = data.encode_file("corpus.txt", **options)
        assert found == same and (len(seen) >= 2)
        np.testing.assert_array_equal(ids, wanted)
        seen.clear()
        encoded(**options)
        assert seen == []
    assert vocabulary.decode(first) == TEXT, "a map of ids that are replaced stays what it was"


def test_a_file_of_something_else_is_left_alone():
    for content in (b"my notes", b"my notes, and more of them than a header has at its beginning, so that all is seen"):
        Path(NAME).write_bytes(content)
        with pytest.raises(ValueError, match=f"{NAME}: expected the ids of corpus.txt, or no file, got something else"):
            encoded()
        assert Path(NAME).read_bytes() == content
    cylstm.Model(3, 4, 2, seed=0).save(NAME)
    with pytest.raises(ValueError, match="got something else"):
        encoded()


def test_a_text_that_changes_while_it_is_read_is_refused(monkeypatch):
    original = corpus.read_text

    def changing(path, *rest):
        yield from original(path, *rest)
        with open(path, "a") as file:
            file.write("the cat")

    monkeypatch.setattr(corpus, "read_text", changing)
    with pytest.raises(ValueError, match=r"corpus.txt: expected a file that stays as it is while it is read"):
        encoded()
    assert os.listdir() == ["corpus.txt"]


def test_ids_with_skipped_tokens_are_not_kept():
    vocabulary = Vocabulary(sorted(set(TEXT) - {"e"}))
    ids, _ = encoded(vocabulary=vocabulary, unknown="skip")
    assert vocabulary.decode(ids) == TEXT.replace("e", "") and os.listdir() == ["corpus.txt"]


def test_where_the_folder_cannot_be_written_ids_are_kept_in_the_cache(monkeypatch, tmp_path):
    """Whoever tests as root can write anywhere, so the system's answer is made up."""
    cache, original = tmp_path / "cache", kept._opened

    def refusing(part, *rest):
        if not part.startswith(str(cache)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), part)
        return original(part, *rest)

    monkeypatch.setattr(kept, "_opened", refusing)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    said = []
    text = corpus.Text("corpus.txt", "char", None, {}, "error", None)
    ids, vocabulary = corpus.encoded(text, None, True, said.append)
    assert vocabulary.decode(ids) == TEXT and os.listdir(cache / "cylstm") == [os.path.basename(ids.filename)]
    assert said[-1] == f"{NAME}: cannot be used (Read-only file system); the ids are kept in {ids.filename}"
    seen = reads(monkeypatch)
    corpus.encoded(text, None, True)
    assert seen == []
    with pytest.raises(OSError, match="Read-only"):  # a folder that was asked for
        encoded(folder=".")
    monkeypatch.setattr(kept, "_opened", lambda *_: refusing("nowhere"))
    os.unlink(ids.filename)
    ids, vocabulary = encoded()  # in the system's folder for temporary files
    assert vocabulary.decode(ids) == TEXT and os.listdir(cache / "cylstm") == []


def test_a_full_disk_leaves_nothing_and_says_what_is_needed(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    usage = shutil.disk_usage(".")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError) as caught:
        encoded()
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == NAME
    assert f"{4096 + len(TEXT):,} bytes are needed, 1,000 are free" in caught.value.strerror
    assert os.listdir() == ["corpus.txt"]


@needs_proc
def test_a_disk_that_becomes_full_leaves_nothing():
    """A limit on the size of files is met as a full disk is, in the middle of writing."""
    code = ("import resource, signal, sys; from cylstm.cli import main; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)); sys.exit(main(sys.argv[1:]))")  # fmt: skip
    for where in (["--encoded", "."], ["--encoded", "none"]):
        done = subprocess.run([sys.executable, "-c", code, "train", "corpus.txt", *TINY, *where], capture_output=True)
        assert done.returncode == 2
        assert b"File too large (up to" in done.stderr and b"bytes are needed" in done.stderr, done.stderr
        assert os.listdir() == ["corpus.txt"]


@pytest.mark.parametrize("by", [KeyboardInterrupt, MemoryError])
def test_what_is_broken_off_leaves_nothing(monkeypatch, by):
    def broken(self, blocks, **options):
        yield np.zeros(10, np.uint8)
        raise by

    monkeypatch.setattr(Vocabulary, "encode_stream", broken)
    with pytest.raises(by):
        encoded()
    assert os.listdir() == ["corpus.txt"]


# --- several processes ------------------------------------------------------------------------------------------------


def slowly(path, results):
    """A process that encodes a text, with a pause in the middle."""
    original, count = corpus.read_text, []

    def slow(path, *rest):
        count.append(path)
        for block in original(path, *rest):
            time.sleep(0.2)
            yield block

    corpus.read_text = slow
    ids, _ = data.encode_file(path, keep=True)
    results.put((len(count), corpus.fingerprint(np.array(ids))))


@pytest.mark.skipif(kept.fcntl is None, reason="needs locks on files")
def test_of_processes_that_want_the_same_ids_one_makes_them():
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=slowly, args=("corpus.txt", results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(count for count, _ in found) == [0, 0, 2], "each text is read twice, for its vocabulary and its ids"
    assert len({digest for _, digest in found}) == 1
    assert sorted(os.listdir()) == ["corpus.txt", NAME]


@pytest.mark.skipif(kept.fcntl is None, reason="needs locks on files")
def test_a_process_that_is_killed_is_no_obstacle():
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=slowly, args=("corpus.txt", results))
    process.start()
    while not any(name.endswith(".part") for name in os.listdir()):
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    ids, vocabulary = encoded()
    assert vocabulary.decode(ids) == TEXT and sorted(os.listdir()) == ["corpus.txt", NAME]


# --- the command line -------------------------------------------------------------------------------------------------


def test_train_keeps_the_ids_of_large_texts_and_of_others_where_it_is_told_to(monkeypatch, capsys):
    run = ["train", "corpus.txt", *TINY, "--quiet", "--sample", "0"]
    weights = []
    cases = ([], []), (["--encoded", "elsewhere"], ["elsewhere"]), (["--encoded", "none"], []), ([], [NAME])
    for n, (more, files) in enumerate(cases):
        os.makedirs("elsewhere", exist_ok=True)
        if n == 2:
            monkeypatch.setattr(corpus, "LARGE", len(TEXT))
        assert main([*run, *more, "--out", f"{n}.safetensors"]) == 0
        err = capsys.readouterr().err
        assert (err != "") == bool(files) and (not files or "become ids, which are kept in " in err)
        assert os.path.exists(NAME) == (n == 3) and os.path.exists(f"elsewhere/{NAME}") == (n > 0)
        weights.append(Path(f"{n}.safetensors").read_bytes())
    assert len(set(weights)) == 1, "where the ids lie changes nothing"
    assert "the ids of a text" in printed(capsys, "info", NAME)
    seen = reads(monkeypatch)
    assert main(["evaluate", "0.safetensors", "corpus.txt"]) == 0 and seen == []
    capsys.readouterr()
    assert main([*run, "--encoded", "absent"]) == 2
    assert "--encoded: expected an existing folder that can be written to, got 'absent'" in capsys.readouterr().err


def test_a_run_goes_on_to_the_same_bits_where_the_ids_were_deleted(capsys):
    run = ["train", "corpus.txt", *TINY, "--quiet", "--sample", "0"]
    assert main([*run, "--epochs", "4", "--out", "whole.safetensors"]) == 0
    assert main([*run, "--checkpoint", "run.ckpt", "--encoded", "."]) == 0
    os.unlink(NAME)
    assert main(["train", "--resume", "run.ckpt", "--epochs", "4", "--out", "resumed.safetensors"]) == 0
    assert os.path.exists(NAME), "the option is one of those that a checkpoint keeps"
    for more in (["--encoded", "none"], []):
        os.unlink("resumed.safetensors")
        main(["train", "--resume", "run.ckpt", "--epochs", "3", "--out", "resumed.safetensors", *more])
        assert main(["train", "--resume", "run.ckpt", "--epochs", "4", "--out", "resumed.safetensors"]) == 0
    assert Path("whole.safetensors").read_bytes() == Path("resumed.safetensors").read_bytes()
    with open("corpus.txt", "r+") as file:
        file.write("tHE")
    assert main(["train", "--resume", "run.ckpt", "--epochs", "5", "--out", "more.safetensors"]) == 2
    assert "corpus.txt" in capsys.readouterr().err


def test_ctrl_c_while_ids_are_made_leaves_nothing():
    Path("corpus.txt").write_text(TEXT * 20_000)
    with start("train", "corpus.txt", *TINY, "--quiet", "--encoded", ".") as process:
        while not any(name.endswith(".part") for name in os.listdir()):
            assert process.poll() is None
            time.sleep(0.01)
        press_ctrl_c(process)
        process.communicate(timeout=60)
    assert process.returncode == 130 and os.listdir() == ["corpus.txt"]
