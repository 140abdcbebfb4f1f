"""Measure `knn_ner.audit`: plant annotation errors in a corpus, then see how early a ranking has them.

    python scripts/audit_benchmark.py plant --data_dir data/wnut17 --file_name word.bmes --out NOISY --seed 0
    (train a tagger on NOISY, build its datastore, audit it into DIR)
    python scripts/audit_benchmark.py cleanlab --model_path S/model --datastore_path P --out CLEANLAB
    python scripts/audit_benchmark.py score --planted NOISY/planted.csv DIR CLEANLAB

`docs/audit.md` has the whole of it, with the numbers. `cleanlab` needs requirements-measure.txt.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

# So that the script runs from any folder, with or without the package installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from knn_ner.auditing.evidence import tagger_probabilities
from knn_ner.auditing.ranking import StoredWords, group, units
from knn_ner.cli import Parser, add_data_arguments, proportion, run_main, say
from knn_ner.data.corpus import SPLITS, Sentence, read_corpus
from knn_ner.data.tags import OUTSIDE, scheme_of_labels
from knn_ner.errors import UserError
from knn_ner.evaluation.spans import Span, word_spans
from knn_ner.files import write_text
from knn_ner.pipeline import load_for_datastore
from knn_ner.preparation.conversion import from_bio
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.exact import ExactSearch

KINDS = ("type", "boundary", "missing")
FIRST = (100, 200, 500)


def plant_errors(
    sentences: Sequence[Sentence], scheme: str, part: float, seed: int
) -> list[dict[str, str | int]]:
    """Change a part of the entities, in place, a third of them in each of three ways.

    `type`: another type, drawn evenly from those of the corpus. `boundary`: one word more or less on one
    side, drawn evenly from what keeps a word and touches no other entity. `missing`: every word is `O`.

    Returns a row for each, in the order of the corpus: what it was and what it became; first and last
    count words of the sentence from 0, ends included.
    """
    generator = np.random.default_rng(seed)
    spans: list[list[Span | None]] = [word_spans(each.tags, scheme) for each in sentences]
    entities = [(s, e) for s, found in enumerate(spans) for e in range(len(found))]
    types = sorted({span[0] for found in spans for span in found})
    planted: list[dict[str, str | int]] = []
    for index in generator.permutation(len(entities)):
        if len(planted) == round(part * len(entities)):
            break
        number, place = entities[index]
        kind = KINDS[len(planted) % len(KINDS)]
        old = spans[number][place]
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
        sentences[number].tags = write_spans(left, len(sentences[number]), scheme)
    return sorted(planted, key=lambda row: (row["sentence"], row["first"]))


def change(
    span: Span,
    kind: str,
    types: Sequence[str],
    others: Iterable[Span | None],
    words: int,
    generator: np.random.Generator,
) -> Span | None:
    """The span after an error of this kind; None if it goes, itself if it cannot be changed so."""
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


def write_spans(spans: Sequence[Span], words: int, scheme: str) -> list[str]:
    """The tags of a sentence with these entities."""
    tags = [OUTSIDE] * words
    for type_, first, last in spans:
        tags[first] = f"B-{type_}"
        tags[first + 1 : last + 1] = [f"I-{type_}"] * (last - first)
    return from_bio(tags, scheme.lower())


def plant(settings: argparse.Namespace) -> None:
    """Write the corpus with errors in its training split, and `planted.csv`.

    Raises `UserError` for what the reader refuses, and to write over the corpus itself.
    """
    out = Path(settings.out)
    if out.resolve() == Path(settings.data_dir).resolve():
        raise UserError(f"{out}: is --data_dir itself; choose another folder for --out")
    corpus = read_corpus(settings.data_dir, settings.file_name)
    planted = plant_errors(corpus.splits["train"], corpus.scheme.name, settings.part, settings.seed)
    for split in SPLITS:
        blocks = (
            "".join(f"{word} {tag}\n" for word, tag in zip(each.words, each.tags, strict=True))
            for each in corpus.splits[split]
        )
        write_text(out / f"{split}.{settings.file_name}", "\n".join(blocks))
    write_rows(out / "planted.csv", planted)
    say(f"{out}: {len(planted)} entities of the training split changed, see planted.csv")


def rank_by_cleanlab(settings: argparse.Namespace) -> None:
    """Write the places that cleanlab ranks highest, by the tagger's probabilities for the stored tokens.

    For cleanlab each stored word piece is a token. Its scores become places by the audit's own rules.

    Raises `UserError` for a store of another model, or with labels that the tagger lacks.
    """
    from cleanlab.token_classification.filter import find_label_issues
    from cleanlab.token_classification.rank import get_label_quality_scores

    tagger = load_for_datastore(settings.model_path, 512, settings.datastore_path)
    store = Datastore.open(settings.datastore_path)
    if store.labels != tagger.labels:
        raise UserError(f"{store.path}: has other labels than the tagger; cleanlab needs the same")
    words = StoredWords(store)
    entries = np.arange(store.entries)
    probabilities = tagger_probabilities(tagger, ExactSearch(store), entries).numpy()
    # Special tokens are no tokens of the sentence.
    kept = [part[store.positions[part] >= 0] for part in np.split(entries, words.first_entry[1:-1])]
    labels = [store.label_ids[part].tolist() for part in kept]
    by_sentence = [probabilities[part] for part in kept]
    score = np.zeros(store.entries)
    if settings.method == "filter":
        issues = find_label_issues(labels, by_sentence)
        for place, (sentence, token) in enumerate(issues):
            score[kept[sentence][token]] = 1 - place / len(issues)
    else:
        _, scores = get_label_quality_scores(
            labels, by_sentence, token_score_method=settings.method
        )
        for part, quality in zip(kept, scores, strict=True):
            score[part] = 1 - np.asarray(quality)
    scheme = scheme_of_labels(store.labels).name
    unit_of_word, sentence_of_unit = units(words, scheme)
    unit_scores = np.zeros(len(sentence_of_unit))
    np.maximum.at(unit_scores, unit_of_word, words.judge(score)[0])
    rows = []
    for place, members in enumerate(group(unit_scores, sentence_of_unit, FIRST[-1]), start=1):
        number = sentence_of_unit[members[0]]
        here = np.flatnonzero(np.isin(unit_of_word, members)) - words.first_word[number]
        rows.append(
            {"rank": place, "score": f"{unit_scores[members].max():.4f}"}
            | {"sentence": words.sentences[number]["id"]}
            | {"first_word": here[0], "last_word": here[-1]}
        )
    write_rows(Path(settings.out) / "audit.csv", rows)
    say(f"{settings.out}/audit.csv: {len(rows)} places")


def score_ranking(
    planted: Sequence[Mapping[str, str]], places: Sequence[Mapping[str, str]]
) -> dict[str, float]:
    """Precision and recall, in percent, of the first 100, 200 and 500 places, and recall by kind.

    A place is right if it has a word of an entity that was changed, as it was or as it became. A shorter
    list counts as if wrong places followed.
    """
    words: dict[tuple[int, int], int] = {}
    for number, row in enumerate(planted):
        ends = [int(row[name]) for name in ("first", "last", "new_first", "new_last")]
        for word in range(min(ends), max(ends) + 1):
            words[int(row["sentence"]), word] = number
    found_at: dict[int, int] = {}
    right = np.zeros(FIRST[-1], dtype=bool)
    for rank, place in enumerate(places[: FIRST[-1]]):
        span = range(int(place["first_word"]), int(place["last_word"]) + 1)
        hits = {words[key] for word in span if (key := (int(place["sentence"]), word)) in words}
        right[rank] = bool(hits)
        for number in hits:
            found_at.setdefault(number, rank)
    scores = {f"precision@{n}": 100 * right[:n].mean() for n in FIRST}
    for n in FIRST:
        scores[f"recall@{n}"] = 100 * sum(at < n for at in found_at.values()) / len(planted)
    for kind in KINDS:
        numbers = [number for number, row in enumerate(planted) if row["kind"] == kind]
        found = sum(number in found_at for number in numbers)
        scores[kind] = 100 * found / max(len(numbers), 1)
    return scores


def score(settings: argparse.Namespace) -> None:
    """Print a table (Markdown) of the rankings.

    Raises `UserError` for a file that is not there.
    """
    planted = read_rows(Path(settings.planted))
    lines = []
    for folder in settings.audits:
        scores = score_ranking(planted, read_rows(Path(folder) / "audit.csv"))
        if not lines:
            lines += [" | ".join(["ranking", *scores]), "|".join(["---"] * (len(scores) + 1))]
        lines.append(" | ".join([Path(folder).name, *(f"{s:.1f}" for s in scores.values())]))
    print(f"{len(planted)} planted errors; percent\n\n" + "".join(f"| {x} |\n" for x in lines))


def write_rows(path: Path, rows: Sequence[Mapping]) -> None:
    """A CSV file of rows with the same names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    if not path.is_file():
        raise UserError(f"{path}: not found")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of this script."""
    parser = Parser(
        "Plant annotation errors, and score the rankings that look for them.",
        prog="python scripts/audit_benchmark.py",
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    planting = commands.add_parser(
        "plant",
        description="write a corpus with errors in its training split",
        help="write a corpus with errors in its training split",
    )
    add_data_arguments(planting)
    planting.add_argument("--out", required=True, metavar="DIR", help="folder for the corpus")
    planting.add_argument("--part", type=proportion, default=0.05, help="of the entities to change")
    planting.add_argument("--seed", type=int, default=0, help="of what is changed, and how")
    ranking = commands.add_parser(
        "cleanlab", description="rank by cleanlab's scores", help="rank by cleanlab's scores"
    )
    ranking.add_argument("--model_path", required=True, metavar="S/model", help="the tagger")
    ranking.add_argument("--datastore_path", required=True, metavar="P", help="its datastore")
    ranking.add_argument("--out", required=True, metavar="DIR", help="folder for audit.csv")
    ranking.add_argument(
        "--method",
        default="self_confidence",
        choices=("self_confidence", "normalized_margin", "filter"),
        help="a score of every token, or what find_label_issues lists",
    )
    scoring = commands.add_parser(
        "score",
        description="precision and recall of rankings",
        help="precision and recall of rankings",
    )
    scoring.add_argument("--planted", required=True, metavar="FILE", help="planted.csv")
    scoring.add_argument("audits", nargs="+", metavar="DIR", help="folders with audit.csv")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    settings = parse_arguments(argv)
    {"plant": plant, "cleanlab": rank_by_cleanlab, "score": score}[settings.command](settings)


if __name__ == "__main__":
    run_main(main)
