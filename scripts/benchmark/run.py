"""All measurements of kNN inference, building and tuning.

Seconds and ratios are medians of several runs; a ratio is to the tagger alone just before and just after. The
datastore does not change: indexes are built in a copy that consists of links.
"""

import dataclasses
import json
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.building import measure_building, measure_tuning
from benchmark.inference import Bench, first_sentences, measure_covers, measure_inference
from benchmark.scale import DIM, measure_scale
from benchmark.settings import BenchmarkSettings
from knn_ner.data.corpus import read_corpus
from knn_ner.datastore.reader import Datastore
from knn_ner.search.faiss_build import build_index, recommended
from knn_ner.search.faiss_index import list_records
from knn_ner.tagging.split import load_with_split
from knn_ner.utils.command import read_command
from knn_ner.utils.device import choose_device
from knn_ner.utils.files import write_json
from knn_ner.utils.tables import markdown_table

logger = logging.getLogger(f"knn_ner.{__name__}")


def parse_arguments(argv: list[str] | None = None) -> BenchmarkSettings:
    """Read the command line of `python scripts/benchmark.py`."""
    return read_command(
        BenchmarkSettings,
        argv,
        "Measure kNN inference, building and tuning, side by side in one run.",
        "python scripts/benchmark.py",
    )


def benchmark(settings: BenchmarkSettings) -> dict[str, Any]:
    """Measure all parts.

    Returns:
        What the JSON file holds.

    Raises:
        UserError: for bad input.
    """
    device = choose_device(settings.device)
    results: dict[str, Any] = {
        "machine": machine(device),
        "settings": dataclasses.asdict(settings),
    }
    with tempfile.TemporaryDirectory(prefix="knn_ner_benchmark.") as folder:
        path = Path(folder) / "datastore"
        link_store(Path(settings.datastore_path), path)
        corpus = read_corpus(
            settings.data_dir,
            settings.file_name,
            splits=(settings.split,),
            comments=settings.comments,
        )
        where = dataclasses.replace(settings, datastore_path=str(path))
        tagger, store, split = load_with_split(where, settings, corpus, settings.split)
        results["store"] = {"entries": store.entries, "dim": store.dim, "dtype": str(store.dtype)}
        if "inference" in settings.parts:
            bench = Bench(tagger, store, first_sentences(split, settings.sentences), settings)
            results["covers"] = measure_covers(bench)
            results["indexes"] = build_indexes(store, settings.indexes, settings.seed)
            names = [index["name"] for index in results["indexes"]]
            results["inference"] = measure_inference(bench, names)
        if "building" in settings.parts:
            results["building"] = measure_building(settings, tagger)
        if "tuning" in settings.parts:
            results["tuning"] = measure_tuning(settings, path)
    if "scale" in settings.parts:
        sizes = [size for size in settings.sizes if fits(size)]
        results["scale"] = measure_scale(sizes, settings.k, device)
    return results


def link_store(source: Path, path: Path) -> None:
    """Copy a datastore, so that nothing is written into its own folder: as hard links where the file system can."""
    Datastore.open(source)

    def link(old: str, new: str) -> None:
        try:
            os.link(old, new)
        except OSError:
            shutil.copy2(old, new)

    shutil.copytree(
        source,
        path,
        copy_function=link,
        ignore=shutil.ignore_patterns("*.lock", "cover-*", "building.json"),
    )


def build_indexes(store: Datastore, names: Sequence[str] | None, seed: int) -> list[dict[str, Any]]:
    """Build the indexes to measure.

    Args:
        store: the datastore.
        names: names of indexes; None for those of the datastore and the recommended one.
        seed: random seed of their training.

    Returns:
        Name, seconds of the build and bytes of each.
    """
    if names is None:
        records = [each for each in list_records(store.path) if each.similarity == "cosine"]
        names = list(dict.fromkeys([*(r.index for r in records), recommended(store.entries)]))
    built = [build_index(store.path, name, "cosine", seed).record for name in names]
    return [
        {"name": record.index, "seconds": record.seconds, "bytes": record.bytes} for record in built
    ]


def fits(entries: int) -> bool:
    """Whether the random keys of a datastore take less than half of the memory; logs if they do not."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if entries * DIM * 2 < memory / 2:
        return True
    logger.info(
        f"a datastore of {entries} entries is left out: it takes more than half of the memory"
    )
    return False


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, threads, device and versions."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
    return {
        "processor": processor,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def to_markdown(results: dict[str, Any]) -> str:
    """The tables for the terminal, in Markdown."""
    blocks = []
    if "inference" in results:
        blocks.append(inference_table(results["inference"]))
    lines = [
        f"{name}: {json.dumps(results[name])}\n"
        for name in ("covers", "indexes", "building", "tuning")
        if name in results
    ]
    blocks += ["".join(lines)] if lines else []
    if "scale" in results:
        blocks.append(scale_table(results["scale"]))
    return "\n".join(blocks)


def inference_table(rows: Sequence[dict[str, Any]]) -> str:
    """The table of all ways of inference."""
    columns = ("", "k", "knn_weight", "seconds", "ratio", "searched", "other tags", "MB")
    lines = [[*columns, "settled by"]]
    for row in rows:
        share, ratios = row["searched"], row["ratios"]
        cells = [
            row["way"],
            row["k"],
            row["knn_weight"],
            f"{row['seconds']:.2f}",
            f"{row['ratio']:.3f} ({min(ratios):.2f} to {max(ratios):.2f})",
            None if share is None else f"{100 * share:.2f}%",
            row["different_tags"],
            row["megabytes"],
            ", ".join(f"{name} {count}" for name, count in row.get("settled", {}).items()),
        ]
        lines.append(texts(cells))
    return markdown_table(lines)


def scale_table(rows: Sequence[dict[str, Any]]) -> str:
    """The table of the datastores of random keys."""
    exact = ("exact, ms a query", "MB", "k = -1, ms a query", "MB")
    lines = [["entries", "k", *exact, "index", "ms a query", "MB"]]
    for row in rows:
        index = row.get("index", {})
        cells = [row["entries"], row["k"]]
        for part in (row["exact"], row["k_all"]):
            cells += [part["ms_per_query"], part["megabytes"]]
        cells += [index.get(name) for name in ("name", "ms_per_query", "megabytes")]
        lines.append(texts(cells))
    return markdown_table(lines)


def texts(cells: Sequence[object]) -> list[str]:
    """The cells of a table's row; None becomes empty."""
    return ["" if cell is None else str(cell) for cell in cells]


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    results = benchmark(settings)
    if settings.out:
        write_json(settings.out, results)
    print(to_markdown(results), end="")
