"""The experiments that rows of the paper's tables stand for, by the folders of their scripts.

    python -m knn_ner.experiment.rows weibo_zh bert/conll_bert_base

prints a folder a line; scripts/reproduce.sh runs them.
"""

from collections.abc import Sequence

from knn_ner.experiment.paper import experiments
from knn_ner.utils.arguments import Parser
from knn_ner.utils.command import run_main
from knn_ner.utils.errors import UserError


def script_dirs(rows: Sequence[str]) -> list[str]:
    """The script folders that are asked for, each once, in the order asked for.

    rows: `all`, a dataset (`weibo_zh`) or a folder (`bert/weibo_bert_base_zh`).

    Raises `UserError` for a row that is none of these.
    """
    known = experiments()
    datasets = dict.fromkeys(experiment.dataset for experiment in known)
    found: dict[str, None] = {}
    for row in rows:
        folders = [
            experiment.script_dir
            for experiment in known
            if row.rstrip("/") in ("all", experiment.dataset, experiment.script_dir)
        ]
        if not folders:
            raise UserError(
                f"row {row!r} found, expected all, a dataset ({', '.join(datasets)}) or a folder of "
                "scripts such as bert/weibo_bert_base_zh"
            )
        found.update(dict.fromkeys(folders))
    return list(found)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(
        "Print the script folders of rows of the paper's tables.",
        prog="python -m knn_ner.experiment.rows",
    )
    parser.add_argument(
        "rows", nargs="+", metavar="ROW", help="`all`, a dataset, or a folder of scripts"
    )
    print("\n".join(script_dirs(parser.parse_args(argv).rows)))


if __name__ == "__main__":
    run_main(main)
