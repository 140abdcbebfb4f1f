"""Exact search equals a full sort; the vote of every entry equals the vote of all neighbours."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from store_factory import LABELS, random_entries, write_store

from knn_ner.search.exact import ExactSearch
from knn_ner.search.searcher import Searcher
from knn_ner.search.vote import vote, vote_prefixes
from knn_ner.utils.errors import UserError

SIMILARITIES = ["cosine", "l2"]


def full_sort(store, queries: np.ndarray, similarity: str) -> tuple[np.ndarray, np.ndarray]:
    """All similarities in float64 and all entries, best first, ties by lower index."""
    keys = store.rows(0, store.entries).astype(np.float64)
    queries = queries.astype(np.float64)
    if similarity == "l2":
        scores = -np.square(queries[:, None] - keys).sum(axis=2)
    else:
        norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(keys, axis=1)
        scores = np.divide(queries @ keys.T, norms, out=np.zeros_like(norms), where=norms > 0)
        # Equal keys have equal norms and products, but for rounding.
        scores = np.round(scores, 12)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, axis=1), order


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """1,000 float16 entries in shards of 300; entries 500 to 599 repeat 0 to 99, three are zero."""
    keys, labels = random_entries(1000, dim=24, seed=1)
    keys[500:600] = keys[:100]
    keys[[7, 450, 900]] = 0
    folder = tmp_path_factory.mktemp("search")
    return write_store(folder / "store", keys, labels, cut=300, dtype="float16")


@pytest.fixture(scope="module")
def queries() -> torch.Tensor:
    return torch.from_numpy(random_entries(70, dim=24, seed=2)[0])


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("k", [1, 10, 100, 999, 1000, 4096])
def test_search_equals_a_full_sort(store, queries, similarity, k):
    found = ExactSearch(store, similarity).search(queries, k)
    scores, order = full_sort(store, queries.numpy(), similarity)
    np.testing.assert_allclose(found.similarities, scores[:, :k], rtol=1e-6, atol=2e-6)
    # The same entries in the same places, unless float32 cannot tell their similarities apart.
    apart = np.diff(scores, axis=1, prepend=np.inf, append=-np.inf) < -1e-5
    certain = (apart[:, 1:] & apart[:, :-1])[:, :k]
    assert certain.mean() > 0.7
    np.testing.assert_array_equal(found.indices.numpy()[certain], order[:, :k][certain])
    assert all(len(set(row)) == len(row) for row in found.indices.tolist())
    assert found.similarities.dtype == torch.float32
    assert found.indices.dtype == torch.int64


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_neighbours_depend_on_neither_batches_nor_blocks(store, queries, similarity):
    reference = ExactSearch(store, similarity).search(queries, 20)
    for block_keys, working_bytes in ((1000, 1), (64, 1 << 14), (7, 1 << 20)):
        searcher = ExactSearch(
            store, similarity, block_keys=block_keys, working_bytes=working_bytes
        )
        found = searcher.search(queries, 20)
        assert torch.equal(found.indices, reference.indices)
        assert torch.equal(found.similarities, reference.similarities)
    for size in (1, 3, 16, 64):
        parts = [ExactSearch(store, similarity).search(part, 20) for part in queries.split(size)]
        assert torch.equal(torch.cat([part.indices for part in parts]), reference.indices)
        assert torch.equal(torch.cat([part.similarities for part in parts]), reference.similarities)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_keys_that_stay_on_the_device_are_searched_alike(tmp_path, queries, similarity, dtype):
    # So many that their file is mapped.
    keys, labels = random_entries(40_000, dim=24, seed=1)
    store = write_store(tmp_path / "store", keys, labels, cut=40_000, dtype=dtype)
    mapped, resident = (ExactSearch(store, similarity, resident=stays) for stays in (False, True))
    found, again = (searcher.search(queries, 20) for searcher in (mapped, resident))
    assert torch.equal(found.indices, again.indices)
    assert torch.equal(found.similarities, again.similarities)
    ours, theirs = (searcher.vote_all(queries, [0.01, 1.0]) for searcher in (mapped, resident))
    assert torch.equal(ours, theirs)
    # They did stay: what becomes of the files is seen by the other alone.
    for path in store.path.glob("shard-*/keys.npy"):
        np.load(path, mmap_mode="r+")[:] = 0
    assert torch.equal(resident.search(queries, 20).similarities, found.similarities)
    assert not torch.equal(mapped.search(queries, 20).similarities, found.similarities)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_equal_keys_tie_exactly_and_come_by_index(tmp_path, similarity):
    # Ten different keys, each stored 60 times in a mixed order: any k cuts through equal keys.
    keys, _ = random_entries(10, dim=384, seed=3)
    copies = np.random.default_rng(4).permutation(np.repeat(np.arange(10), 60))
    store = write_store(tmp_path / "store", keys[copies], copies % 5, dtype="float16")
    queries = torch.from_numpy(random_entries(20, dim=384, seed=5)[0])
    everything = full_sort(store, queries.numpy(), similarity)[1]
    for block_keys in (600, 37):
        searcher = ExactSearch(store, similarity, block_keys=block_keys)
        for k in (1, 7, 60, 61, 100, 300):
            found = searcher.search(queries, k)
            kinds = copies[found.indices.numpy()]
            for row in range(len(queries)):
                np.testing.assert_array_equal(found.indices[row], everything[row, :k])
                for kind in np.unique(kinds[row]):
                    assert len(found.similarities[row][kinds[row] == kind].unique()) == 1


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_search_equals_a_full_sort_on_small_integers(tmp_path_factory, data):
    """Keys and queries of small integers: many exact ties, and l2 without any rounding."""
    count = data.draw(st.integers(1, 60), label="entries")
    dim = data.draw(st.integers(1, 5), label="dim")
    seed = data.draw(st.integers(0, 10**6), label="seed")
    generator = np.random.default_rng(seed)
    keys = generator.integers(-2, 3, (count, dim)).astype(np.float32)
    queries = generator.integers(-2, 3, (4, dim)).astype(np.float32)
    folder = tmp_path_factory.mktemp("integers") / "store"
    store = write_store(folder, keys, np.zeros(count, int), cut=25, dtype="float16")
    k = data.draw(st.integers(1, 70), label="k")
    block_keys = data.draw(st.sampled_from([1, 5, 32, 100]), label="block")
    found = ExactSearch(store, "l2", block_keys=block_keys).search(torch.from_numpy(queries), k)
    scores, order = full_sort(store, queries, "l2")
    np.testing.assert_array_equal(found.indices.numpy(), order[:, :k])
    np.testing.assert_array_equal(found.similarities.numpy(), scores[:, :k])


def test_zero_vectors_have_cosine_zero(store):
    found = ExactSearch(store).search(torch.zeros(1, 24), 5)
    assert found.similarities.tolist() == [[0.0] * 5]
    assert found.indices.tolist() == [[0, 1, 2, 3, 4]]
    found = ExactSearch(store).search(torch.ones(1, 24), 1000)
    zero = (found.indices[0][..., None] == torch.tensor([7, 450, 900])).any(dim=1)
    assert found.similarities[0][zero].tolist() == [0.0] * 3


def test_l2_of_near_neighbours_does_not_cancel(tmp_path):
    keys = np.full((200, 64), 100, np.float32)
    keys[:, 0] += np.arange(200) / 64
    store = write_store(tmp_path / "store", keys, np.zeros(200, int))
    query = torch.full((1, 64), 100.0)
    query[0, 0] += 50.25 / 64
    found = ExactSearch(store, "l2").search(query, 3)
    # The squared norms are 640,000; a float32 product alone is off by more than these distances.
    assert found.indices.tolist() == [[50, 51, 49]]
    assert found.similarities.tolist() == [[-((d / 64) ** 2) for d in (0.25, 0.75, 1.25)]]


@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_precision_of_the_tagger_changes_nothing(tmp_path, similarity, precision):
    keys, labels = random_entries(2000, dim=384, seed=6)
    store = write_store(tmp_path / "store", keys, labels, cut=2000, dtype="float16")
    queries = torch.from_numpy(random_entries(64, dim=384, seed=7)[0])
    searcher = ExactSearch(store, similarity)
    found = searcher.search(queries, 20)
    votes = searcher.vote_all(queries, [0.01])
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            again = searcher.search(queries, 20)
            votes_again = searcher.vote_all(queries, [0.01])
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(again.indices, found.indices)
    assert torch.equal(again.similarities, found.similarities)
    assert torch.equal(votes_again, votes)


def test_an_order_that_gets_better_and_better(tmp_path):
    """Each entry is nearer than all before: every block overflows the candidates."""
    angles = np.linspace(1.5, 0, 3000)
    keys = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    store = write_store(tmp_path / "store", keys, np.zeros(3000, int), cut=3000)
    searcher = ExactSearch(store, "l2", block_keys=500)
    found = searcher.search(torch.tensor([[1.0, 0.0]]).repeat(3, 1), 40)
    assert found.indices.tolist() == [list(range(2999, 2959, -1))] * 3


# The vote


def test_vote_by_hand():
    similarities = torch.tensor([[0.9, 0.8, 0.8, 0.1]])
    labels = torch.tensor([[2, 0, 2, 1]])
    votes = vote(similarities, labels, 4, temperature=0.1)
    weights = np.exp(np.array([9.0, 8.0, 8.0, 1.0]))
    expected = np.array([weights[1], weights[3], weights[0] + weights[2], 0]) / weights.sum()
    np.testing.assert_allclose(votes[0], expected, rtol=1e-5)


def test_vote_prefixes_are_votes_of_fewer_neighbours(store, queries):
    searcher = ExactSearch(store)
    found = searcher.search(queries, 200)
    labels = searcher.neighbour_labels(found.indices)
    ks = [1, 8, 64, 200, 500]
    prefixes = vote_prefixes(found.similarities, labels, len(LABELS), 0.05, ks)
    assert prefixes.shape == (5, 70, len(LABELS))
    for k, votes in zip(ks, prefixes, strict=True):
        fewer = vote(found.similarities[:, :k], labels[:, :k], len(LABELS), 0.05)
        torch.testing.assert_close(votes, fewer)
        torch.testing.assert_close(votes, searcher.votes(queries, min(k, 200), 0.05))


@pytest.mark.parametrize(("similarity", "scale"), [("cosine", 1), ("l2", 100)])
@pytest.mark.parametrize("block_keys", [1000, 77])
def test_the_vote_of_all_equals_the_vote_of_n_neighbours(
    store, queries, similarity, scale, block_keys
):
    searcher = ExactSearch(store, similarity, block_keys=block_keys)
    temperatures = [scale * temperature for temperature in (0.01, 0.1, 1.0)]
    votes = searcher.vote_all(queries, temperatures)
    assert votes.shape == (3, 70, len(LABELS))
    assert votes.dtype == torch.float32
    for temperature, at_once in zip(temperatures, votes, strict=True):
        one_by_one = searcher.votes(queries, store.entries, temperature)
        torch.testing.assert_close(at_once, one_by_one, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(at_once, searcher.votes(queries, -1, temperature))
    torch.testing.assert_close(votes.sum(dim=2), torch.ones(3, 70))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_vote_of_all_at_the_lowest_temperature(store, queries, similarity):
    searcher = ExactSearch(store, similarity, block_keys=100)
    votes = searcher.vote_all(queries, [0.001])[0]
    assert votes.isfinite().all()
    scores, order = full_sort(store, queries.numpy(), similarity)
    weights = np.exp((scores - scores[:, :1]) / 0.001)
    expected = np.stack(
        [(weights * (store.label_ids[order] == label)).sum(1) for label in range(len(LABELS))], 1
    )
    expected /= expected.sum(axis=1, keepdims=True)
    # For l2 a product's rounding, some 1e-5 of squared norms around 50, counts a thousandfold.
    np.testing.assert_allclose(votes, expected, atol=2e-3 if similarity == "cosine" else 3e-2)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_vote_of_all_does_not_depend_on_batches(store, queries, similarity):
    searcher = ExactSearch(store, similarity)
    votes = searcher.vote_all(queries, [0.1])
    for size in (1, 3, 16, 64):
        parts = [searcher.vote_all(part, [0.1]) for part in queries.split(size)]
        torch.testing.assert_close(torch.cat(parts, dim=1), votes, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block_keys", [1000, 77])
def test_the_vote_of_all_but_some_entries(store, queries, block_keys):
    """Without its 20 nearest, a query's labels weigh what the others give them, each as by hand."""
    searcher = ExactSearch(store, block_keys=block_keys)
    scores, order = full_sort(store, queries.numpy(), "cosine")
    nearest = torch.from_numpy(order[:, :20].copy())
    for without, first in ((nearest, 20), (None, 0)):
        weights = searcher.log_weights(queries, 0.05, without)
        expected = np.stack(
            [
                (np.exp(scores / 0.05) * (store.label_ids[order] == label))[:, first:].sum(1)
                for label in range(len(LABELS))
            ],
            1,
        )
        logs = weights.logs + weights.largest.double()[:, None] / 0.05
        np.testing.assert_allclose(logs, np.log(expected), atol=1e-4)
        assert weights.logs.dtype == torch.float64


