"""Names in made-up sentences: a tagger of characters and words with a CRF, trained and asked."""

import tempfile

import flair
import numpy as np
import swap
from flair.data import Corpus, Dictionary, Sentence
from flair.embeddings import CharacterEmbeddings, OneHotEmbeddings, StackedEmbeddings
from flair.models import SequenceTagger
from flair.trainers import ModelTrainer
from flair.trainers.plugins import TrainerPlugin

NAMES, PLACES, WORDS = (
    words.split()
    for words in (
        "Ada Grace Alan Edsger Barbara Donald Tony Niklaus Adele John Leslie Frances Ken Radia",
        "Turin Basel Delft Lund Graz Porto Ghent Brno Pisa Tartu",
        "the old letter from and to went before after rain by train with two small boxes said nobody of it",
    )
)


class Losses(TrainerPlugin):
    def __init__(self):
        super().__init__()
        self.values = []

    @TrainerPlugin.hook
    def metric_recorded(self, record):
        if str(record.name).endswith("loss"):
            self.values.append(float(record.value))


def sentences(count, rng):
    for _ in range(count):
        words, tags = [], []
        for _ in range(rng.integers(8, 25)):
            kind = rng.choice(3, p=[0.12, 0.1, 0.78])
            words.append(str(rng.choice((NAMES, PLACES, WORDS)[kind])))
            tags.append(("PER", "LOC", None)[kind])
        sentence = Sentence(words)
        for position, tag in enumerate(tags):
            if tag:
                sentence[position : position + 1].add_label("ner", tag)
        yield sentence


def letters():
    dictionary = Dictionary()
    for letter in sorted(set("".join(NAMES + PLACES + WORDS))):
        dictionary.add_item(letter)
    return dictionary


def run():
    flair.set_seed(0)
    rng = np.random.default_rng(0)
    corpus = Corpus(list(sentences(160, rng)), list(sentences(20, rng)), list(sentences(20, rng)))
    embeddings = StackedEmbeddings([
        OneHotEmbeddings.from_corpus(corpus, embedding_length=50, min_freq=1),
        CharacterEmbeddings(letters(), hidden_size_char=25),
    ])  # fmt: skip
    tagger = SequenceTagger(embeddings, corpus.make_label_dictionary("ner"), "ner", hidden_size=128)
    swap.accelerate(tagger)
    losses = Losses()
    with tempfile.TemporaryDirectory() as folder:
        ModelTrainer(tagger, corpus).train(
            folder, learning_rate=0.2, mini_batch_size=8, max_epochs=2, save_final_model=False,
            plugins=[losses])  # fmt: skip
    asked = list(sentences(40, np.random.default_rng(1)))
    tagger.predict(asked, mini_batch_size=8)
    chances = [label.score for sentence in asked for label in sentence.get_labels("ner")]
    return {"losses": losses.values, "chances": chances}
