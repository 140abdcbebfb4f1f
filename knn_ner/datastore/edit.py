"""Changing a datastore without building it anew: sentences added, removed, relabelled.

Shards never change. What is added is a new shard; what is removed is named in a list beside its
shard (`Removal`), which readers leave out; relabelling removes a sentence and adds it again, with
its keys and its id. Small shards at the end are folded into one as they become many, and
`compaction.py` writes anew what `remove` has left behind. `Edit.commit` replaces the manifest: until
then the store is as it was, also if the process dies.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from knn_ner.datastore.locking import (
    REMOVAL_PREFIX,
    SHARD_PREFIX,
    WAIT,
    lock,
    new_name,
    sweep,
    unfinished_build,
)
from knn_ner.datastore.manifest import Manifest, Removal, ShardRecord, checksum, committed, sync
from knn_ner.datastore.reader import Datastore
from knn_ner.datastore.shard_copy import copy_entries, small_tail
from knn_ner.datastore.shard_writer import ShardWriter
from knn_ner.utils.errors import UserError


@dataclass(frozen=True)
class NewLabels:
    """What a stored sentence is to be labelled with.

    tags: of its words. label_ids, positions: (m,) int, of its entries, in their order; positions as
    in `Datastore`.
    """

    tags: Sequence[str]
    label_ids: np.ndarray
    positions: np.ndarray


class Edit:
    """One change of the datastore in folder `path`: a context manager, which holds the folder's lock.

    Readers see nothing of it until `commit`; without that, nothing of it stays.

    Args:
        path: the folder.
        wait: seconds to wait for another process that is writing to the store.

    Attributes:
        manifest: the store when the lock was taken.
        store: the same, opened (when it is first asked for).
        labels: the label list, which `add_labels` extends.
        next_sentence: the id that the next new sentence gets; whoever adds one raises it.
        shards: what the store will consist of, in this order.

    Raises UserError if there is no datastore, it cannot be written, or another process has not
    finished in time.
    """

    def __init__(self, path: str | Path, wait: float = WAIT):
        self.path = Path(path)
        # Before a lock is made in a folder that holds no store.
        Manifest.read(self.path)
        self._lock = lock(self.path, wait)
        try:
            # What another process has committed meanwhile is kept.
            self.manifest = Manifest.read(self.path)
            self._build = unfinished_build(self.path).get("build")
        except BaseException:
            self._lock.close()
            raise
        self._name = new_name()
        self.labels = list(self.manifest.labels)
        self.next_sentence = self.manifest.next_sentence
        self.shards = list(self.manifest.shards)

    def __enter__(self) -> "Edit":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.clean(some=True)
        finally:
            self._lock.close()

    @cached_property
    def store(self) -> Datastore:
        return Datastore(self.path, self.manifest)

    def add_labels(self, labels: Iterable[str]) -> list[str]:
        """Append the labels that the list lacks; those there keep their ids. Returns the new ones."""
        new = [label for label in dict.fromkeys(labels) if label not in self.labels]
        self.labels += new
        return new

    @contextmanager
    def shard(self, number: int, entries: int) -> Iterator[ShardWriter]:
        """Write `entries` entries, which come after all others.

        They are a shard of their own, or one with the last shards if these are small and many.

        number: any that was not given before in this edit.
        """
        now = replace(self.manifest, shards=self.shards)
        tail = small_tail(now, entries)
        small = Datastore(self.path, replace(now, shards=self.shards[len(self.shards) - tail :]))
        with self.new_shard(number, small.entries + entries) as shard:
            copy_entries(small, shard)
            shard.first_row = small.entries
            yield shard
        self.shards[len(self.shards) - tail :] = [shard.record]

    def new_shard(self, number: int, entries: int) -> ShardWriter:
        """A shard that is in none of `shards` yet; its context finishes it."""
        folder = self.path / f"{SHARD_PREFIX}{number:05d}-{self._name}"
        return ShardWriter(folder, entries, self.manifest.dim, self.manifest.dtype, self.labels)

    def sentence(self, sentence_id: int) -> dict:
        """A sentence as it was when the edit began. Raises UserError for an unknown id."""
        try:
            return self.store.sentence(sentence_id)
        except KeyError:
            raise self._unknown(sentence_id) from None

    def remove(self, ids: Iterable[int]) -> tuple[int, int]:
        """Remove sentences that were stored when the edit began; call it first, and once.

        Returns: the number of sentences and of entries. Raises UserError for an unknown id, and for a
        pruned store.
        """
        if self.manifest.pruned:
            raise UserError(
                f"{self.path}: is pruned, so that its entries stand for other sentences' too; change the "
                "datastore that it was made from, and prune that again"
            )
        ids = np.unique(np.fromiter(ids, np.int64))
        unknown = ids[~np.isin(ids, self.store.stored_sentences)]
        if len(unknown):
            raise self._unknown(unknown[0])
        gone = np.isin(self.store.sentence_ids, ids)
        shards: list[ShardRecord] = []
        for number, record in enumerate(self.manifest.shards):
            entries, stored = self.store.of_shard(number)
            here = np.intersect1d(stored, ids)
            if len(here):
                label_ids = self.store.label_ids[entries][gone[entries]]
                record = self._without(number, record, here, label_ids)
            if record.live_sentences:
                shards.append(record)
        self.shards = shards
        return len(ids), int(gone.sum())

    def relabel(self, changes: Mapping[int, NewLabels]) -> int:
        """Give sentences other labels; their keys and ids stay. Nothing else goes with it in an edit.

        changes: by sentence id; label ids index `labels`.

        Returns: the number of entries. Raises UserError for an unknown id, and for a sentence whose
        entries do not have these positions.
        """
        _, entries = self.remove(changes)
        with self.shard(0, entries) as shard:
            start = 0
            for sentence_id, own in self._entries_of(changes):
                change = changes[sentence_id]
                positions = self.store.positions[own]
                if not np.array_equal(positions, change.positions):
                    raise UserError(
                        f"{self.path}: sentence {sentence_id} is stored in {len(own)} word pieces, "
                        f"which are not the {len(change.positions)} that it has now; remove it and "
                        "add it again"
                    )
                ids = np.full(len(own), sentence_id)
                shard.write(start, self.store.gather(own), change.label_ids, ids, positions)
                words = self.store.sentence(sentence_id)["words"]
                shard.add_sentence(sentence_id, words, change.tags)
                start += len(own)
        return entries

    def commit(self, action: str, sentences: int, entries: int) -> Manifest:
        """Make the change the content of the store, in one step; call it last.

        What is not needed any more goes when the context ends; readers that have it open keep it.

        Args:
            action: what the history calls it.
            sentences, entries: to how many it was done.
        """
        manifest = replace(
            self.manifest,
            labels=self.labels,
            shards=self.shards,
            next_sentence=self.next_sentence,
            history=committed(self.manifest.history, action, sentences, entries),
        )
        manifest.write(self.path)
        return manifest

    def clean(self, some: bool = False) -> None:
        """Remove what the store does not need; `some`: a part of it, the rest being left to later edits."""
        sweep(self.path, self._build, some=some)

    def _entries_of(self, ids: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        """The entries of each of these sentences, by id."""
        ids = np.sort(np.fromiter(ids, np.int64))
        rows = np.flatnonzero(np.isin(self.store.sentence_ids, ids))
        rows = rows[np.argsort(self.store.sentence_ids[rows], kind="stable")]
        borders = np.searchsorted(self.store.sentence_ids[rows], ids[1:])
        yield from zip(ids.tolist(), np.split(rows, borders), strict=True)

    def _without(
        self, number: int, record: ShardRecord, ids: np.ndarray, label_ids: np.ndarray
    ) -> ShardRecord:
        """The record of a shard without the sentences `ids`, whose entries have these labels."""
        before = record.removed
        if before:
            ids = np.union1d(ids, np.load(self.path / before.file))
        labels = Counter(self.labels[label] for label in label_ids.tolist())
        file = self.path / f"{REMOVAL_PREFIX}{number:05d}-{self._name}.npy"
        np.save(file, ids.astype(np.int32))
        sync(file)
        return replace(
            record,
            removed=Removal(
                file=file.name,
                bytes=file.stat().st_size,
                sha256=checksum(file),
                entries=len(label_ids) + (before.entries if before else 0),
                sentences=len(ids),
                labels=dict(labels + Counter(before.labels if before else {})),
            ),
        )

    def _unknown(self, sentence_id: int) -> UserError:
        return UserError(
            f"{self.path}: no sentence {sentence_id}; ids were given from 0 to "
            f"{self.manifest.next_sentence - 1}, less what was removed since"
        )


def remove_sentences(path: str | Path, ids: Iterable[int], wait: float = WAIT) -> int:
    """Remove sentences from a datastore by id, in one commit; returns the number of entries removed.

    Raises UserError for an unknown id, and as `Edit` does; then nothing is removed.
    """
    ids = set(ids)
    if not ids:
        return 0
    with Edit(path, wait) as edit:
        sentences, entries = edit.remove(ids)
        edit.commit("remove", sentences, entries)
    return entries
