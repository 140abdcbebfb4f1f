"""Writing a datastore: shard by shard into memory-mapped files, resumable, committed in one step.

Everything that is written lies in folders that no manifest names, until `DatastoreWriter.commit`
replaces the manifest. A finished shard holds its own record (`shard.json`), and `building.json`
says which build is under way: from these a build that died is resumed. Several processes can write
the shards of one build: one begins and commits it, the others join.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from knn_ner.datastore.key_transform import KeyTransform
from knn_ner.datastore.locking import (
    JOURNAL_FILE,
    SHARD_PREFIX,
    TRANSFORM_PREFIX,
    journal,
    lock,
    new_name,
    share,
    sweep,
    unfinished_build,
)
from knn_ner.datastore.manifest import (
    KEY_DTYPES,
    SENTENCE_INDEX_FILE,
    SHARD_FILES,
    Manifest,
    ShardRecord,
    TransformRecord,
    checksum,
    committed,
    replace_json,
    sync,
)
from knn_ner.datastore.reader import Datastore
from knn_ner.datastore.shard_writer import ShardWriter
from knn_ner.utils.errors import UserError

RECORD_FILE = "shard.json"

# Seconds until one machine sees what another has written to a network folder, at most.
SEEN_WITHIN = 60.0


def is_built(path: str | Path, fingerprint: str) -> bool:
    """Whether folder `path` holds the finished store of this build, unedited, with all its files."""
    try:
        store = Datastore.open(path)
        return store.fingerprint == fingerprint and not store.manifest.edits
    except UserError:
        return False


class DatastoreWriter:
    """Builds the datastore in folder `path`: a context manager, which holds the folder's lock.

    What the folder holds already stays good, for readers too, until `commit`. A build that died is
    taken up again if all arguments are the same; otherwise what it left is discarded.

    Args:
        path: the folder, made if there is none.
        dim: width of the keys.
        dtype: "float16" or "float32".
        labels: the label list that label ids index.
        provenance: what the keys are made with; anything that JSON can hold.
        fingerprint: names this build: equal only if the same shards would be written.
        shards: number of shards.
        transform: what the keys that are written went through, to be kept with them.
        join: the name of a build that another process has begun, with the same arguments, and which
            it shares: this one writes shards, and leaves all else to the other.

    Attributes:
        build: the name of this build.
        resumed: number of shards that an earlier run of the same build has finished.
        discarded: number of finished shards of another, dead build that were removed.

    Raises UserError if another process is writing to `path`, `path` is not a folder, or it does not
    hold the build to join.
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
        if transform:
            provenance = provenance | {"transform": transform.id}
        # As it will be read back: lists for tuples, strings for numbers as keys.
        self.provenance = json.loads(json.dumps(provenance))
        self.resumed = self.discarded = 0
        if join is None:
            self._lock = lock(self.path)
            self.build, self.resumed, self.discarded = self._take_up()
            return
        self.build = join
        if not _seen(lambda: journal(self.path).get("build") == join):
            raise UserError(
                f"{self.path}: the datastore that another process has begun here is not to be seen; "
                "give a folder that all machines share"
            )
        self._lock = lock(self.path, shared=True)

    def __enter__(self) -> "DatastoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder. What is not committed stays, to be resumed."""
        self._lock.close()

    def share(self) -> None:
        """Let other processes join this build, by its name; each has the folder's lock then, too.

        So no new build can begin while one of them still writes, whatever became of this one.
        """
        share(self._lock, self.path)

    def finished(self, number: int) -> bool:
        """Whether shard `number` was written, by this run or an earlier one of the same build."""
        return self._record(number) is not None

    @contextmanager
    def shard(self, number: int, entries: int) -> Iterator[ShardWriter]:
        """Write shard `number` of `entries` entries from nothing; its context finishes it."""
        if not 0 <= number < self.shards or entries < 1:
            raise ValueError(f"shard {number} of {self.shards} with {entries} entries")
        folder = self._folder(number)
        with ShardWriter(folder, entries, self.dim, self.dtype, self.labels) as shard:
            yield shard
        replace_json(folder / RECORD_FILE, asdict(shard.record))

    def commit(
        self, action: str = "build", next_sentence: int = 0, *, wait: bool = False
    ) -> Manifest:
        """Make the shards, in the order of their numbers, the content of the store.

        What it held before is removed; readers that have it open keep it.

        Args:
            action: what the history calls it.
            next_sentence: the id of the next new sentence, if not the one after the highest.
            wait: whether other processes, which have finished, wrote shards: these may be seen late.

        Raises ValueError if a shard is missing.
        """
        for number in range(self.shards):
            if not self.finished(number) and not (wait and _seen(partial(self.finished, number))):
                raise ValueError(f"shard {number} of {self.shards} is not finished")
        records = [self._record(number) for number in range(self.shards)]
        manifest = Manifest(
            dim=self.dim,
            dtype=self.dtype,
            labels=self.labels,
            provenance=self.provenance,
            fingerprint=self.fingerprint,
            shards=records,
            next_sentence=max([next_sentence, *map(self._next_sentence, records)]),
            history=committed(
                [],
                action,
                sum(record.sentences for record in records),
                sum(record.entries for record in records),
            ),
            transform=self._write_transform(),
        )
        manifest.write(self.path)
        (self.path / JOURNAL_FILE).unlink(missing_ok=True)
        sweep(self.path, self.build)
        return manifest

    def _write_transform(self) -> TransformRecord | None:
        if self.transform is None:
            return None
        file = self.path / f"{TRANSFORM_PREFIX}{self.build}.npz"
        file.write_bytes(self.transform.to_bytes())
        sync(file)
        return TransformRecord(file.name, file.stat().st_size, checksum(file))

    def _take_up(self) -> tuple[str, int, int]:
        """Resume the build that the journal names, or begin one: (name, resumed, discarded)."""
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
            sweep(self.path, self.build)
            return self.build, sum(map(self.finished, range(self.shards))), 0
        build = new_name()
        discarded = sweep(self.path, build)
        replace_json(self.path / JOURNAL_FILE, {"build": build, "settings": settings})
        return build, 0, discarded

    def _folder(self, number: int) -> Path:
        return self.path / f"{SHARD_PREFIX}{number:05d}-{self.build}"

    def _record(self, number: int) -> ShardRecord | None:
        folder = self._folder(number)
        try:
            record = ShardRecord(**json.loads((folder / RECORD_FILE).read_text(encoding="utf-8")))
            whole = all(
                (folder / name).stat().st_size == record.files[name]["bytes"]
                for name in SHARD_FILES
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return record if whole else None

    def _next_sentence(self, record: ShardRecord) -> int:
        index = np.load(self.path / record.folder / SENTENCE_INDEX_FILE)
        return int(index[:, 0].max(initial=-1)) + 1


def _seen(there: Callable[[], bool]) -> bool:
    """Whether what another process has written is there; on another machine that may take a while."""
    deadline = time.monotonic() + SEEN_WITHIN
    while not there():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
