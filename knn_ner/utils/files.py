"""Writing files whole or not at all, so that nothing half-written stays behind."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from knn_ner.utils.errors import UserError


@contextmanager
def writing(path: str | Path, binary: bool = False) -> Iterator[IO[Any]]:
    """A file to write to, through a temporary one beside it: there when all went well, else not.

    Raises `UserError` when the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); choose another folder"
        ) from None
    try:
        text = {} if binary else {"encoding": "utf-8", "newline": "\n"}
        with os.fdopen(descriptor, "wb" if binary else "w", **text) as file:
            yield file
        # mkstemp makes files that only their owner reads; results are for others too.
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file through a temporary one beside it.

    Raises `UserError` when the folder cannot be written.
    """
    with writing(path) as file:
        file.write(text)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a binary file as `write_text` writes a text."""
    with writing(path, binary=True) as file:
        file.write(content)


def write_json(path: str | Path, data: Any) -> None:
    """Write JSON, indented, keys in the order given."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises `UserError` when it is missing or no JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: JSON expected, found something else ({error})") from None
