"""Where a gain comes from: the tags and entities that kNN corrects and spoils, by groups of entities.

Entities are those of the word-level F1. A group's F1 counts its gold entities and the predicted entities of the same
kind: a predicted entity is in the group of its own type, length and form. The form of an entity (its words) is looked
up among the entities of the datastore's sentences.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from knn_ner.data.spans import Span, word_spans
from knn_ner.evaluation.prediction_files import SYSTEMS, Predicted
from knn_ner.evaluation.significance import f1_of, gain_interval, gains

SEEN, OTHER_TYPE, UNSEEN = "seen", "seen with another type", "unseen"
# Bins by the value that they start at.
LENGTHS = {"1": 1, "2": 2, "3": 3, "4": 4, "5 or more": 5}
TIMES = {"0": 0, "1": 1, "2 to 4": 2, "5 to 19": 5, "20 or more": 20}
AGREEMENTS = {
    "below 0.5": 0, "0.5 to 0.7": 0.5, "0.7 to 0.9": 0.7, "0.9 to 0.99": 0.9, "0.99 to 1": 0.99,
}  # fmt: skip
NOT_SEARCHED = "not searched"
# The groups of each dimension in order; types are ordered by name.
DIMENSIONS = {
    "type": (),
    "length": tuple(LENGTHS),
    "form in training": (SEEN, OTHER_TYPE, UNSEEN),
    "times in training": tuple(TIMES),
}
# For the intervals of groups, of which there are many.
RESAMPLES = 2000

Votes = Mapping[tuple[int, int], tuple[str, float]]


class Forms:
    """How often each form has which type among the entities of labelled sentences."""

    def __init__(self, sentences: Iterable[tuple[Sequence[str], Sequence[str]]]):
        """Count the forms in the words and tags of the sentences."""
        self._types: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for words, tags in sentences:
            for type_, first, last in word_spans(tags):
                self._types[tuple(words[first : last + 1])][type_] += 1

    def groups(self, words: Sequence[str], span: Span) -> tuple[str, ...]:
        """The group of an entity in each of `DIMENSIONS`."""
        type_, first, last = span
        types = self._types.get(tuple(words[first : last + 1]), Counter())
        times = types.total()
        form = SEEN if types[type_] else OTHER_TYPE if times else UNSEEN
        return type_, _bin(LENGTHS, last + 1 - first), form, _bin(TIMES, times)


def break_down(
    seeds: Sequence[Sequence[Predicted]], votes: Sequence[Votes], forms: Forms
) -> dict[str, Any]:
    """Break down the predictions that all seeds made of the same sentences, and the votes of their neighbours.

    Returns:
        `tags`, `entities`: what changed, on average over seeds (see `changed_tags`, `changed_entities`).
        `groups`: for each of `DIMENSIONS` a list of groups with their gold entities, mean F1 of both systems,
        mean gain, its 95% interval, and the entities changed.
        `agreement`: for each bin of the neighbours' agreement the words, and what became of them.
    """
    return {
        "tags": _mean(list(map(changed_tags, seeds))),
        "entities": _mean(list(map(changed_entities, seeds))),
        "groups": group_gains(seeds, forms),
        "agreement": by_agreement(seeds, votes),
    }


def changed_tags(sentences: Sequence[Predicted]) -> dict[str, int]:
    """Count words whose tag kNN changed: fixed, broken, and wrong before and after (other)."""
    counts = Counter(words=0, changed=0, fixed=0, broken=0, other=0)
    for _, gold, base, knn in sentences:
        for true, before, after in zip(gold, base, knn, strict=True):
            counts.update(_changes(true, before, after))
    return dict(counts)


def changed_entities(sentences: Sequence[Predicted]) -> dict[str, int]:
    """Count entities that kNN changed: right ones found or lost, wrong ones removed or added."""
    counts = Counter(gold=0, found=0, lost=0, removed=0, added=0)
    for _, *tags in sentences:
        gold, base, knn = (set(word_spans(each)) for each in tags)
        counts["gold"] += len(gold)
        _count_changes(counts, gold, base, knn)
    return dict(counts)


def group_gains(
    seeds: Sequence[Sequence[Predicted]], forms: Forms
) -> dict[str, list[dict[str, Any]]]:
    """Score tagger and kNN on each group of entities, groups in their natural order."""
    shape = len(SYSTEMS), len(seeds), len(seeds[0]), 3
    counts: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros(shape, np.int64))
    changes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for seed, sentences in enumerate(seeds):
        for row, (words, *tags) in enumerate(sentences):
            parts = [set(word_spans(each)) for each in tags]
            groups = {span: forms.groups(words, span) for span in set().union(*parts)}
            for place, dimension in enumerate(DIMENSIONS):
                for name in {each[place] for each in groups.values()}:
                    gold, *found = (
                        {span for span in part if groups[span][place] == name} for part in parts
                    )
                    cell = counts[dimension, name][:, seed, row]
                    cell[:] = [[len(gold & each), len(each), len(gold)] for each in found]
                    _count_changes(changes[dimension, name], gold, *found)
    return {
        dimension: [
            _group(name, counts[dimension, name], changes[dimension, name])
            for name in order or sorted(name for each, name in counts if each == dimension)
            if (dimension, name) in changes
        ]
        for dimension, order in DIMENSIONS.items()
    }


def by_agreement(
    seeds: Sequence[Sequence[Predicted]], votes: Sequence[Votes]
) -> list[dict[str, Any]]:
    """Count words by their neighbours' agreement (the likeliest label's share), on average over seeds."""
    rows: dict[str, Counter[str]] = {name: Counter() for name in (*AGREEMENTS, NOT_SEARCHED)}
    for sentences, voted in zip(seeds, votes, strict=True):
        for row, (_, gold, base, knn) in enumerate(sentences):
            for place, (true, before, after) in enumerate(zip(gold, base, knn, strict=True)):
                vote = voted.get((row, place))
                counts = rows[NOT_SEARCHED if vote is None else _bin(AGREEMENTS, vote[1])]
                counts["entity words"] += true != "O"
                counts["tagger right"] += true == before
                counts.update(_changes(true, before, after))
    names = ("words", "entity words", "tagger right", "changed", "fixed", "broken", "other")
    return [
        {"agreement": name} | {each: counts[each] / len(seeds) for each in names}
        for name, counts in rows.items()
    ]


def _changes(true: str, before: str, after: str) -> list[str]:
    """What a word counts as."""
    if before == after:
        return ["words"]
    outcome = "fixed" if after == true else "broken" if before == true else "other"
    return ["words", "changed", outcome]


def _count_changes(counts: Counter[str], gold: set[Span], base: set[Span], knn: set[Span]) -> None:
    counts["found"] += len((knn - base) & gold)
    counts["lost"] += len((base - knn) & gold)
    counts["removed"] += len(base - knn - gold)
    counts["added"] += len(knn - base - gold)


def _group(name: str, counts: np.ndarray, changes: Counter[str]) -> dict[str, Any]:
    """The scores of a group from its counts, (systems, seeds, sentences, 3)."""
    base, knn = counts
    seeds = counts.shape[1]
    return {
        "group": name,
        "entities": int(base[0, :, 2].sum()),
        "base": float(f1_of(base.sum(axis=1)).mean()),
        "knn": float(f1_of(knn.sum(axis=1)).mean()),
        "gain": float(gains(base, knn).mean()),
        "interval": list(gain_interval(base, knn, RESAMPLES)),
    } | {each: changes[each] / seeds for each in ("found", "lost", "removed", "added")}


def _bin(starts: Mapping[str, float], value: float) -> str:
    """The last of several ascending bins that starts at or below a value."""
    return [name for name, start in starts.items() if start <= value][-1]


def _mean(counts: Sequence[Mapping[str, int]]) -> dict[str, float]:
    return {name: sum(each[name] for each in counts) / len(counts) for name in counts[0]}
