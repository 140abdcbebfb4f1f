"""Add labelled sentences to a datastore, and change the tags of stored ones.

Each function makes one commit: readers see the store before it or after it. A process that wants to change a store
waits for another one that does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from knn_ner.data.batching import sentence_chunks
from knn_ner.data.corpus import Sentence
from knn_ner.data.encoding import IGNORED, Encoding, complete_labels
from knn_ner.data.tags import (
    OUTSIDE,
    Scheme,
    check_tag,
    position_and_type,
    scheme_of_labels,
    sort_labels,
)
from knn_ner.datastore.edit import Edit, NewLabels
from knn_ner.datastore.locking import WAIT_SECONDS
from knn_ner.settings import RunSettings
from knn_ner.tagging.store_keys import write_shard
from knn_ner.tagging.trained_tagger import TrainedTagger
from knn_ner.utils.errors import UserError

# Words whose pieces are held at once; they become one shard.
SHARD_WORDS = 1 << 16


def add_sentences(
    path: str | Path,
    tagger: TrainedTagger,
    sentences: Sequence[Sentence],
    run: RunSettings | None = None,
    wait: float = WAIT_SECONDS,
) -> list[int]:
    """Add labelled sentences to a datastore.

    Tags that neither the tagger nor the store has become labels of the store.

    Args:
        path: the datastore's folder.
        tagger: the tagger that made the datastore.
        sentences: words and tags.
        run: how the encoder runs; by default on the CPU.
        wait: seconds to wait for another process that is changing the store.

    Returns:
        The ids of the sentences, in order.

    Raises:
        UserError: for a text that is no tag or a tag of another scheme, a sentence without words or with another
            number of tags than words, another tagger's store, or if the other process does not finish.
    """
    sentences = list(sentences)
    if not sentences:
        return []
    run = run or RunSettings(device="cpu")
    with Edit(path, wait) as edit:
        edit.manifest.check_provenance(edit.path, tagger.provenance)
        check_sentences(sentences, scheme_of_labels(edit.labels))
        edit.add_labels(new_labels(edit.labels, sentences, tagger.encoding.piece_labels))
        storing = replace(tagger, encoding=tagger.encoding.over(edit.labels))
        first = edit.next_sentence
        with tqdm(total=len(sentences), unit="sentence", desc="add", delay=1) as progress:
            for number, chunk in enumerate(sentence_chunks(sentences, SHARD_WORDS)):
                write_shard(
                    edit,
                    number,
                    storing,
                    chunk,
                    edit.next_sentence,
                    run,
                    progress,
                    edit.store.recipe,
                )
                edit.next_sentence += len(chunk)
        before = edit.manifest.entries
        edit.commit("add", len(sentences), sum(r.live_entries for r in edit.shards) - before)
        return list(range(first, edit.next_sentence))


def relabel_sentence(
    path: str | Path, tagger: TrainedTagger, sentence_id: int, tags: Sequence[str]
) -> None:
    """Give a stored sentence other tags. Its id and its keys stay, as keys do not depend on tags.

    Raises:
        UserError: for an unknown id, another number of tags than words, a text that is no tag or a tag of another
            scheme, and another tagger's store.
    """
    relabel_sentences(path, tagger.encoding, tagger.provenance, {sentence_id: tags})


def relabel_sentences(
    path: str | Path,
    encoding: Encoding,
    provenance: dict,
    changes: Mapping[int, Sequence[str]],
    wait: float = WAIT_SECONDS,
) -> tuple[int, int]:
    """Give stored sentences other tags; a sentence that has these tags already is left alone.

    Args:
        path: the datastore's folder.
        encoding: the tagger's encoding; its label list does not matter.
        provenance: what is known of the tagger, to be compared with the store's provenance.
        changes: sentence id to the tags of its words.
        wait: seconds to wait for another process that is changing the store.

    Returns:
        The numbers of sentences and of entries that were changed.

    Raises:
        UserError: as `relabel_sentence`.
    """
    with Edit(path, wait) as edit:
        edit.manifest.check_provenance(edit.path, provenance)
        stored = {sentence_id: edit.sentence(sentence_id) for sentence_id in changes}
        changed = {
            sentence_id: Sentence(stored[sentence_id]["words"], list(tags))
            for sentence_id, tags in changes.items()
            if stored[sentence_id]["tags"] != list(tags)
        }
        if not changed:
            return 0, 0
        sentences = list(changed.values())
        for sentence_id, sentence in changed.items():
            check_sentences([sentence], scheme_of_labels(edit.labels), f"sentence {sentence_id}")
        edit.add_labels(new_labels(edit.labels, sentences, encoding.piece_labels))
        encoded = encoding.over(edit.labels).encode(sentences)
        labels = {}
        for sentence_id, pieces in zip(changed, encoded, strict=True):
            kept = pieces.labels != IGNORED
            labels[sentence_id] = NewLabels(
                changed[sentence_id].tags, pieces.labels[kept], pieces.word_of_piece[kept]
            )
        entries = edit.relabel(labels)
        edit.commit("relabel", len(changed), entries)
        return len(changed), entries


def new_labels(
    labels: Sequence[str], sentences: Sequence[Sentence], piece_labels: str
) -> list[str]:
    """The labels that these sentences need and the list lacks: their tags, and inside labels for their pieces."""
    tags = {tag for sentence in sentences for tag in sentence.tags}
    unseen = [tag for tag in sort_labels(tags) if tag not in labels]
    if piece_labels != "published":
        return unseen
    # Only types with a new tag get an inside label: pieces of other types are labelled as when the store was built.
    types = {position_and_type(tag)[1] for tag in unseen}
    completed = complete_labels([*labels, *unseen])[len(labels) :]
    return [label for label in completed if position_and_type(label)[1] in types]


def check_sentences(
    sentences: Sequence[Sentence], scheme: Scheme, source: str = "sentence"
) -> None:
    """Raise `UserError` unless each sentence has words, and a tag of the scheme for each word.

    Args:
        sentences: the sentences.
        scheme: the datastore's scheme.
        source: the file that the sentences are from, if they have line numbers; else what to call a sentence.
    """
    letters = {OUTSIDE, "B", scheme.inside, *("ES" if scheme.closes else "")}
    for number, sentence in enumerate(sentences):
        place = source if len(sentences) == 1 or sentence.line else f"{source} {number}"
        if not sentence.words or len(sentence.tags) != len(sentence.words):
            raise UserError(
                f"{place}: {len(sentence.tags)} tags found for {len(sentence.words)} words, "
                "expected at least one word, and one tag for each"
            )
        for offset, tag in enumerate(sentence.tags):
            where = (
                f"{source}:{sentence.line + offset}"
                if sentence.line
                else f"{place}, word {offset} ({sentence.words[offset]!r})"
            )
            check_tag(tag, where)
            if position_and_type(tag)[0] not in letters:
                raise UserError(
                    f"{where}: tag {tag!r} found, expected one of the scheme {scheme.name}, as in the "
                    "datastore; convert the tags"
                )
