"""The word-level F1 of every knn_weight at once, for one choice of k and temperature.

The predicted label of a piece is the arg max of `(1 - w) * base + w * vote`. As w goes from 0 to 1, each label's mix
is a straight line. So the arg max is the upper envelope of L lines: it changes at finitely many break points, and only
in pieces where tagger and vote disagree. Between two break points of the whole corpus nothing changes, so F1 is a
piecewise constant function of w. It is exact: for each break point, the one sentence that it touches is recounted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from knn_ner.data.spans import SpanCounter, ranges
from knn_ner.evaluation.metrics import percentages

if TYPE_CHECKING:
    from knn_ner.data.word_decoding import WordDecoder

# Weights closer than this are the same up to rounding: between them lies no interval.
RESOLUTION = 1e-9
# Pieces recounted at a time. It bounds the memory of a curve, whatever the number of break points.
_PIECES_AT_ONCE = 2_000_000


def break_points(base: np.ndarray, vote: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the arg max of `(1 - w) * base + w * vote` changes as w goes from 0 to 1.

    A change holds for weights greater than its own, but at weight 1 at once: so the ends are the arg max of `base` and
    of `vote` themselves, with ties going to the lowest label as in numpy.argmax.

    Args:
        base, vote: (M, L) the tagger's and the neighbours' distributions of M pieces.

    Returns:
        The piece, the weight in [0, 1] and the new label of each of E changes, (E,) each; the changes of a piece are
        in ascending order of weight.
    """
    base = np.asarray(base, dtype=np.float64)
    slope = np.asarray(vote, dtype=np.float64) - base
    changes = []
    active = np.arange(len(base))
    label, final = base.argmax(axis=1), np.asarray(vote).argmax(axis=1)
    reached = np.zeros(len(base))
    while len(active):
        gain = slope[active] - slope[active, label[active], None]  # (A, L)
        lead = base[active, label[active], None] - base[active]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            crossing = np.where(gain > 0, lead / gain, np.inf)
        # Rounding may put a crossing just before the last one.
        weight = np.maximum(crossing.min(axis=1), reached[active])
        # Of the lines that cross here, the steepest is the highest afterwards.
        steepest = np.where(crossing == crossing.min(axis=1, keepdims=True), gain, -np.inf)
        change = active, weight, steepest.argmax(axis=1)
        active, weight, new_label = (array[weight < 1] for array in change)
        reached[active], label[active] = weight, new_label
        changes.append((active, weight, new_label))
    tied = np.flatnonzero(label != final)
    changes.append((tied, np.ones(len(tied)), final[tied]))
    pieces, weights, labels = (np.concatenate(column) for column in zip(*changes, strict=True))
    return pieces, weights, labels


@dataclass(frozen=True)
class WeightCurve:
    """Word-level F1 as a function of knn_weight in [0, 1], for one k and one temperature.

    Attributes:
        weights: (B,) break points, ascending, each once.
        true_positive, predicted: (B + 1,) entities counted on the intervals [0, weights[0]],
            (weights[0], weights[1]], ..., (weights[-1], 1]; a break point at 1 belongs to the last.
        gold: gold entities of the corpus.
    """

    weights: np.ndarray
    true_positive: np.ndarray
    predicted: np.ndarray
    gold: int

    @property
    def f1(self) -> np.ndarray:
        """(B + 1,) F1 in percent on each interval."""
        return percentages(self.true_positive, self.predicted, self.gold)[2]

    def interval_of(self, weights: np.ndarray) -> np.ndarray:
        """The index of the interval that each weight of [0, 1] lies in."""
        weights = np.asarray(weights, dtype=np.float64)
        below_one = np.searchsorted(self.weights, weights, side="left")
        return np.where(weights < 1, below_one, len(self.weights))

    def f1_at(self, weights: np.ndarray) -> np.ndarray:
        """F1 in percent at each weight.

        It equals mixing in float64, taking the arg max and scoring at that weight. The two may differ only inside
        (0, 1) and within RESOLUTION of a break point, where rounding decides between equally likely labels.
        """
        return self.f1[self.interval_of(weights)]

    def best(self) -> tuple[float, float]:
        """The weight in the middle of the best plateau, and its F1.

        A plateau is a run of intervals with equal F1; intervals narrower than RESOLUTION do not count. Of plateaus with
        the highest F1, the widest is taken, then the one nearest 0.
        """
        edges = np.concatenate([[0.0], self.weights, [1.0]])
        wide = np.flatnonzero(np.diff(edges) > RESOLUTION)
        f1 = self.f1[wide]
        opens = np.flatnonzero(np.diff(f1, prepend=-1.0) != 0)
        closes = np.append(opens[1:], len(f1)) - 1
        left, right = edges[wide[opens]], edges[wide[closes] + 1]
        top = f1[opens] == f1.max()
        chosen = np.argmax(np.where(top, right - left, 0.0))
        return float((left[chosen] + right[chosen]) / 2), float(f1.max())

    def best_of(self, weights: Sequence[float]) -> tuple[float, float]:
        """The weight with the highest F1 among those given, the smallest if there are several, and its F1."""
        ascending = np.sort(np.asarray(weights, dtype=np.float64))
        f1 = self.f1_at(ascending)
        chosen = int(f1.argmax())
        return float(ascending[chosen]), float(f1[chosen])


