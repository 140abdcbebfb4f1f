"""Data preparation: tiny invented files of every kind, and the two published corpora that are at hand."""

import subprocess
import sys

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from prepare_data.corpora import RECIPES
from prepare_data.prepare import (
    NOT_CLOSED,
    OTHER_TYPE,
    STRAY,
    TARGETS,
    convert,
    count_repairs,
    prepare,
    size_table,
    split_characters,
)

from knn_ner.data.corpus import SPLITS, read_corpus
from knn_ner.data.spans import word_spans
from knn_ner.data.tags import BIO, FILE_SCHEMES, SCHEMES, convert_tags
from knn_ner.utils.errors import UserError

SCRIPT = ROOT / "scripts" / "prepare_data.py"


@pytest.fixture
def raw(tmp_path):
    """Write raw files: `raw({"eng.train": "..."})` returns their folder."""

    def write(files: dict[str, str]):
        folder = tmp_path / "raw"
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        return folder

    return write


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# Schemes


@st.composite
def bio_tags(draw):
    """Well-formed BIO, adjacent entities of one type included."""
    spans = draw(st.lists(st.tuples(st.sampled_from(["O", "PER", "PER.NOM"]), st.integers(1, 3))))
    tags = []
    for kind, length in spans:
        tags += ["O"] if kind == "O" else [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
    return tags


@given(bio_tags(), st.sampled_from(TARGETS), st.sampled_from(TARGETS))
def test_schemes_round_trip_on_well_formed_tags(tags, first, second):
    there = convert_tags(tags, FILE_SCHEMES[first.upper()])
    assert convert_tags(there, BIO) == tags
    assert not count_repairs(there, first.upper())
    onwards = convert_tags(there, FILE_SCHEMES[second.upper()])
    assert convert_tags(onwards, BIO) == tags


@given(
    st.lists(st.sampled_from("O B-A I-A E-A S-A B-B I-B E-B".split())),
    st.sampled_from(["IOBES", "BIO"]),
)
def test_repairing_keeps_the_entities_that_conlleval_counts(tags, scheme):
    if scheme == "BIO":
        tags = [tag.replace("E-", "I-").replace("S-", "B-") for tag in tags]
    repaired = convert_tags(tags, BIO)
    assert word_spans(repaired) == word_spans(tags)
    assert bool(count_repairs(tags, scheme)) == bool(SCHEMES[scheme].count_malformed(tags))
    if scheme == "BIO":
        assert [tag[1:] for tag in repaired] == [tag[1:] for tag in tags]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("bio", "B-A I-A B-A O B-B B-A"),
        ("iob1", "I-A I-A B-A O I-B I-A"),
        ("iobes", "B-A E-A S-A O S-B S-A"),
        ("bmes", "B-A E-A S-A O S-B S-A"),
    ],
)
def test_adjacent_entities_in_every_scheme(target, expected):
    scheme = FILE_SCHEMES[target.upper()]
    assert convert_tags("B-A I-A B-A O B-B B-A".split(), scheme) == expected.split()


@pytest.mark.parametrize(
    ("scheme", "tags", "repaired", "repairs"),
    [
        ("BIO", "O I-A I-A", "O B-A I-A", {STRAY: 1}),
        ("BIO", "B-A I-B I-B", "B-A B-B I-B", {OTHER_TYPE: 1}),
        ("BMES", "M-A E-A E-A", "B-A I-A B-A", {STRAY: 2}),
        ("BMES", "B-A O B-A B-A", "B-A O B-A B-A", {NOT_CLOSED: 3}),
        ("BMES", "B-A E-B S-B", "B-A B-B B-B", {OTHER_TYPE: 1}),
        ("IOB1", "I-A B-B I-B I-A", "B-A B-B I-B B-A", {}),
    ],
)
def test_repairs(scheme, tags, repaired, repairs):
    assert convert_tags(tags.split(), BIO) == repaired.split()
    assert count_repairs(tags.split(), scheme) == repairs


