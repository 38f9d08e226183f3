"""What the configurations of Keras's layers say, one after the other.

Each option is one of four things: needed, without meaning for a layer's outputs (HARMLESS), of training alone (told,
and left out), or refused by its name. Formulas: keras.layers and keras.activations of Keras 2 and 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cylstm.activations import as_cell, name_of
from cylstm.checks import describe, positive_int, real_in
from cylstm.exchange.keras_activations import (
    LAYERS_OF_ACTIVATIONS,
    LAYERS_OF_CELLS,
    NAMES,
    OF_CELLS,
    activation_of_layer,
    named,
)

__all__ = ["LAYERS", "MERGE_MODES", "Options", "Planned", "Told", "expected"]

# Options that do not change what a trained layer computes.
HARMLESS = (
    "name", "seed", "unroll", "implementation", "use_cudnn", "batch_shape", "batch_input_shape", "input_shape",
    "input_length", "optional", "kernel_initializer", "recurrent_initializer", "bias_initializer",
    "embeddings_initializer", "unit_forget_bias", "zero_output_for_mask", "return_state", "build_config",
)  # fmt: skip
TRAINING_ALONE = (
    "activity_regularizer", "kernel_regularizer", "recurrent_regularizer", "bias_regularizer",
    "embeddings_regularizer", "kernel_constraint", "recurrent_constraint", "bias_constraint", "embeddings_constraint",
)  # fmt: skip
HALVES = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")  # what layers compute in; weights may be float32
REAL_TYPES = (*HALVES, "float32", "float64")
# Bidirectional's, and what they are called here.
MERGE_MODES = {"concat": "concat", "sum": "sum", "ave": "mean", "mul": "product"}


@dataclass
class Told:
    """What is told once a file is read: options that a network does not have, and what is left to the caller. major:
    of Keras's version, 2 or 3, or None where the file does not say. policies: by which layers compute in half
    precision."""

    major: int | None = None
    left_out: list[str] = field(default_factory=list)
    masked: list[str] = field(default_factory=list)
    yours: list[str] = field(default_factory=list)
    policies: set[str] = field(default_factory=set)

    def text(self) -> str:
        parts = list(self.yours)
        if self.policies:
            parts.append(f"computed in half precision there ({', '.join(sorted(self.policies))}), in float32 here")
        if self.masked:
            parts.append(f"masks ({', '.join(self.masked)}) are yours to give, by lengths= or mask=")
        if self.left_out:
            parts.append(f"left out, as training alone knows it: {', '.join(self.left_out)}")
        return "; ".join(parts)


@dataclass
class Planned:
    """A layer with weights. kind: "Embedding", "Dense", "LSTM", "CuDNNLSTM" or "Bidirectional". group: what its class
    is called in .weights.h5; parts: where in there its arrays stand. units: H, O, or (V, E) of an embedding.
    activations: of an LSTM's cell, reverse, and merge of its directions, as `Recurrent` has them."""

    name: str
    kind: str
    group: str
    parts: tuple[str, ...]
    units: int | tuple[int, int]
    bias: bool = True
    activation: str | tuple = "linear"
    dropout: float = 0.0
    last: bool = False
    activations: tuple | None = None
    reverse: bool = False
    merge: str = "concat"

    @property
    def arrays(self) -> dict:
        """Names and shapes of one part's arrays, None where another layer decides."""
        if self.kind == "Embedding":
            return {"embeddings": self.units}
        H = self.units
        if self.kind == "Dense":
            shapes = {"kernel": (None, H), "bias": (H,)}
        else:
            G = 4 * H
            shapes = {"kernel": (None, G), "recurrent_kernel": (H, G), "bias": (G,)}
            if self.kind == "CuDNNLSTM":
                shapes["bias"] = (2 * G,)
        return shapes if self.bias else {name: shape for name, shape in shapes.items() if name != "bias"}


