"""Build a FAISS index of a datastore, for faster search in a large one.

    python -m knn_ner.build_index --datastore_path P --index "IVF4096,SQfp16"

The index lies in the store's folder. Commands that retrieve take it with `--index`; without that flag
search stays exact. After sentences were added, the same command takes them in.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knn_ner.settings import Similarity
from knn_ner.utils.arguments import flag, random_seed
from knn_ner.utils.command import read_command, run_main

if TYPE_CHECKING:
    from knn_ner.search.faiss_build import Built

logger = logging.getLogger("knn_ner.build_index")


@dataclass(frozen=True, kw_only=True)
class BuildIndexSettings:
    """The settings of `python -m knn_ner.build_index`."""

    datastore_path: str = flag(metavar="P")
    """the datastore"""
    index: str = flag("auto", metavar="NAME")
    """a string of faiss's index_factory: Flat, HNSW32, IVF4096,Flat, IVF4096,PQ48, PCA64,IVF1024,Flat, ...; auto:
    IVF with as many lists as fit the store, in float16"""
    similarity: Similarity = flag("cosine")
    """similarity of two hidden states that the index is searched by; l2 is minus the squared distance"""
    seed: int = flag(0, parse=random_seed)
    """random seed of the keys to train on"""


def parse_arguments(argv: list[str] | None = None) -> BuildIndexSettings:
    """Read the command line of `python -m knn_ner.build_index`."""
    return read_command(
        BuildIndexSettings,
        argv,
        "Build a FAISS index of a datastore, or take in what was added since.",
        "python -m knn_ner.build_index",
    )


def tell(built: "Built", path: str) -> str:
    """What became of an index, in one line."""
    record = built.record
    what = f'{path}: index "{record.index}" ({record.similarity})'
    if built.action == "there":
        return f"{what} is there already, with all {record.entries} entries"
    size = f"{record.bytes / 1e6:.1f} MB, {record.seconds:.1f} s"
    if built.action == "extended":
        return f"{what} extended by {built.added} entries to {record.entries}, {size}"
    return f"{what} built of {record.entries} entries, {size}"


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    # Imported here, as torch takes seconds that `--help` need not wait.
    from knn_ner.search.faiss_build import build_index

    built = build_index(settings.datastore_path, settings.index, settings.similarity, settings.seed)
    if built.reason:
        logger.info(f"{settings.datastore_path}: built anew, as {built.reason}")
    print(tell(built, settings.datastore_path))


if __name__ == "__main__":
    run_main(main)
