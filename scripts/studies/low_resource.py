"""Measure how much training data kNN saves: taggers of a part of the sentences, with two datastores.

    python scripts/studies/low_resource.py --data_dir D --file_name F --bert_path B --save_path S [flags of training]

trains on 5, 10, ... 100 percent of the training sentences, with several seeds, and scores three lines on test:
the tagger alone; kNN with the datastore of the sentences that the tagger was trained on; kNN with the datastore
of all labelled sentences, without further training. Settings are tuned on dev.

The parts of a seed are nested: they are the first sentences of one random order, and each seed has its own
order. Dev and test stay whole, and every tagger knows all labels, even those that its part lacks. A small part
makes few steps in the given epochs, and too few steps, rather than too few sentences, are what fails in
fine-tuning on little data (Mosbach, Andriushchenko and Klakow 2021). So each training has as many more epochs
as it needs for --min_steps. Dev is scored --max_epochs times, and the best epoch is kept.

With --taggers, the taggers of another such run are used: this compares other keys on the same taggers.

Finished steps are not repeated. `low_resource.csv`, `.json`, `.md` and the plot `low_resource` (.png, .svg)
are written after each seed, from the seeds so far.
"""

import argparse
import dataclasses
import itertools
import logging
import math
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# So that the script runs from any folder, with or without the package installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from knn_ner.data.columns import Sentence, write_columns
from knn_ner.data.corpus import Corpus, read_corpus, read_labels
from knn_ner.evaluation.plots import draw_low_resource, save
from knn_ner.evaluation.prediction_files import SCORES
from knn_ner.evaluation.significance import f1_of, gain_interval, gains, p_value
from knn_ner.experiment.progress import View
from knn_ner.experiment.report import interval_text, with_spread
from knn_ner.experiment.seeds import SeedRun, corpus_id
from knn_ner.experiment.summary import spread, stack_counts
from knn_ner.settings import SeedSettings
from knn_ner.utils.arguments import flag, positive_int
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_json, write_text
from knn_ner.utils.tables import csv_table, markdown_table

logger = logging.getLogger(f"knn_ner.{__name__}")

PART_STEPS = ("train", "build", "tune", "test")
FULL_STEPS = ("build", "tune", "test")
TAGGER, PART, ALL = (
    "tagger alone",
    "kNN, datastore of the same part",
    "kNN, datastore of all sentences",
)
COLUMNS = (
    "percent", "sentences", "tagger", "kNN, same part", "gain", "95% interval", "p",
    "kNN, all sentences", "gain", "95% interval", "p",
)  # fmt: skip
CSV_COLUMNS = ("percent", "sentences", "line", "f1_mean", "f1_std", "gain", "low", "high", "p")


def percent(text: str) -> float:
    """An argparse type: a number above 0, at most 100."""
    value = float(text)
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(
            f"{value:g} found, a percentage above 0 and at most 100 expected"
        )
    return value


@dataclass(frozen=True, kw_only=True)
class LowResourceSettings(SeedSettings):
    """The settings of `python scripts/studies/low_resource.py`."""

    seeds: tuple[int, ...] = flag((0, 1, 2), metavar="N")
    """random seeds of the order of the sentences and of the trainings"""
    shares: tuple[float, ...] = flag(
        (5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0), parse=percent, metavar="PERCENT"
    )
    """percentages of the training sentences"""
    min_steps: int = flag(300, parse=positive_int)
    """least number of steps of a training: a small part gets more epochs"""
    taggers: str | None = flag(None, metavar="S0")
    """folder of another such run whose taggers are used in place of training: other keys, the same taggers"""

    def folder(self, share: float, what: str) -> Path:
        """`S/part-005`, of the part alone, or `S/all-005`, of its taggers with all sentences stored."""
        return Path(self.save_path) / f"{what}-{share:03g}"


def parse_arguments(argv: list[str] | None = None) -> LowResourceSettings:
    """Read the command line of `python scripts/studies/low_resource.py`; shares come in ascending order."""
    settings = read_command(
        LowResourceSettings,
        argv,
        "Train on parts of the sentences; score the tagger, and kNN with datastores of the part and of all.",
        "python scripts/studies/low_resource.py",
    )
    return dataclasses.replace(
        settings,
        shares=tuple(sorted(set(settings.shares))),
        seeds=tuple(dict.fromkeys(settings.seeds)),
    )


