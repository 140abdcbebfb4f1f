"""Rewriting shards: which small shards are joined, and how entries are copied into a new shard."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from knn_ner.datastore.key_transform import KeyTransform
from knn_ner.datastore.manifest import Manifest, ShardRecord
from knn_ner.datastore.reader import Datastore
from knn_ner.datastore.shard_writer import ShardWriter

# An edit joins the last shards when there would be this many, if their keys take at most so many bytes together. Many
# shards are slow to open (seven files each), and an edit must not rewrite much.
JOINED_SHARDS = 16
JOINED_BYTES = 4 << 20

# Most entries of a joined shard, unless a single source shard has more.
SHARD_ENTRIES = 1 << 17

# Keys that are copied at once.
COPIED_KEYS = 8192


def small_tail(manifest: Manifest, entries: int) -> int:
    """Return how many of the last shards to join with a new shard of some entries; 0 if they are few."""
    room = JOINED_BYTES // (manifest.dim * np.dtype(manifest.dtype).itemsize) - entries
    count = 0
    for record in reversed(manifest.shards):
        room -= record.live_entries
        if room < 0:
            break
        count += 1
    return count if count + 1 >= JOINED_SHARDS else 0


def group_shards(shards: Sequence[ShardRecord]) -> list[list[ShardRecord]]:
    """Group neighbouring shards to rewrite as one shard each: small shards, and shards with removed entries.

    A large shard without removed entries is a group of its own, which need not be rewritten.
    """
    groups: list[list[ShardRecord]] = []
    room = 0
    for record in shards:
        keep = record.removed is None and 2 * record.entries >= SHARD_ENTRIES
        if keep or record.live_entries > room:
            groups.append([])
            room = SHARD_ENTRIES
        groups[-1].append(record)
        room = 0 if keep else room - record.live_entries
    return groups


def copy_entries(
    source: Datastore,
    shard: ShardWriter,
    *,
    label_ids: np.ndarray | None = None,
    first_sentence: int = 0,
    transform: KeyTransform | None = None,
    progress: tqdm | None = None,
) -> None:
    """Write all entries and sentences of `source` to a shard of the same size, in their order.

    Args:
        source: the datastore to copy.
        shard: the shard to write.
        label_ids: (labels of the source,) int, the label ids in the shard; unchanged if None.
        first_sentence: added to each sentence id.
        transform: applied to the keys, if not None.
        progress: a bar that advances by the number of entries.
    """
    if label_ids is None:
        label_ids = np.arange(len(source.labels))
    for start, keys in source.blocks(COPIED_KEYS):
        block = slice(start, start + len(keys))
        shard.write(
            start,
            keys if transform is None else transform.of_array(keys),
            label_ids[source.label_ids[block]],
            source.sentence_ids[block] + first_sentence,
            source.positions[block],
            None if source.weights is None else source.weights[block],
        )
        if progress is not None:
            progress.update(len(keys))
    for sentence in source.sentences():
        shard.add_sentence(sentence["id"] + first_sentence, sentence["words"], sentence["tags"])