class Options:
    """One layer's options, each to be taken once."""

    def __init__(self, layer, told):
        self.told = told
        self.class_name = expected(layer, "class_name", str, "a layer")
        config = expected(layer, "config", dict, self.class_name)
        self.left = dict(config)
        self.name = config.get("name", self.class_name)
        if not isinstance(self.name, str) or not self.name.isprintable() or len(self.name) > 200:
            raise ValueError(f"{self.class_name}: expected a name, got {describe(self.name)}")
        module, registered = layer.get("module") or "keras", layer.get("registered_name") or self.class_name
        if str(module).split(".")[0] not in ("keras", "tf_keras", "tensorflow") or registered != self.class_name:
            self.refuse("a layer of Keras", f"{registered} of {module}")

    def refuse(self, what, got):
        told = got if isinstance(got, str) and got.isprintable() and len(got) <= 200 else describe(got)
        raise ValueError(f"{self.name}: expected {what}, got {told}")

    def take(self, key, default=None):
        return self.left.pop(key, default)

    def size(self, key) -> int:
        try:
            return positive_int(f"{self.name}: {key}", self.take(key))
        except TypeError as error:
            raise ValueError(str(error)) from None

    def share(self, key) -> float:
        """A share that is dropped."""
        try:
            return real_in(f"{self.name}: {key}", self.take(key, 0.0) or 0.0, 0, 1, open_high=True)
        except TypeError as error:
            raise ValueError(str(error)) from None

    def flag(self, key, default=False) -> bool:
        value = self.take(key, default)
        if not isinstance(value, bool):
            self.refuse(f"{key} true or false", value)
        return value

    def must_be(self, key, needed, default=None):
        value = self.take(key, default)
        if value != needed:
            self.refuse(f"{key} {needed}", value)

    def done(self):
        """What every layer may have; ValueError for what is then left."""
        for key in TRAINING_ALONE:
            value = self.take(key)
            if value:
                self.told.left_out.append(f"{key} of {self.name}")
        if self.take("trainable", True) is False:
            self.told.left_out.append(f"trainable=False of {self.name}")
        policy = self.take("dtype", "float32")
        policy = policy.get("config", policy) if isinstance(policy, dict) else policy
        policy = policy.get("name") if isinstance(policy, dict) else policy
        if policy is not None and policy not in REAL_TYPES:
            self.refuse(f"dtype one of {', '.join(REAL_TYPES)}", policy)
        if policy in HALVES:
            self.told.policies.add(policy)
        for key, value in self.left.items():
            if key not in HARMLESS and value is not None and value is not False:
                self.refuse(f"no option {str(key)[:40]!r}, which is not known here", value)


def expected(holder, key, kind, what):
    """An entry of JSON, which must be of a kind."""
    value = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"{what}: expected {key} in the configuration, got {describe(value)}")
    return value


def activation_of(options, given, what="an activation", names=tuple(NAMES), layers=tuple(LAYERS_OF_ACTIVATIONS)):
    """Ours for an activation's name or layer, of those that may stand there. Raises ValueError, by its name, for
    another formula."""
    if given is None:
        return "linear"
    kind = given.get("class_name") if isinstance(given, dict) else None
    if kind in layers:
        return activation_of_layer(Options(given, options.told))
    if kind is not None and kind not in tuple(LAYERS_OF_ACTIVATIONS):  # a function of its user's, whatever it is called
        options.refuse("an activation of Keras", f"{kind} {given.get('config')}")
    if not isinstance(given, str) or given not in names:
        options.refuse(f"{what} of {', '.join(names)}, or a layer of {', '.join(layers)}", kind or given)
    if given == "hard_sigmoid" and options.told.major is None:
        options.refuse(
            "version= 2 or 3, as hard_sigmoid is another function in each", "a file that does not say its own"
        )
    return named(given, options.told.major)


# --- layers -----------------------------------------------------------------------------------------------------------


def input_layer(options, plan):
    for key in ("sparse", "ragged"):
        if options.take(key):
            options.refuse(f"{key} false", True)
    options.take("dtype")  # ids may be of any
    options.done()


def embedding(options, plan):
    if plan:
        options.refuse("an embedding first of all layers", f"one behind {plan[-1].name}")
    V, E = options.size("input_dim"), options.size("output_dim")
    if options.take("mask_zero"):
        options.told.masked.append(f"mask_zero of {options.name}")
    options.done()
    plan.append(Planned(options.name, "Embedding", "embedding", ("",), (V, E)))


def dense_layer(options, plan, group="dense", inner="", name=None):
    units, bias = options.size("units"), options.flag("use_bias", True)
    activation = activation_of(options, options.take("activation"))
    options.done()
    plan.append(Planned(name or options.name, "Dense", group, (inner,), units, bias, activation))


def time_distributed(options, plan):
    inner = Options(expected(options.left, "layer", dict, options.name), options.told)
    if inner.class_name != "Dense":
        options.refuse("a Dense layer in it", inner.class_name)
    options.take("layer")
    options.done()
    dense_layer(inner, plan, "time_distributed", "layer", options.name)


def cell_activations(options):
    """Those of an LSTM layer as `Recurrent` has them: Keras has one for the cell's input and its output."""
    found = []
    for key in ("recurrent_activation", "activation"):
        given = options.take(key)
        if given is None:
            options.refuse(f"{key}, by its name", given)
        found.append(activation_of(options, given, key, OF_CELLS, LAYERS_OF_CELLS))
    return as_cell(options.name, (found[0], found[1], found[1]))


