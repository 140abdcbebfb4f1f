"""Files in a datastore's folder that no manifest names: an unfinished build, and files to remove."""

import json
import shutil
import uuid
from pathlib import Path

from knn_ner.datastore.manifest import MANIFEST_FILE, Manifest
from knn_ner.utils.errors import UserError

# Names the build that is in progress.
JOURNAL_FILE = "building.json"
SHARD_PREFIX = "shard-"
REMOVAL_PREFIX = "removed-"
TRANSFORM_PREFIX = "transform-"
UNFINISHED_PREFIX = ".unfinished-"
# Only files with these prefixes are ever removed. The last three are temporary files of `atomic_path`.
REMOVABLE_PREFIXES = (
    *(SHARD_PREFIX, REMOVAL_PREFIX, TRANSFORM_PREFIX, UNFINISHED_PREFIX),
    *(f".{MANIFEST_FILE}.", f".{JOURNAL_FILE}.", f".{TRANSFORM_PREFIX}"),
)


def unique_id() -> str:
    """Return eight hexadecimal digits that no other build or edit has.

    File names end with the id of their build or edit, so no commit changes a file that a reader has open.
    """
    return uuid.uuid4().hex[:8]


def read_journal(path: Path) -> dict:
    """Return the content of building.json; empty if there is no such file."""
    try:
        return json.loads((path / JOURNAL_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}


def unfinished_build(path: Path) -> dict:
    """Return the journal of an unfinished build, empty if there is none; the caller holds the folder's lock."""
    journal = read_journal(path)
    if journal and any(name.endswith(journal["build"]) for name in names_in_manifest(path)):
        # The build was committed, and its process died before it removed the journal.
        (path / JOURNAL_FILE).unlink()
        return {}
    return journal


def names_in_manifest(path: Path) -> set[str]:
    """Return the names of the shards, removal lists and the transform that the manifest names."""
    try:
        names = Manifest.read(path).files()
    except UserError:
        # Another version may be able to read the manifest, so every file may be needed.
        unreadable = (path / MANIFEST_FILE).exists()
        return {item.name for item in path.iterdir()} if unreadable else set()
    return {name.partition("/")[0] for name, *_ in names}


def remove_unnamed(path: Path, build: str | None, *, partly: bool = False) -> int:
    """Remove files that neither the manifest nor a build needs; the caller holds the folder's lock.

    Args:
        path: the folder.
        build: id of the build whose shards stay.
        partly: whether to remove only a part of the files, and leave the rest to later calls. Small edits do so
            because some file systems take milliseconds to remove a file.

    Returns:
        The number of removed shards.
    """
    named = names_in_manifest(path)
    unnamed = [
        item
        for item in path.iterdir()
        if item.name.startswith(REMOVABLE_PREFIXES)
        and item.name not in named
        and not (build and item.name.startswith(SHARD_PREFIX) and item.name.endswith(build))
    ]
    if partly:
        unnamed = unnamed[: 1 + len(unnamed) // 16]
    for item in unnamed:
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()
    return sum(item.name.startswith(SHARD_PREFIX) for item in unnamed)
