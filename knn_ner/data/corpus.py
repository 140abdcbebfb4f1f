"""The files of a corpus: its splits and its label list."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from knn_ner.data.columns import Sentence, lines_of, read_columns
from knn_ner.data.spans import word_spans
from knn_ner.data.tags import (
    ACCEPTED,
    BIO,
    OUTSIDE,
    SCHEMES,
    Scheme,
    convert_tags,
    detect_scheme,
    is_tag,
    position_and_type,
)
from knn_ner.utils.errors import UserError
from knn_ner.utils.text import some

logger = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")
# The names that corpora give a split.
ALIASES = {"train": ("train",), "dev": ("dev", "valid"), "test": ("test",)}


@dataclass
class Corpus:
    """The splits of a corpus, read with one scheme.

    Attributes:
        splits: the sentences of each split.
        files: the file of each split.
        scheme: the scheme of the sentences.
        found: the scheme of the files, which may be `IOB1`.
    """

    splits: dict[str, list[Sentence]]
    files: dict[str, Path]
    scheme: Scheme
    found: str

    @property
    def malformed(self) -> dict[str, int]:
        """For each split, the number of transitions that the scheme does not allow."""
        return {
            split: sum(self.scheme.count_malformed(sentence.tags) for sentence in sentences)
            for split, sentences in self.splits.items()
        }

    def report(self) -> None:
        """Log what was read."""
        for line in self.describe():
            logger.info(line)

    def describe(self) -> list[str]:
        """The scheme, and the size of each split, in a line each."""
        lines = [f"tag scheme: {self.found}" + (", read as BIO" if self.found == "IOB1" else "")]
        malformed = self.malformed
        for split, sentences in self.splits.items():
            words = sum(len(sentence) for sentence in sentences)
            entities = sum(len(word_spans(s.tags)) for s in sentences)
            file = self.files[split]
            lines.append(f"{file}: {len(sentences)} sentences, {words} tokens, {entities} entities")
            if malformed[split]:
                lines.append(
                    f"{file}: {malformed[split]} transitions that {self.scheme.name} does not allow "
                    "(kept as they are)"
                )
        return lines


def split_path(data_dir: str | Path, file_name: str, split: str) -> Path:
    """The file of a split: `D/train.F`, `D/dev.F` or `D/valid.F`, `D/test.F`.

    Raises:
        UserError: if there is none.
    """
    folder = Path(data_dir)
    candidates = [folder / f"{alias}.{file_name}" for alias in ALIASES[split]]
    for path in candidates:
        if path.is_file():
            return path
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data_dir names the folder of the corpus")
    there = sorted(path.name for path in folder.iterdir() if path.name.startswith(ALIASES[split]))
    hint = f", but {', '.join(there)}; is --file_name right?" if there else "; is --data_dir right?"
    names = " or ".join(path.name for path in candidates)
    raise UserError(f"{folder}: {names} not found{hint}")


def read_corpus(
    data_dir: str | Path,
    file_name: str,
    splits: tuple[str, ...] = SPLITS,
    labels: list[str] | None = None,
) -> Corpus:
    """Read splits of a corpus.

    The scheme is detected on these splits together with the training split, so that a command that
    reads only the test split sees the scheme that the tagger was trained with.

    Args:
        data_dir: folder of the corpus.
        file_name: ending of its files.
        splits: the splits to read.
        labels: the labels that tags have to be among; None for any.

    Raises:
        UserError: with file and line, for a line that is not in columns or has no tag or an unknown one; for a split
            that is missing or empty; for a file that is not UTF-8.
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
                sentence.tags = convert_tags(sentence.tags, BIO)
        if labels is not None:
            check_labels(sentences, labels, files[split])
    return Corpus(raw, files, scheme, found)


def read_file(path: Path, lines: Iterable[tuple[int, str]] | None = None) -> list[Sentence]:
    """The sentences of one column file, tags as they are.

    Args:
        path: the file.
        lines: its lines with their numbers, if they are not to be read as they are.

    Raises:
        UserError: as `read_corpus` does.
    """
    sentences = list(read_columns(lines_of(path) if lines is None else lines, str(path)))
    if not sentences:
        raise UserError(
            f"{path}: no sentence found, expected at least one line with a token and a tag"
        )
    return sentences


def check_labels(sentences: Sequence[Sentence], labels: Sequence[str], path: Path) -> None:
    """Check that a label list has all tags.

    Raises:
        UserError: with the line of the first tag that it lacks.
    """
    known = set(labels)
    for sentence in sentences:
        for offset, tag in enumerate(sentence.tags):
            if tag not in known:
                raise UserError(
                    f"{path}:{sentence.line + offset}: tag {tag!r} found, expected one of the "
                    f"{len(labels)} labels of the tagger ({some(labels)}); run get_labels.py again if the "
                    "corpus has changed"
                )


def other_positions(sentences: Sequence[Sentence], labels: Sequence[str]) -> list[str]:
    """Tags that a label list lacks although it has their type: `S-LOC` where it has `B-LOC`.

    A datastore knows the tags of its sentences. Other tags of their types can be scored, though never predicted.
    """
    types = {position_and_type(label)[1] for label in labels}
    tags = {tag for sentence in sentences for tag in sentence.tags}
    return sorted(tag for tag in tags - {*labels} if position_and_type(tag)[1] in types)


def read_labels(path: Path, any_order: bool = False) -> list[str]:
    """Read a `ner_labels.txt`, which has one label a line.

    Args:
        path: the file.
        any_order: whether `O` may stand elsewhere than first.

    Raises:
        UserError: if the file is missing or empty, a line is no tag or is there twice, or `O` is not first.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: not found; make it with "
            f"`python get_labels.py --data-dir {path.parent} --file-name FILE_NAME`"
        )
    labels: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        tag = line.strip(" \t\r")
        if not tag:
            continue
        if not is_tag(tag):
            raise UserError(f"{path}:{number}: label {tag!r} found, expected {ACCEPTED}")
        if tag in labels:
            raise UserError(
                f"{path}:{number}: label {tag!r} found for the second time, expected once"
            )
        labels.append(tag)
    if not labels:
        raise UserError(f"{path}: no label found, expected one tag a line, `O` first")
    if OUTSIDE not in labels or (labels[0] != OUTSIDE and not any_order):
        raise UserError(f"{path}:1: {labels[0]!r} found, expected `O` as the first label")
    return labels
