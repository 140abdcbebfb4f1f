"""Write the hidden states of labelled sentences, with their labels, into a datastore.

    python -m knn_ner.build_datastore --data_dir D --file_name F --model_path S/model --datastore_path P

Several processes (`--devices`, `--num_nodes`) write shards of one store. A build that was interrupted goes
on from its finished shards when the same command is given again, with any number of processes.
"""

import argparse
import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from knn_ner.cli import Parser, add_data_arguments, add_run_arguments, positive_int, run_main, say
from knn_ner.data.corpus import SPLITS, Sentence, read_corpus
from knn_ner.data.loading import sentence_chunks
from knn_ner.distributed import add_process_arguments, processes
from knn_ner.errors import UserError
from knn_ner.group import Group
from knn_ner.model.layers import KNOWN, canonical_layer, layer_width
from knn_ner.pipeline import LoadedTagger, load, show_corpus
from knn_ner.retrieval.compaction import transform_keys
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.folder import lock
from knn_ner.retrieval.manifest import MANIFEST_FILE, Manifest
from knn_ner.retrieval.transforms import NONE, KeyRecipe, fit_transform, parse_transform
from knn_ner.retrieval.writer import DatastoreWriter, is_built
from knn_ner.storing import write_shard

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
        "--shard_words", type=positive_int, default=1 << 14, help="words in a shard, at most"
    )
    parser.add_argument(
        "--replace_edited",
        action="store_true",
        help="also replace a datastore that was changed since it was built (knn_ner.datastore)",
    )
    add_run_arguments(parser)
    add_process_arguments(parser, "P is one folder that all machines share.")
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
        "the same variance); whiten:D or svd:D (only the D largest directions are kept, for a smaller store)",
    )
    parser.add_argument(
        "--key_dtype", choices=("float16", "float32"), default="float16", help="of the stored keys"
    )


def build_datastore(settings: argparse.Namespace, group: Group | None = None) -> dict:
    """Build the datastore; returns counts, bytes and seconds, empty in all processes but the first.

    With a transform, which is fitted on all keys, these are first written as they are to a folder in the
    store's, and a store that is there already stays good until the new one is finished.

    group: the processes that share the work, each of which calls this; by default one.

    Raises `UserError` for bad input.
    """
    group = group or Group()
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
    group.check_same("corpus, tagger or setting", fingerprint)
    edits = edits_of(path)
    store = present_store(path, fingerprint, edits, settings) if group.rank == 0 else None
    (there,) = group.from_first([store is not None])
    if there:
        return summary(store, start) if store else {}

    checked = partial(check_unchanged, path, edits)
    if transform == NONE:
        how = {"dim": width, "dtype": settings.key_dtype, "made_with": made_with}
        how["fingerprint"] = fingerprint
        write_keys(path, tagger, sentences, settings, how, checked, group)
    else:
        raw = path / UNTRANSFORMED
        # What is transformed is rounded once, after it.
        how = {"dim": width, "dtype": "float32", "made_with": made_with}
        how["fingerprint"] = untransformed
        (there,) = group.from_first([is_built(raw, untransformed)])
        if not there:
            write_keys(raw, tagger, sentences, settings, how, checked, group)
        if group.rank == 0:
            source = Datastore.open(raw)
            fitted = fit_transform(source, transform)
            checked()
            transform_keys(source, path, fitted, settings.key_dtype, fingerprint)
    if group.rank:
        return {}
    remove_untransformed(path)
    return summary(Datastore.open(path), start)


def present_store(
    path: Path, fingerprint: str, edits: str, settings: argparse.Namespace
) -> Datastore | None:
    """The store that is to be built, if it is there already and whole.

    edits: how what is there was changed since it was built. Raises `UserError` if that must not be lost.
    """
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
                return store
            say(f"{path}: holds another datastore, which is replaced when this one is finished")
        except UserError as damage:
            say(f"{damage}, which is what happens now")
    return None


def write_keys(
    path: Path,
    tagger: LoadedTagger,
    sentences: Sequence[Sentence],
    settings: argparse.Namespace,
    how: dict,
    checked: Callable[[], None],
    group: Group,
) -> None:
    """Write the store of these sentences, without a transform, or what is missing of it.

    how: width and type of the keys, what they are made with, and the build's fingerprint, as for
        `DatastoreWriter`.
    checked: called when the folder's lock is taken, to raise `UserError` if nothing is to be written.
    group: the processes, which take turns: shards are the same, however many there are.
    """
    # Pieces are made shard by shard, so that of a large corpus only the words are held.
    chunks = list(sentence_chunks(sentences, settings.shard_words))
    starts = np.cumsum([0, *map(len, chunks)])
    how = how | {"labels": tagger.labels, "shards": len(chunks)}
    with (
        shared_writer(path, how, group) as writer,
        tqdm(total=len(sentences), unit="sentence", desc="build") as progress,
    ):
        if group.rank == 0:
            checked()
        if writer.resumed:
            say(f"{path}: {writer.resumed} of {len(chunks)} shards are finished already")
        if writer.discarded:
            say(f"{path}: {writer.discarded} shards of another, unfinished build removed")
        recipe = KeyRecipe(how["made_with"]["layer"])
        todo = group.from_first([n for n in range(len(chunks)) if not writer.finished(n)])
        progress.update(len(sentences) - sum(len(chunks[number]) for number in todo))
        for turn in range(0, len(todo), group.size):
            others = 0
            for rank, number in enumerate(todo[turn : turn + group.size]):
                chunk, first = chunks[number], int(starts[number])
                if rank == group.rank:
                    write_shard(writer, number, tagger, chunk, first, settings, progress, recipe)
                else:
                    others += len(chunk)
            group.exchange()
            progress.update(others)
        if group.rank == 0:
            writer.commit(wait=group.size > 1)
    # None has the folder's lock any more.
    group.exchange()


@contextmanager
def shared_writer(path: Path, how: dict, group: Group) -> Iterator[DatastoreWriter]:
    """The writer of a build that process 0 begins or takes up, and the others join."""
    if group.rank:
        (build,) = group.from_first([])
        with DatastoreWriter(path, **how, join=f"{build:08x}") as writer:
            yield writer
        return
    with DatastoreWriter(path, **how) as writer:
        if group.size > 1:
            writer.share()
        group.from_first([int(writer.build, 16)])
        yield writer


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
    with processes(parse_arguments, argv) as (settings, group):
        built = build_datastore(settings, group)
        if group.rank == 0:
            print(
                f"{settings.datastore_path}: {built['entries']} entries of {built['sentences']} "
                f"sentences, {built['dim']} x {built['dtype']}, {built['bytes'] / 1e6:.1f} MB, "
                f"{built['seconds']:.1f} s"
            )


if __name__ == "__main__":
    run_main(main)
