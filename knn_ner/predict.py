"""Find the entities of texts: files or standard input, to JSON lines or columns.

    python -m knn_ner.predict --model_path S/model --datastore_path P notes.txt > entities.jsonl
    generate | python -m knn_ner.predict --model_path S/model --datastore_path P --output columns

A text is a line; with `--input columns` it is a sentence of a column file, whose last column may hold
gold tags. What comes in goes out bit by bit, so that any amount can pass.
"""

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from knn_ner.cli import Parser, add_run_arguments, run_main, say
from knn_ner.data.corpus import DOCUMENT_START, columns_of, decode_lines
from knn_ner.data.tags import is_tag
from knn_ner.errors import UserError
from knn_ner.files import writing
from knn_ner.inference.entities import Prediction
from knn_ner.inference.tagger import TEXTS_AT_ONCE, KnnTagger
from knn_ner.search_arguments import (
    add_retrieval_arguments,
    add_vote_arguments,
    tagger_for,
)

STANDARD_INPUT = "-"


@dataclass
class Source:
    """A text (a string) or a sentence (its words), with the gold tags of its words if the file has them."""

    text: str | list[str]
    gold: list[str] | None = None


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m knn_ner.predict`."""
    parser = Parser("Find the entities of texts.", prog="python -m knn_ner.predict")
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="UTF-8; - or none at all: standard input",
    )
    add_retrieval_arguments(parser, similarity=None, required=False)
    parser.add_argument(
        "--input",
        choices=("text", "columns"),
        default="text",
        help="text: a text a line; columns: a word a line, in the last column its gold tag if there is "
        "one, a blank line after each sentence",
    )
    parser.add_argument(
        "--output",
        choices=("json", "columns"),
        default="json",
        help="json: a line for each text; columns: word, gold (if the input has it), the tagger's own "
        "tag, and that of the mix, tab-separated",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="file to write (if not given: standard output)"
    )
    add_vote_arguments(parser)
    add_run_arguments(parser)
    return parser.parse_args(argv)


def open_lines(files: Iterable[str]) -> Iterator[tuple[str, Iterator[tuple[int, str]]]]:
    """For each file its name and its lines with their numbers; `-` is standard input."""
    for name in files:
        if name == STANDARD_INPUT:
            yield "standard input", decode_lines(sys.stdin.buffer, "standard input")
        else:
            with Path(name).open("rb") as file:
                yield name, decode_lines(file, name)


def read_texts(files: Iterable[str]) -> Iterator[Source]:
    """A text for each line."""
    for _, lines in open_lines(files):
        for _, line in lines:
            yield Source(line)


def read_columns(files: Iterable[str]) -> Iterator[Source]:
    """The sentences of column files; where the first line of a file ends in a tag, all have to.

    Raises `UserError` with file and line for a line with another number of columns or without a tag.
    """
    for name, lines in open_lines(files):
        words: list[str] = []
        tags: list[str] = []
        columns, tagged, first = 0, False, 0
        for number, line in lines:
            parts = columns_of(line)
            if not parts or parts[0] == DOCUMENT_START:
                if words:
                    yield Source(words, tags if tagged else None)
                    words, tags = [], []
                continue
            if not columns:
                columns, first = len(parts), number
                tagged = columns > 1 and is_tag(parts[-1])
            if len(parts) != columns:
                raise UserError(
                    f"{name}:{number}: {len(parts)} columns found, expected {columns} as in line {first}"
                )
            if tagged and not is_tag(parts[-1]):
                raise UserError(
                    f"{name}:{number}: tag {parts[-1]!r} found, expected a tag as in line {first}"
                )
            words.append(parts[0])
            tags.append(parts[-1])
        if words:
            yield Source(words, tags if tagged else None)


def as_json(source: Source, prediction: Prediction) -> str:
    """A line of JSON: the text, its words and gold tags if these were given, and its entities."""
    content: dict = {"text": prediction.text.text}
    if not isinstance(source.text, str):
        content["words"] = source.text
    if source.gold is not None:
        content["gold"] = source.gold
    content["entities"] = [entity.to_dict() for entity in prediction.entities]
    for entity in content["entities"]:
        for found in (entity, *entity["base"]):
            found["score"] = round(found["score"], 4)
    return json.dumps(content, ensure_ascii=False) + "\n"


def as_columns(source: Source, prediction: Prediction) -> str:
    """A line for each word, then a blank line; nothing for a text without words."""
    columns = [prediction.text.words, prediction.base_tags, prediction.tags]
    if source.gold is not None:
        columns.insert(1, source.gold)
    rows = ("\t".join(row) + "\n" for row in zip(*columns, strict=True))
    return "".join(rows) + "\n" if prediction.text.words else ""


def predict(settings: argparse.Namespace) -> int:
    """Run prediction; returns the number of texts.

    Raises `UserError` for bad input.
    """
    files = settings.files or [STANDARD_INPUT]
    for name in files:
        if name != STANDARD_INPUT and not Path(name).is_file():
            raise UserError(f"{name}: not found, expected a file to read")
    tagger = tagger_for(settings)
    # Whoever types wants an answer to each line.
    typing = STANDARD_INPUT in files and sys.stdin.isatty()
    if typing:
        say("reading from standard input, a line at a time; Ctrl-D ends it")
    if not settings.out:
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    sources = read_texts(files) if settings.input == "text" else read_columns(files)
    form = as_json if settings.output == "json" else as_columns
    with writing(settings.out) if settings.out else nullcontext(sys.stdout) as out:
        return pass_through(tagger, sources, form, out, 1 if typing else TEXTS_AT_ONCE)


def pass_through(
    tagger: KnnTagger,
    sources: Iterator[Source],
    form: Callable[[Source, Prediction], str],
    out: TextIO,
    at_once: int,
) -> int:
    """Write what is found in each text; returns their number."""
    held: deque[Source] = deque()

    def texts() -> Iterator[str | list[str]]:
        for source in sources:
            held.append(source)
            yield source.text

    count = 0
    for prediction in tagger.stream(texts(), at_once=at_once):
        out.write(form(held.popleft(), prediction))
        count += 1
        if not held:
            out.flush()
    return count


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    predict(parse_arguments(argv))


if __name__ == "__main__":
    run_main(main)
