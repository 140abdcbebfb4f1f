"""Inference: the tagger alone, the published algorithm, exact search and approximate search."""

import itertools
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.measuring import Measured, measured
from benchmark.published import PublishedInference
from benchmark.settings import BenchmarkSettings
from knn_ner.datastore.reader import Datastore
from knn_ner.search.early_termination import EarlyTermination
from knn_ner.search.exact import ExactSearch
from knn_ner.search.faiss_search import FaissSearch
from knn_ner.search.index_choice import open_searcher
from knn_ner.search.interpolation import LabelAlignment, interpolate
from knn_ner.search.searcher import Searcher
from knn_ner.settings import VoteSettings
from knn_ner.tagging.split import Split
from knn_ner.tagging.tag import CHUNK_ROWS, Scope, Tagging, tag
from knn_ner.tagging.trained_tagger import TrainedTagger
from knn_ner.utils.device import choose_device

logger = logging.getLogger(f"knn_ner.{__name__}")

WEIGHTS = (0.24, 0.43, 0.8)
# Number of queries for which the neighbours from an index are compared with the true neighbours.
RECALL_QUERIES = 1000


@dataclass
class Bench:
    """What inference is measured on.

    Attributes:
        tagger: the tagger.
        store: its datastore.
        split: the sentences to tag.
        settings: the settings of the benchmark.
    """

    tagger: TrainedTagger
    store: Datastore
    split: Split
    settings: BenchmarkSettings

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return choose_device(self.settings.device)

    @property
    def alignment(self) -> LabelAlignment:
        """The labels of tagger and datastore."""
        return LabelAlignment(self.tagger.labels, self.store.labels)

    def vote(self, k: int, knn_weight: float) -> VoteSettings:
        """The vote of k neighbours, at the temperature of the benchmark."""
        return VoteSettings(k, self.settings.temperature, knn_weight)

    def tag(
        self, searcher: Searcher | None = None, vote: VoteSettings | None = None
    ) -> tuple[Tagging, Measured]:
        """Tag the split, by default with the tagger alone, and measure it."""
        with measured() as took:
            tagging = tag(self.tagger, self.split, searcher, vote, self.settings, scope=Scope.TAGS)
        return tagging, took


@dataclass
class Queries:
    """The Q scored word pieces of a split, in the order of the batches.

    Attributes:
        rows: (Q,) int64, their places among all word pieces.
        hidden: (Q, dim) float32, made as the keys are.
        base: (Q, L) float32, the tagger's distribution over the labels of tagger and datastore.
    """

    rows: np.ndarray
    hidden: Tensor
    base: Tensor


@dataclass
class Reference:
    """The tags of an exhaustive search.

    Attributes:
        took: what the search took.
        tags: the label ids of all R word pieces, (R,) int64, by knn_weight.
    """

    took: Measured
    tags: dict[float, np.ndarray]


def first_sentences(split: Split, count: int | None) -> Split:
    """The first sentences of a split; all if `count` is None."""
    return Split(split.sentences[:count], split.encoded[:count], split.labels, split.scheme)


def measure_inference(bench: Bench, indexes: Sequence[str]) -> list[dict[str, Any]]:
    """Measure all ways of inference.

    The tagger alone runs before and after each measurement, and the ratio is to the mean of these two runs:
    the speed of a shared machine changes from minute to minute.

    Args:
        bench: what to measure on.
        indexes: names of FAISS indexes of the datastore.

    Returns:
        A row for each way, k and knn_weight; seconds and ratios are medians.
    """
    settings, scored = bench.settings, bench.split.scored
    exact = ExactSearch(bench.store, "cosine", bench.device)
    searchers: dict[str, Searcher] = {"exact": exact}
    for name in indexes:
        searchers[name] = open_searcher(bench.store, "cosine", bench.device, index=name)
    ways = [("exact", settings.k), ("exact", -1), *((name, settings.k) for name in indexes)]
    queries = encode_queries(bench)
    reference = {k: search_exhaustively(bench, queries, exact, k) for k in (settings.k, -1)}
    runs: dict[tuple[str, int, float], list[tuple[Tagging, Measured, float]]] = {}
    alone: list[Measured] = []
    # Round -1 is not counted: it makes the files that are kept beside the datastore.
    for repeat in range(-1, settings.repeats):
        logger.info(f"inference, run {repeat + 1} of {settings.repeats}")
        _, before = bench.tag()
        alone += [before] if repeat >= 0 else []
        for (name, k), weight in itertools.product(ways, WEIGHTS):
            tagging, took = bench.tag(searchers[name], bench.vote(k, weight))
            if repeat < 0:
                continue
            _, after = bench.tag()
            alone.append(after)
            ratio = took.seconds / statistics.mean([before.seconds, after.seconds])
            runs.setdefault((name, k, weight), []).append((tagging, took, ratio))
            before = after
    tokens = int(scored.sum())
    rows = [make_row("tagger alone", None, None, alone, [1.0], tokens=tokens)]
    rows += published_rows(bench, reference)
    base_seconds = statistics.median(took.seconds for took in alone)
    for k, found in reference.items():
        whole = Measured(base_seconds + found.took.seconds, found.took.megabytes)
        ratios = [whole.seconds / base_seconds]
        for weight in WEIGHTS:
            rows.append(make_row("exact, every token", k, weight, [whole], ratios, 1.0, 0))
    for (name, k, weight), measurements in runs.items():
        tagging = measurements[0][0]
        rows.append(
            make_row(
                "exact" if name == "exact" else f"index {name}",
                k,
                weight,
                [took for _, took, _ in measurements],
                [ratio for *_, ratio in measurements],
                tagging.searched / tokens,
                int((tagging.knn != reference[k].tags[weight])[scored].sum()),
                settled=tagging.settled,
            )
        )
    for name, searcher in searchers.items():
        if isinstance(searcher, FaissSearch):
            share = recall(queries.hidden, exact, searcher, settings.k)
            for row in rows:
                if row["way"] == f"index {name}":
                    row[f"recall@{settings.k}"] = share
    return rows


