"""Show what the neighbours changed on a split: one HTML page, with the neighbours of every entity.

    python -m knn_ner.explain --data_dir D --file_name F --model_path S/model --datastore_path P \\
        --split test --out report.html

The page needs nothing else, no network either. It holds the text of the split and of the neighbours.
"""

import argparse
import time
from pathlib import Path

from knn_ner.cli import Parser, add_data_arguments, add_run_arguments, positive_int, run_main
from knn_ner.data.corpus import SPLITS, Corpus, read_corpus
from knn_ner.data.tags import scheme_of_labels
from knn_ner.files import write_text
from knn_ner.inference.tagger import KnnTagger
from knn_ner.pipeline import show_corpus
from knn_ner.report.cases import OUTCOMES, CaseWriter, extents_of
from knn_ner.report.page import build_page
from knn_ner.search_arguments import (
    add_retrieval_arguments,
    add_vote_arguments,
    tagger_for,
)

# Entries of the datastore that a map shows.
ON_THE_MAP = 32


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m knn_ner.explain`."""
    parser = Parser(
        "Show on one HTML page what the neighbours changed, fixed and broke, and the neighbours.",
        prog="python -m knn_ner.explain",
    )
    add_data_arguments(parser)
    add_retrieval_arguments(parser, similarity=None)
    parser.add_argument("--split", choices=SPLITS, default="test", help="the split to explain")
    parser.add_argument("--out", required=True, metavar="FILE", help="the page to write")
    parser.add_argument(
        "--neighbours", type=positive_int, default=8, help="to show of each word of an entity"
    )
    add_vote_arguments(parser)
    add_run_arguments(parser)
    return parser.parse_args(argv)


def explain(settings: argparse.Namespace) -> dict:
    """Write the page; returns the outcomes with their counts, both F1, bytes and seconds.

    Raises `UserError` for bad input.
    """
    start = time.perf_counter()
    corpus = read_corpus(settings.data_dir, settings.file_name, splits=(settings.split,))
    show_corpus(corpus)
    tagger = tagger_for(settings)
    writer = collect(tagger, corpus, settings.split, settings.neighbours)
    f1 = {f"{name}_f1": writer.f1(name) for name in ("base", "knn")}
    title = f"{Path(settings.data_dir).resolve().name}, {settings.split}"
    content = writer.content() | {
        "facts": facts(tagger, corpus, settings.split, f1),
        "joiner": tagger.tagger.encoding.joiner,
    }
    page = build_page(title, content)
    write_text(settings.out, page)
    return {
        "outcomes": {outcome: writer.outcomes[outcome] for outcome in OUTCOMES},
        **f1,
        "bytes": len(page.encode()),
        "seconds": round(time.perf_counter() - start, 2),
    }


def collect(tagger: KnnTagger, corpus: Corpus, split: str, neighbours: int) -> CaseWriter:
    """The rows of the page, with its counts."""
    sentences = corpus.splits[split]
    scheme = corpus.scheme.name
    writer = CaseWriter(
        tagger.store,
        scheme,
        scheme_of_labels(tagger.labels).name,
        cosine=tagger.similarity == "cosine",
    )
    gold_words = (
        [
            word
            for _, first, stop in extents_of(sentence.tags, scheme)
            for word in range(first, stop)
        ]
        for sentence in sentences
    )
    explained = tagger.explain_texts(
        (sentence.words for sentence in sentences),
        len(sentences),
        neighbours=neighbours,
        also=gold_words,
        around=max(ON_THE_MAP, neighbours),
    )
    for sentence, text in zip(sentences, explained, strict=True):
        writer.add(sentence, text)
    return writer


def facts(tagger: KnnTagger, corpus: Corpus, split: str, f1: dict) -> list[list[str]]:
    """What the head of the page says, as (name, value)."""
    settings, store = tagger.settings, tagger.store
    return [
        ["split", f"{corpus.files[split].name}, {len(corpus.splits[split])} sentences"],
        ["F1", f"{f1['base_f1']:.2f} tagger alone, {f1['knn_f1']:.2f} with neighbours"],
        ["datastore", f"{store.entries} tokens of {store.manifest.sentences} sentences"],
        [
            "vote",
            f"k {settings.k}, temperature {settings.temperature:g}, knn_weight "
            f"{settings.knn_weight:g}, {tagger.similarity} similarity",
        ],
    ]


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    settings = parse_arguments(argv)
    written = explain(settings)
    outcomes = ", ".join(f"{count} {name}" for name, count in written["outcomes"].items())
    print(f"F1 {written['base_f1']:.2f} (tagger alone) -> {written['knn_f1']:.2f}; {outcomes}")
    print(f"{settings.out}: {written['bytes'] / 1e6:.1f} MB, {written['seconds']:.1f} s")


if __name__ == "__main__":
    run_main(main)
