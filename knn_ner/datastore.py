"""Look at a datastore, and change it without building it anew.

    python -m knn_ner.datastore add     --datastore_path P --model_path S/model --file FILE
    python -m knn_ner.datastore remove  --datastore_path P --ids 3 17 20-30
    python -m knn_ner.datastore relabel --datastore_path P --model_path S/model --id 17 --tags "O B-PER E-PER"
    python -m knn_ner.datastore relabel --datastore_path P --model_path S/model --file FILE
    python -m knn_ner.datastore merge   P1 P2 --out P
    python -m knn_ner.datastore prune   --datastore_path P --out P2 --keep 0.25
    python -m knn_ner.datastore compact --datastore_path P
    python -m knn_ner.datastore info    --datastore_path P [--json]
    python -m knn_ner.datastore verify  --datastore_path P

Sentences have ids, which are never used twice. Each change is one commit: whoever has the datastore open
goes on with what was opened.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knn_ner.cli import Parser, add_run_arguments, positive_int, positive_proportion, run_main
from knn_ner.errors import UserError
from knn_ner.inspection import counted, describe, show, verify
from knn_ner.retrieval.cells import UNANIMOUS
from knn_ner.retrieval.compaction import compact, merge
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.edit import remove_sentences
from knn_ner.retrieval.folder import WAIT

if TYPE_CHECKING:
    from knn_ner.editing import add_sentences, relabel_sentence

__all__ = ["add_sentences", "relabel_sentence", "remove_sentences"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: these take torch and transformers, and with them seconds; most commands do not.
    if name in __all__:
        from knn_ner import editing

        return getattr(editing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m knn_ner.datastore`."""
    parser = Parser(
        "Look at a datastore, and change it without building it anew.",
        prog="python -m knn_ner.datastore",
    )
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="COMMAND",
        parser_class=lambda prog, description, **_: Parser(description, prog),
    )

    def command(name: str, what: str, *, model: bool = False, writes: bool = True) -> Parser:
        sub = commands.add_parser(name, help=what, description=what)
        sub.add_argument("--datastore_path", required=True, metavar="P", help="the datastore")
        if model:
            sub.add_argument(
                "--model_path",
                required=True,
                metavar="S/model",
                help="the tagger that the datastore was built with: a folder or a hub name",
            )
        if writes:
            sub.add_argument(
                "--wait",
                type=float,
                default=WAIT,
                metavar="SECONDS",
                help="for another process that is changing the datastore",
            )
        return sub

    add = command("add", "Add the labelled sentences of a column file.", model=True)
    add.add_argument("--file", required=True, help="tokens and tags; labels may be new")
    add_run_arguments(add)

    remove = command("remove", "Remove sentences.")
    remove.add_argument(
        "--ids",
        required=True,
        nargs="+",
        type=id_range,
        metavar="ID",
        help="ids, and ranges such as 20-30: all that are stored of these",
    )

    relabel = command("relabel", "Give sentences other tags; their keys stay.", model=True)
    which = relabel.add_mutually_exclusive_group(required=True)
    which.add_argument("--id", type=int, help="the sentence that --tags are for")
    which.add_argument(
        "--file",
        help="sentences as they should be; each is looked up by its words, and all that have the same "
        "words take its tags",
    )
    relabel.add_argument("--tags", help="one for each word, separated by spaces")

    merging = commands.add_parser(
        "merge",
        help="Write the content of several datastores of one tagger into a new one.",
        description="Write the content of several datastores of one tagger into a new one.",
    )
    merging.add_argument("paths", nargs="+", metavar="P", help="the datastores")
    merging.add_argument("--out", required=True, metavar="P", help="folder for the merged one")

    pruning = command(
        "prune", "Write a smaller datastore, whose entries stand for others too.", writes=False
    )
    pruning.add_argument("--out", required=True, metavar="P2", help="folder for the smaller one")
    pruning.add_argument(
        "--keep",
        required=True,
        type=positive_proportion,
        metavar="SHARE",
        help="of the entries, about; 1: only those go that are there twice, which changes no vote",
    )
    pruning.add_argument(
        "--unanimous",
        type=positive_int,
        default=UNANIMOUS,
        metavar="M",
        help="an entry stays if one of its M nearest neighbours has another label",
    )
    pruning.add_argument(
        "--similarity",
        default="cosine",
        help="cosine or l2, as the datastore is to be searched with",
    )
    pruning.add_argument("--seed", type=int, default=0, help="of the clusters")

    command("compact", "Drop what was removed from the files, and join small shards.")
    info = command("info", "Tell what a datastore holds, and its history.", writes=False)
    info.add_argument("--json", action="store_true", help="as JSON")
    command("verify", "Read all files against their checksums.", writes=False)
    settings = parser.parse_args(argv)
    if settings.command == "relabel" and (settings.id is None) != (settings.tags is None):
        parser.error("relabel takes --id with --tags, or --file")
    if settings.command == "merge" and len(settings.paths) < 2:
        parser.error("merge takes two datastores or more")
    return settings


