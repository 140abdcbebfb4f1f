"""The FAISS indexes in a datastore's folder: their records, whether they fit the store, and reading them.

`index-SIMILARITY-NAME.json` describes an index and names its file. The manifest does not name it. It is replaced in
one step; index files never change.
"""

import hashlib
import json
import logging
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from knn_ner.datastore.manifest import SENTENCE_INDEX_FILE, ShardRecord
from knn_ner.datastore.reader import Datastore
from knn_ner.search.faiss_library import faiss_errors, load_faiss, stores_whole_values, transforms
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_json

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

PREFIX = "index-"
VERSION = 1

# Largest number of bytes of keys that a reader compares by content: more than merging small shards rewrites, and few
# enough to take no noticeable time. After a compaction, `build_index` compares all keys once.
COMPARED_BYTES = 64 << 20
# A copy of an index on a GPU finds no more neighbours, unless FAISS was built with cuVS.
MAX_GPU_K = 2048


class StaleIndexError(UserError):
    """An index that was built of other entries than the store has."""


@dataclass(frozen=True)
class IndexedShard:
    """The entries of one shard when an index was built.

    Attributes:
        name: identifies the keys of its entries, by the checksums of the files that determine them.
        entries: their number.
        keys: SHA-256 of the keys themselves.
    """

    name: str
    entries: int
    keys: str


@dataclass(frozen=True)
class IndexRecord:
    """The description of an index of a store's first `entries` entries.

    Attributes:
        index: the string of FAISS's index_factory.
        trained_on: number of entries that the store had when the index was trained. Entries added since were only
            appended to its lists.
        content_id: the content of the store.
        file: the index file in the store's folder.
        bytes: the size of that file.
        faiss: the version of FAISS that wrote it.
    """

    index: str
    similarity: str
    dim: int
    entries: int
    trained_on: int
    shards: list[IndexedShard]
    content_id: str
    file: str
    bytes: int
    seed: int
    seconds: float
    faiss: str
    time: str

    @property
    def stem(self) -> str:
        return stem(self.index, self.similarity)

    def write(self, path: Path) -> None:
        """Make this the index of its name in the store in folder `path`, in one step."""
        write_json(path / f"{self.stem}.json", {"version": VERSION} | asdict(self), fsync=True)


def stem(index: str, similarity: str) -> str:
    """The start of the names of an index's files."""
    return f"{PREFIX}{similarity}-{quote(index, safe=',')}"


def build_command(path: Path, index: str, similarity: str) -> str:
    """The command that builds an index, or brings it up to date."""
    further = "" if similarity == "cosine" else f" --similarity {similarity}"
    return f'`python -m knn_ner.build_index --datastore_path {path} --index "{index}"{further}`'


def read_record(path: Path, index: str, similarity: str) -> IndexRecord | None:
    """The record of an index of the store in folder `path`; None if there is no such index.

    Raises:
        UserError: for a file that `IndexRecord.write` did not write.
    """
    return _read(path / f"{stem(index, similarity)}.json")


def list_records(path: Path) -> list[IndexRecord]:
    """The records of all indexes of the store in folder `path`, by name.

    Raises:
        UserError: as `read_record`.
    """
    found = [_read(file) for file in sorted(path.glob(f"{PREFIX}*.json"))]
    return [record for record in found if record is not None]


def fitting_record(store: Datastore, index: str, similarity: str) -> IndexRecord:
    """The record of an index that fits the store.

    Raises:
        UserError: if there is no index of that name.
        StaleIndexError: if it was built of other entries.
    """
    record = read_record(store.path, index, similarity)
    command = build_command(store.path, index, similarity)
    if record is None:
        others = [f'"{r.index}"' for r in list_records(store.path) if r.similarity == similarity]
        raise UserError(
            f'{store.path}: no index "{index}" for {similarity} similarity, '
            f"{'only ' + ', '.join(others) if others else 'and no other'}; build it with {command}"
        )
    if not fits(record, store):
        raise StaleIndexError(
            f'{store.path}: index "{index}" was built of other entries than the datastore has now; run '
            f"{command}, or search without --index"
        )
    return record


def shards_of(store: Datastore) -> list[IndexedShard]:
    """The shards of a new index of the whole store; reads all keys."""
    shards = []
    for number, record in enumerate(store.manifest.shards):
        entries, _ = store.of_shard(number)
        digest = _digest(store, int(entries.start), int(entries.stop))
        shards.append(IndexedShard(_name(record), record.live_entries, digest))
    return shards


