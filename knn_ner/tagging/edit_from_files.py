"""Column files into a datastore: `knn_ner.datastore add` and `relabel`."""

import logging
from collections.abc import Sequence
from pathlib import Path

from knn_ner.data.columns import Sentence, odd_words
from knn_ner.data.corpus import read_file
from knn_ner.data.encoding import Encoding
from knn_ner.data.tags import Scheme, check_letters, convert_tags, count_evidence, difference
from knn_ner.datastore.locking import WAIT_SECONDS
from knn_ner.datastore.manifest import Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.model.backbone import load_tokenizer, tokenizer_hash
from knn_ner.settings import RunSettings, TaggerSettings
from knn_ner.tagging.edit_sentences import add_sentences, relabel_sentences
from knn_ner.tagging.trained_tagger import load_for_datastore, recorded_scheme
from knn_ner.utils.device import choose_device
from knn_ner.utils.errors import UserError

logger = logging.getLogger(__name__)


def add_file(
    where: TaggerSettings,
    run: RunSettings,
    file: str | Path,
    wait: float = WAIT_SECONDS,
    comments: str | None = None,
) -> list[int]:
    """Add the labelled sentences of a column file to a datastore.

    Args:
        where: the datastore and its tagger.
        run: how the encoder runs.
        file: the column file.
        wait: seconds to wait for another process that is changing the store.
        comments: how lines to skip begin.

    Returns:
        The ids of the sentences, in order.

    Raises:
        UserError: for a bad file, another tagger's store, or if the other process does not finish.
    """
    path = Path(where.datastore_path)
    choose_device(run.device)
    tagger = load_for_datastore(where.model_path, run.max_length, path)
    sentences = read_sentences(file, tagger.scheme, comments)
    unseen = {tag for sentence in sentences for tag in sentence.tags} - set(tagger.labels)
    if unseen:
        logger.info(f"the tagger lacks {', '.join(sorted(unseen))}: only neighbours can give these")
    return add_sentences(path, tagger, sentences, run, wait)


def relabel_from_file(
    where: TaggerSettings,
    file: str | Path,
    wait: float = WAIT_SECONDS,
    comments: str | None = None,
) -> tuple[int, int, int]:
    """Give stored sentences the tags that a column file has for the same words.

    Args:
        where: the datastore and its tagger, of which only the tokeniser is read.
        file: the column file.
        wait: seconds to wait for another process that is changing the store.
        comments: how lines to skip begin.

    Returns:
        Numbers of stored sentences with these words, of those that were relabelled, and of their entries.

    Raises:
        UserError: for a bad file, a sentence that is not stored, or another tagger's store.
    """
    path = Path(where.datastore_path)
    encoding, known = tokenizer_of(path, where.model_path)
    scheme = recorded_scheme(where.model_path) or encoding.scheme
    sentences = read_sentences(file, scheme, comments)
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


def read_sentences(file: str | Path, scheme: Scheme, comments: str | None) -> list[Sentence]:
    """The sentences of a column file, with tags in the scheme of a tagger.

    Args:
        file: the column file.
        scheme: the scheme; tags in another one are converted, which is logged.
        comments: how lines to skip begin.

    Raises:
        UserError: with the line, for a file that is none; for tags of two schemes.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"{file}: not found; give a file with a token and its tag on each line")
    sentences = read_file(file, comments)
    evidence = count_evidence(sentence.tags for sentence in sentences)
    check_letters(evidence, f"{file}: ")
    how = difference(evidence, scheme)
    if how:
        logger.info(f"{file}: tags {how}, converted to {scheme.name}, the scheme of the tagger")
        for sentence in sentences:
            sentence.tags = convert_tags(sentence.tags, scheme)
    wrong = odd_words(sentence.words for sentence in sentences)
    if wrong:
        logger.warning(f"{file}: {wrong}")
    return sentences
