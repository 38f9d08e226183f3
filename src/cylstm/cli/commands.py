"""The commands.

Thin on purpose: it turns options into calls of the public functions, and errors into one line and exit code 2.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import cylstm
from cylstm._core import blas, kernels
from cylstm.cli.options import EVALUATED, WRITTEN, parse
from cylstm.model import Model
from cylstm.sequences import next_token, split
from cylstm.summary import precision_of_products
from cylstm.tensor_files import kind_of
from cylstm.text import corpus, kept
from cylstm.text.measures import evaluate_text
from cylstm.text.sampling import continue_text, writes_tokens
from cylstm.text.vocabulary import UnknownTokens
from cylstm.training import optim, schedule
from cylstm.training.checkpoint import Checkpoint
from cylstm.training.parallel import RankError, end_all, world
from cylstm.training.progress import can_draw, folded

__all__ = ["main"]

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes; 130 is what shells give for Ctrl-C
LEAST_TOKENS = 40  # of a corpus: 5 % of it are a step and its target
EVALUATION_STEPS = 1024  # at least, of each stream: its first steps have seen little


def main(argv=None) -> int:
    """Run the command line on a list of arguments (those of this process by default); returns the exit code."""
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(errors="replace")  # a terminal without some letter gets a question mark
    commands = {"train": run_train, "evaluate": run_evaluate, "generate": run_generate, "info": run_info,
                "convert": convert, "report": run_report, "forecast": forecast, "classify": classify}  # fmt: skip
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        args = parse(argv)
        commands[args.command](args)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        leave_unread()
    except KeyboardInterrupt as error:
        return ended(error, INTERRUPTED)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error)
        return ended(error, BAD_INPUT)
    except (ArithmeticError, ImportError, MemoryError, RankError, TypeError, ValueError) as error:
        fail(error)
        return ended(error, BAD_INPUT)
    except Exception as error:
        ended(error, BAD_INPUT, told=False)
        raise
    return 0


def ended(error, code, told=True) -> int:
    """The exit code, when no other rank waits for this one any more."""
    with contextlib.suppress(ImportError):  # which has been told
        end_all(error, code, told)
    return code


def fail(message) -> None:
    """Say in one line what is wrong."""
    note(f"error: {message}")


def note(message) -> None:
    """Say in one line, on stderr, what is no part of the output."""
    if sys.stderr is not None:  # closed: nobody listens
        print("cylstm:", " ".join(str(message).split()), file=sys.stderr, flush=True)


def silent(message) -> None:
    """What `note` is to ranks other than the first."""


def leave_unread() -> None:
    """Let the output go nowhere: whoever read it has left (`cylstm ... | head`)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def on_terminal() -> bool:
    """Whether what is printed goes to a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def say(text) -> None:
    """Print, beside a bar that may be there, and go on where nobody reads it: a training run is worth more than its
    report. On a terminal, lines that are too long for it are broken between words."""
    from tqdm import tqdm  # 30 ms, which the other commands need not wait for

    if on_terminal():
        width = shutil.get_terminal_size().columns
        text = "\n".join(folded(line, width) for line in text.splitlines())
    try:
        with tqdm.external_write_mode():
            print(text, flush=True)
    except BrokenPipeError:
        leave_unread()


# --- train ------------------------------------------------------------------------------------------------------------


def run_train(args) -> None:
    """Train on a corpus; write model, history and picture. Of several ranks all train, and the first one writes."""
    comm = world()
    first = comm is None or comm.rank == 0
    model, ids, saved = set_up(args, first)
    *seen, test = split(ids)
    training, validation = (stream(part, args) for part in seen)
    summary = (f"{len(ids):,} tokens, {len(model.vocabulary):,} different; {model.parameters.size:,} parameters; "
               f"{len(training[0])} streams of {training[0].shape[1]:,} steps")  # fmt: skip
    checkpoint = Checkpoint(args.checkpoint, note=saved)
    report = Report(args, summary, corpus.paragraph_break(ids, model.vocabulary))
    try:
        history = model.fit(*training, validation=validation, epochs=args.epochs, optimizer=optimizer(args),
                            clip_norm=args.clip or None, tbptt=args.tbptt, seed=args.seed, patience=args.patience,
                            checkpoint=checkpoint, resume=args.saved_run,
                            progress=not args.quiet and can_draw(),  # otherwise Report's lines will do
                            callbacks=[report], comm=comm, parts=args.parts)  # fmt: skip
    except KeyboardInterrupt:
        if not first:
            raise
        if os.path.exists(args.checkpoint):
            files = [("--resume", args.checkpoint), *((f"--{name}", getattr(args, name)) for name in WRITTEN)]
            needed = [files[0], *((option, path) for option, path in files[1:] if path and os.path.exists(path))]
            note("interrupted; go on with: cylstm train "
                 + " ".join(f"{option} {shlex.quote(path)}" for option, path in needed))  # fmt: skip
        else:
            note(f"interrupted before there was a checkpoint; no {args.out} is written")
        raise
    if not first:
        return
    model.save(args.out)
    history.save(args.history)
    measured = measures(model, test, EVALUATED)
    if args.plot:
        title = f"{os.path.basename(args.corpus) if args.corpus else 'manual'}, by {args.level}s"
        history.plot(args.plot, test=measured["loss"], title=title, unit="nats per token")
    if not args.keep_checkpoint:
        os.unlink(args.checkpoint)
    say(f"test: {told(model, measured)}")
    say(f"wrote {', '.join(filter(None, (args.out, args.history, args.plot)))}")


def set_up(args, first):
    """The model, the ids of its corpus, and what a checkpoint will have to say of them. first : whether this rank
    speaks."""
    saved = args.saved_run
    vocabulary = None if saved is None else Model.from_checkpoint(saved).vocabulary
    ids, vocabulary = corpus.read_corpus(args.corpus, args.level, vocabulary=vocabulary, max_size=args.max_vocab,
                                         min_count=args.min_count, encoded_in=args.encoded,
                                         tell=note if first else silent)  # fmt: skip
    expect_tokens(args, ids, LEAST_TOKENS, "to train, validate and test")
    vocabulary.encode(args.prompt, name="--prompt")
    found = corpus.fingerprint(ids)
    if saved is not None and saved.note.get("text") != found:
        raise ValueError(f"{args.corpus or 'manual'}: expected the text of {args.resume}, got another")
    model = Model(len(vocabulary), args.hidden, len(vocabulary), num_layers=args.layers, dropout=args.dropout,
                  embedding_size=args.embedding or None, seed=args.seed, vocabulary=vocabulary,
                  precision=args.precision)  # fmt: skip
    return model, ids, {"text": found, "options": args.remembered}


def expect_tokens(args, ids, least, purpose):
    """ValueError for a shorter corpus."""
    if len(ids) < least:
        raise ValueError(f"{args.corpus or 'manual'}: expected at least {least} tokens {purpose}, got {len(ids)}")


def stream(ids, args):
    """Inputs and targets of one part of the corpus."""
    return corpus.text_streams(ids, args.streams, args.tbptt)


def optimizer(args):
    """The optimiser that the options describe, with its learning rate."""
    rates = {
        "constant": lambda: args.lr,
        "step": lambda: schedule.StepDecay(args.lr, every=max(1, args.epochs // 3), factor=0.3),
        "cosine": lambda: schedule.Cosine(args.lr, epochs=args.epochs),
        "plateau": lambda: schedule.ReduceOnPlateau(args.lr),
    }
    rate = rates[args.schedule]()
    return optim.SGD(rate, momentum=0.9) if args.optimizer == "sgd" else \
        {"adam": optim.Adam, "adamw": optim.AdamW}[args.optimizer](rate)  # fmt: skip


class Report:
    """A callback that prints how each epoch went and, about ten times in a run, what the model writes."""

    def __init__(self, args, summary, start):
        """start : what samples go on from, unseen, where there is no prompt."""
        self.args, self.summary, self.start = args, summary, start
        self.every = max(1, args.epochs // 10)
        self.told = not args.quiet and can_draw() and on_terminal()  # by the lines of `fit`, on the same screen

    def __call__(self, event):
        if self.summary:  # not before the first update: until then, training may be refused with an error
            say(self.summary)
            self.summary = None
        if event.kind != "epoch":
            return
        epoch, history, args = event.epoch + 1, event.history, self.args
        if not self.told:
            say(f"epoch {epoch}/{args.epochs}: training {history.train_loss[-1]:.4f}, "
                f"validation {history.validation_loss[-1]:.4f}, {history.seconds[-1]:.1f} s")  # fmt: skip
        if args.sample and (epoch % self.every == 0 or epoch == args.epochs):
            prompt = args.prompt or self.start
            pieces = continue_text(event.model, prompt, args.sample, temperature=0.7, seed=[args.seed, epoch])
            sample = args.prompt + "".join(pieces)
            say("".join("    " + line for line in sample.splitlines(keepends=True)))


# --- the other commands ----------------------------------------------------------------------------------------------


def load(path) -> Model:
    """A model that was trained on text."""
    model = Model.load(path)
    if model.vocabulary is None:
        raise ValueError(f"{path}: expected a model with a vocabulary, trained on text, got one without")
    if not writes_text(model):
        raise ValueError(f"{path}: expected a model that writes its vocabulary's tokens, got {model!r}")
    return model


def writes_text(model) -> bool:
    """Whether outputs are its vocabulary's tokens."""
    return model.vocabulary is not None and writes_tokens(model) and model.output_size == len(model.vocabulary)


