"""List the stored labels that look wrong, most suspicious first.

    python -m knn_ner.audit --data_dir D --file_name F --model_path S/model --datastore_path P --out DIR

compares each stored label with the token's neighbours in other sentences and with the tagger, ranks the labels with
cleanlab (`python -m pip install .[audit]`), and writes `DIR/audit.csv` and `DIR/audit.html`. The stored keys are the
queries, so no sentence is encoded.
"""

import time
from dataclasses import dataclass
from importlib.util import find_spec
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
    from knn_ner.audit.findings import Finding


@dataclass(frozen=True, kw_only=True)
class AuditSettings(CorpusSettings, TaggerSettings, IndexSettings, SeededRunSettings):
    """The settings of `python -m knn_ner.audit`."""

    out: str = flag(metavar="DIR", parse=output_folder)
    """folder for audit.csv and audit.html"""
    limit: int = flag(500, parse=positive_int)
    """largest number of places to list"""
    k: int = flag(64)
    """neighbours of each token"""
    temperature: float = flag(0.1)
    """T of exp(similarity / T)"""
    knn_weight: float = flag(0.5)
    """weight of the neighbours' vote, from 0 to 1; the rest is the weight of the tagger"""


def parse_arguments(argv: list[str] | None = None) -> AuditSettings:
    """Read the command line of `python -m knn_ner.audit`."""
    about = "List the stored labels that contradict their neighbours and the tagger."
    return read_command(AuditSettings, argv, about, "python -m knn_ner.audit")


def audit(settings: AuditSettings) -> "list[Finding]":
    """Run the audit and write its files.

    Returns:
        The findings, highest score first.

    Raises:
        UserError: if cleanlab is not installed, an input cannot be read, or a setting is out of range.
    """
    if find_spec("cleanlab") is None:
        raise UserError("cleanlab is not installed; run `python -m pip install .[audit]`")
    # Imported here because torch takes seconds, and `--help` does not need it.
    from tqdm import tqdm

    from knn_ner.audit.evidence import Auditor
    from knn_ner.audit.findings import describe, find_lines, to_csv, to_html
    from knn_ner.audit.ranking import rank
    from knn_ner.data.corpus import read_corpus
    from knn_ner.datastore.reader import Datastore
    from knn_ner.search.index_choice import searcher_for
    from knn_ner.tagging.trained_tagger import load_for_datastore
    from knn_ner.utils.device import choose_device
    from knn_ner.utils.files import write_text

    start = time.perf_counter()
    vote = VoteSettings(settings.k, settings.temperature, settings.knn_weight)
    if settings.k < 1:
        raise UserError(f"k {settings.k}: expected at least 1 neighbour for each token")
    corpus = read_corpus(
        settings.data_dir, settings.file_name, splits=("train",), comments=settings.comments
    )
    corpus.report()
    tagger = load_for_datastore(settings.model_path, settings.max_length, settings.datastore_path)
    corpus.convert_for(tagger.scheme)
    store = Datastore.open(settings.datastore_path)
    if store.weights is not None:
        raise UserError(f"{store.path}: is pruned; audit the datastore that it was made from")
    searcher = searcher_for(store, settings, choose_device(settings.device), settings.k)
    auditor = Auditor(tagger, searcher, vote)
    stored = auditor.stored
    lines = find_lines(corpus, stored, store)
    with tqdm(unit="piece", unit_scale=True, desc="audit") as progress:
        evidence = auditor.gather_evidence(progress)
    encoding = tagger.encoding_with(evidence.labels)
    places = rank(evidence, stored, encoding, corpus.scheme.name, settings.limit)
    findings = describe(places, evidence, auditor, str(corpus.files["train"]), lines)
    summary = (
        f"{settings.datastore_path}: {len(stored.sentences)} sentences, {len(stored)} words, {progress.n} word "
        f"pieces, each compared with its {vote.k} nearest neighbours in other sentences (similarity "
        f"{settings.similarity}, temperature {vote.temperature:g}, knn_weight {vote.knn_weight:g}); "
        f"{time.perf_counter() - start:.0f} s"
    )
    out = Path(settings.out)
    write_text(out / "audit.csv", to_csv(findings))
    write_text(out / "audit.html", to_html(findings, summary, tagger.encoding.joiner))
    return findings


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    findings = audit(settings)
    for number, finding in enumerate(findings[:10], start=1):
        place = slice(finding.first, finding.last + 1)
        print(
            f"{number:>3} {finding.score:.3f} {finding.file}:{finding.line} "
            f"{' '.join(finding.words[place])}: {' '.join(finding.tags[place])} -> "
            f"{' '.join(finding.suggested)}"
        )
    print(f"{len(findings)} places in {settings.out}/audit.csv and {settings.out}/audit.html")


if __name__ == "__main__":
    run_main(main)
