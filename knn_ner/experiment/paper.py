"""The published experiments: the scores of the paper and the settings of its code.

`paper_results.csv` holds the five tables of kNN-NER (arXiv 2203.17103); its last column is computed from P and R.
`published_hyperparameters.csv` holds the settings of the 22 experiments in the authors' code
(github.com/ShannonAI/KNN-NER), by the folder of their scripts; k = -1 stands for the whole datastore.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

# The names of the encoders in the paper's tables.
BACKBONES = {
    "google-bert/bert-base-chinese": "BERT-Base",
    "google-bert/bert-base-cased": "BERT-Base",
    "google-bert/bert-large-cased": "BERT-Large",
    "hfl/chinese-roberta-wwm-ext": "RoBERTa-Base",
    "hfl/chinese-roberta-wwm-ext-large": "RoBERTa-Large",
    "FacebookAI/roberta-large": "RoBERTa-Large",
    "ShannonAI/ChineseBERT-base": "ChineseBERT-Base",
    "ShannonAI/ChineseBERT-large": "ChineseBERT-Large",
}

# The names of the corpora in scripts/prepare_data.py, and of their folders.
CORPORA = {
    "conll03_en": "conll2003",
    "msra_zh": "msra",
    "ontonotes4_zh": "ontonotes4",
    "ontonotes5_en": "ontonotes5",
    "resume_zh": "resume",
    "weibo_zh": "weibo",
}

# The published code has no scripts for this row of the paper.
WITHOUT_PUBLISHED_SETTINGS = {("conll03_en", "BERT-Base"): "bert/conll_bert_base"}

# P, R and F1 are printed with two digits: each is off by up to 0.005, and so is the harmonic mean of P and R.
ROUNDING = 0.01


@dataclass(frozen=True)
class Score:
    """A published precision, recall and F1, in percent."""

    precision: float
    recall: float
    f1: float

    @property
    def harmonic_mean(self) -> float:
        """The harmonic mean of precision and recall, which F1 is by definition."""
        return 2 * self.precision * self.recall / (self.precision + self.recall)

    @property
    def is_consistent(self) -> bool:
        """Whether F1 equals the harmonic mean, up to rounding."""
        return abs(self.f1 - self.harmonic_mean) <= ROUNDING


@dataclass(frozen=True)
class Training:
    """The published settings of a training that the tables compare with those of a run."""

    encoder: str
    lr: float
    epochs: int
    corpus: str

    def differences(self, settings: Mapping[str, Any]) -> list[str]:
        """Name the settings of a run that differ.

        Args:
            settings: the settings that `train_results.json` records.
        """
        encoder = str(settings.get("bert_path", self.encoder)).rstrip("/").rsplit("/", 1)[-1]
        corpus = Path(str(settings.get("data_dir", self.corpus))).name
        lr, epochs = settings.get("lr", self.lr), settings.get("max_epochs", self.epochs)
        found = {
            f"encoder {encoder}": encoder != self.encoder.rsplit("/", 1)[-1],
            f"lr {lr:g}": lr != self.lr,
            f"{epochs} epochs": epochs != self.epochs,
            f"corpus {corpus}": corpus != self.corpus,
        }
        return [name for name, differs in found.items() if differs]


@dataclass(frozen=True)
class PublishedExperiment:
    """An experiment of the paper or of its code.

    Attributes:
        script_dir: the folder of its scripts.
        dataset: the name of the corpus, such as `weibo_zh`.
        backbone: the encoder, as the paper's tables call it.
        vote: k, temperature and knn_weight; None if they are not published.
        base: the score of the tagger; None if the paper does not report the experiment.
        knn: the score of kNN, likewise.
        gain: the gain in F1, likewise.
        training: the encoder, learning rate, epochs and corpus that the scripts pass; None if they are not published.
    """

    script_dir: str
    dataset: str
    backbone: str
    vote: tuple[int, float, float] | None
    base: Score | None
    knn: Score | None
    gain: float | None
    training: Training | None = None


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of `paper_results.csv` or `published_hyperparameters.csv`."""
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def published_experiments() -> list[PublishedExperiment]:
    """All published experiments: first those of the paper in its order, then those of the code alone."""
    settings = {
        (row["dataset"], BACKBONES[row["backbone"]]): row
        for row in read_table("published_hyperparameters.csv")
    }
    scores: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for row in read_table("paper_results.csv"):
        scores.setdefault((row["dataset"], row["backbone"]), {})[row["system"]] = row
    found = []
    for key in dict.fromkeys([*scores, *settings]):
        systems = scores.get(key)
        vote = training = None
        if key in settings:
            row = settings[key]
            training = Training(
                row["backbone"], float(row["lr"]), int(row["max_epochs"]), CORPORA[row["dataset"]]
            )
            # The published scripts of Resume try many settings on the test set and choose none.
            if row["dataset"] != "resume_zh":
                vote = int(row["k"]), float(row["temperature"]), float(row["knn_weight"])
        found.append(
            PublishedExperiment(
                settings[key]["script_dir"] if training else WITHOUT_PUBLISHED_SETTINGS[key],
                *key,
                vote,
                _score(systems["base"]) if systems else None,
                _score(systems["knn"]) if systems else None,
                float(systems["knn"]["gain"]) if systems else None,
                training,
            )
        )
    return found


def _score(row: dict[str, str]) -> Score:
    return Score(float(row["precision"]), float(row["recall"]), float(row["f1"]))
