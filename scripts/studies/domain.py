"""Measure a tagger on domains that it was not trained on: alone, with their datastores, and after a new training.

    python scripts/studies/domain.py --data data --source politics --targets science literature \\
        --bert_path B --save_path outputs/domain -- [flags of knn_ner.train]

`scripts/domain.sh` makes the environment and runs this; `docs/domain.md` has the results.
"""

import hashlib
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# So that the script runs from any folder, with or without the package installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from get_labels import write_labels
from knn_ner.build_datastore import BuildSettings, build_datastore
from knn_ner.data.columns import write_columns
from knn_ner.data.corpus import SPLITS, read_corpus, read_labels, split_path
from knn_ner.data.spans import word_spans
from knn_ner.data.tags import OUTSIDE, position_and_type
from knn_ner.datastore.edit import remove_sentences
from knn_ner.datastore.reader import Datastore
from knn_ner.evaluation.metrics import percentages
from knn_ner.evaluation.prediction_files import read_predictions
from knn_ner.infer import InferSettings, infer
from knn_ner.settings import (
    ColumnSettings,
    SeededRunSettings,
    TaggerSettings,
    TrainingSettings,
    TrainSettings,
    group_of,
)
from knn_ner.tagging.edit_from_files import add_file
from knn_ner.train import train
from knn_ner.tune import TuneSettings, tune
from knn_ner.utils.arguments import flag, read_settings
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json, write_json, write_text
from knn_ner.utils.finished_steps import FinishedSteps
from knn_ner.utils.tables import csv_table, markdown_lines

logger = logging.getLogger(f"knn_ner.{__name__}")

# Without a new training: the target's sentences are added to the source's datastore, or replace them.
ADDED = ("added", "swapped")
Retrain = Literal["both", "alone"]
RETRAIN: tuple[Retrain, ...] = ("both", "alone")
CLASSES = ("all", "shared", "new")
# Holds the key of the content of a run's folder, finished or not.
KEY_FILE = "key.json"

Seconds = dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class TrainingFlags(SeededRunSettings, TrainingSettings):
    """The flags of `python -m knn_ner.train` that may follow `--`: all but those with paths."""


@dataclass(frozen=True, kw_only=True)
class DomainSettings(ColumnSettings):
    """The settings of `python scripts/studies/domain.py`.

    Raises:
        UserError: if the source is one of the targets.
    """

    data: str = flag(metavar="DIR")
    """folder with a folder for each corpus"""
    source: str = flag()
    """the corpus to train on: a folder in --data"""
    targets: tuple[str, ...] = flag()
    """the other corpora"""
    retrain: tuple[Retrain, ...] = flag(RETRAIN, nargs="*")
    """corpora of the new trainings: source and target together, the target alone"""
    file_name: str = flag("word.bmes", metavar="F")
    """ending of the corpus files"""
    bert_path: str = flag(metavar="B")
    """the encoder: a hub name or a folder"""
    save_path: str = flag(metavar="DIR")
    """folder for everything"""
    flags: tuple[str, ...] = flag((), metavar="FLAG", positional=True, nargs="*")
    """flags of knn_ner.train, after --"""

    def __post_init__(self) -> None:
        if self.source in self.targets:
            raise UserError(f"{self.source}: is the source, and a target too; name other corpora")

    def corpus(self, name: str) -> Path:
        """The folder of a corpus."""
        return Path(self.data) / name

    def run(self, *names: str) -> Path:
        """The folder of a run."""
        return Path(self.save_path, *names)

    def training(self, corpus: Path, run: Path) -> TrainSettings:
        """The settings of a training, which continues where it was interrupted."""
        given = read_settings(
            TrainingFlags, self.flags, "Train a tagger.", "python -m knn_ner.train"
        )
        return group_of(
            TrainSettings,
            given,
            data_dir=str(corpus),
            file_name=self.file_name,
            comments=self.comments,
            bert_path=self.bert_path,
            save_path=str(run),
            resume=True,
        )


def parse_arguments(argv: list[str] | None = None) -> DomainSettings:
    """Read the command line of `python scripts/studies/domain.py`."""
    return read_command(
        DomainSettings,
        argv,
        "Measure a tagger on other domains: alone, with their datastores added, and after a new training. "
        "Flags of knn_ner.train follow after --.",
        "python scripts/studies/domain.py",
    )


def run_key(settings: DomainSettings, *targets: str) -> str:
    """A hash of what a run depends on: the files of source and targets, the encoder, the training flags."""
    digest = hashlib.sha256(json.dumps([settings.bert_path, settings.flags]).encode())
    for name in (settings.source, *targets):
        for split in SPLITS:
            content = split_path(settings.corpus(name), settings.file_name, split).read_bytes()
            digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def begin(run: Path, key: str) -> None:
    """Empty the folder of a run, unless its content has the same key."""
    record = run / KEY_FILE
    if not record.is_file() or read_json(record) != key:
        shutil.rmtree(run, ignore_errors=True)
        write_json(record, key)


