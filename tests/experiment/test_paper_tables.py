"""The paper's tables from invented result files, and the published facts that stand in them."""

import csv
import json
import os
from importlib import resources

import pytest

from knn_ner.experiment.paper import published_experiments, read_table
from knn_ner.experiment.paper_tables import collect_results, make_lines, to_csv, to_markdown
from knn_ner.utils.errors import UserError

BERT, ROBERTA = "bert/weibo_bert_base_zh", "bert/weibo_roberta_base_zh"
CHINESE = "ChineseBert/KNN-NER/weibo_base"


def metrics(f1):
    """Scores that are all different: word level above piece level by 5."""
    return {
        "precision": f1 + 6,
        "recall": f1 + 4,
        "f1": f1 + 5,
        "strict_f1": f1 + 3,
        "piece_precision": f1 + 1,
        "piece_recall": f1 - 1,
        "piece_f1": f1,
        "per_type": {},
    }


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "outputs"


@pytest.fixture
def result(runs):
    """Write `knn_results.json`: `result("bert/x/seed_1", 60.0, 62.0, age=5)`, age in seconds."""

    def write(folder, base_f1, knn_f1, age=0, **more):
        path = runs / folder / "knn_results.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "base": metrics(base_f1),
            "knn": metrics(knn_f1),
            "k": 5,
            "temperature": 0.25,
            "knn_weight": 0.5,
            "split": "test",
            "tokens": 10,
            "searched_tokens": 4,
            "changed_tokens": 1,
            "seconds": {"encode": 1.0, "search": 1.0},
        }
        path.write_text(json.dumps(content | more))
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
        return path

    return write


def table_of(markdown, title):
    return markdown.split(f"## {title}\n\n")[1].split("\n\n## ")[0].strip().splitlines()


def cells_of(runs, title, model):
    """The rows of one model as lists of cells."""
    results, _ = collect_results(runs)
    rows = table_of(to_markdown(make_lines(results)), title)
    split = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return [row[1:] for row in split if row[0] == model]


# What is published


def test_the_published_facts_are_the_reference(shared):
    for name in ("paper_results.csv", "published_hyperparameters.csv"):
        packaged = resources.files("knn_ner.experiment").joinpath(name).read_bytes()
        assert packaged == (shared / "reference" / name).read_bytes()


def test_every_experiment_is_there_once():
    found = published_experiments()
    folders = [experiment.script_dir for experiment in found]
    assert len(folders) == len(set(folders)) == 23
    published = {row["script_dir"] for row in read_table("published_hyperparameters.csv")}
    assert set(folders) - published == {"bert/conll_bert_base"}
    assert sum(experiment.base is not None for experiment in found) == 21
    assert [e.script_dir for e in found if e.base is None] == [
        "bert/resume_bert_base_zh",
        "bert/resume_roberta_base_zh",
    ]
    by_folder = {experiment.script_dir: experiment for experiment in found}
    assert by_folder["bert/conll_bert_base"].knn.f1 == 91.54
    assert by_folder[CHINESE].backbone == "ChineseBERT-Base"
    assert by_folder[CHINESE].vote == (-1, 0.061, 0.81)
    assert by_folder["bert/onto_roberta_large"].gain == 0.14


def test_four_published_f1_are_not_the_harmonic_mean_of_p_and_r():
    marked = [
        (experiment.dataset, experiment.backbone, system, score.f1, f"{score.harmonic_mean:.2f}")
        for experiment in published_experiments()
        for system, score in (("base", experiment.base), ("knn", experiment.knn))
        if score and not score.is_consistent
    ]
    assert marked == [
        ("weibo_zh", "BERT-Base", "base", 67.33, "67.00"),
        ("conll03_en", "BERT-Large", "knn", 92.40, "92.34"),
        ("conll03_en", "RoBERTa-Large", "base", 92.76, "92.79"),
        ("conll03_en", "RoBERTa-Large", "knn", 92.93, "92.90"),
    ]


