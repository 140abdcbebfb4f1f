"""Write the label set of a corpus.

    python get_labels.py --data-dir D --file-name F

makes `D/ner_labels.txt`: one tag a line, `O` first, then by type and position.
"""

from pathlib import Path

from knn_ner.cli import Parser, run_main, say
from knn_ner.data.corpus import read_corpus
from knn_ner.data.tags import sort_labels
from knn_ner.files import write_text


def write_labels(data_dir: str | Path, file_name: str) -> list[str]:
    """Write `ner_labels.txt` beside a corpus and return the labels.

    Tags that the training split lacks are included, since a label set must cover what is scored, and
    named in a warning, since a tagger cannot learn them.

    Raises `UserError` for anything that the reader refuses.
    """
    corpus = read_corpus(data_dir, file_name)
    for line in corpus.describe():
        say(line)
    tags = {
        split: {tag for sentence in sentences for tag in sentence.tags}
        for split, sentences in corpus.splits.items()
    }
    labels = sort_labels(set().union(*tags.values()))
    path = Path(data_dir) / "ner_labels.txt"
    write_text(path, "".join(f"{label}\n" for label in labels))
    unseen = [label for label in labels if label not in tags["train"] and label != "O"]
    if unseen:
        where = " and ".join(split for split in ("dev", "test") if tags[split] & set(unseen))
        say(
            f"warning: {len(unseen)} of {len(labels)} labels occur only in {where}, so that no "
            f"tagger can learn them: {', '.join(unseen)}"
        )
    say(f"{path}: {len(labels)} labels")
    return labels


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser("Write D/ner_labels.txt: one tag a line, O first.", prog="python get_labels.py")
    parser.add_argument(
        "--data-dir", "--data_dir", required=True, metavar="D", help="corpus folder"
    )
    parser.add_argument(
        "--file-name",
        "--file_name",
        required=True,
        metavar="F",
        help="ending of the corpus files: `word.bmes` for train.word.bmes",
    )
    arguments = parser.parse_args(argv)
    write_labels(arguments.data_dir, arguments.file_name)


if __name__ == "__main__":
    run_main(main)
