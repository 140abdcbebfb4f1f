"""What the entry points share: a tagger with its encoding, a split ready for it, and the scores."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from knn_ner.cli import say
from knn_ner.data.corpus import Corpus, Sentence, check_labels
from knn_ner.data.decoding import WordDecoder
from knn_ner.data.encoding import IGNORED, EncodedSentence, Encoding, detect_units
from knn_ner.data.loading import first_rows
from knn_ner.data.text import detect_word_rule
from knn_ner.evaluation.metrics import score
from knn_ner.model.backbone import (
    load_tagger,
    load_tokenizer,
    longest_input,
    tagger_labels,
    tokenizer_hash,
    weights_hash,
)
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.manifest import Manifest

# Under this key the tagger's config.json keeps how its word pieces were made and labelled.
CONFIG_KEY = "knn_ner"
# Sentences that tell by what rule a corpus was split into words.
RULE_SENTENCES = 2000


@dataclass
class LoadedTagger:
    """A tagger, its tokeniser, and the one way in which it turns words into labelled pieces."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    encoding: Encoding
    max_length: int

    @property
    def labels(self) -> list[str]:
        """The label list, by index."""
        return self.encoding.labels

    @cached_property
    def made_with(self) -> dict:
        """What of the tagger keys depend on: a datastore is read with nothing else. Hashed once.

        The layer and the transform are the store's own (`Datastore.recipe`), and go with it.
        """
        return {
            "model": weights_hash(self.model),
            "tokenizer": tokenizer_hash(self.tokenizer),
            "piece_labels": self.encoding.piece_labels,
            "units": self.encoding.units,
        }

    def encoding_with(self, labels: Iterable[str]) -> Encoding:
        """The encoding over the tagger's labels and then those of `labels` that it lacks."""
        labels = list(dict.fromkeys([*self.labels, *labels]))
        return Encoding(self.tokenizer, labels, self.encoding.piece_labels, self.encoding.units)


def show_corpus(corpus: Corpus) -> None:
    """Tell the user what was read."""
    for line in corpus.describe():
        say(line)


def load(
    model_path: str | Path, max_length: int, corpus: Corpus, further_labels: Sequence[str] = ()
) -> LoadedTagger:
    """A trained tagger by folder or hub name, for a corpus that it has all labels of.

    A tagger that was not trained here learns from the corpus whether tokens are joined with spaces.

    further_labels: what the corpus may hold beside the tagger's labels: those of the datastore.

    Raises `UserError` when it cannot be loaded, or lacks a label.
    """
    model = load_tagger(model_path)
    settings = getattr(model.config, CONFIG_KEY, None) or {}
    units = settings.get("units") or detect_units(next(iter(corpus.splits.values())))
    piece_labels = settings.get("piece_labels", "published")
    tokenizer = load_tokenizer(model_path)
    encoding = Encoding(tokenizer, tagger_labels(model), piece_labels, units)
    labels = list(dict.fromkeys([*encoding.labels, *further_labels]))
    for split, sentences in corpus.splits.items():
        check_labels(sentences, labels, corpus.files[split])
    return LoadedTagger(model, tokenizer, encoding, fitting_length(model, max_length))


def load_for_datastore(
    model_path: str | Path, max_length: int, datastore_path: str | Path
) -> LoadedTagger:
    """The tagger of a datastore, with words joined and pieces labelled as for its keys.

    Raises `UserError` when the tagger cannot be loaded, there is no datastore, or it is another's.
    """
    manifest = Manifest.read(Path(datastore_path))
    tagger = load_alone(model_path, max_length, manifest.made_with)
    manifest.check_made_with(Path(datastore_path), tagger.made_with)
    return tagger


