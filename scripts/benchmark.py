"""How fast kNN inference, building and tuning are, everything side by side in one run.

    python scripts/benchmark.py --data_dir D --file_name F --model_path S/model --datastore_path P [--out FILE]

Prints tables, and writes all numbers as JSON to FILE. Seconds and ratios are medians of several runs; a ratio
is to the tagger alone just before and just after. The datastore is not changed: indexes are built in a copy of
links.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarking.building import measure_building, measure_tuning
from benchmarking.inference import Bench, measure_covers, measure_inference
from benchmarking.scale import measure_scale

from knn_ner.cli import (
    Parser,
    add_data_arguments,
    add_run_arguments,
    non_negative_int,
    positive_float,
    positive_int,
    run_main,
    say,
)
from knn_ner.data.corpus import SPLITS, other_positions, read_corpus
from knn_ner.files import write_text
from knn_ner.model.representations import choose_device
from knn_ner.pipeline import Split, load, make_split
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.faiss_build import build_index, recommended
from knn_ner.retrieval.manifest import Manifest
from knn_ner.tagging import open_datastore

PARTS = ("inference", "building", "tuning", "scale")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser("Measure kNN inference, building and tuning, side by side in one run.")
    add_data_arguments(parser)
    parser.add_argument("--model_path", required=True, metavar="S/model", help="the tagger")
    parser.add_argument("--datastore_path", required=True, metavar="P", help="its datastore")
    parser.add_argument("--out", metavar="FILE", help="JSON file for all numbers")
    parser.add_argument("--split", choices=SPLITS, default="test", help="the split to tag")
    parser.add_argument("--k", type=positive_int, default=1024, help="neighbours that vote")
    parser.add_argument(
        "--temperature", type=positive_float, default=0.05, help="T of exp(similarity / T)"
    )
    parser.add_argument("--repeats", type=positive_int, default=5, help="runs of each measurement")
    parser.add_argument(
        "--sentences", type=positive_int, help="tag the first so many sentences alone"
    )
    parser.add_argument(
        "--published_sentences",
        type=non_negative_int,
        default=100,
        help="sentences to run the published algorithm on, which takes long",
    )
    parser.add_argument(
        "--indexes",
        nargs="*",
        help="FAISS indexes to measure, built if they are not there (if not given: those of the "
        "datastore, and the one that `--index auto` picks)",
    )
    parser.add_argument(
        "--sizes",
        type=positive_int,
        nargs="*",
        default=[10_000, 100_000, 1_000_000, 10_000_000],
        help="entries of the stores of random keys; what does not fit the memory is left out",
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure"
    )
    add_run_arguments(parser)
    return parser.parse_args(argv)


def benchmark(settings: argparse.Namespace) -> dict:
    """Measure all parts; returns what the JSON holds."""
    device = choose_device(settings.device)
    results: dict = {"machine": machine(device), "settings": vars(settings)}
    with tempfile.TemporaryDirectory(prefix="knn_ner_benchmark.") as folder:
        path = Path(folder) / "datastore"
        link_store(Path(settings.datastore_path), path)
        corpus = read_corpus(settings.data_dir, settings.file_name, splits=(settings.split,))
        labels = Manifest.read(path).labels
        labels = [*labels, *other_positions(corpus.splits[settings.split], labels)]
        tagger = load(settings.model_path, settings.max_length, corpus, labels)
        store = open_datastore(path, tagger)
        results["store"] = {"entries": store.entries, "dim": store.dim, "dtype": str(store.dtype)}
        if "inference" in settings.parts:
            split = make_split(corpus, settings.split, tagger.encoding_with(labels))
            bench = Bench(
                tagger,
                store,
                first_sentences(split, settings.sentences),
                settings.k,
                settings.temperature,
                settings.repeats,
                settings.published_sentences,
                {
                    "device": device,
                    "batch_size": settings.batch_size,
                    "precision": settings.precision,
                    "workers": settings.workers,
                },
            )
            results["covers"] = measure_covers(bench)
            results["indexes"] = build_indexes(settings, store)
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
    """A copy of a store whose files are links, so that nothing is written into the store itself."""
    Datastore.open(source)
    shutil.copytree(
        source,
        path,
        copy_function=lambda old, new: Path(new).symlink_to(Path(old).resolve()),
        ignore=shutil.ignore_patterns("*.lock", "cover-*", "building.json"),
    )


def build_indexes(settings: argparse.Namespace, store: Datastore) -> list[dict]:
    """Build what is to be measured; how long it took, and its size."""
    names = settings.indexes
    if names is None:
        names = [
            record.name.removeprefix("index-cosine-").removesuffix(".json")
            for record in sorted(store.path.glob("index-cosine-*.json"))
        ]
        names = list(dict.fromkeys([*names, recommended(store.entries)]))
    built = [build_index(store.path, name, "cosine", settings.seed).record for name in names]
    return [
        {"name": record.index, "seconds": record.seconds, "bytes": record.bytes} for record in built
    ]


def first_sentences(split: Split, count: int | None) -> Split:
    if count is None:
        return split
    return Split(split.sentences[:count], split.encoded[:count], split.labels, split.scheme)


def fits(entries: int) -> bool:
    """Whether random keys of a store find room in half of the memory, so that it is memory that is timed."""
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if entries * 384 * 2 < room / 2:
        return True
    say(f"a store of {entries} entries is left out: it takes more than half of the memory")
    return False


def machine(device: torch.device) -> dict:
    """What it was measured on."""
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


def table(results: dict) -> str:
    """The tables that the terminal shows, in Markdown."""
    lines: list[str] = []
    if "inference" in results:
        lines += [
            "| | k | knn_weight | seconds | ratio | searched | other tags | MB | settled by |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in results["inference"]:
            shown = [row["way"], row["k"], row["knn_weight"], f"{row['seconds']:.2f}"]
            lowest, highest = min(row["ratios"]), max(row["ratios"])
            shown.append(f"{row['ratio']:.3f} ({lowest:.2f} to {highest:.2f})")
            share = row["searched"]
            shown += [None if share is None else f"{100 * share:.2f}%", row["different_tags"]]
            shown.append(row["megabytes"])
            ways = row.get("settled", {}).items()
            shown.append(", ".join(f"{name} {count}" for name, count in ways))
            lines.append("| " + " | ".join("" if x is None else str(x) for x in shown) + " |")
        lines.append("")
        for name, value in (("covers", results["covers"]), ("indexes", results["indexes"])):
            lines.append(f"{name}: {json.dumps(value)}")
    for part in ("building", "tuning"):
        if part in results:
            lines.append(f"{part}: {json.dumps(results[part])}")
    if "scale" in results:
        lines += [
            "",
            "| entries | k | exact, ms a query | MB | k = -1, ms a query | MB | index | ms a query | MB |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in results["scale"]:
            index = row.get("index", {})
            shown = [row["entries"], row["k"]]
            for part in (row["exact"], row["k_all"]):
                shown += [part["ms_per_query"], part["megabytes"]]
            shown += [index.get("name"), index.get("ms_per_query"), index.get("megabytes")]
            lines.append("| " + " | ".join("" if x is None else str(x) for x in shown) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    settings = parse_arguments(argv)
    results = benchmark(settings)
    if settings.out:
        write_text(settings.out, json.dumps(results, indent=2, default=str) + "\n")
    print(table(results))


if __name__ == "__main__":
    run_main(main)
