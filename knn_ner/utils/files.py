"""Atomic writes: a file or folder is replaced as a whole or not at all. Also fsync and checksums."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from knn_ner.utils.errors import UserError


@contextmanager
def atomic_path(path: Path, fsync: bool = False) -> Iterator[Path]:
    """Write a file or folder to a temporary path beside `path`; the end of the context renames it to `path`.

    After an error the temporary path is removed and `path` is as before. A folder takes two renames: in between,
    the old folder has the name of the temporary path and the ending `.old`.

    Args:
        path: the file or folder to write.
        fsync: whether the new file has to survive a power failure from then on.

    Yields:
        The temporary path; nothing exists there yet.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        if fsync:
            fsync_path(temporary)
        old = temporary.with_name(f"{temporary.name}.old")
        if temporary.is_dir() and path.is_dir():
            path.rename(old)
        temporary.replace(path)
        if fsync:
            fsync_path(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        elif temporary.exists():
            temporary.unlink()
        raise


@contextmanager
def atomic_writer(path: str | Path, binary: bool = False, fsync: bool = False) -> Iterator[IO[Any]]:
    """Open a file for writing; it replaces `path` when the context ends without an error.

    Args:
        path: the file; missing folders are made.
        binary: whether to write bytes; text is written as UTF-8.
        fsync: whether the file has to survive a power failure from then on.

    Yields:
        The open file.

    Raises:
        UserError: if the folder cannot be written.
    """
    path = Path(path)
    with atomic_path(path, fsync) as temporary:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            mode, encoding, newline = ("xb", None, None) if binary else ("x", "utf-8", "\n")
            file = temporary.open(mode, encoding=encoding, newline=newline)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); choose another folder"
            ) from None
        with file:
            yield file


def write_text(path: str | Path, text: str, fsync: bool = False) -> None:
    """Write a text file with `atomic_writer`."""
    with atomic_writer(path, fsync=fsync) as file:
        file.write(text)


def write_bytes(path: str | Path, content: bytes, fsync: bool = False) -> None:
    """Write a binary file with `atomic_writer`."""
    with atomic_writer(path, binary=True, fsync=fsync) as file:
        file.write(content)


def write_json(path: str | Path, data: Any, fsync: bool = False) -> None:
    """Write indented JSON with `atomic_writer`; keys keep their order."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n", fsync)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: if the file is missing or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: JSON expected, found something else ({error})") from None


def fsync_path(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
