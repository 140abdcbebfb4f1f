"""Repeat an experiment with many seeds: train, build, tune on dev, infer on test; then mean, interval and p-value.

    python -m knn_ner.experiment --data_dir D --file_name F --bert_path B --seeds 0 1 2 3 4 --save_path S

writes `S/seed-N/` for each seed (`model/`, `datastore/`, `tuning.json`, `dev/`, `test/`, `oracle.json`, a log),
`S/experiment.json`, `S/experiment.md`, and the plots `S/tuning` and `S/breakdown` (.png and .svg). After an
interruption the same command continues. A finished training of `knn_ner.train --save_path S/seed-N` is not repeated.
"""

import logging
import shlex
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knn_ner.settings import SeedSettings
from knn_ner.utils.arguments import flag
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.errors import UserError

PROGRAM = "python -m knn_ner.experiment"

logger = logging.getLogger("knn_ner.experiment")


@dataclass(frozen=True, kw_only=True)
class ExperimentSettings(SeedSettings):
    """The settings of `python -m knn_ner.experiment`."""

    seeds: tuple[int, ...] = flag((0, 1, 2, 3, 4), metavar="N")
    """random seeds of the trainings"""


def parse_arguments(argv: list[str] | None = None) -> ExperimentSettings:
    """Read the command line of `python -m knn_ner.experiment`."""
    return read_command(
        ExperimentSettings,
        argv,
        "Train, build, tune on dev and test with many seeds; means, intervals and p-values of the gain.",
        PROGRAM,
    )


def experiment(settings: ExperimentSettings, command: str = "") -> dict[str, Any]:
    """Run the steps that are not finished, and write results, tables and plots.

    Args:
        settings: the settings.
        command: the command line that the results name.

    Returns:
        The content of `experiment.json`.

    Raises:
        UserError: for bad input.
    """
    # Imported here because torch takes seconds, and `--help` does not need it.
    from knn_ner.evaluation.plots import draw_breakdown, draw_tuning, read_tuning, save
    from knn_ner.experiment.progress import View
    from knn_ner.experiment.report import render
    from knn_ner.experiment.seeds import STEPS, SeedRun, corpus_id
    from knn_ner.experiment.summary import summarise
    from knn_ner.utils.files import write_json, write_text

    if len(set(settings.seeds)) < len(settings.seeds):
        raise UserError(f"--seeds {' '.join(map(str, settings.seeds))}: each expected once")
    save_path = Path(settings.save_path)
    corpus = corpus_id(settings.data_dir, settings.file_name)
    runs = [SeedRun(settings, seed, corpus, f"seed {seed}", votes=True) for seed in settings.seeds]
    for run in runs:
        run.check()
    try:
        with closing(View(dict.fromkeys(STEPS, len(runs)))) as view:
            for run in runs:
                run.run(view)
    except KeyboardInterrupt:
        logger.info(f"{save_path}: the same command continues from here")
        raise
    results = summarise(settings, settings.seeds, command)
    save(
        draw_tuning([read_tuning(run.folder / "tuning.csv") for run in runs]), save_path / "tuning"
    )
    save(draw_breakdown(results), save_path / "breakdown")
    write_json(save_path / "experiment.json", results)
    write_text(save_path / "experiment.md", render("experiment", results=results))
    return results


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    words = sys.argv[1:] if argv is None else argv
    results = experiment(settings, f"{PROGRAM} {shlex.join(words)}")
    from knn_ner.experiment.report import render

    print(render("scores", results=results), end="")
    logger.info(
        f"{settings.save_path}/experiment.md: these results, those of each seed, and where the gain comes from"
    )


if __name__ == "__main__":
    run_main(main)
