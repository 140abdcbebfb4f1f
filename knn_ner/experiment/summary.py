"""What the seeds of an experiment measured, gathered: means, spread, intervals, p-values."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from knn_ner.data.corpus import Sentence, read_corpus
from knn_ner.datastore.manifest import Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.evaluation.breakdown import Forms, break_down
from knn_ner.evaluation.leakage import SIMILARITY, Leakage, find_leakage
from knn_ner.evaluation.prediction_files import (
    COUNTS_FILE,
    SCORES,
    SYSTEMS,
    VOTES_FILE,
    read_counts,
    read_predictions,
    read_votes,
)
from knn_ner.evaluation.significance import LEVEL, RESAMPLES, f1_of, gain_interval, gains, p_value
from knn_ner.settings import SeedSettings
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json

# All test sentences; without those that the datastore holds; without these and nearly the same ones.
ALL, NOT_STORED, NOT_SIMILAR = "all", "not_stored", "not_similar"


def read_seed(folder: Path, datastore: Path) -> dict[str, Any]:
    """What one seed measured, for `experiment.json`.

    Raises `UserError` when a file of it is missing, or of another version.
    """
    try:
        return _read_seed(folder, datastore)
    except KeyError as missing:
        raise UserError(
            f"{folder}: a result without {missing} found, written by another version; remove "
            f"{folder}/steps.json and run again"
        ) from None


def _read_seed(folder: Path, datastore: Path) -> dict[str, Any]:
    dev, test = (read_json(folder / split / "knn_results.json") for split in ("dev", "test"))
    best = read_json(folder / "tuning.json")["best"]
    oracle = read_json(folder / "oracle.json")["best"]
    manifest = Manifest.read(datastore)
    return {
        "tuned": {name: best[name] for name in ("k", "temperature", "knn_weight", "similarity")},
        "dev": {system: _scores(dev[system]) for system in SYSTEMS},
        "test": {system: _scores(test[system]) for system in SYSTEMS},
        "oracle": oracle,
        "tokens": test["tokens"],
        "searched_tokens": test["searched_tokens"],
        "changed_tokens": test["changed_tokens"],
        "searched_share": test["searched_share"],
        "seconds": test["seconds"],
        "datastore": {
            "entries": manifest.entries,
            "dim": manifest.dim,
            "bytes": manifest.bytes,
            "made_with": manifest.provenance,
        },
    }


def _scores(measured: Mapping[str, Any]) -> dict[str, float]:
    return {name: measured[name] for name in ("precision", "recall", *SCORES)}


def stack_counts(folders: Sequence[Path]) -> dict[str, np.ndarray]:
    """The counts of all seeds on the test split: system to (seeds, sentences, scores, 3).

    Raises `UserError` when they are not of the same sentences.
    """
    counts = [read_counts(folder / "test" / COUNTS_FILE) for folder in folders]
    gold = [base[..., 2] for base, _ in counts]
    for folder, other in zip(folders, gold, strict=True):
        if other.shape != gold[0].shape or (other != gold[0]).any():
            raise UserError(
                f"{folder}: tagged other test sentences than {folders[0]}; run both on one corpus"
            )
    return {
        system: np.stack([pair[place] for pair in counts]) for place, system in enumerate(SYSTEMS)
    }


def compare(
    counts: Mapping[str, np.ndarray], subsets: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Tagger and kNN by each score, on all test sentences and on parts of them.

    counts: as `stack_counts` gives them. subsets: name to (sentences,) bool.

    Returns a line for each subset and score: means over seeds, standard deviations of a sample (None for one
    seed), the mean gain, its interval and p-value (see `evaluation.significance`), seeds with a gain.
    """
    lines = []
    for subset, kept in subsets.items():
        for place, score in enumerate(SCORES):
            base, knn = (counts[system][:, kept, place] for system in SYSTEMS)
            line: dict[str, Any] = {
                "subset": subset,
                "score": score,
                "sentences": int(kept.sum()),
                "entities": int(base[0, :, 2].sum()),
            }
            if not kept.any():
                lines.append(line)
                continue
            gain = gains(base, knn)
            for system, each in zip(SYSTEMS, (base, knn), strict=True):
                line[system] = spread(f1_of(each.sum(axis=1)).tolist())
            line["gain"] = spread(gain.tolist())
            line["interval"] = list(gain_interval(base, knn))
            line["p"] = p_value(base, knn)
            line["seeds_with_gain"] = int((gain > 0).sum())
            lines.append(line)
    return lines