def load_alone(
    model_path: str | Path, max_length: int, made_with: Mapping | None = None
) -> LoadedTagger:
    """A tagger without a corpus, that joins words and labels pieces as in its own training.

    made_with: what a datastore says of that, which comes first. Where neither says anything, words are
    joined with spaces and all pieces labelled.

    Raises `UserError` when the tagger cannot be loaded.
    """
    model = load_tagger(model_path)
    tokenizer = load_tokenizer(model_path)
    settings = (getattr(model.config, CONFIG_KEY, None) or {}) | dict(made_with or {})
    encoding = Encoding(
        tokenizer,
        tagger_labels(model),
        settings.get("piece_labels", "published"),
        settings.get("units", "words"),
    )
    return LoadedTagger(model, tokenizer, encoding, fitting_length(model, max_length))


def word_rule(tagger: LoadedTagger, store: Datastore | None = None) -> str:
    """The rule (see `data.text`) by which raw text is split into words for a tagger.

    It is what training kept with the tagger; failing that, the rule of the sentences in its datastore.
    """
    settings = getattr(tagger.model.config, CONFIG_KEY, None) or {}
    if "word_rule" in settings:
        return settings["word_rule"]
    ids = store.stored_sentences[:RULE_SENTENCES] if store else []
    if tagger.encoding.units == "words" and not len(ids):
        return "penn"
    return detect_word_rule((store.sentence(id_)["words"] for id_ in ids), tagger.encoding.units)


def fitting_length(model: PreTrainedModel, max_length: int) -> int:
    """`max_length`, or what the encoder has positions for if that is less, which is said.

    So is another length than in training, since positions that training never reached are random in
    an encoder that was trained from nothing.
    """
    room = longest_input(model)
    if max_length > room:
        say(f"--max_length {max_length}: the encoder has {room} positions, {room} are used")
    length = min(max_length, room)
    trained = (getattr(model.config, CONFIG_KEY, None) or {}).get("max_length", length)
    if trained != length:
        say(
            f"warning: --max_length {length}, but the tagger was trained with --max_length {trained}"
        )
    return length


@dataclass
class Split:
    """Sentences with their word pieces. Arrays over rows have one entry for each piece, in order."""

    sentences: Sequence[Sentence]
    encoded: Sequence[EncodedSentence]
    labels: list[str]
    scheme: str

    @cached_property
    def decoder(self) -> WordDecoder:
        """Piece labels to words."""
        return WordDecoder(self.encoded, self.labels)

    @cached_property
    def first_rows(self) -> np.ndarray:
        """(S + 1,): the first row of each sentence, and their number."""
        return first_rows(self.encoded)

    @cached_property
    def gold(self) -> np.ndarray:
        """(rows,) int64: the gold label of each piece; `IGNORED` where it carries none."""
        return np.concatenate([sentence.labels for sentence in self.encoded]).astype(np.int64)

    @cached_property
    def scored(self) -> np.ndarray:
        """(rows,) bool: the pieces that carry a label and are no special tokens."""
        words = np.concatenate([sentence.word_of_piece for sentence in self.encoded])
        return (words >= 0) & (self.gold != IGNORED)

    @cached_property
    def word_tags(self) -> list[list[str]]:
        """The gold tags of the words of each sentence."""
        return [sentence.tags for sentence in self.sentences]

    def piece_tags(self, rows: np.ndarray) -> list[list[str]]:
        """The tags of the scored pieces of each sentence, from the label ids of all rows."""
        tags = np.asarray(self.labels, dtype=object)[np.where(self.scored, rows, 0)]
        return [
            tags[start:stop][self.scored[start:stop]].tolist()
            for start, stop in zip(self.first_rows, self.first_rows[1:], strict=False)
        ]

    def score(self, rows: np.ndarray) -> dict:
        """Both scores (see `evaluation.metrics.score`) of predicted label ids (rows,)."""
        return score(
            self.word_tags,
            self.decoder.sentences(rows),
            self.piece_tags(self.gold),
            self.piece_tags(rows),
            self.scheme,
        )


def make_split(corpus: Corpus, split: str, encoding: Encoding) -> Split:
    """A split of a corpus in the pieces of a tagger."""
    sentences = corpus.splits[split]
    return Split(sentences, encoding.encode(sentences), encoding.labels, corpus.scheme.name)