def lstm_options(options, backwards=False):
    """(units, bias, return_sequences, activations) of an LSTM layer; what the cell here does not do is refused by its
    name."""
    if options.class_name not in ("LSTM", "CuDNNLSTM"):
        options.refuse("an LSTM layer", options.class_name)
    activations = cell_activations(options) if options.class_name == "LSTM" else None  # cuDNN has the plain ones alone
    options.must_be("go_backwards", backwards, False)
    options.must_be("time_major", False, False)
    if options.take("stateful"):
        options.told.yours.append(f"the state of {options.name}, which is stateful, is yours to hand on")
    for key in ("dropout", "recurrent_dropout"):
        if share := options.share(key):
            options.told.left_out.append(f"{key} {share:g} of {options.name}")
    sizes = options.size("units"), options.flag("use_bias", True), options.flag("return_sequences")
    options.done()
    return *sizes, activations


def lstm_layer(options, plan):
    reverse = options.left.get("go_backwards") is True
    units, bias, sequences, activations = lstm_options(options, reverse)
    if reverse and sequences:
        options.refuse("return_sequences False with go_backwards, whose outputs begin with the last step's", sequences)
    plan.append(Planned(options.name, options.class_name, "lstm", ("cell",), units, bias, last=not sequences,
                        activations=activations, reverse=reverse))  # fmt: skip


def bidirectional(options, plan):
    mode = options.take("merge_mode", "concat")
    if mode not in tuple(MERGE_MODES):
        options.refuse(f"merge_mode {', '.join(MERGE_MODES)}", mode)
    layers = [expected(options.left, "layer", dict, options.name)]
    if options.left.get("backward_layer") is not None:
        layers.append(expected(options.left, "backward_layer", dict, options.name))
    found = [lstm_options(Options(layer, options.told), bool(n)) for n, layer in enumerate(layers)]
    kinds = {layer["class_name"] for layer in layers}
    if len({*found}) != 1 or kinds != {"LSTM"}:
        options.refuse("two LSTM layers of the same options", f"{', '.join(sorted(kinds))} with {found}")
    for key in ("layer", "backward_layer"):
        options.take(key)
    for key in ("return_sequences", "return_state", "stateful", "go_backwards"):
        options.must_be(key, inner := layers[0]["config"].get(key, False), inner)  # some repeat the forward layer's
    options.done()
    units, bias, sequences, activations = found[0]
    parts = ("forward_layer/cell", "backward_layer/cell")
    plan.append(Planned(options.name, "Bidirectional", "bidirectional", parts, units, bias, last=not sequences,
                        activations=activations, merge=MERGE_MODES[mode]))  # fmt: skip


def dropout(options, plan):
    """Of the outputs of a dense layer or of an LSTM layer, where a network has it."""
    share, shape = options.share("rate"), options.take("noise_shape")
    options.done()
    before = plan[-1] if plan else None
    if not share:
        return
    if shape is None and before is not None and before.kind != "Embedding" and not before.dropout:
        before.dropout = share
    else:
        options.told.left_out.append(f"{options.name} of {share:g}")


def training_alone(options, plan):
    options.told.left_out.append(f"{options.class_name} {options.name}")


def masking(options, plan):
    options.told.masked.append(f"{options.class_name} {options.name}")


def activation_layer(options, plan):
    if options.class_name == "Activation":
        ours = activation_of(options, options.take("activation"))
        options.done()
    else:
        ours = activation_of_layer(options)
    if ours == "linear":
        return
    if not plan or plan[-1].kind != "Dense" or plan[-1].activation != "linear":
        behind = "nothing" if not plan else plan[-1].name
        options.refuse("a dense layer without an activation before it", behind)
    if plan[-1].dropout and name_of(ours) not in ("relu", "leaky_relu"):  # f(m z) = m f(z) for these two
        options.told.left_out.append(f"dropout {plan[-1].dropout:g} before {options.name}")
        plan[-1].dropout = 0.0
    plan[-1].activation = ours


LAYERS = {
    "InputLayer": input_layer, "Embedding": embedding, "Dense": dense_layer, "TimeDistributed": time_distributed,
    "LSTM": lstm_layer, "CuDNNLSTM": lstm_layer, "Bidirectional": bidirectional, "Dropout": dropout,
    "SpatialDropout1D": training_alone, "GaussianNoise": training_alone, "GaussianDropout": training_alone,
    "AlphaDropout": training_alone, "ActivityRegularization": training_alone, "Masking": masking,
    "Activation": activation_layer, **dict.fromkeys(LAYERS_OF_ACTIVATIONS, activation_layer),
}  # fmt: skip
