"""Convert a tagger's Lightning checkpoint of other code to a model folder.

    python -m knn_ner.import_checkpoint --checkpoint X.ckpt --bert_path B --labels L --save_path S

writes `S/model/`, as `knn_ner.train` does. B is the encoder and L the label list of the training; docs/encoders.md
names the label lists that are part of published code.
"""

import logging
from typing import Any

from knn_ner.settings import ImportSettings
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.text import some

logger = logging.getLogger("knn_ner.import_checkpoint")


def parse_arguments(argv: list[str] | None = None) -> ImportSettings:
    """Read the command line of `python -m knn_ner.import_checkpoint`."""
    return read_command(
        ImportSettings,
        argv,
        "Convert a Lightning checkpoint of other code to S/model, for building and inference.",
        "python -m knn_ner.import_checkpoint",
    )


def import_checkpoint(settings: ImportSettings) -> dict[str, Any]:
    """Write `S/model/` from a checkpoint.

    Returns:
        The numbers of weights and labels, the units, and the names of weights that are not used.

    Raises:
        UserError: for bad input; then nothing is written.
    """
    # Imported here, as torch takes seconds that `--help` need not wait.
    from knn_ner.model.import_tagger import import_tagger

    return import_tagger(settings)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    imported = import_checkpoint(settings)
    logger.info("missing: none of the tagger's weights")
    logger.info(f"unused: {some(imported['unused']) or 'none'}")
    print(
        f"{settings.save_path}/model: the tagger; {imported['weights']} weights, "
        f"{imported['labels']} labels, tokens are {imported['units']}"
    )


if __name__ == "__main__":
    run_main(main)
