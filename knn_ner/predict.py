"""Find the entities of texts: files or standard input, to JSON lines or columns.

    python -m knn_ner.predict --model_path S/model --datastore_path P notes.txt > entities.jsonl
    generate | python -m knn_ner.predict --model_path S/model --datastore_path P --output columns

A text is a line; with `--input columns` it is a sentence of a column file, whose last column may hold
gold tags. What comes in goes out bit by bit, so that any amount can pass.
"""

import logging
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from knn_ner.settings import ColumnSettings, SeededRunSettings, TunedIndexSettings, VoteFlags
from knn_ner.utils.arguments import flag, output_file
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.errors import UserError

logger = logging.getLogger("knn_ner.predict")


@dataclass(frozen=True, kw_only=True)
class PredictSettings(ColumnSettings, VoteFlags, TunedIndexSettings, SeededRunSettings):
    """The settings of `python -m knn_ner.predict`."""

    files: tuple[str, ...] = flag((), positional=True, nargs="*", metavar="FILE")
    """UTF-8 files; - or none: standard input"""
    model_path: str = flag(metavar="S/model")
    """the tagger: a folder or a hub name"""
    datastore_path: str | None = flag(None, metavar="P")
    """the datastore; without one, the tagger alone answers"""
    input: Literal["text", "columns"] = flag("text")
    """text: a text on each line; columns: a word on each line, with its gold tag in the last column if there is one,
    and a blank line after each sentence"""
    output: Literal["json", "columns"] = flag("json")
    """json: a line for each text; columns: word, gold (if the input has it), the tagger's own tag, and that of the
    mix, tab-separated"""
    out: str | None = flag(None, metavar="FILE", parse=output_file)
    """file to write (if not given: standard output)"""


def parse_arguments(argv: list[str] | None = None) -> PredictSettings:
    """Read the command line of `python -m knn_ner.predict`."""
    return read_command(
        PredictSettings, argv, "Find the entities of texts.", "python -m knn_ner.predict"
    )


def predict(settings: PredictSettings) -> int:
    """Find the entities of texts; returns the number of texts.

    Raises:
        UserError: for bad input.
    """
    # Imported here, as torch takes seconds that `--help` need not wait.
    from knn_ner.tagging.knn_tagger import TEXTS_AT_ONCE, KnnTagger
    from knn_ner.tagging.text_files import (
        STANDARD_INPUT,
        as_columns,
        as_json,
        pass_through,
        read_sentences,
        read_texts,
    )
    from knn_ner.utils.files import atomic_writer

    files = settings.files or (STANDARD_INPUT,)
    for name in files:
        if name != STANDARD_INPUT and not Path(name).is_file():
            raise UserError(f"{name}: not found, expected a file to read")
    tagger = KnnTagger.from_settings(
        settings.model_path, settings.datastore_path, settings, settings, settings
    )
    # Whoever types wants an answer to each line.
    typing = STANDARD_INPUT in files and sys.stdin.isatty()
    if typing:
        logger.info("reading from standard input, a line at a time; Ctrl-D ends it")
    if not settings.out:
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    sources = (
        read_texts(files)
        if settings.input == "text"
        else read_sentences(files, tagger.tagger.scheme, settings.comments)
    )
    form = as_json if settings.output == "json" else as_columns
    with ExitStack() as stack:
        out: IO[str] = sys.stdout
        if settings.out:
            out = stack.enter_context(atomic_writer(settings.out))
        return pass_through(tagger, sources, form, out, 1 if typing else TEXTS_AT_ONCE)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    predict(parse_arguments(argv))


if __name__ == "__main__":
    run_main(main)
