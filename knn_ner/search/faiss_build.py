"""Building the FAISS indexes of a datastore, and extending them when it grew."""

import logging
import math
import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from knn_ner.datastore.folder import unique_id
from knn_ner.datastore.locking import lock_file
from knn_ner.datastore.manifest import Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.search.faiss_library import faiss_errors, graphs_of, load_faiss
from knn_ner.search.faiss_training import prepared_keys, recommended, trained_index
from knn_ner.search.index_records import (
    IndexRecord,
    read_record,
    shards_of,
    stands_for,
    stem,
)
from knn_ner.search.similarity import check_similarity
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import atomic_path

logger = logging.getLogger(__name__)

# Its own, so that sentences can be added while an index is built.
INDEXING_LOCK = "indexing.lock"
UNFINISHED = ".index-"

# Keys that are added at once, in float32.
ADDED_KEYS = 8192

# Entries for each entry that an index was trained on, from which on it is trained anew.
GROWTH = 2


@dataclass(frozen=True)
class Built:
    """What became of an index: `built`, `extended`, or `there` already.

    added: the entries that were written to it. reason: why it was built anew, if it was there.
    """

    record: IndexRecord
    action: str
    added: int = 0
    reason: str = ""


def build_index(
    path: str | Path, index: str = "auto", similarity: str = "cosine", seed: int = 0
) -> Built:
    """Build an index of the datastore in folder `path`, or bring it up to date, and keep it there.

    What is there already and whole is left alone; of a store to which entries were added since, only these
    are added to the index, unless they are as many as it was trained on. Whoever has the old index
    open keeps it.

    For cosine similarity keys are normalised and compared by Euclidean distance, which orders them in the
    same way: 2 - 2 cos. The inner product would not survive a PCA, which moves the origin.

    Args:
        index: a string of FAISS's index_factory, or "auto".
        seed: draws the keys that it is trained on.

    Raises `UserError` for what FAISS cannot make of the string and the store, if there is no store or
    it has no entries, and if another process is building an index.
    """
    path = Path(path)
    check_similarity(similarity)
    Manifest.read(path)
    with lock_file(
        path / INDEXING_LOCK,
        busy="another process is building an index of this datastore",
        advice=", where its indexes are kept; build the index as someone who can, or search exactly",
    ):
        for junk in path.glob(f"{UNFINISHED}*"):
            junk.unlink()
        store = Datastore.open(path)
        if not store.entries:
            raise UserError(f"{path}: no entries to index; add labelled sentences to it")
        name = recommended(store.entries) if index == "auto" else index
        try:
            before = read_record(path, name, similarity)
        except UserError as damage:
            logger.info(str(damage))
            before = None
        return _bring_up_to_date(store, name, similarity, seed, before)


def _bring_up_to_date(
    store: Datastore, name: str, similarity: str, seed: int, before: IndexRecord | None
) -> Built:
    start = time.perf_counter()
    reason = ""
    if before is not None:
        reason = _why_anew(before, store)
        if not reason and before.entries == store.entries:
            record = before
            if record.content_id != store.content_id:
                # Labels changed, or entries were written to other shards: the index is good as it is.
                record = replace(record, content_id=store.content_id, shards=shards_of(store))
                record.write(store.path)
            return Built(record, "there")
    faiss = load_faiss()
    if before is not None and not reason:
        index = _load(store.path / before.file)
        added = store.entries - before.entries
        trained_on = before.trained_on
    else:
        index = trained_index(store, name, similarity, seed)
        added, trained_on = store.entries, store.entries
    _add(index, store, similarity, store.entries - added, name)
    file = f"{stem(name, similarity)}-{unique_id()}.faiss"
    shards = shards_of(store)
    with atomic_path(store.path / file, fsync=True) as temporary:
        with faiss_errors(f"{store.path / file}", "free some space, then give the command again"):
            faiss.write_index(index, str(temporary))
        size = temporary.stat().st_size
    record = IndexRecord(
        index=name,
        similarity=similarity,
        dim=store.dim,
        entries=store.entries,
        trained_on=trained_on,
        shards=shards,
        content_id=store.content_id,
        file=file,
        bytes=size,
        seed=seed,
        seconds=round(time.perf_counter() - start, 2),
        faiss=faiss.__version__,
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    record.write(store.path)
    _remove_old(record, store.path)
    return Built(record, "extended" if added < store.entries else "built", added, reason)


def _why_anew(record: IndexRecord, store: Datastore) -> str:
    """Why an index cannot be extended; empty if it can, or need not be."""
    if not stands_for(record, store, math.inf):
        return "entries that it was built of are gone or others"
    file = store.path / record.file
    if not file.is_file() or file.stat().st_size != record.bytes:
        return "its file is gone or damaged"
    if store.entries >= GROWTH * record.trained_on:
        return f"{record.trained_on} entries that it was trained on have become {store.entries}"
    return ""


def _add(index: Any, store: Datastore, similarity: str, first: int, name: str) -> None:
    """Add the entries from `first` on, a block at a time."""
    faiss = load_faiss()
    threads = faiss.omp_get_max_threads()
    if graphs_of(index):
        # With several threads a graph depends on which of them comes first.
        faiss.omp_set_num_threads(1)
    total = store.entries - first
    try:
        with (
            tqdm(total=total, unit="entry", unit_scale=True, desc="index") as progress,
            faiss_errors(f'index "{name}"', "take another index"),
        ):
            for start in range(first, store.entries, ADDED_KEYS):
                rows = np.arange(start, min(start + ADDED_KEYS, store.entries))
                index.add(prepared_keys(store, rows, similarity))
                progress.update(len(rows))
    finally:
        faiss.omp_set_num_threads(threads)


def _load(file: Path) -> Any:
    faiss = load_faiss()
    with faiss_errors(str(file), "remove it, then give the command again"):
        return faiss.read_index(str(file))


def _remove_old(record: IndexRecord, path: Path) -> None:
    """Remove the files of earlier builds of an index. Under the lock; readers that have one open keep it."""
    for file in path.glob("*.faiss"):
        if file.name != record.file and re.fullmatch(
            re.escape(record.stem) + r"-[0-9a-f]{8}\.faiss", file.name
        ):
            file.unlink()
