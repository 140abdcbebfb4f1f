"""List the stored labels that look wrong, worst first.

    python -m knn_ner.audit --data_dir D --file_name F --model_path S/model --datastore_path P --out DIR

holds each labelled token against its neighbours in other sentences and against the tagger, and writes
`DIR/audit.csv` and `DIR/audit.html`. Nothing is encoded: the stored keys are the queries.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from knn_ner.settings import (
    CorpusSettings,
    IndexSettings,
    SeededRunSettings,
    TaggerSettings,
    VoteSettings,
)
from knn_ner.utils.arguments import flag, output_folder, positive_int
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.errors import UserError

if TYPE_CHECKING:
    from knn_ner.audit.report import Finding


@dataclass(frozen=True, kw_only=True)
class AuditSettings(CorpusSettings, TaggerSettings, IndexSettings, SeededRunSettings):
    """The settings of `python -m knn_ner.audit`."""

    out: str = flag(metavar="DIR", parse=output_folder)
    """folder for audit.csv and audit.html"""
    limit: int = flag(500, parse=positive_int)
    """places to list, at most"""
    k: int = flag(64)
    """neighbours of each token"""
    temperature: float = flag(0.1)
    """T of exp(similarity / T)"""
    knn_weight: float = flag(0.5)
    """weight of the neighbours' vote, from 0 to 1; the rest is the tagger's own opinion"""


def parse_arguments(argv: list[str] | None = None) -> AuditSettings:
    """Read the command line of `python -m knn_ner.audit`."""
    return read_command(
        AuditSettings,
        argv,
        "List the stored labels that look wrong: each token against its neighbours in other "
        "sentences, and against the tagger.",
        "python -m knn_ner.audit",
    )


def audit(settings: AuditSettings) -> "list[Finding]":
    """Run the audit and write its files; returns the findings, worst first.

    Raises `UserError` for bad input.
    """
    # Imported here, as torch takes seconds that `--help` need not wait.
    from tqdm import tqdm

    from knn_ner.audit.evidence import gather_evidence, group_sentences
    from knn_ner.audit.findings import describe, locate
    from knn_ner.audit.ranking import StoredWords, rank
    from knn_ner.audit.report import to_csv, to_html
    from knn_ner.data.corpus import read_corpus
    from knn_ner.datastore.reader import Datastore
    from knn_ner.search.index_choice import searcher_for
    from knn_ner.tagging.trained_tagger import load_for_datastore
    from knn_ner.utils.device import choose_device
    from knn_ner.utils.files import write_text

    start = time.perf_counter()
    knn = VoteSettings(settings.k, settings.temperature, settings.knn_weight)
    if settings.k < 1:
        raise UserError(f"k {settings.k}: expected at least 1 neighbour for each token")
    corpus = read_corpus(settings.data_dir, settings.file_name, splits=("train",))
    corpus.report()
    tagger = load_for_datastore(settings.model_path, settings.max_length, settings.datastore_path)
    store = Datastore.open(settings.datastore_path)
    if store.weights is not None:
        raise UserError(
            f"{store.path}: is pruned, so that not every label is in it; audit the datastore that it was "
            "made from"
        )
    searcher = searcher_for(store, settings, choose_device(settings.device), settings.k)
    words = StoredWords(store)
    lines = locate(corpus, words, store)
    groups = group_sentences(store)
    with tqdm(unit="piece", unit_scale=True, desc="audit") as progress:
        evidence = gather_evidence(tagger, searcher, groups, knn, progress)
    places = rank(evidence, words, tagger, corpus.scheme.name, settings.limit)
    findings = describe(places, evidence, words, lines, corpus, tagger, searcher, groups, knn)
    seconds = time.perf_counter() - start
    judged = int((store.positions >= 0).sum())
    notes = [
        f"{settings.datastore_path}: {len(words.sentences)} sentences, {len(words)} words, "
        f"{judged} word pieces, each held against the {knn.k} nearest of other sentences "
        f"(similarity {settings.similarity}, temperature {knn.temperature:g}, "
        f"knn_weight {knn.knn_weight:g}); {seconds:.0f} s",
        "A word's score is 1 - P / P', averaged over its pieces: P is what neighbours and tagger give "
        "the given label (knn_weight * neighbours + (1 - knn_weight) * tagger), P' what they give "
        "tokens of that label on average. A place has the score of its worst word.",
    ]
    out = Path(settings.out)
    write_text(out / "audit.csv", to_csv(findings))
    write_text(out / "audit.html", to_html(findings, "Labels that look wrong", notes))
    return findings


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    findings = audit(settings)
    for number, found in enumerate(findings[:10], start=1):
        place = slice(found.first, found.last + 1)
        print(
            f"{number:>3} {found.score:.3f} {found.file}:{found.line} "
            f"{' '.join(found.words[place])}: {' '.join(found.tags[place])} -> "
            f"{' '.join(found.suggested)}"
        )
    print(f"{len(findings)} places in {settings.out}/audit.csv and {settings.out}/audit.html")


if __name__ == "__main__":
    run_main(main)
