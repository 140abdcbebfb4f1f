"""The experiments' scripts: their settings against the published table, and three of them from start to end."""

import csv
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from get_labels import write_labels
from knn_ner.data.corpus import read_corpus
from knn_ner.experiment.paper import published_experiments, read_table
from knn_ner.synthetic.bert import write_character_encoder, write_roberta_encoder
from knn_ner.synthetic.chinesebert import write_chinesebert_encoder
from knn_ner.synthetic.corpus import write_corpus
from knn_ner.synthetic.size import Size
from knn_ner.train import parse_arguments, train

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("only_ner.sh", "find_knn.sh", "knn_ner.sh")
OWN = "bert/conll_bert_base"
PUBLISHED = {row["script_dir"]: row for row in read_table("published_hyperparameters.csv")}
FOLDERS = sorted(experiment.script_dir for experiment in published_experiments())
# What scripts/prepare_data.py calls the corpora.
CORPORA = {
    "conll03_en": "conll2003",
    "msra_zh": "msra",
    "ontonotes4_zh": "ontonotes4",
    "ontonotes5_en": "ontonotes5",
    "resume_zh": "resume",
    "weibo_zh": "weibo",
}
TRAINING = (
    *("lr", "max_epochs", "max_length", "weight_decay", "hidden_dropout_prob"),
    *("warmup_proportion", "train_batch_size", "accumulate_grad_batches", "precision"),
    "val_check_interval",
)
# What the published trainers do without a flag.
TRAINER = {"gradient_clip_val": "0", "batching": "random", "select_by": "piece_f1"}
OURS = (
    "DATA_DIR FILE_NAME BERT_PATH SAVE_PATH DATASTORE_PATH SEED SEEDS OUTPUTS SETTINGS DRY_RUN"
).split()
TINY = Size(hidden_size=32, layers=1, heads=2)

needs_environment = pytest.mark.skipif(
    not (ROOT / ".venv" / "bin" / "python").is_file(),
    reason="the scripts would make .venv first; scripts/test.sh has it",
)


def environment(**variables) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    offline = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return kept | offline | {name: str(value) for name, value in variables.items()}


