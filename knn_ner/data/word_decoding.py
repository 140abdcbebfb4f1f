"""Piece labels back to words: the inverse of the alignment in `encoding`."""

from collections.abc import Sequence

import numpy as np

from knn_ner.data.encoding import EncodedSentence
from knn_ner.data.tags import OUTSIDE, position_and_type, scheme_of_labels


def ragged(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The ranges [start, start + length) one after the other; both (R,), result (sum of lengths,)."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)


class WordDecoder:
    """The one prediction of each word, from the predictions of its pieces.

    A word takes the label of its first piece, but closes the entity when its last piece does: M..E of
    one type is E, and B..E is S, an entity of its own. A piece over several words (`2022` in Chinese
    text) was labelled like its last word: B and S begin there, the words before are O; with M and E the
    words before continue the entity that is open, and where none is open the first of them opens it.

    sentences: S encoded sentences; labels: the label list that piece labels index.
    """

    def __init__(self, sentences: Sequence[EncodedSentence], labels: Sequence[str]):
        self.labels = list(labels)
        self.pieces = np.array([len(sentence) for sentence in sentences], dtype=np.int64)
        self.counts = np.array(
            [len(sentence.first_piece) for sentence in sentences], dtype=np.int64
        )
        self.word_starts = np.cumsum(self.counts) - self.counts
        self.first_piece = np.concatenate(
            [sentence.first_piece for sentence in sentences] or [np.zeros(0, np.int32)]
        ).astype(np.int64)
        self.last_piece = np.concatenate(
            [sentence.last_piece for sentence in sentences] or [np.zeros(0, np.int32)]
        ).astype(np.int64)
        self._positions = [position_and_type(label) for label in self.labels]
        self._ids = {label: index for index, label in enumerate(self.labels)}
        self._scheme = scheme_of_labels(labels)
        self._table = self._word_table()

    def _word_table(self) -> np.ndarray:
        """(L, L): the label of a word from those of its first and its last piece."""
        size = len(self.labels)
        table = np.repeat(np.arange(size)[:, None], size, axis=1)
        for a, (position, kind) in enumerate(self._positions):
            if position == self._scheme.inside and self._scheme.closes:
                end = self._ids.get(f"E-{kind}")
                if end is not None:
                    table[a, end] = end
            if position == "B" and self._scheme.closes:
                end, single = self._ids.get(f"E-{kind}"), self._ids.get(f"S-{kind}")
                if end is not None and single is not None:
                    table[a, end] = single
        return table

    def words(
        self, piece_labels: np.ndarray, sentences: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decode a run of sentences.

        piece_labels: the label ids of all pieces (special tokens included) of these sentences, flat.
        sentences: (R,) indices of sentences; one may occur many times.

        Returns the label ids of their words, flat, and for each word the place in `sentences`.
        """
        sentences = np.asarray(sentences, dtype=np.int64)
        pieces, counts = self.pieces[sentences], self.counts[sentences]
        row_of_word = np.repeat(np.arange(len(sentences)), counts)
        word = ragged(self.word_starts[sentences], counts)
        offset = (np.cumsum(pieces) - pieces)[row_of_word]
        first = offset + self.first_piece[word]
        labels = np.asarray(piece_labels)
        decoded = self._table[labels[first], labels[offset + self.last_piece[word]]]
        self._spread_over_words(decoded, first, row_of_word)
        return decoded, row_of_word

    def _spread_over_words(self, decoded: np.ndarray, first: np.ndarray, row: np.ndarray) -> None:
        """Settle the words that share a piece, in place: `first` (W,) is the first piece of each."""
        shared = np.flatnonzero((first[1:] == first[:-1]) & (row[1:] == row[:-1]))
        if not len(shared):
            return
        # A run of k shared borders is a group of k + 1 words; nearly all are outside any entity.
        begins = shared[np.diff(shared, prepend=-2) > 1]
        stops = shared[np.diff(shared, append=len(first) + 2) > 1] + 2
        outside = self._ids[OUTSIDE]
        for begin, stop in zip(begins, stops, strict=True):
            label = decoded[stop - 1]
            if label == outside:
                decoded[begin:stop] = outside
                continue
            position, kind = self._positions[label]
            if position in {"B", "S"}:
                decoded[begin : stop - 1] = outside
                continue
            inside = self._ids.get(f"{self._scheme.inside}-{kind}", label)
            before = begin > 0 and row[begin - 1] == row[begin]
            previous = self._positions[decoded[begin - 1]] if before else (OUTSIDE, "")
            decoded[begin : stop - 1] = inside
            if previous not in {("B", kind), (self._scheme.inside, kind)}:
                decoded[begin] = self._ids.get(f"B-{kind}", inside)

    def sentences(self, piece_labels: np.ndarray) -> list[list[str]]:
        """The tags of the words of every sentence, from the label ids of all pieces, flat."""
        words, _ = self.words(piece_labels, np.arange(len(self.pieces)))
        tags = [self.labels[index] for index in words]
        return [
            tags[start : start + count]
            for start, count in zip(self.word_starts, self.counts, strict=True)
        ]
