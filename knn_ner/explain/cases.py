"""Cases: entities of gold, tagger alone and mix that overlap, with the evidence for each of their words.

The data are short rows for the page's script; `page.js` names the columns.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from knn_ner.data.corpus import Sentence
from knn_ner.data.spans import word_spans
from knn_ner.datastore.reader import Datastore
from knn_ner.evaluation.metrics import percentages
from knn_ner.explain.projection import project_to_map
from knn_ner.html.renderer import Palette
from knn_ner.tagging.entities import Neighbour
from knn_ner.tagging.explanation import ExplainedText

EntityRange = tuple[str, int, int]
"""Type, first word, and last word + 1."""

OUTCOMES = ("fixed", "broken", "changed", "wrong", "right")
"""fixed: tagger alone wrong, mix right. broken: tagger alone right, mix wrong. changed: both wrong, with different
answers. wrong: both wrong, with the same answer. right: both right."""

# Labels with a smaller share of the vote are not shown.
SMALLEST_SHARE = 0.005


@dataclass(frozen=True)
class Case:
    """Entities of one sentence that overlap.

    Attributes:
        gold: the gold entities.
        base: the entities of the tagger alone.
        knn: the entities of the mix.
    """

    gold: tuple[EntityRange, ...]
    base: tuple[EntityRange, ...]
    knn: tuple[EntityRange, ...]

    @property
    def words(self) -> range:
        """The words from the first to the last of these entities."""
        _, starts, stops = zip(*self.gold, *self.base, *self.knn, strict=True)
        return range(min(starts), max(stops))

    @property
    def outcome(self) -> str:
        """One of `OUTCOMES`."""
        if self.base == self.gold:
            return "right" if self.knn == self.gold else "broken"
        if self.knn == self.gold:
            return "fixed"
        return "wrong" if self.knn == self.base else "changed"


def find_cases(
    gold: Sequence[EntityRange], base: Sequence[EntityRange], knn: Sequence[EntityRange]
) -> list[Case]:
    """Group the entities of a sentence: two that share a word belong to one case, directly or through others."""
    sources = {"gold": gold, "base": base, "knn": knn}
    entities = sorted((each[1], each[2], name, each) for name in sources for each in sources[name])
    groups: list[dict[str, list[EntityRange]]] = []
    end = -1
    for start, stop, name, entity in entities:
        if start >= end:
            groups.append({name: [] for name in sources})
        groups[-1][name].append(entity)
        end = max(end, stop)
    return [Case(**{name: tuple(group[name]) for name in group}) for group in groups]


def entity_ranges(tags: Sequence[str]) -> list[EntityRange]:
    """The entities in the tags of a sentence."""
    return [(kind, first, last + 1) for kind, first, last in word_spans(tags)]


@dataclass
class CaseWriter:
    """Collects the rows of the page.

    Attributes:
        store: the datastore of the neighbours.
        cosine: whether the similarity is cosine; keys are then normalised before they are mapped.
        outcomes: number of cases with each outcome.
    """

    store: Datastore
    cosine: bool
    outcomes: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(OUTCOMES, 0)))
    _counts: Counter[str] = field(default_factory=Counter)
    _labels: dict[str, int] = field(default_factory=dict)
    _palette: Palette = field(default_factory=Palette)
    _stored: dict[int, int] = field(default_factory=dict)
    _stored_rows: list[list] = field(default_factory=list)
    _sentences: list[list] = field(default_factory=list)
    _cases: list[list] = field(default_factory=list)

    def add(self, sentence: Sentence, explained: ExplainedText) -> None:
        """Add the cases of a sentence; a sentence without an entity adds nothing."""
        gold = entity_ranges(sentence.tags)
        base = entity_ranges(explained.prediction.base_tags)
        knn = entity_ranges(explained.prediction.tags)
        for name, entities in (("gold", gold), ("base", base), ("knn", knn)):
            self._counts[name] += len(entities)
            self._counts[f"right {name}"] += len(set(entities) & set(gold))
        cases = find_cases(gold, base, knn)
        for case in cases:
            self.outcomes[case.outcome] += 1
            words = [self._evidence(explained, word) for word in case.words]
            outcome = OUTCOMES.index(case.outcome)
            ends = [case.words.start, case.words.stop]
            self._cases.append([len(self._sentences), outcome, *ends, words])
        if cases:
            flat = [self._flat(entities) for entities in (gold, base, knn)]
            self._sentences.append([" ".join(sentence.words), *flat])

    def f1(self, name: str) -> float:
        """F1 of `base` (tagger alone) or `knn` (mix) over words, in percent, by conlleval's rules."""
        counts = self._counts
        return float(percentages(counts[f"right {name}"], counts[name], counts["gold"])[2])

    def rows(self) -> dict[str, Any]:
        """The rows of all cases, for JSON."""
        return {
            "outcomes": OUTCOMES,
            "labels": list(self._labels),
            "hues": self._palette.hues,
            "sentences": self._sentences,
            "stored": self._stored_rows,
            "cases": self._cases,
        }

    def _evidence(self, explained: ExplainedText, word: int) -> list:
        evidence = explained.evidence[word]
        vote = [
            part
            for label, share in evidence.vote.items()
            if share >= SMALLEST_SHARE
            for part in (self._label(label), round(share, 3))
        ]
        neighbours = [part for each in evidence.neighbours for part in self._neighbour(each)]
        keys = self._map(explained.hidden[word], explained.around[word])
        base, mix = self._label(evidence.base), self._label(evidence.label)
        without = self._label(evidence.without), round(evidence.without_score, 3)
        scores = round(evidence.base_score, 3), round(evidence.score, 3)
        return [base, scores[0], mix, scores[1], *without, vote, neighbours, keys]

    def _neighbour(self, neighbour: Neighbour) -> Iterable[float]:
        number = self._stored.get(neighbour.sentence_id)
        if number is None:
            number = self._stored[neighbour.sentence_id] = len(self._stored_rows)
            entities = self._flat(entity_ranges(neighbour.tags))
            self._stored_rows.append([neighbour.sentence_id, " ".join(neighbour.words), entities])
        similarity, share = float(f"{neighbour.similarity:.4g}"), float(f"{neighbour.share:.3g}")
        return number, neighbour.word, self._label(neighbour.label), similarity, share

    def _map(self, hidden: np.ndarray, entries: np.ndarray) -> list[int]:
        """Coordinates of the word; then label and coordinates of each stored token."""
        points = np.concatenate([hidden[None], self.store.gather(entries).astype(np.float32)])
        if self.cosine:
            points /= np.linalg.norm(points, axis=1, keepdims=True).clip(min=1e-12)
        row, *places = project_to_map(points).tolist()
        for entry, place in zip(entries, places, strict=True):
            row += [self._label(self.store.labels[self.store.label_ids[entry]]), *place]
        return row

    def _label(self, label: str) -> int:
        self._palette.hue_of_label(label)
        return self._labels.setdefault(label, len(self._labels))

    def _flat(self, entities: Sequence[EntityRange]) -> list[str | int]:
        for kind, *_ in entities:
            self._palette.hue(kind)
        return [part for entity in entities for part in entity]
