"""Every model type of AutoModelForTokenClassification trains, builds and infers, or is refused in one line.

    python tests/model/test_all_encoders.py

prints the table of docs/encoders.md, which a test compares with what it finds.
"""

import logging
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from encoder_zoo import (
    OWN_TEMPLATE,
    POSITIONS,
    TYPES,
    WORDS,
    write_config,
    write_model,
    write_tokenizer,
)

from knn_ner import build_datastore, infer
from knn_ner.datastore.reader import Datastore
from knn_ner.train import parse_arguments, train
from knn_ner.utils.errors import UserError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "encoders.md"
LONG_SENTENCE = 3 * POSITIONS
VOTE = ("--k", 4, "--temperature", 0.1, "--knn_weight", 0.4)


def write_tagged(folder: Path) -> Path:
    """Two sentences a split, one of them several windows long."""
    for split in ("train", "dev", "test"):
        sentences = [
            [
                f"{WORDS[place * 5 % 12]} {'S-PER' if place % 3 == 0 else 'O'}"
                for place in range(size)
            ]
            for size in (LONG_SENTENCE, 5)
        ]
        text = "".join("\n".join(sentence) + "\n\n" for sentence in sentences)
        (folder / f"{split}.bmes").write_text(text)
    (folder / "ner_labels.txt").write_text("O\nS-PER\n")
    return folder


def run_through(folder: Path, corpus: Path) -> None:
    """Train a step, build a datastore and infer in this process; check what must come out."""
    common = ["--data_dir", corpus, "--file_name", "bmes", "--device", "cpu", "--batch_size", 8]

    def line(*flags: object) -> list[str]:
        return [str(part) for part in (*common, *flags)]

    train(
        parse_arguments(
            line("--bert_path", folder / "e", "--save_path", folder / "s", "--max_epochs", 1)
        )
    )
    where = ("--model_path", folder / "s/model", "--datastore_path", folder / "d")
    build_datastore.build_datastore(build_datastore.parse_arguments(line(*where)))
    # Each word and, for each sentence, two special tokens.
    assert Datastore.open(folder / "d").entries == LONG_SENTENCE + 5 + 4
    flags = line(*where, "--save_path", folder / "o", *VOTE, "--exhaustive")
    assert infer.infer(infer.parse_arguments(flags))["tokens"] == LONG_SENTENCE + 5


def outcome(model_type: str, folder: Path, corpus: Path) -> tuple[str, str]:
    """How the network fares with a special token at each end, and its own tokeniser if that has others."""
    own = ""
    if model_type in OWN_TEMPLATE:
        write_tokenizer(folder / "own", OWN_TEMPLATE[model_type])
        write_config(folder / "own", model_type)
        flags = ["--data_dir", corpus, "--file_name", "bmes", "--bert_path", folder / "own"]
        with pytest.raises(UserError) as refused:
            train(parse_arguments([str(flag) for flag in (*flags, "--save_path", folder / "no")]))
        assert not (folder / "no" / "model").exists()
        own = one_line(refused.value, folder)
    try:
        write_model(folder / "e", model_type)
    except ImportError:  # LayoutLMv2 needs detectron2
        write_config(folder / "e", model_type)
    write_tokenizer(folder / "e")
    try:
        run_through(folder, corpus)
    except UserError as error:
        assert not (folder / "s" / "model").exists()
        return one_line(error, folder), own
    return "works", own


def one_line(error: UserError, folder: Path) -> str:
    """What was found, from a message that says what to do, too."""
    text = str(error)
    assert "\n" not in text and len(text) < 300 and ("; " in text or "expected" in text)
    found = re.split(r", expected|, which|, so| \(relative|; use", text)[0]
    return f"refused: {found.removeprefix(f'{folder}/own: ').removeprefix(f'{folder}/e: ')}"


def row(model_type: str, network: str, own: str) -> str:
    """A row of the table in docs/encoders.md."""
    return f"| {model_type} | {network} | {own or 'accepted'} |"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    logger = logging.getLogger("knn_ner")
    before = logger.level
    logger.setLevel(logging.WARNING)
    yield write_tagged(tmp_path_factory.mktemp("corpus"))
    logger.setLevel(before)


@pytest.mark.parametrize("model_type", TYPES)
def test_a_type_works_or_is_refused_in_one_line(model_type, tmp_path, corpus):
    network, own = outcome(model_type, tmp_path, corpus)
    assert row(model_type, network, own) in DOCS.read_text()


def test_the_table_has_a_row_for_each_type():
    lines = DOCS.read_text().splitlines()
    rows = [line for line in lines if re.match(r"\| \S+ \| (works|refused|accepted)", line)]
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows] == TYPES


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        tagged = Path(name, "corpus")
        tagged.mkdir()
        write_tagged(tagged)
        for each in TYPES:
            place = Path(name, "work")
            sys.stdout.write(row(each, *outcome(each, place, tagged)) + "\n")
            shutil.rmtree(place, ignore_errors=True)
