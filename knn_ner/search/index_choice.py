"""Which index to search a datastore by: exact, one by name, or one that is picked."""

import logging
from contextlib import AbstractContextManager, nullcontext

import torch

from knn_ner.datastore.reader import Datastore
from knn_ner.parallel.process_group import ProcessGroup
from knn_ner.search.distributed import DistributedSearch
from knn_ner.search.exact import ExactSearch
from knn_ner.search.faiss_index import LoadedIndex, StaleIndexError, find
from knn_ner.search.faiss_search import FaissSearch
from knn_ner.search.faiss_training import recommended
from knn_ner.search.index_records import build_command, list_records, stands_for
from knn_ner.search.searcher import Searcher
from knn_ner.settings import EXACT, IndexSettings
from knn_ner.utils.errors import UserError

logger = logging.getLogger(__name__)

AUTO = "auto"

# Entries up to which exact search is as fast as any, on a CPU and on a GPU.
SMALL = 1 << 15
SMALL_ON_GPU = 1 << 20
# Stored entries for each neighbour, below which an index gains next to nothing: it visits many, and re-scores.
PER_NEIGHBOUR = 64
# Entries that an index lacks, as a share of those it has, from which on it is worth being extended.
WORTH_EXTENDING = 0.1


def open_searcher(
    store: Datastore,
    similarity: str = "cosine",
    device: str | torch.device = "cpu",
    *,
    index: str = EXACT,
    nprobe: int | None = None,
    ef_search: int | None = None,
    k: int | None = None,
) -> Searcher:
    """The index of a store that a user asks for.

    Args:
        index: "exact", "auto" (picked from size, k and device, which is said), or the index_factory string
            of one that was built.
        nprobe, ef_search: as for `FaissSearch`.
        k: the neighbours that will be wanted, if known; -1 for all.

    Raises `UserError` for an index that is not there, is of other entries than the store, or does not
    have a setting that is given.
    """
    device = torch.device(device)
    name = pick(store, similarity, device, k) if index == AUTO else index
    if name == EXACT:
        # With `auto` they are for whatever may be picked.
        for flag, value in (("--nprobe", nprobe), ("--ef_search", ef_search)):
            if value is not None and index != AUTO:
                raise UserError(
                    f"{flag} {value}: exact search has no such setting; leave it out, or name an index "
                    "with --index"
                )
        return ExactSearch(store, similarity, device)
    searcher = FaissSearch.open(store, name, similarity, device, nprobe=nprobe, ef_search=ef_search)
    tell_what_is_added(searcher)
    return searcher


def searcher_for(
    store: Datastore, search: IndexSettings, device: torch.device, k: int | None
) -> Searcher:
    """`open_searcher` with what the search settings say; `k` and errors as there."""
    return open_searcher(
        store,
        search.similarity,
        device,
        index=search.index,
        nprobe=search.nprobe,
        ef_search=search.ef_search,
        k=k,
    )


def shared_searcher(
    store: Datastore, search: IndexSettings, device: torch.device, k: int, group: ProcessGroup
) -> AbstractContextManager[Searcher]:
    """Search that the processes of a group share; for one process, as the settings say.

    Args:
        store: the datastore, the same in all processes.
        search: similarity and index.
        device: where queries are searched.
        k: the neighbours that will be wanted; -1 for all.
        group: the processes.

    Raises:
        UserError: for an index, which several processes cannot share.
    """
    if group.size == 1:
        return nullcontext(searcher_for(store, search, device, k))
    if search.index != EXACT:
        raise UserError(
            f"--index {search.index}: {group.size} processes search exactly; leave it out, or use one "
            "process"
        )
    return DistributedSearch(store, search.similarity, device, group)


def name_of(searcher: Searcher) -> str:
    """What `--index` calls it."""
    return searcher.loaded.record.index if isinstance(searcher, FaissSearch) else EXACT


def reopen(before: Searcher, store: Datastore) -> Searcher:
    """The same search over a store that was changed since, without reading an index again.

    An index that is of other entries by now is given up for exact search, which is said.
    """
    if not isinstance(before, FaissSearch):
        return ExactSearch(store, before.similarity, before.device)
    loaded = before.loaded
    name = loaded.record.index
    try:
        if find(store, name, before.similarity).file != loaded.record.file:
            loaded = LoadedIndex.read(store, name, before.similarity, before.device)
    except StaleIndexError:
        logger.info(
            f'{store.path}: index "{name}" is of other entries by now, so search is exact; bring it up to '
            f"date with {build_command(store.path, name, before.similarity)}"
        )
        return ExactSearch(store, before.similarity, before.device)
    return FaissSearch(
        store,
        before.similarity,
        before.device,
        loaded=loaded,
        nprobe=before.nprobe,
        ef_search=before.ef_search,
    )


def tell_what_is_added(searcher: FaissSearch) -> None:
    """Say so when a good part of the store is not in the index."""
    added = searcher.store.entries - searcher.indexed
    if added > WORTH_EXTENDING * searcher.indexed:
        record = searcher.loaded.record
        command = build_command(searcher.store.path, record.index, record.similarity)
        logger.info(
            f'{searcher.store.path}: {added} entries were added since index "{record.index}" was built, and '
            f"are searched exactly; {command} takes them in"
        )


def pick(store: Datastore, similarity: str, device: torch.device, k: int | None) -> str:
    """What `auto` stands for: "exact", or an index that is there. Says what, and why."""
    name, reason = _picked(store, similarity, device, k)
    logger.info(f"--index auto: {name} ({reason})")
    return name


def _picked(
    store: Datastore, similarity: str, device: torch.device, k: int | None
) -> tuple[str, str]:
    entries = store.entries
    if k == -1:
        return EXACT, "every stored token votes"
    small = SMALL if device.type == "cpu" else SMALL_ON_GPU
    if entries <= small:
        return (
            EXACT,
            f"{entries} entries, which up to {small} are searched as fast without an index",
        )
    if k is not None and entries < PER_NEIGHBOUR * k:
        return EXACT, f"{k} neighbours of {entries} entries, for which an index saves nothing"
    fitting = recommended(entries)
    # Exactly that one first, then what was built last.
    records = [r for r in list_records(store.path) if r.similarity == similarity]
    records.sort(key=lambda record: (record.index == fitting, record.time), reverse=True)
    for record in records:
        if stands_for(record, store):
            return record.index, f"{entries} entries, {record.entries} of them in this index"
    why = "no index is up to date" if records else "no index was built"
    command = build_command(store.path, AUTO, similarity)
    return EXACT, f"{entries} entries, but {why}: {command} makes search faster"
