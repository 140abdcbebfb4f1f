"""What the demo shows, as HTML. Everything that comes from a user or a corpus is escaped here."""

from collections.abc import Collection, Iterable, Sequence
from html import escape

from knn_ner.data.tags import position_and_type
from knn_ner.tagging.entities import Entity, ExplainedEntity, Neighbour, WordEvidence

# Colours that the style sheet has; further types begin again with the first.
COLOURS = 8
# Words of a stored sentence that are shown on each side of the neighbour: of characters, and of words.
CONTEXT = {"": 24, " ": 10}
# Labels of a vote that are shown.
VOTED_LABELS = 4


class Palette:
    """A colour for each entity type; those of the labels that come first keep theirs as others are added."""

    def __init__(self, labels: Iterable[str]):
        types = dict.fromkeys(position_and_type(label)[1] for label in labels)
        types.pop("", None)
        self._number = {kind: number for number, kind in enumerate(types)}

    def css_class(self, kind: str) -> str:
        """The class of a type; `knn-outside` for what has none."""
        if not kind:
            return "knn-outside"
        return f"knn-type-{self._number.get(kind, len(self._number)) % COLOURS}"

    def label(self, label: str) -> str:
        """A label as a coloured tag."""
        kind = self.css_class(position_and_type(label)[1])
        return f'<span class="knn-label {kind}">{escape(label)}</span>'


def message(text: str, kind: str) -> str:
    """One line to the visitor; kind: `error` or `done`. Nothing for an empty text."""
    if not text:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<p class="knn-message knn-{kind}" role="{role}">{escape(text)}</p>'


def marked(
    text: str,
    entities: Iterable[Entity],
    palette: Palette,
    elsewhere: Collection[tuple[str, tuple[int, int]]],
) -> str:
    """A text with its entities coloured by type.

    entities: in the order of the text. elsewhere: the spans that the other side found; those that it did
    not find are outlined.
    """
    parts, done = [], 0
    for entity in entities:
        differs = "" if entity.span in elsewhere else " knn-differs"
        parts.append(escape(text[done : entity.start]))
        parts.append(
            f'<mark class="{palette.css_class(entity.type)}{differs}" '
            f'title="probability {entity.score:.2f}">'
            f"{escape(text[entity.start : entity.end])}<b>{escape(entity.type)}</b></mark>"
        )
        done = entity.end
    parts.append(escape(text[done:]))
    return f'<p class="knn-text">{"".join(parts)}</p>'


def side_by_side(
    text: str, base: Sequence[Entity], mixed: Sequence[Entity], palette: Palette
) -> str:
    """A text twice: with what the tagger alone finds, and with what the mix finds."""
    columns = (
        ("base", "Tagger alone", base, {entity.span for entity in mixed}),
        ("knn", "With neighbours (kNN)", mixed, {entity.span for entity in base}),
    )
    shown = "".join(
        f'<section class="knn-side" id="knn-{name}"><h3>{title}'
        f"<small>{counted(len(entities), 'entity', 'entities')}</small></h3>"
        f"{marked(text, entities, palette, elsewhere)}</section>"
        for name, title, entities, elsewhere in columns
    )
    same = {entity.span for entity in base} == {entity.span for entity in mixed}
    note = "Both sides agree." if same else "Outlined: not found on the other side."
    return f'<div class="knn-sides">{shown}</div><p class="knn-note">{note}</p>'


def neighbours(
    entities: Sequence[ExplainedEntity], words: Sequence[str], palette: Palette, joiner: str
) -> str:
    """The neighbours that decided each entity, word by word.

    Those of an entity that the tagger alone finds are not shown again if the mix finds others in all of its
    words. words: of the text. joiner: what stands between words, a space or nothing.
    """
    if not entities:
        return '<p class="knn-note">No entity, neither by the tagger alone nor with neighbours.</p>'
    mixed = [entity for entity in entities if entity.found_by != "base"]
    shown = {word for entity in mixed for word in range(*entity.words)}
    return "".join(
        _explained(entity, words, palette, joiner)
        for entity in entities
        if entity in mixed or not shown.issuperset(range(*entity.words))
    )


