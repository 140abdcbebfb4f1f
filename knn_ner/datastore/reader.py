"""Reading a datastore: keys (hidden states), their labels, and their sentences.

A datastore is a folder with a manifest and shards that never change. `writer.py` builds it and `edit.py` changes it. An
open datastore stays as it was opened: its files stay mapped after a later commit has removed them.
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
)
from knn_ner.datastore.shard_reader import Shard, check_file, differs_from_checksum
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import file_sha256


class Datastore:
    """A datastore that is open for reading; `Datastore.open` makes one.

    Its n entries are numbered from 0 in the order of the manifest's shards. Keys stay on disk (memory-mapped). The
    other arrays are in memory: 14 bytes for each entry.

    Args:
        path: the folder.
        manifest: the manifest, or one with some of its shards.
        opened: open shards by `_shard_key`, which are not opened again.

    Attributes:
        manifest: the manifest; `dim`, `dtype`, `labels`, `provenance` and `fingerprint` are its fields.
        entries: n.
        keys: the key array of each shard, removed entries included.
        label_ids: (n,) int16, indices into `labels`.
        sentence_ids: (n,) int32.
        positions: (n,) int32, index of the entry's word in its sentence; -1 for special tokens.
        norms: (n,) float32, Euclidean norm of each key as stored.
        weights: (n,) float32, how many entries each stands for in a pruned store; None in others.
        transform: the transform of hidden states into keys, if any.
    """

    def __init__(self, path: Path, manifest: Manifest, opened: dict | None = None):
        self.path, self.manifest = path, manifest
        self.dim, self.dtype = manifest.dim, np.dtype(manifest.dtype)
        self.labels, self.provenance = manifest.labels, manifest.provenance
        self.fingerprint = manifest.fingerprint
        self.transform = None
        if manifest.transform:
            check_file(path, manifest.transform.file, manifest.transform.bytes)
            self.transform = KeyTransform.read(path / manifest.transform.file)
        opened = opened or {}
        self._shards: list[Shard] = [
            opened.get(_shard_key(record)) or Shard(path, manifest, record)
            for record in manifest.shards
        ]
        self.keys = [shard.keys for shard in self._shards]
        self._starts = np.cumsum([0, *map(len, self._shards)])
        self.entries = int(self._starts[-1])
        self.label_ids = self._join("labels.npy")
        self.sentence_ids = self._join("sentence_ids.npy")
        self.positions = self._join("positions.npy")
        self.norms = self._join("norms.npy")
        self.weights = None
        if manifest.pruned:
            # A shard that was added since has none: each of its entries is one.
            for shard in self._shards:
                shard.arrays.setdefault(WEIGHTS_FILE, np.ones(len(shard), WEIGHTS_DTYPE))
            self.weights = self._join(WEIGHTS_FILE)
        index = [
            np.insert(shard.index, 1, number, axis=1) for number, shard in enumerate(self._shards)
        ]
        # (sentences, 4), ordered by id: id, shard, first byte in the shard's text, number of bytes.
        self._sentence_index = np.concatenate([np.zeros((0, 4), np.int64), *index])
        self._sentence_index = self._sentence_index[np.argsort(self._sentence_index[:, 0])]

    @classmethod
    def open(cls, path: str | Path) -> "Datastore":
        """Open the datastore in folder `path`. Checksums are not compared; `verify` does that.

        Raises:
            UserError: if there is no datastore, or a file is missing or does not fit the manifest.
        """
        path = Path(path)
        return cls._open(path, Manifest.read(path))

    def refresh(self) -> "Datastore":
        """Open the datastore again, without reading unchanged shards again.

        Returns:
            The datastore; this object if nothing was committed since it was opened.

        Raises:
            UserError: as `open` does, and if the folder now holds the datastore of another tagger.
        """
        manifest = Manifest.read(self.path)
        if manifest == self.manifest:
            return self
        manifest.check_provenance(self.path, self.provenance)
        opened = {_shard_key(shard.record): shard for shard in self._shards}
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
                # Another process has committed meanwhile and removed files that the old manifest names.
                manifest = latest

    def _join(self, name: str) -> np.ndarray:
        """Concatenate an array of all shards; the shards keep views of the result, to save memory."""
        parts = [np.zeros(0, ENTRY_ARRAYS.get(name, WEIGHTS_DTYPE))]
        joined = np.concatenate([*parts, *(shard.arrays[name] for shard in self._shards)])
        for number, shard in enumerate(self._shards):
            shard.arrays[name] = joined[self._starts[number] : self._starts[number + 1]]
        return joined

    @property
    def recipe(self) -> KeyRecipe:
        """How to make keys and queries from the tagger's hidden states."""
        return KeyRecipe(self.provenance.get("layer", "last"), self.transform)

    @property
    def content_id(self) -> str:
        return self.manifest.content_id

    @property
    def stored_sentences(self) -> np.ndarray:
        """(sentences,) int64: the ids of all sentences in ascending order."""
        return self._sentence_index[:, 0]

    def of_shard(self, number: int) -> tuple[slice, np.ndarray]:
        """Return the entries of a shard of the manifest, and the ids of its sentences."""
        entries = slice(self._starts[number], self._starts[number + 1])
        return entries, self._shards[number].index[:, 0]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the keys of entries start to stop - 1: (stop - start, dim), a view if possible."""
        first = np.searchsorted(self._starts, start, side="right") - 1
        last = np.searchsorted(self._starts, stop, side="left")
        pieces = []
        for number in range(first, last):
            offset = self._starts[number]
            pieces.append(self._shards[number].rows(max(start - offset, 0), stop - offset))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Return all keys in blocks of `size` entries: (first entry, keys); only the last block is shorter."""
        for start in range(0, self.entries, size):
            yield start, self.rows(start, min(start + size, self.entries))

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """Return the keys of entries: (m,) -> (m, dim); raises IndexError for numbers outside 0 to n - 1."""
        if len(indices) and not 0 <= indices.min() <= indices.max() < self.entries:
            raise IndexError(f"entries {indices.min()} to {indices.max()} of {self.entries}")
        if len(self._shards) == 1:
            return self._shards[0].gather(indices)
        keys = np.empty((len(indices), self.dim), self.dtype)
        shard_of = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(shard_of):
            here = np.flatnonzero(shard_of == number)
            keys[here] = self._shards[number].gather(indices[here] - self._starts[number])
        return keys

    def sentence(self, sentence_id: int) -> dict:
        """Return a sentence: {"id": int, "words": [str], "tags": [str]}; raises KeyError for an unknown id."""
        row = np.searchsorted(self._sentence_index[:, 0], sentence_id)
        if row == len(self._sentence_index) or self._sentence_index[row, 0] != sentence_id:
            raise KeyError(f"no sentence {sentence_id} in {self.path}")
        _, number, start, size = self._sentence_index[row]
        return self._shards[number].sentence(start, size)

    def sentences(self) -> Iterator[dict]:
        """Return all sentences as `sentence` does, in the order of their entries."""
        for shard in self._shards:
            yield from shard.sentences()

    def verify(self, progress: tqdm | None = None) -> None:
        """Compare every file with its checksum in the manifest.

        Args:
            progress: a bar that advances by the number of bytes.

        Raises:
            UserError: for the first file that is missing or differs.
        """
        for name, size, sha256 in self.manifest.files():
            check_file(self.path, name, size)
            if file_sha256(self.path / name) != sha256:
                raise differs_from_checksum(self.path / name)
            if progress is not None:
                progress.update(size)

    def check_provenance(self, expected: dict) -> None:
        """Check the origin of the keys; as `Manifest.check_provenance`."""
        self.manifest.check_provenance(self.path, expected)


def _shard_key(record: ShardRecord) -> tuple[str, str | None]:
    """Return what identifies an open shard: the names of its folder and removal list, which are unique."""
    return record.folder, record.removed.file if record.removed else None
