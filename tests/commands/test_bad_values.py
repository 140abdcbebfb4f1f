"""A bad value on a command line is answered in one line before work begins, and nothing is written."""

import pytest

from knn_ner import build_index, infer, predict, train, tune

CORPUS = ("--data_dir", "D", "--file_name", "F")
STORED = (*CORPUS, "--model_path", "M", "--datastore_path", "P")


@pytest.mark.parametrize("seed", ["-1", "4294967296", "x"])
def test_seeds(fails, seed):
    line = (*CORPUS, "--bert_path", "B", "--save_path", "S", "--seed", seed)
    assert fails(train.main, *line).startswith("error: argument --seed: ")


@pytest.mark.parametrize("command", [train, infer, tune])
def test_a_file_where_a_folder_is_expected(fails, tmp_path, command):
    file = tmp_path / "file"
    file.write_text("kept")
    own = ("--bert_path", "B") if command is train else STORED[4:]
    answer = fails(command.main, *CORPUS, *own, "--save_path", file)
    assert answer.startswith(f"error: argument --save_path: {file} is a file, a folder expected")
    assert file.read_text() == "kept"


def test_a_folder_where_a_file_is_expected(fails, tmp_path):
    answer = fails(predict.main, "--model_path", "M", "--out", tmp_path)
    assert answer.startswith(f"error: argument --out: {tmp_path} is a folder, a file expected")


@pytest.mark.parametrize("content", ["[1]", '{"best": 3}', "{}", "3"])
def test_a_tuning_file_of_another_kind(fails, tmp_path, content):
    file = tmp_path / "tuning.json"
    file.write_text(content)
    line = (*STORED, "--save_path", tmp_path / "o", "--tuning", file)
    assert fails(infer.main, *line) == (
        f"error: {file}: no best k; expected a file of knn_ner.tune"
    )


@pytest.mark.parametrize("index", ["IVFx", "PQ7", "nothing"])
def test_an_index_that_faiss_does_not_know(fails, datastore, index):
    answer = fails(build_index.main, "--datastore_path", datastore, "--index", index)
    assert answer.startswith(f'error: index "{index}": ')
