"""The options of the command line, checked before anything is read or written."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
from pathlib import Path

import cylstm
from cylstm.checks import path_name
from cylstm.cli.arguments import check_folder, check_target, real, whole
from cylstm.cli.table_options import add_classify_options, add_forecast_options, complete_tables
from cylstm.exchange import FORMATS
from cylstm.small_parameters import PRECISIONS
from cylstm.text.corpus import NOWHERE
from cylstm.text.vocabulary import LEVELS
from cylstm.training.checkpoint import read_checkpoint
from cylstm.training.parallel import world
from cylstm.training.pictures import PICTURES

__all__ = ["parse"]

WIDEST = 65536  # hidden units: beyond, one matrix alone has more than 64 GiB
LEARNING_RATES = {"adam": 4e-3, "adamw": 4e-3, "sgd": 0.1}
WRITTEN = ("out", "history", "plot")
EVALUATED = 16  # streams of a text
FORGOTTEN = ("command", "resume", "checkpoint")  # options that a checkpoint does not keep


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are a ValueError: one line, without the usage."""

    def error(self, message):
        raise ValueError(f"{message} (see {self.prog} --help)")


def parse(argv) -> argparse.Namespace:
    """The options, every default filled in; `saved_run` is the checkpoint to go on from, or None. Raises ValueError for
    what cannot be meant."""
    parser, train = parsers()
    args = parser.parse_args(argv)
    if args.command == "convert":
        check_target("OUT", args.target)
    if args.command == "report":
        check_target("--out", args.out)
        read = [path for path in (args.model, args.corpus) if path]
        if os.path.realpath(args.out) in map(os.path.realpath, read):
            raise ValueError(f"--out: expected a file that is not read, got {args.out}")
    if args.command in ("forecast", "classify"):
        return complete_tables(args)
    if args.command in ("evaluate", "report"):
        check_encoded(args)
    if args.command != "train":
        return args
    if args.resume:
        saved_run = read_checkpoint(args.resume)
        saved = saved_options(parser, train, saved_run)
        named = {name for name in WRITTEN if getattr(args, name) is not None}
        train.set_defaults(**saved)
        args = complete(parser.parse_args(argv))
        check_unchanged(args, saved)
        check_overwritten(args, named | ({"history"} if "out" in named and saved["history"] is None else set()))
    else:
        saved_run, args = None, complete(args)
    args.saved_run = saved_run
    return args


def saved_options(parser, train, saved_run) -> dict:
    """The options of the run that wrote a checkpoint, which may come from a stranger: as if they had been typed."""
    try:
        given = saved_run.note["options"]
        typed = ["train"]
        for action in train._actions:
            value = given.get(action.dest)
            if value is None or value is False or action.dest in (*FORGOTTEN, "corpus"):
                continue
            if action.const is True and value is not True:
                raise ValueError(f"--{action.dest}: expected true or false, got {value!r}")
            option = action.option_strings[0]
            typed.append(option if value is True else f"{option}={value}")
        saved = vars(parser.parse_args(typed))
        saved = {name: value for name, value in saved.items() if name not in FORGOTTEN}
        saved["corpus"] = given["corpus"] if given["corpus"] is None else path_name("CORPUS", given["corpus"])
        saved["keep_checkpoint"] = given.get("keep_checkpoint") is not False
        return saved
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{saved_run.path}: expected a checkpoint of `cylstm train`, got another's ({error})"
        ) from None


def check_unchanged(args, saved):
    """ValueError for options that a resumed run cannot change and that the checks of `Model.fit` would not name."""
    schedules = {"cosine": ("epochs",), "step": ("epochs",)}
    for name in ("level", "max_vocab", "min_count", "schedule", *schedules.get(saved["schedule"], ())):
        if getattr(args, name) != saved[name]:
            because = f", on which its {saved['schedule']} schedule depends" if name == "epochs" else ""
            option = name.replace("_", "-")
            raise ValueError(
                f"--{option}: expected {saved[name]} as in {args.resume}{because}, got {getattr(args, name)}"
            )


