"""The folder of a datastore: its lock, and what no manifest names in it."""

import fcntl
import json
import shutil
import time
import uuid
from pathlib import Path
from typing import IO

from knn_ner.datastore.manifest import MANIFEST_FILE, Manifest
from knn_ner.datastore.shard_writer import UNFINISHED_PREFIX
from knn_ner.utils.errors import UserError

JOURNAL_FILE = "building.json"
LOCK_FILE = "building.lock"
SHARD_PREFIX = "shard-"
REMOVAL_PREFIX = "removed-"
TRANSFORM_PREFIX = "transform-"
# All that may be junk; with what `replace_json` leaves if it dies.
PREFIXES = (
    SHARD_PREFIX,
    REMOVAL_PREFIX,
    TRANSFORM_PREFIX,
    UNFINISHED_PREFIX,
    f".{MANIFEST_FILE}.",
    f".{JOURNAL_FILE}.",
)

# Seconds that a change waits for another one to finish, and between two looks: short, as a process that
# makes one change after another frees the lock for moments.
WAIT = 60.0
LOOK_EVERY = 0.002


def lock(path: Path, wait: float = 0.0, *, shared: bool = False) -> IO:
    """Make the folder and take its lock, which the system frees if the process dies.

    Args:
        path: the folder.
        wait: seconds to wait for another process that has the lock.
        shared: have the lock together with others that have it shared.

    Returns: a stream; closing it frees the lock. Raises UserError if the folder cannot be written,
    or the other process has not finished in time.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        # For reading too: on a network file system only such a file is locked for several.
        stream = (path / LOCK_FILE).open("w+")
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{path}: not a folder; give a folder for the datastore") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); give a folder that can"
        ) from None
    _take(stream, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait)
    return stream


def share(stream: IO, path: Path) -> None:
    """Have a lock that `lock` gave together with others. Raises UserError if it was lost just then."""
    _take(stream, path, fcntl.LOCK_SH, 0.0)


def _take(stream: IO, path: Path, kind: int, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(LOOK_EVERY)
                continue
            stream.close()
            writing = f"has been writing for {wait:g} s" if wait else "is writing"
            raise UserError(
                f"{path}: another process {writing} to this datastore; wait until it has finished"
            ) from None
        return


def new_name() -> str:
    """Eight letters that name a build or an edit, and with it its files.

    Names are never used twice, so that no commit can touch what a reader has open.
    """
    return uuid.uuid4().hex[:8]


def journal(path: Path) -> dict:
    """What building.json says; empty if there is none."""
    try:
        return json.loads((path / JOURNAL_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}


def unfinished_build(path: Path) -> dict:
    """What building.json says of an unfinished build; empty if there is none. Under the lock."""
    build = journal(path)
    if build and any(name.endswith(build["build"]) for name in named(path)):
        # It outlived its own commit.
        (path / JOURNAL_FILE).unlink()
        return {}
    return build


def named(path: Path) -> set[str]:
    """The shards, the removals and the transform that the manifest names."""
    try:
        manifest = Manifest.read(path)
    except UserError:
        # A manifest that cannot be read here may be good elsewhere: all that it may name stays.
        unreadable = (path / MANIFEST_FILE).exists()
        return {item.name for item in path.iterdir()} if unreadable else set()
    others = {shard.removed.file for shard in manifest.shards if shard.removed}
    if manifest.transform:
        others.add(manifest.transform.file)
    return others | {shard.folder for shard in manifest.shards}


def sweep(path: Path, build: str | None, *, some: bool = False) -> int:
    """Remove what neither the manifest nor the build of that name needs. Under the lock.

    some: remove only some of it now, and more the more there is: a change of a few entries leaves a few
        files behind, and some file systems take milliseconds to remove one.

    Returns: the number of finished shards among what is removed.
    """
    needed = named(path)
    junk = [
        item
        for item in path.iterdir()
        if item.name.startswith(PREFIXES)
        and item.name not in needed
        and not (build and item.name.startswith(SHARD_PREFIX) and item.name.endswith(build))
    ]
    if some:
        junk = junk[: 1 + len(junk) // 16]
    for item in junk:
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()
    return sum(item.name.startswith(SHARD_PREFIX) for item in junk)
