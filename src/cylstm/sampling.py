"""Choosing the next token from its logits, and feeding it back."""

from __future__ import annotations

import numpy as np

from cylstm.checks import as_generator, as_ids, positive_int, real_in

__all__ = ["Sampler", "generate"]


class Sampler:
    """Draws token ids.

    temperature : >= 0; logits are divided by it, 0 always takes the likeliest token (greedy).
    top_k : only the k likeliest tokens can come (Fan et al. 2018); None for all.
    top_p : only the likeliest tokens whose probabilities together reach p (Holtzman et al. 2020); None for all.
    seed : int, None or numpy.random.Generator.

    Raises TypeError or ValueError naming the argument.
    """

    def __init__(self, *, temperature=1.0, top_k=None, top_p=None, seed=None):
        self.temperature = real_in("temperature", temperature, 0)
        self.top_k = None if top_k is None else positive_int("top_k", top_k)
        self.top_p = None if top_p is None else real_in("top_p", top_p, 0, 1, open_low=True)
        self.rng = as_generator("seed", seed)

    def probabilities(self, logits) -> np.ndarray:
        """What is drawn from: logits (V,) -> probabilities (V,), float64."""
        z = np.asarray(logits, np.float64)
        if not np.isfinite(z.max()):
            raise ValueError(f"logits: expected finite numbers, got {z.max()}: the weights are no longer numbers")
        if self.temperature == 0:
            return (np.arange(len(z)) == z.argmax()).astype(float)
        with np.errstate(over="ignore"):  # -inf: a probability of 0
            p = np.exp((z - z.max()) / self.temperature)
        if self.top_k is not None or self.top_p is not None:
            order = np.argsort(-p, kind="stable")
            if self.top_k is not None:
                p[order[self.top_k :]] = 0
            if self.top_p is not None:
                before = np.cumsum(p[order]) - p[order]  # of the likelier ones
                p[order[before >= self.top_p * p.sum()]] = 0
        return p / p.sum()

    def __call__(self, logits) -> int:
        """One token id."""
        p = self.probabilities(logits)
        if self.temperature == 0:
            return int(p.argmax())
        edges = np.cumsum(p)
        return int(np.searchsorted(edges, self.rng.random() * edges[-1], side="right"))


def generate(model, prompt, length, sampler, stop):
    """`Model.generate` with its arguments checked: yields up to `length` ids that a model writes after a prompt."""
    if model.bidirectional or model.output != "sequence" or not model.loss.of_classes:
        raise ValueError(f"generate: expected a model of one direction with cross_entropy at every step, got {model!r}")
    if model.output_size != model.input_size:
        sizes = f"{model.output_size} and {model.input_size}"
        raise ValueError(f"generate: expected as many outputs as inputs, got {sizes}")
    if isinstance(prompt, str):
        if model.vocabulary is None:
            raise TypeError("prompt: expected ids for a model without a vocabulary, got text")
        prompt = model.vocabulary.encode(prompt, name="prompt")
    ids = as_ids("prompt", prompt, model.input_size)
    if ids.ndim != 1 or not len(ids):
        raise ValueError(f"prompt: expected ids (T,) with T >= 1, got {ids.shape}")
    stops = set(as_ids("stop", stop, model.input_size).ravel().tolist())
    return continued(model, ids, positive_int("length", length, 0), sampler, stops)


def continued(model, ids, length, sampler, stops):
    """Yields up to `length` ids that a model writes after ids (T,), none of them in `stops`."""
    state = None
    if len(ids) > 1:
        _, state = model.lstm(model._embed(ids[:-1]))
    token = ids[-1]
    for _ in range(length):
        logits, state = model.step(np.int64(token), state, out=state)
        token = sampler(logits)
        if token in stops:
            return
        yield token
