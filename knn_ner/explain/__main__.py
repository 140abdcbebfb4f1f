"""Show what the neighbours changed on a split: one HTML page, with the neighbours of every entity.

    python -m knn_ner.explain --data_dir D --file_name F --model_path S/model --datastore_path P \\
        --split test --out report.html

The page is one file and loads nothing. It holds the text of the split and of the neighbours' sentences.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from knn_ner.settings import (
    CorpusSettings,
    SeededRunSettings,
    SplitName,
    TaggerSettings,
    TunedIndexSettings,
    VoteFlags,
)
from knn_ner.utils.arguments import flag, output_file, positive_int
from knn_ner.utils.command import read_command, run_main

if TYPE_CHECKING:
    from knn_ner.explain.cases import CaseWriter


@dataclass(frozen=True, kw_only=True)
class ExplainSettings(
    CorpusSettings, TaggerSettings, VoteFlags, TunedIndexSettings, SeededRunSettings
):
    """The settings of `python -m knn_ner.explain`."""

    split: SplitName = flag("test")
    """the split to explain"""
    out: str = flag(metavar="FILE", parse=output_file)
    """the page to write"""
    neighbours: int = flag(8, parse=positive_int)
    """neighbours to show for each word of an entity"""


def parse_arguments(argv: list[str] | None = None) -> ExplainSettings:
    """Read the command line of `python -m knn_ner.explain`."""
    about = "Show on one HTML page what the neighbours fixed, broke and changed."
    return read_command(ExplainSettings, argv, about, "python -m knn_ner.explain")


def explain(settings: ExplainSettings) -> "tuple[CaseWriter, str]":
    """Write the page.

    Returns:
        The writer, which has counted the cases and computes F1, and the page.

    Raises:
        UserError: if the corpus, the tagger or the datastore cannot be read, or a setting is out of range.
    """
    # Imported here because torch takes seconds, and `--help` does not need it.
    from knn_ner.data.corpus import read_corpus
    from knn_ner.explain.page import build_page, explain_split
    from knn_ner.tagging.knn_tagger import KnnTagger
    from knn_ner.utils.files import write_text

    corpus = read_corpus(
        settings.data_dir, settings.file_name, splits=(settings.split,), comments=settings.comments
    )
    corpus.report()
    tagger = KnnTagger.from_settings(
        settings.model_path, settings.datastore_path, settings, settings, settings
    )
    writer, data = explain_split(tagger, corpus, settings.split, settings.neighbours)
    page = build_page(f"{Path(settings.data_dir).resolve().name}, {settings.split}", data)
    write_text(settings.out, page)
    return writer, page


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings, start = parse_arguments(argv), time.perf_counter()
    writer, page = explain(settings)
    outcomes = ", ".join(f"{count} {name}" for name, count in writer.outcomes.items())
    print(f"F1 {writer.f1('base'):.2f} (tagger alone) -> {writer.f1('knn'):.2f}; {outcomes}")
    seconds = time.perf_counter() - start
    print(f"{settings.out}: {len(page.encode()) / 1e6:.1f} MB, {seconds:.1f} s")


if __name__ == "__main__":
    run_main(main)
