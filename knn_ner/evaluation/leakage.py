"""Which test sentences the datastore has seen: word for word, or nearly so.

A tagger that looks sentences up scores what it has stored; so that a score says something of new text, these
sentences are counted, and each score is also given without them.

Nearly the same are two sentences of edit similarity 0.8 or more: 1 - d / n, where d is the Levenshtein distance
of their tokens (words, or characters where these are the tokens; letter case aside) and n the length of the
longer. With up to four tokens that means the same ones. Pairs are found by the prefix filter of similarity
joins (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant 2007): each pair has a token in common among
the rarest ones of both.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

SIMILARITY = 0.8

Tokens = Sequence[str]


@dataclass(frozen=True)
class Leakage:
    """Test sentences that are among the stored ones; arrays (sentences,) bool.

    exact: word for word. retagged: of these, those that have no copy with the same tags. near: nearly the same
        as a stored one, but not exact.
    """

    exact: np.ndarray
    retagged: np.ndarray
    near: np.ndarray

    def counts(self) -> dict[str, int]:
        """How many there are of each."""
        return {
            "sentences": len(self.exact),
            "exact": int(self.exact.sum()),
            "retagged": int(self.retagged.sum()),
            "near": int(self.near.sum()),
        }


def find_leakage(
    test: Sequence[tuple[Tokens, Tokens]],
    stored: Iterable[tuple[Tokens, Tokens]],
    similarity: float = SIMILARITY,
) -> Leakage:
    """Look for test sentences among stored ones; both are pairs of tokens and tags."""
    tags_of: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    for tokens, tags in stored:
        tags_of[tuple(tokens)].add(tuple(tags))
    exact = np.array([tuple(tokens) in tags_of for tokens, _ in test], dtype=bool)
    retagged = np.array(
        [
            found and tuple(tags) not in tags_of[tuple(tokens)]
            for found, (tokens, tags) in zip(exact, test, strict=True)
        ],
        dtype=bool,
    )
    index = SimilarSentences(tags_of, similarity)
    near = np.array(
        [not found and index.has(tokens) for found, (tokens, _) in zip(exact, test, strict=True)],
        dtype=bool,
    )
    return Leakage(exact, retagged, near)


class SimilarSentences:
    """Sentences to be asked whether another one is nearly the same as one of them.

    similarity: the least edit similarity, above 0, at most 1.
    """

    def __init__(self, sentences: Iterable[Tokens], similarity: float = SIMILARITY):
        self._similarity = similarity
        self._sentences = list(dict.fromkeys(_folded(tokens) for tokens in sentences))
        self._frequency: Counter[tuple[str, int]] = Counter()
        for sentence in self._sentences:
            self._frequency.update(_numbered(sentence))
        self._containing: dict[tuple[str, int], list[int]] = defaultdict(list)
        for number, sentence in enumerate(self._sentences):
            for feature in self._prefix(sentence):
                self._containing[feature].append(number)

    def has(self, tokens: Tokens) -> bool:
        """Whether one of the sentences is nearly the same."""
        sentence = _folded(tokens)
        bag = Counter(sentence)
        candidates = {
            number
            for feature in self._prefix(sentence)
            for number in self._containing.get(feature, ())
        }
        for number in candidates:
            other = self._sentences[number]
            longer = max(len(sentence), len(other))
            most = math.floor((1 - self._similarity) * longer + 1e-9)
            # Each edit takes away at most one common token.
            if (
                abs(len(sentence) - len(other)) <= most
                and (bag & Counter(other)).total() >= longer - most
                and edit_distance(sentence, other, most) <= most
            ):
                return True
        return False

    def _prefix(self, sentence: Tokens) -> list[tuple[str, int]]:
        """The rarest tokens of a sentence, so many that each similar one has one of them among its own.

        Similar ones have at least `similarity` of the longer one's tokens in common, repetitions counted.
        """
        features = sorted(_numbered(sentence), key=lambda each: (self._frequency[each], each))
        common = math.ceil(self._similarity * len(sentence) - 1e-9)
        return features[: len(sentence) - common + 1]


def edit_distance(a: Tokens, b: Tokens, most: int) -> int:
    """The Levenshtein distance of two sequences if it is at most `most`, else some greater number."""
    if abs(len(a) - len(b)) > most:
        return most + 1
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        before, row = row, [i] + [most + 1] * len(b)
        # Outside of this band the distance is greater than `most`.
        for j in range(max(1, i - most), min(len(b), i + most) + 1):
            row[j] = min(
                before[j - 1] + (left != b[j - 1]),
                before[j] + 1,
                row[j - 1] + 1,
            )
        if min(row) > most:
            return most + 1
    return row[-1]


def _folded(tokens: Tokens) -> tuple[str, ...]:
    return tuple(token.casefold() for token in tokens)


def _numbered(sentence: Tokens) -> list[tuple[str, int]]:
    """Each token with how many of the same came before it, so that sets of these are multisets."""
    seen: Counter[str] = Counter()
    features = []
    for token in sentence:
        features.append((token, seen[token]))
        seen[token] += 1
    return features
