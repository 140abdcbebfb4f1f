"""Published files whose last column is no tag: `word/tag` lines, JSON lines, bracket columns.

Each reader turns a file into sentences with BIO tags. `read_published` tells the format from the content.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from knn_ner.data.corpus import Sentence
from knn_ner.utils.errors import UserError

# The types of the SIGHAN 2006 files, as the column editions call them.
SIGHAN_TYPES = {"nr": "PER", "ns": "LOC", "nt": "ORG"}
SLASH_TOKEN = re.compile(r"(.+)/([a-z]{1,2})")
# Endings of the files that the scripts of CoNLL-2012 make from LDC's release.
BRACKET_ENDINGS = (".gold_conll", ".v4_gold_conll")
BRACKET_COLUMN = 10
WORD_COLUMN = 3


def read_published(path: Path) -> list[Sentence] | None:
    """The sentences of a file in one of these formats; None for a file of another format.

    Raises:
        UserError: with file and line, for content that the format does not allow.
    """
    if path.name.endswith(BRACKET_ENDINGS):
        return list(read_brackets(path))
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    if first.lstrip().startswith("{"):
        return list(read_json_spans(path))
    tokens = first.split()
    if tokens and all(SLASH_TOKEN.fullmatch(token) for token in tokens):
        return list(read_slashes(path))
    return None


def read_slashes(path: Path) -> Iterator[Sentence]:
    """Sentences of a `word/tag` file (MSRA, SIGHAN 2006): a sentence on a line; each tagged word is an entity.

    Words become characters, with BIO tags; `o` and unknown types of words are `O`.
    """
    for number, line in _lines(path):
        words: list[str] = []
        tags: list[str] = []
        for token in line.split():
            match = SLASH_TOKEN.fullmatch(token)
            if not match:
                raise UserError(
                    f"{path}:{number}: {token!r} found, expected a word, a slash and a tag such as nr or o"
                )
            type_ = SIGHAN_TYPES.get(match[2])
            words += match[1]
            tags += _tags(len(match[1]), type_)
        if words:
            yield Sentence(words, tags, number)


def read_json_spans(path: Path) -> Iterator[Sentence]:
    """Sentences of a JSON lines file as CLUENER has it: `{"text": ..., "label": {type: {name: [[first, last]]}}}`.

    Offsets count characters, both ends included. A file without `label` (a blind test set) has `O` everywhere.
    """
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            text = content["text"]
            spans = [
                (first, last, type_)
                for type_, names in content.get("label", {}).items()
                for places in names.values()
                for first, last in places
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{path}:{number}: expected JSON with `text` and `label` as in CLUENER, found {line[:40]!r}"
            ) from None
        tags = ["O"] * len(text)
        for first, last, type_ in sorted(spans):
            if not 0 <= first <= last < len(text) or set(tags[first : last + 1]) != {"O"}:
                raise UserError(
                    f"{path}:{number}: {type_} from {first} to {last} found, expected entities inside the "
                    f"{len(text)} characters that do not overlap"
                )
            tags[first : last + 1] = _tags(last + 1 - first, type_)
        # White space is no token of a column file.
        kept = [place for place, character in enumerate(text) if not character.isspace()]
        if kept:
            yield Sentence([text[place] for place in kept], [tags[place] for place in kept], number)


def read_brackets(path: Path) -> Iterator[Sentence]:
    """Sentences of a CoNLL-2012 file (OntoNotes): column 4 is the word, column 11 opens and closes entities."""
    words: list[str] = []
    tags: list[str] = []
    open_type: str | None = None
    first = 0
    for number, line in _lines(path):
        columns = line.split()
        if not columns or line.startswith("#"):
            if words:
                yield Sentence(words, tags, first)
            words, tags, open_type = [], [], None
            continue
        if len(columns) <= BRACKET_COLUMN:
            raise UserError(
                f"{path}:{number}: {len(columns)} columns found, expected at least "
                f"{BRACKET_COLUMN + 1} as in a CoNLL-2012 file"
            )
        bracket = columns[BRACKET_COLUMN]
        match = re.fullmatch(r"(?:\(([\w.-]+))?\*?(\))?", bracket)
        if not match or (match[1] and open_type):
            raise UserError(
                f"{path}:{number}: {bracket!r} found, expected `(TYPE*`, `*`, `*)` or `(TYPE)`"
            )
        open_type = match[1] or open_type
        first = first if words else number
        words.append(columns[WORD_COLUMN])
        tags.append("O" if not open_type else f"{'B' if match[1] else 'I'}-{open_type}")
        if match[2]:
            open_type = None
    if words:
        yield Sentence(words, tags, first)


def _tags(length: int, type_: str | None) -> list[str]:
    return [f"B-{type_}", *[f"I-{type_}"] * (length - 1)] if type_ else ["O"] * length


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers from 1.

    Raises:
        UserError: for a file that is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {error.reason} at byte {error.start}, expected UTF-8") from None
    yield from enumerate(text.split("\n"), start=1)
