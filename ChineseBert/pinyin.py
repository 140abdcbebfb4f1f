"""The readings of a sentence's characters, spelled as ids.

ChineseBERT was trained with the readings that pypinyin gave, so the same release has to be read with:
later ones read 0.36% of the characters of the Weibo corpus differently.
"""

import functools
import importlib.metadata
import warnings
from pathlib import Path

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
    """Warn, once per process, when pypinyin is another release than the checkpoints were made with.

    Raises `UserError` when it is not installed.
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
    """The id of each letter and tone digit, from the published `pinyin_map.json`.

    Raises `UserError` when it is missing or has no such table.
    """
    tables = read_json(pinyin_map)
    if not isinstance(tables, dict) or not isinstance(tables.get("char2idx"), dict):
        raise UserError(f"{pinyin_map}: no table `char2idx`; take the file from the checkpoint")
    return tables["char2idx"]


class PinyinTable:
    """How readings such as "zhong1" are spelled in a checkpoint.

    char_to_id: the id of each letter and tone digit; 0 is the blank.
    reading_to_ids: the 8 ids of whole readings; others are spelled letter by letter.

    Raises `UserError` when pypinyin is not installed.
    """

    def __init__(self, char_to_id: dict[str, int], reading_to_ids: dict[str, list[int]]):
        check_pypinyin()
        self.char_to_id = char_to_id
        self.reading_to_ids = reading_to_ids
        # Filled as readings turn up; pypinyin knows some 1,500 of them.
        self._rows: dict[str, list[int]] = {}

    @classmethod
    def read(cls, pinyin_map: str | Path, pinyin2tensor: str | Path) -> "PinyinTable":
        """Read the published `pinyin_map.json` and `pinyin2tensor.json`.

        Raises `UserError` when one is missing or not what is expected.
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
        """Write both tables into a folder and return the files' paths."""
        idx_to_char = {str(index): char for char, index in self.char_to_id.items()}
        tables = {
            PINYIN_MAP: {"idx2char": idx_to_char, "char2idx": self.char_to_id},
            PINYIN_TO_TENSOR: self.reading_to_ids,
        }
        for name, table in tables.items():
            write_json(Path(folder) / name, table)
        return [str(Path(folder) / name) for name in tables]

    def spell(self, reading: str) -> list[int]:
        """The 8 ids of one reading; zeros when it is empty or has a letter that the table lacks."""
        row = self.reading_to_ids.get(reading)
        if row is None:
            ids = [self.char_to_id.get(letter) for letter in reading[:PINYIN_LENGTH]]
            row = [0] * PINYIN_LENGTH
            if None not in ids:
                row[: len(ids)] = ids
        return row

    def rows(self, text: str) -> np.ndarray:
        """The ids of every character's first reading in this sentence: (characters, 8), int64.

        A character has its reading from the phrase that it stands in, so pass whole sentences.
        Characters without a reading (letters, digits, punctuation, emoji) have zeros.
        """
        # Imported here as its dictionaries are large, and other taggers do without.
        from pypinyin import Style, pinyin

        readings = pinyin(
            text,
            style=Style.TONE3,
            heteronym=True,
            errors=lambda characters: [[""] for _ in characters],
        )
        rows = np.zeros((len(text), PINYIN_LENGTH), dtype=np.int64)
        for index, (first, *_) in enumerate(readings):
            if first:
                if first not in self._rows:
                    self._rows[first] = self.spell(first)
                rows[index] = self._rows[first]
        return rows
