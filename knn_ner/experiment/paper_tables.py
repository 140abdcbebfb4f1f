"""The paper's tables with the results of own runs beside the published ones.

The paper scores word pieces, so its numbers compare with `piece_precision`, `piece_recall` and `piece_f1`. The
word-level F1, which compares with the rest of the literature, has its own column.
"""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from knn_ner.experiment.paper import PublishedExperiment, Score, published_experiments
from knn_ner.experiment.report import render, with_spread
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json
from knn_ner.utils.tables import csv_table

RESULT_FILE = "knn_results.json"
SYSTEMS = ("base", "knn")
TITLES = {
    "ontonotes4_zh": "Chinese OntoNotes 4.0",
    "msra_zh": "Chinese MSRA",
    "weibo_zh": "Chinese Weibo",
    "conll03_en": "English CoNLL-2003",
    "ontonotes5_en": "English OntoNotes 5.0",
    "resume_zh": "Chinese Resume (not in the paper)",
}
MEASURED = ("precision", "recall", "f1", "gain", "word_f1")
# The field of a measured score in result files.
FIELDS = {
    "precision": "piece_precision",
    "recall": "piece_recall",
    "f1": "piece_f1",
    "word_f1": "f1",
}


@dataclass(frozen=True)
class Result:
    """The content of a result file.

    Attributes:
        path: the file.
        experiment: the published experiment that it belongs to.
        seed: the random seed.
        settings: the source of k, temperature and knn_weight: `published`, `tuned` or the values themselves; then
            the encoder, learning rate, epochs and corpus that differ from the published ones.
        scores: for each of `SYSTEMS` the quantities of `MEASURED`; `base` has no gain.
    """

    path: Path
    experiment: PublishedExperiment
    seed: int
    settings: str
    scores: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Line:
    """A line of a table: a published experiment and a system, with the measured results.

    Attributes:
        experiment: the published experiment.
        system: one of `SYSTEMS`.
        model: the name of the encoder, with `+kNN` for kNN.
        published: the published score, if there is one.
        gain: the published gain of kNN in F1, if there is one; None for the tagger.
        settings: see `Result`.
        seeds: the number of seeds.
        measured: for each name of `MEASURED` one value per seed; empty if there is no result.
    """

    experiment: PublishedExperiment
    system: str
    model: str
    published: Score | None
    gain: float | None
    settings: str
    seeds: int
    measured: dict[str, list[float]]


def collect_results(runs: str | Path) -> tuple[list[Result], list[str]]:
    """Collect the results below a folder: one for each experiment, seed and settings.

    A result belongs to the experiment whose script folder is in its path (`bert/weibo_bert_base_zh`), and
    to the seed of a folder `seed_N` below that. Of two such results the newer one counts.

    Args:
        runs: the folder.

    Returns:
        The results, and a note on each file that was left out.

    Raises:
        UserError: if the folder is missing.
    """
    runs = Path(runs)
    if not runs.is_dir():
        raise UserError(
            f"{runs}: no such folder; --runs names the folder that the scripts write to"
        )
    known = published_experiments()
    kept: dict[tuple[str, int, str], Result] = {}
    notes = []
    # Newer files come later, and replace older ones.
    for path in sorted(runs.rglob(RESULT_FILE), key=lambda path: (path.stat().st_mtime_ns, path)):
        try:
            result = _read_result(path, known)
        except UserError as error:
            notes.append(f"left out: {error}")
            continue
        place = result.experiment.script_dir, result.seed, result.settings
        if place in kept:
            notes.append(
                f"left out: {kept[place].path}: {path} is newer and has the same experiment, seed "
                f"({result.seed}) and settings ({result.settings})"
            )
        kept[place] = result
    return list(kept.values()), notes


