"""What a caller can get wrong, checked once at the Python edge, said in one style: argument, expected, got."""

from __future__ import annotations

import math
import operator
import os
import stat

import numpy as np

from cylstm.maps import in_pieces

__all__ = [
    "as_float_array", "as_generator", "as_ids", "check_finite", "check_lengths", "check_mask", "check_range",
    "check_resets", "check_state", "describe", "described_with_way", "file_to_write", "flag", "folder_to_write",
    "one_of", "path_name", "plain_array", "positive_int", "real_in", "refuse", "refuse_masked", "whereabouts",
]  # fmt: skip


INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)


def describe(value) -> str:
    """What came, in few words on one line: shape and dtype for arrays, type and value otherwise."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    try:
        text = " ".join(line.strip() for line in repr(value).splitlines())
    except Exception:  # a repr of the caller's must not take the place of what is to be said
        return type(value).__name__
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def positive_int(name: str, value, minimum: int = 1) -> int:
    """An integer >= minimum. Raises TypeError for non-integers (bool included), ValueError for smaller ones."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected an integer, got {describe(value)}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {describe(value)}") from None
    if number < minimum:
        got = number if number > -(10**18) else describe(value)  # cut short: Python writes none of 4,301 digits
        raise ValueError(f"{name}: expected an integer >= {minimum}, got {got}")
    return number


def real_in(name: str, value, low: float, high: float = np.inf, *, open_low=False, open_high=False) -> float:
    """A finite real number between low and high. Raises TypeError or ValueError."""
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise TypeError(f"{name}: expected a number, got {describe(value)}")
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {describe(value)}") from None
    too_low = number <= low if open_low else number < low
    too_high = number >= high if open_high else number > high
    if not math.isfinite(number) or too_low or too_high:
        left, right = "(" if open_low else "[", ")" if open_high or math.isinf(high) else "]"
        raise ValueError(f"{name}: expected a number in {left}{low:g}, {high:g}{right}, got {number:g}")
    return number


def flag(name: str, value) -> bool:
    """True or False. Raises TypeError for anything else: the text "False" would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {describe(value)}")
    return bool(value)


def one_of(name: str, value, choices):
    """One of a few named choices. Raises ValueError that lists them."""
    if not isinstance(value, str) or value not in choices:
        expected = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}: expected one of {expected}, got {describe(value)}")
    return value


def as_generator(name: str, seed) -> np.random.Generator:
    """A generator itself, or a new one from None or integers >= 0. Raises TypeError or ValueError."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        expected = "None, integers >= 0 or a numpy.random.Generator"
        raise type(error)(f"{name}: expected {expected}, got {describe(seed)}") from None


def path_name(name: str, path) -> str:
    """A path as text. Raises TypeError for anything else, a number of an open file included; ValueError for what no
    path can have, NUL and what the system has no bytes for."""
    text = path_text(name, path)
    try:
        fits = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise ValueError(f"{name}: expected a path, got {describe(text)}")
    return text


def path_text(name, path) -> str:
    """A path as text, whatever it has in it."""
    try:
        return os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{name}: expected a path, got {describe(path)}") from None


def file_to_write(name: str, path) -> str:
    """The path, as text, of a file that can stand in a folder that is there. Raises TypeError or ValueError."""
    path = path_text(name, path)
    if os.path.isdir(path):
        raise ValueError(f"{name}: expected a file, got the folder {shown_path(path)}")
    try:
        os.stat(path)
        fits = True
    except FileNotFoundError:
        fits = path != "" and os.path.isdir(os.path.dirname(path) or ".")
    except (OSError, ValueError):  # too long, a NUL, a character that no name can have
        fits = False
    if not fits:
        raise ValueError(f"{name}: expected a file in an existing folder, got {shown_path(path)}")
    return path


def folder_to_write(name: str, path) -> str:
    """The path, as text, of a folder that is there or can be made. Raises TypeError or ValueError."""
    path = path_text(name, path)
    try:
        fits = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        fits = path != ""
    except (OSError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"{name}: expected a folder, there or to be made, got {shown_path(path)}")
    return path


