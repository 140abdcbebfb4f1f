"""Building the FAISS indexes of a datastore, and extending them when it has grown."""

import logging
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
from knn_ner.search.faiss_index import IndexRecord, fits, read_record, shards_of, stem
from knn_ner.search.faiss_library import (
    faiss_errors,
    graphs_of,
    lists_of,
    load_faiss,
    parts,
    reason_of,
    transforms,
)
from knn_ner.search.similarity import check_similarity
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import atomic_path

logger = logging.getLogger(__name__)

# Separate from the lock of the datastore, so that sentences can be added while an index is built.
LOCK_FILE = "indexing.lock"
UNFINISHED_PREFIX = ".index-"

# Keys added to an index at once, in float32.
ADDED_KEYS = 8192
# An index is trained again when the store has this many entries for each entry that it was trained on.
RETRAINING_GROWTH = 2
# Keys that an index is trained on: at least as many as product quantisers need, and so many for each list.
TRAINING_KEYS = 1 << 16
TRAINING_KEYS_PER_LIST = 64
# FAISS prints a warning for each centroid with fewer training keys than this.
MIN_KEYS_PER_LIST = 39
# The most lists of `auto`. More take long to train, unless a graph finds the nearest lists (IVF65536_HNSW32,SQfp16).
MAX_LISTS = 1 << 14


@dataclass(frozen=True)
class Built:
    """The outcome of `build_index`.

    Attributes:
        record: the record of the index.
        action: `built`, `extended`, or `there` for an index that was up to date.
        added: number of entries that were written to the index.
        reason: why an existing index was built anew.
    """

    record: IndexRecord
    action: str
    added: int = 0
    reason: str = ""


def build_index(
    path: str | Path, index: str = "auto", similarity: str = "cosine", seed: int = 0
) -> Built:
    """Build an index of a datastore and keep it in the datastore's folder, or bring it up to date.

    An index that is up to date is left alone. If entries were added to the store since, only these are added to the
    index, unless they are as many as those that it was trained on. A process that has the old index open keeps it.

    For cosine similarity, keys are normalised and compared by Euclidean distance, which gives the same order:
    |q - k|^2 = 2 - 2 cos. The inner product would not survive a PCA, which moves the origin.

    Args:
        path: the datastore's folder.
        index: a string of FAISS's index_factory, or "auto".
        similarity: "cosine" or "l2".
        seed: random seed of the training keys.

    Raises:
        UserError: if FAISS cannot build this index of the store, if there is no store or it has no entries, and if
            another process is building an index.
    """
    path = Path(path)
    check_similarity(similarity)
    Manifest.read(path)
    with lock_file(
        path / LOCK_FILE,
        busy="another process is building an index of this datastore",
        advice=", where its indexes are kept; build the index as someone who can, or search exactly",
    ):
        for junk in path.glob(f"{UNFINISHED_PREFIX}*"):
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


def recommended(entries: int) -> str:
    """The index that `auto` stands for: about 4 sqrt(entries) lists, and vectors in float16.

    Most stores have keys in float16, so little is lost compared with `Flat`, which is twice as large, and slower.
    """
    lists = 2 ** round(math.log2(4 * math.sqrt(max(1, entries))))
    while lists > 1 and lists * MIN_KEYS_PER_LIST > entries:
        lists //= 2
    return f"IVF{min(lists, MAX_LISTS)},SQfp16" if lists > 1 else "Flat"


def _bring_up_to_date(
    store: Datastore, name: str, similarity: str, seed: int, before: IndexRecord | None
) -> Built:
    start = time.perf_counter()
    reason = _why_anew(before, store) if before is not None else ""
    if before is not None and not reason and before.entries == store.entries:
        if before.content_id != store.content_id:
            # Only labels changed, or the division into shards: the index still fits.
            before = replace(before, content_id=store.content_id, shards=shards_of(store))
            before.write(store.path)
        return Built(before, "there")
    faiss = load_faiss()
    if before is None or reason:
        index = _trained_index(store, name, similarity, seed)
        added, trained_on = store.entries, store.entries
    else:
        file = store.path / before.file
        with faiss_errors(str(file), "remove it, then give the command again"):
            index = faiss.read_index(str(file))
        added, trained_on = store.entries - before.entries, before.trained_on
    _add(index, store, similarity, store.entries - added, name)
    file = store.path / f"{stem(name, similarity)}-{unique_id()}.faiss"
    shards = shards_of(store)
    with atomic_path(file, fsync=True) as temporary:
        with faiss_errors(f"{file}", "free some space, then give the command again"):
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
        file=file.name,
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
    """Why an index has to be built anew; empty if it is up to date or can be extended."""
    if not fits(record, store, math.inf):
        return "entries that it was built of are gone or others"
    file = store.path / record.file
    if not file.is_file() or file.stat().st_size != record.bytes:
        return "its file is gone or damaged"
    if store.entries >= RETRAINING_GROWTH * record.trained_on:
        return f"{record.trained_on} entries that it was trained on have become {store.entries}"
    return ""


