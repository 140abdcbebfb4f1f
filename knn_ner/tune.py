"""Choose k, temperature and knn_weight on the dev split, from one retrieval.

    python -m knn_ner.tune --data_dir D --file_name F --model_path S/model --datastore_path P --save_path O

writes `O/tuning.json` (the best setting) and `O/tuning.csv` (the whole sweep; `--plot` draws it), and keeps the
best setting with the datastore, for those who give none. The test split is never read.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from knn_ner.cli import (
    Parser,
    add_data_arguments,
    add_run_arguments,
    positive_float,
    run_main,
    say,
)
from knn_ner.data.corpus import other_positions, read_corpus
from knn_ner.data.loading import sentence_chunks
from knn_ner.errors import UserError
from knn_ner.evaluation.plots import draw_tuning, read_tuning
from knn_ner.evaluation.plotting import save
from knn_ner.evaluation.spans import SpanCounter
from knn_ner.evaluation.sweep import WeightCurve, WeightSweep
from knn_ner.files import write_json, write_text
from knn_ner.model.representations import choose_device, represent
from knn_ner.pipeline import LoadedTagger, Split, load, make_split, show_corpus
from knn_ner.retrieval.cover import covers_of
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.exact import ExactSearch
from knn_ner.retrieval.interpolation import KnnSettings, LabelAlignment
from knn_ner.retrieval.manifest import Manifest
from knn_ner.retrieval.search import Searcher, check_k
from knn_ner.retrieval.tuned import save_tuned
from knn_ner.retrieval.vote import vote_prefixes
from knn_ner.search_arguments import add_retrieval_arguments, searcher_for
from knn_ner.tagging import CHUNK_ROWS, open_datastore

GRID_K = (8, 16, 32, 64, 128, 256, 512, 1024)
GRID_TEMPERATURE = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
# Of the CSV; the best weight is found exactly.
GRID_WEIGHTS = np.linspace(0, 1, 101)
# Pieces whose votes, for every k, are held at once.
VOTE_ROWS = 4096


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m knn_ner.tune`."""
    parser = Parser(
        "Choose k, temperature and knn_weight by the word-level F1 of the dev split.",
        prog="python -m knn_ner.tune",
    )
    add_data_arguments(parser)
    add_retrieval_arguments(parser)
    parser.add_argument("--save_path", required=True, metavar="O", help="folder for the results")
    add_grid_arguments(parser)
    parser.add_argument(
        "--plot",
        action="store_true",
        help="also draw the F1 over knn_weight, T and k: tuning.png and tuning.svg",
    )
    add_run_arguments(parser)
    return parser.parse_args(argv)


def add_grid_arguments(parser: argparse.ArgumentParser) -> None:
    """The settings to try, for commands that tune."""
    parser.add_argument(
        "--grid_k",
        type=int,
        nargs="+",
        default=list(GRID_K),
        help="numbers of neighbours to try; -1 (every stored token) takes a search for itself",
    )
    parser.add_argument(
        "--grid_temperature",
        type=positive_float,
        nargs="+",
        default=list(GRID_TEMPERATURE),
        help="temperatures to try",
    )


@dataclass
class Retrieved:
    """What one retrieval leaves of a split with R rows.

    base_labels: (R,) the tagger's label ids.
    rows: (M,) the rows where some neighbour has another label than the tagger gives; no vote changes others.
    base: (M, L) the tagger's distribution, over its labels and then those that only the datastore has.
    similarities, labels: (M, k) the neighbours, best first.
    all_votes: temperature to (M, L), the vote of every stored token, if k = -1 is to be tried.
    counts: (M, k) how many entries each neighbour stands for; None if each is one.
    """

    base_labels: np.ndarray
    rows: np.ndarray
    base: torch.Tensor
    similarities: torch.Tensor
    labels: torch.Tensor
    all_votes: dict[float, torch.Tensor]
    counts: torch.Tensor | None = None


