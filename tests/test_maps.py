"""Arrays larger than memory: the same numbers as from memory, read in pieces, and a bound on what is resident."""

import itertools
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import TINY, press_ctrl_c

import cylstm
from cylstm import data, maps
from cylstm.training import StopTraining

needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")


@pytest.fixture
def small(monkeypatch):
    """Whatever is large is so here."""
    monkeypatch.setattr(maps, "KEPT", 0)
    monkeypatch.setattr(maps, "AT_ONCE", 50)


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """A function that gives an array as a memory map of a file."""
    monkeypatch.chdir(tmp_path)
    names = (f"{n}.npy" for n in itertools.count())

    def store(array, mode="r"):
        name = next(names)
        np.save(name, array)
        return np.load(name, mmap_mode=mode)

    return store


@pytest.mark.parametrize("shape", [(0,), (7,), (130,), (0, 4), (9, 4), (3, 130), (4, 17, 5), (2, 3, 70), (60, 1, 1)])
def test_pieces_are_all_of_an_array_in_its_order(small, on_disk, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    for given in [array] + [on_disk(array)] * bool(array.size):
        pieces = [given[piece] for piece in maps.in_pieces(given)]
        assert np.array_equal(np.concatenate([piece.ravel() for piece in pieces] + [array[:0].ravel()]), array.ravel())
        assert all(0 < piece.size <= max(50, array[:1, :1].size if array.ndim > 1 else 1) for piece in pieces)


ROWS = [slice(None), slice(2, 5), np.array([4, 0, 0, 3]), np.array([], int)]
VIEWS = {
    "all": lambda x: x,
    "steps": lambda x: x[:, 2:-1],
    "rows": lambda x: x[3:],
    "every second row": lambda x: x[::2],
    "columns": lambda x: x[..., 1:],
    "backwards": lambda x: x[::-1],
    "other axes": lambda x: x.swapaxes(0, 1),
    "one column": lambda x: x[..., 0],
    "one step": lambda x: x[:, 3],
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_rows_are_those_of_the_array(small, on_disk, view, mode):
    array = np.random.default_rng(1).normal(size=(12, 11, 4))
    given = on_disk(array, mode)
    if mode != "r":
        array[5, 3, 1] = given[5, 3, 1] = 7.5  # a change that only the process knows of, or the file as well
    array, given = VIEWS[view](array), VIEWS[view](given)
    for one in (given, np.asarray(given)):
        reader = maps.Rows([one])
        assert len(reader.maps) == (mode != "c")
        for rows in ROWS:
            np.testing.assert_array_equal(reader.take(one, rows), array[rows])
            np.testing.assert_array_equal(reader.take(one, rows, slice(1, 4)), array[rows, 1:4])
        np.testing.assert_array_equal(reader.steps(one[1], np.array([0, 2, 3])), array[1][[0, 2, 3]])


@needs_proc
def test_of_a_file_that_is_replaced_or_removed_the_map_is_read(small, on_disk):
    array = np.arange(60.0).reshape(10, 6)
    first, second = on_disk(array), on_disk(-array)
    reader = maps.Rows([first])
    assert len(reader.sources) == 1, "else the next line shows nothing"
    os.replace("1.npy", "0.npy")
    for one in (reader, maps.Rows([first])):
        np.testing.assert_array_equal(one.take(first, slice(2, 4)), array[2:4])
    os.unlink("0.npy")
    assert not maps.Rows([first]).sources
    np.testing.assert_array_equal(maps.Rows([second]).take(second, slice(2, 4)), -array[2:4])


@needs_proc
@pytest.mark.parametrize("order", ["C", "F"])
def test_of_a_row_that_lies_all_over_its_file_the_map_is_read(small, on_disk, monkeypatch, order):
    """Otherwise each row of a batch reads nearly all of it."""
    array = np.asarray(np.random.default_rng(1).normal(size=(200, 5, 4)), order=order)
    given, read, original = on_disk(array), [], maps.read_into
    monkeypatch.setattr(maps, "read_into", lambda row, *rest: read.append(row.nbytes) or original(row, *rest))
    reader = maps.Rows([given])
    np.testing.assert_array_equal(reader.take(given, np.arange(0, 200, 3)), array[::3])
    np.testing.assert_array_equal(reader.take(given, np.arange(0, 200, 3), slice(1, 4)), array[::3, 1:4])
    assert sum(read) == (0 if order == "F" else 67 * (20 + 12) * 8)


@needs_proc
def test_a_file_that_is_cut_short_is_an_error(small, on_disk):
    given = on_disk(np.zeros((100, 100)))
    reader = maps.Rows([given])
    os.truncate("0.npy", 40_000)
    with pytest.raises(OSError, match=r"0\.npy: expected the file as it was when it was mapped, got one that is cut"):
        reader.take(given, slice(90, 91))


def weights(x, y, **options):
    model = cylstm.Model(3, 5, 2, loss="mse", dropout=0.2, num_layers=2, seed=1)
    history = model.fit(x, y, epochs=2, batch_size=4, progress=False, **options)
    lengths = options.get("lengths")
    found = model.evaluate(x, y, lengths=lengths, mask=options.get("mask"), batch_size=3)
    return model.parameters.raw().tobytes(), history.train_loss, found["loss"], model.trained.options["data"]


@pytest.mark.parametrize("case", ["plain", "shuffled", "lengths", "mask", "weights", "streams", "validation"])
def test_training_on_maps_has_the_bits_of_training_on_arrays(small, on_disk, rng, case):
    x, y = rng.normal(size=(11, 9, 3)).astype("float32"), rng.normal(size=(11, 9, 2))
    options = {
        "plain": {"shuffle": False},
        "shuffled": {},
        "lengths": {"lengths": rng.integers(1, 10, 11)},
        "mask": {"mask": rng.random((11, 9)) < 0.7},
        "weights": {"sample_weight": rng.random((11, 9))},
        "streams": {"tbptt": 4, "batch_size": None},
        "validation": {"validation": (on_disk(x[:5]), on_disk(y[:5]))},
    }[case]
    options.pop("batch_size", None)
    assert weights(on_disk(x), on_disk(y), **options) == weights(x, y, **options)


def test_lists_of_maps_have_the_bits_of_lists_of_arrays(small, on_disk, rng):
    x = [rng.normal(size=(n, 3)) for n in (4, 9, 2, 7, 7, 1, 5)]
    y = [row[:, :2] * 2 for row in x]
    whole, ends = on_disk(np.concatenate(x)), np.cumsum([len(row) for row in x])[:-1]
    wanted = weights(x, y)
    assert weights([on_disk(row) for row in x], [on_disk(row) for row in y]) == wanted
    assert weights(np.split(whole, ends), y) == wanted
    mask = [rng.random(len(row)) < 0.7 for row in x[:-2]] + [np.array([True]), np.ones(5, bool)]
    assert weights(np.split(whole, ends), y, mask=mask) == weights(x, y, mask=mask)


def test_a_wrong_number_is_named_wherever_it_is(small, on_disk, rng):
    x, y = rng.normal(size=(40, 30, 3)), rng.normal(size=(40, 30, 2))
    model = cylstm.Model(3, 4, 2, loss="mse", seed=0)
    for array, name in ((x, "x"), (y, "y")):
        array[33, 21, 1] = np.nan
        with pytest.raises(ValueError, match=rf"^{name}\[33, 21, 1\]: expected a finite number, got nan"):
            model.fit(on_disk(x), on_disk(y), progress=False)
        array[33, 21, 1] = 0
    ids = rng.integers(0, 9, (3, 200)).astype("uint8")
    ids[1, 170] = 12
    with pytest.raises(ValueError, match=r"x\[1, 170\]: expected ids in 0..8, got 12"):
        cylstm.Model(9, 4, 9, seed=0).fit(on_disk(ids), on_disk(ids), progress=False)
    with pytest.raises(ValueError, match=r"sample_weight\[33, 21\]: expected a number >= 0, got -1"):
        w = np.ones((40, 30))
        w[33, 21] = -1
        model.fit(x, y, sample_weight=on_disk(w), progress=False)


# --- files of ids -----------------------------------------------------------------------------------------------------


@pytest.fixture
def text(tmp_path, monkeypatch, rng):
    """A text, and its ids as a map."""
    monkeypatch.chdir(tmp_path)
    with open("text.txt", "w") as file:
        file.write("".join(rng.choice(list("abcdefgh"), 5000)))
    ids, _ = data.encode_file("text.txt", keep=True)
    return ids


def test_the_hash_of_kept_ids_is_that_of_their_place(small, text, monkeypatch):
    monkeypatch.setattr(maps, "HASHED", 0)

    def hashes(ids):
        model = cylstm.Model(8, 4, 8, seed=0)
        model.fit(*data.streams(ids, 3), tbptt=100, epochs=1, progress=False)
        return model.trained.options["data"], model.parameters.raw().tobytes()

    digest, bits = hashes(text[:4000])
    again, _ = data.encode_file("text.txt", keep=True)
    for same in (again, data.encode_file("text.txt")[0]):
        assert hashes(same[:4000]) == (digest, bits)
    assert len({hashes(ids)[0] for ids in (text[:4000], text[:4003], text[1:4001], text[1000:])}) == 4
    original = maps.in_pieces

    def seldom(array):
        assert array.nbytes < 1000, "all of it is looked at"
        return original(array)

    monkeypatch.setattr("cylstm.training.dataset.in_pieces", seldom)
    monkeypatch.setattr("cylstm.training.targets.in_pieces", seldom)
    assert hashes(text[:4000]) == (digest, bits)
    with pytest.raises(AssertionError, match="all of it"):
        hashes(np.array(text[:4000]))


def test_a_run_on_small_data_goes_on_in_memory_or_on_a_map(text, tmp_path):
    for number, (first, second) in enumerate([(text, np.array(text)), (np.array(text), text)]):
        path = tmp_path / f"{number}.ckpt"
        cylstm.Model(8, 4, 8, seed=0).fit(*data.streams(first, 3), tbptt=500, epochs=1, progress=False, checkpoint=path)
        model = cylstm.Model(8, 4, 8, seed=0)
        history = model.fit(*data.streams(second, 3), tbptt=500, epochs=2, progress=False, resume=path)
        assert len(history.train_loss) == 2


@pytest.mark.parametrize("embedding", [None, 3])
def test_damaged_ids_are_refused_when_they_come(text, embedding):
    """Their file has the right times, as after a fault of the disk."""
    before = os.stat(text.filename)
    with open(text.filename, "r+b") as file:
        file.seek(-2000, os.SEEK_END)
        file.write(b"\xfe")
    os.utime(text.filename, ns=(before.st_atime_ns, before.st_mtime_ns))
    ids, _ = data.encode_file("text.txt", keep=True)
    assert ids.max() == 254, "it is the damaged file that is read"
    model = cylstm.Model(8, 4, 8, embedding_size=embedding, seed=0)
    with pytest.raises(ValueError, match=r"expected ids in 0\.\.7, got 254"):
        model.fit(*data.streams(ids, 1), tbptt=100, epochs=1, progress=False)


def test_the_chunks_of_long_streams_are_not_listed(traced):
    ids = np.zeros(3_000_000, np.uint8)
    model = cylstm.Model(2, 3, 2, seed=0)

    def stop(event):
        raise StopTraining

    assert traced(lambda: model.fit(*data.streams(ids, 1), tbptt=1, progress=False, callbacks=[stop])) < 20_000_000


# --- resident memory --------------------------------------------------------------------------------------------------

PANEL = """
import sys
import numpy as np
import cylstm
x = np.load(sys.argv[1], mmap_mode="r")
if "list" in sys.argv:
    x = list(x)
    y = [row[:, :1] for row in x]
else:
    y = x[..., :1]
model = cylstm.Model(x[0].shape[1], 2, 1, loss="mse", seed=0)
model.fit(x, y, epochs=1, batch_size=50, progress=False)
model.evaluate(x, y)
print(open("/proc/self/status").read())
"""
TRAIN = """
import sys
from cylstm.cli import main
code = main(sys.argv[1:])
print(open("/proc/self/status").read())
sys.exit(code)
"""


def resident(output) -> float:
    """MB, at the peak."""
    return int(re.search(r"VmHWM:\s*(\d+)", output)[1]) / 1000


@needs_proc
@pytest.mark.parametrize("form", ["array", "list"])
def test_a_large_panel_takes_no_more_memory_than_a_small_one(tmp_path, form):
    peaks = []
    for rows in (60, 1000):  # of 300 kB: the large one has 300 MB, all of it a hole in its file
        path = tmp_path / f"{rows}.npy"
        np.lib.format.open_memmap(path, "w+", np.float32, (rows, 1500, 50))
        done = subprocess.run([sys.executable, "-c", PANEL, path, form], check=True, capture_output=True, text=True)
        peaks.append(resident(done.stdout))
    assert peaks[1] - peaks[0] < 90, peaks


@needs_proc
def test_a_large_corpus_takes_no_more_memory_than_a_small_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    peaks = []
    for size in (10**6, 3 * 10**8):  # holes
        with open("corpus.txt", "wb") as file:
            file.truncate(size)
        command = ["train", "corpus.txt", *TINY, "--level", "byte", "--epochs", 10**6, "--sample", 0, "--encoded", "."]
        command = [sys.executable, "-c", TRAIN, *map(str, command)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, bufsize=0) as process:
            assert b"tokens" in process.stdout.readline()
            time.sleep(0.5)
            press_ctrl_c(process)
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 130
        os.unlink("model.ckpt")
        os.unlink("corpus.txt.byte.ids")
        peaks.append(resident(output.decode()))
    assert peaks[1] - peaks[0] < 20, peaks
