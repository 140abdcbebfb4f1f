"""Compare several experiments: a table, and plots of the gain by corpus and of the share of searched tokens.

    python -m knn_ner.compare S1 S2 ... --save_path O [--against A1 A2 ...]

reads folders of `knn_ner.experiment`, and writes `O/compare.md` and the plots `O/gains` and `O/searched` (.png and
.svg). With `--against` a second table compares the kNN of S1 with that of A1, and so on: experiments on the same corpus
with other keys or other settings.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from knn_ner.utils.arguments import flag, output_folder
from knn_ner.utils.command import read_command, run_main

logger = logging.getLogger("knn_ner.compare")


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """The settings of `python -m knn_ner.compare`."""

    folders: tuple[str, ...] = flag(positional=True, nargs="+", metavar="S")
    """folders of knn_ner.experiment"""
    save_path: str = flag(metavar="O", parse=output_folder)
    """folder for tables and plots"""
    against: tuple[str, ...] = flag((), metavar="A")
    """as many other folders: the kNN of S1 is compared with that of A1, and so on"""


def parse_arguments(argv: list[str] | None = None) -> CompareSettings:
    """Read the command line of `python -m knn_ner.compare`."""
    return read_command(
        CompareSettings,
        argv,
        "Compare several experiments: a table, and plots of the gain and of the searched tokens.",
        "python -m knn_ner.compare",
    )


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    # Imported here because matplotlib takes a second, and `--help` does not need it.
    from knn_ner.experiment.comparison import compare

    save_path = Path(settings.save_path)
    folders, against = (list(map(Path, each)) for each in (settings.folders, settings.against))
    print(compare(folders, against, save_path), end="")
    logger.info(f"written: compare.md, gains and searched (.png, .svg) in {save_path}")


if __name__ == "__main__":
    run_main(main)
