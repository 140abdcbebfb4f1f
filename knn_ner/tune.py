"""Choose k, temperature and knn_weight on the dev split, from one retrieval.

    python -m knn_ner.tune --data_dir D --file_name F --model_path S/model --datastore_path P --save_path O

writes `O/tuning.json` (the best setting) and `O/tuning.csv` (the whole sweep; `--plot` draws it), and keeps the
best setting with the datastore, for those who give none. The test split is never read.
"""

import argparse
from pathlib import Path

import numpy as np

from knn_ner.cli import (
    Parser,
    add_data_arguments,
    add_run_arguments,
    positive_float,
    run_main,
    say,
)
from knn_ner.errors import UserError
from knn_ner.evaluation.plots import draw_tuning, read_tuning
from knn_ner.evaluation.plotting import save
from knn_ner.evaluation.sweep import WeightCurve
from knn_ner.files import write_json, write_text
from knn_ner.retrieval.interpolation import KnnSettings
from knn_ner.retrieval.tuned import save_tuned
from knn_ner.search_arguments import add_retrieval_arguments
from knn_ner.sweeping import sweep_split

GRID_K = (8, 16, 32, 64, 128, 256, 512, 1024)
GRID_TEMPERATURE = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
# Of the CSV; the best weight is found exactly.
GRID_WEIGHTS = np.linspace(0, 1, 101)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m knn_ner.tune`."""
    parser = Parser(
        "Choose k, temperature and knn_weight by the word-level F1 of the dev split.",
        prog="python -m knn_ner.tune",
    )
    add_data_arguments(parser)
    add_retrieval_arguments(parser)
    parser.add_argument("--save_path", required=True, metavar="O", help="folder for the results")
    add_grid_arguments(parser)
    parser.add_argument(
        "--plot",
        action="store_true",
        help="also draw the F1 over knn_weight, T and k: tuning.png and tuning.svg",
    )
    add_run_arguments(parser)
    return parser.parse_args(argv)


def add_grid_arguments(parser: argparse.ArgumentParser) -> None:
    """The settings to try, for commands that tune."""
    parser.add_argument(
        "--grid_k",
        type=int,
        nargs="+",
        default=list(GRID_K),
        help="numbers of neighbours to try; -1 (every stored token) takes a search for itself",
    )
    parser.add_argument(
        "--grid_temperature",
        type=positive_float,
        nargs="+",
        default=list(GRID_TEMPERATURE),
        help="temperatures to try",
    )
    parser.add_argument(
        "--unseen",
        action="store_true",
        help="leave out the sentences of dev that the datastore holds word for word: on them, copying pays",
    )


def best_setting(found: dict[tuple[int, float], WeightCurve]) -> dict:
    """The k, temperature and knn_weight with the highest F1, and that F1.

    Of equal scores the first: fewer neighbours, then the lower temperature.
    """
    best: dict = {}
    for (k, temperature), curve in sorted(found.items(), key=order_of_choice):
        weight, f1 = curve.best()
        # A short number that can be typed, where it scores the same.
        short = round(weight, 4)
        weight = short if curve.f1_at(np.array([short]))[0] == f1 else weight
        if not best or f1 > best["f1"]:
            best = {"k": k, "temperature": temperature, "knn_weight": weight, "f1": f1}
    return best


def tune(settings: argparse.Namespace) -> dict:
    """Tune on the dev split; returns what `tuning.json` holds.

    Raises `UserError` for bad input.
    """
    store, found, seconds = sweep_split(settings, "dev")
    best = best_setting(found)
    rows = ["k,temperature,knn_weight,f1"]
    for (k, temperature), curve in sorted(found.items(), key=order_of_choice):
        rows += [
            f"{k},{temperature:g},{weight:.2f},{f1:.4f}"
            for weight, f1 in zip(GRID_WEIGHTS, curve.f1_at(GRID_WEIGHTS), strict=True)
        ]
    base_f1 = float(next(iter(found.values())).f1_at(np.zeros(1))[0])
    results = {
        "best": best | {"similarity": settings.similarity},
        "base_f1": base_f1,
        "split": "dev",
        "unseen": settings.unseen,
        "settings_tried": len(rows) - 1,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    write_text(Path(settings.save_path) / "tuning.csv", "\n".join(rows) + "\n")
    write_json(Path(settings.save_path) / "tuning.json", results)
    if settings.plot:
        tuning = Path(settings.save_path) / "tuning"
        save(draw_tuning([read_tuning(tuning.with_suffix(".csv"))]), tuning)
    vote = KnnSettings(best["k"], best["temperature"], best["knn_weight"])
    try:
        save_tuned(store, vote, settings.similarity, best["f1"])
    except UserError as error:
        # A datastore that many share need not be anyone's to write to.
        say(f"{error}; the best settings are in {settings.save_path}/tuning.json alone")
    return results


def order_of_choice(item: tuple[tuple[int, float], WeightCurve]) -> tuple:
    """Fewer neighbours first, every stored token (-1) last; then the lower temperature."""
    k, temperature = item[0]
    return (k < 0, k, temperature)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    settings = parse_arguments(argv)
    results = tune(settings)
    best, seconds = results["best"], results["seconds"]
    print(
        f"dev F1 {results['base_f1']:.2f} (tagger alone) -> {best['f1']:.2f} with --k {best['k']} "
        f"--temperature {best['temperature']:g} --knn_weight {best['knn_weight']:.4g}"
    )
    print(
        f"{results['settings_tried']} settings in {seconds['sweep']:.2f} s, after encoding "
        f"{seconds['encode']:.2f} s and one search {seconds['search']:.2f} s; all in "
        f"{settings.save_path}/tuning.csv"
    )


if __name__ == "__main__":
    run_main(main)
