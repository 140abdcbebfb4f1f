"""Both scores against hand-counted examples, the published protocol's cases and seqeval."""

import json
import warnings
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2, IOBES

from knn_ner.data.spans import published_spans, to_bmes, word_spans
from knn_ner.evaluation.metrics import score, word_f1
from knn_ner.utils.errors import UserError

PREFIXES = {"BIO": "BI", "IOBES": "BIES", "BMES": "BMES"}


def labels_of(scheme, types=("PER", "LOC")):
    return ["O", *(f"{prefix}-{type_}" for type_ in types for prefix in PREFIXES[scheme])]


@st.composite
def taggings(draw):
    """A scheme with gold and predicted tags of a small corpus, malformed runs included."""
    scheme = draw(st.sampled_from(sorted(PREFIXES)))
    tag = st.sampled_from(labels_of(scheme))
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=4))
    gold, predicted = (
        [draw(st.lists(tag, min_size=length, max_size=length)) for length in lengths]
        for _ in range(2)
    )
    return scheme, gold, predicted


def test_published_spans_and_counts_are_those_of_the_reference_cases(shared):
    cases = json.loads((shared / "reference" / "paper_span_cases.json").read_text())
    assert len(cases) == 80
    for case in cases:
        gold, predicted = published_spans(case["gold"]), published_spans(case["predicted"])
        assert gold == [tuple(span) for span in case["gold_spans"]]
        assert predicted == [tuple(span) for span in case["predicted_spans"]]
        right = (Counter(gold) & Counter(predicted)).total()
        assert right == case["true_positive"]
        assert len(predicted) - right == case["false_positive"]
        assert len(gold) - right == case["false_negative"]


def test_piece_score_adds_up_the_reference_cases(shared):
    cases = json.loads((shared / "reference" / "paper_span_cases.json").read_text())
    gold, predicted = ([case[side] for case in cases] for side in ("gold", "predicted"))
    right, wrong, missed = (
        sum(case[count] for case in cases)
        for count in ("true_positive", "false_positive", "false_negative")
    )
    scores = score(gold, predicted, gold, predicted, "BMES")
    assert scores["piece_precision"] == pytest.approx(100 * right / (right + wrong))
    assert scores["piece_recall"] == pytest.approx(100 * right / (right + missed))
    assert scores["piece_f1"] == pytest.approx(200 * right / (2 * right + wrong + missed))


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        (["B-PER", "M-PER", "E-PER"], [("PER", 0, 2)]),
        (["B-PER", "S-LOC"], [("PER", 0, 0)]),  # the breaking S is not looked at again
        (["B-PER", "B-LOC", "E-LOC"], [("PER", 0, 0)]),
        (["B-PER", "M-PER", "O", "S-LOC"], [("PER", 0, 0), ("LOC", 3, 3)]),
        (["B-PER", "M-PER"], [("PER", 0, 0)]),
        (["M-PER", "E-PER", "O"], []),
        (["B-PER.NAM", "E-PER.NOM"], [("PER.NAM", 0, 0)]),
        ([], []),
    ],
)
def test_published_spans_by_hand(tags, spans):
    assert published_spans(tags) == spans


@pytest.mark.parametrize(
    ("scheme", "tags", "bmes"),
    [
        ("BIO", "B-PER I-PER I-PER O B-LOC", "B-PER M-PER E-PER O S-LOC"),
        ("BIO", "O I-PER I-PER", "O B-PER E-PER"),
        ("BIO", "B-PER I-LOC I-LOC", "S-PER B-LOC E-LOC"),
        ("BIO", "B-PER B-PER I-PER", "S-PER B-PER E-PER"),
        ("IOBES", "B-PER I-PER E-PER S-LOC I-LOC", "B-PER M-PER E-PER S-LOC M-LOC"),
        ("BMES", "B-PER M-PER O E-LOC", "B-PER M-PER O E-LOC"),
    ],
)
def test_to_bmes(scheme, tags, bmes):
    assert to_bmes(tags.split(), scheme) == bmes.split()


@settings(deadline=None)
@given(taggings())
def test_bio_pieces_have_the_spans_of_conlleval(tagging):
    _, gold, _ = tagging
    for tags in gold:
        bio = [f"I-{tag[2:]}" if tag[0] in "MES" else tag for tag in tags]
        assert published_spans(to_bmes(bio, "BIO")) == word_spans(bio)


