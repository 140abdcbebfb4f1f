"""The benchmark runs on a tiny tagger, and its tags are those of an exhaustive search."""

import json
import re

import pytest


@pytest.fixture(scope="module")
def results(run, tiny_corpus, trained, datastore, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("benchmark")
    before = sorted(path.name for path in datastore.iterdir())
    finished = run(
        *("scripts/benchmark.py", "--data_dir", tiny_corpus, "--file_name", "word.bmes"),
        *("--model_path", trained / "model", "--datastore_path", datastore),
        *("--out", folder / "benchmark.json", "--repeats", 2, "--published_sentences", 10),
        *("--k", 32, "--indexes", "IVF16,Flat", "--sizes", 2000, 20_000),
    )
    assert sorted(path.name for path in datastore.iterdir()) == before
    assert re.search(r"^\| exact +\| +32 \| +0\.8 \|", finished.stdout, re.MULTILINE)
    assert re.search(r"^\| 20000 +\| +32 \|", finished.stdout, re.MULTILINE)
    return json.loads((folder / "benchmark.json").read_text())


def test_no_way_of_exact_search_changes_a_tag(results):
    rows = results["inference"]
    exact = [row for row in rows if row["way"] in ("exact", "exact, every token")]
    assert {(row["k"], row["knn_weight"]) for row in exact} == {
        (k, weight) for k in (32, -1) for weight in (0.24, 0.43, 0.8)
    }
    assert all(row["different_tags"] == 0 for row in exact)
    shares = {row["knn_weight"]: row["searched"] for row in exact if row["way"] == "exact"}
    assert shares[0.24] <= shares[0.43] < shares[0.8] == 1


def test_the_published_algorithm_gives_the_same_tags(results):
    rows = [row for row in results["inference"] if row["way"] == "published"]
    assert [row["k"] for row in rows] == [32, -1]
    assert all(row["different_tags"] == 0 for row in rows)


def test_all_parts_are_measured(results):
    (index,) = results["indexes"]
    assert index["name"] == "IVF16,Flat"
    rows = [row for row in results["inference"] if row["way"] == "index IVF16,Flat"]
    assert len(rows) == 3
    assert all(0.5 < row["recall@32"] <= 1 for row in rows)
    assert results["building"]["entries"] == results["store"]["entries"]
    assert results["tuning"]["settings"] >= 10_000
    assert [row["entries"] for row in results["scale"]] == [2000, 20_000]


def test_adding_a_sentence_is_measured(run, trained):
    finished = run(
        *("scripts/benchmark/adding.py", "--model_path", trained / "model"),
        *("--entries", 500, "--times", 2),
    )
    lines = finished.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["encode", "add", "refresh"]
    assert all(re.search(r"median +[\d.]+ ms, worst +[\d.]+ ms$", line) for line in lines)
    assert "500 x 32 float16" in finished.stderr
