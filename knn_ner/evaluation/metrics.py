"""The two scores of a tagging: word level (conlleval and strict) and the paper's piece level."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from knn_ner.data.spans import Span, published_spans, strict_spans, to_bmes, word_spans
from knn_ner.data.tags import SCHEMES
from knn_ner.utils.errors import UserError

SCORES = ("f1", "strict_f1", "piece_f1")

Tags = Sequence[Sequence[str]]
# The gold and the predicted entities of each sentence.
Spans = list[tuple[set[Span], set[Span]]]


def percentages(
    true_positive: np.ndarray | int, predicted: np.ndarray | int, gold: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 in percent from counts of entities, which broadcast; 0 where the denominator is 0.

    F1 is one correctly rounded division, 200 tp / (predicted + gold), so that equal scores are equal floats: the
    choice of the best of many settings relies on it.
    """
    true_positive, predicted, gold = np.broadcast_arrays(true_positive, predicted, gold)

    def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)

    return (
        ratio(100 * true_positive, predicted),
        ratio(100 * true_positive, gold),
        ratio(200 * true_positive, predicted + gold),
    )


def score(
    gold_words: Tags,
    predicted_words: Tags,
    gold_pieces: Tags,
    predicted_pieces: Tags,
    scheme: str,
) -> dict[str, Any]:
    """Score predicted tags of words and of word pieces against gold tags, sentence by sentence.

    Returns:
        Scores in percent, unrounded; 0 without gold or predicted entities. `precision`, `recall`, `f1`: entities over
        words, micro average, as conlleval and seqeval's default mode count them; `per_type`: the same for each type,
        and `support`, its gold count. `strict_f1`: over words, as seqeval's strict mode, where a malformed run is no
        entity. `piece_precision`, `piece_recall`, `piece_f1`: entities over pieces, as published.

    Raises:
        UserError: for a scheme other than BIO, IOBES and BMES.
        ValueError: if gold and prediction differ in length.
    """
    words, strict, pieces = _spans(
        gold_words, predicted_words, gold_pieces, predicted_pieces, scheme
    )
    types = sorted({span[0] for sides in words for side in sides for span in side})
    right, predicted, gold = _counts(strict).sum(axis=0).tolist()
    # 2 p r / (p + r), rounded as seqeval rounds it.
    p, r = right / max(predicted, 1), right / max(gold, 1)
    return {
        **_rates(words),
        "strict_f1": 100 * (2 * p * r / (p + r)) if right else 0.0,
        **{f"piece_{name}": value for name, value in _rates(pieces).items()},
        "per_type": {type_: _type_scores(words, type_) for type_ in types},
    }


def word_f1(gold: Tags, predicted: Tags) -> float:
    """The `f1` of `score` alone, for choosing a checkpoint.

    Raises:
        ValueError: if gold and prediction differ in length.
    """
    return _rates(_pair(gold, predicted, word_spans, "words"))["f1"]


def sentence_counts(
    gold_words: Tags, predicted_words: Tags, gold_pieces: Tags, predicted_pieces: Tags, scheme: str
) -> np.ndarray:
    """Right, predicted and gold entities of each sentence, as each of `SCORES` counts them.

    Arguments and errors are those of `score`, whose F1 are 200 right / (predicted + gold) of the sums.

    Returns:
        (sentences, scores, 3) int64.
    """
    spans = _spans(gold_words, predicted_words, gold_pieces, predicted_pieces, scheme)
    return np.stack([_counts(pairs) for pairs in spans], axis=1)


def _spans(
    gold_words: Tags, predicted_words: Tags, gold_pieces: Tags, predicted_pieces: Tags, scheme: str
) -> tuple[Spans, Spans, Spans]:
    """The entities that each of `SCORES` counts."""
    if scheme not in SCHEMES:
        raise UserError(f"unknown tagging scheme {scheme!r}: expected one of {', '.join(SCHEMES)}")

    def published(tags: Sequence[str]) -> list[Span]:
        return published_spans(to_bmes(tags, scheme))

    return (
        _pair(gold_words, predicted_words, word_spans, "words"),
        _pair(gold_words, predicted_words, partial(strict_spans, scheme=scheme), "words"),
        _pair(gold_pieces, predicted_pieces, published, "pieces"),
    )


def _pair(
    gold: Tags, predicted: Tags, spans_of: Callable[[Sequence[str]], list[Span]], what: str
) -> Spans:
    if len(gold) != len(predicted):
        raise ValueError(f"{len(predicted)} predicted sentences for {len(gold)} gold ones")
    pairs = list(zip(gold, predicted, strict=True))
    for index, (true, tags) in enumerate(pairs):
        if len(true) != len(tags):
            raise ValueError(f"sentence {index}: {len(tags)} predicted {what} for {len(true)}")
    return [(set(spans_of(true)), set(spans_of(tags))) for true, tags in pairs]


def _counts(spans: Spans) -> np.ndarray:
    """(sentences, 3) int64: right, predicted and gold entities."""
    counts = [(len(gold & found), len(found), len(gold)) for gold, found in spans]
    return np.array(counts, dtype=np.int64).reshape(-1, 3)


def _rates(spans: Spans) -> dict[str, float]:
    rates = percentages(*_counts(spans).sum(axis=0))
    return dict(zip(("precision", "recall", "f1"), map(float, rates), strict=True))


def _type_scores(spans: Spans, type_: str) -> dict[str, float]:
    def own(side: set[Span]) -> set[Span]:
        return {span for span in side if span[0] == type_}

    rates = _rates([(own(gold), own(found)) for gold, found in spans])
    return rates | {"support": sum(len(own(gold)) for gold, _ in spans)}