class WeightSweep:
    """What all curves of one tagger on one corpus share."""

    def __init__(
        self,
        base_labels: np.ndarray,
        sentence_of_piece: np.ndarray,
        decoder: "WordDecoder",
        counter: SpanCounter,
    ) -> None:
        """Count the entities of the tagger alone.

        Args:
            base_labels: (N,) the tagger's arg max for each scored piece, in order of sentences.
            sentence_of_piece: (N,) ascending.
            decoder: turns labels of pieces into labels of words.
            counter: knows the gold words, in the same label ids.
        """
        sentence_count = len(counter.gold_counts)
        self._base_labels = np.asarray(base_labels)
        self._sentence_of_piece = np.asarray(sentence_of_piece)
        self._piece_counts = np.bincount(sentence_of_piece, minlength=sentence_count)
        self._first_piece = np.cumsum(self._piece_counts) - self._piece_counts
        self._decoder = decoder
        self._counter = counter
        rows = np.arange(sentence_count)
        self._base_counts = counter.count(*decoder.words(self._base_labels, rows), rows)

    def curve(self, pieces: np.ndarray, base: np.ndarray, vote: np.ndarray) -> WeightCurve:
        """The curve of one vote.

        Args:
            pieces: (M,) the pieces in which the arg max of tagger and vote differ, each once; further ones only cost
                time.
            base, vote: (M, L) the distributions of those pieces.

        Raises:
            ValueError: if the base labels are not the arg max of `base`.
        """
        pieces = np.asarray(pieces, dtype=np.int64)
        if len(pieces) and not np.array_equal(base.argmax(axis=1), self._base_labels[pieces]):
            raise ValueError("base distributions and base labels do not belong together")

        row, weight, label = break_points(base, vote)
        piece = pieces[row]
        sentence = self._sentence_of_piece[piece]
        # By sentence, then by weight; lexsort keeps one piece's changes in order.
        order = np.lexsort((weight, sentence))
        weight, sentence = weight[order], sentence[order]
        after = self._recount(sentence, piece[order], label[order])
        is_first = np.diff(sentence, prepend=-1) != 0
        before = np.where(is_first, self._base_counts[:, sentence], np.roll(after, 1, axis=1))

        in_time = np.argsort(weight, kind="stable")
        weight = weight[in_time]
        # A weight at which several pieces change is one break point, reached after the last.
        is_last = np.diff(weight, append=2.0) != 0
        start = self._base_counts.sum(axis=1, keepdims=True)
        running = start + np.cumsum((after - before)[:, in_time], axis=1)
        right, predicted = np.concatenate([start, running[:, is_last]], axis=1)
        return WeightCurve(
            weight[is_last], right, predicted, gold=int(self._counter.gold_counts.sum())
        )

    def _recount(self, sentence: np.ndarray, piece: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Right and predicted entities, (2, E), of a change's sentence after this change and all before it.

        Args:
            sentence, piece, label: (E,) the changes, by sentence, then by weight.
        """
        changes = np.arange(len(sentence))
        first_change = np.searchsorted(sentence, sentence)
        applied = changes - first_change + 1
        cost = np.cumsum(self._piece_counts[sentence] + applied)
        cuts = np.searchsorted(cost, np.arange(_PIECES_AT_ONCE, cost[-1:].sum(), _PIECES_AT_ONCE))
        counts = [np.zeros((2, 0), dtype=np.int64)]
        for part in filter(len, np.split(changes, cuts)):
            sentences = sentence[part]
            lengths = self._piece_counts[sentences]
            source, _ = ranges(self._first_piece[sentences], lengths)
            labels = self._base_labels[source]
            change, copy = ranges(first_change[part], applied[part])
            start = np.cumsum(lengths) - lengths - self._first_piece[sentences]
            # A later change of the same piece overwrites an earlier one: numpy assigns in order.
            labels[start[copy] + piece[change]] = label[change]
            counts.append(self._counter.count(*self._decoder.words(labels, sentences), sentences))
        return np.concatenate(counts, axis=1)
