"""The manifest of a datastore: the only file that makes a shard part of the datastore.

A commit replaces the manifest in one step, so a reader sees the datastore before or after a change.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from knn_ner.utils.errors import UserError
from knn_ner.utils.files import file_sha256, write_text

MANIFEST_FILE = "manifest.json"
FORMAT = "knn-ner datastore"
FORMAT_VERSION = 1
# The version of datastores with a key transform or weights: programs that do not know these must not read them.
EXTENDED_VERSION = 2
KEY_DTYPES = ("float16", "float32")
# The last field of a manifest: the checksum of the text before it.
CHECKSUM_FIELD = ',\n  "sha256": "'

# The arrays of a shard, with one row for each entry, and their types (keys: the type of the datastore).
KEYS_FILE = "keys.npy"
ENTRY_ARRAYS = {
    KEYS_FILE: "",
    "labels.npy": "int16",
    "sentence_ids.npy": "int32",
    "positions.npy": "int32",
    "norms.npy": "float32",
}
# How many entries each entry stands for; only shards of pruned datastores have it.
WEIGHTS_FILE = "weights.npy"
WEIGHTS_DTYPE = "float32"
SENTENCES_FILE = "sentences.jsonl"
# (sentences, 3) int64, ordered by id: id, first byte of the sentence's line in SENTENCES_FILE, number of bytes.
SENTENCE_INDEX_FILE = "sentence_index.npy"
SHARD_FILES = (*ENTRY_ARRAYS, SENTENCES_FILE, SENTENCE_INDEX_FILE)
SHARD_FILE_SET = set(SHARD_FILES)

# Commits in the manifest's history: the first and the latest ones. A longer history would slow each commit down.
HISTORY_LENGTH = 200
# Actions that change the content; building and compacting do not.
EDIT_ACTIONS = ("add", "remove", "relabel", "merge", "prune")


@dataclass(frozen=True)
class FileRecord:
    """A file: its name in the datastore's folder, its size and its checksum."""

    file: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, file: Path, **content: Any) -> Self:
        """Describe a file on disk."""
        return cls(file.name, file.stat().st_size, file_sha256(file), **content)

    def listed(self) -> tuple[str, int, str]:
        return self.file, self.bytes, self.sha256


@dataclass(frozen=True)
class Removal(FileRecord):
    """Sentences that were removed from a shard. The file holds their ids: (sentences,) int32, ascending.

    Attributes:
        entries: number of removed entries.
        sentences: number of removed sentences.
        labels: number of removed entries by label.
    """

    entries: int
    sentences: int
    labels: dict[str, int]


@dataclass(frozen=True)
class ShardRecord:
    """Description of a shard, whose folder never changes.

    Attributes:
        folder: name in the datastore's folder.
        entries: number of entries, removed ones included.
        sentences: number of sentences, removed ones included.
        labels: number of entries by label, for labels that occur.
        files: file name -> {"bytes": size, "sha256": checksum}.
        removed: the removed sentences, if any.
    """

    folder: str
    entries: int
    sentences: int
    labels: dict[str, int]
    files: dict[str, dict[str, Any]]
    removed: Removal | None = None

    @classmethod
    def from_json(cls, content: dict) -> "ShardRecord":
        """Make a record from JSON; raises KeyError or TypeError if a field is missing or unknown."""
        removed = content.get("removed")
        if not content["files"].keys() >= SHARD_FILE_SET:
            raise KeyError("files")
        return cls(**content | {"removed": removed and Removal(**removed)})

    def files_on_disk(self) -> list[tuple[str, int, str]]:
        """Return name in the datastore's folder, size and SHA-256 of the shard's files and of its removal list."""
        own = [
            (f"{self.folder}/{name}", file["bytes"], file["sha256"])
            for name, file in self.files.items()
        ]
        return own + ([self.removed.listed()] if self.removed else [])

    @property
    def live_entries(self) -> int:
        return self.entries - (self.removed.entries if self.removed else 0)

    @property
    def live_sentences(self) -> int:
        return self.sentences - (self.removed.sentences if self.removed else 0)


