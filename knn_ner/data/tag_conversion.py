"""From one tag scheme to another, by way of BIO.

What a malformed run is worth is conlleval's decision, so that a converted corpus has the entities that
were counted before: an inside tag after `O`, or after a tag of another type, starts an entity, and an
entity that nothing closes ends at its last tag.
"""

from collections import Counter
from collections.abc import Sequence

from knn_ner.data.spans import word_spans
from knn_ner.data.tags import (
    BIO,
    OUTSIDE,
    SCHEMES,
    Scheme,
    iob1_to_bio,
    position_and_type,
)

TARGETS = ("bio", "iob1", "iobes", "bmes")

STRAY = "inside tags with no entity before them; each starts an entity"
OTHER_TYPE = "inside tags of another type than the tag before them; each starts an entity"
NOT_CLOSED = "entities without a closing tag; each ends at its last tag"


def to_bio(tags: Sequence[str], scheme: str) -> list[str]:
    """One sentence's tags in well-formed BIO.

    scheme: what the tags are written in: `BIO`, `IOB1`, `IOBES` or `BMES`.
    """
    if scheme == "IOB1":
        tags, scheme = iob1_to_bio(tags), BIO.name
    converted = [OUTSIDE] * len(tags)
    for kind, first, last in word_spans(tags, scheme):
        converted[first] = f"B-{kind}"
        converted[first + 1 : last + 1] = [f"I-{kind}"] * (last - first)
    return converted


def from_bio(tags: Sequence[str], target: str) -> list[str]:
    """One sentence's well-formed BIO tags in the target scheme, one of `TARGETS`."""
    if target == "bio":
        return list(tags)
    if target == "iob1":
        return _bio_to_iob1(tags)
    inside = SCHEMES[target.upper()].inside
    converted = []
    for tag, following in zip(tags, [*tags, OUTSIDE][1:], strict=True):
        position, kind = position_and_type(tag)
        goes_on = position_and_type(following)[0] == "I"
        if position == "B":
            converted.append(f"B-{kind}" if goes_on else f"S-{kind}")
        elif position == "I":
            converted.append(f"{inside}-{kind}" if goes_on else f"E-{kind}")
        else:
            converted.append(tag)
    return converted


def _bio_to_iob1(tags: Sequence[str]) -> list[str]:
    """`B` stays only where an entity of the same type ends just before."""
    converted, before = [], ""
    for tag in tags:
        position, kind = position_and_type(tag)
        converted.append(f"I-{kind}" if position == "B" and kind != before else tag)
        before = kind
    return converted


def count_repairs(tags: Sequence[str], scheme: str) -> Counter[str]:
    """What `to_bio` has to repair in one sentence: how often, by what it is.

    IOB1 has nothing to repair: every sequence of `I` and `B` means something there.
    """
    repairs: Counter[str] = Counter()
    if scheme == "IOB1":
        return repairs
    rules: Scheme = SCHEMES[scheme]
    previous = OUTSIDE
    for tag in [*tags, OUTSIDE]:
        if not rules.is_legal(previous, tag):
            before, before_type = position_and_type(previous)
            position, kind = position_and_type(tag)
            if position not in {rules.inside, "E"}:
                repairs[NOT_CLOSED] += 1
            elif before not in {"B", rules.inside} and before_type in {"", kind}:
                repairs[STRAY] += 1
            else:
                repairs[OTHER_TYPE] += 1
        previous = tag
    return repairs


def split_characters(words: Sequence[str], tags: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tokens of several characters as characters; `tags` are BIO, and an entity keeps its extent."""
    characters: list[str] = []
    converted: list[str] = []
    for word, tag in zip(words, tags, strict=True):
        position, kind = position_and_type(tag)
        rest = OUTSIDE if position == OUTSIDE else f"I-{kind}"
        characters.extend(word)
        converted.extend([tag, *[rest] * (len(word) - 1)])
    return characters, converted
