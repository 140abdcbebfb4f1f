"""The choice of how to search a datastore: exactly, by a named index, or by one chosen from size, k and device."""

import logging
from contextlib import AbstractContextManager, nullcontext

import torch

from knn_ner.datastore.reader import Datastore
from knn_ner.parallel.process_group import ProcessGroup
from knn_ner.search.distributed import DistributedSearch
from knn_ner.search.exact import ExactSearch
from knn_ner.search.faiss_build import recommended
from knn_ner.search.faiss_index import build_command, fits, list_records
from knn_ner.search.faiss_search import FaissSearch
from knn_ner.search.searcher import Searcher
from knn_ner.settings import EXACT, IndexSettings
from knn_ner.utils.errors import UserError

logger = logging.getLogger(__name__)

AUTO = "auto"

# Entries up to which exact search is as fast as an index.
MAX_EXACT_ENTRIES = {"cpu": 1 << 15, "cuda": 1 << 20}
# With fewer entries for each neighbour, an index gains almost nothing: it visits and rescores many of them.
MIN_ENTRIES_PER_NEIGHBOUR = 64


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
    """Open the search that a user asks for.

    Args:
        store: the datastore.
        similarity: "cosine" or "l2".
        device: the device that searches.
        index: "exact", "auto" (chosen from size, k and device, and logged), or the index_factory string of an index
            that was built.
        nprobe, ef_search: as for `FaissSearch`.
        k: number of neighbours, if known; -1 for all.

    Raises:
        UserError: for an index that does not exist or was built of other entries, and for a setting that it does not
            have.
    """
    device = torch.device(device)
    name = _automatic_index(store, similarity, device, k) if index == AUTO else index
    if name == EXACT:
        # With `auto`, the settings are for any index that may be chosen.
        for flag, value in (("--nprobe", nprobe), ("--ef_search", ef_search)):
            if value is not None and index != AUTO:
                raise UserError(
                    f"{flag} {value}: exact search has no such setting; leave it out, or name an index "
                    "with --index"
                )
        return ExactSearch(store, similarity, device)
    searcher = FaissSearch.open(store, name, similarity, device, nprobe=nprobe, ef_search=ef_search)
    searcher.log_unindexed()
    return searcher


def searcher_for(
    store: Datastore, search: IndexSettings, device: torch.device, k: int | None
) -> Searcher:
    """`open_searcher` with search settings; `k` and errors as there."""
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
    """Open a search that the processes of a group share; for one process, `searcher_for`.

    Args:
        store: the datastore, the same in all processes.
        search: similarity and index.
        device: the device that searches.
        k: number of neighbours; -1 for all.
        group: the processes.

    Raises:
        UserError: as `open_searcher`, and for an index, which several processes cannot share.
    """
    if group.size == 1:
        return nullcontext(searcher_for(store, search, device, k))
    if search.index != EXACT:
        raise UserError(
            f"--index {search.index}: {group.size} processes search exactly; leave it out, or use one "
            "process"
        )
    return DistributedSearch(store, search.similarity, device, group)


def _automatic_index(store: Datastore, similarity: str, device: torch.device, k: int | None) -> str:
    """The index that `auto` stands for: "exact", or one that was built. Logs the choice and its reason."""
    entries, small = store.entries, MAX_EXACT_ENTRIES[device.type]
    name = EXACT
    if k == -1:
        reason = "every stored token votes"
    elif entries <= small:
        reason = f"{entries} entries, which up to {small} are searched as fast without an index"
    elif k is not None and entries < MIN_ENTRIES_PER_NEIGHBOUR * k:
        reason = f"{k} neighbours of {entries} entries, for which an index saves nothing"
    else:
        # The recommended index first, then the latest.
        fitting = recommended(entries)
        records = [record for record in list_records(store.path) if record.similarity == similarity]
        records.sort(key=lambda record: (record.index == fitting, record.time), reverse=True)
        usable = next((record for record in records if fits(record, store)), None)
        if usable:
            name = usable.index
            reason = f"{entries} entries, {usable.entries} of them in this index"
        else:
            why = "no index is up to date" if records else "no index was built"
            command = build_command(store.path, AUTO, similarity)
            reason = f"{entries} entries, but {why}: {command} makes search faster"
    logger.info(f"--index auto: {name} ({reason})")
    return name
