"""Column files: the one reader and the one writer of words with their tags.

A line is a token, then spaces or tabs, (further columns,) and its tag; a line without a token ends a sentence. Only
tab and space separate columns: other white space, such as U+3000 and U+00A0, is text. Comment lines are skipped if
the reader is told how they begin.
"""

import codecs
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from knn_ner.data.tags import check_tag, is_tag
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_text
from knn_ner.utils.text import counted

logger = logging.getLogger(__name__)

DOCUMENT_START = "-DOCSTART-"
# Comment lines of CoNLL-U.
COMMENT = re.compile(r"#[ \t]*(new(doc|par)\b|[\w.:-]+[ \t]+=[ \t])")


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
            # UTF-16 without a byte-order mark is UTF-8 with a NUL beside each ASCII character.
            bad = line.find(0) if number <= 2 else -1
        except UnicodeDecodeError as error:
            bad = error.start
        if bad >= 0:
            raise UserError(
                f"{name}:{number}: byte 0x{line[bad]:02x} found, expected UTF-8 text; convert the "
                "file, for instance with iconv"
            )
        yield number, text.removesuffix("\n").removesuffix("\r")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """`decode_lines` of a file."""
    with path.open("rb") as file:
        yield from decode_lines(file, str(path))


def columns_of(line: str) -> list[str]:
    """The columns of a line, separated by tabs or spaces."""
    return [part for part in line.replace("\t", " ").split(" ") if part]


def read_columns(
    lines: Iterable[tuple[int, str]],
    name: str,
    comments: str | None = None,
    tagged: bool | None = True,
) -> Iterator[Sentence]:
    """The sentences of a column file, one by one: the token is the first column, the tag is the last.

    Args:
        lines: the lines with their numbers.
        name: name of the file, for errors.
        comments: how lines to skip begin.
        tagged: whether the last column holds tags; None: it does if that of the first line is a tag.

    Raises:
        UserError: with file and line, for a comment line that is not to be skipped, a number of columns that differs
            from the first line's, and a line without a tag.
    """
    words: list[str] = []
    tags: list[str] = []
    known: set[str] = set()
    skipped: Counter[int] = Counter()
    first, columns, start = (0, ""), 0, 0
    for number, line in lines:
        parts = columns_of(line)
        if not parts or parts[0] == DOCUMENT_START:
            if words:
                yield Sentence(words, tags, start)
                words, tags = [], []
            continue
        if comments and line.startswith(comments):
            skipped[len(parts) if is_tag(parts[-1]) else 0] += 1
            continue
        if not columns:
            first, columns = (number, line), len(parts)
            tagged = columns > 1 and is_tag(parts[-1]) if tagged is None else tagged
        ends_in_tag = parts[-1] in known or (len(parts) > 1 and is_tag(parts[-1]))
        if len(parts) != columns or ends_in_tag != tagged or COMMENT.match(line):
            _check_line(name, first, (number, line), bool(tagged))
        if not words:
            start = number
        # A corpus has few distinct words: one object for each keeps large corpora small.
        words.append(sys.intern(parts[0]))
        if tagged:
            if parts[-1] not in known:
                check_tag(parts[-1], f"{name}:{number}")
                known.add(parts[-1])
            tags.append(sys.intern(parts[-1]))
    if words:
        yield Sentence(words, tags, start)
    if columns > 1 and skipped[columns]:
        logger.warning(
            f"{name}: {counted(skipped[columns], 'line')} skipped as comments, but with the columns and the tag of "
            f"a word; if these are words, give a longer prefix than --comments {comments!r}, such as '# '"
        )


def _check_line(name: str, first: tuple[int, str], this: tuple[int, str], tagged: bool) -> None:
    """Raise `UserError` for a line that does not fit the first line, or for the first line if that is the odd one."""
    expected, parts = columns_of(first[1]), columns_of(this[1])
    differs = len(parts) != len(expected)
    odd_first = (differs and len(expected) > 2) or (not is_tag(expected[-1]) and is_tag(parts[-1]))
    for (number, line), odd in ((first, odd_first), (this, differs or not is_tag(parts[-1]))):
        if COMMENT.match(line) or (odd and line.startswith("#")):
            raise UserError(
                f"{name}:{number}: comment line {line[:40]!r} found, expected a token and its tag; give "
                "--comments '#' to skip lines that begin with #"
            )
    if differs and this[1].count("\t") == first[1].count("\t") > 0:
        _check_fields(name, first, this)
    number = this[0]
    if tagged and len(parts) < 2:
        raise UserError(
            f"{name}:{number}: 1 column found ({parts[0]!r}), expected a token and its tag"
        )
    if differs:
        raise UserError(
            f"{name}:{number}: {len(parts)} columns found, expected {len(expected)} as in line {first[0]}"
        )
    if not tagged:
        raise UserError(
            f"{name}:{number}: tag {parts[-1]!r} found, but none in line {first[0]} ({first[1]!r}); expected gold tags "
            "in the last column of all lines, or of none"
        )
    check_tag(parts[-1], f"{name}:{number}")


def _check_fields(name: str, *lines: tuple[int, str]) -> None:
    """Raise `UserError` for the one line whose fields between tabs are not a word or tag each."""
    odd = {
        number: [field for field in line.split("\t") if len(columns_of(field)) != 1]
        for number, line in lines
    }
    in_word = [number for number, line in lines if len(columns_of(line.split("\t")[0])) > 1]
    found = in_word or [number for number, fields in odd.items() if fields]
    if in_word or len(found) == 1:
        (field, *_), number = odd[found[0]], found[0]
        what = f"a space found in {field!r}" if field.strip() else "an empty column found"
        raise UserError(f"{name}:{number}: {what}, expected one word or tag between two tabs")


def odd_words(sentences: Iterable[Sequence[str]]) -> str | None:
    """What is wrong with the words of sentences, if the first column of their file does not hold words."""
    counts: Counter[str] = Counter()
    for word in (word for words in sentences for word in words):
        counts["all"] += 1
        counts["numbers"] += bool(re.fullmatch(r"\d+([-.]\d+)?", word))
        counts["positions"] += bool(re.fullmatch(r".\d+", word, re.DOTALL))
        counts["starts"] += len(word) == 2 and word[1] == "0"
    most = max(0.9 * counts["all"], 2)
    if counts["numbers"] > most:
        return "the first column holds numbers, expected words; remove this column"
    if counts["positions"] > most and counts["starts"] > 0.1 * counts["all"]:
        return (
            "each word is a character with its position in a segmented word, such as `p0`, expected characters; "
            "`scripts/prepare_data.py weibo` removes the positions"
        )
    return None


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
