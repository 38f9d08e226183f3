"""A model: ids or features in, an optional embedding, the LSTM, a linear head, a loss; training, use and files."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np

from cylstm import dense, inputs, model_files, own_loss
from cylstm._core.blas import Linear
from cylstm._core.ragged import table_rows
from cylstm.batches import batch_of, step_outputs
from cylstm.cell import VARIANTS, hidden_sizes, one_or_each
from cylstm.checks import as_generator, describe, flag, positive_int
from cylstm.drops import DROPS, OfLayer
from cylstm.heads import as_heads, check_outputs, heads_config, of_kinds, weights_of
from cylstm.init import LATER
from cylstm.locks import Claim
from cylstm.loss_and_gradients import Result, evaluate, learn
from cylstm.lstm import LSTM
from cylstm.metrics import of_heads
from cylstm.model_parameters import FIXED, initialise, layout_of
from cylstm.own_loss import ModelTape
from cylstm.parameters import check_gradients, laid_out
from cylstm.precision import converted, fill, given_of, kept_of, precision_option
from cylstm.predictions import outputs_of, predict, probabilities
from cylstm.signatures import show_options
from cylstm.small_parameters import SmallParameters
from cylstm.state import Gradients, State
from cylstm.summary import summary
from cylstm.text.sampling import Sampler, banned_ids, expect_writer, generate
from cylstm.text.vocabulary import Vocabulary
from cylstm.training.batch_stream import data_of
from cylstm.training.dataset import Dataset
from cylstm.training.fit import fit
from cylstm.training.history import History

__all__ = ["Model", "Result"]


class Model:
    """Ids or features -> (embeddings) -> (dense layers) -> LSTM -> (dense layers) -> linear head -> loss.

    Parameters
    ----------
    input_size : int
        I, the width of the features, or V, the number of different ids.
    hidden_size : int, or a tuple of them
        H, or that of each layer, as for `LSTM`.
    output_size : int or a dict
        O, the number of outputs: classes for "cross_entropy", numbers for "mse", logits for "binary_cross_entropy". Or
        several heads by name, each a `Head` with a loss of its own: targets and outputs are dicts then, and the loss is
        the sum of theirs, each with its weight. Otherwise `output`, `loss`, `horizon`, `labels` and `head_bias` are
        those of the one head.
    num_layers, bidirectional, dropout, forget_bias, dtype
        As for `LSTM`; and so its variants (peepholes, coupled, cell_clip, activations, gate_clip, first_state, reverse,
        proj_size, proj_clip, layer_norm, merge, residual, highway), what else training drops (dropout_per,
        input_dropout, recurrent_dropout, recurrent_dropout_per, update_dropout, weight_drop) and what it keeps as it
        was (zoneout).
    embedding_size : int or None
        E: ids go through a learned table (V, E) first. Without one, ids stand for one-hot rows.
    embedding_dropout : float in [0, 1)
        The share of the table's rows that training sets to 0, each with all its occurrences in a batch; the others are
        scaled by 1/(1-p) (Gal & Ghahramani 2016; Merity, Keskar & Socher 2018).
    tied : bool
        The head's weight is the embedding's table, "embedding.weight" (Press & Wolf 2017; Inan, Khosravi & Socher
        2017): for V outputs of one head that sees E features.
    embeddings : dict or None
        {column: (V, E), ...}: columns of x (B, T, I) that hold ids in 0..V-1 beside numbers, in floating point or as
        integers. Each gives way to its row of a learned table (V, E); the other columns come first, in their order,
        then the rows, in theirs.
    before, after : list of Dense, of sizes, or of dicts of their arguments
        Dense layers of every step between the features (or embeddings) and the LSTM, and of every output of the LSTM
        (for output="last", of the last state) before the head. Ids need an embedding before `before`.
    output : "sequence" or "last"
        One output per step, or one per row from the last layer's final state (of both directions).
    loss : "cross_entropy", "mse", "mae", "huber", "quantiles", "gaussian", "binary_cross_entropy", "ctc" or a
        `losses.Loss`
        Averaged over tokens (rows, for output="last"), never over padding; over the outputs of a token, too.
    horizon, labels, head_bias
        As for `Head`.
    seed : int, None or numpy.random.Generator
        Of the initial weights and of the dropout masks.
    precision : "bfloat16", optional
        As for `LSTM`: products of the layer, of dense layers and heads are of numbers rounded to bfloat16; weights,
        their gradients and all else are float32. `model.precision` changes it.
    vocabulary : Vocabulary or None
        Kept with the model and saved in its file; lets `generate` take text.

    Notes
    -----
    `parameters` maps "embedding.weight" (or "embeddings.COLUMN.weight", ...), "before.0.weight", "before.0.bias", ...,
    "lstm.weight_ih_l0", ..., "after.0.weight", ..., "head.weight", "head.bias" to writable views; of several heads it
    has "head.NAME.weight" and "head.NAME.bias". `trained` says how `fit` last trained it, in this process or
    before it was saved: a `training.Trained` of history, options and versions; None where it never did.
    Raises TypeError or ValueError, naming the argument.
    """

    def __init__(self, input_size, hidden_size, output_size, *, num_layers=1, bidirectional=False, dropout=0.0,
                 embedding_size=None, output="sequence", loss="cross_entropy", horizon=None, labels=None,
                 head_bias=True, forget_bias=1.0, dtype="float32", seed=None, vocabulary=None, embeddings=None,
                 before=(), after=(), embedding_dropout=0.0, tied=False, parameters=None, precision=None,
                 **variant):  # fmt: skip
        for name in variant.keys() - {*VARIANTS, *DROPS}:
            raise TypeError(f"{name}: expected an argument of {type(self).__name__}, got an unknown one")
        drops = {name: variant.pop(name) for name in DROPS if name in variant}
        self.input_size = positive_int("input_size", input_size)
        self.heads = as_heads(output_size, output=output, loss=loss, horizon=horizon, labels=labels, bias=head_bias)
        self.kinds = of_kinds(self.heads)
        # What its one head is; with several, each knows for itself.
        only = self.heads.get("")
        self.output_size = only.output_size if only else dict(self.heads)
        self.output, self.loss = (only.output, only.loss) if only else (None, None)
        self.horizon, self.labels = (only.horizon, only.labels) if only else (None, None)
        self.head_bias = only.bias if only else None
        sizes = hidden_sizes(hidden_size, num_layers)
        self.hidden_size, self.num_layers = one_or_each(sizes), len(sizes)
        self.embedding_size = None if embedding_size is None else positive_int("embedding_size", embedding_size)
        self.embeddings = inputs.as_embeddings(embeddings, self.input_size)
        if self.embeddings and self.embedding_size is not None:
            raise ValueError("embeddings: expected none beside embedding_size, whose inputs are ids (B, T), "
                             f"got {dict(self.embeddings)}")  # fmt: skip
        self.before, self.after = dense.as_layers("before", before), dense.as_layers("after", after)
        self.tied = flag("tied", tied)
        if vocabulary is not None and not isinstance(vocabulary, Vocabulary):
            raise TypeError(f"vocabulary: expected a Vocabulary, got {describe(vocabulary)}")
        if vocabulary is not None and len(vocabulary) != self.input_size:
            raise ValueError(f"vocabulary: expected {self.input_size} tokens, one per id, got {len(vocabulary)}")
        self.vocabulary = vocabulary
        self.dtype = LSTM.check_dtype(dtype)
        self.spare = []  # memory of the head
        self.in_training, self.trained = Claim(), None
        rng = as_generator("seed", 0 if seed is LATER else seed)
        layout = layout_of(
            self.input_size, self.hidden_size, self.heads, num_layers=self.num_layers, bidirectional=bidirectional,
            embedding_size=self.embedding_size, embeddings=self.embeddings, before=self.before, after=self.after,
            tied=self.tied, **variant)  # fmt: skip
        self.parameters = laid_out(layout, self.dtype, parameters)
        self.inputs = inputs.Inputs.of(self)
        self.embedding_dropout = embedding_dropout
        self.behind = dense.Stack("after", self.after, self.parameters) if self.after else None
        width = inputs.width_of(self.input_size, self.embedding_size, self.embeddings)
        self.lstm = LSTM(dense.width_of(self.before, width), self.hidden_size, self.num_layers,
                         bidirectional=bidirectional, dropout=dropout, forget_bias=forget_bias, dtype=self.dtype,
                         seed=LATER if seed is LATER else rng, parameters=self.parameters.child("lstm."),
                         precision=precision, **drops, **variant)  # fmt: skip
        if self.lstm.cell.highway and any(head.output == "last" for head in self.heads.values()):
            raise ValueError("output: expected 'sequence' with highway=True, whose outputs are no part of the state, "
                             "got 'last'")  # fmt: skip
        self.lstm.embedded = self.inputs is not None
        for stack in (self.behind, None if self.inputs is None else self.inputs.before):
            if stack is not None:
                stack.lstm = self.lstm
        self.bidirectional, self.forget_bias = self.lstm.bidirectional, self.lstm.forget_bias
        for name, value in self.lstm.cell.variant.items():
            setattr(self, name, value)
        self.linears = {name: Linear(*weights_of(self, name), head.tail) for name, head in self.heads.items()}
        self.only = self.linears.get("")  # for `step`, which is short
        of_ids_alone = self.embedding_size is not None and not self.before
        whole = not isinstance(self.parameters, SmallParameters)
        self.table = self.parameters.raw("embedding.weight") if of_ids_alone and whole else None
        if seed is not LATER:
            initialise(self, rng)

    def __setattr__(self, name, value):
        if name in FIXED and name in self.__dict__:
            raise AttributeError(f"{name}: expected to stay {describe(getattr(self, name))}, got {describe(value)}")
        super().__setattr__(name, value)

    dropout = OfLayer("Share of each layer's outputs, but the last one's, that training sets to 0.")
    dropout_per = OfLayer("Whether dropout draws for each 'step', or once for each row, the 'sequence'.")
    input_dropout = OfLayer("Share of what goes into the LSTM that training sets to 0, at all steps of a row alike.")
    recurrent_dropout = OfLayer("Share of h that training sets to 0 before weight_hh, at all steps of a row alike.")
    recurrent_dropout_per = OfLayer("Whether `recurrent_dropout` has a mask for each 'row', or for each 'gate' of it.")
    update_dropout = OfLayer("Share of g that training sets to 0 where c gets it, at all steps of a row alike.")
    weight_drop = OfLayer("Share of the elements of weight_hh that training takes as 0.")
    rng = OfLayer("The numpy.random.Generator of the dropout masks.")
    precision = OfLayer("What matrices are multiplied in, as `LSTM.precision`: of float32, 'bfloat16' or 'float32'.")
    zoneout = OfLayer("Shares of c and of h that stay what they were before a step; in the mean outside of training.")

    embedding_dropout = inputs.OfEmbedding("Share of the rows of the table that training sets to 0.")

    @property
    def config(self) -> dict:
        """The arguments that make a model of this shape, for JSON."""
        names = ("input_size", "hidden_size", "num_layers", "bidirectional", "dropout", "embedding_size", *VARIANTS,
                 "forget_bias")  # fmt: skip
        plain = {**{name: getattr(self, name) for name in names}, **heads_config(self.heads), "dtype": str(self.dtype)}
        return {**plain, **precision_option(self.lstm), **self.lstm.drops.config, **inputs.config_of(self)}

    def __reduce__(self):
        kept, rng = kept_of(self.parameters), copy.deepcopy(self.rng)
        return _rebuilt, (type(self), self._arguments, self.vocabulary, kept, rng, self.trained)

    @property
    def _arguments(self) -> dict:
        """`config` with the loss or the heads themselves."""
        return {**self.config, **({"loss": self.loss} if self.loss else {"output_size": self.output_size})}

    def astype(self, precision) -> Model:
        """This model as it is now in "float32" or "float64" or, to run and no more, "bfloat16", "float16" or "int8": as
        `LSTM.astype`, and embeddings, dense layers and heads likewise; of these, int8 has x in steps of 1/127 of the
        largest of each row. `evaluate` tells what it costs. Raises TypeError or ValueError."""
        made = {"vocabulary": self.vocabulary, "seed": LATER, **self._arguments, "precision": None}
        new = converted(self, lambda dtype, own: type(self)(**{**made, "dtype": dtype}, parameters=own), precision)
        new.trained = self.trained
        return new

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={value!r}" for name, value in self.config.items())
        return f"Model({sizes})"

    # --- use ------------------------------------------------------------------------------------------------------

    def __call__(self, x, state=None, *, lengths=None, mask=None, resets=None) -> tuple[np.ndarray, State]:
        """Outputs (logits, or numbers for "mse") and the final state, as a layer gives them. No tape is kept and
        nothing is dropped.

        x, state, lengths, resets: as for `LSTM`; with an embedding x must be ids. x may also be a list of B arrays of
        different lengths T_b, which then are the lengths. mask: as for `fit`; outputs are 0 where it is false.
        Outputs are (B, T, O) or (T, O) for output="sequence" (0 past a row's end; for a list, a list of B arrays (T_b,
        O)), (B, O) or (O,) for "last"; with a horizon k, (..., k, O); of several heads, a dict. Many rows go in
        batches: beside what is returned, it takes little memory.
        """
        outputs, final = outputs_of(self, x, state, lengths, mask, resets)
        return self.alone(outputs), final

    def alone(self, by_head):
        """What belongs to the head of a model that has one; a dict of what belongs to each of several."""
        return by_head[""] if "" in self.heads else by_head

    def at_once(self, x, state, plan) -> tuple[dict, State]:
        """Outputs by head of one array, with lengths and resets as they were checked, and the final state."""
        y, final = self.lstm(self.embed(x, plan=plan), state, lengths=plan)
        return step_outputs(self, y, final, plan), final

    def predict(self, x, *, lengths=None, mask=None) -> np.ndarray:
        """The argmax class ("cross_entropy"), 0 or 1 ("binary_cross_entropy"), the means ("gaussian"), or the numbers;
        labels, where the model has them.

        x, lengths, mask: as for `model(x)`, whose outputs' shapes the result has, without O for classes. What stands
        past a row's end, or where the mask is false, means nothing. With "ctc" it is the labels of each row, a list of
        arrays (those of `ctc.ctc_greedy`; `ctc.ctc_beam_search` takes `model(x)`'s outputs, too).
        """
        return self.alone(predict(self, x, lengths, mask))

    def predict_proba(self, x, *, lengths=None, mask=None) -> np.ndarray:
        """Softmax or sigmoid of `model(x)`'s outputs; of several heads, of those that have probabilities. Raises
        ValueError for a model with "mse", which has none."""
        return self.alone(probabilities(self, x, lengths, mask))

    def initial_state(self, batch_size=1) -> State:
        """The State (L*D, B, H) that rows begin with: zeros or, with `first_state`, a copy of what is learnt."""
        return self.lstm.initial_state(batch_size)

    def step(self, x_t, state, *, rows=None, out=None):
        """One step of a stream or of several, as `LSTM.step`: outputs (B, O) or (O,), by head a dict, and the state.

        out : what a step returned, to write outputs and state into, or a State alone; nothing is allocated for what it
            has.
        """
        outputs = None
        if self.table is not None:
            x_t = table_rows("x_t", self.table, x_t)
        elif self.inputs is not None:
            x_t = self.inputs(x_t, "x_t")
        if type(out) is tuple and len(out) == 2 and isinstance(out[1], State):
            outputs, out = out
            if self.only is None or not self.only.takes(outputs, x_t, out.h, out.c):
                check_outputs(self, outputs, x_t, out)
        y, state = self.lstm.step(x_t, state, rows=rows, out=out)
        if self.behind is not None:
            y = self.behind(y.reshape(-1, y.shape[-1])).reshape(*y.shape[:-1], -1)
        if self.only is not None:
            return self.only.rows(y, outputs), state
        outputs = outputs or dict.fromkeys(self.linears)
        return {name: linear.rows(y, outputs[name]) for name, linear in self.linears.items()}, state

    def generate(self, prompt, length, *, temperature=1.0, top_k=None, top_p=None, ban=(), seed=None,
                 stop=()) -> Iterator[int]:  # fmt: skip
        """Continue a prompt: yields up to `length` token ids, one at a time, each fed back.

        prompt : ids (T,), T >= 1, or text where the model has a vocabulary. temperature, top_k, top_p, seed: `Sampler`.
        ban : tokens that never come, one or several: ids or, where there is a vocabulary, tokens of it ("<unk>").
        stop : ids (one or several); the first of them to come ends the text and is not yielded.
        Raises TypeError or ValueError before the first token, naming the argument.
        """
        expect_writer(self)
        sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p, ban=banned_ids(self, ban), seed=seed)
        return generate(self, prompt, length, sampler, stop)

    def embed(self, x, name="x", plan=None):
        """What the layer gets: x itself or, with embeddings or dense layers before it, what they make of x."""
        return x if self.inputs is None else self.inputs(x, name, plan)

    def seen_by_head(self, h):
        """h (N, O) itself or, with dense layers after the LSTM, their outputs (N, F)."""
        return h if self.behind is None else self.behind(h)

    # --- learning -------------------------------------------------------------------------------------------------

    def forward(self, x, state=None, *, lengths=None, mask=None,
                resets=None) -> tuple[np.ndarray, State, ModelTape]:  # fmt: skip
        """`model(x)` of one array, with dropout, and with a third result: the tape that `backward` needs, for a loss of
        your own."""
        outputs, final, tape = own_loss.forward(self, x, state, lengths, mask, resets)
        return self.alone(outputs), final, tape

    def backward(self, tape, d_outputs, d_state=None, *, out=None, input_gradient=True) -> Gradients:
        """The gradients of a loss whose gradients by the outputs, of their shape, and by the final state are given.

        tape : from `forward`, whose weights must not have changed since; it serves one backward. What d_outputs has
            past a row's end is ignored.
        out : Parameters of this model's layout to overwrite with the gradients, instead of new ones.
        input_gradient : False saves the product that d loss / d x takes; it is None then, as for ids.

        Returns Gradients(x, state, parameters). Raises TypeError or ValueError, naming the argument.
        """
        by_head = {"": d_outputs} if "" in self.heads else d_outputs
        return own_loss.backward(self, tape, by_head, d_state, out, input_gradient)

    def loss_and_gradients(self, x, y, *, lengths=None, mask=None, resets=None, state=None, sample_weight=None,
                           class_weight=None, ignore=None, missing="error", out=None) -> Result:  # fmt: skip
        """The mean loss per token and all its gradients: what `fit` is made of, for loops of your own.

        All but `out` as for `fit`; "balanced" class weights are those of this batch. What stands past a row's end is
        ignored; a number that is not finite anywhere else in x or y is a ValueError that names it.
        out : Parameters of this model's layout to overwrite with the gradients, instead of new ones.
        Dropout applies. The final state carries no gradient on to a next call: truncated BPTT.
        """
        if out is not None:
            check_gradients(out, self.parameters)
        dataset = Dataset(self, x, y, lengths, mask=mask, resets=resets, state=state, sample_weight=sample_weight,
                          class_weight=class_weight, ignore=ignore, missing=missing)  # fmt: skip
        return learn(self, batch_of(self, dataset.part(slice(None))), out)

    def evaluate(self, x, y=None, *, lengths=None, mask=None, resets=None, state=None, sample_weight=None,
                 class_weight=None, ignore=None, missing="error", batch_size=256,
                 metrics=()) -> dict[str, float]:  # fmt: skip
        """{"loss": mean per token, "perplexity": exp(loss), "accuracy": share of hits, "tokens": how many counted}.

        All but `batch_size`, rows at a time, as for `fit`: x alone may be batches. Perplexity is there for
        "cross_entropy", accuracy for the argmax of it and for outputs on the right side of 1/2
        ("binary_cross_entropy"), and each of `metrics` by its name; of several heads the sum of the losses is "loss",
        and what is of one has the head's name before it, "NAME.loss". Nothing is dropped, no random number is drawn.
        """
        dataset = data_of(self, x, y, lengths, mask=mask, resets=resets, state=state, sample_weight=sample_weight,
                          class_weight=class_weight, ignore=ignore, missing=missing)  # fmt: skip
        wanted = of_heads(metrics, self.heads)
        return evaluate(self, dataset, positive_int("batch_size", batch_size), wanted)

    @show_options(fit)
    def fit(self, x, y=None, **options) -> History:
        """Train on x and y, or on batches alone: see `training.fit` for all options."""
        return fit(self, x, y, **options)

    def report(self, path, x=None, y=None, *, lengths=None, ignore=None, missing="error") -> None:
        """Write a page that shows how it was trained, what goes on inside and what comes out: see `report.write`."""
        from cylstm.report import write  # which a model that is put to work does not need

        write(self, path, x, y, lengths=lengths, ignore=ignore, missing=missing)

    def summary(self) -> str:
        """The model in a few lines: what goes in and comes out, the loss, and of each layer its shapes, parameters,
        bytes, and the multiply-adds of its matrix products per step."""
        return summary(self)

    # --- files ----------------------------------------------------------------------------------------------------

    def save(self, path, *, precision=None) -> None:
        """Write weights, sizes and vocabulary to a safetensors file, atomically; in another precision, as `astype` has
        it, where one is given. Raises OSError, and what `astype` raises."""
        model_files.save(self if precision is None else self.astype(precision), path)

    def header(self) -> dict:
        """What a file says of the model besides its weights."""
        vocabulary = None if self.vocabulary is None else self.vocabulary.to_json()
        return {"config": self.config, "vocabulary": vocabulary}

    @classmethod
    def load(cls, path) -> Model:
        """Read a model written by `save`. Raises OSError, or ValueError for a file that is anything else."""
        return model_files.load(cls, path)

    @classmethod
    def from_checkpoint(cls, checkpoint) -> Model:
        """The model of a training run as a checkpoint holds it: a path, or what `training.read_checkpoint` has read.

        Raises OSError, or ValueError for a file that is anything else.
        """
        return model_files.from_checkpoint(cls, checkpoint)


def _rebuilt(cls, config, vocabulary, kept, rng, trained=None):
    """A copy (copy, pickle) of a model."""
    model = cls(**config, vocabulary=vocabulary, seed=LATER, parameters=given_of(kept))
    fill(model.parameters, kept)
    model.rng, model.trained = rng, trained
    return model
