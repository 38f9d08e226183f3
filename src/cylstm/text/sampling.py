"""Choosing the next token from its logits, feeding it back, and reading what comes as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from cylstm.checks import as_generator, as_ids, describe, positive_int, real_in

__all__ = ["Sampler", "banned_ids", "continue_text", "expect_writer", "generate", "writes_tokens"]


FEW = 40


class Sampler:
    """Draws token ids.

    temperature : >= 0; logits are divided by it, 0 always takes the likeliest token (greedy).
    top_k : only the k likeliest tokens can come (Fan et al. 2018); None for all.
    top_p : only the likeliest tokens whose probabilities together reach p (Holtzman et al. 2020); None for all.
    ban : ids (N,), checked, that never come: as if their logits were -inf. k and p are of the others. A draw takes one
        random number whatever is banned, so that the same seed goes on as alike as it can.
    seed : int, None or numpy.random.Generator.

    Raises TypeError or ValueError naming the argument.
    """

    def __init__(self, *, temperature=1.0, top_k=None, top_p=None, ban=(), seed=None):
        self.temperature = real_in("temperature", temperature, 0)
        self.top_k = None if top_k is None else positive_int("top_k", top_k)
        self.top_p = None if top_p is None else real_in("top_p", top_p, 0, 1, open_low=True)
        self.ban = np.asarray(ban, np.int64)
        self.rng = as_generator("seed", seed)

    def probabilities(self, logits) -> np.ndarray:
        """What is drawn from: logits (V,) -> probabilities (V,), float64."""
        z = np.asarray(logits, np.float64)
        largest = z.max()
        if len(self.ban) and np.isfinite(largest):
            z = z.copy()  # the caller's otherwise, where they are float64
            z[self.ban] = -np.inf
            largest = z.max()
        if not np.isfinite(largest):
            raise ValueError(f"logits: expected finite numbers, got {largest}: the weights are no longer numbers")
        if self.temperature == 0:
            return (np.arange(len(z)) == z.argmax()).astype(float)
        with np.errstate(over="ignore"):  # -inf: a probability of 0
            p = np.exp((z - largest) / self.temperature)
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
    if head is None or head.horizon is not None or head.labels is not None:
        return False
    return head.output == "sequence" and head.loss.of_classes


def banned_ids(model, ban) -> np.ndarray:
    """Ids, distinct, of tokens that are ids or, with a vocabulary, tokens as it holds them; one of them or several."""
    if isinstance(ban, (str, bytes)) or not isinstance(ban, Iterable) or getattr(ban, "ndim", 1) == 0:
        ids = [_token_id(model, "ban", ban)]
    else:
        ids = [_token_id(model, f"ban[{n}]", token) for n, token in enumerate(ban)]
    ids = np.unique(np.array(ids, np.int64))
    if len(ids) == model.output_size:
        raise ValueError(f"ban: expected at least one token left to come, got all {model.output_size}")
    return ids


def _token_id(model, name, token) -> int:
    if not isinstance(token, (str, bytes)):
        given = as_ids(name, token, model.output_size)
        if given.ndim:
            raise TypeError(f"{name}: expected an id or a token, got {describe(token)}")
        return int(given)
    vocabulary = model.vocabulary
    if vocabulary is None:
        raise TypeError(f"{name}: expected ids for a model without a vocabulary, got {describe(token)}")
    found = vocabulary.index.get(token)
    if found is None and vocabulary.level == "byte" and isinstance(token, str):
        found = vocabulary.index.get(token.encode("utf-8", "surrogatepass"))
    if found is None:
        kind = {"char": "one character", "word": "one word", "byte": "one byte"}[vocabulary.level]
        raise ValueError(f"{name}: expected a token of the vocabulary ({kind}), got {token!r}")
    return found


def expect_writer(model) -> None:
    """ValueError for a model that cannot go on from what it has written."""
    if not model.lstm.causal or not writes_tokens(model):
        forward = ", forward," * model.reverse
        expected = f"a model of one direction{forward} with cross_entropy at every step, without labels"
        raise ValueError(f"generate: expected {expected}, got {model!r}")
    if model.inputs is not None and not model.inputs.takes_ids:
        raise ValueError(f"generate: expected a model of ids, got one of numbers, {model!r}")
    if model.output_size != model.input_size:
        sizes = f"{model.output_size} and {model.input_size}"
        raise ValueError(f"generate: expected as many outputs as inputs, got {sizes}")


def generate(model, prompt, length, sampler, stop):
    """`Model.generate` with its arguments checked: yields up to `length` ids that a model writes after a prompt."""
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


def continue_text(model, prompt="", length=500, *, temperature=1.0, top_k=None, top_p=None, ban=(), seed=None,
                  stop="") -> Iterator[str]:  # fmt: skip
    """The text that a model writes after a prompt, in pieces as they come: at most `length` tokens.

    prompt : text; without one, the model begins after a line break or, where it knows none or hardly met one, after a
        space, so that words begin there; after its first token where it knows neither.
    temperature, top_k, top_p, ban, seed : as for `Model.generate`.
    stop : the text ends as soon as it contains these characters, which are its last ones. It also ends at the
        vocabulary's end token.

    Raises before the first piece: ValueError for a model without a vocabulary or a prompt with unknown characters, and
    as `Model.generate` does.
    """
    vocabulary = model.vocabulary
    if vocabulary is None:
        raise ValueError("model: expected one with a vocabulary, trained on text, got one without")
    begin = vocabulary.encode(prompt, name="prompt") if prompt else [_before_words(vocabulary)]
    ends = () if vocabulary.end_id is None else (vocabulary.end_id,)
    ids = model.generate(begin, length, temperature=temperature, top_k=top_k, top_p=top_p, ban=ban, seed=seed,
                         stop=ends)  # fmt: skip
    pieces = vocabulary.decode_stream(ids)
    return _until(stop, pieces) if stop else pieces


def _before_words(vocabulary) -> int:
    """The id of what words begin after. Tokens other than bytes are in the order of their frequency, the commonest
    first: a line break in its rarer half has hardly been met, such as the last character of a text in one line. Among
    fewer than FEW tokens its place says nothing: there may be no more characters in a line."""
    if vocabulary.level == "byte":
        return vocabulary.index[b"\n"]
    space = vocabulary.index.get(" ", 0)
    found = vocabulary.index.get("\n", space)
    return space if " " in vocabulary.index and 2 * found > len(vocabulary) >= FEW else found


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
