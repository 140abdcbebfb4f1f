"""Inference: the tagger alone, the published algorithm, exact and approximate search."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarking.measuring import Measured, measured
from benchmarking.published import PublishedInference
from knn_ner.cli import say
from knn_ner.model.representations import represent
from knn_ner.pipeline import LoadedTagger, Split
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.decide import Decider
from knn_ner.retrieval.exact import ExactSearch
from knn_ner.retrieval.faiss_search import FaissSearch
from knn_ner.retrieval.interpolation import KnnSettings, LabelAlignment, interpolate
from knn_ner.retrieval.opening import open_searcher
from knn_ner.tagging import CHUNK_ROWS, Tagging, tag

WEIGHTS = (0.24, 0.43, 0.8)
# Queries whose neighbours by an index are compared with the true ones.
RECALL_QUERIES = 1000


@dataclass
class Bench:
    """What is measured on.

    how: device, batch_size, precision and workers, as for `representations.represent`.
    """

    tagger: LoadedTagger
    store: Datastore
    split: Split
    k: int
    temperature: float
    repeats: int
    published_sentences: int
    how: dict

    def tag(
        self, searcher, settings: KnnSettings | None, search: str = "tags"
    ) -> tuple[Tagging, Measured]:
        with measured() as took:
            tagging = tag(self.tagger, self.split, searcher, settings, search=search, **self.how)
        return tagging, took


def measure_inference(bench: Bench, indexes: Sequence[str]) -> list[dict]:
    """One row for each way and knn_weight; seconds are medians.

    The tagger alone runs before and after each way, and a ratio is to the mean of these two: a machine
    that others use, too, is not equally fast from one minute to the next.
    """
    device = bench.how["device"]
    searchers = {"exact": ExactSearch(bench.store, "cosine", device)}
    for name in indexes:
        searchers[name] = open_searcher(bench.store, "cosine", device, index=name)
    ways = [("exact", bench.k), ("exact", -1), *((name, bench.k) for name in indexes)]
    reference = {k: reference_tags(bench, searchers["exact"], k) for k in (bench.k, -1)}
    # The first run of each prepares what is kept with the store, which is timed apart.
    runs: dict[tuple, list[tuple[Tagging, Measured, float]]] = {}
    alone: list[Measured] = []
    for repeat in range(-1, bench.repeats):
        say(f"inference, run {repeat + 1} of {bench.repeats}")
        _, before = bench.tag(None, None)
        alone += [before] if repeat >= 0 else []
        for (name, k), weight in itertools.product(ways, WEIGHTS):
            tagging, took = bench.tag(searchers[name], KnnSettings(k, bench.temperature, weight))
            if repeat < 0:
                continue
            _, after = bench.tag(None, None)
            alone.append(after)
            ratio = took.seconds / statistics.mean([before.seconds, after.seconds])
            runs.setdefault((name, k, weight), []).append((tagging, took, ratio))
            before = after
    scored = bench.split.scored
    tokens = int(scored.sum())
    rows = [row("tagger alone", None, None, alone, [1.0], tokens=tokens)]
    rows += published_rows(bench, reference, tokens)
    for k in (bench.k, -1):
        seconds = statistics.median(took.seconds for took in alone) + reference[k]["seconds"]
        ratio = seconds / statistics.median(took.seconds for took in alone)
        took = Measured(seconds, reference[k]["megabytes"])
        for weight in WEIGHTS:
            rows.append(row("exact, every token", k, weight, [took], [ratio], 1.0, 0))
    for (name, k, weight), measurements in runs.items():
        tagging = measurements[0][0]
        label = "exact" if name == "exact" else f"index {name}"
        rows.append(
            row(
                label,
                k,
                weight,
                [took for _, took, _ in measurements],
                [ratio for *_, ratio in measurements],
                tagging.searched / tokens,
                int((tagging.knn != reference[k][weight])[scored].sum()),
                settled=tagging.settled,
            )
        )
    for name in indexes:
        if isinstance(searchers[name], FaissSearch):
            found = recall(bench, searchers["exact"], searchers[name])
            for each in rows:
                if each["way"] == f"index {name}":
                    each[f"recall@{bench.k}"] = found
    return rows


def row(
    way: str,
    k: int | None,
    weight: float | None,
    runs: Sequence[Measured],
    ratios: Sequence[float],
    searched: float | None = None,
    different: int | None = None,
    **more,
) -> dict:
    """What is reported of one way at one knn_weight."""
    memory = [took.megabytes for took in runs if took.megabytes is not None]
    return {
        "way": way,
        "k": k,
        "knn_weight": weight,
        "seconds": round(statistics.median(took.seconds for took in runs), 3),
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "searched": searched if searched is None else round(searched, 5),
        "different_tags": different,
        "megabytes": round(max(memory), 1) if memory else None,
        **more,
    }


def reference_tags(bench: Bench, searcher: ExactSearch, k: int) -> dict:
    """The tags of an exhaustive search at each knn_weight, and what that search takes.

    The votes do not depend on knn_weight, so that one search gives the tags of all.
    """
    say(f"exhaustive search, k {k}")
    rows, hidden, base = encoded(bench)
    with measured() as took:
        votes = torch.cat(
            [
                searcher.votes(part, k, bench.temperature)
                for part in hidden[bench.split.scored[rows]].split(CHUNK_ROWS)
            ]
        )
    result: dict = {"seconds": took.seconds, "megabytes": took.megabytes}
    alignment = LabelAlignment(bench.tagger.labels, bench.store.labels)
    scored = bench.split.scored[rows]
    for weight in WEIGHTS:
        tags = np.zeros(len(rows), np.int64)
        mixed = interpolate(alignment.base(base[scored]), alignment.votes(votes), weight)
        tags[rows[scored]] = mixed.argmax(dim=1).numpy()
        result[weight] = tags
    return result


def encoded(bench: Bench) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Of the pieces of the split: their rows, what they are searched by, and the tagger's distributions."""
    tagger = bench.tagger
    batches = list(
        represent(
            tagger.model,
            bench.split.encoded,
            pad_id=tagger.tokenizer.pad_token_id,
            max_length=tagger.max_length,
            recipe=bench.store.recipe,
            **bench.how,
        )
    )
    every = slice(None)
    return (
        np.concatenate([batch.rows.numpy() for batch in batches]),
        torch.cat([batch.keys(every) for batch in batches]),
        torch.cat([batch.logits.softmax(dim=-1) for batch in batches]),
    )


