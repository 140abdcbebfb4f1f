"""Test sentences that the datastore holds, word for word or nearly.

A tagger that looks sentences up scores what it has stored. So these test sentences are counted, and each score is
also given without them: that score tells how well new text is tagged.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

# Two sentences with this edit similarity or more are nearly equal. With up to four tokens, only equal ones are.
SIMILARITY = 0.8

Tokens = Sequence[str]


@dataclass(frozen=True)
class Leakage:
    """Test sentences that are among the stored ones.

    Attributes:
        exact: (sentences,) bool, word for word.
        retagged: (sentences,) bool, exact, but no stored copy has the same tags.
        near: (sentences,) bool, nearly equal to a stored one, but not exact.
    """

    exact: np.ndarray
    retagged: np.ndarray
    near: np.ndarray

    def counts(self) -> dict[str, int]:
        """The number of sentences, and of each kind."""
        kinds = vars(self).items()
        return {"sentences": len(self.exact)} | {kind: int(each.sum()) for kind, each in kinds}


def find_leakage(
    test: Sequence[tuple[Tokens, Tokens]], stored: Iterable[tuple[Tokens, Tokens]]
) -> Leakage:
    """Look for test sentences among stored ones; both are given as tokens and tags."""
    tags_of: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    for tokens, tags in stored:
        tags_of[tuple(tokens)].add(tuple(tags))
    similar = SimilarSentences(tags_of)
    found = np.zeros((len(test), 3), dtype=bool)
    for row, (tokens, tags) in enumerate(test):
        if tuple(tokens) in tags_of:
            found[row, :2] = True, tuple(tags) not in tags_of[tuple(tokens)]
        else:
            found[row, 2] = similar.has(tokens)
    return Leakage(*found.T)


class SimilarSentences:
    """Sentences that others are compared with.

    The edit similarity of two sentences is 1 - d / n, where d is the Levenshtein distance of their tokens, letter
    case aside, and n the number of tokens of the longer one.
    """

    def __init__(self, sentences: Iterable[Tokens], similarity: float = SIMILARITY):
        """Keep the sentences; similarity: the least edit similarity of nearly equal ones, above 0, at most 1."""
        self._similarity = similarity
        self._characters: dict[str, str] = {}
        self._of_length: dict[int, set[str]] = defaultdict(set)
        for tokens in sentences:
            self._of_length[len(tokens)].add(self._encode(tokens))

    def has(self, tokens: Tokens) -> bool:
        """Whether one of the sentences is nearly equal to the given one."""
        sentence, size = self._encode(tokens), len(tokens)
        for length, others in self._of_length.items():
            most = math.floor((1 - self._similarity) * max(size, length) + 1e-9)
            if abs(size - length) <= most and process.extractOne(
                sentence, others, scorer=Levenshtein.distance, score_cutoff=most
            ):
                return True
        return False

    def _encode(self, tokens: Tokens) -> str:
        """A sentence as a string with one character for each token, which rapidfuzz compares fastest."""
        return "".join(
            self._characters.setdefault(token.casefold(), chr(len(self._characters)))
            for token in tokens
        )
