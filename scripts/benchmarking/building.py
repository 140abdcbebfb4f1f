"""Building a datastore against the bare forward pass, and tuning against one encoding pass."""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarking.measuring import Measured, measured
from knn_ner import build_datastore, tune
from knn_ner.cli import say
from knn_ner.data.corpus import read_corpus
from knn_ner.data.loading import inference_loader, sentence_chunks
from knn_ner.group import Group
from knn_ner.model.layers import canonical_layer
from knn_ner.model.representations import choose_device
from knn_ner.pipeline import LoadedTagger
from knn_ner.retrieval.datastore import Datastore


def measure_building(settings: argparse.Namespace, tagger: LoadedTagger) -> dict:
    """Seconds to build from the labelled sentences, and of the encoder alone over the same batches."""
    building = build_datastore.parse_arguments(command(settings, "--datastore_path", "unused"))
    corpus = read_corpus(settings.data_dir, settings.file_name, splits=("train",))
    sentences = corpus.splits["train"]
    chunks = [
        tagger.encoding.encode(chunk) for chunk in sentence_chunks(sentences, building.shard_words)
    ]
    built, bare, ratios = [], [], []
    for repeat in range(settings.repeats):
        say(f"building, run {repeat + 1} of {settings.repeats}")
        if not bare:
            bare.append(forward_alone(settings, tagger, chunks))
        with tempfile.TemporaryDirectory(prefix="knn_ner_benchmark.") as folder:
            path = Path(folder) / "datastore"
            how = {
                "dim": tagger.model.config.hidden_size,
                "dtype": building.key_dtype,
                "made_with": tagger.made_with | {"layer": canonical_layer(building.key_layer)},
                "fingerprint": "benchmark",
            }
            with measured() as took:
                build_datastore.write_keys(
                    path, tagger, sentences, building, how, lambda: None, Group()
                )
            store = Datastore.open(path)
        built.append(took)
        bare.append(forward_alone(settings, tagger, chunks))
        ratios.append(took.seconds / statistics.mean(each.seconds for each in bare[-2:]))
    seconds = statistics.median(took.seconds for took in built)
    most = [
        took.megabytes - forward.megabytes
        for took, forward in zip(built, bare[1:], strict=True)
        if took.megabytes is not None
    ]
    return {
        "entries": store.entries,
        "bytes": store.manifest.bytes,
        "seconds": round(seconds, 3),
        "forward_seconds": round(statistics.median(took.seconds for took in bare), 3),
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "tokens_per_second": round(store.entries / seconds),
        "megabytes_beyond_forward": round(max(most), 1) if most else None,
    }


def forward_alone(settings: argparse.Namespace, tagger: LoadedTagger, chunks: list) -> Measured:
    """The encoder and its classifier over the batches that a build makes, and nothing else."""
    device = choose_device(settings.device)
    model = tagger.model.eval().to(device)
    with measured() as took, torch.inference_mode():
        for chunk in chunks:
            loader = inference_loader(
                chunk, tagger.tokenizer.pad_token_id, tagger.max_length, settings.batch_size
            )
            for batch in loader:
                model(**{name: tensor.to(device) for name, tensor in batch["inputs"].items()})
    return took


def measure_tuning(settings: argparse.Namespace, path: Path) -> dict:
    """Seconds of the sweep, and of encoding the dev split, in the same run."""
    runs = []
    for repeat in range(settings.repeats):
        say(f"tuning, run {repeat + 1} of {settings.repeats}")
        with tempfile.TemporaryDirectory(prefix="knn_ner_benchmark.") as folder:
            arguments = command(settings, "--datastore_path", path, "--save_path", folder)
            runs.append(tune.tune(tune.parse_arguments(arguments)))
    ratios = [run["seconds"]["sweep"] / run["seconds"]["encode"] for run in runs]
    return {
        "settings": runs[0]["settings_tried"],
        **{
            f"{name}_seconds": round(statistics.median(run["seconds"][name] for run in runs), 3)
            for name in ("encode", "search", "sweep")
        },
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
    }


def command(settings: argparse.Namespace, *more: object) -> list[str]:
    """The command line that another command is to be run with."""
    names = ("data_dir", "file_name", "model_path", "batch_size", "max_length", "device")
    flags = [part for name in names for part in (f"--{name}", getattr(settings, name))]
    return [str(part) for part in (*flags, *more)]
