"""Building a datastore compared with the bare forward pass, and tuning compared with one encoding pass."""

import logging
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmark.measuring import Measured, measured
from benchmark.settings import BenchmarkSettings
from knn_ner.build_datastore import BuildSettings
from knn_ner.data.batching import inference_loader, sentence_chunks
from knn_ner.data.corpus import read_corpus
from knn_ner.data.encoding import EncodedSentence
from knn_ner.datastore.reader import Datastore
from knn_ner.model.key_layers import canonical_layer
from knn_ner.parallel.process_group import ProcessGroup
from knn_ner.settings import group_of
from knn_ner.tagging.store_keys import KeyFormat, write_keys
from knn_ner.tagging.trained_tagger import TrainedTagger
from knn_ner.tune import TuneSettings, tune
from knn_ner.utils.device import choose_device

logger = logging.getLogger(f"knn_ner.{__name__}")


def measure_building(settings: BenchmarkSettings, tagger: TrainedTagger) -> dict[str, Any]:
    """Measure a build from the labelled sentences, and the encoder alone over the same batches."""
    building = group_of(BuildSettings, settings, split="train")
    corpus = read_corpus(
        settings.data_dir, settings.file_name, splits=("train",), comments=settings.comments
    )
    sentences = corpus.splits["train"]
    chunks = [
        tagger.encoding.encode(chunk) for chunk in sentence_chunks(sentences, building.shard_words)
    ]
    provenance = tagger.provenance | {"layer": canonical_layer(building.key_layer)}
    key_format = KeyFormat(
        tagger.model.config.hidden_size, building.key_dtype, provenance, "benchmark"
    )
    built: list[Measured] = []
    bare = [forward_alone(settings, tagger, chunks)]
    ratios = []
    for repeat in range(settings.repeats):
        logger.info(f"building, run {repeat + 1} of {settings.repeats}")
        with tempfile.TemporaryDirectory(prefix="knn_ner_benchmark.") as folder:
            path = Path(folder) / "datastore"
            with measured() as took:
                write_keys(
                    path,
                    tagger,
                    sentences,
                    building,
                    key_format,
                    building.shard_words,
                    lambda: None,
                    ProcessGroup(),
                )
            store = Datastore.open(path)
        built.append(took)
        bare.append(forward_alone(settings, tagger, chunks))
        ratios.append(took.seconds / statistics.mean(each.seconds for each in bare[-2:]))
    seconds = statistics.median(took.seconds for took in built)
    memory = [
        took.megabytes - forward.megabytes
        for took, forward in zip(built, bare[1:], strict=True)
        if took.megabytes is not None and forward.megabytes is not None
    ]
    return {
        "entries": store.entries,
        "bytes": store.manifest.bytes,
        "seconds": round(seconds, 3),
        "forward_seconds": round(statistics.median(took.seconds for took in bare), 3),
        **ratio_fields(ratios),
        "tokens_per_second": round(store.entries / seconds),
        "megabytes_beyond_forward": round(max(memory), 1) if memory else None,
    }


def forward_alone(
    settings: BenchmarkSettings,
    tagger: TrainedTagger,
    chunks: Sequence[Sequence[EncodedSentence]],
) -> Measured:
    """Measure the encoder and its classifier alone, over the batches of a build."""
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


def measure_tuning(settings: BenchmarkSettings, datastore_path: Path) -> dict[str, Any]:
    """Measure the sweep over all settings, and the encoding of the dev split in the same run."""
    runs = []
    for repeat in range(settings.repeats):
        logger.info(f"tuning, run {repeat + 1} of {settings.repeats}")
        with tempfile.TemporaryDirectory(prefix="knn_ner_benchmark.") as folder:
            paths = {"datastore_path": str(datastore_path), "save_path": folder}
            runs.append(tune(group_of(TuneSettings, settings, **paths)))
    return {
        "settings": runs[0]["settings_tried"],
        **{
            f"{name}_seconds": round(statistics.median(run["seconds"][name] for run in runs), 3)
            for name in ("encode", "search", "sweep")
        },
        **ratio_fields([run["seconds"]["sweep"] / run["seconds"]["encode"] for run in runs]),
    }


def ratio_fields(ratios: Sequence[float]) -> dict[str, Any]:
    """The median of the ratios, and all of them."""
    return {
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
    }
