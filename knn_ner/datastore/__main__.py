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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knn_ner.settings import SeededRunSettings, TaggerSettings
from knn_ner.utils.arguments import (
    Parser,
    add_settings,
    flag,
    positive_int,
    positive_proportion,
    take_settings,
)
from knn_ner.utils.command import run_main
from knn_ner.utils.errors import UserError
from knn_ner.utils.messages import show_messages
from knn_ner.utils.text import counted, show_ids

# Seconds to wait for another process that is changing the datastore (`datastore.locking.WAIT`).
WAIT = 60.0
# Neighbours that have to agree before an entry can be left out (`search.key_clusters.UNANIMOUS`).
UNANIMOUS = 32


def id_range(text: str) -> range:
    """An argparse type: `17`, or `20-30` with both ends."""
    first, dash, last = text.partition("-")
    if not first.isdecimal() or not (last.isdecimal() if dash else True):
        raise argparse.ArgumentTypeError(f"{text!r} found, an id or a range such as 20-30 expected")
    return range(int(first), int(last or first) + 1)


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """A datastore to look at."""

    datastore_path: str = flag(metavar="P")
    """the datastore"""


@dataclass(frozen=True, kw_only=True)
class WaitSettings:
    """How long a change waits for another one."""

    wait: float = flag(WAIT, metavar="SECONDS")
    """how long to wait for another process that is changing the datastore"""


@dataclass(frozen=True, kw_only=True)
class AddSettings(TaggerSettings, WaitSettings, SeededRunSettings):
    """Add the labelled sentences of a column file."""

    file: str = flag()
    """tokens and tags; labels may be new"""


@dataclass(frozen=True, kw_only=True)
class RemoveSettings(StoreSettings, WaitSettings):
    """Remove sentences."""

    ids: tuple[range, ...] = flag(parse=id_range, metavar="ID")
    """ids, and ranges such as 20-30: all stored sentences of a range"""


@dataclass(frozen=True, kw_only=True)
class RelabelSettings(TaggerSettings, WaitSettings):
    """Give sentences other tags; their keys stay."""

    id: int | None = flag(None)
    """the sentence that --tags are for"""
    tags: str | None = flag(None)
    """one tag for each word, separated by spaces"""
    file: str | None = flag(None)
    """sentences as they should be; each is looked up by its words, and all stored sentences with the same words
    take its tags"""


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """Write the content of several datastores of one tagger into a new one."""

    paths: tuple[str, ...] = flag(metavar="P", positional=True, nargs="+")
    """the datastores"""
    out: str = flag(metavar="P")
    """folder for the merged datastore"""


@dataclass(frozen=True, kw_only=True)
class PruneSettings(StoreSettings):
    """Write a smaller datastore, whose entries stand for others too."""

    out: str = flag(metavar="P2")
    """folder for the smaller datastore"""
    keep: float = flag(parse=positive_proportion, metavar="SHARE")
    """share of the entries to keep, about; 1: only duplicates go, which changes no vote"""
    unanimous: int = flag(UNANIMOUS, parse=positive_int, metavar="M")
    """an entry stays if one of its M nearest neighbours has another label"""
    similarity: str = flag("cosine")
    """cosine or l2, as the datastore is to be searched with"""
    seed: int = flag(0)
    """random seed of the clusters"""


@dataclass(frozen=True, kw_only=True)
class CompactSettings(StoreSettings, WaitSettings):
    """Drop what was removed from the files, and join small shards."""


@dataclass(frozen=True, kw_only=True)
class InfoSettings(StoreSettings):
    """Tell what a datastore holds, and its history."""

    json: bool = flag(False)
    """as JSON"""


@dataclass(frozen=True, kw_only=True)
class VerifySettings(StoreSettings):
    """Read all files against their checksums."""


def add(settings: AddSettings) -> str:
    """`add`; returns what to print."""
    from knn_ner.tagging.edit_from_files import add_file

    ids = add_file(settings, settings, settings.file, settings.wait)
    return f"{settings.datastore_path}: {counted(len(ids), 'sentence')} added, ids {show_ids(ids)}"


