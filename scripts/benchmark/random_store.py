"""Datastores of random keys."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from knn_ner.datastore.writer import DatastoreWriter

WORDS = "the committee said Tuesday that Lovelace met engineers in Geneva".split() * 3
# A multiple of the words of a sentence: all entries of a sentence are in one shard.
SHARD_ENTRIES = 8000 * len(WORDS)
BLOCK = 300 * len(WORDS)


def write_random_store(
    path: Path, entries: int, dim: int, labels: Sequence[str], provenance: dict[str, Any]
) -> None:
    """Write a datastore of normally distributed float16 keys.

    Args:
        path: folder for the datastore.
        entries: number of entries.
        dim: width of a key.
        labels: the label list; 90% of the entries, and some of the others, have the first label.
        provenance: what the datastore records about the origin of its keys.
    """
    generator = np.random.default_rng(0)
    starts = range(0, entries, SHARD_ENTRIES)
    with (
        DatastoreWriter(
            path,
            dim=dim,
            dtype="float16",
            labels=labels,
            provenance=provenance,
            fingerprint=f"random {entries}",
            shards=len(starts),
        ) as writer,
        tqdm(total=entries, unit="entry", unit_scale=True, desc="random keys") as progress,
    ):
        for number, first in enumerate(starts):
            size = min(SHARD_ENTRIES, entries - first)
            with writer.shard(number, size) as shard:
                for start in range(0, size, BLOCK):
                    places = first + np.arange(start, min(start + BLOCK, size))
                    keys = generator.standard_normal((len(places), dim), dtype=np.float32)
                    label_ids = generator.integers(0, len(labels), len(places))
                    label_ids[generator.random(len(places)) < 0.9] = 0
                    ids, positions = np.divmod(places, len(WORDS))
                    shard.write(start, keys, label_ids, ids, positions)
                    for sentence_id in np.unique(ids).tolist():
                        shard.add_sentence(sentence_id, WORDS, [labels[0]] * len(WORDS))
                    progress.update(len(places))
        writer.commit()
