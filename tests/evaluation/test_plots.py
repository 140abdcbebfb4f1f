"""Plots: the same bytes each time, small files, and what they say."""

import copy
import re

import numpy as np
import pytest

from knn_ner import compare
from knn_ner.evaluation import plots
from knn_ner.evaluation.breakdown import Forms, break_down
from knn_ner.evaluation.leakage import Leakage
from knn_ner.evaluation.plots import apart, every, save
from knn_ner.evaluation.prediction_files import write_counts
from knn_ner.evaluation.significance import f1_of
from knn_ner.experiment import summary
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_json

HIGHEST_BYTES = 100_000


def write_tuning(path, best: float = 0.3) -> None:
    """F1 is highest, 62, at k 8, T 0.1 and weight 0.3, and 60 at weight 0."""
    lines = ["k,temperature,knn_weight,f1"]
    for k in (2, 8, -1):
        for temperature in (0.01, 0.1, 1.0):
            for weight in np.linspace(0, 1, 11):
                height = 2 - (k != 8) - 0.5 * (temperature != 0.1)
                f1 = 60 + height * (1 - ((weight - best) / best) ** 2) if weight else 60
                lines.append(f"{k},{temperature:g},{weight:.2f},{max(f1, 20):.4f}")
    path.write_text("\n".join(lines) + "\n")


def counts_by_hand() -> tuple[np.ndarray, np.ndarray]:
    """Two seeds, thirty sentences of two entities: the tagger has one of them, kNN both."""
    knn = np.full((2, 30, 3, 3), 2)
    base = knn.copy()
    base[:, :, :, 0] = 1
    base[1, 4:9, :, 0] = 2
    return base, knn


@pytest.fixture(scope="module")
def results():
    """An experiment of two seeds and thirty sentences, of which two leaked, put together by hand."""
    words = "Ada saw New York today".split()
    gold = "S-PER O B-LOC E-LOC O".split()
    wrong = "O O B-LOC E-LOC S-PER".split()
    sentences = [[(words, gold, wrong if row % 3 else gold, gold)] * 30 for row in (1, 2)]
    votes = [
        {(row, place): ("O", 0.2 * place + 0.1) for row in range(30) for place in range(5)}
    ] * 2
    base, counts = counts_by_hand()
    leaked = np.arange(30) < 2
    leakage = Leakage(leaked, leaked, ~leaked & (np.arange(30) < 3))
    return {
        "corpus": "made up",
        "name": "made up",
        "seeds": [0, 1],
        "leakage": leakage.counts() | {"similarity": 0.8},
        "comparisons": summary.compare(
            {"base": base, "knn": counts}, summary.without_leakage(leakage)
        ),
        "oracle": {"gain": summary.spread([51.0, 52.0])},
        "breakdown": break_down(sentences, votes, Forms([(words, gold)])),
        "per_seed": [{"searched_share": {"0.10": 0.001, "0.30": 0.01, "0.48": 0.2, "0.50": 1.0}}]
        * 2,
    }


def texts(svg) -> str:
    return " | ".join(re.findall(r"<text[^>]*>([^<]*)<", svg.read_text()))


