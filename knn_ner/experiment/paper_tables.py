"""The paper's tables, with the results of one's own runs beside the published ones.

The paper scores word pieces, so its numbers stand beside `piece_precision`, `piece_recall` and `piece_f1`;
the word-level F1, which compares with the rest of the literature, has a column of its own.
"""

import csv
import io
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knn_ner.experiment.paper import Experiment, Score, experiments
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json

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
COLUMNS = (
    "Model", "P", "R", "F1", "gain", "own P", "own R", "own F1", "own gain", "word F1", "seeds",
    "settings",
)  # fmt: skip
# Measured quantities, in the order of the columns.
MEASURED = ("precision", "recall", "f1", "gain", "word_f1")
OPEN, MARK = "-", "†"
EXPLANATION = (
    "P, R, F1 and gain: published. Own: word pieces, the published protocol; word F1: entities over "
    "words. All in percent; mean ± standard deviation (of a sample) over seeds."
)


@dataclass(frozen=True)
class Result:
    """One result file: what it belongs to, and its scores by system."""

    path: Path
    experiment: Experiment
    seed: int
    settings: str
    scores: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Line:
    """A line of a table: an experiment and a system, published and measured.

    measured: for each name of `MEASURED` one value per seed; empty for an experiment not run.
    """

    experiment: Experiment
    system: str
    settings: str
    seeds: int
    measured: dict[str, list[float]]

    @property
    def published(self) -> Score | None:
        """The paper's score."""
        return self.experiment.base if self.system == "base" else self.experiment.knn

    @property
    def published_gain(self) -> float | None:
        """The paper's gain of kNN in F1; None for the tagger alone."""
        return self.experiment.gain if self.system == "knn" else None


def collect_results(runs: str | Path) -> tuple[list[Result], list[str]]:
    """The results below a folder, one for each experiment, seed and settings; and what was left out.

    A result belongs to the experiment whose script folder is in its path (`bert/weibo_bert_base_zh`), and
    to the seed of a folder `seed_N` below that. Of two for the same place the newer one counts.

    Raises `UserError` when there is no such folder.
    """
    runs = Path(runs)
    if not runs.is_dir():
        raise UserError(
            f"{runs}: no such folder; --runs names the folder that the scripts write to"
        )
    known = experiments()
    kept: dict[tuple[str, int, str], Result] = {}
    notes = []
    # The oldest first, so that the newest is what stays.
    for path in sorted(runs.rglob(RESULT_FILE), key=lambda path: (path.stat().st_mtime_ns, path)):
        try:
            result = read_result(path, known)
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


def read_result(path: Path, known: Sequence[Experiment]) -> Result:
    """Read one result file.

    Raises `UserError` when it belongs to no known experiment, is of another split than test, or lacks
    a score.
    """
    folders = path.absolute().parent.parts
    experiment, below = _experiment_of(folders, known)
    if experiment is None:
        raise UserError(f"{path}: no script folder of a known experiment in its path")
    data = read_json(path)
    try:
        if data["split"] != "test":
            raise UserError(f"{path}: scores of the split {data['split']} found, expected test")
        scores = {system: _scores(data[system]) for system in SYSTEMS}
        settings = _settings(data, experiment)
        seed = _seed(below, data)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected a file of knn_ner.infer, found another one ({error!r})"
        ) from None
    return Result(path, experiment, seed, settings, scores)


def _experiment_of(
    folders: Sequence[str], known: Sequence[Experiment]
) -> tuple[Experiment | None, Sequence[str]]:
    """The experiment whose script folder is last among nested folders, and the folders below it."""
    for start in reversed(range(len(folders))):
        for experiment in known:
            parts = tuple(experiment.script_dir.split("/"))
            if tuple(folders[start : start + len(parts)]) == parts:
                return experiment, folders[start + len(parts) :]
    return None, ()


def _seed(below: Sequence[str], data: dict[str, Any]) -> int:
    """The seed of a folder `seed_N`, which says which tagger it was, or else the one of inference."""
    in_path = [int(part[5:]) for part in below if re.fullmatch("seed_[0-9]+", part)]
    return in_path[-1] if in_path else int(data.get("seed", 0))


def _scores(metrics: dict[str, Any]) -> dict[str, float]:
    return {
        "precision": float(metrics["piece_precision"]),
        "recall": float(metrics["piece_recall"]),
        "f1": float(metrics["piece_f1"]),
        "word_f1": float(metrics["f1"]),
    }


