"""The script folders of rows of the paper's tables.

    python -m knn_ner.experiment.rows weibo_zh bert/conll_bert_base

prints one folder on each line; `scripts/reproduce.sh` runs their scripts.
"""

from knn_ner.experiment.paper import published_experiments
from knn_ner.utils.arguments import Parser
from knn_ner.utils.command import run_main
from knn_ner.utils.errors import UserError


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = Parser(
        "Print the script folders of rows of the paper's tables.",
        prog="python -m knn_ner.experiment.rows",
    )
    parser.add_argument(
        "rows", nargs="+", metavar="ROW", help="`all`, a dataset, or a folder of scripts"
    )
    folders: dict[str, None] = {}
    for row in parser.parse_args(argv).rows:
        found = {
            experiment.script_dir: None
            for experiment in published_experiments()
            if row.rstrip("/") in ("all", experiment.dataset, experiment.script_dir)
        }
        if not found:
            datasets = ", ".join({each.dataset: None for each in published_experiments()})
            raise UserError(
                f"row {row!r} found, expected all, a dataset ({datasets}) or a folder of scripts such as "
                "bert/weibo_bert_base_zh"
            )
        folders |= found
    print("\n".join(folders))


if __name__ == "__main__":
    run_main(main)
