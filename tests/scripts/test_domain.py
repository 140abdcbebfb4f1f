"""scripts/domain.sh: a tagger on another domain, with its datastore added and trained anew."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from studies import domain

from knn_ner.datastore.reader import Datastore
from knn_ner.synthetic.bert import write_bert_encoder
from knn_ner.synthetic.size import Size

TRAINING = ("--lr", "5e-3", "--max_epochs", "4", "--train_batch_size", "8", "--device", "cpu")
COLUMNS = (
    "domain,trained on,datastore,k,temperature,knn_weight,train s,store s,tune s,all s,processor s"
)


# Words that tell their label, so that a random encoder learns them from a few sentences.
WORDS = {
    "O": "the of was in they sang saw and then often".split(),
    "PER": "Ada Bob Cid Dot Eve Fay Gus Hal".split(),
    "LOC": "Ulm Pau Rom Oslo Kiel Bern Lima Cork".split(),
    "SONG": "Yesterday Help Imagine Angie Hurt Zombie Roxanne Layla".split(),
}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Three small corpora; `songs` has a type that `news` and `more` lack."""
    folder = tmp_path_factory.mktemp("domains")
    for seed, name in enumerate(("news", "songs", "more"), start=1):
        generator = np.random.default_rng(seed)
        kinds = [kind for kind in WORDS if kind != "SONG" or name == "songs"]
        (folder / name).mkdir()
        for split, size in {"train": 60, "dev": 15, "test": 25}.items():
            text = ""
            for _ in range(size):
                for kind in generator.permutation(kinds * 2):
                    tag = kind if kind == "O" else f"S-{kind}"
                    text += f"{generator.choice(WORDS[kind])} {tag}\n"
                text += "\n"
            (folder / name / f"{split}.word.bmes").write_text(text)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT of random weights whose word pieces are these words."""
    folder = tmp_path_factory.mktemp("encoder")
    words = [word for kind in WORDS.values() for word in kind] * 5
    size = Size(hidden_size=32, layers=1, heads=2)
    write_bert_encoder(folder, words, size, vocabulary_size=300)
    return folder


def run_script(code=0, flags=TRAINING, **variables):
    kept = {k: v for k, v in os.environ.items() if k not in ("SOURCE", "TARGETS", "RETRAIN")}
    offline = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        ["bash", str(ROOT / "scripts" / "domain.sh"), *flags],
        env=kept | offline | {name: str(value) for name, value in variables.items()},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == code, finished.stderr[-3000:]
    return finished


needs_environment = pytest.mark.skipif(
    not (ROOT / ".venv" / "bin" / "python").is_file(),
    reason="the script would make .venv first; scripts/test.sh has it",
)


@pytest.fixture(scope="module")
def study(corpora, encoder, tmp_path_factory):
    """One run over one target: the folder, and what it printed."""
    folder = tmp_path_factory.mktemp("study")
    line = ["--data", corpora, "--source", "news", "--targets", "songs", "--retrain", "both"]
    line += ["--bert_path", encoder, "--save_path", folder, "--", *TRAINING]
    finished = subprocess.run(
        [sys.executable, "scripts/studies/domain.py", *map(str, line)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return folder, finished.stdout


def table(folder):
    with (folder / "domain.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table(study):
    folder, printed = study
    assert (folder / "domain.md").read_text() == printed
    assert (folder / "domain.csv").read_text().startswith(f"{COLUMNS},F1 all,F1 shared,F1 new\n")
    rows = table(folder)
    assert [(row["trained on"], row["datastore"]) for row in rows] == [
        ("news", "none"),
        ("news", "news + songs"),
        ("news", "songs"),
        ("news + songs", "none"),
        ("news + songs", "news + songs"),
    ]
    alone, added, swapped = rows[:3]
    # What a tagger has no label for it cannot give; its neighbours can.
    assert float(alone["F1 new"]) == 0 < float(added["F1 new"])
    assert min(float(added["F1 all"]), float(swapped["F1 all"])) > float(alone["F1 all"])
    assert float(alone["all s"]) == 0 and float(added["train s"]) == 0
    for row in rows:
        parts = sum(float(row[f"{part} s"]) for part in ("train", "store", "tune"))
        assert float(row["all s"]) == pytest.approx(parts, abs=0.2)


def test_the_scores_are_those_of_inference(study):
    folder, _ = study
    results = json.loads((folder / "songs" / "added" / "knn_results.json").read_text())
    added = table(folder)[:2]
    for row, name in zip(added, ("base", "knn"), strict=True):
        assert row["F1 all"] == f"{results[name]['f1']:.2f}"
        assert row["F1 new"] == f"{results[name]['per_type']['SONG']['f1']:.2f}"
    best = json.loads((folder / "songs" / "added" / "tuning.json").read_text())["best"]
    assert (str(best["k"]), f"{best['temperature']:g}") == (added[1]["k"], added[1]["temperature"])


def test_the_source_keeps_its_datastore(study):
    folder, _ = study
    source = Datastore.open(folder / "news" / "datastore")
    added = Datastore.open(folder / "songs" / "added" / "datastore")
    assert (len(source.stored_sentences), len(added.stored_sentences)) == (60, 120)
    swapped = Datastore.open(folder / "songs" / "swapped" / "datastore")
    assert swapped.stored_sentences.tolist() == list(range(60, 120))
    assert "S-SONG" in added.labels and "S-SONG" not in source.labels


@needs_environment
def test_what_is_finished_is_kept(study, corpora, encoder):
    """A further target is run, the first is not; a step that is missing is done again."""
    folder, _ = study
    before = table(folder)
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("model/*")}
    kept |= {path: path.stat().st_mtime_ns for path in folder.rglob("datastore/manifest.json")}
    (folder / "songs" / "both" / "row.json").unlink()
    finished = run_script(
        DATA=corpora,
        SOURCE="news",
        TARGETS="songs more",
        RETRAIN="alone",
        BERT_PATH=encoder,
        SAVE_PATH=folder,
    )
    rows = table(folder)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    # Of what RETRAIN does not name, what is finished is shown.
    assert rows[:3] == before[:3]
    assert [(row["domain"], row["trained on"], row["datastore"]) for row in rows[3:]] == [
        ("songs", "songs", "none"),
        ("songs", "songs", "songs"),
        ("more", "news", "none"),
        ("more", "news", "news + more"),
        ("more", "news", "more"),
        ("more", "more", "none"),
        ("more", "more", "more"),
    ]
    assert all((row["F1 new"] == "") == (row["domain"] == "more") for row in rows)
    assert "== songs: alone" in finished.stderr and "== songs: added" not in finished.stderr


def test_shared_and_new_types_are_counted_apart(tmp_path):
    """Ten words: two of three shared entities right and one too many; one of two new ones right."""
    path = tmp_path / "predictions.txt"
    path.write_text(
        "a\tS-PER\tS-PER\tS-PER\nb\tO\tO\tO\nc\tS-PER\tO\tS-PER\n\n"
        "d\tB-GENE\tO\tB-GENE\ne\tE-GENE\tO\tE-GENE\nf\tS-GENE\tS-PER\tS-LOC\ng\tS-PER\tO\tO\n"
    )
    scores = domain.f1_by_class(path, {"PER", "LOC"})
    assert scores["base"] == pytest.approx({"all": 200 / 7, "shared": 40, "new": 0})
    assert scores["knn"] == pytest.approx({"all": 600 / 9, "shared": 400 / 6, "new": 200 / 3})


@needs_environment
def test_what_is_not_given(corpora, tmp_path):
    finished = run_script(
        2, DATA=corpora, SOURCE="news", TARGETS="songs", SAVE_PATH=tmp_path / "new"
    )
    assert finished.stderr.splitlines()[-1] == (
        "error: BERT_PATH not given, expected SOURCE, TARGETS and BERT_PATH; see scripts/domain.sh"
    )


def test_the_source_is_no_target(fails, corpora, tmp_path):
    line = ["--data", corpora, "--source", "news", "--targets", "songs", "news"]
    line += ["--bert_path", "nowhere", "--save_path", tmp_path / "new"]
    assert fails(domain.main, *line) == (
        "error: news: is the source, and a target too; name other corpora"
    )
    assert not (tmp_path / "new").exists()
