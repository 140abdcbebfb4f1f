"""An experiment as Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from knn_ner.experiment.summary import ALL, NOT_SIMILAR, NOT_STORED

SCORE_NAMES = {"f1": "word F1", "strict_f1": "strict F1", "piece_f1": "piece F1"}
COLUMNS = ("test sentences", "score", "tagger", "kNN", "gain", "95% interval", "p", "seeds better")
COMPARED_COLUMNS = (
    "corpus", "seeds", "sentences", "tagger", "kNN", "gain", "95% interval", "p",
    "strict gain", "piece gain", "gain without leaked sentences",
    "gain with settings chosen on test: **not a fair number**",
)  # fmt: skip
SEED_COLUMNS = (
    "seed", "k", "T", "knn_weight", "dev tagger", "dev kNN", "test tagger", "test kNN", "gain",
    "oracle's gain", "pieces searched", "changed",
)  # fmt: skip

GROUP_COLUMNS = (
    "", "group", "entities", "tagger", "kNN", "gain", "95% interval", "found", "lost", "removed", "added",
)  # fmt: skip


def table(rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A Markdown table, its first row the heading; all but the first `names` columns to the right."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = [
        "-" * width if place < names else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    ]
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        cells = [
            cell.ljust(width) if place < names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def with_spread(values: Mapping[str, Any], sign: str = "") -> str:
    """`35.49 ± 0.61`; the mean alone if there is one value."""
    text = f"{values['mean']:{sign}.2f}"
    return text if values["std"] is None else f"{text} ± {values['std']:.2f}"


def subset_name(line: Mapping[str, Any], leakage: Mapping[str, Any]) -> str:
    """What test sentences a line is about, and how many."""
    exact, near = leakage["exact"], leakage["near"]
    names = {
        ALL: "all",
        NOT_STORED: f"without {exact} stored word for word",
        NOT_SIMILAR: f"without {exact} stored and {near} nearly so"
        if exact
        else f"without {near} nearly stored",
    }
    return f"{names[line['subset']]} ({line['sentences']})"


def compared_table(
    experiments: Sequence[Mapping[str, Any]], mean: Mapping[str, Any] | None = None
) -> str:
    """Several experiments, a line each: word F1 on test, the gains by other scores, and the oracle's.

    mean: of the gains, with its `interval`, if there are several.
    """
    rows = [list(COMPARED_COLUMNS)]
    for results in experiments:
        lines = [
            line for line in results["comparisons"] if line["score"] == "f1" and "gain" in line
        ]
        first, last = lines[0], lines[-1]
        of_score = {
            line["score"]: line["gain"]
            for line in results["comparisons"]
            if line["subset"] == first["subset"]
        }
        clean = (
            f"{last['gain']['mean']:+.2f} ({last['sentences']})" if len(lines) > 1 else "the same"
        )
        rows.append(
            [
                results["name"],
                str(len(results["seeds"])),
                str(first["sentences"]),
                with_spread(first["base"]),
                with_spread(first["knn"]),
                with_spread(first["gain"], "+"),
                interval_text(first["interval"]),
                f"{first['p']:.2g}",
                *(with_spread(of_score[score], "+") for score in ("strict_f1", "piece_f1")),
                clean,
                with_spread(results["oracle"]["gain"], "+"),
            ]
        )
    if mean:
        oracle = statistics.fmean(each["oracle"]["gain"]["mean"] for each in experiments)
        gain = [f"{mean['gain']:+.2f}", interval_text(mean["interval"])]
        rows.append(["mean", *[""] * 4, *gain, *[""] * 4, f"{oracle:+.2f}"])
    return table(rows)


def against_table(lines: Sequence[Mapping[str, Any]], mean: Mapping[str, Any] | None = None) -> str:
    """kNN of experiments against kNN of others, a line for each pair; `mean` as in `compared_table`."""
    rows = [["kNN of", "against", "seeds", "there", "here", "gain", "95% interval", "p"]]
    for line in lines:
        rows.append(
            [
                line["name"],
                line["other"],
                str(line["seeds"]),
                f"{line['there']:.2f}",
                f"{line['here']:.2f}",
                f"{line['gain']:+.2f}",
                interval_text(line["interval"]),
                f"{line['p']:.2g}",
            ]
        )
    if mean:
        rows.append(
            ["mean", *[""] * 4, f"{mean['gain']:+.2f}", interval_text(mean["interval"]), ""]
        )
    return table(rows)


def interval_text(interval: Sequence[float]) -> str:
    """`-0.10 to +0.85`."""
    low, high = interval
    return f"{low:+.2f} to {high:+.2f}"


def leakage_text(leakage: Mapping[str, Any]) -> str:
    """What the datastore has of the test set, in words."""
    return (
        f"Of {leakage['sentences']} test sentences {leakage['exact']} stand word for word in the datastore, "
        f"{leakage['retagged']} of these with other tags; {leakage['near']} more are nearly the same as a "
        f"stored one (edit similarity of the tokens at least {leakage['similarity']:g}, letter case aside)."
    )


def scores_table(results: Mapping[str, Any]) -> str:
    """The main table: tagger and kNN on all test sentences and on parts, and the oracle."""
    rows = [list(COLUMNS)]
    seeds = len(results["seeds"])
    for line in results["comparisons"]:
        row = [subset_name(line, results["leakage"]), SCORE_NAMES[line["score"]]]
        if "gain" in line:
            row += [
                with_spread(line["base"]),
                with_spread(line["knn"]),
                with_spread(line["gain"], "+"),
                interval_text(line["interval"]),
                f"{line['p']:.2g}",
                f"{line['seeds_with_gain']} of {seeds}",
            ]
        else:
            row += [""] * (len(COLUMNS) - 2)
        rows.append(row)
    first = results["comparisons"][0]
    oracle = results["oracle"]
    rows.append(
        [
            subset_name(first, results["leakage"]),
            "word F1, settings chosen on test: **not a fair number**",
            with_spread(first["base"]),
            with_spread(oracle["f1"]),
            with_spread(oracle["gain"], "+"),
            "",
            "",
            "",
        ]
    )
    return table(rows, names=2)


def seeds_table(results: Mapping[str, Any]) -> str:
    """What each seed was tuned to and scored, word F1."""
    rows = [list(SEED_COLUMNS)]
    for seed in results["per_seed"]:
        tuned, dev, test = seed["tuned"], seed["dev"], seed["test"]
        base = test["base"]["f1"]
        rows.append(
            [
                str(seed["seed"]),
                str(tuned["k"]),
                f"{tuned['temperature']:g}",
                f"{tuned['knn_weight']:.4g}",
                *(f"{each['f1']:.2f}" for each in (dev["base"], dev["knn"])),
                f"{base:.2f}",
                f"{test['knn']['f1']:.2f}",
                f"{test['knn']['f1'] - base:+.2f}",
                f"{seed['oracle']['f1'] - base:+.2f}",
                f"{100 * seed['searched_tokens'] / max(1, seed['tokens']):.1f}%",
                str(seed["changed_tokens"]),
            ]
        )
    return table(rows)


def breakdown_text(breakdown: Mapping[str, Any], seeds: int) -> str:
    """What kNN changed, in words."""
    tags, entities = (
        {name: f"{value:.1f}".removesuffix(".0") for name, value in breakdown[part].items()}
        for part in ("tags", "entities")
    )
    return (
        f"kNN changes the tags of {tags['changed']} of {tags['words']} words: {tags['fixed']} put right, "
        f"{tags['broken']} spoilt, {tags['other']} wrong before and after. Of {entities['gold']} entities "
        f"it finds {entities['found']} more and loses {entities['lost']}; of wrong ones it removes "
        f"{entities['removed']} and adds {entities['added']}"
        + (" (averages over seeds)." if seeds > 1 else ".")
    )


def groups_table(breakdown: Mapping[str, Any]) -> str:
    """Tagger and kNN by groups of entities."""
    rows = [list(GROUP_COLUMNS)]
    for dimension, groups in breakdown["groups"].items():
        for group in groups:
            rows.append(
                [
                    dimension,
                    group["group"],
                    str(group["entities"]),
                    *(f"{group[system]:.2f}" for system in ("base", "knn")),
                    f"{group['gain']:+.2f}",
                    interval_text(group["interval"]),
                    *(f"{group[each]:.1f}" for each in ("found", "lost", "removed", "added")),
                ]
            )
    return table(rows, names=2)


def agreement_table(breakdown: Mapping[str, Any]) -> str:
    """Words by how much their neighbours agree."""
    names = ("words", "entity words", "tagger right", "changed", "fixed", "broken", "other")
    rows = [["agreement of the neighbours", *names]]
    for row in breakdown["agreement"]:
        rows.append([row["agreement"], *(f"{row[name]:.1f}" for name in names)])
    return table(rows)


def to_markdown(results: Mapping[str, Any]) -> str:
    """What `experiment.md` holds."""
    seeds = len(results["seeds"])
    resampled = (
        "sentences and seeds" if seeds > 1 else "sentences (one seed: its spread is unknown)"
    )
    return "\n".join(
        [
            f"# {results['name']}: {seeds} seed{'s' if seeds > 1 else ''}\n",
            f"    {results['command']}\n",
            scores_table(results),
            leakage_text(results["leakage"]) + "\n",
            f"Mean ± standard deviation over seeds, percent. Interval: bootstrap over {resampled}; p: "
            "paired approximate randomisation over sentences, two-sided, all seeds' outputs of a "
            "sentence swapped together. Settings were tuned on dev by word F1; the oracle's on test.\n",
            "## Seeds (word F1)\n",
            seeds_table(results),
            "![F1 of dev over knn_weight, T and k](tuning.svg)\n",
            "## Where the gain comes from (word F1)\n",
            breakdown_text(results["breakdown"], seeds) + "\n",
            "![gain by groups of entities, and by agreement](breakdown.svg)\n",
            groups_table(results["breakdown"]),
            agreement_table(results["breakdown"]),
            "Form in training: the entity's words as an entity of the datastore's sentences, of the same "
            "type, of another one alone, or not at all; times: as an entity of any type. Agreement: the "
            "share of the vote that its likeliest label has, for the words that were searched.",
        ]
    )
