"""Several experiments side by side: a table, and plots of gain by corpus and of tokens searched.

    python -m knn_ner.compare S1 S2 ... --save_path O

reads `experiment.json` of each folder, as `knn_ner.experiment` writes it, and writes `O/compare.md` and the
plots `O/gains` and `O/searched` (.png and .svg).
"""

from pathlib import Path
from typing import Any

from knn_ner.cli import Parser, run_main, say
from knn_ner.errors import UserError
from knn_ner.evaluation.plots import draw_gains, draw_search_share
from knn_ner.evaluation.plotting import save
from knn_ner.experimenting.page import compared_table
from knn_ner.files import read_json, write_text


def read_experiment(folder: Path) -> dict[str, Any]:
    """What `experiment.json` in a folder holds.

    Raises `UserError` when there is none, or it is another file.
    """
    path = folder / "experiment.json"
    results = read_json(path)
    expected = {"corpus", "seeds", "comparisons", "oracle", "per_seed"}
    if not isinstance(results, dict) or not expected <= set(results):
        raise UserError(f"{path}: expected a file of knn_ner.experiment, found another one")
    return results


def compare(folders: list[str], save_path: Path) -> str:
    """Write table and plots; returns the table."""
    experiments = [read_experiment(Path(folder)) for folder in folders]
    markdown = compared_table(experiments)
    save(draw_gains(experiments), save_path / "gains")
    save(draw_search_share(experiments), save_path / "searched")
    write_text(save_path / "compare.md", markdown)
    return markdown


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(
        "Show several experiments side by side: a table, and plots of gain and of tokens searched.",
        prog="python -m knn_ner.compare",
    )
    parser.add_argument("folders", nargs="+", metavar="S", help="folders of knn_ner.experiment")
    parser.add_argument(
        "--save_path", required=True, metavar="O", help="folder for table and plots"
    )
    settings = parser.parse_args(argv)
    save_path = Path(settings.save_path)
    print(compare(settings.folders, save_path), end="")
    say(f"written: compare.md, gains and searched (.png, .svg) in {save_path}")


if __name__ == "__main__":
    run_main(main)
