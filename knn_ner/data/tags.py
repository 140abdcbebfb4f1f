"""Tag schemes and the label set: what a tag means, whichever letters it is written with.

A tag is `O` or a position letter, a hyphen and a type (`B-PER.NAM`). Three schemes are used inside
the project: BIO, IOBES and BMES. IOB1 files become BIO when they are read.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Scheme:
    """How the places of an entity are written.

    name: `BIO`, `IOBES` or `BMES`.
    inside: the letter of a word inside an entity, `I` or `M`.
    closes: whether the last word (`E`) and the only word (`S`) have letters of their own.
    """

    name: str
    inside: str
    closes: bool

    def is_legal(self, previous: str, tag: str) -> bool:
        """Whether `tag` may follow `previous` (`O` stands for the start and the end of a sentence)."""
        before, before_type = position_and_type(previous)
        position, kind = position_and_type(tag)
        opened = before in {"B", self.inside}
        continues = position in {self.inside, "E"}
        if continues:
            return opened and before_type == kind
        return not (self.closes and opened)

    def count_malformed(self, tags: Sequence[str]) -> int:
        """The number of transitions in a sentence that the scheme does not allow."""
        padded = [OUTSIDE, *tags, OUTSIDE]
        return sum(not self.is_legal(previous, tag) for previous, tag in itertools.pairwise(padded))


BIO = Scheme("BIO", "I", closes=False)
IOBES = Scheme("IOBES", "I", closes=True)
BMES = Scheme("BMES", "M", closes=True)
SCHEMES = {scheme.name: scheme for scheme in (BIO, IOBES, BMES)}


def detect_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """The scheme of tag sequences: `BIO`, `IOB1`, `IOBES` or `BMES`.

    IOB1 differs from BIO in use, not in letters: `I` opens an entity, and `B` stands only where an
    entity of the same type ends just before.

    Raises `UserError` when both `I-` and `M-` occur.
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
    """The scheme that a label set is written in."""
    letters = {position_and_type(label)[0] for label in labels}
    if letters & {"E", "S", "M"}:
        return IOBES if "I" in letters else BMES
    return BIO


def iob1_to_bio(tags: Sequence[str]) -> list[str]:
    """IOB1 -> BIO: an `I` that opens an entity becomes a `B`."""
    converted, previous = [], OUTSIDE
    for tag in tags:
        position, kind = position_and_type(tag)
        opens = position == "I" and (previous == OUTSIDE or position_and_type(previous)[1] != kind)
        converted.append(f"B-{kind}" if opens else tag)
        previous = tag
    return converted


def sort_labels(tags: Iterable[str]) -> list[str]:
    """A stable order: `O` first, then by type, then B, I/M, E, S."""
    order = {letter: place for place, letter in enumerate("BIMES")}
    return [
        OUTSIDE,
        *sorted(
            set(tags) - {OUTSIDE},
            key=lambda tag: (position_and_type(tag)[1], order[position_and_type(tag)[0]]),
        ),
    ]


def read_labels(path: Path, any_order: bool = False) -> list[str]:
    """The label set of a `ner_labels.txt`: one tag a line, `O` first unless `any_order`.

    Raises `UserError` when the file is missing or a line is no tag, is there twice, or `O` is not first.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: not found; make it with "
            f"`python get_labels.py --data-dir {path.parent} --file-name FILE_NAME`"
        )
    labels: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        tag = line.strip(" \t\r")
        if not tag:
            continue
        if not is_tag(tag):
            raise UserError(f"{path}:{number}: label {tag!r} found, expected {ACCEPTED}")
        if tag in labels:
            raise UserError(
                f"{path}:{number}: label {tag!r} found for the second time, expected once"
            )
        labels.append(tag)
    if not labels or (labels[0] != OUTSIDE and not any_order) or OUTSIDE not in labels:
        raise UserError(
            f"{path}:1: {labels[0]!r} found, expected `O` as the first label"
            if labels
            else f"{path}: no label found, expected one tag a line, `O` first"
        )
    return labels
