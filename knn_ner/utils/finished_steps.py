"""A record of finished steps, so that an interrupted or repeated command does them only once."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from knn_ner.utils.files import read_json, write_json


def step_key(content: Any) -> str:
    """A hash of everything that a step depends on.

    Args:
        content: what the step depends on, as JSON can hold it.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class FinishedSteps:
    """The finished steps of a run: a JSON file that maps a step's name to its key and its measured times.

    Args:
        record_file: the JSON file; it is made when the first step is recorded.
    """

    def __init__(self, record_file: Path):
        self._file = record_file

    def done(self, name: str, key: str, outputs: Iterable[Path] = ()) -> bool:
        """Whether a step was finished with the same key and its outputs still exist.

        Args:
            name: the step.
            key: hash of what the step depends on now.
            outputs: files that the step writes.
        """
        same_key = self._read().get(name, {}).get("key") == key
        return same_key and all(path.is_file() for path in outputs)

    def measured(self, name: str) -> dict[str, float]:
        """The times that were recorded with a finished step."""
        return {what: value for what, value in self._read()[name].items() if what != "key"}

    def record(self, name: str, key: str, **measured: float) -> None:
        """Record that a step is finished.

        Args:
            name: the step.
            key: hash of what the step depends on.
            measured: times to keep with it.
        """
        write_json(self._file, self._read() | {name: {"key": key} | measured})

    def _read(self) -> dict[str, Any]:
        return read_json(self._file) if self._file.is_file() else {}