def script(path, *flags, code=0, cwd=ROOT, **variables) -> subprocess.CompletedProcess:
    finished = subprocess.run(
        ["bash", str(ROOT / path), *map(str, flags)],
        env=environment(**variables),
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == code, finished.stderr[-3000:]
    return finished


def commands(path, *flags, **variables) -> list[tuple[str, dict[str, str | bool]]]:
    """What a script would run: module and flags of each command, the last of equal flags."""
    shown = script(path, *flags, DRY_RUN=1, **variables).stdout
    found = []
    for line in shown.splitlines():
        python, *words = shlex.split(line)
        assert python == "python"
        if words[0] == "-m":
            flags: dict[str, str | bool] = {}
            for word, following in itertools.pairwise([*words[2:], "--"]):
                if word.startswith("--"):
                    flags[word[2:]] = True if following.startswith("--") else following
            found.append((words[1], flags))
    return found


def settings_of(folder) -> dict[str, str]:
    """The settings that a folder's scripts must have."""
    if folder != OWN:
        return PUBLISHED[folder]
    like = PUBLISHED["bert/conll_bert_large"]
    return like | {"backbone": "google-bert/bert-base-cased", "file_name": "word.bmes"}


# The settings


def test_there_are_three_scripts_in_each_of_23_folders():
    found = {
        str(path.relative_to(ROOT))
        for folder in ("bert", "ChineseBert/KNN-NER")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }
    assert found == {f"{folder}/{name}" for folder in FOLDERS for name in NAMES}
    assert len(found) == 69
    for path in [*found, "scripts/experiment.sh", "scripts/reproduce.sh"]:
        assert os.access(ROOT / path, os.X_OK) or path == "scripts/experiment.sh"
        subprocess.run(["bash", "-n", ROOT / path], check=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_settings_are_those_of_the_table_and_nothing_else(folder):
    row = settings_of(folder)
    saved = f"outputs/{folder}/seed_2333"
    corpus = {"data_dir": f"data/{CORPORA[row['dataset']]}", "file_name": row["file_name"]}
    model = {"model_path": f"{saved}/model", "datastore_path": f"{saved}/datastore"}
    training = {name: row[name] for name in TRAINING} | TRAINER
    training["units"] = "characters" if row["language"] == "zh" else "words"
    if folder.startswith("ChineseBert/"):
        training["classifier"] = row["classifier"]
    if "weibo_roberta" in folder:
        training["units"] = "words"
    if "chinese-roberta" in row["backbone"]:
        training["no-lowercase"] = True
    assert commands(f"{folder}/only_ner.sh") == [
        (
            "knn_ner.train",
            corpus | {"bert_path": row["backbone"], "save_path": saved, "seed": "2333"} | training,
        )
    ]
    stored = corpus | model | {"max_length": "512"}
    if folder.endswith("_zh"):
        stored["units"] = "words"
    assert commands(f"{folder}/find_knn.sh") == [
        ("knn_ner.build_datastore", stored | {"key_dtype": "float32"})
    ]
    if folder == "bert/onto_bert_base_zh":
        stored["precision"] = "16"
    vote = {name: row[name] for name in ("k", "temperature", "knn_weight")}
    results = {"save_path": saved, "seed": "2333"}
    tuned = {"save_path": f"{saved}/tuned"}
    by_tuning = [
        ("knn_ner.tune", stored | tuned),
        (
            "knn_ner.infer",
            stored | tuned | {"seed": "2333", "tuning": f"{saved}/tuned/tuning.json"},
        ),
    ]
    # The published scripts of Resume choose no vote: they try many on the test set.
    published = [("knn_ner.infer", stored | results | vote)]
    swept = folder.startswith("bert/resume")
    assert commands(f"{folder}/knn_ner.sh") == (by_tuning if swept else published)
    assert commands(f"{folder}/knn_ner.sh", SETTINGS="tuned") == by_tuning


# Published flags that no script of ours passes, or passes with another value, as docs/experiments.md says.
DEVIATIONS = {"save_topk", "optimizer", "batch_size", "en_roberta"}


def test_every_published_flag_is_passed_or_a_listed_deviation(shared):
    with (shared / "reference" / "published_flags.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({(row["script_dir"], row["script"]) for row in rows}) == 66
    found = {}
    for row in rows:
        path = f"{row['script_dir']}/{row['script']}.sh"
        if path not in found:
            (_, found[path]), *_ = commands(path)
        flags, value = found[path], row["value"]
        name = {"topk": "k", "link_temperature": "temperature", "link_ratio": "knn_weight"}.get(
            row["flag"], row["flag"]
        )
        if value.startswith("sweep") or (name == "k" and "k" not in flags):
            assert row["script_dir"].startswith("bert/resume")
        elif name == "bert_path":
            # The tagger's folder stands in its place after the training; a hub name has its owner before it.
            assert flags.get(name, value).endswith(value)
        elif name == "language":
            assert flags["units"] == "characters"
        elif name == "classifier":
            # The published code of bert/ ignores it.
            mlp = row["script_dir"].startswith("ChineseBert/")
            assert flags.get(name) == ("mlp" if mlp else None)
        elif name == "file_name":
            # The scripts of a row name different endings of one corpus; ours name that of the training.
            assert flags[name] == value or row["script"] != "only_ner"
        elif name not in DEVIATIONS:
            assert flags[name] == value, (path, name)
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in ("save_topk", "optimizer", "batch_size"))


def test_a_row_that_nobody_published_scripts_for_says_so():
    for name in ("only_ner.sh", "knn_ner.sh"):
        text = (ROOT / OWN / name).read_text()
        assert "its authors published no scripts" in text and "bert/conll_bert_large" in text


def test_environment_and_flags_come_before_the_defaults(tmp_path):
    folder = "bert/weibo_bert_base_zh"
    given = {"DATA_DIR": "my corpus", "FILE_NAME": "bmes", "BERT_PATH": "encoder", "SEED": "4"}
    (_, found), = commands(f"{folder}/only_ner.sh", "--lr", 1, "--workers", 2, **given)  # fmt: skip
    assert found["data_dir"] == "my corpus" and found["file_name"] == "bmes"
    assert (found["bert_path"], found["lr"], found["workers"]) == ("encoder", "1", "2")
    assert found["save_path"] == f"outputs/{folder}/seed_4" and found["seed"] == "4"
    (_, found), = commands(f"{folder}/find_knn.sh", SAVE_PATH="s", OUTPUTS="o")  # fmt: skip
    assert (found["model_path"], found["datastore_path"]) == ("s/model", "s/datastore")
    (_, found), = commands(f"{folder}/knn_ner.sh", OUTPUTS="o", DATASTORE_PATH="d")  # fmt: skip
    assert found["save_path"] == f"o/{folder}/seed_2333" and found["datastore_path"] == "d"
    # From another folder the defaults are the repository's, and the user's paths his own.
    shown = script(f"{folder}/knn_ner.sh", cwd=tmp_path, DRY_RUN=1, DATA_DIR="c").stdout
    assert f"--data_dir c --file_name all.bmes --model_path {ROOT}/outputs/{folder}" in shown


@pytest.mark.parametrize("flags", [("--seed", 7), ("--seed=7",)])
def test_a_seed_flag_is_the_seed_of_the_folder_too(flags):
    shown = script("bert/weibo_bert_base_zh/only_ner.sh", *flags, DRY_RUN=1).stdout
    assert "--save_path outputs/bert/weibo_bert_base_zh/seed_7 --seed 7 " in shown


def test_tuning_takes_no_flag_of_inference_alone():
    line = ("bert/weibo_bert_base_zh/knn_ner.sh", "--device", "cpu", "--split", "dev")
    (_, tune), (_, infer) = commands(*line, SETTINGS="tuned")
    assert tune["device"] == infer["device"] == "cpu"
    assert infer["split"] == "dev" and "split" not in tune


def test_tuning_again_is_for_another_datastore(tmp_path):
    store, tuned = tmp_path / "datastore" / "manifest.json", tmp_path / "tuned" / "tuning.json"
    for path in (store, tuned):
        path.parent.mkdir()
        path.touch()
    line = ("bert/weibo_bert_base_zh/knn_ner.sh",)
    variables = {"SETTINGS": "tuned", "SAVE_PATH": tmp_path, "DRY_RUN": 1}
    os.utime(store, (1, 1))
    finished = script(*line, **variables)
    assert finished.stderr == f"{tuned}: tuned already; remove it to tune anew\n"
    assert finished.stdout.startswith("python -m knn_ner.infer ")
    os.utime(tuned, (0, 0))
    assert script(*line, **variables).stdout.startswith("python -m knn_ner.tune ")


def test_errors_are_one_line(tmp_path):
    def error(path, *flags, **variables):
        finished = script(path, *flags, code=2, **variables)
        return finished.stderr.removesuffix("\n")

    folder = "bert/weibo_bert_base_zh"
    missing = tmp_path / "none"
    assert error(f"{folder}/only_ner.sh", DATA_DIR=missing) == (
        f"error: {missing}: no such folder; set DATA_DIR, or make it with: "
        f"python scripts/prepare_data.py weibo --raw DOWNLOADED --out {missing}"
    )
    assert error(f"{folder}/only_ner.sh", "--data_dir", missing).startswith(f"error: {missing}: ")
    assert error(f"{folder}/knn_ner.sh", SETTINGS="best", DRY_RUN=1) == (
        "error: SETTINGS=best found, expected published or tuned"
    )
    assert error("scripts/reproduce.sh") == (
        "error: no row given, expected all, a dataset or a folder of scripts"
    )
    assert error("scripts/reproduce.sh", "all", "--", "--seed", 3) == (
        "error: --seed found; every seed has a folder of its own: set SEEDS"
    )
    assert error("scripts/reproduce.sh", "all", SAVE_PATH="x") == (
        "error: SAVE_PATH or DATASTORE_PATH found, but every row has its own; set OUTPUTS"
    )


@needs_environment
def test_errors_that_take_the_environment(tmp_path):
    finished = script("bert/weibo_bert_base_zh/find_knn.sh", code=2, DATA_DIR=tmp_path, OUTPUTS="o")
    assert finished.stderr.splitlines()[-1] == (
        "error: o/bert/weibo_bert_base_zh/seed_2333/model: no tagger found; run only_ner.sh first, or give "
        "--model_path"
    )
    finished = script("scripts/reproduce.sh", "weibo", code=2)
    assert finished.stderr.splitlines()[-1] == (
        "error: row 'weibo' found, expected all, a dataset (ontonotes4_zh, msra_zh, weibo_zh, conll03_en, "
        "ontonotes5_en, resume_zh) or a folder of scripts such as bert/weibo_bert_base_zh"
    )


# From start to end


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outputs")


def read(path) -> dict:
    return json.loads(path.read_text())


@needs_environment
def test_chinesebert_from_another_folder(outputs, tmp_path):
    """The tagger's folder is known for a ChineseBERT by its files; ner_labels.txt is made on the way."""
    sizes = {"train": 60, "dev": 20, "test": 20}
    write_corpus(tmp_path / "corpus", language="zh", sizes=sizes, file_name="all.bmes")
    splits = read_corpus(tmp_path / "corpus", "all.bmes").splits.values()
    text = "".join(word for split in splits for sentence in split for word in sentence.words)
    write_chinesebert_encoder(tmp_path / "encoder", text, size=TINY)
    folder = "ChineseBert/KNN-NER/weibo_base"
    where = {"cwd": tmp_path, "DATA_DIR": "corpus", "OUTPUTS": outputs, "SEED": 5}
    flags = ("--max_epochs", 4, "--lr", 3e-3, "--train_batch_size", 8, "--device", "cpu")
    script(f"{folder}/only_ner.sh", *flags, **where, BERT_PATH="encoder")
    script(f"{folder}/find_knn.sh", **where)
    shown = script(f"{folder}/knn_ner.sh", **where).stdout
    saved = outputs / folder / "seed_5"
    settings = read(saved / "train_results.json")["settings"]
    assert (settings["max_epochs"], settings["lr"], settings["seed"]) == (4, 3e-3, 5)
    assert (settings["classifier"], settings["hidden_dropout_prob"]) == ("mlp", 0.2)
    assert read(saved / "model" / "config.json")["model_type"] == "chinese_bert"
    assert (tmp_path / "corpus" / "ner_labels.txt").read_text().startswith("O\n")
    results = read(saved / "knn_results.json")
    assert (results["k"], results["temperature"], results["knn_weight"]) == (-1, 0.061, 0.81)
    assert results["seed"] == 5 and "test: k -1, temperature 0.061, knn_weight 0.81" in shown


@pytest.fixture(scope="module")
def roberta_row(outputs, tiny_corpus, tmp_path_factory) -> str:
    """The three scripts of an English RoBERTa, byte-level BPE made on the fly."""
    encoder = tmp_path_factory.mktemp("roberta")
    train_split = read_corpus(tiny_corpus, "word.bmes", splits=("train",)).splits["train"]
    words = [word for sentence in train_split for word in sentence.words]
    write_roberta_encoder(encoder, words, vocabulary_size=500, size=TINY)
    folder = "bert/conll_roberta_large"
    where = {"DATA_DIR": tiny_corpus, "OUTPUTS": outputs}
    flags = ("--max_epochs", 12, "--lr", 3e-3, "--precision", 32, "--device", "cpu")
    script(f"{folder}/only_ner.sh", *flags, **where, BERT_PATH=encoder)
    script(f"{folder}/find_knn.sh", **where)
    script(f"{folder}/knn_ner.sh", **where)
    return folder


@needs_environment
def test_roberta_with_published_settings(roberta_row, outputs, tiny_corpus):
    saved = outputs / roberta_row / "seed_2333"
    settings = read(saved / "train_results.json")["settings"]
    assert (settings["max_epochs"], settings["precision"]) == (12, "32")
    assert (settings["train_batch_size"], settings["accumulate_grad_batches"]) == (16, 2)
    assert read(saved / "model" / "config.json")["model_type"] == "roberta"
    results = read(saved / "knn_results.json")
    assert (results["k"], results["temperature"], results["knn_weight"]) == (-1, 0.001, 0.24)
    assert results["base"]["f1"] > 0 and results["split"] == "test"
    words = read_corpus(tiny_corpus, "word.bmes", splits=("test",)).splits["test"]
    lines = (saved / "predictions.txt").read_text().splitlines()
    assert len([line for line in lines if line]) == sum(len(s.words) for s in words)


@pytest.fixture(scope="module")
def chinese(tmp_path_factory) -> dict[str, Path]:
    """A Chinese corpus, and a BERT over characters that has seen it: published rates move it little."""
    folder = tmp_path_factory.mktemp("chinese")
    write_corpus(folder, language="zh", sizes={"train": 300, "dev": 60, "test": 60},
                 file_name="word.bmes")  # fmt: skip
    write_labels(folder, "word.bmes")
    train_split = read_corpus(folder, "word.bmes", splits=("train",)).splits["train"]
    characters = {word for sentence in train_split for word in sentence.words}
    write_character_encoder(folder / "encoder", sorted(characters), size=TINY)
    line = (
        *("--data_dir", folder, "--file_name", "word.bmes", "--bert_path", folder / "encoder"),
        *("--save_path", folder / "seen", "--lr", 3e-3, "--max_epochs", 8, "--device", "cpu"),
        *("--train_batch_size", 16),
    )
    train(parse_arguments([str(argument) for argument in line]))
    return {"DATA_DIR": folder, "BERT_PATH": folder / "seen" / "model"}


@needs_environment
def test_reproducing_two_rows_interrupted_and_started_again(roberta_row, outputs, chinese):
    """Ctrl-C amid the training of a Chinese BERT; the RoBERTa row is finished and skipped."""
    folder = "bert/resume_bert_base_zh"
    saved = outputs / folder / "seed_2333"
    line = ("scripts/reproduce.sh", roberta_row, folder, "--", "--device", "cpu")
    running = subprocess.Popen(
        ["bash", *line],
        cwd=ROOT,
        env=environment(OUTPUTS=outputs, **chinese),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not (saved / "checkpoints" / "resume" / "last.ckpt").exists():
            assert running.poll() is None, running.communicate()[1][-3000:]
            time.sleep(0.01)
    finally:
        os.killpg(running.pid, signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130 and stdout == ""
    assert stderr.splitlines()[-1] == "interrupted; the same command continues from here"
    assert not (saved / "train_results.json").exists()

    finished = script(*line, OUTPUTS=outputs, **chinese)
    epochs = re.findall(r"^epoch (\d+)/10, ", finished.stderr, flags=re.MULTILINE)
    assert 1 < int(epochs[0]) < int(epochs[-1]) == 10
    assert f"{outputs}/{roberta_row}/seed_2333: finished already" in finished.stderr
    assert finished.stderr.count("\n== ") == 1
    # The row of Resume has no published vote: it is tuned.
    for row, title, source in (
        (f"{folder}/seed_2333/tuned", "BERT-Base+kNN", "tuned; no published choice exists"),
        (f"{roberta_row}/seed_2333", "RoBERTa-Large+kNN", "published"),
    ):
        results = read(outputs / row / "knn_results.json")
        assert results["knn"]["piece_f1"] > 0
        measured = f"{results['knn']['piece_f1']:.2f}"
        assert re.search(
            rf"^\| {re.escape(title)} .* {measured} \| .* 1 \| {source}; encoder .* \|$",
            finished.stdout,
            flags=re.MULTILINE,
        )
    again = script(*line, OUTPUTS=outputs, **chinese)
    assert again.stderr.count("finished already") == 2 and "\n== " not in again.stderr
    assert again.stdout == finished.stdout == (outputs / "tables.md").read_text()


@needs_environment
def test_a_row_that_fails_does_not_stop_the_others(tmp_path):
    missing = tmp_path / "no corpus"
    finished = script("scripts/reproduce.sh", "bert/resume_bert_base_zh", "conll03_en/", code=1,
                      SEEDS="1 2", DATA_DIR=missing, OUTPUTS=tmp_path / "o")  # fmt: skip
    rows = ["resume_bert_base_zh", "conll_bert_base", "conll_bert_large", "conll_roberta_large"]
    assert finished.stderr.splitlines()[-8:] == [
        f"failed: bert/{row}, seed {seed} (exit code 2)" for row in rows for seed in (1, 2)
    ]
    assert finished.stderr.count(f"error: {missing}: no such folder; ") == 8
    assert finished.stdout.startswith("P, R, F1 and gain: published.")
