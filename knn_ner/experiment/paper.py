"""What the paper and its code have published: scores and settings, to hold one's own results against.

`paper_results.csv`: the five tables of kNN-NER (arXiv 2203.17103); the last column is computed from P and R.
`published_hyperparameters.csv`: the settings of the 22 experiments in the authors' code
(github.com/ShannonAI/KNN-NER), by the folder of their scripts. `-1` for k is the whole datastore.
"""

import csv
from dataclasses import dataclass
from importlib import resources

# The encoders of the published experiments as the paper's tables call them.
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

# A row of the paper that the published code has no scripts for.
WITHOUT_PUBLISHED_SETTINGS = {("conll03_en", "BERT-Base"): "bert/conll_bert_base"}

# P, R and F1 are printed to two digits, so each is off by up to 0.005: rounding of P and R moves their
# harmonic mean by as much, and rounding of F1 adds its own.
ROUNDING = 0.01


@dataclass(frozen=True)
class Score:
    """A published precision, recall and F1, in percent."""

    precision: float
    recall: float
    f1: float

    @property
    def harmonic_mean(self) -> float:
        """What F1 is by definition."""
        return 2 * self.precision * self.recall / (self.precision + self.recall)

    @property
    def is_consistent(self) -> bool:
        """Whether rounding explains the distance of F1 from the harmonic mean of P and R."""
        return abs(self.f1 - self.harmonic_mean) <= ROUNDING


@dataclass(frozen=True)
class Experiment:
    """A folder of scripts, and what the paper reports for it.

    vote: the published k, temperature and knn_weight; None where none are published.
    base, knn, gain: the published scores; None for an experiment that is in no table of the paper.
    """

    script_dir: str
    dataset: str
    backbone: str
    vote: tuple[int, float, float] | None
    base: Score | None
    knn: Score | None
    gain: float | None


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of `paper_results.csv` or `published_hyperparameters.csv`."""
    with resources.files(__package__).joinpath(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def experiments() -> list[Experiment]:
    """Every experiment: first those of the paper in its order, then those that it does not report."""
    settings = {
        (row["dataset"], BACKBONES[row["backbone"]]): row
        for row in read_table("published_hyperparameters.csv")
    }
    scores: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for row in read_table("paper_results.csv"):
        scores.setdefault((row["dataset"], row["backbone"]), {})[row["system"]] = row
    found = []
    for key in [*scores, *(key for key in settings if key not in scores)]:
        row = settings.get(key)
        systems = scores.get(key)
        found.append(
            Experiment(
                row["script_dir"] if row else WITHOUT_PUBLISHED_SETTINGS[key],
                *key,
                (int(row["k"]), float(row["temperature"]), float(row["knn_weight"]))
                if row
                else None,
                _score(systems["base"]) if systems else None,
                _score(systems["knn"]) if systems else None,
                float(systems["knn"]["gain"]) if systems else None,
            )
        )
    return found


def _score(row: dict[str, str]) -> Score:
    return Score(float(row["precision"]), float(row["recall"]), float(row["f1"]))
