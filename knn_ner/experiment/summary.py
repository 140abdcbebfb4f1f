"""The results of an experiment over its seeds: means, standard deviations, intervals and p-values."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from knn_ner.data.corpus import read_corpus
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


def summarise(settings: SeedSettings, seeds: Sequence[int], command: str) -> dict[str, Any]:
    """Summarise the finished seeds of an experiment.

    Args:
        settings: the settings of the experiment.
        seeds: its seeds.
        command: the command line that the results name.

    Returns:
        The content of `experiment.json`.

    Raises:
        UserError: if a result file is missing.
    """
    folders = [Path(settings.save_path) / f"seed-{seed}" for seed in seeds]
    per_seed = [
        {"seed": seed} | _read_seed(folder) for seed, folder in zip(seeds, folders, strict=True)
    ]
    counts = stack_counts(folders)
    corpus_name = Path(settings.data_dir).resolve().name
    keys = (settings.key_layer, settings.key_transform, settings.similarity)
    published = ("last", "none", "cosine")
    changed = [here for here, there in zip(keys, published, strict=True) if here != there]
    store = Datastore.open(folders[0] / "datastore")
    stored = [(sentence["words"], sentence["tags"]) for sentence in store.sentences()]
    corpus = read_corpus(
        settings.data_dir, settings.file_name, splits=("test",), comments=settings.comments
    )
    test = [(sentence.words, sentence.tags) for sentence in corpus.splits["test"]]
    leakage = find_leakage(test, stored)
    breakdown = break_down(
        [read_predictions(folder / "test" / "predictions.txt") for folder in folders],
        [read_votes(folder / "test" / VOTES_FILE) for folder in folders],
        Forms(stored),
    )
    oracle = [seed["oracle"]["f1"] for seed in per_seed]
    base = [seed["test"]["base"]["f1"] for seed in per_seed]
    return {
        "command": command,
        "corpus": corpus_name,
        "name": ", ".join([corpus_name, *changed]),
        "seeds": list(seeds),
        "leakage": leakage.counts() | {"similarity": SIMILARITY},
        "comparisons": compare(counts, without_leakage(leakage)),
        "oracle": {
            "note": "settings chosen on the test split: not a fair number",
            "f1": spread(oracle),
            "gain": spread([best - alone for best, alone in zip(oracle, base, strict=True)]),
        },
        "breakdown": breakdown,
        "method": {"interval": LEVEL, "resamples": RESAMPLES},
        "per_seed": per_seed,
    }


def _read_seed(folder: Path) -> dict[str, Any]:
    dev, test = (read_json(folder / split / "knn_results.json") for split in ("dev", "test"))
    manifest = Manifest.read(folder / "datastore")
    tuned = ("k", "temperature", "knn_weight", "similarity")
    scores = ("precision", "recall", *SCORES)
    try:
        best = read_json(folder / "tuning.json")["best"]
        return {
            "tuned": {name: best[name] for name in tuned},
            "dev": {system: {name: dev[system][name] for name in scores} for system in SYSTEMS},
            "test": {system: {name: test[system][name] for name in scores} for system in SYSTEMS},
            "oracle": read_json(folder / "oracle.json")["best"],
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
    except KeyError as missing:
        raise UserError(
            f"{folder}: a result without {missing} found, written by another version; remove "
            f"{folder}/steps.json and run the command again"
        ) from None


def stack_counts(folders: Sequence[Path]) -> dict[str, np.ndarray]:
    """Read the counts of several seeds on the test split.

    Args:
        folders: the folders of the seeds.

    Returns:
        For each system the counts (seeds, sentences, scores, 3): right, predicted and gold entities.

    Raises:
        UserError: if the seeds tagged different sentences.
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


def without_leakage(leakage: Leakage) -> dict[str, np.ndarray]:
    """Subsets of the test sentences: all, without those that the datastore holds, and also without similar ones.

    Args:
        leakage: the test sentences that the datastore holds.

    Returns:
        For each subset that differs from the one before a mask (sentences,) of bool.
    """
    subsets = {"all": np.ones(len(leakage.exact), dtype=bool)}
    if leakage.exact.any():
        subsets["not_stored"] = ~leakage.exact
    if leakage.near.any():
        subsets["not_similar"] = ~leakage.exact & ~leakage.near
    return subsets


def compare(
    counts: Mapping[str, np.ndarray], subsets: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Compare tagger and kNN by each score, on subsets of the test sentences.

    Args:
        counts: as `stack_counts` returns them.
        subsets: for each name a mask (sentences,) of bool.

    Returns:
        A line for each subset and score: the `spread` of tagger, kNN and gain, the gain's interval and p-value (see
        `evaluation.significance`), and the number of seeds with a gain. The line of an empty subset lacks these.
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
            if kept.any():
                gain = gains(base, knn)
                line |= {
                    "base": spread(f1_of(base.sum(axis=1)).tolist()),
                    "knn": spread(f1_of(knn.sum(axis=1)).tolist()),
                    "gain": spread(gain.tolist()),
                    "interval": list(gain_interval(base, knn)),
                    "p": p_value(base, knn),
                    "seeds_with_gain": int((gain > 0).sum()),
                }
            lines.append(line)
    return lines


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The mean, the standard deviation of a sample (None for a single value), and the values themselves."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": deviation, "values": list(values)}
