"""What an audit writes: `audit.csv`, and `audit.html`, one page that needs nothing else."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLUMNS = (
    *("rank", "score", "file", "line", "sentence", "first_word", "last_word", "words"),
    *("given", "suggested", "context", "neighbours_say", "tagger_says", "copies", "neighbours"),
)


@dataclass
class Neighbour:
    """A stored token that has a part in the vote, or a copy of the token in question.

    sentence: its id. words: of that sentence. position: of the token's word, -1 for a special token.
    label: as stored. similarity, share: None for a copy, which has no vote.
    """

    sentence: int
    words: Sequence[str]
    position: int
    label: str
    similarity: float | None
    share: float | None


@dataclass
class Finding:
    """A place whose labels look wrong, with all that is shown of it.

    sentence: its id; words, tags: of that sentence. first, last: the place, ends included.
    suggested: the tags of the place by neighbours and tagger.
    file, line: where the place begins in the corpus; `` and 0 if the corpus does not have the sentence.
    label: of the word piece that speaks most against its label, in word `position`.
    vote, tagger: what neighbours and tagger give to labels, each 0 to 1, largest first.
    neighbours: of that piece, nearest first. copies, otherwise: sentences of the same words, and how
        many of them have another label there; differing: some of those.
    """

    score: float
    file: str
    line: int
    sentence: int
    words: Sequence[str]
    tags: Sequence[str]
    first: int
    last: int
    suggested: Sequence[str]
    label: str
    position: int
    vote: Mapping[str, float]
    tagger: Mapping[str, float]
    neighbours: Sequence[Neighbour]
    copies: int
    otherwise: int
    differing: Sequence[Neighbour]


def to_csv(findings: Sequence[Finding]) -> str:
    """One line for each finding, worst first; words and tags of a place are separated by spaces."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rank, found in enumerate(findings, start=1):
        place = slice(found.first, found.last + 1)
        writer.writerow(
            (
                *(rank, f"{found.score:.4f}", found.file, found.line or "", found.sentence),
                *(found.first, found.last, " ".join(found.words[place])),
                *(" ".join(found.tags[place]), " ".join(found.suggested)),
                _in_brackets(found.words, found.first, found.last),
                *(_shares(found.vote), _shares(found.tagger)),
                f"{found.otherwise} of {found.copies} differ" if found.copies else "",
                " | ".join(
                    f"{neighbour.label} {neighbour.similarity:.3f}: "
                    + _in_brackets(neighbour.words, neighbour.position, neighbour.position)
                    for neighbour in found.neighbours
                ),
            )
        )
    return text.getvalue()


def _in_brackets(words: Sequence[str], first: int, last: int, around: int = 6) -> str:
    """The place with a few words on both sides; the special token at an end has no brackets."""
    if first < 0:
        return " ".join(words[:around])
    before, after = words[max(first - around, 0) : first], words[last + 1 : last + 1 + around]
    return " ".join([*before, "[" + " ".join(words[first : last + 1]) + "]", *after])


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{label} {share:.0%}" for label, share in shares.items())


STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2126; --soft: #5c6672; --line: #d9dee4;
  --card: #f6f8fa; --given: #ffd9d2; --wanted: #cdeed3; --near: #d5e5fb; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e4e8ec; --soft: #98a3af;
  --line: #333a42; --card: #1d2227; --given: #6b2a22; --wanted: #1f5530; --near: #234468; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .7rem 1rem; margin: 1rem 0; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1rem; margin: 0 0 .3rem; display: flex; gap: .8rem;
  flex-wrap: wrap; } h2 span, .soft { color: var(--soft); font-weight: normal; }
mark { color: inherit; border-radius: 3px; padding: 0 .15em; } .given { background: var(--given); }
.wanted { background: var(--wanted); } .near { background: var(--near); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; } summary { cursor: pointer; }
td, th { text-align: left; vertical-align: top; padding: .15rem .6rem .15rem 0; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; } p { margin: .3rem 0; }
"""


def to_html(findings: Sequence[Finding], title: str, notes: Sequence[str]) -> str:
    """The page: a card for each finding, worst first. Corpus text is escaped; nothing is loaded."""
    cards = "".join(_card(rank, found) for rank, found in enumerate(findings, start=1))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n"
        + "".join(f'<p class="soft">{escape(note)}</p>\n' for note in notes)
        + f"{cards}</body>\n</html>\n"
    )


def _card(rank: int, found: Finding) -> str:
    where = f"{found.file}:{found.line}" if found.line else "not in the corpus file"
    place = range(found.first, found.last + 1)
    rows = "".join(
        f"<tr><td>{escape(found.words[word])}</td>"
        f"<td>{_tag(found.tags[word], suggested, 'given')}</td>"
        f"<td>{_tag(suggested, found.tags[word], 'wanted')}</td></tr>"
        for word, suggested in zip(place, found.suggested, strict=True)
    )
    copies = ""
    if found.otherwise:
        copies = (
            f"<p>{found.otherwise} of {found.copies} other sentences of the same words have another "
            f"label here:</p>{_neighbours(found.differing)}"
        )
    return (
        f'<article id="{rank}">\n<h2>{rank}. <span>score {found.score:.3f}</span> '
        f"<span>{escape(where)}</span> <span>sentence {found.sentence}</span></h2>\n"
        f"<p>{_sentence(found.words, found.first, found.last, 'given')}</p>\n"
        f"<table><tr><th>word</th><th>given</th><th>suggested</th></tr>{rows}</table>\n"
        f"<p>{escape(found.label)} on <b>{escape(found.words[found.position])}</b> &middot; "
        f"neighbours: {escape(_shares(found.vote))} &middot; tagger: "
        f"{escape(_shares(found.tagger))}</p>\n{copies}"
        f"<details><summary>nearest tokens of other sentences</summary>"
        f"{_neighbours(found.neighbours)}</details>\n</article>\n"
    )


def _tag(tag: str, other: str, kind: str) -> str:
    """A tag, marked where it differs from the other."""
    return f'<mark class="{kind}">{escape(tag)}</mark>' if tag != other else escape(tag)


def _neighbours(neighbours: Sequence[Neighbour]) -> str:
    rows = "".join(
        f'<tr><td class="number">{_number(one.similarity, ".3f")}</td>'
        f'<td class="number">{_number(one.share, ".0%")}</td><td>{escape(one.label)}</td>'
        f"<td>{_sentence(one.words, one.position, one.position, 'near')} "
        f'<span class="soft">({one.sentence})</span></td></tr>'
        for one in neighbours
    )
    return (
        "<table><tr><th>similarity</th><th>of the vote</th><th>label</th><th>sentence</th></tr>"
        f"{rows}</table>"
    )


def _number(value: float | None, form: str) -> str:
    return "&ndash;" if value is None else format(value, form)


def _sentence(words: Sequence[str], first: int, last: int, kind: str) -> str:
    """The words with the place marked; nothing is marked for a special token."""
    if first < 0:
        return escape(" ".join(words)) + ' <span class="soft">(begin or end)</span>'
    parts = (words[:first], words[first : last + 1], words[last + 1 :])
    before, place, after = (escape(" ".join(part)) for part in parts)
    return f'{before} <mark class="{kind}">{place}</mark> {after}'.strip()
