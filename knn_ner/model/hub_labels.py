"""Label lists of token-classification models of other code, as tags of this project (`data.tags`)."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from knn_ner.data.tags import OUTSIDE, is_tag, position_and_type
from knn_ner.utils.errors import UserError
from knn_ner.utils.text import some

# Position letters: BILOU's last (L) and unit (U), and BMEWO's whole (W), are E and S here.
POSITIONS = {**{letter: letter for letter in "BIMES"}, "L": "E", "U": "S", "W": "S"}
LETTERS = f"(?P<position>[{''.join(POSITIONS)}])"
KIND = r"(?P<kind>.*[^\W_].*)"
# Ways to write position and type: `B-PER`, `B_PER`, `PER-B`, ... A list keeps to one of them.
NOTATIONS = [
    re.compile(pattern, re.IGNORECASE)
    for separator in "-_/:. "
    for pattern in (f"{LETTERS}[{separator}]{KIND}", f"{KIND}[{separator}]{LETTERS}")
]
OUTSIDE_NAMES = {"o", "outside", "none"}
# Labels of special tokens, of padding, and of the later word pieces of a word (X).
SPECIAL = re.compile(r"\[.*\]|<.*>|X|PAD", re.IGNORECASE)
UNNAMED = re.compile(r"LABEL_\d+", re.IGNORECASE)


def project_labels(labels: Sequence[str]) -> list[str | None]:
    """Translate the label list of a model to tags.

    Bare types (`PER`) become `I-` tags: words in a row with one type are one entity. Labels of special tokens
    have no tag; a tagger must not predict them.

    Args:
        labels: labels by index.

    Returns:
        The tag of each label, or None for a label of special tokens. Tags of the project come back as they are.

    Raises:
        UserError: if the meaning of a label is not clear, no label means `O`, or two labels mean the same tag.
    """
    names = [label.strip() for label in labels]
    letters = {position_and_type(name)[0] for name in names}
    if OUTSIDE in names and all(map(is_tag, names)) and not {"I", "M"} <= letters:
        tags: Mapping[str, str | None] | str = {name: name for name in names}
    else:
        tags = _translate(names)
    if not isinstance(tags, str):
        found = [tags[name] for name in names]
        double = [tag for tag in found if tag is not None and found.count(tag) > 1]
        if not double:
            return found
        tags = f"more than one for {double[0]}"
    raise UserError(
        f"labels {some(names, 12)}: {tags} found, expected O and types with B- I- M- E- S-, BILOU's letters or no "
        "position; rename them in id2label of config.json"
    )


def label_changes(labels: Sequence[str], tags: Sequence[str | None]) -> str:
    """Describe a translation of `project_labels` in one line; empty if every label is its own tag."""
    changed = [f"{a} is {b}" for a, b in zip(labels, tags, strict=True) if b not in (a, None)]
    dropped = [label for label, tag in zip(labels, tags, strict=True) if tag is None]
    parts = [some(changed)] if changed else []
    if dropped:
        parts.append(f"never predicted: {some(dropped)}")
    return "; ".join(parts)


def _translate(names: Sequence[str]) -> Mapping[str, str | None] | str:
    """The tag of each name, or what is wrong with the names."""
    if any(UNNAMED.fullmatch(name) for name in names):
        return "no names"
    others = [name for name in names if name.lower() in OUTSIDE_NAMES]
    outside = OUTSIDE if OUTSIDE in names else others[0] if len(others) == 1 else None
    if outside is None:
        return "none for words outside entities (O)"
    tags: dict[str, str | None] = {name: None for name in names if SPECIAL.fullmatch(name)}
    tags[outside] = OUTSIDE
    rest = [name for name in names if name not in tags]
    for notation in NOTATIONS:
        matches = [match for name in rest if (match := notation.fullmatch(name))]
        if len(matches) == len(rest):
            pairs = [(POSITIONS[match["position"].upper()], match["kind"]) for match in matches]
            mixed = {"I", "M"} <= {position for position, _ in pairs}
            inside = {"M": "I"} if mixed else {}
            return tags | {
                name: f"{inside.get(position, position)}-{kind}"
                for name, (position, kind) in zip(rest, pairs, strict=True)
            }
    if _looks_positioned(rest):
        return "no common notation of position and type"
    return tags | {name: f"I-{name}" for name in rest}


def _looks_positioned(names: Sequence[str]) -> bool:
    """Whether bare names seem to hold positions: `B`, `B-`, `B-PER`, or `BPER` beside `IPER`."""
    letters = defaultdict(set)
    for name in names:
        if re.fullmatch(r"[\W_]*|\w[\W_]*|O[\W_].*", name):
            return True
        if any(notation.fullmatch(name) for notation in NOTATIONS[:2]):
            return True
        if name[0] in POSITIONS:
            letters[name[1:]].add(name[0])
    return any(len(found) > 1 for found in letters.values())
