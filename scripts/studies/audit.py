"""Measure `knn_ner.audit`: plant annotation errors in a corpus, and count how many of them a ranking lists early.

    python scripts/studies/audit.py plant --data_dir data/wnut17 --file_name word.bmes --out NOISY --seed 0
    (train a tagger on NOISY, build its datastore, audit it into DIR)
    python scripts/studies/audit.py score --planted NOISY/planted.csv DIR

`docs/audit.md` has all commands and the results.
"""

import csv
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# So that the script runs from any folder, with or without the package installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from knn_ner.data.columns import Sentence, write_columns
from knn_ner.data.corpus import SPLITS, read_corpus
from knn_ner.data.spans import Span, word_spans
from knn_ner.data.tags import OUTSIDE, SCHEMES, convert_tags
from knn_ner.settings import CorpusSettings
from knn_ner.utils.arguments import Parser, add_settings, flag, proportion, take_settings
from knn_ner.utils.command import run_main
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_text
from knn_ner.utils.messages import show_messages
from knn_ner.utils.tables import csv_table, markdown_table

logger = logging.getLogger(f"knn_ner.{__name__}")

KINDS = ("type", "boundary", "missing")
# Precision and recall are computed for the first 100, 200 and 500 places.
CUTOFFS = (100, 200, 500)
PLANTED_COLUMNS = (
    "sentence", "line", "kind", "type", "first", "last", "new_type", "new_first", "new_last",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PlantSettings(CorpusSettings):
    """Write a corpus with errors in its training split."""

    out: str = flag(metavar="DIR")
    """folder for the corpus with errors"""
    part: float = flag(0.05, parse=proportion)
    """share of the entities to change"""
    seed: int = flag(0)
    """random seed"""


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Compute precision and recall of rankings."""

    planted: str = flag(metavar="FILE")
    """planted.csv"""
    audits: tuple[str, ...] = flag(metavar="DIR", positional=True, nargs="+")
    """folders with audit.csv"""


def plant_errors(
    sentences: Sequence[Sentence], scheme: str, part: float, seed: int
) -> list[dict[str, Any]]:
    """Change a part of the entities, a third of them in each of three ways.

    `type`: another type, drawn uniformly from those of the corpus. `boundary`: one word more or less on one
    side, drawn uniformly from the changes that leave a word and touch no other entity. `missing`: every word
    becomes `O`.

    Args:
        sentences: the sentences, whose tags change in place.
        scheme: their tag scheme.
        part: share of the entities to change, 0 to 1.
        seed: random seed.

    Returns:
        A row for each changed entity, in the order of the corpus: the entity before and after. Its first and
        last word are indices in the sentence, from 0, both included.
    """
    generator = np.random.default_rng(seed)
    spans: list[list[Span | None]] = [[*word_spans(each.tags)] for each in sentences]
    entities = [(s, e) for s, found in enumerate(spans) for e in range(len(found))]
    types = sorted({span[0] for found in spans for span in found if span})
    planted: list[dict[str, Any]] = []
    for index in generator.permutation(len(entities)):
        if len(planted) == round(part * len(entities)):
            break
        number, place = entities[index]
        kind = KINDS[len(planted) % len(KINDS)]
        old = spans[number][place]
        assert old
        new = change(old, kind, types, spans[number], len(sentences[number]), generator)
        if new == old:
            continue
        spans[number][place] = new
        row = {"sentence": number, "line": sentences[number].line + old[1], "kind": kind}
        row |= dict(zip(("type", "first", "last"), old, strict=True))
        new = new or (OUTSIDE, *old[1:])
        planted.append(row | dict(zip(("new_type", "new_first", "new_last"), new, strict=True)))
    for number in {row["sentence"] for row in planted}:
        left = [span for span in spans[number] if span]
        sentences[number].tags = tags_of(left, len(sentences[number]), scheme)
    return sorted(planted, key=lambda row: (row["sentence"], row["first"]))


def change(
    span: Span,
    kind: str,
    types: Sequence[str],
    others: Iterable[Span | None],
    words: int,
    generator: np.random.Generator,
) -> Span | None:
    """An entity after an error.

    Args:
        span: the entity.
        kind: the kind of error, one of `KINDS`.
        types: the types of the corpus.
        others: the entities of the sentence.
        words: number of words in the sentence.
        generator: draws the change.

    Returns:
        The changed entity; None if it is removed; the same entity if no such change is possible.
    """
    type_, first, last = span
    if kind == "missing":
        return None
    if kind == "type":
        left = [other for other in types if other != type_]
        return (left[generator.integers(len(left))], first, last) if left else span
    taken = {word for other in others if other for word in range(other[1], other[2] + 1)}
    free = set(range(words)) - taken
    choices = [(first - 1, last)] * (first - 1 in free) + [(first, last + 1)] * (last + 1 in free)
    if last > first:
        choices += [(first + 1, last), (first, last - 1)]
    return (type_, *choices[generator.integers(len(choices))]) if choices else span


def tags_of(spans: Iterable[Span], words: int, scheme: str) -> list[str]:
    """The tags of a sentence with these entities."""
    tags = [OUTSIDE] * words
    for type_, first, last in spans:
        tags[first] = f"B-{type_}"
        tags[first + 1 : last + 1] = [f"I-{type_}"] * (last - first)
    return convert_tags(tags, SCHEMES[scheme])


def plant(settings: PlantSettings) -> None:
    """Write the corpus with errors in its training split, and `planted.csv`.

    Raises:
        UserError: for a bad corpus, or if the new corpus would replace the corpus itself.
    """
    out = Path(settings.out)
    if out.resolve() == Path(settings.data_dir).resolve():
        raise UserError(f"{out}: is --data_dir itself; choose another folder for --out")
    corpus = read_corpus(settings.data_dir, settings.file_name, comments=settings.comments)
    planted = plant_errors(corpus.splits["train"], corpus.scheme.name, settings.part, settings.seed)
    for split in SPLITS:
        write_columns(out / f"{split}.{settings.file_name}", corpus.splits[split])
    write_text(out / "planted.csv", csv_table(planted, PLANTED_COLUMNS))
    logger.info(f"{out}: {len(planted)} entities of the training split changed, see planted.csv")


def score_ranking(
    planted: Sequence[Mapping[str, str]], places: Sequence[Mapping[str, str]]
) -> dict[str, float]:
    """Score a ranking.

    A place is right if it has a word of a changed entity, before or after the change. Missing places at the
    end of a short list count as wrong.

    Args:
        planted: rows of `planted.csv`.
        places: rows of `audit.csv`.

    Returns:
        Precision and recall of the first 100, 200 and 500 places, and recall of the first 500 for each kind
        of error, in percent.
    """
    words: dict[tuple[int, int], int] = {}
    for number, row in enumerate(planted):
        ends = [int(row[name]) for name in ("first", "last", "new_first", "new_last")]
        for word in range(min(ends), max(ends) + 1):
            words[int(row["sentence"]), word] = number
    found_at: dict[int, int] = {}
    right = np.zeros(CUTOFFS[-1], dtype=bool)
    for rank, place in enumerate(places[: CUTOFFS[-1]]):
        span = range(int(place["first_word"]), int(place["last_word"]) + 1)
        hits = {words[key] for word in span if (key := (int(place["sentence"]), word)) in words}
        right[rank] = bool(hits)
        for number in hits:
            found_at.setdefault(number, rank)
    scores = {f"precision@{n}": 100 * float(right[:n].mean()) for n in CUTOFFS}
    for n in CUTOFFS:
        scores[f"recall@{n}"] = 100 * sum(at < n for at in found_at.values()) / len(planted)
    for kind in KINDS:
        numbers = [number for number, row in enumerate(planted) if row["kind"] == kind]
        found = sum(number in found_at for number in numbers)
        scores[kind] = 100 * found / max(len(numbers), 1)
    return scores


def score(settings: ScoreSettings) -> str:
    """Score rankings.

    Returns:
        The table, in Markdown.

    Raises:
        UserError: for a missing file.
    """
    planted = read_rows(Path(settings.planted))
    lines: list[list[str]] = []
    for folder in map(Path, settings.audits):
        scores = score_ranking(planted, read_rows(folder / "audit.csv"))
        lines = lines or [["ranking", *scores]]
        lines.append([folder.name, *(f"{score:.1f}" for score in scores.values())])
    return f"{len(planted)} planted errors; percent\n\n{markdown_table(lines)}"


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file.

    Raises:
        UserError: if there is no such file.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


COMMANDS: dict[str, tuple[type, Callable[[Any], str | None]]] = {
    "plant": (PlantSettings, plant),
    "score": (ScoreSettings, score),
}


def parse_arguments(argv: list[str] | None = None) -> tuple[str, Any]:
    """Read the command line of `python scripts/studies/audit.py`: the subcommand and its settings."""
    show_messages()
    parser = Parser(
        "Plant annotation errors, and score the rankings that look for them.",
        prog="python scripts/studies/audit.py",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )
    for name, (settings, _) in COMMANDS.items():
        what = settings.__doc__
        add_settings(commands.add_parser(name, help=what, description=what), settings)
    namespace = parser.parse_args(argv)
    return namespace.command, take_settings(COMMANDS[namespace.command][0], namespace)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    command, settings = parse_arguments(argv)
    result = COMMANDS[command][1](settings)
    if result:
        print(result, end="")


if __name__ == "__main__":
    run_main(main)