def relabel(settings: RelabelSettings) -> str:
    """`relabel`; returns what to print."""
    from knn_ner.tagging.edit_from_files import relabel_from_file, relabel_id

    if settings.file:
        asked, count, entries = relabel_from_file(settings, settings.file, settings.wait)
    else:
        assert settings.id is not None and settings.tags is not None
        asked, count, entries = relabel_id(
            settings, settings.id, settings.tags.split(), settings.wait
        )
    return (
        f"{settings.datastore_path}: {counted(count, 'sentence')} relabelled, with "
        f"{counted(entries, 'entry')}; {asked - count} had these tags already"
    )


def remove(settings: RemoveSettings) -> str:
    """`remove`; returns what to print."""
    from knn_ner.datastore.edit import remove_sentences
    from knn_ner.datastore.reader import Datastore

    path = Path(settings.datastore_path)
    stored = Datastore.open(path).stored_sentences
    ids: set[int] = set()
    for wanted in settings.ids:
        found = stored[(stored >= wanted.start) & (stored < wanted.stop)].tolist()
        # A single id that is not stored is an error below; a range needs but one that is.
        if not found and len(wanted) != 1:
            raise UserError(f"{path}: no sentence from {wanted.start} to {wanted.stop - 1}")
        ids.update(found or wanted)
    entries = remove_sentences(path, ids, settings.wait)
    return f"{path}: {counted(len(ids), 'sentence')} removed, with {counted(entries, 'entry')}"


def merge(settings: MergeSettings) -> str:
    """`merge`; returns what to print."""
    from knn_ner.datastore.compaction import merge as merge_datastores

    merged = merge_datastores(settings.paths, settings.out)
    return (
        f"{settings.out}: {counted(merged.entries, 'entry')} of "
        f"{counted(merged.sentences, 'sentence')}"
    )


def prune(settings: PruneSettings) -> str:
    """`prune`; returns what to print."""
    from knn_ner.search.pruning import prune as prune_datastore

    before, after, plan = prune_datastore(
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


def compact(settings: CompactSettings) -> str:
    """`compact`; returns what to print."""
    from knn_ner.datastore.compaction import compact as compact_datastore

    before, after = compact_datastore(settings.datastore_path, settings.wait)
    return (
        f"{settings.datastore_path}: {counted(len(before.shards), 'shard')}, "
        f"{before.bytes / 1e6:.1f} MB -> {counted(len(after.shards), 'shard')}, "
        f"{after.bytes / 1e6:.1f} MB"
    )


def info(settings: InfoSettings) -> str:
    """`info`; returns what to print."""
    from knn_ner.datastore.info import describe, show
    from knn_ner.search.faiss_index import list_records

    told = describe(settings.datastore_path, list_records(Path(settings.datastore_path)))
    return json.dumps(told, indent=2, ensure_ascii=False) if settings.json else show(told)


def verify(settings: VerifySettings) -> str:
    """`verify`; returns what to print."""
    from knn_ner.datastore.info import verify as verify_datastore

    return verify_datastore(settings.datastore_path)


COMMANDS: dict[str, tuple[type, Callable[[Any], str]]] = {
    "add": (AddSettings, add),
    "remove": (RemoveSettings, remove),
    "relabel": (RelabelSettings, relabel),
    "merge": (MergeSettings, merge),
    "prune": (PruneSettings, prune),
    "compact": (CompactSettings, compact),
    "info": (InfoSettings, info),
    "verify": (VerifySettings, verify),
}


def parse_arguments(argv: list[str] | None = None) -> tuple[str, Any]:
    """Read the command line of `python -m knn_ner.datastore`: the subcommand and its settings."""
    show_messages()
    parser = Parser(
        "Look at a datastore, and change it without building it anew.",
        prog="python -m knn_ner.datastore",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )
    for name, (settings, _) in COMMANDS.items():
        what = settings.__doc__
        sub = commands.add_parser(name, help=what, description=what)
        add_settings(sub, settings)
    namespace = parser.parse_args(argv)
    settings = take_settings(COMMANDS[namespace.command][0], namespace)
    if isinstance(settings, RelabelSettings) and (
        (settings.id is None) != (settings.tags is None)
        or (settings.file is None) == (settings.id is None)
    ):
        parser.error("relabel takes --id with --tags, or --file")
    if isinstance(settings, MergeSettings) and len(settings.paths) < 2:
        parser.error("merge takes two datastores or more")
    return namespace.command, settings


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    command, settings = parse_arguments(argv)
    print(COMMANDS[command][1](settings))


if __name__ == "__main__":
    run_main(main)