def shown_path(path: str) -> str:
    """As it is, where it fits on a line."""
    return path if path.isprintable() and 0 < len(path) <= 300 else describe(path)


def plain_array(name: str, value) -> np.ndarray:
    """`value` as an array, without a copy where it has `__array__`, the buffer protocol or DLPack.

    Raises TypeError for a masked one (its mask would be lost), for unequal rows, and for what NumPy cannot read."""
    refuse_masked(name, value)
    try:
        array = np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and isinstance(value, (list, tuple)):
            raise TypeError(f"{name}: expected one array, got rows of unequal length") from None
        raise TypeError(f"{name}: expected an array that NumPy can read, got {foreign(name, value, error)}") from None
    if array.dtype == object and hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as error:
            raise TypeError(
                f"{name}: expected an array that NumPy can read, got {foreign(name, value, error)}"
            ) from None
    return array


def refuse_masked(name: str, value) -> None:
    """TypeError for a masked array, and for a list that has one: as an array it would lose its mask."""
    masked = isinstance(value, np.ma.MaskedArray)
    if masked or (isinstance(value, (list, tuple)) and any(isinstance(part, np.ma.MaskedArray) for part in value)):
        raise TypeError(f"{name}: expected an array without a mask, got a masked one (use lengths, or fill it)")


def foreign(name, value, error) -> str:
    """What another library's array is that NumPy cannot read, and the way out: by attributes, without the library."""
    kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"
    dtype, device, layout = (str(getattr(value, name, "")) for name in ("dtype", "device", "layout"))
    ways = {
        ".detach()": bool(getattr(value, "requires_grad", False)),
        ".to_dense()": "sparse" in layout,
        ".cpu()": hasattr(value, "cpu") and bool(device) and not device.startswith(("cpu", "meta")),
        ".float()": "bfloat16" in dtype or "float8" in dtype,
    }
    way = "".join(call for call, needed in ways.items() if needed)
    return f"{kind} {dtype}".rstrip() + (f"; {name}{way} is one" if way else f" ({error})")


def as_float_array(name: str, value, dtype) -> np.ndarray:
    """`value` as an array of floating `dtype`, without a copy where it is one already.

    Any real floating dtype is converted; integers, booleans, complex numbers, strings and objects raise TypeError.
    """
    array = plain_array(name, value)
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: expected floating-point numbers, got {described_with_way(array)}")
    return np.asarray(array, dtype=dtype)


def described_with_way(array) -> str:
    """What came in place of numbers, and how numbers are made of it where that is known."""
    way = {"O": "; sequences of different lengths go into a model as a list of arrays",
           "V": "; .astype('float32') makes floats of another library's"}  # fmt: skip
    return describe(array) + way.get(array.dtype.kind, "")


def check_finite(name: str, array: np.ndarray, dtype, mask=None, missing=False, way: str = "") -> None:
    """ValueError that names the first number which is not finite, or which `dtype` cannot hold.

    mask : of the array's first axes; where it is false there may be anything. missing : whether NaN will do. way : out
    of it, for NaN. Integers pass.
    """
    if array.dtype.kind != "f" or not array.size:
        return
    most = np.float64(np.finfo(dtype).max)
    for piece in in_pieces(array):
        part = array[piece]
        if -most <= part.min() and part.max() <= most:
            continue
        wrong = ~(np.abs(part) <= most)
        if missing:
            wrong &= ~np.isnan(part)
        if mask is not None:
            wrong[~mask[piece[: mask.ndim]]] = False
        if wrong.any():
            place = np.unravel_index(wrong.argmax(), wrong.shape)
            found = part[place]
            expected = "a finite number" if not np.isfinite(found) else f"a number that {np.dtype(dtype)} holds"
            hint = f" ({way})" if way and np.isnan(found) else ""
            raise ValueError(f"{name}[{whereabouts(place, piece)}]: expected {expected}, got {found:g}{hint}")


