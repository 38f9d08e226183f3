"""A whole model in plain NumPy, row by row: embeddings, dense layers, the oracle's LSTM, the head, squared errors."""

import numpy as np

from cylstm import dense_oracle, oracle


def masks_of(layers, rows, rng, dtype=np.float64):
    """What dropout draws for so many rows, layer by layer."""
    return [
        (rng.random((rows, layer.size), np.float32) >= layer.dropout) / dtype(1 - layer.dropout)
        if layer.dropout
        else np.ones((rows, layer.size))
        for layer in layers
    ]


class ByNumpy:
    """Outputs and gradients of a model's weights as they are; x is ids (B, T) or numbers (B, T, I)."""

    def __init__(self, model):
        self.model = model
        self.parameters = {name: values.astype(float) for name, values in model.parameters.items()}
        self.tables = {column: self.parameters[f"embeddings.{column}.weight"] for column in model.embeddings}
        self.gradients = {name: np.zeros_like(values) for name, values in self.parameters.items()}

    def through(self, name, h, masks):
        """h through the dense layers of a name: what goes into each, and what comes out of the last."""
        inputs = [h]
        for n, layer in enumerate(getattr(self.model, name)):
            W, b = self.parameters[f"{name}.{n}.weight"], self.parameters.get(f"{name}.{n}.bias", 0.0)
            inputs.append(dense_oracle.dense(inputs[-1], W, b, layer.activation, masks[n]))
        return inputs

    def back(self, name, inputs, dy, masks):
        for n, layer in reversed(list(enumerate(getattr(self.model, name)))):
            W, b = self.parameters[f"{name}.{n}.weight"], self.parameters.get(f"{name}.{n}.bias", 0.0)
            dy, dW, db = dense_oracle.dense_backward(inputs[n], W, b, layer.activation, dy, masks[n])
            self.gradients[f"{name}.{n}.weight"] += dW
            if layer.bias:
                self.gradients[f"{name}.{n}.bias"] += db
        return dy

    def row(self, x, slopes=None, before=None, after=None):
        """One row, x (T,) or (T, I), with masks: its outputs (T, O) or (1, O). With slopes, a function that makes
        d loss / d outputs of them, adds to the gradients, and returns d loss / d x as well."""
        model, last = self.model, self.model.output == "last"
        before = before or [1.0] * len(model.before)
        after = after or [1.0] * len(model.after)
        features = dense_oracle.embedded(x, self.tables) if self.tables else x
        if model.embedding_size is not None:
            features = self.parameters["embedding.weight"][x]
        ins = self.through("before", features, before)
        inside = {n.removeprefix("lstm."): v for n, v in self.parameters.items() if n.startswith("lstm.")}
        options = dict(num_layers=model.num_layers, bidirectional=model.bidirectional)
        y, state, tape = oracle.forward(ins[-1][None], inside, None, **options)
        D = 1 + model.bidirectional
        outs = self.through("after", np.concatenate(state[0][-D:], axis=1) if last else y[0], after)
        W, b = self.parameters["head.weight"], self.parameters.get("head.bias", 0.0)
        outputs = outs[-1] @ W.T + b
        if slopes is None:
            return outputs
        d = slopes(outputs)
        self.gradients["head.weight"] += d.T @ outs[-1]
        if model.head_bias:
            self.gradients["head.bias"] += d.sum(axis=0)
        d, dstate = self.back("after", outs, d @ W, after), None
        if last:
            dstate = np.zeros((2, *state[0].shape))
            dstate[0, -D:] = np.split(d, D, axis=1)
            d = np.zeros(y.shape[1:])
        dx, _, inner = oracle.backward(tape, d[None], dstate)
        for name, values in inner.items():
            self.gradients[f"lstm.{name}"] += values
        d = self.back("before", ins, dx[0], before)
        if model.embedding_size is not None:
            np.add.at(self.gradients["embedding.weight"], x, d)
            return outputs, None
        if self.tables:
            d, of_tables = dense_oracle.embedded_backward(x, self.tables, d)
            for column, values in of_tables.items():
                self.gradients[f"embeddings.{column}.weight"] += values
        return outputs, d

    def loss_and_gradients(self, rows, targets, before=None, after=None):
        """The mean squared error of rows of their own lengths, its gradients, and those by x. masks: of all steps."""
        count, total, slopes_of_x = sum(target.size for target in targets), 0.0, []
        starts = np.cumsum([0] + [len(row) for row in rows])
        for n, (row, target) in enumerate(zip(rows, targets, strict=True)):
            steps = slice(starts[n], starts[n + 1])
            tokens = slice(n, n + 1) if self.model.output == "last" else steps
            given = [mask[steps] for mask in before or []], [mask[tokens] for mask in after or []]
            outputs, dx = self.row(row, lambda z, target=target: 2 * (z - target) / count, *given)
            total += ((outputs - target) ** 2).sum() / count
            slopes_of_x.append(dx)
        return total, self.gradients, slopes_of_x