def check_overwritten(args, named):
    """ValueError where a file is there already that the checkpoint, and not the command line, says to write."""
    for name in WRITTEN:
        path = getattr(args, name)
        if name not in named and path is not None and os.path.lexists(path):
            raise ValueError(
                f"{args.resume}: expected to write a new file, got {path}, which exists; to replace it, say --{name}"
            )


def check_encoded(args):
    """ValueError for a folder that is none."""
    if args.encoded != NOWHERE:
        check_folder("--encoded", args.encoded)


def complete(args):
    """What follows from other options: the defaults that depend on the level, and where the files go."""
    history = args.history
    if args.out is None:
        args.out = "model.safetensors"
    check_target("--out", args.out)
    check_encoded(args)
    words = args.level == "word"
    if args.level == "byte" and (args.max_vocab is not None or (args.min_count or 1) > 1):
        raise ValueError("--max-vocab, --min-count: expected neither with --level byte, which knows all 256 bytes")
    if args.dropout and args.layers == 1:
        raise ValueError(f"--dropout: expected at least 2 --layers, between which it drops, got {args.dropout} with 1")
    for name, value in {
        "max_vocab": 10_000 if words else None,
        "min_count": 2 if words else 1,
        "embedding": args.hidden if words else 64,
        "lr": LEARNING_RATES[args.optimizer],
        "history": str(Path(args.out).with_suffix(".json")),
        "prompt": "" if args.corpus else "The ",
    }.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    comm = world()
    if args.parts is None and comm is not None:
        args.parts = comm.size  # and so with a checkpoint, whoever goes on from it
    usual = str(Path(args.out).with_suffix(".ckpt"))
    args.keep_checkpoint = args.checkpoint is not None or (args.resume is not None and args.keep_checkpoint)
    if args.checkpoint is None and args.resume is None and os.path.lexists(usual):
        raise ValueError(
            f"{usual}: expected no checkpoint of a run that was interrupted, got one: go on with it (cylstm train "
            f"--resume {shlex.quote(usual)}), remove it, or say --checkpoint or --out for another place"
        )
    if args.checkpoint is None:
        args.checkpoint = args.resume or usual
    for name in (*WRITTEN[1:], "checkpoint"):
        check_target(f"--{name}", getattr(args, name))
    written = [path for path in (args.corpus, args.out, args.plot, args.history, args.checkpoint) if path]
    if len({os.path.realpath(path) for path in written}) < len(written):
        raise ValueError("CORPUS, --out, --plot, --history, --checkpoint: expected different files, got "
                         f"{', '.join(written)}")  # fmt: skip
    if args.plot and Path(args.plot).suffix.lower() not in PICTURES:
        raise ValueError(f"--plot: expected a file ending in {', '.join(PICTURES)}, got {args.plot}")
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plot: expected matplotlib to be installed: pip install 'cylstm[plot]'")
    kept = {name: value for name, value in vars(args).items() if name not in FORGOTTEN}
    kept["history"] = history
    for name in ("corpus", "out", "plot", "history", "encoded"):
        kept[name] = kept[name] and (kept[name] if name == "encoded" and kept[name] == NOWHERE else
                                     os.path.abspath(kept[name]))  # fmt: skip
    args.remembered = kept
    return args


# --- the eight commands -----------------------------------------------------------------------------------------------


