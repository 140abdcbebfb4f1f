"""The curve over knn_weight against mixing, taking the arg max and scoring anew at each weight."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from seqeval.metrics import f1_score
from seqeval.metrics.sequence_labeling import get_entities

from knn_ner.data.spans import SpanCounter
from knn_ner.evaluation import weight_sweep as sweep
from knn_ner.evaluation.metrics import score
from knn_ner.evaluation.weight_sweep import WeightCurve, WeightSweep, break_points

PREFIXES = {"BIO": "BI", "IOBES": "BIES", "BMES": "BMES"}


def labels_of(scheme):
    types = ("PER", "LOC-X")
    return ["O", *(f"{prefix}-{type_}" for type_ in types for prefix in PREFIXES[scheme])]


class EveryPiece:
    """Words of one piece each."""

    def __init__(self, sentence_of_piece, sentence_count):
        self.lengths = np.bincount(sentence_of_piece, minlength=sentence_count)

    def words(self, piece_labels, sentences):
        return piece_labels, np.repeat(np.arange(len(sentences)), self.lengths[sentences])


class EveryOtherPiece:
    """Words of two pieces each, with the label of the higher id of the two."""

    def __init__(self, sentence_of_piece, sentence_count):
        self.lengths = np.bincount(sentence_of_piece, minlength=sentence_count) // 2

    def words(self, piece_labels, sentences):
        rows = np.repeat(np.arange(len(sentences)), self.lengths[sentences])
        return piece_labels.reshape(-1, 2).max(axis=1), rows


def sentences_of(lengths):
    return np.repeat(np.arange(len(lengths)), lengths)


def seqeval_tags(ids, sentence, count, labels):
    return [
        [labels[label].replace("M-", "I-") for label in ids[sentence == index]]
        for index in range(count)
    ]


def seqeval_f1(words, gold, sentence, count, labels):
    sides = (seqeval_tags(ids, sentence, count, labels) for ids in (gold, words))
    return 100 * f1_score(*sides, zero_division=0)


# Eighths are exact in float64, so that ties happen, and are the same ties everywhere.
EIGHTHS = st.integers(0, 8).map(lambda eighths: eighths / 8)
# These meet at no round weight. They are not arbitrary floats, for labels that are equal up to
# rounding on a whole interval have no arg max that one could agree with.
PRIMES = st.integers(0, 9973).map(lambda count: count / 9973)


def mix(base, vote, weight):
    return ((1 - weight) * base + weight * vote).argmax(axis=1)


@settings(deadline=None)
@given(st.data(), st.sampled_from([EIGHTHS, PRIMES]))
def test_break_points_lead_through_every_arg_max(data, elements):
    shape = (data.draw(st.integers(0, 5)), data.draw(st.integers(1, 6)))
    base, vote = (data.draw(arrays(np.float64, shape, elements=elements)) for _ in range(2))
    piece, weight, label = break_points(base, vote)
    assert len(piece) == len(weight) == len(label)
    assert ((weight >= 0) & (weight <= 1)).all()
    for row in range(shape[0]):
        own = piece == row
        edges = np.concatenate([[0.0], weight[own], [1.0]])
        steps = np.concatenate([base[row, None].argmax(axis=1), label[own]])
        assert (np.diff(edges) >= 0).all()
        assert (np.diff(steps) != 0).all()
        assert steps[-1] == vote[row].argmax()
        for left, right, winner in zip(edges[:-1], edges[1:], steps, strict=True):
            middle = (left + right) / 2
            mixed = (1 - middle) * base[row] + middle * vote[row]
            # On a stretch of no width the winner is one of several equals.
            assert mixed[winner] == pytest.approx(mixed.max(), abs=1e-14)
            if right - left > 1e-6 and elements is EIGHTHS:
                assert winner == mixed.argmax()


def test_break_points_by_hand():
    base = np.array([[0.6, 0.4, 0.0], [0.5, 0.5, 0.0], [0.7, 0.2, 0.1], [0.9, 0.05, 0.05]])
    vote = np.array([[0.2, 0.8, 0.0], [0.2, 0.8, 0.0], [0.5, 0.0, 0.5], [0.2, 0.3, 0.5]])
    piece, weight, label = break_points(base, vote)
    # 0.6 - 0.4w = 0.4 + 0.4w; a tie at 0; a tie at 1, which the lower label keeps;
    # 0.9 - 0.7w = 0.05 + 0.45w, before label 1 could pass.
    assert piece.tolist() == [0, 1, 3]
    assert weight == pytest.approx([0.25, 0.0, 0.85 / 1.15])
    assert label.tolist() == [1, 1, 2]


def test_break_points_where_three_labels_meet():
    base, vote = np.array([[0.5, 0.375, 0.25]]), np.array([[0.0, 0.125, 0.25]])
    piece, weight, label = break_points(base, vote)
    # All three are 0.25 at weight 0.5 save label 1: 0.375 - 0.25w = 0.25 there too.
    assert (piece.tolist(), weight.tolist(), label.tolist()) == ([0], [0.5], [2])


def test_a_tie_at_weight_one_goes_to_the_lowest_label():
    piece, weight, label = break_points(np.array([[0.2, 0.8]]), np.array([[0.5, 0.5]]))
    assert (piece.tolist(), weight.tolist(), label.tolist()) == ([0], [1.0], [0])


@settings(deadline=None)
@given(st.data(), st.sampled_from(sorted(PREFIXES)))
def test_span_counter_counts_as_seqeval(data, scheme):
    labels = labels_of(scheme)
    lengths = data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=5))
    sentence = sentences_of(lengths)
    ids = arrays(np.int64, len(sentence), elements=st.integers(0, len(labels) - 1))
    gold, words = data.draw(ids), data.draw(ids)
    everything = np.arange(len(lengths))
    counter = SpanCounter(labels, gold, sentence, len(lengths))
    right, predicted = counter.count(words, sentence, everything)
    for index in range(len(lengths)):
        gold_spans, spans = (
            set(get_entities(seqeval_tags(side, sentence, len(lengths), labels)[index]))
            for side in (gold, words)
        )
        assert right[index] == len(gold_spans & spans)
        assert predicted[index] == len(spans)
        assert counter.gold_counts[index] == len(gold_spans)


def test_span_counter_takes_sentences_in_any_order_and_again():
    labels = ["O", "B-PER", "I-PER"]
    gold = np.array([1, 2, 0, 0, 1])
    counter = SpanCounter(labels, gold, np.array([0, 0, 0, 1, 1]), 2)
    words, rows = np.array([0, 1, 1, 2, 0, 0, 2]), np.array([0, 0, 1, 1, 1, 2, 2])
    right, predicted = counter.count(words, rows, np.array([1, 0, 1]))
    assert (right.tolist(), predicted.tolist()) == ([1, 1, 1], [1, 1, 1])
    with pytest.raises(ValueError, match="the decoder gave 7 words for 6 gold words"):
        counter.count(words, rows, np.array([0, 0]))


@st.composite
def corpora(draw, elements):
    scheme = draw(st.sampled_from(sorted(PREFIXES)))
    labels = labels_of(scheme)
    decoder_class = draw(st.sampled_from([EveryPiece, EveryOtherPiece]))
    pieces_per_word = 1 if decoder_class is EveryPiece else 2
    lengths = np.array(draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)))
    sentence_of_word = sentences_of(lengths)
    sentence_of_piece = sentences_of(lengths * pieces_per_word)
    gold = draw(arrays(np.int64, len(sentence_of_word), elements=st.integers(0, len(labels) - 1)))
    shape = (len(sentence_of_piece), len(labels))
    base, vote = (draw(arrays(np.float64, shape, elements=elements)) for _ in range(2))
    decoder = decoder_class(sentence_of_piece, len(lengths))
    counter = SpanCounter(labels, gold, sentence_of_word, len(lengths))
    shared = WeightSweep(base.argmax(axis=1), sentence_of_piece, decoder, counter)

    def recomputed(weight):
        words, _ = decoder.words(mix(base, vote, weight), np.arange(len(lengths)))
        return seqeval_f1(words, gold, sentence_of_word, len(lengths), labels)

    return shared, base, vote, recomputed


def changing(base, vote):
    return np.flatnonzero(base.argmax(axis=1) != vote.argmax(axis=1))


@settings(deadline=None)
@given(st.data(), st.sampled_from([EIGHTHS, PRIMES]))
def test_curve_is_the_score_recomputed(data, elements):
    shared, base, vote, recomputed = data.draw(corpora(elements))
    pieces = changing(base, vote)
    curve = shared.curve(pieces, base[pieces], vote[pieces])
    assert (np.diff(curve.weights) > 0).all()
    assert len(curve.true_positive) == len(curve.predicted) == len(curve.weights) + 1

    edges = np.concatenate([[0.0], curve.weights, [1.0]])
    middles = (edges[:-1] + edges[1:])[np.diff(edges) > 1e-6] / 2
    chosen = data.draw(st.lists(st.floats(0, 1), max_size=4))
    weights = np.concatenate([[0.0, 1.0], middles, chosen])
    inside = np.abs(weights[:, None] - curve.weights).min(axis=1, initial=1.0) > 1e-6
    weights = weights[inside | (weights == 0) | (weights == 1)]
    assert curve.f1_at(weights) == pytest.approx([recomputed(weight) for weight in weights])

    weight, f1 = curve.best()
    assert f1 == curve.f1_at([weight])[0] == curve.f1[np.diff(edges) > 1e-9].max()
    weight, f1 = curve.best_of(weights)
    assert f1 == curve.f1_at(weights).max()
    assert weight == weights[curve.f1_at(weights) == f1].min()


@settings(deadline=None)
@given(st.data())
def test_curve_is_the_same_with_more_pieces_and_with_fewer_at_once(data):
    shared, base, vote, _ = data.draw(corpora(EIGHTHS))
    pieces = changing(base, vote)
    assume(len(pieces))
    curve = shared.curve(pieces, base[pieces], vote[pieces])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "_PIECES_AT_ONCE", 3)
        others = [
            shared.curve(np.arange(len(base)), base, vote),
            shared.curve(pieces[::-1], base[pieces[::-1]], vote[pieces[::-1]]),
        ]
    for other in others:
        assert other.f1_at([0.0, 1.0]).tolist() == curve.f1_at([0.0, 1.0]).tolist()
        middles = (curve.weights[1:] + curve.weights[:-1]) / 2
        assert other.f1_at(middles).tolist() == curve.f1_at(middles).tolist()


def test_curve_by_hand():
    # Gold: PER over words 0-1, and word 3. The tagger misses the second word and word 3; the vote
    # mends the former from 0.25 on, the latter from 0.5 on, and breaks word 2 from 0.75 on.
    labels = ["O", "B-PER", "I-PER"]
    sentence = np.array([0, 0, 0, 1])
    counter = SpanCounter(labels, np.array([1, 2, 0, 1]), sentence, 2)
    base = np.array([[0, 1, 0], [0.625, 0, 0.375], [0.875, 0, 0.125], [0.75, 0.25, 0]])
    vote = np.array([[0, 1, 0], [0.125, 0, 0.875], [0.375, 0, 0.625], [0.25, 0.75, 0]])
    shared = WeightSweep(base.argmax(axis=1), sentence, EveryPiece(sentence, 2), counter)
    curve = shared.curve(np.array([1, 2, 3]), base[1:], vote[1:])
    assert curve.weights.tolist() == [0.25, 0.5, 0.75]
    assert curve.true_positive.tolist() == [0, 1, 2, 1]
    assert curve.predicted.tolist() == [1, 1, 2, 2]
    assert curve.gold == 2
    assert curve.f1 == pytest.approx([0, 200 / 3, 100, 50])
    assert curve.best() == (0.625, 100.0)
    assert curve.best_of([0.9, 0.6, 0.7]) == (0.6, 100.0)
    # The curve and `score` are the same number, not nearly the same.
    tags = [[["B-PER", "I-PER", "O"], ["B-PER"]], [["B-PER", "I-PER", "O"], ["O"]]]
    assert curve.f1_at([0.3])[0] == score(*tags, *tags, "BIO")["f1"]


def test_a_vote_that_changes_nothing_gives_one_interval():
    sentence = np.zeros(2, dtype=np.int64)
    counter = SpanCounter(["O", "S-PER"], np.array([0, 1]), sentence, 1)
    shared = WeightSweep(np.array([0, 1]), sentence, EveryPiece(sentence, 1), counter)
    curve = shared.curve(np.zeros(0, dtype=np.int64), np.zeros((0, 2)), np.zeros((0, 2)))
    assert (curve.weights.tolist(), curve.f1.tolist()) == ([], [100.0])
    assert curve.best() == (0.5, 100.0)


def test_best_joins_equal_intervals_and_takes_the_widest_then_the_lowest():
    def curve(weights, right):
        return WeightCurve(np.array(weights), np.array(right), np.full(len(right), 4), 4)

    assert curve([0.1, 0.3, 0.5, 0.75], [2, 3, 1, 3, 1]).best() == (0.625, 75.0)
    assert curve([0.1, 0.3, 0.5, 0.75], [1, 3, 3, 1, 3]).best() == (0.3, 75.0)
    assert curve([0.25, 0.5, 0.75], [1, 3, 1, 3]).best() == (0.375, 75.0)
    # What lies between two break points that are equal up to rounding is not a setting.
    assert curve([0.5, 0.5 + 1e-12], [1, 4, 2]).best() == (pytest.approx(0.75), 50.0)


def test_base_labels_of_another_tagger_are_refused():
    sentence = np.zeros(1, dtype=np.int64)
    counter = SpanCounter(["O", "S-PER"], np.array([1]), sentence, 1)
    shared = WeightSweep(np.array([0]), sentence, EveryPiece(sentence, 1), counter)
    with pytest.raises(ValueError, match="do not belong together"):
        shared.curve(np.array([0]), np.array([[0.1, 0.9]]), np.array([[0.9, 0.1]]))
