"""Reading a datastore: keys (hidden states) on disk, their labels, and their sentences.

A store is a folder with a manifest and immutable shards (see `manifest.py`); `writer.py` makes it.
What a reader has opened stays as it was, whatever becomes of the folder: files that a later commit
removes stay mapped.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from knn_ner.errors import UserError
from knn_ner.retrieval.manifest import (
    ENTRY_ARRAYS,
    SENTENCE_INDEX_FILE,
    SENTENCES_FILE,
    SHARD_FILES,
    Manifest,
    ShardRecord,
    checksum,
)

# A mapped file holds a file descriptor, of which a process has about a thousand. Smaller files are
# read instead, so that a store that grew by many small shards still opens.
MAPPED_FROM_BYTES = 1 << 20


class Datastore:
    """A datastore opened for reading; make one with `Datastore.open`.

    The n entries of all shards are numbered through, 0 to n-1, in the order of the manifest. Keys
    stay on disk (memory-mapped); the small arrays are in memory, 14 bytes for each entry.

    Attributes:
        path: the folder.
        manifest: what is in it.
        keys: one (entries of the shard, dim) array for each shard, float16 or float32.
        label_ids: (n,) int16, indices into `labels`.
        sentence_ids: (n,) int32.
        positions: (n,) int32, the index of the entry's word in its sentence; -1 for special tokens.
        norms: (n,) float32, Euclidean norm of each key as stored.
    """

    def __init__(self, path: Path, manifest: Manifest):
        self.path = path
        self.manifest = manifest
        shards = [_open_shard(path, manifest, shard) for shard in manifest.shards]
        self.keys = [shard["keys.npy"] for shard in shards]
        self._starts = np.cumsum([0, *(len(keys) for keys in self.keys)])
        self.label_ids, self.sentence_ids, self.positions, self.norms = (
            np.concatenate([np.zeros(0, ENTRY_ARRAYS[file]), *(shard[file] for shard in shards)])
            for file in ("labels.npy", "sentence_ids.npy", "positions.npy", "norms.npy")
        )
        self._texts = [shard[SENTENCES_FILE] for shard in shards]
        index = [
            np.insert(shard[SENTENCE_INDEX_FILE], 1, number, axis=1)
            for number, shard in enumerate(shards)
        ]
        # (sentences, 4), by id: id, shard, first byte in the shard's text, number of bytes.
        self._sentence_index = np.concatenate([np.zeros((0, 4), np.int64), *index])
        self._sentence_index = self._sentence_index[np.argsort(self._sentence_index[:, 0])]

    @classmethod
    def open(cls, path: str | Path) -> "Datastore":
        """Open the datastore in folder `path`.

        Raises UserError if there is none, or a file is missing or does not have the size and the
        form that the manifest gives. Contents are not read; `verify` does that.
        """
        path = Path(path)
        manifest = Manifest.read(path)
        while True:
            try:
                return cls(path, manifest)
            except (UserError, FileNotFoundError):
                latest = Manifest.read(path)
                if latest == manifest:
                    raise
                # Another process committed in between and removed what the old manifest named.
                manifest = latest

    @property
    def entries(self) -> int:
        return len(self.label_ids)

    @property
    def dim(self) -> int:
        return self.manifest.dim

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.manifest.dtype)

    @property
    def labels(self) -> list[str]:
        return self.manifest.labels

    @property
    def made_with(self) -> dict:
        return self.manifest.made_with

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def content_id(self) -> str:
        return self.manifest.content_id

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Keys of entries start to stop-1, (stop - start, dim): a view if one shard holds all."""
        first = np.searchsorted(self._starts, start, side="right") - 1
        last = np.searchsorted(self._starts, stop, side="left")
        pieces = [
            self.keys[number][max(start - self._starts[number], 0) : stop - self._starts[number]]
            for number in range(first, last)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """All keys in order: (start, keys of entries start to start + size - 1).

        Only the last block is shorter; how the store is cut into shards does not matter.
        """
        for start in range(0, self.entries, size):
            yield start, self.rows(start, min(start + size, self.entries))

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Keys of the entries `indices`, (m,) -> (m, dim). Raises IndexError outside 0 to n-1."""
        if len(indices) and not 0 <= indices.min() <= indices.max() < self.entries:
            raise IndexError(f"entries {indices.min()} to {indices.max()} of {self.entries}")
        if len(self.keys) == 1:
            return self.keys[0].take(indices, axis=0)
        keys = np.empty((len(indices), self.dim), self.dtype)
        shard_of = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(shard_of):
            here = np.flatnonzero(shard_of == number)
            keys[here] = self.keys[number].take(indices[here] - self._starts[number], axis=0)
        return keys

    def sentence(self, sentence_id: int) -> dict:
        """A sentence: {"id": int, "words": [str], "tags": [str]}. Raises KeyError if unknown."""
        row = np.searchsorted(self._sentence_index[:, 0], sentence_id)
        if row == len(self._sentence_index) or self._sentence_index[row, 0] != sentence_id:
            raise KeyError(f"no sentence {sentence_id} in {self.path}")
        _, number, start, size = self._sentence_index[row]
        return json.loads(self._texts[number][start : start + size].tobytes())

    def verify(self) -> None:
        """Read every file; raises UserError for the first that differs from its checksum."""
        for shard in self.manifest.shards:
            _check_sizes(self.path, shard)
            for name, expected in shard.files.items():
                file = self.path / shard.folder / name
                if checksum(file) != expected["sha256"]:
                    raise UserError(
                        f"{file}: its content differs from the checksum in the manifest; "
                        "build the datastore again"
                    )

    def check_made_with(self, expected: dict) -> None:
        """Raise UserError unless each field of `expected` has the same value in `made_with`."""
        # Lists for tuples, strings for numbers as keys: what a manifest can hold.
        for field, value in json.loads(json.dumps(expected)).items():
            found = self.made_with.get(field)
            if found != value:
                raise UserError(
                    f"{self.path}: made with {field} {found!r}, but to be read with {field} "
                    f"{value!r}; use what it was made with, or build the datastore again"
                )


def _check_sizes(path: Path, shard: ShardRecord) -> None:
    for name in SHARD_FILES:
        file = path / shard.folder / name
        expected = shard.files[name]["bytes"]
        if not file.is_file():
            raise UserError(
                f"{file}: not found, but the manifest names it; build the datastore again"
            )
        if file.stat().st_size != expected:
            raise UserError(
                f"{file}: {file.stat().st_size} bytes, but the manifest says {expected}; "
                "build the datastore again"
            )


def _open_shard(path: Path, manifest: Manifest, shard: ShardRecord) -> dict[str, np.ndarray]:
    _check_sizes(path, shard)
    forms = {
        name: (np.dtype(dtype or manifest.dtype), (shard.entries,))
        for name, dtype in ENTRY_ARRAYS.items()
    }
    forms["keys.npy"] = (np.dtype(manifest.dtype), (shard.entries, manifest.dim))
    forms[SENTENCE_INDEX_FILE] = (np.dtype(np.int64), (shard.sentences, 3))
    arrays = {}
    for name, form in forms.items():
        file = path / shard.folder / name
        mapped = name == "keys.npy" and shard.files[name]["bytes"] >= MAPPED_FROM_BYTES
        try:
            array = np.load(file, mmap_mode="r" if mapped else None)
        except ValueError as error:
            raise UserError(
                f"{file}: not a .npy file ({error}); build the datastore again"
            ) from None
        if (array.dtype, array.shape) != form:
            raise UserError(
                f"{file}: holds {array.dtype} {array.shape}, but the manifest says {form[0]} "
                f"{form[1]}; build the datastore again"
            )
        arrays[name] = array
    file = path / shard.folder / SENTENCES_FILE
    if shard.files[SENTENCES_FILE]["bytes"] >= MAPPED_FROM_BYTES:
        arrays[SENTENCES_FILE] = np.memmap(file, np.uint8, mode="r")
    else:
        arrays[SENTENCES_FILE] = np.fromfile(file, np.uint8)
    return arrays
