"""The reader: what it takes, and the one line that it answers bad files with."""

import pytest

from get_labels import write_labels
from knn_ner.data.corpus import read_corpus, read_file
from knn_ner.data.tags import BIO
from knn_ner.utils.errors import UserError


def words_of(corpus, split="train"):
    return [sentence.words for sentence in corpus.splits[split]]


def test_columns_blank_lines_document_starts_and_line_ends(corpus_folder):
    content = (
        b"\xef\xbb\xbf-DOCSTART- -X- -X- O\r\n\r\nAda NNP I-NP B-PER\r\nran\tVBD I-VP O\r\n \t \r\n"
        b"-DOCSTART- -X- O O\nnow RB   I-ADVP O"
    )
    corpus = read_corpus(corpus_folder(train=content, dev="a B-PER\n", test="a O\n"), "bmes")
    assert words_of(corpus) == [["Ada", "ran"], ["now"]]
    assert [sentence.line for sentence in corpus.splits["train"]] == [3, 7]
    assert corpus.splits["train"][0].tags == ["B-PER", "O"]


def test_other_white_space_is_text(corpus_folder):
    folder = corpus_folder(train="\u3000 O\n\u00a0\tS-PER\na\u2028b O\n\u0085 O\n")
    assert words_of(read_corpus(folder, "bmes")) == [["\u3000", "\u00a0", "a\u2028b", "\u0085"]]


def test_valid_is_another_name_of_dev(corpus_folder):
    folder = corpus_folder(dev="Eve S-PER\n")
    (folder / "dev.bmes").rename(folder / "valid.bmes")
    assert words_of(read_corpus(folder, "bmes"), "dev") == [["Eve"]]


def test_iob1_is_read_as_bio_and_said(corpus_folder):
    text = "a I-PER\nb B-PER\nc O\n"
    corpus = read_corpus(corpus_folder(train=text, dev=text, test=text), "bmes")
    assert corpus.splits["dev"][0].tags == ["B-PER", "B-PER", "O"]
    assert corpus.describe()[0] == "tag scheme: IOB1, read as BIO"


def test_the_scheme_is_that_of_the_training_split(corpus_folder):
    """A test split alone looks like IOB1; the training split shows that its `I` is a mistake."""
    folder = corpus_folder(train="a B-PER\nb O\n", dev="a O\n", test="a I-PER\nb O\n")
    corpus = read_corpus(folder, "bmes", splits=("test",))
    assert corpus.found == "BIO"
    assert corpus.splits["test"][0].tags == ["I-PER", "O"]


def test_malformed_transitions_are_reported_not_fatal(corpus_folder):
    folder = corpus_folder(train="a B-PER\nb E-PER\nc O\nd M-PER\n")
    corpus = read_corpus(folder, "bmes")
    assert corpus.malformed == {"train": 2, "dev": 0, "test": 0}
    assert corpus.describe() == [
        "tag scheme: BMES",
        f"{folder}/train.bmes: 1 sentences, 4 tokens, 2 entities",
        f"{folder}/train.bmes: 2 transitions that BMES does not allow (kept as they are)",
        f"{folder}/dev.bmes: 1 sentences, 3 tokens, 1 entities",
        f"{folder}/test.bmes: 1 sentences, 3 tokens, 1 entities",
    ]


