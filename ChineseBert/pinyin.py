"""Readings of the characters of a sentence, as ids.

ChineseBERT was trained with the readings of one release of pypinyin. A later release reads 0.36% of the
characters of the Weibo corpus differently.
"""

import functools
import importlib.metadata
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json, write_json

PINYIN_LENGTH = 8
PYPINYIN_VERSION = "0.38.1"
PINYIN_MAP = "pinyin_map.json"
PINYIN_TO_TENSOR = "pinyin2tensor.json"
TABLE_FOLDER = "config"


@functools.cache
def check_pypinyin() -> None:
    """Warn, once per process, if another release of pypinyin than the checkpoints' is installed.

    Raises:
        UserError: if pypinyin is not installed.
    """
    try:
        installed = importlib.metadata.version("pypinyin")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "pypinyin is not installed and ChineseBERT's tokeniser needs it; "
            f"run: pip install pypinyin=={PYPINYIN_VERSION}"
        ) from None
    if installed != PYPINYIN_VERSION:
        warnings.warn(
            f"pypinyin {installed} is installed; ChineseBERT expects {PYPINYIN_VERSION}, other releases "
            f"read some characters differently; run: pip install pypinyin=={PYPINYIN_VERSION}",
            stacklevel=2,
        )


def read_letters(pinyin_map: str | Path) -> dict[str, int]:
    """Read the id of each letter and tone digit from the published `pinyin_map.json`.

    Raises:
        UserError: if the file is missing or has no such table.
    """
    tables = read_json(pinyin_map)
    if not isinstance(tables, dict) or not isinstance(tables.get("char2idx"), dict):
        raise UserError(f"{pinyin_map}: no table `char2idx`; take the file from the checkpoint")
    return tables["char2idx"]


class PinyinTable:
    """Ids of readings such as "zhong1" in a checkpoint.

    Args:
        char_to_id: id of each letter and tone digit; 0 is the blank.
        reading_to_ids: the 8 ids of whole readings; other readings are spelled letter by letter.

    Raises:
        UserError: if pypinyin is not installed.
    """

    def __init__(self, char_to_id: dict[str, int], reading_to_ids: dict[str, list[int]]):
        check_pypinyin()
        self.char_to_id = char_to_id
        self.reading_to_ids = reading_to_ids
        # Readings that occurred; pypinyin knows some 1,500.
        self._rows: dict[str, list[int]] = {}

    @classmethod
    def read(cls, pinyin_map: str | Path, pinyin2tensor: str | Path) -> "PinyinTable":
        """Read the published `pinyin_map.json` and `pinyin2tensor.json`.

        Raises:
            UserError: if a file is missing or has other content.
        """
        letters, readings = read_letters(pinyin_map), read_json(pinyin2tensor)
        known = set(letters.values())
        for reading, ids in readings.items():
            if not isinstance(ids, list) or len(ids) != PINYIN_LENGTH or not known.issuperset(ids):
                raise UserError(
                    f"{pinyin2tensor}: {reading!r} has {ids}; expected {PINYIN_LENGTH} ids "
                    "of `char2idx`; take the file from the checkpoint"
                )
        return cls(letters, readings)

    def write(self, folder: str | Path) -> list[str]:
        """Write both tables into a folder and return the paths of the files."""
        idx_to_char = {str(index): char for char, index in self.char_to_id.items()}
        tables = {
            PINYIN_MAP: {"idx2char": idx_to_char, "char2idx": self.char_to_id},
            PINYIN_TO_TENSOR: self.reading_to_ids,
        }
        for name, table in tables.items():
            write_json(Path(folder) / name, table)
        return [str(Path(folder) / name) for name in tables]

    def spell(self, reading: str) -> list[int]:
        """Return the 8 ids of a reading; zeros if it is empty or the table lacks one of its letters."""
        if reading in self.reading_to_ids:
            return self.reading_to_ids[reading]
        ids = [self.char_to_id.get(letter, -1) for letter in reading[:PINYIN_LENGTH]]
        return [0] * PINYIN_LENGTH if -1 in ids else ids + [0] * (PINYIN_LENGTH - len(ids))

    def rows(self, text: str) -> np.ndarray:
        """Return the ids of the first reading of every character: (characters, 8) int64.

        A reading depends on the phrase around the character, so pass whole sentences. Letters, digits,
        punctuation and emoji have no reading: their rows are zeros.
        """
        # Imported here, as other taggers do not need its large dictionaries.
        from pypinyin import Style, pinyin

        def blanks(characters: str) -> Any:
            return [[""] for _ in characters]

        readings = pinyin(text, style=Style.TONE3, heteronym=True, errors=blanks)
        rows = np.zeros((len(text), PINYIN_LENGTH), dtype=np.int64)
        for index, (first, *_) in enumerate(readings):
            if first:
                if first not in self._rows:
                    self._rows[first] = self.spell(first)
                rows[index] = self._rows[first]
        return rows
