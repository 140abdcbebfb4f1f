"""Column files into a datastore: `knn_ner.datastore add` and `relabel`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from knn_ner.cli import say
from knn_ner.data.corpus import Sentence, read_file
from knn_ner.data.encoding import Encoding
from knn_ner.data.tags import Scheme, detect_scheme, iob1_to_bio, scheme_of_labels
from knn_ner.editing import add_sentences, check_sentences, relabel_sentences
from knn_ner.errors import UserError
from knn_ner.inspection import counted, show_ids
from knn_ner.model.backbone import load_tokenizer, tokenizer_hash
from knn_ner.model.representations import choose_device
from knn_ner.pipeline import load_for_datastore
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.manifest import Manifest


def add_file(settings: argparse.Namespace) -> str:
    """`add`; returns what to print."""
    path = Path(settings.datastore_path)
    before = Manifest.read(path)
    sentences = read_sentences(settings.file, scheme_of_labels(before.labels))
    device = str(choose_device(settings.device))
    tagger = load_for_datastore(settings.model_path, settings.max_length, path)
    unseen = {tag for sentence in sentences for tag in sentence.tags} - set(tagger.labels)
    if unseen:
        say(f"the tagger lacks {', '.join(sorted(unseen))}: only neighbours can give these")
    ids = add_sentences(
        path,
        tagger,
        sentences,
        settings.batch_size,
        device,
        precision=settings.precision,
        workers=settings.workers,
        wait=settings.wait,
    )
    return f"{path}: {counted(len(ids), 'sentence')} added, ids {show_ids(ids)}"


def relabel(settings: argparse.Namespace) -> str:
    """`relabel`; returns what to print."""
    path = Path(settings.datastore_path)
    encoding, known = tokenizer_of(path, settings.model_path)
    if settings.file:
        sentences = read_sentences(settings.file, scheme_of_labels(encoding.labels))
        changes = find_by_words(Datastore.open(path), sentences, settings.file)
    else:
        changes = {settings.id: settings.tags.split()}
    count, entries = relabel_sentences(path, encoding, known, changes, settings.wait)
    return (
        f"{path}: {counted(count, 'sentence')} relabelled, with {counted(entries, 'entry')}; "
        f"{len(changes) - count} had these tags already"
    )


def find_by_words(
    store: Datastore, sentences: Sequence[Sentence], file: str
) -> dict[int, list[str]]:
    """The stored sentences with the words of these, and the tags that these have.

    Raises `UserError`, with the line, for a sentence that is not stored, or is given with two taggings.
    """
    ids: dict[tuple[str, ...], list[int]] = {}
    for stored in store.sentences():
        ids.setdefault(tuple(stored["words"]), []).append(stored["id"])
    changes: dict[int, list[str]] = {}
    for sentence in sentences:
        found = ids.get(tuple(sentence.words))
        start = " ".join(sentence.words[:8]) + (" ..." if len(sentence.words) > 8 else "")
        if not found:
            raise UserError(f"{file}:{sentence.line}: {start!r} is no sentence of {store.path}")
        for sentence_id in found:
            if changes.setdefault(sentence_id, sentence.tags) != sentence.tags:
                raise UserError(
                    f"{file}:{sentence.line}: {start!r} is there twice, tagged otherwise"
                )
    return changes


def tokenizer_of(path: str | Path, model_path: str | Path) -> tuple[Encoding, dict]:
    """What of a datastore's tagger relabelling needs: its encoding, and what is known of it.

    The weights are not loaded: keys stay as they are.

    Raises `UserError` when there is no datastore, no tokeniser, or it is not the store's.
    """
    path = Path(path)
    manifest = Manifest.read(path)
    tokenizer = load_tokenizer(model_path)
    known = {"tokenizer": tokenizer_hash(tokenizer)}
    manifest.check_made_with(path, known)
    made_with = manifest.made_with
    return (
        Encoding(tokenizer, manifest.labels, made_with["piece_labels"], made_with["units"]),
        known,
    )


def read_sentences(file: str | Path, scheme: Scheme) -> list[Sentence]:
    """The sentences of a column file, for a datastore whose labels have this scheme.

    IOB1 becomes BIO, as when a corpus is read.

    Raises `UserError`, with the line, for a file that is none or has tags of another scheme.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"{file}: not found; give a file with a token and its tag on each line")
    sentences = read_file(file)
    if scheme.name == "BIO":
        try:
            found = detect_scheme(sentence.tags for sentence in sentences)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        if found == "IOB1":
            for sentence in sentences:
                sentence.tags = iob1_to_bio(sentence.tags)
    check_sentences(sentences, scheme, str(file))
    return sentences
