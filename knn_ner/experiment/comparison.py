"""Several experiments side by side: tables, and plots of gain by corpus and of tokens searched."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from knn_ner.evaluation.plots import draw_gains, draw_search_share, save
from knn_ner.evaluation.prediction_files import SCORES
from knn_ner.evaluation.significance import f1_of, gain_replicates, gains, interval_of, p_value
from knn_ner.experiment.report import against_table, compared_table
from knn_ner.experiment.summary import stack_counts
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json, write_text


def read_experiment(folder: Path) -> dict[str, Any]:
    """What `experiment.json` in a folder holds.

    Raises `UserError` when there is none, or it is another file.
    """
    path = folder / "experiment.json"
    results = read_json(path)
    expected = {"corpus", "name", "seeds", "comparisons", "oracle", "per_seed"}
    if not isinstance(results, dict) or not expected <= set(results):
        raise UserError(f"{path}: expected a file of knn_ner.experiment, found another one")
    return results


def word_counts(folder: Path, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Counts of the word-level score, of tagger and kNN: (seeds, sentences, 3) each.

    Raises `UserError` as `stack_counts` does.
    """
    counts = stack_counts([folder / f"seed-{seed}" for seed in seeds])
    return tuple(counts[system][:, :, SCORES.index("f1")] for system in ("base", "knn"))


def mean_gain(
    experiments: Sequence[dict[str, Any]], pairs: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[str, Any] | None:
    """The mean over corpora of a gain, and its interval; None for one corpus, or one that is there twice."""
    corpora = {results["corpus"] for results in experiments}
    if len(pairs) < 2 or len(corpora) < len(pairs):
        return None
    replicates = [gain_replicates(*pair, seed=place) for place, pair in enumerate(pairs)]
    gain = float(np.mean([gains(*pair).mean() for pair in pairs]))
    return {"gain": gain, "interval": interval_of(np.mean(replicates, axis=0))}


def compare(folders: Sequence[Path], against: Sequence[Path], save_path: Path) -> str:
    """Write tables and plots; returns the tables.

    Raises `UserError` for folders that hold no experiment, or pairs that have nothing in common.
    """
    experiments = [read_experiment(folder) for folder in folders]
    counts = [
        word_counts(folder, results["seeds"])
        for folder, results in zip(folders, experiments, strict=True)
    ]
    markdown = compared_table(experiments, mean_gain(experiments, counts))
    if against:
        markdown += "\n" + compare_systems(folders, experiments, against)
    save(draw_gains(experiments), save_path / "gains")
    save(draw_search_share(experiments), save_path / "searched")
    write_text(save_path / "compare.md", markdown)
    return markdown


def compare_systems(
    folders: Sequence[Path], experiments: Sequence[dict[str, Any]], against: Sequence[Path]
) -> str:
    """kNN against kNN, over the seeds that both experiments of a pair have, as a table."""
    if len(against) != len(folders):
        raise UserError(
            f"--against: {len(against)} folders found, expected {len(folders)}, one for each experiment"
        )
    lines, pairs = [], []
    for folder, results, other in zip(folders, experiments, against, strict=True):
        theirs = read_experiment(other)
        seeds = [seed for seed in results["seeds"] if seed in theirs["seeds"]]
        if not seeds:
            raise UserError(f"{other}: no seed in common with {folder}")
        here, there = (word_counts(each, seeds)[1] for each in (folder, other))
        if here.shape != there.shape or (here[..., 2] != there[..., 2]).any():
            raise UserError(f"{other}: tagged other test sentences than {folder}")
        pairs.append((there, here))
        f1 = [float(f1_of(each.sum(axis=1)).mean()) for each in (there, here)]
        replicates = gain_replicates(there, here)
        lines.append(
            {"name": results["name"], "other": theirs["name"], "seeds": len(seeds)}
            | {"there": f1[0], "here": f1[1]}
            | {"gain": f1[1] - f1[0], "interval": interval_of(replicates)}
            | {"p": p_value(there, here)}
        )
    return against_table(lines, mean_gain(experiments, pairs))
