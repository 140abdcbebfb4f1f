"""Show, verify and edit a datastore: `python -m knn_ner.datastore COMMAND --help`.

Sentences have ids, and no id is used twice. Each edit is one commit; open datastores stay as they were opened.
"""

import argparse
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knn_ner.datastore.locking import WAIT_SECONDS
from knn_ner.settings import ColumnSettings, SeededRunSettings, TaggerSettings
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

# Neighbours that have to agree before an entry can be left out (`search.key_clusters.UNANIMOUS`).
UNANIMOUS = 32


def id_range(text: str) -> range:
    """Parse an id, or a range of ids with both ends: `17` or `20-30`."""
    first, dash, last = text.partition("-")
    if not first.isdecimal() or not (last.isdecimal() if dash else True):
        raise argparse.ArgumentTypeError(f"{text!r} found, an id or a range such as 20-30 expected")
    return range(int(first), int(last or first) + 1)


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """The datastore of a command."""

    datastore_path: str = flag(metavar="P")
    """the datastore"""

    @property
    def path(self) -> Path:
        return Path(self.datastore_path)


@dataclass(frozen=True, kw_only=True)
class WaitSettings:
    """How long an edit waits for another edit."""

    wait: float = flag(WAIT_SECONDS, metavar="SECONDS")
    """how long to wait for another process that is changing the datastore"""


# Each command is a settings class. Its docstring is the help text, and `run` returns what the command prints.


@dataclass(frozen=True, kw_only=True)
class Add(TaggerSettings, ColumnSettings, WaitSettings, SeededRunSettings):
    """Add the labelled sentences of a column file."""

    file: str = flag()
    """tokens and tags; labels may be new"""

    def run(self) -> str:
        from knn_ner.tagging.edit_from_files import add_file

        ids = add_file(self, self, self.file, self.wait, self.comments)
        return f"{self.datastore_path}: {counted(len(ids), 'sentence')} added, ids {show_ids(ids)}"


@dataclass(frozen=True, kw_only=True)
class Remove(StoreSettings, WaitSettings):
    """Remove sentences."""

    ids: tuple[range, ...] = flag(parse=id_range, metavar="ID")
    """ids, and ranges such as 20-30: all stored sentences of a range"""
    all: bool = flag(False)
    """allow that no sentence is left"""

    def run(self) -> str:
        from knn_ner.datastore.edit import remove_sentences
        from knn_ner.datastore.reader import Datastore

        stored = Datastore.open(self.path).stored_sentences
        ids: set[int] = set()
        for wanted in self.ids:
            found = stored[(stored >= wanted.start) & (stored < wanted.stop)].tolist()
            # `remove_sentences` reports a single unknown id; a range may have gaps, but not be empty.
            if not found and len(wanted) != 1:
                raise UserError(
                    f"{self.path}: no sentence from {wanted.start} to {wanted.stop - 1}"
                )
            ids.update(found or wanted)
        entries = remove_sentences(self.path, ids, self.wait, allow_all=self.all)
        removed = f"{counted(len(ids), 'sentence')} removed, with {counted(entries, 'entry')}"
        return f"{self.path}: {removed}"


