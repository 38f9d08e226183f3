"""Networks as models, and models as networks."""

from __future__ import annotations

import warnings
from dataclasses import fields

from cylstm import dense
from cylstm.cell import SUFFIXES
from cylstm.checks import describe, flag
from cylstm.exchange.network import (
    WEIGHTS,
    Dense,
    Direction,
    Embedding,
    Network,
    Recurrent,
    expect_alike,
    parted,
    tell_turned,
)
from cylstm.heads import Head
from cylstm.init import LATER
from cylstm.losses import as_loss
from cylstm.lstm import LSTM
from cylstm.model import Model
from cylstm.text.vocabulary import Vocabulary

__all__ = ["model_of", "network_of"]

# The loss of a model whose outputs go through this, where notes say no other; and what the outputs of a model with some
# loss go through, where `predict_proba` has any.
LOSSES = {"linear": "mse", "softmax": "cross_entropy", "sigmoid": "binary_cross_entropy"}
FINAL = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid", "ctc": "softmax"}


def model_of(network: Network) -> Model | LSTM:
    """The model that computes what a network does, or the layer where it has LSTM layers alone.

    Its loss is that of the notes, or follows from what stands last: softmax is "cross_entropy", sigmoid
    "binary_cross_entropy", nothing "mse". `predict_proba` gives what comes out of the first two. Raises ValueError for
    what no model has, by its name.
    """
    table, before, recurrent, after = parted(network)
    first = recurrent[0]
    tell_turned("network", network.notes, kept=("time_major",))  # whoever calls a model gives it rows
    expect_alike(recurrent, widths=False)
    for n, layer in enumerate(recurrent):
        expect_residual(n, layer, recurrent[-1].residual)
    sizes = tuple(layer.hidden_size for layer in recurrent)
    options = {"num_layers": len(recurrent), "bidirectional": len(first.directions) == 2, "coupled": first.coupled,
               "cell_clip": first.cell_clip, "activations": first.activations, "gate_clip": first.gate_clip,
               "peepholes": any(one.peephole is not None for layer in recurrent for one in layer.directions),
               "reverse": first.reverse, "first_state": any(map(begins_with_numbers, recurrent)),
               "proj_size": first.proj_size, "merge": first.merge, "residual": recurrent[-1].residual,
               "dropout": dropout_of(recurrent, after), "dtype": network.dtype}  # fmt: skip
    if not (table or before or after):
        bias = any(one.bias is not None for layer in recurrent for one in layer.directions)
        if recurrent[-1].last:
            warnings.warn("network: gives its last output alone; a layer gives all, and the last ones as its state",
                          stacklevel=4)  # fmt: skip
        if names := [name for name in ("loss", "labels", "vocabulary") if name in network.notes]:
            warnings.warn(f"network: left out, as a layer has no place for it: {', '.join(names)}", stacklevel=4)
        lstm = LSTM(first.directions[0].weight_ih.shape[1], sizes, bias=bias, seed=LATER, **options)
        fill_layers(lstm.parameters, recurrent, "")
        return lstm
    if not after:
        raise ValueError("network: expected a dense layer behind the LSTM, a model's head, got none")
    *behind, head = after
    if head.activation not in LOSSES:
        raise ValueError(f"last layer: expected no activation, softmax or sigmoid, got {head.activation}")
    inputs = (
        table.weight.shape[0] if table else (before[0].weight if before else first.directions[0].weight_ih).shape[1]
    )
    output = "last" if recurrent[-1].last else "sequence"
    model = Model(inputs, sizes, head.width, output=output, embedding_size=table.width if table else None,
                  head_bias=head.bias is not None, before=as_dense(before), after=as_dense(behind), seed=LATER,
                  **described(network.notes, head, output), **options)  # fmt: skip
    values = model.parameters
    if table:
        values.raw("embedding.weight")[...] = table.weight
    for name, layers in (("before", before), ("after", behind)):
        for n, layer in enumerate(layers):
            fill_dense(values, f"{name}.{n}", layer)
    fill_dense(values, "head", head)
    fill_layers(values, recurrent, "lstm.")
    values.touch()
    return model


def described(notes, head, output):
    """A model's loss, labels and vocabulary from notes, which may come from a stranger. Raises ValueError."""
    labels, vocabulary = notes.get("labels"), notes.get("vocabulary")
    try:
        loss = as_loss(notes.get("loss", LOSSES[head.activation]))
        labels = Head(head.width, loss=loss, output=output, labels=labels).labels
    except TypeError as error:
        raise ValueError(str(error)) from None
    if head.activation not in ("linear", FINAL.get(loss.name)):
        raise ValueError(f"loss: expected one whose outputs go through {head.activation}, got {loss.name!r}")
    if vocabulary is not None and not isinstance(vocabulary, str):
        raise ValueError(f"vocabulary: expected JSON, got {describe(vocabulary)}")
    return {"loss": loss, "labels": labels,
            "vocabulary": None if vocabulary is None else Vocabulary.from_json(vocabulary)}  # fmt: skip


def expect_residual(n, layer, residual):
    """ValueError unless layer n adds its inputs to its outputs, as all do from the second one on, or as none does."""
    if layer.residual != (n > 0 and residual):
        told = "its inputs added, as by the last one" if n and residual else "no inputs added"
        raise ValueError(f"LSTM layer {n}: expected outputs with {told}, got others")


def begins_with_numbers(layer):
    """Whether sequences begin with another state than zeros."""
    return any(state is not None and state.any() for one in layer.directions for state in (one.h0, one.c0))


