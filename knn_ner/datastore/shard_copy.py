"""Writing the content of shards anew: when small ones are folded, and where whole stores are written."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from knn_ner.datastore.key_transform import KeyTransform
from knn_ner.datastore.manifest import Manifest, ShardRecord
from knn_ner.datastore.reader import Datastore
from knn_ner.datastore.shard_writer import ShardWriter

# Each shard is seven files to open, so that many shards are slow to read; but what is added must not
# wait for much to be rewritten. What would be the last of so many shards is written into one with
# the others, if all their keys together take no more than so many bytes.
FOLDED_SHARDS = 16
FOLDED_BYTES = 4 << 20

# Entries of a shard that is written anew, at most, unless a single one has more.
SHARD_ENTRIES = 1 << 17

# Keys that are copied at once.
COPIED_KEYS = 8192


def small_tail(manifest: Manifest, entries: int) -> int:
    """How many shards at the end to write into one with a new one; 0 as long as they are few."""
    left = FOLDED_BYTES // (manifest.dim * np.dtype(manifest.dtype).itemsize) - entries
    count = 0
    for record in reversed(manifest.shards):
        left -= record.live_entries
        if left < 0:
            break
        count += 1
    return count if count + 1 >= FOLDED_SHARDS else 0


def groups(shards: Sequence[ShardRecord]) -> list[list[ShardRecord]]:
    """Which neighbouring shards to write as one: those that are small, or of which some was removed.

    A group of one shard of which nothing was removed is good as it is.
    """
    grouped: list[list[ShardRecord]] = []
    room = 0
    for record in shards:
        good = record.removed is None and 2 * record.entries >= SHARD_ENTRIES
        if good or record.live_entries > room:
            grouped.append([])
            room = SHARD_ENTRIES
        grouped[-1].append(record)
        room = 0 if good else room - record.live_entries
    return grouped


def copy_entries(
    source: Datastore,
    shard: ShardWriter,
    *,
    label_ids: np.ndarray | None = None,
    first_sentence: int = 0,
    transform: KeyTransform | None = None,
    progress: tqdm | None = None,
) -> None:
    """Write all entries and sentences of `source` to a shard of as many entries, in their order.

    Args:
        label_ids: (labels of the source,) int, their ids in the shard; the same if not given.
        first_sentence: what sentence ids are raised by.
        transform: what the keys go through; the same keys if not given.
        progress: a bar that is moved on by the number of entries.
    """
    if label_ids is None:
        label_ids = np.arange(len(source.labels))
    for start, keys in source.blocks(COPIED_KEYS):
        block = slice(start, start + len(keys))
        if transform is not None:
            keys = transform.of_array(keys)
        shard.write(
            start,
            keys,
            label_ids[source.label_ids[block]],
            source.sentence_ids[block] + first_sentence,
            source.positions[block],
            None if source.weights is None else source.weights[block],
        )
        if progress is not None:
            progress.update(len(keys))
    for sentence in source.sentences():
        shard.add_sentence(sentence["id"] + first_sentence, sentence["words"], sentence["tags"])