def check(draw, folder) -> str:
    """Drawn twice the files are the same, small, and without a date; returns the texts."""
    first = save(draw(), folder / "a" / "plot")
    second = save(draw(), folder / "b" / "plot")
    assert [path.name for path in first] == ["plot.png", "plot.svg"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert one.stat().st_size < HIGHEST_BYTES
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert "<dc:date>" not in first[1].read_text()
    return texts(first[1])


def test_tuning(tmp_path):
    write_tuning(tmp_path / "tuning.csv")
    rows = plots.read_tuning(tmp_path / "tuning.csv")
    told = check(lambda: plots.draw_tuning([rows, rows]), tmp_path)
    assert "best of tuning.csv: 62.00 at k = 8, T = 0.1, knn_weight = 0.3 (mean of 2 seeds)" in told
    assert "tagger alone" in told and "all" in told.split(" | ")


def test_what_is_no_tuning(tmp_path):
    path = tmp_path / "tuning.csv"
    with pytest.raises(UserError, match="not found; python -m"):
        plots.read_tuning(path)
    for text in (
        "k,temperature,knn_weight,f1\n1,2\n",
        "a,b\n1,2\n",
        "k,temperature,knn_weight,f1\n",
    ):
        path.write_text(text)
        with pytest.raises(UserError, match="found another one; tune again"):
            plots.read_tuning(path)


def test_breakdown(results, tmp_path):
    told = check(lambda: plots.draw_breakdown(results), tmp_path)
    assert "PER (30)" in told and "gain by form in training" in told and "0.7 to 0.9" in told


def test_low_resource(tmp_path):
    lines = {
        "tagger": [(5, 40, 1), (20, 60, 0.5), (100, 70, 0.2)],
        "kNN, same part": [(5, 41, 1), (20, 61, 0.5), (100, 70.5, 0.2)],
        "kNN, all sentences": [(5, 50, 1), (20, 64, 0.5), (100, 70.5, 0.2)],
    }
    told = check(lambda: plots.draw_low_resource(lines, "made up"), tmp_path)
    assert all(name in told for name in lines) and "20%" in told.split(" | ")


def write_experiment(folder, results, counts) -> None:
    write_json(folder / "experiment.json", results)
    for seed in results["seeds"]:
        base, knn = (each[seed] for each in counts)
        write_counts(folder / f"seed-{seed}" / "test" / "sentences.csv", base, knn)


def test_compare(results, tmp_path, capfd):
    """Two experiments through the command line; one has no leaked sentences."""
    clean = copy.deepcopy(results) | {"corpus": "clean", "name": "clean", "seeds": [0]}
    clean["comparisons"] = clean["comparisons"][:3]
    for name, each in (("one", results), ("two", clean)):
        write_experiment(tmp_path / name, each, counts_by_hand())
    out = tmp_path / "out"
    compare.main([str(tmp_path / "one"), str(tmp_path / "two"), "--save_path", str(out)])
    printed = capfd.readouterr().out
    assert (out / "compare.md").read_text() == printed
    heading, _, first, second, mean = printed.splitlines()
    gain = results["comparisons"][0]["gain"]
    assert "**not a fair number**" in heading
    assert f"{gain['mean']:+.2f} ± {gain['std']:.2f}" in first and "(27)" in first
    assert "the same" in second
    # Of the first seed alone, and of both.
    gains = np.array(gain["values"])
    assert f" {np.mean([gains.mean(), gains[0]]):+.2f} |" in mean
    told = texts(out / "gains.svg")
    assert "made up" in told and "(2 seeds)" in told and "not a fair number" in told
    told = texts(out / "searched.svg")
    assert "clean" in told and "10%" in told and "from 0.5 on: all" in told
    assert check(lambda: plots.draw_gains([results, clean]), tmp_path)
    assert check(lambda: plots.draw_search_share([results, clean]), tmp_path)


def test_compare_systems(results, tmp_path, fails, capfd):
    """kNN against another kNN, which is as good as the tagger, over the seeds that both have."""
    base, knn = counts_by_hand()
    one, other = results, copy.deepcopy(results) | {"name": "made up, whiten", "seeds": [1]}
    write_experiment(tmp_path / "one", one, (base, knn))
    write_experiment(tmp_path / "other", other, (base, base))
    line = (tmp_path / "one", "--save_path", tmp_path / "out", "--against", tmp_path / "other")
    compare.main([str(part) for part in line])
    row = capfd.readouterr().out.splitlines()[-1]
    expected = f1_of(knn[1, :, 0].sum(axis=0)) - f1_of(base[1, :, 0].sum(axis=0))
    assert row.startswith("| made up | made up, whiten |     1 |") and f" {expected:+.2f} |" in row
    assert fails(compare.main, *line, tmp_path / "one") == (
        "error: --against: 2 folders found, expected 1, one for each experiment"
    )
    write_experiment(tmp_path / "other", other, (base[:, 1:], base[:, 1:]))
    assert fails(compare.main, *line) == (
        f"error: {tmp_path}/other: tagged other test sentences than {tmp_path}/one"
    )


def test_what_is_no_experiment(fails, tmp_path):
    write_json(tmp_path / "experiment.json", {"best": 1})
    assert fails(compare.main, tmp_path, "--save_path", tmp_path / "new") == (
        f"error: {tmp_path}/experiment.json: expected a file of knn_ner.experiment, found another one"
    )
    assert not (tmp_path / "new").exists()


def test_labels_are_kept_apart():
    assert apart([5.0, 1.0, 1.5], 1) == [5.0, 1.0, 2.0]
    assert every([1, 2, 3, 4, 5, 6, 7], 3) == [1, 4, 7]
    assert every([1, 2], 4) == [1, 2]
