"""The mix of vote and tagger, and the proof that most tokens need no search."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from store_factory import write_store

from knn_ner.search.exact import ExactSearch
from knn_ner.search.interpolation import LabelAlignment, interpolate, needs_search, predict
from knn_ner.settings import VoteSettings
from knn_ner.utils.errors import UserError


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_labels_of_the_published_interpolation(shared, tmp_path, batch):
    reference = json.loads((shared / "reference/paper_interpolation_cases.json").read_text())
    base = torch.tensor(reference["logits"]).softmax(-1)
    store = write_store(
        tmp_path / "store",
        np.array(reference["keys"], np.float32),
        np.array(reference["values"]),
        labels=[f"label {number}" for number in range(base.shape[1])],
    )
    searcher = ExactSearch(store, "cosine")
    hidden = torch.tensor(reference["hidden"])
    assert len(reference["cases"]) == 5
    for case in reference["cases"]:
        k, temperature, knn_weight = case["k"], case["temperature"], case["knn_weight"]
        votes = torch.cat([searcher.votes(part, k, temperature) for part in hidden.split(batch)])
        labels = predict(interpolate(base, votes, knn_weight))
        assert labels.tolist() == case["expected_labels"]
        # The same with only those searched that need it.
        needed = needs_search(base, knn_weight)
        labels = predict(base)
        if needed.any():
            votes = searcher.votes(hidden[needed], k, temperature)
            labels[needed] = predict(interpolate(base[needed], votes, knn_weight))
        assert labels.tolist() == case["expected_labels"]


def test_mix_by_hand():
    base, votes = torch.tensor([[0.7, 0.3, 0.0]]), torch.tensor([[0.0, 0.25, 0.75]])
    torch.testing.assert_close(
        interpolate(base, votes, 0.4), torch.tensor([[0.42, 0.28, 0.30]]), rtol=0, atol=1e-7
    )
    assert torch.equal(interpolate(base, votes, 0.0), base)
    assert torch.equal(interpolate(base, votes, 1.0), votes)
    assert interpolate(base.half(), votes, 0.5).dtype == torch.float32
    assert interpolate(base.double(), votes, 0.5).dtype == torch.float64


def test_equal_probabilities_give_the_lowest_label():
    assert predict(torch.tensor([[0.1, 0.4, 0.1, 0.4], [0.25, 0.25, 0.25, 0.25]])).tolist() == [
        1,
        0,
    ]


@st.composite
def distributions(draw, rows: int, labels: int) -> torch.Tensor:
    """Rows of probabilities in float32: peaked, flat, tied and one-hot ones."""
    rows = [
        np.array(draw(st.lists(weights, min_size=labels, max_size=labels)), np.float64)
        for weights in [
            st.one_of(
                st.sampled_from([0.0, 1e-30, 0.5, 1.0, 1e6]), st.floats(0, 1), st.floats(0, 99)
            )
        ]
        * rows
    ]
    totals = [row.sum() for row in rows]
    rows = [
        row / total if total > 0 else np.eye(labels)[0]
        for row, total in zip(rows, totals, strict=True)
    ]
    return torch.from_numpy(np.stack(rows)).float()


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_no_vote_changes_what_is_not_searched(data):
    labels = data.draw(st.integers(1, 6), label="labels")
    base = data.draw(distributions(8, labels), label="base")
    votes = data.draw(distributions(8, labels), label="votes")
    knn_weight = data.draw(
        st.one_of(st.sampled_from([0.0, 0.24, 0.43, 0.49, 0.5, 1.0]), st.floats(0, 1)),
        label="knn_weight",
    )
    safe = ~needs_search(base, knn_weight)
    # The drawn vote, and for every label the vote that favours it most.
    worst = [torch.eye(labels)[label].expand(8, -1) for label in range(labels)]
    for against in (votes, *worst):
        mixed = predict(interpolate(base, against, knn_weight))
        assert torch.equal(mixed[safe], predict(base)[safe])


def test_the_bound_is_tight():
    """At weight 0.25 a lead of 1/3 can just be bridged: (1 - w) * lead = w."""
    lead = torch.tensor([0.30, 0.33, 0.3333, 0.3334, 0.34, 0.5, 1.0])
    base = torch.stack([(1 + lead) / 2, (1 - lead) / 2], dim=1)
    assert needs_search(base, 0.25).tolist() == [True, True, True, False, False, False, False]
    against = torch.tensor([[0.0, 1.0]]).expand(len(base), -1)
    changed = predict(interpolate(base, against, 0.25)) != predict(base)
    assert changed.tolist() == [True, True, True, False, False, False, False]


def test_weights_at_which_all_or_none_are_searched():
    base = torch.tensor([[1.0, 0.0], [0.6, 0.4], [0.5, 0.5]])
    assert needs_search(base, 0.0).tolist() == [False, False, False]
    assert needs_search(base, 0.5).tolist() == [True, True, True]
    assert needs_search(base, 1.0).tolist() == [True, True, True]
    assert needs_search(torch.ones(2, 1), 1.0).tolist() == [False, False]


def test_probabilities_that_are_not_numbers_are_searched():
    assert needs_search(torch.tensor([[torch.nan, 0.5]]), 0.1).tolist() == [True]


def test_labels_that_only_the_datastore_has():
    alignment = LabelAlignment(["O", "B-PER", "B-LOC"], ["B-PER", "O", "B-DRUG"])
    assert alignment.labels == ["O", "B-PER", "B-LOC", "B-DRUG"]
    base = alignment.base(torch.tensor([[0.5, 0.3, 0.2]]))
    votes = alignment.votes(torch.tensor([[0.1, 0.2, 0.7]]))
    assert torch.equal(base, torch.tensor([[0.5, 0.3, 0.2, 0.0]]))
    assert torch.equal(votes, torch.tensor([[0.2, 0.1, 0.0, 0.7]]))
    # A label that the tagger cannot give wins by votes alone.
    assert predict(interpolate(base, votes, 0.6)).tolist() == [3]


def test_equal_label_lists_are_not_copied():
    alignment = LabelAlignment(["O", "B-PER"], ["O", "B-PER"])
    base = torch.tensor([[0.5, 0.5]])
    assert alignment.base(base) is base
    assert alignment.votes(base) is base


@pytest.mark.parametrize(
    ("k", "temperature", "knn_weight", "message"),
    [
        (0, 0.1, 0.5, "k 0: expected at least 1, or -1 for every entry of the datastore"),
        (-2, 0.1, 0.5, "k -2: expected at least 1, or -1 for every entry of the datastore"),
        (8, 0.0, 0.5, "temperature 0.0: expected a number above 0"),
        (8, float("nan"), 0.5, "temperature nan: expected a number above 0"),
        (8, 0.1, 1.5, "knn_weight 1.5: expected a number from 0 to 1"),
        (8, 0.1, -0.1, "knn_weight -0.1: expected a number from 0 to 1"),
    ],
)
def test_settings_out_of_range(k, temperature, knn_weight, message):
    with pytest.raises(UserError) as raised:
        VoteSettings(k, temperature, knn_weight)
    assert str(raised.value) == message


def test_settings_in_range():
    assert VoteSettings(-1, 0.001, 1.0).k == -1
    assert VoteSettings(1, 1000, 0).knn_weight == 0
