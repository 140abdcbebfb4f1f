"""Editing a datastore: sentences are added, removed and relabelled without a new build.

Shards never change. Added sentences become a new shard. Removed sentences are listed in a file beside their shard
(`Removal`), and readers leave them out. Relabelled sentences are removed and added again, with their keys and ids. An
edit joins small shards at the end when they become many; `compaction.py` drops removed entries from the files.
`Edit.commit` replaces the manifest: before it, the datastore is unchanged, even if the process dies.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from knn_ner.datastore.folder import (
    REMOVAL_PREFIX,
    SHARD_PREFIX,
    remove_unnamed,
    unfinished_build,
    unique_id,
)
from knn_ner.datastore.locking import WAIT_SECONDS, FolderLock
from knn_ner.datastore.manifest import Manifest, Removal, ShardRecord, append_commit
from knn_ner.datastore.reader import Datastore
from knn_ner.datastore.shard_copy import copy_entries, small_tail
from knn_ner.datastore.shard_writer import ShardWriter
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import fsync_path


@dataclass(frozen=True)
class NewLabels:
    """New labels of a stored sentence.

    Attributes:
        tags: the tags of its words.
        label_ids: (m,) int, the labels of its entries, in their order.
        positions: (m,) int, the positions of its entries, as in `Datastore`.
    """

    tags: Sequence[str]
    label_ids: np.ndarray
    positions: np.ndarray


class Edit:
    """A change of a datastore: a context manager that holds the lock of the folder.

    Readers see the change after `commit`. Without a commit, the end of the context discards it.

    Args:
        path: the folder of the datastore.
        wait: seconds to wait for another process that is writing to the datastore.

    Attributes:
        manifest: the manifest when the edit began.
        labels: the label list, which `add_labels` extends.
        next_sentence: id of the next new sentence; the caller raises it for each added sentence.
        shards: the shards of the changed datastore, in order.

    Raises:
        UserError: if there is no datastore, it cannot be written, or the other process does not finish in time.
    """

    def __init__(self, path: str | Path, wait: float = WAIT_SECONDS):
        self.path = Path(path)
        # Read first, so that no lock file is made in a folder without a datastore.
        Manifest.read(self.path)
        self._lock = FolderLock(self.path, wait)
        try:
            # Read again, because another process may have committed meanwhile.
            self.manifest = Manifest.read(self.path)
            self._build = unfinished_build(self.path).get("build")
        except BaseException:
            self._lock.close()
            raise
        self._id = unique_id()
        self.labels = list(self.manifest.labels)
        self.next_sentence = self.manifest.next_sentence
        self.shards = list(self.manifest.shards)

    def __enter__(self) -> "Edit":
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.clean(partly=True)

    @cached_property
    def store(self) -> Datastore:
        """The datastore when the edit began."""
        return Datastore(self.path, self.manifest)

    def add_labels(self, labels: Iterable[str]) -> None:
        """Append labels to the label list if they are new; known labels keep their ids."""
        self.labels += [label for label in dict.fromkeys(labels) if label not in self.labels]

    @contextmanager
    def shard(self, number: int, entries: int) -> Iterator[ShardWriter]:
        """Append entries as a new shard, joined with the last shards if these are small and many.

        Args:
            number: a number that no other shard of this edit has.
            entries: number of entries.
        """
        changed = replace(
            self.manifest, shards=self.shards, labels=self.labels, next_sentence=self.next_sentence
        )
        first = len(self.shards) - small_tail(changed, entries)
        tail = Datastore(self.path, replace(changed, shards=self.shards[first:]))
        with self.new_shard(number, tail.entries + entries) as shard:
            copy_entries(tail, shard)
            shard.first_row = tail.entries
            yield shard
        self.shards[first:] = [shard.record]

    def new_shard(self, number: int, entries: int) -> ShardWriter:
        """Return the writer of a new shard; the caller adds its record to `shards`."""
        folder = self.path / f"{SHARD_PREFIX}{number:05d}-{self._id}"
        return ShardWriter(folder, entries, self.manifest.dim, self.manifest.dtype, self.labels)

    def sentence(self, sentence_id: int) -> dict:
        """Return a sentence as it was when the edit began; raises UserError for an unknown id."""
        try:
            return self.store.sentence(sentence_id)
        except KeyError:
            raise self._unknown(sentence_id) from None

    def remove(self, ids: Iterable[int]) -> tuple[int, int]:
        """Remove sentences that were stored when the edit began; the first change of an edit.

        Returns:
            The numbers of removed sentences and entries.

        Raises:
            UserError: for an unknown id, or if the datastore is pruned.
        """
        if self.manifest.pruned:
            raise UserError(
                f"{self.path}: is pruned, so that its entries stand for other sentences' too; change the "
                "datastore that it was made from, and prune that again"
            )
        removed = np.unique(np.fromiter(ids, np.int64))
        unknown = removed[~np.isin(removed, self.store.stored_sentences)]
        if len(unknown):
            raise self._unknown(unknown[0])
        gone = np.isin(self.store.sentence_ids, removed)
        shards: list[ShardRecord] = []
        for number, record in enumerate(self.manifest.shards):
            entries, stored = self.store.of_shard(number)
            own = np.intersect1d(stored, removed)
            if len(own):
                label_ids = self.store.label_ids[entries][gone[entries]]
                record = self._with_removal(number, record, own, label_ids)
            if record.live_sentences:
                shards.append(record)
        self.shards = shards
        return len(removed), int(gone.sum())

    def relabel(self, changes: Mapping[int, NewLabels]) -> int:
        """Give stored sentences new labels, and keep their keys and ids; the only change of an edit.

        Args:
            changes: new labels by sentence id; label ids index `labels`.

        Returns:
            The number of relabelled entries.

        Raises:
            UserError: for an unknown id, or if the entries of a sentence have other positions.
        """
        _, entries = self.remove(changes)
        wanted = sorted(changes)
        ids = self.store.sentence_ids
        rows = np.flatnonzero(np.isin(ids, wanted))
        rows = rows[np.argsort(ids[rows], kind="stable")]
        borders = np.searchsorted(ids[rows], wanted[1:])
        with self.shard(0, entries) as shard:
            start = 0
            for sentence_id, own in zip(wanted, np.split(rows, borders), strict=True):
                change, positions = changes[sentence_id], self.store.positions[own]
                if not np.array_equal(positions, change.positions):
                    raise UserError(
                        f"{self.path}: sentence {sentence_id} is stored in {len(own)} word pieces, "
                        f"which are not the {len(change.positions)} that it has now; remove it and "
                        "add it again"
                    )
                shard.write(start, self.store.gather(own), change.label_ids, ids[own], positions)
                words = self.store.sentence(sentence_id)["words"]
                shard.add_sentence(sentence_id, words, change.tags)
                start += len(own)
        return entries

    def commit(self, action: str, sentences: int, entries: int) -> Manifest:
        """Make the change the content of the datastore in one step; the last call of an edit.

        Args:
            action: the action in the history.
            sentences: number of affected sentences.
            entries: number of affected entries.
        """
        manifest = replace(
            self.manifest,
            labels=self.labels,
            shards=self.shards,
            next_sentence=self.next_sentence,
            history=append_commit(self.manifest.history, action, sentences, entries),
        )
        manifest.write(self.path)
        return manifest

    def clean(self, partly: bool = False) -> None:
        """Remove files that the datastore does not need, or only a part of them."""
        remove_unnamed(self.path, self._build, partly=partly)

    def _with_removal(
        self, number: int, record: ShardRecord, ids: np.ndarray, label_ids: np.ndarray
    ) -> ShardRecord:
        """Return the record of a shard after the removal of sentences, whose entries have these labels."""
        labels = Counter(self.labels[label] for label in label_ids.tolist())
        entries, before = len(label_ids), record.removed
        if before:
            ids = np.union1d(ids, np.load(self.path / before.file))
            labels, entries = labels + Counter(before.labels), entries + before.entries
        file = self.path / f"{REMOVAL_PREFIX}{number:05d}-{self._id}.npy"
        np.save(file, ids.astype(np.int32))
        fsync_path(file)
        removed = Removal.of(file, entries=entries, sentences=len(ids), labels=dict(labels))
        return replace(record, removed=removed)

    def _unknown(self, sentence_id: int) -> UserError:
        return UserError(
            f"{self.path}: no sentence {sentence_id}; ids were given from 0 to "
            f"{self.manifest.next_sentence - 1}, less what was removed since"
        )


def remove_sentences(
    path: str | Path, ids: Iterable[int], wait: float = WAIT_SECONDS, *, allow_all: bool = False
) -> int:
    """Remove sentences from a datastore in one commit.

    Args:
        path: the folder of the datastore.
        ids: the ids of the sentences.
        wait: seconds to wait for another process that is writing to the datastore.
        allow_all: whether the last sentences may be removed, so that the datastore is empty.

    Returns:
        The number of removed entries.

    Raises:
        UserError: as `Edit`, for an unknown id, and if no sentence would be left; then nothing is removed.
    """
    ids = set(ids)
    if not ids:
        return 0
    with Edit(path, wait) as edit:
        sentences, entries = edit.remove(ids)
        if sentences == edit.manifest.sentences and not allow_all:
            raise UserError(
                f"{path}: all {sentences} sentences would be removed; give --all if that is meant"
            )
        edit.commit("remove", sentences, entries)
    return entries
