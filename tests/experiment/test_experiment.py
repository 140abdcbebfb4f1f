"""Many seeds through the real entry point, on a tiny corpus."""

import json
import logging
import shlex
import shutil
import warnings

import numpy as np
import pytest
from tqdm import tqdm

from knn_ner import infer, train, tune
from knn_ner.datastore.reader import Datastore
from knn_ner.evaluation.prediction_files import read_counts, read_votes
from knn_ner.evaluation.significance import f1_of
from knn_ner.experiment import __main__ as experiment
from knn_ner.experiment.progress import View
from knn_ner.experiment.report import render
from knn_ner.utils.files import read_json

TRAINING = ("--max_epochs", 9, "--lr", 5e-3, "--train_batch_size", 16, "--device", "cpu")
GRID = ("--grid_k", 4, 16, "--grid_temperature", 0.05, 0.2)
STEPS = ("train", "build", "tune", "dev", "test", "oracle")


@pytest.fixture(scope="module")
def given(tiny_corpus, tiny_encoder):
    return (
        *("--data_dir", tiny_corpus, "--file_name", "word.bmes", "--bert_path", tiny_encoder),
        *TRAINING,
    )


def run(*arguments: object) -> dict:
    line = [str(part) for part in arguments]
    return experiment.experiment(experiment.parse_arguments(line), shlex.join(line))


def train_alone(given, folder, seed) -> None:
    line = (*given, "--save_path", folder, "--seed", seed)
    train.train(train.parse_arguments([str(part) for part in line]))


@pytest.fixture(scope="module")
def finished(given, tmp_path_factory):
    """Two seeds, of which the first was trained by `knn_ner.train`: folder and results."""
    folder = tmp_path_factory.mktemp("experiment")
    train_alone(given, folder / "seed-0", 0)
    return folder, run(*given, *GRID, "--seeds", 0, 1, "--save_path", folder)


def written(folder) -> dict:
    return {
        path: path.stat().st_mtime_ns
        for pattern in ("seed-*/*.json", "seed-*/*/*.json", "seed-*/*.csv")
        for path in folder.glob(pattern)
    }


def test_what_is_written(finished):
    folder, results = finished
    assert read_json(folder / "experiment.json") == json.loads(json.dumps(results))
    for seed in ("seed-0", "seed-1"):
        names = {path.name for path in (folder / seed).iterdir()}
        assert names >= {
            "model", "train_results.json", "settings.json", "datastore", "tuning.json", "tuning.csv",
            "dev", "test", "oracle.json", "steps.json", "experiment.log",
        }  # fmt: skip
        steps = read_json(folder / seed / "steps.json")
        assert set(steps) == set(STEPS) - {"train"}
        # What the steps say went to the log, whole lines only.
        log = (folder / seed / "experiment.log").read_text()
        assert "== oracle\n" in log and "\r" not in log
    assert "epoch 9/9" in (folder / "seed-1" / "experiment.log").read_text()
    assert "== train" not in (folder / "seed-0" / "experiment.log").read_text()


def test_the_numbers_are_those_of_the_commands(finished):
    folder, results = finished
    for system in ("base", "knn"):
        for place, score in enumerate(("f1", "strict_f1", "piece_f1")):
            measured = [
                read_json(folder / f"seed-{seed}" / "test" / "knn_results.json")[system][score]
                for seed in (0, 1)
            ]
            line = results["comparisons"][place]
            assert (line["subset"], line["score"]) == ("all", score)
            # Of the sentences' counts, against the scores over the whole.
            assert line[system]["values"] == pytest.approx(measured)
            assert line[system]["mean"] == pytest.approx(np.mean(measured))
            assert line[system]["std"] == pytest.approx(np.std(measured, ddof=1))
    word = results["comparisons"][0]
    gain = np.subtract(word["knn"]["values"], word["base"]["values"])
    assert word["gain"]["values"] == pytest.approx(gain)
    assert word["interval"][0] <= word["gain"]["mean"] <= word["interval"][1]
    assert word["seeds_with_gain"] == (gain > 0).sum()
    # Nothing that was tuned on dev beats what was chosen on test.
    assert (np.array(results["oracle"]["f1"]["values"]) >= word["knn"]["values"]).all()


def test_the_page(finished):
    folder, results = finished
    page = (folder / "experiment.md").read_text()
    word = results["comparisons"][0]
    assert f"| {word['gain']['mean']:+.2f} ± {word['gain']['std']:.2f} |" in page
    assert "word F1, settings chosen on test: **not a fair number**" in page
    assert f"    {results['command']}" in page
    assert all(len(line.split("|")) == 10 for line in page.splitlines() if "word F1 " in line)


