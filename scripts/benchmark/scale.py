"""How seconds and memory of search grow with the datastore: datastores of random keys."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.measuring import measured
from benchmark.random_store import write_random_store
from knn_ner.datastore.reader import Datastore
from knn_ner.search.exact import ExactSearch
from knn_ner.search.faiss_build import build_index
from knn_ner.search.faiss_search import FaissSearch

logger = logging.getLogger(f"knn_ner.{__name__}")

DIM = 384
LABELS = ["O", "B-PER", "M-PER", "E-PER", "S-PER", "B-LOC", "M-LOC", "E-LOC", "S-LOC"]
QUERIES = 256
# Most entries for which an index is built as well: beyond, its training takes longer than all other work.
INDEXED_UP_TO = 1_000_000


def measure_scale(sizes: Sequence[int], k: int, device: torch.device) -> list[dict[str, Any]]:
    """Measure search over datastores of random keys.

    Args:
        sizes: numbers of entries.
        k: number of neighbours.
        device: where queries are searched.

    Returns:
        A row for each size: milliseconds for a query, and megabytes beyond the mapped keys.
    """
    rows = []
    for entries in sizes:
        with tempfile.TemporaryDirectory(prefix="knn_ner_benchmark.") as folder:
            path = Path(folder) / "datastore"
            with measured() as wrote:
                write_random_store(path, entries, DIM, LABELS, {"model": "random"})
            store = Datastore.open(path)
            generator = np.random.default_rng(1)
            queries = torch.from_numpy(generator.standard_normal((QUERIES, DIM), np.float32))
            exact = ExactSearch(store, "cosine", device)
            # A first search brings the keys into memory.
            exact.search(queries[:16], k)
            row: dict[str, Any] = {
                "entries": entries,
                "bytes": store.manifest.bytes,
                "k": min(k, entries),
                "write_megabytes": wrote.megabytes and round(wrote.megabytes, 1),
                "exact": measure_search(exact.search, queries, k),
                "k_all": measure_search(exact.vote_all, queries, [0.05]),
            }
            if entries <= INDEXED_UP_TO:
                record = build_index(path, "auto", "cosine").record
                index = FaissSearch.open(store, record.index, "cosine", device)
                index.search(queries[:16], k)
                row["index"] = {"name": record.index, "build_seconds": record.seconds}
                row["index"] |= measure_search(index.search, queries, k)
        logger.info(f"random keys: {row}")
        rows.append(row)
    return rows


def measure_search(search: Callable, *arguments: object) -> dict[str, Any]:
    """Measure one search for all queries."""
    with measured() as took:
        search(*arguments)
    return {
        "ms_per_query": round(1000 * took.seconds / QUERIES, 4),
        "megabytes": took.megabytes and round(took.megabytes, 1),
    }
