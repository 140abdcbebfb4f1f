"""Labelled sentences to the keys of a datastore: whole stores, and single shards."""

import hashlib
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from knn_ner.data.batching import first_rows, sentence_chunks
from knn_ner.data.corpus import Sentence
from knn_ner.data.encoding import IGNORED
from knn_ner.datastore.compaction import transform_keys
from knn_ner.datastore.edit import Edit
from knn_ner.datastore.fit_transform import fit_transform
from knn_ner.datastore.key_transform import NONE, KeyRecipe, parse_transform
from knn_ner.datastore.locking import FolderLock
from knn_ner.datastore.manifest import MANIFEST_FILE, Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.datastore.writer import DatastoreWriter, is_built
from knn_ner.model.key_layers import canonical_layer, layer_width
from knn_ner.parallel.process_group import ProcessGroup
from knn_ner.settings import KeySettings, RunSettings
from knn_ner.tagging.trained_tagger import TrainedTagger
from knn_ner.utils.errors import UserError

logger = logging.getLogger(__name__)

# Folder in the store's for keys as the encoder gives them, until the transform is fitted on them.
UNTRANSFORMED = "untransformed"


@dataclass(frozen=True)
class KeyFormat:
    """Form and origin of a store's keys, and the name of the build.

    Attributes:
        dim: width of a key.
        dtype: type of the stored keys, `float16` or `float32`.
        provenance: what the keys are made with: the tagger's provenance and the layer.
        fingerprint: equal for two builds only if they write the same shards.
    """

    dim: int
    dtype: str
    provenance: dict[str, Any]
    fingerprint: str


def store_sentences(
    path: str | Path,
    tagger: TrainedTagger,
    sentences: Sequence[Sentence],
    keys: KeySettings,
    run: RunSettings,
    *,
    shard_words: int,
    replace_edited: bool = False,
    group: ProcessGroup,
) -> dict[str, Any]:
    """Build a datastore of labelled sentences, or finish building it.

    A transform is fitted on all keys. They are written without it to a folder in the store's first; a store that
    is there already stays in use until the new one is finished.

    Args:
        path: the datastore's folder.
        tagger: makes the keys.
        sentences: what to store; a sentence's id is its place here.
        keys: layer, transform and type of the keys.
        run: how the encoder runs.
        shard_words: words in a shard, at most.
        replace_edited: whether to replace a store that was edited since it was built.
        group: the processes that share the work, each of which calls this.

    Returns:
        Counts, bytes and seconds; empty in all processes but the first.

    Raises:
        UserError: for a layer or transform that the tagger does not have, an edited store, or a folder that cannot
            be written.
    """
    start = time.perf_counter()
    path = Path(path)
    layer, transform = canonical_layer(keys.key_layer), keys.key_transform
    width = layer_width(tagger.model, layer)
    provenance = tagger.provenance | {"layer": layer}
    content = [provenance, tagger.max_length, keys.key_dtype, run.precision, shard_words]
    raw_fingerprint = fingerprint = _fingerprint(content, sentences)
    if transform != NONE:
        parse_transform(transform, width)
        fingerprint = hashlib.sha256(f"{fingerprint} {transform}".encode()).hexdigest()
    group.check_same("corpus, tagger or setting", fingerprint)
    edits = _edits_of(path)
    store = _present_store(path, fingerprint, edits, replace_edited) if group.rank == 0 else None
    (there,) = group.broadcast([store is not None])
    if there:
        return _summary(store, start) if store else {}

    check = partial(_check_unchanged, path, edits)
    write = partial(
        write_keys, tagger=tagger, sentences=sentences, run=run, check=check, group=group
    )
    if transform == NONE:
        key_format = KeyFormat(width, keys.key_dtype, provenance, fingerprint)
        write(path, key_format=key_format, shard_words=shard_words)
    else:
        raw = path / UNTRANSFORMED
        (there,) = group.broadcast([is_built(raw, raw_fingerprint)])
        if not there:
            # Keys that are transformed are rounded once, after it.
            key_format = KeyFormat(width, "float32", provenance, raw_fingerprint)
            write(raw, key_format=key_format, shard_words=shard_words)
        if group.rank == 0:
            source = Datastore.open(raw)
            fitted = fit_transform(source, transform)
            check()
            transform_keys(source, path, fitted, keys.key_dtype, fingerprint)
    if group.rank:
        return {}
    _remove_untransformed(path)
    return _summary(Datastore.open(path), start)


def write_keys(
    path: Path,
    tagger: TrainedTagger,
    sentences: Sequence[Sentence],
    run: RunSettings,
    key_format: KeyFormat,
    shard_words: int,
    check: Callable[[], None],
    group: ProcessGroup,
) -> None:
    """Write the store of these sentences, without a transform, or what is missing of it.

    Args:
        path: the store's folder.
        tagger: makes the keys.
        sentences: what to store.
        run: how the encoder runs.
        key_format: form and origin of the keys.
        shard_words: words in a shard, at most.
        check: called under the folder's lock; raises `UserError` if nothing is to be written.
        group: the processes, which take turns: the shards are the same for any number of them.
    """
    # Pieces are made shard by shard, so that of a large corpus only the words are held.
    chunks = list(sentence_chunks(sentences, shard_words))
    starts = np.cumsum([0, *map(len, chunks)])
    how = {
        "dim": key_format.dim,
        "dtype": key_format.dtype,
        "provenance": key_format.provenance,
        "fingerprint": key_format.fingerprint,
        "labels": tagger.labels,
        "shards": len(chunks),
    }
    recipe = KeyRecipe(key_format.provenance["layer"])
    with (
        _shared_writer(path, how, group) as writer,
        tqdm(total=len(sentences), unit="sentence", desc="build") as progress,
    ):
        if group.rank == 0:
            check()
        if writer.resumed:
            logger.info(f"{path}: {writer.resumed} of {len(chunks)} shards are finished already")
        if writer.discarded:
            logger.info(f"{path}: {writer.discarded} shards of another, unfinished build removed")
        todo = group.broadcast([n for n in range(len(chunks)) if not writer.finished(n)])
        progress.update(len(sentences) - sum(len(chunks[number]) for number in todo))
        for turn in range(0, len(todo), group.size):
            others = 0
            for rank, number in enumerate(todo[turn : turn + group.size]):
                chunk, first = chunks[number], int(starts[number])
                if rank == group.rank:
                    write_shard(writer, number, tagger, chunk, first, run, progress, recipe)
                else:
                    others += len(chunk)
            group.barrier()
            progress.update(others)
        if group.rank == 0:
            writer.commit(wait=group.size > 1)
    # After this, no process holds the folder's lock.
    group.barrier()


