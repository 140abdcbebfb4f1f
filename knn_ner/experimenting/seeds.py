"""The steps of one seed: train, build, tune on dev, infer on dev and test, and the best setting on test.

A finished step is not done again. What it depends on (settings, the corpus' content, the step before) is kept
as a key in `S/seed-N/steps.json`; with another key it is done anew. A training by `knn_ner.train --save_path
S/seed-N` is taken as finished, or as begun, if its settings are those of the experiment.
"""

import argparse
import gc
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch

from knn_ner import build_datastore, infer, train, tune
from knn_ner.cli import add_data_arguments, add_run_arguments
from knn_ner.data.corpus import SPLITS, split_path
from knn_ner.errors import UserError
from knn_ner.evaluation.records import COUNTS_FILE, VOTES_FILE
from knn_ner.experimenting.view import View
from knn_ner.files import read_json, write_json
from knn_ner.retrieval.manifest import MANIFEST_FILE, Manifest
from knn_ner.retrieval.similarity import SIMILARITIES
from knn_ner.sweeping import sweep_split

STEPS = ("train", "build", "tune", "dev", "test", "oracle")
RECORD_FILE = "steps.json"
LOG_FILE = "experiment.log"
TRAINED_FILE = "train_results.json"
# Settings that say where things are and how fast they go, not what comes out.
NO_KEY = {
    "data_dir", "file_name", "bert_path", "model_path", "datastore_path", "save_path", "tuning",
    "workers", "device", "devices", "num_nodes", "batch_size", "seed", "resume", "plot",
}  # fmt: skip


def add_experiment_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of all steps, for commands that run them: they are those of the steps' own commands."""
    add_data_arguments(parser)
    parser.add_argument(
        "--bert_path", required=True, metavar="B", help="the encoder: a hub name or a folder"
    )
    parser.add_argument("--save_path", required=True, metavar="S", help="folder for everything")
    add_run_arguments(parser, seed=False)
    train.add_training_arguments(parser)
    group = parser.add_argument_group("datastore and tuning")
    build_datastore.add_key_arguments(group)
    group.add_argument(
        "--similarity", choices=SIMILARITIES, default="cosine", help="of two hidden states"
    )
    tune.add_grid_arguments(group)


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
        given: argparse.Namespace,
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
        record = self.tagger / "settings.json"
        if not trained.is_file() and not record.is_file():
            return
        before = read_json(trained)["settings"] if trained.is_file() else read_json(record)
        now = train.recorded(self._training())
        for name, value in now.items():
            if name not in train.FREE_TO_CHANGE and before.get(name, value) != value:
                raise UserError(
                    f"{self.tagger}: trained with --{name} {before[name]}, but --{name} {value} is "
                    "asked for; give the flags that it was trained with, or another --save_path"
                )

    def run(self, view: View) -> None:
        """Do what is not finished. Raises `UserError` as the commands do."""
        trained = self._train(view)
        building = self._settings(build_datastore, *self._where())
        self._step(
            view,
            "build",
            building,
            trained,
            [self.datastore / MANIFEST_FILE],
            lambda: build_datastore.build_datastore(building),
        )
        stored = Manifest.read(self.datastore).content_id
        tuning = self._settings(tune, *self._where(), "--save_path", self.folder)
        outputs = [self.folder / "tuning.json", self.folder / "tuning.csv"]
        self._step(view, "tune", tuning, stored, outputs, lambda: tune.tune(tuning))
        best = read_json(self.folder / "tuning.json")["best"]
        for split in ("dev", "test"):
            self._infer(view, split, [stored, best])
        oracle = self.folder / "oracle.json"
        self._step(view, "oracle", tuning, stored, [oracle], lambda: self._oracle(tuning, oracle))

    def _infer(self, view: View, split: str, upstream: Sequence[object]) -> None:
        folder = self.folder / split
        settings = self._settings(
            infer,
            *self._where(),
            *("--save_path", folder, "--split", split),
            *("--tuning", self.folder / "tuning.json"),
            *(["--votes"] if self.votes and split == "test" else []),
        )
        names = ["knn_results.json", "predictions.txt", COUNTS_FILE]
        outputs = [folder / name for name in names + [VOTES_FILE] * settings.votes]
        self._step(view, split, settings, upstream, outputs, lambda: infer.infer(settings))

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
                train.train(self._training())
            torch.use_deterministic_algorithms(deterministic)
            gc.collect()
        return hashlib.sha256(results.read_bytes()).hexdigest()

    def _oracle(self, settings: argparse.Namespace, path: Path) -> None:
        _, found, _ = sweep_split(settings, "test")
        note = "chosen on the test split, for comparison: not a fair number"
        write_json(path, {"note": note, "split": "test", "best": tune.best_setting(found)})

    def _step(
        self,
        view: View,
        name: str,
        settings: argparse.Namespace,
        upstream: object,
        outputs: Sequence[Path],
        work: Callable[[], object],
    ) -> None:
        """Do a step, unless it is finished: its outputs are there, and were made of the same."""
        if name not in self.steps:
            return
        kept = {n: value for n, value in sorted(vars(settings).items()) if n not in NO_KEY}
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

    def _training(self) -> argparse.Namespace:
        settings = self._settings(
            train,
            *("--bert_path", self.given.bert_path, "--save_path", self.folder),
            *("--seed", self.seed, "--resume"),
        )
        settings.train_batch_size = settings.train_batch_size or settings.batch_size
        settings.eval_batch_size = settings.eval_batch_size or settings.batch_size
        return settings

    def _where(self) -> tuple[object, ...]:
        return "--model_path", self.tagger / "model", "--datastore_path", self.datastore

    def _settings(self, command: ModuleType, *own: object) -> argparse.Namespace:
        """The settings of a command: its `own` flags, for the rest what the experiment was given."""
        corpus = ["--data_dir", self.given.data_dir, "--file_name", self.given.file_name]
        settings = command.parse_arguments([str(part) for part in (*corpus, *own)])
        fixed = {str(part).removeprefix("--") for part in own if str(part).startswith("--")}
        for name in vars(settings):
            if name not in fixed and hasattr(self.given, name):
                setattr(settings, name, getattr(self.given, name))
        return settings