def dropout_of(recurrent, after) -> float:
    """The one dropout between all LSTM layers; where a network has others, which a model cannot, a warning says so."""
    between = {layer.dropout for layer in recurrent[:-1]}
    if len(between) > 1 or any(layer.dropout for layer in (recurrent[-1], *after[-1:])):
        places = {f"LSTM layer {n}": layer.dropout for n, layer in enumerate(recurrent)}
        places["the last dense layer"] = after[-1].dropout if after else 0.0
        shares = ", ".join(f"{share:g} behind {place}" for place, share in places.items() if share)
        warnings.warn("network: expected one dropout between all LSTM layers, and none behind the last one or the last "
                      f"dense layer, got {shares}: others are left out", stacklevel=5)  # fmt: skip
    return between.pop() if len(between) == 1 else 0.0


def as_dense(layers):
    """Arguments of a model for dense layers with these weights."""
    return [dense.Dense(layer.width, layer.activation, layer.dropout, layer.bias is not None) for layer in layers]


def fill_dense(values, name, layer):
    """Weights of a dense layer or a head into a model's parameters."""
    values.raw(f"{name}.weight")[...] = layer.weight
    if layer.bias is not None:
        values.raw(f"{name}.bias")[...] = layer.bias


def fill_layers(values, recurrent, prefix):
    """Weights of all LSTM layers; a bias, peephole or first state that a direction lacks is 0."""
    for n, layer in enumerate(recurrent):
        for one, suffix in zip(layer.directions, SUFFIXES, strict=False):
            for part, name in WEIGHTS.items():
                full = f"{prefix}{name}_l{n}{suffix}"
                if full in values:
                    weight = getattr(one, part)
                    values.raw(full)[...] = 0 if weight is None else weight
    values.touch()


# --- from a model -----------------------------------------------------------------------------------------------------


def network_of(model: Model | LSTM, *, probabilities: bool = True) -> Network:
    """The network of a model or a layer, whose weights it copies. probabilities: what comes out is what `predict_proba`
    gives, for losses that have that, and not `model(x)`. Raises ValueError for what no network has, by its name."""
    flag("probabilities", probabilities)
    if isinstance(model, LSTM):
        say_left_out(model)
        return Network(tuple(layers_of(model, last=False)))
    if not isinstance(model, Model):
        raise TypeError(f"model: expected a cylstm.Model or LSTM, got {describe(model)}")
    if model.only is None:
        raise ValueError(f"model: expected one head, got {len(model.heads)}: {', '.join(model.heads)}")
    if model.embeddings:
        raise ValueError(f"embeddings: expected none of columns, got those of {', '.join(map(str, model.embeddings))}")
    if model.horizon is not None:
        raise ValueError(f"horizon: expected None, got {model.horizon}")
    say_left_out(model.lstm, embedding_dropout=model.embedding_dropout)
    values = {name: model.parameters.raw(name).copy() for name in model.parameters}

    def dense_of(name, activation, dropout=0.0):
        return Dense(values[f"{name}.weight"], values.get(f"{name}.bias"), activation, dropout)

    before, after = (
        [dense_of(f"{name}.{n}", layer.activation, layer.dropout) for n, layer in enumerate(layers)]
        for name, layers in (("before", model.before), ("after", model.after))
    )
    table = [] if model.embedding_size is None else [Embedding(values["embedding.weight"])]
    final = FINAL.get(model.loss.name, "linear") if probabilities else "linear"
    notes = {} if model.loss.config == LOSSES[final] else {"loss": model.loss.config}
    if model.labels is not None:
        notes["labels"] = list(model.labels)
    if model.vocabulary is not None:
        notes["vocabulary"] = model.vocabulary.to_json()
    recurrent = layers_of(model.lstm, last=model.output == "last")
    values.setdefault("head.weight", values.get("embedding.weight"))  # tied: each has a copy of the one table
    return Network((*table, *before, *recurrent, *after, dense_of("head", final)), notes)


def say_left_out(lstm, **shares):
    """Warns of what training drops and a network has no word for; it is nothing that the outputs know of. Raises
    ValueError for zoneout, which they do."""
    if any(lstm.zoneout):
        raise ValueError(f"zoneout: expected (0, 0), since networks have none, got {lstm.zoneout}")
    shares = {**lstm.drops.config, **shares}
    names = [name for name, share in shares.items() if share and not isinstance(share, str)]
    if names:
        warnings.warn(f"{', '.join(names)}: of training alone, left out of the network", stacklevel=4)


# What of a cell a network has words for.
KNOWN = {
    "bias", "peepholes", "coupled", "cell_clip", "activations", "gate_clip", "first_state", "reverse", "proj_size",
    "merge", "residual",
}  # fmt: skip


def layers_of(lstm, last):
    """The layers of an LSTM, with copies of their weights. Raises ValueError for a cell that no network has."""
    for field in fields(lstm.cell):
        value = getattr(lstm.cell, field.name)
        if field.name not in KNOWN and value != field.default:
            raise ValueError(f"{field.name}: expected {field.default!r}, since networks have none, got {value!r}")

    def direction(ending):
        given = {part: f"{name}{ending}" for part, name in WEIGHTS.items()}
        return Direction(**{name: lstm.parameters.raw(full).copy() for name, full in given.items()
                            if full in lstm.parameters})  # fmt: skip

    L = lstm.num_layers
    return [
        Recurrent(
            tuple(direction(f"_l{n}{suffix}") for suffix in SUFFIXES[: lstm.num_directions]),
            lstm.cell.coupled, lstm.cell.cell_clip, lstm.dropout if n < L - 1 else 0.0, last and n == L - 1,
            lstm.cell.activations, lstm.cell.gate_clip, lstm.cell.reverse, lstm.cell.merge,
            lstm.cell.residual and n > 0,
        )
        for n in range(L)
    ]  # fmt: skip