def retrieve(
    tagger: LoadedTagger,
    split: Split,
    searcher: Searcher,
    settings: argparse.Namespace,
    seconds: dict[str, float],
) -> Retrieved:
    """Encode a split and search it once, at the largest k of the grid."""
    finite = [k for k in settings.grid_k if k > 0]
    everything = -1 in settings.grid_k
    base_labels = np.zeros(len(split.gold), dtype=np.int64)
    alignment = LabelAlignment(tagger.labels, searcher.store.labels)
    device = choose_device(settings.device)
    parts: list[tuple] = []
    first = 0
    with tqdm(total=len(split.gold), unit="piece", unit_scale=True, desc="tune") as progress:
        for chunk in sentence_chunks(split.encoded, CHUNK_ROWS):
            start = time.perf_counter()
            batches = []
            for batch in represent(
                tagger.model,
                chunk,
                pad_id=tagger.tokenizer.pad_token_id,
                max_length=tagger.max_length,
                batch_size=settings.batch_size,
                device=device,
                precision=settings.precision,
                workers=settings.workers,
                recipe=searcher.store.recipe,
                progress=progress,
            ):
                rows = first + batch.rows.numpy()
                base = alignment.base(batch.logits.softmax(-1))
                base_labels[rows] = base.argmax(-1).cpu().numpy()
                kept = split.scored[rows]
                chosen = torch.from_numpy(kept).to(device)
                batches.append((rows[kept], base[chosen], batch.keys(chosen)))
            first += sum(map(len, chunk))
            searching = time.perf_counter()
            seconds["encode"] += searching - start
            rows = np.concatenate([part[0] for part in batches])
            order = np.argsort(rows)
            rows = rows[order]
            base, hidden = (torch.cat([part[i] for part in batches])[order] for i in (1, 2))
            parts.append(
                neighbours(
                    *(searcher, alignment, rows, base, hidden, finite, everything),
                    *(len(split.gold), settings),
                )
            )
            seconds["search"] += time.perf_counter() - searching
    rows, base, similarities, labels, votes, counts = zip(*parts, strict=True)
    return Retrieved(
        base_labels,
        np.concatenate(rows),
        torch.cat(base),
        torch.cat(similarities),
        torch.cat(labels),
        dict(zip(settings.grid_temperature, torch.cat(votes, dim=1), strict=True))
        if everything
        else {},
        None if searcher.store.weights is None else torch.cat(counts),
    )


def neighbours(
    searcher: Searcher,
    alignment: LabelAlignment,
    rows: np.ndarray,
    base: torch.Tensor,
    hidden: torch.Tensor,
    finite: list[int],
    everything: bool,
    expected: int,
    settings: argparse.Namespace,
) -> tuple:
    """The neighbours of some rows, without the rows whose neighbours all agree with the tagger.

    Where balls around the keys show that they do, they are not looked for.
    """
    if not everything:
        open_ = ~agreed(searcher, alignment, base, hidden, max(finite), expected)
        rows, base, hidden = rows[open_.numpy()], base[open_], hidden[open_]
    labels = torch.zeros(len(rows), 0, dtype=torch.long)
    similarities = counts = torch.zeros(len(rows), 0)
    matters = torch.ones(len(rows), dtype=torch.bool)
    if finite:
        found = searcher.search(hidden, max(finite))
        labels = alignment.vote_labels(searcher.neighbour_labels(found.indices))
        similarities = counts = found.similarities
        if searcher.store.weights is not None:
            counts = searcher.neighbour_weights(found.indices)
        if not everything:
            matters = (labels != base.argmax(-1, keepdim=True)).any(1).cpu()
    votes = (
        alignment.votes(searcher.vote_all(hidden, settings.grid_temperature))
        if everything
        else torch.zeros(0, len(rows), base.shape[1])
    )
    return (
        rows[matters.numpy()],
        base[matters],
        similarities[matters],
        labels[matters],
        votes[:, matters],
        counts[matters],
    )


def agreed(
    searcher: Searcher,
    alignment: LabelAlignment,
    base: torch.Tensor,
    hidden: torch.Tensor,
    k: int,
    expected: int,
) -> torch.Tensor:
    """Which rows' k nearest entries are known to have the tagger's label without a search: (M,) bool.

    expected: how many rows will be asked for, in all.
    """
    known = torch.zeros(len(base), dtype=torch.bool)
    if isinstance(searcher, ExactSearch):
        labels = alignment.stored_labels(base.argmax(-1)).cpu()
        queries = searcher.checked(hidden).cpu()
        for cover in covers_of(searcher.store, searcher.similarity, expected):
            left = (~known).nonzero()[:, 0]
            known[left] = cover.unanimous(queries[left], labels[left], k)
    return known


def weight_sweep(split: Split, base_labels: np.ndarray) -> WeightSweep:
    """What counts the word-level F1 of a split, given the tagger's label ids, (R,)."""
    return WeightSweep(
        base_labels,
        np.repeat(np.arange(len(split.encoded)), np.diff(split.first_rows)),
        split.decoder,
        SpanCounter(
            split.labels,
            split.scheme,
            np.array([split.labels.index(tag) for tags in split.word_tags for tag in tags]),
            np.repeat(np.arange(len(split.sentences)), split.decoder.counts),
            len(split.sentences),
        ),
    )


def curves(
    retrieved: Retrieved, sweep: WeightSweep, grid_k: list[int], grid_temperature: list[float]
) -> dict[tuple[int, float], WeightCurve]:
    """The F1 over every knn_weight, for each k and temperature."""
    found: dict[tuple[int, float], WeightCurve] = {}
    base = retrieved.base.double().cpu().numpy()
    ours = base.argmax(-1)
    counts = retrieved.counts
    # More than all there are is as much as these; of a pruned store, they are not told by their number.
    most = retrieved.similarities.shape[1] if counts is None else max(grid_k)
    finite = sorted({min(k, most) for k in grid_k if k > 0})
    for temperature in grid_temperature:
        votes = {k: [] for k in finite}
        for start in range(0, len(ours), VOTE_ROWS):
            part = slice(start, start + VOTE_ROWS)
            for k, vote in zip(
                finite,
                vote_prefixes(
                    retrieved.similarities[part],
                    retrieved.labels[part],
                    base.shape[1],
                    temperature,
                    finite,
                    None if counts is None else counts[part],
                ),
                strict=True,
            ):
                votes[k].append(vote.cpu().numpy())
        by_k = {k: np.concatenate(parts) for k, parts in votes.items() if parts}
        if temperature in retrieved.all_votes:
            by_k[-1] = retrieved.all_votes[temperature].cpu().numpy()
        for k, vote in by_k.items():
            differs = vote.argmax(-1) != ours
            found[k, temperature] = sweep.curve(
                retrieved.rows[differs], base[differs], vote[differs].astype(np.float64)
            )
    return found


