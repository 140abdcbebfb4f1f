"""The paper's five tables, published and measured side by side.

    python -m knn_ner.tables --runs outputs

finds every `knn_results.json` below `outputs`, prints the tables, and writes them to `tables.md` and
`tables.csv` there.
"""

from pathlib import Path

from knn_ner.cli import Parser, run_main, say
from knn_ner.evaluation.tables import collect_results, make_lines, to_csv, to_markdown
from knn_ner.files import write_text


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(
        "Print and write the paper's five tables: published and measured side by side.",
        prog="python -m knn_ner.tables",
    )
    parser.add_argument(
        "--runs", default="outputs", metavar="DIR", help="folder that holds the results"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for tables.md and tables.csv (default: that of --runs)"
    )
    arguments = parser.parse_args(argv)
    results, notes = collect_results(arguments.runs)
    for note in notes:
        say(note)
    say(f"{arguments.runs}: {len(results)} results")
    lines = make_lines(results)
    markdown = to_markdown(lines)
    out = Path(arguments.out or arguments.runs)
    write_text(out / "tables.md", markdown)
    write_text(out / "tables.csv", to_csv(lines))
    print(markdown, end="")
    say(f"written: {out / 'tables.md'}, {out / 'tables.csv'}")


if __name__ == "__main__":
    run_main(main)