def size_of(share: float, sentences: int) -> int:
    """The number of sentences in a share, given in percent."""
    return max(1, round(share / 100 * sentences))


def part_of(sentences: Sequence[Sentence], share: float, seed: int) -> list[Sentence]:
    """A share of the sentences, given in percent, in their order; it includes those of smaller shares."""
    order = np.random.default_rng(seed).permutation(len(sentences))
    return [sentences[place] for place in sorted(order[: size_of(share, len(sentences))])]


def write_corpus(
    corpus: Corpus, train: Sequence[Sentence], settings: LowResourceSettings, folder: Path
) -> None:
    """Write a corpus with another training split and the same labels."""
    for split, sentences in (corpus.splits | {"train": train}).items():
        write_columns(folder / f"{split}.{settings.file_name}", sentences)
    labels = read_labels(Path(settings.data_dir) / "ner_labels.txt")
    write_text(folder / "ner_labels.txt", "\n".join(labels) + "\n")


def epochs_of(sentences: int, settings: LowResourceSettings) -> tuple[int, float]:
    """The length of a training.

    Args:
        sentences: number of training sentences.
        settings: the settings.

    Returns:
        The number of epochs, and the number of epochs between two scorings of dev: dev is scored about as
        often as in a training on all sentences, since the epochs of a small part are short and many.
    """
    batch = settings.train_batch_size or settings.batch_size
    steps = math.ceil(math.ceil(sentences / batch) / settings.accumulate_grad_batches)
    times = math.ceil(math.ceil(settings.min_steps / steps) / settings.max_epochs)
    if times <= 1:
        return settings.max_epochs, settings.val_check_interval
    return times * settings.max_epochs, times


def runs_of(corpus: Corpus, settings: LowResourceSettings, seed: int) -> list[SeedRun]:
    """The runs of a seed; writes their corpora, and checks them against earlier trainings.

    Raises:
        UserError: if a tagger was trained with other settings, or is missing although --taggers names it.
    """
    runs = []
    whole = corpus_id(settings.data_dir, settings.file_name)
    for share in settings.shares:
        name = f"seed {seed}, {share:g}%"
        train = part_of(corpus.splits["train"], share, seed)
        part = str(settings.folder(share, "part"))
        taggers = None
        if settings.taggers:
            others = dataclasses.replace(settings, save_path=settings.taggers)
            taggers = str(others.folder(share, "part"))
        data = Path(part) / f"corpus-{seed}"
        write_corpus(corpus, train, settings, data)
        epochs, interval = epochs_of(len(train), settings)
        given = dataclasses.replace(
            settings,
            data_dir=str(data),
            save_path=part,
            taggers=taggers,
            max_epochs=epochs,
            val_check_interval=interval,
        )
        run = SeedRun(given, seed, corpus_id(str(data), settings.file_name), name, PART_STEPS)
        run.check()
        runs.append(run)
        if share < 100:
            full = str(settings.folder(share, "all"))
            given = dataclasses.replace(settings, save_path=full, taggers=taggers or part)
            runs.append(SeedRun(given, seed, whole, f"{name}, all stored", FULL_STEPS))
    return runs


def measure(
    settings: LowResourceSettings, seeds: Sequence[int], sentences: int
) -> list[dict[str, Any]]:
    """Score the three lines at each share, over the finished seeds.

    Args:
        settings: the settings.
        seeds: the finished seeds.
        sentences: number of all training sentences.

    Returns:
        A row for each share: F1 of the lines, gains with interval and p-value.
    """
    rows = []
    for share in settings.shares:
        row: dict[str, Any] = {"percent": share, "sentences": size_of(share, sentences)}
        for name, what in ((PART, "part"), (ALL, "all" if share < 100 else "part")):
            folder = settings.folder(share, what)
            counts = stack_counts([folder / f"seed-{seed}" for seed in seeds])
            base, knn = (counts[each][:, :, SCORES.index("f1")] for each in ("base", "knn"))
            row[TAGGER] = spread(f1_of(base.sum(axis=1)).tolist())
            row[name] = spread(f1_of(knn.sum(axis=1)).tolist()) | {
                "gain": spread(gains(base, knn).tolist()),
                "interval": list(gain_interval(base, knn)),
                "p": p_value(base, knn),
            }
        rows.append(row)
    return rows