BAD_FILES = {
    "one column": (
        "a O\nb O\n\nAda\n",
        ":4: 1 column found ('Ada'), expected a token and its tag",
    ),
    "too many columns": (
        "a O\n\nb NN O\n",
        ":3: 3 columns found, expected 2 as in line 1",
    ),
    "too few columns": (
        "a NN O\nb O\n",
        ":2: 2 columns found, expected 3 as in line 1",
    ),
    "no tag": (
        "a O\nb PER\n",
        ":2: tag 'PER' found, expected O, or B- I- M- E- S- and a type, in the schemes BIO, IOB1, "
        "IOBES/BIOES or BMES",
    ),
    "a letter of another scheme": (
        "a L-PER\n",
        ":1: tag 'L-PER' found, expected O, or B- I- M- E- S- and a type, in the schemes BIO, IOB1, "
        "IOBES/BIOES or BMES",
    ),
    "empty": ("", ": no sentence found, expected at least one line with a token and a tag"),
    "nothing but blank lines": (
        "\n \n\t\n",
        ": no sentence found, expected at least one line with a token and a tag",
    ),
    "not UTF-8": (
        "a O\n\ncafé O\n".encode("latin-1"),
        ":3: byte 0xe9 found, expected UTF-8 text; convert the file, for instance with iconv",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_one_line_with_its_place(corpus_folder, content, message):
    folder = corpus_folder(train=content)
    with pytest.raises(UserError) as error:
        read_corpus(folder, "bmes")
    assert str(error.value) == f"{folder}/train.bmes{message}"


def test_an_unknown_tag_is_named_with_its_line(corpus_folder):
    folder = corpus_folder(test="Ada S-PER\n\nin O\nRome S-LOC\n")
    with pytest.raises(UserError) as error:
        read_corpus(folder, "bmes", labels=["O", "B-PER", "E-PER", "S-PER"])
    assert str(error.value) == (
        f"{folder}/test.bmes:4: tag 'S-LOC' found, expected one of the 4 labels of the tagger "
        "(O, B-PER, E-PER, S-PER); run get_labels.py again if the corpus has changed"
    )


def test_a_missing_split_names_what_is_there(corpus_folder):
    folder = corpus_folder()
    with pytest.raises(UserError) as error:
        read_corpus(folder, "char.bmes")
    assert str(error.value) == (
        f"{folder}: train.char.bmes not found, but train.bmes; is --file_name right?"
    )


def test_labels_cover_all_splits_and_unseen_ones_are_named(corpus_folder, capsys):
    folder = corpus_folder(dev="Eve S-PER\n", test="Oslo S-LOC\n")
    assert write_labels(folder, "bmes") == ["O", "S-LOC", "B-PER", "E-PER", "S-PER"]
    assert (folder / "ner_labels.txt").read_text() == "O\nS-LOC\nB-PER\nE-PER\nS-PER\n"
    assert (
        "warning: 2 of 5 labels occur only in dev and test, so that no tagger can learn them: "
        "S-LOC, S-PER" in capsys.readouterr().err
    )


def test_no_traceback_reaches_the_user(run, corpus_folder):
    folder = corpus_folder(dev="a O\nb\n")
    finished = run("get_labels.py", "--data-dir", folder, "--file-name", "bmes", code=2)
    assert finished.stderr == (
        f"error: {folder}/dev.bmes:2: 1 column found ('b'), expected a token and its tag\n"
    )
    assert finished.stdout == ""
    assert not (folder / "ner_labels.txt").exists()


COUNTS = {  # sentences, tokens and entities of train, dev and test, as their authors publish them
    ("weibo", "char.bmes"): [(1350, 73778, 1895), (270, 14509, 389), (270, 14842, 418)],
    ("wnut17", "word.bmes"): [(3394, 62730, 1975), (1009, 15733, 836), (1287, 23394, 1079)],
    ("bc5cdr", "word.bmes"): [(4560, 118170, 9385), (4581, 117453, 9593), (4797, 124750, 9809)],
}


@pytest.mark.parametrize(("name", "file_name"), COUNTS)
def test_real_corpora_have_their_published_counts(shared, name, file_name):
    corpus = read_corpus(shared / "data" / "bmes" / name, file_name)
    for sentences, counts in zip(corpus.splits.values(), COUNTS[name, file_name], strict=True):
        tokens = sum(len(sentence.words) for sentence in sentences)
        entities = [tag for sentence in sentences for tag in sentence.tags if tag[0] in {"B", "S"}]
        assert (len(sentences), tokens, len(entities)) == counts


def test_the_raw_files_of_weibo_and_wnut17(shared):
    """Two-digit positions after a character, I after O, and blank lines that are a lone tab."""
    raw = shared / "data" / "raw"

    weibo = read_file(raw / "weibo" / "weiboNER_2nd_conll.train")
    assert len(weibo) == 1350
    assert sum(BIO.count_malformed(sentence.tags) for sentence in weibo) > 0
    assert len(read_file(raw / "wnut17" / "wnut17train.conll")) == 3394