def _read_result(path: Path, known: Sequence[PublishedExperiment]) -> Result:
    folder = f"{path.absolute().parent.as_posix()}/"
    start, experiment = max(
        ((folder.rfind(f"/{each.script_dir}/"), each) for each in known), key=itemgetter(0)
    )
    if start < 0:
        raise UserError(f"{path}: no script folder of a known experiment in its path")
    data = read_json(path)
    try:
        if data["split"] != "test":
            raise UserError(f"{path}: scores of the split {data['split']} found, expected test")
        scores = {
            system: {name: float(data[system][field]) for name, field in FIELDS.items()}
            for system in SYSTEMS
        }
        scores["knn"]["gain"] = scores["knn"]["f1"] - scores["base"]["f1"]
        # The seed of a folder is that of the training; the one in the file is that of inference.
        in_path = re.findall(r"/seed_([0-9]+)(?=/)", folder[start:])
        seed = int(in_path[-1] if in_path else data.get("seed", 0))
        settings = "; ".join([_settings(data, experiment), *_differences(path, experiment)])
        return Result(path, experiment, seed, settings, scores)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected a file of knn_ner.infer, found another one ({error!r})"
        ) from None


def _differences(path: Path, experiment: PublishedExperiment) -> list[str]:
    for folder in list(path.parents)[:2]:
        trained = folder / "train_results.json"
        if experiment.training and trained.is_file():
            return experiment.training.differences(read_json(trained).get("settings", {}))
    return []


def _settings(data: dict[str, Any], experiment: PublishedExperiment) -> str:
    source = data.get("settings_source", "given")
    # The published scripts of Resume try many settings on the test set and choose none.
    swept = "; no published choice exists" if experiment.training and not experiment.vote else ""
    if source != "given":
        return f"{source}{swept}"
    vote = int(data["k"]), float(data["temperature"]), float(data["knn_weight"])
    similarity = data.get("similarity", "cosine")
    if vote == experiment.vote and similarity == "cosine":
        return "published"
    return f"k={vote[0]} T={vote[1]:g} w={vote[2]:g} {similarity}{swept}"


def make_lines(results: Sequence[Result]) -> list[Line]:
    """Two lines, tagger and kNN, for each published experiment and the settings of its results.

    Args:
        results: as `collect_results` returns them.
    """
    lines = []
    for experiment in published_experiments():
        found = [result for result in results if result.experiment == experiment]
        for settings in sorted({result.settings for result in found}) or ["-"]:
            runs = [result for result in found if result.settings == settings]
            runs.sort(key=lambda result: result.seed)
            for system, model, published, gain in (
                ("base", experiment.backbone, experiment.base, None),
                ("knn", f"{experiment.backbone}+kNN", experiment.knn, experiment.gain),
            ):
                scores = [run.scores[system] for run in runs]
                own = {name: [each[name] for each in scores if name in each] for name in MEASURED}
                line = Line(experiment, system, model, published, gain, settings, len(runs), own)
                lines.append(line)
    return lines


def to_markdown(lines: Sequence[Line]) -> str:
    """The tables of all datasets as Markdown, with footnotes.

    Args:
        lines: as `make_lines` returns them.
    """
    return render("paper", titles=TITLES, lines=lines, mean=_mean_and_deviation)


def _mean_and_deviation(values: Sequence[float], sign: str = "") -> str:
    if not values:
        return "-"
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return with_spread({"mean": statistics.fmean(values), "std": deviation}, sign)


def to_csv(lines: Sequence[Line]) -> str:
    """All tables as one CSV file; cells without a published or measured value are empty.

    Args:
        lines: as `make_lines` returns them.
    """
    rows = []
    for line in lines:
        score = line.published
        row = {
            "dataset": line.experiment.dataset,
            "backbone": line.experiment.backbone,
            "system": line.system,
            "script_dir": line.experiment.script_dir,
            "settings": line.settings if line.seeds else "",
            "seeds": str(line.seeds or ""),
            "published_precision": f"{score.precision:.2f}" if score else "",
            "published_recall": f"{score.recall:.2f}" if score else "",
            "published_f1": f"{score.f1:.2f}" if score else "",
            "published_gain": "" if line.gain is None else f"{line.gain:.2f}",
            "published_harmonic_mean": f"{score.harmonic_mean:.2f}" if score else "",
            "published_f1_marked": "yes" if score and not score.is_consistent else "",
        }
        for name, values in line.measured.items():
            row[f"{name}_mean"] = f"{statistics.fmean(values):.4f}" if values else ""
            row[f"{name}_std"] = f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""
        rows.append(row)
    return csv_table(rows, list(rows[0]))
