"""Models in files: their sizes, vocabulary and weights, alone or in a training run's checkpoint."""

from __future__ import annotations

import math

from cylstm import tensor_files
from cylstm.cell import VARIANTS
from cylstm.checks import describe, one_of
from cylstm.heads import as_heads
from cylstm.init import LATER
from cylstm.model_parameters import layout_of
from cylstm.text.vocabulary import Vocabulary
from cylstm.training.checkpoint import SavedRun, read_checkpoint

__all__ = ["from_checkpoint", "load", "save"]

# Options of a model with one head, as its Head and as a file has them; older files have not all.
ONE_HEAD = [(name, name) for name in ("output", "loss", "horizon", "labels")] + [("bias", "head_bias")]


def save(model, path) -> None:
    """`Model.save`."""
    weights = {name: model.parameters.raw(name) for name in model.parameters}
    tensor_files.write_tensors(path, "model", model.header(), weights)


def load(cls, path):
    """`Model.load`."""
    with tensor_files.open_tensors(path, "model") as file:
        model = from_header(cls, path, file.header, file.shapes)
        for name, shape in model.parameters.layout.items():
            model.parameters.raw(name)[:] = file.read(name, shape, model.dtype)
    model.parameters.touch()
    return model


def from_checkpoint(cls, checkpoint):
    """`Model.from_checkpoint`."""
    saved = checkpoint if isinstance(checkpoint, SavedRun) else read_checkpoint(checkpoint)
    model = from_header(cls, saved.path, saved.header, saved.tensors.shapes)
    values = model.parameters.raw()
    values[:] = saved.tensors.read("parameters", values.shape, values.dtype)
    model.parameters.touch()
    return model


def from_header(cls, path, header, shapes):
    """A model of the sizes that a file claims.

    shapes : of the file's tensors; they must be those of the parameters or, for a checkpoint, of all in one, before
        anything is allocated. Raises ValueError where they are not, and for a damaged header.
    """
    try:
        config, vocabulary = dict(header["config"]), header["vocabulary"]
        sizes = {name: config[name] for name in ("num_layers", "bidirectional", "embedding_size")}
        around = ("embeddings", "before", "after", "tied")
        sizes.update({name: config[name] for name in (*VARIANTS, *around) if name in config})
        one_of("dtype", config["dtype"], ("float32", "float64"))
        if config["num_layers"] == 1 and config["dropout"] > 0:  # as it once could be, to no effect
            config["dropout"] = 0.0
        if config["num_layers"] > sum(math.prod(shape) for shape in shapes.values()):
            raise ValueError(f"{config['num_layers']} layers, but fewer numbers")
        if isinstance(config["hidden_size"], list) and len(config["hidden_size"]) != config["num_layers"]:
            raise ValueError(f"{config['num_layers']} layers, but widths of {len(config['hidden_size'])}")
        heads = as_heads(config["output_size"], **{name: config[key] for name, key in ONE_HEAD if key in config})
        layout = layout_of(config["input_size"], config["hidden_size"], heads, **sizes)
        total = (sum(math.prod(shape) for shape in layout.values()),)
        if shapes not in (layout, {**shapes, "parameters": total}):
            raise ValueError(f"tensors {describe(shapes)} do not fit the sizes {config}")
        vocabulary = None if vocabulary is None else Vocabulary.from_json(vocabulary)
        return cls(**config, vocabulary=vocabulary, seed=LATER)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected the header of a cylstm model, got one that is damaged ({error})") from None