def make_row(
    way: str,
    k: int | None,
    knn_weight: float | None,
    runs: Sequence[Measured],
    ratios: Sequence[float],
    searched: float | None = None,
    different: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The report on one way of inference.

    Args:
        way: its name.
        k: neighbours that vote.
        knn_weight: weight of the vote.
        runs: what each run took.
        ratios: seconds of each run, divided by those of the tagger alone.
        searched: share of the tokens that were searched.
        different: number of tags that differ from those of an exhaustive search.
        more: further fields.
    """
    memory = [took.megabytes for took in runs if took.megabytes is not None]
    return {
        "way": way,
        "k": k,
        "knn_weight": knn_weight,
        "seconds": round(statistics.median(took.seconds for took in runs), 3),
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "searched": None if searched is None else round(searched, 5),
        "different_tags": different,
        "megabytes": round(max(memory), 1) if memory else None,
        **more,
    }


def encode_queries(bench: Bench) -> Queries:
    """Encode the split for exhaustive search."""
    alignment, parts = bench.alignment, []
    for batch in bench.tagger.hidden_states(
        bench.split.encoded, bench.settings, bench.store.recipe
    ):
        rows = batch.rows.numpy()
        scored = bench.split.scored[rows]
        chosen = torch.from_numpy(scored).to(bench.device)
        base = alignment.base(batch.logits[chosen].softmax(dim=-1))
        parts.append((rows[scored], batch.keys(chosen), base))
    all_rows, all_hidden, all_base = zip(*parts, strict=True)
    return Queries(np.concatenate(all_rows), torch.cat(all_hidden), torch.cat(all_base))


def search_exhaustively(bench: Bench, queries: Queries, searcher: ExactSearch, k: int) -> Reference:
    """Search for every token; one search gives the tags at all knn_weights, as votes do not depend on it."""
    logger.info(f"exhaustive search, k {k}")
    temperature = bench.settings.temperature
    with measured() as took:
        votes = torch.cat(
            [searcher.votes(part, k, temperature) for part in queries.hidden.split(CHUNK_ROWS)]
        )
    votes = bench.alignment.votes(votes)
    tags = {weight: np.zeros(len(bench.split.gold), np.int64) for weight in WEIGHTS}
    for weight in WEIGHTS:
        mixed = interpolate(queries.base, votes, weight)
        tags[weight][queries.rows] = mixed.argmax(dim=1).cpu().numpy()
    return Reference(took, tags)


def published_rows(bench: Bench, reference: dict[int, Reference]) -> list[dict[str, Any]]:
    """Measure the published algorithm on the first sentences; seconds are extrapolated to all sentences."""
    count = bench.settings.published_sentences
    if not count:
        return []
    split = first_sentences(bench.split, count)
    part = Bench(bench.tagger, bench.store, split, bench.settings)
    logger.info(f"the published algorithm, on {len(split.sentences)} sentences")
    published = PublishedInference(bench.tagger, bench.store, bench.device)
    rows = []
    for k, found in reference.items():
        _, base = part.tag()
        with measured() as took:
            tags = published.tag(split.encoded, bench.vote(k, WEIGHTS[0]))
        ratio = took.seconds / base.seconds
        took.seconds *= bench.split.scored.sum() / split.scored.sum()
        different = int((tags != found.tags[WEIGHTS[0]][: len(tags)])[split.scored].sum())
        sentences = len(split.sentences)
        rows.append(
            make_row("published", k, None, [took], [ratio], 1.0, different, sentences=sentences)
        )
    return rows


def recall(hidden: Tensor, exact: ExactSearch, index: FaissSearch, k: int) -> float:
    """The share of the k nearest entries that an index finds.

    Args:
        hidden: (Q, dim) float32, the queries, of which a sample is searched.
        exact: finds the true neighbours.
        index: the index.
        k: number of neighbours.
    """
    sample = np.random.default_rng(0).choice(
        len(hidden), min(RECALL_QUERIES, len(hidden)), replace=False
    )
    true, found = (
        searcher.search(hidden[sample], k).indices.tolist() for searcher in (exact, index)
    )
    hits = [len({*ours} & {*theirs}) for ours, theirs in zip(true, found, strict=True)]
    return round(sum(hits) / sum(map(len, true)), 4)


def measure_covers(bench: Bench) -> dict[str, Any]:
    """Measure how long it takes to cover the keys with balls for early termination, and how many there are."""
    vote = bench.vote(bench.settings.k, 0.8)
    # With so many tokens to come, covers are always made.
    termination = EarlyTermination(ExactSearch(bench.store), bench.alignment, vote, 1 << 60)
    with measured() as took:
        covers = termination.covers()
    return {
        "seconds": round(took.seconds, 2),
        "megabytes": took.megabytes and round(took.megabytes, 1),
        "balls": [len(cover.centres) for cover in covers],
    }
