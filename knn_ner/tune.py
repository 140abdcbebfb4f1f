"""Choose k, temperature and knn_weight on the dev split, from one retrieval.

    python -m knn_ner.tune --data_dir D --file_name F --model_path S/model --datastore_path P --save_path O

writes `O/tuning.json` (the best setting) and `O/tuning.csv` (the whole sweep; `--plot` draws it), and keeps the
best setting with the datastore, for commands that are given none. The test split is never read.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knn_ner.settings import (
    CorpusSettings,
    GridSettings,
    IndexSettings,
    SeededRunSettings,
    TaggerSettings,
    UnitsSettings,
    VoteSettings,
)
from knn_ner.utils.arguments import flag, output_folder
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.errors import UserError

logger = logging.getLogger("knn_ner.tune")


@dataclass(frozen=True, kw_only=True)
class TuneSettings(
    CorpusSettings,
    TaggerSettings,
    IndexSettings,
    GridSettings,
    UnitsSettings,
    SeededRunSettings,
):
    """The settings of `python -m knn_ner.tune`."""

    save_path: str = flag(metavar="O", parse=output_folder)
    """folder for the results"""
    plot: bool = flag(False)
    """also draw the F1 over knn_weight, T and k: tuning.png and tuning.svg"""


def parse_arguments(argv: list[str] | None = None) -> TuneSettings:
    """Read the command line of `python -m knn_ner.tune`."""
    return read_command(
        TuneSettings,
        argv,
        "Choose k, temperature and knn_weight by the word-level F1 of the dev split.",
        "python -m knn_ner.tune",
    )


def tune(settings: TuneSettings) -> dict[str, Any]:
    """Tune on the dev split.

    Returns:
        What `tuning.json` holds.

    Raises:
        UserError: for bad input.
    """
    # Imported here, as torch takes seconds that `--help` need not wait.
    import numpy as np

    from knn_ner.data.corpus import read_corpus
    from knn_ner.evaluation.plots import draw_tuning, read_tuning, save
    from knn_ner.search.tuned_settings import save_tuned
    from knn_ner.tagging.grid import best_setting, sweep_split, write_sweep
    from knn_ner.utils.files import write_json

    corpus = read_corpus(
        settings.data_dir, settings.file_name, splits=("dev",), comments=settings.comments
    )
    corpus.report()
    store, found, seconds = sweep_split(
        settings, settings, settings, settings, corpus, "dev", settings.units
    )
    best = best_setting(found)
    save_path = Path(settings.save_path)
    tried = write_sweep(save_path / "tuning.csv", found)
    results = {
        "best": best | {"similarity": settings.similarity},
        "base_f1": float(next(iter(found.values())).f1_at(np.zeros(1))[0]),
        "split": "dev",
        "unseen": settings.unseen,
        "settings_tried": tried,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    write_json(save_path / "tuning.json", results)
    if settings.plot:
        save(draw_tuning([read_tuning(save_path / "tuning.csv")]), save_path / "tuning")
    vote = VoteSettings(best["k"], best["temperature"], best["knn_weight"])
    try:
        save_tuned(store, vote, settings.similarity, best["f1"])
    except UserError as error:
        # A datastore that many share may be read-only.
        logger.info(f"{error}; the best settings are in {save_path}/tuning.json alone")
    return results


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
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
