"""How the entries of a datastore belong to words, to sentences, and to copies of sentences."""

import hashlib

import numpy as np

from knn_ner.datastore.reader import Datastore


class StoredSentences:
    """The sentences of a datastore; words are numbered consecutively through all of them.

    Sentences with the same words, in the same case, are copies of each other.

    Attributes:
        sentences: the S stored sentences, in the order of their entries.
        first_entry: (S + 1,) first entry of each sentence, and the number of entries.
        first_word: (S + 1,) first word of each sentence, and the number of words.
        word_of_entry: (n,) word of each entry; -1 for a special token.
        copies_of_entry: (n,) number of the set of copies that the entry's sentence belongs to.
        copy_sizes: (sets,) number of entries in each set of copies.
        first_copy: (n,) entry at the same position in the first sentence of the set.
    """

    def __init__(self, store: Datastore):
        # The entries of a sentence are consecutive.
        starts = np.flatnonzero(np.diff(store.sentence_ids, prepend=-1))
        self.sentences = [store.sentence(int(store.sentence_ids[start])) for start in starts]
        self.first_entry = np.append(starts, store.entries)
        self.first_word = np.cumsum([0, *(len(each["words"]) for each in self.sentences)])
        lengths = np.diff(self.first_entry)
        offsets = np.repeat(self.first_word[:-1], lengths)
        self.word_of_entry = np.where(store.positions >= 0, offsets + store.positions, -1)

        numbers: dict[tuple[bytes, int], int] = {}
        # The number of entries belongs to the key: with another window length, a copy has other entries.
        keys = [
            (hashlib.blake2b("\n".join(each["words"]).encode()).digest(), int(length))
            for each, length in zip(self.sentences, lengths, strict=True)
        ]
        copies = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
        _, first_sentence = np.unique(copies, return_index=True)
        self.copies_of_entry = np.repeat(copies, lengths)
        self.copy_sizes = np.bincount(self.copies_of_entry)
        shift = np.repeat(starts - starts[first_sentence[copies]], lengths)
        self.first_copy = np.arange(store.entries) - shift

    def __len__(self) -> int:
        """The number of words."""
        return int(self.first_word[-1])

    def word_scores(self, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn scores of entries, (n,), into scores of words: the mean over a word's entries.

        A word without an entry of its own, because its word piece also covers later words, gets the score and the
        entry of the next word.

        Returns:
            (words,) float64 scores, and (words,) int64, the entry with the highest score of each word.
        """
        entries = np.flatnonzero(self.word_of_entry >= 0)
        order = entries[np.lexsort((entries, -score[entries], self.word_of_entry[entries]))]
        words, places, counts = np.unique(
            self.word_of_entry[order], return_index=True, return_counts=True
        )
        means = np.add.reduceat(score[order].astype(np.float64), places) / counts
        following = np.minimum(np.searchsorted(words, np.arange(len(self))), len(words) - 1)
        return means[following], order[places][following]
