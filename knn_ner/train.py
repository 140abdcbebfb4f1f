"""Train a tagger.

    python -m knn_ner.train --data_dir D --file_name F --bert_path B --save_path S

writes `S/model/` (a Hugging Face folder), `S/train_results.json`, and logs under `S/logs/`.
"""

from typing import Any

from knn_ner.settings import TrainSettings
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.tables import scores_table


def parse_arguments(argv: list[str] | None = None) -> TrainSettings:
    """Read the command line of `python -m knn_ner.train`."""
    return read_command(
        TrainSettings,
        argv,
        "Train a tagger: an encoder with a linear layer over each word piece.",
        "python -m knn_ner.train",
    )


def train(settings: TrainSettings) -> dict[str, Any]:
    """Train a tagger and score its best checkpoint on dev and test.

    Returns:
        What `train_results.json` holds: scores, epochs, steps, seconds, the settings.

    Raises:
        UserError: for bad input.
    """
    # Imported here, as torch and Lightning take seconds that `--help` need not wait.
    from knn_ner.tagging.training import train_tagger

    return train_tagger(settings)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    results = train(settings)
    print(scores_table({split: results[split] for split in ("dev", "test")}))
    print(f"{settings.save_path}/model: the tagger; {results['seconds']:.0f} s of training")


if __name__ == "__main__":
    run_main(main)
