"""Measure how long it takes to add a sentence to a large datastore, until a reader sees it.

    python scripts/benchmark/adding.py --model_path S/model

makes a datastore of random keys for this tagger in a temporary folder, adds sentences one by one, and prints
the milliseconds for encoding, for adding (without encoding), and for refreshing an open reader.
"""

import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

# So that the script runs from any folder, with or without the package installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmark.random_store import WORDS, write_random_store
from knn_ner.data.corpus import Sentence
from knn_ner.datastore.reader import Datastore
from knn_ner.settings import RunSettings
from knn_ner.tagging.edit_sentences import add_sentences
from knn_ner.tagging.trained_tagger import load_alone
from knn_ner.utils.arguments import flag, positive_int
from knn_ner.utils.command import read_command, run_main

logger = logging.getLogger(f"knn_ner.{__name__}")

T = TypeVar("T")

# Sentences that are added before the measurements.
WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class AddingSettings:
    """The settings of `python scripts/benchmark/adding.py`."""

    model_path: str = flag(metavar="S/model")
    """the tagger: a folder or a hub name"""
    entries: int = flag(1_000_000, parse=positive_int)
    """number of entries of the datastore"""
    words: int = flag(30, parse=positive_int)
    """number of words in a sentence"""
    times: int = flag(100, parse=positive_int)
    """number of sentences to add"""


def milliseconds(action: Callable[[], T]) -> tuple[float, T]:
    """How long an action takes, and what it returns."""
    start = time.perf_counter()
    result = action()
    return 1000 * (time.perf_counter() - start), result


def measure(settings: AddingSettings) -> dict[str, list[float]]:
    """Measure the steps.

    Returns:
        The milliseconds for each sentence, by the name of the step.

    Raises:
        UserError: if the tagger cannot be loaded.
    """
    generator = random.Random(0)
    sentences = [
        Sentence(generator.choices(WORDS, k=settings.words), ["O"] * settings.words)
        for _ in range(WARM_UP + settings.times)
    ]
    run = RunSettings(batch_size=1, device="cpu")
    tagger = load_alone(settings.model_path, run.max_length)
    took: dict[str, list[float]] = {"encode": [], "add": [], "refresh": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "datastore"
        dim = tagger.model.config.hidden_size
        write_random_store(path, settings.entries, dim, tagger.labels, tagger.provenance)
        opening, reader = milliseconds(lambda: Datastore.open(path))
        logger.info(
            f"{reader.entries} x {reader.dim} {reader.dtype}, {reader.manifest.bytes / 1e6:.0f} MB, "
            f"opened in {opening:.0f} ms"
        )

        def encode(sentence: Sentence) -> None:
            list(tagger.hidden_states(tagger.encoding.encode([sentence]), run))

        for number, sentence in enumerate(sentences):
            encoding, _ = milliseconds(partial(encode, sentence))
            adding, _ = milliseconds(partial(add_sentences, path, tagger, [sentence], run))
            refreshing, reader = milliseconds(reader.refresh)
            assert reader.stored_sentences[-1] == reader.manifest.next_sentence - 1
            if number >= WARM_UP:
                for name, value in zip(
                    took, (encoding, adding - encoding, refreshing), strict=True
                ):
                    took[name].append(value)
    return took


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = read_command(
        AddingSettings,
        argv,
        "Measure how long adding a sentence to a large datastore takes.",
        "python scripts/benchmark/adding.py",
    )
    for name, took in measure(settings).items():
        print(f"{name:<8} median {np.median(took):6.1f} ms, worst {max(took):6.1f} ms")


if __name__ == "__main__":
    run_main(main)