def test_split_characters_keeps_the_entities():
    words, tags = split_characters(["ab", "c", "de"], ["B-A", "I-A", "O"])
    assert words == list("abcde")
    assert tags == ["B-A", "I-A", "I-A", "O", "O"]


# The corpora


@pytest.mark.parametrize(
    ("name", "ending"), [("weibo", "char.bmes"), ("wnut17", "word.bmes")], ids=["weibo", "wnut17"]
)
def test_published_files_become_the_reference_files(shared, out, capsys, name, ending):
    sizes = prepare(name, shared / "data" / "raw" / name, out)
    file_name = RECIPES[name].file_name
    for split in SPLITS:
        reference = shared / "data" / "bmes" / name / f"{split}.{ending}"
        assert (out / f"{split}.{file_name}").read_bytes() == reference.read_bytes()
    assert sizes == RECIPES[name].editions[0].sizes
    assert "warning" not in capsys.readouterr().err


def test_published_files_what_was_repaired(shared, out, capsys):
    prepare("weibo", shared / "data" / "raw" / "weibo", out)
    prepare("wnut17", shared / "data" / "raw" / "wnut17", out)
    told = [line.split(": ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    counts = {}
    for line in told:
        what, _, count = line.rpartition(": ")
        if count.isdigit():
            counts[what] = counts.get(what, 0) + int(count)
    assert counts[STRAY] == 13
    assert counts[OTHER_TYPE] == 1
    assert counts["characters freed of a position of several digits (`p10` is `p`)"] == 469
    assert counts["pairs of U+FFFD (a lost emoji) written as one"] == 44
    assert counts["blank lines of spaces or tabs read as the end of a sentence"] == 2394


def test_weibo_characters_and_what_is_said(raw, out, capsys):
    text = "王0\tB-PER.NAM\n110\tI-PER.NAM\n\ufffd\ufffd0\tO\n甲1\tI-LOC.NOM\n\n"
    folder = raw({f"weiboNER_2nd_conll.{split}": text for split in SPLITS})
    sizes = prepare("weibo", folder, out)
    assert names_in(out) == ["dev.all.bmes", "ner_labels.txt", "test.all.bmes", "train.all.bmes"]
    assert (out / "train.all.bmes").read_text(encoding="utf-8") == (
        "王 B-PER.NAM\n1 E-PER.NAM\n\ufffd O\n甲 S-LOC.NOM\n\n"
    )
    assert (out / "ner_labels.txt").read_text() == "O\nS-LOC.NOM\nB-PER.NAM\nE-PER.NAM\n"
    table = [" ".join(line.split()) for line in size_table("weibo", sizes).splitlines()]
    assert table[:3] == [
        "weibo, published sizes: second edition of the labels",
        "split sentences published tokens published entities published",
        "train 1 1350 4 73778 2 1895",
    ]
    told = capsys.readouterr().err.splitlines()
    train = folder / "weiboNER_2nd_conll.train"
    assert told[:4] == [
        "tag scheme: BIO",
        f"{train}: characters freed of a position of several digits (`p10` is `p`): 1",
        f"{train}: pairs of U+FFFD (a lost emoji) written as one: 1",
        f"{train}: inside tags with no entity before them; each starts an entity: 1",
    ]
    assert (
        "warning: train: 1 sentences found, 1350 published; 4 tokens found, 73778 published; "
        "2 entities found, 1895 published: another edition, or not the whole file"
    ) in told


def test_conll2003_iob1_with_document_starts(raw, out, capsys):
    train = (
        "-DOCSTART- -X- O O\n\nAda NNP I-NP I-PER\nLove NNP I-NP I-PER\nEve NNP I-NP B-PER\n"
        "of IN I-PP O\nRome NNP I-NP I-LOC\n\n-DOCSTART- -X- O O\n\nX NN I-NP O\n"
    )
    other = "Bob NNP I-NP I-PER\n"
    prepare("conll2003", raw({"eng.train": train, "eng.testa": other, "eng.testb": other}), out)
    assert (out / "train.word.bmes").read_text() == (
        "Ada B-PER\nLove E-PER\nEve S-PER\nof O\nRome S-LOC\n\nX O\n\n"
    )
    assert (out / "dev.word.bmes").read_text() == "Bob S-PER\n\n"
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "tag scheme: IOB1"
    assert told[1].endswith("eng.train: -DOCSTART- lines left out: 2")


def test_conll2003_bio_under_another_file_name(raw, out):
    text = "Ada NNP B-NP B-PER\nLove NNP I-NP I-PER\nEve NNP I-NP B-PER\n"
    folder = raw({"train.txt": text, "valid.txt": text, "test.txt": text, "readme.md": "x"})
    prepare("conll2003", folder, out, file_name="new.bmes")
    assert (out / "dev.new.bmes").read_text() == "Ada B-PER\nLove E-PER\nEve S-PER\n\n"
    assert "E-PER" in read_corpus(out, "new.bmes").splits["train"][0].tags


def msra_two_files(raw, sentences=25):
    train = "".join(f"王\tB-PER\n{chr(0x4E00 + i)}\tI-PER\n。\tO\n\n" for i in range(sentences))
    return raw({"msra_train_bio.txt": train, "msra_test_bio.txt": "北\tB-LOC\n京\tI-LOC\n"})


def test_msra_of_two_files_gets_the_same_dev_part_for_the_same_seed(raw, tmp_path, capsys):
    folder = msra_two_files(raw)
    sizes = prepare("msra", folder, tmp_path / "a", seed=3)
    told = capsys.readouterr().err
    assert (
        "msra has no dev part of its own: 2 of the 25 training sentences, drawn with seed 3, are "
        "dev now and no longer in train"
    ) in told
    assert sizes == {"train": (25, 75, 25), "test": (1, 2, 1)}
    prepare("msra", folder, tmp_path / "b", seed=3)
    prepare("msra", folder, tmp_path / "c", seed=4)
    blocks = {
        place: {
            split: (tmp_path / place / f"{split}.ner.bmes").read_text(encoding="utf-8")
            for split in SPLITS
        }
        for place in "abc"
    }
    assert blocks["a"] == blocks["b"]
    assert blocks["a"]["dev"] != blocks["c"]["dev"]
    train, dev = (blocks["a"][split].split("\n\n")[:-1] for split in ("train", "dev"))
    everything = [f"王 B-PER\n{chr(0x4E00 + i)} E-PER\n。 O" for i in range(25)]
    assert len(dev) == 2
    assert [s for s in everything if s not in dev] == train
    assert [s for s in everything if s in dev] == dev


def test_msra_of_three_files_keeps_its_dev_part(raw, out, capsys):
    text = "北\tB-LOC\n京\tI-LOC\n市\tO\n"
    prepare("msra", raw({"train.txt": text, "dev.txt": text, "test.txt": text}), out)
    assert (out / "dev.ner.bmes").read_text(encoding="utf-8") == "北 B-LOC\n京 E-LOC\n市 O\n\n"
    assert "no dev part" not in capsys.readouterr().err


def test_msra_lines_without_a_token_and_too_few_sentences(raw, out, capsys):
    folder = raw({"train.txt": "北\tB-LOC\n \tO\n京\tO\n", "test.txt": "\u3000\tO\n"})
    with pytest.raises(UserError, match=r"^1 training sentences found, expected at least 10 to"):
        prepare("msra", folder, out)
    assert "train.txt: lines with a tag but no token left out: 1" in capsys.readouterr().err
    assert not out.exists()
    table = size_table("msra", {"train": (2, 2, 1), "test": (1, 1, 0)})
    assert table.splitlines()[-1].split() == ["test", "1", "4365", "1", "-", "0", "6181"]


def test_resume_is_bmes_already_and_repaired(raw, out, capsys):
    text = "高 B-NAME\n勇 E-NAME\n男 O\n董 B-TITLE\n事 M-TITLE\n。 O\n"
    folder = raw({f"{split}.char.bmes": text for split in SPLITS})
    prepare("resume", folder, out)
    expected = text.replace("M-TITLE", "E-TITLE") + "\n"
    assert (out / "test.word.bmes").read_text(encoding="utf-8") == expected
    told = capsys.readouterr().err
    assert "train.char.bmes: entities without a closing tag; each ends at its last tag: 1" in told


def test_ontonotes4_words_become_characters(raw, out, capsys):
    text = "中国 NR B-GPE\n人民 NN O\n银行 NN B-ORG\n总部 NN I-ORG\n"
    sizes = prepare("ontonotes4", raw({f"onto4.{split}.txt": text for split in SPLITS}), out)
    assert (out / "train.char.bmes").read_text(encoding="utf-8") == (
        "中 B-GPE\n国 E-GPE\n人 O\n民 O\n银 B-ORG\n行 M-ORG\n总 M-ORG\n部 E-ORG\n\n"
    )
    assert sizes["train"] == (1, 8, 2)
    told = capsys.readouterr().err
    assert "onto4.train.txt: tokens of several characters split into characters: 4" in told


def test_ontonotes5_keeps_its_words(raw, out):
    text = "New\tNNP\t(TOP(NP*\tB-WORK_OF_ART\nYork\tNNP\t*))\tI-WORK_OF_ART\n"
    folder = raw({f"onto.{split}.ner": text for split in ("train", "development", "test")})
    prepare("ontonotes5", folder, out)
    assert (out / "dev.word.bmes").read_text() == "New B-WORK_OF_ART\nYork E-WORK_OF_ART\n\n"


# What goes wrong


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        (
            "weibo",
            "王\tO",
            "'王' found, expected a character and its position, such as `p10`; for a file without "
            "positions use `convert`",
        ),
        ("weibo", "王0", "1 column found ('王0'), expected a token and its tag"),
        ("wnut17", "a b O", "3 columns found, expected 2 as in line 1"),
        ("wnut17", "a B", "tag 'B' found, expected O, or B- I- M- E- S- and a type"),
        (
            "wnut17",
            "a B-group,B-person",
            "the tags of several annotators ('B-group,B-person') found, expected one tag",
        ),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(raw, out, name, line, message):
    names = RECIPES[name].names
    good = "a0 O\n" if name == "weibo" else "a O\n"
    folder = raw({names[split]: good for split in SPLITS})
    with (folder / names["test"]).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(UserError) as error:
        prepare(name, folder, out)
    assert str(error.value).startswith(f"{folder / names['test']}:3: {message}")
    assert not out.exists()


def test_missing_ambiguous_and_mixed_files(raw, out, tmp_path):
    folder = raw({"eng.train": "a I-X\n", "eng.testa": "a M-X\n"})
    with pytest.raises(UserError) as error:
        prepare("conll2003", folder, out)
    assert str(error.value) == (
        f"{folder}: a file with `test` in its name not found, but eng.testa, eng.train; is --raw "
        "right?"
    )
    (folder / "eng.testb").write_text("a O\n")
    with pytest.raises(UserError, match=r"both I- .* and M- "):
        prepare("conll2003", folder, out)
    (folder / "test.txt").write_text("a O\n")
    with pytest.raises(UserError) as error:
        prepare("conll2003", folder, out)
    assert str(error.value) == (
        f"{folder}: eng.testb, test.txt found, expected one file for test; leave only the right "
        "one in the folder"
    )
    with pytest.raises(UserError, match=r"wnut17train\.conll not found"):
        prepare("wnut17", folder, out)
    with pytest.raises(UserError, match="no such folder"):
        prepare("wnut17", tmp_path / "nowhere", out)
    assert not out.exists()


def test_an_earlier_result_stays_when_writing_fails(raw, out):
    folder = raw({f"{split}.txt": "a B-X\n" for split in SPLITS})
    prepare("conll2003", folder, out)
    before = (out / "train.word.bmes").read_text()
    (out / "ner_labels.txt").unlink()
    (out / "ner_labels.txt").mkdir()
    (folder / "train.txt").write_text("b B-Y\n")
    with pytest.raises(UserError) as error:
        prepare("conll2003", folder, out)
    assert str(error.value) == (
        f"{out / 'ner_labels.txt'}: a folder found, expected a file or nothing; choose another --out"
    )
    assert (out / "train.word.bmes").read_text() == before
    assert names_in(out) == ["dev.word.bmes", "ner_labels.txt", "test.word.bmes", "train.word.bmes"]


def test_an_output_folder_that_cannot_be(raw, out):
    out.write_text("a file")
    with pytest.raises(UserError, match=r"out: cannot be written .*; choose another --out"):
        prepare("conll2003", raw({f"{split}.txt": "a B-X\n" for split in SPLITS}), out)
    assert out.read_text() == "a file"


# convert


def test_convert_a_folder_there_and_back(raw, tmp_path):
    text = "a B-X\nb E-X\nc S-X\nd O\n\n"
    folder = raw({f"{split}.word.bmes": text for split in ("train", "test")})
    written = convert(folder, tmp_path / "iob1", "iob1")
    assert written == [tmp_path / "iob1" / "train.iob1", tmp_path / "iob1" / "test.iob1"]
    assert written[0].read_text() == "a I-X\nb I-X\nc B-X\nd O\n\n"
    assert (tmp_path / "iob1" / "ner_labels.txt").read_text() == "O\nB-X\nI-X\n"
    convert(tmp_path / "iob1", tmp_path / "back", "bmes", file_name="word.bmes")
    assert (tmp_path / "back" / "test.word.bmes").read_text() == text


def test_convert_one_file_writes_no_labels_and_never_over_its_source(raw, out):
    folder = raw({"notes.tsv": "a\tx\tB-X\nb\tx\tI-X\n", "train.bmes": "a S-X\n"})
    assert convert(folder / "notes.tsv", out, "iobes") == [out / "notes.iobes"]
    assert (out / "notes.iobes").read_text() == "a B-X\nb E-X\n\n"
    assert names_in(out) == ["notes.iobes"]
    with pytest.raises(UserError) as error:
        convert(folder / "train.bmes", folder, "bmes")
    assert str(error.value) == (
        f"{folder / 'train.bmes'}: would replace the file that was read; choose another --out"
    )
    assert (folder / "train.bmes").read_text() == "a S-X\n"


# The command line, from another folder


def command(*arguments, cwd, code=0):
    finished = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], cwd=cwd, capture_output=True, text=True
    )
    assert finished.returncode == code, finished.stderr
    return finished


