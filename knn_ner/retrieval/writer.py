"""Writing a datastore: shard by shard into memory-mapped files, resumable, committed in one step.

Everything that is written lies in folders that no manifest names, until `DatastoreWriter.commit`
replaces the manifest. A finished shard holds its own record (`shard.json`), and `building.json`
says which build is under way: from these a build that died is resumed.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from knn_ner.errors import UserError
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.folder import (
    JOURNAL_FILE,
    SHARD_PREFIX,
    TRANSFORM_PREFIX,
    lock,
    new_name,
    sweep,
    unfinished_build,
)
from knn_ner.retrieval.manifest import (
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
from knn_ner.retrieval.shard_writer import ShardWriter
from knn_ner.retrieval.transforms import KeyTransform

RECORD_FILE = "shard.json"


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
        made_with: what the keys are made with; anything that JSON can hold.
        fingerprint: names this build: equal only if the same shards would be written.
        shards: number of shards.
        transform: what the keys that are written went through, to be kept with them.

    Attributes:
        resumed: number of shards that an earlier run of the same build has finished.
        discarded: number of finished shards of another, dead build that were removed.

    Raises UserError if another process is writing to `path`, or `path` is not a folder.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        dim: int,
        dtype: str,
        labels: Sequence[str],
        made_with: dict,
        fingerprint: str,
        shards: int,
        transform: KeyTransform | None = None,
    ):
        if dtype not in KEY_DTYPES:
            raise UserError(f"keys of type {dtype!r}: expected one of {', '.join(KEY_DTYPES)}")
        self.path = Path(path)
        self.dim, self.dtype, self.labels = dim, dtype, list(labels)
        self.fingerprint, self.shards, self.transform = fingerprint, shards, transform
        if transform:
            made_with = made_with | {"transform": transform.id}
        # As it will be read back: lists for tuples, strings for numbers as keys.
        self.made_with = json.loads(json.dumps(made_with))
        self._lock = lock(self.path)
        self.resumed, self.discarded = self._take_up()

    def __enter__(self) -> "DatastoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder. What is not committed stays, to be resumed."""
        self._lock.close()

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

    def commit(self, action: str = "build", next_sentence: int = 0) -> Manifest:
        """Make the shards, in the order of their numbers, the content of the store.

        What it held before is removed; readers that have it open keep it.

        Args:
            action: what the history calls it.
            next_sentence: the id of the next new sentence, if not the one after the highest.

        Raises ValueError if a shard is missing.
        """
        records = [self._record(number) for number in range(self.shards)]
        if None in records:
            raise ValueError(f"shard {records.index(None)} of {self.shards} is not finished")
        manifest = Manifest(
            dim=self.dim,
            dtype=self.dtype,
            labels=self.labels,
            made_with=self.made_with,
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
        sweep(self.path, self._build)
        return manifest

    def _write_transform(self) -> TransformRecord | None:
        if self.transform is None:
            return None
        file = self.path / f"{TRANSFORM_PREFIX}{self._build}.npz"
        file.write_bytes(self.transform.to_bytes())
        sync(file)
        return TransformRecord(file.name, file.stat().st_size, checksum(file))

    def _take_up(self) -> tuple[int, int]:
        """Resume the build that the journal names, or begin one: (resumed, discarded) shards."""
        settings = {
            "fingerprint": self.fingerprint,
            "dim": self.dim,
            "dtype": self.dtype,
            "labels": self.labels,
            "made_with": self.made_with,
            "shards": self.shards,
        }
        unfinished = unfinished_build(self.path)
        if unfinished.get("settings") == settings:
            self._build = unfinished["build"]
            sweep(self.path, self._build)
            return sum(map(self.finished, range(self.shards))), 0
        self._build = new_name()
        discarded = sweep(self.path, self._build)
        replace_json(self.path / JOURNAL_FILE, {"build": self._build, "settings": settings})
        return 0, discarded

    def _folder(self, number: int) -> Path:
        return self.path / f"{SHARD_PREFIX}{number:05d}-{self._build}"

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
