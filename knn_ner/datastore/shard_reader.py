"""Reading one shard of a datastore, without the sentences that were removed from it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from knn_ner.datastore.manifest import (
    ENTRY_ARRAYS,
    KEYS_FILE,
    SENTENCE_INDEX_FILE,
    SENTENCES_FILE,
    WEIGHTS_DTYPE,
    WEIGHTS_FILE,
    Manifest,
    ShardRecord,
)
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import file_sha256

# Smaller files are read, not mapped: a mapped file holds a file descriptor, of which a process has about a thousand.
MAPPED_FROM_BYTES = 1 << 20


class Shard:
    """An open shard: n entries that were not removed, numbered from 0.

    Attributes:
        record: the shard's record in the manifest.
        keys: (entries of the file, dim), removed entries included.
        arrays: file name -> (n,), the other arrays of the entries.
        index: (sentences, 3) int64, ordered by id: id, first byte in the text, number of bytes.

    Raises:
        UserError: if a file is missing, is outside the datastore's folder, or does not fit the manifest.
    """

    def __init__(self, path: Path, manifest: Manifest, record: ShardRecord):
        self.record = record
        for name, size, _ in record.files_on_disk():
            check_file(path, name, size)
        folder, rows = path / record.folder, (record.entries,)
        types = ENTRY_ARRAYS | (
            {WEIGHTS_FILE: WEIGHTS_DTYPE} if WEIGHTS_FILE in record.files else {}
        )
        self.keys = _load(folder / KEYS_FILE, manifest.dtype, (*rows, manifest.dim))
        self.arrays = {
            name: _load(folder / name, dtype, rows)
            for name, dtype in types.items()
            if name != KEYS_FILE
        }
        self.index = _load(folder / SENTENCE_INDEX_FILE, "int64", (record.sentences, 3))
        self._text = _load_text(folder / SENTENCES_FILE)
        self._check_ranges(folder, manifest)
        # (n,), the rows of the entries in the files; None if no entry was removed.
        self._rows: np.ndarray | None = None
        if record.removed:
            self._leave_out_removed(path / record.removed.file)

    def __len__(self) -> int:
        return self.record.live_entries

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the keys of entries start to stop - 1: (stop - start, dim), a view if possible."""
        if self._rows is None:
            return self.keys[start:stop]
        rows = self._rows[start:stop]
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
            return self.keys[rows[0] : rows[-1] + 1]
        return self.keys.take(rows, axis=0)

    def gather(self, entries: np.ndarray) -> np.ndarray:
        """Return the keys of entries: (m,) -> (m, dim)."""
        return self.keys.take(entries if self._rows is None else self._rows[entries], axis=0)

    def sentence(self, start: int, size: int) -> dict:
        """Return the sentence whose line has `size` bytes from byte `start`."""
        return json.loads(self._text[start : start + size].tobytes())

    def sentences(self) -> Iterator[dict]:
        """Return all sentences, ordered by id."""
        for _, start, size in self.index:
            yield self.sentence(start, size)

    def _leave_out_removed(self, file: Path) -> None:
        removed = self.record.removed
        assert removed is not None
        if file_sha256(file) != removed.sha256:
            raise differs_from_checksum(file)
        ids = _load(file, "int32", (removed.sentences,))
        live = np.isin(self.arrays["sentence_ids.npy"], ids, invert=True)
        self.index = self.index[np.isin(self.index[:, 0], ids, invert=True)]
        found = int(live.sum()), len(self.index)
        expected = self.record.live_entries, self.record.live_sentences
        if found != expected:
            raise UserError(
                f"{file}: leaves {found[0]} entries of {found[1]} sentences, but the manifest says "
                f"{expected[0]} of {expected[1]}; build the datastore again"
            )
        self.arrays = {name: array[live] for name, array in self.arrays.items()}
        self._rows = np.flatnonzero(live).astype(np.int32)

    def _check_ranges(self, folder: Path, manifest: Manifest) -> None:
        ids, starts, sizes = self.index.T
        lines = np.concatenate([starts, sizes, starts + sizes])
        own = self.arrays["sentence_ids.npy"]
        for name, what, values, first, last in (
            (SENTENCE_INDEX_FILE, "sentence id", ids, 0, manifest.next_sentence - 1),
            (SENTENCE_INDEX_FILE, "byte", lines, 0, len(self._text)),
            ("sentence_ids.npy", "sentence id", own, 0, manifest.next_sentence - 1),
            ("labels.npy", "label id", self.arrays["labels.npy"], 0, len(manifest.labels) - 1),
            # A word takes at least one byte of its sentence's line.
            ("positions.npy", "position", self.arrays["positions.npy"], -1, sizes.max(initial=0)),
        ):
            low, high = values.min(initial=0), values.max(initial=0)
            if len(values) and not first <= low <= high <= last:
                raise UserError(
                    f"{folder / name}: {what} {low if low < first else high} found, expected {first} to "
                    f"{last}; build the datastore again"
                )


def check_file(path: Path, name: str, size: int) -> None:
    """Check that a file exists with its size, inside the datastore's folder `path`.

    Raises:
        UserError: if the file is missing, has another size, or is a symbolic link to another folder.
    """
    file = path / name
    linked = file.is_symlink() or file.parent.is_symlink()
    found = file.stat().st_size if file.is_file() else None
    if linked and not file.resolve().is_relative_to(path.resolve()):
        error = f"a symbolic link to {file.resolve()}, expected a file in {path}"
    elif found is None:
        error = "not found, but the manifest names it"
    elif found != size:
        error = f"{found} bytes, but the manifest says {size}"
    else:
        return
    raise UserError(f"{file}: {error}; build the datastore again")


def differs_from_checksum(file: Path) -> UserError:
    """Return the error for a file whose content is damaged."""
    return UserError(
        f"{file}: its content differs from the checksum in the manifest; build the datastore again"
    )


def _load(file: Path, dtype: str, shape: Sequence[int]) -> np.ndarray:
    mapped = file.name == KEYS_FILE and file.stat().st_size >= MAPPED_FROM_BYTES
    try:
        array = np.load(file, mmap_mode="r" if mapped else None)
    except (ValueError, EOFError) as error:
        raise UserError(f"{file}: not a .npy file ({error}); build the datastore again") from None
    if (array.dtype, array.shape) != (np.dtype(dtype), shape):
        raise UserError(
            f"{file}: holds {array.dtype} {array.shape}, but the manifest says {dtype} {shape}; "
            "build the datastore again"
        )
    return array


def _load_text(file: Path) -> np.ndarray:
    if file.stat().st_size >= MAPPED_FROM_BYTES:
        return np.memmap(file, np.uint8, mode="r")
    return np.fromfile(file, np.uint8)