def _trained_index(store: Datastore, name: str, similarity: str, seed: int) -> Any:
    """An empty index, trained on a sample of the keys."""
    faiss = load_faiss()
    subject = f'index "{name}"'
    with faiss_errors(subject):
        try:
            index = faiss.index_factory(store.dim, name, faiss.METRIC_L2)
        except RuntimeError as error:
            raise UserError(_factory_advice(subject, str(error), store.dim)) from None
    lists = lists_of(index)
    nlist = lists.nlist if lists is not None else 0
    if nlist > store.entries:
        raise UserError(
            f"{subject}: {nlist} lists for {store.entries} entries; take fewer lists, such as "
            f'"{recommended(store.entries)}"'
        )
    if nlist * MIN_KEYS_PER_LIST > store.entries:
        logger.info(
            f"{subject}: {store.entries / nlist:.0f} entries for each list, where {MIN_KEYS_PER_LIST} or "
            f'more are good; "{recommended(store.entries)}" has fewer lists'
        )
    for part in parts(index):
        # It takes seconds for each quantiser, and serves a kind of search that is not used here.
        if hasattr(part, "do_polysemous_training"):
            part.do_polysemous_training = False
        for trained in (part, getattr(part, "pq", part)):
            if hasattr(trained, "cp"):
                trained.cp.min_points_per_centroid = 1
    if not index.is_trained:
        size = min(store.entries, max(TRAINING_KEYS, TRAINING_KEYS_PER_LIST * nlist))
        logger.info(f"{subject}: training on {size} of {store.entries} keys")
        chosen = np.random.default_rng(seed).choice(store.entries, size, replace=False)
        keys = _prepared_keys(store, np.sort(chosen), similarity)
        with (
            faiss_errors(
                subject, "take an index that learns less, such as IVF with SQfp16, or Flat"
            ),
            _quiet_rotations(index),
        ):
            index.train(keys)
    return index


@contextmanager
def _quiet_rotations(index: Any) -> Iterator[None]:
    """Train OPQ without a warning of a small sample for each of its quantisers, in each round."""
    faiss = load_faiss()
    rotations = [part for part in transforms(index)[0] if isinstance(part, faiss.OPQMatrix)]
    # A rotation refers to its quantiser by address, so the list keeps the quantisers alive.
    quantizers = [faiss.ProductQuantizer(part.d_out, part.M, 8) for part in rotations]
    for rotation, quantizer in zip(rotations, quantizers, strict=True):
        quantizer.cp.min_points_per_centroid = 1
        rotation.pq = quantizer
    try:
        yield
    finally:
        for rotation in rotations:
            rotation.pq = None


def _factory_advice(subject: str, error: str, dim: int) -> str:
    """The error message for a string that FAISS cannot make an index of."""
    if "multiple of the number of subquantizers" in error:
        sizes = [size for size in range(2, dim // 2 + 1) if dim % size == 0]
        return (
            f"{subject}: the number after PQ has to divide the width of the vectors; keys are {dim} wide, so "
            f"take one of {', '.join(map(str, sizes))}, or the width that a transform before it gives"
        )
    if re.search(r"could not parse|not recogni[sz]ed|invalid", error):
        return (
            f"{subject}: faiss knows no such index; give a string of its index_factory, such as Flat, HNSW32, "
            '"IVF1024,SQfp16" or "IVF1024,PQ48"'
        )
    return (
        f"{subject}: {reason_of(RuntimeError(error))}; give another string of FAISS's index_factory"
    )


def _prepared_keys(store: Datastore, entries: np.ndarray, similarity: str) -> np.ndarray:
    """Keys as an index stores them, (m, dim) float32: normalised for cosine similarity."""
    keys = store.gather(entries).astype(np.float32)
    if similarity == "cosine":
        norms = store.norms[entries, None]
        np.divide(keys, norms, out=keys, where=norms > 0)
    return keys


def _add(index: Any, store: Datastore, similarity: str, first: int, name: str) -> None:
    """Add the entries from `first` on, a block at a time."""
    faiss = load_faiss()
    threads = faiss.omp_get_max_threads()
    if graphs_of(index):
        # With several threads, a graph depends on their order.
        faiss.omp_set_num_threads(1)
    try:
        with (
            tqdm(
                total=store.entries - first, unit="entry", unit_scale=True, desc="index"
            ) as progress,
            faiss_errors(f'index "{name}"', "take another index"),
        ):
            for start in range(first, store.entries, ADDED_KEYS):
                rows = np.arange(start, min(start + ADDED_KEYS, store.entries))
                index.add(_prepared_keys(store, rows, similarity))
                progress.update(len(rows))
    finally:
        faiss.omp_set_num_threads(threads)


def _remove_old(record: IndexRecord, path: Path) -> None:
    """Remove the files of earlier builds of an index, under the lock. Readers that have one open keep it."""
    for file in path.glob("*.faiss"):
        if file.name != record.file and re.fullmatch(
            re.escape(record.stem) + r"-[0-9a-f]{8}\.faiss", file.name
        ):
            file.unlink()