def test_the_script_runs_from_any_folder(raw, tmp_path):
    raw({"a.conll": "Ada B-PER\n"})
    finished = command(
        "convert", "--raw", "raw/a.conll", "--out", "o", "--scheme", "bmes", cwd=tmp_path
    )
    assert finished.stderr.splitlines() == ["tag scheme: BIO", "o/a.bmes: 1 sentences written"]
    assert (tmp_path / "o" / "a.bmes").read_text() == "Ada S-PER\n\n"
    for split in SPLITS:
        (tmp_path / "raw" / f"{split}.txt").write_text("Ada B-PER\n")
    finished = command("resume", "--raw", "raw", "--out", "p", cwd=tmp_path)
    assert finished.stdout.splitlines()[2].split() == "train 1 3821 3 - 1 13440".split()


def test_the_script_answers_contradictions_in_one_line(tmp_path):
    for arguments, message in [
        (["convert"], "error: --scheme not given; convert needs one of bio, iob1, iobes, bmes\n"),
        (
            ["weibo", "--scheme", "bio"],
            "error: --scheme bio found; a corpus is written in BMES, as the experiments expect: use "
            "`convert` on the result\n",
        ),
    ]:
        finished = command(*arguments, "--raw", "x", "--out", "y", cwd=tmp_path, code=2)
        assert finished.stderr == message
