"""The steps of one seed: train, build, tune on dev, infer on dev and test, and the best setting on test.

A finished step is not done again. What it depends on (settings, the corpus' content, the step before) is kept
as a key in `S/seed-N/steps.json`; with another key it is done anew. A training by `knn_ner.train --save_path
S/seed-N` is taken as finished, or as begun, if its settings are those of the experiment.
"""

import dataclasses
import gc
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from knn_ner.build_datastore import BuildSettings, build_datastore
from knn_ner.data.corpus import SPLITS, read_corpus, split_path
from knn_ner.datastore.manifest import MANIFEST_FILE, Manifest
from knn_ner.evaluation.prediction_files import COUNTS_FILE, PREDICTIONS_FILE, VOTES_FILE
from knn_ner.experiment.progress import View
from knn_ner.infer import InferSettings, infer
from knn_ner.settings import (
    SeedSettings,
    SplitName,
    TrainSettings,
    group_of,
)
from knn_ner.tagging.grid import best_setting, sweep_split
from knn_ner.tagging.training import SETTINGS_FILE, changed_setting, with_batch_sizes
from knn_ner.train import train
from knn_ner.tune import TuneSettings, tune
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json, write_json

STEPS = ("train", "build", "tune", "dev", "test", "oracle")
RECORD_FILE = "steps.json"
LOG_FILE = "experiment.log"
TRAINED_FILE = "train_results.json"
# Settings that say where things are and how fast they go, not what comes out.
NO_KEY = {
    "data_dir", "file_name", "bert_path", "model_path", "datastore_path", "save_path", "tuning",
    "workers", "device", "devices", "num_nodes", "batch_size", "seed", "resume", "plot",
}  # fmt: skip


def corpus_id(data_dir: str, file_name: str) -> str:
    """A hash of the content of the three splits. Raises `UserError` when one is missing."""
    digest = hashlib.sha256()
    for split in SPLITS:
        content = split_path(data_dir, file_name, split).read_bytes()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


class SeedRun:
    """One seed of an experiment.

    given: the flags of `add_experiment_arguments`. corpus: its `corpus_id`. name: of the run, for its user.
    steps: those of `STEPS` to do. votes: whether to keep how neighbours voted on test, for a breakdown; then
        all of them are looked up, which takes longer than knowing the tags.
    """

    def __init__(
        self,
        given: SeedSettings,
        seed: int,
        corpus: str,
        name: str = "",
        steps: Sequence[str] = STEPS,
        votes: bool = False,
    ):
        self.given, self.seed, self.corpus = given, seed, corpus
        self.name, self.steps, self.votes = name or f"seed {seed}", steps, votes
        self.folder = Path(given.save_path) / f"seed-{seed}"
        self.tagger = Path(given.taggers or given.save_path) / f"seed-{seed}"
        self.datastore = self.folder / "datastore"

    def check(self) -> None:
        """Raise `UserError` if there is a tagger, or half of one, of other settings, or none to take."""
        trained = self.tagger / TRAINED_FILE
        if self.given.taggers:
            if not trained.is_file():
                raise UserError(
                    f"{trained}: not found, but --taggers names this folder; train there first, or "
                    "leave out this seed"
                )
            return
        record = self.tagger / SETTINGS_FILE
        if not trained.is_file() and not record.is_file():
            return
        before = read_json(trained)["settings"] if trained.is_file() else read_json(record)
        training = with_batch_sizes(self._training())
        changed = changed_setting(before, training)
        if changed:
            name, old = changed
            raise UserError(
                f"{self.tagger}: trained with --{name} {old}, but --{name} {getattr(training, name)} is "
                "asked for; give the flags that it was trained with, or another --save_path"
            )

    def run(self, view: View) -> None:
        """Do what is not finished. Raises `UserError` as the commands do."""
        trained = self._train(view)
        where = {"model_path": str(self.tagger / "model"), "datastore_path": str(self.datastore)}
        building = group_of(BuildSettings, self.given, **where)
        self._step(
            view,
            "build",
            building,
            trained,
            [self.datastore / MANIFEST_FILE],
            lambda: build_datastore(building),
        )
        stored = Manifest.read(self.datastore).content_id
        tuning = group_of(TuneSettings, self.given, save_path=str(self.folder), **where)
        outputs = [self.folder / "tuning.json", self.folder / "tuning.csv"]
        self._step(view, "tune", tuning, stored, outputs, lambda: tune(tuning))
        best = read_json(self.folder / "tuning.json")["best"]
        for split in ("dev", "test"):
            self._infer(view, split, where, [stored, best])
        oracle = self.folder / "oracle.json"
        self._step(view, "oracle", tuning, stored, [oracle], lambda: self._oracle(tuning, oracle))

    def _infer(
        self, view: View, split: SplitName, where: dict[str, str], upstream: Sequence[object]
    ) -> None:
        folder = self.folder / split
        settings = group_of(
            InferSettings,
            self.given,
            save_path=str(folder),
            split=split,
            tuning=str(self.folder / "tuning.json"),
            votes=self.votes and split == "test",
            **where,
        )
        names = ["knn_results.json", PREDICTIONS_FILE, COUNTS_FILE]
        outputs = [folder / name for name in names + [VOTES_FILE] * settings.votes]
        self._step(view, split, settings, upstream, outputs, lambda: infer(settings))

    def _train(self, view: View) -> str:
        """Train, or go on; returns what names the tagger."""
        results = self.tagger / TRAINED_FILE
        if results.is_file():
            if "train" in self.steps:
                view.skip("train", read_json(results).get("seconds"))
        else:
            # Left as a training sets it, it would slow down all that follows.
            deterministic = torch.are_deterministic_algorithms_enabled()
            with view.step(self.name, "train", self.folder / LOG_FILE):
                train(self._training())
            torch.use_deterministic_algorithms(deterministic)
            gc.collect()
        return hashlib.sha256(results.read_bytes()).hexdigest()

    def _oracle(self, settings: TuneSettings, path: Path) -> None:
        corpus = read_corpus(settings.data_dir, settings.file_name, splits=("test",))
        _, found, _ = sweep_split(settings, settings, settings, settings, corpus, "test")
        note = "chosen on the test split, for comparison: not a fair number"
        write_json(path, {"note": note, "split": "test", "best": best_setting(found)})

    def _step(
        self,
        view: View,
        name: str,
        settings: Any,
        upstream: object,
        outputs: Sequence[Path],
        work: Callable[[], object],
    ) -> None:
        """Do a step, unless it is finished: its outputs are there, and were made of the same."""
        if name not in self.steps:
            return
        kept = {
            n: value for n, value in sorted(dataclasses.asdict(settings).items()) if n not in NO_KEY
        }
        content = json.dumps([name, kept, self.corpus, upstream], sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()
        record = self.folder / RECORD_FILE
        records = read_json(record) if record.is_file() else {}
        before = records.get(name, {})
        if before.get("key") == key and all(path.is_file() for path in outputs):
            view.skip(name, before.get("seconds"))
            return
        start = time.perf_counter()
        with view.step(self.name, name, self.folder / LOG_FILE):
            work()
        seconds = round(time.perf_counter() - start, 2)
        write_json(record, records | {name: {"key": key, "seconds": seconds}})

    def _training(self) -> TrainSettings:
        return group_of(
            TrainSettings, self.given, save_path=str(self.folder), seed=self.seed, resume=True
        )
