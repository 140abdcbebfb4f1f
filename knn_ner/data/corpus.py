"""The files of a corpus: its splits and its label list."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from knn_ner.data.columns import Sentence, lines_of, odd_words, read_columns
from knn_ner.data.spans import word_spans
from knn_ner.data.tags import (
    BIO,
    IOB1,
    OUTSIDE,
    Scheme,
    check_letters,
    check_tag,
    common_scheme,
    convert_tags,
    count_evidence,
    difference,
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
    """The splits of a corpus, all in one scheme.

    Attributes:
        splits: the sentences of each split.
        files: the file of each split.
        scheme: the scheme of the sentences.
        found: name of the scheme of most files, which may be `IOB1`; empty if every tag is `O`.
        converted: for each split that was written in another scheme, what was done.
        warnings: what is probably wrong with the files.
    """

    splits: dict[str, list[Sentence]]
    files: dict[str, Path]
    scheme: Scheme
    found: str
    converted: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def malformed(self) -> dict[str, int]:
        """For each split, the number of transitions that the scheme does not allow."""
        return {
            split: sum(self.scheme.count_malformed(sentence.tags) for sentence in sentences)
            for split, sentences in self.splits.items()
        }

    def convert(self, scheme: Scheme, split: str) -> None:
        """Write the tags of a split in another scheme."""
        for sentence in self.splits[split]:
            sentence.tags = convert_tags(sentence.tags, scheme)

    def convert_for(self, scheme: Scheme) -> None:
        """Write the tags of all splits in the scheme of a tagger; logs it."""
        if self.found and scheme != self.scheme:
            files = ", ".join(str(self.files[split]) for split in self.splits)
            logger.info(
                f"{files}: tags in {self.scheme.name}, converted to {scheme.name}, the scheme of the tagger"
            )
            for split in self.splits:
                self.convert(scheme, split)
        self.scheme = scheme

    def report(self) -> None:
        """Log what was read."""
        for line in self.describe():
            logger.info(line)
        for line in self.warnings:
            logger.warning(line)

    def describe(self) -> list[str]:
        """The scheme, and the size of each split, in a line each."""
        read_as = ", read as BIO" if self.found == IOB1.name else ""
        lines = [f"tag scheme: {self.found or 'none, as every tag is O'}{read_as}"]
        malformed = self.malformed
        for split, sentences in self.splits.items():
            words = sum(len(sentence) for sentence in sentences)
            entities = sum(len(word_spans(s.tags)) for s in sentences)
            file = self.files[split]
            lines.append(f"{file}: {len(sentences)} sentences, {words} tokens, {entities} entities")
            if split in self.converted:
                lines.append(f"{file}: {self.converted[split]}")
            if malformed[split]:
                lines.append(
                    f"{file}: {malformed[split]} transitions that {self.scheme.name} does not allow "
                    "(kept as they are)"
                )
        return lines


def split_path(data_dir: str | Path, file_name: str, split: str) -> Path:
    """The file of a split: `D/train.F`, `D/dev.F` or `D/valid.F`, `D/test.F`.

    Raises:
        UserError: if there is none; the message lists the files of the folder.
    """
    folder = Path(data_dir)
    candidates = [folder / f"{alias}.{file_name}" for alias in ALIASES[split]]
    for path in candidates:
        if path.is_file():
            return path
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data_dir names the folder of the corpus")
    there = sorted(path.name for path in folder.iterdir() if path.is_file())
    named = [name for name in there if name.split(".")[0] in ALIASES[split]]
    hint = "; is --data_dir right?"
    if named:
        hint = f", but {some(named)}; is --file_name right?"
    elif there:
        hint = f", but {some(there)}; name the files train.F, dev.F (or valid.F) and test.F for --file_name F"
    names = " or ".join(path.name for path in candidates)
    raise UserError(f"{folder}: {names} not found{hint}")


def read_corpus(
    data_dir: str | Path,
    file_name: str,
    splits: tuple[str, ...] = SPLITS,
    labels: list[str] | None = None,
    comments: str | None = None,
) -> Corpus:
    """Read splits of a corpus.

    The corpus has the scheme that most tags of all its splits are written in, whichever of them are read, so that
    every command decides alike. A split that is written in another scheme is converted.

    Args:
        data_dir: folder of the corpus.
        file_name: ending of its files.
        splits: the splits to read.
        labels: the labels that tags have to be among; None for any.
        comments: how lines to skip begin.

    Raises:
        UserError: with file and line, for a line that is not in columns or has no tag or an unknown one; for a split
            that is missing or empty; for a file that is not UTF-8.
    """
    files = {split: split_path(data_dir, file_name, split) for split in splits}
    read = {split: read_file(path, comments) for split, path in files.items()}
    evidence = {split: count_evidence(s.tags for s in read[split]) for split in splits}
    for split, counts in evidence.items():
        check_letters(counts, f"{files[split]}: ")
    others = [split for split in SPLITS if split not in splits]
    found = common_scheme(
        [*evidence.values(), *_evidence_of(data_dir, file_name, others, comments)]
    )
    scheme = BIO if found in (None, IOB1) else found
    corpus = Corpus(read, files, scheme, found.name if found else "")
    for split, sentences in read.items():
        counts, how = evidence[split], difference(evidence[split], scheme)
        # In a corpus in BIO, a single entity that begins with I is a mistake rather than another scheme.
        mistake = how == "in IOB1" and counts["first I"] == 1 and corpus.found == BIO.name
        if how and not mistake:
            corpus.convert(scheme, split)
            if how != f"in {corpus.found}":
                corpus.converted[split] = f"tags {how}, converted to {scheme.name}"
        if labels is not None:
            check_labels(sentences, labels, files[split])
    unused = [
        each for each in labels or () if position_and_type(each)[0] not in f"OB{scheme.letters}"
    ]
    if unused and found:
        corpus.warnings.append(
            f"{some(unused)}: labels with letters that {scheme.name} lacks; no tagger learns them"
        )
    wrong = odd_words(sentence.words for sentences in read.values() for sentence in sentences)
    if wrong:
        corpus.warnings.append(f"{', '.join(map(str, files.values()))}: {wrong}")
    return corpus


def _evidence_of(
    data_dir: str | Path, file_name: str, splits: Iterable[str], comments: str | None
) -> Iterator[Counter[str]]:
    """What splits that are not to be read tell of the scheme; nothing if they are missing or bad."""
    for split in splits:
        with suppress(UserError):
            path = split_path(data_dir, file_name, split)
            sentences = read_columns(lines_of(path), str(path), comments)
            yield count_evidence(sentence.tags for sentence in sentences)


def read_file(
    path: Path,
    comments: str | None = None,
    lines: Iterable[tuple[int, str]] | None = None,
) -> list[Sentence]:
    """The sentences of one column file, tags as they are.

    Args:
        path: the file.
        comments: how lines to skip begin.
        lines: its lines with their numbers, if they are not to be read as they are.

    Raises:
        UserError: as `read_corpus` does.
    """
    lines = lines_of(path) if lines is None else lines
    sentences = list(read_columns(lines, str(path), comments))
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


def read_labels(path: Path) -> list[str]:
    """Read a `ner_labels.txt`, which has one label a line, in any order.

    Raises:
        UserError: if the file is missing or empty or not UTF-8, a line is no tag or is there twice, or `O` is missing.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: not found; make it with "
            f"`python get_labels.py --data-dir {path.parent} --file-name FILE_NAME`"
        )
    labels: list[str] = []
    for number, line in lines_of(path):
        label = line.strip(" \t\r")
        if not label:
            continue
        check_tag(label, f"{path}:{number}", "label")
        if label in labels:
            raise UserError(
                f"{path}:{number}: label {label!r} found for the second time, expected once"
            )
        labels.append(label)
    if OUTSIDE not in labels:
        raise UserError(f"{path}: no label `O` found, expected one label a line, `O` among them")
    return labels
