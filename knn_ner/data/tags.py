"""Tag schemes: the letters in which a tag tells its word's place in an entity, and conversion between schemes.

A tag is `O`, or a position letter, a hyphen and a type (`B-PER.NAM`). Taggers and datastores use BIO, IOBES or BMES;
IOB1 is read as BIO. Where entities begin and end is conlleval's rule, which holds for the tags of every scheme, even
malformed ones. So conversion keeps the entities, and need not know which scheme the tags are in.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import regex

from knn_ner.utils.errors import UserError

OUTSIDE = "O"
INVISIBLE = regex.compile(
    r"[\p{Cc}\p{Cf}\p{Cs}\p{Z}\p{Default_Ignorable_Code_Point}\N{BRAILLE PATTERN BLANK}]"
)
ACCEPTED = "O, or B- I- M- E- S- and a type, in the schemes BIO, IOB1, IOBES/BIOES or BMES"


def position_and_type(tag: str) -> tuple[str, str]:
    """`B-PER.NAM` -> (`B`, `PER.NAM`); `O` -> (`O`, ``)."""
    position, _, kind = tag.partition("-")
    return position, kind


def is_tag(text: str) -> bool:
    """Whether a text, invisible characters aside, is `O`, or a position letter with a type."""
    position, kind = position_and_type(INVISIBLE.sub("", text))
    return (position, kind) == (OUTSIDE, "") or (position in {*"BIMES"} and bool(kind))


def check_tag(text: str, where: str, what: str = "tag") -> None:
    """Check that a text is a tag of any scheme.

    Args:
        text: the text.
        where: file and line, for the error.
        what: what the text is called in the error.

    Raises:
        UserError: if it is none, or has an invisible character, which would make a type of its own.
    """
    hidden = INVISIBLE.search(text)
    if hidden:
        code = f"U+{ord(hidden[0]):04X}"
        raise UserError(
            f"{where}: {what} {text!r} found, with the invisible character {code}; remove it"
        )
    if not is_tag(text):
        raise UserError(f"{where}: {what} {text!r} found, expected {ACCEPTED}")


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


def count_evidence(sentences: Iterable[Sequence[str]]) -> Counter[str]:
    """Count what tells schemes from each other.

    Returns:
        Tags by letter (`B`, `I`, ...); entities by their last letter, `open` (B, I, M) or `closed` (E, S); entities
        that begin with `I` (`first I`), as in IOB1, and those that begin with `B` without need in IOB1 (`first B`).
    """
    evidence: Counter[str] = Counter()
    for tags in sentences:
        for previous, tag in itertools.pairwise([OUTSIDE, *tags, OUTSIDE]):
            if previous == tag == OUTSIDE:
                continue
            position, kind = position_and_type(tag)
            before, before_type = position_and_type(previous)
            evidence[position] += tag != OUTSIDE
            if previous != OUTSIDE and (tag == OUTSIDE or opens_entity(previous, tag)):
                evidence["closed" if before in {"E", "S"} else "open"] += 1
            if position in {"I", "B"} and (previous == OUTSIDE or before_type != kind):
                evidence[f"first {position}"] += 1
    return evidence


def decide_scheme(evidence: Counter[str]) -> Scheme | None:
    """The scheme that most of the evidence is for; None if there is no entity.

    Without an inside letter, IOBES and BMES are the same; then it is BMES.
    """
    if evidence["M"] > evidence["I"]:
        return BMES
    if evidence["closed"] and evidence["closed"] >= evidence["open"]:
        return IOBES if evidence["I"] else BMES
    if evidence["first I"] > evidence["first B"]:
        return IOB1
    return BIO if evidence["open"] else None


def common_scheme(files: Iterable[Counter[str]]) -> Scheme | None:
    """The scheme of a corpus whose files may be in different schemes: that of most entities.

    Args:
        files: the evidence of each file; of equal parts, the first one counts.
    """
    by_kind: dict[bool, Counter[str]] = {}
    for evidence in files:
        scheme = decide_scheme(evidence)
        if scheme:
            by_kind[scheme.closes] = by_kind.get(scheme.closes, Counter()) + evidence
    if not by_kind:
        return None
    return decide_scheme(max(by_kind.values(), key=lambda part: part["open"] + part["closed"]))


def check_letters(evidence: Counter[str], where: str = "") -> None:
    """Raise `UserError` if the tags of one file have both `I-` and `M-`; where: begin of the message."""
    if evidence["I"] and evidence["M"]:
        raise UserError(
            f"{where}both I- ({evidence['I']} times) and M- ({evidence['M']} times) found, expected one "
            "of them: IOBES and BMES are different schemes; convert one into the other"
        )


def detect_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """The scheme of the tags of one file: `BIO`, `IOB1`, `IOBES` or `BMES`; BIO if every tag is `O`.

    Raises:
        UserError: if both `I-` and `M-` occur.
    """
    evidence = count_evidence(sentences)
    check_letters(evidence)
    return (decide_scheme(evidence) or BIO).name


def difference(evidence: Counter[str], scheme: Scheme) -> str | None:
    """How the tags of a file differ from a scheme: `in BMES`, `with E-, S-`; None if they are in it."""
    own = decide_scheme(evidence)
    strange = [letter for letter in "IMES" if evidence[letter] and letter not in scheme.letters]
    if own and own != scheme and (own == IOB1 or own.closes != scheme.closes or strange):
        return f"in {own.name}"
    return f"with {', '.join(f'{letter}-' for letter in strange)}" if strange else None


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
