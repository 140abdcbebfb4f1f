"""scripts/low_resource.sh: taggers of parts of the sentences, with datastores of the part and of all."""

import csv
import itertools
import os
import subprocess

import pytest
from conftest import ROOT
from studies import low_resource

from knn_ner.data.corpus import Sentence, read_corpus
from knn_ner.datastore.reader import Datastore
from knn_ner.utils.files import read_json

TRAINING = ("--max_epochs", 4, "--lr", 5e-3, "--train_batch_size", 16, "--device", "cpu")
GRID = ("--grid_k", 4, 16, "--grid_temperature", 0.05, 0.2)


@pytest.fixture(scope="module")
def given(tiny_corpus, tiny_encoder):
    return (
        *("--data_dir", tiny_corpus, "--file_name", "word.bmes", "--bert_path", tiny_encoder),
        *TRAINING,
        *GRID,
        *("--shares", 100, 20, "--min_steps", 40),
    )


@pytest.fixture(scope="module")
def finished(given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("low")
    line = (*given, "--seeds", 0, "--save_path", folder)
    low_resource.main([str(part) for part in line])
    return folder


def rows_of(folder):
    with (folder / "low_resource.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_three_lines(finished):
    rows = rows_of(finished)
    assert [(row["percent"], row["sentences"], row["line"]) for row in rows] == [
        (share, count, line)
        for share, count in (("20", "60"), ("100", "300"))
        for line in (
            "tagger alone",
            "kNN, datastore of the same part",
            "kNN, datastore of all sentences",
        )
    ]
    part, full = (
        read_json(finished / name / "seed-0" / "test" / "knn_results.json")
        for name in ("part-020", "all-020")
    )
    # The same tagger, whatever is stored.
    assert part["base"] == full["base"]
    for row, measured in zip(rows, (part["base"], part["knn"], full["knn"]), strict=False):
        assert row["f1_mean"] == f"{measured['f1']:.4f}" and row["f1_std"] == ""
    gain = full["knn"]["f1"] - full["base"]["f1"]
    assert rows[2]["gain"] == f"{gain:.4f}" and float(rows[2]["low"]) <= float(rows[2]["high"])
    assert rows[4]["f1_mean"] == rows[5]["f1_mean"]


def test_what_is_stored_and_trained(finished, tiny_corpus):
    part = finished / "part-020"
    corpus = read_corpus(part / "corpus-0", "word.bmes")
    whole = read_corpus(tiny_corpus, "word.bmes")
    for split in ("dev", "test"):
        assert [s.words for s in corpus.splits[split]] == [s.words for s in whole.splits[split]]
    everything = [(s.words, s.tags) for s in whole.splits["train"]]
    assert all((s.words, s.tags) in everything for s in corpus.splits["train"])
    stored = {
        name: len(Datastore.open(finished / name / "seed-0" / "datastore").stored_sentences)
        for name in ("part-020", "all-020", "part-100")
    }
    assert stored == {"part-020": 60, "all-020": 300, "part-100": 300}
    assert not (finished / "all-100").exists() and not (finished / "all-020/seed-0/model").exists()
    # 60 sentences are 4 steps of 16: ten epochs for 40 steps, and two more so that dev is scored four
    # times. 300 are 19: the four epochs that were given.
    for name, epochs, steps in (("part-020", 12, 48), ("part-100", 4, 76)):
        results = read_json(finished / name / "seed-0" / "train_results.json")
        assert (results["epochs"], results["steps"]) == (epochs, steps)
    assert (part / "corpus-0/ner_labels.txt").read_text() == (
        tiny_corpus / "ner_labels.txt"
    ).read_text()


def test_the_page_and_the_plot(finished):
    page = (finished / "low_resource.md").read_text()
    assert page.splitlines()[0].split()[:4] == ["|", "percent", "|", "sentences"]
    assert "with all sentences is reached by kNN, datastore of the same part, " in page
    assert "kNN, datastore of all sentences" in (finished / "low_resource.svg").read_text()
    assert (finished / "low_resource.png").stat().st_size < 100_000


def test_another_seed_is_added(finished, given, capfd):
    kept = {path: path.stat().st_mtime_ns for path in finished.rglob("seed-0/**/*.json")}
    line = (*given, "--seeds", 0, 1, "--shares", 20, "--save_path", finished)
    low_resource.main([str(part) for part in line])
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    said = capfd.readouterr()
    assert "finished already: 7 of 14 steps" in said.err
    assert "seed 1, 20%: train" in said.err and "seed 1, 20%, all stored: tune" in said.err
    assert "over 2 seeds" in said.out and rows_of(finished)[0]["f1_std"]
    first, second = ((finished / f"part-020/corpus-{n}/train.word.bmes") for n in (0, 1))
    assert first.read_text() != second.read_text()


def test_other_keys_on_the_same_taggers(finished, given, tmp_path, fails):
    keys = ("--key_transform", "whiten", "--similarity", "l2")
    line = (*given, "--seeds", 0, "--save_path", tmp_path, "--taggers", finished, *keys)
    low_resource.main([str(part) for part in line])
    assert not list(tmp_path.glob("*/seed-0/model"))
    for name in ("part-020", "all-020", "part-100"):
        ours, theirs = (folder / name / "seed-0" for folder in (tmp_path, finished))
        assert Datastore.open(ours / "datastore").recipe.transform is not None
        assert Datastore.open(theirs / "datastore").recipe.transform is None
        base, same = (
            read_json(each / "test" / "knn_results.json")["base"] for each in (ours, theirs)
        )
        assert base == same
    nowhere = (*given, "--seeds", 0, "--save_path", tmp_path / "new", "--taggers", tmp_path)
    missing = tmp_path / "part-020/seed-0/train_results.json"
    assert fails(low_resource.main, *nowhere) == (
        f"error: {missing}: not found, but --taggers names this folder; train there first, or leave out this "
        "seed"
    )


def test_from_which_share_on():
    def rows(*means):
        return [{"percent": n, "x": {"mean": mean}} for n, mean in enumerate(means)]

    assert low_resource.reaches(rows(1, 5, 3, 4, 6), "x", 4) == "from 3% on"
    assert low_resource.reaches(rows(5, 5, 5), "x", 4) == "from 0% on"
    assert low_resource.reaches(rows(5, 5, 3), "x", 4) == "at no share"


def test_parts_are_nested():
    sentences = [Sentence([str(number)], ["O"]) for number in range(50)]
    parts = [
        {each.words[0] for each in low_resource.part_of(sentences, share, seed=3)}
        for share in (1, 5, 10, 40, 100)
    ]
    assert [len(part) for part in parts] == [1, 2, 5, 20, 50]
    assert all(small < large for small, large in itertools.pairwise(parts))
    in_order = [int(each.words[0]) for each in low_resource.part_of(sentences, 40, seed=3)]
    assert in_order == sorted(in_order)


@pytest.mark.skipif(
    not (ROOT / ".venv" / "bin" / "python").is_file(),
    reason="the script would make .venv first; scripts/test.sh has it",
)
def test_the_script_says_what_is_missing(tmp_path):
    variables = dict.fromkeys(("DATA_DIR", "FILE_NAME"), "x") | {"BERT_PATH": ""}
    finished = subprocess.run(
        ["bash", str(ROOT / "scripts" / "low_resource.sh")],
        env=os.environ | variables | {"SAVE_PATH": str(tmp_path / "new")},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2 and finished.stderr.splitlines()[-1] == (
        "error: BERT_PATH not given, expected DATA_DIR, FILE_NAME and BERT_PATH; see scripts/low_resource.sh"
    )


def test_a_share_beyond_all(capsys, given):
    with pytest.raises(SystemExit) as exit_:
        low_resource.main([*map(str, given), "--save_path", "x", "--shares", "150"])
    assert exit_.value.code == 2
    assert "150 found, a percentage above 0 and at most 100 expected" in capsys.readouterr().err


def test_a_small_part_has_more_epochs_and_not_more_scorings(given):
    settings = low_resource.parse_arguments([*map(str, given), "--save_path", "unused"])
    # 4 epochs asked for, of 16 sentences a step, and at least 40 steps.
    assert low_resource.epochs_of(200, settings) == (4, 1.0)
    assert low_resource.epochs_of(40, settings) == (16, 4)
    assert low_resource.epochs_of(3, settings) == (40, 10)
