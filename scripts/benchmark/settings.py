"""The settings of the benchmark."""

from dataclasses import dataclass
from typing import Literal

from knn_ner.settings import CorpusSettings, SeededRunSettings, SplitName, TaggerSettings
from knn_ner.utils.arguments import flag, non_negative_int, positive_float, positive_int

Part = Literal["inference", "building", "tuning", "scale"]


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings(CorpusSettings, TaggerSettings, SeededRunSettings):
    """The settings of `python scripts/benchmark.py`."""

    out: str | None = flag(None, metavar="FILE")
    """JSON file for all numbers"""
    split: SplitName = flag("test")
    """the split to tag"""
    k: int = flag(1024, parse=positive_int)
    """neighbours that vote"""
    temperature: float = flag(0.05, parse=positive_float)
    """T of exp(similarity / T)"""
    repeats: int = flag(5, parse=positive_int)
    """runs of each measurement"""
    sentences: int | None = flag(None, parse=positive_int)
    """number of sentences to tag, from the start of the split (if not given: all)"""
    published_sentences: int = flag(100, parse=non_negative_int)
    """number of sentences to run the published algorithm on, which is slow"""
    indexes: tuple[str, ...] | None = flag(None, nargs="*")
    """FAISS indexes to measure; missing ones are built (if not given: those of the datastore, and the one that
    `--index auto` prefers)"""
    sizes: tuple[int, ...] = flag(
        (10_000, 100_000, 1_000_000, 10_000_000), parse=positive_int, nargs="*"
    )
    """numbers of entries of the datastores of random keys; a datastore that needs more than half of the memory is
    left out"""
    parts: tuple[Part, ...] = flag(("inference", "building", "tuning", "scale"))
    """what to measure"""