def test_the_harmonic_means_are_those_of_the_published_table():
    for row in read_table("paper_results.csv"):
        precision, recall = float(row["precision"]), float(row["recall"])
        mean = 2 * precision * recall / (precision + recall)
        assert f"{mean:.2f}" == row["harmonic_mean_of_p_and_r"]


# The tables

WEIBO_TABLE = """\
| Model                 |     P |     R |      F1 |  gain |        own P |        own R |       own F1 |     own gain |      word F1 | seeds |  settings |
| --------------------- | ----: | ----: | ------: | ----: | -----------: | -----------: | -----------: | -----------: | -----------: | ----: | --------: |
| BERT-Base             | 67.12 | 66.88 | 67.33 † |     - | 63.00 ± 2.00 | 61.00 ± 2.00 | 62.00 ± 2.00 |            - | 67.00 ± 2.00 |     3 | published |
| BERT-Base+kNN         | 70.07 | 67.87 |   68.96 | +1.63 | 65.00 ± 1.73 | 63.00 ± 1.73 | 64.00 ± 1.73 | +2.00 ± 1.00 | 69.00 ± 1.73 |     3 | published |
| RoBERTa-Base          | 68.49 | 67.81 |   68.15 |     - |            - |            - |            - |            - |            - |     - |         - |
| RoBERTa-Base+kNN      | 67.52 | 69.81 |   68.65 | +0.50 |            - |            - |            - |            - |            - |     - |         - |
| ChineseBERT-Base      | 68.27 | 69.78 |   69.02 |     - |        71.00 |        69.00 |        70.00 |            - |        75.00 |     1 |     tuned |
| ChineseBERT-Base+kNN  | 68.97 | 73.71 |   71.26 | +2.24 |        70.50 |        68.50 |        69.50 |        -0.50 |        74.50 |     1 |     tuned |
| RoBERTa-Large         | 66.74 | 70.02 |   68.35 |     - |            - |            - |            - |            - |            - |     - |         - |
| RoBERTa-Large+kNN     | 69.36 | 70.53 |   69.94 | +1.59 |            - |            - |            - |            - |            - |     - |         - |
| ChineseBERT-Large     | 68.75 | 72.97 |   70.80 |     - |            - |            - |            - |            - |            - |     - |         - |
| ChineseBERT-Large+kNN | 75.00 | 69.29 |   72.03 | +1.23 |            - |            - |            - |            - |            - |     - |         - |

† BERT-Base: the published F1, 67.33, is not the harmonic mean of the published P and R, which is 67.00.
"""  # noqa: E501


def test_the_whole_table(runs, result):
    for seed, base, knn in [(1, 60.0, 63.0), (2, 62.0, 63.0), (3, 64.0, 66.0)]:
        result(f"{BERT}/seed_{seed}/knn", base, knn, k=-1, temperature=0.071, knn_weight=0.41)
    result(CHINESE, 70.0, 69.5, settings_source="tuned")
    results, notes = collect_results(runs)
    assert notes == []
    markdown = to_markdown(make_lines(results))
    assert table_of(markdown, "Chinese Weibo") == WEIBO_TABLE.splitlines()


def test_five_tables_of_the_paper_and_one_more(runs):
    runs.mkdir()
    results, _ = collect_results(runs)
    markdown = to_markdown(make_lines(results))
    titles = [line[3:] for line in markdown.splitlines() if line.startswith("## ")]
    assert titles == [
        "Chinese OntoNotes 4.0",
        "Chinese MSRA",
        "Chinese Weibo",
        "English CoNLL-2003",
        "English OntoNotes 5.0",
        "Chinese Resume (not in the paper)",
    ]
    assert markdown.count("+kNN  ") + markdown.count("+kNN |") == 23
    assert [line[:21] for line in markdown.splitlines() if line.startswith("†")] == [
        "† BERT-Base: the publ",
        "† BERT-Large+kNN: the",
        "† RoBERTa-Large: the ",
        "† RoBERTa-Large+kNN: ",
    ]


RESUME = "k=-1 T=0.1 w=0.1 cosine; no published choice exists"


