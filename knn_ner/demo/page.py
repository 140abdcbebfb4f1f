"""What the demo answers: texts and settings in, HTML out; corrected sentences into the datastore."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from knn_ner.data.tags import ACCEPTED, OUTSIDE, is_tag, position_and_type, scheme_of_labels
from knn_ner.demo import rendering
from knn_ner.demo.rendering import Palette, counted
from knn_ner.settings import VoteSettings
from knn_ner.tagging.knn_tagger import KnnTagger
from knn_ner.utils.errors import UserError

# Neighbours that are shown of each word.
SHOWN = 5
# Characters of a text, so that one visitor cannot keep the tagger from the others for long.
LONGEST = 4000

HINT = '<p class="knn-note">Type a sentence to see its entities, and the stored sentences behind them.</p>'


@dataclass
class Answer:
    """What the page shows for a text.

    sides, neighbours: HTML. words, tags: of the mix, for the form. error: one line; the rest is empty then.
    """

    sides: str = HINT
    neighbours: str = ""
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    error: str = ""


class Page:
    """A tagger and its datastore, as visitors use them; they come one after another."""

    def __init__(self, tagger: KnnTagger):
        self.tagger = tagger
        self._lock = threading.Lock()

    def answer(
        self, text: str, k: int | None, temperature: float | None, knn_weight: float | None
    ) -> Answer:
        """Tag a text. What cannot be answered is said in `error`."""
        try:
            if k is None or temperature is None or knn_weight is None:
                raise UserError("a setting is empty; give k, temperature and knn_weight")
            if not text.strip():
                raise UserError("no text found; type a sentence")
            if len(text) > LONGEST:
                raise UserError(
                    f"{len(text)} characters found, at most {LONGEST} expected; give a shorter text"
                )
            settings = VoteSettings(int(k), float(temperature), float(knn_weight))
            with self._lock:
                # What other processes have added since counts too.
                self.tagger.refresh()
                (explained,) = self.tagger.explain_texts(
                    [text], neighbours=SHOWN, settings=settings
                )
                palette = Palette(self.tagger.labels)
        except UserError as error:
            return Answer(error=str(error))
        found = explained.prediction
        words = found.text.words
        joiner = self.tagger.tagger.encoding.joiner
        return Answer(
            rendering.side_by_side(text, found.base_entities, found.entities, palette),
            rendering.neighbours(explained.entities, words, palette, joiner),
            words,
            found.tags,
        )

    def add(self, words: Sequence[str], tags: Sequence[str]) -> str:
        """Add a corrected sentence to the datastore; returns what to tell the visitor.

        Raises `UserError` when tags do not fit the words, the scheme or each other, and when the
        datastore cannot be written.
        """
        if not words:
            raise UserError("no sentence found; tag one first, then correct it")
        self._check(words, tags)
        with self._lock:
            sentence_id = self.tagger.add(list(words), list(tags))
        return f"sentence {sentence_id} added; the answer above counts it already"

    def labels(self, further_types: Sequence[str] = ()) -> list[str]:
        """The tags to choose from: those of tagger and datastore, and those of further types."""
        labels = self.tagger.labels
        scheme = scheme_of_labels(labels)
        letters = ["B", scheme.inside, *("ES" if scheme.closes else "")]
        new = (f"{letter}-{kind}" for kind in further_types for letter in letters)
        return list(dict.fromkeys([*labels, *new]))

    def check_type(self, kind: str) -> str:
        """A new entity type, without the white space around it.

        Raises `UserError` when it is none.
        """
        kind = kind.strip()
        if not kind or any(map(str.isspace, kind)):
            raise UserError(f"type {kind!r} found, expected a name without spaces, such as PER")
        return kind

    def about(self) -> str:
        """The datastore in a few words."""
        store = self.tagger.store
        return (
            f"{counted(len(store.stored_sentences), 'stored sentence')}, "
            f"{counted(store.entries, 'labelled token')}, {self.tagger.similarity} similarity"
        )

    def _check(self, words: Sequence[str], tags: Sequence[str]) -> None:
        if len(words) != len(tags):
            raise UserError(
                f"{counted(len(words), 'word')} and {counted(len(tags), 'tag')} found, "
                "expected a tag for each word"
            )
        scheme = scheme_of_labels(self.tagger.labels)
        previous = OUTSIDE
        # A slip would stay in the datastore and vote; a tag file of others may hold what it likes.
        for number, tag in enumerate([*tags, OUTSIDE]):
            if not isinstance(tag, str) or not is_tag(tag):
                raise UserError(f"{words[number]}: tag {tag!r} found, expected {ACCEPTED}")
            if not scheme.is_legal(previous, tag):
                kind = position_and_type(previous)[1]
                if (
                    previous != OUTSIDE
                    and scheme.closes
                    and position_and_type(previous)[0] in "BMI"
                ):
                    place, expected = (
                        words[number - 1],
                        f"{scheme.inside}-{kind} or E-{kind} after it",
                    )
                    raise UserError(f"{place}: tag {previous} found, expected {expected}")
                raise UserError(
                    f"{words[number]}: tag {tag} found, expected B-{position_and_type(tag)[1]} before it"
                )
            previous = tag
