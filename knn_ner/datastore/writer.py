"""Building a datastore shard by shard; an interrupted build can be resumed, and one step commits it.

No manifest names the new shards until `DatastoreWriter.commit` replaces the manifest. A finished shard contains its own
record (`shard.json`), and `building.json` names the build in progress: a build that died is resumed from these
files. Several processes can write the shards of one build: the first begins and commits it, the others join it.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from knn_ner.datastore.folder import (
    JOURNAL_FILE,
    SHARD_PREFIX,
    TRANSFORM_PREFIX,
    read_journal,
    remove_unnamed,
    unfinished_build,
    unique_id,
)
from knn_ner.datastore.key_transform import KeyTransform
from knn_ner.datastore.locking import FolderLock
from knn_ner.datastore.manifest import (
    KEY_DTYPES,
    SENTENCE_INDEX_FILE,
    SHARD_FILES,
    FileRecord,
    Manifest,
    ShardRecord,
    append_commit,
    as_json,
)
from knn_ner.datastore.reader import Datastore
from knn_ner.datastore.shard_writer import ShardWriter
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_json

RECORD_FILE = "shard.json"

# Longest time until a machine sees the files that another machine has written to a network folder.
VISIBLE_WITHIN_SECONDS = 60.0


def is_built(path: str | Path, fingerprint: str) -> bool:
    """Return whether folder `path` holds the finished datastore of a build, with all files and without edits."""
    try:
        store = Datastore.open(path)
        return store.fingerprint == fingerprint and not store.manifest.edits
    except UserError:
        return False


class DatastoreWriter:
    """A build of a datastore: a context manager that holds the lock of the folder.

    The datastore that the folder holds stays readable until `commit`. A build that died is resumed if all arguments
    are equal; otherwise its shards are removed.

    Args:
        path: the folder, which is made if it is missing.
        dim: dimensions of a key.
        dtype: type of the keys, `float16` or `float32`.
        labels: the label list.
        provenance: origin of the keys; has to be valid JSON.
        fingerprint: equal only for builds that write the same shards.
        shards: number of shards.
        transform: the transform that the keys went through, to be stored with them.
        join: id of a build of another process with the same arguments; this process only writes shards of it.

    Attributes:
        build: id of this build.
        resumed: number of shards that an earlier run of this build has finished.
        discarded: number of finished shards of another, dead build that were removed.

    Raises:
        UserError: if `path` is not a folder, another process is writing to it, or the build to join is not there.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        dim: int,
        dtype: str,
        labels: Sequence[str],
        provenance: dict,
        fingerprint: str,
        shards: int,
        transform: KeyTransform | None = None,
        join: str | None = None,
    ):
        if dtype not in KEY_DTYPES:
            raise UserError(f"keys of type {dtype!r}: expected one of {', '.join(KEY_DTYPES)}")
        self.path = Path(path)
        self.dim, self.dtype, self.labels = dim, dtype, list(labels)
        self.fingerprint, self.shards, self.transform = fingerprint, shards, transform
        self.provenance = as_json(provenance | ({"transform": transform.id} if transform else {}))
        self.resumed = self.discarded = 0
        if join is None:
            self._lock = FolderLock(self.path)
            self._begin_or_resume()
            return
        self.build = join
        if not _becomes_true(lambda: read_journal(self.path).get("build") == join):
            raise UserError(
                f"{self.path}: building.json of the build that process 0 has begun is not found here; "
                "give a folder that all machines share"
            )
        self._lock = FolderLock(self.path, shared=True)

    def __enter__(self) -> "DatastoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the lock; shards that are not committed stay, so the build can be resumed."""
        self._lock.close()

    def share(self) -> None:
        """Convert the lock to a shared one, so that other processes can join this build.

        Every joined process holds the lock. No other build can begin while one of them is alive.
        """
        self._lock.share()

    def finished(self, number: int) -> bool:
        """Return whether this run or an earlier run of the build has written a shard."""
        return self._record(number) is not None

    @contextmanager
    def shard(self, number: int, entries: int) -> Iterator[ShardWriter]:
        """Write shard `number` with `entries` entries; the end of the context finishes it."""
        if not 0 <= number < self.shards or entries < 1:
            raise ValueError(f"shard {number} of {self.shards} with {entries} entries")
        folder = self._folder(number)
        with ShardWriter(folder, entries, self.dim, self.dtype, self.labels) as shard:
            yield shard
        write_json(folder / RECORD_FILE, vars(shard.record), fsync=True)

    def commit(
        self, action: str = "build", next_sentence: int = 0, *, wait: bool = False
    ) -> Manifest:
        """Make the shards the content of the datastore; readers that have the old one open keep it.

        Args:
            action: the action in the history.
            next_sentence: lowest id of the next new sentence; the default is one more than the highest id.
            wait: whether to wait until shards of other processes, which have finished, can be seen here.
        """
        records = []
        for number in range(self.shards):
            if wait:
                _becomes_true(partial(self.finished, number))
            record = self._record(number)
            if record is None:
                raise ValueError(f"shard {number} of {self.shards} is not finished")
            index = np.load(self.path / record.folder / SENTENCE_INDEX_FILE)
            next_sentence = max(next_sentence, int(index[:, 0].max(initial=-1)) + 1)
            records.append(record)
        transform = None
        if self.transform:
            file = self.path / f"{TRANSFORM_PREFIX}{self.build}.npz"
            self.transform.write(file)
            transform = FileRecord.of(file)
        sentences = sum(record.sentences for record in records)
        entries = sum(record.entries for record in records)
        manifest = Manifest(
            dim=self.dim,
            dtype=self.dtype,
            labels=self.labels,
            provenance=self.provenance,
            fingerprint=self.fingerprint,
            shards=records,
            next_sentence=next_sentence,
            history=append_commit([], action, sentences, entries),
            transform=transform,
        )
        manifest.write(self.path)
        (self.path / JOURNAL_FILE).unlink(missing_ok=True)
        remove_unnamed(self.path, self.build)
        return manifest

    def _begin_or_resume(self) -> None:
        settings = {
            "fingerprint": self.fingerprint,
            "dim": self.dim,
            "dtype": self.dtype,
            "labels": self.labels,
            "made_with": self.provenance,
            "shards": self.shards,
        }
        unfinished = unfinished_build(self.path)
        if unfinished.get("settings") == settings:
            self.build = unfinished["build"]
            remove_unnamed(self.path, self.build)
            self.resumed = sum(map(self.finished, range(self.shards)))
        else:
            self.build = unique_id()
            self.discarded = remove_unnamed(self.path, self.build)
            journal = {"build": self.build, "settings": settings}
            write_json(self.path / JOURNAL_FILE, journal, fsync=True)

    def _folder(self, number: int) -> Path:
        return self.path / f"{SHARD_PREFIX}{number:05d}-{self.build}"

    def _record(self, number: int) -> ShardRecord | None:
        folder = self._folder(number)
        try:
            content = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
            record = ShardRecord.from_json(content)
            sizes = {name: (folder / name).stat().st_size for name in SHARD_FILES}
        except (OSError, ValueError, TypeError, KeyError):
            return None
        whole = all(size == record.files[name]["bytes"] for name, size in sizes.items())
        return record if whole else None


def _becomes_true(condition: Callable[[], bool]) -> bool:
    """Wait up to `VISIBLE_WITHIN_SECONDS` until a condition is true; return whether it is."""
    deadline = time.monotonic() + VISIBLE_WITHIN_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