def parsers():
    """The parser, and the one of `train` within it."""
    parser = Parser(prog="cylstm", description="Train and run LSTMs on the CPU.")
    parser.add_argument("--version", action="version", version=f"cylstm {cylstm.__version__}")
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="forecast | classify | train | evaluate | generate | report | convert | info",
    )
    add_forecast_options(commands)
    add_classify_options(commands)
    train = commands.add_parser("train", help="train a language model on a text", description=TRAIN)
    add_train_options(train)
    evaluate = commands.add_parser("evaluate", help="loss, perplexity, accuracy and bits per character of a "
                                   "model on a text")  # fmt: skip
    add_corpus_options(evaluate)
    evaluate.add_argument("--show", metavar="N", type=whole(0), default=0,
                          help="print the first N input, target and predicted tokens side by side")  # fmt: skip
    generate = commands.add_parser("generate", help="let a model write")
    generate.add_argument("model", metavar="MODEL")
    generate.add_argument("--prompt", default="", help="text to go on from")
    generate.add_argument("--length", type=whole(0), default=500, help="tokens to write (default: 500)")
    generate.add_argument("--temperature", type=real(0), default=0.8, help="0 takes the likeliest (default: 0.8)")
    generate.add_argument("--top-k", type=whole(1), help="draw among the k likeliest tokens")
    generate.add_argument("--top-p", type=real(0, 1, open_low=True), help="draw among those that together reach p")
    generate.add_argument("--ban", metavar="TOKEN", action="append", default=[],
                          help="a token that never comes, such as '<unk>'; may be said again")  # fmt: skip
    generate.add_argument("--seed", type=whole(0), help="the same seed writes the same text")
    generate.add_argument("--stop", default="", metavar="TEXT", help="end after this text")
    report = commands.add_parser("report", help="a page of HTML about a model: how it was trained, what goes on "
                                 "inside, what it makes of a text")  # fmt: skip
    add_corpus_options(report)
    report.add_argument("--out", metavar="FILE", default="report.html", help="(default: report.html)")
    add_convert_options(commands)
    info = commands.add_parser("info", help="what a model, forecaster or classifier is; without one, what is installed")
    info.add_argument("model", metavar="MODEL", nargs="?")
    return parser, train


def add_corpus_options(parser):
    """Of the commands that look at a model with a text."""
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("corpus", metavar="CORPUS", nargs="?", help="a UTF-8 text; default: Python's own manual")
    add_encoded(parser)
    parser.add_argument("--part", default="all", choices=("all", "train", "validation", "test"),
                        help="the part of the corpus, as `train` splits it (default: all)")  # fmt: skip
    parser.add_argument("--unknown", choices=("error", "skip"), default="error",
                        help="what to do about characters that a model without <unk> never saw: "
                        "skip leaves them out of the text (default: error)")  # fmt: skip
    parser.add_argument("--streams", type=whole(1), default=EVALUATED,
                        help=f"parts read in parallel, fewer for a short text (default: {EVALUATED})")  # fmt: skip


def add_encoded(parser):
    parser.add_argument("--encoded", metavar="FOLDER", help="keep the corpus's ids there for the next time, "
                        f"{NOWHERE!r} for nowhere (default: beside a corpus of 64 MiB or more)")  # fmt: skip


def add_convert_options(commands):
    convert = commands.add_parser(
        "convert", help="a model of another system into ours, or ours into another's",
        description="Read a model from IN and write it to OUT, each in the format that its ending says.")  # fmt: skip
    convert.add_argument("source", metavar="IN")
    convert.add_argument("target", metavar="OUT")
    formats = f"cylstm, {', '.join(name for name in FORMATS if name != 'c_header')}"
    convert.add_argument("--from", dest="read_as", metavar="FORMAT", help=f"of IN: {formats} (default: by its ending, "
                         ".safetensors is cylstm)")  # fmt: skip
    convert.add_argument("--to", dest="write_as", metavar="FORMAT", help="of OUT, alike, or c_header; pytorch for a "
                         "state dict in .safetensors")  # fmt: skip
    convert.add_argument("--raw", action="store_true", help="of a model of ours, outputs as `model(x)` gives them, "
                         "instead of probabilities")  # fmt: skip
    convert.add_argument("--precision", choices=("float32", "float64", *PRECISIONS), help="of a model of ours that is "
                         "written; bfloat16, float16 and int8 run, and cannot be trained on")  # fmt: skip
    for name, file in (("reading", "IN"), ("writing", "OUT")):
        convert.add_argument(f"--{name}", metavar="NAME=VALUE", action="append", default=[],
                             help=f"an option of {file}'s format; may be said again")  # fmt: skip


