"""Tags that are settled early are those of an exhaustive search."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from store_factory import LABELS, write_store

from knn_ner.datastore.reader import Datastore
from knn_ner.search.ball_cover import build_covers, covers_of
from knn_ner.search.candidates import Candidates
from knn_ner.search.early_termination import EarlyTermination
from knn_ner.search.exact import ExactSearch
from knn_ner.search.faiss_build import build_index
from knn_ner.search.faiss_search import FaissSearch
from knn_ner.search.interpolation import LabelAlignment, interpolate
from knn_ner.search.searcher import best_first
from knn_ner.search.vote import vote, vote_bounds
from knn_ner.settings import VoteSettings

DIM = 12


def clustered(count: int, seed: int, spread: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Keys around a centre for each label, most of them of the first, and some far from their own."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((len(LABELS), DIM))
    shares = [0.6, *[0.4 / (len(LABELS) - 1)] * (len(LABELS) - 1)]
    labels = generator.choice(len(LABELS), count, p=shares)
    places = np.where(generator.random(count) < 0.03, generator.permutation(labels), labels)
    keys = centres[places] + spread * generator.standard_normal((count, DIM))
    return keys.astype(np.float32), labels


def tokens(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and the tagger's distributions, of which one in ten is not sure."""
    hidden, labels = clustered(count, seed, spread=0.2)
    generator = np.random.default_rng(seed)
    logits = generator.standard_normal((count, len(LABELS)))
    logits[np.arange(count), labels] += np.where(generator.random(count) < 0.1, 1.0, 7.0)
    return torch.from_numpy(hidden), torch.from_numpy(logits).float().softmax(dim=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Datastore:
    return write_store(tmp_path_factory.mktemp("decide") / "store", *clustered(3000, 1), cut=1500)


def exhaustive(searcher, hidden, base, vote: VoteSettings) -> torch.Tensor:
    votes = searcher.votes(hidden, vote.k, vote.temperature)
    return interpolate(base, votes, vote.knn_weight)


def decider(searcher, vote: VoteSettings, expected: int = 10**9) -> EarlyTermination:
    labels = searcher.store.labels
    return EarlyTermination(searcher, LabelAlignment(labels, labels), vote, expected)


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
@pytest.mark.parametrize("k", [1, 8, 300, 2999, 5000, -1])
def test_tags_are_those_of_an_exhaustive_search(store, similarity, k):
    searcher = ExactSearch(store, similarity)
    hidden, base = tokens(120, 2)
    for temperature in (0.001, 0.05, 1.0):
        for weight in (0.24, 0.5, 0.8):
            vote = VoteSettings(k, temperature, weight)
            found = decider(searcher, vote)
            tags = found.tags(hidden, base)
            mixed = exhaustive(searcher, hidden, base, vote)
            lead = mixed.topk(2, dim=1).values.diff(dim=1)[:, 0].abs()
            clear = lead > 1e-5
            assert clear.float().mean() > 0.95
            assert torch.equal(tags[clear], mixed.argmax(dim=1)[clear])
            assert sum(found.settled.values()) == 120


def test_most_tags_need_no_search(store):
    hidden, base = tokens(2000, 3)
    found = decider(ExactSearch(store), VoteSettings(32, 0.05, 0.8))
    found.tags(hidden, base)
    assert found.settled["cover"] > 1400
    assert found.settled.get("search", 0) < 40


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_bound_holds_for_any_store(tmp_path_factory, data):
    """The least share of a label is never above its share, whatever keys, labels, k and temperature."""
    count = data.draw(st.integers(1, 120), label="entries")
    seed = data.draw(st.integers(0, 10**6), label="seed")
    similarity = data.draw(st.sampled_from(["cosine", "l2"]))
    k = data.draw(st.sampled_from([1, 2, 5, 40, 500, -1]), label="k")
    temperature = data.draw(st.sampled_from([0.003, 0.05, 0.5]), label="temperature")
    generator = np.random.default_rng(seed)
    keys = generator.standard_normal((count, 4)).astype(np.float32)
    folder = tmp_path_factory.mktemp("bound") / "store"
    store = write_store(folder, keys, generator.integers(0, 3, count), cut=1000, dtype="float16")
    queries = torch.from_numpy(generator.standard_normal((12, 4)).astype(np.float32))
    labels = torch.from_numpy(generator.integers(-1, len(LABELS), 12))
    votes = ExactSearch(store, similarity).votes(queries, k, temperature)
    true = torch.where(labels >= 0, votes.gather(1, labels.clamp(min=0)[:, None])[:, 0], 0)
    covers = build_covers(store, similarity)
    assert len(covers) == 2
    agree = (votes.gather(1, labels.clamp(min=0)[:, None])[:, 0] == 1) & (labels >= 0)
    for cover in covers:
        assert cover.counts.sum() == count
        if k != -1:
            assert not (cover.unanimous(queries, labels, k) & ~agree).any()
        least = cover.least_share(queries, labels, k, temperature)
        # The bound is of the true vote; that of all entries is of a product, whose rounding T divides.
        assert (least <= true + (2e-3 if k == -1 else 1e-4)).all()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_shares_stay_within_bounds_whatever_the_rounding(data):
    """Scores off by anything up to the error, some of them equal, some entries with weights."""
    seed = data.draw(st.integers(0, 10**6), label="seed")
    k = data.draw(st.sampled_from([1, 2, 7, 30, 60]), label="k")
    temperature = data.draw(st.sampled_from([0.01, 0.05, 0.5]), label="temperature")
    error = data.draw(st.sampled_from([0.0, 1e-6, 1e-3, 0.03]), label="error")
    weighted = data.draw(st.booleans(), label="weighted")
    generator = torch.Generator().manual_seed(seed)
    true = (20 * torch.rand(6, 60, generator=generator)).round() / 20
    true += 1e-3 * torch.randn(6, 60, generator=generator) * data.draw(st.booleans(), label="apart")
    ids = torch.randint(0, 3, (6, 60), generator=generator)
    counts = torch.randint(1, 9, (6, 60), generator=generator).float() if weighted else None
    scores = true + error * (2 * torch.rand(6, 60, generator=generator) - 1)
    found = Candidates(scores, torch.arange(60).expand(6, 60), torch.full((6,), -torch.inf))
    # A hair more, for the rounding of these sums.
    errors = torch.full((6,), error + 1e-6)
    least, most = vote_bounds(found, ids, len(LABELS), k, temperature, errors, counts)
    best = best_first(true, torch.arange(60).expand(6, 60))
    order = best.indices
    best_counts = None if counts is None else counts.gather(1, order)
    shares = vote(best.similarities, ids.gather(1, order), len(LABELS), temperature, best_counts, k)
    if not weighted:
        shares = vote(
            best.similarities[:, :k], ids.gather(1, order)[:, :k], len(LABELS), temperature
        )
    assert (least <= shares + 1e-5).all()
    assert (shares <= most + 1e-5).all()
    # Nothing but doubt about who takes part keeps the bounds apart where the error is small.
    apart = best.similarities.diff(dim=1).abs().amin(dim=1) > 4 * errors
    if error < 1e-5:
        assert ((most - least)[apart] < 0.01).all()
    # What no candidate is may be better than they are: then nothing is known.
    blind = Candidates(scores, found.indices, torch.full((6,), 2.0))
    least, most = vote_bounds(blind, ids, len(LABELS), k, temperature, errors, counts)
    assert not least.any()
    assert (most == 1).all()


def test_a_cover_that_settles_nothing_is_not_asked_again(store):
    """Of tokens that lie among the labels, balls know nothing, and most of them are spared the question."""
    generator = np.random.default_rng(13)
    hidden = torch.from_numpy(generator.standard_normal((1000, DIM)).astype(np.float32))
    base = torch.full((1000, len(LABELS)), 1 / len(LABELS))
    vote = VoteSettings(300, 0.05, 0.8)
    found = decider(ExactSearch(store), vote)
    tags = found.tags(hidden, base)
    assert [asked for asked, _ in found._trials.values()] == [128, 128]
    assert torch.equal(tags, exhaustive(ExactSearch(store), hidden, base, vote).argmax(dim=1))


def test_covers_are_kept_with_the_store_and_tied_to_what_it_holds(tmp_path):
    keys, labels = clustered(600, 5)
    store = write_store(tmp_path / "store", keys, labels)
    assert covers_of(store, "cosine", expected=0) == []
    built = covers_of(store, "cosine", expected=10**9)
    kept = covers_of(store, "cosine", expected=0)
    assert len(built) == len(kept) == 2
    for ours, theirs in zip(built, kept, strict=True):
        for name in ("centres", "radii", "counts", "labels"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert covers_of(store, "l2", expected=0) == []
    other = write_store(tmp_path / "store", keys[:500], labels[:500], fingerprint="build 2")
    assert covers_of(other, "cosine", expected=0) == []
    (tmp_path / "store" / "cover-cosine.npz").write_bytes(b"half a file")
    assert covers_of(store, "cosine", expected=0) == []
    assert len(covers_of(other, "cosine", expected=10**9)) == 2
    assert len(covers_of(other, "cosine", expected=0)) == 2


def test_a_key_of_zeros_has_no_cover_for_cosine(tmp_path):
    keys, labels = clustered(50, 6)
    keys[7] = 0
    store = write_store(tmp_path / "store", keys, labels)
    assert build_covers(store, "cosine") == []
    assert len(build_covers(store, "l2")) == 2
    hidden, base = tokens(50, 7)
    vote = VoteSettings(5, 0.1, 0.8)
    tags = decider(ExactSearch(store), vote).tags(hidden, base)
    assert torch.equal(tags, exhaustive(ExactSearch(store), hidden, base, vote).argmax(dim=1))


def test_labels_that_only_one_of_tagger_and_store_has(store):
    hidden, base = tokens(300, 8)
    ours = ["O", "B-NEW", *LABELS[1:]]
    alignment = LabelAlignment(ours, store.labels)
    wide = torch.zeros(300, len(ours))
    wide[:, [0, *range(2, len(ours))]] = base
    wide[:50] = torch.eye(len(ours))[1] * 0.9 + 0.1 / len(ours)
    vote = VoteSettings(16, 0.05, 0.6)
    searcher = ExactSearch(store)
    tags = EarlyTermination(searcher, alignment, vote, 10**9).tags(hidden, wide)
    votes = alignment.votes(searcher.votes(hidden, 16, 0.05))
    assert torch.equal(tags, interpolate(wide, votes, 0.6).argmax(dim=1))


def test_equal_keys_leave_it_to_the_search(tmp_path):
    """With equal keys of two labels, which of them vote is decided by index, as in a search."""
    keys = np.repeat(np.random.default_rng(9).standard_normal((4, DIM)), 50, axis=0)
    labels = np.tile([0, 1], 100)
    store = write_store(tmp_path / "store", keys.astype(np.float32), labels)
    hidden = torch.from_numpy(keys[::50].astype(np.float32))
    base = torch.tensor([[0.5, 0.5, 0.0, 0.0, 0.0]]).repeat(4, 1)
    for k in (1, 2, 3, 51):
        vote = VoteSettings(k, 0.1, 0.9)
        searcher = ExactSearch(store)
        tags = decider(searcher, vote).tags(hidden, base)
        assert torch.equal(tags, exhaustive(searcher, hidden, base, vote).argmax(dim=1))


def test_a_sampled_bar_finds_the_same_neighbours(tmp_path):
    """A store that is large enough for the bar to be set by a sample, and for the sample to mislead."""
    keys, labels = clustered(40_000, 10)
    store = write_store(tmp_path / "store", keys, labels, cut=40_000, dtype="float16")
    queries = torch.from_numpy(clustered(40, 11)[0])
    # Keys that stand where the sample does not look: their neighbours are more than it promises.
    scores = (
        torch.nn.functional.normalize(queries)
        @ torch.nn.functional.normalize(
            torch.from_numpy(store.rows(0, store.entries).astype(np.float32))
        ).T
    )
    for k in (1, 50, 1000):
        found = ExactSearch(store).search(queries, k)
        best = scores.topk(k, dim=1)
        torch.testing.assert_close(found.similarities, best.values, rtol=0, atol=1e-6)
        assert (found.indices.sort(dim=1).values.diff(dim=1) > 0).all()


def test_an_index_settles_what_is_clear_and_leaves_the_rest_to_exact_search(tmp_path):
    store = write_store(tmp_path / "store", *clustered(3000, 1), cut=3000)
    build_index(store.path, "IVF32,Flat", "cosine", 0)
    index = FaissSearch.open(store, "IVF32,Flat", "cosine", "cpu")
    hidden, base = tokens(2000, 12)
    vote = VoteSettings(64, 0.05, 0.8)
    found = decider(index, vote)
    tags = found.tags(hidden, base)
    mixed = exhaustive(ExactSearch(store), hidden, base, vote)
    assert found.settled["index"] > 1400
    assert sum(found.settled.values()) == 2000
    assert (tags != mixed.argmax(dim=1)).sum() <= 2
    # What the index does not settle has the tag of exact search.
    left = found._by_index(index, hidden, base) < 0
    assert torch.equal(tags[left], mixed.argmax(dim=1)[left])
    # Where all vote, the index has no part in it.
    vote = VoteSettings(-1, 0.05, 0.8)
    found = decider(index, vote)
    tags = found.tags(hidden[:50], base[:50])
    mixed = exhaustive(ExactSearch(store), hidden[:50], base[:50], vote)
    assert torch.equal(tags, mixed.argmax(dim=1))
    assert set(found.settled) == {"search"}
