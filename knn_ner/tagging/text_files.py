"""Texts from files or standard input, and what was found in them as JSON lines or columns."""

import json
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from knn_ner.data.columns import decode_lines, format_columns, odd_words, read_columns
from knn_ner.data.tags import Scheme, convert_tags
from knn_ner.tagging.entities import Prediction
from knn_ner.tagging.knn_tagger import KnnTagger

logger = logging.getLogger(__name__)

STANDARD_INPUT = "-"
# Sentences in which odd words are looked for.
SAMPLE_SENTENCES = 100


@dataclass
class Source:
    """A text (a string) or a sentence (its words), with the gold tags of its words if the file has them."""

    text: str | list[str]
    gold: list[str] | None = None


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


def read_sentences(files: Iterable[str], scheme: Scheme, comments: str | None) -> Iterator[Source]:
    """The sentences of column files; where the first line of a file ends in a tag, all have to.

    Args:
        files: names of the files.
        scheme: the tagger's scheme; gold tags in another one are converted, which is logged.
        comments: how lines to skip begin.

    Raises:
        UserError: with file and line, for a line with another number of columns or without a tag.
    """
    for name, lines in open_lines(files):
        converted = False
        sample: list[list[str]] = []
        for sentence in read_columns(lines, name, comments, tagged=None):
            gold = convert_tags(sentence.tags, scheme)
            if gold != sentence.tags and not converted:
                converted = True
                logger.info(
                    f"{name}:{sentence.line}: gold tags that are not well-formed {scheme.name}, the scheme of the "
                    "tagger, are converted from here on"
                )
            if len(sample) < SAMPLE_SENTENCES:
                sample.append(sentence.words)
            yield Source(sentence.words, gold or None)
        wrong = odd_words(sample)
        if wrong:
            logger.warning(f"{name}: {wrong}")


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
    return format_columns(*columns, separator="\t") + "\n" if prediction.text.words else ""


def pass_through(
    tagger: KnnTagger,
    sources: Iterator[Source],
    form: Callable[[Source, Prediction], str],
    out: IO[str],
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