def check_state(name: str, state, like, dtype) -> tuple[np.ndarray, np.ndarray]:
    """A State of arrays shaped as those of another one. Raises TypeError or ValueError."""
    try:
        h, c = state
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a State(h, c), got {describe(state)}") from None
    parts = [as_float_array(f"{name}.{part}", array, dtype) for part, array in (("h", h), ("c", c))]
    for part, array, other in zip("hc", parts, like, strict=True):
        if array.shape != other.shape:
            raise ValueError(f"{name}.{part}: expected {other.shape}, got {array.shape}")
    return tuple(parts)


def as_ids(name: str, value, size: int) -> np.ndarray:
    """Token ids as int64, each in 0..size-1. Raises TypeError for non-integers, ValueError for ids out of range.

    They are a copy, taken before they are checked: another thread may be writing to what came.
    """
    array = np.array(plain_array(name, value))
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integer ids, got {describe(array)}")
    check_range(name, array, size)
    return np.asarray(array, dtype=np.int64)


def check_range(name: str, ids: np.ndarray, size: int, counted=None, piece=()) -> None:
    """ValueError, naming the place, unless all ids are in 0..size-1. counted : of their shape, where they are looked
    at; piece : slices of the whole, which say where they begin."""
    part = ids if counted is None else ids[counted]
    if part.dtype == INT64 and part.size and int(np.maximum.reduce(part.view(UINT64), axis=None)) < size:
        return  # one pass: a negative one is more than any size
    if int(part.min(initial=0)) < 0 or int(part.max(initial=0)) >= size:
        wrong = (ids < 0) | (ids >= size)
        refuse(name, ids, wrong if counted is None else wrong & counted, f"ids in 0..{size - 1}", piece)


def refuse(name: str, array: np.ndarray, wrong: np.ndarray, expected: str, piece=()) -> None:
    """ValueError that names the first place of those that are wrong, and what stands there; nothing where none is.

    piece : slices of a larger array, which say where this one begins in it.
    """
    if not wrong.any():
        return
    place = np.unravel_index(wrong.argmax(), wrong.shape)
    where = whereabouts(place, piece)
    got = f"{array[place]:g}" if array.dtype.kind == "f" else array[place]
    raise ValueError(f"{name}{f'[{where}]' if where else ''}: expected {expected}, got {got}")


def whereabouts(place, piece=()) -> str:
    """A place, as errors name it; piece : as for `refuse`."""
    starts = [part.start for part in piece] + [0] * (len(place) - len(piece))
    return ", ".join(str(int(n) + start) for n, start in zip(place, starts, strict=True))


def check_lengths(lengths, B: int, T: int) -> np.ndarray:
    """B integers in 0..T as int64, a copy as `as_ids` has it. Raises TypeError or ValueError for anything else."""
    given = np.array(plain_array("lengths", lengths))
    lengths = np.atleast_1d(given)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {describe(lengths)}")
    if lengths.shape != (B,):
        raise ValueError(f"lengths: expected ({B},), got {given.shape}")
    wrong = (lengths < 0) | (lengths > T)
    if wrong.any():
        raise ValueError(f"lengths[{wrong.argmax()}]: expected a length in 0..{T}, got {lengths[wrong.argmax()]}")
    return np.asarray(lengths, np.int64)


def check_mask(name: str, mask, shape: tuple[int, ...]) -> np.ndarray:
    """Booleans of this shape. Raises TypeError or ValueError."""
    mask = plain_array(name, mask)
    if mask.dtype != bool:
        raise TypeError(f"{name}: expected booleans, got {describe(mask)}")
    if mask.shape != shape:
        raise ValueError(f"{name}: expected {shape}, got {mask.shape}")
    return mask


def check_resets(resets, B: int, T: int, batched: bool) -> np.ndarray:
    """Booleans (B, T) or, unbatched, (T,) as (B, T). Raises TypeError or ValueError."""
    resets = plain_array("resets", resets)
    if resets.dtype != bool:
        raise TypeError(f"resets: expected booleans, got {describe(resets)}")
    expected = (B, T) if batched else (T,)
    if resets.shape != expected:
        raise ValueError(f"resets: expected {expected}, got {resets.shape}")
    return resets.reshape(B, T)
