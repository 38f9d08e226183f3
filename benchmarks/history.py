"""What asv keeps across commits: `asv run`, `asv publish`, `asv compare`. The shapes are those of every benchmark."""

import subprocess
import sys

import numpy as np

from benchmarks.shapes import BY_NAME
from cylstm import LSTM, Adam, Model

LAYERS = ["toy", "audio", "series", "char", "long1"]  # the larger ones take too long for every commit
STEPS = ["step32", "step128", "step256"]


class Layer:
    """The layer over whole sequences, float32."""

    params = (LAYERS,)
    param_names = ("shape",)

    def setup(self, name):
        shape = BY_NAME[name]
        rng = np.random.default_rng(1)
        widths = (shape.I, shape.H)
        self.x, self.dy = (rng.standard_normal((shape.B, shape.T, width)).astype(np.float32) for width in widths)
        self.layer = LSTM(shape.I, shape.H, shape.L, seed=1)

    def time_inference(self, name):
        self.layer(self.x)

    def time_training(self, name):
        self.layer.backward(self.layer.forward(self.x)[2], self.dy)

    def peakmem_inference(self, name):
        self.layer(self.x)

    def peakmem_training(self, name):
        self.layer.backward(self.layer.forward(self.x)[2], self.dy)


class Step:
    """One call per step, the state written over."""

    params = (STEPS,)
    param_names = ("shape",)

    def setup(self, name):
        shape = BY_NAME[name]
        self.layer = LSTM(shape.I, shape.H, shape.L, seed=1)
        self.x, self.state = np.ones((shape.B, shape.I), np.float32), self.layer.initial_state(shape.B)

    def time_step(self, name):
        self.layer.step(self.x, self.state, out=self.state)


class Update:
    """Epochs of `fit` on ids, ten updates each: gradients, clipping, Adam."""

    def setup(self):
        shape = BY_NAME["char"]
        ids = np.random.default_rng(1).integers(0, shape.I, (shape.B, 10 * shape.T + 1))
        self.x, self.y, self.steps = ids[:, :-1], ids[:, 1:], shape.T
        self.model = Model(shape.I, shape.H, shape.I, num_layers=shape.L, seed=1)

    def fit(self):
        self.model.fit(self.x, self.y, epochs=1, tbptt=self.steps, optimizer=Adam(), shuffle=False, progress=False)

    def time_ten_updates(self):
        self.fit()

    def peakmem_ten_updates(self):
        self.fit()


class Import:
    """A new interpreter, with nothing but the package in it."""

    def time_import(self):
        subprocess.run([sys.executable, "-c", "import cylstm"], check=True)

    def track_modules(self):
        """Modules that come with the import."""
        code = "import sys, cylstm; print(len(sys.modules))"
        return int(subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout)

    track_modules.unit = "modules"
