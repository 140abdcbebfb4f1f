"""The manifest of a datastore: what is in it, and the only thing that makes a shard part of it.

It is replaced in one step (`Manifest.write`), so that a reader sees the store before a change or
after it.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from knn_ner.utils.errors import UserError

MANIFEST_FILE = "manifest.json"
FORMAT = "knn-ner datastore"
# Of a store whose keys are as the encoder gave them, one for each token; and of others, which a reader
# that knows nothing of transforms and weights must not take for such.
FORMAT_VERSION = 1
EXTENDED_VERSION = 2
KEY_DTYPES = ("float16", "float32")

# The arrays of a shard, one row for each entry, and their types on disk (None: the store's own).
ENTRY_ARRAYS = {
    "keys.npy": None,
    "labels.npy": "int16",
    "sentence_ids.npy": "int32",
    "positions.npy": "int32",
    "norms.npy": "float32",
}
# How many entries each stands for, in shards of pruned stores alone.
WEIGHTS_FILE = "weights.npy"
WEIGHTS_DTYPE = "float32"
SENTENCES_FILE = "sentences.jsonl"
# One row for each sentence, by id: id, first byte of its line in SENTENCES_FILE, number of bytes.
SENTENCE_INDEX_FILE = "sentence_index.npy"
SHARD_FILES = (*ENTRY_ARRAYS, SENTENCES_FILE, SENTENCE_INDEX_FILE)

# Commits that the manifest tells of: the first, and the latest. A manifest that grew with each
# commit would slow each down.
HISTORY = 200
# Commits of these kinds change what is stored; building and compacting do not.
EDITS = ("add", "remove", "relabel", "merge", "prune")


@dataclass(frozen=True)
class Removal:
    """Sentences of a shard that no longer count, with their entries."""

    file: str
    """In the store's folder: (sentences,) int32, their ids, ascending."""
    bytes: int
    sha256: str
    entries: int
    sentences: int
    labels: dict[str, int]


@dataclass(frozen=True)
class TransformRecord:
    """The map that hidden states went through to become keys (`transforms.KeyTransform`)."""

    file: str
    """In the store's folder."""
    bytes: int
    sha256: str


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
    removed: Removal | None = None
    """What of this no longer counts: entries, sentences and labels are those of the files."""

    @classmethod
    def from_json(cls, content: dict) -> "ShardRecord":
        """The record that `asdict` gave. Raises KeyError or TypeError if it is not one."""
        removed = content.get("removed")
        return cls(**content | {"removed": removed and Removal(**removed)})

    @property
    def live_entries(self) -> int:
        return self.entries - (self.removed.entries if self.removed else 0)

    @property
    def live_sentences(self) -> int:
        return self.sentences - (self.removed.sentences if self.removed else 0)

    @property
    def live_labels(self) -> Counter[str]:
        return Counter(self.labels) - Counter(self.removed.labels if self.removed else {})


@dataclass(frozen=True)
class Commit:
    """One line of a store's history: what a commit did, to how many sentences and entries."""

    number: int
    time: str
    """UTC, ISO 8601."""
    action: str
    """build, add, remove, relabel, merge, prune or compact."""
    sentences: int
    entries: int


