"""Writing one shard of a datastore into memory-mapped files."""

import errno
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from knn_ner.datastore.folder import UNFINISHED_PREFIX
from knn_ner.datastore.manifest import (
    ENTRY_ARRAYS,
    KEYS_FILE,
    SENTENCE_INDEX_FILE,
    SENTENCES_FILE,
    SHARD_FILES,
    WEIGHTS_DTYPE,
    WEIGHTS_FILE,
    ShardRecord,
)
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import file_sha256, fsync_path

# Keys whose squares are in memory at once, in float64.
NORM_ROWS = 4096


class ShardWriter:
    """A shard while it is written: a context manager, made by a `DatastoreWriter` or an `Edit`.

    Entries and sentences may come in any order; the files are the same. They are in a temporary folder until the
    context ends. After an exception the folder is removed.

    Args:
        folder: the folder of the finished shard.
        entries: number of rows.
        dim: dimensions of a key.
        dtype: type of the keys, `float16` or `float32`.
        labels: the label list, which label ids index.

    Attributes:
        first_row: offset of `start` in `write`; the rows before it are written already.
        record: the shard's record for the manifest, once the context has ended.
    """

    record: ShardRecord
    first_row: int = 0

    def __init__(self, folder: Path, entries: int, dim: int, dtype: str, labels: Sequence[str]):
        self.entries, self.dim, self.dtype, self.labels = entries, dim, dtype, labels
        self._folder = folder
        self._unfinished = folder.with_name(UNFINISHED_PREFIX + folder.name)

    def __enter__(self) -> "ShardWriter":
        for folder in (self._unfinished, self._folder):
            shutil.rmtree(folder, ignore_errors=True)
        self._unfinished.mkdir()
        self._arrays = {
            name: self._allocate(name, dtype or self.dtype) for name, dtype in ENTRY_ARRAYS.items()
        }
        self._written = np.zeros(self.entries, bool)
        self._sentences: dict[int, bytes] = {}
        return self

    def __exit__(self, exception: type[BaseException] | None, *_: object) -> None:
        try:
            if exception is None:
                self._finish()
        finally:
            self._arrays.clear()
            shutil.rmtree(self._unfinished, ignore_errors=True)

    def write(
        self,
        start: int,
        keys: np.ndarray,
        labels: np.ndarray,
        sentence_ids: np.ndarray,
        positions: np.ndarray,
        weights: np.ndarray | None = None,
    ) -> None:
        """Write m entries to rows start to start + m - 1.

        Args:
            start: first row, counted from `first_row`.
            keys: (m, dim) float; rounded to the type of the datastore.
            labels: (m,) int, indices into the label list.
            sentence_ids: (m,) int, ids of sentences that `add_sentence` gets.
            positions: (m,) int, index of the word in its sentence; -1 for special tokens.
            weights: (m,) float, how many entries each stands for; 1 if None.

        Raises:
            UserError: if a key is not finite in the type of the datastore.
        """
        start += self.first_row
        stop = start + len(keys)
        if not 0 <= start <= stop <= self.entries or self._written[start:stop].any():
            raise ValueError(
                f"rows {start} to {stop} of {self.entries}: outside, or written before"
            )
        if len(labels) and not 0 <= np.min(labels) <= np.max(labels) < len(self.labels):
            raise ValueError(f"label ids outside 0 to {len(self.labels) - 1}")
        with np.errstate(over="ignore"):
            stored = np.asarray(keys, dtype=self.dtype)
        if not np.isfinite(stored).all():
            raise UserError(
                f"{self._folder.parent}: a hidden state holds {np.abs(keys).max():g}, which "
                f"{self.dtype} cannot; store keys as float32, or look for a model that diverged"
            )
        values = [stored, labels, sentence_ids, positions]
        for name, column in zip(ENTRY_ARRAYS, values, strict=False):
            self._arrays[name][start:stop] = column
        if weights is not None:
            if WEIGHTS_FILE not in self._arrays:
                self._arrays[WEIGHTS_FILE] = self._allocate(WEIGHTS_FILE, WEIGHTS_DTYPE)
                self._arrays[WEIGHTS_FILE][:] = 1
            self._arrays[WEIGHTS_FILE][start:stop] = weights
        self._written[start:stop] = True

    def add_sentence(self, sentence_id: int, words: Sequence[str], tags: Sequence[str]) -> None:
        """Add a sentence with its gold tags, so that neighbours can be shown; once for each id."""
        if sentence_id in self._sentences:
            raise ValueError(f"sentence {sentence_id} was given before")
        sentence = {"id": int(sentence_id), "words": list(words), "tags": list(tags)}
        line = json.dumps(sentence, ensure_ascii=False) + "\n"
        # UTF-8 has no lone surrogates, which JSON allows: they are written as escapes.
        self._sentences[sentence_id] = line.encode("utf-8", "backslashreplace")

    def _allocate(self, name: str, dtype: str) -> np.memmap:
        shape = (self.entries, self.dim) if name == KEYS_FILE else (self.entries,)
        file = self._unfinished / name
        array = np.lib.format.open_memmap(file, mode="w+", dtype=np.dtype(dtype), shape=shape)
        # Space is reserved now: on a full disk, writing to a mapped page would kill the process.
        with file.open("r+b") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise UserError(
                    f"{file}: no space left for {file.stat().st_size} bytes; free some, then run "
                    "the same command again"
                ) from None
        return array

    def _finish(self) -> None:
        if not self._written.all():
            raise ValueError(f"row {self._written.argmin()} of {self.entries} was never written")
        ids = sorted(self._sentences)
        if not np.isin(self._arrays["sentence_ids.npy"], ids).all():
            raise ValueError("an entry's sentence was not given to add_sentence")
        for start in range(0, self.entries, NORM_ROWS):
            # Each row is summed on its own, so equal keys get equal norms.
            squares = np.square(
                self._arrays[KEYS_FILE][start : start + NORM_ROWS], dtype=np.float64
            )
            self._arrays["norms.npy"][start : start + NORM_ROWS] = np.sqrt(squares.sum(axis=1))
        (self._unfinished / SENTENCES_FILE).write_bytes(
            b"".join(self._sentences[sentence_id] for sentence_id in ids)
        )
        sizes = [len(self._sentences[sentence_id]) for sentence_id in ids]
        index = np.array([ids, np.cumsum([0, *sizes])[:-1], sizes], dtype=np.int64).T
        np.save(self._unfinished / SENTENCE_INDEX_FILE, np.ascontiguousarray(index))

        files = [*SHARD_FILES, *([WEIGHTS_FILE] if WEIGHTS_FILE in self._arrays else [])]
        paths = {name: self._unfinished / name for name in files}
        # In parallel, because file systems then write their journal once and not once for each file.
        with ThreadPoolExecutor(len(paths) + 1) as pool:
            list(pool.map(fsync_path, [self._unfinished, *paths.values()]))
        labels, counts = np.unique(self._arrays["labels.npy"], return_counts=True)
        self.record = ShardRecord(
            folder=self._folder.name,
            entries=self.entries,
            sentences=len(ids),
            labels={
                self.labels[label]: int(count) for label, count in zip(labels, counts, strict=True)
            },
            files={
                name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
                for name, path in paths.items()
            },
        )
        self._unfinished.replace(self._folder)
        fsync_path(self._folder.parent)
