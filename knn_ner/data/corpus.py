"""Files to sentences: the one reader of column files.

A line is a token, then spaces or tabs, (further columns,) and its tag; a line without a token ends a
sentence. Only tab and space separate columns: other white space, such as U+3000 and U+00A0, is text.
"""

import codecs
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from knn_ner.data.tags import (
    ACCEPTED,
    BIO,
    OUTSIDE,
    SCHEMES,
    Scheme,
    detect_scheme,
    iob1_to_bio,
    is_tag,
    position_and_type,
)
from knn_ner.utils.errors import UserError

logger = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")
DOCUMENT_START = "-DOCSTART-"
# Other names that corpora give the same split.
ALIASES = {"train": ("train",), "dev": ("dev", "valid"), "test": ("test",)}


@dataclass
class Sentence:
    """Words, their tags (BIO, IOBES or BMES), and the line of the file that holds the first word."""

    words: list[str]
    tags: list[str]
    line: int = 0

    def __len__(self) -> int:
        return len(self.words)


@dataclass
class Corpus:
    """The splits of a corpus, read with one scheme.

    found: the scheme of the files as they are, `IOB1` included; `scheme` is what the sentences have.
    malformed: for each split, the number of transitions that the scheme does not allow.
    """

    splits: dict[str, list[Sentence]]
    files: dict[str, Path]
    scheme: Scheme
    found: str
    malformed: dict[str, int] = field(default_factory=dict)

    def report(self) -> None:
        """Log what was read."""
        for line in self.describe():
            logger.info(line)

    def describe(self) -> list[str]:
        """What a user should know of what was read, a line each."""
        lines = [f"tag scheme: {self.found}" + (", read as BIO" if self.found == "IOB1" else "")]
        for split, sentences in self.splits.items():
            words = sum(len(sentence.words) for sentence in sentences)
            lines.append(
                f"{self.files[split]}: {len(sentences)} sentences, {words} tokens, "
                f"{sum(count_entities(sentence.tags) for sentence in sentences)} entities"
            )
            if self.malformed[split]:
                lines.append(
                    f"{self.files[split]}: {self.malformed[split]} transitions that "
                    f"{self.scheme.name} does not allow (kept as they are)"
                )
        return lines


def count_entities(tags: list[str]) -> int:
    """Entities of a sentence as conlleval counts them: a break in type or an opening letter starts one."""
    count, before, before_type = 0, OUTSIDE, ""
    for tag in tags:
        position, kind = position_and_type(tag)
        closed = before in {OUTSIDE, "E", "S"} or before_type != kind
        count += position in {"B", "S"} or (position != OUTSIDE and closed)
        before, before_type = position, kind
    return count


def split_path(data_dir: str | Path, file_name: str, split: str) -> Path:
    """The file of a split: `D/train.F`, `D/dev.F` or `D/valid.F`, `D/test.F`.

    Raises `UserError` when there is none.
    """
    folder = Path(data_dir)
    candidates = [folder / f"{alias}.{file_name}" for alias in ALIASES[split]]
    for path in candidates:
        if path.is_file():
            return path
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data_dir names the folder of the corpus")
    there = sorted(path.name for path in folder.iterdir() if path.name.startswith(ALIASES[split]))
    names = " or ".join(path.name for path in candidates)
    raise UserError(
        f"{folder}: {names} not found"
        + (
            f", but {', '.join(there)}; is --file_name right?"
            if there
            else "; is --data_dir right?"
        )
    )


