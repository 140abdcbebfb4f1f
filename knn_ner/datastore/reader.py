"""Reading a datastore: keys (hidden states) on disk, their labels, and their sentences.

A store is a folder with a manifest and immutable shards (see `manifest.py`); `writer.py` makes it,
`edit.py` changes it. What a reader has opened stays as it was, whatever becomes of the folder:
files that a later commit removes stay mapped.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from knn_ner.datastore.key_transform import KeyRecipe, KeyTransform
from knn_ner.datastore.manifest import (
    ENTRY_ARRAYS,
    WEIGHTS_DTYPE,
    WEIGHTS_FILE,
    Manifest,
    ShardRecord,
    checksum,
)
from knn_ner.datastore.shard_reader import KEYS_FILE, check_sizes, open_shard
from knn_ner.utils.errors import UserError


class Datastore:
    """A datastore opened for reading; make one with `Datastore.open`.

    The n entries of all shards are numbered through, 0 to n-1, in the order of the manifest. Keys
    stay on disk (memory-mapped); the small arrays are in memory, 14 bytes for each entry.

    Attributes:
        path: the folder.
        manifest: what is in it.
        keys: (rows, dim) arrays, float16 or float32: one for each shard, or more where entries of
            it were removed.
        label_ids: (n,) int16, indices into `labels`.
        sentence_ids: (n,) int32.
        positions: (n,) int32, the index of the entry's word in its sentence; -1 for special tokens.
        norms: (n,) float32, Euclidean norm of each key as stored.
        weights: (n,) float32, how many entries each stands for in a pruned store; None in others.
        transform: what hidden states went through to become keys; None if nothing.
    """

    def __init__(self, path: Path, manifest: Manifest, opened: dict | None = None):
        """Open what the manifest names; `opened` holds shards that need not be opened again."""
        self.path = path
        self.manifest = manifest
        self.transform = (
            KeyTransform.read(path / manifest.transform.file) if manifest.transform else None
        )
        opened = opened or {}
        parts = [
            opened[_key(record)] if _key(record) in opened else open_shard(path, manifest, record)
            for record in manifest.shards
        ]
        self._shards = [shard for shard, _ in parts]
        self.keys = [run for shard in self._shards for run in shard.runs]
        self._starts = np.cumsum([0, *map(len, self.keys)])
        self._shard_starts = np.cumsum([0, *map(len, self._shards)])
        self._arrays = {
            name: np.concatenate([np.zeros(0, dtype), *(arrays[name] for _, arrays in parts)])
            for name, dtype in ENTRY_ARRAYS.items()
            if name != KEYS_FILE
        }
        self.label_ids = self._arrays["labels.npy"]
        self.sentence_ids = self._arrays["sentence_ids.npy"]
        self.positions = self._arrays["positions.npy"]
        self.norms = self._arrays["norms.npy"]
        self.weights = None
        if manifest.pruned:
            # A shard that was added since has none: each of its entries is one.
            self.weights = self._arrays[WEIGHTS_FILE] = np.concatenate(
                [
                    arrays.get(WEIGHTS_FILE, np.ones(len(shard), WEIGHTS_DTYPE))
                    for shard, arrays in parts
                ]
            )
        index = [
            np.insert(shard.index, 1, number, axis=1) for number, shard in enumerate(self._shards)
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
        return cls._open(path, Manifest.read(path))

    def refresh(self) -> "Datastore":
        """The store as it is now: itself, if nothing was committed since it was opened.

        What did not change is not read again. Raises UserError as `open` does, and if the folder
        holds a store of another model by now.
        """
        manifest = Manifest.read(self.path)
        if manifest == self.manifest:
            return self
        manifest.check_provenance(self.path, self.provenance)
        opened = {}
        borders = zip(self._shard_starts, self._shard_starts[1:], strict=False)
        for shard, (start, stop) in zip(self._shards, borders, strict=True):
            arrays = {name: array[start:stop] for name, array in self._arrays.items()}
            opened[_key(shard.record)] = shard, arrays
        return self._open(self.path, manifest, opened)

    @classmethod
    def _open(cls, path: Path, manifest: Manifest, *opened: dict) -> "Datastore":
        while True:
            try:
                return cls(path, manifest, *opened)
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
    def provenance(self) -> dict:
        return self.manifest.provenance

    @property
    def recipe(self) -> KeyRecipe:
        """How keys were made, and queries are to be."""
        return KeyRecipe(self.provenance.get("layer", "last"), self.transform)

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def content_id(self) -> str:
        return self.manifest.content_id

    @property
    def stored_sentences(self) -> np.ndarray:
        """(sentences,) int64: the ids of all sentences, ascending."""
        return self._sentence_index[:, 0]

    def of_shard(self, number: int) -> tuple[slice, np.ndarray]:
        """What is in a shard of the manifest: its entries, and the ids of its sentences."""
        entries = slice(self._shard_starts[number], self._shard_starts[number + 1])
        return entries, self._shards[number].index[:, 0]

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
        if len(self._shards) == 1:
            return self._shards[0].gather(indices)
        keys = np.empty((len(indices), self.dim), self.dtype)
        shard_of = np.searchsorted(self._shard_starts, indices, side="right") - 1
        for number in np.unique(shard_of):
            here = np.flatnonzero(shard_of == number)
            keys[here] = self._shards[number].gather(indices[here] - self._shard_starts[number])
        return keys

    def sentence(self, sentence_id: int) -> dict:
        """A sentence: {"id": int, "words": [str], "tags": [str]}. Raises KeyError if unknown."""
        row = np.searchsorted(self._sentence_index[:, 0], sentence_id)
        if row == len(self._sentence_index) or self._sentence_index[row, 0] != sentence_id:
            raise KeyError(f"no sentence {sentence_id} in {self.path}")
        _, number, start, size = self._sentence_index[row]
        return self._shards[number].sentence(start, size)

    def sentences(self) -> Iterator[dict]:
        """All sentences, as `sentence` gives them, in the order of their entries."""
        for shard in self._shards:
            yield from shard.sentences()

    def verify(self, progress: tqdm | None = None) -> None:
        """Read every file; raises UserError for the first that differs from its checksum.

        progress: a bar that is moved on by the number of bytes.
        """
        for record in self.manifest.shards:
            check_sizes(self.path, record)
        for name, size, expected in self.manifest.files():
            file = self.path / name
            if checksum(file) != expected:
                raise UserError(
                    f"{file}: its content differs from the checksum in the manifest; "
                    "build the datastore again"
                )
            if progress is not None:
                progress.update(size)

    def check_provenance(self, expected: dict) -> None:
        """Raise UserError unless each field of `expected` has the same value in `provenance`."""
        self.manifest.check_provenance(self.path, expected)


def _key(record: ShardRecord) -> tuple[str, str | None]:
    """What names an opened shard: folder names are never used twice."""
    return record.folder, record.removed and record.removed.file
