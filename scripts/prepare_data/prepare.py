"""Read a published corpus, repair it, compare its sizes with the published ones, and write it."""

import itertools
import logging
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from knn_ner.data.columns import Sentence, write_columns
from knn_ner.data.corpus import SPLITS
from knn_ner.data.tags import (
    BIO,
    FILE_SCHEMES,
    OUTSIDE,
    check_letters,
    common_scheme,
    convert_tags,
    count_evidence,
    decide_scheme,
    position_and_type,
    sort_labels,
)
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_text
from knn_ner.utils.tables import terminal_table
from prepare_data.corpora import RECIPES, Edition, Size
from prepare_data.formats import read_brackets
from prepare_data.raw import (
    RawFile,
    bracket_files,
    find_files,
    read_raw,
    require_splits,
    split_of,
)

logger = logging.getLogger(f"knn_ner.{__name__}")

CORPUS_SCHEME = "bmes"
LABELS_FILE = "ner_labels.txt"
TARGETS = tuple(name.lower() for name in FILE_SCHEMES)
UNITS = ("sentences", "tokens", "entities")
DEV_PART = 10
SPLIT_TOKENS = "tokens of several characters split into characters"
STRAY = "inside tags with no entity before them; each starts an entity"
OTHER_TYPE = "inside tags of another type than the tag before them; each starts an entity"
NOT_CLOSED = "entities without a closing tag; each ends at its last tag"

Splits = dict[str, list[Sentence]]


def prepare(
    name: str,
    raw: str | Path,
    out: str | Path,
    file_name: str | None = None,
    seed: int = 0,
    comments: str | None = None,
) -> dict[str, Size]:
    """Write a corpus as BMES files and `ner_labels.txt`; log repairs, and differences from published sizes.

    Args:
        name: the corpus, one of `RECIPES`.
        raw: folder of the published files.
        out: folder for the result.
        file_name: ending of the files; None for the ending that the experiments expect.
        seed: random seed of the dev split, for a corpus without one.
        comments: how lines to skip begin.

    Returns:
        The sizes of the published splits, before a dev split is cut.

    Raises:
        UserError: for missing or bad files; nothing is written then.
    """
    recipe = RECIPES[name]
    raw, out = Path(raw), Path(out)
    needed = ("train", "test") if recipe.cuts_dev else SPLITS
    trees = bracket_files(raw, recipe.bracket_language) if recipe.bracket_language else {}
    if trees:
        files = {split: raw / split for split in trees}
        require_splits(raw, files, needed)
        read = {
            split: RawFile(
                raw / split, [each for path in paths for each in read_brackets(path)], Counter()
            )
            for split, paths in trees.items()
        }
        sources = [path for paths in trees.values() for path in paths]
    else:
        files = find_files(raw, recipe.names)
        names = recipe.names
        if not files and recipe.first_names:
            names = recipe.first_names
            files = find_files(raw, names)
        require_splits(raw, files, needed, names)
        read = {split: read_raw(path, recipe.clean, comments) for split, path in files.items()}
        sources = list(files.values())
    corpus = _read_as_bio(read, raw)
    if recipe.characters:
        corpus = {
            split: _as_characters(sentences, files[split]) for split, sentences in corpus.items()
        }
    found = {split: size_of(sentences) for split, sentences in corpus.items()}
    for line in size_differences(found, closest_edition(name, found)):
        logger.warning(line)
    if "dev" not in corpus:
        corpus = cut_dev(corpus, seed)
        logger.info(
            f"{name} has no dev part of its own: {len(corpus['dev'])} of the {found['train'][0]} "
            f"training sentences, drawn with seed {seed}, are dev now and no longer in train"
        )
    file_name = file_name or recipe.file_name
    outputs = {out / f"{split}.{file_name}": corpus[split] for split in SPLITS}
    write_corpus(out, outputs, CORPUS_SCHEME, sources, labels=True)
    return found


