"""Test sentences among the stored ones: by hand, against brute force, and on a real corpus."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knn_ner.data.corpus import read_corpus
from knn_ner.evaluation.leakage import SimilarSentences, find_leakage


def tagged(text: str, tag: str = "O") -> tuple[list[str], list[str]]:
    words = text.split()
    return words, [tag] * len(words)


def plain_distance(a, b) -> int:
    """Levenshtein's recurrence over the full table."""
    table = [[max(i, j) for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i][j] = min(
                table[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
                table[i - 1][j] + 1,
                table[i][j - 1] + 1,
            )
    return table[len(a)][len(b)]


def test_by_hand():
    stored = [
        tagged("Ada wrote the first program"),
        tagged("Ulm is old", "S-LOC"),
        tagged("Ulm is old"),
        tagged("Oslo is cold", "S-LOC"),
    ]
    test = [
        tagged("Ada wrote the first program"),
        tagged("Ulm is old"),
        tagged("Oslo is cold"),
        tagged("Ada wrote the second program"),
        tagged("ADA wrote The first program"),
        tagged("Ada wrote the first program yesterday"),
        tagged("Ada wrote a second program"),
        tagged("Ulm is young"),
        tagged("old is Ulm"),
    ]
    found = find_leakage(test, stored)
    assert found.exact.nonzero()[0].tolist() == [0, 1, 2]
    # A copy with the same tags is there in the second case.
    assert found.retagged.nonzero()[0].tolist() == [2]
    # One word of five replaced, or one added: 0.8 and 0.83; of two of five, or one of three: less.
    assert found.near.nonzero()[0].tolist() == [3, 4, 5]
    assert found.counts() == {"sentences": 9, "exact": 3, "retagged": 1, "near": 3}


def test_nothing_stored_and_nothing_to_test():
    assert find_leakage([tagged("Ada wrote")], []).counts() == {
        "sentences": 1,
        "exact": 0,
        "retagged": 0,
        "near": 0,
    }
    assert find_leakage([], [tagged("Ada wrote")]).counts()["sentences"] == 0


SENTENCES = st.lists(st.sampled_from("abcdABe"), min_size=1, max_size=14)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(SENTENCES, max_size=12),
    st.lists(SENTENCES, min_size=1, max_size=6),
    st.sampled_from([0.5, 0.75, 0.8, 0.9, 1.0]),
)
def test_no_similar_pair_is_missed(stored, queries, similarity):
    index = SimilarSentences(stored, similarity)
    for query in queries:
        lower = [word.lower() for word in query]
        expected = any(
            1 - plain_distance(lower, other) / max(len(lower), len(other)) >= similarity - 1e-9
            for other in ([word.lower() for word in each] for each in stored)
        )
        assert index.has(query) == expected


@pytest.fixture(scope="module")
def weibo(shared):
    folder = next((shared / "data").glob("**/weibo"), None)
    if folder is None:
        pytest.skip("Weibo is not in the reference data")
    ending = next(folder.glob("train.*")).name.removeprefix("train.")
    return read_corpus(folder, ending, splits=("train", "test")).splits


def test_weibo(weibo):
    """40 of the 270 test sentences stand in the training set, 11 of them with other tags."""
    pairs = {
        split: [(sentence.words, sentence.tags) for sentence in sentences]
        for split, sentences in weibo.items()
    }
    counts = find_leakage(pairs["test"], pairs["train"]).counts()
    assert (counts["sentences"], counts["exact"], counts["retagged"]) == (270, 40, 11)
    assert counts["near"] == 3
