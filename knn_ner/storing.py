"""Labelled sentences to keys: what building a datastore and adding to one share."""

import argparse
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from knn_ner.data.corpus import Sentence
from knn_ner.data.encoding import IGNORED
from knn_ner.data.loading import first_rows
from knn_ner.model.representations import choose_device, represent
from knn_ner.pipeline import LoadedTagger
from knn_ner.retrieval.edit import Edit
from knn_ner.retrieval.transforms import KeyRecipe
from knn_ner.retrieval.writer import DatastoreWriter


def write_shard(
    writer: DatastoreWriter | Edit,
    number: int,
    tagger: LoadedTagger,
    sentences: Sequence[Sentence],
    first: int,
    settings: argparse.Namespace,
    progress: tqdm,
    recipe: KeyRecipe,
) -> None:
    """Write the pieces of a run of sentences, whose ids begin with `first`, as a shard.

    Batches come by length; the rows are written in the order of the corpus, so that the store does not
    depend on the batch size.
    """
    chunk = tagger.encoding.encode(sentences)
    labels = np.concatenate([sentence.labels for sentence in chunk])
    positions = np.concatenate([sentence.word_of_piece for sentence in chunk])
    ids = first + np.repeat(np.arange(len(chunk)), np.diff(first_rows(chunk)))
    stored = labels != IGNORED
    entry = np.cumsum(stored) - 1
    begins = np.zeros(len(labels), dtype=bool)
    begins[first_rows(chunk)[:-1]] = True
    with writer.shard(number, int(stored.sum())) as shard:
        for offset, sentence in enumerate(sentences):
            shard.add_sentence(first + offset, sentence.words, sentence.tags)
        for batch in represent(
            tagger.model,
            chunk,
            pad_id=tagger.tokenizer.pad_token_id,
            max_length=tagger.max_length,
            batch_size=settings.batch_size,
            device=choose_device(settings.device),
            precision=settings.precision,
            workers=settings.workers,
            recipe=recipe,
        ):
            rows = batch.rows.numpy()
            progress.update(int(begins[rows].sum()))
            kept = stored[rows]
            rows, keys = rows[kept], batch.keys().cpu().numpy()[kept]
            # One write for each window, whose rows follow each other.
            borders = np.flatnonzero(np.diff(entry[rows]) != 1) + 1
            for run, run_keys in zip(np.split(rows, borders), np.split(keys, borders), strict=True):
                if len(run):
                    shard.write(entry[run[0]], run_keys, labels[run], ids[run], positions[run])
