"""What counts as an entity: over words as conlleval has it, over pieces as the paper's code has it.

A span is `(type, first, last)` with inclusive ends, counted from the start of its sentence.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from knn_ner.data.tags import BMES, OUTSIDE, SCHEMES, convert_tags, opens_entity, position_and_type

Span = tuple[str, int, int]


def word_spans(tags: Sequence[str]) -> list[Span]:
    """The entities of one sentence's word tags, in any scheme, by conlleval's rule (seqeval's default mode).

    Every tag other than O lies in exactly one span: a malformed run such as O I-PER opens one.
    """
    spans: list[Span] = []
    for place, (previous, tag) in enumerate(itertools.pairwise([OUTSIDE, *tags])):
        if opens_entity(previous, tag):
            spans.append((position_and_type(tag)[1], place, place))
        elif tag != OUTSIDE:
            spans[-1] = (*spans[-1][:2], place)
    return spans


def strict_spans(tags: Sequence[str], scheme: str) -> list[Span]:
    """The entities among `word_spans` that a scheme, BIO, IOBES or BMES, writes so (seqeval's strict mode)."""
    written = convert_tags(tags, SCHEMES[scheme])
    return [
        (type_, first, last)
        for type_, first, last in word_spans(tags)
        if list(tags[first : last + 1]) == written[first : last + 1]
    ]


def published_spans(tags: Sequence[str]) -> list[Span]:
    """The entities of one sentence's piece tags, by the protocol of the paper's results.

    S is an entity of one piece. B opens one that M of the same type continues and E of the same
    type closes. When anything else comes first, or the sentence ends, the opening B alone is an
    entity of one piece, and the tag that broke the run is not looked at again. A stray M or E is
    nothing. (arXiv 2203.17103, the published code's evaluation.)
    """
    spans = []
    position = 0
    while position < len(tags):
        prefix, type_ = position_and_type(tags[position])
        if prefix == "S":
            spans.append((type_, position, position))
        elif prefix == "B":
            first = position
            position += 1
            while position < len(tags) and tags[position] == f"M-{type_}":
                position += 1
            closed = position < len(tags) and tags[position] == f"E-{type_}"
            spans.append((type_, first, position if closed else first))
        position += 1
    return spans


def to_bmes(tags: Sequence[str], scheme: str) -> list[str]:
    """One sentence's tags in BMES, the scheme that `published_spans` is defined over.

    IOBES is BMES in another spelling: only the letter changes, and the published protocol still decides what a
    malformed run is worth. BIO has no closing tag that could be missing: its entities are read by conlleval's rules.
    """
    if scheme == "BIO":
        return convert_tags(tags, BMES)
    return ["M" + tag[1:] if tag.startswith("I") else tag for tag in tags]


class SpanCounter:
    """Counts the entities of word labels against a fixed gold tagging, as `word_spans` has them.

    Attributes:
        gold_counts: (S,) gold entities of each sentence.
    """

    def __init__(
        self,
        labels: Sequence[str],
        gold: np.ndarray,
        sentence_of_word: np.ndarray,
        sentence_count: int,
    ) -> None:
        """Find the gold entities.

        Args:
            labels: the labels that ids index, those of the gold tags that no model predicts included.
            gold: (W,) label ids of the words, in order of sentences.
            sentence_of_word: (W,) ascending.
            sentence_count: S.
        """
        # One more label is between two sentences.
        tags = [*labels, OUTSIDE]
        self._outside = len(labels)
        types, self._type = np.unique(
            [position_and_type(tag)[1] for tag in tags], return_inverse=True
        )
        self._type_count = len(types)
        # [left, right]: whether an entity starts with `right`, whether one ends with `left`.
        self._starts = np.array([[opens_entity(a, b) for b in tags] for a in tags])
        is_outside = np.array([tag == OUTSIDE for tag in tags])
        self._ends = (self._starts | is_outside) & ~is_outside[:, None]
        self._word_counts = np.bincount(sentence_of_word, minlength=sentence_count)
        self._first_word = np.cumsum(self._word_counts) - self._word_counts
        self._gold = self.spans(gold, sentence_of_word)
        self.gold_counts = np.bincount(sentence_of_word[self._gold > 0], minlength=sentence_count)

    def spans(self, words: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The entity that starts at each word, (V,): a number above 0 for its type and length; 0 without one.

        Args:
            words: (V,) label ids.
            rows: (V,) ascending; no entity goes on into another row.
        """
        words = np.asarray(words, dtype=np.int64)
        spans = np.zeros(len(words), dtype=np.int64)
        previous, following = np.full((2, len(words)), self._outside)
        same_row = rows[1:] == rows[:-1]
        previous[1:][same_row], following[:-1][same_row] = words[:-1][same_row], words[1:][same_row]
        # Every tag other than O lies in an entity, so the n-th start belongs to the n-th end.
        first = np.flatnonzero(self._starts[previous, words])
        last = np.flatnonzero(self._ends[words, following])
        spans[first] = (last - first) * self._type_count + self._type[words[first]] + 1
        return spans

    def count(self, words: np.ndarray, rows: np.ndarray, sentences: np.ndarray) -> np.ndarray:
        """Count the right and the predicted entities of each row, (2, R).

        Args:
            words, rows: (V,) as `WordDecoder.words` gives them.
            sentences: (R,) the sentence of each row.

        Raises:
            ValueError: if the words are not those of the sentences.
        """
        gold_word, gold_row = ranges(self._first_word[sentences], self._word_counts[sentences])
        if not np.array_equal(rows, gold_row):
            raise ValueError(
                f"the decoder gave {len(rows)} words for {len(gold_row)} gold words, "
                "or divided them among the sentences in another way"
            )
        spans = self.spans(words, rows)
        found = np.flatnonzero(spans)
        right = found[spans[found] == self._gold[gold_word[found]]]
        return np.stack([np.bincount(rows[w], minlength=len(sentences)) for w in (right, found)])


def ranges(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R ranges [start, start + length) one after the other, and the index of each element's range."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    offsets = starts - (np.cumsum(lengths) - lengths)
    return np.arange(len(rows)) + offsets[rows], rows
