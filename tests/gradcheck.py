"""Derivatives by 4th-order central differences, to hold a hand-written backward pass against.

f'(x) = (8 (f(x+e) - f(x-e)) - (f(x+2e) - f(x-2e))) / 12e + O(e^4)        (Abramowitz & Stegun 25.3.6)
"""

import numpy as np

STEP = 1e-3
RTOL = 5e-6
DIRECTIONS = 5


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


def directional(f, x, direction, step=STEP):
    """d f(x + t direction) / dt at t = 0; x is as before when this returns."""
    before, t, values = x.copy(), step / np.linalg.norm(direction), []
    for offset in (1, -1, 2, -2):
        x[...] = before + offset * t * direction
        values.append(f())
    x[...] = before
    return (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * t)


def gradient_error(f, x, gradient, step=STEP):
    """The largest difference from the numerical gradient, relative to its largest element: of each element of a small
    array. Of larger ones along a few directions drawn from normal distributions, where a mistake e(x) in elements shows
    as |e . direction|, which is about as large as the root of the sum of its squares."""
    assert gradient.shape == x.shape
    if x.size <= DIRECTIONS:
        numerical = numerical_gradient(f, x, step)
        return float(np.abs(gradient - numerical).max() / np.abs(numerical).max())
    directions = np.random.default_rng(7).standard_normal((DIRECTIONS, *x.shape))
    numerical = np.array([directional(f, x, one, step) for one in directions])
    expected = (gradient * directions).reshape(DIRECTIONS, -1).sum(axis=1)
    largest = max(np.abs(gradient).max(), np.abs(numerical).max() / np.sqrt(x.size))
    return float(np.abs(expected - numerical).max() / largest)


def check_gradients(f, arrays, gradients):
    """Asserts for each name that gradients[name] is d f() / d arrays[name], to RTOL."""
    assert arrays.keys() == gradients.keys()
    for name, x in arrays.items():
        error = gradient_error(f, x, gradients[name])
        assert error <= RTOL, f"d loss / d {name}: off by {error:.1e} of its largest element"
