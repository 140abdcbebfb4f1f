"""Writing one shard of a datastore into memory-mapped files."""

import errno
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from knn_ner.datastore.manifest import (
    ENTRY_ARRAYS,
    SENTENCE_INDEX_FILE,
    SENTENCES_FILE,
    SHARD_FILES,
    WEIGHTS_DTYPE,
    WEIGHTS_FILE,
    ShardRecord,
    checksum,
    sync,
)
from knn_ner.utils.errors import UserError

UNFINISHED_PREFIX = ".unfinished-"

# Rows whose squares are held at once, in float64, while norms are computed.
NORM_ROWS = 4096


class ShardWriter:
    """One shard while it is written: a context manager, made by a `DatastoreWriter` or an `Edit`.

    Rows and sentences may come in any order: the files that result are the same. They lie in a
    folder of their own until leaving the context finishes the shard, or removes it after an
    exception.

    Args:
        folder: the shard's folder when it is finished.
        entries: number of rows.
        dim: width of the keys.
        dtype: type of the keys, "float16" or "float32".
        labels: the label list that label ids index.

    Attributes:
        first_row: from where rows are counted; what comes before is written already.
        record: what a manifest says of it, once it is finished.
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
            name: self._allocate(name, np.dtype(dtype or self.dtype))
            for name, dtype in ENTRY_ARRAYS.items()
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
            start: first row in this shard, counted from `first_row`.
            keys: (m, dim) float; rounded to the store's type.
            labels: (m,) int, indices into the label list.
            sentence_ids: (m,) int, ids of sentences given to `add_sentence`.
            positions: (m,) int, the index of the word in its sentence; -1 for special tokens.
            weights: (m,) float, how many entries each stands for; one, if not given.

        Raises UserError if a key is not finite in the store's type.
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
        self._arrays["keys.npy"][start:stop] = stored
        self._arrays["labels.npy"][start:stop] = labels
        self._arrays["sentence_ids.npy"][start:stop] = sentence_ids
        self._arrays["positions.npy"][start:stop] = positions
        if weights is not None:
            if WEIGHTS_FILE not in self._arrays:
                self._arrays[WEIGHTS_FILE] = self._allocate(WEIGHTS_FILE, np.dtype(WEIGHTS_DTYPE))
                self._arrays[WEIGHTS_FILE][:] = 1
            self._arrays[WEIGHTS_FILE][start:stop] = weights
        self._written[start:stop] = True

    def add_sentence(self, sentence_id: int, words: Sequence[str], tags: Sequence[str]) -> None:
        """Keep a sentence and its gold tags, so that a neighbour can be shown; once for an id."""
        if sentence_id in self._sentences:
            raise ValueError(f"sentence {sentence_id} was given before")
        sentence = {"id": int(sentence_id), "words": list(words), "tags": list(tags)}
        line = json.dumps(sentence, ensure_ascii=False) + "\n"
        # A lone surrogate, which a JSON file may hold and UTF-8 may not, is kept as its escape.
        self._sentences[sentence_id] = line.encode("utf-8", "backslashreplace")

    def _allocate(self, name: str, dtype: np.dtype) -> np.memmap:
        shape = (self.entries, self.dim) if name == "keys.npy" else (self.entries,)
        file = self._unfinished / name
        array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
        # Reserved now: on a full disk, writing to a mapped page would kill the process.
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
            # Row by row the same, however many rows there are: equal keys must get equal norms.
            squares = np.square(
                self._arrays["keys.npy"][start : start + NORM_ROWS], dtype=np.float64
            )
            self._arrays["norms.npy"][start : start + NORM_ROWS] = np.sqrt(squares.sum(axis=1))
        labels, counts = np.unique(self._arrays["labels.npy"], return_counts=True)
        sizes = [len(self._sentences[sentence_id]) for sentence_id in ids]
        starts = np.cumsum([0, *sizes[:-1]]) if ids else []
        with (self._unfinished / SENTENCES_FILE).open("wb") as stream:
            stream.writelines(self._sentences[sentence_id] for sentence_id in ids)
        index = np.array([ids, starts, sizes], dtype=np.int64).T
        np.save(self._unfinished / SENTENCE_INDEX_FILE, np.ascontiguousarray(index))

        # All at once: file systems then write their journal once, not once for each.
        names = [*SHARD_FILES, *([WEIGHTS_FILE] if WEIGHTS_FILE in self._arrays else [])]
        with ThreadPoolExecutor(len(names) + 1) as pool:
            written = [self._unfinished / name for name in names]
            list(pool.map(sync, [self._unfinished, *written]))
        files = {
            name: {
                "bytes": (self._unfinished / name).stat().st_size,
                "sha256": checksum(self._unfinished / name),
            }
            for name in names
        }
        self.record = ShardRecord(
            folder=self._folder.name,
            entries=self.entries,
            sentences=len(ids),
            labels={
                self.labels[label]: int(count) for label, count in zip(labels, counts, strict=True)
            },
            files=files,
        )
        self._unfinished.replace(self._folder)
        sync(self._folder.parent)