def form(words: Sequence[str], tags: Sequence[str], labels: Sequence[str]) -> str:
    """A sentence to be corrected: its words, each with a choice of tags."""
    fields = "".join(
        f"<label><span>{escape(word)}</span>"
        f'<select aria-label="tag of {escape(word)}"{"" if tag == "O" else " data-entity"}>'
        + "".join(
            f"<option{' selected' if label == tag else ''}>{escape(label)}</option>"
            for label in labels
        )
        + "</select></label>"
        for word, tag in zip(words, tags, strict=True)
    )
    return f'<div class="knn-form">{fields}</div>'


def counted(number: int, singular: str, plural: str = "") -> str:
    """`1 entity`, `2,000 entities`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def _explained(entity: ExplainedEntity, words: Sequence[str], palette: Palette, joiner: str) -> str:
    if entity.found_by == "both":
        found = "tagger and neighbours agree"
    elif entity.found_by == "base":
        found = "found by the tagger alone, not with neighbours"
    else:
        found = f"with neighbours; the tagger alone: {_names(entity.base)}"
    if entity.decisive:
        fate = f"Without the neighbours below: {_names(entity.without)}"
    else:
        fate = "The same without the neighbours below"
    evidence = "".join(_word(words[why.word], why, palette, joiner) for why in entity.evidence)
    return (
        f'<details class="knn-entity" open><summary>'
        f'<mark class="{palette.css_class(entity.type)}">{escape(entity.text)}'
        f"<b>{escape(entity.type)}</b></mark>"
        f'<span class="knn-found knn-by-{entity.found_by}">{escape(found)}</span>'
        f'<span class="knn-note">{escape(fate)}</span></summary>{evidence}</details>'
    )


def _names(entities: Sequence[Entity]) -> str:
    return ", ".join(f"{entity.text} {entity.type}" for entity in entities) or "nothing"


def _word(word: str, evidence: WordEvidence, palette: Palette, joiner: str) -> str:
    vote = ", ".join(
        f"{palette.label(label)} {percent(share)}"
        for label, share in list(evidence.vote.items())[:VOTED_LABELS]
    )
    rows = "".join(_neighbour(neighbour, palette, joiner) for neighbour in evidence.neighbours)
    return (
        f'<div class="knn-word"><p><strong>{escape(word)}</strong>'
        f"<span>tagger {palette.label(evidence.base)} {evidence.base_score:.2f}</span>"
        f"<span>mix {palette.label(evidence.label)} {evidence.score:.2f}</span>"
        f"<span>vote {vote}</span></p>"
        "<table><thead><tr><th>Similarity</th><th>Vote share</th><th>Label</th>"
        f"<th>Stored sentence</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _neighbour(neighbour: Neighbour, palette: Palette, joiner: str) -> str:
    share = f"{100 * neighbour.share:.1f}%"
    return (
        f"<tr><td>{neighbour.similarity:.3f}</td>"
        f'<td><span class="knn-share"><i style="width:{share}"></i></span>'
        f"{percent(neighbour.share)}</td>"
        f"<td>{palette.label(neighbour.label)}</td>"
        f'<td title="sentence {neighbour.sentence_id}">{_context(neighbour, palette, joiner)}</td></tr>'
    )


def _context(neighbour: Neighbour, palette: Palette, joiner: str) -> str:
    """The sentence around a neighbour, with the neighbour marked."""
    words, place, size = neighbour.words, neighbour.word, CONTEXT[joiner]
    if place < 0:
        rest = "…" if len(words) > 2 * size else ""
        return f"<em>(border of)</em> {escape(joiner.join(words[: 2 * size]))}{rest}"
    kind = palette.css_class(position_and_type(neighbour.label)[1])
    before, after = words[max(place - size, 0) : place], words[place + 1 : place + 1 + size]
    parts = [
        *(["…"] if place > size else []),
        *map(escape, before),
        f'<mark class="{kind}">{escape(words[place])}</mark>',
        *map(escape, after),
        *(["…"] if place + 1 + size < len(words) else []),
    ]
    return joiner.join(parts)


def percent(share: float) -> str:
    """`42%`, `3.1%`, `<0.1%`."""
    if 0 < share < 0.0005:
        return "&lt;0.1%"
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.1f}%"
