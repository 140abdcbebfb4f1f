"""What the report shows: entities of gold, tagger and mix, grouped where they overlap, with the evidence.

Everything is written for the page's script in short rows (see `page.js`, which names the columns).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from knn_ner.data.corpus import Sentence
from knn_ner.data.spans import word_spans
from knn_ner.datastore.reader import Datastore
from knn_ner.evaluation.metrics import percentages
from knn_ner.explain.neighbour_map import project
from knn_ner.tagging.entities import Neighbour, WordEvidence
from knn_ner.tagging.explanation import ExplainedText

Extent = tuple[str, int, int]
"""Type, first word and one past the last."""

OUTCOMES = ("fixed", "broken", "changed", "wrong", "right")
"""fixed: the tagger alone was wrong, the mix is right. broken: the reverse. changed: both wrong, in
different ways. wrong: both wrong in the same way. right: both right."""


@dataclass(frozen=True)
class Case:
    """Entities of one sentence that overlap: what stands in each of gold, tagger alone and mix."""

    gold: tuple[Extent, ...]
    base: tuple[Extent, ...]
    knn: tuple[Extent, ...]

    @property
    def words(self) -> range:
        """The words that they cover."""
        everything = (*self.gold, *self.base, *self.knn)
        return range(min(e[1] for e in everything), max(e[2] for e in everything))

    @property
    def outcome(self) -> str:
        """One of `OUTCOMES`."""
        if self.base == self.gold:
            return "right" if self.knn == self.gold else "broken"
        if self.knn == self.gold:
            return "fixed"
        return "wrong" if self.knn == self.base else "changed"


def find_cases(gold: Sequence[Extent], base: Sequence[Extent], knn: Sequence[Extent]) -> list[Case]:
    """Group the entities of a sentence: those that share a word, with each other or by a third."""
    sources = {"gold": gold, "base": base, "knn": knn}
    everything = sorted(
        (extent[1], extent[2], name, extent)
        for name, extents in sources.items()
        for extent in extents
    )
    groups: list[dict[str, list[Extent]]] = []
    end = -1
    for start, stop, name, extent in everything:
        if start >= end:
            groups.append({name: [] for name in sources})
        groups[-1][name].append(extent)
        end = max(end, stop)
    return [Case(**{name: tuple(extents) for name, extents in group.items()}) for group in groups]


def extents_of(tags: Sequence[str], scheme: str) -> list[Extent]:
    """The entities of a sentence's tags."""
    return [(kind, first, last + 1) for kind, first, last in word_spans(tags)]


@dataclass
class CaseWriter:
    """Collects the rows of the page.

    store: where the neighbours are. scheme: of the gold tags; stored_scheme: of the store's and the mix's.
    cosine: whether keys are compared by angle, and so mapped by it.
    outcomes: how many cases have each.
    """

    store: Datastore
    scheme: str
    stored_scheme: str
    cosine: bool
    outcomes: Counter = field(default_factory=Counter)
    _counts: Counter = field(default_factory=Counter)
    _labels: dict[str, int] = field(default_factory=dict)
    _stored: dict[int, int] = field(default_factory=dict)
    _stored_rows: list[list] = field(default_factory=list)
    _sentences: list[list] = field(default_factory=list)
    _cases: list[list] = field(default_factory=list)

    def add(self, sentence: Sentence, explained: ExplainedText) -> None:
        """Take in a sentence, if there is an entity in it."""
        prediction = explained.prediction
        gold = extents_of(sentence.tags, self.scheme)
        base = extents_of(prediction.base_tags, self.stored_scheme)
        knn = extents_of(prediction.tags, self.stored_scheme)
        for name, extents in (("gold", gold), ("base", base), ("knn", knn)):
            self._counts[name] += len(extents)
            self._counts[f"right {name}"] += len(set(extents) & set(gold))
        cases = find_cases(gold, base, knn)
        for case in cases:
            self.outcomes[case.outcome] += 1
            words = [self._word(explained, word) for word in case.words]
            outcome = OUTCOMES.index(case.outcome)
            extent = [case.words.start, case.words.stop]
            self._cases.append([len(self._sentences), outcome, *extent, words])
        if cases:
            answers = [[x for extent in extents for x in extent] for extents in (gold, base, knn)]
            self._sentences.append([" ".join(sentence.words), *answers])

    def f1(self, name: str) -> float:
        """Of `base` or `knn`, over words, in percent, as conlleval has it."""
        counts = self._counts
        return float(percentages(counts[f"right {name}"], counts[name], counts["gold"])[2])

    def content(self) -> dict:
        """The rows, for JSON."""
        return {
            "outcomes": OUTCOMES,
            "labels": list(self._labels),
            "sentences": self._sentences,
            "stored": self._stored_rows,
            "cases": self._cases,
        }

    def _word(self, explained: ExplainedText, word: int) -> list:
        evidence = explained.evidence[word]
        vote = [
            part
            for label, share in evidence.vote.items()
            if share >= 0.005
            for part in (self._label(label), _short(share))
        ]
        neighbours = [part for n in evidence.neighbours for part in self._neighbour(n)]
        return [
            *self._answers(evidence),
            vote,
            neighbours,
            self._map(explained.hidden[word], explained.around[word]),
        ]

    def _answers(self, evidence: WordEvidence) -> list:
        return [
            self._label(evidence.base),
            _short(evidence.base_score),
            self._label(evidence.label),
            _short(evidence.score),
            self._label(evidence.without),
            _short(evidence.without_score),
        ]

    def _neighbour(self, neighbour: Neighbour) -> Iterable[float]:
        number = self._stored.get(neighbour.sentence_id)
        if number is None:
            number = self._stored[neighbour.sentence_id] = len(self._stored_rows)
            extents = extents_of(neighbour.tags, self.stored_scheme)
            flat = [part for extent in extents for part in extent]
            row = [neighbour.sentence_id, " ".join(neighbour.words), flat]
            self._stored_rows.append(row)
        similarity = float(f"{neighbour.similarity:.4g}")
        label = self._label(neighbour.label)
        return number, neighbour.word, label, similarity, float(f"{neighbour.share:.3g}")

    def _map(self, hidden: np.ndarray, entries: np.ndarray) -> list[int]:
        """Place of the word, then for each entry around it its label and place."""
        points = np.concatenate([hidden[None], self.store.gather(entries).astype(np.float32)])
        if self.cosine:
            points /= np.linalg.norm(points, axis=1, keepdims=True).clip(min=1e-12)
        places = project(points).tolist()
        row = places[0]
        for entry, place in zip(entries, places[1:], strict=True):
            row += [self._label(self.store.labels[self.store.label_ids[entry]]), *place]
        return row

    def _label(self, label: str) -> int:
        return self._labels.setdefault(label, len(self._labels))


def _short(probability: float) -> float:
    return round(probability, 3)
