"""Building the FAISS indexes of a datastore, and extending them when it grew."""

import fcntl
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

from knn_ner.cli import say
from knn_ner.errors import UserError
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.faiss_library import (
    faiss_errors,
    graphs_of,
    lists_of,
    load_faiss,
    parts,
    reason_of,
    transforms,
)
from knn_ner.retrieval.folder import new_name
from knn_ner.retrieval.indexes import (
    IndexRecord,
    list_records,
    read_record,
    shards_of,
    stands_for,
    stem,
)
from knn_ner.retrieval.manifest import Manifest, sync
from knn_ner.retrieval.similarity import check_similarity

# Its own, so that sentences can be added while an index is built.
INDEXING_LOCK = "indexing.lock"
UNFINISHED = ".index-"

# Keys that are added at once, in float32.
ADDED_KEYS = 8192

# Keys that an index is trained on: what product quantisers make use of, or so many for each list.
TRAINING_KEYS = 1 << 16
TRAINING_KEYS_PER_LIST = 64
# FAISS warns, hundreds of times, of fewer points than this for each centroid.
FEW_PER_LIST = 39

# Entries for each entry that an index was trained on, from which on it is trained anew.
GROWTH = 2

# The most lists that `auto` takes: with more, training takes long, and is better done with a graph over
# the lists (IVF65536_HNSW32,SQfp16).
MOST_LISTS = 1 << 14


@dataclass(frozen=True)
class Built:
    """What became of an index: `built`, `extended`, or `there` already.

    added: the entries that were written to it. reason: why it was built anew, if it was there.
    """

    record: IndexRecord
    action: str
    added: int = 0
    reason: str = ""


def recommended(entries: int) -> str:
    """The index that `auto` stands for: about 4 sqrt(entries) lists, and vectors in float16.

    Keys are float16 on disk as a rule, so that little is lost against `Flat`, which takes twice the bytes
    and is slower.
    """
    lists = 2 ** round(math.log2(4 * math.sqrt(max(1, entries))))
    while lists > 1 and lists * FEW_PER_LIST > entries:
        lists //= 2
    return f"IVF{min(lists, MOST_LISTS)},SQfp16" if lists > 1 else "Flat"


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
    with _indexing(path):
        for junk in path.glob(f"{UNFINISHED}*"):
            junk.unlink()
        store = Datastore.open(path)
        if not store.entries:
            raise UserError(f"{path}: no entries to index; add labelled sentences to it")
        name = recommended(store.entries) if index == "auto" else index
        try:
            before = read_record(path, name, similarity)
        except UserError as damage:
            say(str(damage))
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
        index = _trained(store, name, similarity, seed)
        added, trained_on = store.entries, store.entries
    _add(index, store, similarity, store.entries - added, name)
    file = f"{stem(name, similarity)}-{new_name()}.faiss"
    shards = shards_of(store)
    with _unfinished(store.path / file) as temporary:
        with faiss_errors(f"{store.path / file}", "free some space, then give the command again"):
            faiss.write_index(index, str(temporary))
        sync(temporary)
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
    _remove_unnamed(store.path)
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


def _trained(store: Datastore, name: str, similarity: str, seed: int) -> Any:
    """An empty index that was trained on a sample of the keys."""
    faiss = load_faiss()
    what = f'index "{name}"'
    with faiss_errors(what):
        try:
            index = faiss.index_factory(store.dim, name, faiss.METRIC_L2)
        except RuntimeError as error:
            raise UserError(_advice(what, str(error), store.dim)) from None
    lists = lists_of(index)
    nlist = lists.nlist if lists is not None else 0
    if nlist > store.entries:
        raise UserError(
            f"{what}: {nlist} lists for {store.entries} entries; take fewer lists, such as "
            f'"{recommended(store.entries)}"'
        )
    if nlist * FEW_PER_LIST > store.entries:
        say(
            f"{what}: {store.entries / nlist:.0f} entries for each list, where {FEW_PER_LIST} or more are "
            f'good; "{recommended(store.entries)}" has fewer lists'
        )
    _spare(index)
    if not index.is_trained:
        size = min(store.entries, max(TRAINING_KEYS, TRAINING_KEYS_PER_LIST * nlist))
        say(f"{what}: training on {size} of {store.entries} keys")
        chosen = np.random.default_rng(seed).choice(store.entries, size, replace=False)
        keys = prepared_keys(store, np.sort(chosen), similarity)
        with (
            faiss_errors(what, "take an index that learns less, such as IVF with SQfp16, or Flat"),
            _quiet_rotations(index),
        ):
            index.train(keys)
    return index


