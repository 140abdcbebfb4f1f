"""What the demo answers: HTML for texts and settings; and corrected sentences, which it adds to the datastore."""

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from knn_ner.data.tags import ACCEPTED, OUTSIDE, is_tag, position_and_type, scheme_of_labels
from knn_ner.datastore.reader import Datastore
from knn_ner.html.renderer import Palette, macros
from knn_ner.settings import VoteSettings
from knn_ner.tagging.entities import ExplainedEntity
from knn_ner.tagging.knn_tagger import KnnTagger
from knn_ner.utils.errors import UserError
from knn_ner.utils.text import counted

# Neighbours that are shown for each word.
SHOWN_NEIGHBOURS = 5
# Longest text, so that one visitor cannot occupy the tagger for long.
MAX_CHARACTERS = 4000

PARTS = macros("demo/parts.html")
HINT = PARTS.note("Type a sentence to see its entities, and the stored sentences behind them.")


@dataclass
class Answer:
    """What the page shows for a text.

    Attributes:
        sides: HTML, the text with its entities, by the tagger alone and by the mix.
        neighbours: HTML, the neighbours of each entity.
        words: words of the text, for the form.
        tags: tags of the mix, for the form.
    """

    sides: str
    neighbours: str
    words: list[str]
    tags: list[str]


class Backend:
    """Answers visitors one after another.

    Args:
        tagger: a tagger with its datastore.

    Raises:
        UserError: if the tagger has no datastore.
    """

    def __init__(self, tagger: KnnTagger):
        if tagger.store is None or tagger.settings is None:
            raise UserError("no datastore: give one, as the demo shows the neighbours stored in it")
        self.tagger, self.settings = tagger, tagger.settings
        self._lock = threading.Lock()

    @property
    def store(self) -> Datastore:
        """The datastore as it was last read."""
        assert self.tagger.store is not None, "checked in __init__"
        return self.tagger.store

    def answer(
        self, text: str, k: int | None, temperature: float | None, knn_weight: float | None
    ) -> Answer:
        """Tag a text; None is a setting that the visitor has not filled in.

        Raises:
            UserError: if a setting is missing or out of range, or the text is empty or too long.
        """
        if k is None or temperature is None or knn_weight is None:
            raise UserError("a setting is empty; give k, temperature and knn_weight")
        if not text.strip():
            raise UserError("no text found; type a sentence")
        if len(text) > MAX_CHARACTERS:
            limit = f"at most {MAX_CHARACTERS} expected; give a shorter text"
            raise UserError(f"{len(text)} characters found, {limit}")
        settings = VoteSettings(int(k), float(temperature), float(knn_weight))
        with self._lock:
            # Other processes may have changed the datastore.
            self.tagger.refresh()
            (explained,) = self.tagger.explain_texts(
                [text], neighbours=SHOWN_NEIGHBOURS, settings=settings
            )
            palette = Palette(self.tagger.labels)
        found = explained.prediction
        words, joiner = found.text.words, self.tagger.tagger.encoding.joiner
        sides = PARTS.side_by_side(text, found.base_entities, found.entities, palette)
        shown = neighbours(explained.entities, words, palette, joiner)
        return Answer(sides, shown, words, found.tags)

    def add(self, words: Sequence[str], tags: Sequence[str]) -> str:
        """Add a corrected sentence to the datastore.

        Returns:
            The message to the visitor.

        Raises:
            UserError: if the tags do not fit the words, the scheme or each other, or the datastore cannot be written.
        """
        if not words:
            raise UserError("no sentence found; tag one first, then correct it")
        self._check_tags(words, tags)
        with self._lock:
            sentence_id = self.tagger.add(list(words), list(tags))
        return f"sentence {sentence_id} added; the answer above already uses it"

    def labels(self, further_types: Sequence[str] = ()) -> list[str]:
        """The tags to choose from: those of tagger and datastore, and those of further entity types."""
        scheme = scheme_of_labels(self.tagger.labels)
        letters = ["B", scheme.inside, *("ES" if scheme.closes else "")]
        new = (f"{letter}-{kind}" for kind in further_types for letter in letters)
        return list(dict.fromkeys([*self.tagger.labels, *new]))

    def about(self) -> str:
        """The datastore in one line."""
        return (
            f"{counted(len(self.store.stored_sentences), 'stored sentence')}, "
            f"{counted(self.store.entries, 'labelled token')}, {self.tagger.similarity} similarity"
        )

    def _check_tags(self, words: Sequence[str], tags: Sequence[str]) -> None:
        """Check tags more strictly than tag files are: a wrong tag would stay in the datastore and vote."""
        if len(words) != len(tags):
            raise UserError(
                f"{counted(len(words), 'word')} and {counted(len(tags), 'tag')} found, "
                "expected a tag for each word"
            )
        for word, tag in zip(words, tags, strict=True):
            if not isinstance(tag, str) or not is_tag(tag):
                raise UserError(f"{word}: tag {tag!r} found, expected {ACCEPTED}")
        scheme = scheme_of_labels(self.tagger.labels)
        for number, (tag, after) in enumerate(itertools.pairwise([OUTSIDE, *tags, OUTSIDE])):
            if scheme.is_legal(tag, after):
                continue
            position, kind = position_and_type(tag)
            if scheme.closes and position in ("B", "M", "I"):
                word, found = words[number - 1], tag
                expected = f"{scheme.inside}-{kind} or E-{kind} after it"
            else:
                word, found = words[number], after
                expected = f"B-{position_and_type(after)[1]} before it"
            raise UserError(f"{word}: tag {found} found, expected {expected}")


def check_type(entity_type: str) -> str:
    """A new entity type without the white space around it.

    Raises:
        UserError: if it is empty or holds white space.
    """
    entity_type = entity_type.strip()
    if not entity_type or any(map(str.isspace, entity_type)):
        raise UserError(f"type {entity_type!r} found, expected a name without spaces, such as PER")
    return entity_type


def neighbours(
    entities: Sequence[ExplainedEntity], words: Sequence[str], palette: Palette, joiner: str
) -> str:
    """The neighbours of each entity of a text, word by word, as HTML; `joiner` stands between two words.

    An entity of the tagger alone is left out if entities of the mix cover all of its words, because these show the same
    neighbours.
    """
    mixed = [each for each in entities if each.found_by != "base"]
    covered = {word for each in mixed for word in range(*each.words)}
    shown = [e for e in entities if e in mixed or not covered.issuperset(range(*e.words))]
    return PARTS.neighbours(shown, words, palette, joiner)