def read_corpus(
    data_dir: str | Path,
    file_name: str,
    splits: tuple[str, ...] = SPLITS,
    labels: list[str] | None = None,
) -> Corpus:
    """Read the named splits of a corpus.

    The scheme is detected on these splits together with the training split, so that a command that
    reads only the test split sees the scheme that the tagger was trained with.

    labels: if given, each tag must be one of them.

    Raises `UserError` with file and line for a line with one column, another number of columns than the
    file's first line, no tag, an unknown tag; for an empty split; for a file that is not UTF-8.
    """
    files = {split: split_path(data_dir, file_name, split) for split in splits}
    raw = {split: read_file(path) for split, path in files.items()}
    evidence = dict(raw)
    if "train" not in raw and Path(data_dir, f"train.{file_name}").is_file():
        evidence["train"] = read_file(split_path(data_dir, file_name, "train"))
    try:
        found = detect_scheme(
            sentence.tags for sentences in evidence.values() for sentence in sentences
        )
    except UserError as error:
        raise UserError(f"{data_dir} ({file_name}): {error}") from None
    scheme = BIO if found == "IOB1" else SCHEMES[found]
    for split, sentences in raw.items():
        if found == "IOB1":
            for sentence in sentences:
                sentence.tags = iob1_to_bio(sentence.tags)
        if labels is not None:
            check_labels(sentences, labels, files[split])
    malformed = {
        split: sum(scheme.count_malformed(sentence.tags) for sentence in sentences)
        for split, sentences in raw.items()
    }
    return Corpus(raw, files, scheme, found, malformed)


def check_labels(sentences: Sequence[Sentence], labels: Sequence[str], path: Path) -> None:
    """Raise `UserError` with the line of the first tag that the label set lacks."""
    known = set(labels)
    for sentence in sentences:
        for offset, tag in enumerate(sentence.tags):
            if tag not in known:
                shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
                raise UserError(
                    f"{path}:{sentence.line + offset}: tag {tag!r} found, expected one of the "
                    f"{len(labels)} labels of the tagger ({shown}); run get_labels.py again if the "
                    "corpus has changed"
                )


def other_positions(sentences: Sequence[Sentence], labels: Sequence[str]) -> list[str]:
    """Tags of sentences that a label list lacks although it has their type: `S-LOC` where it has `B-LOC`.

    A datastore knows the tags that it was given. Others of its types can be scored, if never predicted.
    """
    types = {position_and_type(label)[1] for label in labels}
    tags = {tag for sentence in sentences for tag in sentence.tags}
    return sorted(tag for tag in tags - {*labels} if position_and_type(tag)[1] in types)


def columns_of(line: str) -> list[str]:
    """The columns of a line, separated by tabs or spaces."""
    return [part for part in line.replace("\t", " ").split(" ") if part]


def read_file(path: Path) -> list[Sentence]:
    """The sentences of one column file, tags as they stand.

    Raises `UserError`; see `read_corpus`.
    """
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    columns = columns_line = first_line = 0
    for number, line in lines_of(path):
        parts = columns_of(line)
        if not parts or parts[0] == DOCUMENT_START:
            if words:
                sentences.append(Sentence(words, tags, first_line))
                words, tags = [], []
            continue
        if len(parts) < 2:
            raise UserError(
                f"{path}:{number}: 1 column found ({parts[0]!r}), expected a token and its tag"
            )
        if not columns:
            columns, columns_line = len(parts), number
        if len(parts) != columns:
            raise UserError(
                f"{path}:{number}: {len(parts)} columns found, expected {columns} as in "
                f"line {columns_line}"
            )
        if not is_tag(parts[-1]):
            raise UserError(f"{path}:{number}: tag {parts[-1]!r} found, expected {ACCEPTED}")
        if not words:
            first_line = number
        # A corpus has few distinct words: one object for each keeps large corpora small.
        words.append(sys.intern(parts[0]))
        tags.append(sys.intern(parts[-1]))
    if words:
        sentences.append(Sentence(words, tags, first_line))
    if not sentences:
        raise UserError(
            f"{path}: no sentence found, expected at least one line with a token and a tag"
        )
    return sentences


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """`decode_lines` of a file."""
    with path.open("rb") as file:
        yield from decode_lines(file, str(path))


def decode_lines(file: Iterable[bytes], name: str) -> Iterator[tuple[int, str]]:
    """The lines of UTF-8 text with their numbers from 1, without CR, LF and byte-order mark.

    Only LF ends a line (`str.splitlines` would also split at U+2028, U+0085 and others, which are text).

    name: of the file, for errors.
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