def measures(model, ids, streams) -> dict:
    """What `evaluate_text` finds on a text."""
    return evaluate_text(model, *corpus.text_streams(ids, streams, EVALUATION_STEPS))


def told(model, found) -> str:
    """The same in one line."""
    perplexity = f"perplexity {found['perplexity']:.4g}"
    if "words" in found:
        perplexity = (f"perplexity {found['word_perplexity']:.4g} per word (the loss of all tokens over "
                      f"{found['words']:,} words)")  # fmt: skip
    unknown = f" ({found['unknown']:,} {model.vocabulary.unknown} left out)" if found["unknown"] else ""
    return (f"loss {found['loss']:.4f} per token, {perplexity}, accuracy {found['accuracy']:.2%}, "
            f"{found['bits_per_character']:.4g} bits per character{unknown}, {found['tokens']:,} tokens")  # fmt: skip


def ids_of(args, model) -> tuple[np.ndarray, str]:
    """The ids of the part of a corpus that is asked for, and in words how many tokens were skipped."""
    skipped = Counter()
    try:
        ids, _ = corpus.read_corpus(args.corpus, vocabulary=model.vocabulary, unknown=args.unknown, skipped=skipped,
                                    encoded_in=args.encoded, tell=note)  # fmt: skip
    except UnknownTokens as error:
        raise ValueError(f"{error}; --unknown skip leaves such out, and a model trained with --min-count 2 or more "
                         "reads rare ones as <unk>") from None  # fmt: skip
    expect_tokens(args, ids, 2, "(a step and its target)")
    if args.part != "all":
        expect_tokens(args, ids, LEAST_TOKENS, "to split")
        ids = dict(zip(("train", "validation", "test"), split(ids), strict=True))[args.part]
    left_out = ""
    if skipped:
        left_out = f" ({skipped.total():,} unknown ones of the corpus skipped)"
        most = ", ".join(f"{token!r} ({count:,})" for token, count in skipped.most_common(5))
        note(f"unknown, skipped: {most}{', ...' if len(skipped) > 5 else ''}")
    return ids, left_out


