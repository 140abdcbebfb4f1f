"""What the audit shows of each place: file and line, neighbours, votes, copies."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from knn_ner.audit.evidence import Evidence, Groups, neighbours_elsewhere, tagger_probabilities
from knn_ner.audit.ranking import Place, StoredWords
from knn_ner.audit.report import Finding, Neighbour
from knn_ner.data.corpus import Corpus
from knn_ner.datastore.reader import Datastore
from knn_ner.search.searcher import Searcher
from knn_ner.search.vote import vote_weights
from knn_ner.settings import VoteSettings
from knn_ner.tagging.trained_tagger import TrainedTagger
from knn_ner.utils.errors import UserError

logger = logging.getLogger(__name__)

# Shown of a finding: its nearest neighbours, copies that differ, and labels of a distribution.
SHOWN = 8
SHOWN_LABELS = 3


def locate(corpus: Corpus, words: StoredWords, store: Datastore) -> list[int]:
    """The line of the training file that each stored sentence begins at; 0 for one that it lacks.

    Sentence ids are those of the file until the store is changed; what was added is found by its words.

    Raises `UserError` when the file has none of the sentences.
    """
    sentences = corpus.splits["train"]
    by_words = {tuple(sentence.words): sentence.line for sentence in reversed(sentences)}
    lines = []
    for stored in words.sentences:
        there = sentences[stored["id"]] if stored["id"] < len(sentences) else None
        same = there is not None and there.words == stored["words"]
        lines.append(there.line if same else by_words.get(tuple(stored["words"]), 0))
    if not any(lines):
        raise UserError(
            f"{store.path}: none of its {len(lines)} sentences is in {corpus.files['train']}; "
            "give the corpus that the datastore was built from"
        )
    missing = lines.count(0)
    if missing:
        logger.info(
            f"{corpus.files['train']}: {missing} of {len(lines)} stored sentences are not there"
        )
    return lines


def describe(
    places: Sequence[Place],
    evidence: Evidence,
    words: StoredWords,
    lines: Sequence[int],
    corpus: Corpus,
    tagger: TrainedTagger,
    searcher: Searcher,
    groups: Groups,
    knn: VoteSettings,
) -> list[Finding]:
    """All that is shown of the places: the neighbours are searched once more, for these alone."""
    number_of = {sentence["id"]: number for number, sentence in enumerate(words.sentences)}
    entries = np.array([place.entry for place in places], dtype=np.int64)
    found = neighbours_elsewhere(searcher, groups, entries, knn.k)
    weights = vote_weights(found.similarities - found.similarities[:, :1], knn.temperature)
    weights /= weights.sum(dim=1, keepdim=True)
    neighbour_labels = searcher.neighbour_labels(found.indices).cpu()
    base = tagger_probabilities(tagger, searcher, entries).cpu()
    findings = []
    for row, place in enumerate(places):
        shares = weights[row].cpu()
        neighbours = [
            neighbour(searcher.store, entry, similarity, share)
            for entry, similarity, share in zip(
                found.indices[row, :SHOWN].tolist(),
                found.similarities[row, :SHOWN].tolist(),
                shares[:SHOWN].tolist(),
                strict=True,
            )
            if similarity > -np.inf
        ]
        vote = torch.zeros(len(searcher.store.labels))
        vote.index_add_(0, neighbour_labels[row], shares)
        copies = np.flatnonzero(groups.first == groups.first[place.entry])
        differing = copies[evidence.given[copies] != evidence.given[place.entry]]
        number = number_of[place.sentence]
        line = lines[number]
        findings.append(
            Finding(
                place.score,
                str(corpus.files["train"]) if line else "",
                line + place.first if line else 0,
                place.sentence,
                words.sentences[number]["words"],
                words.sentences[number]["tags"],
                place.first,
                place.last,
                place.suggested,
                evidence.labels[evidence.given[place.entry]],
                int(searcher.store.positions[place.entry]),
                largest(vote, searcher.store.labels),
                largest(base[row], tagger.labels),
                neighbours,
                int(evidence.copies[place.entry]),
                int(evidence.otherwise[place.entry]),
                [neighbour(searcher.store, entry) for entry in differing[:SHOWN].tolist()],
            )
        )
    return findings


def neighbour(
    store: Datastore, entry: int, similarity: float | None = None, share: float | None = None
) -> Neighbour:
    """A stored entry as it is shown."""
    sentence = store.sentence(int(store.sentence_ids[entry]))
    return Neighbour(
        sentence["id"],
        sentence["words"],
        int(store.positions[entry]),
        store.labels[store.label_ids[entry]],
        similarity,
        share,
    )


def largest(distribution: Tensor, labels: Sequence[str]) -> dict[str, float]:
    """The largest parts of a distribution, those that round to 0% left out."""
    values, order = distribution.sort(descending=True, stable=True)
    return {
        labels[index]: value
        for value, index in zip(
            values[:SHOWN_LABELS].tolist(), order[:SHOWN_LABELS].tolist(), strict=True
        )
        if value >= 0.005
    }
