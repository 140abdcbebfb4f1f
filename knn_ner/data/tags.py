"""Tag schemes: the letters in which a tag tells its word's place in an entity, and conversion between schemes.

A tag is `O`, or a position letter, a hyphen and a type (`B-PER.NAM`). Taggers and datastores use BIO, IOBES or BMES;
IOB1 is read as BIO. Where entities begin and end is conlleval's rule, which holds for the tags of every scheme, even
malformed ones. So conversion keeps the entities, and need not know which scheme the tags are in.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from knn_ner.utils.errors import UserError

OUTSIDE = "O"
ACCEPTED = "O, or B- I- M- E- S- and a type, in the schemes BIO, IOB1, IOBES/BIOES or BMES"


def position_and_type(tag: str) -> tuple[str, str]:
    """`B-PER.NAM` -> (`B`, `PER.NAM`); `O` -> (`O`, ``)."""
    position, _, kind = tag.partition("-")
    return position, kind


def is_tag(text: str) -> bool:
    """Whether a text is a tag of any scheme: `O`, or a position letter with a type."""
    position, kind = position_and_type(text)
    return text == OUTSIDE or (position in {"B", "I", "M", "E", "S"} and bool(kind))


def opens_entity(previous: str, tag: str) -> bool:
    """Whether an entity begins at a tag, by conlleval's rule.

    It does at `B` and `S`, and at any other tag but `O` that follows `O`, the end of an entity (`E`, `S`) or another
    type. The entity goes on until `O`, or until the next one begins.
    """
    position, kind = position_and_type(tag)
    before, before_type = position_and_type(previous)
    follows = before not in {OUTSIDE, "E", "S"} and before_type == kind
    return position != OUTSIDE and (position in {"B", "S"} or not follows)


@dataclass(frozen=True)
class Scheme:
    """A tag scheme.

    Attributes:
        name: `BIO`, `IOB1`, `IOBES` or `BMES`.
        letters: position letters of the first word of an entity, a word inside, the last word, and an only word.
    """

    name: str
    letters: str

    @property
    def inside(self) -> str:
        """The letter of a word inside an entity, `I` or `M`."""
        return self.letters[1]

    @property
    def closes(self) -> bool:
        """Whether the last word (`E`) and an only word (`S`) have letters of their own."""
        return self.letters[2] == "E"

    def is_legal(self, previous: str, tag: str) -> bool:
        """Whether `tag` may follow `previous` (`O` stands for the start and the end of a sentence)."""
        before, before_type = position_and_type(previous)
        position, kind = position_and_type(tag)
        opened = before in {"B", self.inside}
        if position in {self.inside, "E"}:
            return opened and before_type == kind
        return not (self.closes and opened)

    def count_malformed(self, tags: Sequence[str]) -> int:
        """The number of transitions in a sentence that the scheme does not allow."""
        padded = [OUTSIDE, *tags, OUTSIDE]
        return sum(not self.is_legal(previous, tag) for previous, tag in itertools.pairwise(padded))


BIO = Scheme("BIO", "BIIB")
# The letters of BIO in another use: `B` stands only where an entity of the same type ends just before.
IOB1 = Scheme("IOB1", "IIII")
IOBES = Scheme("IOBES", "BIES")
BMES = Scheme("BMES", "BMES")
# The schemes of a tagger.
SCHEMES = {scheme.name: scheme for scheme in (BIO, IOBES, BMES)}
FILE_SCHEMES = {BIO.name: BIO, IOB1.name: IOB1} | SCHEMES


def convert_tags(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """Write the tags of one sentence, which may be in any scheme, in a given scheme.

    The entities stay as conlleval reads them (`opens_entity`), so that the result is well-formed even if the given
    tags are not.
    """
    converted = []
    for previous, tag, following in zip([OUTSIDE, *tags], tags, [*tags[1:], OUTSIDE], strict=False):
        first = opens_entity(previous, tag)
        last = following == OUTSIDE or opens_entity(tag, following)
        letter = scheme.letters[3 if first and last else 0 if first else 2 if last else 1]
        kind = position_and_type(tag)[1]
        if scheme is IOB1 and first and position_and_type(previous)[1] == kind:
            letter = "B"
        converted.append(OUTSIDE if tag == OUTSIDE else f"{letter}-{kind}")
    return converted


def detect_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """The scheme that sentences' tags are written in: `BIO`, `IOB1`, `IOBES` or `BMES`.

    Raises:
        UserError: if both `I-` and `M-` occur.
    """
    letters: Counter[str] = Counter()
    opened_by_i = opened_by_b = False
    for tags in sentences:
        previous = OUTSIDE
        for tag in tags:
            position, kind = position_and_type(tag)
            letters[position] += 1
            follows = previous != OUTSIDE and position_and_type(previous)[1] == kind
            opened_by_i |= position == "I" and not follows
            opened_by_b |= position == "B" and not follows
            previous = tag
    if letters["I"] and letters["M"]:
        raise UserError(
            f"both I- ({letters['I']} times) and M- ({letters['M']} times) found, expected one of "
            "them: IOBES and BMES are different schemes; convert one into the other"
        )
    if letters["E"] or letters["S"] or letters["M"]:
        return "IOBES" if letters["I"] else "BMES"
    return "IOB1" if opened_by_i and not opened_by_b else "BIO"


def scheme_of_labels(labels: Iterable[str]) -> Scheme:
    """The scheme that a label list is written in."""
    letters = {position_and_type(label)[0] for label in labels}
    if letters & {"E", "S", "M"}:
        return IOBES if "I" in letters else BMES
    return BIO


def sort_labels(tags: Iterable[str]) -> list[str]:
    """The distinct tags in a stable order: `O`, which is always there, then by type, then B, I/M, E, S."""

    def place(tag: str) -> tuple[str, int]:
        position, kind = position_and_type(tag)
        return kind, "BIMES".index(position)

    return [OUTSIDE, *sorted(set(tags) - {OUTSIDE}, key=place)]
