"""Authors' files to sentences, and what in them had to be overlooked.

`knn_ner.data.corpus` reads the project's own files and refuses what is odd in them. Published files have
oddities that nobody can mend at the source; here each is left out or put right, counted and said.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from knn_ner.data.corpus import DOCUMENT_START, SPLITS, Sentence, lines_of
from knn_ner.data.tags import ACCEPTED, is_tag
from knn_ner.errors import UserError

BLANK = "blank lines of spaces or tabs read as the end of a sentence"
DOCUMENTS = f"{DOCUMENT_START} lines left out"
NO_TOKEN = "lines with a tag but no token left out"
POSITION = "characters freed of a position of several digits (`p10` is `p`)"
LOST_EMOJI = "pairs of U+FFFD (a lost emoji) written as one"

# A name such as `eng.testa` or `msra_train_bio.txt` says its split in one of its parts.
_SPLIT_WORDS = {
    "train": {"train", "training"},
    "dev": {"dev", "development", "valid", "validation", "val", "testa"},
    "test": {"test", "testing", "testb"},
}

# Mends one token and counts what it did; raises ValueError, saying what is wrong, for a bad one.
CleanToken = Callable[[str, Counter[str]], str]


@dataclass
class RawFile:
    """The sentences of one file, tags as they stand, and how often each oddity was met."""

    path: Path
    sentences: list[Sentence]
    oddities: Counter[str]


def weibo_character(token: str, oddities: Counter[str]) -> str:
    """The character of a Weibo token, which is a character and its position in a segmented word.

    Raises ValueError when the token is anything else.
    """
    match = re.fullmatch("(\ufffd\ufffd|.)([0-9]+)", token, flags=re.DOTALL)
    if not match:
        raise ValueError(
            f"{token!r} found, expected a character and its position, such as `p10`; for a file "
            "without positions use `convert`"
        )
    text, position = match.groups()
    oddities[POSITION] += len(position) > 1
    oddities[LOST_EMOJI] += len(text) > 1
    return text[0]


def read_raw(path: Path, clean: CleanToken | None = None) -> RawFile:
    """Read a column file: token first, tag last, columns separated by tabs or spaces.

    Raises `UserError` with file and line for a line without a tag, an unknown tag, another number of
    columns than the first line has, and a token that `clean` refuses; for a file without a sentence;
    and for one that is not UTF-8.
    """
    oddities: Counter[str] = Counter()
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    columns = columns_line = first_line = 0
    for number, line in lines_of(path):
        parts = [part for part in line.replace("\t", " ").split(" ") if part]
        if not parts or parts[0] == DOCUMENT_START:
            oddities[DOCUMENTS if parts else BLANK] += bool(line)
            if words:
                sentences.append(Sentence(words, tags, first_line))
                words, tags = [], []
            continue
        if line[0] in " \t" and len(parts) == 1 and is_tag(parts[0]):
            oddities[NO_TOKEN] += 1
            continue
        if not columns:
            columns, columns_line = len(parts), number
        try:
            _check_columns(parts, columns, columns_line)
            word = clean(parts[0], oddities) if clean else parts[0]
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}") from None
        if not words:
            first_line = number
        words.append(word)
        tags.append(parts[-1])
    if words:
        sentences.append(Sentence(words, tags, first_line))
    if not sentences:
        raise UserError(f"{path}: no sentence found, expected lines with a token and a tag")
    return RawFile(path, sentences, oddities)


def _check_columns(parts: list[str], columns: int, columns_line: int) -> None:
    if len(parts) < 2:
        raise ValueError(f"1 column found ({parts[0]!r}), expected a token and its tag")
    if len(parts) != columns:
        raise ValueError(
            f"{len(parts)} columns found, expected {columns} as in line {columns_line}"
        )
    if not is_tag(parts[-1]):
        raise ValueError(f"tag {parts[-1]!r} found, expected {ACCEPTED}")
    if "," in parts[-1]:
        raise ValueError(f"the tags of several annotators ({parts[-1]!r}) found, expected one tag")


def split_of(path: Path) -> str | None:
    """The split that a file name says, if it says exactly one."""
    parts = set(re.split(r"[._\-]", path.name.lower()))
    said = [split for split, words in _SPLIT_WORDS.items() if words & parts]
    return said[0] if len(said) == 1 else None


def find_files(folder: Path, names: dict[str, str] | None = None) -> dict[str, Path]:
    """The file of each split in a folder, for the splits that have one, in the order of `SPLITS`.

    names: the file name of each split; without it a file is known by a part of its name.

    Raises `UserError` for a folder that is not there, and when several files say the same split.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --raw names the folder of the published files")
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    found = {}
    for split in SPLITS:
        if names:
            matching = [path for path in files if path.name == names[split]]
        else:
            matching = [path for path in files if split_of(path) == split]
        if len(matching) > 1:
            raise UserError(
                f"{folder}: {', '.join(path.name for path in matching)} found, expected one file "
                f"for {split}; leave only the right one in the folder"
            )
        if matching:
            found[split] = matching[0]
    return found


def require_splits(
    folder: Path, found: dict[str, Path], needed: tuple[str, ...], names: dict[str, str] | None
) -> None:
    """Raise `UserError` when a split has no file, naming what the folder has instead."""
    for split in needed:
        if split not in found:
            wanted = names[split] if names else f"a file with `{split}` in its name"
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            raise UserError(f"{folder}: {wanted} not found, but {there}; is --raw right?")
