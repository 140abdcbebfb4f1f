"""Many seeds of one corpus: train, build, tune on dev, infer on test; then what it amounts to.

    python -m knn_ner.experiment --data_dir D --file_name F --bert_path B --seeds 0 1 2 3 4 --save_path S

writes `S/seed-N/` for each seed (`model/`, `datastore/`, `tuning.json`, `dev/`, `test/`, `oracle.json`, a log),
`S/experiment.json`, `S/experiment.md`, and the plots `S/tuning` and `S/breakdown` (.png and .svg). The same
command goes on where it was interrupted, and takes what `knn_ner.train --save_path S/seed-N` has trained.
"""

import dataclasses
import logging
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knn_ner.settings import SeedSettings
from knn_ner.utils.arguments import flag
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.errors import UserError

logger = logging.getLogger("knn_ner.experiment")


@dataclass(frozen=True, kw_only=True)
class ExperimentSettings(SeedSettings):
    """The settings of `python -m knn_ner.experiment`."""

    seeds: tuple[int, ...] = flag((0, 1, 2, 3, 4), metavar="N")
    """random seeds of the trainings"""

    command: str = dataclasses.field(default="", metadata={"hidden": True})


def parse_arguments(argv: list[str] | None = None) -> ExperimentSettings:
    """Read the command line of `python -m knn_ner.experiment`."""
    settings = read_command(
        ExperimentSettings,
        argv,
        "Train, build, tune on dev and test with many seeds; means, intervals and p-values of the gain.",
        "python -m knn_ner.experiment",
    )
    line = ["python", "-m", "knn_ner.experiment", *(sys.argv[1:] if argv is None else argv)]
    return dataclasses.replace(settings, command=shlex.join(line))


def experiment(settings: ExperimentSettings) -> dict[str, Any]:
    """Do what is not finished; returns what `experiment.json` holds.

    Raises `UserError` for bad input.
    """
    # Imported here, as torch takes seconds that `--help` need not wait.
    from knn_ner.evaluation.plots import draw_breakdown, draw_tuning, read_tuning, save
    from knn_ner.experiment.progress import View
    from knn_ner.experiment.report import to_markdown
    from knn_ner.experiment.seeds import STEPS, SeedRun, corpus_id
    from knn_ner.experiment.summary import summarise
    from knn_ner.utils.files import write_json, write_text

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
        logger.info(f"{save_path}: the same command goes on from here")
        raise
    finally:
        view.close()
    results = summarise(settings, settings.seeds, settings.command)
    folders = [save_path / f"seed-{seed}" for seed in settings.seeds]
    tunings = [read_tuning(folder / "tuning.csv") for folder in folders]
    save(draw_tuning(tunings), save_path / "tuning")
    save(draw_breakdown(results), save_path / "breakdown")
    write_json(save_path / "experiment.json", results)
    write_text(save_path / "experiment.md", to_markdown(results))
    return results


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    results = experiment(settings)
    from knn_ner.experiment.report import leakage_text, scores_table

    print(scores_table(results))
    print(leakage_text(results["leakage"]))
    logger.info(
        f"{settings.save_path}/experiment.md: this, each seed, and where the gain comes from"
    )


if __name__ == "__main__":
    run_main(main)
