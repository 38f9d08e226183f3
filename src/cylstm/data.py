"""Data: from files, texts and series to the arrays that a model takes."""

from cylstm.iterables import Batched, Shuffled
from cylstm.sequences import batches_by_length, next_token, one_hot, pad, split, streams, windows
from cylstm.text.corpus import an_bn, encode_file, manual, read_text, side_by_side
from cylstm.text.measures import evaluate_text
from cylstm.text.vocabulary import Vocabulary

__all__ = [
    "Batched",
    "Shuffled",
    "Vocabulary",
    "an_bn",
    "batches_by_length",
    "encode_file",
    "evaluate_text",
    "manual",
    "next_token",
    "one_hot",
    "pad",
    "read_text",
    "side_by_side",
    "split",
    "streams",
    "windows",
]
