"""An index of a datastore in memory, apart from the search that uses it."""

import logging
import threading
from dataclasses import dataclass, field
from typing import Any

import torch

from knn_ner.datastore.reader import Datastore
from knn_ner.search.faiss_library import (
    faiss_errors,
    keeps_whole_values,
    load_faiss,
    to_gpu,
    transforms,
)
from knn_ner.search.index_records import (
    IndexRecord,
    build_command,
    list_records,
    read_record,
    stands_for,
)
from knn_ner.utils.errors import UserError

logger = logging.getLogger(__name__)


class StaleIndexError(UserError):
    """An index that was made of other entries than the store has."""


@dataclass
class LoadedIndex:
    """An index in memory (on the CPU: mapped from its file), apart from the store it is used with.

    transforms: what queries go through first. index: what lies under it. whole: whether it stores all values,
    with at least 16 bits. everything: whether it compares a query with every key, as it is.
    largest_k: what it can find, on a GPU. kept: what has to live as long.
    """

    record: IndexRecord
    transforms: list[Any]
    index: Any
    whole: bool
    everything: bool
    largest_k: int | None = None
    kept: list[Any] = field(default_factory=list)
    # Its settings are set for each search.
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def read(
        cls, store: Datastore, name: str, similarity: str, device: torch.device
    ) -> "LoadedIndex":
        """Read the index of that name of a store.

        Raises `UserError` if there is none or it cannot be read, `StaleIndexError` if it is of other entries.
        """
        while True:
            record = find(store, name, similarity)
            try:
                return cls._of(store, record, device)
            except UserError:
                # Another process may have replaced it in between, and removed its file.
                if read_record(store.path, name, similarity) == record:
                    raise

    @classmethod
    def _of(cls, store: Datastore, record: IndexRecord, device: torch.device) -> "LoadedIndex":
        faiss = load_faiss()
        file = store.path / record.file
        again = f"run {build_command(store.path, record.index, record.similarity)}"
        if not file.is_file() or file.stat().st_size != record.bytes:
            raise UserError(
                f"{file}: gone, or not {record.bytes} bytes long as it was built; {again}"
            )
        on_gpu = device.type == "cuda" and hasattr(faiss, "StandardGpuResources")
        with faiss_errors(str(file), again):
            whole = faiss.read_index(str(file), 0 if on_gpu else faiss.IO_FLAG_MMAP_IFC)
        chain, index = transforms(whole)
        loaded = cls(
            record,
            chain,
            index,
            whole=keeps_whole_values(whole),
            everything=not chain and type(index) in (faiss.IndexFlatL2, faiss.IndexFlat),
            kept=[whole],
        )
        if device.type == "cuda":
            loaded._move(device, on_gpu)
        return loaded

    def _move(self, device: torch.device, can: bool) -> None:
        """Copy the index to the GPU, or say why it stays."""
        reason = "this faiss has no GPU support: requirements-gpu.txt has one that does"
        if can:
            try:
                self.index, self.largest_k, resources = to_gpu(self.index, device)
                self.kept.append(resources)
                # Vectors are float16 there: what it finds is no proof any more.
                self.everything = False
                return
            except RuntimeError:
                reason = "faiss has none of its kind for GPUs"
        logger.info(f'index "{self.record.index}" is searched on the CPU ({reason})')


def find(store: Datastore, name: str, similarity: str) -> IndexRecord:
    """What is known of an index of a store.

    Raises `UserError` if there is none of that name, `StaleIndexError` if it is of other entries.
    """
    record = read_record(store.path, name, similarity)
    command = build_command(store.path, name, similarity)
    if record is None:
        there = [f'"{r.index}"' for r in list_records(store.path) if r.similarity == similarity]
        raise UserError(
            f'{store.path}: no index "{name}" for {similarity} similarity, '
            f"{'only ' + ', '.join(there) if there else 'and no other'}; build it with {command}"
        )
    if not stands_for(record, store):
        raise StaleIndexError(
            f'{store.path}: index "{name}" was built of other entries than the datastore has now; run '
            f"{command}, or search without --index"
        )
    return record