def to_markdown(rows: Sequence[dict[str, Any]], seeds: Sequence[int]) -> str:
    """The table, and the shares from which kNN reaches the tagger that was trained on all sentences."""
    lines = [list(COLUMNS)]
    for row in rows:
        line = [f"{row['percent']:g}", str(row["sentences"]), with_spread(row[TAGGER])]
        for name in (PART, ALL):
            line += [
                with_spread(row[name]),
                f"{row[name]['gain']['mean']:+.2f}",
                interval_text(row[name]["interval"]),
                f"{row[name]['p']:.2g}",
            ]
        lines.append(line)
    text = f"Word-level test F1 over {len(seeds)} seeds (mean ± standard deviation)."
    if rows[-1]["percent"] == 100:
        goal = rows[-1][TAGGER]["mean"]
        reached = " and ".join(f"{name}, {reaches(rows, name, goal)}" for name in (PART, ALL))
        text += f" The tagger's {goal:.2f} with all sentences is reached by {reached}."
    return f"{markdown_table(lines)}\n{text}\n"


def reaches(rows: Sequence[dict[str, Any]], name: str, goal: float) -> str:
    """The least share from which on a line stays at or above a score, in words."""
    enough = list(itertools.takewhile(lambda row: row[name]["mean"] >= goal, reversed(rows)))
    return f"from {enough[-1]['percent']:g}% on" if enough else "at no share"


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """A CSV file with a row for each share and line of the plot."""
    lines = []
    for row in rows:
        for name in (TAGGER, PART, ALL):
            each = row[name]
            line = {
                "percent": f"{row['percent']:g}",
                "sentences": row["sentences"],
                "line": name,
                "f1_mean": f"{each['mean']:.4f}",
                "f1_std": "" if each["std"] is None else f"{each['std']:.4f}",
            }
            if name != TAGGER:
                numbers = (each["gain"]["mean"], *each["interval"])
                names = ("gain", "low", "high")
                line |= {key: f"{n:.4f}" for key, n in zip(names, numbers, strict=True)}
                line["p"] = f"{each['p']:.4g}"
            lines.append(line)
    return csv_table(lines, CSV_COLUMNS)


def write_results(settings: LowResourceSettings, seeds: Sequence[int], sentences: int) -> str:
    """Write tables and plot of the finished seeds.

    Args:
        settings: the settings.
        seeds: the finished seeds.
        sentences: number of all training sentences.

    Returns:
        The Markdown.
    """
    rows = measure(settings, seeds, sentences)
    folder = Path(settings.save_path)
    markdown = to_markdown(rows, seeds)
    write_json(folder / "low_resource.json", {"seeds": list(seeds), "rows": rows})
    write_text(folder / "low_resource.csv", to_csv(rows))
    write_text(folder / "low_resource.md", markdown)
    lines = {
        name: [(row["percent"], row[name]["mean"], row[name]["std"] or 0.0) for row in rows]
        for name in (TAGGER, PART, ALL)
    }
    save(draw_low_resource(lines, Path(settings.data_dir).resolve().name), folder / "low_resource")
    return markdown


def run_study(settings: LowResourceSettings) -> str:
    """Do the steps that are not finished, and write the results after each seed.

    Returns:
        The Markdown.

    Raises:
        UserError: for bad input.
    """
    labels = read_labels(Path(settings.data_dir) / "ner_labels.txt")
    corpus = read_corpus(
        settings.data_dir, settings.file_name, labels=labels, comments=settings.comments
    )
    if Path(settings.save_path).is_file():
        raise UserError(f"{settings.save_path}: is a file; --save_path names a folder")
    runs = {seed: runs_of(corpus, settings, seed) for seed in settings.seeds}
    steps = [step for each in runs.values() for run in each for step in run.steps]
    markdown = ""
    finished: list[int] = []
    try:
        with closing(View({step: steps.count(step) for step in PART_STEPS})) as view:
            for seed, each in runs.items():
                for run in each:
                    run.check()
                    run.run(view)
                finished.append(seed)
                markdown = write_results(settings, finished, len(corpus.splits["train"]))
    except KeyboardInterrupt:
        logger.info(f"{settings.save_path}: the same command continues from here")
        raise
    return markdown


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    print(run_study(settings), end="")
    logger.info(f"written: low_resource.md, .csv, .json, .png and .svg in {settings.save_path}")


if __name__ == "__main__":
    run_main(main)
