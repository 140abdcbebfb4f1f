"""Compare several experiments: tables, and plots of the gain by corpus and of the share of searched tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from knn_ner.evaluation.plots import draw_gains, draw_search_share, save
from knn_ner.evaluation.prediction_files import SCORES
from knn_ner.evaluation.significance import f1_of, gain_replicates, gains, interval_of, p_value
from knn_ner.experiment.report import render
from knn_ner.experiment.summary import stack_counts
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json, write_text


def compare(folders: Sequence[Path], against: Sequence[Path], save_path: Path) -> str:
    """Write the tables and plots of several experiments.

    Args:
        folders: the folders of the experiments.
        against: empty, or for each experiment another one whose kNN its kNN is compared with.
        save_path: the folder to write to.

    Returns:
        The tables as Markdown.

    Raises:
        UserError: if a folder holds no experiment, or a pair has no common seed or test set.
    """
    experiments = [_read_experiment(folder) for folder in folders]
    counts = [
        _word_counts(folder, results["seeds"])
        for folder, results in zip(folders, experiments, strict=True)
    ]
    mean = _mean_gain(experiments, counts)
    markdown = render("compared", experiments=experiments, mean=mean)
    if against:
        markdown += "\n" + _compare_systems(folders, experiments, against)
    save(draw_gains(experiments), save_path / "gains")
    save(draw_search_share(experiments), save_path / "searched")
    write_text(save_path / "compare.md", markdown)
    return markdown


def _compare_systems(
    folders: Sequence[Path], experiments: Sequence[dict[str, Any]], against: Sequence[Path]
) -> str:
    """A table of the kNN of experiments against that of others, over the common seeds of each pair."""
    if len(against) != len(folders):
        raise UserError(
            f"--against: {len(against)} folders found, expected {len(folders)}, one for each experiment"
        )
    lines, pairs = [], []
    for folder, results, other in zip(folders, experiments, against, strict=True):
        theirs = _read_experiment(other)
        seeds = [seed for seed in results["seeds"] if seed in theirs["seeds"]]
        if not seeds:
            raise UserError(f"{other}: no seed in common with {folder}")
        here, there = (_word_counts(each, seeds)[1] for each in (folder, other))
        if here.shape != there.shape or (here[..., 2] != there[..., 2]).any():
            raise UserError(f"{other}: tagged other test sentences than {folder}")
        pairs.append((there, here))
        f1_there, f1_here = (float(f1_of(each.sum(axis=1)).mean()) for each in (there, here))
        lines.append(
            {
                "name": results["name"],
                "other": theirs["name"],
                "seeds": len(seeds),
                "there": f1_there,
                "here": f1_here,
                "gain": f1_here - f1_there,
                "interval": interval_of(gain_replicates(there, here)),
                "p": p_value(there, here),
            }
        )
    return render("against", pairs=lines, mean=_mean_gain(experiments, pairs))


def _read_experiment(folder: Path) -> dict[str, Any]:
    path = folder / "experiment.json"
    results = read_json(path)
    expected = {"corpus", "name", "seeds", "comparisons", "oracle", "per_seed"}
    if not isinstance(results, dict) or not expected <= set(results):
        raise UserError(f"{path}: expected a file of knn_ner.experiment, found another one")
    return results


def _word_counts(folder: Path, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The counts (seeds, sentences, 3) of the word-level score on test, of tagger and kNN."""
    counts = stack_counts([folder / f"seed-{seed}" for seed in seeds])
    place = SCORES.index("f1")
    return counts["base"][:, :, place], counts["knn"][:, :, place]


def _mean_gain(
    experiments: Sequence[dict[str, Any]], pairs: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[str, Any] | None:
    """The mean gain over corpora and its interval; None unless several experiments are on different corpora."""
    corpora = {results["corpus"] for results in experiments}
    if len(pairs) < 2 or len(corpora) < len(pairs):
        return None
    replicates = [gain_replicates(*pair, seed=place) for place, pair in enumerate(pairs)]
    gain = float(np.mean([gains(*pair).mean() for pair in pairs]))
    return {"gain": gain, "interval": interval_of(np.mean(replicates, axis=0))}
