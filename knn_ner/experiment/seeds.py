"""The steps of one seed: train, build, tune on dev, infer on dev and test, and tune on test for comparison.

A finished step is not repeated. Its key, a hash of what it depends on (settings, content of the corpus, the step
before), is kept in `S/seed-N/steps.json`; with another key the step runs again. A training by `knn_ner.train
--save_path S/seed-N`, finished or interrupted, is continued if it has the settings of the experiment.
"""

import dataclasses
import gc
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from knn_ner.build_datastore import BuildSettings, build_datastore
from knn_ner.data.corpus import SPLITS, read_corpus, split_path
from knn_ner.datastore.manifest import MANIFEST_FILE, Manifest
from knn_ner.evaluation.prediction_files import COUNTS_FILE, PREDICTIONS_FILE, VOTES_FILE
from knn_ner.experiment.progress import View
from knn_ner.infer import InferSettings, infer
from knn_ner.settings import SeedSettings, SplitName, TrainSettings, group_of
from knn_ner.tagging.grid import best_setting, sweep_split
from knn_ner.tagging.training import RESULTS_FILE, SETTINGS_FILE, changed_setting, with_batch_sizes
from knn_ner.train import train
from knn_ner.tune import TuneSettings, tune
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json, write_json
from knn_ner.utils.finished_steps import FinishedSteps, step_key

STEPS = ("train", "build", "tune", "dev", "test", "oracle")
# Settings that name places or change the speed, but not the results.
NOT_IN_KEY = {
    "data_dir", "file_name", "bert_path", "model_path", "datastore_path", "save_path", "tuning",
    "units", "workers", "device", "devices", "num_nodes", "batch_size", "seed", "resume", "plot",
}  # fmt: skip


def corpus_id(data_dir: str, file_name: str) -> str:
    """A hash of the content of the three splits.

    Args:
        data_dir: the folder of the corpus.
        file_name: the ending of its files.

    Raises:
        UserError: if a split is missing.
    """
    digest = hashlib.sha256()
    for split in SPLITS:
        content = split_path(data_dir, file_name, split).read_bytes()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class SeedRun:
    """One seed of an experiment.

    Attributes:
        given: the settings of all steps.
        seed: the random seed.
        corpus: the `corpus_id` of the corpus.
        name: how messages name the run.
        steps: the steps of `STEPS` to run.
        votes: whether to keep the neighbours' votes on test, for a breakdown of the gain; this takes longer, because
            every token is searched.
    """

    given: SeedSettings
    seed: int
    corpus: str
    name: str
    steps: Sequence[str] = STEPS
    votes: bool = False

    @property
    def folder(self) -> Path:
        """The folder of the run, `S/seed-N`."""
        return Path(self.given.save_path) / f"seed-{self.seed}"

    @property
    def tagger(self) -> Path:
        """The folder of the training: that of the run, or that of the run in --taggers."""
        return Path(self.given.taggers or self.given.save_path) / f"seed-{self.seed}"

    def check(self) -> None:
        """Check the training that is already there.

        Raises:
            UserError: if it has other settings, or if --taggers names a folder without it.
        """
        trained = self.tagger / RESULTS_FILE
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
        """Run the steps that are not finished.

        Args:
            view: shows the progress.

        Raises:
            UserError: for bad input.
        """
        trained = self._train(view)
        datastore = self.folder / "datastore"
        where = {"model_path": str(self.tagger / "model"), "datastore_path": str(datastore)}
        building = group_of(BuildSettings, self.given, **where)
        outputs = [datastore / MANIFEST_FILE]
        self._step(view, "build", building, trained, outputs, lambda: build_datastore(building))
        stored = Manifest.read(datastore).content_id
        tuning = group_of(TuneSettings, self.given, save_path=str(self.folder), **where)
        outputs = [self.folder / "tuning.json", self.folder / "tuning.csv"]
        self._step(view, "tune", tuning, stored, outputs, lambda: tune(tuning))
        best = read_json(self.folder / "tuning.json")["best"]
        for split in ("dev", "test"):
            self._infer(view, split, where, [stored, best])
        oracle = self.folder / "oracle.json"
        self._step(view, "oracle", tuning, stored, [oracle], lambda: _tune_on_test(tuning, oracle))

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
        """Train or continue a training; returns a hash of its results."""
        results = self.tagger / RESULTS_FILE
        if not results.is_file():
            # A training makes PyTorch deterministic, which would slow down the next steps.
            deterministic = torch.are_deterministic_algorithms_enabled()
            with view.step(self.name, "train", self.folder / "experiment.log"):
                train(self._training())
            torch.use_deterministic_algorithms(deterministic)
            gc.collect()
        elif "train" in self.steps:
            view.skip("train", read_json(results).get("seconds"))
        return hashlib.sha256(results.read_bytes()).hexdigest()

    def _training(self) -> TrainSettings:
        return group_of(
            TrainSettings, self.given, save_path=str(self.folder), seed=self.seed, resume=True
        )

    def _step(
        self,
        view: View,
        name: str,
        settings: Any,
        upstream: object,
        outputs: Sequence[Path],
        work: Callable[[], object],
    ) -> None:
        """Run a step unless it is finished with the same settings, corpus and upstream results."""
        if name not in self.steps:
            return
        values = dataclasses.asdict(settings)
        if values["comments"] is None:
            # Earlier versions had no such flag: their finished steps keep their keys.
            del values["comments"]
        key = step_key(
            [name, {n: v for n, v in values.items() if n not in NOT_IN_KEY}, self.corpus, upstream]
        )
        finished = FinishedSteps(self.folder / "steps.json")
        if finished.done(name, key, outputs):
            view.skip(name, finished.measured(name).get("seconds"))
            return
        start = time.perf_counter()
        with view.step(self.name, name, self.folder / "experiment.log"):
            work()
        finished.record(name, key, seconds=round(time.perf_counter() - start, 2))


def _tune_on_test(settings: TuneSettings, path: Path) -> None:
    corpus = read_corpus(
        settings.data_dir, settings.file_name, splits=("test",), comments=settings.comments
    )
    _, found, _ = sweep_split(settings, settings, settings, settings, corpus, "test")
    note = "chosen on the test split, for comparison: not a fair number"
    write_json(path, {"note": note, "split": "test", "best": best_setting(found)})
