"""Read a published corpus, put it right, hold it against its published sizes, write it."""

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from knn_ner.cli import say
from knn_ner.data.corpus import SPLITS, Sentence
from knn_ner.data.tags import detect_scheme, position_and_type, sort_labels
from knn_ner.errors import UserError
from knn_ner.files import write_text
from knn_ner.preparation.conversion import (
    count_repairs,
    from_bio,
    split_characters,
    to_bio,
)
from knn_ner.preparation.corpora import RECIPES, Edition, Size
from knn_ner.preparation.raw import RawFile, find_files, read_raw, require_splits, split_of

CORPUS_SCHEME = "bmes"
UNITS = ("sentences", "tokens", "entities")
DEV_PART = 10
SPLIT_TOKENS = "tokens of several characters split into characters"

Splits = dict[str, list[Sentence]]


def prepare(
    name: str, raw: str | Path, out: str | Path, file_name: str | None = None, seed: int = 0
) -> dict[str, Size]:
    """Write a corpus of `RECIPES` as BMES files and `ner_labels.txt`; returns the sizes of what was read.

    file_name: ending of the files, by default what the experiments expect.
    seed: of the development part, for a corpus that has none.

    Raises `UserError` for files that are missing or bad; then nothing is written.
    """
    recipe = RECIPES[name]
    raw, out = Path(raw), Path(out)
    files = find_files(raw, recipe.names)
    needed = ("train", "test") if recipe.cuts_dev else SPLITS
    require_splits(raw, files, needed, recipe.names)
    corpus = _read_as_bio({split: read_raw(files[split], recipe.clean) for split in files}, raw)
    if recipe.characters:
        corpus = {
            split: _as_characters(sentences, files[split]) for split, sentences in corpus.items()
        }
    found = {split: size_of(sentences) for split, sentences in corpus.items()}
    edition = closest_edition(found, recipe.editions)
    print(size_table(name, found, edition))
    for line in size_differences(found, edition):
        say(line)
    if "dev" not in corpus:
        corpus = cut_dev(corpus, seed)
        say(
            f"{name} has no dev part of its own: {len(corpus['dev'])} of the {found['train'][0]} "
            f"training sentences, drawn with seed {seed}, are dev now and no longer in train"
        )
    file_name = file_name or recipe.file_name
    outputs = {out / f"{split}.{file_name}": corpus[split] for split in SPLITS}
    write_corpus(out, outputs, CORPUS_SCHEME, files.values(), labels=True)
    return found


def convert(
    raw: str | Path, out: str | Path, scheme: str, file_name: str | None = None
) -> list[Path]:
    """Write a column file, or the splits of a folder, in another tag scheme; returns the files written.

    scheme: one of `conversion.TARGETS`. A folder also gets its `ner_labels.txt`.
    file_name: ending of the files, by default the scheme's name.

    Raises `UserError` for files that are missing or bad; then nothing is written.
    """
    raw, out = Path(raw), Path(out)
    if raw.is_file():
        files = {split_of(raw) or raw.name.split(".")[0]: raw}
    else:
        files = find_files(raw)
        if not files:
            require_splits(raw, files, SPLITS, None)
    corpus = _read_as_bio({split: read_raw(path) for split, path in files.items()}, raw)
    outputs = {
        out / f"{split}.{file_name or scheme}": sentences for split, sentences in corpus.items()
    }
    write_corpus(out, outputs, scheme, files.values(), labels=raw.is_dir())
    return list(outputs)


