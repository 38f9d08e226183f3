"""Derivatives by 4th-order central differences, to hold a hand-written backward pass against.

f'(x) = (8 (f(x+e) - f(x-e)) - (f(x+2e) - f(x-2e))) / 12e + O(e^4)        (Abramowitz & Stegun 25.3.6)
"""

import numpy as np

STEP = 1e-3
RTOL = 5e-6


def numerical_gradient(f, x, step=STEP, indices=None):
    """d f() / d x for every element of x, a float64 array that f reads; x is as before when this returns. indices : the
    elements that are asked for, where not all are; the others are NaN."""
    gradient = np.full_like(x, np.nan)
    for index in np.ndindex(x.shape) if indices is None else indices:
        before = x[index]
        values = []
        for offset in (1, -1, 2, -2):
            x[index] = before + offset * step
            values.append(f())
        x[index] = before
        gradient[index] = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * step)
    return gradient


def gradient_error(f, x, gradient, step=STEP, most=None):
    """The largest difference from the numerical gradient, relative to its largest element. most : so many elements are
    drawn of larger arrays."""
    assert gradient.shape == x.shape
    drawn = np.random.default_rng(7).permutation(x.size)[:most]
    indices = list(zip(*np.unravel_index(drawn, x.shape), strict=True))
    numerical = numerical_gradient(f, x, step, indices).ravel()[drawn]
    return float(np.abs(gradient.ravel()[drawn] - numerical).max() / np.abs(numerical).max())


def check_gradients(f, arrays, gradients, most=None):
    """Asserts for each name that gradients[name] is d f() / d arrays[name], to RTOL; of `most` elements of each."""
    assert arrays.keys() == gradients.keys()
    for name, x in arrays.items():
        error = gradient_error(f, x, gradients[name], most=most)
        assert error <= RTOL, f"d loss / d {name}: off by {error:.1e} of its largest element"