def timed(run: Path, name: str, step: Callable[[], object]) -> dict[str, float]:
    """Do a step of a run, unless it is finished.

    Returns:
        Its seconds, by the clock and of the processor. Of an interrupted training, only the last part counts.
    """
    key = read_json(run / KEY_FILE)
    finished = FinishedSteps(run / "steps.json")
    if not finished.done(name, key):
        clock, processor = time.perf_counter(), time.process_time()
        step()
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        finished.record(name, key, clock=round(clock, 2), processor=round(processor, 2))
    return finished.measured(name)


def train_on(settings: DomainSettings, corpus: Path, run: Path) -> Seconds:
    """Train a tagger on a corpus, and build its datastore.

    Args:
        settings: the settings.
        corpus: folder of the corpus.
        run: folder of the run.

    Returns:
        The seconds of both steps.
    """
    training = settings.training(corpus, run)
    building = group_of(
        BuildSettings,
        training,
        model_path=str(run / "model"),
        datastore_path=str(run / "datastore"),
    )
    return {
        "train": timed(run, "train", lambda: train(training)),
        "store": timed(run, "store", lambda: build_datastore(building)),
    }


def add_target(settings: DomainSettings, target: str, run: Path, *, swap: bool) -> Seconds:
    """Copy the source's datastore to a run, and add the target's training split to the copy.

    Args:
        settings: the settings.
        target: the target.
        run: folder of the run.
        swap: whether to remove the source's sentences from the copy.

    Returns:
        The seconds of the step.
    """
    source = settings.run(settings.source)
    where = TaggerSettings(model_path=str(source / "model"), datastore_path=str(run / "datastore"))
    how = settings.training(settings.corpus(target), run)
    file = split_path(settings.corpus(target), settings.file_name, "train")

    def copy_and_add() -> None:
        shutil.rmtree(where.datastore_path, ignore_errors=True)
        shutil.copytree(source / "datastore", where.datastore_path)
        before = Datastore.open(where.datastore_path).stored_sentences.tolist()
        ids = add_file(where, how, file, comments=settings.comments)
        logger.info(f"{where.datastore_path}: {len(ids)} sentences added")
        if swap:
            remove_sentences(where.datastore_path, before)

    return {"store": timed(run, "store", copy_and_add)}


def join_corpora(settings: DomainSettings, target: str, folder: Path) -> None:
    """Write a corpus with the training sentences of source and target; dev and test are the target's.

    Raises:
        UserError: if source and target have different tag schemes.
    """
    source, other = (
        read_corpus(settings.corpus(name), settings.file_name, comments=settings.comments)
        for name in (settings.source, target)
    )
    if source.scheme.name != other.scheme.name:
        raise UserError(
            f"{settings.data}: {settings.source} is in {source.scheme.name}, but {target} in "
            f"{other.scheme.name}; convert one with `python scripts/prepare_data.py convert`"
        )
    joined = other.splits | {"train": source.splits["train"] + other.splits["train"]}
    for split, sentences in joined.items():
        write_columns(folder / f"{split}.{settings.file_name}", sentences)
    write_labels(folder, settings.file_name)


def measure(settings: DomainSettings, target: str, run: Path, model: Path) -> dict[str, Any]:
    """Tune the datastore of a run on the target's dev split, and score the target's test split.

    Args:
        settings: the settings.
        target: the target.
        run: folder of the run.
        model: folder of the tagger.

    Returns:
        Seconds, entries of the datastore, the tuned settings, and F1 of tagger and kNN by class.
    """
    how = settings.training(settings.corpus(target), run)
    where = {"model_path": str(model), "datastore_path": str(run / "datastore")}
    tuning = group_of(TuneSettings, how, **where)
    seconds = timed(run, "tune", lambda: tune(tuning))
    tested = infer(group_of(InferSettings, how, tuning=str(run / "tuning.json"), **where))
    labels = read_labels(settings.corpus(settings.source) / "ner_labels.txt")
    types = {position_and_type(label)[1] for label in labels if label != OUTSIDE}
    return {
        "seconds": {"tune": seconds},
        "entries": tested["datastore_entries"],
        "best": read_json(run / "tuning.json")["best"],
        **f1_by_class(run / "predictions.txt", types),
    }


