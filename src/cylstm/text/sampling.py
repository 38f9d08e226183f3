"""Choosing the next token from its logits, feeding it back, and reading what comes as text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cylstm.checks import as_generator, as_ids, positive_int, real_in

__all__ = ["Sampler", "continue_text", "generate", "writes_tokens"]


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


def writes_tokens(model) -> bool:
    """Whether a model's outputs are the logits of one class at each step."""
    head = model.heads.get("")
    return head is not None and head.output == "sequence" and head.loss.of_classes and head.horizon is None


def generate(model, prompt, length, sampler, stop):
    """`Model.generate` with its arguments checked: yields up to `length` ids that a model writes after a prompt."""
    if model.bidirectional or not writes_tokens(model):
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
        _, state = model.lstm(model.embed(ids[:-1]))
    token = ids[-1]
    for _ in range(length):
        logits, state = model.step(np.int64(token), state, out=state)
        token = sampler(logits)
        if token in stops:
            return
        yield token


def continue_text(model, prompt="", length=500, *, temperature=1.0, top_k=None, top_p=None, seed=None,
                  stop="") -> Iterator[str]:  # fmt: skip
    """The text that a model writes after a prompt, in pieces as they come: at most `length` tokens.

    prompt : text; without one, the model begins after a line break, or after its first token where it knows none.
    temperature, top_k, top_p, seed : as for `Model.generate`.
    stop : the text ends as soon as it contains these characters, which are its last ones. It also ends at the
        vocabulary's end token.

    Raises before the first piece: ValueError for a model without a vocabulary or a prompt with unknown characters, and
    as `Model.generate` does.
    """
    vocabulary = model.vocabulary
    if vocabulary is None:
        raise ValueError("model: expected one with a vocabulary, trained on text, got one without")
    line_break = b"\n" if vocabulary.level == "byte" else "\n"
    begin = vocabulary.encode(prompt, name="prompt") if prompt else [vocabulary.index.get(line_break, 0)]
    ends = () if vocabulary.end_id is None else (vocabulary.end_id,)
    ids = model.generate(begin, length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=ends)
    pieces = vocabulary.decode_stream(ids)
    return _until(stop, pieces) if stop else pieces


def _until(stop, pieces):
    seen = ""  # the last characters, in which `stop` may have begun
    for piece in pieces:
        text = seen + piece
        at = text.find(stop)
        if at >= 0:
            yield text[len(seen) : at + len(stop)]
            return
        yield piece
        seen = text[max(0, len(text) - len(stop) + 1) :]