def id_range(text: str) -> range:
    """An argparse type: `17`, or `20-30` with both ends."""
    first, dash, last = text.partition("-")
    if not first.isdecimal() or not (last.isdecimal() if dash else True):
        raise argparse.ArgumentTypeError(f"{text!r} found, an id or a range such as 20-30 expected")
    return range(int(first), int(last or first) + 1)


def remove_ids(settings: argparse.Namespace) -> str:
    """`remove`; returns what to print."""
    path = Path(settings.datastore_path)
    stored = Datastore.open(path).stored_sentences
    ids: set[int] = set()
    for wanted in settings.ids:
        found = stored[(stored >= wanted.start) & (stored < wanted.stop)].tolist()
        # A single one that is not stored is an error below; a range needs but one that is.
        if not found and len(wanted) != 1:
            raise UserError(f"{path}: no sentence from {wanted.start} to {wanted.stop - 1}")
        ids.update(found or wanted)
    entries = remove_sentences(path, ids, settings.wait)
    return f"{path}: {counted(len(ids), 'sentence')} removed, with {counted(entries, 'entry')}"


def prune_entries(settings: argparse.Namespace) -> str:
    """`prune`; returns what to print."""
    # Takes torch, and with it seconds, as above.
    from knn_ner.retrieval.pruning import prune

    before, after, plan = prune(
        settings.datastore_path,
        settings.out,
        settings.keep,
        unanimous=settings.unanimous,
        similarity=settings.similarity,
        seed=settings.seed,
    )
    gone = before.entries - after.entries - plan.duplicates
    lines = [
        f"{settings.out}: {counted(after.entries, 'entry')} for {before.entries} "
        f"({before.entries / after.entries:.1f} times fewer), {before.bytes / 1e6:.1f} MB -> "
        f"{after.bytes / 1e6:.1f} MB",
        f"{plan.duplicates} were there twice" + (", each counted now" if plan.duplicates else ""),
    ]
    if settings.keep < 1:
        lines[1] += (
            f"; {gone} of {plan.certain} with neighbours of one label went to others, "
            f"{settings.similarity} similarity {plan.similarity:.3f} on average"
        )
    return "\n".join([*lines, "tune anew: k, temperature and knn_weight are not taken over"])


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    settings = parse_arguments(argv)
    if settings.command in ("add", "relabel"):
        # Seconds, as above.
        from knn_ner.labelled_files import add_file, relabel

        print(add_file(settings) if settings.command == "add" else relabel(settings))
    elif settings.command == "remove":
        print(remove_ids(settings))
    elif settings.command == "merge":
        merged = merge(settings.paths, settings.out)
        print(
            f"{settings.out}: {counted(merged.entries, 'entry')} of "
            f"{counted(merged.sentences, 'sentence')}"
        )
    elif settings.command == "prune":
        print(prune_entries(settings))
    elif settings.command == "compact":
        before, after = compact(settings.datastore_path, settings.wait)
        print(
            f"{settings.datastore_path}: {counted(len(before.shards), 'shard')}, "
            f"{before.bytes / 1e6:.1f} MB -> {counted(len(after.shards), 'shard')}, "
            f"{after.bytes / 1e6:.1f} MB"
        )
    elif settings.command == "verify":
        print(verify(settings.datastore_path))
    else:
        told = describe(settings.datastore_path)
        print(json.dumps(told, indent=2, ensure_ascii=False) if settings.json else show(told))


if __name__ == "__main__":
    run_main(main)
