"""The reader of published files, and the faults that it repairs.

`knn_ner.data.corpus` reads the project's own files and refuses faulty ones. Published files have faults that
cannot be repaired at the source: this reader leaves them out or repairs them, and counts them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from knn_ner.data.columns import DOCUMENT_START, Sentence, columns_of, lines_of
from knn_ner.data.corpus import SPLITS, read_file
from knn_ner.data.tags import is_tag
from knn_ner.utils.errors import UserError
from prepare_data.formats import BRACKET_ENDINGS, read_published

BLANK = "blank lines of spaces or tabs read as the end of a sentence"
DOCUMENTS = f"{DOCUMENT_START} lines left out"
NO_TOKEN = "lines with a tag but no token left out"
POSITION = "characters freed of a position of several digits (`p10` is `p`)"
SURROGATES = "lines with half characters (surrogates) joined, or written as U+FFFD"
LOST_EMOJI = "pairs of U+FFFD (a lost emoji) written as one"

# File names such as `eng.testa` and `msra_train_bio.txt` have a part that tells the split.
_SPLIT_WORDS = {
    "train": {"train", "training", "train1"},
    "dev": {"dev", "development", "valid", "validation", "val", "testa"},
    "test": {"test", "testing", "testb", "testright1"},
}

# Repairs a token and counts the faults; raises ValueError for a token that cannot be repaired.
CleanToken = Callable[[str, Counter[str]], str]


@dataclass
class RawFile:
    """A published file.

    Attributes:
        path: the file.
        sentences: its sentences, with the tags as they are.
        faults: how often each fault was found.
    """

    path: Path
    sentences: list[Sentence]
    faults: Counter[str]


def weibo_character(token: str, faults: Counter[str]) -> str:
    """The character of a Weibo token, which consists of a character and its position in a segmented word.

    Raises:
        ValueError: for any other token.
    """
    match = re.fullmatch("(\ufffd\ufffd|.)([0-9]+)", token, flags=re.DOTALL)
    if not match:
        raise ValueError(
            f"{token!r} found, expected a character and its position, such as `p10`; for a file "
            "without positions use `convert`"
        )
    text, position = match.groups()
    faults[POSITION] += len(position) > 1
    faults[LOST_EMOJI] += len(text) > 1
    return text[0]


def read_raw(path: Path, clean: CleanToken | None = None, comments: str | None = None) -> RawFile:
    """Read a published file: a column file, whose faults are repaired, or one of another format (`formats`).

    Args:
        path: the file.
        clean: repairs a token.
        comments: how lines to skip begin.

    Raises:
        UserError: as `corpus.read_file` does, and for a token that `clean` refuses.
    """
    faults: Counter[str] = Counter()
    published = read_published(path)
    if published is not None:
        return RawFile(path, published, faults)
    lines = _repaired(path, faults, clean, comments)
    return RawFile(path, read_file(path, comments, lines), faults)


def _repaired(
    path: Path, faults: Counter[str], clean: CleanToken | None, comments: str | None
) -> Iterator[tuple[int, str]]:
    """The repaired lines of a file with their numbers; counts the faults."""
    for number, line in _lines(path, faults):
        parts = columns_of(line)
        if not parts or parts[0] == DOCUMENT_START:
            faults[DOCUMENTS if parts else BLANK] += bool(line)
        elif comments and line.startswith(comments):
            pass
        elif line[0] in " \t" and len(parts) == 1 and is_tag(parts[0]):
            faults[NO_TOKEN] += 1
            continue
        elif "," in parts[-1] and is_tag(parts[-1]):
            raise UserError(
                f"{path}:{number}: the tags of several annotators ({parts[-1]!r}) found, expected one tag"
            )
        elif clean and len(parts) > 1:
            try:
                line = line.replace(parts[0], clean(parts[0], faults), 1)
            except ValueError as error:
                raise UserError(f"{path}:{number}: {error}") from None
        yield number, line


def _lines(path: Path, faults: Counter[str]) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers; pairs of surrogates are joined, and lone ones become U+FFFD."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        # The reader of column files names the line.
        yield from lines_of(path)
        return
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = line.removesuffix("\r")
        if any("\ud800" <= character <= "\udfff" for character in line):
            line = line.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            faults[SURROGATES] += 1
        yield number, line


def bracket_files(folder: Path, language: str) -> dict[str, list[Path]]:
    """The CoNLL-2012 files of each split below a folder, by the names of their folders (train, development, test).

    Args:
        folder: the folder.
        language: `english` or `chinese`; files below a folder of the other language are left out.
    """
    other = {"english": "chinese", "chinese": "english"}[language]
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*_conll")):
        parts = {part.lower() for part in path.relative_to(folder).parts[:-1]}
        splits = [split for split, words in _SPLIT_WORDS.items() if words & parts]
        if path.name.endswith(BRACKET_ENDINGS) and other not in parts and len(splits) == 1:
            found.setdefault(splits[0], []).append(path)
    return found


def split_of(path: Path) -> str | None:
    """The split that a file name tells; None if it tells none, or more than one."""
    parts = set(re.split(r"[._\-]", path.name.lower()))
    found = [split for split, words in _SPLIT_WORDS.items() if words & parts]
    return found[0] if len(found) == 1 else None


def find_files(folder: Path, names: Mapping[str, str] | None = None) -> dict[str, Path]:
    """Find the files of the splits in a folder.

    Args:
        folder: the folder.
        names: the file name of each split; None if a part of the file names tells the split.

    Returns:
        The file of each split that has one, in the order of `SPLITS`.

    Raises:
        UserError: for a missing folder, or several files for a split.
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
    folder: Path,
    found: Mapping[str, Path],
    needed: Sequence[str] = SPLITS,
    names: Mapping[str, str] | None = None,
) -> None:
    """Check that every needed split has a file.

    Args:
        folder: the folder of the files.
        found: the files, as returned by `find_files`.
        needed: the splits.
        names: as for `find_files`.

    Raises:
        UserError: if a split has no file; the message lists the files in the folder.
    """
    for split in needed:
        if split not in found:
            wanted = names[split] if names else f"a file with `{split}` in its name"
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            raise UserError(f"{folder}: {wanted} not found, but {there}; is --raw right?")
