"""Small datastores for tests of retrieval."""

from pathlib import Path

import numpy as np

from knn_ner.datastore.reader import Datastore
from knn_ner.datastore.writer import DatastoreWriter

LABELS = ["O", "B-PER", "M-PER", "E-PER", "S-LOC"]


def open_writer(path: Path, keys: np.ndarray, cut: int, **settings) -> DatastoreWriter:
    """A writer for shards of `cut` rows of `keys`; settings as for DatastoreWriter, all with defaults."""
    defaults = {
        "dim": keys.shape[1],
        "dtype": "float32",
        "labels": LABELS,
        "provenance": {"model": "m1", "layer": "last"},
        "fingerprint": "build 1",
        "shards": -(-len(keys) // cut),
    }
    return DatastoreWriter(path, **(defaults | settings))


def write_shard(
    writer: DatastoreWriter,
    number: int,
    keys: np.ndarray,
    label_ids: np.ndarray,
    cut: int,
    order: np.ndarray | None = None,
) -> None:
    """Rows number * cut onwards, five to a sentence, one by one in `order`."""
    keys, label_ids = keys[number * cut :][:cut], label_ids[number * cut :][:cut]
    rows = np.arange(len(keys)) + number * cut
    order = np.arange(len(keys)) if order is None else order
    sentences = list(dict.fromkeys((rows[order] // 5).tolist()))
    with writer.shard(number, len(keys)) as shard:
        for row in order:
            one = slice(row, row + 1)
            shard.write(row, keys[one], label_ids[one], rows[one] // 5, rows[one] % 5 - 1)
        for sentence in sentences:
            words = [f"词{sentence}", "a\tb", "\U0001f600", "w"]
            shard.add_sentence(sentence, words, ["O", "O", "B-PER", "E-PER"])


def write_store(
    path: Path, keys: np.ndarray, label_ids: np.ndarray, *, cut: int = 100, **settings
) -> Datastore:
    """Write a whole store in shards of `cut` entries, a multiple of five, and open it."""
    with open_writer(path, keys, cut, **settings) as writer:
        for number in range(writer.shards):
            if not writer.finished(number):
                write_shard(writer, number, keys, label_ids, cut)
        writer.commit()
    return Datastore.open(path)


def random_entries(count: int, dim: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Keys (count, dim) float32 and label ids (count,)."""
    generator = np.random.default_rng(seed)
    keys = generator.standard_normal((count, dim)).astype(np.float32)
    return keys, generator.integers(0, len(LABELS), count)
