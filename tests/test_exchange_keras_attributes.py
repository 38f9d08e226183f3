"""The lengths of HDF5 attributes' texts, read from the objects' headers, held to what h5py reads."""

import io

import h5py
import numpy as np
import pytest

from cylstm.exchange.keras_attributes import text_lengths

VALUES = {
    "version": "3.5.0", "config": "{" + "ä" * 5000 + "}", "layer_names": ["lstm", "", "dense_1" * 9, "é"],
    "many": np.array([f"layer {n}" * (n % 5) for n in range(2000)], object), "bytes": b"tensorflow",
    "square": np.array([["a", "bc"], ["def", "ghij"]], object),
}  # fmt: skip
OTHERS = {"fixed": np.array(["a", "bcd"], "S"), "number": 3, "numbers": np.arange(40.0)}


def written(names, libver="earliest", track_order=False, **options):
    file = io.BytesIO()
    with h5py.File(file, "w", libver=libver, **options) as root:
        group = root.create_group("a/group", track_order=track_order)
        for name in names:
            group.attrs[name] = (VALUES | OTHERS)[name]
    return file


@pytest.mark.parametrize("track_order", [False, True])
@pytest.mark.parametrize("libver", ["earliest", "v110", "latest"])
def test_lengths_are_those_of_the_texts(libver, track_order):
    names = [*VALUES, "fixed", "number"]
    for several in (names, names[::-1]):
        file = written(several, libver, track_order)
        with h5py.File(file, "r") as root:
            for name in VALUES:
                found = np.atleast_1d(root["a/group"].attrs[name]).ravel().tolist()
                expected = [len(one if isinstance(one, bytes) else one.encode()) for one in found]
                assert text_lengths(file, h5py, root["a/group"], name, len(expected)) == expected


def test_headers_that_are_none_of_kerass_are_refused():
    many = written([*VALUES, *OTHERS], "latest")  # which are kept elsewhere, from nine on
    moved = written(VALUES, userblock_size=512)
    for file, message in ((many, "in its group's header, as Keras writes it"), (moved, "got one with other addresses")):
        with h5py.File(file, "r") as root, pytest.raises(ValueError, match=f"^config: expected .*{message}"):
            text_lengths(file, h5py, root["a/group"], "config", 1)


def test_damaged_headers_are_refused():
    good = written(["config", "many"])
    with h5py.File(good, "r") as root:
        group = root["a/group"]
        begin = h5py.h5o.get_info(group.id).addr
        content = good.getvalue()
        rng = np.random.default_rng(4)
        for _ in range(400):
            bad = bytearray(content)
            for at in begin + rng.integers(0, 200, 3):
                bad[at] = rng.integers(256)
            try:
                text_lengths(io.BytesIO(bad), h5py, group, "config", 1)
            except (ValueError, OverflowError):
                continue
        round_ = bytearray(content[:begin]) + content[begin : begin + 16] + bytes.fromhex("10001000") + bytes(4)
        round_ += (begin + 16).to_bytes(8, "little") + (24).to_bytes(8, "little")  # which goes on with itself
        round_[begin + 8 : begin + 12] = (24).to_bytes(4, "little")
        with pytest.raises(ValueError, match="expected a header of at most 1048576 bytes, got more"):
            text_lengths(io.BytesIO(round_), h5py, group, "config", 1)
        with pytest.raises(ValueError, match=r"expected .* bytes at .*, got"):
            text_lengths(io.BytesIO(content[: begin + 40]), h5py, group, "config", 1)
