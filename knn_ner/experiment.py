"""Many seeds of one corpus: train, build, tune on dev, infer on test; then what it amounts to.

    python -m knn_ner.experiment --data_dir D --file_name F --bert_path B --seeds 0 1 2 3 4 --save_path S

writes `S/seed-N/` for each seed (`model/`, `datastore/`, `tuning.json`, `dev/`, `test/`, `oracle.json`, a log),
`S/experiment.json`, `S/experiment.md`, and the plots `S/tuning` and `S/breakdown` (.png and .svg). The same
command goes on where it was interrupted, and takes what `knn_ner.train --save_path S/seed-N` has trained.
"""

import argparse
import shlex
import sys
from pathlib import Path

from knn_ner.cli import Parser, run_main, say
from knn_ner.errors import UserError
from knn_ner.evaluation.plots import draw_breakdown, draw_tuning, read_tuning
from knn_ner.evaluation.plotting import save
from knn_ner.experimenting.page import leakage_text, scores_table, to_markdown
from knn_ner.experimenting.seeds import STEPS, SeedRun, add_experiment_arguments, corpus_id
from knn_ner.experimenting.summary import summarise
from knn_ner.experimenting.view import View
from knn_ner.files import write_json, write_text


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m knn_ner.experiment`."""
    parser = Parser(
        "Train, build, tune on dev and test with many seeds; means, intervals and p-values of the gain.",
        prog="python -m knn_ner.experiment",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2, 3, 4],
        metavar="N",
        help="of the trainings",
    )
    parser.add_argument(
        "--taggers",
        metavar="S0",
        help="folder of another experiment whose taggers, S0/seed-N/model, are taken in place of "
        "training: other keys, the same taggers",
    )
    add_experiment_arguments(parser)
    settings = parser.parse_args(argv)
    settings.command = shlex.join(
        ["python", "-m", "knn_ner.experiment", *(sys.argv[1:] if argv is None else argv)]
    )
    return settings


def experiment(settings: argparse.Namespace) -> dict:
    """Do what is not finished; returns what `experiment.json` holds.

    Raises `UserError` for bad input.
    """
    if len(set(settings.seeds)) < len(settings.seeds):
        raise UserError(f"--seeds {' '.join(map(str, settings.seeds))}: each expected once")
    save_path = Path(settings.save_path)
    corpus = corpus_id(settings.data_dir, settings.file_name)
    runs = [SeedRun(settings, seed, corpus, votes=True) for seed in settings.seeds]
    for run in runs:
        run.check()
    view = View(dict.fromkeys(STEPS, len(runs)))
    try:
        for run in runs:
            run.run(view)
    except KeyboardInterrupt:
        view.close()
        say(f"{save_path}: the same command goes on from here")
        raise
    finally:
        view.close()
    results = summarise(settings)
    folders = [save_path / f"seed-{seed}" for seed in settings.seeds]
    tunings = [read_tuning(folder / "tuning.csv") for folder in folders]
    save(draw_tuning(tunings), save_path / "tuning")
    save(draw_breakdown(results), save_path / "breakdown")
    write_json(save_path / "experiment.json", results)
    write_text(save_path / "experiment.md", to_markdown(results))
    return results


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    settings = parse_arguments(argv)
    results = experiment(settings)
    print(scores_table(results))
    print(leakage_text(results["leakage"]))
    say(f"{settings.save_path}/experiment.md: this, each seed, and where the gain comes from")


if __name__ == "__main__":
    run_main(main)
