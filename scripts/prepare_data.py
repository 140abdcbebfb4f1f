"""Turn a published corpus into the files that the experiments read.

    python scripts/prepare_data.py weibo --raw DIR --out data/weibo
    python scripts/prepare_data.py convert --raw FILE_OR_DIR --out DIR --scheme bio

docs/data.md has the source and the licence of each corpus.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

# So that the script runs from any folder, with or without the package installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prepare_data.corpora import RECIPES
from prepare_data.prepare import TARGETS, convert, prepare, size_table

from knn_ner.settings import ColumnSettings
from knn_ner.utils.arguments import flag
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.errors import UserError

CONVERT = "convert"


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(ColumnSettings):
    """The settings of `python scripts/prepare_data.py`.

    Raises:
        UserError: if `scheme` is given for a corpus, or missing for `convert`.
    """

    name: str = flag(positional=True, choices=(*RECIPES, CONVERT))
    """a corpus, or `convert`"""
    raw: str = flag(metavar="DIR")
    """folder of the published files; `convert` also takes a single file"""
    out: str = flag(metavar="DIR")
    """folder for the result"""
    file_name: str | None = flag(None, metavar="F")
    """ending of the files (if not given: see above)"""
    scheme: str | None = flag(None, choices=TARGETS)
    """tag scheme to `convert` to"""
    seed: int = flag(0)
    """random seed of the dev split that is cut from train where a corpus has none"""

    def __post_init__(self) -> None:
        if self.name == CONVERT and not self.scheme:
            raise UserError(f"--scheme not given; convert needs one of {', '.join(TARGETS)}")
        if self.name != CONVERT and self.scheme:
            raise UserError(
                f"--scheme {self.scheme} found; a corpus is written in BMES, as the experiments "
                "expect: use `convert` on the result"
            )


def parse_arguments(argv: list[str] | None = None) -> PrepareSettings:
    """Read the command line of `python scripts/prepare_data.py`."""
    endings = ", ".join(f"{recipe.file_name} for {name}" for name, recipe in RECIPES.items())
    return read_command(
        PrepareSettings,
        argv,
        "Turn a published corpus into {train,dev,test}.FILE_NAME (BMES) and ner_labels.txt, and compare its "
        "sizes with the published ones; or convert column files to another tag scheme. By default, FILE_NAME "
        f"is what the experiments expect ({endings}), and the scheme's name for `convert`.",
        "python scripts/prepare_data.py",
    )


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    paths = settings.raw, settings.out
    if settings.scheme:
        convert(*paths, settings.scheme, settings.file_name, settings.comments)
    else:
        sizes = prepare(settings.name, *paths, settings.file_name, settings.seed, settings.comments)
        print(size_table(settings.name, sizes))


if __name__ == "__main__":
    run_main(main)
