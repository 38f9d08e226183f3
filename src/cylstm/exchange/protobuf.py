"""The wire format of protocol buffers, as far as files of models need it: fields of a message, one after the other.

A field is a key, (number << 3) | wire, and a value: a varint (wire 0), 8 bytes (1), a length and as many bytes (2), or
4 bytes (5): https://protobuf.dev/programming-guides/encoding. A message within a message is bytes until somebody reads
its fields, so nothing here recurses, and reading allocates no more than what the bytes have themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

__all__ = ["FOUR", "Truncated", "encoded", "fields", "floats_of", "integers_of", "text_of"]

VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5
LONGEST = 10  # bytes of a varint: 64 bits, seven in each


class Truncated(ValueError):
    """Bytes that are no message, or end before it does."""


# --- reading ----------------------------------------------------------------------------------------------------------


def fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """(number, wire, value) of each field; a value is a whole number for varints, else the bytes. Raises Truncated."""
    at, end = 0, len(message)
    while at < end:
        key, at = varint(message, at)
        number, wire = key >> 3, key & 7
        if not number:
            raise Truncated("expected a field's number, got 0")
        if wire == VARINT:
            value, at = varint(message, at)
            yield number, wire, value
            continue
        if wire == BYTES:
            length, at = varint(message, at)
        elif wire in (EIGHT, FOUR):
            length = 8 if wire == EIGHT else 4
        else:
            raise Truncated(f"expected a field of wire type 0, 1, 2 or 5, got {wire}")
        if length > end - at:
            raise Truncated(f"expected a field of {length} bytes, got {end - at}")
        yield number, wire, message[at : at + length]
        at += length


def varint(message, at) -> tuple[int, int]:
    """A whole number in 0..2**64-1, and the place behind it."""
    value = 0
    for n, byte in enumerate(message[at : at + LONGEST]):
        value |= (byte & 127) << 7 * n
        if byte < 128:
            return value & (2**64 - 1), at + n + 1
    raise Truncated("expected a varint, got one without an end")


def signed(value: int) -> int:
    """An int64 from the 64 bits that a varint has."""
    return value - 2**64 if value >= 2**63 else value


def integers_of(wire, value) -> list[int]:
    """What a repeated int64 field gives: one number, or several that are packed."""
    if wire == VARINT:
        return [signed(value)]
    if wire != BYTES:
        raise Truncated(f"expected whole numbers, got a field of wire type {wire}")
    numbers, at = [], 0
    while at < len(value):
        number, at = varint(value, at)
        numbers.append(signed(number))
    return numbers


def floats_of(wire, value, dtype="<f4") -> np.ndarray:
    """What a repeated float (or double: "<f8") field gives: one number, or several that are packed; a view."""
    size = np.dtype(dtype).itemsize
    if wire not in (BYTES, FOUR if size == 4 else EIGHT) or len(value) % size:
        raise Truncated(f"expected numbers of {size} bytes, got a field of wire type {wire}")
    return np.frombuffer(value, dtype)


def text_of(value) -> str:
    """A string field."""
    if isinstance(value, int):
        raise Truncated(f"expected text, got the number {value}")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise Truncated(f"expected UTF-8 text, got {bytes(value[:20])!r}") from None


# --- writing ----------------------------------------------------------------------------------------------------------


def encoded(*numbered) -> bytes:
    """A message of (number, value) pairs, in their order: int and bool become varints, float 4 bytes, str, bytes and
    arrays their bytes; a value in a list is a field each, None is none."""
    parts = []
    for number, value in numbered:
        for one in value if isinstance(value, list) else [value]:
            parts += [] if one is None else field(number, one)
    return b"".join(parts)


def field(number, value) -> list[bytes]:
    """The bytes of one field."""
    if isinstance(value, (int, np.integer)):
        return [written_varint(number << 3 | VARINT), written_varint(int(value) & (2**64 - 1))]
    if isinstance(value, float):
        return [written_varint(number << 3 | FOUR), struct.pack("<f", value)]
    content = value.encode() if isinstance(value, str) else bytes(value)
    return [written_varint(number << 3 | BYTES), written_varint(len(content)), content]


def written_varint(value: int) -> bytes:
    """A whole number >= 0, seven bits in each byte, the low ones first."""
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