def fits(record: IndexRecord, store: Datastore, most: float = COMPARED_BYTES) -> bool:
    """Whether the store's first entries are still those that the index was built of.

    This holds as long as sentences are only added. Shards with unchanged files need not be read. Where others took
    their place, the keys are compared.

    Args:
        record: the record of the index.
        store: the datastore.
        most: largest number of bytes of keys to read; if more are needed, the answer is no.
    """
    if record.content_id == store.content_id:
        return True
    if record.dim != store.dim or record.entries > store.entries:
        return False
    start = 0
    rest = list(record.shards)
    for now in store.manifest.shards:
        if not rest or _name(now) != rest[0].name:
            break
        start += rest.pop(0).entries
    if (record.entries - start) * store.dim * store.dtype.itemsize > most:
        return False
    for shard in rest:
        if _digest(store, start, start + shard.entries) != shard.keys:
            return False
        start += shard.entries
    return True


@dataclass
class LoadedIndex:
    """An index in memory, independent of the store (on a CPU: mapped from its file).

    Attributes:
        record: its record.
        transforms: the transforms that are applied to queries first.
        index: the index under them.
        whole: whether it stores all values, in at least 16 bits.
        flat: whether it compares a query with every unchanged key.
        largest_k: the most neighbours that it finds on a GPU; None for any number.
        kept: objects that must live as long as the index.
        lock: held during a search, whose settings are settings of the index.
    """

    record: IndexRecord
    transforms: list[Any]
    index: Any
    whole: bool
    flat: bool
    largest_k: int | None = None
    kept: list[Any] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def read(
        cls, store: Datastore, name: str, similarity: str, device: "torch.device"
    ) -> "LoadedIndex":
        """Read the index of that name of a store.

        Raises:
            UserError: as `fitting_record`, and if the index cannot be read.
        """
        while True:
            record = fitting_record(store, name, similarity)
            try:
                return cls._read(store, record, device)
            except UserError:
                # Another process may have replaced the index in between, and removed its file.
                if read_record(store.path, name, similarity) == record:
                    raise

    @classmethod
    def _read(cls, store: Datastore, record: IndexRecord, device: "torch.device") -> "LoadedIndex":
        faiss = load_faiss()
        file = store.path / record.file
        advice = f"run {build_command(store.path, record.index, record.similarity)}"
        if not file.is_file() or file.stat().st_size != record.bytes:
            raise UserError(
                f"{file}: gone, or not {record.bytes} bytes long as it was built; {advice}"
            )
        gpu_support = hasattr(faiss, "StandardGpuResources")
        mapped = 0 if device.type == "cuda" and gpu_support else faiss.IO_FLAG_MMAP_IFC
        with faiss_errors(str(file), advice):
            outer = faiss.read_index(str(file), mapped)
        chain, index = transforms(outer)
        flat = not chain and type(index) in (faiss.IndexFlatL2, faiss.IndexFlat)
        loaded = cls(record, chain, index, stores_whole_values(outer), flat, kept=[outer])
        if device.type == "cuda":
            reason = "this faiss has no GPU support: requirements-gpu.txt has one that does"
            if gpu_support:
                reason = loaded._copy_to_gpu(device)
            if reason:
                logger.info(f'index "{record.index}" is searched on the CPU ({reason})')
        return loaded

    def _copy_to_gpu(self, device: "torch.device") -> str:
        """Copy the index to a GPU, with vectors in float16. Returns why this is impossible, or an empty string."""
        faiss = load_faiss()
        resources = faiss.StandardGpuResources()
        options = faiss.GpuClonerOptions()
        options.useFloat16 = True
        number = device.index or 0
        try:
            self.index = faiss.index_cpu_to_gpu(resources, number, self.index, options)
        except RuntimeError:
            return "faiss has none of its kind for GPUs"
        self.largest_k = None if getattr(options, "use_cuvs", False) else MAX_GPU_K
        self.kept.append(resources)
        # float16 changes the keys.
        self.flat = False
        return ""


def _name(record: ShardRecord) -> str:
    # The checksums of keys; with those of the other files, they determine which entries are missing.
    names = ("keys.npy", "sentence_ids.npy", SENTENCE_INDEX_FILE)
    keys, *ids = [str(record.files[name]["sha256"]) for name in names]
    if record.removed is None:
        return keys
    return hashlib.sha256("".join([keys, *ids, record.removed.sha256]).encode()).hexdigest()


def _digest(store: Datastore, start: int, stop: int, size: int = 8192) -> str:
    digest = hashlib.sha256()
    for first in range(start, stop, size):
        digest.update(np.ascontiguousarray(store.rows(first, min(first + size, stop))).data)
    return digest.hexdigest()


def _read(file: Path) -> IndexRecord | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("version") != VERSION:
            raise ValueError("of another version")
        shards = [IndexedShard(**shard) for shard in content["shards"]]
        return IndexRecord(**content | {"shards": shards})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file}: not as knn_ner.build_index writes it ({error}); remove it, then build the index again"
        ) from None