def test_resume_is_in_a_table_of_its_own(runs, result):
    result("bert/resume_bert_base_zh", 94.0, 95.0, k=-1, temperature=0.1, knn_weight=0.1)
    assert cells_of(runs, "Chinese Resume (not in the paper)", "BERT-Base+kNN") == [
        ["-", "-", "-", "-", "96.00", "94.00", "95.00", "+1.00", "100.00", "1", RESUME]
    ]


def test_the_row_without_published_settings(runs, result):
    result("bert/conll_bert_base/seed_7", 90.0, 91.0, settings_source="given")
    assert cells_of(runs, "English CoNLL-2003", "BERT-Base+kNN")[0][-2:] == [
        "1",
        "k=5 T=0.25 w=0.5 cosine",
    ]


def test_csv(runs, result):
    result(f"{BERT}/seed_1", 60.0, 63.0, settings_source="tuned")
    result(f"{BERT}/seed_2", 62.0, 63.0, settings_source="tuned")
    results, _ = collect_results(runs)
    rows = list(csv.DictReader(to_csv(make_lines(results)).splitlines()))
    assert len(rows) == 46
    by_line = {(row["script_dir"], row["system"]): row for row in rows}
    assert by_line[BERT, "base"] == {
        "dataset": "weibo_zh",
        "backbone": "BERT-Base",
        "system": "base",
        "script_dir": BERT,
        "settings": "tuned",
        "seeds": "2",
        "published_precision": "67.12",
        "published_recall": "66.88",
        "published_f1": "67.33",
        "published_gain": "",
        "published_harmonic_mean": "67.00",
        "published_f1_marked": "yes",
        "precision_mean": "62.0000",
        "precision_std": "1.4142",
        "recall_mean": "60.0000",
        "recall_std": "1.4142",
        "f1_mean": "61.0000",
        "f1_std": "1.4142",
        "gain_mean": "",
        "gain_std": "",
        "word_f1_mean": "66.0000",
        "word_f1_std": "1.4142",
    }
    knn = by_line[BERT, "knn"]
    assert (knn["published_gain"], knn["gain_mean"], knn["gain_std"]) == (
        "1.63",
        "2.0000",
        "1.4142",
    )
    open_row = by_line[ROBERTA, "knn"]
    assert (open_row["seeds"], open_row["f1_mean"], open_row["published_f1"]) == ("", "", "68.65")
    assert by_line["bert/resume_bert_base_zh", "base"]["published_f1"] == ""


# Which result counts for what


def test_seed_of_the_folder_before_that_of_the_file(runs, result):
    result(f"{BERT}/seed_3/knn", 60.0, 61.0, seed=8)
    result(f"{BERT}/knn", 60.0, 61.0, seed=9)
    result(BERT + "/other", 60.0, 61.0)
    results, _ = collect_results(runs)
    assert sorted(found.seed for found in results) == [0, 3, 9]


def test_the_newest_of_two_counts_and_that_is_said(runs, result):
    old = result(f"{BERT}/seed_1/first", 60.0, 61.0, age=10)
    new = result(f"{BERT}/seed_1", 70.0, 72.0, age=5)
    result(f"{BERT}/seed_2", 70.0, 72.0, age=20)
    results, notes = collect_results(runs)
    assert notes == [
        f"left out: {old}: {new} is newer and has the same experiment, seed (1) and settings "
        "(k=5 T=0.25 w=0.5 cosine)"
    ]
    assert {found.path for found in results} == {new, runs / BERT / "seed_2" / "knn_results.json"}


def test_different_settings_are_never_averaged(runs, result):
    result(f"{BERT}/published", 60.0, 61.0, k=-1, temperature=0.071, knn_weight=0.41)
    result(f"{BERT}/tuned", 60.0, 62.0, settings_source="tuned")
    result(f"{BERT}/mine", 60.0, 63.0, settings_source="given")
    result(
        f"{BERT}/l2", 60.0, 64.0, k=-1, temperature=0.071, knn_weight=0.41, similarity="l2"
    )  # fmt: skip
    rows = cells_of(runs, "Chinese Weibo", "BERT-Base+kNN")
    assert [(row[6], row[-1]) for row in rows] == [
        ("64.00", "k=-1 T=0.071 w=0.41 l2"),
        ("63.00", "k=5 T=0.25 w=0.5 cosine"),
        ("61.00", "published"),
        ("62.00", "tuned"),
    ]


