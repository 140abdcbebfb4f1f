"""Write the label set of a corpus.

    python get_labels.py --data-dir D --file-name F

makes `D/ner_labels.txt`: one tag a line, `O` first, then by type and position.
"""

import logging
from pathlib import Path

from knn_ner.data.corpus import read_corpus
from knn_ner.data.tags import sort_labels
from knn_ner.settings import CorpusSettings
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.files import write_text

logger = logging.getLogger("knn_ner.get_labels")


def write_labels(data_dir: str | Path, file_name: str, comments: str | None = None) -> list[str]:
    """Write `ner_labels.txt` beside a corpus and return the labels.

    Tags that the training split lacks are included, since a label set must cover what is scored, and
    named in a warning, since a tagger cannot learn them.

    Raises `UserError` for anything that the reader refuses.
    """
    corpus = read_corpus(data_dir, file_name, comments=comments)
    corpus.report()
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
        logger.warning(
            f"{len(unseen)} of {len(labels)} labels occur only in {where}, so that no "
            f"tagger can learn them: {', '.join(unseen)}"
        )
    logger.info(f"{path}: {len(labels)} labels")
    return labels


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = read_command(
        CorpusSettings,
        argv,
        "Write D/ner_labels.txt: one tag a line, O first.",
        "python get_labels.py",
    )
    write_labels(settings.data_dir, settings.file_name, settings.comments)


if __name__ == "__main__":
    run_main(main)
