"""Build a FAISS index of a datastore, for faster search in a large one.

    python -m knn_ner.build_index --datastore_path P --index "IVF4096,SQfp16"

The index lies in the store's folder. Commands that retrieve take it with `--index`; without that flag
search stays exact. After sentences were added, the same command takes them in.
"""

import argparse

from knn_ner.cli import Parser, run_main, say
from knn_ner.retrieval.faiss_build import Built, build_index
from knn_ner.retrieval.similarity import SIMILARITIES


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m knn_ner.build_index`."""
    parser = Parser(
        "Build a FAISS index of a datastore, or take in what was added since.",
        prog="python -m knn_ner.build_index",
    )
    parser.add_argument("--datastore_path", required=True, metavar="P", help="the datastore")
    parser.add_argument(
        "--index",
        default="auto",
        metavar="NAME",
        help="a string of faiss's index_factory: Flat, HNSW32, IVF4096,Flat, IVF4096,PQ48, "
        "PCA64,IVF1024,Flat, ...; auto: IVF with as many lists as fit the store, in float16",
    )
    parser.add_argument(
        "--similarity",
        choices=SIMILARITIES,
        default="cosine",
        help="of two hidden states, as it will be searched by",
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the keys to train on")
    return parser.parse_args(argv)


def tell(built: Built, path: str) -> str:
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
    """The command line."""
    settings = parse_arguments(argv)
    built = build_index(settings.datastore_path, settings.index, settings.similarity, settings.seed)
    if built.reason:
        say(f"{settings.datastore_path}: built anew, as {built.reason}")
    print(tell(built, settings.datastore_path))


if __name__ == "__main__":
    run_main(main)
