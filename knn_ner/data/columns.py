"""Column files: the one reader and the one writer of words with their tags.

A line is a token, then spaces or tabs, (further columns,) and its tag; a line without a token ends a sentence. Only
tab and space separate columns: other white space, such as U+3000 and U+00A0, is text.
"""

import codecs
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from knn_ner.data.tags import ACCEPTED, is_tag
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_text

DOCUMENT_START = "-DOCSTART-"


@dataclass
class Sentence:
    """Words and their tags.

    Attributes:
        words: the words.
        tags: a tag for each word; empty if the file has none.
        line: the line of the file that holds the first word; 0 if the sentence is from no file.
    """

    words: list[str]
    tags: list[str]
    line: int = 0

    def __len__(self) -> int:
        return len(self.words)


def decode_lines(file: Iterable[bytes], name: str) -> Iterator[tuple[int, str]]:
    """The lines of UTF-8 text with their numbers from 1, without CR, LF and byte-order mark.

    Only LF ends a line (`str.splitlines` would also split at U+2028, U+0085 and others, which are text).

    Args:
        file: the lines as bytes.
        name: name of the file, for errors.

    Raises:
        UserError: if a line is not UTF-8.
    """
    for number, line in enumerate(file, start=1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{name}:{number}: byte 0x{line[error.start]:02x} found, expected UTF-8 text; "
                "convert the file, for instance with iconv"
            ) from None
        yield number, text.removesuffix("\n").removesuffix("\r")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """`decode_lines` of a file."""
    with path.open("rb") as file:
        yield from decode_lines(file, str(path))


def columns_of(line: str) -> list[str]:
    """The columns of a line, separated by tabs or spaces."""
    return [part for part in line.replace("\t", " ").split(" ") if part]


def read_columns(
    lines: Iterable[tuple[int, str]], name: str, tagged: bool | None = True
) -> Iterator[Sentence]:
    """The sentences of a column file, one by one: the token is the first column, the tag is the last.

    Args:
        lines: the lines with their numbers.
        name: name of the file, for errors.
        tagged: whether the last column holds tags; None: it does if that of the first line is a tag.

    Raises:
        UserError: with file and line, for a number of columns that differs from the first line's, and for a line
            without a tag.
    """
    words: list[str] = []
    tags: list[str] = []
    columns = first = start = 0
    for number, line in lines:
        parts = columns_of(line)
        if not parts or parts[0] == DOCUMENT_START:
            if words:
                yield Sentence(words, tags, start)
                words, tags = [], []
            continue
        if not columns:
            columns, first = len(parts), number
            tagged = columns > 1 and is_tag(parts[-1]) if tagged is None else tagged
        if tagged and len(parts) < 2:
            raise UserError(
                f"{name}:{number}: 1 column found ({parts[0]!r}), expected a token and its tag"
            )
        if len(parts) != columns:
            raise UserError(
                f"{name}:{number}: {len(parts)} columns found, expected {columns} as in line {first}"
            )
        if not words:
            start = number
        # A corpus has few distinct words: one object for each keeps large corpora small.
        words.append(sys.intern(parts[0]))
        if tagged:
            if not is_tag(parts[-1]):
                raise UserError(f"{name}:{number}: tag {parts[-1]!r} found, expected {ACCEPTED}")
            tags.append(sys.intern(parts[-1]))
    if words:
        yield Sentence(words, tags, start)


def format_columns(*columns: Sequence[str], separator: str = " ") -> str:
    """The lines of one sentence, a line for each word; columns: the words, their tags, and other values of each."""
    return "".join(separator.join(row) + "\n" for row in zip(*columns, strict=True))


def write_columns(path: Path, sentences: Iterable[Sentence], *, blank_at_end: bool = False) -> None:
    """Write a column file of words and tags, with a blank line between sentences, and at the end if `blank_at_end`.

    Raises:
        UserError: if the file cannot be written.
    """
    blocks = (format_columns(sentence.words, sentence.tags) for sentence in sentences)
    write_text(path, "\n".join(blocks) + "\n" * blank_at_end)