def published_rows(bench: Bench, reference: dict, tokens: int) -> list[dict]:
    """The published algorithm on the first sentences, and the seconds that it would take for all."""
    if not bench.published_sentences:
        return []
    sentences = bench.split.encoded[: bench.published_sentences]
    count = sum(map(len, sentences))
    say(f"the published algorithm, on {len(sentences)} sentences")
    published = PublishedInference(bench.tagger, bench.store)
    part = bench.split.scored[:count]
    device = bench.how["device"]
    rows = []
    for k in (bench.k, -1):
        with measured() as base:
            tag(bench.tagger, _first(bench.split, len(sentences)), None, None, **bench.how)
        with measured() as took:
            tags = published.tag(sentences, KnnSettings(k, bench.temperature, WEIGHTS[0]), device)
        different = int((tags != reference[k][WEIGHTS[0]][:count])[part].sum())
        took.seconds *= tokens / part.sum()
        ratio = took.seconds / (base.seconds * tokens / part.sum())
        rows.append(
            row("published", k, None, [took], [ratio], 1.0, different, sentences=len(sentences))
        )
    return rows


def _first(split: Split, count: int) -> Split:
    return Split(split.sentences[:count], split.encoded[:count], split.labels, split.scheme)


def recall(bench: Bench, exact: ExactSearch, index: FaissSearch) -> float:
    """The share of the k nearest entries that an index finds."""
    rows, hidden, _ = encoded(bench)
    chosen = np.flatnonzero(bench.split.scored[rows])
    count = min(RECALL_QUERIES, len(chosen))
    queries = hidden[np.random.default_rng(0).choice(chosen, count, replace=False)]
    true, found = (searcher.search(queries, bench.k).indices for searcher in (exact, index))
    hits = [
        len(set(ours) & set(theirs))
        for ours, theirs in zip(true.tolist(), found.tolist(), strict=True)
    ]
    return round(sum(hits) / true.numel(), 4)


def measure_covers(bench: Bench) -> dict:
    """How long it takes to prepare the balls that settle tags early, and how large they are."""
    settings = KnnSettings(bench.k, bench.temperature, 0.8)
    alignment = LabelAlignment(bench.tagger.labels, bench.store.labels)
    decider = Decider(ExactSearch(bench.store), alignment, settings, expected=1 << 60)
    with measured() as took:
        covers = decider.covers()
    return {
        "seconds": round(took.seconds, 2),
        "megabytes": took.megabytes and round(took.megabytes, 1),
        "balls": [len(cover.centres) for cover in covers],
    }
