"""What products in fewer bits have to give, in NumPy: of int8 to the bit, of 16 bits within the rounding of float32."""

import numpy as np

from cylstm._core import kernels

UNITS = {  # of the kernels, by form; the first of each precision is there on every processor
    "float16": {"float16": 4},
    "bfloat16": {"bfloat16": 5, "bfloat16_dot": 6, "bfloat16_tiles": 7},
    "int8": {"int8": 8, "int8_dot": 9, "int8_tiles": 10},
}


def units_of(precision):
    """The forms of a precision that the kernels in use have."""
    return [form for unit, form in UNITS[precision].items() if unit == precision or unit in kernels.units()]


def bfloat16(values):
    """The nearest bfloat16, of two the even one, by the definition: 8 significant bits, none below 2^-133."""
    values = np.asarray(values, np.float64)
    unit = np.maximum(np.frexp(values)[1] - 8, -133)
    return np.ldexp(np.rint(np.ldexp(values, -unit)), unit).astype(np.float32)  # rint rounds halves to even


def float16(values):
    return np.asarray(values).astype(np.float16).astype(np.float32)


def int8_weights(weights):
    """q (rows, columns) and the scales (rows,), of float32."""
    scales = np.abs(weights).max(axis=1) / np.float32(127)
    scales = np.where(scales == 0, np.float32(1), scales)
    return np.rint(weights / scales[:, None]).astype(np.int64), scales.astype(np.float32)


def int8_rows(x, bound=None):
    """q (rows, K) and the scales (rows,): of the largest |x| of each row, or of a bound that all have."""
    most = np.abs(x).max(axis=1) if bound is None else np.full(len(x), bound, np.float32)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(most < np.float32(2.0**-119), np.float32(0), np.float32(127) / most).astype(np.float32)
    scales = np.where(most < np.float32(2.0**-119), np.float32(0), most / np.float32(127)).astype(np.float32)
    return np.rint(np.clip(x * inverse[:, None], -127, 127)).astype(np.int64), scales


def int8_sums(start, x, weights, bound=None):
    """start (rows, columns) + x (rows, K) weights' (columns, K), in int8: float32, to the bit."""
    (a, of_rows), (q, of_columns) = int8_rows(x, bound), int8_weights(weights)
    exact = (a @ q.T).astype(np.float32)
    return start + exact * (of_columns[None, :] * of_rows[:, None])