TRAIN = """Train a next-token model on a text: 90 % of it, with 5 % to validate on after each epoch and 5 % to test on
in the end. Ctrl-C saves a checkpoint and says how to go on."""


def add_train_options(parser):
    parser.add_argument("corpus", metavar="CORPUS", nargs="?", help="a UTF-8 text; default: Python's own manual")
    text = parser.add_argument_group("text")
    text.add_argument("--level", choices=LEVELS, default="char", help="what a token is (default: char)")
    text.add_argument("--max-vocab", type=whole(3), help="most tokens to know (default: 10000 words, all characters)")
    add_encoded(text)
    text.add_argument("--min-count", type=whole(1), help="rarer ones are <unk> (default: words 2, characters 1)")
    model = parser.add_argument_group("model")
    model.add_argument("--hidden", type=whole(1, WIDEST), default=128, help="hidden units per layer (default: 128)")
    model.add_argument("--layers", type=whole(1), default=2, help="(default: 2)")
    model.add_argument("--embedding", type=whole(0, WIDEST), help="width of the learned table before the LSTM, "
                       "0 for none (default: as --hidden for words, otherwise 64)")  # fmt: skip
    model.add_argument("--dropout", type=real(0, 1, open_high=True), default=0.0, help="between layers (default: 0)")
    run = parser.add_argument_group("training")
    run.add_argument("--epochs", type=whole(1), default=10, help="(default: 10)")
    run.add_argument("--streams", "--batch", type=whole(1), default=16,
                     help="parts of the text read in parallel, fewer for a short text (default: 16)")  # fmt: skip
    run.add_argument("--tbptt", type=whole(1), default=64, help="steps per update (default: 64)")
    run.add_argument("--optimizer", choices=tuple(LEARNING_RATES), default="adam", help="(default: adam)")
    run.add_argument("--lr", type=real(0, open_low=True), help="learning rate (default: 0.004; sgd: 0.1)")
    run.add_argument("--schedule", choices=("constant", "step", "cosine", "plateau"), default="cosine",
                     help="of the learning rate (default: cosine)")  # fmt: skip
    run.add_argument("--precision", choices=("float32", "bfloat16"), default="float32",
                     help="of matrix products; weights are float32 in either (default: float32)")  # fmt: skip
    run.add_argument("--clip", type=real(0), default=5.0, help="largest norm of the gradients, 0 for any (default: 5)")
    run.add_argument("--patience", type=whole(1), help="stop after so many epochs without a lower validation loss")
    run.add_argument("--seed", type=whole(0), default=0, help="(default: 0)")
    run.add_argument("--parts", type=whole(1), metavar="N", help="cut each batch into N parts, for up to N ranks of "
                     "mpiexec; the bits depend on N alone (default: as many as there are ranks)")  # fmt: skip
    run.add_argument("--resume", metavar="CKPT", help="go on from a checkpoint, with its corpus and options")
    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="FILE", help="(default: model.safetensors)")
    output.add_argument("--plot", metavar="FILE", help="draw the losses: .png, .svg or .pdf")
    output.add_argument("--history", metavar="FILE", help="the losses as JSON (default: beside the model)")
    output.add_argument("--checkpoint", metavar="FILE", help="written every minute and epoch, and kept in the end "
                        "(default: beside the model, and removed in the end)")  # fmt: skip
    output.add_argument("--sample", type=whole(0), default=200, metavar="N", help="tokens per sample (default: 200)")
    output.add_argument("--prompt", metavar="TEXT", help="what samples begin with (default: a line break, or "
                        "a blank line where the text has some, a space where it is one line; for the "
                        "manual 'The ')")  # fmt: skip
    output.add_argument("--quiet", action="store_true", help="no progress bar")
