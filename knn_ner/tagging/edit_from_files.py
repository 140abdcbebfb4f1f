"""Column files into a datastore: `knn_ner.datastore add` and `relabel`."""

import logging
from collections.abc import Sequence
from pathlib import Path

from knn_ner.data.corpus import Sentence, read_file
from knn_ner.data.encoding import Encoding
from knn_ner.data.tags import BIO, Scheme, convert_tags, detect_scheme, scheme_of_labels
from knn_ner.datastore.locking import WAIT_SECONDS
from knn_ner.datastore.manifest import Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.model.backbone import load_tokenizer, tokenizer_hash
from knn_ner.settings import RunSettings, TaggerSettings
from knn_ner.tagging.edit_sentences import add_sentences, check_sentences, relabel_sentences
from knn_ner.tagging.trained_tagger import load_for_datastore
from knn_ner.utils.device import choose_device
from knn_ner.utils.errors import UserError

logger = logging.getLogger(__name__)


def add_file(
    where: TaggerSettings, run: RunSettings, file: str | Path, wait: float = WAIT_SECONDS
) -> list[int]:
    """Add the labelled sentences of a column file to a datastore.

    Args:
        where: the datastore and its tagger.
        run: how the encoder runs.
        file: the column file.
        wait: seconds to wait for another process that is changing the store.

    Returns:
        The ids of the sentences, in order.

    Raises:
        UserError: for a bad file, another tagger's store, or if the other process does not finish.
    """
    path = Path(where.datastore_path)
    before = Manifest.read(path)
    sentences = read_sentences(file, scheme_of_labels(before.labels))
    choose_device(run.device)
    tagger = load_for_datastore(where.model_path, run.max_length, path)
    unseen = {tag for sentence in sentences for tag in sentence.tags} - set(tagger.labels)
    if unseen:
        logger.info(f"the tagger lacks {', '.join(sorted(unseen))}: only neighbours can give these")
    return add_sentences(path, tagger, sentences, run, wait)


def relabel_from_file(
    where: TaggerSettings, file: str | Path, wait: float = WAIT_SECONDS
) -> tuple[int, int, int]:
    """Give stored sentences the tags that a column file has for the same words.

    Args:
        where: the datastore and its tagger, of which only the tokeniser is read.
        file: the column file.
        wait: seconds to wait for another process that is changing the store.

    Returns:
        Numbers of stored sentences with these words, of those that were relabelled, and of their entries.

    Raises:
        UserError: for a bad file, a sentence that is not stored, or another tagger's store.
    """
    path = Path(where.datastore_path)
    encoding, known = tokenizer_of(path, where.model_path)
    sentences = read_sentences(file, scheme_of_labels(encoding.labels))
    changes = find_by_words(Datastore.open(path), sentences, str(file))
    return len(changes), *relabel_sentences(path, encoding, known, changes, wait)


def relabel_id(
    where: TaggerSettings, sentence_id: int, tags: Sequence[str], wait: float = WAIT_SECONDS
) -> tuple[int, int, int]:
    """Give one stored sentence other tags; arguments, result and errors as for `relabel_from_file`."""
    path = Path(where.datastore_path)
    encoding, known = tokenizer_of(path, where.model_path)
    return 1, *relabel_sentences(path, encoding, known, {sentence_id: tags}, wait)


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
    manifest.check_provenance(path, known)
    provenance = manifest.provenance
    return (
        Encoding(tokenizer, manifest.labels, provenance["piece_labels"], provenance["units"]),
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
                sentence.tags = convert_tags(sentence.tags, BIO)
    check_sentences(sentences, scheme, str(file))
    return sentences
