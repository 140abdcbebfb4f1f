"""Piece labels back to words: the inverse of the alignment in `encoding`."""

from collections.abc import Sequence

import numpy as np

from knn_ner.data.encoding import EncodedSentence
from knn_ner.data.spans import ranges
from knn_ner.data.tags import OUTSIDE, position_and_type, scheme_of_labels


class WordDecoder:
    """The prediction of each word, from the predictions of its pieces.

    A word takes the label of its first piece, but closes the entity if its last piece does: M..E of one type is E, and
    B..E is S, an entity of its own. A piece over several words (`2022` in Chinese text) was labelled like its last
    word. If that is B or S, the entity begins there, and the words before are O. If it is M or E, the words before
    continue the open entity; without an open one, the first of them opens it.

    Attributes:
        counts: (S,) words of each sentence.
        word_starts: (S,) the first word of each sentence.
        first_piece: (W,) the first piece of each word, counted from the start of its sentence.
    """

    def __init__(self, sentences: Sequence[EncodedSentence], labels: Sequence[str]):
        """Keep where the words of S encoded sentences are; labels: the label list that piece labels index."""
        self.labels = list(labels)
        self._pieces = np.array([len(sentence) for sentence in sentences], dtype=np.int64)
        self.rows = int(self._pieces.sum())
        self.counts = np.array([len(each.first_piece) for each in sentences], dtype=np.int64)
        self.word_starts = np.cumsum(self.counts) - self.counts
        none = [np.zeros(0, np.int64)]
        self.first_piece = np.concatenate(none + [each.first_piece for each in sentences])
        self._last_piece = np.concatenate(none + [each.last_piece for each in sentences])
        self._positions = [position_and_type(label) for label in self.labels]
        self._ids = {label: index for index, label in enumerate(self.labels)}
        self._inside = scheme_of_labels(labels).inside
        self._word_labels = np.array(
            [[self._word_label(first, last) for last in self.labels] for first in self.labels]
        )

    def _word_label(self, first: str, last: str) -> int:
        """The label of a word from those of its first and its last piece."""
        (position, kind), own = position_and_type(first), self._ids[first]
        if last == f"E-{kind}" and position == self._inside:
            return self._ids[last]
        if last == f"E-{kind}" and position == "B":
            return self._ids.get(f"S-{kind}", own)
        return own

    def words(
        self, piece_labels: np.ndarray, sentences: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decode sentences.

        Args:
            piece_labels: the label ids of all pieces (special tokens included) of these sentences, one after the other.
            sentences: (R,) indices of sentences; one may occur many times.

        Returns:
            (V,) the label ids of their words, and (V,) the place in `sentences` of each word.
        """
        sentences = np.asarray(sentences, dtype=np.int64)
        pieces = self._pieces[sentences]
        word, row_of_word = ranges(self.word_starts[sentences], self.counts[sentences])
        offset = (np.cumsum(pieces) - pieces)[row_of_word]
        first = offset + self.first_piece[word]
        labels = np.asarray(piece_labels)
        decoded = self._word_labels[labels[first], labels[offset + self._last_piece[word]]]
        self._spread_over_words(decoded, first, row_of_word)
        return decoded, row_of_word

    def _spread_over_words(self, decoded: np.ndarray, first: np.ndarray, row: np.ndarray) -> None:
        """Label the words that share a piece, in place; `first` (W,) is the first piece of each."""
        shared = np.flatnonzero((first[1:] == first[:-1]) & (row[1:] == row[:-1]))
        # A run of k words that share a piece with the next one is a group of k + 1 words.
        begins = shared[np.diff(shared, prepend=-2) > 1]
        stops = shared[np.diff(shared, append=len(first) + 2) > 1] + 2
        outside = self._ids[OUTSIDE]
        for begin, stop in zip(begins, stops, strict=True):
            label = decoded[stop - 1]
            position, kind = self._positions[label]
            if position in {OUTSIDE, "B", "S"}:
                decoded[begin : stop - 1] = outside
                continue
            inside = self._ids.get(f"{self._inside}-{kind}", label)
            before = begin > 0 and row[begin - 1] == row[begin]
            previous = self._positions[decoded[begin - 1]] if before else (OUTSIDE, "")
            decoded[begin : stop - 1] = inside
            if previous not in {("B", kind), (self._inside, kind)}:
                decoded[begin] = self._ids.get(f"B-{kind}", inside)

    def sentences(self, piece_labels: np.ndarray) -> list[list[str]]:
        """The tags of the words of every sentence, from the label ids of all pieces, one after the other."""
        words, _ = self.words(piece_labels, np.arange(len(self._pieces)))
        tags = [self.labels[index] for index in words]
        return [
            tags[start : start + count]
            for start, count in zip(self.word_starts, self.counts, strict=True)
        ]
