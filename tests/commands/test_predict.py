"""`python -m knn_ner.predict`: what goes in, what comes out, and what is refused."""

import io
import json
import os
import subprocess
import sys

import pytest

from knn_ner import KnnTagger, predict
from knn_ner.data.corpus import read_corpus
from knn_ner.tagging import text_files
from knn_ner.tagging.knn_tagger import TEXTS_AT_ONCE


@pytest.fixture(scope="module")
def model(trained, datastore):
    vote = ("--k", 32, "--temperature", 0.1, "--knn_weight", 0.45, "--device", "cpu")
    return "--model_path", trained / "model", "--datastore_path", datastore, *vote


@pytest.fixture(scope="module")
def tagger(trained, datastore):
    return KnnTagger.from_pretrained(
        trained / "model", datastore, k=32, temperature=0.1, knn_weight=0.45, device="cpu"
    )


@pytest.fixture(scope="module")
def sentences(tiny_corpus):
    return read_corpus(tiny_corpus, "word.bmes", splits=("test",)).splits["test"]


@pytest.fixture
def command(capfd, monkeypatch):
    """Run the command in this process, with `standard_input` if given; gives what it prints."""

    def run(*arguments, standard_input: str = "") -> str:
        stream = io.TextIOWrapper(io.BytesIO(standard_input.encode()))
        monkeypatch.setattr(sys, "stdin", stream)
        capfd.readouterr()
        predict.main([str(argument) for argument in arguments])
        return capfd.readouterr().out

    return run


def test_a_line_of_json_for_each_line_of_text(command, model, tagger, sentences, tmp_path):
    texts = [" ".join(s.words) for s in sentences[:10]]
    texts[3:3] = ["", "  Ada 😀 met e\u0301te\u0301 .\t"]
    file = tmp_path / "notes.txt"
    file.write_bytes("\ufeff".encode() + "\r\n".join(texts).encode())
    lines = [json.loads(line) for line in command(*model, file).splitlines()]
    assert [line["text"] for line in lines] == texts
    for line, entities in zip(lines, tagger.predict(texts, words=False), strict=True):
        assert line.keys() == {"text", "entities"}
        assert [(e["type"], e["start"], e["end"], tuple(e["words"])) for e in line["entities"]] == [
            (e.type, e.start, e.end, e.words) for e in entities
        ]
        for found, entity in zip(line["entities"], entities, strict=True):
            assert found["text"] == line["text"][found["start"] : found["end"]]
            assert found["score"] == pytest.approx(entity.score, abs=1e-4)
            assert [other["type"] for other in found["base"]] == [e.type for e in entity.base]


def test_columns_in_and_out(command, model, tagger, tiny_corpus, sentences):
    """A corpus file gives word, gold, base and knn, as inference does."""
    output = command(
        *model, "--input", "columns", "--output", "columns", tiny_corpus / "test.word.bmes"
    )
    blocks = output.removesuffix("\n\n").split("\n\n")
    predictions = list(tagger.stream(s.words for s in sentences))
    assert len(blocks) == len(sentences)
    for block, sentence, prediction in zip(blocks, sentences, predictions, strict=True):
        columns = list(zip(*(line.split("\t") for line in block.split("\n")), strict=True))
        expected = sentence.words, sentence.tags, prediction.base_tags, prediction.tags
        assert columns == [tuple(column) for column in expected]


def test_standard_input(command, model, sentences):
    words = sentences[0].words
    text = " ".join(words)
    from_text = command(*model, "--output", "columns", standard_input=text + "\n")
    # No gold: three columns. A file without tags is a column of words.
    assert from_text == command(
        *model, "--input", "columns", "--output", "columns", standard_input="\n".join(words)
    )
    assert [line.split("\t")[0] for line in from_text.split("\n")] == [*words, "", ""]
    json_line = json.loads(
        command(*model, "-", "--input", "columns", standard_input="\n".join(words))
    )
    assert json_line["words"] == words and "gold" not in json_line
    assert command(*model, standard_input="") == ""


def test_without_a_datastore_the_tagger_alone_answers(command, model, tagger, sentences):
    text = "\n".join(" ".join(s.words) for s in sentences[:20])
    lines = command(*model[:2], "--output", "columns", standard_input=text).splitlines()
    base = [tag for p in tagger.stream(s.words for s in sentences[:20]) for tag in p.base_tags]
    assert [line.split("\t")[1:] for line in lines if line] == [[tag, tag] for tag in base]


def test_any_amount_passes_through(command, model, tagger, monkeypatch):
    """No more texts are read ahead of what is written than are tagged together."""
    written, ahead = 0, []

    def sources():
        for number in range(3 * TEXTS_AT_ONCE + 7):
            ahead.append(number - written)
            yield text_files.Source(f"Ada {number}")

    class Out(io.StringIO):
        def write(self, text):
            nonlocal written
            written += 1

    count = text_files.pass_through(tagger, sources(), text_files.as_json, Out(), TEXTS_AT_ONCE)
    assert count == written == 3 * TEXTS_AT_ONCE + 7
    assert max(ahead) == TEXTS_AT_ONCE - 1


def test_a_file_is_written_whole_or_not_at_all(command, fails, model, tmp_path):
    good, out = tmp_path / "good.txt", tmp_path / "out" / "entities.jsonl"
    good.write_text("Ada\n" * 300)
    assert command(*model, good, "--out", out) == ""
    assert len(out.read_text().splitlines()) == 300
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"Ada\n" * 300 + b"\xff\n")
    before = out.read_bytes()
    assert fails(predict.main, *model, good, bad, "--out", out) == (
        f"error: {bad}:301: byte 0xff found, expected UTF-8 text; convert the file, for instance with "
        "iconv"
    )
    assert out.read_bytes() == before and [file.name for file in out.parent.iterdir()] == [out.name]


COLUMNS = {
    "columns": ("Ada B-PER\nruns\n", "2: 1 column found ('runs'), expected a token and its tag"),
    "no tag": (
        "Ada B-PER\nruns fast\n",
        "2: tag 'fast' found, expected O, or B- I- M- E- S- and a type, in the schemes BIO, IOB1, "
        "IOBES/BIOES or BMES",
    ),
}


@pytest.mark.parametrize(("text", "message"), COLUMNS.values(), ids=COLUMNS.keys())
def test_column_files_that_are_refused(fails, model, tmp_path, text, message):
    file = tmp_path / "bad.bmes"
    file.write_text(text)
    assert fails(predict.main, *model, "--input", "columns", file) == f"error: {file}:{message}"


def test_a_file_that_is_not_there(fails, model):
    assert fails(predict.main, *model, "nowhere.txt") == (
        "error: nowhere.txt: not found, expected a file to read"
    )


def test_a_reader_that_has_seen_enough(model, tmp_path):
    """`predict ... | head -1` ends quietly."""
    file = tmp_path / "notes.txt"
    file.write_text("Ada met Bo .\n" * 3000)
    line = [sys.executable, "-m", "knn_ner.predict", *map(str, model), str(file)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert json.loads(process.stdout.readline())["text"] == "Ada met Bo ."
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
