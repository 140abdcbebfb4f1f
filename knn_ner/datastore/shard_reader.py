"""Reading one shard of a datastore, without the sentences that were removed from it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from knn_ner.datastore.manifest import (
    ENTRY_ARRAYS,
    SENTENCE_INDEX_FILE,
    SENTENCES_FILE,
    SHARD_FILES,
    WEIGHTS_DTYPE,
    WEIGHTS_FILE,
    Manifest,
    ShardRecord,
)
from knn_ner.utils.errors import UserError

# A mapped file holds a file descriptor, of which a process has about a thousand. Smaller files are
# read instead, so that a store that grew by many small shards still opens.
MAPPED_FROM_BYTES = 1 << 20

KEYS_FILE = "keys.npy"


class Shard:
    """The keys and the sentences of a shard, less what was removed of it.

    Args:
        record: what the manifest says of the shard.
        keys: (entries of the file, dim).
        live: (entries of the file,) bool, what was not removed; the shard's n entries.
        index: (sentences, 3) int64, by id: id, first byte in the text, number of bytes.
        text: the content of SENTENCES_FILE.

    Attributes:
        runs: the keys, (rows, dim) each, cut where entries are missing; one run, if none is.
    """

    def __init__(
        self,
        record: ShardRecord,
        keys: np.ndarray,
        live: np.ndarray,
        index: np.ndarray,
        text: np.ndarray,
    ):
        self.record, self.index = record, index
        self._keys, self._text = keys, text
        borders = np.flatnonzero(np.diff(live, prepend=False, append=False))
        starts, stops = borders[::2], borders[1::2]
        self.runs = [keys[start:stop] for start, stop in zip(starts, stops, strict=True)]
        self._entries = np.cumsum([0, *(stops - starts)])
        # What an entry's number and its row in the file differ by, in each run.
        self._missing = starts - self._entries[:-1]

    def __len__(self) -> int:
        return int(self._entries[-1])

    def gather(self, entries: np.ndarray) -> np.ndarray:
        """Keys of the shard's entries, (m,), each from 0 to n-1 -> (m, dim)."""
        if self._missing.any():
            run = np.searchsorted(self._entries, entries, side="right") - 1
            entries = entries + self._missing[run]
        return self._keys.take(entries, axis=0)

    def sentence(self, start: int, size: int) -> dict:
        """The sentence whose line is `size` bytes of the text from `start`."""
        return json.loads(self._text[start : start + size].tobytes())

    def sentences(self) -> Iterator[dict]:
        """All sentences, by id."""
        for _, start, size in self.index:
            yield self.sentence(start, size)


def open_shard(
    path: Path, manifest: Manifest, record: ShardRecord
) -> tuple[Shard, dict[str, np.ndarray]]:
    """Open a shard of the datastore in folder `path`.

    Returns: the shard, and by file name its other arrays, (n,) each. Raises UserError if a file is
    missing or does not have the size and the form that the manifest gives.
    """
    check_sizes(path, record)
    folder = path / record.folder
    rows = (record.entries,)
    arrays = {
        name: _load(folder / name, dtype, rows)
        for name, dtype in ENTRY_ARRAYS.items()
        if name != KEYS_FILE
    }
    if WEIGHTS_FILE in record.files:
        arrays[WEIGHTS_FILE] = _load(folder / WEIGHTS_FILE, WEIGHTS_DTYPE, rows)
    keys = _load(folder / KEYS_FILE, manifest.dtype, (*rows, manifest.dim))
    index = _load(folder / SENTENCE_INDEX_FILE, "int64", (record.sentences, 3))
    live = np.ones(record.entries, bool)
    if record.removed:
        removed = _load(path / record.removed.file, "int32", (record.removed.sentences,))
        live = np.isin(arrays["sentence_ids.npy"], removed, invert=True)
        arrays = {name: array[live] for name, array in arrays.items()}
        index = index[np.isin(index[:, 0], removed, invert=True)]
    return Shard(record, keys, live, index, _text(folder / SENTENCES_FILE)), arrays


def check_sizes(path: Path, record: ShardRecord) -> None:
    """Raise UserError unless all files of a shard are there, each with its size."""
    names = {*SHARD_FILES, *record.files}
    sizes = {f"{record.folder}/{name}": record.files[name]["bytes"] for name in sorted(names)}
    if record.removed:
        sizes[record.removed.file] = record.removed.bytes
    for name, expected in sizes.items():
        file = path / name
        if not file.is_file():
            raise UserError(
                f"{file}: not found, but the manifest names it; build the datastore again"
            )
        if file.stat().st_size != expected:
            raise UserError(
                f"{file}: {file.stat().st_size} bytes, but the manifest says {expected}; "
                "build the datastore again"
            )


def _load(file: Path, dtype: str, shape: Sequence[int]) -> np.ndarray:
    """An array: keys are mapped if there are many, all else is read."""
    mapped = file.name == KEYS_FILE and file.stat().st_size >= MAPPED_FROM_BYTES
    try:
        array = np.load(file, mmap_mode="r" if mapped else None)
    except ValueError as error:
        raise UserError(f"{file}: not a .npy file ({error}); build the datastore again") from None
    if (array.dtype, array.shape) != (np.dtype(dtype), shape):
        raise UserError(
            f"{file}: holds {array.dtype} {array.shape}, but the manifest says {dtype} {shape}; "
            "build the datastore again"
        )
    return array


def _text(file: Path) -> np.ndarray:
    if file.stat().st_size >= MAPPED_FROM_BYTES:
        return np.memmap(file, np.uint8, mode="r")
    return np.fromfile(file, np.uint8)
