"""Tags are those of an exhaustive search at every temperature, norm and k: 10,000 examples against float64."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_factory import LABELS, write_store

from knn_ner.search.early_termination import EarlyTermination
from knn_ner.search.exact import ExactSearch
from knn_ner.search.interpolation import LabelAlignment, interpolate
from knn_ner.settings import VoteSettings

DIM, QUERIES = 6, 4
# Rounding of a float32 similarity, relative to the norms.
ROUNDING = 1e-5
SHAPES = list(itertools.product((1, 3, 40), (1e-4, 1.0, 1e4), ("spread", "near", "copies")))


def keys_of(count: int, scale: float, shape: str, seed: int) -> np.ndarray:
    """Random keys; `near`: nearly equal; `copies`: each several times, and zeros."""
    generator = np.random.default_rng(seed)
    keys = generator.standard_normal((count, DIM))
    if shape == "near":
        keys = keys[:1] + 1e-3 * keys
    elif shape == "copies":
        keys = keys[generator.integers(0, max(1, count // 4), count)]
        keys[generator.random(count) < 0.1] = 0
    return (keys * scale).astype(np.float32)


@pytest.fixture(scope="module")
def searchers(tmp_path_factory):
    found = {}
    for seed, shape in enumerate(SHAPES):
        labels = np.random.default_rng(seed).integers(0, len(LABELS), shape[0])
        path = tmp_path_factory.mktemp("stores") / "store"
        store = write_store(path, keys_of(*shape, seed), labels)
        for similarity in ("cosine", "l2"):
            found[shape, similarity] = ExactSearch(store, similarity)
    return found


def reference(searcher, queries, base, vote: VoteSettings):
    """The mix by float64 similarities, and for each query whether rounding of float32 can change the tag."""
    store = searcher.store
    keys = store.rows(0, store.entries).astype(np.float64)
    hidden = queries.numpy().astype(np.float64)
    norms, lengths = np.linalg.norm(keys, axis=1), np.linalg.norm(hidden, axis=1)
    if searcher.similarity == "cosine":
        scale = np.where(norms > 0, norms, 1)[None] * np.where(lengths > 0, lengths, 1)[:, None]
        similarities, error = hidden @ keys.T / scale, np.full(len(hidden), ROUNDING)
    else:
        similarities = -((hidden[:, None] - keys[None]) ** 2).sum(-1)
        error = ROUNDING * (norms.max() + lengths) ** 2
    mixes, clear = [], []
    k = store.entries if vote.k == -1 else min(vote.k, store.entries)
    for row, e, own in zip(similarities, error, base.double().numpy(), strict=True):
        order = np.argsort(-row, kind="stable")
        last = row[order[k - 1]]
        settled = k == store.entries or last - row[order[k]] > 4 * e
        with np.errstate(over="ignore", under="ignore", divide="ignore"):
            logs = np.full(len(LABELS), -np.inf)
            for entry in order[:k]:
                label = store.label_ids[entry]
                logs[label] = np.logaddexp(
                    logs[label], (row[entry] - row[order[0]]) / vote.temperature
                )
            shares = np.exp(logs - np.logaddexp.reduce(logs))
            # The odds of a label change by a factor of exp(2 e / T) at most.
            total = np.logaddexp.reduce(logs)
            rest = [np.logaddexp.reduce(np.delete(logs, label)) for label in range(len(LABELS))]
            odds = np.nan_to_num(logs - total, neginf=-1e300) - np.nan_to_num(
                np.array(rest) - total, neginf=-1e300
            )
            factor = 2 * e / vote.temperature
            low = 1 / (1 + np.exp(np.minimum(-(odds - factor), 700)))
            high = 1 / (1 + np.exp(np.minimum(-(odds + factor), 700)))
        present = logs > -np.inf
        low, high = (np.where(present, each, 0) for each in (low, high))
        if present.sum() == 1:
            low = high = present.astype(float)
        w = vote.knn_weight
        mix = w * shares + (1 - w) * own
        first = mix.argmax()
        others = np.delete(w * high + (1 - w) * own, first).max()
        mixes.append(first)
        clear.append(bool(settled and w * low[first] + (1 - w) * own[first] > others + 1e-4))
    return np.array(mixes), np.array(clear)


@settings(
    max_examples=10_000,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.sampled_from(SHAPES),
    similarity=st.sampled_from(["cosine", "l2"]),
    k=st.sampled_from([1, 2, 3, 7, 39, 40, 45, -1]),
    exponent=st.floats(-300, 300),
    knn_weight=st.sampled_from([0.0, 0.24, 0.43, 0.5, 0.8, 1.0]),
    query_scale=st.sampled_from([1e-4, 1.0, 1e4]),
    seed=st.integers(0, 10**6),
)
def test_at_any_temperature(
    searchers, shape, similarity, k, exponent, knn_weight, query_scale, seed
):
    searcher = searchers[shape, similarity]
    generator = np.random.default_rng(seed)
    store = searcher.store
    near = store.rows(0, store.entries)[generator.integers(0, store.entries, QUERIES)]
    noise = generator.standard_normal((QUERIES, DIM)) * query_scale
    queries = near * (generator.random((QUERIES, 1)) < 0.5) + noise
    queries = torch.from_numpy(queries.astype(np.float32))
    logits = torch.from_numpy(3 * generator.standard_normal((QUERIES, len(LABELS))))
    base = logits.float().softmax(dim=1)
    vote = VoteSettings(k, 10.0**exponent, knn_weight)

    votes = searcher.votes(queries, vote.k, vote.temperature)
    assert votes.isfinite().all() and torch.allclose(
        votes.sum(dim=1), torch.ones(QUERIES), atol=1e-5
    )
    mixed = interpolate(base, votes, knn_weight)
    alignment = LabelAlignment(store.labels, store.labels)
    tags = EarlyTermination(searcher, alignment, vote, 10**9).tags(queries, base)
    # Mixes that are equal up to rounding may go either way.
    own = mixed.gather(1, tags[:, None])[:, 0]
    assert (own >= mixed.amax(dim=1) - 1e-5).all()
    expected, clear = reference(searcher, queries, base, vote)
    assert (tags.numpy() == expected)[clear].all()
