"""Print the paper's five tables with measured results beside the published ones.

    python -m knn_ner.tables --runs outputs

reads every `knn_results.json` below `outputs`, prints the tables, and writes them to `outputs/tables.md` and
`outputs/tables.csv`.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from knn_ner.utils.arguments import flag, output_folder
from knn_ner.utils.command import read_command, run_main

logger = logging.getLogger("knn_ner.tables")


@dataclass(frozen=True, kw_only=True)
class TablesSettings:
    """The settings of `python -m knn_ner.tables`."""

    runs: str = flag("outputs", metavar="DIR")
    """folder with the results"""
    out: str | None = flag(None, metavar="DIR", parse=output_folder)
    """folder for tables.md and tables.csv (if not given: that of --runs)"""


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = read_command(
        TablesSettings,
        argv,
        "Print and write the paper's five tables with measured results beside the published ones.",
        "python -m knn_ner.tables",
    )
    from knn_ner.experiment.paper_tables import collect_results, make_lines, to_csv, to_markdown
    from knn_ner.utils.files import write_text

    results, notes = collect_results(settings.runs)
    for note in notes:
        logger.info(note)
    logger.info(f"{settings.runs}: {len(results)} results")
    lines = make_lines(results)
    markdown = to_markdown(lines)
    out = Path(settings.out or settings.runs)
    write_text(out / "tables.md", markdown)
    write_text(out / "tables.csv", to_csv(lines))
    print(markdown, end="")
    logger.info(f"written: {out / 'tables.md'}, {out / 'tables.csv'}")


if __name__ == "__main__":
    run_main(main)