def test_no_queries(store):
    searcher = ExactSearch(store)
    assert searcher.search(torch.zeros(0, 24), 3).indices.shape == (0, 3)
    assert searcher.vote_all(torch.zeros(0, 24), [0.1, 1]).shape == (2, 0, len(LABELS))
    assert searcher.votes(torch.zeros(0, 24), 3, 0.1).shape == (0, len(LABELS))


# What is refused, in one line


def error_of(action) -> str:
    with pytest.raises(UserError) as raised:
        action()
    return str(raised.value)


def test_bad_settings(store, queries):
    searcher = ExactSearch(store)
    assert error_of(lambda: ExactSearch(store, "dot")) == (
        "similarity 'dot': expected one of cosine, l2"
    )
    assert error_of(lambda: searcher.search(queries, 0)) == (
        "k 0: expected at least 1 neighbour to search for"
    )
    assert error_of(lambda: searcher.votes(queries, 3, 0.0)) == (
        "temperature 0.0: expected a number above 0"
    )
    assert error_of(lambda: searcher.vote_all(queries, [1, -1])) == (
        "temperature -1: expected a number above 0"
    )


def test_queries_of_another_model(store):
    assert error_of(lambda: ExactSearch(store).search(torch.zeros(3, 768), 1)) == (
        f"{store.path}: keys are 24 wide, but the hidden states to search for have the shape "
        "(3, 768); use the model that the datastore was built with"
    )


def test_queries_that_are_not_finite(store):
    queries = torch.zeros(3, 24)
    queries[1, 1] = torch.nan
    assert error_of(lambda: ExactSearch(store).search(queries, 1)) == (
        "hidden states to search for are not finite; "
        "look for a model that diverged, or use --precision 32"
    )


def test_an_index_that_cannot_visit_every_entry(store, queries):
    class First(Searcher):
        def search(self, queries, k):
            return self.rescore(self.checked(queries), torch.arange(k).expand(len(queries), -1))

    found = First(store).search(queries, 3)
    assert (found.similarities.diff(dim=1) <= 0).all()
    assert error_of(lambda: First(store).votes(queries, -1, 0.1)) == (
        "k -1: First does not visit every entry; search exactly"
    )