def _read_as_bio(raw_files: dict[str, RawFile], where: Path) -> Splits:
    """The sentences in well-formed BIO; says the scheme, what was overlooked and what was repaired."""
    try:
        scheme = detect_scheme(
            sentence.tags for file in raw_files.values() for sentence in file.sentences
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    say(f"tag scheme: {scheme}")
    for file in raw_files.values():
        counts = Counter(file.oddities)
        for sentence in file.sentences:
            counts += count_repairs(sentence.tags, scheme)
        for what, count in counts.items():
            if count:
                say(f"{file.path}: {what}: {count}")
    return {
        split: [Sentence(s.words, to_bio(s.tags, scheme), s.line) for s in file.sentences]
        for split, file in raw_files.items()
    }


def _as_characters(sentences: list[Sentence], path: Path) -> list[Sentence]:
    several = sum(len(word) > 1 for sentence in sentences for word in sentence.words)
    if several:
        say(f"{path}: {SPLIT_TOKENS}: {several}")
    return [Sentence(*split_characters(s.words, s.tags), s.line) for s in sentences]


def size_of(sentences: list[Sentence]) -> Size:
    """Sentences, tokens, and entities of sentences in BIO."""
    positions = Counter(
        position_and_type(tag)[0] for sentence in sentences for tag in sentence.tags
    )
    return len(sentences), positions.total(), positions["B"]


def closest_edition(found: dict[str, Size], editions: Collection[Edition]) -> Edition:
    """The edition that agrees in most numbers; the first of those."""
    return max(
        editions,
        key=lambda edition: sum(
            size == published
            for split in found
            for size, published in zip(found[split], edition.sizes[split], strict=True)
        ),
    )


def size_table(name: str, found: dict[str, Size], edition: Edition) -> str:
    """The sizes beside the published ones, as text; `-` where none is published."""
    rows = [["split", *(title for unit in UNITS for title in (unit, "published"))]]
    for split, sizes in found.items():
        cells = [split]
        for size, published in zip(sizes, edition.sizes[split], strict=True):
            cells += [str(size), "-" if published is None else str(published)]
        rows.append(cells)
    lines = [f"{row[0]:<5}" + "".join(f"{cell:>11}" for cell in row[1:]) for row in rows]
    return "\n".join([f"{name}, published sizes: {edition.name}", *lines])


def size_differences(found: dict[str, Size], edition: Edition) -> list[str]:
    """A warning for each split that is not as published."""
    warnings = []
    for split, sizes in found.items():
        differing = [
            f"{size} {unit} found, {published} published"
            for size, published, unit in zip(sizes, edition.sizes[split], UNITS, strict=True)
            if published is not None and size != published
        ]
        if differing:
            warnings.append(
                f"warning: {split}: {'; '.join(differing)}: another edition, or not the whole file"
            )
    return warnings


def cut_dev(corpus: Splits, seed: int) -> Splits:
    """Move a tenth of the training sentences, drawn at random, to a development part.

    Raises `UserError` when there are not enough sentences for that.
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
    outputs: dict[Path, list[Sentence]],
    scheme: str,
    inputs: Collection[Path],
    labels: bool,
) -> None:
    """Write every file or none: sentences in BIO, as the scheme has them; with their labels if asked.

    Raises `UserError` when a file would replace one that was read, or cannot be written.
    """
    for path in outputs:
        for source in inputs:
            if path.exists() and path.samefile(source):
                raise UserError(
                    f"{path}: would replace the file that was read; choose another --out"
                )
    texts: dict[str, str] = {}
    seen: set[str] = set()
    for path, sentences in outputs.items():
        blocks = []
        for sentence in sentences:
            tags = from_bio(sentence.tags, scheme)
            seen.update(tags)
            lines = (f"{word} {tag}\n" for word, tag in zip(sentence.words, tags, strict=True))
            blocks.append("".join(lines) + "\n")
        texts[path.name] = "".join(blocks)
    if labels:
        texts["ner_labels.txt"] = "".join(f"{label}\n" for label in sort_labels(seen))
    _write_all(out, texts)
    for path, sentences in outputs.items():
        say(f"{path}: {len(sentences)} sentences written")
    if labels:
        say(f"{out / 'ner_labels.txt'}: {texts['ner_labels.txt'].count(chr(10))} labels written")


def _write_all(folder: Path, texts: dict[str, str]) -> None:
    """Write the files aside first and move them when all are whole: what can fail, fails before."""
    for name in texts:
        if (folder / name).is_dir():
            raise UserError(
                f"{folder / name}: a folder found, expected a file or nothing; choose another --out"
            )
    was_there = folder.is_dir()
    staging = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder, prefix=".prepare-"))
        for name, text in texts.items():
            write_text(staging / name, text)
        for name in texts:
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
