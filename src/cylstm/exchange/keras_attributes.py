"""How long the texts in an HDF5 attribute say that they are, before libhdf5 makes room for them.

A text of variable length is 16 bytes in its attribute: its length, and where it stands. libhdf5 allocates what the
length says, 4 GB at most, whatever the file has, and for each of a thousand texts that stand in one place; and it has
no call that tells lengths. So they are read here, from the object's header, of which just that much is understood.
Source: HDF5 File Format Specification 3.0, IV.A (headers, attribute and continuation messages), III.E (global heap).
"""

from __future__ import annotations

import struct
from itertools import count

__all__ = ["text_lengths"]

CONTINUED, ATTRIBUTE, SHARED = 0x10, 0x0C, 0x02  # types of messages, and a flag
MOST = 1 << 20  # bytes of a header; a message has 64 KiB at most
TEXT = struct.Struct("<IQI")  # length; address and number in the global heap


def text_lengths(file, h5py, group, name, several: int) -> list[int]:
    """The lengths of the texts, `several`, of an attribute of a group. Raises ValueError where they are not found.

    file : the open file that h5py reads, too.
    """
    created = group.file.id.get_create_plist()
    if created.get_userblock() or created.get_sizes() != (8, 8):
        raise ValueError(f"{name}: expected an HDF5 file as Keras writes it, got one with other addresses")
    found = [value for one, value in attributes(file, h5py.h5o.get_info(group.id).addr) if one == name.encode()]
    if len(found) != 1 or len(found[0]) < several * TEXT.size:
        raise ValueError(f"{name}: expected an attribute in its group's header, as Keras writes it, got another")
    return [length for length, _, _ in TEXT.iter_unpack(found[0][: several * TEXT.size])]


def attributes(file, address):
    """Names and values, as bytes, of the attributes in the header of an object."""
    for kind, flags, data in messages(file, address):
        if kind == ATTRIBUTE and not flags & SHARED and len(data) >= 9:
            version, _, *sizes = struct.unpack_from("<BBHHH", data)  # of name, datatype and dataspace
            if version == 1:
                sizes = [size + -size % 8 for size in sizes]
            begin = 9 if version == 3 else 8
            value = begin + sum(sizes)
            yield data[begin : begin + sizes[0]].split(b"\0")[0], data[value:]


def messages(file, address):
    """(type, flags, bytes) of each message of an object's header, which goes on in other blocks. Raises ValueError."""
    file.seek(address)
    start = file.read(64).ljust(64, b"\0")
    if start[:4] == b"OHDR":  # version 2
        flags = start[5]
        at = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        blocks = [(address + at + width, int.from_bytes(start[at : at + width], "little"))]
        head, ends = struct.Struct("<BHBH" if flags & 4 else "<BHB"), 4  # after the signature, and before the checksum
    else:
        blocks = [(address + 16, struct.unpack_from("<I", start, 8)[0])]
        head, ends = struct.Struct("<HHB3x"), 0
    left = MOST
    for n in count():
        if n == len(blocks):
            return
        begin, size = blocks[n]
        left -= size + 64  # of an empty one, too
        if left < 0:
            raise ValueError(f"expected a header of at most {MOST} bytes, got more")
        block = bytes_at(file, begin, size)
        at, end = (ends, size - ends) if n else (0, size)
        while at + head.size <= end:
            kind, length, flags, *_ = head.unpack_from(block, at)
            data = block[at + head.size : at + head.size + length]
            if kind == CONTINUED and len(data) >= 16:
                blocks.append(struct.unpack_from("<QQ", data))
            yield kind, flags, data
            at += head.size + length


def bytes_at(file, address, size) -> bytes:
    """Bytes of a file. Raises ValueError where it ends before."""
    file.seek(address)
    found = file.read(size)
    if len(found) < size:
        raise ValueError(f"expected {size} bytes at {address}, got {len(found)}")
    return found