def convert(
    raw: str | Path,
    out: str | Path,
    scheme: str,
    file_name: str | None = None,
    comments: str | None = None,
) -> list[Path]:
    """Write a column file, or the splits in a folder, in another tag scheme.

    Args:
        raw: the file, or the folder, for which `ner_labels.txt` is written too.
        out: folder for the result.
        scheme: the tag scheme, one of `TARGETS`.
        file_name: ending of the files; None for the name of the scheme.
        comments: how lines to skip begin.

    Returns:
        The paths of the new column files.

    Raises:
        UserError: for missing or bad files; nothing is written then.
    """
    raw, out = Path(raw), Path(out)
    if raw.is_file():
        files = {split_of(raw) or raw.name.split(".")[0]: raw}
    else:
        files = find_files(raw)
        if not files:
            require_splits(raw, files)
    read = {split: read_raw(path, comments=comments) for split, path in files.items()}
    corpus = _read_as_bio(read, raw)
    outputs = {
        out / f"{split}.{file_name or scheme}": sentences for split, sentences in corpus.items()
    }
    write_corpus(out, outputs, scheme, files.values(), labels=raw.is_dir())
    return list(outputs)


def _read_as_bio(raw_files: Mapping[str, RawFile], where: Path) -> Splits:
    """The sentences in well-formed BIO; logs the tag scheme, the faults and the repairs."""
    evidence = {
        split: count_evidence(s.tags for s in f.sentences) for split, f in raw_files.items()
    }
    check_letters(sum(evidence.values(), Counter()), f"{where}: ")
    common = common_scheme(evidence.values()) or BIO
    logger.info(f"tag scheme: {common.name}")
    for split, file in raw_files.items():
        scheme = (decide_scheme(evidence[split]) or common).name
        if scheme != common.name:
            logger.info(f"{file.path}: tag scheme: {scheme}")
        counts = Counter(file.faults)
        for sentence in file.sentences:
            counts += count_repairs(sentence.tags, scheme)
        for what, count in counts.items():
            if count:
                logger.info(f"{file.path}: {what}: {count}")
    return {
        split: [Sentence(s.words, convert_tags(s.tags, BIO), s.line) for s in file.sentences]
        for split, file in raw_files.items()
    }


def count_repairs(tags: Sequence[str], scheme: str) -> Counter[str]:
    """What the conversion of one sentence has to repair: how often, by what it is.

    IOB1 has nothing to repair: every sequence of `I` and `B` means something there.
    """
    repairs: Counter[str] = Counter()
    if scheme == "IOB1":
        return repairs
    rules = FILE_SCHEMES[scheme]
    for previous, tag in itertools.pairwise([OUTSIDE, *tags, OUTSIDE]):
        if not rules.is_legal(previous, tag):
            before, before_type = position_and_type(previous)
            position, kind = position_and_type(tag)
            if position not in {rules.inside, "E"}:
                repairs[NOT_CLOSED] += 1
            elif before not in {"B", rules.inside} and before_type in {"", kind}:
                repairs[STRAY] += 1
            else:
                repairs[OTHER_TYPE] += 1
    return repairs