def _settings(data: dict[str, Any], experiment: Experiment) -> str:
    """Where k, temperature and knn_weight come from; spelled out when it is neither paper nor dev."""
    source = data.get("settings_source", "given")
    if source != "given":
        return str(source)
    vote = int(data["k"]), float(data["temperature"]), float(data["knn_weight"])
    similarity = data.get("similarity", "cosine")
    if vote == experiment.vote and similarity == "cosine":
        return "published"
    return f"k={vote[0]} T={vote[1]:g} w={vote[2]:g} {similarity}"


def make_lines(results: Sequence[Result]) -> list[Line]:
    """Two lines, tagger and kNN, for each experiment, and for each of the settings it was run with."""
    lines = []
    for experiment in experiments():
        own = [result for result in results if result.experiment == experiment]
        for settings in sorted({result.settings for result in own}) or [OPEN]:
            runs = sorted(
                (result for result in own if result.settings == settings),
                key=lambda result: result.seed,
            )
            for system in SYSTEMS:
                measured = {
                    name: [run.scores[system][name] for run in runs]
                    for name in MEASURED
                    if name != "gain"
                }
                measured["gain"] = (
                    [run.scores["knn"]["f1"] - run.scores["base"]["f1"] for run in runs]
                    if system == "knn"
                    else []
                )
                lines.append(Line(experiment, system, settings, len(runs), measured))
    return lines


def to_markdown(lines: Sequence[Line]) -> str:
    """All tables as Markdown, one for each dataset, with footnotes."""
    blocks = [EXPLANATION]
    for dataset, title in TITLES.items():
        table = [line for line in lines if line.experiment.dataset == dataset]
        rows = [list(COLUMNS), *(_cells(line) for line in table)]
        widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
        rule = ["-" * width if place == 0 else "-" * (width - 1) + ":"
                for place, width in enumerate(widths)]  # fmt: skip
        text = [f"## {title}", ""]
        for row in (rows[0], rule, *rows[1:]):
            cells = [
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            text.append(f"| {' | '.join(cells)} |")
        blocks.append("\n".join(text + _footnotes(table)))
    return "\n\n".join(blocks) + "\n"


def _model(line: Line) -> str:
    return line.experiment.backbone + ("+kNN" if line.system == "knn" else "")


def _cells(line: Line) -> list[str]:
    published = line.published
    cells = [_model(line)]
    if published:
        mark = "" if published.is_consistent else f" {MARK}"
        cells += [
            f"{published.precision:.2f}",
            f"{published.recall:.2f}",
            f"{published.f1:.2f}{mark}",
        ]
    else:
        cells += [OPEN] * 3
    cells.append(OPEN if line.published_gain is None else f"{line.published_gain:+.2f}")
    for name in MEASURED:
        cells.append(_mean_and_deviation(line.measured[name], sign="+" if name == "gain" else ""))
    return [*cells, str(line.seeds) if line.seeds else OPEN, line.settings]


def _mean_and_deviation(values: Sequence[float], sign: str) -> str:
    if not values:
        return OPEN
    text = f"{statistics.fmean(values):{sign}.2f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.2f}"


def _footnotes(table: Sequence[Line]) -> list[str]:
    marked = {
        _model(line): line.published
        for line in table
        if line.published and not line.published.is_consistent
    }
    return [
        text
        for model, score in marked.items()
        for text in (
            "",
            f"{MARK} {model}: the published F1, {score.f1:.2f}, is not the harmonic mean of the "
            f"published P and R, which is {score.harmonic_mean:.2f}.",
        )
    ]


def to_csv(lines: Sequence[Line]) -> str:
    """All tables as one CSV file; what was not published or not run is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["dataset", "backbone", "system", "script_dir", "settings", "seeds",
         "published_precision", "published_recall", "published_f1", "published_gain",
         "published_harmonic_mean", "published_f1_marked",
         *(f"{name}_{what}" for name in MEASURED for what in ("mean", "std"))]
    )  # fmt: skip
    for line in lines:
        score, gain = line.published, line.published_gain
        row = [
            line.experiment.dataset,
            line.experiment.backbone,
            line.system,
            line.experiment.script_dir,
            line.settings if line.seeds else "",
            line.seeds or "",
            *([f"{score.precision:.2f}", f"{score.recall:.2f}", f"{score.f1:.2f}"]
              if score else [""] * 3),
            "" if gain is None else f"{gain:.2f}",
            f"{score.harmonic_mean:.2f}" if score else "",
            "yes" if score and not score.is_consistent else "",
        ]  # fmt: skip
        for name in MEASURED:
            values = line.measured[name]
            row.append(f"{statistics.fmean(values):.4f}" if values else "")
            row.append(f"{statistics.stdev(values):.4f}" if len(values) > 1 else "")
        writer.writerow(row)
    return text.getvalue()