def sweep_split(
    settings: argparse.Namespace, name: str
) -> tuple[Datastore, dict[tuple[int, float], WeightCurve], dict[str, float]]:
    """Every setting on a split: the datastore, the curves by (k, temperature), and the seconds taken.

    Raises `UserError` for bad input.
    """
    for k in settings.grid_k:
        check_k(k)
    corpus = read_corpus(settings.data_dir, settings.file_name, splits=(name,))
    show_corpus(corpus)
    labels = Manifest.read(Path(settings.datastore_path)).labels
    labels = [*labels, *other_positions(corpus.splits[name], labels)]
    tagger = load(settings.model_path, settings.max_length, corpus, labels)
    store = open_datastore(settings.datastore_path, tagger)
    searcher = searcher_for(store, settings)
    split = make_split(corpus, name, tagger.encoding_with([*store.labels, *labels]))
    seconds = {"encode": 0.0, "search": 0.0}
    retrieved = retrieve(tagger, split, searcher, settings, seconds)

    start = time.perf_counter()
    sweep = weight_sweep(split, retrieved.base_labels)
    found = curves(retrieved, sweep, settings.grid_k, settings.grid_temperature)
    seconds["sweep"] = time.perf_counter() - start
    return store, found, seconds


def best_setting(found: dict[tuple[int, float], WeightCurve]) -> dict:
    """The k, temperature and knn_weight with the highest F1, and that F1.

    Of equal scores the first: fewer neighbours, then the lower temperature.
    """
    best: dict = {}
    for (k, temperature), curve in sorted(found.items(), key=order_of_choice):
        weight, f1 = curve.best()
        # A short number that can be typed, where it scores the same.
        short = round(weight, 4)
        weight = short if curve.f1_at(np.array([short]))[0] == f1 else weight
        if not best or f1 > best["f1"]:
            best = {"k": k, "temperature": temperature, "knn_weight": weight, "f1": f1}
    return best


def tune(settings: argparse.Namespace) -> dict:
    """Tune on the dev split; returns what `tuning.json` holds.

    Raises `UserError` for bad input.
    """
    store, found, seconds = sweep_split(settings, "dev")
    best = best_setting(found)
    rows = ["k,temperature,knn_weight,f1"]
    for (k, temperature), curve in sorted(found.items(), key=order_of_choice):
        rows += [
            f"{k},{temperature:g},{weight:.2f},{f1:.4f}"
            for weight, f1 in zip(GRID_WEIGHTS, curve.f1_at(GRID_WEIGHTS), strict=True)
        ]
    base_f1 = float(next(iter(found.values())).f1_at(np.zeros(1))[0])
    results = {
        "best": best | {"similarity": settings.similarity},
        "base_f1": base_f1,
        "split": "dev",
        "settings_tried": len(rows) - 1,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    write_text(Path(settings.save_path) / "tuning.csv", "\n".join(rows) + "\n")
    write_json(Path(settings.save_path) / "tuning.json", results)
    if settings.plot:
        tuning = Path(settings.save_path) / "tuning"
        save(draw_tuning([read_tuning(tuning.with_suffix(".csv"))]), tuning)
    vote = KnnSettings(best["k"], best["temperature"], best["knn_weight"])
    try:
        save_tuned(store, vote, settings.similarity, best["f1"])
    except UserError as error:
        # A datastore that many share need not be anyone's to write to.
        say(f"{error}; the best settings are in {settings.save_path}/tuning.json alone")
    return results


def order_of_choice(item: tuple[tuple[int, float], WeightCurve]) -> tuple:
    """Fewer neighbours first, every stored token (-1) last; then the lower temperature."""
    k, temperature = item[0]
    return (k < 0, k, temperature)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    settings = parse_arguments(argv)
    results = tune(settings)
    best, seconds = results["best"], results["seconds"]
    print(
        f"dev F1 {results['base_f1']:.2f} (tagger alone) -> {best['f1']:.2f} with --k {best['k']} "
        f"--temperature {best['temperature']:g} --knn_weight {best['knn_weight']:.4g}"
    )
    print(
        f"{results['settings_tried']} settings in {seconds['sweep']:.2f} s, after encoding "
        f"{seconds['encode']:.2f} s and one search {seconds['search']:.2f} s; all in "
        f"{settings.save_path}/tuning.csv"
    )


if __name__ == "__main__":
    run_main(main)
