"""Many models, each of them alone, and data for both."""

import numpy as np

from cylstm import Model, Models

N, B, T, I = 4, 11, 6, 3


def data_of(model, seed=0, steps=T, rows=B, stacked=True, ids=False):
    """x and y for a model, of N models where they are stacked."""
    rng, many = np.random.default_rng(seed), (N,) * stacked
    head = model.heads[""]
    x = rng.integers(0, I, (*many, rows, steps)) if ids else rng.standard_normal((*many, rows, steps, I))
    shape = (*many, rows, *[steps] * (not head.per_row), *head.width)
    y = rng.integers(0, 2, shape) if head.loss.says != "numbers" else rng.standard_normal(shape)
    return x, y


def pair(seeds=range(N), sizes=(I, 8, 2), **config):
    """Models, and each of them alone."""
    return Models(*sizes, seeds=seeds, **config), [Model(*sizes, seed=seed, **config) for seed in seeds]


def part(value, n, stacked):
    """What is model n's."""
    if isinstance(value, tuple):
        return tuple(part(one, n, stacked) for one in value)
    return value[n] if stacked else value


def expect_same(models, alone, history, histories):
    for n, one in enumerate(alone):
        assert np.array_equal(models.flat[n], one.parameters.raw()), n
        ours, theirs = history[n].to_dict(), histories[n].to_dict()
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}, n


def fitted_alike(models, alone, x, y, *, lengths=None, validation=None, stacked=True, make=lambda: None, **options):
    """Fit both; returns the histories."""
    options = {"epochs": 3, "batch_size": 4, "progress": False, **options}
    seeds = options.pop("seed", 0)
    history = models.fit(x, y, lengths=lengths, validation=validation, optimizer=make(), seed=seeds, **options)
    histories = []
    for n, one in enumerate(alone):
        own = {name: None if value is None else part(value, n, stacked)
               for name, value in (("lengths", lengths), ("validation", validation))}  # fmt: skip
        histories.append(one.fit(part(x, n, stacked), part(y, n, stacked), optimizer=make(), **own, **options,
                                 seed=seeds if isinstance(seeds, int) else seeds[n]))  # fmt: skip
    expect_same(models, alone, history, histories)
    return history