def test_runs_may_be_a_folder_further_in(runs, result, monkeypatch):
    result(f"{BERT}/seed_1", 60.0, 61.0)
    assert len(collect_results(runs / "bert")[0]) == 1
    monkeypatch.chdir(runs / BERT)
    assert [found.seed for found in collect_results(".")[0]] == [1]


def test_what_is_left_out_and_why(runs, result):
    dev = result(f"{BERT}/a", 60.0, 61.0, split="dev", age=9)
    stranger = result("bert/my_own_corpus", 60.0, 61.0, age=8)
    lacking = result(f"{BERT}/b", 60.0, 61.0, knn={"f1": 3.0}, age=7)
    broken = result(f"{BERT}/c", 60.0, 61.0)
    broken.write_text("{")
    results, notes = collect_results(runs)
    assert results == []
    assert notes == [
        f"left out: {dev}: scores of the split dev found, expected test",
        f"left out: {stranger}: no script folder of a known experiment in its path",
        f"left out: {lacking}: expected a file of knn_ner.infer, found another one "
        "(KeyError('piece_precision'))",
        f"left out: {broken}: JSON expected, found something else (Expecting property name enclosed "
        "in double quotes: line 1 column 2 (char 1))",
    ]


def test_no_folder(tmp_path):
    with pytest.raises(UserError) as error:
        collect_results(tmp_path / "nowhere")
    assert str(error.value) == (
        f"{tmp_path / 'nowhere'}: no such folder; --runs names the folder that the scripts write to"
    )


# The command line


def test_the_command_prints_and_writes(run, runs, result, tmp_path):
    result(f"{BERT}/seed_1", 60.0, 61.0)
    finished = run("-m", "knn_ner.tables", "--runs", runs, "--out", tmp_path / "t")
    markdown = (tmp_path / "t" / "tables.md").read_text(encoding="utf-8")
    assert finished.stdout == markdown
    assert "| BERT-Base+kNN         | 70.07 | 67.87 |   68.96 | +1.63 | 62.00 " in markdown
    assert (tmp_path / "t" / "tables.csv").read_text().startswith("dataset,backbone,system,")
    assert finished.stderr.splitlines() == [
        f"{runs}: 1 results",
        f"written: {tmp_path / 't' / 'tables.md'}, {tmp_path / 't' / 'tables.csv'}",
    ]
    assert not (runs / "tables.md").exists()
    run("-m", "knn_ner.tables", "--runs", runs)
    assert (runs / "tables.md").read_text(encoding="utf-8") == markdown


def test_the_command_without_a_folder(run, tmp_path):
    finished = run("-m", "knn_ner.tables", "--runs", tmp_path / "no", code=2)
    assert finished.stderr.startswith("error: ") and finished.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "published"),
        ({"max_epochs": 3}, "published; 3 epochs"),
        ({"bert_path": "models/tiny/", "lr": 5e-4}, "published; encoder tiny; lr 0.0005"),
        ({"data_dir": "data/wnut17"}, "published; corpus wnut17"),
    ],
)
def test_the_settings_of_the_training_are_judged_too(runs, result, changed, told):
    path = result(f"{BERT}/seed_1", 60.0, 61.0, k=-1, temperature=0.071, knn_weight=0.41)
    settings = {
        "bert_path": "google-bert/bert-base-chinese", "lr": 3e-5, "max_epochs": 20, "data_dir": "data/weibo",
    }  # fmt: skip
    (path.parent / "train_results.json").write_text(json.dumps({"settings": settings | changed}))
    (found,), _ = collect_results(runs)
    assert found.settings == told


def test_no_published_choice_of_the_vote_exists_for_resume():
    votes = {each.script_dir: each.vote for each in published_experiments()}
    assert votes["bert/resume_bert_base_zh"] is votes["bert/resume_roberta_base_zh"] is None
