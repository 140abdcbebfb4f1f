"""How long it takes to add a sentence to a large datastore, until a reader sees it.

    python scripts/benchmark_add.py --model_path S/model

makes a datastore of random keys for that tagger in a temporary folder, adds sentences of 30 words one by one,
and prints the milliseconds that encoding, adding (without encoding) and refreshing an open reader take.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from knn_ner.cli import Parser, positive_int, run_main, say
from knn_ner.data.corpus import Corpus, Sentence
from knn_ner.data.tags import BIO
from knn_ner.datastore import add_sentences
from knn_ner.model.representations import choose_device, represent
from knn_ner.pipeline import LoadedTagger, load
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.writer import DatastoreWriter

WORDS = (
    "the",
    "committee",
    "said",
    "Tuesday",
    "that",
    "Lovelace",
    "met",
    "engineers",
    "in",
    "Geneva",
)
SENTENCE_ENTRIES = 30
SHARD_ENTRIES = 90_000


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser("Measure how long adding a sentence to a large datastore takes.")
    parser.add_argument("--model_path", required=True, metavar="S/model", help="the tagger")
    parser.add_argument("--entries", type=positive_int, default=1_000_000, help="of the datastore")
    parser.add_argument("--words", type=positive_int, default=30, help="of a sentence")
    parser.add_argument("--times", type=positive_int, default=100, help="sentences to add")
    return parser.parse_args(argv)


def write_random_store(path: Path, tagger: LoadedTagger, entries: int) -> None:
    """A store of the tagger with random float16 keys."""
    generator = np.random.default_rng(0)
    dim = tagger.model.config.hidden_size
    sizes = [SHARD_ENTRIES] * (entries // SHARD_ENTRIES) + [entries % SHARD_ENTRIES]
    sizes = [size for size in sizes if size]
    with DatastoreWriter(
        path,
        dim=dim,
        dtype="float16",
        labels=tagger.labels,
        made_with=tagger.made_with,
        fingerprint="random",
        shards=len(sizes),
    ) as writer:
        first = 0
        for number, size in enumerate(sizes):
            ids = first + np.arange(size) // SENTENCE_ENTRIES
            with writer.shard(number, size) as shard:
                shard.write(
                    0,
                    generator.standard_normal((size, dim), np.float32),
                    generator.integers(0, len(tagger.labels), size),
                    ids,
                    np.arange(size) % SENTENCE_ENTRIES,
                )
                for sentence_id in np.unique(ids):
                    shard.add_sentence(sentence_id, WORDS * 3, ["O"] * SENTENCE_ENTRIES)
            first = int(ids[-1]) + 1
        writer.commit()


def milliseconds(action) -> tuple[float, object]:
    """How long an action takes, and what it returns."""
    start = time.perf_counter()
    result = action()
    return 1000 * (time.perf_counter() - start), result


def measure(settings: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of each step, for each sentence."""
    draw = random.Random(0)
    sentences = [
        Sentence(draw.choices(WORDS, k=settings.words), ["O"] * settings.words)
        for _ in range(settings.times + 3)
    ]
    tagger = load(
        settings.model_path, 512, Corpus({"train": sentences}, {"train": Path()}, BIO, "BIO")
    )
    took: dict[str, list[float]] = {"encode": [], "add": [], "refresh": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "datastore"
        write_random_store(path, tagger, settings.entries)
        opening, reader = milliseconds(lambda: Datastore.open(path))
        size = reader.manifest.bytes / 1e6
        say(
            f"{reader.entries} x {reader.dim} {reader.dtype}, {size:.0f} MB, opened in {opening:.0f} ms"
        )

        def encode(sentence: Sentence) -> None:
            list(
                represent(
                    tagger.model,
                    tagger.encoding.encode([sentence]),
                    pad_id=tagger.tokenizer.pad_token_id,
                    max_length=tagger.max_length,
                    batch_size=1,
                    device=choose_device("cpu"),
                )
            )

        for number, sentence in enumerate(sentences):
            encoding, _ = milliseconds(lambda one=sentence: encode(one))
            adding, _ = milliseconds(lambda one=sentence: add_sentences(path, tagger, [one]))
            refreshing, reader = milliseconds(reader.refresh)
            assert reader.stored_sentences[-1] == reader.manifest.next_sentence - 1
            # The first ones warm up.
            if number >= 3:
                took["encode"].append(encoding)
                took["add"].append(adding - encoding)
                took["refresh"].append(refreshing)
    return took


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    for name, took in measure(parse_arguments(argv)).items():
        print(f"{name:<8} median {np.median(took):6.1f} ms, worst {max(took):6.1f} ms")


if __name__ == "__main__":
    run_main(main)
