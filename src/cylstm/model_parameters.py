"""Which parameters a model has, and the weights it begins with."""

from __future__ import annotations

from cylstm import dense, heads, inputs
from cylstm.cell import VARIANTS, CellType, hidden_sizes
from cylstm.lstm import LSTM

__all__ = ["FIXED", "initialise", "layout_of"]

# What a model is made with and stays: weights, files and checks depend on it.
FIXED = frozenset((
    "input_size", "hidden_size", "output_size", "num_layers", "bidirectional", "embedding_size", "output", "loss",
    "horizon", "labels", "head_bias", "heads", "kinds", "forget_bias", "dtype", "vocabulary", "lstm", "parameters",
    "in_training", "before", "after", "embeddings", "inputs", "behind", "tied", *VARIANTS,
))  # fmt: skip


def layout_of(input_size, hidden_size, of_heads, *, num_layers=1, bidirectional=False, embedding_size=None,
              embeddings=None, before=(), after=(), tied=False, **variant) -> dict[str, tuple[int, ...]]:  # fmt: skip
    """Names and shapes of the parameters in the order of the flat buffer, from arguments of `Model`; of_heads: Heads by
    name. Raises TypeError or ValueError."""
    embeddings = inputs.as_embeddings(embeddings, input_size)
    before, after = dense.as_layers("before", before), dense.as_layers("after", after)
    shapes = inputs.layout(input_size, embedding_size, embeddings, before)
    width = dense.width_of(before, inputs.width_of(input_size, embedding_size, embeddings))
    inside = LSTM.layout(width, hidden_size, num_layers, bidirectional=bidirectional, **variant)
    shapes.update({f"lstm.{name}": shape for name, shape in inside.items()})
    last = hidden_sizes(hidden_size, num_layers)[-1]
    width = CellType(**variant).output_size(last, 2 if bidirectional else 1)
    shapes.update(dense.layout("after", after, width))
    table = shapes.get("embedding.weight") if tied else None
    if tied and table is None:
        raise ValueError("tied: expected an embedding, whose table is the head's weight, got none (embedding_size)")
    return {**shapes, **heads.layout_of(of_heads, dense.width_of(after, width), table)}


def initialise(model, rng) -> None:
    """Draw all weights but those of the LSTM, which has its own: the embeddings' with standard deviation 1, those of
    heads and dense layers as these have it. What came to models later is drawn last: without it, a seed gives the
    weights it gave."""
    if model.embedding_size is not None:
        table = model.parameters.raw("embedding.weight")
        table[:] = rng.standard_normal(table.shape)
    heads.initialise(model.parameters, model.heads, rng)
    for later in (model.inputs, model.behind):
        if later is not None:
            later.initialise(rng)
    model.parameters.touch()
