"""What `cylstm classify` learns, and its file: a model, the units of its features, and the columns that it reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from cylstm import model_files, tensor_files
from cylstm.checks import describe
from cylstm.model import Model
from cylstm.scaling import Scaler

__all__ = ["Classifier", "Columns"]


@dataclass(frozen=True)
class Columns:
    """Of the table. features : of each step; without `group`, the steps of a row. left_out : as it was asked for."""

    label: str
    group: str | None
    features: tuple[str, ...]
    left_out: tuple[str, ...]

    def checked(self) -> Columns:
        """Itself, as a file claims it to be. Raises TypeError or ValueError."""
        names = (self.label, *((self.group,) if self.group is not None else ()), *self.features, *self.left_out)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"columns: expected names, got {describe(self)}")
        if not self.features or len(set(names)) < len(names):
            raise ValueError(f"columns: expected different ones, and a feature at least, got {names}")
        return self


@dataclass
class Classifier:
    """A Model with labels and output="last", and the Scaler of its features (F,)."""

    model: Model
    scaler: Scaler
    columns: Columns

    def inputs(self, rows) -> list[np.ndarray]:
        """Sequences (T_n, F), float64 as they were read, as the model takes them."""
        return [row.astype(np.float32) for row in self.scaler.transform(rows)]

    def predict_proba(self, rows) -> np.ndarray:
        """(N, K) of sequences (T_n, F)."""
        return self.model.predict_proba(self.inputs(rows))

    def save(self, path) -> None:
        """Write everything to a safetensors file, atomically. Raises OSError."""
        model = self.model
        tensors = {f"model.{name}": model.parameters.raw(name) for name in model.parameters}
        tensors.update({f"scaler.{name}": values for name, values in self.scaler.state().items()})
        header = {"model": {**model.header(), "trained": model.trained.to_dict()}, "columns": asdict(self.columns)}
        tensor_files.write_tensors(path, "classifier", header, tensors)

    @classmethod
    def load(cls, path) -> Classifier:
        """Read one that was written by `save`. Raises OSError, or ValueError for a file that is anything else."""
        with tensor_files.open_tensors(path, "classifier") as file:
            try:
                return cls._read(file)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise ValueError(f"{path}: expected a classifier as it was saved, got one that is damaged ({error})") \
                    from None  # fmt: skip

    @classmethod
    def _read(cls, file):
        prefix = "model."
        shapes = {name.removeprefix(prefix): shape for name, shape in file.shapes.items() if name.startswith(prefix)}
        model = model_files.from_header(Model, file.path, file.header["model"], shapes)
        if model.labels is None or model.output != "last":
            raise ValueError(f"expected a model of labels for whole sequences, got {model!r}")
        for name, shape in model.parameters.layout.items():
            model.parameters.raw(name)[:] = file.read(prefix + name, shape, model.dtype)
        model.parameters.touch()
        given = {name: tuple(value) if isinstance(value, list) else value
                 for name, value in file.header["columns"].items()}  # fmt: skip
        columns = Columns(**given).checked()
        if model.input_size != (len(columns.features) if columns.group is not None else 1):
            raise ValueError(f"expected columns for {model.input_size} features, got {describe(columns.features)}")
        scaler = Scaler(**{name: file.read(f"scaler.{name}", (model.input_size,), np.dtype(np.float64))
                           for name in ("center", "scale")})  # fmt: skip
        return cls(model, scaler, columns)
