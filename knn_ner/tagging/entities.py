"""What prediction gives: entities with their places in the text, and the neighbours that decided them."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from knn_ner.data.spans import word_spans
from knn_ner.tagging.split import Split
from knn_ner.tagging.tag import Tagging
from knn_ner.tagging.texts import Text


@dataclass(frozen=True)
class Entity:
    """A named entity of a text."""

    type: str
    """`PER`, `LOC`, ...: the label without its position."""
    text: str
    """The entity as the text has it: `text[start:end]`."""
    start: int
    """Its first character, counted in code points from 0, as Python's strings are."""
    end: int
    """One past its last character."""
    words: tuple[int, int]
    """Its first word, counted from 0, and one past its last."""
    score: float
    """Mean over its words of the probability of the word's label, which the first word piece decides."""
    base: tuple["Entity", ...] = ()
    """What the tagger alone finds there: its entities that share a word with this one."""

    @property
    def changed(self) -> bool:
        """Whether the tagger alone would not have found this entity, with this type and extent."""
        return [entity.span for entity in self.base] != [self.span]

    @property
    def span(self) -> tuple[str, tuple[int, int]]:
        """Type and words: what makes two entities of a text the same."""
        return self.type, self.words

    def overlaps(self, other: "Entity") -> bool:
        """Whether the two share a word."""
        return self.words[0] < other.words[1] and other.words[0] < self.words[1]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: all fields, and those of what the tagger alone finds there."""
        content = asdict(self)
        for other in (*content["base"], *content.get("without", ())):
            del other["base"]
        return content


@dataclass(frozen=True)
class Neighbour:
    """A stored token, near to a word of the text."""

    label: str
    """Its label: what it votes for."""
    similarity: float
    """Of the two hidden states: cosine, or minus the squared distance."""
    share: float
    """Of the vote on the word, from 0 to 1."""
    sentence_id: int
    """Of its sentence, for `python -m knn_ner.datastore`."""
    words: list[str]
    """The words of its sentence."""
    tags: list[str]
    """Their tags."""
    word: int
    """Which of them it is; -1 for a special token, before or after the sentence."""
    entry: int
    """Its number in the datastore."""


@dataclass(frozen=True)
class WordEvidence:
    """How the label of a word came about."""

    word: int
    """Which word of the text."""
    base: str
    """The label that the tagger alone gives it."""
    base_score: float
    """The probability that the tagger gives that label."""
    label: str
    """The label that the mix gives it."""
    score: float
    """The probability of that label in the mix."""
    vote: dict[str, float]
    """What the neighbours' vote gives each label, the largest first; below 0.001 left out."""
    neighbours: list[Neighbour]
    """The nearest, best first."""
    without: str
    """The label that the mix would give it if these neighbours were not in the datastore."""
    without_score: float
    """The probability of that label."""


@dataclass(frozen=True)
class ExplainedEntity(Entity):
    """An entity with what decided it; or one that the tagger alone found, and what decided against it."""

    found_by: str = "both"
    """`both`; `knn`: only the mix found it; `base`: only the tagger alone did."""
    evidence: tuple[WordEvidence, ...] = ()
    """For each of its words."""
    without: tuple[Entity, ...] = ()
    """What would be found there if the neighbours in `evidence` were not in the datastore."""
    decisive: bool = False
    """Whether these neighbours decided: without them the answer would be another than it is."""

    @property
    def neighbours(self) -> list[Neighbour]:
        """The neighbours of all its words, word by word."""
        return [neighbour for word in self.evidence for neighbour in word.neighbours]


@dataclass
class Prediction:
    """A text with what was found in it.

    tags, base_tags: one for each word, of the mix and of the tagger alone. entities, base_entities: the
    same as entities, in order.
    """

    text: Text
    tags: list[str]
    base_tags: list[str]
    entities: list[Entity]
    base_entities: list[Entity]


def find_entities(
    text: Text, tags: Sequence[str], scores: Sequence[float], scheme: str
) -> list[Entity]:
    """The entities of a text by conlleval's rules, from tags and probabilities of its words."""
    entities = []
    for kind, first, last in word_spans(tags):
        start, end = _visible(text.text, text.spans[first][0], text.spans[last][1])
        score = sum(scores[first : last + 1]) / (last + 1 - first)
        extent = (first, last + 1)
        entities.append(Entity(kind, text.text[start:end], start, end, extent, float(score)))
    return entities


def _visible(text: str, start: int, end: int) -> tuple[int, int]:
    """The part of `text[start:end]` without invisible characters at its ends; all of it if nothing is visible."""
    first, last = start, end
    while first < last and _is_invisible(text[first]):
        first += 1
    while first < last and _is_invisible(text[last - 1]):
        last -= 1
    return (first, last) if first < last else (start, end)


def _is_invisible(character: str) -> bool:
    """Whether a character is white space, a control or a format character (byte-order mark, direction marks)."""
    return character.isspace() or unicodedata.category(character) in {"Cc", "Cf"}


def overlapping(entity: Entity, others: Iterable[Entity]) -> tuple[Entity, ...]:
    """Those of `others` that share a word with an entity."""
    return tuple(other for other in others if entity.overlaps(other))


def predictions_of(texts: Sequence[Text], split: Split, tagging: Tagging) -> list[Prediction]:
    """What was found in each of the texts that were tagged as `split`."""
    tags = split.decoder.sentences(tagging.knn)
    base_tags = split.decoder.sentences(tagging.base)
    scores = tagging.scores
    predictions = []
    for number, text in enumerate(texts):
        rows = split.first_rows[number] + split.encoded[number].first_piece
        entities = find_entities(text, tags[number], scores[rows], split.scheme)
        base = find_entities(text, base_tags[number], tagging.base_scores[rows], split.scheme)
        found = [replace(entity, base=overlapping(entity, base)) for entity in entities]
        predictions.append(Prediction(text, tags[number], base_tags[number], found, base))
    return predictions
