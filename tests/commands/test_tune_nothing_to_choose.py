"""Tuning returns a setting where the neighbours change nothing."""

import json

import pytest

from get_labels import write_labels
from knn_ner import build_datastore, tune
from knn_ner.train import parse_arguments, train


def flags(*words: object) -> list[str]:
    return [str(word) for word in (*words, "--device", "cpu")]


@pytest.mark.parametrize("grid", [(-1,), (1,), (1, -1), (300_000,)])
def test_a_grid_of_one_k(tiny_corpus, trained, datastore, tmp_path, grid):
    line = flags(
        *("--data_dir", tiny_corpus, "--file_name", "word.bmes", "--model_path", trained / "model"),
        *("--datastore_path", datastore, "--save_path", tmp_path, "--grid_k", *grid),
        *("--grid_temperature", 0.1, 1),
    )
    best = tune.tune(tune.parse_arguments(line))["best"]
    assert best["k"] in (-1, 1, 3000) or best["k"] > 1
    assert json.loads((tmp_path / "tuning.json").read_text())["best"] == best


@pytest.mark.parametrize("tag", ["O", "B-PER"])
def test_a_corpus_of_one_label(tiny_encoder, tmp_path, tag):
    """Every neighbour has the label that the tagger gives, so all weights are one plateau and its middle is taken."""
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.bmes").write_text(f"Ada {tag}\nran {tag}\n\n" * 4)
    write_labels(tmp_path, "bmes")
    common = ("--data_dir", tmp_path, "--file_name", "bmes")
    line = flags(*common, "--bert_path", tiny_encoder, "--save_path", tmp_path / "s", "--lr", 1e-3)
    train(parse_arguments(line))
    stored = ("--model_path", tmp_path / "s/model", "--datastore_path", tmp_path / "d")
    build_datastore.build_datastore(build_datastore.parse_arguments(flags(*common, *stored)))
    for grid in ((-1,), (1,), (4, 8)):
        line = flags(*common, *stored, "--save_path", tmp_path / "o", "--grid_k", *grid)
        best = tune.tune(tune.parse_arguments(line))["best"]
        assert best["knn_weight"] == 0.5 and best["k"] in (*grid, 8)
