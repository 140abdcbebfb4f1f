"""From scores of stored entries to a ranked list of places in the corpus."""

from dataclasses import dataclass

import numpy as np

from knn_ner.audit.evidence import Evidence
from knn_ner.data.corpus import Sentence
from knn_ner.data.encoding import IGNORED, Encoding
from knn_ner.data.spans import word_spans
from knn_ner.data.tags import SCHEMES, convert_tags
from knn_ner.data.word_decoding import WordDecoder
from knn_ner.datastore.reader import Datastore
from knn_ner.tagging.trained_tagger import TrainedTagger


@dataclass
class Place:
    """Words that may be labelled wrongly: an entity, or words outside, with what touches them.

    sentence: the id of the stored sentence. first, last: its words, from 0, ends included.
    score: of the worst word; entry: the worst word piece of that.
    suggested: the tags of these words as the mix of neighbours and tagger has them, well-formed.
    """

    sentence: int
    first: int
    last: int
    score: float
    entry: int
    suggested: list[str]


class StoredWords:
    """The words of a datastore, numbered through in the order of the entries.

    sentences: the stored sentences. first_entry: (S + 1,) first entry of each, and their number.
    first_word: (S + 1,) first word of each, and their number.
    of_entry: (n,) the word of each entry, -1 for special tokens.
    """

    def __init__(self, store: Datastore):
        starts = np.flatnonzero(np.diff(store.sentence_ids, prepend=-1))
        self.sentences = [store.sentence(int(store.sentence_ids[start])) for start in starts]
        self.first_entry = np.append(starts, store.entries)
        self.first_word = np.cumsum([0, *(len(s["words"]) for s in self.sentences)])
        offsets = np.repeat(self.first_word[:-1], np.diff(self.first_entry))
        self.of_entry = np.where(store.positions >= 0, offsets + store.positions, -1)

    def __len__(self) -> int:
        return int(self.first_word[-1])

    def judge(self, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores of entries, (n,), to words: the mean over a word's entries, and the worst of these.

        A word without an entry, whose piece goes on into the words after it, has those of the next one.

        Returns the scores, (words,) float64, and the entries, (words,) int64.
        """
        entries = np.flatnonzero(self.of_entry >= 0)
        order = entries[np.lexsort((entries, -score[entries], self.of_entry[entries]))]
        words, places, counts = np.unique(
            self.of_entry[order], return_index=True, return_counts=True
        )
        means = np.add.reduceat(score[order].astype(np.float64), places) / counts
        following = np.minimum(np.searchsorted(words, np.arange(len(self))), len(words) - 1)
        return means[following], order[places][following]


def units(words: StoredWords, scheme: str) -> tuple[np.ndarray, np.ndarray]:
    """What is judged as one: each entity, and each word outside.

    Returns the unit of each word, (words,) ascending, and the sentence of each unit.
    """
    begins = np.ones(len(words), dtype=bool)
    for start, sentence in zip(words.first_word, words.sentences, strict=False):
        for _, first, last in word_spans(sentence["tags"]):
            begins[start + first + 1 : start + last + 1] = False
    sentence_of_word = np.repeat(np.arange(len(words.sentences)), np.diff(words.first_word))
    return np.cumsum(begins) - 1, sentence_of_word[begins]


def group(unit_scores: np.ndarray, sentence_of_unit: np.ndarray, limit: int) -> list[list[int]]:
    """The `limit` worst places, each a list of units, worst first.

    Units are taken by falling score, equal ones by place. One that touches a place of the list belongs
    to it, so that an error that shows in several words (an entity that is tagged `O`, a border) is
    one place. A unit with score 0 is none.
    """
    places: list[list[int]] = []
    place_of: dict[int, int] = {}
    for unit in np.argsort(-unit_scores, kind="stable").tolist():
        if unit_scores[unit] <= 0:
            break
        beside = [
            place_of[other]
            for other in (unit - 1, unit + 1)
            if other in place_of and sentence_of_unit[other] == sentence_of_unit[unit]
        ]
        if not beside and len(places) == limit:
            break
        if not beside:
            places.append([])
        place_of[unit] = min(beside, default=len(places) - 1)
        places[place_of[unit]].append(unit)
    return places


def rank(
    evidence: Evidence, words: StoredWords, tagger: TrainedTagger, scheme: str, limit: int
) -> list[Place]:
    """The `limit` places whose labels look most wrong, worst first."""
    score, worst = words.judge(evidence.score)
    unit_of_word, sentence_of_unit = units(words, scheme)
    scores = np.zeros(len(sentence_of_unit))
    np.maximum.at(scores, unit_of_word, score)
    encoding = tagger.encoding_with(evidence.labels)
    places = []
    for members in group(scores, sentence_of_unit, limit):
        # Units that touch each other are a run of words.
        here = np.arange(
            np.searchsorted(unit_of_word, min(members)),
            np.searchsorted(unit_of_word, max(members), side="right"),
        )
        number = sentence_of_unit[members[0]]
        entry = worst[here[score[here].argmax()]]
        start = words.first_word[number]
        first, last = int(here[0] - start), int(here[-1] - start)
        given = words.sentences[number]["tags"][first : last + 1]
        # A word's first piece decides its tag: if another piece is the worst, all of them change.
        for changed in (np.array([entry]), np.flatnonzero(words.of_entry == words.of_entry[entry])):
            tags = suggest(evidence, words, encoding, number, changed)
            tags = convert_tags(tags, SCHEMES[scheme])[first : last + 1]
            if tags != given:
                break
        places.append(
            Place(
                words.sentences[number]["id"],
                first,
                last,
                float(score[here].max()),
                int(entry),
                tags,
            )
        )
    return places


def suggest(
    evidence: Evidence, words: StoredWords, encoding: Encoding, number: int, changed: np.ndarray
) -> list[str]:
    """The tags of a sentence by what is likeliest for each entry; for `changed` not the stored label."""
    sentence = words.sentences[number]
    entries = np.arange(words.first_entry[number], words.first_entry[number + 1])
    encoded = encoding.encode([Sentence(sentence["words"], sentence["tags"])])
    rows = np.zeros(len(encoded[0]), np.int64)
    likeliest = evidence.likeliest[entries]
    there = np.isin(entries, changed)
    likeliest[there] = evidence.rival[entries[there]]
    rows[encoded[0].labels != IGNORED] = likeliest
    return WordDecoder(encoded, encoding.labels).sentences(rows)[0]
