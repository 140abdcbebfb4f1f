"""Schemes: detection, legal transitions, label sets."""

import pytest

from knn_ner.data.spans import word_spans
from knn_ner.data.tags import (
    BIO,
    BMES,
    IOBES,
    convert_tags,
    detect_scheme,
    scheme_of_labels,
    sort_labels,
)
from knn_ner.utils.errors import UserError


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("B-PER M-PER E-PER O S-LOC", "BMES"),
        ("B-PER I-PER E-PER O S-LOC", "IOBES"),
        ("B-PER I-PER O B-LOC", "BIO"),
        ("B-PER I-PER O I-LOC", "BIO"),  # one malformed I does not make it IOB1
        ("I-PER I-PER O I-LOC B-LOC", "IOB1"),
        ("I-PER O", "IOB1"),
        ("B-PER E-PER S-LOC", "BMES"),
        ("O O", "BIO"),
    ],
)
def test_scheme_is_detected(tags, scheme):
    assert detect_scheme([tags.split()]) == scheme


def test_two_schemes_at_once_are_refused():
    with pytest.raises(UserError) as error:
        detect_scheme([["B-A", "I-A", "E-A"], ["B-A", "M-A", "M-A", "E-A"]])
    assert str(error.value) == (
        "both I- (1 times) and M- (2 times) found, expected one of them: IOBES and BMES are different "
        "schemes; convert one into the other"
    )


def test_iob1_becomes_bio():
    assert convert_tags(["I-A", "I-A", "B-A", "O", "I-A", "I-B"], BIO) == [
        "B-A",
        "I-A",
        "B-A",
        "O",
        "B-A",
        "B-B",
    ]


@pytest.mark.parametrize(
    ("scheme", "tags", "malformed"),
    [
        (BMES, "B-A M-A E-A S-A O", 0),
        (BMES, "O M-A E-A", 1),
        (BMES, "B-A O", 1),
        (BMES, "O B-A", 1),  # the sentence ends inside the entity
        (BMES, "B-A E-B", 1),
        (IOBES, "B-A I-A E-A", 0),
        (BIO, "B-A I-A B-A O", 0),
        (BIO, "O I-A", 1),
        (BIO, "B-A I-B", 1),
    ],
)
def test_malformed_transitions_are_counted(scheme, tags, malformed):
    assert scheme.count_malformed(tags.split()) == malformed


def test_labels_have_a_stable_order():
    tags = {"S-LOC", "B-PER", "O", "E-PER", "M-PER", "B-LOC"}
    assert sort_labels(tags) == ["O", "B-LOC", "S-LOC", "B-PER", "M-PER", "E-PER"]
    assert scheme_of_labels(sort_labels(tags)) is BMES


def test_entities_are_counted_as_conlleval_counts_them():
    assert len(word_spans(["B-A", "M-A", "E-A", "S-A", "S-A"])) == 3
    assert len(word_spans(["B-A", "B-A", "I-A", "I-B", "O", "I-B"])) == 4