@dataclass(frozen=True)
class Commit:
    """An item of the history; `sentences` and `entries` are the numbers of affected ones, `time` is UTC."""

    number: int
    time: str
    action: str
    sentences: int
    entries: int


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.

    Attributes:
        dim: dimensions of a key.
        dtype: type of the keys, `float16` or `float32`.
        labels: the label list, which label ids index.
        provenance: origin of the keys: tagger, tokeniser, layer and so on.
        fingerprint: equal only for builds that write the same shards.
        shards: the shards in the order of their entries.
        next_sentence: id of the next new sentence; no id is used twice.
        history: the commits.
        transform: file of the key transform, if any.
    """

    dim: int
    dtype: str
    labels: list[str]
    provenance: dict
    fingerprint: str
    shards: list[ShardRecord]
    next_sentence: int
    history: list[Commit]
    transform: FileRecord | None = None

    @property
    def entries(self) -> int:
        return sum(shard.live_entries for shard in self.shards)

    @property
    def sentences(self) -> int:
        return sum(shard.live_sentences for shard in self.shards)

    @property
    def pruned(self) -> bool:
        """Whether entries stand for other entries too."""
        return any(WEIGHTS_FILE in shard.files for shard in self.shards)

    @property
    def edits(self) -> list[Commit]:
        """The commits of the history that changed the content since the build."""
        return [commit for commit in self.history if commit.action in EDIT_ACTIONS]

    @property
    def bytes(self) -> int:
        """Total size of all files in the manifest."""
        return sum(size for _, size, _ in self.files())

    def files(self) -> list[tuple[str, int, str]]:
        """Return name in the datastore's folder, size and SHA-256 of each file in the manifest."""
        own = [self.transform.listed()] if self.transform else []
        return own + [file for shard in self.shards for file in shard.files_on_disk()]

    @property
    def label_counts(self) -> dict[str, int]:
        """Number of entries for each label of the label list."""
        counts: Counter[str] = Counter()
        for shard in self.shards:
            counts.update(shard.labels)
            counts.subtract(shard.removed.labels if shard.removed else {})
        return {label: counts[label] for label in self.labels}

    @cached_property
    def content_id(self) -> str:
        """Hash of the whole content, independent of folder names; an index records it."""
        shards = [
            shard.files | ({"removed": shard.removed.sha256} if shard.removed else {})
            for shard in self.shards
        ]
        content = [self.dim, self.dtype, self.labels, shards]
        return _sha256(json.dumps(content, sort_keys=True))

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read the manifest of the datastore in folder `path`.

        Raises:
            UserError: if there is no manifest, or this version cannot read it.
        """
        file = path / MANIFEST_FILE

        def error(found: str) -> UserError:
            return UserError(f"{file}: {found}; build the datastore again")

        try:
            text = file.read_text(encoding="utf-8")
            content = json.loads(text)
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{file}: not found, so {path} holds no finished datastore; "
                "build it, or finish building it, with python -m knn_ner.build_datastore"
            ) from None
        except ValueError as reason:
            raise error(f"not valid JSON ({reason})") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(f"{file}: not the manifest of a datastore (no format {FORMAT!r})")
        if content.get("version") not in (FORMAT_VERSION, EXTENDED_VERSION):
            expected = f"expected {FORMAT_VERSION} or {EXTENDED_VERSION}"
            raise error(f"format version {content.get('version')}, {expected}")
        # Manifests of earlier versions have no checksum.
        body, found, checksum = text.rpartition(CHECKSUM_FIELD)
        if found and not checksum.startswith(_sha256(body)):
            raise error("its content differs from its own checksum (sha256)")
        try:
            transform = content.get("transform")
            manifest = cls(
                dim=content["dim"],
                dtype=content["dtype"],
                labels=content["labels"],
                provenance=content["made_with"],
                fingerprint=content["fingerprint"],
                shards=[ShardRecord.from_json(shard) for shard in content["shards"]],
                # Earlier versions had no edits: sentences were numbered from 0 without gaps.
                next_sentence=content.get("next_sentence", content["counts"]["sentences"]),
                history=[Commit(**commit) for commit in content.get("history", [])],
                transform=FileRecord(**transform) if transform else None,
            )
            names = {name for shard in manifest.shards for name in (shard.folder, *shard.files)}
            names |= {shard.removed.file for shard in manifest.shards if shard.removed}
            names |= {manifest.transform.file} if manifest.transform else set()
            outside = sorted(name for name in names if not re.fullmatch(r"\w[\w.-]*", name))
        except (KeyError, TypeError, AttributeError) as reason:
            raise error(f"a field is missing or unknown ({reason})") from None
        if outside:
            raise error(f"file name {outside[0]!r} found, expected one without a folder")
        return manifest

    def check_provenance(self, path: Path, expected: dict) -> None:
        """Check the origin of the keys.

        Args:
            path: the datastore's folder, for the error message.
            expected: fields of `provenance` with the expected values.

        Raises:
            UserError: if a field has another value.
        """
        for field, value in as_json(expected).items():
            found = self.provenance.get(field)
            if found != value:
                raise UserError(
                    f"{path}: made with {field} {found!r}, but to be read with {field} "
                    f"{value!r}; use what it was made with, or build the datastore again"
                )

    def write(self, path: Path) -> None:
        """Replace the manifest of the datastore in folder `path` in one step."""
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
            **({"transform": vars(self.transform)} if self.transform else {}),
            "next_sentence": self.next_sentence,
            "history": [vars(commit) for commit in self.history],
            "shards": [
                vars(shard) | {"removed": shard.removed and vars(shard.removed)}
                for shard in self.shards
            ],
        }
        body = json.dumps(content, indent=2, ensure_ascii=False).removesuffix("\n}")
        text = f'{body}{CHECKSUM_FIELD}{_sha256(body)}"\n}}\n'
        write_text(path / MANIFEST_FILE, text, fsync=True)


def append_commit(
    history: Sequence[Commit], action: str, sentences: int, entries: int
) -> list[Commit]:
    """Return the history with a new commit of the current time, in at most `HISTORY_LENGTH` items."""
    number = history[-1].number + 1 if history else 1
    time = datetime.now(UTC).isoformat(timespec="seconds")
    history = [*history, Commit(number, time, action, sentences, entries)]
    return [*history[:1], *history[1:][1 - HISTORY_LENGTH :]]


def as_json(content: dict) -> dict:
    """Return a dictionary as it is after writing and reading JSON: with lists for tuples, strings as keys."""
    return json.loads(json.dumps(content))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