@dataclass(frozen=True, kw_only=True)
class Relabel(TaggerSettings, ColumnSettings, WaitSettings):
    """Give sentences other tags; their keys stay."""

    id: int | None = flag(None)
    """the sentence that --tags are for"""
    tags: str | None = flag(None)
    """one tag for each word, separated by spaces"""
    file: str | None = flag(None)
    """column file of sentences with their new tags; all stored sentences with the same words get these tags"""

    def run(self) -> str:
        from knn_ner.tagging.edit_from_files import relabel_from_file, relabel_id

        if self.file:
            asked, count, entries = relabel_from_file(self, self.file, self.wait, self.comments)
        else:
            assert self.id is not None and self.tags is not None
            asked, count, entries = relabel_id(self, self.id, self.tags.split(), self.wait)
        return (
            f"{self.datastore_path}: {counted(count, 'sentence')} relabelled, with "
            f"{counted(entries, 'entry')}; {asked - count} had these tags already"
        )


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Write the content of several datastores of one tagger into a new one."""

    paths: tuple[str, ...] = flag(metavar="P", positional=True, nargs="+")
    """the datastores"""
    out: str = flag(metavar="P")
    """folder for the merged datastore"""

    def run(self) -> str:
        from knn_ner.datastore.compaction import merge

        merged = merge(self.paths, self.out)
        content = f"{counted(merged.entries, 'entry')} of {counted(merged.sentences, 'sentence')}"
        return f"{self.out}: {content}"


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

    def run(self) -> str:
        return prune(self)


@dataclass(frozen=True, kw_only=True)
class Compact(StoreSettings, WaitSettings):
    """Drop what was removed from the files, and join small shards."""

    def run(self) -> str:
        from knn_ner.datastore.compaction import compact

        before, after = (
            f"{counted(len(manifest.shards), 'shard')}, {manifest.bytes / 1e6:.1f} MB"
            for manifest in compact(self.path, self.wait)
        )
        return f"{self.path}: {before} -> {after}"


@dataclass(frozen=True, kw_only=True)
class Info(StoreSettings):
    """Tell what a datastore holds, and its history."""

    json: bool = flag(False)
    """as JSON"""

    def run(self) -> str:
        from knn_ner.datastore.info import describe, to_text
        from knn_ner.search.faiss_index import list_records

        content = describe(self.path, list_records(self.path))
        return json.dumps(content, indent=2, ensure_ascii=False) if self.json else to_text(content)


@dataclass(frozen=True, kw_only=True)
class Verify(StoreSettings):
    """Compare all files with their checksums; check the indexes, covers and tuned settings beside them."""

    def run(self) -> str:
        from knn_ner.datastore.info import verify
        from knn_ner.search.faiss_index import list_records

        lines, others = [verify(self.path)], []
        for record in list_records(self.path):
            index = self.path / record.file
            if not index.is_file() or index.stat().st_size != record.bytes:
                raise UserError(f"{index}: missing or damaged; build the index again")
            others.append(record.file)
        for cover in sorted(self.path.glob("cover-*.npz")):
            try:
                damaged = zipfile.ZipFile(cover).testzip()
            except (zipfile.BadZipFile, OSError) as error:
                damaged = str(error)
            if damaged:
                raise UserError(
                    f"{cover}: damaged ({damaged}); remove it, the next search makes it"
                )
            others.append(cover.name)
        if (self.path / "tuned.json").exists():
            from knn_ner.search.tuned_settings import read_tuned

            read_tuned(self.path / "tuned.json")
            others.append("tuned.json")
        if others:
            lines.append(f"{', '.join(others)}: no damage found")
        return "\n".join(lines)


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


COMMANDS: dict[str, type] = {
    "add": Add,
    "remove": Remove,
    "relabel": Relabel,
    "merge": Merge,
    "prune": PruneSettings,
    "compact": Compact,
    "info": Info,
    "verify": Verify,
}


def parse_arguments(argv: list[str] | None = None) -> Any:
    """Parse the command line of `python -m knn_ner.datastore` into the settings of a command."""
    show_messages()
    parser = Parser("Show, verify and edit a datastore.", prog="python -m knn_ner.datastore")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )
    for name, settings in COMMANDS.items():
        add_settings(
            commands.add_parser(name, help=settings.__doc__, description=settings.__doc__), settings
        )
    namespace = parser.parse_args(argv)
    settings = take_settings(COMMANDS[namespace.command], namespace)
    if isinstance(settings, Relabel) and (
        (settings.id is None) != (settings.tags is None)
        or (settings.file is None) == (settings.id is None)
    ):
        parser.error("relabel takes --id with --tags, or --file")
    if isinstance(settings, Merge) and len(settings.paths) < 2:
        parser.error("merge takes two datastores or more")
    return settings


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    print(parse_arguments(argv).run())


if __name__ == "__main__":
    run_main(main)
