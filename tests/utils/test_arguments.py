"""Flags are made from settings, and a flag that is not known is answered by what to give instead."""

import pytest

from knn_ner.train import main, parse_arguments

LINE = ("--data_dir", "D", "--file_name", "F", "--bert_path", "B", "--save_path", "S")


@pytest.mark.parametrize(
    ("flag", "answer"),
    [
        ("--epochs", "--epochs: no such flag; did you mean --max_epochs?"),
        ("--learning-rate", "--learning-rate: no such flag; did you mean --lr?"),
        ("--max_epoch", "--max_epoch: no such flag; did you mean --max_epochs?"),
        ("--gpus", "--gpus: a flag of the published code; give --device cuda, and --devices N for"),
        ("--language", "--language: a flag of the published code; give --units characters for zh"),
        ("--optimizer", "--optimizer: a flag of the published code; leave it out: both published"),
        ("--xyzzy", "--xyzzy: no such flag; see "),
    ],
)
def test_an_unknown_flag_is_answered_in_one_line(fails, flag, answer):
    assert fails(main, *LINE, flag, "1").startswith(f"error: {answer}")


def test_both_spellings_of_a_flag_are_read():
    words = [word.replace("_", "-") if word.startswith("--") else word for word in LINE]
    assert parse_arguments(words) == parse_arguments(list(LINE))
    assert parse_arguments([*LINE, "--max-epochs=7"]).max_epochs == 7
    # A value is read as it is.
    assert parse_arguments([*LINE[:-1], "--save-path"[2:]]).save_path == "save-path"
