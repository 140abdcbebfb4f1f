"""List the stored labels that look wrong, worst first.

    python -m knn_ner.audit --data_dir D --file_name F --model_path S/model --datastore_path P --out DIR

holds each labelled token against its neighbours in other sentences and against the tagger, and writes
`DIR/audit.csv` and `DIR/audit.html`. Nothing is encoded: the stored keys are the queries.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from knn_ner.auditing.evidence import (
    Evidence,
    Groups,
    gather_evidence,
    group_sentences,
    neighbours_elsewhere,
    tagger_probabilities,
)
from knn_ner.auditing.ranking import Place, StoredWords, rank
from knn_ner.auditing.report import Finding, Neighbour, to_csv, to_html
from knn_ner.cli import Parser, add_data_arguments, add_run_arguments, positive_int, run_main, say
from knn_ner.data.corpus import Corpus, read_corpus
from knn_ner.errors import UserError
from knn_ner.files import write_text
from knn_ner.pipeline import LoadedTagger, load_for_datastore, show_corpus
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.interpolation import KnnSettings
from knn_ner.retrieval.search import Searcher
from knn_ner.retrieval.vote import vote_weights
from knn_ner.search_arguments import add_retrieval_arguments, searcher_for

# Shown of a finding: its nearest neighbours, copies that differ, and labels of a distribution.
SHOWN = 8
SHOWN_LABELS = 3


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m knn_ner.audit`."""
    parser = Parser(
        "List the stored labels that look wrong: each token against its neighbours in other "
        "sentences, and against the tagger.",
        prog="python -m knn_ner.audit",
    )
    add_data_arguments(parser)
    add_retrieval_arguments(parser)
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for audit.csv and audit.html"
    )
    parser.add_argument("--limit", type=positive_int, default=500, help="places to list, at most")
    group = parser.add_argument_group("the evidence")
    group.add_argument("--k", type=int, default=64, help="neighbours of each token")
    group.add_argument("--temperature", type=float, default=0.1, help="T of exp(similarity / T)")
    group.add_argument(
        "--knn_weight",
        type=float,
        default=0.5,
        help="of the neighbours' vote, from 0 to 1; the rest is the tagger's own opinion",
    )
    add_run_arguments(parser)
    return parser.parse_args(argv)


def audit(settings: argparse.Namespace) -> list[Finding]:
    """Run the audit and write its files; returns the findings, worst first.

    Raises `UserError` for bad input.
    """
    start = time.perf_counter()
    knn = KnnSettings(settings.k, settings.temperature, settings.knn_weight)
    if settings.k < 1:
        raise UserError(f"k {settings.k}: expected at least 1 neighbour for each token")
    corpus = read_corpus(settings.data_dir, settings.file_name, splits=("train",))
    show_corpus(corpus)
    tagger = load_for_datastore(settings.model_path, settings.max_length, settings.datastore_path)
    store = Datastore.open(settings.datastore_path)
    if store.weights is not None:
        raise UserError(
            f"{store.path}: is pruned, so that not every label is in it; audit the datastore that it was "
            "made from"
        )
    searcher = searcher_for(store, settings)
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


def locate(corpus: Corpus, words: StoredWords, store: Datastore) -> list[int]:
    """The line of the training file that each stored sentence begins at; 0 for one that it lacks.

    Sentence ids are those of the file until the store is changed; what was added is found by its words.

    Raises `UserError` when the file has none of the sentences.
    """
    sentences = corpus.splits["train"]
    by_words = {tuple(sentence.words): sentence.line for sentence in reversed(sentences)}
    lines = []
    for stored in words.sentences:
        there = sentences[stored["id"]] if stored["id"] < len(sentences) else None
        same = there is not None and there.words == stored["words"]
        lines.append(there.line if same else by_words.get(tuple(stored["words"]), 0))
    if not any(lines):
        raise UserError(
            f"{store.path}: none of its {len(lines)} sentences is in {corpus.files['train']}; "
            "give the corpus that the datastore was built from"
        )
    missing = lines.count(0)
    if missing:
        say(f"{corpus.files['train']}: {missing} of {len(lines)} stored sentences are not there")
    return lines


def describe(
    places: Sequence[Place],
    evidence: Evidence,
    words: StoredWords,
    lines: Sequence[int],
    corpus: Corpus,
    tagger: LoadedTagger,
    searcher: Searcher,
    groups: Groups,
    knn: KnnSettings,
) -> list[Finding]:
    """All that is shown of the places: the neighbours are searched once more, for these alone."""
    number_of = {sentence["id"]: number for number, sentence in enumerate(words.sentences)}
    entries = np.array([place.entry for place in places], dtype=np.int64)
    found = neighbours_elsewhere(searcher, groups, entries, knn.k)
    weights = vote_weights(found.similarities - found.similarities[:, :1], knn.temperature)
    weights /= weights.sum(dim=1, keepdim=True)
    neighbour_labels = searcher.neighbour_labels(found.indices).cpu()
    base = tagger_probabilities(tagger, searcher, entries).cpu()
    findings = []
    for row, place in enumerate(places):
        shares = weights[row].cpu()
        neighbours = [
            neighbour(searcher.store, entry, similarity, share)
            for entry, similarity, share in zip(
                found.indices[row, :SHOWN].tolist(),
                found.similarities[row, :SHOWN].tolist(),
                shares[:SHOWN].tolist(),
                strict=True,
            )
            if similarity > -np.inf
        ]
        vote = torch.zeros(len(searcher.store.labels))
        vote.index_add_(0, neighbour_labels[row], shares)
        copies = np.flatnonzero(groups.first == groups.first[place.entry])
        differing = copies[evidence.given[copies] != evidence.given[place.entry]]
        number = number_of[place.sentence]
        line = lines[number]
        findings.append(
            Finding(
                place.score,
                str(corpus.files["train"]) if line else "",
                line + place.first if line else 0,
                place.sentence,
                words.sentences[number]["words"],
                words.sentences[number]["tags"],
                place.first,
                place.last,
                place.suggested,
                evidence.labels[evidence.given[place.entry]],
                int(searcher.store.positions[place.entry]),
                largest(vote, searcher.store.labels),
                largest(base[row], tagger.labels),
                neighbours,
                int(evidence.copies[place.entry]),
                int(evidence.otherwise[place.entry]),
                [neighbour(searcher.store, entry) for entry in differing[:SHOWN].tolist()],
            )
        )
    return findings


def neighbour(
    store: Datastore, entry: int, similarity: float | None = None, share: float | None = None
) -> Neighbour:
    """A stored entry as it is shown."""
    sentence = store.sentence(int(store.sentence_ids[entry]))
    return Neighbour(
        sentence["id"],
        sentence["words"],
        int(store.positions[entry]),
        store.labels[store.label_ids[entry]],
        similarity,
        share,
    )


def largest(distribution: Tensor, labels: Sequence[str]) -> dict[str, float]:
    """The largest parts of a distribution, those that round to 0% left out."""
    values, order = distribution.sort(descending=True, stable=True)
    return {
        labels[index]: value
        for value, index in zip(
            values[:SHOWN_LABELS].tolist(), order[:SHOWN_LABELS].tolist(), strict=True
        )
        if value >= 0.005
    }


def main(argv: list[str] | None = None) -> None:
    """The command line."""
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