def split_characters(words: Sequence[str], tags: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tokens of several characters as characters; `tags` are BIO, and an entity keeps its extent."""
    characters: list[str] = []
    converted: list[str] = []
    for word, tag in zip(words, tags, strict=True):
        position, kind = position_and_type(tag)
        rest = OUTSIDE if position == OUTSIDE else f"I-{kind}"
        characters.extend(word)
        converted.extend([tag, *[rest] * (len(word) - 1)])
    return characters, converted


def _as_characters(sentences: Sequence[Sentence], path: Path) -> list[Sentence]:
    several = sum(len(word) > 1 for sentence in sentences for word in sentence.words)
    if several:
        logger.info(f"{path}: {SPLIT_TOKENS}: {several}")
    return [Sentence(*split_characters(s.words, s.tags), s.line) for s in sentences]


def size_of(sentences: Sequence[Sentence]) -> Size:
    """Numbers of sentences, tokens and entities of sentences in BIO."""
    positions = Counter(
        position_and_type(tag)[0] for sentence in sentences for tag in sentence.tags
    )
    return len(sentences), positions.total(), positions["B"]


def closest_edition(name: str, found: Mapping[str, Size]) -> Edition:
    """The edition of a corpus with the most equal sizes; of several, the first."""
    return max(
        RECIPES[name].editions,
        key=lambda edition: sum(
            size == published
            for split in found
            for size, published in zip(found[split], edition.sizes[split], strict=True)
        ),
    )


def size_table(name: str, found: Mapping[str, Size]) -> str:
    """The sizes of a corpus beside the published ones, `-` where none is published.

    Args:
        name: the corpus.
        found: the size of each split, as returned by `prepare`.
    """
    edition = closest_edition(name, found)
    rows = [["split", *(title for unit in UNITS for title in (unit, "published"))]]
    for split, sizes in found.items():
        cells = [split]
        for size, published in zip(sizes, edition.sizes[split], strict=True):
            cells += [str(size), "-" if published is None else str(published)]
        rows.append(cells)
    return f"{name}, published sizes: {edition.name}\n{terminal_table(rows)}"


def size_differences(found: Mapping[str, Size], edition: Edition) -> list[str]:
    """A message for each split whose size differs from the published one."""
    messages = []
    for split, sizes in found.items():
        differing = [
            f"{size} {unit} found, {published} published"
            for size, published, unit in zip(sizes, edition.sizes[split], UNITS, strict=True)
            if published is not None and size != published
        ]
        if differing:
            messages.append(
                f"{split}: {'; '.join(differing)}: another edition, or not the whole file"
            )
    return messages


def cut_dev(corpus: Splits, seed: int) -> Splits:
    """Move a random tenth of the training sentences to a dev split.

    Raises:
        UserError: if there are too few training sentences.
    """
    sentences = corpus["train"]
    if len(sentences) < DEV_PART:
        raise UserError(
            f"{len(sentences)} training sentences found, expected at least {DEV_PART} to cut a dev "
            "part from; give a dev file"
        )
    drawn = set(random.Random(seed).sample(range(len(sentences)), len(sentences) // DEV_PART))
    return {
        "train": [s for place, s in enumerate(sentences) if place not in drawn],
        "dev": [s for place, s in enumerate(sentences) if place in drawn],
        "test": corpus["test"],
    }


def write_corpus(
    out: Path,
    outputs: Mapping[Path, Sequence[Sentence]],
    scheme: str,
    inputs: Collection[Path],
    *,
    labels: bool,
) -> None:
    """Write all files of a corpus, or none.

    Args:
        out: the folder.
        outputs: the sentences of each file, in BIO.
        scheme: the tag scheme of the files.
        inputs: the files that were read.
        labels: whether to write `ner_labels.txt`.

    Raises:
        UserError: if a file would replace one that was read, or cannot be written.
    """
    for path in outputs:
        for source in inputs:
            if path.exists() and path.samefile(source):
                raise UserError(
                    f"{path}: would replace the file that was read; choose another --out"
                )
    converted = {
        path.name: [
            Sentence(s.words, convert_tags(s.tags, FILE_SCHEMES[scheme.upper()])) for s in sentences
        ]
        for path, sentences in outputs.items()
    }
    found = sort_labels(tag for part in converted.values() for s in part for tag in s.tags)
    _write_all(out, converted, found if labels else [])
    for path, sentences in outputs.items():
        logger.info(f"{path}: {len(sentences)} sentences written")
    if labels:
        logger.info(f"{out / LABELS_FILE}: {len(found)} labels written")


def _write_all(
    folder: Path, files: Mapping[str, Sequence[Sentence]], labels: Sequence[str]
) -> None:
    """Write the files to a temporary folder, and move them when all are complete."""
    names = [*files, *([LABELS_FILE] if labels else [])]
    for name in names:
        if (folder / name).is_dir():
            raise UserError(
                f"{folder / name}: a folder found, expected a file or nothing; choose another --out"
            )
    was_there = folder.is_dir()
    staging = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder, prefix=".prepare-"))
        for name, sentences in files.items():
            write_columns(staging / name, sentences, blank_at_end=True)
        if labels:
            write_text(staging / LABELS_FILE, "".join(f"{label}\n" for label in labels))
        for name in names:
            (staging / name).replace(folder / name)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); choose another --out"
        ) from None
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        if not was_there and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
