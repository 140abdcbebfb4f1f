"""Write the hidden states of labelled sentences, with their labels, into a datastore.

    python -m knn_ner.build_datastore --data_dir D --file_name F --model_path S/model --datastore_path P

A build that was interrupted goes on from its finished shards when the same command is given again.
"""

import argparse
import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from knn_ner.cli import Parser, add_data_arguments, add_run_arguments, positive_int, run_main, say
from knn_ner.data.corpus import SPLITS, Sentence, read_corpus
from knn_ner.data.encoding import IGNORED
from knn_ner.data.loading import first_rows, sentence_chunks
from knn_ner.errors import UserError
from knn_ner.model.layers import KNOWN, canonical_layer, layer_width
from knn_ner.model.representations import choose_device, represent
from knn_ner.pipeline import LoadedTagger, load, show_corpus
from knn_ner.retrieval.compaction import transform_keys
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.edit import Edit
from knn_ner.retrieval.folder import lock
from knn_ner.retrieval.manifest import MANIFEST_FILE, Manifest
from knn_ner.retrieval.transforms import NONE, KeyRecipe, fit_transform, parse_transform
from knn_ner.retrieval.writer import DatastoreWriter, is_built

# Folder in the store's for keys as they are, until the transform that is fitted on them made others.
UNTRANSFORMED = "untransformed"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m knn_ner.build_datastore`."""
    parser = Parser(
        "Store the hidden state and the label of every word piece of a split.",
        prog="python -m knn_ner.build_datastore",
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--model_path", required=True, metavar="S/model", help="the tagger: a folder or a hub name"
    )
    parser.add_argument(
        "--datastore_path", required=True, metavar="P", help="folder for the datastore"
    )
    parser.add_argument("--split", choices=SPLITS, default="train", help="the split to store")
    add_key_arguments(parser)
    parser.add_argument(
        "--shard_words", type=positive_int, default=1 << 16, help="words in a shard, at most"
    )
    parser.add_argument(
        "--replace_edited",
        action="store_true",
        help="also replace a datastore that was changed since it was built (knn_ner.datastore)",
    )
    add_run_arguments(parser)
    return parser.parse_args(argv)


def add_key_arguments(parser: argparse.ArgumentParser) -> None:
    """What the keys are, for commands that build a datastore."""
    parser.add_argument(
        "--key_layer",
        default="last",
        metavar="LAYER",
        help=f"the hidden state that becomes a key: {KNOWN}",
    )
    parser.add_argument(
        "--key_transform",
        default=NONE,
        metavar="TRANSFORM",
        help="what keys go through, fitted on them and kept with them: none; whiten (all directions get "
        "the same variance); whiten:D or pca:D (only the D directions with the most variance are kept)",
    )
    parser.add_argument(
        "--key_dtype", choices=("float16", "float32"), default="float16", help="of the stored keys"
    )


def build_datastore(settings: argparse.Namespace) -> dict:
    """Build the datastore; returns counts, bytes and seconds.

    With a transform, which is fitted on all keys, these are first written as they are to a folder in the
    store's, and a store that is there already stays good until the new one is finished.

    Raises `UserError` for bad input.
    """
    start = time.perf_counter()
    path = Path(settings.datastore_path)
    corpus = read_corpus(settings.data_dir, settings.file_name, splits=(settings.split,))
    show_corpus(corpus)
    tagger = load(settings.model_path, settings.max_length, corpus)
    sentences = corpus.splits[settings.split]
    layer, transform = canonical_layer(settings.key_layer), settings.key_transform
    width = layer_width(tagger.model, layer)
    made_with = tagger.made_with | {"layer": layer}
    fingerprint = build_fingerprint(made_with, sentences, tagger.max_length, settings)
    if transform != NONE:
        parse_transform(transform, width)
        untransformed = fingerprint
        fingerprint = hashlib.sha256(f"{fingerprint} {transform}".encode()).hexdigest()
    edits = edits_of(path)
    if edits and not settings.replace_edited:
        raise UserError(
            f"{path}: was changed since it was built ({edits}), which building it would undo; "
            "build into another folder, or give --replace_edited"
        )
    if edits:
        say(f"{path}: was changed since it was built ({edits}), which is lost by this build")
    if (path / MANIFEST_FILE).is_file():
        try:
            store = Datastore.open(path)
            if store.fingerprint == fingerprint and not edits:
                store.verify()
                say(f"{path}: this datastore is there already, and whole")
                return summary(store, start)
            say(f"{path}: holds another datastore, which is replaced when this one is finished")
        except UserError as damage:
            say(f"{damage}, which is what happens now")

    checked = partial(check_unchanged, path, edits)
    if transform == NONE:
        how = {"dim": width, "dtype": settings.key_dtype, "made_with": made_with}
        write_keys(path, tagger, sentences, settings, how | {"fingerprint": fingerprint}, checked)
    else:
        raw = path / UNTRANSFORMED
        # What is transformed is rounded once, after it.
        how = {"dim": width, "dtype": "float32", "made_with": made_with}
        if not is_built(raw, untransformed):
            write_keys(
                raw, tagger, sentences, settings, how | {"fingerprint": untransformed}, checked
            )
        source = Datastore.open(raw)
        fitted = fit_transform(source, transform)
        checked()
        transform_keys(source, path, fitted, settings.key_dtype, fingerprint)
    remove_untransformed(path)
    return summary(Datastore.open(path), start)


def write_keys(
    path: Path,
    tagger: LoadedTagger,
    sentences: Sequence[Sentence],
    settings: argparse.Namespace,
    how: dict,
    checked: Callable[[], None],
) -> None:
    """Write the store of these sentences, without a transform, or what is missing of it.

    how: width and type of the keys, what they are made with, and the build's fingerprint, as for
        `DatastoreWriter`.
    checked: called when the folder's lock is taken, to raise `UserError` if nothing is to be written.
    """
    # Pieces are made shard by shard, so that of a large corpus only the words are held.
    chunks = list(sentence_chunks(sentences, settings.shard_words))
    with (
        DatastoreWriter(path, labels=tagger.labels, shards=len(chunks), **how) as writer,
        tqdm(total=len(sentences), unit="sentence", desc="build") as progress,
    ):
        checked()
        if writer.resumed:
            say(f"{path}: {writer.resumed} of {len(chunks)} shards are finished already")
        if writer.discarded:
            say(f"{path}: {writer.discarded} shards of another, unfinished build removed")
        recipe = KeyRecipe(how["made_with"]["layer"])
        first = 0
        for number, chunk in enumerate(chunks):
            if writer.finished(number):
                progress.update(len(chunk))
            else:
                write_shard(writer, number, tagger, chunk, first, settings, progress, recipe)
            first += len(chunk)
        writer.commit()


def check_unchanged(path: Path, edits: str) -> None:
    """Raise `UserError` unless `edits_of` a datastore is still this."""
    if edits_of(path) != edits:
        raise UserError(f"{path}: was changed just now; look at it, then build again")


def remove_untransformed(path: Path) -> None:
    """Remove what a build with a transform leaves in a store's folder, unless one is writing it now."""
    raw = path / UNTRANSFORMED
    if raw.is_dir():
        try:
            with lock(raw):
                shutil.rmtree(raw)
        except UserError as busy:
            say(f"{busy}; left as it is")


def edits_of(path: Path) -> str:
    """How a datastore was changed since it was built, in words; empty if it was not, or there is none."""
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


def build_fingerprint(
    source: dict, sentences: Sequence[Sentence], max_length: int, settings: argparse.Namespace
) -> str:
    """Names a build: equal only when the same shards would be written."""
    digest = hashlib.sha256()
    how = [source, max_length, settings.key_dtype, settings.precision, settings.shard_words]
    digest.update(json.dumps(how, sort_keys=True).encode())
    for sentence in sentences:
        digest.update(json.dumps([sentence.words, sentence.tags]).encode())
    return digest.hexdigest()


def summary(store: Datastore, start: float) -> dict:
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


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    settings = parse_arguments(argv)
    built = build_datastore(settings)
    print(
        f"{settings.datastore_path}: {built['entries']} entries of {built['sentences']} sentences, "
        f"{built['dim']} x {built['dtype']}, {built['bytes'] / 1e6:.1f} MB, {built['seconds']:.1f} s"
    )


if __name__ == "__main__":
    run_main(main)