def f1_by_class(predictions: Path, shared: Collection[str]) -> dict[str, dict[str, float | None]]:
    """The F1 of tagger and kNN by class of entities.

    Args:
        predictions: file of `knn_ner.infer`.
        shared: the types that the source has.

    Returns:
        For `base` and `knn`: F1 of all entities, those of the shared types, and the others; None for a class
        without gold entities.
    """
    sentences = read_predictions(predictions)
    # Entities that are right, predicted and gold, of each class.
    counts = {name: {each: [0, 0, 0] for each in CLASSES} for name in ("base", "knn")}
    for _, gold, *predicted in sentences:
        gold_spans = set(word_spans(gold))
        for name, tags in zip(("base", "knn"), predicted, strict=True):
            spans = set(word_spans(tags))
            for place, found in enumerate((gold_spans & spans, spans, gold_spans)):
                there = sum(type_ in shared for type_, _, _ in found)
                sizes = (len(found), there, len(found) - there)
                for each, size in zip(CLASSES, sizes, strict=True):
                    counts[name][each][place] += size
    return {
        name: {
            each: float(percentages(*numbers)[2]) if numbers[2] else None
            for each, numbers in classes.items()
        }
        for name, classes in counts.items()
    }


def run_target(settings: DomainSettings, target: str) -> list[dict[str, Any]]:
    """Do the runs of a target that are asked for and not finished.

    Returns:
        A row for each finished run.
    """
    rows = []
    key = run_key(settings, target)
    for how in (*ADDED, *RETRAIN):
        run = settings.run(target, how)
        record = run / "row.json"
        row = read_json(record) if record.is_file() else {}
        finished = row.get("key") == key
        if not finished and how not in (*ADDED, *settings.retrain):
            continue
        if not finished:
            logger.info(f"\n== {target}: {how}")
            begin(run, key)
            if how in ADDED:
                trained_on, model = [settings.source], settings.run(settings.source, "model")
                stored = [target] if how == "swapped" else [settings.source, target]
                seconds = add_target(settings, target, run, swap=how == "swapped")
            else:
                corpus, model = settings.corpus(target), run / "model"
                trained_on = stored = [target]
                if how == "both":
                    corpus = settings.run(target, "both_corpus")
                    trained_on = stored = [settings.source, target]
                    join_corpora(settings, target, corpus)
                seconds = train_on(settings, corpus, run)
            row = {"key": key, "domain": target, "trained_on": trained_on, "stored": stored}
            row |= measure(settings, target, run, model)
            row["seconds"] = seconds | row["seconds"]
            write_json(record, row)
        rows.append(row)
    return rows


def lines_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Two lines of the table for each row: the tagger alone, once for each tagger, and kNN."""
    lines = []
    shown = set()
    for row in rows:
        seconds, best = row["seconds"], row["best"]
        tagger = (row["domain"], *row["trained_on"])
        for name in ("knn",) if tagger in shown else ("base", "knn"):
            with_store = name == "knn"
            steps = [seconds.get("train")]
            steps += [seconds["store"], seconds["tune"]] if with_store else [None, None]
            clock = [step["clock"] if step else 0.0 for step in steps]
            processor = sum(step["processor"] for step in steps if step)
            line = {
                "domain": row["domain"],
                "trained on": " + ".join(row["trained_on"]),
                "datastore": " + ".join(row["stored"]) if with_store else "none",
                "k": f"{best['k']}" if with_store else "",
                "temperature": f"{best['temperature']:g}" if with_store else "",
                "knn_weight": f"{best['knn_weight']:.4g}" if with_store else "",
            }
            names = ("train s", "store s", "tune s", "all s", "processor s")
            numbers = (*clock, sum(clock), processor)
            line |= {what: f"{n:.1f}" for what, n in zip(names, numbers, strict=True)}
            for each in CLASSES:
                f1 = row[name][each]
                line[f"F1 {each}"] = "" if f1 is None else f"{f1:.2f}"
            lines.append(line)
        shown.add(tagger)
    return lines


def run_study(settings: DomainSettings) -> str:
    """Do the runs that are not finished, and write `domain.csv` and `domain.md`.

    Returns:
        The content of `domain.md`.

    Raises:
        UserError: for bad input.
    """
    source, run = settings.corpus(settings.source), settings.run(settings.source)
    # Before the first step: a bad flag is reported at once.
    settings.training(source, run)
    for name in (settings.source, *settings.targets):
        if not (settings.corpus(name) / "ner_labels.txt").is_file():
            write_labels(settings.corpus(name), settings.file_name, settings.comments)
    logger.info(f"\n== {settings.source}")
    begin(run, run_key(settings))
    train_on(settings, source, run)
    lines = lines_of([row for target in settings.targets for row in run_target(settings, target)])
    write_text(settings.run("domain.csv"), csv_table(lines, list(lines[0])))
    markdown = markdown_lines(lines, names=3)
    write_text(settings.run("domain.md"), markdown)
    return markdown


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    print(run_study(parse_arguments(argv)), end="")


if __name__ == "__main__":
    run_main(main)