def write_shard(
    writer: DatastoreWriter | Edit,
    number: int,
    tagger: TrainedTagger,
    sentences: Sequence[Sentence],
    first: int,
    run: RunSettings,
    progress: tqdm,
    recipe: KeyRecipe,
) -> None:
    """Write the pieces of a run of sentences as a shard.

    Batches come by length; the rows are written in the order of the corpus, so that the store does not depend on
    the batch size.

    Args:
        writer: of the store.
        number: the shard's number.
        tagger: makes the keys.
        sentences: what to store.
        first: the id of the first sentence; the others follow.
        run: how the encoder runs.
        progress: a bar that advances by the number of sentences.
        recipe: what keys are made of.
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
        for batch in tagger.hidden_states(chunk, run, recipe):
            rows = batch.rows.numpy()
            progress.update(int(begins[rows].sum()))
            kept = stored[rows]
            rows, keys = rows[kept], batch.keys().cpu().numpy()[kept]
            # One write for each window, whose rows follow each other.
            borders = np.flatnonzero(np.diff(entry[rows]) != 1) + 1
            for run_rows, run_keys in zip(
                np.split(rows, borders), np.split(keys, borders), strict=True
            ):
                if len(run_rows):
                    shard.write(
                        entry[run_rows[0]],
                        run_keys,
                        labels[run_rows],
                        ids[run_rows],
                        positions[run_rows],
                    )


def _present_store(
    path: Path, fingerprint: str, edits: str, replace_edited: bool
) -> Datastore | None:
    """The store that is to be built, if it is there already and whole.

    Raises:
        UserError: if the store that is there was edited, which the build would undo.
    """
    if edits and not replace_edited:
        raise UserError(
            f"{path}: was changed since it was built ({edits}), which building it would undo; "
            "build into another folder, or give --replace_edited"
        )
    if edits:
        logger.info(
            f"{path}: was changed since it was built ({edits}), which is lost by this build"
        )
    if (path / MANIFEST_FILE).is_file():
        try:
            store = Datastore.open(path)
            if store.fingerprint == fingerprint and not edits:
                store.verify()
                logger.info(f"{path}: this datastore is there already, and whole")
                return store
            logger.info(
                f"{path}: holds another datastore, which is replaced when this one is finished"
            )
        except UserError as damage:
            logger.info(f"{damage}, which is what happens now")
    return None


@contextmanager
def _shared_writer(
    path: Path, how: dict[str, Any], group: ProcessGroup
) -> Iterator[DatastoreWriter]:
    """The writer of a build that process 0 begins or continues, and that the others join."""
    if group.rank:
        (build,) = group.broadcast([])
        with DatastoreWriter(path, **how, join=f"{build:08x}") as writer:
            yield writer
        return
    with DatastoreWriter(path, **how) as writer:
        if group.size > 1:
            writer.share()
        group.broadcast([int(writer.build, 16)])
        yield writer


def _check_unchanged(path: Path, edits: str) -> None:
    """Raise `UserError` unless `_edits_of` a datastore is still the same."""
    if _edits_of(path) != edits:
        raise UserError(f"{path}: was changed just now; look at it, then build again")


def _remove_untransformed(path: Path) -> None:
    """Remove what a build with a transform leaves in a store's folder, unless a process writes it now."""
    raw = path / UNTRANSFORMED
    if raw.is_dir():
        try:
            with FolderLock(raw):
                shutil.rmtree(raw)
        except UserError as busy:
            logger.info(f"{busy}; left as it is")


def _edits_of(path: Path) -> str:
    """How a datastore was edited since it was built, in words; empty if it was not, or there is none."""
    try:
        edits = Manifest.read(path).edits
    except UserError:
        return ""
    sentences: Counter[str] = Counter()
    for commit in edits:
        sentences[commit.action] += commit.sentences
    return ", ".join(f"{action} {count}" for action, count in sentences.items()) + (
        " sentences" if edits else ""
    )


def _fingerprint(content: list[Any], sentences: Sequence[Sentence]) -> str:
    """Name of a build: equal only if the same shards would be written."""
    digest = hashlib.sha256()
    digest.update(json.dumps(content, sort_keys=True).encode())
    for sentence in sentences:
        digest.update(json.dumps([sentence.words, sentence.tags]).encode())
    return digest.hexdigest()


def _summary(store: Datastore, start: float) -> dict[str, Any]:
    """What a build reports of a store."""
    manifest = store.manifest
    return {
        "entries": manifest.entries,
        "sentences": manifest.sentences,
        "dim": manifest.dim,
        "dtype": manifest.dtype,
        "bytes": sum(file["bytes"] for shard in manifest.shards for file in shard.files.values()),
        "seconds": round(time.perf_counter() - start, 2),
    }
