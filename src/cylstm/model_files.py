"""Models in files: their sizes, vocabulary and weights, alone or in a training run's checkpoint."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from cylstm import tensor_files
from cylstm.cell import VARIANTS
from cylstm.checks import describe, one_of
from cylstm.heads import as_heads
from cylstm.init import LATER
from cylstm.model_parameters import layout_of
from cylstm.small_parameters import PRECISIONS, SmallParameters, is_small, type_of
from cylstm.text.vocabulary import Vocabulary
from cylstm.training.checkpoint import SavedRun, read_checkpoint
from cylstm.training.record import Trained

__all__ = ["from_checkpoint", "load", "save"]

SCALE = ".scale"  # what the scales of an int8 matrix have behind its name

# Options of a model with one head, as its Head and as a file has them; older files have not all.
ONE_HEAD = [(name, name) for name in ("output", "loss", "horizon", "labels")] + [("bias", "head_bias")]


def save(model, path) -> None:
    """`Model.save`."""
    parameters, header = model.parameters, model.header()
    if model.trained is not None:
        header["trained"] = model.trained.to_dict()
    if isinstance(parameters, SmallParameters):
        header["precision"] = parameters.precision
        scales = {name + SCALE: values for name, values in parameters.scales.items()}
        weights = {**parameters.stored, **scales}
    else:
        weights = {name: parameters.raw(name) for name in parameters}
    tensor_files.write_tensors(path, "model", header, weights)


def load(cls, path):
    """`Model.load`."""
    with tensor_files.open_tensors(path, "model") as file:
        if "precision" in file.header:
            shapes = dict(file.shapes)
            if file.header["precision"] not in ("float16", "bfloat16"):
                shapes = {name: shape for name, shape in shapes.items() if not scales_of(name, shapes)}
            return from_header(cls, path, file.header, shapes, partial(read_small, file))
        model = from_header(cls, path, file.header, file.shapes)
        for name, shape in model.parameters.layout.items():
            model.parameters.raw(name)[:] = file.read(name, shape, model.dtype)
    model.parameters.touch()
    return model


def scales_of(name, shapes) -> bool:
    """Whether a tensor is the scales of one of the file's int8 matrices, and not one that nobody knows."""
    matrix = name.removesuffix(SCALE)
    return matrix != name and matrix in shapes and is_small(matrix)


def read_small(file, layout) -> SmallParameters:
    """The parameters of a file whose matrices are in fewer bits. Raises ValueError."""
    precision = one_of("precision", file.header["precision"], PRECISIONS)
    stored = {name: file.read(name, shape, type_of(name, precision)) for name, shape in layout.items()}
    scales = {
        name: file.read(name + SCALE, shape[:1], np.dtype(np.float32))
        for name, shape in layout.items()
        if precision == "int8" and is_small(name)
    }
    return SmallParameters(layout, precision, stored, scales).checked()


def from_checkpoint(cls, checkpoint):
    """`Model.from_checkpoint`."""
    saved = checkpoint if isinstance(checkpoint, SavedRun) else read_checkpoint(checkpoint)
    model = from_header(cls, saved.path, saved.header, saved.tensors.shapes)
    values = model.parameters.raw()
    values[:] = saved.tensors.read("parameters", values.shape, values.dtype)
    model.parameters.touch()
    return model


def from_header(cls, path, header, shapes, parameters_of=None):
    """A model of the sizes that a file claims; parameters_of: what reads its parameters, by their layout, if it does
    not make them itself.

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
        parameters = None if parameters_of is None else parameters_of(layout)
        model = cls(**config, vocabulary=vocabulary, seed=LATER, parameters=parameters)
        if "trained" in header:  # which older files have not
            model.trained = Trained.from_dict(header["trained"])
        return model
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected the header of a cylstm model, got one that is damaged ({error})") from None
