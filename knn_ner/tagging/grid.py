"""Every k, temperature and knn_weight on a split, from one retrieval."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from knn_ner.data.batching import sentence_chunks
from knn_ner.data.corpus import Corpus
from knn_ner.data.spans import SpanCounter
from knn_ner.datastore.reader import Datastore
from knn_ner.evaluation.weight_sweep import WeightCurve, WeightSweep
from knn_ner.search.ball_cover import covers_of
from knn_ner.search.exact import ExactSearch
from knn_ner.search.index_choice import searcher_for
from knn_ner.search.interpolation import LabelAlignment
from knn_ner.search.searcher import Searcher
from knn_ner.search.vote import vote_prefixes
from knn_ner.settings import GridSettings, IndexSettings, RunSettings, TaggerSettings, check_k
from knn_ner.tagging.split import Split, load_with_split
from knn_ner.tagging.tag import CHUNK_ROWS
from knn_ner.tagging.trained_tagger import TrainedTagger
from knn_ner.utils.device import choose_device
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_text

logger = logging.getLogger(__name__)

# Pieces whose votes, for every k, are held at once.
VOTE_ROWS = 4096
# The weights of `tuning.csv`; the best weight is found exactly.
GRID_WEIGHTS = np.linspace(0, 1, 101)


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
    base: Tensor
    similarities: Tensor
    labels: Tensor
    all_votes: dict[float, Tensor]
    counts: Tensor | None = None


def retrieve(
    tagger: TrainedTagger,
    split: Split,
    searcher: Searcher,
    grid: GridSettings,
    run: RunSettings,
    seconds: dict[str, float],
) -> Retrieved:
    """Encode a split and search it once, at the largest k of the grid.

    Args:
        tagger: the tagger.
        split: the split.
        searcher: search over the datastore.
        grid: the settings to try.
        run: how the encoder runs.
        seconds: `encode` and `search` are added to it.
    """
    finite = [k for k in grid.grid_k if k > 0]
    everything = -1 in grid.grid_k
    base_labels = np.zeros(len(split.gold), dtype=np.int64)
    alignment = LabelAlignment(tagger.labels, searcher.store.labels)
    device = choose_device(run.device)
    parts: list[tuple[Any, ...]] = []
    first = 0
    with tqdm(total=len(split.gold), unit="piece", unit_scale=True, desc="tune") as progress:
        for chunk in sentence_chunks(split.encoded, CHUNK_ROWS):
            start = time.perf_counter()
            batches: list[tuple[np.ndarray, Tensor, Tensor]] = []
            for batch in tagger.hidden_states(chunk, run, searcher.store.recipe, progress=progress):
                rows = first + batch.rows.numpy()
                base = alignment.base(batch.logits.softmax(-1))
                base_labels[rows] = base.argmax(-1).cpu().numpy()
                kept = split.scored[rows]
                chosen = torch.from_numpy(kept).to(device)
                batches.append((rows[kept], base[chosen], batch.keys(chosen)))
            first += sum(map(len, chunk))
            searching = time.perf_counter()
            seconds["encode"] += searching - start
            all_rows, bases, states = zip(*batches, strict=True)
            rows = np.concatenate(all_rows)
            order = np.argsort(rows)
            rows, base, hidden = rows[order], torch.cat(bases)[order], torch.cat(states)[order]
            parts.append(
                neighbours(
                    *(searcher, alignment, rows, base, hidden, finite, everything),
                    *(len(split.gold), grid),
                )
            )
            seconds["search"] += time.perf_counter() - searching
    found, *columns = zip(*parts, strict=True)
    bases, similarities, labels, counts = (torch.cat(columns[place]) for place in (0, 1, 2, 4))
    votes = torch.cat(columns[3], dim=1)
    return Retrieved(
        base_labels,
        np.concatenate(found),
        bases,
        similarities,
        labels,
        dict(zip(grid.grid_temperature, votes, strict=True)) if everything else {},
        None if searcher.store.weights is None else counts,
    )


def neighbours(
    searcher: Searcher,
    alignment: LabelAlignment,
    rows: np.ndarray,
    base: Tensor,
    hidden: Tensor,
    finite: list[int],
    everything: bool,
    expected: int,
    grid: GridSettings,
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
        similarities = found.similarities
        weights = searcher.neighbour_weights(found.indices)
        counts = similarities if weights is None else weights
        if not everything:
            matters = (labels != base.argmax(-1, keepdim=True)).any(1).cpu()
    votes = (
        alignment.votes(searcher.vote_all(hidden, grid.grid_temperature))
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
    base: Tensor,
    hidden: Tensor,
    k: int,
    expected: int,
) -> Tensor:
    """Which rows' k nearest entries are known to have the tagger's label without a search: (M,) bool.

    expected: how many rows will be asked for, in all.
    """
    known = torch.zeros(len(base), dtype=torch.bool)
    if isinstance(searcher, ExactSearch) and searcher.device.type == "cpu":
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
            np.array([split.labels.index(tag) for tags in split.word_tags for tag in tags]),
            np.repeat(np.arange(len(split.sentences)), split.decoder.counts),
            len(split.sentences),
        ),
    )


def curves(
    retrieved: Retrieved,
    sweep: WeightSweep,
    grid_k: Sequence[int],
    grid_temperature: Sequence[float],
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
        # No rows are left where every vote is the tagger's own label.
        votes = {k: [np.zeros((0, base.shape[1]), dtype=np.float32)] for k in finite}
        for start in range(0, len(ours) if finite else 0, VOTE_ROWS):
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
        by_k = {k: np.concatenate(parts) for k, parts in votes.items()}
        if temperature in retrieved.all_votes:
            by_k[-1] = retrieved.all_votes[temperature].cpu().numpy()
        for k, vote in by_k.items():
            differs = vote.argmax(-1) != ours
            found[k, temperature] = sweep.curve(
                retrieved.rows[differs], base[differs], vote[differs].astype(np.float64)
            )
    return found


def sweep_split(
    where: TaggerSettings,
    search: IndexSettings,
    grid: GridSettings,
    run: RunSettings,
    corpus: Corpus,
    name: str,
    units: str = "auto",
) -> tuple[Datastore, dict[tuple[int, float], WeightCurve], dict[str, float]]:
    """Try every setting of a grid on a split.

    Args:
        where: the tagger and its datastore.
        search: how the datastore is searched.
        grid: the settings to try.
        run: how the encoder runs.
        corpus: holds the split.
        name: the split's name.
        units: `words`, `characters`, or `auto` for those of the datastore.

    Returns:
        The datastore, the F1 curves by (k, temperature), and the seconds taken.

    Raises:
        UserError: for bad input.
    """
    for k in grid.grid_k:
        check_k(k)
    tagger, store, split = load_with_split(where, run, corpus, name, units)
    searcher = searcher_for(store, search, choose_device(run.device), max(grid.grid_k))
    # Settings chosen on test, for comparison, are chosen on all sentences that are scored.
    if name == "dev":
        split = look_for_stored(split, store, grid.unseen)
    seconds = {"encode": 0.0, "search": 0.0}
    retrieved = retrieve(tagger, split, searcher, grid, run, seconds)

    start = time.perf_counter()
    sweep = weight_sweep(split, retrieved.base_labels)
    found = curves(retrieved, sweep, grid.grid_k, grid.grid_temperature)
    seconds["sweep"] = time.perf_counter() - start
    return store, found, seconds


def best_setting(found: Mapping[tuple[int, float], WeightCurve]) -> dict[str, Any]:
    """The k, temperature and knn_weight with the highest F1, and that F1.

    Of equal scores the first: fewer neighbours, then the lower temperature.
    """
    best: dict[str, Any] = {}
    for (k, temperature), curve in sorted(found.items(), key=order_of_choice):
        weight, f1 = curve.best()
        # A short number that can be typed, where it scores the same.
        short = round(weight, 4)
        weight = short if curve.f1_at(np.array([short]))[0] == f1 else weight
        if not best or f1 > best["f1"]:
            best = {"k": k, "temperature": temperature, "knn_weight": weight, "f1": f1}
    return best


def order_of_choice(item: tuple[tuple[int, float], WeightCurve]) -> tuple[bool, int, float]:
    """Sort key of settings: fewer neighbours first, every stored token (-1) last; then low temperatures."""
    k, temperature = item[0]
    return (k < 0, k, temperature)


def write_sweep(path: Path, found: Mapping[tuple[int, float], WeightCurve]) -> int:
    """Write the F1 of every setting as CSV; returns their number."""
    rows = ["k,temperature,knn_weight,f1"]
    for (k, temperature), curve in sorted(found.items(), key=order_of_choice):
        rows += [
            f"{k},{temperature:g},{weight:.2f},{f1:.4f}"
            for weight, f1 in zip(GRID_WEIGHTS, curve.f1_at(GRID_WEIGHTS), strict=True)
        ]
    write_text(path, "\n".join(rows) + "\n")
    return len(rows) - 1


def look_for_stored(split: Split, store: Datastore, unseen: bool) -> Split:
    """The dev split, without the sentences that the datastore holds word for word if `unseen`; else told of.

    Raises `UserError` when none is left.
    """
    known = {tuple(sentence["words"]) for sentence in store.sentences()}
    stored = np.array([tuple(sentence.words) in known for sentence in split.sentences], dtype=bool)
    count = f"dev: {stored.sum()} of {len(stored)} sentences are in the datastore word for word"
    if not stored.any():
        return split
    if not unseen:
        logger.warning(f"{count}, and favour settings that copy from it; --unseen leaves them out")
        return split
    if stored.all():
        raise UserError(
            f"{count}, and --unseen leaves them out; tune on other sentences, or without --unseen"
        )
    logger.info(f"{count}, and left out")
    kept = np.flatnonzero(~stored).tolist()
    return Split(
        [split.sentences[place] for place in kept],
        [split.encoded[place] for place in kept],
        split.labels,
        split.scheme,
    )
