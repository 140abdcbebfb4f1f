"""A split of a corpus in the word pieces of a tagger, and its scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from knn_ner.data.batching import first_rows
from knn_ner.data.corpus import Corpus, Sentence, other_positions
from knn_ner.data.encoding import IGNORED, EncodedSentence, Encoding
from knn_ner.data.word_decoding import WordDecoder
from knn_ner.datastore.manifest import Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.evaluation.metrics import score
from knn_ner.settings import RunSettings, TaggerSettings
from knn_ner.tagging.trained_tagger import TrainedTagger, load, open_datastore


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


def load_with_split(
    where: TaggerSettings, run: RunSettings, corpus: Corpus, name: str, units: str = "auto"
) -> tuple[TrainedTagger, Datastore, Split]:
    """Load a tagger and its datastore, and encode a split of a corpus over the labels of both.

    Args:
        where: the tagger and its datastore.
        run: how the encoder runs.
        corpus: holds the split.
        name: the split's name.
        units: `words`, `characters`, or `auto` for those of the datastore.

    Raises:
        UserError: if tagger or datastore cannot be opened, do not belong together, or lack a label of the
            corpus.
    """
    manifest = Manifest.read(Path(where.datastore_path))
    if units == "auto":
        units = manifest.provenance.get("units", units)
    tagger = load(where.model_path, run.max_length, corpus, manifest.labels, units)
    store = open_datastore(where.datastore_path, tagger)
    labels = [*store.labels, *other_positions(corpus.splits[name], store.labels)]
    return tagger, store, make_split(corpus, name, tagger.encoding_with(labels))
