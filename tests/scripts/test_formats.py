"""Published files that are no column files: their sentences with BIO tags, and what is refused."""

import json

import pytest
from prepare_data.formats import read_published
from prepare_data.prepare import prepare

from knn_ner.utils.errors import UserError

CONLL = """#begin document (a); part 000
a 0 0 John NNP (TOP(S(NP* - - - - (PERSON* -
a 0 1 Smith NNP *) - - - - *) -
a 0 2 saw VBD (VP* - - - - * -
a 0 3 IBM NNP (NP*))) - - - - (ORG) -

a 0 0 Hm UH (TOP*) - - - - * -
#end document
"""


def pairs(sentences):
    return [list(zip(each.words, each.tags, strict=True)) for each in sentences]


def test_word_and_tag_with_a_slash(tmp_path):
    path = tmp_path / "train1.txt"
    path.write_text("中国/ns  1/2/o  李/nr\n\n当/o\n", encoding="utf-8")
    assert pairs(read_published(path)) == [
        [("中", "B-LOC"), ("国", "I-LOC"), ("1", "O"), ("/", "O"), ("2", "O"), ("李", "B-PER")],
        [("当", "O")],
    ]


def test_json_lines_with_spans(tmp_path):
    path = tmp_path / "train.json"
    lines = [
        {
            "text": "叶老桂 在京",
            "label": {"name": {"叶老桂": [[0, 2]]}, "address": {"京": [[5, 5]]}},
        },
        {"text": "无"},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    first, second = pairs(read_published(path))
    assert first[:4] == [("叶", "B-name"), ("老", "I-name"), ("桂", "I-name"), ("在", "O")]
    assert first[4] == ("京", "B-address") and second == [("无", "O")]


@pytest.mark.parametrize("ending", ["gold_conll", "v4_gold_conll"])
def test_bracket_columns(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    path.write_text(CONLL)
    first, second = read_published(path)
    assert first.words == ["John", "Smith", "saw", "IBM"] and first.line == 2
    assert first.tags == ["B-PERSON", "I-PERSON", "O", "B-ORG"]
    assert (second.words, second.tags) == (["Hm"], ["O"])


def test_a_column_file_is_left_to_its_reader(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("\nAda B-PER\nwrote O\n")
    assert read_published(path) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.gold_conll", "a 0 0 John NNP x - - - - (PER\n" * 1 + "a 0 1 S N x - - - - (ORG*\n", ":2: '(ORG*' found"),
        ("a.gold_conll", "a 0 0 John\n", ":1: 4 columns found, expected at least 11"),
        ("t.json", '{"text": "ab", "label": {"x": {"b": [[1, 2]]}}}\n', ":1: x from 1 to 2 found"),
        ("t.json", '{"words": 1}\n', ":1: expected JSON with `text` and `label`"),
        ("t.txt", "中/o\n国\n", ":2: '国' found, expected a word, a slash and a tag"),
    ],
)  # fmt: skip
def test_what_a_format_does_not_allow_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as error:
        list(read_published(path))
    assert message in str(error.value)


def test_prepare_reads_each_format(tmp_path):
    msra = tmp_path / "msra"
    msra.mkdir()
    lines = ["中国/ns 人/o", "李/nr 去/o 京/ns"] * 20
    (msra / "train1.txt").write_text("\n".join(lines), encoding="utf-8")
    (msra / "testright1.txt").write_text("\n".join(lines[:4]), encoding="utf-8")
    assert prepare("msra", msra, tmp_path / "msra_out")["test"] == (4, 12, 6)

    cluener = tmp_path / "cluener"
    cluener.mkdir()
    line = json.dumps({"text": "叶老桂在京", "label": {"name": {"叶老桂": [[0, 2]]}}})
    (cluener / "train.json").write_text("\n".join([line] * 20))
    (cluener / "dev.json").write_text("\n".join([line] * 5))
    assert prepare("cluener", cluener, tmp_path / "cluener_out")["test"] == (5, 25, 5)

    tree = tmp_path / "ontonotes"
    for split in ("train", "development", "test"):
        for language in ("english", "chinese"):
            folder = tree / "data" / split / "data" / language
            folder.mkdir(parents=True)
            (folder / "a.v4_gold_conll").write_text(CONLL if language == "english" else "x")
    assert prepare("ontonotes5", tree, tmp_path / "onto_out")["train"] == (2, 5, 2)
    text = (tmp_path / "onto_out" / "dev.word.bmes").read_text()
    assert text.startswith("John B-PERSON\nSmith E-PERSON\nsaw O\nIBM S-ORG\n\n")


def test_half_characters_of_the_first_edition_of_weibo(tmp_path, capfd):
    raw = tmp_path / "weibo"
    raw.mkdir()
    lines = [f"{word}\t{tag}" for word, tag in (("我0", "O"), ("\ud83d0", "O"), ("京0", "B-LOC"))]
    content = "\n".join([*lines, "", "😀0\tO", ""]).encode("utf-8", "surrogatepass")
    for split in ("train", "dev", "test"):
        (raw / f"weiboNER.conll.{split}").write_bytes(content)
    assert prepare("weibo", raw, tmp_path / "out")["train"] == (2, 4, 1)
    assert (tmp_path / "out" / "dev.all.bmes").read_text().splitlines()[1] == "\ufffd O"
    assert "lines with half characters (surrogates) joined, or written as U+FFFD: 1" in (
        capfd.readouterr().err
    )
