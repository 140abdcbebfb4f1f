"""What an audit writes: `audit.csv`, and `audit.html`, one page that loads nothing."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from knn_ner.audit.ranking import Place
from knn_ner.html.renderer import Palette, render
from knn_ner.tagging.entities import Neighbour

COLUMNS = (
    *("rank", "score", "file", "line", "sentence", "first_word", "last_word", "words"),
    *("given", "suggested", "context", "neighbours_say", "tagger_says", "copies", "neighbours"),
)
# Words of context on each side of a place, in the CSV file.
CONTEXT_WORDS = 6


@dataclass(kw_only=True)
class Finding(Place):
    """A place with the evidence that is shown for it.

    Attributes:
        file: the corpus file; empty if the sentence is not in it.
        line: line of the first word; 0 if the sentence is not in the file.
        label: stored label of the word piece with the highest score.
        position: index of the word of that piece.
        vote: the largest shares of the neighbours' vote by label, 0 to 1.
        tagger: the largest probabilities of the tagger by label, 0 to 1.
        neighbours: nearest neighbours of that piece in other sentences, nearest first.
        copies: number of other sentences with the same words.
        differing_copies: number of these that have another label at this position.
        differing: some of these, as neighbours without a vote.
    """

    file: str
    line: int
    label: str
    position: int
    vote: Mapping[str, float]
    tagger: Mapping[str, float]
    neighbours: Sequence[Neighbour]
    copies: int
    differing_copies: int
    differing: Sequence[Neighbour]


def to_csv(findings: Sequence[Finding]) -> str:
    """One line for each finding; words and tags of a place are separated by spaces."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rank, finding in enumerate(findings, start=1):
        place = slice(finding.first, finding.last + 1)
        copies = f"{finding.differing_copies} of {finding.copies} differ" if finding.copies else ""
        neighbours = (
            f"{each.label} {each.similarity:.3f}: {_in_brackets(each.words, each.word, each.word)}"
            for each in finding.neighbours
        )
        writer.writerow(
            (
                *(rank, f"{finding.score:.4f}", finding.file, finding.line or "", finding.sentence),
                *(finding.first, finding.last, " ".join(finding.words[place])),
                *(" ".join(finding.tags[place]), " ".join(finding.suggested)),
                _in_brackets(finding.words, finding.first, finding.last),
                *(_shares(finding.vote), _shares(finding.tagger)),
                *(copies, " | ".join(neighbours)),
            )
        )
    return text.getvalue()


def to_html(
    findings: Sequence[Finding], title: str, notes: Sequence[str], joiner: str = " "
) -> str:
    """The page: a card for each finding.

    Args:
        findings: highest score first.
        title: title of the page.
        notes: paragraphs below the title.
        joiner: what stands between two words, a space or nothing.
    """
    return render(
        "audit/page.html",
        kind="audit",
        title=title,
        notes=notes,
        findings=findings,
        joiner=joiner,
        palette=Palette(),
    )


def _in_brackets(words: Sequence[str], first: int, last: int) -> str:
    """A place in brackets, with its context; the first words for a special token, whose index is -1."""
    if first < 0:
        return " ".join(words[:CONTEXT_WORDS])
    before = words[max(first - CONTEXT_WORDS, 0) : first]
    after = words[last + 1 : last + 1 + CONTEXT_WORDS]
    return " ".join([*before, f"[{' '.join(words[first : last + 1])}]", *after])


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{label} {share:.0%}" for label, share in shares.items())