@dataclass(frozen=True)
class Manifest:
    dim: int
    dtype: str
    labels: list[str]
    provenance: dict
    """What the keys were made with (model, tokeniser, layer, ...), for readers to compare."""
    fingerprint: str
    """Names the build, its data included: a builder sees by it that there is nothing to do."""
    shards: list[ShardRecord]
    next_sentence: int
    """The id of the next new sentence: ids are never used twice."""
    history: list[Commit]
    transform: TransformRecord | None = None

    @property
    def entries(self) -> int:
        return sum(shard.live_entries for shard in self.shards)

    @property
    def sentences(self) -> int:
        return sum(shard.live_sentences for shard in self.shards)

    @property
    def pruned(self) -> bool:
        """Whether entries stand for others too."""
        return any(WEIGHTS_FILE in shard.files for shard in self.shards)

    @property
    def edits(self) -> list[Commit]:
        """What became of the store since it was built, as far as the history goes back."""
        return [commit for commit in self.history if commit.action in EDITS]

    @property
    def bytes(self) -> int:
        """The size of all files that the manifest names."""
        return sum(size for _, size, _ in self.files())

    def files(self) -> list[tuple[str, int, str]]:
        """All files: (name in the store's folder, size in bytes, SHA-256)."""
        listed = []
        if self.transform:
            listed.append((self.transform.file, self.transform.bytes, self.transform.sha256))
        for shard in self.shards:
            listed += [
                (f"{shard.folder}/{name}", file["bytes"], file["sha256"])
                for name, file in shard.files.items()
            ]
            if shard.removed:
                listed.append((shard.removed.file, shard.removed.bytes, shard.removed.sha256))
        return listed

    @property
    def label_counts(self) -> dict[str, int]:
        """Number of entries with each label of the label list, in its order."""
        counts = Counter()
        for shard in self.shards:
            counts.update(shard.live_labels)
        return {label: counts[label] for label in self.labels}

    @cached_property
    def content_id(self) -> str:
        """Hash of all that is stored, not of folder names; ties an index to its store."""
        shards = [
            shard.files | ({"removed": shard.removed.sha256} if shard.removed else {})
            for shard in self.shards
        ]
        content = [self.dim, self.dtype, self.labels, shards]
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
        if content.get("version") not in (FORMAT_VERSION, EXTENDED_VERSION):
            raise UserError(
                f"{file}: format version {content.get('version')}, expected {FORMAT_VERSION} or "
                f"{EXTENDED_VERSION}; "
                "build the datastore again"
            )
        try:
            return cls(
                dim=content["dim"],
                dtype=content["dtype"],
                labels=content["labels"],
                provenance=content["made_with"],
                fingerprint=content["fingerprint"],
                shards=[ShardRecord.from_json(shard) for shard in content["shards"]],
                # A store that was made before stores could be edited is as it was built: its
                # sentences are numbered through.
                next_sentence=content.get("next_sentence", content["counts"]["sentences"]),
                history=[Commit(**commit) for commit in content.get("history", [])],
                transform=TransformRecord(**content["transform"])
                if content.get("transform")
                else None,
            )
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{file}: a field is missing or unknown ({error}); build the datastore again"
            ) from None

    def check_provenance(self, path: Path, expected: dict) -> None:
        """Raise UserError unless each field of `expected` has the same value in `provenance`."""
        # Lists for tuples, strings for numbers as keys: what a manifest can hold.
        for field, value in json.loads(json.dumps(expected)).items():
            found = self.provenance.get(field)
            if found != value:
                raise UserError(
                    f"{path}: made with {field} {found!r}, but to be read with {field} "
                    f"{value!r}; use what it was made with, or build the datastore again"
                )

    def write(self, path: Path) -> None:
        """Make this the manifest of the datastore in folder `path`, in one step."""
        content = {
            "format": FORMAT,
            "version": EXTENDED_VERSION if self.transform or self.pruned else FORMAT_VERSION,
            "dim": self.dim,
            "dtype": self.dtype,
            "counts": {
                "entries": self.entries,
                "sentences": self.sentences,
                "labels": self.label_counts,
            },
            "labels": self.labels,
            "made_with": self.provenance,
            "fingerprint": self.fingerprint,
            **({"transform": asdict(self.transform)} if self.transform else {}),
            "next_sentence": self.next_sentence,
            "history": [asdict(commit) for commit in self.history],
            "shards": [asdict(shard) for shard in self.shards],
        }
        replace_json(path / MANIFEST_FILE, content)


def committed(history: Sequence[Commit], action: str, sentences: int, entries: int) -> list[Commit]:
    """The history with one more commit, now."""
    number = history[-1].number + 1 if history else 1
    time = datetime.now(UTC).isoformat(timespec="seconds")
    history = [*history, Commit(number, time, action, sentences, entries)]
    return [*history[:1], *history[1:][1 - HISTORY :]]


def replace_json(file: Path, content: dict) -> None:
    """Write `content` to `file`; readers, and a crash, find the old content or the new."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(_in_lines(content))
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    sync(file.parent)


def _in_lines(content: dict) -> str:
    """JSON with a line for each field, and for each item of a field that is a list of objects.

    A line at a time: Python's indented JSON takes twenty times as long, in every commit.
    """
    fields = []
    for name, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in value)
            text = f"[\n  {items}\n ]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        fields.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(fields) + "\n}\n"


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(file: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
