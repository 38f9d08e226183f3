"""Derivatives by 4th-order central differences, to hold a hand-written backward pass against.

f'(x) = (8 (f(x+e) - f(x-e)) - (f(x+2e) - f(x-2e))) / 12e + O(e^4)        (Abramowitz & Stegun 25.3.6)
"""

import numpy as np

STEP = 1e-3
RTOL = 5e-6


def numerical_gradient(f, x, step=STEP):
    """d f() / d x for every element of x, a float64 array that f reads; x is as before when this returns."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        before = x[index]
        values = []
        for offset in (1, -1, 2, -2):
            x[index] = before + offset * step
            values.append(f())
        x[index] = before
        gradient[index] = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * step)
    return gradient


def gradient_error(f, x, gradient, step=STEP):
    """The largest difference from the numerical gradient, relative to its largest element."""
    numerical = numerical_gradient(f, x, step)
    assert gradient.shape == x.shape
    return float(np.abs(gradient - numerical).max() / np.abs(numerical).max())


def check_gradients(f, arrays, gradients):
    """Asserts for each name that gradients[name] is d f() / d arrays[name], to RTOL."""
    assert arrays.keys() == gradients.keys()
    for name, x in arrays.items():
        error = gradient_error(f, x, gradients[name])
        assert error <= RTOL, f"d loss / d {name}: off by {error:.1e} of its largest element"