def without_leakage(leakage: Leakage) -> dict[str, np.ndarray]:
    """The parts of the test set to score: name to (sentences,) bool; none twice."""
    parts = {ALL: np.ones(len(leakage.exact), dtype=bool)}
    if leakage.exact.any():
        parts[NOT_STORED] = ~leakage.exact
    if leakage.near.any():
        parts[NOT_SIMILAR] = ~leakage.exact & ~leakage.near
    return parts


def leakage_of(store: Datastore, test: Sequence[Sentence]) -> Leakage:
    """Which test sentences the datastore holds."""
    return find_leakage(
        [(sentence.words, sentence.tags) for sentence in test],
        ((sentence["words"], sentence["tags"]) for sentence in store.sentences()),
    )


def breakdown_of(store: Datastore, folders: Sequence[Path]) -> dict[str, Any]:
    """Where the gain of all seeds comes from. Raises `UserError` when a file of a seed is missing."""
    stored = ((sentence["words"], sentence["tags"]) for sentence in store.sentences())
    return break_down(
        [read_predictions(folder / "test" / "predictions.txt") for folder in folders],
        [read_votes(folder / "test" / VOTES_FILE) for folder in folders],
        Forms(stored),
    )


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation of a sample (None for a single value), and the values."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": deviation, "values": list(values)}


def unlike_published(settings: SeedSettings) -> list[str]:
    """What keys and similarity have that the published rule has not: cosine of last hidden states."""
    given = (settings.key_layer, settings.key_transform, settings.similarity)
    return [value for value, usual in zip(given, ("last", "none", "cosine"), strict=True)
            if value != usual]  # fmt: skip


def summarise(settings: SeedSettings, seeds: Sequence[int], command: str) -> dict[str, Any]:
    """What `experiment.json` holds, of the flags of `knn_ner.experiment`.

    Raises `UserError` when a file of a seed is missing.
    """
    folders = [Path(settings.save_path) / f"seed-{seed}" for seed in seeds]
    per_seed = [
        {"seed": seed, **read_seed(folder, folder / "datastore")}
        for seed, folder in zip(seeds, folders, strict=True)
    ]
    counts = stack_counts(folders)
    corpus_name = Path(settings.data_dir).resolve().name
    store = Datastore.open(folders[0] / "datastore")
    corpus = read_corpus(settings.data_dir, settings.file_name, splits=("test",))
    leakage = leakage_of(store, corpus.splits["test"])
    oracle = [seed["oracle"]["f1"] for seed in per_seed]
    base = [seed["test"]["base"]["f1"] for seed in per_seed]
    return {
        "command": command,
        "corpus": corpus_name,
        "name": ", ".join([corpus_name, *unlike_published(settings)]),
        "seeds": list(seeds),
        "leakage": leakage.counts() | {"similarity": SIMILARITY},
        "comparisons": compare(counts, without_leakage(leakage)),
        "oracle": {
            "note": "settings chosen on the test split: not a fair number",
            "f1": spread(oracle),
            "gain": spread([best - alone for best, alone in zip(oracle, base, strict=True)]),
        },
        "breakdown": breakdown_of(store, folders),
        "method": {"interval": LEVEL, "resamples": RESAMPLES},
        "per_seed": per_seed,
    }
