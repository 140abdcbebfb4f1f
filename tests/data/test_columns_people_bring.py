"""Column files as people bring them: comment lines, tags that look alike, odd columns, other encodings."""

import pytest

from get_labels import write_labels
from knn_ner.data.corpus import read_corpus, read_labels
from knn_ner.utils.errors import UserError

COMMENTS = ["# sent_id = 3", "# newdoc", "# text = Ada wrote", "# newpar id = p1"]


def message_of(call) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("comment", COMMENTS)
def test_comment_lines_are_named_as_such_or_skipped(corpus_folder, comment):
    folder = corpus_folder(train=f"{comment}\nAda B-PER\nran O\n\n{comment}\nBob B-PER\n")
    message = message_of(lambda: read_corpus(folder, "bmes"))
    assert ":1: comment line" in message and "--comments '#'" in message
    train = read_corpus(folder, "bmes", comments="#").splits["train"]
    assert [sentence.words for sentence in train] == [["Ada", "ran"], ["Bob"]]


@pytest.mark.parametrize(
    ("mark", "code"),
    [("\u00a0", "U+00A0"), ("\u200b", "U+200B"), ("\ufeff", "U+FEFF"), ("\u2028", "U+2028"),
     ("\u202e", "U+202E"), ("\u00ad", "U+00AD")],
)  # fmt: skip
def test_a_tag_with_an_invisible_character_is_refused_with_its_code(corpus_folder, mark, code):
    folder = corpus_folder(train=f"Ada B-PER\nran O\nBob B-PER{mark}\n\n")
    message = message_of(lambda: read_corpus(folder, "bmes"))
    assert ":3: tag" in message and code in message
    labels = folder / "ner_labels.txt"
    labels.write_text(f"O\nB-PER{mark}\n", encoding="utf-8")
    message = message_of(lambda: read_labels(labels))
    assert f"{labels}:2: label" in message and code in message


@pytest.mark.parametrize("order", ["B-PER\nI-PER\nO\n", "I-PER\nO\nB-PER\n", "O\nB-PER\nI-PER\n"])
def test_labels_are_read_in_their_order(tmp_path, order):
    """The published get_labels.py writes labels as they come in the training file."""
    file = tmp_path / "ner_labels.txt"
    file.write_text(order)
    assert read_labels(file) == order.split()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_other_encodings_are_refused_in_one_line(corpus_folder, encoding):
    folder = corpus_folder(train="Zoë B-PER\nran O\n\n".encode(encoding))
    assert "expected UTF-8" in message_of(lambda: read_corpus(folder, "bmes"))
    labels = folder / "ner_labels.txt"
    labels.write_bytes("O\nB-Zoë\n".encode(encoding))
    assert "expected UTF-8" in message_of(lambda: read_labels(labels))


def test_the_odd_line_is_blamed(corpus_folder):
    """A space in a field of a tab-separated file: line 1 is the odd one."""
    folder = corpus_folder(train="New York\tB-LOC\nis\tO\nbig\tO\n\n")
    assert message_of(lambda: read_corpus(folder, "bmes")).startswith(
        f"{folder}/train.bmes:1: a space found in 'New York'"
    )
    folder = corpus_folder(train="is\tO\nbig\tO\nNew York\tB-LOC\n\n")
    assert ":3: " in message_of(lambda: read_corpus(folder, "bmes"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 Ada O B-PER\n2 ran O O\n\n1 Bob O B-PER\n2 sat O O\n\n", "holds numbers"),
        ("官0 O\n方1 O\n京0 B-LOC\n城1 E-LOC\n\n", "position in a segmented word"),
    ],
)
def test_a_first_column_that_holds_no_words_is_warned_of(corpus_folder, text, told, capfd):
    read_corpus(corpus_folder(train=text, dev=text, test=text), "bmes").report()
    assert "warning: " in capfd.readouterr().err.split(told)[0]


@pytest.mark.parametrize("name", ["testa", "validation", "eval"])
def test_a_missing_split_lists_what_is_there(corpus_folder, name):
    folder = corpus_folder()
    (folder / "dev.bmes").rename(folder / f"{name}.bmes")
    message = message_of(lambda: read_corpus(folder, "bmes"))
    assert f"{name}.bmes" in message and "dev.bmes or valid.bmes not found" in message


def test_a_missing_label_file_names_the_script_that_makes_it(corpus_folder):
    folder = corpus_folder()
    assert "get_labels.py" in message_of(lambda: read_labels(folder / "ner_labels.txt"))
    write_labels(folder, "bmes")
    assert read_labels(folder / "ner_labels.txt")[0] == "O"
