"""What counts as an entity: over words as conlleval has it, over pieces as the paper's code has it.

A span is `(type, first, last)` with inclusive ends, counted from the start of its sentence.
"""

from collections.abc import Sequence

import numpy as np
from seqeval.metrics.sequence_labeling import end_of_chunk, get_entities, start_of_chunk

from knn_ner.utils.errors import UserError

SCHEMES = ("BIO", "IOBES", "BMES")

Span = tuple[str, int, int]


def conlleval_tags(tags: Sequence[str], scheme: str) -> list[str]:
    """The same tags in the letters that conlleval and seqeval know: BMES writes I as M.

    Raises UserError for a scheme other than BIO, IOBES and BMES.
    """
    if scheme not in SCHEMES:
        raise UserError(f"unknown tagging scheme {scheme!r}: expected one of {', '.join(SCHEMES)}")
    if scheme != "BMES":
        return list(tags)
    return ["I" + tag[1:] if tag.startswith("M") else tag for tag in tags]


def word_spans(tags: Sequence[str], scheme: str) -> list[Span]:
    """The entities of one sentence's word tags, by conlleval's rules (seqeval's default mode).

    Every tag other than O lies in exactly one span: a malformed run such as O I-PER opens one.
    """
    return get_entities(conlleval_tags(tags, scheme))


def to_bmes(tags: Sequence[str], scheme: str) -> list[str]:
    """One sentence's tags in BMES, the scheme that `published_spans` is defined over.

    IOBES is BMES in another spelling, so only the letter changes and the published protocol still
    decides what a malformed run is worth. BIO has no closing tag to be missing: its entities are
    read by conlleval's rules (an I after O, or after another type, opens one) and written out.
    """
    if scheme == "BIO":
        bmes = ["O"] * len(tags)
        for type_, first, last in word_spans(tags, scheme):
            if first == last:
                bmes[first] = f"S-{type_}"
            else:
                bmes[first : last + 1] = [
                    f"B-{type_}",
                    *[f"M-{type_}"] * (last - first - 1),
                    f"E-{type_}",
                ]
        return bmes
    return ["M" + tag[1:] if tag.startswith("I") else tag for tag in conlleval_tags(tags, scheme)]


def published_spans(tags: Sequence[str]) -> list[Span]:
    """The entities of one sentence's BMES piece tags, by the protocol of the paper's results.

    S is an entity of one piece. B opens one that M of the same type continues and E of the same
    type closes. When anything else comes first, or the sentence ends, the opening B alone is an
    entity of one piece, and the tag that broke the run is not looked at again. A stray M or E is
    nothing. (arXiv 2203.17103, the published code's evaluation.)
    """
    spans = []
    position = 0
    while position < len(tags):
        prefix, _, type_ = tags[position].partition("-")
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


class SpanCounter:
    """Counts the entities of word labels against a fixed gold tagging, as seqeval's default mode.

    labels: the label strings that ids index; a gold label that no model predicts is simply one
    more of them. scheme: BIO, IOBES or BMES. gold: (W,) label ids of the words, in order of
    sentences. sentence_of_word: (W,) ascending. Raises UserError for an unknown scheme.

    gold_counts: (S,) gold entities of each sentence. word_counts: (S,) words of each sentence.
    """

    def __init__(
        self,
        labels: Sequence[str],
        scheme: str,
        gold: np.ndarray,
        sentence_of_word: np.ndarray,
        sentence_count: int,
    ) -> None:
        # One more label stands outside every sentence, as the O that seqeval puts between two.
        self._outside = len(labels)
        tags = [*conlleval_tags(labels, scheme), "O"]
        parts = [(tag[0], tag[2:] or "_") for tag in tags]
        types = sorted({type_ for _, type_ in parts})
        self._type_count = len(types)
        self._type = np.array([types.index(type_) for _, type_ in parts])
        # [left, right]: does an entity start with `right`, does one end with `left`?
        self._starts = np.array(
            [[start_of_chunk(a, b, c, d) for b, d in parts] for a, c in parts], dtype=bool
        )
        self._ends = np.array(
            [[end_of_chunk(a, b, c, d) for b, d in parts] for a, c in parts], dtype=bool
        )
        self.word_counts = np.bincount(sentence_of_word, minlength=sentence_count)
        self._first_word = np.cumsum(self.word_counts) - self.word_counts
        self._gold = self.spans(gold, sentence_of_word)
        self.gold_counts = np.bincount(sentence_of_word[self._gold > 0], minlength=sentence_count)

    def spans(self, words: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """For each word the entity that starts there: a number > 0 for its type and length, else 0.

        words: (V,) label ids. rows: (V,) ascending; an entity never spans two rows. Returns (V,).
        """
        words = np.asarray(words, dtype=np.int64)
        spans = np.zeros(len(words), dtype=np.int64)
        if not len(words):
            return spans
        new_row = rows[1:] != rows[:-1]
        previous = np.concatenate([[self._outside], np.where(new_row, self._outside, words[:-1])])
        following = np.concatenate([np.where(new_row, self._outside, words[1:]), [self._outside]])
        # Every tag other than O lies in an entity, so the n-th start belongs to the n-th end.
        first = np.flatnonzero(self._starts[previous, words])
        last = np.flatnonzero(self._ends[words, following])
        spans[first] = (last - first) * self._type_count + self._type[words[first]] + 1
        return spans

    def count(
        self, words: np.ndarray, rows: np.ndarray, sentences: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Count the right and the predicted entities of each row.

        words, rows: (V,) as a `Decoder` gives them. sentences: (R,) the sentence of each row.
        Returns two arrays (R,). Raises ValueError when the words are not those of the sentences.
        """
        gold_word, gold_row = ranges(self._first_word[sentences], self.word_counts[sentences])
        if not np.array_equal(rows, gold_row):
            raise ValueError(
                f"the decoder gave {len(rows)} words for {len(gold_row)} gold words, "
                "or divided them among the sentences in another way"
            )
        spans = self.spans(words, rows)
        found = np.flatnonzero(spans)
        right = found[spans[found] == self._gold[gold_word[found]]]
        return (
            np.bincount(rows[right], minlength=len(sentences)),
            np.bincount(rows[found], minlength=len(sentences)),
        )


def ranges(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Concatenate `arange(start, start + length)` of each row; also the row of each element."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    offsets = starts - (np.cumsum(lengths) - lengths)
    return np.arange(len(rows)) + offsets[rows], rows