@contextmanager
def _quiet_rotations(index: Any) -> Iterator[None]:
    """Train OPQ without a warning of a small sample for each of its quantisers, in each round."""
    faiss = load_faiss()
    rotations = [part for part in transforms(index)[0] if isinstance(part, faiss.OPQMatrix)]
    # The rotation knows its quantiser by address alone.
    quantizers = [faiss.ProductQuantizer(part.d_out, part.M, 8) for part in rotations]
    for rotation, quantizer in zip(rotations, quantizers, strict=True):
        quantizer.cp.min_points_per_centroid = 1
        rotation.pq = quantizer
    try:
        yield
    finally:
        for rotation in rotations:
            rotation.pq = None


def _spare(index: Any) -> None:
    """Leave out of training what is not needed, and warnings of small samples."""
    for part in parts(index):
        # Takes seconds for each quantiser, and serves a search that is not made here.
        if hasattr(part, "do_polysemous_training"):
            part.do_polysemous_training = False
        for learning in (part, getattr(part, "pq", None)):
            if hasattr(learning, "cp"):
                learning.cp.min_points_per_centroid = 1


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


def prepared_keys(store: Datastore, entries: np.ndarray, similarity: str) -> np.ndarray:
    """Keys as an index holds them, (m, dim) float32: normalised for cosine similarity."""
    keys = store.gather(entries).astype(np.float32)
    if similarity == "cosine":
        norms = store.norms[entries, None]
        np.divide(keys, norms, out=keys, where=norms > 0)
    return keys


def _load(file: Path) -> Any:
    faiss = load_faiss()
    with faiss_errors(str(file), "remove it, then give the command again"):
        return faiss.read_index(str(file))


def _advice(what: str, error: str, dim: int) -> str:
    """What to do about a string that FAISS makes no index of."""
    if "multiple of the number of subquantizers" in error:
        sizes = [size for size in range(2, dim // 2 + 1) if dim % size == 0]
        return (
            f"{what}: the number after PQ has to divide the width of the vectors; keys are {dim} wide, so "
            f"take one of {', '.join(map(str, sizes))}, or the width that a transform before it gives"
        )
    if re.search(r"could not parse|not recogni[sz]ed|invalid", error):
        return (
            f"{what}: faiss knows no such index; give a string of its index_factory, such as Flat, HNSW32, "
            '"IVF1024,SQfp16" or "IVF1024,PQ48"'
        )
    return f"{what}: {reason_of(RuntimeError(error))}; give another string of FAISS's index_factory"


@contextmanager
def _unfinished(file: Path) -> Iterator[Path]:
    """A temporary name for a file that gets its own when all went well, and is removed otherwise."""
    temporary = file.with_name(f".{file.name}")
    try:
        yield temporary
        temporary.replace(file)
        sync(file.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _indexing(path: Path) -> Iterator[None]:
    """The lock of who builds an index of a store, which the system frees if the process dies."""
    try:
        stream = (path / INDEXING_LOCK).open("w")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}), where its indexes are kept; build the index "
            "as someone who can, or search exactly"
        ) from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{path}: another process is building an index of this datastore; wait until it has finished"
            ) from None
        yield


def _remove_unnamed(path: Path) -> None:
    """Remove the index files that no record names. Under the lock; readers that have one open keep it."""
    named = {record.file for record in list_records(path)}
    for file in path.glob("index-*.faiss"):
        if file.name not in named:
            file.unlink()
