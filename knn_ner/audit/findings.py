"""The evidence that is shown for each place: file and line, votes, neighbours, copies."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from knn_ner.audit.evidence import Evidence, neighbours_elsewhere, tagger_probabilities
from knn_ner.audit.ranking import Place
from knn_ner.audit.report import Finding
from knn_ner.audit.stored_sentences import StoredSentences
from knn_ner.data.corpus import Corpus
from knn_ner.datastore.reader import Datastore
from knn_ner.search.searcher import Searcher
from knn_ner.search.vote import vote, vote_weights
from knn_ner.settings import VoteSettings
from knn_ner.tagging.entities import Neighbour
from knn_ner.tagging.trained_tagger import TrainedTagger
from knn_ner.utils.errors import UserError

logger = logging.getLogger(__name__)

# Neighbours, and copies with another label, that are shown for a finding.
SHOWN_NEIGHBOURS = 8
# Labels of a distribution that are shown, and the smallest share among them.
SHOWN_LABELS = 3
SMALLEST_SHARE = 0.005


def find_lines(corpus: Corpus, stored: StoredSentences, store: Datastore) -> list[int]:
    """The line of the training file at which each stored sentence begins; 0 if the file lacks it.

    Sentence ids count the sentences of the file until the store is changed; after that, sentences are found by their
    words.

    Raises:
        UserError: if the file has none of the sentences.
    """
    path, sentences = corpus.files["train"], corpus.splits["train"]
    line_of_words = {tuple(sentence.words): sentence.line for sentence in reversed(sentences)}

    def line(sentence: Mapping[str, Any]) -> int:
        id_, words = sentence["id"], sentence["words"]
        if id_ < len(sentences) and sentences[id_].words == words:
            return sentences[id_].line
        return line_of_words.get(tuple(words), 0)

    lines = [line(sentence) for sentence in stored.sentences]
    missing = lines.count(0)
    if missing == len(lines):
        raise UserError(
            f"{store.path}: none of its {len(lines)} sentences is in {path}; "
            "give the corpus that the datastore was built from"
        )
    if missing:
        logger.info(f"{path}: {missing} of {len(lines)} stored sentences are not in it")
    return lines


def describe(
    places: Sequence[Place],
    lines: Sequence[int],
    evidence: Evidence,
    stored: StoredSentences,
    corpus: Corpus,
    tagger: TrainedTagger,
    searcher: Searcher,
    settings: VoteSettings,
) -> list[Finding]:
    """Add the evidence to the places; `lines` are those of `find_lines`. The neighbours are searched again."""
    store = searcher.store
    number_of_id = {sentence["id"]: number for number, sentence in enumerate(stored.sentences)}
    entries = np.array([place.entry for place in places], dtype=np.int64)
    nearest = neighbours_elsewhere(searcher, stored, entries, settings.k)
    labels = searcher.neighbour_labels(nearest.indices)
    votes = vote(nearest.similarities, labels, len(store.labels), settings.temperature)
    weights = vote_weights(nearest.similarities - nearest.similarities[:, :1], settings.temperature)
    shares = weights / weights.sum(dim=1, keepdim=True)
    base = tagger_probabilities(tagger, searcher, stored, entries)
    findings = []
    for row, place in enumerate(places):
        shown = zip(
            nearest.indices[row, :SHOWN_NEIGHBOURS].tolist(),
            nearest.similarities[row, :SHOWN_NEIGHBOURS].tolist(),
            shares[row, :SHOWN_NEIGHBOURS].tolist(),
            strict=True,
        )
        copies = np.flatnonzero(stored.first_copy == stored.first_copy[place.entry])
        differing = copies[evidence.given[copies] != evidence.given[place.entry]]
        line = lines[number_of_id[place.sentence]]
        findings.append(
            Finding(
                **vars(place),
                file=str(corpus.files["train"]) if line else "",
                line=line + place.first if line else 0,
                label=evidence.labels[evidence.given[place.entry]],
                position=int(store.positions[place.entry]),
                vote=_largest(votes[row], store.labels),
                tagger=_largest(base[row], tagger.labels),
                neighbours=[_neighbour(store, *each) for each in shown if each[1] > -math.inf],
                copies=len(copies) - 1,
                differing_copies=len(differing),
                differing=[
                    _neighbour(store, entry, math.nan, 0.0)
                    for entry in differing[:SHOWN_NEIGHBOURS].tolist()
                ],
            )
        )
    return findings


def _neighbour(store: Datastore, entry: int, similarity: float, share: float) -> Neighbour:
    sentence = store.sentence(int(store.sentence_ids[entry]))
    return Neighbour(
        label=store.labels[store.label_ids[entry]],
        similarity=similarity,
        share=share,
        sentence_id=sentence["id"],
        words=sentence["words"],
        tags=sentence["tags"],
        word=int(store.positions[entry]),
        entry=entry,
    )


def _largest(distribution: Tensor, labels: Sequence[str]) -> dict[str, float]:
    values, order = distribution.sort(descending=True, stable=True)
    shown = zip(order.tolist()[:SHOWN_LABELS], values.tolist()[:SHOWN_LABELS], strict=True)
    return {labels[index]: value for index, value in shown if value >= SMALLEST_SHARE}