def test_score_by_hand():
    # Three gold entities. LOC is right, PER one word too long, ORG split: 1 of 4 predicted.
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "I-ORG", "O"]]
    predicted = [["B-PER", "I-PER", "I-PER", "B-LOC"], ["B-ORG", "B-ORG", "O"]]
    assert score(gold, predicted, gold, predicted, "BIO") == {
        "precision": 25.0,
        "recall": pytest.approx(100 / 3),
        "f1": pytest.approx(200 / 7),
        "strict_f1": pytest.approx(200 / 7),
        "piece_precision": 25.0,
        "piece_recall": pytest.approx(100 / 3),
        "piece_f1": pytest.approx(200 / 7),
        "per_type": {
            "LOC": {"precision": 100.0, "recall": 100.0, "f1": 100.0, "support": 1},
            "ORG": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
            "PER": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
        },
    }


def test_a_malformed_entity_counts_for_conlleval_and_not_for_strict():
    gold = [["B-PER", "I-PER", "O", "B-LOC"]]
    predicted = [["I-PER", "I-PER", "O", "B-LOC"]]
    scores = score(gold, predicted, gold, predicted, "BIO")
    assert scores["f1"] == 100.0
    assert scores["strict_f1"] == pytest.approx(200 / 3)


def test_the_two_levels_differ_where_words_and_pieces_do():
    # One word of three pieces, whose last piece the tagger leaves open.
    words = [["S-PER"]]
    gold_pieces = [["B-PER", "M-PER", "E-PER"]]
    predicted_pieces = [["B-PER", "M-PER", "M-PER"]]
    scores = score(words, words, gold_pieces, predicted_pieces, "BMES")
    assert (scores["f1"], scores["piece_f1"]) == (100.0, 0.0)


@pytest.mark.parametrize("scheme", sorted(PREFIXES))
@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        ([], []),
        ([[]], [[]]),
        ([["O", "O"]], [["O", "O"]]),
        ([["B-PER", "O"]], [["O", "O"]]),
        ([["O", "O"]], [["B-PER", "O"]]),
    ],
)
def test_nothing_to_find_and_nothing_found_score_zero_without_a_warning(scheme, gold, predicted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score(gold, predicted, gold, predicted, scheme)
    per_type = scores.pop("per_type")
    assert set(scores.values()) == {0.0}
    support = sum(tag != "O" for tags in gold for tag in tags)
    assert sum(scores["support"] for scores in per_type.values()) == support


@settings(deadline=None)
@given(taggings())
def test_word_scores_are_those_of_seqeval(tagging):
    scheme, gold, predicted = tagging
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = score(gold, predicted, gold, predicted, scheme)
    assert word_f1(gold, predicted) == ours["f1"]
    gold, predicted = (
        [[tag.replace("M-", "I-") for tag in tags] for tags in side] for side in (gold, predicted)
    )
    default = {"zero_division": 0}
    strict = {**default, "mode": "strict", "scheme": IOB2 if scheme == "BIO" else IOBES}
    assert ours["precision"] == pytest.approx(100 * precision_score(gold, predicted, **default))
    assert ours["recall"] == pytest.approx(100 * recall_score(gold, predicted, **default))
    assert ours["f1"] == pytest.approx(100 * f1_score(gold, predicted, **default))
    assert ours["strict_f1"] == pytest.approx(100 * f1_score(gold, predicted, **strict))
    by_type = 100 * f1_score(gold, predicted, average=None, **default)
    assert [scores["f1"] for scores in ours["per_type"].values()] == pytest.approx(list(by_type))


@pytest.mark.parametrize(
    ("name", "counts"),
    [("weibo", (1895, 389, 418)), ("wnut17", (1975, 836, 1079)), ("bc5cdr", (9385, 9593, 9809))],
)
def test_corpora_have_the_published_number_of_entities(shared, name, counts):
    for split, count in zip(("train", "dev", "test"), counts, strict=True):
        (path,) = (shared / "data" / "bmes" / name).glob(f"{split}.*.bmes")
        blocks = path.read_text(encoding="utf-8").rstrip("\n").split("\n\n")
        gold = [[line.rsplit(" ", 1)[1] for line in block.split("\n")] for block in blocks]
        assert sum(len(word_spans(tags)) for tags in gold) == count


def test_unknown_scheme_and_unequal_lengths():
    with pytest.raises(UserError, match=r"unknown tagging scheme 'IOB1': expected one of BIO"):
        score([["O"]], [["O"]], [["O"]], [["O"]], "IOB1")
    with pytest.raises(ValueError, match="sentence 1: 1 predicted words for 2"):
        score([["O"], ["O", "O"]], [["O"], ["O"]], [["O"]], [["O"]], "BIO")
    with pytest.raises(ValueError, match="0 predicted sentences for 1 gold ones"):
        score([["O"]], [["O"]], [["O"]], [], "BIO")
