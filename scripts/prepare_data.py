"""Turn a published corpus into the files that the experiments read.

    python scripts/prepare_data.py weibo --raw DIR --out data/weibo
    python scripts/prepare_data.py convert --raw FILE_OR_DIR --out DIR --scheme bio

docs/data.md says where each corpus comes from and what it may be used for.
"""

import sys
from pathlib import Path

# So that the script runs from any folder, with or without the package installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from knn_ner.cli import Parser, run_main
from knn_ner.errors import UserError
from knn_ner.preparation.conversion import TARGETS
from knn_ner.preparation.corpora import RECIPES
from knn_ner.preparation.prepare import convert, prepare


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    endings = ", ".join(f"{name}: {recipe.file_name}" for name, recipe in RECIPES.items())
    parser = Parser(
        "Turn a published corpus into {train,dev,test}.FILE_NAME (BMES) and ner_labels.txt, and hold "
        "it against its published sizes; or convert column files to another tag scheme.",
        prog="python scripts/prepare_data.py",
    )
    parser.add_argument("name", choices=[*RECIPES, "convert"], help="a corpus, or `convert`")
    parser.add_argument("--raw", required=True, metavar="DIR", help="the published files")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the result")
    parser.add_argument(
        "--file_name",
        metavar="F",
        help=f"ending of the files (default: what the experiments expect: {endings}; after "
        "`convert` the scheme)",
    )
    parser.add_argument("--scheme", choices=TARGETS, help="tag scheme to `convert` to")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the dev part that is cut where a corpus has none"
    )
    arguments = parser.parse_args(argv)
    if arguments.name == "convert":
        if not arguments.scheme:
            raise UserError(f"--scheme not given; convert needs one of {', '.join(TARGETS)}")
        convert(arguments.raw, arguments.out, arguments.scheme, arguments.file_name)
        return
    if arguments.scheme:
        raise UserError(
            f"--scheme {arguments.scheme} found; a corpus is written in BMES, as the experiments "
            "expect: use `convert` on the result"
        )
    prepare(arguments.name, arguments.raw, arguments.out, arguments.file_name, arguments.seed)


if __name__ == "__main__":
    run_main(main)
