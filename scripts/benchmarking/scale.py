"""How search and its memory grow with the datastore: stores of random keys."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarking.measuring import measured
from knn_ner.cli import say
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.exact import ExactSearch
from knn_ner.retrieval.faiss_build import build_index
from knn_ner.retrieval.faiss_search import FaissSearch
from knn_ner.retrieval.writer import DatastoreWriter

DIM = 384
LABELS = ["O", "B-PER", "M-PER", "E-PER", "S-PER", "B-LOC", "M-LOC", "E-LOC", "S-LOC"]
SHARD_ENTRIES = 250_000
BLOCK = 10_000
QUERIES = 256
# Stores for which an index is built too: beyond, training one takes longer than all the rest.
INDEXED_UP_TO = 1_000_000


def measure_scale(sizes: Sequence[int], k: int, device: torch.device) -> list[dict]:
    """Milliseconds a query, and memory beyond the mapped keys, for stores of so many entries."""
    rows = []
    for entries in sizes:
        with tempfile.TemporaryDirectory(prefix="knn_ner_benchmark.") as folder:
            path = Path(folder) / "datastore"
            with measured() as wrote:
                write_random_store(path, entries)
            store = Datastore.open(path)
            queries = torch.from_numpy(
                np.random.default_rng(1).standard_normal((QUERIES, DIM)).astype(np.float32)
            )
            exact = ExactSearch(store, "cosine", device)
            row = {"entries": entries, "bytes": store.manifest.bytes, "k": min(k, entries)}
            row["write_megabytes"] = wrote.megabytes and round(wrote.megabytes, 1)
            # Once before, so that pages and products are warm.
            exact.search(queries[:16], k)
            row["exact"] = searched(exact.search, queries, k)
            row["k_all"] = searched(exact.vote_all, queries, [0.05])
            if entries <= INDEXED_UP_TO:
                built = build_index(path, "auto", "cosine")
                index = FaissSearch.open(store, built.record.index, "cosine", device)
                index.search(queries[:16], k)
                row["index"] = {"name": built.record.index, "build_seconds": built.record.seconds}
                row["index"] |= searched(index.search, queries, k)
        say(f"random keys: {row}")
        rows.append(row)
    return rows


def searched(search: Callable, *arguments: object) -> dict:
    """Milliseconds a query, and megabytes, of one search for all queries."""
    with measured() as took:
        search(*arguments)
    return {
        "ms_per_query": round(1000 * took.seconds / QUERIES, 4),
        "megabytes": took.megabytes and round(took.megabytes, 1),
    }


def write_random_store(path: Path, entries: int) -> None:
    """A store of random float16 keys, 90% of them labelled O."""
    generator = np.random.default_rng(0)
    sizes = [SHARD_ENTRIES] * (entries // SHARD_ENTRIES) + [entries % SHARD_ENTRIES]
    sizes = [size for size in sizes if size]
    with (
        DatastoreWriter(
            path,
            dim=DIM,
            dtype="float16",
            labels=LABELS,
            made_with={"model": "random"},
            fingerprint=f"random {entries}",
            shards=len(sizes),
        ) as writer,
        tqdm(total=entries, unit="entry", unit_scale=True, desc="random keys") as progress,
    ):
        for number, size in enumerate(sizes):
            with writer.shard(number, size) as shard:
                shard.add_sentence(number, ["word"], ["O"])
                for start in range(0, size, BLOCK):
                    count = min(BLOCK, size - start)
                    keys = generator.standard_normal((count, DIM), dtype=np.float32)
                    labels = generator.integers(0, len(LABELS), count)
                    labels[generator.random(count) < 0.9] = 0
                    ids = np.full(count, number)
                    shard.write(start, keys, labels, ids, np.zeros(count, np.int64))
                    progress.update(count)
        writer.commit()