def test_the_breakdown_adds_up_to_the_scores(finished):
    folder, results = finished
    told = results["breakdown"]
    measured = [read_json(folder / f"seed-{seed}" / "test" / "knn_results.json") for seed in (0, 1)]
    types = {each["group"]: each for each in told["groups"]["type"]}
    for type_, group in types.items():
        for system in ("base", "knn"):
            scores = [each[system]["per_type"].get(type_, {"f1": 0})["f1"] for each in measured]
            assert group[system] == pytest.approx(np.mean(scores))
    entities = results["comparisons"][0]["entities"]
    assert sum(group["entities"] for group in types.values()) == entities
    words = sum(row["words"] for row in told["agreement"])
    assert words == told["tags"]["words"] == 677
    page = (folder / "experiment.md").read_text()
    assert "| form in training  | unseen " in page and "| not searched " in page


def test_leaked_sentences_are_scored_apart(finished, given, tiny_corpus, tmp_path):
    """Ten training sentences in the test set, one of them tagged otherwise: rows without them."""
    corpus = tmp_path / "corpus"
    shutil.copytree(tiny_corpus, corpus)
    blocks = (corpus / "train.word.bmes").read_text().split("\n\n")[:10]
    first = blocks[0].splitlines()
    blocks[0] = "\n".join(f"{line.split()[0]} O" for line in first)
    test = corpus / "test.word.bmes"
    test.write_text(test.read_text() + "\n" + "\n\n".join(blocks) + "\n")
    folder, results = finished
    line = (*given, *GRID, "--data_dir", corpus, "--seeds", 0, "--save_path", tmp_path / "out")
    leaked = run(*line, "--taggers", folder)
    counts = leaked["leakage"]
    assert (counts["sentences"], counts["exact"], counts["retagged"]) == (70, 10, 1)
    parts = {each["subset"]: each for each in leaked["comparisons"] if each["score"] == "f1"}
    assert parts["all"]["sentences"] == 70 and parts["not_stored"]["sentences"] == 60
    before = results["comparisons"][0]
    for system in ("base", "knn"):
        assert parts["not_stored"][system]["mean"] == pytest.approx(before[system]["values"][0])
    page = (tmp_path / "out" / "experiment.md").read_text()
    assert "| without 10 stored word for word (60)" in page
    assert "Of 70 test sentences 10 stand word for word in the datastore, 1 of these with" in page


def test_a_seed_is_trained_as_if_alone(finished, given, tmp_path):
    folder, _ = finished
    train_alone(given, tmp_path, 1)
    weights = "model/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (folder / "seed-1" / weights).read_bytes()


def test_what_inference_keeps(finished):
    folder, _ = finished
    base, knn = read_counts(folder / "seed-1" / "test" / "sentences.csv")
    results = read_json(folder / "seed-1" / "test" / "knn_results.json")
    assert f1_of(knn.sum(axis=0)) == pytest.approx(
        [results["knn"][score] for score in ("f1", "strict_f1", "piece_f1")]
    )
    assert (base[..., 2] == knn[..., 2]).all() and len(base) == 60
    votes = read_votes(folder / "seed-1" / "test" / "votes.csv")
    assert votes and all(0 < share <= 1 for _, share in votes.values())
    labels = set(Datastore.open(folder / "seed-1" / "datastore").labels)
    assert {label for label, _ in votes.values()} <= labels


def test_the_share_of_tokens_to_search(finished, given, tmp_path):
    """As told for a weight, and as it is when inference is given that weight."""
    folder, _ = finished
    line = (*given[:4], "--model_path", folder / "seed-0" / "model", "--save_path", tmp_path)
    line = (*line, "--datastore_path", folder / "seed-0" / "datastore", "--k", 4)
    line = (*line, "--temperature", 0.1, "--knn_weight", 0.3, "--device", "cpu")
    results = infer.infer(infer.parse_arguments([str(part) for part in line]))
    share = results["searched_share"]
    assert share["0.30"] == round(results["searched_tokens"] / results["tokens"], 6)
    assert list(share.values()) == sorted(share.values()) and share["0.50"] == 1


def test_tuning_draws_its_plot(finished, given, tmp_path):
    folder, _ = finished
    copy = tmp_path / "datastore"
    shutil.copytree(folder / "seed-0" / "datastore", copy)
    line = (*given[:4], *GRID, "--model_path", folder / "seed-0" / "model", "--device", "cpu")
    line = (*line, "--datastore_path", copy, "--save_path", tmp_path, "--plot")
    tune.tune(tune.parse_arguments([str(part) for part in line]))
    assert (tmp_path / "tuning.csv").read_text() == (folder / "seed-0/tuning.csv").read_text()
    assert (tmp_path / "tuning.png").stat().st_size and (tmp_path / "tuning.svg").stat().st_size
    assert not (folder / "seed-0" / "tuning.png").exists()
    # The experiment's own shows the mean of its seeds.
    assert "(mean of 2 seeds)" in (folder / "tuning.svg").read_text()
    assert (folder / "breakdown.png").stat().st_size < 100_000


