"""From scores of stored entries to a ranked list of places in the corpus."""

from dataclasses import dataclass

import numpy as np

from knn_ner.audit.evidence import Evidence
from knn_ner.audit.stored_sentences import StoredSentences
from knn_ner.data.corpus import Sentence
from knn_ner.data.encoding import IGNORED, Encoding
from knn_ner.data.spans import word_spans
from knn_ner.data.tags import SCHEMES, convert_tags
from knn_ner.data.word_decoding import WordDecoder


@dataclass
class Place:
    """Consecutive words of a stored sentence whose labels may be wrong.

    Attributes:
        score: the score of the word that looks most wrong.
        entry: the entry (word piece) with the highest score.
        sentence: id of the stored sentence.
        words: the words of the sentence.
        tags: the stored tags of the sentence.
        first: index of the first word of the place.
        last: index of its last word.
        suggested: the tags that neighbours and tagger suggest for the place; well-formed.
    """

    score: float
    entry: int
    sentence: int
    words: list[str]
    tags: list[str]
    first: int
    last: int
    suggested: list[str]


def find_units(stored: StoredSentences, scheme: str) -> tuple[np.ndarray, np.ndarray]:
    """Divide the words into units that are judged as a whole: each entity, and each word outside.

    Returns (words,) the unit of each word, ascending; and (units,) the sentence of each unit.
    """
    begins = np.ones(len(stored), dtype=bool)
    for start, sentence in zip(stored.first_word, stored.sentences, strict=False):
        for _, first, last in word_spans(sentence["tags"]):
            begins[start + first + 1 : start + last + 1] = False
    sentence_of_word = np.repeat(np.arange(len(stored.sentences)), np.diff(stored.first_word))
    return np.cumsum(begins) - 1, sentence_of_word[begins]


def group_units(scores: np.ndarray, sentence_of_unit: np.ndarray, limit: int) -> list[list[int]]:
    """Group units into at most `limit` places, highest score first.

    Units are taken by falling score, equal scores in the order of the store. A unit next to a place joins it, so that
    an error that shows in several words (an entity tagged `O`, a wrong boundary) is one place. A unit with score 0
    belongs to no place.
    """
    places: list[list[int]] = []
    place_of: dict[int, int] = {}
    for unit in np.argsort(-scores, kind="stable").tolist():
        if scores[unit] <= 0:
            break
        adjacent = [
            place_of[other]
            for other in (unit - 1, unit + 1)
            if other in place_of and sentence_of_unit[other] == sentence_of_unit[unit]
        ]
        if not adjacent and len(places) == limit:
            break
        if not adjacent:
            places.append([])
        place_of[unit] = min(adjacent, default=len(places) - 1)
        places[place_of[unit]].append(unit)
    return places


def rank(
    evidence: Evidence, stored: StoredSentences, encoding: Encoding, scheme: str, limit: int
) -> list[Place]:
    """The places whose labels look most wrong, highest score first, at most `limit`.

    `encoding` is the tagger's, over the labels of the evidence; `scheme` is the tag scheme of the corpus.
    """
    scores, worst_entries = stored.word_scores(evidence.score)
    unit_of_word, sentence_of_unit = find_units(stored, scheme)
    unit_scores = np.zeros(len(sentence_of_unit))
    np.maximum.at(unit_scores, unit_of_word, scores)

    def suggest(number: int, changed: np.ndarray) -> list[str]:
        """The likeliest tags of a sentence, where the entries `changed` must not keep their stored labels."""
        sentence = stored.sentences[number]
        entries = np.arange(stored.first_entry[number], stored.first_entry[number + 1])
        encoded = encoding.encode([Sentence(sentence["words"], sentence["tags"])])
        labels = np.zeros(len(encoded[0]), np.int64)
        labels[encoded[0].labels != IGNORED] = np.where(
            np.isin(entries, changed), evidence.alternative[entries], evidence.likeliest[entries]
        )
        tags = WordDecoder(encoded, encoding.labels).sentences(labels)[0]
        return convert_tags(tags, SCHEMES[scheme])

    places = []
    for units in group_units(unit_scores, sentence_of_unit, limit):
        start, stop = np.searchsorted(unit_of_word, [min(units), max(units) + 1])
        worst = start + scores[start:stop].argmax()
        number, entry = sentence_of_unit[units[0]], int(worst_entries[worst])
        sentence = stored.sentences[number]
        first, last = (np.array([start, stop - 1]) - stored.first_word[number]).tolist()
        # The first word piece decides the tag of its word, so a change of another piece may change no tag. Then all
        # pieces of the word are changed.
        all_pieces = np.flatnonzero(stored.word_of_entry == stored.word_of_entry[entry])
        for changed in (np.array([entry]), all_pieces):
            suggested = suggest(number, changed)[first : last + 1]
            if suggested != sentence["tags"][first : last + 1]:
                break
        id_, words, tags = sentence["id"], sentence["words"], sentence["tags"]
        score = float(scores[worst])
        places.append(Place(score, entry, id_, words, tags, first, last, suggested))
    return places