def run_evaluate(args) -> None:
    """Print loss, perplexity, accuracy and bits on a corpus and, if asked, tokens side by side."""
    model = load(args.model)
    ids, left_out = ids_of(args, model)
    print(told(model, measures(model, ids, args.streams)) + left_out)
    if args.show:
        x, y = next_token(np.asarray(ids[: args.show + 1]))
        print(*corpus.side_by_side(model.vocabulary, x, y, model.predict(x)), sep="\n")


def run_report(args) -> None:
    """Write a page about a model: of one that was trained on text, with what it makes of a corpus."""
    model = Model.load(args.model)
    if args.corpus is None and not writes_text(model):
        model.report(args.out)
        note(f"{args.model}: writes no text: the page has what the file says (model.report(path, x, y) has more)")
    else:
        ids, left_out = ids_of(args, load(args.model))
        model.report(args.out, *corpus.text_streams(ids, args.streams, EVALUATION_STEPS))
        if left_out:
            note(left_out.strip(" ()"))
    print(f"wrote {args.out}")


def banned(tokens) -> list:
    """Tokens of a command line, where bytes that are no text stand as surrogates (PEP 383): these as bytes again."""
    return [os.fsencode(token) if re.search("[\udc80-\udcff]", token) else token for token in tokens]


def run_generate(args) -> None:
    """Print the prompt and what the model makes of it, token by token."""
    model = load(args.model)
    unknown = model.vocabulary.missing(args.prompt)
    pieces = continue_text(model, args.prompt, args.length, temperature=args.temperature, top_k=args.top_k,
                                top_p=args.top_p, ban=banned(args.ban), seed=args.seed, stop=args.stop)  # fmt: skip
    if unknown:
        note(f"prompt: read as {model.vocabulary.unknown}: {', '.join(map(repr, unknown))}")
    print(args.prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def convert(args) -> None:
    """Turn a model of one system into one of another."""
    from cylstm.cli.convert import run_convert  # with the formats, which the other commands need not wait for

    run_convert(args)


def forecast(args) -> None:
    """Foretell the series of a table."""
    from cylstm.cli.forecast import run_forecast

    run_forecast(args, say)


def classify(args) -> None:
    """Learn, or find, the labels of a table's sequences."""
    from cylstm.cli.classify import run_classify

    run_classify(args, say, not args.quiet and can_draw())


def size_of(path) -> str:
    """A file's name and size."""
    return f"{path}, {Path(path).stat().st_size:,} bytes"


def run_info(args) -> None:
    """Print what is installed, or what a file holds: a model, a forecaster or a classifier."""
    if args.model is None:
        rows = {"cylstm": cylstm.__version__, "instruction set": kernels.instruction_set(),
                "available": ", ".join(kernels.available()), "BLAS": blas.description(), "NumPy": np.__version__,
                "Python": f"{platform.python_version()} on {platform.platform()}"}  # fmt: skip
    elif (kind := kind_of(args.model)) in ("forecaster", "classifier"):
        from cylstm.cli.info import about

        rows = {"file": size_of(args.model), **about(kind, args.model)}
    elif kind == kept.KIND:
        rows = {"file": size_of(args.model), **kept.about(args.model)}
    else:
        model = Model.load(args.model)
        print(model.summary(), end="\n\n")
        rows = {"file": size_of(args.model), **model.config,
                "precision": precision_of_products(model),
                "parameters": f"{model.parameters.size:,}, {model.parameters.nbytes:,} bytes",
                **{f"  {name}": shape for name, shape in model.parameters.layout.items()},
                "vocabulary": model.vocabulary}  # fmt: skip
        if model.vocabulary is not None:
            shown = " ".join(map(repr, model.vocabulary.tokens[:40]))
            rows["tokens"] = shown + (" ..." if len(model.vocabulary) > 40 else "")
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
