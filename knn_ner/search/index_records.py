"""The index files of a datastore: what each was made of, and whether it still stands for the store.

Beside the manifest, and no part of it: `index-SIMILARITY-NAME.json` describes an index and names its
file, which only it makes part of the store. It is replaced in one step; files are never changed.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from knn_ner.datastore.manifest import SENTENCE_INDEX_FILE, ShardRecord
from knn_ner.datastore.reader import Datastore
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_json

PREFIX = "index-"
VERSION = 1

# Keys that a reader compares by their content, at most: more than what folding small shards rewrites,
# and not so much that it would be noticed. After a compaction `build_index` compares all of them, once.
COMPARED_BYTES = 64 << 20


@dataclass(frozen=True)
class IndexedShard:
    """Entries that were a shard when an index was made.

    name: names its entries' keys by the checksums of the files that they follow from.
    entries: their number. keys: SHA-256 of the keys themselves.
    """

    name: str
    entries: int
    keys: str


@dataclass(frozen=True)
class IndexRecord:
    """What is known of an index of a store's first `entries` entries.

    index: the string of FAISS's index_factory. trained_on: the entries that the store had when the index was
        trained; what was added since only joined its lists.
    content_id: of the store. file, bytes: its file in the store's folder. faiss: the version that wrote it.
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
    """What the names of an index's files begin with."""
    return f"{PREFIX}{similarity}-{quote(index, safe=',')}"


def build_command(path: Path, index: str, similarity: str) -> str:
    """The command that builds an index, or brings it up to date."""
    further = "" if similarity == "cosine" else f" --similarity {similarity}"
    return f'`python -m knn_ner.build_index --datastore_path {path} --index "{index}"{further}`'


def read_record(path: Path, index: str, similarity: str) -> IndexRecord | None:
    """The index of that name in the store in folder `path`; None if there is none.

    Raises `UserError` for a file that is not as `IndexRecord.write` writes it.
    """
    return _read(path / f"{stem(index, similarity)}.json")


def list_records(path: Path) -> list[IndexRecord]:
    """All indexes of the store in folder `path`, by name. Raises `UserError` as `read_record`."""
    found = [_read(file) for file in sorted(path.glob(f"{PREFIX}*.json"))]
    return [record for record in found if record is not None]


def shards_of(store: Datastore) -> list[IndexedShard]:
    """What a new index of the whole store is made of; reads all keys."""
    shards = []
    for number, record in enumerate(store.manifest.shards):
        entries, _ = store.of_shard(number)
        digest = _digest(store, int(entries.start), int(entries.stop))
        shards.append(IndexedShard(_name(record), record.live_entries, digest))
    return shards


def stands_for(record: IndexRecord, store: Datastore, most: float = COMPARED_BYTES) -> bool:
    """Whether the store's first entries are still those that the index was made of.

    So it is while sentences are only added: then the index is good for what it covers. Shards that are the
    same files need not be read; where others came in their place, the keys are compared.

    most: bytes of keys to read for that; when it takes more, the answer is no.
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


def _name(record: ShardRecord) -> str:
    keys = record.files["keys.npy"]["sha256"]
    if record.removed is None:
        return str(keys)
    # Which entries are missing follows from these.
    ids = [record.files[name]["sha256"] for name in ("sentence_ids.npy", SENTENCE_INDEX_FILE)]
    return hashlib.sha256("".join([keys, *ids, record.removed.sha256]).encode()).hexdigest()


def _digest(store: Datastore, start: int, stop: int, size: int = 8192) -> str:
    digest = hashlib.sha256()
    for first in range(start, stop, size):
        digest.update(np.ascontiguousarray(store.rows(first, min(first + size, stop))))
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