def test_what_is_finished_is_not_done_again(finished, given, capfd):
    folder, results = finished
    before = written(folder)
    again = run(*given, *GRID, "--seeds", 0, 1, "--save_path", folder)
    assert written(folder) == before
    assert "finished already: 12 of 12 steps" in capfd.readouterr().err
    assert again["comparisons"] == results["comparisons"]


def test_another_grid_is_tuned_again(finished, given, tmp_path, capfd):
    folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder / "seed-1", copy / "seed-1")
    run(*given, "--grid_k", 2, "--grid_temperature", 1, "--seeds", 1, "--save_path", copy)
    said = capfd.readouterr().err
    assert "finished already: 2 of 6 steps" in said
    assert [line.split(",")[0] for line in said.splitlines() if line.startswith("seed 1")] == [
        f"seed 1: {step}" for step in STEPS[2:]
    ]
    assert read_json(copy / "seed-1" / "tuning.json")["best"]["k"] == 2


def test_taggers_of_another_experiment(finished, given, tmp_path):
    folder, results = finished
    line = (*given, *GRID, "--seeds", 0, "--save_path", tmp_path, "--taggers", folder)
    other = run(*line, "--similarity", "l2")
    assert not (tmp_path / "seed-0" / "model").exists()
    assert other["per_seed"][0]["tuned"]["similarity"] == "l2"
    assert other["per_seed"][0]["test"]["base"] == results["per_seed"][0]["test"]["base"]
    assert other["comparisons"][0]["gain"]["std"] is None
    assert (results["name"], other["name"]) == (results["corpus"], f"{results['corpus']}, l2")


def test_other_settings_than_those_of_the_training(finished, given, fails):
    folder, _ = finished
    line = (*given, "--seeds", 1, 0, "--save_path", folder, "--lr", 0.01)
    assert fails(experiment.main, *line) == (
        f"error: {folder}/seed-1: trained with --lr 0.005, but --lr 0.01 is asked for; give the flags that "
        "it was trained with, or another --save_path"
    )


def test_no_tagger_to_take(given, fails, tmp_path):
    line = (*given, "--seeds", 7, "--save_path", tmp_path / "new", "--taggers", tmp_path)
    assert fails(experiment.main, *line) == (
        f"error: {tmp_path}/seed-7/train_results.json: not found, but --taggers names this folder; train "
        "there first, or leave out this seed"
    )
    assert not (tmp_path / "new").exists()


def test_a_seed_twice(given, fails, tmp_path):
    line = (*given, "--seeds", 1, 1, "--save_path", tmp_path / "new")
    assert fails(experiment.main, *line) == "error: --seeds 1 1: each expected once"


def test_the_log_has_the_messages_of_a_step_and_no_progress_bars(tmp_path, capfd):
    """Warnings are shown too; after an error the log holds what came before it."""
    view = View({"train": 1})
    log = tmp_path / "log"
    logger = logging.getLogger("knn_ner.train")
    with pytest.raises(ValueError), view.step("seed 3", "train", log):
        logger.info("300 sentences")
        for _ in tqdm(range(3), desc="build"):
            logger.info("epoch 1/3")
        logger.warning("look here")
        warnings.warn("deprecated", stacklevel=1)
        raise ValueError
    view.close()
    messages, python_warning = log.read_text().split("warning: look here\n")
    assert messages == "== train\n300 sentences\n" + "epoch 1/3\n" * 3
    assert "UserWarning: deprecated\n" in python_warning
    shown = ["seed 3: epoch 1/3"] * 3 + ["seed 3: warning: look here"]
    assert capfd.readouterr().err.splitlines() == shown
    logger.info("after the step")
    assert "after" not in log.read_text() and capfd.readouterr().err == "after the step\n"


def test_the_mean_over_corpora_stands_below_the_gains_it_is_of():
    names = {"name": "ours", "other": "theirs", "seeds": 2, "there": 50.0, "here": 51.0, "p": 0.03}
    lines = [names | {"gain": gain, "interval": [0.1, 2.0]} for gain in (0.5, 1.5)]
    mean = {"gain": 1.0, "interval": [0.4, 1.6]}
    rows = render("against", pairs=lines, mean=mean).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[0][5:7] == ["gain", "95% interval"]
    assert cells[-1] == ["mean", "", "", "", "", "+1.00", "+0.40 to +1.60", ""]
