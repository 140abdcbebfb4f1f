"""The manifest of a datastore: what is in it, and the only thing that makes a shard part of it.

It is replaced in one step (`Manifest.write`), so that a reader sees the store before a change or
after it.
"""

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from knn_ner.errors import UserError

MANIFEST_FILE = "manifest.json"
FORMAT = "knn-ner datastore"
FORMAT_VERSION = 1
KEY_DTYPES = ("float16", "float32")

# The arrays of a shard, one row for each entry, and their types on disk (None: the store's own).
ENTRY_ARRAYS = {
    "keys.npy": None,
    "labels.npy": "int16",
    "sentence_ids.npy": "int32",
    "positions.npy": "int32",
    "norms.npy": "float32",
}
SENTENCES_FILE = "sentences.jsonl"
# One row for each sentence, by id: id, first byte of its line in SENTENCES_FILE, number of bytes.
SENTENCE_INDEX_FILE = "sentence_index.npy"
SHARD_FILES = (*ENTRY_ARRAYS, SENTENCES_FILE, SENTENCE_INDEX_FILE)


@dataclass(frozen=True)
class ShardRecord:
    """What the manifest says of a shard, whose folder never changes once it has this record."""

    folder: str
    entries: int
    sentences: int
    labels: dict[str, int]
    """Number of entries with each label; labels that do not occur are left out."""
    files: dict[str, dict[str, int | str]]
    """File name -> {"bytes": size, "sha256": checksum in hexadecimal}."""


@dataclass(frozen=True)
class Manifest:
    dim: int
    dtype: str
    labels: list[str]
    made_with: dict
    """What the keys were made with (model, tokeniser, layer, ...), for readers to compare."""
    fingerprint: str
    """Names the build, its data included: a builder sees by it that there is nothing to do."""
    shards: list[ShardRecord]

    @property
    def entries(self) -> int:
        return sum(shard.entries for shard in self.shards)

    @property
    def sentences(self) -> int:
        return sum(shard.sentences for shard in self.shards)

    @property
    def label_counts(self) -> dict[str, int]:
        """Number of entries with each label of the label list, in its order."""
        counts = Counter()
        for shard in self.shards:
            counts.update(shard.labels)
        return {label: counts[label] for label in self.labels}

    @cached_property
    def content_id(self) -> str:
        """Hash of all that is stored, not of folder names; ties an index to its store."""
        content = [self.dim, self.dtype, self.labels, [shard.files for shard in self.shards]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read the manifest of the datastore in folder `path`.

        Raises UserError if there is none, or it is not one that this version can read.
        """
        file = path / MANIFEST_FILE
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{file}: not found, so {path} holds no finished datastore; "
                "build it, or finish building it, with python -m knn_ner.build_datastore"
            ) from None
        except ValueError as error:
            raise UserError(
                f"{file}: not valid JSON ({error}); build the datastore again"
            ) from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(f"{file}: not the manifest of a datastore (no format {FORMAT!r})")
        if content.get("version") != FORMAT_VERSION:
            raise UserError(
                f"{file}: format version {content.get('version')}, expected {FORMAT_VERSION}; "
                "build the datastore again"
            )
        try:
            return cls(
                dim=content["dim"],
                dtype=content["dtype"],
                labels=content["labels"],
                made_with=content["made_with"],
                fingerprint=content["fingerprint"],
                shards=[ShardRecord(**shard) for shard in content["shards"]],
            )
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{file}: a field is missing or unknown ({error}); build the datastore again"
            ) from None

    def write(self, path: Path) -> None:
        """Make this the manifest of the datastore in folder `path`, in one step."""
        content = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "dim": self.dim,
            "dtype": self.dtype,
            "counts": {
                "entries": self.entries,
                "sentences": self.sentences,
                "labels": self.label_counts,
            },
            "labels": self.labels,
            "made_with": self.made_with,
            "fingerprint": self.fingerprint,
            "shards": [asdict(shard) for shard in self.shards],
        }
        replace_json(path / MANIFEST_FILE, content)


def replace_json(file: Path, content: object) -> None:
    """Write `content` to `file`; readers, and a crash, find the old content or the new."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, ensure_ascii=False, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power failure; files are synced on their own."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(file: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
