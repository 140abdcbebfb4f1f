"""What is shown of each place, and the files with it: `audit.csv`, and `audit.html`, one page that loads nothing."""

import csv
import io
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from knn_ner.audit.evidence import Auditor, Evidence
from knn_ner.audit.ranking import Place
from knn_ner.audit.stored_sentences import StoredSentences
from knn_ner.data.corpus import Corpus
from knn_ner.datastore.reader import Datastore
from knn_ner.html.renderer import Palette, render
from knn_ner.search.vote import vote_weights
from knn_ner.tagging.entities import Neighbour
from knn_ner.utils.errors import UserError

logger = logging.getLogger(__name__)

COLUMNS = (
    *("rank", "score", "file", "line", "sentence", "first_word", "last_word", "words"),
    *("given", "suggested", "context", "neighbours_say", "tagger_says", "copies", "neighbours"),
)
# Words of context on each side of a place, in the CSV file.
CONTEXT_WORDS = 6
# Neighbours, and copies with another label, that are shown for a finding.
SHOWN_NEIGHBOURS = 8
# Labels of a distribution that are shown, and the smallest share among them.
SHOWN_LABELS = 3
SMALLEST_SHARE = 0.005


@dataclass
class Finding(Place):
    """A place with the evidence that is shown for it.

    Attributes:
        file: the corpus file; empty if the sentence is not in it.
        line: line of the first word; 0 if the sentence is not in the file.
        label: stored label of the word piece with the highest score.
        position: index of the word of that piece.
        vote: the largest shares of the neighbours' vote by label, 0 to 1.
        tagger: the largest probabilities of the tagger by label, 0 to 1.
        neighbours: nearest neighbours of that piece in other sentences, nearest first.
        copies: number of other sentences with the same words.
        differing_copies: number of these that have another label at this position.
        differing: some of these, as neighbours without a vote.
    """

    file: str
    line: int
    label: str
    position: int
    vote: Mapping[str, float]
    tagger: Mapping[str, float]
    neighbours: Sequence[Neighbour]
    copies: int
    differing_copies: int
    differing: Sequence[Neighbour]


def find_lines(corpus: Corpus, stored: StoredSentences, store: Datastore) -> dict[int, int]:
    """The line of the training file at which each stored sentence begins, by its id; 0 if the file lacks it.

    Ids count the sentences of the file until the store is changed; after that, sentences are found by their words.

    Raises:
        UserError: if the file has none of the sentences.
    """
    path, sentences = corpus.files["train"], corpus.splits["train"]
    line_of_words = {tuple(sentence.words): sentence.line for sentence in reversed(sentences)}
    lines = {}
    for each in stored.sentences:
        id_, words = each["id"], each["words"]
        unchanged = id_ < len(sentences) and sentences[id_].words == words
        lines[id_] = sentences[id_].line if unchanged else line_of_words.get(tuple(words), 0)
    missing = list(lines.values()).count(0)
    if missing == len(lines):
        raise UserError(
            f"{store.path}: none of its {len(lines)} sentences is in {path}; "
            "give the corpus that the datastore was built from"
        )
    if missing:
        logger.info(f"{path}: {missing} of {len(lines)} stored sentences are not in it")
    return lines


def describe(
    places: Sequence[Place], evidence: Evidence, auditor: Auditor, path: str, lines: dict[int, int]
) -> list[Finding]:
    """Add to the places the evidence that `auditor` gathered; their neighbours are searched again.

    `path` is the training file, `lines` its line for each stored sentence, by id.
    """
    store, stored = auditor.searcher.store, auditor.stored
    nearest, votes, base = auditor.opinions(np.array([place.entry for place in places], np.int64))
    behind = nearest.similarities - nearest.similarities[:, :1]
    weights = vote_weights(behind, auditor.settings.temperature)
    columns = (nearest.indices, nearest.similarities, weights / weights.sum(dim=1, keepdim=True))
    shown = [column[:, :SHOWN_NEIGHBOURS].tolist() for column in columns]
    findings = []
    for row, place in enumerate(places):
        copies = np.flatnonzero(stored.first_copy == stored.first_copy[place.entry])
        differing = copies[evidence.given[copies] != evidence.given[place.entry]]
        line = lines[place.sentence]
        neighbours = [
            _neighbour(store, entry, similarity, share)
            for entry, similarity, share in zip(*(column[row] for column in shown), strict=True)
            if similarity > -math.inf
        ]
        finding = Finding(
            **vars(place),
            file=path if line else "",
            line=line + place.first if line else 0,
            label=evidence.labels[evidence.given[place.entry]],
            position=int(store.positions[place.entry]),
            vote=_largest(votes[row], store.labels),
            tagger=_largest(base[row], auditor.tagger.labels),
            neighbours=neighbours,
            copies=len(copies) - 1,
            differing_copies=len(differing),
            differing=[_neighbour(store, int(entry)) for entry in differing[:SHOWN_NEIGHBOURS]],
        )
        findings.append(finding)
    return findings


def to_csv(findings: Sequence[Finding]) -> str:
    """One line for each finding; words and tags of a place are separated by spaces."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rank, each in enumerate(findings, start=1):
        place = slice(each.first, each.last + 1)
        copies = f"{each.differing_copies} of {each.copies} differ" if each.copies else ""
        neighbours = (
            f"{near.label} {near.similarity:.3f}: {_in_brackets(near.words, near.word, near.word)}"
            for near in each.neighbours
        )
        row = [rank, f"{each.score:.4f}", each.file, each.line or "", each.sentence]
        row += [each.first, each.last, " ".join(each.words[place])]
        row += [" ".join(each.tags[place]), " ".join(each.suggested)]
        row += [_in_brackets(each.words, each.first, each.last)]
        row += [_shares(each.vote), _shares(each.tagger), copies, " | ".join(neighbours)]
        writer.writerow(row)
    return text.getvalue()


def to_html(findings: Sequence[Finding], summary: str, joiner: str = " ") -> str:
    """The page, with a card for each finding; `joiner` stands between two words."""
    values = {"findings": findings, "summary": summary, "joiner": joiner, "palette": Palette()}
    return render("audit/page.html", kind="audit", title="Labels that look wrong", **values)


def _in_brackets(words: Sequence[str], first: int, last: int) -> str:
    """A place in brackets, with its context; the first words for a special token, whose index is -1."""
    if first < 0:
        return " ".join(words[:CONTEXT_WORDS])
    before = words[max(first - CONTEXT_WORDS, 0) : first]
    after = words[last + 1 : last + 1 + CONTEXT_WORDS]
    return " ".join([*before, f"[{' '.join(words[first : last + 1])}]", *after])


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{label} {share:.0%}" for label, share in shares.items())


def _neighbour(
    store: Datastore, entry: int, similarity: float = math.nan, share: float = 0.0
) -> Neighbour:
    sentence = store.sentence(int(store.sentence_ids[entry]))
    label, position = store.labels[store.label_ids[entry]], int(store.positions[entry])
    words, tags = sentence["words"], sentence["tags"]
    return Neighbour(label, similarity, share, sentence["id"], words, tags, position, entry)


def _largest(distribution: Tensor, labels: Sequence[str]) -> dict[str, float]:
    values, order = distribution.sort(descending=True, stable=True)
    shown = zip(order.tolist()[:SHOWN_LABELS], values.tolist()[:SHOWN_LABELS], strict=True)
    return {labels[index]: value for index, value in shown if value >= SMALLEST_SHARE}
